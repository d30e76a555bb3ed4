"""FVSBN: its log-odds by the formula of the lecture, one pixel at a time."""

import pytest
import torch
from autoregressive_models import CLASSES, SHAPE, build, labels, random_images

from course_utils.autoregressive import FVSBN, MADE


@pytest.mark.parametrize("num_classes", [None, CLASSES])
def test_each_pixel_is_a_logistic_regression_on_those_before(num_classes):
    """α₀⁽ⁱ⁾ + Σ_{j before i} αⱼ⁽ⁱ⁾ xⱼ, and the bias of the class."""
    model = build("FVSBN", num_classes)
    x, y = random_images(model), labels(model, 10)
    found, visit = model.logits(x, y).flatten(1), model.ordering.tolist()
    for n, image in enumerate(x.flatten(1).tolist()):
        for step, i in enumerate(visit):
            odds = model.b[i].item()
            if num_classes is not None:
                odds += model.class_b[y[n], i].item()
            for j in visit[:step]:
                odds += model.alpha[i, j].item() * image[j]
            assert found[n, i].item() == pytest.approx(odds, abs=1e-5)


def test_mixed_classes_mix_their_biases():
    model, x = build("FVSBN", CLASSES), random_images(build("FVSBN"), 1)
    parts = torch.cat([model.logits(x, torch.tensor([k])) for k in range(CLASSES)])
    weights = torch.tensor([[0.2, 0.5, 0.3]])
    expected = (weights.view(3, 1, 1, 1) * parts).sum(0, keepdim=True)
    torch.testing.assert_close(model.logits(x, weights), expected)


def test_the_mask_is_written_from_the_ordering():
    """Visit 2, 0, 1: pixel 0 reads 2, pixel 1 reads 0 and 2, pixel 2 reads nothing."""
    expected = [[False, False, True], [True, False, True], [False, False, False]]
    assert FVSBN((1, 1, 3), ordering=[2, 0, 1]).mask().tolist() == expected
    assert FVSBN((1, 1, 3)).mask(torch.tensor([2, 0, 1])).tolist() == expected


def test_it_starts_as_a_fair_coin():
    x = random_images(build("FVSBN"))
    assert torch.equal(FVSBN(SHAPE).logits(x), torch.zeros(10, *SHAPE))


def test_a_made_without_hidden_layers_is_an_fvsbn():
    fvsbn = build("FVSBN", CLASSES)
    made = MADE(SHAPE, hidden=(), ordering=fvsbn.ordering, num_classes=CLASSES)
    weights = fvsbn.state_dict()
    weights["A"] = weights.pop("alpha")
    made.load_state_dict(weights)
    x, y = random_images(fvsbn), labels(fvsbn, 10)
    torch.testing.assert_close(made.logits(x, y), fvsbn.logits(x, y))
