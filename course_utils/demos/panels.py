"""The places of a picture: panels of square cells, charts of bars."""

import math

import numpy as np
from PIL import ImageDraw

from ..language import decimal

from .drawing import DARK, FOCUS, TOP, WAITING, font, to_pil, write, write_title


class Panel:
    """Square cells in columns and rows: the pixels of an image, the codes of a map.

    A demo makes its panels once; they say where things stand when it draws, when the mouse is
    pressed, and in its tests. Cells are numbered row by row.

    Args:
        columns, rows: how many cells.
        side: of a cell, in pixels of the picture.
        title, color: what is written above it.
        left, top: its upper left corner.
    """

    def __init__(self, columns, rows, side, title="", color=DARK, *, left=0, top=TOP):
        self.columns, self.rows, self.side = columns, rows, side
        self.title, self.color = title, color
        self.left, self.top = left, top
        self.right, self.bottom = left + columns * side, top + rows * side

    def corner(self, row, column):
        """Where a cell begins: its upper left corner."""
        return self.left + self.side * column, self.top + self.side * row

    def box(self, cell):
        """Where a cell stands: left, top, right, bottom."""
        left, top = self.corner(*divmod(cell, self.columns))
        return left, top, left + self.side, top + self.side

    def cell_at(self, x, y):
        """The cell at a point of the picture, or None."""
        column, row = (x - self.left) // self.side, (y - self.top) // self.side
        inside = 0 <= column < self.columns and 0 <= row < self.rows
        return int(row * self.columns + column) if inside else None

    def write_title(self, picture):
        write_title(picture, self.left, self.top, self.title, self.color)

    def show(self, picture, page, edge="#BBBBBB", width=1):
        """Its title, and colours `(H, W, 3)` that fill it, in a frame of `width` pixels."""
        self.write_title(picture)
        zoom = (self.right - self.left) // page.shape[1]
        picture.paste(to_pil(page, zoom), (self.left, self.top))
        near, far = (self.left - width, self.top - width), (self.right, self.bottom)
        edges = [*near, *(end + width - 1 for end in far)]
        ImageDraw.Draw(picture).rectangle(edges, outline=edge, width=width)

    def show_so_far(self, picture, cells, colors):
        """Cells drawn one by one, `(n,)`, and their colours `(n, 3)`; the others wait."""
        page = np.tile(WAITING, (self.rows * self.columns, 1))
        page[cells] = colors
        self.show(picture, page.reshape(self.rows, self.columns, 3))
        if len(cells):
            self.frame(picture, cells[-1])

    def frame(self, picture, cell, color=FOCUS, width=3):
        """Outline a cell."""
        ImageDraw.Draw(picture).rectangle(self.box(cell), outline=color, width=width)

    def write_in(self, picture, cell, text, fill, color=DARK):
        """A cell of this colour, with a text in its middle."""
        left, top, right, bottom = self.box(cell)
        ImageDraw.Draw(picture).rectangle(self.box(cell), fill=fill, outline="#BBBBBB")
        write(picture, ((left + right) / 2, (top + bottom) / 2), text, color, 14, "mm")

    def fold(self, picture, cell):
        """Turn down the corner of a cell: it was changed by hand."""
        left, top, _, _ = self.box(cell)
        fold = max(5, 0.42 * self.side)
        pen = ImageDraw.Draw(picture)
        pen.polygon([(left, top), (left + fold, top), (left, top + fold)], fill=FOCUS)
        pen.line([left + fold, top, left, top + fold], fill="white")


class Chart:
    """Bars side by side, of heights in [0, 1]: the law of a pixel or of a code.

    Args:
        count: number of bars.
        left, floor: lower left corner.
        width: of the whole.
        height: of a bar of 1.
    """

    def __init__(self, count, left, floor, width, height):
        self.count, self.left, self.floor = count, left, floor
        self.width, self.height = width, height
        self.slot = width / count

    def middle(self, number):
        """Where a bar stands, from left to right."""
        return self.left + self.slot * (number + 0.5)

    def rise(self, share):
        """How high a bar is, in pixels."""
        return round(self.height * share)

    def bar_at(self, x, y):
        """The bar under, at or above a point of the picture, or None."""
        inside = 0 <= x - self.left < self.width and 0 <= self.floor - y <= self.height
        return int((x - self.left) // self.slot) if inside else None

    def axis(self, picture):
        """The lines 0, ½ and 1, whose numbers are written when there is room."""
        pen = ImageDraw.Draw(picture)
        for share, text in ((0, "0"), (0.5, decimal(0.5, 1)), (1, "1")):
            y, color = self.floor - self.rise(share), "#888888" if share == 0 else "#E3E3E3"
            pen.line([self.left - 4, y, self.left + self.width + 4, y], fill=color)
            if self.height > 100:
                write(picture, (self.left - 10, y), text, "#666666", 14, "rm")

    def bars(self, picture, law, drawn, colors, *, labels=None, note=None):
        """A bar for each share; that of the value drawn stands out, and says its probability.

        Args:
            law: heights in [0, 1].
            drawn: number of the bar that stands out.
            colors: of the other bars, and of that one.
            labels: texts under the bars, their numbers by default.
            note: text above that bar, its probability by default.
        """
        pen = ImageDraw.Draw(picture)
        half = max(0.5, min(0.36 * self.slot, 28))  # of a bar
        every = math.ceil(20 / self.slot)  # labels that would touch each other are left out
        rises = [self.rise(share) for share in law]
        for number, rise in enumerate(rises):
            middle = self.middle(number)
            if rise:
                box = [middle - half, self.floor - rise, middle + half, self.floor - 1]
                pen.rectangle(box, colors[number == drawn])
            if number % every == 0:
                label = str(number) if labels is None else labels[number]
                write(picture, (middle, self.floor + 9), label, size=14, anchor="mt")

        middle, color = self.middle(drawn), colors[True]
        tip = (middle, self.floor + 1)
        pen.polygon([tip, (middle - 4, self.floor + 5), (middle + 4, self.floor + 5)], color)
        text = f"p({drawn}) = {decimal(law[drawn], 3)}" if note is None else note
        reach = font(14).getlength(text) / 2
        at = min(max(middle, self.left + reach), self.left + self.width - reach)
        # above its bar, and above those beside it that the text would cover
        near = [rise for k, rise in enumerate(rises) if abs(self.middle(k) - at) < reach + half]
        write(picture, (at, self.floor - max(near) - 3), text, color, 14, "mb")
