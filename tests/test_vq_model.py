"""The VQ-VAE: lookup, copied gradient, moving averages, restarts, bound, prior."""

import copy
import math

import pytest
import torch
from autoregressive_models import random_images, seeded
from vae_models import vqvae

from course_utils import VQVAE, PixelCNN, fit, load
from course_utils.evaluation import enumerate_images
from course_utils.vq import (
    Quantize,
    VectorQuantizer,
    code_dataset,
    code_prior,
    nearest_atoms,
    perplexity,
)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed))


# ---- lookup -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (4, 5, 3, 6), (2, 1, 7, 2)])
@pytest.mark.parametrize("num_codes", [2, 17, 300])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scores_at_once", [2**19, 60])
def test_the_lookup_is_brute_force_in_double_precision(
    monkeypatch, shape, num_codes, layout, scores_at_once
):
    monkeypatch.setattr("course_utils.vq.quantizer.SCORES_AT_ONCE", scores_at_once)
    z = randn(*shape).to(memory_format=layout)
    codebook = randn(num_codes, shape[1], seed=1)
    vectors = z.movedim(1, -1)[..., None, :].double()
    expected = (vectors - codebook.double()).square().sum(-1).argmin(-1)
    codes = nearest_atoms(z, codebook)
    assert codes.dtype == torch.int64 and torch.equal(codes, expected)


