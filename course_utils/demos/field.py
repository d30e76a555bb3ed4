"""What an output of a PixelCNN reads, and what it misses (notebook 03b)."""

import textwrap

import numpy as np
from PIL import Image, ImageDraw

from .. import figures
from ..language import tr, trn
from .controls import chooser, slider
from .drawing import DARK, FOCUS, GAP, write
from .live import LivePicture
from .panels import Panel

GRID = 13  # side of the grid, in pixels of the image
PLAIN, GATED = NETWORKS = tr("simple"), tr("à portes (deux piles)")
ONLY_A = tr("A partout")
MASKS = {tr("A puis B"): ("A", "B"), tr("B partout"): ("B", "B"), ONLY_A: ("A", "A")}
READ, FORBIDDEN = figures.COLORS["x"], "#B3261E"
TOO_FAR, HATCH = "#A9CDE6", "#444444"


def receptive_field_explorer():
    """Which pixels an output of a PixelCNN reads, and which it misses.

    A pixel that no number of layers would let it read is in the blind spot; others are only too
    far. Masks A alone show a stack without residual links, which would give each layer the pixel
    that its mask A hides.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    grid = Panel(GRID, GRID, 30, top=0)
    right = grid.right + GAP

    def draw(layers, kernel, network, masks, row, column):
        gated, (first, others) = network == GATED, MASKS[masks]
        kinds = (first,) + (others,) * (layers - 1)
        read = _pixels_read(kinds, kernel, gated, (row, column))
        # so many more layers cross the whole grid
        deeper = _pixels_read(kinds + ("B",) * GRID, kernel, gated, (row, column))
        later = np.arange(GRID**2).reshape(GRID, GRID) >= row * GRID + column
        parts = {
            "read": read & ~later,
            "blind": ~deeper & ~later,
            "far": deeper & ~read & ~later,
            "forbidden": read & later,
            "later": later & ~read,
        }
        picture = Image.new("RGB", (right + 560, grid.bottom + 3), "white")
        for kind, part in parts.items():
            for pixel in np.flatnonzero(part):
                _tile(picture, grid.box(pixel), kind)
        grid.frame(picture, row * GRID + column)
        counts = {kind: int(part.sum()) for kind, part in parts.items()}
        _legend(picture, (right, 2), counts)
        text, color = _verdict(counts, masks, layers)
        write(picture, (right, 112), textwrap.fill(text, 56), color, 17)
        (_gated_kernels if gated else _plain_kernels)(picture, (right, 196), kernel, MASKS[masks])
        return picture

    def on_pointer(x, y, pressed):
        """A click, or a drag, chooses the output."""
        pixel = grid.cell_at(x, y)
        return {} if pixel is None else {"row": pixel // GRID, "column": pixel % GRID}

    return LivePicture(
        draw,
        {
            "layers": slider(tr("couches"), 6, 1, 8, width=260),
            "kernel": chooser(tr("noyau"), (3, 5, 7), width=150),
            "network": chooser(tr("réseau"), NETWORKS),
            "masks": chooser(tr("masques"), list(MASKS), width=220),
            "row": slider(tr("ligne"), GRID // 2, 0, GRID - 1, width=260),
            "column": slider(tr("colonne"), GRID // 2, 0, GRID - 1, width=260),
        },
        caption=tr(
            "Cliquez sur un pixel : en bleu, ceux dont sa loi dépend ; ajoutez des couches, puis "
            "des portes, et voyez ce que devient l'angle mort ; trompez-vous enfin de masques."
        ),
        panels={"grid": grid},
        on_pointer=on_pointer,
        rows=[["layers", "kernel", "network", "masks"], ["row", "column"]],
    )


def _pixels_read(kinds, kernel, gated, pixel):
    """Pixels that one output reads: booleans `(GRID, GRID)`.

    From the output back to the image, we follow which units of each layer count.

    Args:
        kinds: mask of each layer from the first, `("A", "B", "B")` when they are right.
        kernel: side of all their kernels.
        gated: two stacks, or one.
        pixel: `(row, column)` of the output.
    """
    horizontal = np.zeros((GRID, GRID), dtype=bool)
    horizontal[pixel] = True
    vertical = np.zeros_like(horizontal)
    for kind in reversed(kinds):
        kernels = _kernels(kernel, gated, kind)
        if gated:  # the link: at each pixel, the horizontal stack reads the vertical one
            vertical = _spread(vertical | horizontal, kernels["vertical"])
        horizontal = _spread(horizontal, kernels["horizontal"])
    # the vertical stack starts from the image moved down by one row
    horizontal[:-1] |= vertical[1:]
    return horizontal


def _kernels(size, gated, kind):
    """The kernels of a layer, `(size, size)` booleans around their pixel: what each may read."""
    reach = size // 2
    above = np.arange(size)[:, None].repeat(size, 1) < reach
    own_row = np.arange(size)[:, None].repeat(size, 1) == reach
    left = np.arange(size)[None, :] < reach + (kind == "B")
    if gated:
        return {"vertical": above | own_row, "horizontal": own_row & left}
    return {"horizontal": above | (own_row & left)}


def _spread(cells, kernel):
    """All the places that the kernel reads, when it is put on each of these cells."""
    reach = len(kernel) // 2
    page = np.zeros((GRID + 2 * reach, GRID + 2 * reach), dtype=bool)
    for i, j in np.argwhere(kernel).tolist():
        page[i : i + GRID, j : j + GRID] |= cells
    return page[reach:-reach, reach:-reach]


def _verdict(counts, masks, layers):
    """One sentence on what the output reads, and its colour."""
    blind, far = counts["blind"], counts["far"]
    if counts["forbidden"]:
        text = tr("Interdit : la sortie lit sa propre valeur, celle qu'elle doit deviner.")
        return text, FORBIDDEN
    if not counts["read"] + blind + far:
        return tr("C'est le premier pixel : il n'y a rien à lire avant lui."), figures.COLORS["y"]
    if masks == ONLY_A and layers > 1 and blind:
        text = trn(
            "Rien d'interdit, mais un angle mort de {count} pixel : sans lien résiduel, chaque "
            "masque A de plus éloigne la sortie de ses voisins.",
            "Rien d'interdit, mais un angle mort de {count} pixels : sans lien résiduel, chaque "
            "masque A de plus éloigne la sortie de ses voisins.",
            blind,
        )
        return text, FOCUS
    if blind:
        text = trn(
            "Un angle mort de {count} pixel : même avec plus de couches, il reste invisible.",
            "Un angle mort de {count} pixels : même avec plus de couches, ils restent invisibles.",
            blind,
        )
        return text, FOCUS
    if far:
        text = trn(
            "Pas d'angle mort, mais {count} pixel encore trop loin : ajoutez des couches.",
            "Pas d'angle mort, mais {count} pixels encore trop loin : ajoutez des couches.",
            far,
        )
        return text, READ
    return tr("Pas d'angle mort : la sortie lit tous les pixels d'avant."), figures.COLORS["y"]


def _tile(picture, box, kind):
    """A pixel of the grid, or of the legend."""
    pen = ImageDraw.Draw(picture)
    fills = {"read": READ, "far": TOO_FAR, "forbidden": FORBIDDEN, "later": figures.LATER}
    pen.rectangle(box, fill=fills.get(kind, "white"), outline="#BBBBBB")
    if kind == "blind":  # hatched
        x, y, right, _ = box
        side = right - x
        for start in range(3, 2 * side, 7):
            low, high = max(0, start - side), min(start, side)
            pen.line([x + low, y + start - low, x + high, y + start - high], fill=HATCH)


def _legend(picture, corner, counts):
    """What the tints mean, and how many pixels have each: three entries in a column."""
    total = counts["read"] + counts["blind"] + counts["far"]
    entries = {
        "read": tr("lus : {read} sur {total}", total=total, **counts),
        "blind": tr("angle mort : {blind}", **counts),
        "far": tr("trop loin : {far}", **counts),
        "later": tr("à deviner plus tard"),
        "forbidden": tr("interdit, mais lu : {forbidden}", **counts),
        "output": tr("la sortie"),
    }
    for number, (kind, text) in enumerate(entries.items()):
        place = Panel(
            1, 1, 22, left=corner[0] + 270 * (number // 3), top=corner[1] + 32 * (number % 3)
        )
        _tile(picture, place.box(0), kind)
        if kind == "output":
            place.frame(picture, 0)
        color, size = (READ, 20) if kind == "read" else (DARK, 16)
        write(picture, (place.right + 10, place.top + 11), text, color, size, "lm")


def _plain_kernels(picture, corner, size, kinds):
    x, y = corner
    titles = tr("première couche : {kind}"), tr("couches suivantes : {kind}")
    for number, (title, kind) in enumerate(zip(titles, kinds)):
        kernel = _kernels(size, False, kind)["horizontal"]
        left = x + 220 * number
        _kernel_grid(picture, (left, y + 26), title.format(kind=kind), kernel, size // 2)


def _gated_kernels(picture, corner, size, kinds):
    x, y = corner
    reach = size // 2
    above = _kernels(size, True, "B")["vertical"][: reach + 1]
    panel = _kernel_grid(picture, (x, y + 26), tr("pile verticale"), above)
    note = tr("(sur l'image descendue\nd'une ligne)")
    write(picture, (x, panel.bottom + 10), note, "#666666", 13)
    titles = (
        tr("pile horizontale, première couche : {kind}"),
        tr("pile horizontale, couches suivantes : {kind}"),
    )
    for number, (title, kind) in enumerate(zip(titles, kinds)):
        row = _kernels(size, True, kind)["horizontal"][reach : reach + 1]
        where = (x + 220, y + 26 + 70 * number)
        _kernel_grid(picture, where, title.format(kind=kind), row, 0)


def _kernel_grid(picture, corner, title, kernel, centre=None):
    """A mask, ones and zeros; the pixel itself is outlined, in the row `centre`."""
    rows, columns = kernel.shape
    panel = Panel(columns, rows, 23, title, left=corner[0], top=corner[1])
    panel.write_title(picture)
    for cell, one in enumerate(kernel.flat):
        fill, color = (TOO_FAR, DARK) if one else (figures.LATER, "#666666")
        panel.write_in(picture, cell, str(int(one)), fill, color)
    if centre is not None:
        panel.frame(picture, centre * columns + columns // 2)
    return panel
