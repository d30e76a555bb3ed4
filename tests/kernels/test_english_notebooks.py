"""The English notebooks, with trained models: each weight is found, scored again, and used.

`fit` refuses a file that does not find its recorded validation loss again: a notebook that trains
nothing has scored all of its models.
"""

import re

import nbformat
import pytest
import translate
from exercise_answers import accepts
from nbclient import NotebookClient
from notebook_files import NOTEBOOKS, PRINT_DURATIONS, printed

from course_utils.exercises import exercises
from course_utils.language import translations
from course_utils.pretrained import FOLDER, LOADED, PART_BYTES

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


# In the kernel, the text of a figure is what it draws: a layout may move by a pixel.
SIGNATURE = """
def signature(figure, printer, cycle):
    from zlib import crc32

    drawn = []
    for ax in [inner for ax in figure.axes for inner in (ax, *ax.child_axes)]:
        drawn += [ax.get_title(), *(text.get_text() for text in ax.texts)]
        drawn += [image.get_array().tobytes() for image in ax.images]
        drawn += [line.get_xydata().tobytes() for line in ax.lines]
        drawn += [patch.get_bbox().bounds for patch in ax.patches if hasattr(patch, "get_bbox")]
        for group in ax.collections:
            drawn += [path.vertices.tobytes() for path in group.get_paths()]
            drawn += [group.get_offsets().tobytes()]
    printer.text(f"figure {crc32(repr(drawn).encode())}")


formatter = get_ipython().display_formatter.formatters["text/plain"]
formatter.for_type_by_name("matplotlib.figure", "Figure", signature)
del formatter, signature
"""
# A cell that draws random numbers starts them itself: here, the others' are left anywhere.
ANYWHERE = "; ".join(f"__import__({name!r}).{seed}" for name, seed in (
    ("torch", "seed()"), ("random", "seed()"), ("numpy", "random.seed()"),
))  # fmt: skip
TRAINING = re.compile(r"\b(fit|train_\w+|\w+_training)\(|\.backward\(\)\n.*\.step\(\)")


# Forms that a right answer may take: the notebook works with the first that its check accepts.
FORMS = ("float(right)", "right.numpy()", "right.tolist()", "right.double()", "right.bool()",
         "right.int()", "list(right)", "right")  # fmt: skip


def unusual_answer(key):
    """The source of a right answer to an exercise, in the least usual form."""
    name = exercises()[key].reference.__name__
    for form in FORMS:
        source = "from course_utils.exercises import exercises\n"
        source += f"def {name}(*args):\n    right = exercises()[{key!r}].reference(*args)\n"
        source += f"    return {form}"
        names = {}
        exec(source, names)
        if accepts(key, names[name]):
            return source


def may_differ(cell):
    """Cells not run again: they train, they are an exercise and its check, or print durations."""
    tags = " ".join(cell.metadata.get("tags", []))
    return TRAINING.search(cell.source) or ":" in tags or cell.id in PRINT_DURATIONS


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.stem != "00_accueil"], ids=lambda path: path.stem
)
def test_with_unusual_answers_nothing_trains_and_a_cell_run_again_shows_the_same(path, monkeypatch):
    monkeypatch.setenv("COURSE_PRETRAINED", "1")  # the kernel inherits it
    path, say = translate.place(path, "en"), translations("en").gettext
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": path.parent}})
    cells = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]

    def run(position, source):
        cell = nbformat.v4.new_code_cell(source)
        client.execute_cell(cell, position)
        return printed(cell)

    with client.setup_kernel():
        run(0, SIGNATURE)
        texts = []
        for position, cell in cells:
            tags = dict(tag.split(":") for tag in cell.metadata.get("tags", []) if ":" in tag)
            answer = unusual_answer(tags["exercise"]) if "exercise" in tags else cell.source
            texts.append(run(position, answer))
            assert "check" not in tags or texts[-1].startswith("✔"), texts[-1]
        for (position, cell), text in zip(cells, texts):
            if not may_differ(cell):
                run(position, ANYWHERE)
                assert run(position, cell.source).split() == text.split(), cell.source
    assert say(LOADED) in texts[0]
    assert not any(say("Le modèle s'entraîne donc ici.") in text for text in texts)
    assert any(say("Poids déjà entraînés.") in text for text in texts)
