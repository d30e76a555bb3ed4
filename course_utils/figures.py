"""Every drawing of the course, in one style.

One colour per concept, in figures, diagrams and demos alike; the palette is Okabe & Ito's, darkened
to be read as text on white or under white text: colour-blind readers can tell it apart. Importing
this module sets the style, and each figure that a notebook shows says what it is to those who
listen to it. With `COURSE_PROJECTION=1` in the environment, everything is drawn larger, for the
back of a room.
"""

import itertools
import math
import os
import re

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from .language import tr

COLORS = {
    "x": "#0072B2",  # data, images, likelihood
    "z": "#C35408",  # latent variables, posterior
    "y": "#006048",  # condition
    "code": "#992A80",  # discrete codes
    "prior": "#757575",  # p(z)
    "truth": "#222222",  # exact values
    "focus": "#E6AB02",  # what one looks at: the pixel to guess, the chosen code; too pale for text
}
# of the models compared: none is a concept of the lecture
MODEL_COLORS = ("#222222", "#56B4E9", "#7570B3", "#999999")
FIELD_COLORS = {"read": COLORS["x"], "blind": "#F0C9A8"}  # pixels before: read, or out of sight
LATER = "#F2F2F2"  # pixels still to come
LEARNING, PLANE = tr("Apprentissage"), tr("Espace latent")  # titles
CLASS_COLORS = plt.get_cmap("tab10").colors  # the ten digits

plt.rcParams.update(
    {
        "figure.figsize": (8, 3.4),
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 12,
        "axes.titlesize": 13,
        "axes.labelsize": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#E6E6E6",
        "axes.axisbelow": True,
        "legend.frameon": False,
        "lines.linewidth": 2.2,
        "axes.prop_cycle": plt.cycler(color=MODEL_COLORS),
    }
)

PROJECTION = os.environ.get("COURSE_PROJECTION", "") not in ("", "0")
SCREEN = (1110, 560)  # pixels left to a picture by JupyterLab on a projector of 1280×720


def fit_to_screen(figure):
    """Draw a figure 30 % larger, or as wide as the screen; a high one is lowered, not its text."""
    width, height = figure.get_size_inches()
    figure.set_dpi(min(130, SCREEN[0] / width))
    figure.set_size_inches(width, min(height, SCREEN[1] / figure.dpi))


def linear_rgb(color):
    """Red, green and blue of a colour as amounts of light, in [0, 1] (sRGB)."""
    shares = np.array(to_rgb(color))
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def luminance(color):
    """Relative luminance of a colour, in [0, 1] (WCAG 2)."""
    return float(linear_rgb(color) @ (0.2126, 0.7152, 0.0722))


def ink_on(color):
    """Black or white, what is easier to read on this colour."""
    return "black" if luminance(color) > 0.18 else "white"


if PROJECTION:
    plt.rcParams["figure.hooks"] = [f"{__name__}:fit_to_screen"]


# ---------------------------------------------------------------------------------------------
# Figures for those who listen to them
# ---------------------------------------------------------------------------------------------


def alt_text(figure):
    """What a figure shows, in words, for who listens to the page; "" if nothing is written on it.

    Its label, if it has one (a diagram's is a sentence), or its titles, axes, legend and names.
    """
    if figure.get_label():
        return figure.get_label()
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    axes = [ax for ax in panels if ax.axison]
    legends = [ax.get_legend() for ax in panels if ax.get_legend()]
    names = [text for ax in panels if not ax.axison for text in ax.texts]
    titles = "{words}." if len(panels) == 1 else tr("{count} panneaux : {words}.")
    parts = (
        ("{words}.", [figure.get_suptitle()]),
        (titles, [ax.get_title() for ax in panels]),
        (tr("Abscisse : {words}."), [ax.get_xlabel() for ax in axes]),
        (tr("Ordonnée : {words}."), [ax.get_ylabel() for ax in axes]),
        (tr("Légende : {words}."), [text.get_text() for each in legends for text in each.texts]),
        (tr("Étiquettes : {words}."), [text.get_text() for text in names]),
    )
    said = []
    for part, words in parts:
        words = [_spoken(word) for word, _ in itertools.groupby(words) if word]  # not twice
        if words:
            said.append(part.format(words=tr(" ; ").join(words), count=len(panels)))
    return " ".join(said).replace("?.", "?")


