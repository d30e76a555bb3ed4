"""FVSBN and MADE: the masks by the paper; the networks unit by unit; the mixture."""

import copy

import pytest
import torch
from autoregressive_models import (
    AGNOSTIC,
    CLASSES,
    KINDS,
    SHAPE,
    build,
    labels,
    perturb,
    random_images,
    random_ordering,
)

from course_utils.autoregressive import FVSBN, MADE, OrderAgnosticMADE
from course_utils.evaluation import measured_dependencies, total_probability

HIDDEN = [(), (5,), (3,), (20,), (20, 15), (7, 20, 5)]
MADES = [kind for kind in KINDS if kind.startswith(("FVSBN", "MADE", "agnostic"))]


# ---- the masks --------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_degrees_are_sorted_and_spread_over_all_the_pixels_but_the_last(hidden):
    for units, degrees in zip(hidden, MADE(SHAPE, hidden=hidden).degrees()):
        assert degrees.shape == (units,) and degrees[0] == 1 and degrees[-1] <= 5
        assert torch.equal(degrees, degrees.sort().values)
        counts = degrees.bincount(minlength=6)[1:]
        assert counts.max() - counts[counts > 0].min() <= 1
        assert (counts > 0).sum() == min(units, 5)


def test_the_mask_of_an_fvsbn():
    """Visit 2, 0, 1: pixel 0 reads 2, pixel 1 reads 0 and 2, pixel 2 reads nothing."""
    expected = [[False, False, True], [True, False, True], [False, False, False]]
    assert FVSBN((1, 1, 3), ordering=[2, 0, 1]).mask().tolist() == expected
    assert FVSBN((1, 1, 3)).mask(torch.tensor([2, 0, 1])).tolist() == expected


def test_an_fvsbn_starts_as_a_fair_coin():
    assert not FVSBN(SHAPE).logits(torch.ones(1, *SHAPE, dtype=torch.uint8)).any()


def test_mixed_classes_mix_their_biases():
    model, x = build("FVSBN", CLASSES), random_images(build("FVSBN"), 1)
    parts = torch.cat([model.logits(x, torch.tensor([k])) for k in range(CLASSES)])
    weights = torch.tensor([[0.2, 0.5, 0.3]])
    expected = (weights.view(3, 1, 1, 1) * parts).sum(0, keepdim=True)
    torch.testing.assert_close(model.logits(x, weights), expected)


def test_an_image_of_one_pixel():
    model = perturb(MADE((1, 1, 1), hidden=(4, 3)))
    assert total_probability(model.log_prob, (1, 1, 1)) == pytest.approx(1)
    assert measured_dependencies(model.logits, (1, 1, 1)).sum() == 0
    assert model.eval().sample(3).shape == (3, 1, 1, 1)


# ---- the network ------------------------------------------------------------------------------


def unit_by_unit(model, image, y, visit):
    """The log-odds of one image by the definition: a unit of degree m sees m pixels, no other.

    An FVSBN has no unit: each pixel is a logistic regression on those before it.
    """
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    direct = weights.get("alpha", weights.get("A"))
    agnostic = isinstance(model, OrderAgnosticMADE)
    below, degrees_below = None, None
    for number, degrees in enumerate([] if "alpha" in weights else model.degrees()):
        units = []
        for k, m in enumerate(degrees.tolist()):
            a = weights[f"layers.{number}.bias"][k]
            row = weights[f"layers.{number}.weight"][k]
            if y is not None:
                a += weights[f"class_hidden.{number}"][y][k]
            if number == 0:
                a += sum(row[j] * image[j] for j in visit[:m])
                a += sum(weights["U_hidden"][k][j] for j in visit[:m]) if agnostic else 0
            else:
                a += sum(w * h for w, h, d in zip(row, below, degrees_below) if d <= m)
            units.append(max(a, 0.0))
        below, degrees_below = units, degrees.tolist()
    odds = list(weights["b"])
    for step, i in enumerate(visit):
        if y is not None:
            odds[i] += weights["class_b"][y][i]
        if below is not None:
            row = weights["V.weight"][i]
            odds[i] += sum(w * h for w, h, m in zip(row, below, degrees_below) if m <= step)
        if direct is not None:
            odds[i] += sum(direct[i][j] * image[j] for j in visit[:step])
            odds[i] += sum(weights["U_A"][i][j] for j in visit[:step]) if agnostic else 0
    return odds


