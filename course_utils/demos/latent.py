"""Walking in the latent plane of a VAE (notebook 01)."""

import ipywidgets as widgets
import torch
from PIL import Image, ImageDraw

from .. import figures
from ..language import tr
from .drawing import CANVAS, draw_offline, paper
from .live import LivePicture
from .panels import Panel

SIDE, MARGIN, HEAD = 440, 60, 28  # pixels: side of the map; left and below its axes; above them
STEP = 0.4  # from the point to its neighbours, on each axis


def latent_explorer(model, codes, labels, *, half_width=4.0):
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
    inner = SIDE - MARGIN - HEAD  # side of the square of the axes, in pixels
    scale = inner / (2 * half_width)  # pixels for one unit of z

    def paint(figure):
        figure.set_layout_engine("none")
        inside = [MARGIN / SIDE, MARGIN / SIDE, inner / SIDE, inner / SIDE]
        figures.latent_map(codes, labels, ax=figure.add_axes(inside), half_width=half_width)

    background = draw_offline(paint, (SIDE, SIDE))

    def to_pixel(z1, z2):
        return MARGIN + (z1 + half_width) * scale, HEAD + (half_width - z2) * scale

    def on_pointer(x, y, pressed):
        """A click, or a drag, on the map."""
        z1, z2 = (x - MARGIN) / scale - half_width, half_width - (y - HEAD) / scale
        inside = max(abs(z1), abs(z2)) <= half_width
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
        x, y = to_pixel(z1, z2)
        pen.ellipse([x - 9, y - 9, x + 9, y + 9], outline="white", width=6)
        pen.ellipse([x - 8, y - 8, x + 8, y + 8], outline=color, width=4)
        return picture

    def axis_slider(name):
        return widgets.FloatSlider(
            value=0.0, min=-half_width, max=half_width, step=0.05, description=name,
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
