"""The launcher `course.py`: what it starts, and on which machines it installs."""

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile

import pytest
from notebook_files import NOTEBOOKS, ROOT
from read_only import made_read_only, without_privileges


@pytest.fixture
def course(monkeypatch, tmp_path):
    """The launcher, installed already; every command is recorded instead of run."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    course = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(course)
    course.status, course.ROOT = 0, tmp_path / "course"
    course.NOTEBOOKS, course.WORK = course.ROOT / "notebooks", course.ROOT / "work"
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        write(course.ROOT / path.relative_to(ROOT), "as it came")

    def run(*arguments, world=None, folder=None):
        course.command, course.world = " ".join(map(str, arguments)), world
        return course.status

    monkeypatch.setattr(course, "run", run)
    monkeypatch.setattr(course, "install", lambda: None)
    monkeypatch.setattr(course, "settings_folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return course


# ---- what each word starts --------------------------------------------------------------------

LAB, DOC = (f"-m jupyterlab --LabApp.default_url=/{view}/tree" for view in ("lab", "doc"))
IN_ROOT = "--ServerApp.root_dir=ROOT --no-browser"
LARGER = "?reset --ServerApp.root_dir=ROOT --custom-css --no-browser"
TWO = "notebooks/01_vae_recap.ipynb notebooks/02_cvae.ipynb"


@pytest.mark.parametrize(
    "asked, started",
    [
        ("test -k kl", "-m pytest -k kl"),
        ("html pages --solutions", "ROOT/.ci/pages.py pages --solutions"),
        ("marks sent --csv marks.csv", "ROOT/.ci/marks.py sent --csv marks.csv"),
        ("translate", "ROOT/.ci/translate.py"),
        ("refresh 01 02_cvae", f"ROOT/.ci/refresh.py refresh {TWO}"),
        ("refresh en 01", "ROOT/.ci/refresh.py refresh notebooks/en/01_vae_recap.ipynb"),
        ("weights 01_vae_recap 02_cvae", f"ROOT/.ci/refresh.py weights {TWO}"),
        ("--no-browser", f"{LAB}/work/00_accueil.ipynb {IN_ROOT}"),
        ("01_vae_recap --no-browser", f"{LAB}/work/01_vae_recap.ipynb {IN_ROOT}"),
        ("en --no-browser", f"{LAB}/work/en/00_welcome.ipynb {IN_ROOT}"),
        ("en 02 --no-browser", f"{LAB}/work/en/02_cvae.ipynb {IN_ROOT}"),
        ("notebooks/02_cvae.ipynb --no-browser", f"{LAB}/notebooks/02_cvae.ipynb {IN_ROOT}"),
        ("project en 01 --no-browser", f"{DOC}/work/en/01_vae_recap.ipynb{LARGER}"),
        ("project --no-browser", f"{DOC}/work/00_accueil.ipynb{LARGER}"),
    ],
)
def test_what_each_word_starts(asked, started, course):
    course.status = 1
    assert course.main(asked.split()) == 1
    command = course.command.replace(" --allow-root", "")  # where the user is root
    assert command.replace(str(course.ROOT), "ROOT") == started


def test_the_language_of_the_environment_is_that_of_the_notebook(course, monkeypatch):
    monkeypatch.setattr(course.os, "environ", {"COURSE_LANG": "en"})
    course.main(["01"])
    assert "/en/01_vae_recap.ipynb" in course.command
    course.main(["fr", "01"])
    assert "/work/01_vae_recap.ipynb" in course.command
    monkeypatch.setattr(course.os, "environ", {"COURSE_LANG": "xx"})
    with pytest.raises(SystemExit, match="COURSE_LANG=xx.*en, fr"):
        course.main(["01"])


@pytest.mark.parametrize("asked, pretrained", [({}, "1"), ({"COURSE_PRETRAINED": "0"}, "0")])
def test_a_projected_notebook_is_larger_and_trained_unless_told(
    asked, pretrained, course, monkeypatch, tmp_path
):
    monkeypatch.setattr(course.os, "environ", asked)
    course.main(["project", "01_vae_recap"])
    assert course.world["COURSE_PROJECTION"] == "1"
    assert course.world["COURSE_PRETRAINED"] == pretrained
    themes = "projection/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
    written = json.loads((tmp_path / themes).read_text())
    assert written["overrides"]["content-font-size1"] == "20px"
    style = tmp_path / "jupyter_config_dir" / "custom" / "custom.css"
    assert "table" in style.read_text() and "--custom-css" in course.command


@pytest.mark.parametrize(
    "asked, python, message",
    [
        (["reset"], (3, 10), "Which notebook.*reset 01"),
        (["refresh"], (3, 10), "Which notebook.*refresh 01"),
        (["weights"], (3, 10), "Which notebook.*weights 01"),
        (["99_nothing"], (3, 10), "99_nothing.*00_accueil, 01_vae_recap"),
        ([], (3, 9, 18), "Python 3.10 or newer"),
    ],
)
def test_what_is_refused(asked, python, message, course, monkeypatch):
    monkeypatch.setattr(course.sys, "version_info", python)
    with pytest.raises(SystemExit, match=message):
        course.main(asked)


# ---- the student's own copies -------------------------------------------------------------------


def test_a_new_version_of_the_course_reaches_the_copies_that_nobody_changed(course):
    course.main([])
    mine, other = course.WORK / "01_vae_recap.ipynb", course.WORK / "en" / "02_cvae.ipynb"
    write(mine, "my answers")
    for path in course.NOTEBOOKS.rglob("*.ipynb"):
        write(path, "a new version")
    course.main(["project", "01"])
    assert (mine.read_text(), other.read_text()) == ("my answers", "a new version")
    assert "work/" in (ROOT / ".gitignore").read_text().splitlines()  # nothing for git to merge


@pytest.mark.parametrize("asked", ["en 01", "work/en/01_vae_recap.ipynb"])
def test_a_notebook_is_reset_and_the_student_s_own_is_kept(asked, course):
    course.main([])
    mine = course.WORK / "en" / "01_vae_recap.ipynb"
    for answers in ("first", "second"):
        write(mine, answers)
        course.main(["reset", *asked.split()])
        assert mine.read_text() == "as it came"
    kept = sorted(path.name for path in mine.parent.glob("01*"))
    assert [re.sub(r"\d{4}-\d\d-\d\d", "DAY", name) for name in kept] == [
        "01_vae_recap.DAY.2.ipynb", "01_vae_recap.DAY.ipynb", "01_vae_recap.ipynb"
    ]  # fmt: skip
    assert [(mine.parent / name).read_text() for name in kept[:2]] == ["second", "first"]
    course.main(["en", "01"])
    assert "work/en/01_vae_recap.ipynb" in course.command


def test_where_the_course_is_shared_a_copy_is_reset_in_the_student_s_folder(course, monkeypatch):
    monkeypatch.setattr(course.os, "access", lambda path, mode: False)
    course.main(["reset", "01"])
    assert open("01_vae_recap.ipynb").read() == "as it came"
    course.main(["01"])
    assert "/tree/notebooks/01_vae_recap.ipynb" in course.command and not course.WORK.exists()


# ---- any machine: real installations, of packages that stand in for the course's ---------------

REPORT = """
import json, os, sys
import course_utils
print(json.dumps({
    "arguments": sys.argv[1:], "environment": dict(os.environ), "prefix": sys.prefix,
    "course": course_utils.__file__, "encoding": sys.stdout.encoding, "here": __file__,
}))
"""


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make_wheel(folder, name, version="1", **files):
    """A package that holds these files."""
    about, metadata = f"{name}-{version}.dist-info", f"Name: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\n{metadata}")
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\n{tags}")
        wheel.writestr(f"{about}/RECORD", "".join(f"{path},,\n" for path in wheel.namelist()))


class Machine:
    """A user's machine: a home, a copy of the launcher, an index of packages, no network."""

    def __init__(self, folder, environment=None):
        self.folder, self.home = folder / "cours d'été", folder / "home"
        self.home.mkdir()
        write(self.folder / "course_utils" / "__init__.py")
        write(self.folder / "requirements.txt", "jupyterlab\n")
        shutil.copy(ROOT / "course.py", self.folder)
        shutil.copytree(ROOT / "notebooks", self.folder / "notebooks")
        index = folder / "index"
        index.mkdir()
        make_wheel(index, "jupyterlab", **{"jupyterlab/__main__.py": REPORT})
        make_wheel(index, "another", **{"another.py": ""})
        if environment is not None:  # made beforehand: the same for every test
            shutil.copytree(environment, self.venv, symlinks=True)
        self.settings = {"PATH": os.environ["PATH"], "HOME": str(self.home)}
        self.settings |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
        self.settings["COURSE_TORCH"] = "default"  # nothing is asked of PyTorch's own index

    @property
    def venv(self):
        return self.folder / ".venv"

    def start(self, *before, **settings):
        """`python3 course.py`: its status, and all that it says."""
        return subprocess.run(
            [*(before or [sys.executable]), self.folder / "course.py"], cwd=self.home,
            env=self.settings | settings, capture_output=True, text=True,
        )  # fmt: skip

    def opens(self, installed=False, **settings):
        """What JupyterLab's stand-in was started with; a second call installs nothing."""
        first, again = (self.start(**settings) for _ in range(2))
        assert first.returncode == 0, first.stdout + first.stderr
        assert ("Installing" in first.stdout) != installed and "Installing" not in again.stdout
        report = json.loads(again.stdout.splitlines()[-1])
        assert report["prefix"] == str(self.venv) and report["here"].startswith(report["prefix"])
        assert report["course"] == str(self.folder / "course_utils" / "__init__.py")
        return report


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment that holds pip and nothing else."""
    folder = tmp_path_factory.mktemp("environment") / ".venv"
    subprocess.check_call([sys.executable, "-m", "venv", folder])
    return folder


@pytest.fixture
def machine(tmp_path, environment):
    return Machine(tmp_path, environment)


def test_a_bare_machine_opens_the_course(tmp_path):
    report = Machine(tmp_path).opens()
    assert "--LabApp.default_url=/lab/tree/work/00_accueil.ipynb" in report["arguments"]
    assert report["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("told", ["by its configuration", "by its variables"])
def test_pip_is_told_where_packages_come_from_but_not_where_they_go(told, machine):
    elsewhere = machine.home / "elsewhere"
    asked = {"user": "true", "target": elsewhere, "dry-run": "true"}
    if told == "by its variables":
        machine.opens(**{f"PIP_{k.replace('-', '_').upper()}": str(v) for k, v in asked.items()})
    else:
        links = machine.settings.pop("PIP_FIND_LINKS")
        lines = ["[global]", f"find-links = {links}", "[install]"]
        lines += [f"{key} = {value}" for key, value in asked.items()]
        write(machine.home / ".config/pip/pip.conf", "\n".join(lines))
        machine.opens()
    assert not elsewhere.exists() and not (machine.home / ".local").exists()


def test_settings_of_the_user_s_own_tools_are_not_those_of_the_course(machine):
    """Modules on PYTHONPATH are neither counted as installed nor imported; all is in UTF-8."""
    foreign = machine.home / "foreign"
    write(foreign / "jupyterlab-9.dist-info/METADATA", "Name: jupyterlab\nVersion: 9\n")
    for name in ("jupyterlab", "course_utils", "usercustomize"):
        write(foreign / f"{name}.py", "raise ImportError('of another project')")
    names = "JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTEST_ADDOPTS", "PYTHONWARNINGS", "MPLBACKEND"
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
    theirs = dict.fromkeys((*names, *own), "theirs")
    theirs |= {"PYTHONPATH": str(foreign), "PYTHONIOENCODING": "latin-1", "LC_ALL": "C"}
    report = machine.opens(**theirs)
    seen = report["environment"]
    assert not any(name in seen for name in names)
    assert all(seen[name].startswith(str(machine.venv)) for name in own)
    assert report["encoding"] == "utf-8"
    assert seen["PYTHONUTF8"] == "1"  # where C does not already mean UTF-8


def test_an_installation_follows_what_changes_around_it(machine):
    machine.opens()
    write(machine.folder / "requirements.txt", "jupyterlab\nanother\n")
    machine.opens()
    assert list(machine.venv.rglob("another.py"))

    # Python was upgraded: the packages are in the folder of one that no longer runs.
    (packages,) = (machine.venv / "lib").iterdir()
    packages.rename(packages.with_name("python3.9"))
    machine.opens()

    # Python is gone.
    for python in (machine.venv / "bin").glob("python*"):
        python.unlink()
        python.symlink_to("/nowhere/python3")
    machine.opens()

    machine.folder = machine.folder.rename(machine.home / "moved")
    machine.opens(installed=True)


def test_a_failed_installation_says_what_to_do_and_is_tried_again(machine):
    write(machine.folder / "requirements.txt", "missing\n")
    for _ in range(2):
        result = machine.start()
        assert result.returncode == 1 and "run the same command again" in result.stderr
        assert "Installing" in result.stdout


@pytest.fixture
def indexes(tmp_path):
    """Address of two stand-ins: `pypi` has a torch, `cpu` the same version without CUDA."""
    for folder, version in (("pypi", "1"), ("cpu", "1+cpu")):
        (tmp_path / "www" / folder / "torch").mkdir(parents=True)
        make_wheel(tmp_path / "www" / folder / "torch", "torch", version, **{"torch.py": ""})
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "asked, index, build",
    [("cpu", "cpu", "1+cpu"), ("cpu", "gone", "1"), ("default", "cpu", "1")],
)
def test_the_build_of_torch_without_cuda_comes_where_it_is_wanted_and_within_reach(
    asked, index, build, machine, indexes
):
    launcher = machine.folder / "course.py"
    source = re.sub(r"CPU_WHEELS = .*", f'CPU_WHEELS = "{indexes}/{index}"', launcher.read_text())
    write(launcher, source)
    write(machine.folder / "requirements.txt", "torch\n")
    del machine.settings["PIP_NO_INDEX"]
    result = machine.start(PIP_INDEX_URL=f"{indexes}/pypi", COURSE_TORCH=asked)
    (about,) = machine.venv.rglob("torch-*.dist-info")
    assert about.name == f"torch-{build}.dist-info"
    assert ("is out of reach" in result.stdout) == (index == "gone")


@pytest.mark.skipif(without_privileges() is None, reason="a folder that cannot be written")
@pytest.mark.parametrize("installed", [False, True])
def test_a_folder_that_cannot_be_written(installed, tmp_path, environment):
    """Shared and installed, it opens, with settings elsewhere; else a sentence says what to do."""
    machine = Machine(tmp_path, environment if installed else None)
    if installed:
        machine.opens()
    with made_read_only(machine.folder):
        result = machine.start(*without_privileges(), sys.executable)
    if installed:
        seen = json.loads(result.stdout.splitlines()[-1])["environment"]
        assert not seen["JUPYTER_CONFIG_DIR"].startswith(str(machine.folder))
    else:
        assert result.returncode == 1 and "Traceback" not in result.stderr
        assert ".venv cannot be written: copy the folder of the course" in result.stderr


BARE = """
import importlib.util, runpy, sys
find, sys.argv = importlib.util.find_spec, sys.argv[1:]
importlib.util.find_spec = lambda name: None if name == "ensurepip" else find(name)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
UV = """#!/bin/sh
[ "$1 $2 $3" = "pip install --python" ] || exit 2
{pip} --python "$4" install --no-index --find-links {index} "$5"
"""


