"""These tests need a Chromium; where there is none, they are skipped, and say so."""

import shutil

import lab
import pytest
from notebook_files import ROOT


def pytest_collection_modifyitems(items):
    missing = lab.what_is_missing()
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    return shutil.copytree(ROOT / "notebooks", folder)


@pytest.fixture(scope="session")
def address(folder):
    with lab.jupyterlab(folder, COURSE_PRETRAINED="1", COURSE_PROJECTION="0") as address:
        yield address


@pytest.fixture(scope="session")
def chrome():
    with lab.browser() as chrome:
        yield chrome
