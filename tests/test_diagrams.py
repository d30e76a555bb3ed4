"""The diagrams: what they say, in the right colours, and every word of it legible."""

import functools
import itertools
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.text import Annotation

from course_utils import diagrams
from course_utils.figures import COLORS

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

# Each arrow of a diagram, from the name on the left of its sign to the name on the right; the sign
# is its direction on the page. Of two things of one name, the second is on the right, or above.
ARROWS = {
    diagrams.vae: r"""
        dark: $x$ → encodeur $q_\phi(z|x)$ ↗ $\mu$ ↘ $z=\mu+\sigma\varepsilon$
        dark: encodeur $q_\phi(z|x)$ ↘ $\log\sigma^2$ ↗ $z=\mu+\sigma\varepsilon$
        dark: $z=\mu+\sigma\varepsilon$ → décodeur $p_\theta(x|z)$ → $\hat{x}$
        prior, dashed: $\varepsilon\sim\mathcal{N}(0,I)$ ↓ $z=\mu+\sigma\varepsilon$
    """,
    diagrams.cvae_training: r"""
        dark: $x$ ↘ encodeur $q_\phi(z|x,c)$ ↗ $\mu$ ↘ $z=\mu+\sigma\varepsilon$ → $z$
        dark: encodeur $q_\phi(z|x,c)$ ↘ $\log\sigma^2$ ↗ $z=\mu+\sigma\varepsilon$
        dark: $c$ 2 → décodeur $p_\theta(x|z,c)$ → $\hat{x}$
        y: $c$ ↗ encodeur $q_\phi(z|x,c)$
        y: $c$ ↗ $c$ 2
        prior, dashed: $\varepsilon\sim\mathcal{N}(0,I)$ ↓ $z=\mu+\sigma\varepsilon$
    """,
    diagrams.cvae_sampling: r"""
        y: 1. choisir $c$ ↘ $z$
        z: 2. $z\sim p(z|c)$ ↗ $z$
        dark: $c$ → décodeur $p_\theta(x|z,c)$ → $\hat{x}$
    """,
    diagrams.nade: r"""
        dark: $c$ → $a_1$ → + → $a_2$ → + 2 → $a_3$ → + 3 → $\cdots$
        dark: $a_1$ ↑ $h_1=\sigma(a_1)$
        dark: $a_2$ ↑ $h_2=\sigma(a_2)$
        dark: $a_3$ ↑ $h_3=\sigma(a_3)$
        x: $h_1=\sigma(a_1)$ ↑ $p(x_1)$
        x: $h_2=\sigma(a_2)$ ↑ $p(x_2|x_1)$
        x: $h_3=\sigma(a_3)$ ↑ $p(x_3|x_1,x_2)$
        x: $x_1$ ↑ +
        x: $x_2$ ↑ + 2
        x: $x_3$ ↑ + 3
    """,
    # the link leaves the vertical stack before its gate
    diagrams.gated_layer: r"""
        dark: $v$ → conv. 2×3 → tanh · σ 2 → $v'$
        dark: conv. 2×3 ↘ 1×1 ↓ +
        dark: $h$ → conv. masquée 1×2 → + → tanh · σ → 1×1 2 → + 2 → $h'$
        dark: $h$ → + 2
    """,
    diagrams.vq_vae: r"""
        dark: $x$ → encodeur → $z_e(x)$ → codes $k$ → $z_q(x)$ → décodeur $p_\theta(x|z_q)$
        dark: décodeur $p_\theta(x|z_q)$ → $\hat{x}$
        truth, dashed: décodeur $p_\theta(x|z_q)$ ← $z_e(x)$
        code, dashed: dictionnaire $e_1, \dots, e_K$ ↖ arg min
        code, dashed: dictionnaire $e_1, \dots, e_K$ ↗ $e_k$
    """,
}

