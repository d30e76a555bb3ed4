"""Giving orders to a conditional VAE (notebook 02)."""

import math
from collections import Counter

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image, ImageDraw

from .. import figures
from ..cvae import CVAE, CompletionVAE, visible_part
from ..evaluation import measure_attributes
from ..language import decimal, tr
from ..vae import reparameterize
from .controls import slider
from .drawing import CANVAS, GAP, TOP, paper, write, write_title
from .live import RESET, LivePicture
from .panels import Chart, Panel

COMPLETIONS = 18  # drawn for a hidden rectangle
HIDDEN = np.array([0.80, 0.91, 0.87])  # a light green: what is hidden is the question
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def condition_explorer(model, classifier, *, mean, std):
    """Command a digit: a mixture of classes, a slant, a thickness, a style z.

    The picture shows the digit, its measured attributes, what a classifier reads, and eight other
    styles under the same condition.

    Args:
        model: a `CVAE` with `num_classes` and `condition_shape=(2,)`, whose numbers are the slant
            and the thickness (`evaluation.measure_attributes`) in standard units.
        classifier: a `DigitClassifier`.
        mean, std: `(2,)`, the units: number = (attribute − mean) / std.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    expected = isinstance(model, CVAE) and model.num_classes and model.condition_shape == (2,)
    if not expected or model.shape[0] != 1 or model.shape[1] != model.shape[2]:
        raise ValueError(
            "the demo needs CVAE((1, S, S), num_classes=K, condition_shape=(2,)): square grey "
            "images under classes and two attributes"
        )
    k, z_dim, size = model.num_classes, model.z_dim, model.shape[-1]
    device = next(model.parameters()).device
    mean, std = torch.as_tensor(mean).cpu(), torch.as_tensor(std).cpu()
    others = torch.randn(8, z_dim, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1)
    digit = Panel(size, size, max(1, CANVAS // size), left=3)
    side = 3 * (size + figures.GAP)
    near = Panel(
        side, side, max(1, 98 // size), tr("même consigne, autres z"), figures.COLORS["z"],
        left=digit.right + GAP,
    )  # fmt: skip
    classes = Chart(k, near.right + 40, digit.bottom - 26, 24 * k, digit.bottom - TOP - 40)

    def values_of(controls):
        """Values of the sliders -> condition `(1, K + 2)` and code `(1, z_dim)`."""
        weights = torch.tensor([controls[f"y{i}"] for i in range(k)])
        if weights.sum() == 0:  # no class asked for: all of them
            weights = torch.ones(k)
        attributes = torch.tensor([controls["slant"], controls["thickness"]])
        y = torch.cat([weights / weights.sum(), (attributes - mean) / std])
        return y[None], torch.tensor([[controls[f"z{i + 1}"] for i in range(z_dim)]])

    @torch.no_grad()
    def draw(**controls):
        y, z = values_of(controls)
        images = model.decode(torch.cat([z, others]).to(device), y.to(device)).cpu()
        slant, thickness = measure_attributes((images[:1] > 0.5).float())[0].tolist()
        read = classifier(images[:1]).softmax(1)[0]

        picture = Image.new("RGB", (classes.left + 24 * k + 12, digit.bottom + 34), "white")
        digit.show(picture, paper(images[0]), figures.COLORS["x"], 3)
        angle = f"{slant:+.0f}".replace("-", "−")
        measured = tr("mesuré : {angle}°, {width} px", angle=angle, width=decimal(thickness, 1))
        write(picture, (4, digit.bottom + 6), measured, size=17)
        grid = torch.cat([images[1:5], images[:1], images[5:]])
        near.show(picture, figures.image_grid(grid, columns=3), edge="white")
        _draw_classes(picture, classes, y[0, :k].tolist(), read.tolist())
        return picture

    controls = {}
    for i in range(k):
        controls[f"y{i}"] = widgets.FloatSlider(
            value=float(i == 3), min=0, max=1, step=0.05, description=str(i),
            orientation="vertical", readout=False, layout={"width": "30px", "height": "128px"},
        )  # fmt: skip
    attributes = (("slant", tr("pente (°)"), 0.5), ("thickness", tr("trait (px)"), 0.05))
    for (name, text, step), m, s in zip(attributes, mean.tolist(), std.tolist()):
        controls[name] = _slider(text, round(m, 1), m - 2 * s, m + 2 * s, step, label=70)
    for i in range(z_dim):
        controls[f"z{i + 1}"] = _slider(
            f"z{i + 1}".translate(SUBSCRIPTS), 0.0, -3.0, 3.0, 0.05, label=24
        )

    def another_z():
        z = torch.randn(z_dim, generator=draws).clamp(-3, 3)
        return {f"z{i + 1}": round(value, 2) for i, value in enumerate(z.tolist())}

    names = list(controls)
    return LivePicture(
        draw,
        controls,
        caption=tr(
            "Mélangez deux classes, penchez, épaississez ; puis gardez la consigne et tirez un "
            "autre z."
        ),
        panels={"digit": digit, "near": near, "classes": classes},
        buttons={"another": (tr("Tirer un autre z"), another_z)},
        rows=[[*names[:k], [*names[k : k + 2], "another", RESET], names[k + 2 :]]],
    )


def _slider(name, value, low, high, step, label):
    """A slider whose name is given `label` pixels."""
    return widgets.FloatSlider(
        value=value, min=round(low, 1), max=round(high, 1), step=step, description=name,
        readout_format=".2f", layout={"width": "230px"}, style={"description_width": f"{label}px"},
    )  # fmt: skip


def _draw_classes(picture, chart, asked, read):
    """For each class, two bars: the weight asked for, the probability read."""
    write_title(picture, chart.left, TOP, tr("demandé"), figures.COLORS["y"])
    write_title(picture, chart.left + 90, TOP, tr("lu"))
    chart.axis(picture)
    pen, floor = ImageDraw.Draw(picture), chart.floor
    for number, pair in enumerate(zip(asked, read)):
        left = chart.left + chart.slot * number
        for k, (share, color) in enumerate(zip(pair, ("y", "truth"))):
            x = left + 9 * k
            pen.rectangle([x, floor - chart.rise(share), x + 8, floor], figures.COLORS[color])
        write(picture, (left + 4, floor + 4), str(number))


def completion_explorer(model, images, classifier):
    """Hide a rectangle of an image with the mouse and see what the model imagines there.

    Args:
        model: a `CompletionVAE` of one channel.
        images: integer images `(N, 1, H, W)` to choose from.
        classifier: a `DigitClassifier`, which reads the completions.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    if not isinstance(model, CompletionVAE) or model.shape[0] != 1:
        raise ValueError("the demo needs a CompletionVAE((1, H, W)), of grey images")
    _, height, width = model.shape
    device = next(model.parameters()).device
    image = Panel(width, height, max(1, CANVAS // height), tr("image de test"), figures.COLORS["x"])
    small, high, wide = max(1, 84 // height), height + figures.GAP, width + figures.GAP
    beside = max(1, (image.bottom - TOP) // (small * high))  # rows of completions, at most
    columns = math.ceil(COMPLETIONS / beside)
    rows = math.ceil(COMPLETIONS / columns)
    imagined = Panel(
        columns * wide, rows * high, small, tr("complétions"), figures.COLORS["z"],
        left=image.right + GAP,
    )  # fmt: skip

    @torch.no_grad()
    def complete(y, seed):
        """Completions of what is visible, `(COMPLETIONS, 1, H, W)`."""
        mu, logvar = (t.cpu() for t in model.prior(COMPLETIONS, y))
        z = reparameterize(mu, logvar, torch.Generator().manual_seed(seed))
        return model.decode(z.to(device), y).cpu()

    def draw(number, hidden_rows, hidden_columns, seed):
        shown = images[number : number + 1]
        mask = torch.ones(height, width, dtype=torch.bool)
        mask[slice(*hidden_rows), slice(*hidden_columns)] = False
        completions = complete(visible_part(shown, mask, model.levels).to(device), seed)
        labels, _ = classifier.read(completions)

        picture = Image.new("RGB", (imagined.right, image.bottom + 30), "white")
        page = figures.image_grid(shown, levels=model.levels, gap=0)
        image.show(picture, np.where(mask[:, :, None], page, 0.75 * HIDDEN + 0.25 * page))
        (top, bottom), (left, right) = hidden_rows, hidden_columns
        box = [*image.corner(top, left), *image.corner(bottom, right)]
        ImageDraw.Draw(picture).rectangle(box, outline=figures.COLORS["y"], width=3)
        imagined.show(picture, figures.image_grid(completions, columns=columns), edge="white")
        counts = Counter(labels.tolist()).most_common()
        read = ", ".join(f"{digit} ×{count}" for digit, count in counts)
        text = tr("le classifieur lit : {read}", read=read)
        write(picture, (0, image.bottom + 4), text, size=17)
        return picture

    pressed_on = None  # the pixel where the mouse was pressed, or None

    def on_pointer(x, y, pressed):
        """The rectangle between the pixel where the mouse was pressed and where it is now."""
        nonlocal pressed_on
        if pressed:
            pressed_on = image.cell_at(x, y)
        if pressed_on is None:
            return {}  # the drag did not start on the image
        x = min(max(x, image.left), image.right - 1)  # it may end outside of it
        y = min(max(y, image.top), image.bottom - 1)
        ends = [divmod(pixel, width) for pixel in (pressed_on, image.cell_at(x, y))]
        rows, columns = zip(*ends)
        return {
            "hidden_rows": (min(rows), max(rows) + 1),
            "hidden_columns": (min(columns), max(columns) + 1),
        }

    def range_slider(name, value, high):
        return widgets.IntRangeSlider(
            value=value, min=0, max=high, description=name, layout={"width": "330px"}
        )

    controls = {
        "number": slider(tr("image"), 0, 0, len(images) - 1, width=330),
        "hidden_rows": range_slider(tr("lignes"), (0, height), height),
        "hidden_columns": range_slider(tr("colonnes"), (width // 2, width), width),
        "seed": slider(tr("tirage"), 0, 0, 99, width=330),
    }

    def hide(rows, columns):
        return lambda: {"hidden_rows": rows, "hidden_columns": columns}

    return LivePicture(
        draw,
        controls,
        caption=tr(
            "Cliquez et glissez sur l'image de gauche : le rectangle vert est caché, et le modèle "
            "imagine {count} suites. Les pixels visibles ne changent jamais.",
            count=COMPLETIONS,
        ),
        panels={"image": image, "completions": imagined},
        on_pointer=on_pointer,
        buttons={
            "another": (tr("Autres tirages"), lambda: {"seed": (controls["seed"].value + 1) % 100}),
            "hide_right": (tr("Cacher la droite"), hide((0, height), (width // 2, width))),
            "hide_left": (tr("Cacher la gauche"), hide((0, height), (0, width // 2))),
            "hide_bottom": (tr("Cacher le bas"), hide((height // 2, height), (0, width))),
        },
        rows=[["number", "seed"], ["hidden_rows", "hidden_columns"], []],
    )
