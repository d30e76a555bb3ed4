"""How long the demos take to answer a key in a real browser, beside a slider that draws nothing.

    .venv/bin/python tests/benchmarks/demos.py                  # all of them, some five minutes
    .venv/bin/python tests/benchmarks/demos.py 01_vae_recap

Not collected by the tests: times depend on the machine and on what else it does. A demo feels
immediate below 100 ms (median) and 150 ms (95 %); no demo can be faster than the floor.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT), str(ROOT / "tests" / "browser")]

import lab  # noqa: E402

MOVES = 50

# A slider that only pushes one of two small pictures: no demo can answer faster than this.
FLOOR = """
import io

import ipywidgets as widgets
from PIL import Image as PilImage

_pictures = []
for _grey in (200, 220):
    _buffer = io.BytesIO()
    PilImage.new("RGB", (64, 64), (_grey,) * 3).save(_buffer, "PNG")
    _pictures.append(_buffer.getvalue())
_slider = widgets.IntSlider(value=0, min=0, max=100)
_image = widgets.Image(value=_pictures[0], format="png", layout={"width": "64px", "height": "64px"})


def _push(change):
    _image.value = _pictures[change["new"] % 2]


_slider.observe(_push, "value")
widgets.VBox([_slider, _image])
"""


def times(notebook, cell):
    notebook.show(cell)
    return notebook.walk(cell, notebook.first_control(cell), MOVES)


def main(*names):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "notebooks"
        shutil.copytree(ROOT / "notebooks", folder)
        with lab.jupyterlab(folder, COURSE_PRETRAINED="1") as address, lab.browser() as chrome:
            for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
                if not names or path.stem in names:
                    measure(path.name, folder, chrome, address)


def measure(name, folder, chrome, address):
    """Print the times of the demos of a notebook, and of the floor in the same page."""
    content = nbformat.read(folder / name, 4)
    content.cells.append(nbformat.v4.new_code_cell(FLOOR, metadata={"tags": ["floor"]}))
    nbformat.write(content, folder / name)
    notebook = lab.Notebook(chrome, address(name))
    notebook.run_all(timeout=280)
    (floor,) = notebook.tagged("floor")
    print(f"{name}: floor {times(notebook, floor)}")
    for cell in notebook.tagged("demo"):
        moves = times(notebook, cell)
        verdict = "" if moves.median < 100 and moves.p95 < 150 else "   <- above the goal"
        print(f"  cell {cell}: {moves}{verdict}", flush=True)
    notebook.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
