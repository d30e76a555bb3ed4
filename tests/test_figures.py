"""Every drawing runs without a screen; the image grid is checked pixel by pixel."""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Ellipse

from course_utils import figures
from course_utils.figures import COLORS, image_grid
from course_utils.training import History

pytestmark = pytest.mark.usefixtures("no_screen")
OKABE_ITO = {"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442"}


def render():
    """Draw the current figure for good, and return it."""
    figure = plt.gcf()
    figure.canvas.draw()
    return figure


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
def test_the_environment_asks_for_projection(asked, projected, tmp_path):
    """Larger figures, and a style sheet for larger tables, which a notebook displays."""
    script = "from course_utils import figures; print(figures.PROJECTION, figures.plt.figure().dpi)"
    environment = os.environ | {"COURSE_PROJECTION": asked, "MPLBACKEND": "Agg"}
    environment["IPYTHONDIR"] = str(tmp_path)
    command = [sys.executable, "-m", "IPython", "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *displayed, printed = result.stdout.splitlines()
    assert printed.split()[0] == str(projected)
    assert (float(printed.split()[1]) > 100) == projected
    assert displayed == ["<IPython.core.display.HTML object>"] * projected


# ---- image_grid -------------------------------------------------------------------------------


def test_grid_of_three_grey_pixels():
    """Ink is dark: 1 is black, 0 and the paper are white. The fourth place stays empty."""
    page = image_grid(torch.tensor([1.0, 0.0, 0.25]).view(3, 1, 1, 1), columns=2, gap=1)
    expected = np.ones((4, 4))
    expected[0, 0], expected[2, 0] = 0, 0.75
    assert page.shape == (4, 4, 3)
    np.testing.assert_allclose(page, np.repeat(expected[:, :, None], 3, axis=2))


def test_grid_keeps_rows_columns_and_colours():
    """Two colour images of 1×2 pixels side by side, without a gap."""
    images = torch.tensor([[[[0.0, 0.1]], [[0.2, 0.3]], [[0.4, 0.5]]]])
    images = torch.cat([images, images + 0.5])
    page = image_grid(images, columns=2, gap=0)
    expected = [[[0.0, 0.2, 0.4], [0.1, 0.3, 0.5], [0.5, 0.7, 0.9], [0.6, 0.8, 1.0]]]
    np.testing.assert_allclose(page, expected, atol=1e-6)


def test_grid_reads_integers_with_their_levels():
    page = image_grid(torch.tensor([0, 1, 2], dtype=torch.uint8).view(3, 1, 1, 1), columns=3,
                      levels=3, gap=0)  # fmt: skip
    np.testing.assert_allclose(page[0, :, 0], [1, 0.5, 0])


@pytest.mark.parametrize(("n", "shape"), [(1, (4, 5)), (4, (8, 10)), (5, (8, 15)), (9, (12, 15))])
def test_grid_is_about_square(n, shape):
    assert image_grid(torch.zeros(n, 1, 2, 3)).shape == (*shape, 3)


def test_grid_accepts_arrays_and_tensors_with_a_gradient_and_clips():
    images = torch.full((1, 1, 1, 1), 1.5, requires_grad=True)
    assert image_grid(images).min() == image_grid(images.detach().numpy()).min() == 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 2), r"expected images \(N, 1 or 3, H, W\), got \(2, 2\)"),
        (torch.zeros(0, 1, 4, 4), r"got \(0, 1, 4, 4\)"),
        (torch.zeros(2, 2, 4, 4), r"expected images \(N, 1 or 3, H, W\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "integer images: give levels="),
    ],
)
def test_grid_refuses(images, message):
    with pytest.raises(ValueError, match=message):
        image_grid(images)


# ---- style ------------------------------------------------------------------------------------


def test_palette_can_be_told_apart_by_colour_blind_readers():
    assert {COLORS[key] for key in ("x", "z", "y", "code")} <= OKABE_ITO
    assert {"prior", "truth"} <= COLORS.keys() and len(set(COLORS.values())) == len(COLORS)
    assert all(len(set(to_rgb(COLORS[key]))) == 1 for key in ("prior", "truth")), "greys"
    assert len(set(figures.CLASS_COLORS)) == 10


def test_importing_the_module_sets_the_style():
    assert plt.rcParams["font.size"] >= 12
    assert plt.rcParams["figure.constrained_layout.use"]


# ---- images -----------------------------------------------------------------------------------


