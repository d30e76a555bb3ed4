"""The diagrams: what they say, in the right colours, and every word of it legible."""

import itertools
import math

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Annotation
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_utils import diagrams
from course_utils.figures import CODE_TEXT, COLORS

pytestmark = pytest.mark.usefixtures("no_screen")

# Long shapes, those of the notebooks, one for each place.
SHAPES = {
    diagrams.vae: ("(64, 1, 28, 28)", "(64, 2)", "(64, 4)", "(65, 1, 28, 28)"),
    diagrams.cvae_training: (
        "(128, 1, 28, 28)",
        "(128, 10)",
        "(128, 4)",
        "(128, 14)",
        "(129, 1, 28, 28)",
    ),
    diagrams.cvae_sampling: ("(20, 4)", "(20, 10)", "(20, 1, 28, 28)"),
    diagrams.vq_vae: ("1×28×28", "16×7×7", "7×7 entiers", "16×7×7 ", "1×28×28 "),
}
each_diagram_of_shapes, each_diagram = (
    pytest.mark.parametrize("diagram", some, ids=lambda diagram: diagram.__name__)
    for some in (SHAPES, [*SHAPES, diagrams.nade, diagrams.gated_layer])
)
each_cvae = pytest.mark.parametrize(
    "diagram", [diagrams.cvae_training, diagrams.cvae_sampling], ids=["training", "sampling"]
)


def render():
    """Draw the current figure for good, and return it."""
    figure = plt.gcf()
    figure.canvas.draw()
    return figure


def draw(diagram, *args):
    """The axes of the diagram, drawn."""
    diagram(*args)
    (ax,) = render().axes
    return ax


def draw_in_full(diagram):
    """The same, with its shapes when it has some."""
    return draw(diagram, SHAPES[diagram]) if diagram in SHAPES else draw(diagram)


def texts(ax):
    return {text.get_text(): text for text in ax.texts if text.get_text()}


def boxes(ax, concept):
    """The boxes filled with the colour of a concept."""
    color = CODE_TEXT if concept == "code" else COLORS[concept]  # under white text
    patches = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    return [patch for patch in patches if to_hex(patch.get_facecolor()).upper() == color]


def centre(patch):
    box = patch.get_window_extent()
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def inside(inner, outer):
    return (
        outer.x0 <= inner.x0
        and inner.x1 <= outer.x1
        and outer.y0 <= inner.y0
        and inner.y1 <= outer.y1
    )


# ---- pieces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("filled", [True, False])
def test_box(filled):
    _, ax = plt.subplots()
    diagrams.box(ax, (1, 2), "texte", COLORS["z"], filled=filled)
    render()
    assert ax.texts[0].get_text() == "texte" and ax.texts[0].get_position() == (1, 2)
    fill, ink = to_hex(ax.patches[0].get_facecolor()), to_hex(ax.texts[0].get_color())
    pair = (COLORS["z"].lower(), "#ffffff")
    assert (fill, ink) == (pair if filled else pair[::-1])


def test_arrow_has_a_label_only_when_given_one():
    _, ax = plt.subplots()
    diagrams.arrow(ax, (0, 0), (2, 0))
    diagrams.arrow(ax, (0, 0), (2, 0), "tirage", dashed=True, curve=0.3)
    render()
    assert len(ax.patches) == 2 and [text.get_text() for text in ax.texts] == ["tirage"]
    assert [patch.get_linestyle() for patch in ax.patches] == ["-", "--"]
    x, y = ax.texts[0].get_position()
    assert x == 1 and y > 0


# ---- every diagram ----------------------------------------------------------------------------


@each_diagram_of_shapes
def test_the_shapes_are_written(diagram):
    assert set(SHAPES[diagram]) <= texts(draw(diagram, SHAPES[diagram])).keys()


@each_diagram_of_shapes
def test_without_shapes_nothing_else_is_missing(diagram):
    with_shapes, without = draw(diagram, SHAPES[diagram]), draw(diagram)
    assert texts(with_shapes).keys() - texts(without).keys() == set(SHAPES[diagram])


@each_diagram
def test_one_figure_of_one_panel_without_axes(diagram):
    ax = draw(diagram)
    assert len(plt.get_fignums()) == 1 and not ax.axison
    width, _ = ax.figure.get_size_inches()
    assert 7 <= width <= 11, "fits a notebook's page"


