"""The demo of β without a browser: dots, discs, and the width of their frame."""

import numpy as np
import pytest
import test_demos
import torch

from course_utils.demos import commitment_explorer
from course_utils.figures import COLORS

pytestmark = pytest.mark.usefixtures("no_screen")


def story(growth, moments=5):
    """Vectors that move away from the origin, `growth` times farther at each moment."""
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    return [(z * growth**k, z[:2] * growth**k / 2) for k in range(moments)]


@pytest.fixture
def demo():
    return commitment_explorer({"β = 0": story(3.0), "β = 2": story(1.0)})


def page_of(demo):
    return np.asarray(test_demos.decode(demo.picture.value))


def rgb(color):
    return tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))


def places(page, color):
    """Rows and columns where this colour is seen."""
    return (page == rgb(color)).all(2).nonzero()


def test_vectors_and_atoms_have_their_colours(demo):
    panels = page_of(demo)[30:350]  # not the legend
    for color in (COLORS["z"], COLORS["code"]):
        assert len(places(panels, color)[0]) > 50


def test_each_control_changes_the_picture_but_not_its_size(demo):
    first, shape = demo.picture.value, page_of(demo).shape
    pictures = {first}
    for values in ({"moment": 0}, {"scale": "au plus près"}, {"moment": 2}):
        demo.set(**values)
        pictures.add(demo.picture.value)
        assert page_of(demo).shape == shape
    assert len(pictures) == 4
    demo.reset_button.click()
    assert demo.picture.value == first


def test_near_by_the_frame_is_filled_whatever_the_size_of_the_vectors(demo):
    """At the scale of the end, those that will have grown are at first a dot in the middle."""
    demo.set(moment=0)
    spread = []
    for scale in ("de la fin", "au plus près"):
        demo.set(scale=scale)
        page = page_of(demo)[30:350]
        _, columns = places(page[:, : page.shape[1] // 2], COLORS["code"])
        spread.append(columns.max() - columns.min())
    assert spread[0] < 20 and spread[1] > 60


def test_at_the_same_scale_the_largest_dwarfs_the_others(demo):
    widths = {}
    for scale in ("de la fin", "commune"):
        demo.set(scale=scale)
        page = page_of(demo)[30:350]  # the panels
        halves = np.split(page, 2, axis=1)
        widths[scale] = [np.ptp(places(half, COLORS["code"])[1]) for half in halves]
    assert widths["de la fin"][0] == widths["commune"][0] > 60
    assert widths["commune"][1] < 20 < widths["de la fin"][1]


def test_a_story_that_does_not_grow_is_the_same_at_each_moment(demo):
    pages = []
    for moment in (0, 4):
        demo.set(moment=moment)
        pages.append(page_of(demo))
    half = pages[0].shape[1] // 2
    assert (pages[0][:, half:] == pages[1][:, half:]).all()
    assert (pages[0][:, :half] != pages[1][:, :half]).any()


def test_the_first_axis_goes_to_the_right_and_the_second_up():
    z = torch.tensor([[0.8, 0.8]])
    demo = commitment_explorer({"": [(z, torch.tensor([[-1.0, -1.0]]))]})
    page = page_of(demo)[30:350]
    rows, columns = places(page, COLORS["z"])
    assert rows.mean() < page.shape[0] / 2 and columns.mean() > page.shape[1] / 2


def test_all_the_stories_have_as_many_moments():
    with pytest.raises(ValueError, match="as many moments"):
        commitment_explorer({"a": story(1.0), "b": story(1.0, moments=3)})
