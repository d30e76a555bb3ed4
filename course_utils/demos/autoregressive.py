"""Autoregressive models, one pixel at a time (notebook 03a)."""

import functools
import math

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from .. import figures
from ..autoregressive.made import masks as made_masks
from .live import (
    CANVAS,
    FOCUS,
    FOCUS_TEXT,
    TOP,
    WAITING,
    LivePicture,
    cell_box,
    decimal,
    font,
    seed_box,
    temperature_slider,
    to_pil,
)


def sampling_explorer(models, *, temperature=1.0):
    """Watch a model draw an image pixel by pixel, with the law of each pixel.

    On the left the image so far; in the middle the probabilities p(xᵢ = 1 | x₍<ᵢ₎) met so far; on
    the right the law of the current pixel, the value drawn, and the bill in nats.

    Args:
        models: `{name: autoregressive model}`, of square grey images, without condition.
        temperature: where the temperature starts.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    if not models:
        raise ValueError("the demo needs at least one model")
    shapes = {model.shape for model in models.values()}
    shape = next(iter(shapes))
    if len(shapes) != 1 or shape[0] != 1 or any(m.num_classes for m in models.values()):
        raise ValueError("the demo needs models of the same grey images (1, H, W), without classes")
    _, height, width = shape
    dims, zoom = height * width, max(1, CANVAS // height)
    middle, right = zoom * width + 24, 2 * zoom * width + 48
    size = (right + 262, TOP + zoom * height + 8)
    ink = np.array(to_rgb(figures.COLORS["x"]))

    @functools.lru_cache(maxsize=32)
    def trajectory(name, temperature, seed):
        """One image: pixels in the order of the visit, their values and p(1), `(H · W,)` each."""
        steps = []
        models[name].sample(
            1,
            generator=torch.Generator().manual_seed(seed),
            temperature=temperature,
            callback=lambda *step: steps.append((step[0], step[1].item(), step[2].item())),
        )
        return [np.array(column) for column in zip(*steps)]

    def draw(model, step, temperature, seed):
        pixels, values, shares = (column[:step] for column in trajectory(model, temperature, seed))
        image = np.tile(WAITING, (dims, 1))  # (H · W, 3)
        chances = image.copy()
        image[pixels] = 1 - values[:, None]
        chances[pixels] = 1 - shares[:, None] * (1 - ink)
        nats = [_cost(*pair) for pair in zip(values.tolist(), shares.tolist())]

        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        for x, page, text in ((0, image, "image"), (middle, chances, "p(xᵢ = 1 | pixels d'avant)")):
            pen.text((x + 2, 4), text, fill=figures.COLORS["x"], font=font(16))
            picture.paste(to_pil(page.reshape(height, width, 3), zoom), (x, TOP))
            if step:
                pen.rectangle(cell_box(int(pixels[-1]), width, zoom, x), outline=FOCUS, width=3)
        if step:
            _current_law(pen, values[-1], shares[-1], (right, TOP), nats, dims)
        else:
            pen.text((right, TOP), "aucun pixel tiré", fill=figures.COLORS["truth"], font=font(16))
        return picture

    draws = torch.Generator().manual_seed(1)
    controls = {
        "model": widgets.Dropdown(options=list(models), description="modèle"),
        "step": widgets.IntSlider(
            value=dims // 2 - width // 2, min=0, max=dims, description="pixel",
            layout={"width": "360px"},
        ),
        "temperature": temperature_slider(temperature),
        "seed": seed_box(),
    }  # fmt: skip
    return LivePicture(
        draw,
        controls,
        caption="Lancez ▶ : l'image se dessine ligne par ligne. Arrêtez-vous sur un pixel hésitant "
        "(p proche de 0,5). Puis gardez le tirage et changez la température, ou le modèle.",
        buttons={
            "Autre image": lambda: {"seed": int(torch.randint(10_000, (1,), generator=draws))}
        },
        rows=[["step"], ["model", "temperature", "seed"]],
        play="step",
    )


def _current_law(pen, value, probability, corner, nats, dims):
    """The two bars of the current pixel's law, what it costs, and all so far: `nats`, a list."""
    x, y = corner
    dark = figures.COLORS["truth"]
    pen.text((x, y), f"pixel {len(nats)} sur {dims}", fill=FOCUS_TEXT, font=font(16))
    floor, full = y + 190, 130
    for k, share in enumerate((1 - probability, probability)):
        left = x + 20 + 80 * k
        color = figures.COLORS["x"] if k == value else figures.COLORS["prior"]
        pen.rectangle([left, floor - full * share, left + 50, floor], color)
        pen.text((left, floor - full * share - 22), decimal(share), fill=dark, font=font(15))
        pen.text((left + 20, floor + 6), str(k), fill=dark, font=font(16))
    pen.line([x + 10, floor, x + 160, floor], fill=dark, width=1)
    pen.text((x, floor + 34), f"tiré : {value:.0f}", fill=figures.COLORS["x"], font=font(16))
    pen.text((x, floor + 60), f"coût : {decimal(nats[-1])} nat", fill=dark, font=font(16))
    pen.text((x, floor + 84), f"total : {decimal(sum(nats), 1)} nats", fill=dark, font=font(16))


