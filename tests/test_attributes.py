"""Slant and thickness: measured on bars drawn for the purpose, and against numpy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_utils import load
from course_utils.evaluation import measure_attributes


def crisp_bar(width, height=40, *, size=(50, 30), corner=(5, 10)):
    """A vertical rectangle of ink, `(1, 1, *size)`."""
    image = torch.zeros(1, 1, *size)
    image[..., corner[0] : corner[0] + height, corner[1] : corner[1] + width] = 1
    return image


def smooth_bar(
    width=5.0, height=40.0, *, slant=0.0, size=(80, 80), centre=(39.5, 39.5), softness=0.5
):
    """A blurred bar, sheared by `slant` degrees: every row slides, those of the top rightwards."""
    row = torch.arange(size[0])[:, None] - centre[0]
    column = torch.arange(size[1]) - centre[1] + math.tan(math.radians(slant)) * row

    def inside(distance, length):
        ends = (distance + length / 2, distance - length / 2)
        return torch.sigmoid(ends[0] / softness) - torch.sigmoid(ends[1] / softness)

    return (inside(row, height) * inside(column, width))[None, None]


def slant_of(image):
    return measure_attributes(image)[0, 0].item()


def thickness_of(image):
    return measure_attributes(image)[0, 1].item()


@pytest.fixture(scope="module")
def digits():
    return load("digits", size=28, copies=0).test.images[:20].float() / 255


# ---- thickness --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [2, 3, 5])
def test_thickness_of_a_vertical_bar(width):
    """2 × area / perimeter is w h / (w + h): the two ends of a bar cost a few per cent."""
    found = thickness_of(crisp_bar(width))
    assert found == pytest.approx(width, rel=0.12)
    assert found == pytest.approx(width * 40 / (width + 40), rel=0.02)


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_bar_and_the_same_bar_lying_down_have_the_same_thickness(width):
    standing = crisp_bar(width)
    lying = standing.transpose(2, 3)
    assert thickness_of(lying) == pytest.approx(thickness_of(standing), rel=1e-5)


@pytest.mark.parametrize("softness", [0.15, 0.3, 0.45])
def test_thickness_does_not_depend_on_the_blur(softness):
    """As long as the ink is full somewhere across the stroke, 9 pixels here."""
    sharp = thickness_of(smooth_bar(9.0, softness=0.05))
    assert thickness_of(smooth_bar(9.0, softness=softness)) == pytest.approx(sharp, rel=0.03)
    box_blur = F.avg_pool2d(crisp_bar(9), 3, stride=1, padding=1)
    assert thickness_of(box_blur) == pytest.approx(thickness_of(crisp_bar(9)), rel=0.03)


@pytest.mark.parametrize("slant", [-25.0, 25.0, 45.0])
def test_thickness_of_a_slanted_bar_is_measured_across_it(slant):
    """Shearing keeps the area and the two ends; the sides grow by 1 / cos(slant)."""
    found = thickness_of(smooth_bar(6.0, 60.0, slant=slant))
    side = 60 / math.cos(math.radians(slant))
    assert found == pytest.approx(6 * 60 / (6 + side), rel=0.07)


def test_thickness_does_not_depend_on_the_contrast():
    image = smooth_bar(4.0)
    assert thickness_of(image / 3) == pytest.approx(thickness_of(image), rel=1e-5)


def test_thickness_grows_with_the_stroke(digits):
    thick = F.max_pool2d(digits, 3, stride=1, padding=1)  # one pixel more on each side
    more = measure_attributes(thick)[:, 1] - measure_attributes(digits)[:, 1]
    assert more.min() > 1 and more.max() < 3.5  # 2.3 on average


@pytest.mark.parametrize("corner", [(0, 0), (0, 27), (10, 0), (10, 27)])
def test_ink_on_the_border_of_the_image_has_an_edge_too(corner):
    away, touching = crisp_bar(3), crisp_bar(3, corner=corner)
    torch.testing.assert_close(measure_attributes(touching), measure_attributes(away))


# ---- slant ------------------------------------------------------------------------------------


@pytest.mark.parametrize("slant", [-40.0, -20.0, -5.0, 0.0, 10.0, 30.0])
def test_slant_of_a_sheared_bar(slant):
    """Positive: the top leans to the right."""
    assert slant_of(smooth_bar(slant=slant)) == pytest.approx(slant, abs=0.5)


def test_the_top_of_a_positive_slant_is_on_the_right():
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]] = 1  # like a « / »
    assert slant_of(image) == pytest.approx(45)
    assert slant_of(image.flip(3)) == pytest.approx(-45)


def test_a_shear_adds_the_tangents(digits):
    """Slanting by 15° more: tan(slant) rises by tan(15°), whatever the digit."""
    shear = math.tan(math.radians(15))
    theta = torch.tensor([[[1.0, shear, 0], [0, 1, 0]]]).expand(len(digits), 2, 3)
    images = F.pad(digits, (14, 14, 14, 14))
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    sheared = F.grid_sample(images, grid, align_corners=False)
    before, after = (
        torch.tan(measure_attributes(x)[:, 0] * math.pi / 180) for x in (images, sheared)
    )
    torch.testing.assert_close(after - before, torch.full((20,), shear), rtol=0, atol=0.01)


def test_slant_is_the_regression_of_the_column_on_the_row(digits):
    rows, columns = np.mgrid[:28, :28].reshape(2, -1)
    for image in digits:
        (var_row, cov), _ = np.cov(rows, columns, aweights=image.flatten().double().numpy())
        expected = -math.degrees(math.atan(cov / var_row))
        assert slant_of(image[None]) == pytest.approx(expected, abs=1e-3)


# ---- invariances ------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [(0, 9), (7, 0), (-11, 6), (12, -13)])
def test_moving_the_digit_changes_nothing(digits, shift):
    images = F.pad(digits, (14, 14, 14, 14))
    moved = images.roll(shift, dims=(2, 3))
    torch.testing.assert_close(
        measure_attributes(moved), measure_attributes(images), rtol=1e-4, atol=2e-3
    )


def test_a_frame_that_is_not_square_changes_nothing(digits):
    wide = F.pad(digits, (0, 25, 0, 0))
    torch.testing.assert_close(
        measure_attributes(wide), measure_attributes(digits), rtol=1e-4, atol=2e-3
    )


@pytest.mark.parametrize("slant", [0.0, 25.0])
def test_doubling_the_size_doubles_the_thickness_and_keeps_the_slant(slant):
    small = smooth_bar(4.0, 30.0, slant=slant, softness=0.5)
    large = smooth_bar(8.0, 60.0, slant=slant, softness=1.0)
    assert slant_of(large) == pytest.approx(slant_of(small), abs=0.1)
    assert thickness_of(large) == pytest.approx(2 * thickness_of(small), rel=0.03)


@pytest.mark.parametrize("axis", [2, 3])
def test_a_mirror_changes_the_sign_of_the_slant(digits, axis):
    slant, thickness = measure_attributes(digits).T
    mirrored_slant, mirrored_thickness = measure_attributes(digits.flip(axis)).T
    torch.testing.assert_close(mirrored_slant, -slant, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mirrored_thickness, thickness, rtol=1e-4, atol=0)


# ---- contract ---------------------------------------------------------------------------------


def test_a_batch_is_measured_one_image_at_a_time(digits):
    together = measure_attributes(digits)
    assert together.shape == (20, 2) and together.dtype == torch.float32
    one_by_one = torch.cat([measure_attributes(image[None]) for image in digits])
    torch.testing.assert_close(together, one_by_one)
    assert together.std(0).min() > 0.1
    assert measure_attributes(digits[:0]).shape == (0, 2)


def test_a_large_batch_keeps_its_order():
    images = torch.rand(9000, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    some = [0, 1, 4095, 4096, 4097, 8191, 8192, 8999]
    found = measure_attributes(images)
    assert found.shape == (9000, 2)
    torch.testing.assert_close(found[some], measure_attributes(images[some]))


def test_double_precision_is_kept(digits):
    found = measure_attributes(digits.double())
    assert found.dtype == torch.float64 and found.device == digits.device
    torch.testing.assert_close(found.float(), measure_attributes(digits), rtol=1e-4, atol=1e-3)


def test_real_digits_are_plausible(digits):
    slant, thickness = measure_attributes(digits).T
    assert slant.abs().max() < 30 and 2 < thickness.min() and thickness.max() < 6


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
