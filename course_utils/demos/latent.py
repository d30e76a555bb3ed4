"""Walking in the latent plane of a VAE (notebook 01)."""

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from .. import figures
from ..language import tr
from .drawing import CANVAS, paper
from .live import LivePicture
from .panels import Panel

SIDE, MARGIN, HEAD = 440, 60, 28  # pixels: side of the map; left and below its axes; above them
INNER = SIDE - MARGIN - HEAD  # side of the square of the axes
HALF_WIDTH = 4.0  # the map shows z₁ and z₂ from −4 to 4
SCALE = INNER / (2 * HALF_WIDTH)  # pixels for one unit of z
STEP = 0.4  # from the point to its neighbours, on each axis


def latent_explorer(model, codes, labels):
    """Walk in the latent plane of a VAE and see the decoded digit and its neighbours.

    Two sliders move the point; so do a click and a drag on the map.

    Args:
        model: a `VAE` with `z_dim=2`.
        codes, labels: `(N, 2)` and `(N,)`: the images' codes, the background of the map.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    if model.z_dim != 2 or codes.shape[-1] != 2:
        raise ValueError(f"the map needs 2 latent dimensions, got z_dim={model.z_dim}")
    _, height, width = model.shape
    zoom, small = max(1, CANVAS // height), max(1, 84 // height)
    top, near_top = (SIDE - height * zoom) // 2, (SIDE - 3 * (height + 1) * small) // 2
    digit = Panel(width, height, zoom, left=SIDE + 12, top=top)
    near = Panel(3 * (width + 1), 3 * (height + 1), small, left=digit.right + 16, top=near_top)
    background = _drawn_map(codes, labels)

    def on_pointer(x, y, pressed):
        """A click, or a drag, on the map."""
        z1, z2 = (x - MARGIN) / SCALE - HALF_WIDTH, HALF_WIDTH - (y - HEAD) / SCALE
        inside = max(abs(z1), abs(z2)) <= HALF_WIDTH
        return {"z1": round(z1, 2), "z2": round(z2, 2)} if inside else {}

    color = figures.COLORS["z"]
    offsets = torch.tensor([[dx, dy] for dy in (STEP, 0, -STEP) for dx in (-STEP, 0, STEP)])

    @torch.no_grad()
    def draw(z1, z2):
        point = torch.tensor([[z1, z2]])
        device = next(model.parameters()).device
        images = model.decode(torch.cat([point, point + offsets]).to(device)).cpu()
        picture = Image.new("RGB", (near.right, SIDE), "white")
        picture.paste(background, (0, 0))
        digit.show(picture, paper(images[0]), color, 3)
        near.show(picture, figures.image_grid(images[1:], columns=3, gap=1), edge="white")
        pen = ImageDraw.Draw(picture)
        x, y = MARGIN + (z1 + HALF_WIDTH) * SCALE, HEAD + (HALF_WIDTH - z2) * SCALE
        pen.ellipse([x - 9, y - 9, x + 9, y + 9], outline="white", width=6)
        pen.ellipse([x - 8, y - 8, x + 8, y + 8], outline=color, width=4)
        return picture

    def axis_slider(name):
        return widgets.FloatSlider(
            value=0.0, min=-HALF_WIDTH, max=HALF_WIDTH, step=0.05, description=name,
            readout_format=".2f", layout={"width": "330px"},
        )  # fmt: skip

    return LivePicture(
        draw,
        {"z1": axis_slider("z₁"), "z2": axis_slider("z₂")},
        caption=tr(
            "Déplacez les curseurs, ou cliquez et glissez sur la carte : le chiffre du milieu est "
            "décodé au point orange, ses huit voisins à 0,4 de distance sur chaque axe."
        ),
        panels={"digit": digit, "near": near},
        on_pointer=on_pointer,
    )


def _drawn_map(codes, labels):
    """The map of the codes, as an image of SIDE × SIDE pixels."""
    figure = Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100, layout="none")
    canvas = FigureCanvasAgg(figure)
    inside = [MARGIN / SIDE, MARGIN / SIDE, INNER / SIDE, INNER / SIDE]
    figures.latent_map(codes, labels, ax=figure.add_axes(inside), half_width=HALF_WIDTH)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