def _cost(value, probability):
    """−log of the probability of a pixel's value, in nats; `probability`: that it be 1."""
    return 0.0 - math.log(max(probability if value else 1 - probability, 1e-30))  # never −0.0


# ---------------------------------------------------------------------------------------------
# The masks of MADE
# ---------------------------------------------------------------------------------------------

MASKS = ("justes", "diapositive 13", "sans masque")
RADIUS = 17
TABLE, HEADER = (680, 10), 60  # corner of the table of the paths, and height of its titles


def mask_explorer(dims=5, hidden=7):
    """A small MADE: choose an output, or click on it, and see which paths reach it.

    Beside the network, the number of paths from each pixel to each output, M^V·M^W: with right
    masks, strictly under the diagonal in the order of the visit.

    Args:
        dims: number of pixels.
        hidden: units of each hidden layer.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    if not 2 <= dims <= 8 or not 1 <= hidden <= 10:
        raise ValueError(f"dims={dims}, hidden={hidden}: expected 2 to 8 pixels, 1 to 10 units")
    size = (1000, 400)
    cell = min(34, 220 // dims)

    @functools.lru_cache(maxsize=1)  # another output is another view of the same network
    def network(layers, masks, order, seed):
        """Masks `(outputs, inputs)` of each layer, degrees of the units, ranks of the pixels,
        and the table of the paths, a picture."""
        generator = torch.Generator().manual_seed(seed)
        ordering = torch.arange(dims)
        if order == "au hasard":
            ordering = torch.randperm(dims, generator=generator)
        degrees = [
            torch.randint(1, dims, (hidden,), generator=generator).sort().values
            for _ in range(layers)
        ]
        hidden_masks, mask_V, _ = made_masks(ordering, degrees)
        rank = torch.argsort(ordering) + 1
        if masks == "diapositive 13":  # as printed: 1 where m(k) > d
            mask_V = (degrees[-1][None, :] > rank[:, None]).float()
        if masks == "sans masque":
            hidden_masks = [torch.ones_like(mask) for mask in hidden_masks]
            mask_V = torch.ones_like(mask_V)
        weights = [*hidden_masks, mask_V]
        return weights, degrees, rank, _paths_table(weights, rank, cell)

    def units(layers):
        """Centre of each unit, from the pixels (bottom) to the outputs (top)."""
        counts = [dims, *[hidden] * layers, dims]
        step = 300 / (len(counts) - 1)
        return [
            [(70 + 520 * (k + 0.5) / n, 350 - step * level) for k in range(n)]
            for level, n in enumerate(counts)
        ]

    def draw(output, layers, masks, order, seed):
        weights, degrees, rank, table = network(layers, masks, order, seed)
        centres = units(layers)
        active = [torch.zeros(len(row), dtype=torch.bool) for row in centres]
        active[-1][output - 1] = True
        for level in reversed(range(len(weights))):  # walk the paths backwards
            active[level] = weights[level][active[level + 1]].any(0)

        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        for level, mask in enumerate(weights):
            for pair in mask.nonzero().tolist():
                lit = active[level + 1][pair[0]] and active[level][pair[1]]
                line = [centres[level][pair[1]], centres[level + 1][pair[0]]]
                color = FOCUS if lit else "#BBBBBB"
                pen.line([*line[0], *line[1]], fill=color, width=3 if lit else 1)
        labels = [[f"x{k + 1}" for k in range(dims)]]
        labels += [[str(m) for m in layer.tolist()] for layer in degrees]
        labels += [[f"x̂{k + 1}" for k in range(dims)]]
        for level, row in enumerate(centres):
            pixel = level in (0, len(centres) - 1)
            for k, (x, y) in enumerate(row):
                color = figures.COLORS["x"] if pixel else "#444444"
                color = FOCUS if active[level][k] else color
                filled = level == 0 or active[level][k]
                box = [x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS]
                pen.ellipse(box, fill=color if filled else "white", outline=color, width=2)
                ink = "white" if filled else color
                pen.text((x, y), labels[level][k], fill=ink, font=font(14), anchor="mm")
        for k, (x, _) in enumerate(centres[0]):
            dark = figures.COLORS["truth"]
            pen.text((x, 384), f"rang {rank[k]}", fill=dark, font=font(14), anchor="mm")
        picture.paste(table, TABLE)
        for i in range(dims):
            color = FOCUS_TEXT if i == output - 1 else figures.COLORS["x"]
            where = (TABLE[0] - 8, TABLE[1] + HEADER + cell * (i + 0.5))
            pen.text(where, f"x̂{i + 1}", fill=color, font=font(14), anchor="rm")
        _verdict(pen, active[0], rank, output)
        return picture

    controls = {
        "output": widgets.IntSlider(
            value=3, min=1, max=dims, description="sortie", layout={"width": "240px"}
        ),
        "layers": widgets.IntSlider(
            value=1, min=1, max=3, description="couches", layout={"width": "220px"}
        ),
        "masks": widgets.Dropdown(options=MASKS, description="masques", layout={"width": "230px"}),
        "order": widgets.Dropdown(
            options=("naturel", "au hasard"), description="ordre", layout={"width": "210px"}
        ),
        "seed": widgets.BoundedIntText(
            value=3, min=0, max=999, description="tirage", layout={"width": "150px"}
        ),
    }
    outputs = units(1)[-1]  # at the same place whatever the number of layers

    def on_pointer(x, y, pressed):
        """A click near an output chooses it."""
        nearest = min(range(dims), key=lambda k: math.dist(outputs[k], (x, y)))
        return {"output": nearest + 1} if math.dist(outputs[nearest], (x, y)) < 60 else {}

    return LivePicture(
        draw,
        controls,
        caption="Cliquez sur une sortie x̂ (en haut) : en jaune, tous les chemins qui y mènent. "
        "Comparez les masques justes et ceux de la diapositive ; essayez un ordre au hasard.",
        on_pointer=on_pointer,
        rows=[["output", "layers"], ["masks", "order", "seed"]],
    )


def _paths_table(weights, rank, cell):
    """A picture: the number of paths from each pixel (columns) to each output (rows)."""
    paths = functools.reduce(lambda below, mask: mask @ below, weights[1:], weights[0])
    dims, dark = len(paths), figures.COLORS["truth"]
    table = Image.new("RGB", (300, HEADER + cell * dims + 1), "white")
    pen = ImageDraw.Draw(table)
    pen.text((0, 6), "nombre de chemins : Mⱽ · Mᵂ", fill=dark, font=font(16))
    for i in range(dims):
        where = (cell * (i + 0.5), HEADER - 12)
        pen.text(where, f"x{i + 1}", fill=figures.COLORS["x"], font=font(14), anchor="mm")
        for j in range(dims):
            count, allowed = int(paths[i, j]), rank[j] < rank[i]
            fill = "white" if count == 0 else ("#CFE8DC" if allowed else "#E9A3A0")
            x, y = cell * j, HEADER + cell * i
            pen.rectangle([x, y, x + cell, y + cell], fill=fill, outline="#BBBBBB")
            where = (x + cell / 2, y + cell / 2)
            pen.text(where, str(count), fill=dark, font=font(14), anchor="mm")
    return table


def _verdict(pen, sees, rank, output):
    """Which pixels the chosen output sees, and whether it may."""
    seen = [k + 1 for k in range(len(sees)) if sees[k]]
    forbidden = [k for k in seen if rank[k - 1] >= rank[output - 1]]
    names = ", ".join(f"x{k}" for k in seen) or "rien"
    pen.text((640, 300), f"x̂{output} voit : {names}", fill=FOCUS_TEXT, font=font(16))
    if forbidden:
        text = "interdit : " + ", ".join(f"x{k}" for k in forbidden)
        pen.text((640, 326), text, fill="#B3261E", font=font(16))
    else:
        text = "rien d'interdit : seulement des pixels d'avant"
        pen.text((640, 326), text, fill=figures.COLORS["y"], font=font(15))