def test_show_images_draws_the_grid_under_its_title():
    images = torch.rand(6, 1, 4, 4)
    figures.show_images(images, "Chiffres", columns=3)
    (ax,) = render().axes
    assert ax.get_title() == "Chiffres" and not ax.axison
    assert to_hex(ax.title.get_color()).upper() == COLORS["x"]
    np.testing.assert_allclose(ax.images[0].get_array(), image_grid(images, columns=3))


def test_show_images_draws_where_it_is_told():
    _, axes = plt.subplots(1, 2)
    figures.show_images(torch.zeros(4, 1, 4, 4, dtype=torch.uint8), levels=2, ax=axes[1])
    assert not axes[0].images and len(axes[1].images) == 1 and len(plt.get_fignums()) == 1


def test_compare_images_has_one_panel_for_each_group():
    groups = {name: torch.rand(8, 1, 4, 4) for name in ("données", "modèle", "reconstruction")}
    figures.compare_images(groups, columns=4, colors=[COLORS["x"], COLORS["z"], COLORS["x"]])
    axes = render().axes
    assert [ax.get_title() for ax in axes] == list(groups)
    assert to_hex(axes[1].title.get_color()).upper() == COLORS["z"]
    assert all(ax.images[0].get_array().shape == (12, 24, 3) for ax in axes)


# ---- curves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 8])
def test_learning_curves_show_every_history(count):
    history = History([0, 10, 20], [float("nan"), 90.0, 80.0], [100.0, 92.0, 95.0], 10, 92.0)
    figures.learning_curves({f"modèle {k}": history for k in range(count)}, "Coût")
    (ax,) = render().axes
    assert len(ax.lines) == 3 * count
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"modèle {k}" for k in range(count)]
    train, val, best = ax.lines[:3]
    assert train.get_ydata()[1:].tolist() == [90, 80] and train.get_linestyle() == "--"
    assert val.get_ydata().tolist() == [100, 92, 95] and val.get_linestyle() == "-"
    assert (best.get_xdata().tolist(), best.get_ydata().tolist()) == ([10], [92])
    assert ax.get_title().startswith("Coût") and "nats/image" in ax.get_ylabel()


def test_learning_curves_show_one_history():
    figures.learning_curves(History([0, 10], [90.0, 80.0], [100.0, 92.0], 10, 92.0))
    (ax,) = render().axes
    assert len(ax.lines) == 3 and ax.get_legend().get_texts()[0].get_text() == "validation"


# ---- the latent plane -------------------------------------------------------------------------


def test_latent_map_has_a_cloud_for_each_class_and_the_circles_of_the_prior():
    labels = torch.arange(40) % 4  # classes 4 to 9 have no image
    codes = 0.1 * torch.randn(40, 2) + labels[:, None]
    figures.latent_map(codes, labels, "Plan", half_width=5)
    (ax,) = render().axes
    assert [len(cloud.get_offsets()) for cloud in ax.collections] == [10] * 4 + [0] * 6
    assert [text.get_text() for text in ax.texts] == ["0", "1", "2", "3"]
    assert ax.get_xlim() == ax.get_ylim() == (-5, 5) and ax.get_title() == "Plan"
    draws = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    inside = [(draws < circle.radius).float().mean().item() for circle in ax.patches]
    assert inside == pytest.approx([0.68, 0.95], abs=0.005)


def test_latent_map_takes_codes_as_an_encoder_gives_them():
    codes = torch.zeros(3, 2, requires_grad=True) + 1
    figures.latent_map(codes, torch.arange(3))


@pytest.mark.parametrize("shape", [(5, 3), (5,), (5, 1)])
def test_latent_map_refuses_codes_that_are_not_in_a_plane(shape):
    with pytest.raises(ValueError, match=r"expected codes \(N, 2\), to draw a plane; got"):
        figures.latent_map(torch.zeros(shape), torch.arange(5))
    assert not plt.get_fignums()


def test_latent_map_draws_where_it_is_told():
    _, ax = plt.subplots()
    figures.latent_map(torch.zeros(3, 2), torch.arange(3), ax=ax)
    assert len(ax.collections) == 10 and plt.get_fignums() == [1]


def test_gaussian_ellipse_is_at_two_standard_deviations():
    _, ax = plt.subplots()
    figures.gaussian_ellipse(ax, torch.tensor([1.0, 2.0]), torch.tensor([0.25, 4.0]), label="q")
    (ellipse,) = ax.patches
    assert tuple(ellipse.center) == (1, 2)
    assert (ellipse.width, ellipse.height) == pytest.approx((2, 8))
    assert (to_hex(ellipse.get_edgecolor()), ellipse.get_label()) == (COLORS["truth"], "q")


