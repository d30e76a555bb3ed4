"""The launcher `course.py`, and the places that promise to use it."""

import importlib.util
import hashlib
import io
import json
import subprocess
import sys
import types

import course_server
import pytest
from notebook_files import NOTEBOOKS, ROOT

OPEN, TEST = "python3 course.py", "python3 course.py test"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """The launcher, with an empty folder in place of the course and every command recorded."""
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    course = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(course)
    python = tmp_path / ".venv" / "python"
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("torch\n")
    for name, value in {
        "VENV": python.parent, "PYTHON": python, "STAMP": python.parent / "stamp",
        "SOURCES": [requirements],
    }.items():  # fmt: skip
        monkeypatch.setattr(course, name, value)
    course.commands, course.status = [], 0

    def create(folder, **_):
        folder.mkdir(exist_ok=True)
        python.touch()

    def run(*arguments):
        course.commands.append([str(part) for part in arguments])
        return course.status

    monkeypatch.setattr(course.venv, "create", create)
    monkeypatch.setattr(course, "run", run)
    monkeypatch.setitem(sys.modules, "ensurepip", types.ModuleType("ensurepip"))
    return course


def test_the_first_call_installs_and_the_second_does_not(course):
    assert course.main(["test"]) == 0
    assert [command[1] for command in course.commands] == ["pip", "pytest", "pytest"]
    course.commands.clear()
    course.main(["test", "-k", "kl"])
    assert course.commands == [["-m", "pytest", "-k", "kl"]]


def test_the_browser_is_tested_alone_whatever_the_other_tests_found(course, monkeypatch):
    course.install()
    for failing in (0, 1):
        course.commands.clear()
        results = [int(k == failing) for k in range(2)]
        monkeypatch.setattr(
            course, "run", lambda *args, r=results: course.commands.append(args) or r.pop(0)
        )
        assert course.main(["test"]) == 1
        assert course.commands == [
            ("-m", "pytest", "--ignore=tests/browser"),
            ("-m", "pytest", "tests/browser", "--numprocesses=0"),
        ]