def _spoken(text):
    """A text of a figure without the signs of LaTeX: $z_1$ is « z 1 »."""
    return re.sub(r"\\hat ?|[$\\{}]", "", text).replace("_", " ").replace("\n", ", ")


def _with_alt_text(figure):
    """For IPython, what goes with the picture of a figure: nbconvert reads it there."""
    return {}, {"image/png": {"alt": alt_text(figure)}}


if get_ipython() is not None:
    get_ipython().display_formatter.mimebundle_formatter.for_type(Figure, _with_alt_text)


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


GAP = 2  # pixels between two images of a grid


def image_grid(images, *, columns=None, levels=None, gap=GAP):
    """Lay images out on one page, dark ink on white paper.

    Args:
        images: `(N, C, H, W)`, C = 1 or 3: intensities in [0, 1], or integers with `levels`.
        columns: images per row (as many as needed for a square by default).
        levels: number of levels of integer images.
        gap: pixels between two images.

    Returns:
        `(rows·(H + gap), columns·(W + gap), 3)` array in [0, 1].
    """
    images = torch.as_tensor(images).detach().cpu()
    if images.dim() != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"expected images (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if not images.is_floating_point():
        if levels is None:
            raise ValueError("integer images: give levels=…, the number of values of a pixel")
        images = images.float() / (levels - 1)
    n, c, h, w = images.shape
    if c == 1:
        images = 1 - images.expand(n, 3, h, w)
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    page = torch.ones(rows * columns, 3, h + gap, w + gap)
    page[:n, :, :h, :w] = images.clamp(0, 1)
    page = page.view(rows, columns, 3, h + gap, w + gap).permute(0, 3, 1, 4, 2)
    return page.reshape(rows * (h + gap), columns * (w + gap), 3).numpy()


def show_images(
    images,
    title="",
    *,
    columns=None,
    levels=None,
    row_labels=(),
    column_labels=(),
    ax=None,
    color=COLORS["x"],
    framed=False,
):
    """Show a grid of images (see `image_grid`) under a title in the colour of its concept.

    `row_labels` are written to the left of the rows, from the top; `column_labels` above the
    columns, from the left. `framed`: a thin frame tells where each image ends.
    """
    page = image_grid(images, columns=columns, levels=levels)
    if ax is None:
        width = 8.5
        height = width * page.shape[0] / page.shape[1]
        _, ax = plt.subplots(figsize=(width, min(height, 9.0) + 0.4))
    ax.imshow(page, interpolation="nearest")
    ax.set_title(title, color=color, pad=24 if column_labels else None)
    ax.axis("off")
    height, width = images.shape[-2] + GAP, images.shape[-1] + GAP
    for number in range(len(images) if framed else 0):
        row, column = divmod(number, page.shape[1] // width)
        frame = (column * width - 0.5, row * height - 0.5), width - GAP, height - GAP
        ax.add_patch(plt.Rectangle(*frame, fill=False, edgecolor="#BBBBBB", linewidth=0.8))
    for row, label in enumerate(row_labels):
        ax.text(-6, (row + 0.5) * height, label, ha="right", va="center", color=color)
    for column, label in enumerate(column_labels):
        above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
        ax.annotate(label, ((column + 0.5) * width, -0.5), va="bottom", color=color, **above)


def compare_images(groups, *, columns=8, levels=None):
    """Show several sets of images side by side: `{title: images}`."""
    figure, axes = plt.subplots(1, len(groups), figsize=(9, 9 / len(groups) + 0.6), squeeze=False)
    figure.get_layout_engine().set(wspace=0.12)
    for ax, (title, images) in zip(axes[0], groups.items()):
        show_images(images, title, columns=columns, levels=levels, ax=ax)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def learning_curves(histories, title=LEARNING):
    """Losses of `fit` against the steps; a dot marks the best step.

    Args:
        histories: `{name: History}`, or one History.
    """
    if not isinstance(histories, dict):
        histories = {"validation": histories}
    _, ax = plt.subplots()
    for (name, history), color in zip(histories.items(), itertools.cycle(MODEL_COLORS)):
        ax.plot(history.steps, history.train, "--", color=color, alpha=0.85, linewidth=1.8)
        ax.plot(history.steps, history.val, color=color, label=name)
        ax.plot(history.best_step, history.best_val, "o", color=color)
    ax.set(xlabel=tr("pas de gradient"), ylabel=tr("coût, nats/image"))
    ax.set_title(tr("{title} (tirets : entraînement, trait plein : validation)", title=title))
    ax.legend()


# ---------------------------------------------------------------------------------------------
# The latent plane
# ---------------------------------------------------------------------------------------------


def latent_map(codes, labels, title=PLANE, *, ax=None, half_width=4.0):
    """Codes `(N, 2)`, each its own digit, over the circles that hold 68 % and 95 % of p(z)."""
    if codes.dim() != 2 or codes.shape[1] != 2:
        raise ValueError(f"expected codes (N, 2), to draw a plane; got {tuple(codes.shape)}")
    codes, labels = codes.detach().cpu(), labels.cpu()
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 5.6))
    for probability in (0.68, 0.95):  # in two dimensions, P(‖z‖ < r) = 1 − exp(−r² / 2)
        radius = math.sqrt(-2 * math.log(1 - probability))
        ax.add_patch(plt.Circle((0, 0), radius, fill=False, color=COLORS["prior"], ls="--", lw=1.2))
    for digit in range(10):
        at = codes[labels == digit]
        ax.scatter(*at.T, s=36, color=CLASS_COLORS[digit], alpha=0.8, lw=0, marker=f"${digit}$")
        if len(at):
            ax.annotate(
                str(digit),
                at.median(0).values.tolist(),
                fontsize=15,
                weight="bold",
                ha="center",
                va="center",
                bbox={"boxstyle": "circle,pad=0.2", "fc": "white", "ec": CLASS_COLORS[digit]},
            )
    ax.set(xlim=(-half_width, half_width), ylim=(-half_width, half_width))
    ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    ax.set_title(title, color=COLORS["z"])


