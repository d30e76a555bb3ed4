"""Sampling: fast and naive, what is drawn and what is told, completions, the law of the samples."""

import math

import pytest
import torch
from autoregressive_models import (
    AGNOSTIC,
    ALL_CASES,
    CLASSES,
    KINDS,
    ONE_ORDERING,
    SHAPE,
    build,
    default_shape,
    labels,
    log_prob_of,
    random_images,
    random_ordering,
    same_state,
    seeded,
    state_of,
)

from course_utils.evaluation import enumerate_images

SMALL = (1, 2, 2)  # 16 images
N = 8_000  # samples, when their law is tested


def some_known(model, n):
    """Options of `sample`: images to complete, each with its own mask."""
    mask = torch.rand(n, 1, *model.shape[1:], generator=seeded(6)) < 0.4
    return {"given": random_images(model, n), "mask": mask}


# ---- fast and naive ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize(("kind", "num_classes"), ALL_CASES)
def test_the_fast_sampler_is_the_naive_one_and_none_changes_the_model(kind, num_classes, n):
    """For a single image too: what is laid out for one image can be a view of the weights."""
    model = build(kind, num_classes).train()
    y, before, completion = labels(model, n), state_of(model), some_known(model, n)
    given = completion["given"].clone()
    for options in ({"temperature": 0.5}, completion):
        naive, fast = (
            model.sample(n, y, generator=seeded(), naive=naive, **options)
            for naive in (True, False)
        )
        assert naive.shape == (n, *model.shape) and naive.dtype == torch.uint8
        assert torch.equal(naive, fast)
    assert same_state(state_of(model), before) and torch.equal(completion["given"], given)
    assert model.training


def visitor(x, ordering, met):
    """What `visit` asks for: it notes the parameters met, and writes the pixels of `x`."""

    def choose(i, logits, out):
        met.append(logits.clone())
        out.copy_(x.flatten(1)[:, ordering[i]])

    return choose


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(("kind", "num_classes"), ALL_CASES)
def test_the_parameters_met_by_a_visit_are_those_of_one_pass(kind, num_classes, n):
    model = build(kind, num_classes)
    x, y, met = random_images(model, n), labels(model, n), []
    assert torch.equal(model.visit(visitor(x, model.ordering, met), n, y), x)
    expected = model.logits(x, y).detach().flatten(-3)[..., model.ordering]
    torch.testing.assert_close(torch.stack(met, -1), expected, rtol=1e-4, atol=1e-5)
    assert not met[-1].requires_grad


@pytest.mark.parametrize("num_classes", [None, CLASSES])
@pytest.mark.parametrize("kind", ["FVSBN", "NADE, lean", "MADE, 2 layers", *AGNOSTIC])
def test_a_visit_in_another_ordering_than_the_model_s_own(kind, num_classes):
    """All the parts of a network follow the ordering that they receive."""
    model, ordering = build(kind, num_classes), random_ordering(6, 7)
    x, met = random_images(model, 16), []
    classes = model.condition(labels(model, 16), 16)
    with torch.no_grad():
        found = model._visit(visitor(x, ordering, met), 16, classes, ordering)
        own, other = (
            model._logits(x.flatten(1).float(), classes, o).T[ordering]
            for o in (model.ordering, ordering)
        )
    assert torch.equal(found, x)
    torch.testing.assert_close(torch.stack(met), other, rtol=0, atol=1e-5)
    assert (other - own).abs().max() > 0.1


# ---- what is drawn ----------------------------------------------------------------------------


def level_probabilities(model, x, y=None, temperature=1.0):
    """Of each pixel of `x` given those before it, `(n, levels, C, H, W)`, in double precision."""
    with torch.no_grad():
        logits = model.logits(x, y).double()
    every = [model.law.log_prob(torch.full_like(x, k), logits) for k in range(model.levels)]
    log_probs = torch.stack(every, 1)
    if temperature == 0:
        return (log_probs == log_probs.amax(1, keepdim=True)).double()
    return torch.softmax(log_probs / temperature, 1)


