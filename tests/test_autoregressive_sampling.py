"""Sampling: fast and naive, the law of the samples by enumeration, completions, callbacks."""

import copy
import math

import pytest
import torch
from autoregressive_models import (
    AGNOSTIC,
    CASES,
    CLASSES,
    KINDS,
    LEFT_AND_ABOVE,
    SHAPE,
    build,
    labels,
    laws,
    log_prob_of,
    perturb,
    random_images,
    random_ordering,
    same_state,
    seeded,
    state_of,
)

from course_utils.autoregressive import FVSBN, MADE, NADE, MarkovTable, OrderAgnosticMADE
from course_utils.evaluation import enumerate_images

DIMS = math.prod(SHAPE)
SMALL = (1, 2, 2)  # 16 images
N = 20_000  # samples, when their law is tested


def random_mask(n):
    return torch.rand(n, 1, *SHAPE[1:], generator=seeded(6)) < 0.5


# ---- fast and naive ---------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["random", "trained"])
@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_the_fast_sampler_is_the_naive_one(kind, num_classes, n, state):
    model = build(kind, num_classes, state=state)
    y = labels(model, n)
    completion = {"given": random_images(model, n), "mask": random_mask(n)}
    for options in ({}, {"temperature": 0.5}, {"temperature": 0.0}, completion):
        for seed in range(2):
            # two copies: neither can see what the other would spoil
            naive, fast = (
                copy.deepcopy(model).sample(n, y, generator=seeded(seed), naive=naive, **options)
                for naive in (True, False)
            )
            assert torch.equal(naive, fast)


def record_visit(model, n, y, ordering):
    """Visit `n` images whose bits are drawn here -> the images, the log-odds met `(D, n)`."""
    bits, met = torch.randint(0, 2, (model.dims, n), generator=seeded()), []

    def choose(i, logits, out):
        met.append(logits.clone())
        out.copy_(bits[i])

    with torch.no_grad():
        c = model.condition(y, n)
        x = copy.deepcopy(model)._visit(choose, n, c, ordering)
    assert torch.equal(x.flatten(1).T[ordering], bits)
    return x, torch.stack(met)


@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_the_log_odds_of_the_stepper_are_those_of_one_pass(kind, num_classes, n):
    model = build(kind, num_classes)
    y = labels(model, n)
    for ordering, logits in laws(model):
        x, met = record_visit(model, n, y, ordering)
        expected = logits(x, y).detach().flatten(1).T[ordering]
        torch.testing.assert_close(met, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["FVSBN", "NADE, lean", "MADE, 2 layers", "agnostic, 2 layers"])
def test_a_visit_in_another_ordering_than_the_model_s_own(kind):
    """All the parts of a network follow the ordering that they receive."""
    model, ordering = build(kind), random_ordering(DIMS, 7)
    x, met = record_visit(model, 16, None, ordering)
    with torch.no_grad():
        expected = model._logits(x.flatten(1).float(), None, ordering).T[ordering]
        elsewhere = model._logits(x.flatten(1).float(), None, model.ordering).T[ordering]
    torch.testing.assert_close(met, expected, rtol=0, atol=1e-5)
    assert (met - elsewhere).abs().max() > 0.1


REALISTIC = {
    "table": lambda shape, **o: MarkovTable(shape, order=10, **o),
    "neighbours": lambda shape, **o: MarkovTable(shape, neighbours=LEFT_AND_ABOVE),
    "FVSBN": FVSBN,
    "NADE": lambda shape, **o: NADE(shape, hidden=500, **o),
    "MADE": lambda shape, **o: MADE(shape, hidden=(500, 500), **o),
    "agnostic": lambda shape, **o: OrderAgnosticMADE(shape, hidden=(300,), num_orderings=1),
}


@pytest.mark.parametrize("kind", REALISTIC)
def test_a_pixel_is_one_when_its_uniform_number_is_below_its_probability(kind):
    """At 28×28: the samples from the numbers of the generator and the log-odds of one pass."""
    torch.manual_seed(0)
    model = REALISTIC[kind]((1, 28, 28), ordering=random_ordering(784))
    perturb(model).eval()
    x = model.sample(4, generator=seeded(5))
    uniform = torch.rand(4, 784, generator=seeded(5)).view(x.shape)
    with torch.no_grad():
        probability = torch.sigmoid(model.logits(x))
    clear = (uniform - probability).abs() > 1e-5
    assert clear.float().mean() > 0.99 and 0.2 < x.float().mean() < 0.8
    assert torch.equal(x[clear], (uniform < probability)[clear].to(torch.uint8))


