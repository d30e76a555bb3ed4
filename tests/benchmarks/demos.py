"""How long the demos take to answer a key in a real browser, beside a slider that draws nothing.

    .venv/bin/python tests/benchmarks/demos.py                  # all of them, some five minutes
    .venv/bin/python tests/benchmarks/demos.py 01_vae_recap

Not collected by the tests: times depend on the machine and on what else it does. A demo feels
immediate below 100 ms (median) and 150 ms (95 %); no demo can be faster than the floor.
"""

import shutil
import statistics
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
import ipywidgets as widgets
from course_utils.demos.live import to_png
from PIL import Image as PilImage

_pictures = [to_png(PilImage.new("RGB", (64, 64), (grey,) * 3)) for grey in (200, 220)]
_slider = widgets.IntSlider(value=0, min=0, max=100)
_image = widgets.Image(value=_pictures[0], format="png", layout={"width": "64px", "height": "64px"})


def _push(change):
    _image.value = _pictures[change["new"] % 2]


_slider.observe(_push, "value")
widgets.VBox([_slider, _image])
"""


# The milliseconds from the next key to the picture that answers it; none if it has not changed.
ANSWER = """i => {
  course.answer = new Promise(resolve => {
    const once = { capture: true, once: true }
    let pressed
    document.addEventListener('keydown', () => { pressed = performance.now() }, once)
    course.picture(i).addEventListener('load', () => {
      requestAnimationFrame(() => { // painted: after the frame that follows
        const channel = new MessageChannel()
        channel.port1.onmessage = () => resolve(performance.now() - pressed)
        channel.port2.postMessage(0)
      })
    }, once)
    setTimeout(resolve, 1000, null)
  })
}"""


def times(notebook, cell):
    """The median and the 95th percentile of the answers of a demo to so many keys."""
    notebook.show(cell)
    sliders, numbers = (notebook.controls(cell, kind) for kind in (lab.SLIDER, lab.NUMBER))
    forward, back = ("ArrowRight", "ArrowLeft") if sliders else ("ArrowUp", "ArrowDown")
    (*sliders, *numbers)[0].focus()
    answers = []
    for number in range(MOVES):
        notebook.page.evaluate(ANSWER, cell)
        notebook.page.keyboard.press(forward if number % 10 < 5 else back)
        answers.append(notebook.page.evaluate("course.answer"))
        notebook.page.wait_for_timeout(60)
    answers = [answer for answer in answers if answer is not None]
    return statistics.median(answers), statistics.quantiles(answers, n=20)[-1]


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
    for cell in (floor, *notebook.tagged("demo")):
        median, p95 = times(notebook, cell)
        what = "floor" if cell == floor else f"cell {cell}"
        verdict = "" if median < 100 and p95 < 150 else "   <- above the goal"
        print(f"{name}, {what}: median {median:.0f} ms, p95 {p95:.0f} ms{verdict}", flush=True)
    notebook.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
