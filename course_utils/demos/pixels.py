"""PixelCNN and its family: paint with a model, and see what an output reads (notebook 03b)."""

import functools
import math

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from .. import figures
from ..autoregressive.pixels import PixelModel
from .live import (
    CANVAS,
    FOCUS,
    FOCUS_TEXT,
    TOP,
    WAITING,
    LivePicture,
    amount,
    axis,
    bars,
    cell_box,
    class_box,
    decimal,
    edits_box,
    font,
    mark,
    read_edits,
    seed_box,
    temperature_slider,
    to_pil,
    write_edits,
)

SMALL = 190  # pixels: side of the image « sans retouche »
LAW = 430  # width of the charts of a pixel's law
# Name of each channel, its colour, and the same made pale, for the bars.
COLOR_CHANNELS = (
    ("R", "#B3261E", "#EDB5B0"),
    ("V", "#1B7F3B", "#A8D5B5"),
    ("B", "#3B3FB5", "#C3C4EE"),
)
GREY_CHANNEL = ((None, figures.COLORS["truth"], figures.COLORS["prior"]),)


def painting_explorer(models, *, temperature=1.0, pace=3):
    """Watch a model paint an image pixel by pixel, change a pixel by hand, let the model go on.

    On the left the image so far, where a click changes a pixel: the model then repaints what
    follows, with the same random numbers. In the middle the image that they give without any
    change, and the bill in nats; on the right the law of the last painted pixel.

    Args:
        models: `{name: PixelModel}`, of the same images (grey or in colour) and classes.
        temperature: where the temperature starts.
        pace: pixels painted at each tick of the play button, every 80 ms.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    (channels, height, width), levels, num_classes = _common_kind(models)
    dims = height * width
    zoom, small = (max(1, side // max(height, width)) for side in (CANVAS, SMALL))
    middle = zoom * width + 24
    right = middle + max(small * width, SMALL) + 24
    size = (right + LAW, TOP + CANVAS + 12)
    flips = channels == 1 and levels == 2  # a click then needs no brush

    @functools.lru_cache(maxsize=64)
    def painted(model, temperature, seed, edits, label=None):
        return _paint(models[model], label, temperature, seed, read_edits(edits))

    def draw(step, model, temperature, seed, edits, brush=None, label=None):
        values, laws, costs = painted(model, temperature, seed, edits, label)
        untouched, _, _ = painted(model, temperature, seed, "", label)
        edited = [pixel for pixel in read_edits(edits) if pixel < step]

        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        pen.text((2, 4), "image", fill=figures.COLORS["x"], font=font(16))
        pen.text((middle, 4), "sans retouche", fill=figures.COLORS["prior"], font=font(16))
        for x, side, pixels in ((0, zoom, values), (middle, small, untouched)):
            page = np.tile(WAITING, (dims, 1))
            page[:step] = _colors(pixels[:step], levels)
            picture.paste(to_pil(page.reshape(height, width, 3), side), (x, TOP))
            edges = [x, TOP - 1, x + side * width, TOP + side * height]
            pen.rectangle(edges, outline="#BBBBBB")
            if step:
                pen.rectangle(cell_box(step - 1, width, side, x), outline=FOCUS, width=3)
        for pixel in edited:
            mark(pen, cell_box(pixel, width, zoom))
        if brush is not None:
            _swatch(pen, zoom * width, _colors(np.array([_brush_values(brush, levels)]), levels))

        drawn = channels * (step - len(edited))  # values that the model chose
        changed = (values[:step] != untouched[:step]).any(1).sum()
        lines = _bill(step, dims, values, costs[:step], drawn, step - 1 in edited)
        if edited:
            plural = "s" if changed > 1 else ""
            lines.append((f"{changed} pixel{plural} différent{plural}", FOCUS_TEXT))
        for number, (text, color) in enumerate(lines):
            where = (middle, TOP + small * height + 10 + 20 * number)
            pen.text(where, text, fill=color, font=font(15))
        if step:
            title = f"loi du pixel {step}, sachant ceux d'avant"
            pen.text((right, 4), title, fill=FOCUS_TEXT, font=font(16))
            color = FOCUS if step - 1 in edited else figures.COLORS["x"]
            _law(pen, right, laws[step - 1], values[step - 1], color)
        return picture

    controls = {
        "step": widgets.IntSlider(
            value=dims // 2 + width // 2, min=0, max=dims, description="pixel",
            layout={"width": "340px"},
        ),
        "model": widgets.Dropdown(
            options=list(models), description="modèle", layout={"width": "270px"}
        ),
        "temperature": temperature_slider(temperature),
        "seed": seed_box(),
        "edits": edits_box(),
    }  # fmt: skip
    rows = [["step"], ["model", "temperature", "seed"], ["edits"]]
    if not flips:
        controls["brush"] = _brush_control(channels, levels)
        rows[0].append("brush")
    if num_classes is not None:
        controls["label"] = class_box(num_classes)
        rows[1].append("label")

    def change(pixel):
        """Give a painted pixel another value: what follows is to be painted again."""
        values = {name: control.value for name, control in controls.items()}
        if not 0 <= pixel < values.pop("step"):
            return {}
        if flips:
            new = (1 - int(painted(**values)[0][pixel, 0]),)
        else:
            new = _brush_values(values["brush"], levels)
        edits = {k: v for k, v in read_edits(values["edits"]).items() if k < pixel}
        return {"edits": write_edits(edits | {pixel: new}), "step": pixel + 1}

    def on_pointer(x, y, pressed):
        """A click on a painted pixel changes it."""
        row, column = (y - TOP) // zoom, x // zoom
        inside = pressed and 0 <= row < height and 0 <= column < width
        return change(int(row * width + column)) if inside else {}

    draws = torch.Generator().manual_seed(1)
    what = "l'inverser" if flips else "lui donner la valeur du pinceau"
    return LivePicture(
        draw,
        controls,
        caption=f"Lancez ▶, arrêtez, cliquez sur un pixel déjà peint pour {what}, puis relancez : "
        "le modèle repeint la suite avec les mêmes nombres au hasard ; comparez à l'image sans "
        "retouche.",
        on_pointer=on_pointer,
        buttons={
            "Changer ce pixel": lambda: change(controls["step"].value - 1),
            "Effacer les retouches": lambda: {"edits": ""},
            "Autre image": lambda: {
                "seed": int(torch.randint(10_000, (1,), generator=draws)), "edits": "",
            },
        },
        rows=rows,
        play="step",
        pace=pace,
    )  # fmt: skip


def _common_kind(models):
    """Shape, levels and number of classes of models that must have the same."""
    if not models:
        raise ValueError("the demo needs at least one model")
    for name, model in models.items():
        if not isinstance(model, PixelModel):
            raise ValueError(
                f"model {name!r}: expected a PixelModel (PixelCNN, RowLSTM or DiagonalBiLSTM), "
                f"got {type(model).__name__}"
            )
    kinds = {(model.shape, model.levels, model.num_classes) for model in models.values()}
    if len(kinds) > 1:
        raise ValueError(
            "the demo needs models of the same images, got (shape, levels, num_classes) = "
            + " and ".join(sorted(map(str, kinds)))
        )
    shape, levels, num_classes = kinds.pop()
    if shape[0] not in (1, 3):
        raise ValueError(f"the demo needs images of 1 or 3 channels, got the shape {shape}")
    return shape, levels, num_classes


def _paint(model, label, temperature, seed, edits):
    """One image whose edited pixels are known, pixel by pixel in raster order.

    Returns:
        values `(H·W, C)`, laws `(H·W, C, levels)`, and costs `(H·W,)` in nats, as arrays. The
        pixels edited cost nothing: the model did not choose them.
    """
    channels, height, width = model.shape
    given = np.zeros((height * width, channels), dtype=np.uint8)
    mask = np.zeros(height * width, dtype=bool)
    for pixel, values in edits.items():
        given[pixel], mask[pixel] = values, True
    device, laws = model.ordering.device, []

    def note(_, values, probabilities):
        law = probabilities[0].tolist()  # at once: the tensor will serve again
        laws.append([1 - law, law] if model.levels == 2 else law)

    x = model.sample(
        1,
        None if label is None else torch.tensor([label], device=device),
        generator=torch.Generator(device).manual_seed(seed),
        given=torch.from_numpy(given.T.reshape(1, *model.shape).copy()).to(device),
        mask=torch.from_numpy(mask.reshape(height, width)).to(device),
        temperature=temperature,
        callback=note,
    )
    values = x[0].flatten(1).T.cpu().numpy()
    laws = np.array(laws).reshape(height * width, channels, model.levels)
    chosen = np.take_along_axis(laws, values[:, :, None].astype(int), 2)[:, :, 0]
    costs = 0.0 - np.log(np.maximum(chosen, 1e-30)).sum(1)  # never −0.0
    return values, laws, np.where(mask, 0.0, costs)


def _brush_control(channels, levels):
    if channels == 3:
        return widgets.ColorPicker(
            value="#ff0000", description="pinceau", layout={"width": "220px"}
        )
    return widgets.IntSlider(
        value=levels - 1, min=0, max=levels - 1, description="pinceau", layout={"width": "270px"}
    )


def _brush_values(brush, levels):
    """The brush, a level or a colour, as the values of a pixel's channels."""
    if isinstance(brush, int):
        return (brush,)
    return tuple(round(share * (levels - 1)) for share in to_rgb(brush))


