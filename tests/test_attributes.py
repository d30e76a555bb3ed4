"""Slant and thickness: measured on bars drawn for the purpose, and against numpy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils import load
from course_utils.evaluation import measure_attributes


def crisp_bar(width, *, corner=(5, 10)):
    """A vertical rectangle of ink, 40 pixels high, `(1, 1, 50, 30)`."""
    image = torch.zeros(1, 1, 50, 30)
    image[..., corner[0] : corner[0] + 40, corner[1] : corner[1] + width] = 1
    return image


def smooth_bar(width, height=40.0, *, slant=0.0, softness=0.5):
    """A blurred bar, sheared by `slant` degrees: every row slides, those of the top rightwards."""
    row = torch.arange(80)[:, None] - 39.5
    column = torch.arange(80) - 39.5 + math.tan(math.radians(slant)) * row

    def inside(distance, length):
        ends = (distance + length / 2, distance - length / 2)
        return torch.sigmoid(ends[0] / softness) - torch.sigmoid(ends[1] / softness)

    return (inside(row, height) * inside(column, width))[None, None]


def thickness_of(image):
    return measure_attributes(image)[0, 1].item()


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=28, copies=0).test.images[:20].float() / 255


@pytest.mark.parametrize("width", [2, 3, 5])
def test_thickness_of_a_bar_standing_or_lying(width):
    """2 × area / perimeter is w h / (w + h): the two ends of a bar cost a few per cent."""
    standing = crisp_bar(width)
    found = thickness_of(standing)
    assert found == pytest.approx(width, rel=0.12)
    assert found == pytest.approx(width * 40 / (width + 40), rel=0.02)
    assert thickness_of(standing.transpose(2, 3)) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("softness", [0.15, 0.3, 0.45])
def test_thickness_does_not_depend_on_the_blur(softness):
    """As long as the ink is full somewhere across the stroke, 9 pixels here."""
    sharp = thickness_of(smooth_bar(9.0, softness=0.05))
    assert thickness_of(smooth_bar(9.0, softness=softness)) == pytest.approx(sharp, rel=0.03)
    box_blur = F.avg_pool2d(crisp_bar(9), 3, stride=1, padding=1)
    assert thickness_of(box_blur) == pytest.approx(thickness_of(crisp_bar(9)), rel=0.03)


@pytest.mark.parametrize("corner", [(0, 0), (0, 27), (10, 0), (10, 27)])
def test_ink_on_the_border_of_the_image_has_an_edge_too(corner):
    away, touching = crisp_bar(3), crisp_bar(3, corner=corner)
    torch.testing.assert_close(measure_attributes(touching), measure_attributes(away))


@pytest.mark.parametrize(("width", "height"), [(6.0, 60.0), (12.0, 50.0)])
@pytest.mark.parametrize("slant", [-40.0, -20.0, -5.0, 0.0, 10.0, 30.0, 45.0])
def test_a_slanted_bar(slant, width, height):
    """Positive: the top leans to the right. Its thickness is measured across it: shearing keeps
    the area and the two ends; the sides grow by 1 / cos(slant)."""
    found, thickness = measure_attributes(smooth_bar(width, height, slant=slant))[0].tolist()
    assert found == pytest.approx(slant, abs=0.5)
    side = height / math.cos(math.radians(slant))
    assert thickness == pytest.approx(width * height / (width + side), rel=0.07)


def test_slant_is_the_regression_of_the_column_on_the_row(digits):
    rows, columns = np.mgrid[:28, :28].reshape(2, -1)
    for image, found in zip(digits, measure_attributes(digits)[:, 0].tolist()):
        (var_row, cov), _ = np.cov(rows, columns, aweights=image.flatten().double().numpy())
        assert found == pytest.approx(-math.degrees(math.atan(cov / var_row)), abs=1e-3)


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (lambda x: F.pad(x, (14,) * 4).roll((-11, 6), (2, 3)), 1),
        (lambda x: F.pad(x, (14,) * 4).roll((12, -13), (2, 3)), 1),
        (lambda x: F.pad(x, (0, 25, 0, 0)), 1),
        (lambda x: x / 3, 1),
        (lambda x: x.double(), 1),
        (lambda x: x.flip(3), -1),
        (lambda x: x.flip(2), -1),
    ],
    ids=["moved", "moved back", "wide", "pale", "float64", "mirrored", "upside down"],
)
def test_what_changes_nothing_or_the_sign_of_the_slant(digits, change, sign):
    images = change(digits)
    found, expected = measure_attributes(images), measure_attributes(digits)
    assert found.dtype == images.dtype
    torch.testing.assert_close(found[:, 0].float(), sign * expected[:, 0], rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(found[:, 1].float(), expected[:, 1], rtol=1e-4, atol=0)


def test_real_digits_are_plausible_and_one_pixel_more_is_measured(digits):
    slant, thickness = measure_attributes(digits).T
    assert slant.abs().max() < 30 and 2 < thickness.min() and thickness.max() < 6
    thicker = F.max_pool2d(digits, 3, stride=1, padding=1)  # one pixel more on each side
    more = measure_attributes(thicker)[:, 1] - thickness
    assert more.min() > 1 and more.max() < 3.5  # 2.3 on average


def test_a_large_batch_is_measured_one_image_at_a_time():
    images = torch.rand(9000, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    some = [0, 1, 4095, 4096, 4097, 8191, 8192, 8999]
    found = measure_attributes(images)
    assert found.shape == (9000, 2)
    torch.testing.assert_close(
        found[some], torch.cat([measure_attributes(images[i : i + 1]) for i in some])
    )
    assert measure_attributes(images[:0]).shape == (0, 2)


def test_no_ink_is_not_a_number_and_spares_the_others(digits):
    images = digits.clone()
    images[3] = 0
    found = measure_attributes(images)
    assert found[3].isnan().all()
    others = torch.arange(20) != 3
    torch.testing.assert_close(found[others], measure_attributes(digits)[others])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"\(2, 1, 8, 8\) torch.uint8"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.bool), "torch.bool"),
        (torch.zeros(2, 3, 8, 8), r"\(2, 3, 8, 8\) torch.float32"),
        (torch.zeros(1, 8, 8), r"\(1, 8, 8\)"),
        (torch.zeros(8, 8), r"\(8, 8\)"),
        (torch.zeros(1, 1, 1, 8, 8), r"\(1, 1, 1, 8, 8\)"),
    ],
)
def test_images_are_checked(images, message):
    with pytest.raises(
        ValueError, match=rf"intensities \(B, 1, H, W\) in \[0, 1\], got .*{message}"
    ):
        measure_attributes(images)