@pytest.mark.parametrize("num_classes", [None, CLASSES])
@pytest.mark.parametrize("kind", MADES)
def test_the_network_unit_by_unit(kind, num_classes):
    model = build(kind, num_classes)
    x, y = random_images(model, 6), labels(model, 6)
    orderings = [model.ordering]
    if kind in AGNOSTIC:
        orderings = [*model.orderings, random_ordering(6, 7)]
    for ordering in orderings:
        options = {"ordering": ordering} if kind in AGNOSTIC else {}
        found = model.logits(x, y, **options).flatten(1)
        for n, image in enumerate(x.flatten(1).tolist()):
            label = None if y is None else y[n].item()
            expected = unit_by_unit(model, image, label, ordering.tolist())
            assert found[n].tolist() == pytest.approx(expected, abs=1e-4)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = perturb(MADE(SHAPE, hidden=(30,), direct=False, dropout=0.4))
    x = random_images(model, 1).expand(4000, *SHAPE)
    dropped = model.logits(x)
    exact = model.eval().logits(x)
    torch.testing.assert_close(exact[0], exact[1])
    assert (dropped[0] - dropped[1]).abs().max() > 0.01
    # one hidden layer, then linear: on average nothing changes
    torch.testing.assert_close(dropped.mean(0), exact[0], rtol=0, atol=0.15)
    plain = copy.deepcopy(model)
    plain.dropout = 0.0
    assert torch.equal(plain.train().logits(x), exact)


# ---- the mixture of orderings -----------------------------------------------------------------


def test_the_orderings_are_those_of_the_seed():
    one, same, other = (OrderAgnosticMADE(SHAPE, num_orderings=5, seed=s) for s in (3, 3, 4))
    assert one.orderings.shape == (5, 6) and len(one.orderings.unique(dim=0)) == 5
    assert torch.equal(one.orderings, same.orderings)
    assert not torch.equal(one.orderings, other.orderings)
    for ordering in one.orderings:
        assert ordering.sort().values.tolist() == list(range(6))
    torch.manual_seed(0)
    weights = MADE(SHAPE).state_dict()
    torch.manual_seed(0)
    agnostic = OrderAgnosticMADE(SHAPE, seed=8).state_dict()
    assert all(torch.equal(agnostic[k], v) for k, v in weights.items() if k != "ordering")


@pytest.mark.parametrize("num_classes", [None, CLASSES])
def test_the_loss_is_that_of_one_ordering_of_the_global_random_stream(num_classes):
    model = build("agnostic, 2 layers", num_classes)
    x, y = random_images(model), labels(model, 10)
    losses = set()
    for seed in range(5):
        torch.manual_seed(seed)
        ordering = torch.randperm(6)
        after = torch.get_rng_state()
        torch.manual_seed(seed)
        loss = model.loss(x, y)
        assert torch.equal(torch.get_rng_state(), after)
        expected = -model.pixel_log_prob(x, y, ordering=ordering).flatten(1).sum(1).mean()
        torch.testing.assert_close(loss, expected)
        losses.add(loss.item())
    assert len(losses) > 3


def test_one_ordering_may_be_asked_for():
    """By default, `logits` takes the first of the mixture."""
    model = build("agnostic, 2 layers")
    x, first = random_images(model), model.orderings[0]
    assert torch.equal(model.logits(x), model.logits(x, ordering=first.tolist()))
    assert torch.equal(model.pixel_log_prob(x), model.pixel_log_prob(x, ordering=first))
    with pytest.raises(ValueError, match="expected a permutation of 0, …, 5; pixel 3"):
        model.logits(x, ordering=[0, 1, 2, 5, 4, 4])
