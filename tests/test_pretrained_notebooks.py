"""The notebooks with models trained beforehand: each weight is found, scored again, and used.

`fit` refuses a file that does not find its recorded validation loss again: a notebook that trains
nothing has scored all of its models.
"""

import re

import nbformat
import pytest
from nbclient import NotebookClient
from notebook_files import NOTEBOOKS, printed

from course_utils.pretrained import FOLDER, PART_BYTES

FILES = sorted(FOLDER.glob("*.safetensors"))
NAMES = re.compile(r"\"?pretrained\"?[=:] ?(f?)\"([^\"]+)\"")


def patterns(path):
    """What the names of the files of a notebook look like: `{…}` stands for anything."""
    source = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
    for _, name in NAMES.findall(source):
        yield re.sub(r"\\\{.*?\\\}", "[a-z0-9_.]+?", re.escape(name))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_trained_model_has_its_file(path):
    names = [file.name for file in FILES]
    for pattern in patterns(path):
        assert any(re.fullmatch(pattern + r"\.safetensors", name) for name in names), pattern


def test_each_file_is_that_of_a_notebook_and_below_the_limit():
    known = "|".join(pattern for path in NOTEBOOKS for pattern in patterns(path))
    for file in FILES:
        assert re.fullmatch(rf"({known})(\.\d)?\.safetensors", file.name), file
        assert file.stat().st_size < PART_BYTES
    assert len(FILES) > 30


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.stem != "00_accueil"], ids=lambda path: path.stem
)
def test_no_model_trains(path, monkeypatch):
    monkeypatch.setenv("COURSE_PRETRAINED", "1")  # the kernel inherits it
    notebook = nbformat.read(path, 4)
    resources = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=120, resources=resources).execute()
    texts = [printed(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "rien ne s'entraîne" in texts[0]
    assert not [text for text in texts if "s'entraîne donc ici" in text]
    assert any("Poids déjà entraînés" in text for text in texts)
