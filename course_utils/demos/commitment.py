"""What β does: encoder outputs and atoms in two dimensions, while three networks learn."""

import ipywidgets as widgets
from PIL import Image, ImageDraw

from .. import figures
from .live import LivePicture, decimal, font

SIDE = 320  # pixels: side of a panel
TOP = 30  # height of the titles
BOTTOM = 58  # height of the two lines under them: widths, legend
FINAL, NEAR, SAME = "de la fin", "au plus près", "commune"
LEGEND = (("sortie de l'encodeur", "z"), ("atome", "code"))


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
    size = (len(stories) * (SIDE + 16), TOP + SIDE + BOTTOM)
    reach = {
        title: [1.15 * max(z.abs().max(), atoms.abs().max()).item() for z, atoms in story]
        for title, story in stories.items()
    }

    largest = max(reaches[-1] for reaches in reach.values())
    dark = figures.COLORS["truth"]

    def draw(moment, scale):
        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        for number, (title, story) in enumerate(stories.items()):
            x = number * (SIDE + 16)
            half = {NEAR: reach[title][moment], FINAL: reach[title][-1], SAME: largest}[scale]
            pen.text((x + 2, 4), title, fill=dark, font=font(17))
            picture.paste(_panel(*story[moment], half), (x, TOP))
            pen.rectangle([x, TOP, x + SIDE, TOP + SIDE], outline="#BBBBBB")
            text = f"largeur du cadre : {decimal(2 * half, 0 if half > 50 else 1)}"
            pen.text((x + 2, TOP + SIDE + 6), text, fill=dark, font=font(15))
        x, y = 10, TOP + SIDE + 42
        for text, concept in LEGEND:
            pen.ellipse([x - 6, y - 6, x + 6, y + 6], figures.COLORS[concept])
            pen.text((x + 14, y), text, fill=dark, font=font(15), anchor="lm")
            x += 220
        return picture

    controls = {
        "moment": widgets.IntSlider(
            value=moments - 1, min=0, max=moments - 1, description="moment",
            layout={"width": "420px"},
        ),
        "scale": widgets.ToggleButtons(
            options=[FINAL, NEAR, SAME], description="échelle", style={"button_width": "140px"},
        ),
    }  # fmt: skip
    return LivePicture(
        draw,
        controls,
        play="moment",
        caption=(
            "Lancez la lecture et regardez la largeur du cadre. Puis donnez à tous la même échelle."
        ),
    )


def _panel(z_e, codebook, half):
    """Dots and discs in the square [−half, half]², drawn twice as large then reduced: smooth."""
    panel = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    pen = ImageDraw.Draw(panel)
    for points, radius, color, edge in (
        (z_e, 5, figures.COLORS["z"], None),
        (codebook, 11, figures.COLORS["code"], "white"),
    ):
        places = ((points / half + 1) * SIDE).tolist()
        for x, y in places:
            y = 2 * SIDE - y
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], color, edge, 2)
    return panel.reduce(2)
