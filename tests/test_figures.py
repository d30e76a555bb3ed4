"""Every drawing runs without a screen and shows what it is given; grids are read pixel by pixel."""

import importlib.util
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scene
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Ellipse

from course_utils import diagrams, figures
from course_utils.demos import field
from course_utils.figures import COLORS, alt_text, image_grid
from course_utils.training import History

pytestmark = pytest.mark.usefixtures("no_screen")


def panels():
    """The axes of the current figure, drawn for good."""
    plt.gcf().canvas.draw()
    return plt.gcf().axes


def name_of(color):
    return to_hex(color).upper()


def shown(ax, value):
    """The colour that a panel gives to a value, `(red, green, blue)`."""
    (image,) = ax.images
    return image.cmap(image.norm(value))[:3]


# ---- on a projector ---------------------------------------------------------------------------


@pytest.mark.parametrize("size, dpi, height", [
    ((8, 3), 130, 3),  # larger
    ((12, 4), 92.5, 4),  # as wide as the screen
    ((5, 10), 130, 560 / 130),  # as high as the screen
    ((12, 10), 92.5, 560 / 92.5),
])  # fmt: skip
def test_on_a_projector_figures_are_as_large_as_the_screen_shows(size, dpi, height):
    with plt.rc_context({"figure.hooks": ["course_utils.figures:fit_to_screen"]}):
        figure = plt.figure(figsize=size)
    assert figure.dpi == pytest.approx(dpi)
    assert figure.get_size_inches() == pytest.approx((size[0], height))
    assert plt.figure(figsize=size).dpi == 100


@pytest.mark.parametrize("asked, projected", [("1", True), ("0", False), ("", False)])
def test_the_environment_asks_for_projection(asked, projected, monkeypatch):
    monkeypatch.setenv("COURSE_PROJECTION", asked)
    spec = importlib.util.find_spec("course_utils.figures")
    imported = importlib.util.module_from_spec(spec)
    with plt.rc_context({"figure.hooks": []}):
        spec.loader.exec_module(imported)
        assert imported.PROJECTION == projected and (plt.figure().dpi > 100) == projected


# ---- bad input --------------------------------------------------------------------------------


def _grid(*shape, dtype=torch.float32):
    return lambda: image_grid(torch.zeros(shape, dtype=dtype))


def _plane(*shape):
    return lambda: figures.latent_map(torch.zeros(shape), torch.arange(5))


def _weights(shape, pixels):
    return lambda: figures.weight_maps(torch.zeros(shape), pixels)