def _colors(values, levels):
    """Values of pixels `(…, C)` -> colours `(…, 3)` in [0, 1]: dark ink on white paper if grey."""
    shares = values / (levels - 1)
    return shares if values.shape[-1] == 3 else np.repeat(1 - shares, 3, axis=-1)


def _swatch(pen, right, color):
    """What the brush would paint, above the image."""
    box = [right - 22, 5, right - 2, 25]
    pen.rectangle(box, fill=tuple((255 * color[0]).round().astype(int)), outline="#888888")
    pen.text((right - 30, 15), "pinceau", fill="#666666", font=font(14), anchor="rm")


def _bill(step, dims, values, costs, drawn, edited):
    """What the last pixel cost, and all so far: lines of text and their colours."""
    dark = figures.COLORS["truth"]
    if not step:
        return [("aucun pixel peint", dark)]
    value = ", ".join(map(str, values[step - 1]))
    total = costs.sum()
    return [
        (f"pixel {step} sur {dims}", FOCUS_TEXT),
        (f"à la main : {value}", FOCUS_TEXT)
        if edited
        else (f"tiré : {value}", figures.COLORS["x"]),
        (f"coût : {amount(costs[-1], 2, 'nat')}", dark),
        (f"total : {amount(total, 1, 'nat')}", dark),
        (f"soit {decimal(total / math.log(2) / max(1, drawn))} bits/dim", dark),
    ]


