#!/usr/bin/env python3
"""Open the course, or test it, on a machine with Python 3.10 or newer and nothing else.

    python3 course.py                      open the course in JupyterLab
    python3 course.py 01_vae_recap         open that notebook
    python3 course.py project 01_vae_recap open it for a class: larger, models already trained
    python3 course.py html site            write the course as web pages, into that folder
    python3 course.py test                 run every test, notebooks included
    python3 course.py refresh 01_vae_recap run a notebook again and keep its new outputs
    python3 course.py weights 01_vae_recap train its models again and keep their weights

The first call makes a virtual environment in `.venv/` and installs `requirements.txt` there;
nothing else on the machine is touched. What follows the first word goes to JupyterLab or pytest.
"""

import hashlib
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
# Written last: it says that the environment holds what these two files ask for.
STAMP = VENV / "installed.sha256"
SOURCES = [ROOT / "requirements.txt", ROOT / "pyproject.toml"]


def main(arguments):
    if sys.version_info < (3, 10):
        sys.exit(f"The course needs Python 3.10 or newer; this is {sys.version.split()[0]}.")
    if arguments[:1] in (["-h"], ["--help"], ["help"]):
        print(__doc__)
        return 0
    # Threads that wait sleep instead of spinning: two notebooks at once do not starve each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    install()
    if arguments[:1] == ["test"]:
        return test(arguments[1:])
    if arguments[:1] == ["html"]:
        folder = Path(*arguments[1:2] or ["site"]).resolve()
        return run(ROOT / ".ci" / "pages.py", folder)
    if arguments[:1] in (["refresh"], ["weights"]):
        return rerun(*arguments)
    if arguments[:1] == ["project"]:
        return project(*arguments[1:])
    return open_lab(arguments)


def run(*arguments):
    """Run the environment's Python; Ctrl-C is for it to handle, and we wait until it has."""
    with subprocess.Popen([PYTHON, *arguments], cwd=ROOT) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                pass


def notebook_path(name):
    path = ROOT / "notebooks" / (Path(name).stem + ".ipynb")
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.ipynb")))
        sys.exit(f"There is no notebook {name!r}. The notebooks: {known}.")
    return path


def open_lab(arguments):
    name = "00_accueil"
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    return lab(str(notebook_path(name)), *arguments)


# Nothing a demo sends to the browser waits: see course_server.py.
NO_DELAY = "--ServerApp.jpserver_extensions=course_server=True"


def lab(first, *arguments):
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return run("-m", "jupyterlab", first, NO_DELAY, *as_root, *arguments)


QUIET = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
# JupyterLab on a projector: type for the back of the room, nothing around the notebook.
PROJECTION = {
    "apputils-extension/themes": {
        "theme": "JupyterLab Light",
        "overrides": {"code-font-size": "17px", "content-font-size1": "20px"},
    },
    "statusbar-extension/plugin": {"visible": False},
    "notebook-extension/tracker": {"codeCellConfig": {"lineWrap": True}},  # no line is cut off
}


def lab_settings(folder, settings):
    """Write settings of JupyterLab's plugins; gives the variable that makes it read them."""
    for plugin, values in settings.items():
        file = folder / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    return {"JUPYTERLAB_SETTINGS_DIR": str(folder)}


def project(name="00_accueil", *arguments):
    """Open a notebook alone on the screen (JupyterLab's « Simple » interface), for a class."""
    path = notebook_path(name).relative_to(ROOT).as_posix()
    os.environ |= lab_settings(VENV / "projection", PROJECTION | QUIET)
    os.environ["COURSE_PROJECTION"] = "1"
    os.environ.setdefault("COURSE_PRETRAINED", "1")
    page = f"--LabApp.default_url=/doc/tree/{path}?reset"
    return lab(page, f"--ServerApp.root_dir={ROOT}", *arguments)


def test(arguments):
    """All the tests; those in a browser afterwards, alone: they measure how fast demos answer."""
    if arguments:
        return run("-m", "pytest", *arguments)
    status = run("-m", "pytest", "--ignore=tests/browser")
    return run("-m", "pytest", "tests/browser", "--numprocesses=0") or status


def rerun(what, *names):
    """Run notebooks from top to bottom: what a contributor does after editing one."""
    if not names:
        sys.exit(f"Which notebook? For instance: python3 course.py {what} 01_vae_recap")
    paths = [notebook_path(name) for name in names]
    return run(ROOT / ".ci" / "refresh.py", what, *paths)


def install():
    # The folder's own place counts: the editable package is found by its path.
    asked = b"".join([str(ROOT).encode(), *(path.read_bytes() for path in SOURCES)])
    wanted = hashlib.sha256(asked).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted and PYTHON.exists():
        return
    print("Installing the course in .venv/ (PyTorch is large: count several minutes) …", flush=True)
    if not (PYTHON.exists() and list(VENV.glob("**/site-packages/pip"))):
        try:
            import ensurepip  # noqa: F401
        except ImportError:  # Debian without its package python3-venv
            venv.create(VENV, with_pip=False, clear=True)
            fetch_pip()
        else:
            venv.create(VENV, with_pip=True, clear=True)
    status = run("-m", "pip", "install", "--disable-pip-version-check", "-r", str(SOURCES[0]))
    if status:
        sys.exit(
            "The installation stopped (see above). Check the network and the free disk space "
            "(about 7 GB), and that PyTorch exists for this Python and this processor "
            "(https://pytorch.org/get-started). Then run the same command again."
        )
    STAMP.write_text(wanted)


def fetch_pip():
    """Put pip into the environment from its own wheel on PyPI, checked against its SHA-256."""
    index = "https://pypi.org/pypi/pip/json"
    try:
        with urllib.request.urlopen(index, timeout=60) as answer:
            files = json.load(answer)["urls"]
        wheel = next(file for file in files if file["packagetype"] == "bdist_wheel")
        address = urllib.parse.urljoin(index, wheel["url"])  # a mirror's may be relative
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read()
    except (OSError, ValueError) as error:
        sys.exit(f"pip could not be fetched from PyPI ({error}): check the network and try again.")
    if hashlib.sha256(content).hexdigest() != wheel["digests"]["sha256"]:
        sys.exit("The download of pip is damaged: run the same command again.")
    path = VENV / wheel["filename"]
    path.write_bytes(content)
    # A wheel is a zip file, and Python runs the package inside it.
    subprocess.check_call([PYTHON, f"{path}/pip", "install", "--no-index", str(path)])
    path.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
