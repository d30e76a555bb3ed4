"""The interactive demos: sliders (and the mouse) in, one PNG out.

Every demo goes through `LivePicture`: a function draws a PIL image from the values of the
controls, and its PNG replaces the bytes of one `Image` widget of fixed size. No figure is shown
inside an Output widget: that flickers, leaks and, without a browser, can hang.
"""

import base64
import io

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from ipyevents import Event
from PIL import Image, ImageDraw

from . import figures


def to_png(image):
    """PIL image -> PNG bytes, compressed lightly: speed matters more than size here."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def to_pil(page, zoom=1):
    """Array `(H, W, 3)` in [0, 1] -> PIL image, every pixel enlarged `zoom` times."""
    image = Image.fromarray((np.clip(page, 0, 1) * 255).round().astype(np.uint8))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def draw_offline(paint, size):
    """Draw on a matplotlib figure of `size` (width, height) pixels without showing it.

    Args:
        paint: function of the figure.

    Returns:
        the PIL image.
    """
    with plt.ioff():
        figure = plt.figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
        try:
            paint(figure)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=100)
        finally:
            plt.close(figure)
    return Image.open(buffer).convert("RGB")


class LivePicture(widgets.VBox):
    """Controls above a picture that follows them.

    Args:
        draw: function of the controls' values (by name) returning a PIL image, always of the
            same size.
        controls: `{name: widget}`, in the order of `draw`'s arguments.
        caption: one French sentence that says what to try.
        on_pointer: function `(x, y)` of a click or a drag, in pixels of the picture, returning
            the new values of some controls as a dict (or an empty one).
    """

    def __init__(self, draw, controls, *, caption, on_pointer=None):
        self.draw, self.controls, self.on_pointer = draw, controls, on_pointer
        self._quiet = False  # True while `set` moves several controls
        self._start = {name: control.value for name, control in controls.items()}
        first = draw(**self._start)
        self.picture = widgets.Image(
            value=to_png(first),
            format="png",
            layout={"width": f"{first.width}px", "height": f"{first.height}px", "flex": "0 0 auto"},
        )
        self.reset_button = widgets.Button(
            description="Revenir au départ", icon="undo", layout={"width": "auto"}
        )
        self.reset_button.on_click(lambda _: self.set(**self._start))
        for control in controls.values():
            control.observe(self._redraw, "value")
        if on_pointer is not None:
            self._events = Event(
                source=self.picture,
                watched_events=["mousedown", "mousemove"],
                prevent_default_action=True,
                wait=30,
                throttle_or_debounce="throttle",
            )
            self._events.on_dom_event(self._pointer)
        self._caption = caption
        row = widgets.HBox(
            [*controls.values(), self.reset_button], layout={"flex_flow": "row wrap"}
        )
        super().__init__([widgets.HTML(f"<i>{caption}</i>"), row, self.picture])

    def set(self, **values):
        """Give several controls their values and redraw once."""
        self._quiet = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._quiet = False
        self._redraw()

    def _redraw(self, _change=None):
        if not self._quiet:
            values = {name: control.value for name, control in self.controls.items()}
            self.picture.value = to_png(self.draw(**values))

    def _pointer(self, event):
        if event["type"] == "mousedown" or event.get("buttons"):
            values = self.on_pointer(event["dataX"], event["dataY"])
            if values:
                self.set(**values)

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and a still picture for readers without a kernel (GitHub, HTML pages)."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = dict(data) | {"text/plain": f"[démo] {self._caption}"}
        data["image/png"] = base64.b64encode(self.picture.value).decode()
        return data, metadata


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

    def from_pixel(x, y):
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