@each_diagram
@pytest.mark.parametrize("with_shapes", [True, False], ids=["with shapes", "without"])
def test_no_text_leaves_the_figure(diagram, with_shapes):
    ax = draw_in_full(diagram) if with_shapes else draw(diagram)
    for name, text in texts(ax).items():
        assert inside(text.get_window_extent(), ax.figure.bbox), name
        # nor is placed outside of the axes, which the layout would then shrink
        assert ax.viewLim.contains(*text.get_position()), name


@each_diagram
def test_no_two_texts_overlap(diagram):
    ax = draw_in_full(diagram)
    words = [text for text in ax.texts if text.get_text()]
    for one, other in itertools.combinations(words, 2):
        overlap = one.get_window_extent().overlaps(other.get_window_extent())
        assert not overlap, (one.get_text(), other.get_text())


@each_diagram
def test_a_box_holds_its_text_and_no_other(diagram):
    ax = draw_in_full(diagram)
    for patch in ax.patches:
        if not isinstance(patch, FancyBboxPatch):
            continue
        box = patch.get_window_extent()
        held = [text for text in ax.texts if inside(text.get_window_extent(), box)]
        assert len(held) == 1
        for text in ax.texts:
            if text is not held[0] and text.get_text():
                outside = not text.get_window_extent().padded(4).overlaps(box)  # four pixels away
                assert outside, (text.get_text(), held[0].get_text())


@each_diagram
def test_no_box_and_no_arrow_leaves_the_axes(diagram):
    ax = draw(diagram)
    assert all(inside(patch.get_window_extent(), ax.bbox.padded(1)) for patch in ax.patches)


@each_diagram_of_shapes
def test_the_last_shape_stands_under_the_output(diagram):
    ax = draw(diagram, SHAPES[diagram])
    words = texts(ax)
    shape, output = words[SHAPES[diagram][-1]].get_position(), words["$\\hat{x}$"].get_position()
    assert shape[0] == output[0] and shape[1] < output[1]
    last = max(boxes(ax, "x"), key=lambda box: centre(box)[0])
    assert centre(last) == pytest.approx(ax.transData.transform(output), abs=1)


# ---- one by one -------------------------------------------------------------------------------


def test_the_vae_has_two_networks_and_pays_a_divergence():
    names = texts(draw(diagrams.vae))
    assert any("encodeur" in name for name in names) and any("KL" in name for name in names)


@pytest.mark.parametrize("diagram", [diagrams.vae, diagrams.cvae_training], ids=["vae", "cvae"])
def test_a_divergence_has_the_colour_of_z_a_likelihood_that_of_x(diagram):
    words = texts(draw(diagram))
    (divergence,) = (text for name, text in words.items() if name.startswith("KL"))
    (cost,) = (text for name, text in words.items() if name.startswith("$-\\log p"))
    assert (divergence.get_color(), cost.get_color()) == (COLORS["z"], COLORS["x"])


@each_cvae
def test_the_condition_has_its_colour(diagram):
    """c is given, then put next to z: two boxes, and an arrow that leaves the first one."""
    ax = draw(diagram)
    green = boxes(ax, "y")
    labels = [
        text
        for text in ax.texts
        if any(inside(text.get_window_extent(), box.get_window_extent()) for box in green)
    ]
    assert len(green) == len(labels) == 2 and all("c" in text.get_text() for text in labels)
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert any(to_hex(arrow.get_edgecolor()).upper() == COLORS["y"] for arrow in arrows)


@each_cvae
def test_z_and_the_condition_touch_before_the_decoder(diagram):
    """Concatenation: the two boxes that touch, z on the left."""
    ax = draw(diagram)
    c = max(boxes(ax, "y"), key=lambda box: centre(box)[0])
    z = max(boxes(ax, "z"), key=lambda box: centre(box)[0])
    decoder = next(text for name, text in texts(ax).items() if name.startswith("décodeur"))
    assert z.get_window_extent().x1 == pytest.approx(c.get_window_extent().x0, abs=3)
    assert centre(z)[1] == pytest.approx(centre(c)[1], abs=1)
    assert centre(z)[0] < centre(c)[0] < decoder.get_window_extent().x0


def test_the_condition_enters_both_networks_while_it_learns():
    words = texts(draw(diagrams.cvae_training))
    assert any("q_\\phi(z|x,c)" in name and "encodeur" in name for name in words)
    assert any("p_\\theta(x|z,c)" in name and "décodeur" in name for name in words)
    assert any("KL" in name and "p(z|c)" in name for name in words)