# Everything that the diagrams say, in one colour per concept: on a box of that colour, in a box of
# that colour, or alone. NADE's $c$ is a bias.
WORDS = r"""
    on x: $x$ | $\hat{x}$ | $v$ | $v'$ | $h$ | $h'$ | $x_1$ | $x_2$ | $x_3$
    on x: $p(x_1)$ | $p(x_2|x_1)$ | $p(x_3|x_1,x_2)$
    x: $-\log p(x|z)$ | $-\log p_\theta(x|z,c)$ | $W_1$ | $W_2$ | $W_3$
    on y: $c$ | $c$ 2 | 1. choisir $c$
    y: concaténation
    on z: $\mu$ | $\log\sigma^2$ | $z=\mu+\sigma\varepsilon$ | $z$ | 2. $z\sim p(z|c)$ | $z_e(x)$
    z: KL$(q\,\|\,p(z))$ | KL$(q_\phi(z|x,c)\,\|\,p(z|c))$
    prior: $\varepsilon\sim\mathcal{N}(0,I)$
    on code: codes $k$ | $z_q(x)$
    in code: dictionnaire $e_1, \dots, e_K$
    in dark: encodeur $q_\phi(z|x)$ | encodeur $q_\phi(z|x,c)$ | encodeur
    in dark: décodeur $p_\theta(x|z)$ | décodeur $p_\theta(x|z,c)$ | décodeur $p_\theta(x|z_q)$
    in dark: $a_1$ | $a_2$ | $a_3$ | $h_1=\sigma(a_1)$ | $h_2=\sigma(a_2)$ | $h_3=\sigma(a_3)$
    in dark: conv. 2×3 | conv. masquée 1×2 | tanh · σ | tanh · σ 2 | 1×1 | 1×1 2
    dark: 3. concaténer | 4. décoder | $c$ | + | + 2 | + 3 | $\cdots$ | arg min | $e_k$
    dark: pile verticale : les lignes du dessus | pile horizontale : la gauche
    black: $V_1,\ b_1$ | $V_2,\ b_2$ | $V_3,\ b_3$
    black: le gradient du décodeur est copié à $z_e$ ; le dictionnaire n'en reçoit rien
"""

NAMES = {color: concept for concept, color in COLORS.items()}
NAMES |= {diagrams.DARK: "dark", "#000000": "black", "#FFFFFF": "white"}
SIGNS = {
    (1, 0): "→", (1, 1): "↗", (0, 1): "↑", (-1, 1): "↖",
    (-1, 0): "←", (-1, -1): "↙", (0, -1): "↓", (1, -1): "↘",
}  # fmt: skip


@functools.cache
def draw(diagram, *shapes):
    """The one figure of the diagram, drawn for good."""
    plt.close("all")
    diagram(*shapes)
    assert len(plt.get_fignums()) == 1
    plt.gcf().canvas.draw()
    return plt.gcf()


def name_of(color):
    return NAMES[to_hex(color).upper()]


def inside(inner, outer):
    return outer.contains(*inner.min) and outer.contains(*inner.max)


def gap(point, frame):
    """How far a point is from a frame, in pixels: 0 inside."""
    x, y = point
    return math.hypot(max(frame.x0 - x, 0, x - frame.x1), max(frame.y0 - y, 0, y - frame.y1))


@functools.cache
def things(ax):
    """Everything that is said, `{words: (text, its box or None)}`."""
    found = {}
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    for text in sorted(ax.texts, key=lambda text: text.get_position()):
        if words := text.get_text().replace("\n", " "):
            extent = text.get_window_extent()
            around = [box for box in boxes if inside(extent, box.get_window_extent())]
            names = (words, f"{words} 2", f"{words} 3")
            found[next(name for name in names if name not in found)] = text, *(around or [None])
    return found


def frames(ax):
    """Where everything is, `{words: rectangle of the page}`."""
    return {name: (box or text).get_window_extent() for name, (text, box) in things(ax).items()}


def centre(frame):
    return (frame.x0 + frame.x1) / 2, (frame.y0 + frame.y1) / 2


def routes(ax):
    """The arrows, as `(patch, points of the page from start to end)`, a broken line included."""
    found = []
    for patch in ax.patches:
        if isinstance(patch, FancyArrowPatch):
            drawn = ax.transData.transform(patch.get_path().vertices)
            start, end = drawn[0], drawn[4]  # the line has three points, then the head its three
            points = [start, end]
            for line in ax.lines:  # it ends where its arrow starts
                corners = list(ax.transData.transform(line.get_xydata()))
                points = [*corners, end] if math.dist(corners[-1], start) < 3 else points
            found.append((patch, points))
    return found


