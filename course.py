#!/usr/bin/env python3
"""Open the course, or test it, on a machine with Python 3.10 or newer and nothing else.

    python3 course.py                      open the course in JupyterLab
    python3 course.py 01                   open that notebook
    python3 course.py en 01                the same in English; en goes with reset, project, refresh
    python3 course.py reset 01             that notebook as it came; yours is kept beside it
    python3 course.py project 01           open it for a class: larger, models already trained
    python3 course.py marks FOLDER         the marks of a class, from the notebooks it sent
    python3 course.py html site            write the course as web pages, into that folder
    python3 course.py html --solutions X   the same into X, with each exercise solved
    python3 course.py test                 run every test, notebooks included
    python3 course.py refresh 01           run a notebook again and keep its new outputs
    python3 course.py weights 01           train its models again and keep their weights
    python3 course.py translate            bring the other languages up to date

The first call makes a virtual environment in `.venv/` and installs `requirements.txt` there;
nothing else on the machine is touched. You work on copies of the notebooks, in `work/`, which no
new version of the course overwrites. What follows the first word goes to JupyterLab or pytest.
"""

import ast
import datetime
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
NOTEBOOKS = ROOT / "notebooks"
WORK = ROOT / "work"  # copies of these, for the one who works here
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
REQUIREMENTS = ROOT / "requirements.txt"
SCRIPTS = {"html": "pages.py", "marks": "marks.py", "translate": "translate.py"}  # in .ci/
# PyTorch and torchvision without CUDA, the matching pair (https://pytorch.org/get-started)
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"

# Variables by which users tell their own Python, Jupyter, matplotlib or pytest what to do, and the
# folders where these keep settings: what this file starts sees none of them.
FOREIGN = ("PYTHON", "PIP_PYTHON", "JUPYTER", "IPYTHON", "MPL", "MATPLOTLIB", "PYTEST")
OWN_FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
# Of pip's settings, those that say how to reach packages; not where to put them, nor which.
REACH = (
    "index-url", "extra-index-url", "no-index", "find-links", "constraint", "trusted-host", "proxy",
    "cert", "client-cert", "timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir",
    "keyring-provider", "use-feature",
)  # fmt: skip


def main(arguments):
    if sys.version_info < (3, 10):
        sys.exit(f"The course needs Python 3.10 or newer; this is {sys.version.split()[0]}.")
    what, *others = arguments or [""]
    if what in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if what in ("reset", "refresh", "weights") and not others:
        sys.exit(f"Which notebook? For instance: python3 course.py {what} 01")
    if what == "reset":
        return reset(others)
    install()
    if what == "test":
        return run("-m", "pytest", *others)
    if what in SCRIPTS:
        return run(ROOT / ".ci" / SCRIPTS[what], *others, folder=Path.cwd())
    if what in ("refresh", "weights"):  # what a contributor does after editing a notebook
        return run(ROOT / ".ci" / "refresh.py", what, *named(others, NOTEBOOKS)[0])
    if what == "project":
        return project(others)
    return open_lab(arguments)


def run(*arguments, world=None, folder=ROOT):
    """Run the environment's Python; Ctrl-C is for it to handle, and we wait until it has."""
    world = own_world() if world is None else world
    with subprocess.Popen([PYTHON, *arguments], cwd=folder, env=world) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                pass