def _law(pen, x, laws, values, highlight):
    """The law of a pixel: a chart per channel, one under the other."""
    channels = COLOR_CHANNELS if len(values) == 3 else GREY_CHANNEL
    room = CANVAS / len(channels)
    for number, (law, value, (name, strong, pale)) in enumerate(
        zip(laws.tolist(), values.tolist(), channels)
    ):
        floor, full = round(TOP + room * (number + 1)) - 22, round(room) - 42
        axis(pen, (x + 32, floor), (LAW - 36, full))
        if name is not None:
            pen.text((x, floor - full / 2), name, fill=strong, font=font(18), anchor="lm")
        bars(pen, (x + 36, floor), (LAW - 44, full), law, value, (pale, highlight))


# ---------------------------------------------------------------------------------------------
# What an output reads
# ---------------------------------------------------------------------------------------------

GRID, CELL = 13, 30  # side of the grid, in pixels of the image; of a pixel, on the screen
NETWORKS = ("simple", "à portes (deux piles)")
MASKS = {"A puis B": ("A", "B"), "B partout": ("B", "B"), "A partout": ("A", "A")}
READ, FORBIDDEN = figures.COLORS["x"], "#B3261E"
TOO_FAR, LATER, HATCH = "#CFE3F1", "#F2F2F2", "#444444"


