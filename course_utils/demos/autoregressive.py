"""Autoregressive models, one pixel at a time (notebook 03a)."""

import functools
import math

import numpy as np
import torch
from PIL import Image, ImageDraw

from .. import figures
from ..autoregressive.made import masks as made_masks
from ..language import decimal, tr
from .controls import another_seed, chooser, number_box, slider
from .drawing import CANVAS, DARK, FOCUS, GAP, TOP, nats, tinted, write, write_lines, write_title
from .live import LivePicture
from .panels import Chart, Panel
from .steps import follow, kind_of, step_controls


def sampling_explorer(models):
    """Watch a model draw an image pixel by pixel, with the law of each pixel.

    On the left the image so far; in the middle the probabilities p(xᵢ = 1 | x₍<ᵢ₎) met so far; on
    the right the law of the current pixel, the value drawn, and the bill in nats.

    Args:
        models: `{name: autoregressive model}`, of the same binary images, without condition.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    shape, levels, num_classes = kind_of(models)
    if (shape[0], levels, num_classes) != (1, 2, None):
        raise ValueError("the demo needs models of binary images (1, H, W), without classes")
    _, height, width = shape
    dims, zoom, color = height * width, max(1, CANVAS // height), figures.COLORS["x"]
    image = Panel(width, height, zoom, tr("image"), color)
    chances = Panel(
        width, height, zoom, tr("p(xᵢ = 1 | pixels d'avant)"), color, left=image.right + GAP
    )
    right = chances.right + GAP
    law = Chart(2, right + 36, TOP + 180, 180, 130)

    @functools.lru_cache(maxsize=64)
    def drawn(model, temperature, seed):
        return follow(models[model], None, temperature, seed)

    def draw(model, step, temperature, seed):
        steps = drawn(model, temperature, seed)[:step]
        pixels = [pixel for pixel, _, _ in steps]
        values = np.array([[value] for _, value, _ in steps]).reshape(step, 1)
        shares = np.array([[law[1]] for _, _, law in steps]).reshape(step, 1)
        picture = Image.new("RGB", (right + 262, image.bottom + 8), "white")
        image.show_so_far(picture, pixels, 1 - values)
        chances.show_so_far(picture, pixels, tinted(shares, color))
        if not step:
            write_title(picture, right, TOP, tr("aucun pixel tiré"))
            return picture
        title = tr("pixel {step} sur {count}", step=step, count=dims)
        write_title(picture, right, TOP, title, FOCUS)
        _, value, probabilities = steps[-1]
        labels = [f"p({k}) = {decimal(p)}" for k, p in enumerate(probabilities)]
        tints = (figures.COLORS["prior"], color)
        law.axis(picture)
        law.bars(picture, probabilities, value, tints, labels=labels, note="")
        lines = [
            (tr("tiré : {value}", value=value), color),
            (tr("coût : {cost}", cost=nats(steps[-1].nats, 2)), DARK),
            (tr("total : {cost}", cost=nats(sum(each.nats for each in steps), 1)), DARK),
        ]
        write_lines(picture, (right, law.floor + 34), lines)
        return picture

    return LivePicture(
        draw,
        step_controls(tr("pixel"), dims // 2 - width // 2, dims, models),
        caption=tr(
            "Lancez ▶ : l'image se dessine ligne par ligne. Arrêtez-vous sur un pixel hésitant (p "
            "proche de 0,5). Puis gardez le tirage et changez la température, ou le modèle."
        ),
        panels={"image": image, "chances": chances, "law": law},
        buttons={"another": (tr("Autre image"), another_seed())},
        rows=[["step"], ["model", "temperature", "seed"]],
        play="step",
    )


# ---------------------------------------------------------------------------------------------
# The masks of MADE
# ---------------------------------------------------------------------------------------------

RIGHT, SLIDE, NONE = MASKS = tr("justes"), tr("diapositive 13"), tr("sans masque")
NATURAL, RANDOM = ORDERS = tr("naturel"), tr("au hasard")
PIXELS, HIDDEN = 5, 7  # of the image; units of each hidden layer
RADIUS = 17  # of a unit, in pixels of the picture


def mask_explorer():
    """A small MADE: choose an output, or click on it, and see which paths reach it.

    Beside the network, the number of paths from each pixel to each output, M^V·M^W: with right
    masks, strictly under the diagonal in the order of the visit.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    paths = Panel(PIXELS, PIXELS, 34, left=680, top=70)
    outputs = _unit_places(1)[-1]  # the same whatever the number of layers

    def draw(output, layers, masks, order, seed):
        weights, degrees, rank = _masked_network(layers, masks, order, seed)
        active = _reaching(weights, output)
        picture = Image.new("RGB", (1000, 400), "white")
        _draw_network(picture, _unit_places(layers), weights, degrees, active)
        for k, (x, _) in enumerate(outputs):
            write(picture, (x, 384), tr("rang {rank}", rank=rank[k].item()), size=14, anchor="mm")
        _draw_paths(picture, paths, weights, rank, output)
        seen = [k + 1 for k in range(PIXELS) if active[0][k]]
        write_lines(picture, (620, 300), _verdict(seen, rank.tolist(), output))
        return picture

    def on_pointer(x, y, pressed):
        """A click near an output chooses it."""
        nearest = min(range(PIXELS), key=lambda k: math.dist(outputs[k], (x, y)))
        return {"output": nearest + 1} if math.dist(outputs[nearest], (x, y)) < 60 else {}

    return LivePicture(
        draw,
        {
            "output": slider(tr("sortie"), 3, 1, PIXELS, width=240),
            "layers": slider(tr("couches"), 1, 1, 3, width=220),
            "masks": chooser(tr("masques"), MASKS, width=230),
            "order": chooser(tr("ordre"), ORDERS, width=210),
            "seed": number_box(tr("tirage"), 3, 0, 999),
        },
        caption=tr(
            "Cliquez sur une sortie x̂ (en haut) : en jaune, tous les chemins qui y mènent. "
            "Comparez les masques justes et ceux de la diapositive ; essayez un ordre au hasard."
        ),
        panels={"paths": paths},
        on_pointer=on_pointer,
        rows=[["output", "layers"], ["masks", "order", "seed"]],
    )


