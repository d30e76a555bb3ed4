"""Paint with a PixelCNN or one of its family, pixel by pixel (notebook 03b)."""

import functools
import math

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from .. import figures
from ..autoregressive.pixels import PixelModel
from ..language import decimal, tr, trn
from .controls import another_seed, edits_box, read_edits, slider, write_edits
from .drawing import CANVAS, DARK, FOCUS, GAP, TOP, nats, write, write_lines, write_title
from .live import LivePicture
from .panels import Chart, Panel
from .steps import follow, kind_of, step_controls

SMALL = 190  # pixels: side of the image « sans retouche »
LAW = 430  # width of the charts of a pixel's law
# Name of each channel, its colour, and the same made pale, for the bars.
COLOR_CHANNELS = (
    ("R", "#B3261E", "#EDB5B0"),
    (tr("V"), "#1B7F3B", "#A8D5B5"),
    ("B", "#3B3FB5", "#C3C4EE"),
)
GREY_CHANNEL = (("", DARK, figures.COLORS["prior"]),)

FLIP = tr(
    "Lancez ▶, arrêtez, cliquez sur un pixel déjà peint pour l'inverser, puis relancez : le modèle "
    "repeint la suite avec les mêmes nombres au hasard ; comparez à l'image sans retouche."
)
PAINT = tr(
    "Lancez ▶, arrêtez, cliquez sur un pixel déjà peint pour lui donner la valeur du pinceau, puis "
    "relancez : le modèle repeint la suite avec les mêmes nombres au hasard ; comparez à l'image "
    "sans retouche."
)


