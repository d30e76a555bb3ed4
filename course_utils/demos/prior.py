"""A prior draws the codes of a VQ-VAE one by one, and the decoder the image (notebook 04)."""

import functools
import math

from PIL import Image

from .. import figures
from ..language import decimal, tr
from .codebook import Codebook, frozen
from .controls import another_seed
from .drawing import CANVAS, DARK, FOCUS, GAP, TOP, bits, write, write_lines, write_title
from .live import LivePicture
from .panels import Chart
from .steps import follow, kind_of, step_controls

LIKELIEST = 10  # atoms whose probability is shown
LAW = 386  # width of their chart


def prior_explorer(model, priors, images):
    """Watch a prior draw a map of codes, one by one, and the decoder draw the image.

    On the left the codes so far; in the middle the image that they give, the codes to come being
    replaced by the most frequent one; on the right the law of the last code, and the bill in bits.

    Args:
        model: a `VQVAE`.
        priors: `{name: autoregressive model of its codes}`.
        images: integer images `(N, C, H, W)`, from which the tiles of the atoms are made.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    book = Codebook(model, images)
    shape, levels, _ = kind_of(priors)
    if (shape, levels) != (model.code_shape, model.num_codes):
        raise ValueError(
            f"priors of {levels} codes in maps {shape}: the VQVAE has {model.num_codes} in "
            f"{model.code_shape}"
        )
    priors = {name: frozen(prior) for name, prior in priors.items()}
    count = book.height * book.width
    codes = book.map_panel(CANVAS, tr("carte des codes"), figures.COLORS["code"])
    image = book.image_panel(
        CANVAS, tr("image décodée"), figures.COLORS["x"], left=codes.right + GAP
    )
    right = image.right + GAP
    bars = min(book.num_codes, LIKELIEST + 1)  # the last one for all the other atoms
    law = Chart(bars, right + 36, TOP + 170, LAW - 44, 140)

    @functools.lru_cache(maxsize=64)
    def drawn(prior, temperature, seed, label=None):
        return follow(priors[prior], label, temperature, seed, device=book.device)

    def draw(step, model, temperature, seed, label=None):
        steps = drawn(model, temperature, seed, label)[:step]
        told = {place: code for place, code, _ in steps}
        so_far = [told.get(place) for place in range(count)]  # None: it waits

        picture = Image.new("RGB", (right + LAW, TOP + CANVAS + 40), "white")
        book.show_map(picture, codes, so_far)
        image.show(picture, book.half_drawn(so_far))
        if None in so_far:
            text = tr(
                "en gris : pas encore tiré, décodé comme l'atome {atom}", atom=book.background
            )
            write(picture, (0, TOP + CANVAS + 24), text, "#666666", anchor="lm")
        if not steps:
            write_title(picture, right, TOP, tr("aucun code tiré"))
            return picture
        place, code, probabilities = steps[-1]
        codes.frame(picture, place)
        image.frame(picture, place)
        title = tr("loi de la case {step}, sachant celles d'avant", step=step)
        write_title(picture, right, TOP, title, FOCUS)
        _draw_law(picture, law, probabilities, code, book)
        write_lines(picture, (right, law.floor + 72), _bill(steps, count, book.num_codes))
        return picture

    controls = step_controls(tr("case"), count // 2 + 1, count, priors, tr("prior"))
    return LivePicture(
        draw,
        controls,
        caption=tr(
            "Lancez ▶ : le prior tire les codes un par un, le décodeur en fait une image. "
            "Arrêtez-vous sur un code qui coûte cher, puis baissez la température, ou changez de "
            "classe ou de prior."
        ),
        panels={"codes": codes, "image": image, "law": law},
        buttons={"another": (tr("Autre tirage"), another_seed())},
        rows=[["step"], [name for name in controls if name != "step"]],
        play="step",
    )


def _draw_law(picture, chart, law, code, book):
    """The most probable atoms, their tiles under their bars; one bar for all the others."""
    ranked = sorted(range(len(law)), key=lambda atom: -law[atom])[:LIKELIEST]
    if code not in ranked:
        ranked[-1] = code
    shares = [law[atom] for atom in ranked]
    others = len(law) - len(ranked)
    if others:
        shares.append(max(0.0, 1 - sum(shares)))
    chart.axis(picture)
    colors, note = (figures.COLORS["prior"], FOCUS), f"p({code}) = {decimal(law[code], 3)}"
    labels = [""] * len(shares)  # the tiles are there
    chart.bars(picture, shares, ranked.index(code), colors, labels=labels, note=note)
    side = min(30, int(chart.slot))
    below = chart.floor + side + 24
    for number, atom in enumerate(ranked):
        left = round(chart.middle(number) - side / 2)
        picture.paste(book.tile(atom, side), (left, chart.floor + 8))
        color = FOCUS if atom == code else DARK
        write(picture, (left + side / 2, below), str(atom), color, 14, "ms")
    if others:
        write(picture, (chart.middle(len(ranked)), below), f"+{others}", DARK, 14, "ms")


def _bill(steps, count, num_codes):
    """What the last code cost, and all so far: lines of text and their colours."""
    costs = [step.nats / math.log(2) for step in steps]
    total, flat, step = sum(costs), math.log2(num_codes), len(steps)
    head = tr(
        "case {step} sur {count} : atome {atom}", step=step, count=count, atom=steps[-1].value
    )
    last = tr(
        "coût : {cost}, au lieu de {flat} sans prior", cost=bits(costs[-1], 2), flat=decimal(flat)
    )
    so_far = tr(
        "total : {cost}, au lieu de {flat}", cost=bits(total, 1), flat=decimal(flat * step, 1)
    )
    each = tr("soit {cost} par code", cost=bits(total / step, 2))
    return [(head, FOCUS), (last, DARK), (so_far, DARK), (each, DARK)]