def own_world():
    """The variables of what this file starts: no setting of the user's own tools is among them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    # Threads that wait sleep instead of spinning: two notebooks at once do not starve each other.
    world = {"OMP_WAIT_POLICY": "PASSIVE"} | kept | {"PYTHONUTF8": "1"}
    return world | {name: str(settings_folder() / name.lower()) for name in OWN_FOLDERS}


@functools.cache
def settings_folder():
    """In the environment; elsewhere for those who share one that they cannot write."""
    shared = VENV.exists() and not os.access(VENV, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="course-")) if shared else VENV / "settings"


def open_lab(arguments):
    paths, options = named(arguments, own_copies())
    return lab(f"/lab/tree/{paths[0]}", *options)


def own_copies():
    """`work/`, with its copies: one that nobody changed follows the new versions of the course.

    Where the course is shared by people who cannot write there, its own notebooks.
    """
    if not os.access(ROOT, os.W_OK):
        return NOTEBOOKS
    record = WORK / ".copied.json"
    copied = json.loads(read(record) or "{}")
    for path in [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("[!.]*/*.ipynb")]:
        name = path.relative_to(NOTEBOOKS).as_posix()
        own, new = WORK / name, digest(path)
        now = digest(own) if own.exists() else None
        if now in (None, copied.get(name), new):
            if now != new:
                own.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, own)
            copied[name] = new
    record.write_text(json.dumps(copied))
    return WORK


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reset(arguments):
    """Copy a notebook as it came; the copy that was there stays beside it, with the date."""
    place = WORK if os.access(ROOT, os.W_OK) else Path.cwd()
    for path in named(arguments, NOTEBOOKS)[0]:
        name = Path(*Path(path).parts[1:])  # in notebooks/, or in work/
        own = place / name
        if not (NOTEBOOKS / name).is_file():
            sys.exit(f"{path} is no notebook of the course: nothing was changed.")
        if own.exists():
            day = f"{datetime.date.today()}"
            days = itertools.chain([day], (f"{day}.{number}" for number in itertools.count(2)))
            kept = next(k for d in days if not (k := own.with_suffix(f".{d}.ipynb")).exists())
            own.rename(kept)
            print(f"Yours is kept: {kept}")
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(NOTEBOOKS / name, own)
        print(f"As it came: {own} (if it is open: File > Reload Notebook from Disk)")


def named(arguments, place):
    """The notebooks that are named, or the first, in the language asked for; the other arguments.

    They are those of `place`: `notebooks/`, or the copies in `work/`. A language is a folder there;
    French, where none is named, unless COURSE_LANG is set.
    """
    languages = {path.parent.name: path.parent for path in NOTEBOOKS.glob("[!.]*/*.ipynb")}
    languages["fr"] = NOTEBOOKS
    names = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = arguments[len(names) :]
    asked = [name for name in names if name in languages] or [os.environ.get("COURSE_LANG") or "fr"]
    if asked[0] not in languages:
        sys.exit(f"COURSE_LANG={asked[0]}: the course speaks {', '.join(sorted(languages))}.")
    folder = languages[asked[0]]
    names = [name for name in names if name not in languages]
    return [notebook_path(name, folder, place) for name in names or ["00"]], options


def notebook_path(name, folder, place):
    """A notebook, from its name or the beginning of it, or from its path."""
    if (whole := ROOT / name).is_file():
        return whole.relative_to(ROOT).as_posix()
    known = sorted(folder.glob("*.ipynb"))
    found = [path for path in known if path.stem.startswith(Path(name).stem)]
    if not found:
        stems = ", ".join(path.stem for path in known)
        sys.exit(f"There is no notebook {name!r}. The notebooks: {stems}.")
    return (place / found[0].relative_to(NOTEBOOKS)).relative_to(ROOT).as_posix()


def lab(page, *arguments, settings=None):
    options = [f"--LabApp.default_url={page}", f"--ServerApp.root_dir={ROOT}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append("--allow-root")
    return run("-m", "jupyterlab", *options, *arguments, world=own_world() | (settings or {}))


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
TABLES = """
body .jp-RenderedHTMLCommon table {font-size: 0.85em}
body .jp-RenderedHTMLCommon :is(td, th) {padding: 0.2em 0.5em}
"""  # those of JupyterLab do not grow with its text


def lab_settings(folder, settings):
    """Write settings of JupyterLab's plugins; gives the variable that makes it read them."""
    for plugin, values in settings.items():
        file = folder / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    return {"JUPYTERLAB_SETTINGS_DIR": str(folder)}


def project(arguments):
    """Open a notebook alone on the screen (JupyterLab's « Simple » interface), for a class."""
    paths, options = named(arguments, own_copies())
    settings = lab_settings(settings_folder() / "projection", PROJECTION | QUIET)
    settings["COURSE_PROJECTION"] = "1"
    settings["COURSE_PRETRAINED"] = os.environ.get("COURSE_PRETRAINED", "1")
    style = settings_folder() / "jupyter_config_dir" / "custom" / "custom.css"
    style.parent.mkdir(parents=True, exist_ok=True)
    style.write_text(TABLES)
    return lab(f"/doc/tree/{paths[0]}?reset", "--custom-css", *options, settings=settings)