def shades(color):
    """The colours between white, for nothing, and that of a concept."""
    return LinearSegmentedColormap.from_list("shades", ["white", color])


def density_map(ax, axis, density, color, title=""):
    """Density `(R, R)` over the square `axis` × `axis`: from white to the colour of its concept."""
    half = (axis[1] - axis[0]) / 2  # each value is the centre of its cell
    edges = [float(axis[0] - half), float(axis[-1] + half)]
    how = {"cmap": shades(color), "vmin": 0, "interpolation": "bicubic"}
    ax.imshow(density, origin="lower", extent=edges * 2, **how)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    ax.set_title(title, color=color)
    ax.grid(False)


def gaussian_ellipse(ax, mu, variance, *, style="-", label=None):
    """Curve at two standard deviations of N(mu, diag(variance)), both `(2,)`."""
    width, height = (4 * np.sqrt(np.asarray(variance))).tolist()
    line = {"fill": False, "color": COLORS["truth"], "ls": style, "lw": 2}
    ax.add_patch(Ellipse(tuple(np.asarray(mu)), width, height, **line)).set_label(label)


def posterior_panel(ax, axis, density, gaussians, title=""):
    """Exact posterior on a grid, and the curves at two deviations of Gaussians that approach it.

    Args:
        axis, density: from `evaluation.grid_posterior`.
        gaussians: `{label: (mu, logvar)}`, both `(2,)`: a solid, then a dashed ellipse.
    """
    density_map(ax, axis.numpy(), density.numpy(), COLORS["z"], title)
    corners = []
    for (label, (mu, logvar)), style in zip(gaussians.items(), ("-", "--")):
        sigma = torch.exp(0.5 * logvar)
        gaussian_ellipse(ax, mu, sigma**2, style=style, label=label)
        corners += [mu - 2 * sigma, mu + 2 * sigma]
    # A square window around the ellipses and around what the eye sees of the density.
    rows, columns = torch.nonzero(density > 0.05 * density.max(), as_tuple=True)
    seen = torch.stack([axis[columns], axis[rows]], 1)
    points = torch.cat([torch.stack(corners), seen])
    x, y = ((points.amax(0) + points.amin(0)) / 2).tolist()
    reach = 0.6 * (points.amax(0) - points.amin(0)).max().item()
    ax.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))


# ---------------------------------------------------------------------------------------------
# Autoregressive models
# ---------------------------------------------------------------------------------------------