def test_posterior_panel_frames_the_posterior():
    """The square window holds the posterior and an ellipse that misses it."""
    axis = torch.linspace(-4, 4, 161)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    density = torch.exp(-0.5 * (((z1 - 1) / 0.3) ** 2 + ((z2 + 0.5) / 0.2) ** 2))
    _, ax = plt.subplots()
    logvar = torch.tensor([0.09, 0.04]).log()
    right, astray = torch.tensor([1.0, -0.5]), torch.tensor([-1.0, -0.5])
    gaussians = {"juste": (right, logvar), "à côté": (astray, logvar)}
    figures.posterior_panel(ax, axis, density, gaussians, "un chiffre")
    render()
    assert ax.get_title() == "un chiffre" and ax.images
    ellipses = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    assert [ellipse.get_label() for ellipse in ellipses] == ["juste", "à côté"]
    assert [ellipse.get_linestyle() for ellipse in ellipses] == ["-", "--"]
    for ellipse in ellipses:
        assert (ellipse.width, ellipse.height) == pytest.approx((1.2, 0.8), rel=1e-4)
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
    assert to_hex(image.cmap(0.0)) == "#ffffff"
    assert to_hex(image.cmap(1.0)).upper() == COLORS["prior"]
    assert image.get_extent() == pytest.approx((-1.05, 1.05, -1.05, 1.05))


def test_a_frame_tells_where_each_image_ends():
    _, ax = plt.subplots()
    figures.show_images(torch.zeros(5, 1, 6, 8), columns=3, ax=ax, framed=True)
    corners = [(patch.get_x() + 0.5, patch.get_y() + 0.5) for patch in ax.patches]
    assert corners == [(0, 0), (10, 0), (20, 0), (0, 8), (10, 8)]
    assert {(patch.get_width(), patch.get_height()) for patch in ax.patches} == {(8, 6)}
    figures.show_images(torch.zeros(5, 1, 6, 8), ax=plt.subplots()[1])
    assert not plt.gca().patches


def test_row_labels_stand_beside_their_rows():
    _, ax = plt.subplots()
    figures.show_images(torch.zeros(6, 1, 8, 8), columns=3, row_labels=("haut", "bas"), ax=ax)
    assert [text.get_text() for text in ax.texts] == ["haut", "bas"]
    assert [text.get_position()[1] for text in ax.texts] == [5, 15]


# ---- autoregressive models --------------------------------------------------------------------


def maps_of(figure):
    """The panels of a figure that hold an image, without the colour bar."""
    return [ax for ax in figure.axes if ax.images]


def shown(ax, value):
    """The colour that a panel gives to a value, `(red, green, blue)`."""
    (image,) = ax.images
    return image.cmap(image.norm(value))[:3]


def test_weight_maps_mark_each_pixel_on_its_own_map():
    weights = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    pixels = [(0, 0), (3, 1), (2, 4)]  # rows and columns: not to be swapped
    figures.weight_maps(weights, pixels, "Poids")
    figure = render()
    axes = maps_of(figure)
    assert len(axes) == 3 and len(plt.get_fignums()) == 1
    for ax, weight, (row, column) in zip(axes, weights, pixels):
        np.testing.assert_allclose(ax.images[0].get_array(), weight)
        assert ax.images[0].origin == "upper", "row 0 is at the top"
        (square,) = ax.patches
        assert square.get_bbox().bounds == (column - 0.5, row - 0.5, 1, 1)
        assert not square.get_fill() and len(ax.get_xticks()) == len(ax.get_yticks()) == 0
    assert figure.get_suptitle() == "Poids"
    assert to_hex(figure._suptitle.get_color()).upper() == COLORS["x"]
    (bar,) = (ax for ax in figure.axes if ax not in axes)
    assert bar.get_ylabel() == "poids"


def test_weight_maps_share_one_scale_white_at_zero_red_for_blue_against():
    figures.weight_maps(torch.tensor([[[0.5, -0.2]], [[-3.0, 1.0]]]), [(0, 0), (0, 1)])
    for ax in maps_of(render()):
        assert ax.images[0].get_clim() == (-3, 3)
        assert min(shown(ax, 0.0)) > 0.95
        red, _, blue = shown(ax, 2.0)
        assert red > blue + 0.3
        red, _, blue = shown(ax, -2.0)
        assert blue > red + 0.3