def install():
    """Make the environment, unless it holds what this version of the course asks for."""
    asked = digest(REQUIREMENTS)
    packages = packages_folder()
    if packages and asked in read(packages / "course.pth"):
        return
    print("Installing the course in .venv (PyTorch is large: count several minutes)", flush=True)
    try:
        if not packages or not (packages / "pip").exists():
            make_environment()
            packages = packages_folder()
        command = ["-m", "pip", "install", *build_of_torch(), "-r", REQUIREMENTS]
        if run(*command, world=pip_world(PYTHON)):
            sys.exit(
                "The installation stopped (see above). Check the network and the free disk space "
                "(2 GB, or 7 GB with CUDA), and that PyTorch exists for this Python and this "
                "processor (https://pytorch.org/get-started). Then run the same command again."
            )
        # Written last, where the Python that runs will look for it: this file of paths makes it
        # find the course, and says what is installed.
        paths = f"# {asked}\n{os.path.relpath(ROOT, packages)}\n"
        (packages / "course.pth").write_text(paths)
    except PermissionError as error:
        sys.exit(
            f"{error.filename} cannot be written: copy the folder of the course to a place that "
            "is yours, and run the same command there."
        )


def build_of_torch():
    """Options of pip: CUDA weighs 4 GB, which Linux without an NVIDIA card can do without.

    `COURSE_TORCH=cpu` or `default` in the environment has the last word.
    """
    card = Path("/proc/driver/nvidia/version").exists()
    usual = "cpu" if sys.platform == "linux" and not card else "default"
    if os.environ.get("COURSE_TORCH", usual) != "cpu":
        return []
    import urllib.request  # slow to import, and of no use to a course that is installed

    try:
        urllib.request.urlopen(CPU_WHEELS + "/torch/", timeout=5).close()
    except (OSError, ValueError) as error:  # the default build will do as well
        print(f"PyTorch without CUDA is out of reach ({error}): its default build comes instead.")
        return []
    return ["--extra-index-url", CPU_WHEELS]


def packages_folder():
    """Where the environment's Python keeps its packages; None if it does not start."""
    try:
        answer = ask("-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    except OSError:  # there is none, or it points to a Python that is gone
        return None
    return None if answer.returncode else Path(answer.stdout.strip())


def ask(*arguments, python=PYTHON):
    command = [python, *arguments]
    return subprocess.run(command, env=own_world(), capture_output=True, encoding="utf-8")


def read(path):
    return path.read_text() if path.exists() else ""


def make_environment():
    """A new environment, with pip: Python's own, else that of another pip, or of uv."""
    ours = importlib.util.find_spec("ensurepip") is not None  # Debian has it in a package apart
    venv.create(VENV, with_pip=ours, clear=True, symlinks=os.name != "nt")
    world = pip_world(sys.executable)
    others = [[sys.executable, "-m", "pip", "--python", PYTHON, "install", "pip"]]
    if shutil.which("uv"):
        others.append(["uv", "pip", "install", "--python", PYTHON, "pip"])
    if not ours and all(subprocess.call(other, env=world) for other in others):
        shutil.rmtree(VENV)  # none of them could
        sys.exit(
            "This Python cannot put pip into an environment: install its module ensurepip (on "
            "Debian and Ubuntu: apt install python3-venv), then run the same command again."
        )


def pip_world(python):
    """The variables of an installation: of all that pip is told by the user, `REACH` remains."""
    listed = ask("-m", "pip", "config", "list", python=python).stdout
    told = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    world = {name: value for name, value in own_world().items() if not name.startswith("PIP_")}
    for section in ("global", "install", ":env:"):  # the last has the last word
        for key in REACH:
            if f"{section}.{key}" in told:
                value = ast.literal_eval(told[f"{section}.{key}"])
                world["PIP_" + key.upper().replace("-", "_")] = value
    return world | {"PIP_CONFIG_FILE": os.devnull}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
