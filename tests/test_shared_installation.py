"""A class on one machine: the course in a folder that nobody may write, a kernel per student."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from notebook_files import ROOT
from read_only import made_read_only, without_privileges

NOTEBOOK = "00_accueil.ipynb"

# What the kernel of each student runs besides the notebook: where its files would go.
SCRIPT = """
import course_utils, threadpoolctl, torch
from course_utils.data import data_root, load
print(course_utils.__file__)
print(data_root())
load(size=8)  # scikit-learn comes with libraries of its own
print(torch.get_num_threads(), {pool["num_threads"] for pool in threadpoolctl.threadpool_info()})
try:
    load("mnist")
except (ConnectionError, ImportError) as error:
    print(type(error).__name__)
"""


pytestmark = pytest.mark.skipif(without_privileges() is None, reason="no folder is read-only here")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the course that cannot be written."""
    checkout = tmp_path_factory.mktemp("shared") / "course"
    for name in ("course_utils", "notebooks", "data"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "raw", ".download*")
        shutil.copytree(ROOT / name, checkout / name, ignore=ignored)
    with made_read_only(checkout):
        yield checkout


@pytest.fixture
def students(tmp_path, checkout):
    """Two users: a home folder each, and the environment of their processes."""
    ours = {"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": ""}
    environments = []
    for name in ("alice", "bob"):
        home = tmp_path / name
        home.mkdir()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("COURSE_", "XDG_"))}
        offline = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
        environments.append(inherited | offline | ours | {"HOME": str(home)})
    return environments


def together(students, *command):
    """What a command of each student says, all at once."""
    processes = [
        subprocess.Popen(
            [*without_privileges(), sys.executable, *command], cwd=student["HOME"], env=student,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for student in students
    ]  # fmt: skip
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output
    return outputs


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_two_students_run_a_notebook_of_a_read_only_checkout(checkout, students):
    before = contents(checkout)
    with pytest.raises(AssertionError):  # the folder is read-only indeed
        together(students, "-c", f"open('{checkout}/notebooks/x', 'w')")
    command = ("-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--output-dir=.")
    together(students, *command, checkout / "notebooks" / NOTEBOOK)
    for student in students:
        executed = Path(student["HOME"], NOTEBOOK).read_text(encoding="utf-8")
        assert '"output_type": "error"' not in executed
    assert contents(checkout) == before


def test_what_a_student_downloads_goes_home_and_one_thread_is_enough(checkout, students):
    outputs = together(students, "-c", SCRIPT)
    for student, output in zip(students, outputs):
        package, root, threads, *_, error = output.splitlines()
        assert package.startswith(str(checkout)), "the shared installation is the one that runs"
        assert root.startswith(student["HOME"])
        assert threads == "1 {1}"
        assert error in ("ConnectionError", "ImportError"), "there is no network, or no torchvision"