def painting_explorer(models):
    """Watch a model paint an image pixel by pixel, change a pixel by hand, let the model go on.

    On the left the image so far, where a click changes a pixel: the model then repaints what
    follows, with the same random numbers. In the middle the image that they give without any
    change, and the bill in nats; on the right the law of the last painted pixel.

    Args:
        models: `{name: PixelModel}`, of the same images (grey or in colour) and classes.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    easel = _Easel(models)
    seeds, caption = another_seed(), FLIP if easel.flips else PAINT
    return LivePicture(
        easel.draw,
        easel.controls,
        caption=caption,
        panels=easel.panels,
        on_pointer=easel.on_pointer,
        buttons={
            "change": (
                tr("Changer ce pixel"),
                lambda: easel.change(easel.controls["step"].value - 1),
            ),
            "clear": (tr("Effacer les retouches"), lambda: {"edits": ""}),
            "another": (tr("Autre image"), lambda: seeds() | {"edits": ""}),
        },
        rows=easel.rows,
        play="step",
        pace=3,
    )


class _Easel:
    """What the painter shows, and what it answers to the mouse."""

    def __init__(self, models):
        self.models = models
        self.shape, self.levels, _ = _kind_of(models)
        self.flips = self.shape[0] == 1 and self.levels == 2  # a click then needs no brush
        self.painted = functools.lru_cache(maxsize=64)(self._painted)
        self.panels, self.right = self._panels()
        self.controls, self.rows = self._controls()

    def _panels(self):
        """Two images, then from `right` on a chart for each channel, one under the other."""
        channels, height, width = self.shape
        zoom, small = (max(1, side // max(height, width)) for side in (CANVAS, SMALL))
        image = Panel(width, height, zoom, tr("image"), figures.COLORS["x"])
        left, color = image.right + GAP, figures.COLORS["prior"]
        untouched = Panel(width, height, small, tr("sans retouche"), color, left=left)
        panels, right = {"image": image, "untouched": untouched}, left + SMALL + GAP
        room = CANVAS / channels
        for k in range(channels):
            floor = round(TOP + room * (k + 1)) - 22
            panels[f"law {k}"] = Chart(self.levels, right + 36, floor, LAW - 44, round(room) - 42)
        return panels, right

    def _controls(self):
        """The controls, and the lines where they stand."""
        channels, height, width = self.shape
        start, count = height * width // 2 + width // 2, height * width
        controls = step_controls(tr("pixel"), start, count, self.models)
        rows = [["step"], [name for name in controls if name != "step"], ["edits"]]
        controls["edits"] = edits_box()
        if not self.flips:
            controls["brush"] = _brush(channels, self.levels)
            rows[0].append("brush")
        return controls, rows

    def _painted(self, model, temperature, seed, edits, label=None):
        return _paint(self.models[model], label, temperature, seed, read_edits(edits))

    def draw(self, step, model, temperature, seed, edits, brush=None, label=None):
        values, laws, costs = self.painted(model, temperature, seed, edits, label)
        untouched, _, _ = self.painted(model, temperature, seed, "", label)
        edited = [pixel for pixel in read_edits(edits) if pixel < step]

        picture = Image.new("RGB", (self.right + LAW, TOP + CANVAS + 12), "white")
        self._show(picture, self.panels["image"], values[:step])
        self._show(picture, self.panels["untouched"], untouched[:step])
        for pixel in edited:
            self.panels["image"].fold(picture, pixel)
        if brush is not None:
            self._show_brush(picture, brush)

        lines = _bill(values[:step], costs[:step], len(costs), edited)
        if edited:
            changed = (values[:step] != untouched[:step]).any(1).sum()
            text = trn("{count} pixel différent", "{count} pixels différents", changed)
            lines.append((text, FOCUS))
        below = self.panels["untouched"]
        write_lines(picture, (below.left, below.bottom + 10), lines, step=20, size=15)
        if step:
            title = tr("loi du pixel {step}, sachant ceux d'avant", step=step)
            write_title(picture, self.right, TOP, title, FOCUS)
            color = FOCUS if step - 1 in edited else figures.COLORS["x"]
            self._show_law(picture, laws[step - 1].tolist(), values[step - 1].tolist(), color)
        return picture

    def _show(self, picture, panel, values):
        """The pixels painted so far, `(step, C)`."""
        panel.show_so_far(picture, range(len(values)), _colors(values, self.levels))

    def _show_brush(self, picture, brush):
        """What the brush would paint, above the image."""
        right = self.panels["image"].right
        (color,) = _colors(np.array([_brush_values(brush, self.levels)]), self.levels)
        fill = tuple((255 * color).round().astype(int))
        ImageDraw.Draw(picture).rectangle([right - 22, 5, right - 2, 25], fill, "#888888")
        write(picture, (right - 30, 15), tr("pinceau"), "#666666", 14, "rm")

    def _show_law(self, picture, laws, values, highlight):
        """The law of a pixel: a chart per channel."""
        channels = COLOR_CHANNELS if len(values) == 3 else GREY_CHANNEL
        for k, (name, strong, pale) in enumerate(channels):
            chart = self.panels[f"law {k}"]
            chart.axis(picture)
            chart.bars(picture, laws[k], values[k], (pale, highlight))
            middle = chart.floor - chart.height / 2
            write(picture, (self.right, middle), name, strong, 18, "lm")

    def change(self, pixel):
        """Give a painted pixel another value: what follows is to be painted again."""
        values = {name: control.value for name, control in self.controls.items()}
        if not 0 <= pixel < values.pop("step"):
            return {}
        if self.flips:
            new = (1 - int(self.painted(**values)[0][pixel, 0]),)
        else:
            new = _brush_values(values["brush"], self.levels)
        edits = {k: v for k, v in read_edits(values["edits"]).items() if k < pixel}
        return {"edits": write_edits(edits | {pixel: new}), "step": pixel + 1}

    def on_pointer(self, x, y, pressed):
        """A click on a painted pixel changes it."""
        pixel = self.panels["image"].cell_at(x, y)
        return self.change(pixel) if pressed and pixel is not None else {}


def _kind_of(models):
    """Shape, levels and number of classes of models that paint row by row."""
    for name, model in models.items():
        if not isinstance(model, PixelModel):
            raise ValueError(
                f"model {name!r}: expected a PixelModel (PixelCNN, RowLSTM or DiagonalBiLSTM), "
                f"got {type(model).__name__}"
            )
    return kind_of(models)


def _paint(model, label, temperature, seed, edits):
    """One image whose edited pixels are known, pixel by pixel in raster order.

    Returns:
        values `(H·W, C)`, laws `(H·W, C, levels)`, and costs `(H·W,)` in nats, as arrays. The
        pixels edited cost nothing: the model did not choose them.
    """
    channels, height, width = model.shape
    given = np.zeros((height * width, channels), dtype=np.uint8)
    mask = np.zeros(height * width, dtype=bool)
    for pixel, values in edits.items():
        given[pixel], mask[pixel] = values, True
    device = model.ordering.device
    steps = follow(
        model, label, temperature, seed, device=device,
        given=torch.from_numpy(given.T.reshape(1, *model.shape).copy()).to(device),
        mask=torch.from_numpy(mask.reshape(height, width)).to(device),
    )  # fmt: skip
    values = np.array([step.value for step in steps]).reshape(-1, channels)
    laws = np.array([step.law for step in steps]).reshape(-1, channels, model.levels)
    costs = np.array([step.nats for step in steps]).reshape(-1, channels).sum(1)
    return values, laws, np.where(mask, 0.0, costs)


def _brush(channels, levels):
    if channels == 3:
        return widgets.ColorPicker(
            value="#ff0000", description=tr("pinceau"), layout={"width": "220px"}
        )
    return slider(tr("pinceau"), levels - 1, 0, levels - 1, width=270)


def _brush_values(brush, levels):
    """The brush, a level or a colour, as the values of a pixel's channels."""
    if isinstance(brush, int):
        return (brush,)
    return tuple(round(share * (levels - 1)) for share in to_rgb(brush))


def _colors(values, levels):
    """Values of pixels `(…, C)` -> colours `(…, 3)` in [0, 1]: dark ink on white paper if grey."""
    shares = values / (levels - 1)
    return shares if values.shape[-1] == 3 else np.repeat(1 - shares, 3, axis=-1)


def _bill(values, costs, dims, edited):
    """What the last pixel cost, and all so far: lines of text and their colours."""
    step = len(values)
    if not step:
        return [(tr("aucun pixel peint"), DARK)]
    value = ", ".join(map(str, values[-1]))
    chosen = values.shape[1] * (step - len(edited))  # values that the model chose
    bits = costs.sum() / math.log(2) / max(1, chosen)
    return [
        (tr("pixel {step} sur {count}", step=step, count=dims), FOCUS),
        (tr("à la main : {value}", value=value), FOCUS)
        if step - 1 in edited
        else (tr("tiré : {value}", value=value), figures.COLORS["x"]),
        (tr("coût : {cost}", cost=nats(costs[-1], 2)), DARK),
        (tr("total : {cost}", cost=nats(costs.sum(), 1)), DARK),
        (tr("soit {bits} bits/dim", bits=decimal(bits)), DARK),
    ]