def chosen(probabilities, uniform):
    """The levels that these numbers choose, and where no rounding error could change them.

    A pixel of two levels is 1 below p(1); of more, its level is the number of steps passed.
    """
    binary = probabilities.shape[1] == 2
    steps = probabilities[:, 1:] if binary else probabilities.cumsum(1)[:, :-1]
    passed = (steps <= uniform[:, None]).sum(1)
    clear = ((steps - uniform[:, None]).abs() > 1e-5).all(1)
    return (1 - passed if binary else passed), clear


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
@pytest.mark.parametrize(("kind", "num_classes"), ONE_ORDERING)
def test_what_is_drawn_and_what_the_callback_is_told(kind, num_classes, temperature):
    """Each pixel from its uniform number and one pass on the image; the known ones are kept.

    So a known pixel is not seen by the hidden ones before it.
    """
    model = build(kind, num_classes)
    y, calls = labels(model, 8), []
    completion = some_known(model, 8) if temperature == 0.5 else {}

    def callback(pixel, values, probabilities):
        calls.append((pixel, values.clone(), probabilities.clone()))

    options = {"temperature": temperature, "callback": callback} | completion
    x = model.sample(8, y, generator=seeded(), **options)
    probabilities = level_probabilities(model, x, y, temperature)
    levels, clear = chosen(probabilities, torch.rand(8, model.dims, generator=seeded()).view_as(x))
    if completion:
        known = completion["mask"].expand_as(x)
        assert torch.equal(x[known], completion["given"][known])
        clear &= ~known
    assert clear.any() and torch.equal(x[clear].long(), levels[clear])

    pixels, values, told = zip(*calls)
    assert list(pixels) == model.ordering.tolist() and type(pixels[0]) is int
    assert torch.equal(torch.stack(values, 1).to(torch.uint8), x.flatten(1)[:, model.ordering])
    expected = probabilities.flatten(2)[..., model.ordering]
    expected = expected[:, 1] if model.levels == 2 else expected
    torch.testing.assert_close(torch.stack(told, -1).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", AGNOSTIC)
def test_the_callback_of_a_mixture_sees_every_pixel_of_every_image(kind):
    model, count = build(kind), torch.zeros(6, dtype=torch.long)

    def callback(pixel, values, probabilities):
        count[pixel] += len(values)
        assert values.shape == probabilities.shape

    model.sample(8, generator=seeded(), callback=callback)
    assert (count == 8).all()


@pytest.mark.parametrize(
    "kind", ["table, order 1", "NADE, lean", "agnostic, 1 layer", "gated: colour"]
)
def test_every_form_of_mask(kind):
    model = build(kind, size=(2, 3))
    channels, given = model.shape[0], random_images(model, 8)
    for shape in [(2, 3), (1, 2, 3), (8, 1, 2, 3), (8, 1, 2, 1), (3,), ()]:
        mask = torch.rand(shape, generator=seeded()) < 0.5
        everywhere = mask.broadcast_to(8, 1, 2, 3).expand(8, channels, 2, 3)
        x = model.sample(8, generator=seeded(), given=given, mask=mask)
        assert torch.equal(x[everywhere], given[everywhere])
        assert everywhere.all() or not torch.equal(x, given)
    everything = torch.ones(2, 3, dtype=torch.bool)
    one = model.sample(8, given=given[:1], mask=everything)
    assert torch.equal(one, given[:1].expand_as(one))
    hidden = model.sample(8, generator=seeded(), given=given, mask=~everything)
    assert torch.equal(hidden, model.sample(8, generator=seeded()))


# ---- the law of the samples -------------------------------------------------------------------


def check_law(x, probability, levels=2):
    """All frequencies within 4.5 standard errors of their probabilities; what cannot be, is not.

    Those of the rarest images, which a few samples would disturb, are added up.
    """
    assert probability.sum().item() == pytest.approx(1, abs=1e-4)
    weights = levels ** torch.arange(x[0].numel() - 1, -1, -1)
    number = (x.flatten(1).long() * weights).sum(1)
    found = number.bincount(minlength=len(probability)).double() / len(x)
    assert (found[probability < 1e-12] == 0).all()
    rare = probability * len(x) < 8
    found = torch.cat([found[~rare], found[rare].sum()[None]])
    probability = torch.cat([probability[~rare], probability[rare].sum()[None]])
    error = (probability * (1 - probability).clamp(min=0) / len(x)).sqrt() + 1e-4
    assert ((found - probability) / error).abs().max() < 4.5


@pytest.mark.parametrize(("kind", "num_classes"), ALL_CASES)
def test_samples_follow_the_exact_probabilities(kind, num_classes):
    """The labels are interleaved: an image must not receive the class of another."""
    model = build(kind, num_classes, shape=SMALL if kind in KINDS else default_shape(kind, (2, 1)))
    y = labels(model, N)
    x, images = model.sample(N, y, generator=seeded()), enumerate_images(model.shape, model.levels)
    for k in range(num_classes or 1):
        condition = None if y is None else torch.tensor([k])
        exact = model.log_prob(images, condition).detach().double().exp()
        check_law(x if y is None else x[y == k], exact, model.levels)


def conditional(log_prob, given, known):
    """p(x) of all the images of SMALL, knowing some pixels: Bayes by enumeration."""
    x = enumerate_images(SMALL)
    possible = ((x == given) | ~known).flatten(1).all(1)
    joint = torch.where(possible, log_prob(x).detach().double().exp(), 0)
    return joint / joint.sum()


@pytest.mark.parametrize("num_classes", [None, CLASSES])
@pytest.mark.parametrize("kind", AGNOSTIC)
def test_an_order_agnostic_model_completes_any_mask(kind, num_classes):
    """Each image has its own mask; its law is the mixture of the exact conditionals."""
    model = build(kind, num_classes, shape=SMALL)
    masks = torch.tensor([[[1, 0], [0, 0]], [[0, 1], [0, 1]], [[1, 1], [1, 0]], [[0, 0], [0, 0]]])
    masks = masks.bool().view(4, *SMALL)
    pages = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 1], [1, 1]]])
    pages = pages.view(4, *SMALL)
    which = torch.arange(4 * N) % 4
    y = None if num_classes is None else torch.tensor([2])
    given, mask = pages[which], masks[which]
    x = model.sample(4 * N, y, generator=seeded(), given=given, mask=mask)
    assert torch.equal(x[mask].long(), given[mask])
    for k, known in enumerate(masks):
        terms = []
        for ordering in model.orderings:
            seen = known.flatten()[ordering]
            known_first = torch.cat([ordering[seen], ordering[~seen]])

            def log_prob(images, ordering=known_first):
                return log_prob_of(model, model.logits(images, y, ordering=ordering), images)

            terms.append(conditional(log_prob, pages[k], known))
        check_law(x[which == k], torch.stack(terms).mean(0))


