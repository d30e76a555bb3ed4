"""In JupyterLab: a notebook runs, and each control of each demo of the course moves its picture.

The welcome, in English, and all demos on small models, in French: that every notebook runs is
proved elsewhere, without a browser. How long a demo takes to answer is measured by
`tests/benchmarks/demos.py`.
"""

import shutil

import lab
import nbformat
import pytest
from notebook_files import ROOT
from PIL import ImageStat

MISSING = lab.what_is_missing()
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=MISSING)]

WIDGETS = "__import__('ipywidgets.widgets.widget').widgets.widget"
CASES = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from demo_cases import CASES

def slow(demo):
    if hasattr(demo, "play"):
        demo.play.interval = 500  # few steps: time to see and to stop them
    return demo
"""
NAMES = ("latent", "condition", "completion", "sampling", "masks", "painting, binary",
         "painting, classes", "painting, colour", "field", "editor", "browser", "prior",
         "commitment")  # fmt: skip


def write(path, sources):
    """A notebook of these cells, which are demos, but for the first."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell in cells[1:]:
        cell.metadata.tags = ["demo"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Opens a notebook of the course, or one of these sources, and runs it."""
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder)

    def run(name, sources=None):
        if sources is not None:
            write(folder / name, sources)
        notebook = lab.Notebook(chrome, address(name))
        notebook.run_all(timeout=280)
        return notebook

    settings = {"COURSE_PRETRAINED": "1", "COURSE_PROJECTION": "0"}
    with lab.jupyterlab(folder, **settings) as address, lab.browser() as chrome:
        yield run


SMALL = [CASES, *(f"slow(CASES[{name!r}].make())" for name in NAMES)]


@pytest.fixture(
    scope="module",
    params=[("en/00_welcome.ipynb", None), ("demos.ipynb", SMALL)],
    ids=["welcome", "demos"],
)
def notebook(request, opened):
    notebook = opened(*request.param)
    yield notebook
    notebook.close()


def test_it_runs_without_error_and_asks_nothing_of_the_network(notebook):
    for cell in notebook.page.evaluate("course.outputs()"):
        errors = [o for o in cell["outputs"] if o["output_type"] == "error"]
        assert not errors or "raises-exception" in cell["tags"], cell["source"]
        assert not [o for o in cell["outputs"] if o.get("name") == "stderr"], cell["source"]
        assert cell["count"] or not cell["source"]
    assert notebook.page.evaluate("course.broken()") == []
    assert notebook.errors == [] and notebook.elsewhere == []


def reset(notebook, cell):
    (button,) = notebook.controls(cell, "button:has(.fa-undo)")
    button.focus()
    notebook.page.keyboard.press("Enter")


def unmoved(notebook, cell, within=20):
    """The controls of a demo that do not change its picture, the reset if it does not undo them.

    A picture has so many seconds to come: on a busy machine, it takes some.
    """
    notebook.show(cell)
    start, found = notebook.picture(cell), []
    for name, moves in notebook.moves(cell):
        before = notebook.picture(cell)

        def has_changed(picture, before=before):
            return picture != before

        for move in moves:
            move()
            if notebook.comes(cell, has_changed, within=2):
                break
        else:
            found += [name] * (not notebook.comes(cell, has_changed, within))
    reset(notebook, cell)
    back = notebook.comes(cell, lambda picture: picture == start, within)
    return found + ["reset"] * (not back)


def test_each_control_changes_the_picture_and_the_reset_brings_it_back(notebook):
    found = {cell: unmoved(notebook, cell) for cell in notebook.tagged("demo")}
    assert not any(found.values()), found


def test_nothing_flickers_while_a_key_is_held(notebook):
    """One demo tells it: all have the same picture, which only changes value."""
    cell = notebook.tagged("demo")[0]
    notebook.show(cell)
    notebook.controls(cell, lab.SLIDER)[0].focus()
    with notebook.film(cell) as (images, places):
        for key in 20 * ["ArrowRight"] + 20 * ["ArrowLeft"]:
            notebook.page.keyboard.press(key)
            notebook.page.wait_for_timeout(30)  # without waiting for the picture
        notebook.wait_idle()
    assert len(set(places)) == 1, "it has moved, or changed its height"
    assert len(images) > 3
    assert all(ImageStat.Stat(image).stddev[0] > 3 for image in images), "a blank frame"


def test_the_play_button_moves_the_picture_until_it_is_stopped(notebook):
    for cell in notebook.tagged("demo"):
        for play in notebook.controls(cell, ".widget-play button")[:1]:
            notebook.show(cell)
            reset(notebook, cell)
            notebook.wait_idle()
            seen = {notebook.picture(cell)}
            play.click()
            for _ in range(300):  # half a minute, for those that never move
                notebook.page.wait_for_timeout(100)
                seen.add(notebook.picture(cell))
                if len(seen) == 4:
                    break
            assert len(seen) == 4, cell
            play.click()
            last = None
            while notebook.picture(cell) != last:  # what was on its way arrives
                last = notebook.picture(cell)
                seen.add(last)
                notebook.page.wait_for_timeout(1000)
            assert len(seen) < 8, "it goes on"


def test_a_demo_run_again_leaves_nothing_of_the_one_before(notebook):
    for cell in notebook.tagged("demo")[:1]:
        counts = []
        for _ in range(3):
            notebook.run(cell)
            counts.append(notebook.ask(f"len({WIDGETS}._instances)"))
        assert len(set(counts[1:])) == 1 and counts[0].isdigit(), counts
        assert notebook.ask("__import__('matplotlib.pyplot').pyplot.get_fignums()") == "[]"


# ---- on a projector ----------------------------------------------------------------------------


ENLARGED = ("field", "condition", "painting, grey", "commitment")
PROJECTED = f"""{CASES}
from course_utils.demos import live
live.figures.PROJECTION = True
made = {{name: CASES[name].make() for name in {ENLARGED}}}
"""


@pytest.fixture(scope="module")
def projected(opened):
    return opened("projected.ipynb", [PROJECTED, *(f"made[{name!r}]" for name in ENLARGED)])


@pytest.mark.parametrize("name", ENLARGED)
def test_on_a_projector_a_demo_fits_on_the_screen_in_its_proportions(name, projected):
    cell = 1 + ENLARGED.index(name)
    projected.show(cell)
    picture = projected.page.evaluate("i => course.sizes(i)", cell)
    across, down = picture["width"] / picture["wide"], picture["height"] / picture["high"]
    assert across == pytest.approx(down, rel=0.01) and across > 0.95
    assert picture["demo"] <= 591


def test_on_a_projector_a_click_chooses_the_cell_under_the_mouse(projected):
    cell = 1 + ENLARGED.index("field")
    projected.show(cell)
    picture = projected.page.evaluate("i => course.sizes(i)", cell)
    scale = picture["width"] / picture["wide"]
    for row, column in ((0, 0), (9, 12), (3, 9)):
        x, y = (30 * scale * (k + 0.9) for k in (column, row))  # near the next one
        projected.page.mouse.move(picture["left"] + x, picture["top"] + y)
        projected.page.wait_for_timeout(200)  # a hand stops before it presses
        projected.page.mouse.down()
        projected.page.mouse.up()
        projected.wait_idle()
        chosen = projected.ask("[made['field'].controls[k].value for k in ('row', 'column')]")
        assert chosen == f"[{row}, {column}]"


# ---- the tests themselves: what they say of demos broken on purpose ----------------------------

BROKEN = """
import ipywidgets as widgets
from PIL import Image
from course_utils.demos import LivePicture


def make(draw):
    slider = widgets.IntSlider(value=5, min=0, max=60, description="gris")
    return LivePicture(draw, {"gris": slider}, caption="?")


def page(gris):
    return Image.new("RGB", (64, 64), (4 * gris,) * 3)
"""
DEMOS = {
    "right": "make(page)",
    "still": "make(lambda gris: page(5))",
    "crashes": "make(lambda gris: page(gris if gris == 5 else 1 / 0))",
}


@pytest.fixture(scope="module")
def broken(opened):
    return opened("broken.ipynb", [BROKEN, *DEMOS.values()])


@pytest.mark.parametrize("name", DEMOS)
def test_broken_demos_are_found(name, broken):
    cell = 1 + list(DEMOS).index(name)
    assert bool(unmoved(broken, cell, within=3)) == (name != "right")
