"""Giving orders to a conditional VAE (notebook 02)."""

from collections import Counter

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image, ImageDraw

from .. import figures
from ..cvae import CVAE, CompletionVAE, visible_part
from ..evaluation import measure_attributes
from ..vae import reparameterize
from .live import RESET, LivePicture, axis, font, to_pil

DIGIT = 308  # pixels: side of the large digit
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
    k, z_dim = model.num_classes, model.z_dim
    device = next(model.parameters()).device
    mean, std = torch.as_tensor(mean).cpu(), torch.as_tensor(std).cpu()
    others = torch.randn(8, z_dim, generator=torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(1)
    zoom = max(1, DIGIT // model.shape[-1])
    side = zoom * model.shape[-1]
    near = max(1, 98 // model.shape[-1])
    near_side = 3 * (model.shape[-1] + 2) * near
    near_x, bars_x, top = side + 24, side + near_side + 64, 30
    size = (bars_x + 24 * k + 12, top + side + 34)

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

        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        picture.paste(to_pil(figures.image_grid(images[:1], gap=0), zoom), (0, top))
        pen.rectangle([0, top, side - 1, top + side - 1], outline=figures.COLORS["x"], width=3)
        measured = f"mesuré : {slant:+.0f}°, {thickness:.1f} px".replace(".", ",").replace("-", "−")
        pen.text((4, top + side + 6), measured, fill=figures.COLORS["truth"], font=font(17))
        pen.text((near_x, 4), "même consigne, autres z", fill=figures.COLORS["z"], font=font(16))
        grid = figures.image_grid(torch.cat([images[1:5], images[:1], images[5:]]), columns=3)
        picture.paste(to_pil(grid, near), (near_x, top))
        pen.text((bars_x, 4), "demandé", fill=figures.COLORS["y"], font=font(16))
        pen.text((bars_x + 90, 4), "lu", fill=figures.COLORS["truth"], font=font(16))
        _bars(pen, y[0, :k].tolist(), read.tolist(), (bars_x, top), side)
        return picture

    controls = {}
    for i in range(k):
        controls[f"y{i}"] = widgets.FloatSlider(
            value=float(i == 3), min=0, max=1, step=0.05, description=str(i),
            orientation="vertical", readout=False, layout={"width": "30px", "height": "128px"},
        )  # fmt: skip
    low, high = (mean - 2 * std).tolist(), (mean + 2 * std).tolist()
    for number, (name, text, step) in enumerate(
        (("slant", "pente (°)", 0.5), ("thickness", "trait (px)", 0.05))
    ):
        controls[name] = _slider(
            text, round(mean[number].item(), 1), low[number], high[number], step, label=70
        )
    for i in range(z_dim):
        controls[f"z{i + 1}"] = _slider(
            f"z{i + 1}".translate(SUBSCRIPTS), 0.0, -3.0, 3.0, 0.05, label=24
        )

    def another_z():
        z = torch.randn(z_dim, generator=draws).clamp(-3, 3)
        return {f"z{i + 1}": round(value, 2) for i, value in enumerate(z.tolist())}

    names, again = list(controls), "Tirer un autre z"
    return LivePicture(
        draw,
        controls,
        caption="Mélangez deux classes, penchez, épaississez ; puis gardez la consigne et tirez un "
        "autre z.",
        buttons={again: another_z},
        rows=[[*names[:k], [*names[k : k + 2], again, RESET], names[k + 2 :]]],
    )


def _slider(name, value, low, high, step, label):
    """A slider whose name is given `label` pixels."""
    return widgets.FloatSlider(
        value=value, min=round(low, 1), max=round(high, 1), step=step, description=name,
        readout_format=".2f", layout={"width": "230px"}, style={"description_width": f"{label}px"},
    )  # fmt: skip


def _bars(pen, asked, read, corner, height):
    """For each class, two bars: the weight asked for, the probability read."""
    x0, y0 = corner
    floor = y0 + height - 26
    scale = height - 40
    axis(pen, (x0, floor), (24 * len(asked), scale), 14)
    for i, pair in enumerate(zip(asked, read)):
        x = x0 + 24 * i
        for k, (value, color) in enumerate(zip(pair, ("y", "truth"))):
            left = x + 9 * k
            pen.rectangle([left, floor - scale * value, left + 8, floor], figures.COLORS[color])
        pen.text((x + 4, floor + 4), str(i), fill=figures.COLORS["truth"], font=font(16))
    pen.line([x0, floor, x0 + 24 * len(asked), floor], fill=figures.COLORS["truth"], width=1)


def completion_explorer(model, images, classifier, *, draws=18):
    """Hide a rectangle of an image with the mouse and see what the model imagines there.

    Args:
        model: a `CompletionVAE` of one channel.
        images: integer images `(N, 1, H, W)` to choose from.
        classifier: a `DigitClassifier`, which reads the completions.
        draws: number of completions.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    if not isinstance(model, CompletionVAE) or model.shape[0] != 1:
        raise ValueError("the demo needs a CompletionVAE((1, H, W)), of grey images")
    _, height, width = model.shape
    device = next(model.parameters()).device
    zoom, small, top = max(1, DIGIT // height), max(1, 84 // height), 30
    beside = max(1, zoom * height // (small * (height + 2)))  # rows of completions, at most
    columns = -(-draws // beside)
    grid_x = zoom * width + 24
    size = (grid_x + columns * (width + 2) * small, top + zoom * height + 30)
    corner = [-1, -1]  # where the mouse was pressed, (row, column)

    @torch.no_grad()
    def draw(number, hidden_rows, hidden_columns, seed):
        image = images[number : number + 1]
        mask = torch.ones(height, width, dtype=torch.bool)
        mask[slice(*hidden_rows), slice(*hidden_columns)] = False
        y = visible_part(image, mask, model.levels).to(device)
        generator = torch.Generator().manual_seed(seed)
        mu, logvar = (t.cpu() for t in model.prior(draws, y))
        z = reparameterize(mu, logvar, generator).to(device)
        completions = model.decode(z, y).cpu()
        labels, _ = classifier.read(completions)

        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        pen.text((0, 4), "image de test", fill=figures.COLORS["x"], font=font(16))
        pen.text((grid_x, 4), "complétions", fill=figures.COLORS["z"], font=font(16))
        page = figures.image_grid(image, levels=model.levels, gap=0)
        hidden = np.array([0.80, 0.91, 0.87])  # a light green: what is hidden is the question
        page = np.where(mask[:, :, None], page, 0.75 * hidden + 0.25 * page)
        picture.paste(to_pil(page, zoom), (0, top))
        box = [
            zoom * hidden_columns[0],
            top + zoom * hidden_rows[0],
            zoom * hidden_columns[1],
            top + zoom * hidden_rows[1],
        ]
        pen.rectangle(box, outline=figures.COLORS["y"], width=3)
        grid = figures.image_grid(completions, columns=columns)
        picture.paste(to_pil(grid, small), (grid_x, top))
        counts = Counter(labels.tolist()).most_common()
        text = "le classifieur lit : " + ", ".join(f"{d} ×{n}" for d, n in counts)
        pen.text((0, size[1] - 26), text, fill=figures.COLORS["truth"], font=font(17))
        return picture

    def drag(x, y, pressed):
        """The rectangle between the corner where the mouse was pressed and where it is now."""
        row, column = int((y - top) // zoom), int(x // zoom)
        if pressed:
            corner[:] = row, column
        if not (0 <= corner[0] < height and 0 <= corner[1] < width):
            return {}  # the drag did not start on the image
        row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
        return {
            "hidden_rows": (min(corner[0], row), max(corner[0], row) + 1),
            "hidden_columns": (min(corner[1], column), max(corner[1], column) + 1),
        }

    def range_slider(text, value, high):
        return widgets.IntRangeSlider(
            value=value, min=0, max=high, description=text, layout={"width": "330px"}
        )

    controls = {
        "number": widgets.IntSlider(
            value=0, max=len(images) - 1, description="image", layout={"width": "330px"}
        ),
        "hidden_rows": range_slider("lignes", (0, height), height),
        "hidden_columns": range_slider("colonnes", (width // 2, width), width),
        "seed": widgets.IntSlider(value=0, max=99, description="tirage", layout={"width": "330px"}),
    }

    def hide(rows, columns):
        return lambda: {"hidden_rows": rows, "hidden_columns": columns}

    return LivePicture(
        draw,
        controls,
        caption="Cliquez et glissez sur l'image de gauche : le rectangle vert est caché, et le "
        f"modèle imagine {draws} suites. Les pixels visibles ne changent jamais.",
        on_pointer=drag,
        buttons={
            "Autres tirages": lambda: {"seed": (controls["seed"].value + 1) % 100},
            "Cacher la droite": hide((0, height), (width // 2, width)),
            "Cacher la gauche": hide((0, height), (0, width // 2)),
            "Cacher le bas": hide((height // 2, height), (0, width)),
        },
        rows=[["number", "seed"], ["hidden_rows", "hidden_columns"], []],
    )
