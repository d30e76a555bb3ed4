"""The demo of β without a browser: dots, discs, and the width of their frame."""

import numpy as np
import pytest
import scene
import torch
from demo_cases import CASES

from course_utils.demos import commitment_explorer
from course_utils.figures import COLORS

pytestmark = pytest.mark.usefixtures("no_screen")


@pytest.fixture
def demo():
    """A story that grows three times at each moment, from 1 to 81; one that does not."""
    return CASES["commitment"].make()


def halves(demo):
    """The panels of the two stories, without titles and legend."""
    return np.split(scene.page_of(demo)[30:350], 2, axis=1)


def spread(panel):
    """Width of what the atoms cover, in pixels."""
    return np.ptp(scene.in_color(panel, COLORS["code"]).nonzero()[1])


@pytest.mark.parametrize(
    ("scale", "moment", "halfwidths", "large"),
    [
        ("de la fin", 4, (81, 1), (True, True)),
        ("de la fin", 0, (81, 1), (False, True)),  # at first a dot in the middle
        ("au plus près", 0, (1, 1), (True, True)),
        ("au plus près", 2, (9, 1), (True, True)),
        ("commune", 4, (81, 81), (True, False)),  # the largest dwarfs the other
    ],
)
def test_the_scale_is_that_of_the_end_of_the_moment_or_of_the_largest(
    demo, scale, moment, halfwidths, large
):
    said = scene.texts(demo, scale=scale, moment=moment)
    told = [text for text in said if text.startswith("largeur du cadre")]
    widths = [2.3 * half for half in halfwidths]
    assert told == [f"largeur du cadre : {scene.french(w, 0 if w > 100 else 1)}" for w in widths]
    for panel, fills in zip(halves(demo), large):
        assert (spread(panel) > 60) if fills else (spread(panel) < 20)
        assert scene.in_color(panel, COLORS["code"]).sum() > 20
    assert {"β = 0", "β = 2", "sortie de l'encodeur", "atome"} <= set(said)


def test_a_story_that_does_not_grow_is_the_same_at_each_moment(demo):
    grows, still = halves(demo)
    demo.set(moment=0)
    assert (halves(demo)[1] == still).all() and (halves(demo)[0] != grows).any()


def test_the_first_axis_goes_to_the_right_and_the_second_up():
    z, atoms = torch.tensor([[0.8, 0.8]]), torch.tensor([[-1.0, -1.0]])
    page = scene.page_of(commitment_explorer({"": [(z, atoms)]}))[30:350]
    for color, place in (("z", 0.8), ("code", -1.0)):
        rows, columns = scene.in_color(page, COLORS[color]).nonzero()
        at = 160 * (1 + place / 1.15)
        assert (columns.mean(), 320 - rows.mean()) == pytest.approx((at, at), abs=2)
