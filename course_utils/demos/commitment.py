"""What β does: encoder outputs and atoms in two dimensions, while three networks learn."""

import ipywidgets as widgets
from PIL import Image, ImageDraw

from .. import figures
from ..language import decimal, tr
from .controls import slider
from .drawing import write
from .live import LivePicture
from .panels import Panel

SIDE = 320  # pixels: side of a panel
BOTTOM = 58  # height of the two lines under them: widths, legend
FINAL, NEAR, SAME = tr("de la fin"), tr("au plus près"), tr("commune")
LEGEND = ((tr("sortie de l'encodeur"), "z"), (tr("atome"), "code"))


def commitment_explorer(stories):
    """Watch the outputs of encoders (dots) and their atoms (discs) move during trainings.

    Each panel has the scale of the end of its story, or of the moment, or that of the largest.

    Args:
        stories: `{title: [(z_e, codebook), …]}`, moments of a training: `(N, 2)` and `(K, 2)`; all
            stories have the same number of moments.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    lengths = {len(story) for story in stories.values()}
    if len(lengths) != 1:
        raise ValueError(f"stories of {sorted(lengths)} moments: expected as many moments in each")
    (moments,) = lengths
    panels = {
        title: Panel(1, 1, SIDE, title, left=number * (SIDE + 16))
        for number, title in enumerate(stories)
    }
    reach = {
        title: [1.15 * max(z.abs().max(), atoms.abs().max()).item() for z, atoms in story]
        for title, story in stories.items()
    }
    largest = max(reaches[-1] for reaches in reach.values())
    bottom = next(iter(panels.values())).bottom

    def draw(moment, scale):
        picture = Image.new("RGB", (len(stories) * (SIDE + 16), bottom + BOTTOM), "white")
        for title, panel in panels.items():
            half = {NEAR: reach[title][moment], FINAL: reach[title][-1], SAME: largest}[scale]
            panel.write_title(picture)
            picture.paste(_dots(*stories[title][moment], half), (panel.left, panel.top))
            panel.frame(picture, 0, "#BBBBBB", 1)
            width = decimal(2 * half, 0 if half > 50 else 1)
            text = tr("largeur du cadre : {width}", width=width)
            write(picture, (panel.left + 2, bottom + 6), text)
        pen = ImageDraw.Draw(picture)
        for number, (text, concept) in enumerate(LEGEND):
            x, y = 10 + 220 * number, bottom + 42
            pen.ellipse([x - 6, y - 6, x + 6, y + 6], figures.COLORS[concept])
            write(picture, (x + 14, y), text, anchor="lm")
        return picture

    return LivePicture(
        draw,
        {
            "moment": slider(tr("moment"), moments - 1, 0, moments - 1, width=420),
            "scale": widgets.ToggleButtons(
                options=[FINAL, NEAR, SAME],
                description=tr("échelle"),
                style={"button_width": "140px"},
            ),
        },
        caption=tr(
            "Lancez la lecture et regardez la largeur du cadre. Puis donnez à tous la même échelle."
        ),
        panels=panels,
        play="moment",
    )


def _dots(z_e, codebook, half):
    """Dots and discs in the square [−half, half]², drawn twice as large then reduced: smooth."""
    square = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    pen = ImageDraw.Draw(square)
    for points, radius, color, edge in (
        (z_e, 5, figures.COLORS["z"], None),
        (codebook, 11, figures.COLORS["code"], "white"),
    ):
        for x, y in ((points / half + 1) * SIDE).tolist():
            y = 2 * SIDE - y
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], color, edge, 2)
    return square.reduce(2)