def arrows(ax):
    """What is joined to what, `(from, sign, to, style)`."""
    where, found = frames(ax), []

    def nearest(point):
        return min(where, key=lambda name: gap(point, where[name]))

    for patch, (start, *_, end) in routes(ax):
        source, target = nearest(start), nearest(end)
        if gap(start, where[source]) > 30:  # it leaves another arrow
            (source,) = (nearest(route[0]) for _, route in routes(ax) if is_on(start, route))
        dashed = "" if patch.get_linestyle() == "-" else ", dashed"
        step = np.subtract(centre(where[target]), centre(where[source]))
        sign = SIGNS[tuple(np.sign(step) * (abs(step) > 4))]
        found.append((source, sign, target, name_of(patch.get_edgecolor()) + dashed))
    return found


def is_on(point, route):
    """Whether an arrow to the right passes by a point, at 5 pixels."""
    (x0, y0), (x1, _) = route[0], route[-1]
    return x0 < point[0] < x1 and abs(point[1] - y0) < 5


def told(lines):
    """The lines of a table above, as pairs (what stands before the colon, what follows it)."""
    return [line.strip().split(": ", 1) for line in lines.strip().splitlines()]


@pytest.mark.parametrize("diagram", ARROWS)
def test_what_is_joined_to_what(diagram):
    """And no arrow runs over a word, nor through a box that it does not join."""
    expected = []
    for style, chain in told(ARROWS[diagram]):
        names = re.split(f" ([{''.join(SIGNS.values())}]) ", chain)
        expected += [(*step, style) for step in zip(names[::2], names[1::2], names[2::2])]
    (ax,) = draw(diagram).axes
    found = arrows(ax)
    assert sorted(found) == sorted(expected)
    for (_, points), (source, _, target, _) in zip(routes(ax), found):
        for name, (text, box) in things(ax).items():
            apart = text if box is None or name in (source, target) else box
            crossed = Path(points).intersects_bbox(apart.get_window_extent(), filled=False)
            assert not crossed, (source, target, name)


def test_what_is_said_and_in_which_colour():
    expected = {(place, name) for place, names in told(WORDS) for name in names.split(" | ")}
    found = set()
    for name, (text, box) in itertools.chain(*(things(draw(d).axes[0]).items() for d in ARROWS)):
        ink = name_of(text.get_color())
        if box is not None:
            edge, face = name_of(box.get_edgecolor()), name_of(box.get_facecolor())
            assert {ink, face} == {edge, "white"}, "white on its colour, or its colour on white"
            ink = f"on {face}" if ink == "white" else f"in {ink}"
        found.add((ink, name))
    assert found == expected


@pytest.mark.parametrize("diagram", SHAPES)
def test_shapes_are_written_and_the_last_one_is_under_the_output(diagram):
    (ax,) = draw(diagram).axes
    without = things(ax).keys()
    (ax,) = draw(diagram, SHAPES[diagram]).axes
    assert things(ax).keys() - without == set(SHAPES[diagram])
    where = frames(ax)
    output, last = where[r"$\hat{x}$"], where[SHAPES[diagram][-1]]
    assert centre(output)[0] == pytest.approx(centre(last)[0], abs=1)
    assert last.y1 < output.y0


@pytest.mark.parametrize(
    "diagram, shapes",
    [(diagram, ()) for diagram in (*ARROWS, diagrams.pixel_networks)]
    + [(diagram, (shapes,)) for diagram, shapes in SHAPES.items()],
)
def test_nothing_is_written_over_another_thing_or_outside(diagram, shapes):
    figure = draw(diagram, *shapes)
    assert 7 <= figure.get_size_inches()[0] <= 11, "fits the page of a notebook"
    words = [text for ax in figure.axes for text in (*ax.texts, ax.title) if text.get_text()]
    assert all(inside(text.get_window_extent(), figure.bbox) for text in words)
    for one, other in itertools.combinations(words, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)
    for ax in figure.axes:
        assert not ax.axison
        # a text placed outside of the axes would make the layout shrink them
        assert all(ax.viewLim.contains(*text.get_position()) for text in ax.texts)
        assert all(inside(patch.get_window_extent(), ax.bbox.padded(1)) for patch in ax.patches)
        for patch in ax.patches:
            if isinstance(patch, FancyBboxPatch):
                box = patch.get_window_extent()
                (held,) = (text for text in words if inside(text.get_window_extent(), box))
                near = [text for text in words if text.get_window_extent().padded(4).overlaps(box)]
                assert near == [held], "one text in a box, no other within four pixels"