def test_sampling_has_four_numbered_steps_and_no_encoder():
    ax = draw(diagrams.cvae_sampling)
    words = texts(ax)
    steps = sorted(name for name in words if name[0].isdigit())
    assert [name[:2] for name in steps] == ["1.", "2.", "3.", "4."]
    assert not any("encodeur" in name for name in words)
    assert len(boxes(ax, "x")) == 1, "x is the output, not an input"


# ---- NADE -------------------------------------------------------------------------------------

SUMS = [f"$a_{i}$" for i in (1, 2, 3)]
HIDDEN = [f"$h_{i}=\\sigma(a_{i})$" for i in (1, 2, 3)]
LAWS = ["$p(x_1)$", "$p(x_2|x_1)$", "$p(x_3|x_1,x_2)$"]
PIXELS = [f"$x_{i}$" for i in (1, 2, 3)]
ADDITIONS = ["+1", "+2", "+3"]  # from the left


@pytest.fixture
def nade():
    return draw(diagrams.nade)


def places(ax):
    """Where each text stands, in the units of the diagram."""
    additions = sorted(text.get_position() for text in ax.texts if text.get_text() == "+")
    named = {name: text.get_position() for name, text in texts(ax).items() if name != "+"}
    return named | {f"+{i}": where for i, where in enumerate(additions, 1)}


def test_nade_names_its_weights(nade):
    weights = {name for i in (1, 2, 3) for name in (f"$W_{i}$", f"$V_{i},\\ b_{i}$")}
    boxed = {*SUMS, *HIDDEN, *LAWS, *PIXELS}
    assert places(nade).keys() == {*weights, *boxed, *ADDITIONS, "$c$", "$\\cdots$"}


def test_nade_adds_a_pixel_after_its_own_law_and_before_the_next(nade):
    where = places(nade)
    line = ["$c$", "$a_1$", "+1", "$a_2$", "+2", "$a_3$", "+3", "$\\cdots$"]
    assert [where[name][0] for name in line] == sorted(where[name][0] for name in line)
    assert {where[name][1] for name in line} == {where["$c$"][1]}
    for total, hidden, law in zip(SUMS, HIDDEN, LAWS):
        assert where[total][0] == where[hidden][0] == where[law][0]
        assert where[total][1] < where[hidden][1] < where[law][1]
    for pixel, addition in zip(PIXELS, ADDITIONS):
        assert where[pixel][0] == where[addition][0] and where[pixel][1] < where[addition][1]


def test_nade_has_an_arrow_for_each_step(nade):
    where = places(nade)
    nodes = [*SUMS, *HIDDEN, *LAWS, *PIXELS, *ADDITIONS, "$c$", "$\\cdots$"]
    colors = {}
    for patch in nade.patches:
        if isinstance(patch, FancyArrowPatch):
            ends = (min(nodes, key=lambda n: math.dist(where[n], end)) for end in patch._posA_posB)
            colors[tuple(ends)] = to_hex(patch.get_edgecolor()).upper()
    blue = {*zip(HIDDEN, LAWS), *zip(PIXELS, ADDITIONS)}
    grey = {*zip(SUMS, HIDDEN), *zip(["$c$", *ADDITIONS], [*SUMS, "$\\cdots$"])}
    grey |= set(zip(SUMS, ADDITIONS))
    assert colors == dict.fromkeys(blue, COLORS["x"]) | dict.fromkeys(grey, diagrams.DARK)


def test_nade_colours_the_pixels_their_laws_and_what_they_bring(nade):
    held = {
        name
        for name, text in texts(nade).items()
        if any(inside(text.get_window_extent(), b.get_window_extent()) for b in boxes(nade, "x"))
    }
    assert held == {*PIXELS, *LAWS} and len(boxes(nade, "x")) == 6
    assert {texts(nade)[f"$W_{i}$"].get_color() for i in (1, 2, 3)} == {COLORS["x"]}


# ---- the gated PixelCNN -----------------------------------------------------------------------

