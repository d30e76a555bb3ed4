"""Sampling PixelCNN and PixelRNN: fast and naive, the law of the samples, completions, cost."""

import copy

import pytest
import torch
from pixel_models import (
    CASES,
    CLASS_CASES,
    CLASSES,
    KINDS,
    STATE_CASES,
    TINY,
    build,
    labels,
    random_images,
    seeded,
)
from torch.utils._python_dispatch import TorchDispatchMode

from course_utils.autoregressive.masked import RowsAbove
from course_utils.evaluation import enumerate_images

N = 8_000  # samples, when their law is tested


def random_mask(n, model):
    return torch.rand(n, 1, *model.shape[1:], generator=seeded(6)) < 0.4


# ---- fast and naive ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize(("kind", "variant", "state"), STATE_CASES)
def test_the_fast_sampler_is_the_naive_one(kind, variant, state, n):
    model = build(kind, variant, size=(3, 3), state=state)
    y = labels(model, n)
    completion = {"given": random_images(model, n), "mask": random_mask(n, model)}
    cases = [{}, {"temperature": 0.5} | completion, {"temperature": 0.0}]
    for options in cases if state == "random" and n > 1 else [{"temperature": 0.7}]:
        # two copies: neither can see what the other would spoil
        naive, fast = (
            copy.deepcopy(model).sample(n, y, generator=seeded(), naive=naive, **options)
            for naive in (True, False)
        )
        assert naive.shape == (n, *model.shape) and naive.dtype == torch.uint8
        assert torch.equal(naive, fast)


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_the_parameters_met_by_the_sampler_are_those_of_one_pass(kind, variant, n):
    model = build(kind, variant, size=(4, 5), first_kernel_size=5)
    x, y, met = random_images(model, n), labels(model, n), []

    def choose(i, parameters, out):
        met.append(parameters.clone())
        out.copy_(x.flatten(1)[:, model.ordering[i]])

    assert torch.equal(model.visit(choose, n, y), x)
    with torch.no_grad():
        expected = model.logits(x, y).flatten(-3)[..., model.ordering]
    torch.testing.assert_close(torch.stack(met, -1), expected, rtol=1e-4, atol=1e-5)
    assert not met[-1].requires_grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_thin_images(kind, size):
    """Kernels larger than the image."""
    model = build(kind, "colour", size=size, first_kernel_size=7)
    naive = model.sample(8, generator=seeded(), naive=True)
    assert torch.equal(model.sample(8, generator=seeded()), naive)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_sample_starts_from_nothing(kind):
    model = build(kind, "classes")
    y = labels(model, 6)
    first = model.sample(6, y, generator=seeded())
    model.sample(4, torch.tensor([1]), generator=seeded(1))
    assert torch.equal(model.sample(6, y, generator=seeded()), first)
    assert not torch.equal(model.sample(6, y, generator=seeded(1)), first)


@pytest.mark.parametrize("kind", KINDS)
def test_images_drawn_together_are_those_drawn_alone(kind):
    """The numbers of an image are a row of those drawn at the start; its class is its own."""
    model = build(kind, "colour, classes")
    y = labels(model, 5)
    together = model.sample(5, y, generator=seeded())
    uniform = torch.rand(5, model.dims, generator=seeded())
    for k in range(5):
        nothing = torch.zeros(model.dims, 1, dtype=torch.bool)
        by_step = uniform[k : k + 1].T[model.ordering].contiguous()
        alone = model.visit(model.law.draw(by_step, nothing, nothing, 1.0), 1, y[k : k + 1])
        assert torch.equal(alone[0], together[k])


def test_what_is_drawn_may_enter_a_training():
    """The loop runs in inference mode, whose tensors autograd refuses: none of them comes out."""
    model = build("gated")
    drawn = [model.sample(2), model.visit(lambda i, logits, out: out.zero_(), 2)]
    for x in drawn:
        weight = torch.ones(x.shape, requires_grad=True)
        (weight * x).sum().backward()
        assert not x.is_inference() and torch.equal(weight.grad, x.float())


# ---- the law of the samples -------------------------------------------------------------------


def check_law(x, probability, levels):
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


