"""Markov tables: what they count, by hand; where they find their parents."""

import math
from collections import Counter

import pytest
import torch
from autoregressive_models import (
    LEFT_AND_ABOVE,
    SHAPE,
    chain_images,
    column_by_column,
    random_images,
    random_ordering,
)

from course_utils.autoregressive import MarkovTable, nearest_neighbours


def parents_by_hand(model, order=None, neighbours=None):
    """The parents of each pixel, in the documented order; None for « outside »."""
    visit, (_, height, width) = model.ordering.tolist(), model.shape
    parents = {}
    for step, pixel in enumerate(visit):
        if neighbours is None:
            parents[pixel] = [visit[step - k] if step >= k else None for k in range(1, order + 1)]
            continue
        row, column = pixel // width % height, pixel % width
        parents[pixel] = [
            pixel + rows * width + columns
            if 0 <= row + rows < height and 0 <= column + columns < width
            else None
            for rows, columns in neighbours
        ]
    return parents


def context(image, parents):
    return tuple(0 if j is None else image[j] for j in parents)


MODELS = {
    "order 0": ((1, 2, 3), {"order": 0}),
    "order 1": ((1, 2, 3), {"order": 1}),
    "order 3": ((2, 2, 2), {"order": 3}),
    "more parents than pixels": ((1, 1, 3), {"order": 5}),
    "left and above": ((1, 3, 3), {"neighbours": LEFT_AND_ABOVE}),
    "asymmetric": ((1, 2, 4), {"neighbours": ((0, -2), (-1, 1), (-1, -1))}),
    "two channels": ((2, 2, 2), {"neighbours": LEFT_AND_ABOVE}),
    "no neighbour": ((1, 2, 3), {"neighbours": ()}),
    "always outside": ((1, 2, 3), {"neighbours": ((-3, 0), (-2, 0))}),
}


@pytest.mark.parametrize("name", MODELS)
def test_count_is_counting(name):
    """(n₁ + ½) / (n₀ + n₁ + 1) for each pixel and each value of its parents, seen or not."""
    shape, options = MODELS[name]
    dims = math.prod(shape)
    ordering = random_ordering(dims) if "order" in options else torch.arange(dims)
    model = MarkovTable(shape, ordering=ordering, **options)
    images, _ = chain_images(60, shape)
    assert model.count(images) is model
    parents = parents_by_hand(model, **options)
    counts = Counter(
        (pixel, context(image, parents[pixel]), image[pixel])
        for image in images.flatten(1).tolist()
        for pixel in range(dims)
    )
    x = torch.cat([images[:20], random_images(model, 20)])
    found = model.logits(x).flatten(1)
    for n, image in enumerate(x.flatten(1).tolist()):
        for pixel in range(dims):
            zeros, ones = (counts[pixel, context(image, parents[pixel]), v] for v in (0, 1))
            expected = math.log((ones + 0.5) / (zeros + 0.5))
            assert found[n, pixel].item() == pytest.approx(expected, abs=1e-5)


def test_before_counting_every_pixel_is_a_fair_coin():
    model = MarkovTable(SHAPE, order=2)
    x = random_images(model)
    torch.testing.assert_close(model.log_prob(x), torch.full((10,), -6 * math.log(2)))


def test_counting_again_forgets_what_was_counted():
    images, _ = chain_images(60)
    model = MarkovTable(SHAPE, order=2).count(1 - images)
    expected = MarkovTable(SHAPE, order=2).count(images).table
    assert torch.equal(model.count(images).table, expected)
    assert torch.equal(MarkovTable(SHAPE, order=2).start_from(images).table, expected)


def test_count_forgets_no_image_of_a_large_set():
    """2 500 images, a multiple of no part; the last ones differ."""
    images = torch.zeros(2500, *SHAPE, dtype=torch.uint8)
    images[-700:] = 1
    table = MarkovTable(SHAPE, order=1, ordering=torch.arange(6)).count(images).table
    log_odds = math.log(700.5 / 1800.5)
    assert table[0].tolist() == pytest.approx([log_odds, 0.0])  # its parent is outside
    always = [math.log(0.5 / 1800.5), math.log(700.5 / 0.5)]
    for line in table[1:]:
        assert line.tolist() == pytest.approx(always)


def test_nearest_neighbours():
    assert nearest_neighbours(0) == []
    assert set(nearest_neighbours(2)) == {(0, -1), (-1, 0)}
    assert set(nearest_neighbours(4)) == {(0, -1), (-1, 0), (-1, -1), (-1, 1)}
    assert set(nearest_neighbours(6)) - set(nearest_neighbours(4)) == {(0, -2), (-2, 0)}
    assert set(nearest_neighbours(10)) - set(nearest_neighbours(6)) == {
        (-1, -2), (-1, 2), (-2, -1), (-2, 1)
    }  # fmt: skip
    for number in range(13):
        found = nearest_neighbours(number)
        assert len(set(found)) == number
        MarkovTable(SHAPE if number < 7 else (1, 4, 4), neighbours=found)  # all come before


@pytest.mark.parametrize(
    ("neighbours", "ordering"),
    [
        (((0, 1),), None),
        (((0, 0),), None),
        (((1, -1),), None),
        (((0, -1), (1, 0)), None),
        (LEFT_AND_ABOVE, torch.arange(5, -1, -1)),
        (((-1, 1),), column_by_column(SHAPE)),
    ],
)
def test_a_parent_must_come_before_its_pixel(neighbours, ordering):
    with pytest.raises(ValueError, match="a parent comes after its pixel in this ordering; in ras"):
        MarkovTable(SHAPE, neighbours=neighbours, ordering=ordering)


def test_other_orderings_allow_other_neighbours():
    MarkovTable(SHAPE, neighbours=((0, 1), (1, 0), (1, -1)), ordering=torch.arange(5, -1, -1))
    MarkovTable(SHAPE, neighbours=((1, -1), (-1, 0)), ordering=column_by_column(SHAPE))


def test_a_table_is_not_trained_by_gradient():
    model = MarkovTable(SHAPE, order=1)
    x = random_images(model)
    with pytest.raises(TypeError, match=r"not trained by gradient: call count\(images\)"):
        model.loss(x)
    with torch.no_grad():
        in_training = model.loss(x)
    assert torch.equal(model.eval().loss(x), in_training)
    assert not list(model.parameters())