# Each operation by its name; those that appear twice, from the left.
NODES = {
    "$v$", "conv.\n2×3", "tanh · σ, v", "$v'$",
    "1×1, link",
    "$h$", "conv. masquée\n1×2", "+, link", "tanh · σ, h", "1×1", "+, residual", "$h'$",
}  # fmt: skip
STEPS = {
    ("$v$", "conv.\n2×3"), ("conv.\n2×3", "tanh · σ, v"), ("tanh · σ, v", "$v'$"),
    ("conv.\n2×3", "1×1, link"), ("1×1, link", "+, link"),
    ("$h$", "conv. masquée\n1×2"), ("conv. masquée\n1×2", "+, link"), ("+, link", "tanh · σ, h"),
    ("tanh · σ, h", "1×1"), ("1×1", "+, residual"), ("+, residual", "$h'$"),
    ("$h$", "+, residual"),
}  # fmt: skip


@pytest.fixture
def gated():
    return draw(diagrams.gated_layer)


def operations(ax):
    """Where each operation of the gated layer stands, in the units of the diagram."""
    found = {}
    for text in sorted(ax.texts, key=lambda text: text.get_position()):
        name, (_, y) = text.get_text(), text.get_position()
        if name == "tanh · σ":
            name += ", v" if y > 3 else ", h"
        elif name == "1×1" and y > 2:
            name += ", link"
        elif name == "+":
            name += ", residual" if "+, link" in found else ", link"
        assert name not in found
        found[name] = text.get_position()
    return {name: where for name, where in found.items() if not name.startswith("pile")}