def level_probabilities(model, x, y=None, temperature=1.0):
    """Of each pixel of `x`, at this temperature, in double precision: `(B, levels, C, H, W)`."""
    with torch.no_grad():
        logits = model.logits(x, y)
        every = [
            model.law.log_prob(torch.full_like(x, k), logits).double() for k in range(model.levels)
        ]
        log_probs = torch.stack(every, 1)
    if temperature == 0:
        return (log_probs == log_probs.amax(1, keepdim=True)).double()
    return torch.softmax(log_probs / temperature, 1)


def tempered(model, temperature, y=None):
    """Probabilities of all the images when those of the levels are raised to 1 / T."""
    x = enumerate_images(model.shape, model.levels)
    every = level_probabilities(model, x, y, temperature)
    return every.gather(1, x[:, None].long()).flatten(1).prod(1)


@pytest.mark.parametrize(
    ("variant", "temperature"),
    [(variant, 1.0) for variant in ("binary", "gaussian", "mixture", "colour", "one-hot")]
    + [("softmax", 0.5), ("colour", 0.5), ("binary", 0.0)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_the_exact_probabilities(kind, variant, temperature):
    model = build(kind, variant, size=(1, 2) if variant in ("colour", "one-hot") else TINY)
    x = model.sample(N, generator=seeded(), temperature=temperature)
    expected = tempered(model, temperature)
    check_law(x, expected, model.levels)
    if temperature == 1:
        images = enumerate_images(model.shape, model.levels)
        exact = model.log_prob(images).detach().double().exp()
        torch.testing.assert_close(expected, exact, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("kind", "variant"), CLASS_CASES)
def test_samples_follow_the_probabilities_of_their_class(kind, variant):
    """The labels are interleaved: an image must not receive the class of another."""
    model = build(kind, variant, size=(2, 1))
    y = torch.arange(N) % CLASSES
    x, images = model.sample(N, y, generator=seeded()), enumerate_images(model.shape, model.levels)
    for k in range(CLASSES):
        exact = model.log_prob(images, torch.tensor([k])).detach().double().exp()
        check_law(x[y == k], exact, model.levels)
    mixture = torch.tensor([[0.2, 0.5, 0.3]])
    exact = model.log_prob(images, mixture).detach().double().exp()
    check_law(model.sample(N, mixture, generator=seeded()), exact, model.levels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["binary", "softmax", "colour"])
def test_temperature_zero_takes_the_most_probable_value_of_each_pixel(kind, variant):
    model = build(kind, variant)
    x = model.sample(2, temperature=0.0)
    best = level_probabilities(model, x).argmax(1)
    assert torch.equal(x.long(), best) and torch.equal(x[0], x[1])


# ---- completions ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "variant"), CASES)
def test_known_pixels_are_kept(kind, variant):
    model = build(kind, variant)
    given, y = random_images(model, 8), labels(model, 8)
    height, width = model.shape[1:]
    for shape, temperature in (((8, 1, height, width), 1.0), ((height, 1), 0.0)):
        mask = torch.rand(shape, generator=seeded()) < 0.5
        everywhere = mask.broadcast_to(8, 1, height, width).expand(8, *model.shape)
        x = model.sample(8, y, generator=seeded(), given=given, mask=mask, temperature=temperature)
        assert torch.equal(x[everywhere], given[everywhere])
        assert everywhere.any() and not torch.equal(x, given)
    everything = torch.ones(height, width, dtype=torch.bool)
    assert torch.equal(model.sample(8, y, given=given[:1], mask=everything)[7], given[0])
    hidden = model.sample(8, y, generator=seeded(), given=given, mask=~everything)
    assert torch.equal(hidden, model.sample(8, y, generator=seeded()))


@pytest.mark.parametrize(
    ("variant", "num_known"), [("binary", 1), ("binary", 3), ("softmax", 2), ("gaussian", 2)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_completions_of_the_first_pixels_follow_the_exact_conditional(kind, variant, num_known):
    model = build(kind, variant, size=TINY)
    mask = (torch.arange(4) < num_known).view(2, 2)
    given = torch.tensor([[[1, 0], [1, 1]]], dtype=torch.uint8)
    x = model.sample(N, generator=seeded(), given=given[None], mask=mask)
    assert (x == given)[:, :, mask].all()
    images = enumerate_images(model.shape, model.levels)
    possible = ((images == given) | ~mask).flatten(1).all(1)
    joint = torch.where(possible, model.log_prob(images).detach().double().exp(), 0)
    check_law(x, joint / joint.sum(), model.levels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_pixel_is_not_seen_by_the_hidden_ones_before_it(kind):
    model = build(kind, "softmax", size=TINY)
    mask = torch.tensor([[False, True], [False, True]])
    given = torch.tensor([[[0, 3], [0, 1]]], dtype=torch.uint8)
    x = model.sample(N, generator=seeded(), given=given[None], mask=mask)
    images = enumerate_images(model.shape, 4)
    every = level_probabilities(model, images).gather(1, images[:, None].long())[:, 0]
    every[:, :, mask] = (images == given)[:, :, mask].double()
    check_law(x, every.flatten(1).prod(1), 4)


# ---- the callback -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "variant", "temperature"),
    [(*case, 0.5) for case in CASES]
    + [
        (kind, variant, t)
        for kind in KINDS
        for variant in ("binary", "softmax")
        for t in (0.0, 1.0)
    ],
)
def test_the_callback_sees_every_pixel_in_the_order_of_the_visit(kind, variant, temperature):
    model = build(kind, variant)
    y, calls = labels(model, 4), []

    def callback(pixel, values, probabilities):
        calls.append((pixel, values.clone(), probabilities.clone()))

    x = model.sample(4, y, generator=seeded(), temperature=temperature, callback=callback)
    pixels, values, probabilities = zip(*calls)
    assert list(pixels) == model.ordering.tolist() and type(pixels[0]) is int
    assert torch.equal(torch.stack(values, 1).to(torch.uint8), x.flatten(1)[:, model.ordering])
    expected = level_probabilities(model, x, y, temperature).flatten(2)[..., model.ordering]
    found = torch.stack(probabilities, -1).double()  # (n, levels, D) or, for a Bernoulli, (n, D)
    if model.levels == 2:
        expected = expected[:, 1]
    else:
        torch.testing.assert_close(found.sum(1), torch.ones(4, model.dims).double())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# ---- the cost ---------------------------------------------------------------------------------


class Counter(TorchDispatchMode):
    """Counts the operations of torch."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **kwargs or {})


def cost(kind, variant, height, width, **options):
    model = build(kind, variant, size=(height, width))
    with Counter() as preparation:
        with torch.no_grad():
            model._stepper(model.condition(labels(model, 2), 2), 2, model.ordering)
    with Counter() as counter:
        model.sample(2, labels(model, 2), generator=seeded(), **options)
    return counter.count - preparation.count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["binary", "colour, classes"])
def test_a_pixel_costs_the_same_whatever_the_size_of_the_image(kind, variant):
    """Operations: so many per row, so many per pixel. (The first row has none above.)"""
    narrow, wide, wider = (cost(kind, variant, 3, width) for width in (2, 4, 6))
    assert wider - wide == wide - narrow
    low, high, higher = (cost(kind, variant, height, 3) for height in (2, 3, 4))
    assert higher - high == high - low
    naive = cost(kind, variant, 3, 6, naive=True)
    assert naive > (1.2 if kind == "diagonal" else 1) * wider


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["binary", "colour"])
def test_the_rows_above_are_read_once_per_layer_and_per_row(monkeypatch, kind, variant):
    """Plain: the rows above; gated: the vertical stack; Row LSTM: the states above."""
    calls, convolve = [], RowsAbove.convolve
    monkeypatch.setattr(RowsAbove, "convolve", lambda self: calls.append(0) or convolve(self))
    per_row = {"plain": 3, "gated": 3, "row": 1 + 2, "diagonal": 1}[kind]
    for height, width in ((3, 4), (5, 4), (3, 9)):
        calls.clear()
        build(kind, variant, size=(height, width)).sample(2)
        assert len(calls) == per_row * height


def test_unlinked_channels_share_one_computation():
    for kind in KINDS:
        unlinked = cost(kind, "colour, unlinked", 3, 4)
        assert unlinked < cost(kind, "colour", 3, 4)