def test_weight_maps_accept_parameters_arrays_and_zeros():
    weights = torch.nn.Parameter(torch.zeros(1, 2, 2))
    figures.weight_maps(weights, [(1, 1)])
    (ax,) = maps_of(render())
    assert ax.images[0].get_clim() == (-1, 1) and min(shown(ax, 0.0)) > 0.95
    figures.weight_maps(np.ones((2, 2, 2)), torch.tensor([[1, 1], [0, 0]]))
    assert len(maps_of(render())) == 2


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ((2, 4, 5), [(0, 0)]),
        ((1, 4, 5), [(0, 0)] * 2),
        ((2, 20), [(0, 0)] * 2),
        ((1, 1, 4, 5), [0]),
    ],
    ids=["a pixel less", "a pixel more", "flat", "channels"],
)
def test_weight_maps_refuse(shape, pixels):
    message = rf"expected one map \(H, W\) per pixel, got \({', '.join(map(str, shape))}\)"
    with pytest.raises(ValueError, match=message):
        figures.weight_maps(torch.zeros(shape), pixels)
    assert plt.get_fignums() == []


def test_dependency_maps_have_a_panel_for_each_map():
    jacobian = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    maps = {"jacobienne": jacobian, "mesure": torch.ones(4, 4).tril(-1) > 0}
    figures.dependency_maps(maps)
    axes = render().axes
    assert [ax.get_title() for ax in axes] == list(maps) and len(plt.get_fignums()) == 1
    for ax, values in zip(axes, maps.values()):
        assert to_hex(ax.title.get_color()).upper() == COLORS["x"]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("entrée", "sortie")
        np.testing.assert_allclose(ax.images[0].get_array(), values.detach())
        assert ax.images[0].origin == "upper", "output 0 is at the top"
        assert not any(line.get_visible() for line in ax.get_xgridlines() + ax.get_ygridlines())


@pytest.mark.parametrize("scale", [1e-3, 40.0])
def test_dependency_maps_go_from_white_to_the_colour_of_x_each_on_its_scale(scale):
    sizes = torch.tensor([[0.0, scale], [scale / 2, 0.0]])
    figures.dependency_maps({"oui ou non": sizes > 0, "tailles": sizes, "rien": 0 * sizes})
    yes, by_size, nothing = render().axes
    for ax, largest in ((yes, 1.0), (by_size, scale), (nothing, 1.0)):
        assert to_hex(shown(ax, 0.0)) == "#ffffff"
        assert to_hex(shown(ax, largest)).upper() == COLORS["x"]
    assert to_hex(shown(by_size, scale / 2)) not in ("#ffffff", COLORS["x"].lower())


def test_dependency_maps_name_the_inputs_and_the_outputs():
    figures.dependency_maps({"A": torch.zeros(6, 6), "B": torch.eye(6) > 0}, labels="RRVVBB")
    for ax in render().axes:
        for axis in (ax.xaxis, ax.yaxis):
            ticks = {t.get_loc(): t.label1.get_text() for t in axis.get_major_ticks()}
            assert ticks == dict(enumerate("RRVVBB"))
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("entrée", "sortie")
        # a line on each side of each cell
        across = sorted(line.get_ydata()[0] for line in ax.lines if len({*line.get_ydata()}) == 1)
        upright = sorted(line.get_xdata()[0] for line in ax.lines if len({*line.get_xdata()}) == 1)
        assert across == upright == [k - 0.5 for k in range(7)]
        assert len(ax.lines) == 14


def test_dependency_maps_keep_their_numbers_without_labels():
    figures.dependency_maps({"B": torch.eye(6)})
    (ax,) = render().axes
    words = [text.get_text() for text in ax.get_xticklabels() + ax.get_yticklabels()]
    assert words and not set(words) & set("RVB")
    assert not ax.lines, "784 cells are not told apart"


def cells_of(ax):
    """The colours of the cells, `(H, W)` names in capitals; the cell outlined."""
    (image,), (square,) = ax.images, ax.patches
    assert image.origin == "upper", "row 0 is at the top"
    assert not square.get_fill() and to_hex(square.get_edgecolor()).upper() == COLORS["focus"]
    (x, y, width, height) = square.get_bbox().bounds
    assert (width, height) == (1, 1)
    colors = [[to_hex(cell).upper() for cell in row] for row in image.get_array()]
    return colors, (y + 0.5, x + 0.5)


