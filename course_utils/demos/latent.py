"""Walking in the latent plane of a VAE (notebook 01)."""

import ipywidgets as widgets
import torch
from PIL import Image, ImageDraw

from .. import figures
from .live import LivePicture, draw_offline, to_pil


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
    height, width = model.shape[1:]
    side, digit_zoom, near_zoom = 440, max(1, 308 // height), max(1, 84 // height)
    step = 0.4

    # Where the map's axes stand in the picture, in pixels: pixels translate into codes and back.
    margin, top = 60, 28
    inner = side - margin - top

    def paint(figure):
        figure.set_layout_engine("none")
        inside = [margin / side, margin / side, inner / side, inner / side]
        figures.latent_map(
            codes, labels, "Espace latent", ax=figure.add_axes(inside), half_width=half_width
        )

    background = draw_offline(paint, (side, side))

    def to_pixel(z1, z2):
        scale = inner / (2 * half_width)
        return margin + (z1 + half_width) * scale, top + (half_width - z2) * scale

    def from_pixel(x, y, pressed):
        z1 = (x - margin) / inner * 2 * half_width - half_width
        z2 = half_width - (y - top) / inner * 2 * half_width
        if max(abs(z1), abs(z2)) > half_width:
            return {}  # outside of the map
        return {"z1": round(z1, 2), "z2": round(z2, 2)}

    offsets = torch.tensor([[dx, dy] for dy in (step, 0, -step) for dx in (-step, 0, step)])
    digit_x, near_x = side + 12, side + 12 + width * digit_zoom + 16
    near_size = 3 * (width + 1) * near_zoom
    canvas = Image.new("RGB", (near_x + near_size, side), "white")
    canvas.paste(background, (0, 0))
    y0 = (side - height * digit_zoom) // 2

    @torch.no_grad()
    def draw(z1, z2):
        point = torch.tensor([[z1, z2]])
        device = next(model.parameters()).device
        images = model.decode(torch.cat([point, point + offsets]).to(device))
        picture = canvas.copy()
        digit = figures.image_grid(images[:1], gap=0)
        near = figures.image_grid(images[1:], columns=3, gap=1)
        picture.paste(to_pil(digit, digit_zoom), (digit_x, y0))
        picture.paste(to_pil(near, near_zoom), (near_x, (side - near_size) // 2))
        pen = ImageDraw.Draw(picture)
        pen.rectangle(
            [digit_x - 3, y0 - 3, digit_x + width * digit_zoom + 2, y0 + height * digit_zoom + 2],
            outline=figures.COLORS["z"],
            width=3,
        )
        x, y = to_pixel(z1, z2)
        pen.ellipse([x - 9, y - 9, x + 9, y + 9], outline="white", width=6)
        pen.ellipse([x - 8, y - 8, x + 8, y + 8], outline=figures.COLORS["z"], width=4)
        return picture

    def slider(name, value):
        return widgets.FloatSlider(
            value=value, min=-half_width, max=half_width, step=0.05, description=name,
            readout_format=".2f", layout={"width": "330px"},
        )  # fmt: skip

    return LivePicture(
        draw,
        {"z1": slider("z₁", 0.0), "z2": slider("z₂", 0.0)},
        caption="Déplacez les curseurs, ou cliquez et glissez sur la carte : le chiffre du milieu "
        "est décodé au point orange, ses huit voisins à 0,4 de distance sur chaque axe.",
        on_pointer=from_pixel,
    )
