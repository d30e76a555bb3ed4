"""A prior draws the codes of a VQ-VAE one by one, and the decoder the image (notebook 04)."""

import functools
import math

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image, ImageDraw

from .. import figures
from .codebook import DARK, GAP, Codebook, frozen, panel_title, paper, paste_image
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
    font,
    seed_box,
    temperature_slider,
)

LIKELIEST = 10  # atoms whose probability is shown
LAW = 386  # width of their chart


def prior_explorer(model, priors, images, *, temperature=1.0):
    """Watch a prior draw a map of codes, one by one, and the decoder draw the image.

    On the left the codes so far; in the middle the image that they give, the codes to come being
    replaced by the most frequent one; on the right the law of the last code, and the bill in bits.

    Args:
        model: a `VQVAE`.
        priors: `{name: model of its codes}`: autoregressive models, or any object whose
            `sample(1, y, generator=, temperature=, callback=)` tells each code it draws; `y` is
            None unless it has `num_classes`.
        images: integer images `(N, C, H, W)`, from which the tiles of the atoms are made.
        temperature: where the temperature starts.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    book = Codebook(model, images)
    num_classes = _check_priors(book, priors)
    priors = {name: frozen(prior) for name, prior in priors.items()}
    count = book.height * book.width
    side, zoom = CANVAS // max(book.height, book.width), book.zoom(CANVAS)
    middle = CANVAS + GAP
    right = middle + CANVAS + GAP
    size = (right + LAW, TOP + CANVAS + 40)

    @functools.lru_cache(maxsize=64)
    def drawn(prior, temperature, seed, label=None):
        return _draw_codes(priors[prior], label, temperature, seed, book)

    def draw(step, prior, temperature, seed, label=None):
        steps = drawn(prior, temperature, seed, label)[:step]
        codes = [None] * count
        for place, code, _ in steps:
            codes[place] = code

        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        panel_title(pen, 0, "carte des codes", figures.CODE_TEXT)
        book.paste_map(picture, (0, TOP), side, codes)
        panel_title(pen, middle, "image décodée", figures.COLORS["x"])
        paste_image(picture, _half_drawn(codes, book), zoom, (middle, TOP))
        if None in codes:
            text = f"en gris : pas encore tiré, décodé comme l'atome {book.background}"
            pen.text((0, TOP + CANVAS + 24), text, fill="#666666", font=font(16), anchor="lm")
        if not steps:
            pen.text((right, TOP), "aucun code tiré", fill=DARK, font=font(16))
            return picture
        place, code, law = steps[-1]
        pen.rectangle(cell_box(place, book.width, side), outline=FOCUS, width=4)
        book.frame_cell(pen, place, zoom, (middle, TOP))
        panel_title(pen, right, f"loi de la case {step}, sachant celles d'avant", FOCUS_TEXT)
        _draw_law(picture, pen, (right, TOP + 170), law, code, book)
        for number, (text, color) in enumerate(_bill(steps, count, book.num_codes)):
            where = (right, TOP + 250 + 24 * number)
            pen.text(where, text, fill=color, font=font(16), anchor="lm")
        return picture

    controls = {
        "step": widgets.IntSlider(
            value=count // 2 + 1, min=0, max=count, description="case", layout={"width": "340px"}
        ),
        "prior": widgets.Dropdown(
            options=list(priors), description="prior", layout={"width": "270px"}
        ),
        "temperature": temperature_slider(temperature),
        "seed": seed_box(),
    }
    rows = [["step", "prior"], ["temperature", "seed"]]
    if num_classes is not None:
        controls["label"] = class_box(num_classes)
        rows[1].append("label")
    draws = torch.Generator().manual_seed(1)
    return LivePicture(
        draw,
        controls,
        caption="Lancez ▶ : le prior tire les codes un par un, le décodeur en fait une image. "
        "Arrêtez-vous sur un code qui coûte cher, puis baissez la température, ou changez de "
        "classe ou de prior.",
        buttons={
            "Autre tirage": lambda: {"seed": int(torch.randint(10_000, (1,), generator=draws))}
        },
        rows=rows,
        play="step",
    )


def _check_priors(book, priors):
    """The number of classes of the priors that have some, or None."""
    if not priors:
        raise ValueError("the demo needs at least one prior")
    expected = {"shape": tuple(book.model.code_shape), "levels": book.num_codes}
    for name, prior in priors.items():
        if not callable(getattr(prior, "sample", None)):
            raise ValueError(f"prior {name!r}: {type(prior).__name__} has no sample method")
        for what, value in expected.items():
            found = getattr(prior, what, value)
            if found != value:
                raise ValueError(f"prior {name!r}: {what} {found}, the codes have {value}")
    classes = {getattr(prior, "num_classes", None) for prior in priors.values()} - {None}
    if len(classes) > 1:
        raise ValueError(f"priors of {sorted(classes)} classes: expected as many for all")
    return classes.pop() if classes else None


def _draw_codes(prior, label, temperature, seed, book):
    """One map of codes, drawn by a prior: a list of (place, code, law of the code)."""
    steps = []

    def note(place, values, probabilities):
        law = probabilities[0].tolist()  # at once: the tensor will serve again
        steps.append((place, int(values[0]), law if isinstance(law, list) else [1 - law, law]))

    conditional = getattr(prior, "num_classes", None) is not None
    prior.sample(
        1,
        torch.tensor([label], device=book.device) if conditional else None,
        generator=torch.Generator(book.device).manual_seed(seed),
        temperature=temperature,
        callback=note,
    )
    if len(steps) != book.height * book.width:
        raise ValueError(
            f"a prior told {len(steps)} codes: expected {book.height * book.width}, "
            "each by callback(place, values, probabilities)"
        )
    return steps


def _half_drawn(codes, book):
    """The image of codes some of which wait, paler where they do: colours `(H, W, 3)`."""
    filled = tuple(book.background if code is None else code for code in codes)
    page = paper(book.decode(filled))
    waits = np.array([code is None for code in codes]).reshape(book.height, book.width)
    step = page.shape[0] // book.height
    waits = waits.repeat(step, 0).repeat(step, 1)[..., None]
    return np.where(waits, 0.5 * page + np.array(WAITING) - 0.5, page)


def _draw_law(picture, pen, corner, law, code, book):
    """The most probable atoms, their tiles under their bars; one bar for all the others."""
    x, floor = corner
    ranked = sorted(range(len(law)), key=lambda atom: -law[atom])[:LIKELIEST]
    if code not in ranked:
        ranked[-1] = code
    shares = [law[atom] for atom in ranked]
    others = len(law) - len(ranked)
    if others:
        shares.append(max(0.0, 1 - sum(shares)))
    axis(pen, (x + 32, floor), (LAW - 36, 140), 14)
    place, inside = ranked.index(code), (x + 36, floor)
    colors, note = (figures.COLORS["prior"], FOCUS), f"p({code}) = {decimal(law[code], 3)}"
    bars(pen, inside, (LAW - 44, 140), shares, place, colors, labels=[""] * len(shares), note=note)
    slot = (LAW - 44) / len(shares)
    side = min(30, int(slot))
    for number, atom in enumerate([*ranked, *[None] * (others > 0)]):
        left = round(inside[0] + slot * (number + 0.5) - side / 2)
        if atom is not None:
            picture.paste(book.tile(atom, side), (left, floor + 8))
        text = f"+{others}" if atom is None else str(atom)
        where = (left + side / 2, floor + side + 24)
        pen.text(where, text, fill=FOCUS_TEXT if atom == code else DARK, font=font(14), anchor="ms")


def _bill(steps, count, num_codes):
    """What the last code cost, and all so far: lines of text and their colours."""
    bits = [0.0 - math.log2(max(law[code], 1e-30)) for _, code, law in steps]  # never −0.0
    total, flat = sum(bits), math.log2(num_codes)
    return [
        (f"case {len(steps)} sur {count} : atome {steps[-1][1]}", FOCUS_TEXT),
        (f"coût : {amount(bits[-1], 2, 'bit')}, au lieu de {decimal(flat)} sans prior", DARK),
        (f"total : {amount(total, 1, 'bit')}, au lieu de {decimal(flat * len(steps), 1)}", DARK),
        (f"soit {amount(total / len(steps), 2, 'bit')} par code", DARK),
    ]
