"""What the demos draw with: colours, texts and enlarged images, on PIL pictures."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont

from .. import figures
from ..language import decimal, trn

CANVAS = 308  # pixels: side of the image being drawn
TOP = 30  # height of the titles above the panels
GAP = 24  # between two panels
DARK = figures.COLORS["truth"]
WAITING = (0.93, 0.93, 0.93)  # a pixel not drawn yet
FOCUS = figures.COLORS["focus"]
FOCUS_TEXT = "#7A5B00"  # the same, in a text: dark enough to read


# ---------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------


def nats(value, digits):
    """A cost and its unit: 1,5 nat, 2,0 nats."""
    rounded = f"{value:.{digits}f}"
    return trn("{shown} nat", "{shown} nats", rounded, shown=decimal(value, digits))


def bits(value, digits):
    """The same in bits."""
    rounded = f"{value:.{digits}f}"
    return trn("{shown} bit", "{shown} bits", rounded, shown=decimal(value, digits))


@functools.cache
def font(size):
    """The typeface of the figures, for texts in a PIL image; `size` in pixels."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), size)


def write(picture, where, text, color=DARK, size=16, anchor="la"):
    """A text at a point; `anchor` is what stands there, as PIL names it: "la", its upper left.

    The picture notes what is more than a mark or a label of 14 pixels, for those who listen to it.
    """
    if size > 14 and len(text) > 1:
        picture.info.setdefault("texts", []).append(text.replace("\n", " "))
    color = FOCUS_TEXT if color == FOCUS else color
    how = {"font": font(size), "anchor": anchor, "spacing": 8}  # between the lines of a long text
    ImageDraw.Draw(picture).text(where, text, fill=color, **how)


def write_title(picture, left, top, text, color=DARK):
    """The title of what begins at this corner, just above it."""
    write(picture, (left, top - 7), text, color, anchor="ls")


def write_lines(picture, where, lines, step=24, size=16):
    """Texts and their colours, `[(text, color), …]`, one under the other."""
    x, y = where
    for number, (text, color) in enumerate(lines):
        write(picture, (x, y + step * number), text, color, size)


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def to_pil(page, zoom=1):
    """Array `(H, W, 3)` in [0, 1] -> PIL image, every pixel enlarged `zoom` times."""
    image = Image.fromarray((np.clip(page, 0, 1) * 255).round().astype(np.uint8))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def paper(image):
    """Intensities `(C, H, W)` -> colours `(H, W, 3)`, dark ink on white paper."""
    return figures.image_grid(image[None], gap=0)


def tinted(shares, color):
    """Shares in [0, 1], `(…, 1 or 3)` -> colours, from white to this one."""
    return 1 - shares * (1 - np.array(to_rgb(color)))
