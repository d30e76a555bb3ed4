"""NADE: its recursion, by hand; the lean one, value for value and gradient for gradient."""

import math

import pytest
import torch
from autoregressive_models import CLASSES, SHAPE, build, labels, random_images, seeded

from course_utils.autoregressive import NADE
from course_utils.autoregressive.nade import LeanRecursion, recursion


@pytest.mark.parametrize("num_classes", [None, CLASSES])
@pytest.mark.parametrize("kind", ["NADE, lean", "NADE, plain"])
def test_the_log_odds_are_those_of_the_paper(kind, num_classes):
    """Every hidden layer from scratch: aᵢ = c + Σ_{j before i} W[j] xⱼ, then V[i]·σ(aᵢ) + b[i]."""
    model = build(kind, num_classes)
    x, y = random_images(model), labels(model, 10)
    found, visit = model.logits(x, y).flatten(1), model.ordering.tolist()
    W, V, b, c = (getattr(model, name).tolist() for name in "WVbc")
    for n, image in enumerate(x.flatten(1).tolist()):
        for step, i in enumerate(visit):
            odds = b[i]
            if num_classes is not None:
                odds += model.class_b[y[n], i].item()
            for k in range(len(c)):
                a = c[k] + sum(W[j][k] * image[j] for j in visit[:step])
                if num_classes is not None:
                    a += model.class_c[y[n], k].item()
                odds += V[i][k] / (1 + math.exp(-a))
            assert found[n, i].item() == pytest.approx(odds, abs=1e-5)


def inputs(dims=12, batch=5, hidden=4, dtype=torch.float32, seed=0):
    """x, a, W, V; some pixels are 0 in all the images, the first and the last among them."""
    generator = seeded(seed)
    x = torch.randint(0, 2, (dims, batch), generator=generator).to(dtype)
    x[[0, 3, 4, dims - 1]] = 0
    numbers = [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((batch, hidden), (dims, hidden), (dims, hidden))
    ]
    return x, *numbers


def check_lean_is_plain(tensors, weights, tolerance):
    """Value for value, gradient for gradient, up to a share of the largest."""
    x, *parameters = tensors
    results = []
    for function in (LeanRecursion.apply, recursion):
        out = function(x, *parameters)
        results.append((out, *torch.autograd.grad(out, parameters, weights)))
    for found, expected in zip(*results):
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("pixels", ["some black columns", "all black", "all white"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_lean_is_plain(dtype, tolerance, pixels):
    """Even for a gradient that is not contiguous."""
    x, *parameters = inputs(dtype=dtype)
    if pixels != "some black columns":
        x.fill_(pixels == "all white")
    weights = torch.randn(x.shape[::-1], generator=seeded(1)).to(dtype)
    check_lean_is_plain((x, *parameters), weights.T, tolerance)


def test_lean_is_plain_on_784_pixels():
    """The backward pass finds its hidden layers again: 784 subtractions later, still the same."""
    x, a, W, V = inputs(784, batch=8, hidden=30)
    with torch.no_grad():
        W.mul_(0.2)
    check_lean_is_plain((x, a, W, V), torch.randn(x.shape, generator=seeded(1)), 1e-5)


def test_lean_modifies_no_input_and_can_be_walked_back_twice():
    tensors = inputs()
    copies = [tensor.detach().clone() for tensor in tensors]
    out = LeanRecursion.apply(*tensors)
    weights = torch.randn(out.shape, generator=seeded(1))
    weights_copy = weights.clone()
    first, second = (
        torch.autograd.grad(out, tensors[1:], weights, retain_graph=True) for _ in range(2)
    )
    for one, other in zip(first, second):
        assert torch.equal(one, other)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies))
    assert torch.equal(weights, weights_copy)


def test_lean_gives_no_gradient_to_the_pixels_and_says_so():
    x, a, W, V = inputs()
    out = LeanRecursion.apply(x.requires_grad_(), a, W, V)
    with pytest.raises(NotImplementedError, match=r"no gradient .* pixels.*NADE\(lean=False\)"):
        out.sum().backward()


def test_lean_keeps_one_hidden_layer_in_memory():
    """What autograd saves is of the size of the parameters, not D times a hidden layer."""
    saved = {}

    def pack(tensor):
        saved[tensor.data_ptr()] = tensor.numel()
        return tensor

    sizes = {}
    for lean in (True, False):
        model = NADE((1, 10, 10), hidden=50, lean=lean)
        x = random_images(model, 64)
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.loss(x)
        sizes[lean] = sum(saved.values())
    assert sizes[True] < 64 * 50 + 5 * 100 * 64 + 2 * 100 * 50
    assert sizes[False] > 100 * 64 * 50


def test_the_first_weights_are_spread_by_the_number_of_pixels():
    model = NADE((1, 10, 10), hidden=400)
    for weights in (model.W, model.V):
        assert weights.abs().max().item() == pytest.approx(0.1, rel=0.01)
        assert weights.mean().item() == pytest.approx(0, abs=0.002)
    assert NADE(SHAPE).W.shape == (6, 500)
    assert not model.b.any() and not model.c.any()