@pytest.mark.parametrize("asked, folder", [(["pages"], "pages"), ([], "site")])
def test_html_writes_into_the_folder_named(asked, folder, course, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    course.main(["html", *asked])
    script, into = course.commands[-1]
    assert script.endswith("pages.py") and into == str(tmp_path / folder)


def test_changed_requirements_are_installed(course):
    course.main(["test"])
    course.SOURCES[0].write_text("torch\ntorchvision\n")
    course.commands.clear()
    course.main(["test"])
    assert course.commands[0][1] == "pip"


def test_a_failed_installation_says_what_to_do_and_is_tried_again(course):
    course.status = 1
    with pytest.raises(SystemExit, match="run the same command again"):
        course.main([])
    assert not course.STAMP.exists()


def test_open_gives_the_notebook_to_jupyterlab(course):
    course.main([])
    assert course.commands[-1][:2] == ["-m", "jupyterlab"]
    assert course.commands[-1][2].endswith("00_accueil.ipynb")
    assert course.NO_DELAY in course.commands[-1]
    course.main(["01_vae_recap", "--no-browser"])
    assert course.commands[-1][2].endswith("01_vae_recap.ipynb")
    assert course.commands[-1][-1] == "--no-browser"


def test_project_opens_the_notebook_alone_larger_and_trained(course, monkeypatch):
    monkeypatch.setattr(course.os, "environ", {})
    course.main(["project", "01_vae_recap", "--no-browser"])
    command = course.commands[-1]
    assert command[:3] == [
        "-m", "jupyterlab", "--LabApp.default_url=/doc/tree/notebooks/01_vae_recap.ipynb?reset"
    ]  # fmt: skip
    assert f"--ServerApp.root_dir={ROOT}" in command and command[-1] == "--no-browser"
    assert course.NO_DELAY in command
    environment = course.os.environ
    assert environment["COURSE_PROJECTION"] == environment["COURSE_PRETRAINED"] == "1"
    themes = "@jupyterlab/apputils-extension/themes.jupyterlab-settings"
    written = json.loads((course.VENV / "projection" / themes).read_text())
    assert written["overrides"]["content-font-size1"] == "20px"


def test_a_projected_notebook_trains_if_asked(course, monkeypatch):
    monkeypatch.setattr(course.os, "environ", {"COURSE_PRETRAINED": "0"})
    course.main(["project"])
    assert course.os.environ["COURSE_PRETRAINED"] == "0"


@pytest.mark.parametrize("what", ["refresh", "weights"])
def test_refresh_and_weights_run_the_notebooks_named(what, course):
    course.main([what, "01_vae_recap", "02_cvae"])
    script, asked, *paths = course.commands[-1]
    assert script.endswith("refresh.py") and asked == what
    assert [path.rsplit("/")[-1] for path in paths] == ["01_vae_recap.ipynb", "02_cvae.ipynb"]
    with pytest.raises(SystemExit, match=f"Which notebook.*{what} 01"):
        course.main([what])


def test_an_unknown_notebook_names_the_others(course):
    with pytest.raises(SystemExit, match="99_nothing.*00_accueil, 01_vae_recap"):
        course.main(["99_nothing"])


def test_a_moved_folder_is_installed_again(course, monkeypatch):
    course.main(["test"])
    course.commands.clear()
    monkeypatch.setattr(course, "ROOT", course.VENV)
    course.main(["test"])
    assert course.commands[0][1] == "pip"


def serve(course, monkeypatch, digest):
    """An index whose newest pip is a file of four bytes."""
    wheel = {"packagetype": "bdist_wheel", "url": "../pip.whl", "filename": "pip.whl"}
    wheel["digests"] = {"sha256": digest}
    pages = {"https://pypi.org/pypi/pip/json": json.dumps({"urls": [wheel]}).encode()}
    pages["https://pypi.org/pypi/pip.whl"] = b"pip!"
    monkeypatch.setattr(course.urllib.request, "urlopen", lambda url, **_: io.BytesIO(pages[url]))


def test_without_ensurepip_pip_comes_from_its_wheel(course, monkeypatch):
    """Debian without python3-venv; the address in the index is relative, as on mirrors."""
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    serve(course, monkeypatch, hashlib.sha256(b"pip!").hexdigest())
    calls = []
    monkeypatch.setattr(course.subprocess, "check_call", calls.append)
    course.main(["test"])
    wheel = course.VENV / "pip.whl"
    assert calls == [[course.PYTHON, f"{wheel}/pip", "install", "--no-index", str(wheel)]]
    assert not wheel.exists()


def test_a_damaged_pip_is_not_run(course, monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    serve(course, monkeypatch, "0" * 64)
    with pytest.raises(SystemExit, match="damaged"):
        course.main(["test"])


def test_no_network_for_pip(course, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "ensurepip", None)
    monkeypatch.setattr(course.urllib.request, "urlopen", offline)
    with pytest.raises(SystemExit, match="no route to host.*check the network"):
        course.main(["test"])


def test_an_old_python_is_told_so(course, monkeypatch):
    monkeypatch.setattr(course.sys, "version_info", (3, 9, 18))
    with pytest.raises(SystemExit, match="Python 3.10 or newer"):
        course.main([])


def test_the_launcher_needs_only_the_standard_library():
    """It is run by the machine's own Python: `-I -S` hides every installed package."""
    command = [sys.executable, "-I", "-S", ROOT / "course.py", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and TEST in result.stdout


class Connection:
    """A server's connection to a notebook, as far as `course_server` knows it."""

    def __init__(self):
        self.websocket_handler, self.delays = self, True

    def set_nodelay(self, value):
        self.delays = not value

    def connect(self):
        return "connected"


def test_the_server_answers_without_delay_through_the_connections_it_has():
    settings = {"kernel_websocket_connection_class": Connection}
    server = types.SimpleNamespace(web_app=types.SimpleNamespace(settings=settings))
    course_server._load_jupyter_server_extension(server)
    connection = settings["kernel_websocket_connection_class"]()
    assert isinstance(connection, Connection) and connection.delays
    assert connection.connect() == "connected" and not connection.delays


def test_readme_ci_and_workflow_use_the_same_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert OPEN in readme and TEST in readme
    assert TEST in (ROOT / ".ci" / "run").read_text().splitlines()
    assert f"- run: {TEST}" in (ROOT / ".github/workflows/tests.yml").read_text()


def test_the_recipe_of_jupyterhub_enables_the_same_extension(course):
    assert f'c.Spawner.args = ["{course.NO_DELAY}"]' in (ROOT / "README.md").read_text("utf-8")


def test_readme_names_every_notebook():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(path.name in readme for path in NOTEBOOKS)


def test_the_code_is_clean():
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", ROOT], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