@pytest.mark.parametrize("diagram", [diagrams.cvae_training, diagrams.cvae_sampling])
def test_z_and_the_condition_touch(diagram):
    """Concatenation: z on the left, the condition that enters the decoder on the right."""
    (ax,) = draw(diagram).axes
    where = frames(ax)
    z, c = where["$z$"], where["$c$ 2" if "$c$ 2" in where else "$c$"]
    assert z.x1 == pytest.approx(c.x0, abs=3)
    assert centre(z)[1] == pytest.approx(centre(c)[1], abs=1)


def test_the_stacks_of_the_gated_layer_have_their_titles_and_the_same_columns():
    (ax,) = draw(diagrams.gated_layer).axes
    where = frames(ax)
    for below, above in (("$h$", "$v$"), ("tanh · σ", "tanh · σ 2"), ("$h'$", "$v'$")):
        (x0, y0), (x1, y1) = centre(where[below]), centre(where[above])
        assert x0 == pytest.approx(x1, abs=1) and y0 < y1
    for name, title in (
        ("$h$", "pile horizontale : la gauche"),
        ("$v$", "pile verticale : les lignes du dessus"),
    ):
        assert 0 < where[title].y0 - where[name].y1 < 40, "its title is just above it"


# ---- the networks of pixels -------------------------------------------------------------------

HERE = (2, 2)
# arrows (from, to, colour, style) between cells (row, column)
ABOVE = [(1, 1), (1, 2), (1, 3)]
READ = {
    "PixelCNN (masque B)": {(cell, HERE, "x", "-") for cell in [*ABOVE, (2, 1)]},
    "Row LSTM": {(cell, HERE, "dark", "-") for cell in ABOVE} | {((2, 1), HERE, "x", "-")},
    "Diagonal BiLSTM": {
        ((2, 1), HERE, "dark", "-"),
        ((1, 2), HERE, "dark", "-"),
        ((1, 3), (1, 2), "dark", "--"),  # the scan from the right, a row above
        ((0, 2), (1, 2), "dark", "--"),
    },
}


@pytest.mark.parametrize("title", READ)
def test_pixel_networks_tell_what_is_known_and_what_is_read(title):
    panels = {ax.get_title(): ax for ax in draw(diagrams.pixel_networks).axes}
    assert list(panels) == list(READ)
    ax = panels[title]
    squares = [((round(-square.get_y()), round(square.get_x())), square) for square in ax.patches]
    assert sorted(cell for cell, _ in squares) == list(itertools.product(range(4), range(5)))
    past = {square.get_facecolor() for cell, square in squares if cell < HERE}
    here = {square.get_facecolor() for cell, square in squares if cell == HERE}
    future = {square.get_facecolor() for cell, square in squares if cell > HERE}
    assert len(past) == len(future) == 1 and len(past | here | future) == 3
    centres = {cell: centre(square.get_window_extent()) for cell, square in squares}
    assert centres[0, 0][1] > centres[1, 0][1], "row 0 is at the top"

    def cell_at(point):
        at = ax.transData.transform(point)
        (cell,) = (cell for cell in centres if math.dist(centres[cell], at) < 3)
        return cell

    (dot,) = ax.lines  # what is read at the pixel itself
    assert (cell_at(dot.get_xydata()[0]), name_of(dot.get_color())) == (HERE, "x")
    drawn = []
    for arrow in ax.texts:
        if isinstance(arrow, Annotation):
            patch = arrow.arrow_patch
            style = name_of(patch.get_edgecolor()), patch.get_linestyle()
            drawn.append((cell_at(arrow.xyann), cell_at(arrow.xy), *style))
    assert sorted(drawn) == sorted(READ[title])
