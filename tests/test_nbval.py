"""nbval does its work here: a changed number in a stable cell fails, an unchanged one passes."""

import subprocess
import sys

import nbformat
from notebook_files import ROOT


def test_a_changed_number_fails(tmp_path):
    """Two cells of notebook 01, imports and a table of costs; the notebooks themselves pass."""
    notebook = nbformat.read(ROOT / "notebooks" / "01_vae_recap.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id in ("imports", "scale")]
    output = notebook.cells[1].outputs[0]
    assert "1000 nats" in output.text
    output.text = output.text.replace("1000 nats", "1001 nats")
    path = tmp_path / "copy.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT]
    command += ["--nbval", "-p", "no:xdist", "-o", "addopts=", "--confcutdir", ROOT, "-q", path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert result.returncode == 1 and "1 failed, 1 passed" in result.stdout, result.stdout