def test_the_fast_sampler_is_the_naive_one_at_28_by_28():
    torch.manual_seed(0)
    model = MADE((1, 28, 28), hidden=(60, 60), ordering=random_ordering(784))
    perturb(model).eval()
    naive = model.sample(4, generator=seeded(), naive=True)
    assert torch.equal(model.sample(4, generator=seeded()), naive)


# ---- the law of the samples -------------------------------------------------------------------


def frequencies(x):
    """Share of each of the 2^D images, in the order of `enumerate_images`."""
    weights = 2 ** torch.arange(x[0].numel() - 1, -1, -1)
    number = (x.flatten(1).long() * weights).sum(1)
    return number.bincount(minlength=2 ** len(weights)).double() / len(x)


def check_law(x, probability):
    """All frequencies within 4.5 standard errors of their probabilities; what cannot be, is not."""
    assert probability.sum().item() == pytest.approx(1, abs=1e-5)
    found = frequencies(x)
    assert (found[probability < 1e-12] == 0).all()
    error = (probability * (1 - probability) / len(x)).sqrt().clamp(min=1e-6)
    assert ((found - probability) / error).abs().max() < 4.5


def tempered(logits, temperature):
    """Probabilities of all the images of SMALL when each pixel's log-odds are divided."""
    x = enumerate_images(SMALL)
    odds = logits(x).detach()
    if temperature == 0:
        return (x == (odds > 0)).flatten(1).all(1).double()
    return log_prob_of(odds / temperature, x).exp()


def mean(terms):
    return torch.stack(terms).mean(0)


@pytest.mark.parametrize("temperature", [1.0, 0.4, 3.0, 0.0])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_the_exact_probabilities(kind, temperature):
    model = build(kind, shape=SMALL)
    x = model.sample(N, generator=seeded(), temperature=temperature)
    assert x.shape == (N, *SMALL) and x.dtype == torch.uint8
    expected = mean([tempered(logits, temperature) for _, logits in laws(model)])
    check_law(x, expected)
    if temperature == 1:
        exact = model.log_prob(enumerate_images(SMALL)).detach().double().exp()
        torch.testing.assert_close(expected, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "num_classes"), [case for case in CASES if case[1]])
def test_samples_follow_the_probabilities_of_their_class(kind, num_classes):
    """The labels are interleaved: an image must not receive the class of another."""
    model = build(kind, num_classes, shape=SMALL)
    y = torch.arange(N) % CLASSES
    x, images = model.sample(N, y, generator=seeded()), enumerate_images(SMALL)
    for k in range(CLASSES):
        check_law(x[y == k], model.log_prob(images, torch.tensor([k])).detach().double().exp())


def conditional(log_prob, given, known):
    """p(x) of all the images of SMALL, knowing some pixels: Bayes by enumeration."""
    x = enumerate_images(SMALL)
    possible = ((x == given) | ~known).flatten(1).all(1)
    joint = torch.where(possible, log_prob(x).detach().double().exp(), 0)
    return joint / joint.sum()


@pytest.mark.parametrize("num_known", [1, 2, 3])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in AGNOSTIC])
def test_completions_of_the_first_pixels_follow_the_exact_conditional(kind, num_known):
    model = build(kind, shape=SMALL)
    mask = torch.zeros(4, dtype=torch.bool)
    mask[model.ordering[:num_known]] = True
    mask, given = mask.view(2, 2), torch.tensor([[[1, 0], [1, 1]]])
    x = model.sample(N, generator=seeded(), given=given[None], mask=mask)
    assert (x == given)[:, :, mask].all()
    check_law(x, conditional(model.log_prob, given, mask))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in AGNOSTIC])
def test_a_known_pixel_is_not_seen_by_the_hidden_ones_before_it(kind, temperature):
    model = build(kind, shape=SMALL)
    mask = torch.zeros(4, dtype=torch.bool)
    mask[model.ordering[[1, 3]]] = True
    given = torch.tensor([[[0, 1], [1, 0]]])
    x = model.sample(
        N, generator=seeded(), given=given[None], mask=mask.view(2, 2), temperature=temperature
    )
    images = enumerate_images(SMALL)
    odds = model.logits(images).detach().double() / temperature
    pixels = torch.where(images == 1, odds.sigmoid(), (-odds).sigmoid()).flatten(1)
    pixels[:, mask] = (images == given).flatten(1)[:, mask].double()
    check_law(x, pixels.prod(1))