@pytest.fixture
def debian(tmp_path):
    """A machine whose Python comes without ensurepip, and without pip."""
    machine = Machine(tmp_path)
    (bundled,) = importlib.util.find_spec("ensurepip").submodule_search_locations
    shutil.copytree(f"{bundled}/_bundled", tmp_path / "index", dirs_exist_ok=True)  # pip's wheel
    python = tmp_path / "system/bin/python"
    subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", tmp_path / "system"])
    machine.python = (python, write(tmp_path / "bare.py", BARE))
    return machine


@pytest.mark.parametrize("program", ["pip", "uv"])
def test_without_ensurepip_another_program_brings_pip(program, debian, environment, tmp_path):
    if program == "pip":  # that of the system's Python
        shutil.copytree(environment / "lib", tmp_path / "system/lib", dirs_exist_ok=True)
    else:
        uv = UV.format(pip=f"{environment}/bin/python -m pip", index=tmp_path / "index")
        write(tmp_path / "bin/uv", uv).chmod(0o755)
        debian.settings["PATH"] = f"{tmp_path / 'bin'}:{debian.settings['PATH']}"
    result = debian.start(*debian.python)
    assert result.returncode == 0, result.stdout + result.stderr
    debian.opens(installed=True)


def test_without_any_pip_a_sentence_says_what_to_install(debian):
    debian.settings["PATH"] = "/usr/bin:/bin"  # no uv there
    result = debian.start(*debian.python)
    assert result.returncode == 1 and "apt install python3-venv" in result.stderr
    assert not debian.venv.exists()


