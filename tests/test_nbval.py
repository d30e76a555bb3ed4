"""nbval as `conftest.py` sets it: a changed number fails, a changed duration does not."""

import subprocess
import sys

import nbformat
from notebook_files import ROOT


def cell(prints, committed):
    output = nbformat.v4.new_output("stream", text=committed)
    source = f"print({prints!r}, end='')"
    return nbformat.v4.new_code_cell(source, outputs=[output], execution_count=1)


def test_a_changed_number_fails_and_a_changed_duration_does_not(tmp_path):
    cells = [cell("60 pas en 3 s.", "60 pas en 15 s."), cell("1000 nats", "1001 nats")]
    path = tmp_path / "copy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT]
    command += ["--nbval", "-p", "conftest", "-p", "no:xdist", "-o", "addopts=", "-q", path]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert "1 failed, 1 passed" in result.stdout and "1001 nats" in result.stdout, result.stdout