def test_a_tie_goes_to_the_smallest_number():
    codebook = torch.tensor([[3.0, 3.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    z = torch.tensor([[1.0, 0.1], [0.0, 0.0]]).T[None, :, None]
    assert nearest_atoms(z, codebook).flatten().tolist() == [1, 1]


# ---- the copied gradient ----------------------------------------------------------------------


def plainly(z_e, codebook, codes):
    """What the docstring of `Quantize` says."""
    e = codebook[codes].movedim(-1, 1)
    z_q = z_e + (e - z_e).detach()
    codebook_loss = (z_e.detach() - e).square().flatten(1).sum(1)
    return z_q, codebook_loss, (z_e - e.detach()).square().flatten(1).sum(1)


@pytest.mark.parametrize("used", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_detach(used, layout):
    z_e = randn(3, 4, 2, 5).double().to(memory_format=layout).requires_grad_()
    codebook = randn(6, 4, seed=1).double().requires_grad_()
    codes = nearest_atoms(z_e.detach(), codebook.detach())
    upstream = [weight * randn(*shape, seed=2).double() for weight, shape in
                zip(used, ((3, 4, 2, 5), (3,), (3,)))]  # fmt: skip
    results = []
    for function in (Quantize.apply, plainly):
        outputs = function(z_e, codebook, codes)
        grads = torch.autograd.grad(
            outputs, (z_e, codebook), upstream, allow_unused=True, materialize_grads=True
        )
        results.append((*outputs, *grads))
    for found, expected in zip(*results):
        torch.testing.assert_close(found, expected)
    assert torch.equal(results[0][0], codebook[codes].movedim(-1, 1)), "the atoms, bit for bit"


# ---- the codebook while it learns -------------------------------------------------------------


def test_moving_averages_are_those_of_the_paper():
    """Appendix A.1: N ← γN + (1 − γ)n, m ← γm + (1 − γ)Σz, e = m / N."""
    quantizer = VectorQuantizer(4, 3, decay=0.8, from_data=False, restart_every=0)
    codebook = quantizer.codebook.copy_(randn(4, 3)).clone()
    quantizer.sums.copy_(codebook)
    counts, sums = torch.ones(4), codebook.clone()
    for step in range(5):
        z = randn(2, 3, 3, 3, seed=step)
        _, codes, _, _ = quantizer(z)
        assert torch.equal(codes, nearest_atoms(z, codebook)), "with the atoms of before"
        vectors = z.movedim(1, -1).flatten(0, 2)
        for k in range(4):
            mine = vectors[codes.flatten() == k]
            counts[k] = 0.8 * counts[k] + 0.2 * len(mine)
            sums[k] = 0.8 * sums[k] + 0.2 * mine.sum(0)
            codebook[k] = sums[k] / counts[k]
        torch.testing.assert_close(quantizer.codebook, codebook)


@pytest.mark.parametrize("ema", [True, False])
def test_a_codebook_is_a_buffer_or_a_parameter_and_rests_in_eval_mode(ema):
    """All that it has learned is in its state: a cut training goes on from there."""
    quantizer = VectorQuantizer(4, 3, ema=ema, restart_every=1).eval()
    codebook, before = quantizer.codebook, copy.deepcopy(quantizer.state_dict())
    averages = {"counts", "sums"} if ema else set()
    assert before.keys() == {"codebook", "started", "steps", "uses"} | averages
    quantizer(randn(2, 3, 3, 3))
    after = quantizer.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    quantizer.train()
    for step in range(3):
        quantizer(randn(2, 3, 4, 4, seed=step))
    assert not torch.equal(codebook, before["codebook"]) and quantizer.codebook is codebook
    assert list(quantizer.parameters()) == ([] if ema else [codebook])


@pytest.mark.parametrize("from_data", [True, False])
@pytest.mark.parametrize("side", [5, 1])
def test_the_first_atoms_are_vectors_of_the_first_batch_or_stay_where_they_were_drawn(
    side, from_data
):
    """And of no other: the second batch finds them there. They are drawn around zero, all apart."""
    torch.manual_seed(0)
    quantizer = VectorQuantizer(6, 3, ema=False, restart_every=0, from_data=from_data)
    drawn, z = quantizer.codebook.detach().clone(), randn(4, 3, side, side)
    assert drawn.abs().max() < 1 / 6 and drawn.min() < 0 < drawn.max()
    assert len(drawn.unique(dim=0)) == 6
    quantizer(z)
    start = quantizer.codebook.detach().clone()
    if from_data:
        vectors = {tuple(vector) for vector in z.movedim(1, -1).flatten(0, 2).tolist()}
        atoms = {tuple(atom) for atom in start.tolist()}
        assert atoms <= vectors and len(atoms) == min(6, len(vectors))
    else:
        assert torch.equal(start, drawn)
    quantizer(randn(4, 3, side, side, seed=1))
    assert torch.equal(quantizer.codebook, start)


def test_two_atoms_of_one_dimension_are_enough():
    _, codes, _, _ = VectorQuantizer(2, 1)(randn(1, 1, 2, 2))
    assert set(codes.flatten().tolist()) == {0, 1}


FEW = [0.1, -0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 9.0]  # atom 0 serves seven, atom 1 one, atom 2 none
NONE = FEW[:-1] + [0.0]  # atom 0 serves them all


@pytest.mark.parametrize(("second", "moved"), [(FEW, [2]), (NONE, [1, 2])])
def test_atoms_that_hardly_serve_are_moved_when_it_is_time(second, moved):
    """Every two steps, below 1.3: from the uses of both, 14 and 2, or 15 and 1; 5.3 on average."""
    quantizer = VectorQuantizer(3, 1, from_data=False, restart_every=2, ema=False)
    start = torch.tensor([[0.0], [10.0], [500.0]])
    with torch.no_grad():
        quantizer.codebook.copy_(start)
    quantizer(torch.tensor(FEW)[None, None, None])
    assert torch.equal(quantizer.codebook, start), "not yet"
    quantizer(torch.tensor(second)[None, None, None])
    found = (quantizer.codebook != start).flatten().nonzero().flatten().tolist()
    assert found == moved
    vectors = torch.tensor(second).tolist()
    assert all(quantizer.codebook[k].item() in vectors for k in moved)
    assert quantizer.uses.tolist() == [0, 0, 0]


@pytest.mark.parametrize("restart_every", [0, 5])
def test_restarts_make_a_collapsed_codebook_recover(restart_every):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(32, 2, from_data=False, restart_every=restart_every)
    quantizer.codebook.copy_(torch.full((32, 2), 40.0))
    quantizer.codebook[0] = 0.0
    quantizer.sums.copy_(quantizer.codebook)
    z = randn(8, 2, 8, 8)
    for _ in range(20):
        quantizer(z)
    reached = perplexity(quantizer.eval()(z)[1], 32)
    assert reached > 16 if restart_every else reached == pytest.approx(1)


# ---- the auto-encoder -------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize(
    ("likelihood", "levels"),
    [("bernoulli", 2), ("categorical", 5), ("gaussian", 256), ("laplace", 256)],
)
def test_the_loss_is_that_of_the_paper(likelihood, levels, ema):
    model = vqvae((3, 8, 12), likelihood=likelihood, levels=levels, ema=ema, beta=0.7)
    x = random_images(model, 6)
    z_e, codes = model.embed_images(x), model.encode(x)
    assert codes.shape == (6, *model.code_shape) == (6, 1, 2, 3) and codes.dtype == torch.uint8
    z_q = model.embed(codes)
    assert torch.equal(model.decode_codes(codes), model.decode(z_q))
    distance = (z_e - z_q).square().flatten(1).sum(1)
    expected = -model.log_likelihood(x, z_q) + (0.7 if ema else 1.7) * distance
    torch.testing.assert_close(model.loss(x), expected.mean())


@pytest.mark.parametrize("with_prior", [False, True])
def test_the_bound_is_under_the_enumerated_truth(with_prior):
    """p(x) = Σ P(codes) p(x | codes) over the nine maps of two codes."""
    model = vqvae((1, 4, 8))
    prior = None
    if with_prior:
        torch.manual_seed(1)
        prior = PixelCNN(model.code_shape, levels=3, features=6, layers=2, first_kernel_size=3)
    x, maps = random_images(model, 20), enumerate_images(model.code_shape, 3)
    with torch.no_grad():
        log_prior = torch.full((9,), -2 * math.log(3)) if prior is None else prior.log_prob(maps)
        joint = log_prior[:, None] + torch.stack(
            [model.log_likelihood(x, model.embed(code.expand(20, -1, -1, -1))) for code in maps]
        )
        truth, bound = torch.logsumexp(joint, 0), model.elbo(x, prior=prior)
    assert (bound < truth).all()
    matches = (joint - bound).abs().amin(0)
    assert matches.max() < 1e-4, "the bound is one term of the sum"


def test_one_code_changes_only_the_pixels_around_it():
    model = vqvae((1, 28, 28))
    codes = torch.zeros(2, *model.code_shape, dtype=torch.uint8)
    codes[1, 0, 3, 3] = 1
    before, after = model.decode_codes(codes)
    rows, columns = (before != after)[0].nonzero().unbind(1)
    # 3×3 at 7×7, then two 4×4 of stride 2: 18 pixels
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 22, 5, 22)


def test_samples_follow_their_prior():
    model = vqvae((1, 4, 8))

    class Always:
        """A prior that only knows one map per class, and notes what it is asked."""

        def sample(self, n, y=None, *, temperature=1.0, generator=None):
            self.asked = n, y, temperature
            return torch.full((n, *model.code_shape), 2, dtype=torch.uint8)

    prior = Always()
    draws = [model.sample(5, 1, prior=prior, temperature=0.5, generator=seeded()) for _ in range(2)]
    assert prior.asked == (5, 1, 0.5) and torch.equal(*draws)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VectorQuantizer(1, 3), "num_codes=1: expected at least two"),
        (lambda: VectorQuantizer(4, 0), "code_dim=0: expected at least one"),
        (lambda: VectorQuantizer(4, 3, decay=1.0), "decay=1.0: expected"),
        (lambda: VectorQuantizer(4, 3, restart_every=-1), "restart_every=-1: expected a number"),
        (lambda: VectorQuantizer(4, 3)(randn(1, 2, 3, 3)), r"expected vectors \(B, 3, h, w\)"),
        (lambda: VQVAE((1, 8, 14)), "multiple of 4"),
        (lambda: VQVAE((1, 8, 8), num_codes=257), "num_codes=257: expected at most 256"),
        (lambda: VQVAE((1, 8, 8), beta=-1), "beta=-1: the weight of the commitment"),
        (lambda: vqvae().decode_codes(torch.full((1, 1, 1, 2), 3)), "expected pixels in"),
        (lambda: vqvae().decode_codes(torch.zeros(1, 1, 5, 5).byte()), "expected images"),
        (lambda: vqvae().sample(5, 1), "no condition"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- with data --------------------------------------------------------------------------------


def test_a_short_training_rebuilds_the_digits_and_its_codes_are_data_for_a_prior():
    data = load("digits", size=28, levels=2, copies=0)
    recipe = {"batch_size": 32, "progress": False}
    torch.manual_seed(0)
    model = VQVAE(data.shape, features=16)
    fit(model, data, steps=120, lr=8e-3, val_every=120, **recipe)
    x, y, codes = data.test.images, data.test.labels, code_dataset(model, data)
    assert codes.shape == model.code_shape == (1, 7, 7) and codes.levels == 64
    assert torch.equal(codes.test.images, model.encode(x))
    assert torch.equal(codes.val.labels, data.val.labels)
    assert perplexity(codes.test.images, 64) > 25
    with torch.no_grad():
        error = (model.decode_codes(codes.test.images) - x.float()).square().mean()
    # Measured on seeds 0 to 2: 0.33 to 0.38, with 43 to 46 atoms; the prior, 0.57 to 0.61
    assert error < 0.45 * x.float().var(0).mean()
    torch.manual_seed(0)
    prior = code_prior(model, num_classes=10, features=12, layers=2)
    atoms = prior.embedding
    torch.testing.assert_close(atoms.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    assert atoms.std().item() == pytest.approx(1, abs=1e-4)
    fit(prior, codes, conditional=True, steps=50, lr=1e-2, val_every=50, **recipe)
    with torch.no_grad():
        nats = -prior.log_prob(codes.test.images, y).mean()
        bound, uniform = model.elbo(x, y, prior=prior).mean(), model.elbo(x).mean()
    assert nats < 0.8 * 49 * math.log(64)
    assert (bound - uniform).item() == pytest.approx(49 * math.log(64) - nats.item(), abs=1e-2)


# ---- perplexity -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_perplexity_counts_the_atoms_that_serve(dtype):
    assert perplexity(torch.arange(12, dtype=dtype).view(3, 4), 12) == pytest.approx(12)
    assert perplexity(torch.full((5,), 3, dtype=dtype), 12) == pytest.approx(1)
    half = torch.tensor([0, 0, 1, 2], dtype=dtype)
    assert perplexity(half, 12) == pytest.approx(math.exp(1.5 * math.log(2)))