def known_first(ordering, known):
    """The same visit, but for the known pixels, which come first."""
    known = known.flatten().tolist()
    visit = ordering.tolist()
    return [j for j in visit if known[j]] + [j for j in visit if not known[j]]


@pytest.mark.parametrize("num_classes", [None, CLASSES])
@pytest.mark.parametrize("kind", AGNOSTIC)
def test_an_order_agnostic_model_completes_any_mask(kind, num_classes):
    """Each image has its own mask; its law is the mixture of the exact conditionals."""
    model = build(kind, num_classes, shape=SMALL)
    masks = torch.tensor([[[1, 0], [0, 0]], [[0, 1], [0, 1]], [[1, 1], [1, 0]], [[0, 0], [0, 0]]])
    masks = masks.bool().view(4, 1, *SMALL[1:])
    pages = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 1], [1, 1]]])
    pages = pages.view(4, *SMALL)
    which = torch.arange(4 * N) % 4
    y = None if num_classes is None else torch.tensor([2])
    given, mask = pages[which], masks[which]
    x = model.sample(4 * N, y, generator=seeded(), given=given, mask=mask)
    assert torch.equal(x[mask].long(), given[mask])

    def in_ordering(ordering):
        return lambda images: log_prob_of(model.logits(images, y, ordering=ordering), images)

    for k in range(4):
        terms = [
            conditional(in_ordering(known_first(ordering, masks[k])), pages[k], masks[k])
            for ordering in model.orderings
        ]
        check_law(x[which == k], mean(terms))


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_known_pixels_are_kept(kind, num_classes):
    """Whatever the form of the mask, whatever the probabilities: one at 0, one at 1."""
    model = build(kind, num_classes, shape=(2, 2, 3))
    with torch.no_grad():
        extremes = torch.tensor([60.0, -60.0]).repeat(6)
        model.table.copy_(extremes[:, None]) if hasattr(model, "table") else model.b.copy_(extremes)
    given, y = random_images(model, 8), labels(model, 8)
    for shape in [(2, 3), (1, 2, 3), (8, 1, 2, 3), (8, 1, 2, 1), (3,), ()]:
        mask = torch.rand(shape, generator=seeded()) < 0.5
        everywhere = mask.broadcast_to(8, 1, 2, 3).expand(8, 2, 2, 3)
        for temperature in (0.0, 1.0):
            x = model.sample(
                8, y, generator=seeded(), given=given, mask=mask, temperature=temperature
            )
            assert torch.equal(x[everywhere], given[everywhere])
            if not everywhere.all():
                assert not torch.equal(x, given)
    everything = torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(model.sample(8, y, given=given, mask=everything), given)
    one = model.sample(8, y, given=given[:1], mask=everything)
    assert torch.equal(one, given[:1].expand(8, 2, 2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_mask_changes_nothing(kind):
    model = build(kind)
    given, mask = random_images(model, 8), torch.zeros(2, 3, dtype=torch.bool)
    completed = model.sample(8, generator=seeded(), given=given, mask=mask)
    assert torch.equal(completed, model.sample(8, generator=seeded()))


# ---- the visit --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
@pytest.mark.parametrize(
    ("kind", "num_classes"), [case for case in CASES if case[0] not in AGNOSTIC]
)
def test_the_callback_sees_every_pixel_in_the_order_of_the_visit(kind, num_classes, temperature):
    model = build(kind, num_classes)
    y, calls = labels(model, 8), []

    def callback(pixel, values, probabilities):
        calls.append((pixel, values.clone(), probabilities.clone()))

    x = model.sample(8, y, generator=seeded(), temperature=temperature, callback=callback)
    pixels, values, probabilities = zip(*calls)
    assert list(pixels) == model.ordering.tolist() and type(pixels[0]) is int
    assert torch.equal(torch.stack(values, 1).to(torch.uint8), x.flatten(1)[:, model.ordering])
    odds = model.logits(x, y).detach().flatten(1)[:, model.ordering]
    expected = (odds > 0).float() if temperature == 0 else torch.sigmoid(odds / temperature)
    torch.testing.assert_close(torch.stack(probabilities, 1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", AGNOSTIC)
def test_the_callback_of_a_mixture_sees_every_pixel_of_every_image(kind):
    model, count = build(kind), torch.zeros(DIMS, dtype=torch.long)

    def callback(pixel, values, probabilities):
        count[pixel] += len(values)
        assert values.shape == probabilities.shape

    model.sample(8, generator=seeded(), callback=callback)
    assert (count == 8).all()


def test_the_callback_also_sees_the_known_pixels():
    model, seen = build("FVSBN"), {}
    given, mask = random_images(model, 8), torch.tensor([[True, False, True], [False] * 3])
    model.sample(
        8, given=given, mask=mask, callback=lambda pixel, values, _: seen.update({pixel: values})
    )
    assert seen.keys() == set(range(DIMS))
    for pixel in (0, 2):
        assert torch.equal(seen[pixel].to(torch.uint8), given.flatten(1)[:, pixel])


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_the_visitor_decides(kind, num_classes):
    """`visit` writes what it is told where its ordering says, and no gradient is kept."""
    model = build(kind, num_classes)
    images, met = random_images(model, 8), []
    y = labels(model, 8)

    def choose(i, logits, out):
        met.append(logits.clone())
        out.copy_(images.flatten(1)[:, model.ordering[i]])

    assert torch.equal(model.visit(choose, 8, y), images)
    expected = model.logits(images, y).detach().flatten(1)[:, model.ordering]
    torch.testing.assert_close(torch.stack(met, 1), expected, rtol=0, atol=1e-5)
    assert not met[-1].requires_grad


# ---- random streams, state, modes -------------------------------------------------------------


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_same_generator_same_samples_and_the_global_stream_is_left_alone(kind, num_classes):
    model = build(kind, num_classes)
    y = labels(model, 16)
    state = torch.get_rng_state()
    first, again, other = (model.sample(16, y, generator=seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    assert torch.equal(model.sample(16, y), first)


@pytest.mark.parametrize("naive", [True, False])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_sampling_changes_no_state(kind, num_classes, n, naive):
    """A single image too: what is laid out for one image can be a view of the weights."""
    model = build(kind, num_classes).train()
    before = state_of(model)
    model.sample(n, labels(model, n), generator=seeded(), naive=naive)
    assert same_state(state_of(model), before)
    assert model.training
    given, mask = random_images(model, n), random_mask(n)
    given_before = given.clone()
    model.sample(n, labels(model, n), generator=seeded(), given=given, mask=mask, naive=naive)
    assert torch.equal(given, given_before) and same_state(state_of(model), before)


# ---- wrong input ------------------------------------------------------------------------------

GIVEN = torch.zeros(4, *SHAPE, dtype=torch.uint8)
MASK = torch.ones(2, 3, dtype=torch.bool)


@pytest.mark.parametrize("kind", ["table, order 1", "NADE, lean", "agnostic, 1 layer"])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "n=0: expected at least one image"),
        ({"n": -2}, ValueError, "n=-2"),
        ({"temperature": -0.1}, ValueError, "temperature=-0.1: expected a number ≥ 0"),
        ({"temperature": math.nan}, ValueError, "temperature=nan"),
        ({"mask": MASK}, ValueError, "both given=… and mask=… .True where known"),
        ({"given": GIVEN}, ValueError, "both given=… and mask=…"),
        ({"given": GIVEN[:3], "mask": MASK}, ValueError, "3 images given for 4 images"),
        ({"given": GIVEN.float(), "mask": MASK}, TypeError, "got torch.float32: quantise"),
        ({"given": GIVEN[0], "mask": MASK}, ValueError, r"batch dimension, x\[None\]"),
        ({"given": GIVEN + 2, "mask": MASK}, ValueError, "levels=2"),
        ({"given": GIVEN, "mask": MASK.float()}, TypeError, "booleans.* got torch.float32"),
        ({"given": GIVEN, "mask": MASK.T}, ValueError, r"\(3, 2\) does not broadcast to .*2, 3\)"),
        ({"given": GIVEN, "mask": MASK.expand(3, 1, 2, 3)}, ValueError, "does not broadcast"),
        ({"given": GIVEN, "mask": [[True]]}, TypeError, "tensor of booleans, got list"),
    ],
)
def test_what_sample_refuses(kind, options, error, message):
    with pytest.raises(error, match=message):
        build(kind).sample(**{"n": 4} | options)