# ---- the user's Jupyter -----------------------------------------------------------------------


@pytest.fixture
def home(tmp_path):
    """Of a user whose Jupyter serves another folder, and whose `python3` is another Python."""
    for name in ("server", "lab"):
        write(tmp_path / f".jupyter/jupyter_{name}_config.py", "c.ServerApp.root_dir = '/nowhere'")
    kernel = {"argv": ["/nowhere/python"], "display_name": "theirs", "language": "python"}
    write(tmp_path / ".local/share/jupyter/kernels/python3/kernel.json", json.dumps(kernel))
    return tmp_path


START = """
import course, sys
course.PYTHON = sys.executable
sys.exit(course.open_lab(sys.argv[1:]))
"""


def test_jupyterlab_opens_the_course_with_its_own_kernel(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", f"--ServerApp.port={port}", "--IdentityProvider.token="]
    server = subprocess.Popen(
        [sys.executable, "-c", START, *options], cwd=ROOT, start_new_session=True,
        env=os.environ | {"HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(what):
        while server.poll() is None:
            try:
                return json.load(opener.open(f"http://127.0.0.1:{port}/api/{what}", timeout=30))
            except urllib.error.URLError:
                time.sleep(0.2)  # it is starting
        raise AssertionError(server.stdout.read().decode())

    try:
        files = ask("contents/notebooks?content=1")["content"]
        assert {path.name for path in NOTEBOOKS} <= {file["name"] for file in files}
        kernel = ask("kernelspecs")["kernelspecs"]["python3"]["spec"]
        assert kernel["display_name"] != "theirs"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=30)


# ---- the places that promise to use it ----------------------------------------------------------


def test_readme_ci_and_workflow_use_the_same_commands_and_name_every_notebook():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    test = "python3 course.py test"
    assert {"python3 course.py", test} <= set(readme.splitlines())
    assert test in (ROOT / ".ci" / "run").read_text().splitlines()
    assert f"- run: {test}" in (ROOT / ".github/workflows/tests.yml").read_text()
    assert all(path.name in readme for path in NOTEBOOKS)
    # JupyterHub leaves the user's own settings out.
    assert "c.Spawner.disable_user_config = True" in readme


def test_the_code_is_clean():
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", ROOT], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
