"""The launcher `course.py`: what it starts, and on which machines it installs."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

import pytest
from notebook_files import NOTEBOOKS, ROOT
from read_only import made_read_only, without_privileges

OPEN, TEST = "python3 course.py", "python3 course.py test"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def course(monkeypatch):
    """The launcher, installed already; every command is recorded instead of run."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    course = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(course)
    course.commands, course.status = [], 0

    def run(*arguments, world=None):
        course.commands.append([str(part) for part in arguments])
        course.world = world
        return course.status

    monkeypatch.setattr(course, "run", run)
    monkeypatch.setattr(course, "install", lambda: None)
    return course


# ---- what each word starts --------------------------------------------------------------------


def test_what_follows_test_goes_to_pytest(course):
    course.status = 1
    assert course.main(["test", "-k", "kl"]) == 1
    assert course.commands == [["-m", "pytest", "-k", "kl"]]


@pytest.mark.parametrize("asked, folder", [(["pages"], "pages"), ([], "site")])
def test_html_writes_into_the_folder_named(asked, folder, course, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    course.main(["html", *asked])
    script, into = course.commands[-1]
    assert script.endswith("pages.py") and into == str(tmp_path / folder)


@pytest.mark.parametrize(
    "asked, page",
    [
        ([], "/lab/tree/notebooks/00_accueil.ipynb"),
        (["01_vae_recap"], "/lab/tree/notebooks/01_vae_recap.ipynb"),
        (["project"], "/doc/tree/notebooks/00_accueil.ipynb?reset"),
        (["project", "notebooks/02_cvae.ipynb"], "/doc/tree/notebooks/02_cvae.ipynb?reset"),
    ],
)
def test_a_notebook_is_opened_in_the_folder_of_the_course(asked, page, course):
    course.main([*asked, "--no-browser"])
    module, *options = course.commands[-1][1:]
    assert module == "jupyterlab" and options[-1] == "--no-browser"
    assert options[0] == f"--LabApp.default_url={page}"
    assert f"--ServerApp.root_dir={ROOT}" in options


@pytest.mark.parametrize("asked, pretrained", [({}, "1"), ({"COURSE_PRETRAINED": "0"}, "0")])
def test_a_projected_notebook_is_larger_and_trained_unless_told(
    asked, pretrained, course, monkeypatch, tmp_path
):
    monkeypatch.setattr(course.os, "environ", asked)
    monkeypatch.setattr(course, "settings_folder", lambda: tmp_path)
    course.main(["project", "01_vae_recap"])
    assert course.world["COURSE_PROJECTION"] == "1"
    assert course.world["COURSE_PRETRAINED"] == pretrained
    themes = "projection/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
    written = json.loads((tmp_path / themes).read_text())
    assert written["overrides"]["content-font-size1"] == "20px"


@pytest.mark.parametrize("what", ["refresh", "weights"])
def test_refresh_and_weights_run_the_notebooks_named(what, course):
    course.main([what, "01_vae_recap", "02_cvae"])
    script, asked, *paths = course.commands[-1]
    assert script.endswith("refresh.py") and asked == what
    assert paths == ["notebooks/01_vae_recap.ipynb", "notebooks/02_cvae.ipynb"]
    with pytest.raises(SystemExit, match=f"Which notebook.*{what} 01"):
        course.main([what])


def test_an_unknown_notebook_names_the_others(course):
    with pytest.raises(SystemExit, match="99_nothing.*00_accueil, 01_vae_recap"):
        course.main(["99_nothing"])


def test_an_old_python_is_told_so(course, monkeypatch):
    monkeypatch.setattr(course.sys, "version_info", (3, 9, 18))
    with pytest.raises(SystemExit, match="Python 3.10 or newer"):
        course.main([])


# ---- any machine: real installations, of packages that stand in for the course's ---------------

REPORT = """
import json, os, sys
import course_utils
print(json.dumps({
    "arguments": sys.argv[1:], "environment": dict(os.environ), "prefix": sys.prefix,
    "course": course_utils.__file__, "encoding": sys.stdout.encoding, "here": __file__,
}))
"""
FOREIGN = "raise ImportError('of another project')"


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make_wheel(folder, name, **files):
    """A package whose file `jupyterlab/__main__.py` tells what it was started with."""
    about = f"{name}-1.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
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
    assert "--LabApp.default_url=/lab/tree/notebooks/00_accueil.ipynb" in report["arguments"]
    assert report["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("told", ["by its configuration", "by its variables"])
def test_pip_is_told_to_install_elsewhere_or_not_at_all(told, machine):
    elsewhere = machine.home / "elsewhere"
    asked = {"user": "true", "target": elsewhere, "dry-run": "true"}
    if told == "by its variables":
        machine.opens(**{f"PIP_{k.replace('-', '_').upper()}": str(v) for k, v in asked.items()})
    else:
        lines = [f"{key} = {value}" for key, value in asked.items()]
        write(machine.home / ".config/pip/pip.conf", "\n".join(["[install]", *lines]))
        machine.opens()
    assert not elsewhere.exists() and not (machine.home / ".local").exists()


def test_how_to_reach_packages_is_for_pip_s_own_configuration_to_say(machine):
    links = machine.settings.pop("PIP_FIND_LINKS")
    write(machine.home / ".config/pip/pip.conf", f"[global]\nfind-links = {links}\n")
    machine.opens()


def test_modules_on_pythonpath_are_neither_counted_as_installed_nor_imported(machine):
    foreign = machine.home / "foreign"
    write(foreign / "jupyterlab-9.dist-info/METADATA", "Name: jupyterlab\nVersion: 9\n")
    for name in ("jupyterlab", "course_utils", "site"):
        write(foreign / f"{name}.py" if name != "site" else foreign / "usercustomize.py", FOREIGN)
    machine.opens(PYTHONPATH=str(foreign))


def test_settings_of_the_user_s_own_tools_are_not_those_of_the_course(machine):
    names = "JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTEST_ADDOPTS", "PYTHONWARNINGS", "MPLBACKEND"
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
    seen = machine.opens(**dict.fromkeys((*names, *own), "theirs"))["environment"]
    assert not any(name in seen for name in names)
    assert all(seen[name].startswith(str(machine.venv)) for name in own)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_does_not_write_utf_8(encoding, machine):
    report = machine.opens(PYTHONIOENCODING=encoding, LC_ALL="C")
    assert report["encoding"] == "utf-8"
    assert report["environment"]["PYTHONUTF8"] == "1"  # where C does not already mean UTF-8


def test_other_requirements_are_installed(machine):
    machine.opens()
    write(machine.folder / "requirements.txt", "jupyterlab\nanother\n")
    machine.opens()
    assert list(machine.venv.rglob("another.py"))


def test_a_moved_folder_still_opens(machine):
    machine.opens()
    machine.folder = machine.folder.rename(machine.home / "moved")
    machine.opens(installed=True)


def test_a_python_upgraded_under_the_environment_is_noticed(machine):
    """Its packages are in the folder of a Python that no longer runs."""
    machine.opens()
    lib = machine.venv / "lib"
    (packages,) = lib.iterdir()
    packages.rename(lib / "python3.9")
    machine.opens()


def test_a_python_that_is_gone_is_noticed(machine):
    machine.opens()
    for python in (machine.venv / "bin").glob("python*"):
        python.unlink()
        python.symlink_to("/nowhere/python3")
    machine.opens()


def test_a_failed_installation_says_what_to_do_and_is_tried_again(machine):
    write(machine.folder / "requirements.txt", "missing\n")
    for _ in range(2):
        result = machine.start()
        assert result.returncode == 1 and "run the same command again" in result.stderr
        assert "Installing" in result.stdout


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


def test_readme_ci_and_workflow_use_the_same_commands():
    assert OPEN in README.splitlines() and TEST in README.splitlines()
    assert TEST in (ROOT / ".ci" / "run").read_text().splitlines()
    assert f"- run: {TEST}" in (ROOT / ".github/workflows/tests.yml").read_text()


def test_the_recipe_of_jupyterhub_leaves_the_user_s_own_settings_out():
    assert "c.Spawner.disable_user_config = True" in README


def test_readme_names_every_notebook():
    assert all(path.name in README for path in NOTEBOOKS)


def test_the_code_is_clean():
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", ROOT], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