def receptive_field_explorer():
    """Which pixels an output of a PixelCNN reads, and which it misses.

    A pixel that no number of layers would let it read is in the blind spot; others are only too
    far. « A partout » shows a stack without residual links, which would give each layer the pixel
    that its mask A hides.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    right = GRID * CELL + 30
    size = (right + 560, GRID * CELL + 3)

    def draw(layers, kernel, network, masks, row, column):
        gated, (first, others) = network != NETWORKS[0], MASKS[masks]
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
        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        for name, part in parts.items():
            for i, j in np.argwhere(part).tolist():
                _tile(pen, (CELL * j, CELL * i), CELL, name)
        box = [CELL * column, CELL * row, CELL * (column + 1), CELL * (row + 1)]
        pen.rectangle(box, outline=FOCUS, width=4)
        counts = {name: int(part.sum()) for name, part in parts.items()}
        _legend(pen, (right, 2), counts)
        text, color = _verdict(counts, masks, layers)
        for number, line in enumerate(_wrapped(text, 540, font(17))):
            pen.text((right, 112 + 24 * number), line, fill=color, font=font(17))
        (_gated_kernels if gated else _plain_kernels)(pen, (right, 196), kernel, MASKS[masks])
        return picture

    controls = {
        "layers": widgets.IntSlider(
            value=6, min=1, max=8, description="couches", layout={"width": "260px"}
        ),
        "kernel": widgets.Dropdown(
            options=(3, 5, 7), description="noyau", layout={"width": "150px"}
        ),
        "network": widgets.Dropdown(
            options=NETWORKS, description="réseau", layout={"width": "270px"}
        ),
        "masks": widgets.Dropdown(
            options=list(MASKS), description="masques", layout={"width": "220px"}
        ),
        "row": widgets.IntSlider(
            value=GRID // 2, min=0, max=GRID - 1, description="ligne", layout={"width": "260px"}
        ),
        "column": widgets.IntSlider(
            value=GRID // 2, min=0, max=GRID - 1, description="colonne", layout={"width": "260px"}
        ),
    }

    def on_pointer(x, y, pressed):
        """A click, or a drag, chooses the output."""
        row, column = int(y // CELL), int(x // CELL)
        inside = 0 <= row < GRID and 0 <= column < GRID
        return {"row": row, "column": column} if inside else {}

    return LivePicture(
        draw,
        controls,
        caption="Cliquez sur un pixel : en bleu, ceux dont sa loi dépend ; ajoutez des couches, "
        "puis des portes, et voyez ce que devient l'angle mort ; trompez-vous enfin de masques.",
        on_pointer=on_pointer,
        rows=[["layers", "kernel", "network", "masks"], ["row", "column"]],
    )


@functools.lru_cache(maxsize=4096)
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


@functools.cache
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
        return "Interdit : la sortie lit sa propre valeur, celle qu'elle doit deviner.", FORBIDDEN
    if not counts["read"] + blind + far:
        return "C'est le premier pixel : il n'y a rien à lire avant lui.", figures.COLORS["y"]
    if masks == "A partout" and layers > 1 and blind:
        return (
            f"Rien d'interdit, mais un angle mort de {_pixels(blind)} : sans lien résiduel, chaque "
            "masque A de plus éloigne la sortie de ses voisins.",
            FOCUS_TEXT,
        )
    if blind:
        verb = "reste invisible" if blind == 1 else "restent invisibles"
        return (
            f"Un angle mort de {_pixels(blind)} : même avec plus de couches, "
            f"{'il' if blind == 1 else 'ils'} {verb}.",
            FOCUS_TEXT,
        )
    if far:
        return (
            f"Pas d'angle mort, mais {_pixels(far)} encore trop loin : ajoutez des couches.",
            READ,
        )
    return "Pas d'angle mort : la sortie lit tous les pixels d'avant.", figures.COLORS["y"]


def _pixels(count):
    return f"{count} pixel" if count == 1 else f"{count} pixels"


def _wrapped(text, width, typeface):
    """Cut a sentence into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and typeface.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _tile(pen, corner, side, kind):
    """A pixel of the grid, or of the legend."""
    x, y = corner
    fills = {"read": READ, "far": TOO_FAR, "forbidden": FORBIDDEN, "later": LATER}
    pen.rectangle([x, y, x + side, y + side], fill=fills.get(kind, "white"), outline="#BBBBBB")
    if kind == "blind":  # hatched
        for start in range(3, 2 * side, 7):
            low, high = max(0, start - side), min(start, side)
            pen.line([x + low, y + start - low, x + high, y + start - high], fill=HATCH)