@pytest.mark.parametrize("kind", ["FVSBN", "gated: binary"])
def test_what_is_drawn_may_enter_a_training(kind):
    """The loop runs in inference mode, whose tensors autograd refuses: none of them comes out."""
    model = build(kind)
    for x in (model.sample(2), model.visit(lambda i, logits, out: out.zero_(), 2)):
        weight = torch.ones(x.shape, requires_grad=True)
        (weight * x).sum().backward()
        assert not x.is_inference() and torch.equal(weight.grad, x.float())


# ---- wrong input ------------------------------------------------------------------------------

GIVEN = torch.zeros(4, *SHAPE, dtype=torch.uint8)
MASK = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize("kind", ["table, order 1", "NADE, lean", "agnostic, 1 layer"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "n=0: expected at least one image"),
        ({"temperature": -0.1}, ValueError, "temperature=-0.1: expected a number ≥ 0"),
        ({"temperature": math.nan}, ValueError, "temperature=nan"),
        ({"mask": MASK}, ValueError, "both given=… and mask=… .True where known"),
        ({"given": GIVEN}, ValueError, "both given=… and mask=…"),
        ({"given": GIVEN[:3], "mask": MASK}, ValueError, "3 images given for 4 images"),
        ({"given": GIVEN.float(), "mask": MASK}, TypeError, "got torch.float32: quantise"),
        ({"given": GIVEN + 2, "mask": MASK}, ValueError, "levels=2"),
        ({"given": GIVEN, "mask": MASK.float()}, TypeError, "booleans.* got torch.float32"),
        ({"given": GIVEN, "mask": MASK.T}, ValueError, r"\(3, 2\) does not broadcast to .*2, 3\)"),
    ],
)
def test_what_sample_refuses(kind, options, error, message):
    with pytest.raises(error, match=message):
        build(kind).sample(**{"n": 4} | options)