@pytest.mark.parametrize("call, message", [
    (_grid(2, 2), "expected images (N, 1 or 3, H, W), got (2, 2)"),
    (_grid(0, 1, 4, 4), "expected images (N, 1 or 3, H, W), got (0, 1, 4, 4)"),
    (_grid(2, 2, 4, 4), "expected images (N, 1 or 3, H, W), got (2, 2, 4, 4)"),
    (_grid(2, 1, 4, 4, dtype=torch.uint8), "integer images: give levels="),
    (_plane(5, 3), "expected codes (N, 2), to draw a plane; got (5, 3)"),
    (_plane(5), "expected codes (N, 2), to draw a plane; got (5,)"),
    (_plane(5, 1), "expected codes (N, 2), to draw a plane; got (5, 1)"),
    (_weights((2, 4, 5), [(0, 0)]), "expected one map (H, W) per pixel, got (2, 4, 5)"),
    (_weights((1, 4, 5), [(0, 0)] * 2), "expected one map (H, W) per pixel, got (1, 4, 5)"),
    (_weights((2, 20), [(0, 0)] * 2), "expected one map (H, W) per pixel, got (2, 20)"),
    (_weights((1, 1, 4, 5), [0]), "expected one map (H, W) per pixel, got (1, 1, 4, 5)"),
])  # fmt: skip
def test_bad_input_is_refused_before_anything_is_drawn(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
    assert not plt.get_fignums()


# ---- style ------------------------------------------------------------------------------------


# What each kind of reader sees of linear red, green and blue: Machado et al. (2009), severity 1.
EYES = {
    "most": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
# Oklab (Ottosson, 2020): from linear colours to cones, then to lightness and two hues.
TO_CONES = [[0.412221, 0.536333, 0.051446], [0.211903, 0.680700, 0.107397],
            [0.088302, 0.281719, 0.629979]]  # fmt: skip
TO_LAB = [[0.210454, 0.793618, -0.004072], [1.977998, -2.428592, 0.450594],
          [0.025904, 0.782772, -0.808676]]  # fmt: skip


def seen(color, eyes):
    """A colour in Oklab, as these eyes see it."""
    light = np.clip(EYES[eyes] @ figures.linear_rgb(color), 0, 1)
    return TO_LAB @ np.cbrt(TO_CONES @ light)


MEETING = [
    *itertools.combinations(COLORS.values(), 2),
    *itertools.combinations(figures.MODEL_COLORS, 2),
    *itertools.combinations((*figures.FIELD_COLORS.values(), figures.LATER), 2),
    *itertools.combinations((field.READ, field.TOO_FAR, figures.LATER, field.FORBIDDEN), 2),
]


@pytest.mark.parametrize("eyes", EYES)
def test_colours_that_meet_are_told_apart_by_all_eyes(eyes):
    """By 0.08 of lightness or hue, four times what one just sees; digits are written as digits."""
    for one, other in MEETING:
        assert np.linalg.norm(seen(one, eyes) - seen(other, eyes)) > 0.08, (one, other)


def test_the_style_is_set_and_the_colours_of_concepts_are_read_on_white_and_under_white():
    readable = {name for name, color in COLORS.items() if scene.contrast(color, "white") >= 4.5}
    assert readable == COLORS.keys() - {"focus"}
    for color in (*COLORS.values(), *figures.MODEL_COLORS, "#7F7F7F", "black", "white"):
        assert scene.contrast(figures.ink_on(color), color) >= 4.5
    assert plt.rcParams["font.size"] >= 12
    assert plt.rcParams["figure.constrained_layout.use"]


# ---- words for those who listen ---------------------------------------------------------------


def curves(names):
    figures.learning_curves(dict.fromkeys(names, History([0, 9], [3.0, 1.0], [3.0, 2.0])))


@pytest.mark.parametrize("draw, said", [
    (lambda: curves("ab"),
     "Apprentissage (tirets : entraînement, trait plein : validation). Abscisse : pas de gradient. "
     "Ordonnée : coût, nats/image. Légende : a ; b."),
    (lambda: figures.compare_images({"A": torch.ones(1, 1, 2, 2), "B ?": torch.ones(1, 1, 2, 2)}),
     "2 panneaux : A ; B ?"),
    (lambda: figures.show_images(torch.ones(2, 1, 2, 2), "T", row_labels=["y = 3"]),
     "T. Étiquettes : y = 3."),
    (lambda: figures.weight_maps(torch.ones(1, 2, 2), [(0, 0)], "T"), "T."),
    (lambda: plt.subplots()[1].set_xlabel(r"$\hat x$, $z_1$"), "Abscisse : x, z 1."),
    (plt.figure, ""),
    (lambda: diagrams.cvae_sampling(["(2, 3)"]),
     "Schéma du CVAE qui invente, en quatre étapes : choisir c, tirer z selon p(z|c), les "
     "concaténer, décoder."),
])  # fmt: skip
def test_a_figure_says_what_is_written_on_it_and_a_diagram_its_sentence(draw, said):
    plt.close("all")
    draw()
    assert alt_text(plt.gcf()).replace("\u00a0", " ") == said


# ---- images -----------------------------------------------------------------------------------


def test_grid_of_three_grey_pixels():
    """Ink is dark: 1 is black, 0 and the paper are white. The fourth place stays empty."""
    expected = np.ones((4, 4))
    expected[0, 0], expected[2, 0] = 0, 0.75
    grey = torch.tensor([1.0, 0.0, 0.25]).view(3, 1, 1, 1)
    for images, levels in ((grey, None), ((4 * grey).byte(), 5), (grey.numpy(), None)):
        page = image_grid(images, columns=2, levels=levels, gap=1)
        np.testing.assert_allclose(page, np.repeat(expected[:, :, None], 3, axis=2))


def test_grid_keeps_rows_columns_and_colours():
    """Two colour images of 1×2 pixels side by side, without a gap; what is too bright is cut."""
    images = torch.tensor([[[[0.0, 0.1]], [[0.2, 0.3]], [[0.4, 0.5]]]])
    images = torch.cat([images, images + 0.5]).requires_grad_()
    page = image_grid(images + 0.1, columns=2, gap=0)
    expected = [[[0.1, 0.3, 0.5], [0.2, 0.4, 0.6], [0.6, 0.8, 1.0], [0.7, 0.9, 1.0]]]
    np.testing.assert_allclose(page, expected, atol=1e-6)


@pytest.mark.parametrize(("n", "shape"), [(1, (4, 5)), (4, (8, 10)), (5, (8, 15)), (9, (12, 15))])
def test_grid_is_about_square(n, shape):
    assert image_grid(torch.zeros(n, 1, 2, 3)).shape == (*shape, 3)


def test_show_images_draws_the_grid_under_its_title():
    images = torch.rand(6, 1, 4, 4)
    figures.show_images(images, "Chiffres", columns=3)
    (ax,) = panels()
    assert ax.get_title() == "Chiffres" and not ax.axison
    assert name_of(ax.title.get_color()) == COLORS["x"]
    np.testing.assert_allclose(ax.images[0].get_array(), image_grid(images, columns=3))
    assert not ax.patches and not ax.texts


def test_show_images_draws_where_it_is_told_with_frames_and_labels():
    """A frame tells where each image ends; a label stands beside its row or above its column."""
    _, (other, ax) = plt.subplots(1, 2)
    labels = {"row_labels": ("haut", "bas"), "column_labels": "abc"}
    images = torch.zeros(5, 1, 6, 8, dtype=torch.uint8)
    figures.show_images(images, "titre", columns=3, levels=2, ax=ax, framed=True, **labels)
    assert not other.images and len(ax.images) == 1 and len(plt.get_fignums()) == 1
    corners = [(patch.get_x() + 0.5, patch.get_y() + 0.5) for patch in ax.patches]
    assert corners == [(0, 0), (10, 0), (20, 0), (0, 8), (10, 8)]
    assert {(patch.get_width(), patch.get_height()) for patch in ax.patches} == {(8, 6)}
    where = {text.get_text(): getattr(text, "xy", text.get_position()) for text in ax.texts}
    assert (where["haut"][1], where["bas"][1]) == (4, 12) and where["haut"][0] < 0
    assert [where[name][0] for name in "abc"] == [5, 15, 25] and where["a"][1] < 0
    ax.figure.canvas.draw()
    label, title = (text.get_window_extent() for text in (ax.texts[-1], ax.title))
    assert ax.bbox.y1 < label.y0 and label.y1 < title.y0


def test_compare_images_has_one_panel_for_each_group():
    groups = {name: torch.rand(8, 1, 4, 4) for name in ("données", "modèle", "reconstruction")}
    figures.compare_images(groups, columns=4)
    axes = panels()
    assert [ax.get_title() for ax in axes] == list(groups)
    assert all(ax.images[0].get_array().shape == (12, 24, 3) for ax in axes)


# ---- curves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 8])
def test_learning_curves_show_every_history(count):
    history = History([0, 10, 20], [float("nan"), 90.0, 80.0], [100.0, 92.0, 95.0], 10, 92.0)
    histories = {f"modèle {k}": history for k in range(count)}
    for given, expected in ((histories, list(histories)), (history, ["validation"])):
        figures.learning_curves(given, "Coût")
        (ax,) = panels()
        assert [text.get_text() for text in ax.get_legend().get_texts()] == expected
        assert len(ax.lines) == 3 * len(expected)
        train, val, best = ax.lines[:3]
        assert train.get_ydata()[1:].tolist() == [90, 80] and train.get_linestyle() == "--"
        assert val.get_ydata().tolist() == [100, 92, 95] and val.get_linestyle() == "-"
        assert (best.get_xdata().tolist(), best.get_ydata().tolist()) == ([10], [92])
        assert ax.get_title().startswith("Coût") and "nats/image" in ax.get_ylabel()


# ---- the latent plane -------------------------------------------------------------------------


def test_latent_map_has_a_cloud_for_each_class_and_the_circles_of_the_prior():
    labels = torch.arange(40) % 4  # classes 4 to 9 have no image
    codes = (0.1 * torch.randn(40, 2) + labels[:, None]).requires_grad_()  # as an encoder gives it
    figures.latent_map(codes, labels, "Plan", half_width=5)
    (ax,) = panels()
    assert [len(cloud.get_offsets()) for cloud in ax.collections] == [10] * 4 + [0] * 6
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2", "3"]
    assert ax.get_xlim() == ax.get_ylim() == (-5, 5) and ax.get_title() == "Plan"
    draws = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    inside = [(draws < circle.radius).float().mean().item() for circle in ax.patches]
    assert inside == pytest.approx([0.68, 0.95], abs=0.005)
    _, other = plt.subplots()
    figures.latent_map(codes, labels, ax=other)
    assert len(other.collections) == 10 and plt.get_fignums() == [1, 2]


def test_posterior_panel_frames_the_posterior_and_ellipses_at_two_deviations():
    """The square window holds the posterior and an ellipse that misses it."""
    axis = torch.linspace(-4, 4, 161)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    density = torch.exp(-0.5 * (((z1 - 1) / 0.3) ** 2 + ((z2 + 0.5) / 0.2) ** 2))
    _, ax = plt.subplots()
    logvar = torch.tensor([0.09, 0.04]).log()
    means = {"juste": (1.0, -0.5), "à côté": (-1.0, -0.5)}
    gaussians = {name: (torch.tensor(mean), logvar) for name, mean in means.items()}
    figures.posterior_panel(ax, axis, density, gaussians, "un chiffre")
    assert panels() == [ax] and ax.get_title() == "un chiffre" and ax.images
    ellipses = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    assert {ellipse.get_label(): tuple(ellipse.center) for ellipse in ellipses} == means
    assert [ellipse.get_linestyle() for ellipse in ellipses] == ["-", "--"]
    for ellipse in ellipses:
        assert (ellipse.width, ellipse.height) == pytest.approx((1.2, 0.8), rel=1e-4)
        assert name_of(ellipse.get_edgecolor()) == COLORS["truth"]
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert left < -1.6 and right > 1.6  # both ellipses, at two deviations
    assert right - left == pytest.approx(top - bottom)


def test_density_map_goes_from_white_to_its_colour():
    axis = torch.linspace(-1, 1, 21)
    density = torch.exp(-(axis[:, None] ** 2) - axis**2).numpy()
    _, ax = plt.subplots()
    figures.density_map(ax, axis.numpy(), density, COLORS["prior"], "p(z)")
    assert ax.get_title() == "p(z)" and ax.title.get_color() == COLORS["prior"]
    (image,) = ax.images
    assert (to_hex(image.cmap(0.0)), name_of(image.cmap(1.0))) == ("#ffffff", COLORS["prior"])
    assert image.get_extent() == pytest.approx((-1.05, 1.05, -1.05, 1.05))


# ---- autoregressive models --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.as_tensor, torch.nn.Parameter, np.asarray])
@pytest.mark.parametrize("factor, bound", [(-3.0, 3.0), (0.0, 1.0)])
def test_weight_maps_mark_each_pixel_on_its_own_map(kind, factor, bound):
    """On one scale, white at zero, red for, blue against."""
    weights = factor * torch.linspace(-0.4, 1, 60).view(3, 4, 5)
    pixels = [(0, 0), (3, 1), (2, 4)]  # rows and columns: not to be swapped
    figures.weight_maps(kind(weights), torch.tensor(pixels), "Poids")
    *axes, bar = panels()
    assert len(axes) == 3 and len(plt.get_fignums()) == 1 and bar.get_ylabel() == "poids"
    for ax, weight, (row, column) in zip(axes, weights, pixels):
        np.testing.assert_allclose(ax.images[0].get_array(), weight)
        assert ax.images[0].origin == "upper", "row 0 is at the top"
        (square,) = ax.patches
        assert square.get_bbox().bounds == (column - 0.5, row - 0.5, 1, 1)
        assert not square.get_fill() and len(ax.get_xticks()) == len(ax.get_yticks()) == 0
        assert ax.images[0].get_clim() == (-bound, bound) and min(shown(ax, 0.0)) > 0.95
        for_, against = shown(ax, 0.7 * bound), shown(ax, -0.7 * bound)
        assert for_[0] > for_[2] + 0.3 and against[2] > against[0] + 0.3
    assert plt.gcf().get_suptitle() == "Poids"
    assert name_of(plt.gcf()._suptitle.get_color()) == COLORS["x"]


def test_dependency_maps_go_from_white_to_the_colour_of_x_each_on_its_scale():
    """Booleans or sizes, such as those of a Jacobian that still has its gradient."""
    sizes = torch.tensor([[0.0, 40.0], [20.0, 0.0]], requires_grad=True)
    maps = {"oui ou non": sizes > 0, "tailles": sizes, "petites": sizes / 1e4, "rien": 0 * sizes}
    figures.dependency_maps(maps)
    axes = panels()
    assert [ax.get_title() for ax in axes] == list(maps) and len(plt.get_fignums()) == 1
    for ax, values, largest in zip(axes, maps.values(), (1.0, 40.0, 4e-3, 1.0)):
        assert name_of(ax.title.get_color()) == COLORS["x"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("entrée", "sortie")
        np.testing.assert_allclose(ax.images[0].get_array(), values.detach())
        assert ax.images[0].origin == "upper", "output 0 is at the top"
        assert to_hex(shown(ax, 0.0)) == "#ffffff" and name_of(shown(ax, largest)) == COLORS["x"]
        assert name_of(shown(ax, largest / 2)) not in ("#FFFFFF", COLORS["x"])
        assert not any(line.get_visible() for line in ax.get_xgridlines() + ax.get_ygridlines())
        assert not ax.lines, "784 cells are not told apart"


def test_dependency_maps_name_the_inputs_and_the_outputs():
    figures.dependency_maps({"A": torch.zeros(6, 6), "B": torch.eye(6) > 0}, labels="RRVVBB")
    for ax in panels():
        for axis in (ax.xaxis, ax.yaxis):
            ticks = {t.get_loc(): t.label1.get_text() for t in axis.get_major_ticks()}
            assert ticks == dict(enumerate("RRVVBB"))
        # a line on each side of each cell
        across = sorted(line.get_ydata()[0] for line in ax.lines if len({*line.get_ydata()}) == 1)
        upright = sorted(line.get_xdata()[0] for line in ax.lines if len({*line.get_xdata()}) == 1)
        assert across == upright == [k - 0.5 for k in range(7)]
        assert len(ax.lines) == 14


def cells_of(ax):
    """The colours of the cells, `(H, W)` names in capitals; the cell outlined."""
    (image,), (square,) = ax.images, ax.patches
    assert image.origin == "upper", "row 0 is at the top"
    assert not square.get_fill() and name_of(square.get_edgecolor()) == COLORS["focus"]
    (x, y, width, height) = square.get_bbox().bounds
    assert (width, height) == (1, 1)
    return [[name_of(cell) for cell in row] for row in image.get_array()], (y + 0.5, x + 0.5)


PATHS = [[1, 3, 0, 2], [0, 4, 0, 0], [0, 0, 0, 0]]  # four of the six pixels before (1, 2)
LEAK = [*PATHS[:2], [0, 0, 0, 1]]


@pytest.mark.parametrize("kind", [torch.tensor, lambda paths: np.array(paths) > 0, list])
def test_receptive_fields_tell_what_is_read_what_is_missed_and_what_is_to_come(kind):
    """An exercise may give booleans, numbers, lists: what is not zero is read. A leak counts."""
    fields = {"masque": kind(PATHS), "fuite": kind(LEAK), "rien": kind([[0] * 4] * 3)}
    figures.receptive_fields(fields, (1, 2))
    axes = panels()
    assert len(axes) == 3 and len(plt.get_fignums()) == 1
    r, b = COLORS["x"], figures.FIELD_COLORS["blind"].upper()
    w = cells_of(axes[0])[0][2][0]
    assert len({r, b, w}) == 3 and min(to_rgb(w)) > 0.9, "what is to come is nearly white"
    read = [[r, r, b, r], [b, r, w, w]]
    assert cells_of(axes[0]) == ([*read, [w, w, w, w]], (1, 2))
    assert cells_of(axes[1]) == ([*read, [w, w, w, r]], (1, 2))
    assert cells_of(axes[2]) == ([[b, b, b, b], [b, b, w, w], [w, w, w, w]], (1, 2))
    assert [ax.get_title() for ax in axes] == [
        f"{name}\n{count} pixels lus sur 6" for name, count in zip(fields, (4, 5, 0))
    ]


@pytest.mark.parametrize("as_tensor", [torch.as_tensor, np.array, list])
def test_kernel_masks_show_the_weights_that_are_kept(as_tensor):
    masks = {
        "A": [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        "B": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0] * 5, [0] * 5],
    }
    figures.kernel_masks({name: as_tensor(mask) for name, mask in masks.items()})
    axes = panels()
    kept, cut = COLORS["x"], cells_of(axes[0])[0][2][2]
    assert cut != kept
    for ax, (name, mask) in zip(axes, masks.items()):
        colors, outlined = cells_of(ax)
        assert colors == [[kept if weight else cut for weight in row] for row in mask]
        assert outlined == (len(mask) // 2,) * 2
        assert ax.get_title() == f"{name}\n{int(np.sum(mask))} poids gardés"


@pytest.mark.parametrize("count", [1, 4])
def test_pictures_of_cells_fit_the_page_and_show_every_cell(count):
    """White lines between the cells, no numbers; no title runs over its neighbour."""
    figures.kernel_masks({f"masque {k}, 7×7": torch.ones(7, 7) for k in range(count)})
    axes = panels()
    width, height = plt.gcf().get_size_inches()
    assert 3 <= width <= 9 and 2 < height < 5
    for axis in [axis for ax in axes for axis in (ax.xaxis, ax.yaxis)]:
        ticks = axis.get_major_ticks()
        assert [tick.get_loc() for tick in ticks] == [k - 0.5 for k in range(8)]
        assert all(t.gridline.get_visible() and t.gridline.get_color() == "white" for t in ticks)
        assert not any(tick.label1.get_text() for tick in ticks)
    titles = [ax.title.get_window_extent() for ax in axes]
    assert all(one.x1 < other.x0 for one, other in zip(titles, titles[1:]))