def _legend(pen, corner, counts):
    """What the tints mean, and how many pixels have each."""
    total = counts["read"] + counts["blind"] + counts["far"]
    entries = [
        ("read", f"lus : {counts['read']} sur {total}"),
        ("blind", f"angle mort : {counts['blind']}"),
        ("far", f"trop loin : {counts['far']}"),
        ("later", "à deviner plus tard"),
        ("forbidden", f"interdit, mais lu : {counts['forbidden']}"),
        ("output", "la sortie"),
    ]
    for number, (kind, text) in enumerate(entries):
        x, y = corner[0] + 270 * (number // 3), corner[1] + 32 * (number % 3)
        _tile(pen, (x, y), 22, kind)
        if kind == "output":
            pen.rectangle([x, y, x + 22, y + 22], outline=FOCUS, width=4)
        big = font(20 if kind == "read" else 16)
        ink = READ if kind == "read" else figures.COLORS["truth"]
        pen.text((x + 32, y + 11), text, fill=ink, font=big, anchor="lm")


def _plain_kernels(pen, corner, size, kinds):
    x, y = corner
    for number, (title, kind) in enumerate(zip(("première couche", "couches suivantes"), kinds)):
        kernel = _kernels(size, False, kind)["horizontal"]
        left = x + 220 * number
        pen.text((left, y), f"{title} : {kind}", fill=figures.COLORS["truth"], font=font(15))
        _kernel_grid(pen, (left, y + 26), kernel, size // 2)


def _gated_kernels(pen, corner, size, kinds):
    x, y = corner
    reach, dark = size // 2, figures.COLORS["truth"]
    pen.text((x, y), "pile verticale", fill=dark, font=font(15))
    above = _kernels(size, True, "B")["vertical"][: reach + 1]
    _kernel_grid(pen, (x, y + 26), above, None)
    note = ("(sur l'image descendue", "d'une ligne)")
    for number, text in enumerate(note):
        where = (x, y + 36 + KERNEL_CELL * len(above) + 18 * number)
        pen.text(where, text, fill="#666666", font=font(13))
    for number, (title, kind) in enumerate(zip(("première couche", "couches suivantes"), kinds)):
        row = _kernels(size, True, kind)["horizontal"][reach : reach + 1]
        top = y + 70 * number
        text = f"pile horizontale, {title} : {kind}"
        pen.text((x + 220, top), text, fill=dark, font=font(15))
        _kernel_grid(pen, (x + 220, top + 26), row, 0)


KERNEL_CELL = 23


def _kernel_grid(pen, corner, kernel, centre):
    """A mask, ones and zeros; the pixel itself is outlined, in the row `centre`."""
    side = KERNEL_CELL
    for (i, j), one in np.ndenumerate(kernel):
        x, y = corner[0] + side * j, corner[1] + side * i
        fill = TOO_FAR if one else LATER
        pen.rectangle([x, y, x + side, y + side], fill=fill, outline="#BBBBBB")
        ink = figures.COLORS["truth"] if one else "#999999"
        middle = (x + side / 2, y + side / 2)
        pen.text(middle, str(int(one)), fill=ink, font=font(13), anchor="mm")
    if centre is not None:
        x, y = corner[0] + side * (kernel.shape[1] // 2), corner[1] + side * centre
        pen.rectangle([x, y, x + side, y + side], outline=FOCUS, width=3)