def _masked_network(layers, masks, order, seed):
    """Masks `(outputs, inputs)` of each layer, degrees of the hidden units, ranks of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    ordering = torch.arange(PIXELS)
    if order == RANDOM:
        ordering = torch.randperm(PIXELS, generator=generator)
    degrees = [
        torch.randint(1, PIXELS, (HIDDEN,), generator=generator).sort().values
        for _ in range(layers)
    ]
    hidden_masks, mask_V = made_masks(ordering, degrees)
    rank = torch.argsort(ordering) + 1
    if masks == SLIDE:  # as printed: 1 where m(k) > d
        mask_V = (degrees[-1][None, :] > rank[:, None]).float()
    weights = [*hidden_masks, mask_V]
    if masks == NONE:
        weights = [torch.ones_like(mask) for mask in weights]
    return weights, degrees, rank


def _reaching(weights, output):
    """The units from which a path goes to the output: booleans of each layer, pixels first."""
    active = [torch.arange(len(weights[-1])) == output - 1]
    for mask in reversed(weights):  # walk the paths backwards
        active.insert(0, mask[active[0]].any(0))
    return active


def _unit_places(layers):
    """Centre of each unit, from the pixels (bottom) to the outputs (top)."""
    counts = [PIXELS, *[HIDDEN] * layers, PIXELS]
    step = 300 / (len(counts) - 1)
    return [
        [(70 + 520 * (k + 0.5) / n, 350 - step * level) for k in range(n)]
        for level, n in enumerate(counts)
    ]


def _draw_network(picture, places, weights, degrees, active):
    """The links that the masks let through, then the units; those `active` are lit."""
    pen = ImageDraw.Draw(picture)
    for level, mask in enumerate(weights):
        for above, below in mask.nonzero().tolist():
            lit = active[level + 1][above] and active[level][below]
            line = [places[level][below], places[level + 1][above]]
            pen.line(line, fill=FOCUS if lit else "#BBBBBB", width=3 if lit else 1)
    pixels = range(1, len(places[0]) + 1)
    labels = [[f"x{k}" for k in pixels], *map(torch.Tensor.tolist, degrees)]
    labels.append([f"x̂{k}" for k in pixels])
    for level, row in enumerate(places):
        own = figures.COLORS["x"] if level in (0, len(places) - 1) else "#444444"
        for (x, y), label, lit in zip(row, labels[level], active[level]):
            color = FOCUS if lit else own
            filled = level == 0 or lit
            box = [x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS]
            pen.ellipse(box, fill=color if filled else "white", outline=color, width=2)
            write(picture, (x, y), str(label), figures.ink_on(color) if filled else color, 14, "mm")


def _draw_paths(picture, panel, weights, rank, output):
    """The number of paths from each pixel (columns) to each output (rows)."""
    paths = functools.reduce(lambda below, mask: mask @ below, weights)
    color = figures.COLORS["x"]
    write(picture, (panel.left, panel.top - 54), tr("nombre de chemins : Mⱽ · Mᵂ"))
    for k in range(panel.rows):
        along = panel.side * (k + 0.5)
        write(picture, (panel.left + along, panel.top - 12), f"x{k + 1}", color, 14, "mm")
        ink = FOCUS if k == output - 1 else color
        write(picture, (panel.left - 8, panel.top + along), f"x̂{k + 1}", ink, 14, "rm")
    for cell, count in enumerate(paths.flatten().int().tolist()):
        i, j = divmod(cell, panel.columns)
        fill = "white" if count == 0 else ("#CFE8DC" if rank[j] < rank[i] else "#E9A3A0")
        panel.write_in(picture, cell, str(count), fill)


def _verdict(seen, rank, output):
    """Which pixels the chosen output sees, and whether it may: lines of text."""
    names = ", ".join(f"x{k}" for k in seen) or tr("rien")
    lines = [(tr("x̂{output} voit : {names}", output=output, names=names), FOCUS)]
    forbidden = [f"x{k}" for k in seen if rank[k - 1] >= rank[output - 1]]
    if forbidden:
        return [*lines, (tr("interdit : {names}", names=", ".join(forbidden)), "#B3261E")]
    return [*lines, (tr("rien d'interdit : seulement des pixels d'avant"), figures.COLORS["y"])]
