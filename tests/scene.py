"""What a demo shows and says, asked of its panels: colours of cells, marks, bars, texts."""

import functools
import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from course_utils import figures

DOWN, DRAG, HOVER = (
    {"type": "mousedown", "buttons": 1},
    {"type": "mousemove", "buttons": 1},
    {"type": "mousemove", "buttons": 0},
)
FOCUS = figures.COLORS["focus"]  # the colour of what one looks at


def decode(png):
    return Image.open(io.BytesIO(png)).convert("RGB")


@functools.lru_cache(maxsize=1)
def _pixels_of(png):
    return np.asarray(decode(png)).astype(int)


def page_of(demo):
    return _pixels_of(bytes(demo.picture.value))


def in_color(page, color):
    """Where a page has exactly this colour."""
    return (page == np.round(255 * np.array(to_rgb(color)))).all(-1)


def shown(demo, name, shape=None):
    """The colours of the cells of a panel, or of the pixels of an image `(…, H, W)` that fills it.

    Each is read off its middle, where there may be a text, and off its frame.
    """
    panel = demo.panels[name]
    rows, columns = (panel.rows, panel.columns) if shape is None else shape[-2:]
    side = (panel.right - panel.left) // columns
    page = page_of(demo)[panel.top : panel.bottom, panel.left : panel.right]
    return page[side * 2 // 3 :: side, side * 2 // 3 :: side][:rows, :columns]


def colors(image):
    """Intensities `(C, H, W)` in [0, 1] as they are shown: `(H, W, 3)` in [0, 255]."""
    if len(image) == 1:
        image = 1 - image.expand(3, -1, -1)
    return 255 * image.permute(1, 2, 0).numpy()


def same(page, expected):
    return np.abs(page - expected).max() < 1


def shows(demo, name, image):
    """Whether an image `(C, H, W)` fills a panel."""
    return same(shown(demo, name, image.shape), colors(image))


def cells(panel):
    return range(panel.rows * panel.columns)


def framed(demo, name, color=FOCUS, inset=1):
    """The cells of a panel that have a line of this colour along their four sides."""
    page, panel, found = in_color(page_of(demo), color), demo.panels[name], []
    for cell in cells(panel):
        left, top, right, bottom = np.add(panel.box(cell), (inset, inset, -inset, -inset))
        across, along = slice(left + 4, right - 3), slice(top + 4, bottom - 3)
        lines = page[top, across], page[bottom, across], page[along, left], page[along, right]
        found += [cell] if np.concatenate(lines).all() else []
    return found


def folded(demo, name):
    """The cells of a panel that have a corner turned down."""
    page, panel = in_color(page_of(demo), FOCUS), demo.panels[name]
    corners = {cell: panel.box(cell)[:2] for cell in cells(panel)}
    return [cell for cell, (x, y) in corners.items() if page[y + 5, x + 5]]


def heights(demo, name, *tints):
    """How high the bars of a chart rise in these colours, in [0, 1]."""
    chart, found = demo.panels[name], []
    for number in range(chart.count):
        column = page_of(demo)[chart.floor - 1 :: -1, round(chart.middle(number))]
        tinted = np.any([in_color(column, tint) for tint in tints], axis=0)
        found.append(np.argmin(tinted) / chart.height)
    return found


def contrast(one, other):
    """The ratio of two colours: 4.5 and more is easy to read (WCAG 2)."""
    low, high = sorted((figures.luminance(one), figures.luminance(other)))
    return (high + 0.05) / (low + 0.05)


def written(action):
    """The texts that an action writes on pictures; none leaves its picture or is hard to read."""
    found, write = [], ImageDraw.ImageDraw.text

    def text(pen, where, what, *line, **how):
        if line:  # an older pillow writes the lines of a text one by one: they are seen already
            return write(pen, where, what, *line, **how)
        found.append(what)
        box = pen.textbbox(where, what, font=how["font"], anchor=how.get("anchor"))
        inside = min(box) >= 0 and box[2] <= pen.im.size[0] and box[3] <= pen.im.size[1]
        assert inside or not what, what
        if what:
            under = pen._image.crop(box)
            _, paper = max(under.getcolors(under.width * under.height))  # behind most of it
            halo = how.get("stroke_fill", np.divide(paper, 255))
            assert contrast(how["fill"], halo) >= 4.5, what
        write(pen, where, what, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", text)
        action()
    return found


def texts(demo, **settings):
    """What is written on the picture once these controls are set."""
    return written(lambda: demo.set(**settings))


def values(demo):
    return {name: control.value for name, control in demo.controls.items()}


def point(demo, x, y, event=DOWN):
    """The mouse at this point of the picture."""
    demo._pointer(event | {"dataX": x, "dataY": y})


def click(demo, name, cell, event=DOWN):
    """The mouse in the middle of a cell of a panel."""
    left, top, right, bottom = demo.panels[name].box(cell)
    point(demo, (left + right) // 2, (top + bottom) // 2, event)


def french(number, decimals):
    return f"{float(number):.{decimals}f}".replace(".", ",")


def amount(number, decimals, unit):
    return f"{french(number, decimals)} {unit}{'s' if number >= 2 else ''}"
