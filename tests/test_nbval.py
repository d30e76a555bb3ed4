"""nbval does its work here: a changed number in a stable cell fails, an unchanged one passes."""

import subprocess
import sys

import nbformat
import pytest
from notebook_files import ROOT


def run_nbval(folder, notebook):
    path = folder / "copy.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT]
    command += ["--nbval", "-p", "no:xdist", "-o", "addopts=", "--confcutdir", ROOT, "-q", path]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.fixture
def copy():
    """The first cells of notebook 01 and its table of Gaussian costs, as committed."""
    notebook = nbformat.read(ROOT / "notebooks" / "01_vae_recap.ipynb", as_version=4)
    wanted = ("imports", "scale")
    notebook.cells = [cell for cell in notebook.cells if cell.id in wanted]
    assert len(notebook.cells) == 2 and "1000 nats" in notebook.cells[1].outputs[0].text
    return notebook


def test_the_committed_cells_pass(copy, tmp_path):
    result = run_nbval(tmp_path, copy)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def test_a_changed_number_fails(copy, tmp_path):
    output = copy.cells[1].outputs[0]
    output.text = output.text.replace("1000 nats", "1001 nats")
    result = run_nbval(tmp_path, copy)
    assert result.returncode == 1, result.stdout
    assert "1 failed, 1 passed" in result.stdout