def weight_maps(weights, pixels, title=""):
    """What some pixels look at: their weights on the whole image, in red (for) and blue (against).

    Args:
        weights: `(N, H, W)`, one map per pixel.
        pixels: the N pixels, `(row, column)`: a square marks them.
    """
    weights = torch.as_tensor(weights).detach().cpu()
    if weights.dim() != 3 or len(weights) != len(pixels):
        raise ValueError(f"expected one map (H, W) per pixel, got {tuple(weights.shape)}")
    figure, axes = plt.subplots(1, len(pixels), figsize=(9, 9 / len(pixels) + 0.7), squeeze=False)
    bound = weights.abs().max().item() or 1.0
    for ax, weight, (row, column) in zip(axes[0], weights.numpy(), pixels):
        shown = ax.imshow(weight, cmap="RdBu_r", vmin=-bound, vmax=bound)
        ax.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, lw=2.5))
        ax.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, shrink=0.8, label=tr("poids"))
    figure.suptitle(title, color=COLORS["x"])


def dependency_maps(maps, labels=None):
    """Square maps `{title: (D, D)}` side by side: which input (column) reaches which output (row).

    Booleans, or sizes such as the absolute values of a Jacobian. `labels` names the D inputs.
    """
    axes = _square_axes(len(maps))
    axes[0].figure.get_layout_engine().set(wspace=0.08)
    for ax, (title, values) in zip(axes, maps.items()):
        values = torch.as_tensor(values).detach().cpu().float().numpy()
        ax.imshow(values, cmap=shades(COLORS["x"]), vmin=0, vmax=values.max() or 1.0)
        ax.set_title(title, color=COLORS["x"])
        ax.set(xlabel=tr("entrée"), ylabel=tr("sortie"))
        ax.grid(False)
        if labels is not None:
            ax.set_xticks(range(len(labels)), labels=labels)
            ax.set_yticks(range(len(labels)), labels=labels)
            for edge in np.arange(len(labels) + 1) - 0.5:  # few cells: tell them apart
                ax.axhline(edge, color="#CCCCCC", lw=1)
                ax.axvline(edge, color="#CCCCCC", lw=1)


def receptive_fields(fields, pixel):
    """What one output reads, from `{title: (H, W) booleans}`: read, out of sight, or still to come.

    Args:
        fields: True where a pixel is read.
        pixel: `(row, column)` of the output, outlined; the pixels before it come first in the
            raster order.
    """
    row, column = pixel
    tints = [to_rgb(tint) for tint in (LATER, FIELD_COLORS["blind"], FIELD_COLORS["read"])]
    for ax, (title, read) in zip(_square_axes(len(fields)), fields.items()):
        read = torch.as_tensor(read) != 0  # or numbers, from an exercise
        height, width = read.shape
        before = torch.arange(height * width).view(height, width) < row * width + column
        kind = torch.where(read, 2, torch.where(before, 1, 0))
        _cells(ax, np.array(tints)[kind.numpy()], pixel)
        counts = {"read": int(read.sum()), "before": int(before.sum())}
        text = tr("{read} pixels lus sur {before}", **counts)
        ax.set_title(f"{title}\n{text}", fontsize=12)


def kernel_masks(masks):
    """Masks of kernels, `{title: (k, k)}`: the weights that are kept, the centre outlined."""
    tints = np.array([to_rgb(tint) for tint in (LATER, FIELD_COLORS["read"])])
    for ax, (title, mask) in zip(_square_axes(len(masks)), masks.items()):
        kept = torch.as_tensor(mask).bool()
        _cells(ax, tints[kept.int().numpy()], (len(kept) // 2,) * 2)
        text = tr("{count} poids gardés", count=int(kept.sum()))
        ax.set_title(f"{title}\n{text}", fontsize=12)


def _square_axes(count):
    """Axes side by side, for `count` square pictures."""
    side = min(3.4, 9 / count)
    return plt.subplots(1, count, figsize=(side * count, side + 0.5), squeeze=False)[1][0]


def _cells(ax, page, outlined):
    """A page of colours `(H, W, 3)` whose cells are told apart; `outlined`: `(row, column)`."""
    height, width, _ = page.shape
    row, column = outlined
    ax.imshow(page)
    ax.add_patch(
        plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=COLORS["focus"], lw=3)
    )
    ax.set_xticks(np.arange(width + 1) - 0.5, labels=[])
    ax.set_yticks(np.arange(height + 1) - 0.5, labels=[])
    ax.tick_params(length=0)
    ax.grid(color="white", lw=1.2)
    ax.spines[:].set_visible(False)