def no_label(ax):
    return not any(text.get_text() for text in ax.get_xticklabels() + ax.get_yticklabels())


def test_receptive_fields_tell_what_is_read_what_is_missed_and_what_is_to_come():
    """Pixel (1, 2) of 3×4: six pixels before it, four of them read; a leak shows, and counts."""
    read = torch.zeros(3, 4, dtype=torch.bool)
    read[0, :3] = read[1, 1] = True
    leak = read.clone()
    leak[2, 3] = True
    figures.receptive_fields(
        {"masque": read, "fuite": leak, "rien": torch.zeros_like(read)}, (1, 2)
    )
    axes = render().axes
    assert len(axes) == 3 and len(plt.get_fignums()) == 1
    r, b = COLORS["x"], figures.FIELD_COLORS["blind"].upper()
    w = cells_of(axes[0])[0][2][0]
    assert len({r, b, w}) == 3 and min(to_rgb(w)) > 0.9, "what is to come is nearly white"
    fields = [[r, r, r, b], [b, r, w, w], [w, w, w, w]]
    assert cells_of(axes[0]) == (fields, (1, 2))
    assert cells_of(axes[1]) == ([*fields[:2], [w, w, w, r]], (1, 2))
    assert cells_of(axes[2]) == ([[b, b, b, b], [b, b, w, w], [w, w, w, w]], (1, 2))
    counts = [ax.get_title().split("\n") for ax in axes]
    assert counts == [
        ["masque", "4 pixels lus sur 6"],
        ["fuite", "5 pixels lus sur 6"],
        ["rien", "0 pixels lus sur 6"],
    ]


def test_receptive_fields_are_drawn_from_numpy_for_the_first_pixel_alone():
    figures.receptive_fields({"une": np.zeros((2, 2), dtype=bool)}, (0, 0))
    (ax,) = render().axes
    colors, outlined = cells_of(ax)
    assert len(set(sum(colors, []))) == 1 and outlined == (0, 0)
    assert ax.get_title() == "une\n0 pixels lus sur 0"


def test_receptive_fields_accept_the_answer_of_an_exercise_as_it_comes():
    """`pixels_read` may return numbers, lists, counts of paths: what is not zero is read."""
    paths = [[1, 3, 0], [2, 0, 0]]
    for read in (torch.tensor(paths), torch.tensor(paths).float(), np.array(paths) > 0, paths):
        figures.receptive_fields({"chemins": read}, (1, 1))
        (ax,) = render().axes
        assert ax.get_title() == "chemins\n3 pixels lus sur 4"
        assert cells_of(ax)[0][0][:2] == [COLORS["x"]] * 2
        plt.close("all")


@pytest.mark.parametrize("as_tensor", [torch.as_tensor, np.array, list])
def test_kernel_masks_show_the_weights_that_are_kept(as_tensor):
    masks = {
        "A": [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        "B": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0] * 5, [0] * 5],
    }
    figures.kernel_masks({name: as_tensor(mask) for name, mask in masks.items()})
    axes = render().axes
    kept, cut = COLORS["x"], cells_of(axes[0])[0][2][2]
    assert cut != kept
    for ax, (name, mask) in zip(axes, masks.items()):
        colors, outlined = cells_of(ax)
        assert colors == [[kept if weight else cut for weight in row] for row in mask]
        assert outlined == (len(mask) // 2,) * 2
        assert ax.get_title() == f"{name}\n{int(np.sum(mask))} poids gardés"
        assert ax.title.get_fontsize() == 12


@pytest.mark.parametrize("count", [1, 4])
def test_pictures_of_cells_fit_the_page_and_show_every_cell(count):
    """White lines between the cells, no numbers; no title runs over its neighbour."""
    masks = {f"masque {k}, 7×7": torch.ones(7, 7) for k in range(count)}
    figures.kernel_masks(masks)
    figure = render()
    width, height = figure.get_size_inches()
    assert 3 <= width <= 9 and 2 < height < 5
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            assert [tick.get_loc() for tick in axis.get_major_ticks()] == [
                k - 0.5 for k in range(8)
            ]
        lines = ax.get_xgridlines() + ax.get_ygridlines()
        assert all(line.get_visible() and line.get_color() == "white" for line in lines)
        assert no_label(ax)
    titles = [ax.title.get_window_extent() for ax in figure.axes]
    assert all(one.x1 < other.x0 for one, other in zip(titles, titles[1:]))