def segments(ax):
    """The arrows, and the ends of the broken lines that lead to one."""
    arrows = [patch._posA_posB for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    lines = {tuple(line.get_xydata()[-1]): tuple(line.get_xydata()[0]) for line in ax.lines}
    assert len(lines) == len(ax.lines)
    return [(lines.get(tuple(start), tuple(start)), tuple(end)) for start, end in arrows]


def test_gated_layer_has_two_stacks_one_above_the_other(gated):
    where = operations(gated)
    assert where.keys() == NODES
    vertical = ["$v$", "conv.\n2×3", "tanh · σ, v", "$v'$"]
    horizontal = [
        "$h$",
        "conv. masquée\n1×2",
        "+, link",
        "tanh · σ, h",
        "1×1",
        "+, residual",
        "$h'$",
    ]
    for stack, title in ((vertical, "pile verticale"), (horizontal, "pile horizontale")):
        (level,) = {where[name][1] for name in stack}
        assert [where[name][0] for name in stack] == sorted(where[name][0] for name in stack)
        (words,) = (text for name, text in texts(gated).items() if name.startswith(title))
        assert 0 < words.get_position()[1] - level < 1.2, "its title is just above it"
    assert where["$v$"][1] > where["1×1, link"][1] > where["$h$"][1]
    for v, h in (("$v$", "$h$"), ("tanh · σ, v", "tanh · σ, h"), ("$v'$", "$h'$")):
        assert where[v][0] == where[h][0]


def test_gated_layer_has_an_arrow_for_each_step(gated):
    """The link leaves the vertical stack before its gate; the residual link goes round below."""
    where = operations(gated)

    def nearest(point):
        return min(where, key=lambda name: math.dist(where[name], point))

    steps = set()
    for start, end in segments(gated):
        names = nearest(start), nearest(end)
        if start == (6.4, 4.36):  # from the arrow that leaves the convolution, halfway to the gate
            assert where["conv.\n2×3"][0] < start[0] < where["tanh · σ, v"][0]
            names = "conv.\n2×3", names[1]
        steps.add(names)
    assert steps == STEPS
    assert len(segments(gated)) == len(STEPS)


def test_gated_layer_sends_the_vertical_stack_to_the_horizontal_one_never_back(gated):
    link = sorted(start[1] - end[1] for start, end in segments(gated) if start[0] == end[0] == 6.4)
    assert len(link) == 2 and min(link) > 0, "two arrows downwards"
    (line,) = gated.lines
    assert line.get_ydata().min() < operations(gated)["$h$"][1] - 0.5, "below every box"


def test_gated_layer_colours_what_goes_in_and_out(gated):
    held = {
        name
        for name, text in texts(gated).items()
        if any(inside(text.get_window_extent(), b.get_window_extent()) for b in boxes(gated, "x"))
    }
    assert held == {"$v$", "$v'$", "$h$", "$h'$"} and len(boxes(gated, "x")) == 4


# ---- the networks of pixels -------------------------------------------------------------------

HERE = (2, 2)
# arrows (from, to, colour, style) between cells (row, column)
ABOVE = [(1, 1), (1, 2), (1, 3)]
READ = {
    "PixelCNN (masque B)": {(cell, HERE, "x", "-") for cell in [*ABOVE, (2, 1)]},
    "Row LSTM": {(cell, HERE, "state", "-") for cell in ABOVE} | {((2, 1), HERE, "x", "-")},
    "Diagonal BiLSTM": {
        ((2, 1), HERE, "state", "-"),
        ((1, 2), HERE, "state", "-"),
        ((1, 3), (1, 2), "state", "--"),  # the scan from the right, a row above
        ((0, 2), (1, 2), "state", "--"),
    },
}


@pytest.fixture
def networks():
    diagrams.pixel_networks()
    return {ax.get_title(): ax for ax in render().axes}


def cells(ax):
    """The colour of each cell, `(row, column)`, and its centre in pixels."""
    squares = [(patch.get_xy(), patch) for patch in ax.patches]
    colors = {(round(-y), round(x)): to_hex(patch.get_facecolor()) for (x, y), patch in squares}
    centres = {(round(-y), round(x)): centre(patch) for (x, y), patch in squares}
    assert len(colors) == len(squares)
    return colors, centres


def test_pixel_networks_are_three_panels_without_axes(networks):
    assert list(networks) == list(READ) and len(plt.get_fignums()) == 1
    figure = plt.gcf()
    assert 7 <= figure.get_size_inches()[0] <= 11
    titles = [ax.title.get_window_extent() for ax in networks.values()]
    assert all(one.x1 < other.x0 for one, other in zip(titles, titles[1:]))
    assert not any(ax.axison for ax in networks.values())
    for ax in networks.values():
        assert all(inside(patch.get_window_extent(), ax.bbox.padded(1)) for patch in ax.patches)
        assert inside(ax.title.get_window_extent(), figure.bbox)


@pytest.mark.parametrize("title", READ)
def test_pixel_networks_tell_the_past_the_pixel_and_the_future(networks, title):
    colors, centres = cells(networks[title])
    assert colors.keys() == {(row, column) for row in range(4) for column in range(5)}
    past = {color for cell, color in colors.items() if cell < HERE}
    future = {color for cell, color in colors.items() if cell > HERE}
    assert len(past) == len(future) == 1 and len(past | future | {colors[HERE]}) == 3
    assert centres[0, 0][1] > centres[1, 0][1], "row 0 is at the top"


@pytest.mark.parametrize("title", READ)
def test_pixel_networks_have_an_arrow_for_each_thing_read(networks, title):
    ax = networks[title]
    _, centres = cells(ax)

    def cell_at(point):
        at = ax.transData.transform(point)
        cell = min(centres, key=lambda cell: math.dist(centres[cell], at))
        assert math.dist(centres[cell], at) < 3, "an arrow joins the centres of two cells"
        return cell

    names = {COLORS["x"]: "x", diagrams.DARK: "state"}
    arrows = [text for text in ax.texts if isinstance(text, Annotation)]
    (dot,) = ax.lines  # what is read at the pixel itself
    assert cell_at(dot.get_xydata()[0]) == HERE and names[dot.get_color().upper()] == "x"
    drawn = set()
    for arrow in arrows:
        patch = arrow.arrow_patch
        color = names[to_hex(patch.get_edgecolor()).upper()]
        drawn.add((cell_at(arrow.xyann), cell_at(arrow.xy), color, patch.get_linestyle()))
    assert drawn == READ[title] and len(arrows) == len(READ[title])


# ---- the VQ-VAE ---------------------------------------------------------------------------------


def test_the_codes_stand_between_the_two_vectors_in_their_colour():
    ax = draw(diagrams.vq_vae)
    words = texts(ax)
    places = [words[name].get_position()[0] for name in ("$z_e(x)$", "codes $k$", "$z_q(x)$")]
    assert places == sorted(places)
    assert len(boxes(ax, "code")) == 2 and len(boxes(ax, "z")) == 1


def test_the_gradient_is_copied_over_the_codes_backwards():
    """The one curved arrow goes from the decoder back to z_e, over the codebook."""
    ax = draw(diagrams.vq_vae)
    words = texts(ax)
    assert any("gradient du décodeur est copié" in word for word in words)
    backwards = []
    for patch in ax.patches:
        if isinstance(patch, FancyArrowPatch):
            start, end = patch._posA_posB
            if end[0] < start[0] - 2:
                backwards.append((start[0], end[0]))
    ends = ("décodeur\n$p_\\theta(x|z_q)$", "$z_e(x)$")
    expected = tuple(words[name].get_position()[0] for name in ends)
    assert backwards == [expected]
