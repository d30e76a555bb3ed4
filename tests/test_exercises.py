"""The self-checks accept right answers, however written, and reject the typical wrong ones."""

import ast
import inspect
import itertools
import linecache
import math
import signal
from decimal import Decimal, localcontext
from fractions import Fraction

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exercise_answers import accepted, refused, verdict
from notebook_files import NOTEBOOKS, tagged

from course_utils import exercises, likelihoods
from course_utils.autoregressive import FVSBN, MADE, NADE
from course_utils.autoregressive.nade import recursion
from course_utils.cvae import visible_part
from course_utils.evaluation import enumerate_images
from course_utils.exercises import Exercise, harness, hint, solution, verify
from course_utils.exercises.harness import Wrong
from course_utils.language import trn
from course_utils.vae import kl_between_gaussians, reparameterize

pytestmark = pytest.mark.usefixtures("no_hint_seen")
KEYS = sorted(exercises.exercises())
KL, LOSS, AGGREGATE, LAPLACE = (
    exercises.exercises()[key].reference
    for key in ("01.kl", "01.sum_mean", "01.aggregate", "01.laplace")
)
JOIN, GRID = (exercises.exercises()[key].reference for key in ("02.join", "02.grid"))
COUNT, LOGITS, MASKS, ENSEMBLE, ENCODE = (
    exercises.exercises()[f"03a.{name}"].reference
    for name in ("count", "recursion", "masks", "ensemble", "encode")
)


# ---- the references ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_the_reference_is_accepted_and_the_random_stream_is_left_alone(key, capsys):
    def answer(*args):  # the reference itself is not an answer
        return exercises.exercises()[key].reference(*args)

    state = torch.get_rng_state()
    assert verify(key, answer) is answer
    assert torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr().out.startswith(f"✔ {key} : ")


# ---- right answers -----------------------------------------------------------------------------


def kl_by_distributions(mu, logvar):
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    p = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    return torch.distributions.kl_divergence(q, p).sum(-1)


def kl_with_numpy(mu, logvar):
    mu, logvar = mu.numpy(), logvar.numpy()
    return -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1)


def kl_as_a_list(mu, logvar):
    return [
        sum(0.5 * (m * m + math.exp(v) - 1 - v) for m, v in zip(row_mu, row_v))
        for row_mu, row_v in zip(mu.tolist(), logvar.tolist())
    ]


def kl_in_place(mu, logvar):
    """Ugly, but right: the check must not be fooled by answers that edit their input."""
    result = logvar.exp().sub_(logvar).sub_(1)
    result += mu.pow_(2)
    return result.sum(1).div_(2)


def loss_by_sum_over_batch_size(logits, x, mu, logvar):
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (bce - 0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp())) / len(x)


def loss_by_scaled_mean(logits, x, mu, logvar):
    bce = F.binary_cross_entropy_with_logits(logits, x) * x[0].numel()
    return bce + kl_by_distributions(mu, logvar).mean()


def aggregate_by_mean(z, mu, logvar):
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    return q.log_prob(z[:, None]).sum(-1).exp().mean(1).log()


def aggregate_by_mixture(z, mu, logvar):
    parts = torch.distributions.Independent(torch.distributions.Normal(mu, (0.5 * logvar).exp()), 1)
    weights = torch.distributions.Categorical(logits=torch.zeros(len(mu), dtype=mu.dtype))
    return torch.distributions.MixtureSameFamily(weights, parts).log_prob(z)


def laplace_by_distributions(x, x_hat, b, mu, logvar):
    log_likelihood = torch.distributions.Laplace(x_hat, b).log_prob(x).sum(1)
    return log_likelihood - kl_by_distributions(mu, logvar)


# ---- right answers to notebook 02 -------------------------------------------------------------


def join_row_by_row(z, labels, num_classes):
    rows = []
    for code, label in zip(z, labels):
        one_hot = torch.zeros(num_classes)
        one_hot[label] = 1
        rows.append(torch.cat([code, one_hot]))
    return torch.stack(rows)


def join_in_place(z, labels, num_classes):
    d = z.shape[1]
    result = torch.zeros(len(z), d + num_classes)
    result[:, :d] = z
    result[torch.arange(len(z)), d + labels] = 1
    return result


def join_with_numpy_eye(z, labels, num_classes):
    return torch.cat([z, torch.from_numpy(np.eye(num_classes)[labels])], dim=1)


def join_by_comparison(z, labels, num_classes):
    return torch.hstack([z, labels[:, None] == torch.arange(num_classes)])


def join_with_scatter(z, labels, num_classes):
    one_hot = torch.zeros(len(z), num_classes).scatter_(1, labels[:, None], 1.0)
    return torch.concat([z, one_hot], axis=-1)


def elbo_in_one_logarithm(q, prior, likelihood):
    return (q * torch.log(prior * likelihood / q)).sum()


def elbo_by_distributions(q, prior, likelihood):
    q_z, p_z = torch.distributions.Categorical(q), torch.distributions.Categorical(prior)
    return q @ likelihood.log() - torch.distributions.kl_divergence(q_z, p_z)


def elbo_by_kl_div(q, prior, likelihood):
    return q @ likelihood.log() - F.kl_div(prior.log(), q, reduction="sum")


def elbo_by_the_gap(q, prior, likelihood):
    evidence = (prior * likelihood).sum()
    posterior = prior * likelihood / evidence
    return evidence.log() - (q * (q / posterior).log()).sum()


def elbo_with_a_loop(q, prior, likelihood):
    total = 0.0
    for k in range(len(q)):
        total += q[k] * (torch.log(likelihood[k]) - torch.log(q[k] / prior[k]))
    return total


def elbo_with_numpy(q, prior, likelihood):
    q, prior, likelihood = q.numpy(), prior.numpy(), likelihood.numpy()
    return np.sum(q * (np.log(likelihood) + np.log(prior) - np.log(q)))


def elbo_that_insists_on_float32(q, prior, likelihood):
    return (q * torch.log(prior * likelihood / q)) @ torch.ones(len(q))


def elbo_with_item(q, prior, likelihood):
    return torch.sum(q * (torch.log(prior * likelihood) - torch.log(q))).item()


def elbo_with_a_loop_of_math_log(q, prior, likelihood):
    total = 0
    for q_z, p_z, p_x in zip(q.tolist(), prior.tolist(), likelihood.tolist()):
        total += q_z * (math.log(p_x) - math.log(q_z / p_z))
    return total


def grid_row_by_row(model, z):
    rows = [model.decode(z, torch.full((len(z),), k)) for k in range(10)]
    return torch.cat(rows)


def grid_cell_by_cell(model, z):
    page = torch.zeros(10 * len(z), *model.shape)
    for k in range(10):
        for j in range(len(z)):
            page[k * len(z) + j] = model.decode(z[j : j + 1], torch.tensor([k]))[0]
    return page


def grid_column_by_column(model, z):
    columns = [model.decode(code.expand(10, -1), torch.arange(10)) for code in z]
    return torch.stack(columns, dim=1).flatten(0, 1)


def grid_of_class_weights(model, z):
    weights = torch.eye(10).repeat_interleave(len(z), dim=0)
    return model.decode(z.tile(10, 1), weights)


def grid_as_an_array(model, z):
    with torch.no_grad():
        rows = [model.decode(z, torch.tensor([k])).numpy() for k in range(10)]
    return np.concatenate(rows)


def grid_by_the_decoder(model, z):
    k, j = torch.meshgrid(torch.arange(10), torch.arange(len(z)), indexing="ij")
    k, j = k.flatten(), j.flatten()
    return torch.sigmoid(model.decoder(z[j], model.condition(k, len(k)))[:, 0])


def complete_with_the_library(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    mu, logvar = prior(c)
    p = decode(reparameterize(mu.expand(n, -1), logvar.expand(n, -1)), c)
    return torch.where(mask, x, torch.bernoulli(p).to(torch.uint8))


def complete_with_distributions(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    mu, logvar = prior(c)
    z = torch.distributions.Normal(mu[0], torch.exp(0.5 * logvar[0])).sample((n,))
    pixels = torch.distributions.Bernoulli(decode(z, c)).sample()
    return mask * x + ~mask * pixels


def complete_with_a_loop_over_codes(x, mask, n, prior, decode):
    c = visible_part(x[None], mask).repeat(n, 1, 1, 1)
    mu, logvar = prior(c[:1])
    z = torch.cat([mu + logvar.exp().sqrt() * torch.randn_like(mu) for _ in range(n)])
    images = decode(z, c)
    images = (torch.rand_like(images) < images).float()
    images[:, :, mask] = x[:, mask].float()
    return images


def complete_pixel_by_pixel(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    mu, logvar = prior(c)
    p = decode(torch.normal(mu.expand(n, -1), logvar.mul(0.5).exp().expand(n, -1)), c)
    images = x.float().repeat(n, 1, 1, 1)
    for row, column in torch.nonzero(~mask).tolist():
        for image, probability in zip(images, p):
            image[0, row, column] = float(torch.rand(()) < probability[0, row, column])
    return images


def complete_with_numpy_draws(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    mu, logvar = (t.numpy() for t in prior(c))
    random = np.random.default_rng(0)
    z = random.normal(mu, np.exp(0.5 * logvar), (n, mu.shape[1])).astype(np.float32)
    return np.where(mask, x, random.binomial(1, decode(torch.from_numpy(z), c).numpy()))


def complete_one_by_one(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    mu, logvar = prior(c)
    images = []
    for _ in range(n):
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        images.append(torch.where(mask, x, torch.bernoulli(decode(z, c))))
    return torch.cat(images)


def complete_all_over_again_each_time(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    draw = torch.distributions.Bernoulli
    images = [draw(decode(reparameterize(*prior(c)), c)).sample() for _ in range(n)]
    return torch.where(mask, x, torch.cat(images))


def complete_with_names_after_a_try(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    mu, logvar = prior(c=c)
    assert decode(mu, c=c).shape[2:] == mask.shape
    p = decode(c=c, z=reparameterize(mu.expand(n, -1), logvar.expand(n, -1)))
    return torch.where(mask, x.float(), torch.bernoulli(p))


def complete_with_repeated_conditions(x, mask, n, prior, decode):
    c = visible_part(x.repeat(n, 1, 1, 1), mask)
    return torch.where(mask, x, torch.bernoulli(decode(reparameterize(*prior(c)), c)))


def cvae_loss_with_the_library(x, c, encode, prior, decode):
    mu, logvar = encode(x, c)
    log_p = likelihoods.bernoulli(x, decode(reparameterize(mu, logvar), c))
    return (kl_between_gaussians(mu, logvar, *prior(c)) - likelihoods.sum_pixels(log_p)).mean()


def cvae_loss_by_distributions(x, c, encode, prior, decode):
    q, p = (
        torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
        for mu, logvar in (encode(x, c), prior(c))
    )
    log_p = torch.distributions.Bernoulli(logits=decode(q.rsample(), c)).log_prob(x)
    return torch.distributions.kl_divergence(q, p).sum(1).mean() - log_p.sum((1, 2, 3)).mean()


def cvae_loss_by_sums(x, c, encode, prior, decode):
    (mu_q, logvar_q), (mu_p, logvar_p) = encode(x, c), prior(c)
    sigma_q, sigma_p = logvar_q.mul(0.5).exp(), logvar_p.mul(0.5).exp()
    logits = decode(torch.randn_like(mu_q) * sigma_q + mu_q, c)
    bce = F.binary_cross_entropy(torch.sigmoid(logits), x, reduction="sum")
    kl = torch.log(sigma_p / sigma_q) + (sigma_q**2 + (mu_q - mu_p) ** 2) / (2 * sigma_p**2) - 0.5
    return (bce + kl.sum()) / x.shape[0]


def cvae_loss_in_place(x, c, encode, prior, decode):
    (mu_q, logvar_q), (mu_p, logvar_p) = encode(x, c), prior(c)
    z = torch.randn_like(mu_q).mul_(torch.exp(0.5 * logvar_q)).add_(mu_q)
    costs = F.binary_cross_entropy_with_logits(decode(z, c), x.float(), reduction="none")
    costs = costs.flatten(1).sum(1)
    kl = (mu_q - mu_p).pow_(2).div_(logvar_p.exp())
    kl += (logvar_q - logvar_p).exp()
    kl -= 1
    kl -= logvar_q - logvar_p
    costs += kl.sum(1).div_(2)
    return costs.mean()


def cvae_loss_image_by_image(x, c, encode, prior, decode):
    pairs = zip(x.split(1), c.split(1))
    return torch.stack(
        [cvae_loss_with_the_library(*pair, encode, prior, decode) for pair in pairs]
    ).mean()


# ---- right answers to notebook 03a ------------------------------------------------------------


def total_with_itertools(log_prob, shape):
    images = list(itertools.product((0, 1), repeat=math.prod(shape)))
    return sum(map(math.exp, log_prob(torch.tensor(images).view(-1, *shape)).tolist()))


def total_one_image_at_a_time(log_prob, shape):
    total, dims = 0.0, math.prod(shape)
    for number in range(2**dims):
        bits = torch.tensor([number >> i & 1 for i in range(dims)], dtype=torch.uint8)
        total += log_prob(bits.view(1, *shape)).exp().item()
    return total


def total_by_logsumexp(log_prob, shape):
    return torch.logsumexp(log_prob(enumerate_images(shape)), dim=0).exp()


def total_below_the_largest(log_prob, shape):
    images = enumerate_images(shape)
    largest = log_prob(images).max()
    return np.asarray(largest.exp() * (log_prob(x=images) - largest).exp().sum())


def total_with_numpy(log_prob, shape):
    numbers = np.arange(2 ** math.prod(shape))[:, None]
    bits = (numbers >> np.arange(math.prod(shape))) % 2
    return np.exp(log_prob(torch.from_numpy(bits.reshape(-1, *shape))).numpy()).sum()


def total_in_batches_of_float32(log_prob, shape):
    batches = enumerate_images(shape).bool().split(100)
    return torch.stack([log_prob(x).float().exp().sum() for x in batches]).sum()


def count_with_loops(D, H):
    fvsbn = sum((i - 1) + 1 for i in range(1, D + 1))
    unshared = sum(H * (i - 1) + H + H + 1 for i in range(1, D + 1))
    return fvsbn, unshared, 2 * D * H + D + H


def count_the_models_weights(D, H):
    fvsbn, nade = FVSBN((1, 1, D)), NADE((1, 1, D), hidden=H)
    each = torch.arange(D) * H + 2 * H + 1  # what pixels 1, …, D own without sharing
    shared = sum(weights.numel() for weights in nade.parameters())
    return [fvsbn.mask().sum() + fvsbn.b.numel(), each.sum(), shared]


def count_as_a_tensor_of_floats(D, H):
    return torch.tensor(
        [D * (D + 1) / 2, H * D * (D - 1) / 2 + (2 * H + 1) * D, (2 * D + 1) * H + D],
        dtype=torch.float64,
    )


def count_with_numpy(D, H):
    before = np.arange(D)
    return np.array([(before + 1).sum(), (H * (before + 2) + 1).sum(), D * H * 2 + D + H])


def nade_in_place(x, W, V, b, c):
    a, logits = c.repeat(len(x), 1), b.repeat(len(x), 1)
    for i in range(x.shape[1]):
        logits[:, i] += torch.mv(a.sigmoid(), V[i])
        a += torch.outer(x[:, i], W[i])
    return logits


def nade_with_cumsum(x, W, V, b, c):
    added = x[:, :, None] * W  # (B, D, H)
    return (torch.sigmoid(c + added.cumsum(1) - added) * V).sum(2) + b


def nade_image_by_image(x, W, V, b, c):
    rows = []
    for image in x:
        a, row = c, []
        for i, pixel in enumerate(image.tolist()):
            row.append(torch.dot(1 / (1 + torch.exp(-a)), V[i]) + b[i])
            a = a + W[i] if pixel else a
        rows.append(torch.stack(row))
    return torch.stack(rows)


def nade_with_the_library(x, W, V, b, c):
    return recursion(x.T, c.expand(len(x), -1), W, V).T + b


def nade_that_insists_on_float32(x, W, V, b, c):
    return LOGITS(x, W, V, b, (torch.ones(1, 1) @ c[None])[0])


def masks_with_loops_of_integers(ordering, m):
    rank = {pixel: step + 1 for step, pixel in enumerate(ordering.tolist())}
    M_W = [[int(unit >= rank[pixel]) for pixel in range(len(rank))] for unit in m.tolist()]
    M_V = [[int(rank[pixel] > unit) for unit in m.tolist()] for pixel in range(len(rank))]
    return M_W, M_V


def masks_with_numpy_floats(ordering, m):
    d, m = np.argsort(ordering.numpy()) + 1, m.numpy()
    return np.greater_equal.outer(m, d).astype(np.float32), np.subtract.outer(d, m) > 0


def masks_written_in_the_inverse(ordering, m):
    d = torch.empty_like(ordering)
    d[ordering] = torch.arange(1, len(ordering) + 1)
    return [(m[:, None] >= d).int(), (d[:, None] > m).int()]


def masks_that_complete_each_other(ordering, m):
    M_W = m[:, None] > ordering.argsort()
    return M_W, ~M_W.T


def masks_of_the_library(ordering, m):
    model = MADE((1, 1, len(ordering)), hidden=(len(m),), ordering=ordering)
    model.degrees0.copy_(m)
    (M_W,), M_V, _ = model.masks(ordering)
    return M_W, M_V


def masks_step_by_step(ordering, m):
    M_W = torch.zeros(len(m), len(ordering))
    M_V = torch.zeros(len(ordering), len(m))
    for step, pixel in enumerate(ordering):
        M_W[m > step, pixel] = 1
        M_V[pixel, m <= step] = 1
    return M_W, M_V


def ensemble_by_distributions(logits, x):
    orders = torch.distributions.Categorical(torch.ones(len(logits)))
    pixels = torch.distributions.Bernoulli(logits=logits.transpose(0, 1))
    images = torch.distributions.Independent(pixels, 1)
    return torch.distributions.MixtureSameFamily(orders, images).log_prob(x)


def ensemble_with_numpy(logits, x):
    logits, x = logits.numpy(), x.numpy()
    log_p = -np.logaddexp(0, (1 - 2 * x) * logits).sum(axis=2)
    return np.logaddexp.reduce(log_p, axis=0) - np.log(len(logits))


def ensemble_around_the_best_order(logits, x):
    costs = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
    log_p = -costs.sum(-1)
    best = log_p.amax(0)
    return best + (log_p - best).exp().mean(0).log()


def ensemble_order_by_order(logits, x):
    total = torch.full((len(x),), -math.inf)
    for of_one_order in logits:
        log_p = torch.distributions.Bernoulli(logits=of_one_order).log_prob(x).sum(1)
        total = torch.logaddexp(total, log_p - math.log(len(logits)))
    return total


def ensemble_in_float32(logits, x):
    return ENSEMBLE(logits.float(), x.float())


def ensemble_that_insists_on_float32(logits, x):
    log_p = (x * logits - F.softplus(logits)).sum(-1)
    best = log_p.amax(0)
    return best + torch.log(torch.full((len(logits),), 1 / len(logits)) @ (log_p - best).exp())


def ensemble_as_a_list(logits, x):
    answers = []
    for k in range(len(x)):
        signs = [1 if pixel else -1 for pixel in x[k].tolist()]
        log_p = [
            -sum(math.log1p(math.exp(-sign * odds)) for sign, odds in zip(signs, row))
            for row in logits[:, k].tolist()
        ]
        terms = [math.exp(value - max(log_p)) for value in log_p]
        answers.append(max(log_p) + math.log(sum(terms) / len(terms)))
    return answers


def encode_with_integers(bits, probabilities):
    """The interval in units so small that every bound is an integer."""
    low, width, unit = 0, 1, 1
    for bit, p in zip(bits, probabilities):
        ones, parts = p.as_integer_ratio()
        ones *= width
        low, width, unit = low * parts, width * parts, unit * parts
        low, width = (low, ones) if bit else (low + ones, width - ones)
    for length in itertools.count():
        step = Fraction(unit, 2**length)
        first = -(-low // step)
        if first * step < low + width:
            return bin(first)[2:].zfill(length) if length else ""


def encode_backwards(bits, probabilities):
    """From the last bit to the first: each puts what follows in its own part of [0, 1)."""
    low, width = Fraction(0), Fraction(1)
    for bit, p in reversed(list(zip(bits, probabilities))):
        start, share = (Fraction(0), Fraction(p)) if bit else (Fraction(p), 1 - Fraction(p))
        low, width = start + share * low, share * width
    return digits_under(low, low + width)


def digits_under(low, high):
    """Digit by digit, the largest fraction under `high`, until it has passed `low`."""
    code, value, step = [], 0, Fraction(1, 2)
    while value < low:
        code.append(int(value + step < high))
        value, step = value + code[-1] * step, step / 2
    return code


def encode_the_middle(bits, probabilities):
    """Not the shortest, but at most 2 bits too long: the middle of the interval, rounded down."""
    low, high = Fraction(0), Fraction(1)
    for bit, p in zip(bits, probabilities):
        cut = low + (high - low) * Fraction(p)
        low, high = (low, cut) if bit else (cut, high)
    length = 1
    while Fraction(1, 2**length) > (high - low) / 2:
        length += 1
    code = (low + high) / 2 * 2**length // 1
    return list(format(code, f"0{length}b"))


def encode_with_decimals(bits, probabilities):
    with localcontext() as context:
        context.prec = 3000
        low, width = Decimal(0), Decimal(1)
        for bit, p in zip(bits, probabilities):
            ones = width * Decimal(p)
            low, width = (low, ones) if bit else (low + ones, width - ones)
        return digits_under(Fraction(low), Fraction(low + width))


# ---- all of them ------------------------------------------------------------------------------


class KLAsAnObject:
    def __call__(self, mu, logvar):
        return KL(mu, logvar)


def kl_that_insists_on_float32(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar) @ torch.ones(mu.shape[1])


def kl_for_an_older_torch(mu, logvar):
    """Its message names no « dtype »: what an answer needs is not to be read there."""
    if mu.dtype != torch.float32:
        raise RuntimeError("expected scalar type Float but found Double")
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)


def laplace_in_place(x, x_hat, b, mu, logvar):
    kl = 0.5 * (mu.pow_(2) + logvar.exp() - 1 - logvar).sum(1)
    return -(x.sub_(x_hat).abs_() / b + math.log(2 * b)).sum(1) - kl


RIGHT = [
    ("00.bits", lambda nats: math.log2(math.e) * nats),
    ("00.bits", lambda nats: np.float32(nats) / np.log(2)),
    ("01.kl", kl_by_distributions),
    ("01.kl", kl_that_insists_on_float32),
    ("01.kl", kl_for_an_older_torch),
    ("01.kl", KLAsAnObject()),
    ("01.sum_mean", loss_by_sum_over_batch_size),
    ("01.sum_mean", loss_by_scaled_mean),
    ("01.aggregate", aggregate_by_mixture),
    ("01.laplace", laplace_by_distributions),
    ("02.join", join_row_by_row),
    ("02.join", join_in_place),
    ("02.join", join_by_comparison),
    ("02.join", join_with_scatter),
    ("02.elbo", elbo_in_one_logarithm),
    ("02.elbo", elbo_by_distributions),
    ("02.elbo", elbo_by_kl_div),
    ("02.elbo", elbo_by_the_gap),
    ("02.elbo", elbo_with_a_loop),
    ("02.elbo", elbo_with_numpy),
    ("02.elbo", elbo_that_insists_on_float32),
    ("02.elbo", elbo_with_item),
    ("02.elbo", elbo_with_a_loop_of_math_log),
    ("02.grid", grid_row_by_row),
    ("02.grid", grid_cell_by_cell),
    ("02.grid", grid_column_by_column),
    ("02.grid", grid_of_class_weights),
    ("02.grid", grid_by_the_decoder),
    ("02.complete", complete_with_the_library),
    ("02.complete", complete_with_distributions),
    ("02.complete", complete_with_a_loop_over_codes),
    ("02.complete", complete_pixel_by_pixel),
    ("02.complete", complete_one_by_one),
    ("02.complete", complete_all_over_again_each_time),
    ("02.complete", complete_with_repeated_conditions),
    ("02.complete", complete_with_names_after_a_try),
    ("02.prior", cvae_loss_with_the_library),
    ("02.prior", cvae_loss_by_distributions),
    ("02.prior", cvae_loss_by_sums),
    ("02.prior", cvae_loss_in_place),
    ("02.prior", cvae_loss_image_by_image),
    ("03a.total", total_with_itertools),
    ("03a.total", total_one_image_at_a_time),
    ("03a.total", total_by_logsumexp),
    ("03a.total", total_with_numpy),
    ("03a.total", total_below_the_largest),
    ("03a.total", total_in_batches_of_float32),
    ("03a.count", count_with_loops),
    ("03a.recursion", nade_in_place),
    ("03a.recursion", nade_with_cumsum),
    ("03a.recursion", nade_image_by_image),
    ("03a.recursion", nade_with_the_library),
    ("03a.recursion", nade_that_insists_on_float32),
    ("03a.masks", masks_written_in_the_inverse),
    ("03a.masks", masks_that_complete_each_other),
    ("03a.masks", masks_of_the_library),
    ("03a.masks", masks_step_by_step),
    ("03a.ensemble", ensemble_by_distributions),
    ("03a.ensemble", ensemble_around_the_best_order),
    ("03a.ensemble", ensemble_order_by_order),
    ("03a.ensemble", ensemble_in_float32),
    ("03a.ensemble", ensemble_that_insists_on_float32),
    ("03a.encode", encode_with_integers),
]


@pytest.mark.parametrize("key, answer", RIGHT, ids=lambda value: getattr(value, "__name__", value))
def test_right_answers_are_accepted_and_returned(key, answer):
    torch.manual_seed(0)
    accepted(key, answer)


# ---- wrong answers -----------------------------------------------------------------------------


def rows(z):
    """The classes of the grid in the right order."""
    return torch.arange(10).repeat_interleave(len(z))


def draw_each(mu, logvar, n):
    return mu + torch.exp(0.5 * logvar) * torch.randn(n, mu.shape[1])


def drawing(noise):
    """The codes of 02.complete, made of another noise."""
    return lambda mu, logvar, n: mu + torch.exp(0.5 * logvar) * noise(n, mu.shape[1])


def see(x, mask):
    return visible_part(x[None], mask)


def completing(seen=see, told=None, codes=draw_each, pixels=torch.bernoulli, copy=torch.where):
    """An answer to 02.complete, one step of which may be replaced by a wrong one.

    Args:
        seen: function of x and the mask, the condition that prior and decode receive.
        told: function of that condition, what decode receives in its place.
    """

    def complete(x, mask, n, prior, decode):
        c = seen(x, mask)
        z = codes(*prior(c), n)
        return copy(mask, x.float(), pixels(decode(z, told(c) if told else c)))

    return complete


def complete_without_the_prior(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    return torch.where(mask, x, torch.bernoulli(decode(torch.randn(n, 3), c)))


COMPLETE = completing()


def costing(code=reparameterize, kl=kl_between_gaussians, pixels=None, total=None):
    """An answer to 02.prior, one step of which may be replaced by a wrong one."""

    def cvae_loss(x, c, encode, prior, decode):
        mu, logvar = encode(x, c)
        logits = decode(code(mu, logvar), c)
        bce = (pixels or F.binary_cross_entropy_with_logits)(logits, x, reduction="none")
        costs = bce.flatten(1).sum(1) + kl(mu, logvar, *prior(c))
        return total(costs) if total else costs.mean()

    return cvae_loss


COST = costing()


def cvae_loss_that_decodes_twice(x, c, encode, prior, decode):
    decode(encode(x, c)[0], c)
    return COST(x, c, encode, prior, decode)


def noisy(noise):
    """The code of 02.prior, made of another noise."""
    return costing(code=lambda mu, logvar: mu + torch.exp(0.5 * logvar) * noise(mu))


def kl_with_sigma_p_forgotten(mu_q, logvar_q, mu_p, logvar_p):
    """Right but for σ_q², which is not divided by σ_p²."""
    squares = (mu_q - mu_p) ** 2 / logvar_p.exp()
    return 0.5 * (squares + logvar_q.exp() - 1 - (logvar_q - logvar_p)).sum(1)


# ---- wrong answers to notebook 03a ------------------------------------------------------------


def summing(images=enumerate_images, value=torch.exp, total=torch.sum):
    """An answer to 03a.total, one step of which may be replaced by a wrong one."""
    return lambda log_prob, shape: total(value(log_prob(images(shape))))


def miscounted(which, error):
    """An answer to 03a.count, one of whose numbers is wrong by error(D, H)."""

    def count_parameters(D, H):
        counts = list(COUNT(D, H))
        counts[which] += error(D, H)
        return counts

    return count_parameters


def nade_reading(seen):
    """The log-odds by the definition; pixel i (from 0) reads the first seen(i) pixels."""

    def nade_logits(x, W, V, b, c):
        a = [c + x[:, : seen(i)] @ W[: seen(i)] for i in range(x.shape[1])]
        return torch.stack([torch.sigmoid(a_i) @ V[i] + b[i] for i, a_i in enumerate(a)], dim=1)

    return nade_logits


def nade_with_a_triangular_mask(x, W, V, b, c):
    before = torch.ones(len(W), len(W), dtype=x.dtype).tril(-1)
    h = torch.sigmoid(c + torch.einsum("ij,bj,jh->bih", before, x, W))
    return torch.einsum("bih,ih->bi", h, V) + b


def nade_without_sigmoid(x, W, V, b, c):
    added = x[:, :, None] * W
    return ((c + added.cumsum(1) - added) * V).sum(2) + b


def nade_by_vectors(x, W, V, b, c):
    def logit(image, i):
        return torch.sigmoid(c + torch.mv(W[:i].T, image[:i])) @ V[i] + b[i]

    return torch.stack([torch.stack([logit(image, i) for i in range(len(b))]) for image in x])


def nade_that_forgets(x, W, V, b, c):
    """Each pixel replaces the last one in a, instead of being added."""
    a = torch.cat([c.expand(len(x), 1, -1), c + (x[:, :, None] * W)[:, :-1]], 1)
    return (torch.sigmoid(a) * V).sum(2) + b


def ensemble_around_the_best_of_all(logits, x):
    log_p = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(2)
    return (log_p - log_p.max()).exp().mean(0).log() + log_p.max()


def aggregate_around_the_best_of_all(z, mu, logvar):
    log_q = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None]).sum(2)
    return (log_q - log_q.max()).exp().mean(1).log() + log_q.max()


def kl_in_a_buffer(mu, logvar):
    variance = logvar.exp()
    variance -= 1  # the gradient of exp needs its value
    return 0.5 * (mu**2 + variance - logvar).sum(1)


def kl_that_goes_backward(mu, logvar):
    result = KL(mu, logvar)
    result.sum().backward()
    return result


def masks_of_ranks(rank, see=torch.ge, speak=torch.gt):
    """An answer to 03a.masks: `rank` of the pixels, then m see d, and d speak m."""

    def made_masks(ordering, m):
        d = rank(ordering)
        return see(m[:, None], d[None, :]), speak(d[:, None], m[None, :])

    return made_masks


def rank_from_one(ordering):
    return ordering.argsort() + 1


def encode_with_floats(bits, probabilities, longest=None):
    low, width = 0.0, 1.0
    for bit, p in zip(bits, probabilities):
        low, width = (low, width * p) if bit else (low + width * p, width * (1 - p))
    length = 0
    while length != longest and not math.ceil(low * 2**length) < (low + width) * 2**length:
        length += 1
    return format(math.ceil(low * 2**length), f"0{length}b") if length else ""


def encode_rounded_down(bits, probabilities):
    """The fraction before the one that the reference finds."""
    code = ENCODE(bits, probabilities)
    return format(int(code, 2) - 1, f"0{len(code)}b") if "1" in code else code


WRONG = [
    # the condition: of the hidden pixels, of all pixels, without its mask; decode is not told it
    (
        "02.complete",
        completing(seen=lambda x, mask: see(x, ~mask)),
        "prior ne reçoit pas c = visible_part(x[None], mask).",
    ),
    (
        "02.complete",
        completing(seen=lambda x, mask: see(x, torch.ones_like(mask))),
        "prior ne reçoit pas c = visible_part(x[None], mask).",
    ),
    (
        "02.complete",
        completing(seen=lambda x, mask: see(x, mask)[:, :1]),
        "prior(c) : c doit être de forme (B, 2, 4, 5) ; reçu : (1, 1, 4, 5).",
    ),
    (
        "02.complete",
        completing(told=torch.zeros_like),
        "decode ne reçoit pas c = visible_part(x[None], mask).",
    ),
    # one code for all; p(z|c) ignored, or half of it
    (
        "02.complete",
        completing(codes=lambda mu, lv, n: draw_each(mu, lv, 1).repeat(n, 1)),
        "des lignes de z ont le même ε",
    ),
    (
        "02.complete",
        completing(codes=lambda mu, lv, n: mu.repeat(n, 1)),
        "des lignes de z ont le même ε",
    ),
    ("02.complete", completing(codes=lambda mu, lv, n: draw_each(mu, lv, 1)), "de forme (600, 1,"),
    ("02.complete", complete_without_the_prior, "il faut appeler prior(c), pour la loi de z"),
    (
        "02.complete",
        completing(codes=lambda mu, lv, n: torch.randn(n, mu.shape[1])),
        "ne suivent pas la loi de prior(c)",
    ),
    (
        "02.complete",
        completing(codes=lambda mu, lv, n: mu + torch.randn(n, mu.shape[1])),
        "ne suivent pas la loi de prior(c)",
    ),
    (
        "02.complete",
        completing(codes=lambda mu, lv, n: draw_each(0 * mu, lv, n)),
        "ne suivent pas la loi de prior(c)",
    ),
    (
        "02.complete",
        completing(codes=lambda mu, lv, n: draw_each(mu, lv, n)[:, None]),
        "decode(z, c) : z doit être de forme (B, 3) ; reçu : (600, 1, 3).",
    ),
    # logvar taken for log σ; a uniform noise; one noise for all dimensions
    (
        "02.complete",
        completing(codes=lambda mu, lv, n: draw_each(mu, 2 * lv, n)),
        "au lieu de 0 et 1. Rappel : σ = exp(logvar / 2)",
    ),
    ("02.complete", completing(codes=drawing(torch.rand)), "ne suivent pas la loi de prior(c)"),
    (
        "02.complete",
        completing(codes=drawing(lambda n, d: torch.randn(n, 1))),
        "les dimensions de z bougent ensemble",
    ),
    # visible pixels not copied; the mask inverted
    ("02.complete", completing(copy=lambda mask, x, pixels: pixels), "un pixel visible a changé"),
    (
        "02.complete",
        completing(copy=lambda mask, x, pixels: torch.where(mask, pixels, x)),
        "un pixel visible a changé",
    ),
    # probabilities; rounded, in two ways; the same draw for all
    ("02.complete", completing(pixels=lambda p: p), "on attend des 0 et des 1"),
    (
        "02.complete",
        completing(pixels=torch.round),
        "là où decode donne la probabilité 0,25 à un pixel caché, vous le noirc",
    ),
    (
        "02.complete",
        completing(pixels=lambda p: p > 0.5),
        "là où decode donne la probabilité 0,25 à un pixel caché, vous le noirc",
    ),
    (
        "02.complete",
        completing(pixels=lambda p: torch.rand(p.shape[1:]) < p),
        "là où decode donne la probabilité 0,25 à un pixel caché, vous le noirc",
    ),
    # a second sigmoid; black for white; fair coins
    (
        "02.complete",
        completing(pixels=lambda p: torch.bernoulli(p.sigmoid())),
        "là où decode donne la probabilité 0,25 à un pixel caché, vous le noirc",
    ),
    (
        "02.complete",
        completing(pixels=lambda p: torch.rand_like(p) > p),
        "là où decode donne la probabilité 0,25 à un pixel caché, vous le noirc",
    ),
    (
        "02.complete",
        completing(pixels=lambda p: torch.randint_like(p, 2)),
        "là où decode donne la probabilité 0,25 à un pixel caché, vous le noirc",
    ),
    # a wrong number for each pixel: one per row, the mean p, always the same; half of the codes
    (
        "02.complete",
        completing(pixels=lambda p: (torch.rand(*p.shape[:3], 1) < p).float()),
        "vos pixels cachés noircissent ensemble : tirez chacun d'eux.",
    ),
    (
        "02.complete",
        completing(pixels=lambda p: torch.bernoulli(p.mean((2, 3), True).expand_as(p))),
        "là où decode donne la probabilité 0,25 à un pixel caché, vous le noirc",
    ),
    (
        "02.complete",
        completing(pixels=lambda p: torch.bernoulli(p, generator=torch.Generator().manual_seed(0))),
        "deux appels donnent les mêmes pixels cachés",
    ),
    (
        "02.complete",
        completing(codes=lambda mu, lv, n: draw_each(mu, lv, n // 2).repeat(2, 1)),
        "des lignes de z ont le même ε",
    ),
    # the mask of one row, or of the columns, for all
    (
        "02.complete",
        completing(copy=lambda mask, x, pixels: torch.where(mask[0], x, pixels)),
        "un pixel visible a changé",
    ),
    (
        "02.complete",
        completing(copy=lambda mask, x, pixels: torch.where(mask.any(0), x, pixels)),
        "à un pixel caché, vous le noircissez",
    ),
    # a wrong number of images; the channel lost
    (
        "02.complete",
        lambda x, mask, n, *laws: COMPLETE(x, mask, 16, *laws),
        "on attend 600 images pour n = 600, de forme (600, 1, 4, 5) ; reçu : (1",
    ),
    (
        "02.complete",
        lambda x, mask, n, *laws: COMPLETE(x, mask, 1, *laws),
        "on attend 600 images pour n = 600, de forme (600, 1, 4, 5) ; reçu : (1",
    ),
    (
        "02.complete",
        lambda x, mask, n, *laws: COMPLETE(x, mask, 1, *laws).repeat(n, 1, 1, 1),
        "decode a reçu 1 code : il en faut un par complétion, 600.",
    ),
    (
        "02.complete",
        lambda *args: COMPLETE(*args)[:, 0],
        "on attend 600 images pour n = 600, de forme (600, 1, 4, 5) ; reçu : (6",
    ),
    # KL reversed, to N(0, I), without ½, a mean over z, forgotten
    ("02.prior", costing(kl=lambda *q_p: kl_between_gaussians(*q_p[2:], *q_p[:2])), "l'autre sens"),
    ("02.prior", costing(kl=lambda mu, lv, *p: KL(mu, lv)), "vers N(0, I)"),
    (
        "02.prior",
        costing(kl=lambda *q_p: 2 * kl_between_gaussians(*q_p)),
        "pour un lot de 4 images",
    ),
    (
        "02.prior",
        costing(kl=lambda *q_p: kl_between_gaussians(*q_p) / 2),
        "pour un lot de 4 images",
    ),
    ("02.prior", costing(kl=lambda *q_p: 0), "La KL manque"),
    # (µ_q − µ_p)², or σ_q², not divided by σ_p²
    ("02.prior", costing(kl=lambda m, v, mp, vp: KL(m - mp, v - vp)), "pour un lot de 4 images"),
    ("02.prior", costing(kl=kl_with_sigma_p_forgotten), "pour un lot de 4 images de 6 pixels"),
    # a mean over the pixels; a sum over the images; BCE of probabilities
    (
        "02.prior",
        costing(
            pixels=lambda s, x, **_: F.binary_cross_entropy_with_logits(s, x).expand(len(x), 1)
        ),
        "La reconstruction est une moyenne sur les pixels.",
    ),
    (
        "02.prior",
        costing(total=torch.sum),
        "Vous avez sommé sur les images : prenez-en la moyenne.",
    ),
    ("02.prior", costing(total=lambda costs: costs), "un seul nombre pour le lot"),
    (
        "02.prior",
        costing(
            pixels=lambda s, *x, **how: F.binary_cross_entropy_with_logits(s.sigmoid(), *x, **how)
        ),
        "pour un lot de 4 images de 6 pixels",
    ),
    # the mean of another image, of all; a second code, without noise
    ("02.prior", costing(code=lambda mu, lv: reparameterize(mu.flip(0), lv)), "ne suivent pas"),
    ("02.prior", costing(code=lambda mu, lv: reparameterize(mu.mean(0), lv)), "ne suivent pas"),
    ("02.prior", cvae_loss_that_decodes_twice, "des lignes de z ont le même ε"),
    # z without gradient, in two ways, or half of it; without noise; of σ = 1; of σ = exp(logvar)
    (
        "02.prior",
        costing(code=lambda *q: reparameterize(*q).detach()),
        "de z à mu de q est nul",
    ),
    (
        "02.prior",
        costing(code=lambda mu, lv: torch.distributions.Normal(mu, (0.5 * lv).exp()).sample()),
        "de z à mu de q est nul",
    ),
    (
        "02.prior",
        costing(code=lambda mu, lv: reparameterize(mu, lv.detach())),
        "de z à logvar de q est nul",
    ),
    (
        "02.prior",
        costing(code=lambda mu, lv: mu),
        "des lignes de z ont le même ε",
    ),
    (
        "02.prior",
        costing(code=lambda mu, lv: mu + torch.randn_like(mu)),
        "ne suivent pas la loi q(z|x,c)",
    ),
    (
        "02.prior",
        costing(code=lambda mu, lv: reparameterize(mu, 2 * lv)),
        "au lieu de 0 et 1. Rappel : σ = exp(logvar / 2)",
    ),
    # a uniform noise, in two ways; one for all images, for all dimensions; z of the prior
    ("02.prior", noisy(torch.rand_like), "ne suivent pas la loi q(z|x,c)"),
    ("02.prior", noisy(lambda mu: 2 * torch.rand_like(mu) - 1), "ne suivent pas la loi q(z|x,c)"),
    (
        "02.prior",
        noisy(lambda mu: torch.randn_like(mu[:1])),
        "des lignes de z ont le même ε",
    ),
    ("02.prior", noisy(lambda mu: torch.randn(len(mu), 1)), "les dimensions de z bougent ensemble"),
    (
        "02.prior",
        lambda x, c, encode, prior, decode: COST(
            x, c, encode, prior, lambda z, c: decode(reparameterize(*prior(c)), c)
        ),
        "ne suivent pas la loi q(z|x,c)",
    ),
    # z not decoded; of a wrong shape; x and c swapped, which only the training sees
    (
        "02.prior",
        lambda x, c, encode, *_: encode(x, c)[0].mean(),
        "votre coût n'appelle pas decode",
    ),
    (
        "02.prior",
        lambda x, c, encode, prior, decode: decode(
            reparameterize(*encode(x, c))[:, None], c
        ).mean(),
        "decode(z, c) : z doit être de forme (B, 2) ; reçu : (400, 1, 2).",
    ),
    (
        "02.prior",
        lambda x, c, encode, *laws: COST(x, c, lambda x, c: encode(c, x), *laws),
        "encode(x, c) : x doit être de forme (B, 1, 1, 2) ; reçu : (400, 1).",
    ),
    # the cost, or one of the laws, cut off from the gradient
    (
        "02.prior",
        lambda *args: COST(*args[:4], lambda z, c: args[4](z, 0 * c)),
        "decode ne reçoit pas la condition",
    ),
    (
        "02.prior",
        lambda x, c, encode, prior, decode: COST(x, c, encode, lambda c: prior(c.flip(0)), decode),
        "prior ne reçoit pas la condition",
    ),
    (
        "02.prior",
        lambda x, c, encode, *laws: COST(x, c, lambda x, c: encode(x, c.flip(0)), *laws),
        "encode ne reçoit pas la condition",
    ),
    (
        "02.prior",
        costing(total=lambda costs: costs.mean().item()),
        "on attend un seul nombre pour le lot, dans un tenseur de torch, pas un",
    ),
    (
        "02.prior",
        costing(kl=lambda *q_p: kl_between_gaussians(*q_p[:2], *(t.detach() for t in q_p[2:]))),
        "le gradient que reçoit mu_p",
    ),
    # log p not exponentiated; its logarithm again; a mean; no sum; already known
    ("03a.total", summing(value=lambda log_p: log_p), "de somme 1,000 sur les images (1, 2, 5)"),
    ("03a.total", summing(total=lambda p: p.sum().log()), "de somme 1,000 sur les images"),
    ("03a.total", summing(total=torch.mean), "vous obtenez 0,00097656"),
    ("03a.total", summing(total=lambda p: p), "de forme (1024,)"),
    (
        "03a.total",
        lambda log_prob, shape: 1.0,
        "il y a 1024 images binaires de forme (1, 2, 5) ; vous en demandez 0, d",
    ),
    ("03a.total", summing(value=lambda log_p: log_p.softmax(0)), "de somme 0,931 sur les images"),
    # float images, arrays; flat, transposed, alone; a batch, one missing, twice the same
    ("03a.total", summing(lambda shape: enumerate_images(shape).float()), "reçu : torch.float32"),
    (
        "03a.total",
        summing(lambda shape: enumerate_images(shape).numpy()),
        "log_prob(x) : x doit être un tenseur, pas un objet de type ndarray.",
    ),
    (
        "03a.total",
        summing(lambda shape: enumerate_images(shape).flatten(1)),
        "log_prob(x) : x doit être de forme (B, 1, 2, 5) ; reçu : (1024, 10).",
    ),
    ("03a.total", summing(lambda shape: enumerate_images(shape).mT), "reçu : (1024, 1, 5, 2)"),
    ("03a.total", summing(lambda shape: enumerate_images(shape)[7]), "reçu : (1, 2, 5)"),
    (
        "03a.total",
        summing(lambda shape: enumerate_images(shape)[:64]),
        "il y a 1024 images binaires de forme (1, 2, 5) ; vous en demandez 64, ",
    ),
    (
        "03a.total",
        summing(lambda shape: enumerate_images(shape)[1:]),
        "il y a 1024 images binaires de forme (1, 2, 5) ; vous en demandez 1023",
    ),
    ("03a.total", summing(lambda shape: enumerate_images((1, 2, 5))), "reçu : (1024, 1, 2, 5)"),
    # i weights for i − 1; the biases forgotten; the b_i; the c_i; the alpha_i; A_i of D columns
    ("03a.count", miscounted(0, lambda D, H: D), "FVSBN : on attend 1 ; vous obtenez 2."),
    ("03a.count", miscounted(0, lambda D, H: -D), "D = 1, H = 1, FVSBN : on attend 1 ; vous"),
    ("03a.count", miscounted(1, lambda D, H: H * D), "NADE sans partage : on attend 3 ; vous"),
    ("03a.count", miscounted(1, lambda D, H: -D), "sans partage : on attend 3 ; vous obtenez 2"),
    ("03a.count", miscounted(1, lambda D, H: -H * D), "sans partage : on attend 3 ; vous"),
    ("03a.count", miscounted(1, lambda D, H: H - H * D), "D = 3, H = 2, NADE sans partage"),
    (
        "03a.count",
        miscounted(1, lambda D, H: H * D * (D + 1) // 2),
        "NADE sans partage : on attend 3 ; vous obtenez 4",
    ),
    # shared: c or b forgotten, V too; one c for each pixel, which D = 1 does not tell
    ("03a.count", miscounted(2, lambda D, H: -H), "avec partage : on attend 4 ; vous obtenez 3"),
    ("03a.count", miscounted(2, lambda D, H: -D), "avec partage : on attend 4 ; vous obtenez 3"),
    ("03a.count", miscounted(2, lambda D, H: -D * H), "NADE avec partage : on attend 4"),
    (
        "03a.count",
        miscounted(2, lambda D, H: D * H - H),
        "pour D = 3, H = 2, NADE avec partage : on attend 17 ; vous obtenez 21",
    ),
    # right for small images only; in another order; two numbers; one; text
    ("03a.count", miscounted(0, lambda D, H: D // 784), "attend 307720 ; vous obtenez 307721"),
    ("03a.count", lambda D, H: COUNT(D, H)[::-1], "FVSBN : on attend 1 ; vous obtenez 4"),
    (
        "03a.count",
        lambda D, H: COUNT(D, H)[1:],
        "on attend trois entiers : `return fvsbn, sans_partage, avec_partage`.",
    ),
    (
        "03a.count",
        lambda D, H: sum(COUNT(D, H)),
        "on attend trois entiers : `return fvsbn, sans_partage, avec_partage`.",
    ),
    (
        "03a.count",
        lambda D, H: "1, 3, 4",
        "on attend trois entiers : `return fvsbn, sans_partage, avec_partage`.",
    ),
    # x_i added before h_i; i − 1 taken for i; nothing read; each pixel forgets the others
    ("03a.recursion", nade_reading(lambda i: i + 1), "Chaque pixel se lit lui-même."),
    ("03a.recursion", nade_reading(lambda i: max(i - 1, 0)), "La somme a un pixel de retard."),
    ("03a.recursion", nade_reading(lambda i: 0), "vous obtenez"),
    ("03a.recursion", nade_that_forgets, "vous obtenez"),
    # right, but each pixel starts the sum again
    (
        "03a.recursion",
        nade_reading(lambda i: i),
        "plus de pixels coûtent 3,3 fois plus",
    ),
    ("03a.recursion", nade_with_a_triangular_mask, "plus de pixels coûtent 3,1 fois plus"),
    # a bias forgotten; no σ, or one more; W for V
    ("03a.recursion", lambda x, W, V, b, c: LOGITS(x, W, V, 0 * b, c), "Le biais b[i] manque."),
    ("03a.recursion", lambda x, W, V, b, c: LOGITS(x, W, V, b, 0 * c), "Le biais c manque."),
    ("03a.recursion", nade_without_sigmoid, "vous obtenez"),
    (
        "03a.recursion",
        lambda *args: LOGITS(*args).sigmoid(),
        "C'est une probabilité : la log-cote vient avant le dernier σ.",
    ),
    ("03a.recursion", lambda x, W, V, b, c: LOGITS(x, V, W, b, c), "vous obtenez"),
    ("03a.recursion", lambda *args: LOGITS(*args) * math.nan, "vous obtenez nan"),
    # transposed; the first pixel without law; a mean over the batch
    ("03a.recursion", lambda *args: LOGITS(*args).T, "de forme (2, 3) ; reçu : (3, 2)"),
    ("03a.recursion", lambda *args: LOGITS(*args)[:, 1:], "une log-cote par pixel"),
    ("03a.recursion", lambda *args: LOGITS(*args).mean(0), "reçu : (3,)"),
    # without gradient, in four ways
    (
        "03a.recursion",
        lambda *args: LOGITS(*args).detach(),
        "la valeur est juste, mais pas le gradient que reçoit W. Il n'en reçoit",
    ),
    (
        "03a.recursion",
        lambda *args: LOGITS(*args).detach().numpy(),
        "on attend une log-cote par pixel, dans un tenseur de torch, pas un obj",
    ),
    (
        "03a.recursion",
        lambda *args: LOGITS(*args).tolist(),
        "on attend une log-cote par pixel, dans un tenseur de torch, pas un obj",
    ),
    (
        "03a.recursion",
        torch.no_grad()(LOGITS),
        "la valeur est juste, mais pas le gradient que reçoit W. Il n'en reçoit",
    ),
    ("03a.recursion", lambda x, W, *rest: LOGITS(x, W.numpy(), *rest), "RuntimeError"),
    # the slide's inequality; one too weak; all or nothing kept
    (
        "03a.masks",
        masks_of_ranks(rank_from_one, speak=torch.lt),
        "ordre [0, 1, 2, 3], numéros m = [",
    ),
    ("03a.masks", masks_of_ranks(rank_from_one, speak=torch.ge), "garde à tort le poids"),
    ("03a.masks", masks_of_ranks(rank_from_one, speak=torch.le), "garde à tort le poids"),
    (
        "03a.masks",
        lambda ordering, m: [mask | True for mask in MASKS(ordering, m)],
        "M_W[0, 3] garde à tort le poids",
    ),
    (
        "03a.masks",
        lambda ordering, m: [mask & False for mask in MASKS(ordering, m)],
        "M_W[0, 0] coupe à tort le poids",
    ),
    # the ordering ignored; taken for its inverse; backwards: the raster order does not tell
    ("03a.masks", masks_of_ranks(lambda o: o.sort().values + 1), "ordre [3, 2, 0, 1]"),
    ("03a.masks", masks_of_ranks(lambda ordering: ordering + 1), "à tort le poids"),
    ("03a.masks", masks_of_ranks(lambda o: o.flip(0).argsort() + 1), "à tort le poids"),
    # one inequality too strong; ranks from 0
    ("03a.masks", masks_of_ranks(rank_from_one, see=torch.gt), "coupe à tort le poids"),
    (
        "03a.masks",
        masks_of_ranks(rank_from_one, speak=lambda d, m: d > m + 1),
        "coupe à tort le poids",
    ),
    ("03a.masks", masks_of_ranks(torch.argsort), "garde à tort le poids"),
    # transposed, in the other order; a mask alone; three
    ("03a.masks", lambda *args: [mask.T for mask in MASKS(*args)], "une ligne par neurone, de"),
    ("03a.masks", lambda *args: MASKS(*args)[::-1], "de forme (6, 4) ; reçu : (4, 6)"),
    ("03a.masks", lambda *args: (MASKS(*args)[0],) * 2, "une ligne par sortie, de forme (4, 6)"),
    ("03a.masks", lambda *args: MASKS(*args)[0], "on attend deux masques"),
    ("03a.masks", lambda *args: (*MASKS(*args), None), "on attend deux masques"),
    # 0 keeps the beginning; a 1 has the share of a 0; p ignored; the bits; backwards; the last one
    (
        "03a.encode",
        lambda bits, p: ENCODE([1 - b for b in bits], [1 - Fraction(q) for q in p]),
        "C'est le 1 qui garde le début de l'intervalle, pas le 0",
    ),
    (
        "03a.encode",
        lambda bits, p: ENCODE(bits, [1 - q for q in p]),
        "bits `[1",
    ),
    ("03a.encode", lambda bits, p: ENCODE(bits, [0.5] * len(p)), "l'intervalle est ["),
    ("03a.encode", lambda bits, p: "".join(map(str, bits)), "bits `[1"),
    (
        "03a.encode",
        lambda bits, p: ENCODE(bits[::-1], p[::-1]),
        "bits `[1, 0]`, probabilités `[0.5, 0.625]` : l'intervalle est",
    ),
    (
        "03a.encode",
        lambda bits, p: ENCODE(bits[:-1], p[:-1]),
        "probabilités `[0.75, 0.25, 0.5]` : l'intervalle est",
    ),
    # rounded down; zeros in front lost; too long, a little or much; nothing at all
    ("03a.encode", encode_rounded_down, "votre code désigne"),
    (
        "03a.encode",
        lambda bits, p: ENCODE(bits, p).lstrip("0"),
        "Votre code perd ses zéros de tête.",
    ),
    (
        "03a.encode",
        lambda bits, p: ENCODE(bits, p) + "0" * 8,
        "il faut moins de 2 chiffres de plus, et votre code en compte 10 en tout.",
    ),
    (
        "03a.encode",
        lambda bits, p: ENCODE(bits, p) + "000",
        "et votre code en compte ",
    ),
    ("03a.encode", lambda bits, p: ENCODE(bits, p).ljust(64, "0"), "votre code en compte 64"),
    ("03a.encode", lambda bits, p: "", "votre code désigne 0,000000"),
    # the end of the interval, which is not inside
    (
        "03a.encode",
        lambda bits, p: "1" if p[1:] == [0.625] else ENCODE(bits, p),
        "C'est la fin, exclue, de l'intervalle.",
    ),
    # floats that run out after some fifty bits
    ("03a.encode", encode_with_floats, "OverflowError"),
    (
        "03a.encode",
        lambda bits, p: encode_with_floats(bits, p, longest=900),
        "Un flottant n'en tient que 53",
    ),
    # no string of digits
    (
        "03a.encode",
        lambda bits, p: len(ENCODE(bits, p)),
        "on attend un seul texte",
    ),
    ("03a.encode", lambda bits, p: "0." + ENCODE(bits, p), "; reçu : `'0."),
    ("03a.encode", lambda bits, p: ENCODE(bits, p).encode(), "; reçu : `b'"),
    (
        "03a.encode",
        lambda bits, p: [2 * bit for bit in [1, *bits]],
        "on attend un seul texte",
    ),
    # p rounded, in three ways; one digit too many
    *(
        (
            "03a.encode",
            lambda bits, p, rounded=rounded: ENCODE(bits, map(rounded, p)),
            "l'intervalle",
        )
        for rounded in (
            lambda q: Fraction(q).limit_denominator(),
            lambda q: Fraction(round(256 * q), 256),
            lambda q: Fraction(str(q)),
        )
    ),
    ("03a.encode", lambda bits, p: f"{ENCODE(bits, p) or '0'}00", "il faut moins de 2 chiffres"),
    # one process ended, no real number, a total cut at 1; a sum again for each pixel, by vectors
    ("00.bits", lambda nats: exit(), "sur SystemExit"),
    ("00.bits", lambda nats: torch.tensor(complex(nats, 1)), "pas un objet de type complex"),
    ("00.bits", lambda nats: 10 ** (5 * int(nats)), "trop grand pour un flottant"),
    ("03a.total", lambda *args: min(1.0, total_by_logsumexp(*args)), "de somme 1,200"),
    ("03a.recursion", nade_by_vectors, "plus de calculs, au lieu de 2"),
    # a colder noise, a uniform one
    (
        "02.complete",
        completing(codes=drawing(lambda *n_d: 0.8 * torch.randn(n_d))),
        "ne suivent pas",
    ),
    ("02.prior", noisy(lambda mu: (torch.rand_like(mu) - 0.5) * 12**0.5), "pas gaussiens"),
    # one maximum for the whole batch: it hides the least likely
    ("03a.ensemble", ensemble_around_the_best_of_all, "Un calcul déborde"),
    ("01.aggregate", aggregate_around_the_best_of_all, "il faut rester en logarithmes"),
    # a right value, and no gradient to be had
    ("01.kl", kl_in_a_buffer, "mais pas son gradient : RuntimeError"),
    ("01.kl", kl_that_goes_backward, "un `.backward()` dans votre fonction"),
    ("01.kl", lambda *args: KL(*args).to_sparse(), "`.to_dense()` en fait un"),
    ("01.sum_mean", lambda *args: LOSS(*args).item(), "ni `.item()`, ni `float`"),
    # right, but what the next cells could not use, or would find changed
    (
        "01.kl",
        kl_with_numpy,
        "à la ligne `mu, logvar = mu.numpy(), logvar.numpy()`, sur RuntimeErr",
    ),
    ("01.kl", kl_as_a_list, "pas un objet de type list : aucun gradient n'y passe."),
    ("01.kl", kl_in_place, "votre fonction change `mu`"),
    ("01.laplace", laplace_in_place, "votre fonction change `x`"),
    ("01.aggregate", aggregate_by_mean, "il faut rester en logarithmes"),
    ("02.join", join_with_numpy_eye, "`.float()` convertit"),
    ("02.grid", grid_as_an_array, "pas un objet de type ndarray"),
    ("02.complete", complete_with_numpy_draws, "pas un objet de type ndarray"),
    ("03a.count", count_the_models_weights, "reçu : Tensor, Tensor, int"),
    ("03a.count", count_as_a_tensor_of_floats, "on attend trois entiers"),
    ("03a.count", count_with_numpy, "on attend trois entiers"),
    ("03a.masks", masks_with_loops_of_integers, "pas un objet de type list"),
    ("03a.masks", masks_with_numpy_floats, "pas un objet de type ndarray"),
    ("03a.ensemble", ensemble_with_numpy, "pas un objet de type ndarray"),
    ("03a.ensemble", ensemble_as_a_list, "pas un objet de type list"),
    ("03a.encode", encode_backwards, "on attend un seul texte"),
    ("03a.encode", encode_the_middle, "; reçu : `["),
    ("03a.encode", encode_with_decimals, "; reçu : `["),
]


@pytest.mark.parametrize("key, answer, message", WRONG)
def test_wrong_answers_meet_a_counter_example_and_a_hint(key, answer, message):
    torch.manual_seed(0)
    refused(key, answer, message)


@pytest.mark.parametrize("key", KEYS)
def test_each_known_mistake_is_named(key):
    """The mistakes that a check knows, as answers: in every case, this sentence."""
    for slip, sentence in getattr(exercises.exercises()[key].check, "slips", ()):
        refused(key, lambda *args, slip=slip: slip(*args), exercises._as_written(sentence))


@pytest.mark.parametrize("key", KEYS)
def test_a_function_to_repair_is_wrong(key):
    """Were it not recognised by its code: it holds a mistake, and the check sees it."""
    broken = exercises.exercises()[key].broken
    if broken is not None:
        refused(key, lambda *args: broken(*args), "")


# ---- the world ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_the_verdict_does_not_depend_on_the_world(key):
    """Gradients cut, another default type, in inference mode: the reference stays right."""

    def answer(*args):
        return exercises.exercises()[key].reference(*args)

    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            accepted(key, answer)
            assert not torch.is_grad_enabled() and torch.get_default_dtype() == torch.float64
        with torch.inference_mode():
            accepted(key, answer)
    finally:
        torch.set_default_dtype(torch.float32)


CHANGES = [
    (lambda: torch.set_grad_enabled(False), "change le calcul des gradients de torch"),
    (lambda: torch.set_default_dtype(torch.float64), "change le type par défaut de torch"),
    (lambda: torch.manual_seed(0), "votre fonction change la graine"),
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("change, message", CHANGES)
def test_an_answer_that_changes_the_world_is_refused(key, change, message):
    def answer(*args):
        result = exercises.exercises()[key].reference(*args)
        change()
        return result

    refused(key, answer, message)
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32


def spoil(x):
    """Change a tensor, a model, or the first of a list, in place."""
    if isinstance(x, torch.Tensor):
        with torch.no_grad():
            x[...] = x + 1 if x.dtype != torch.bool else ~x
    elif isinstance(x, torch.nn.Module):
        x.double()
    elif isinstance(x, list | tuple) and isinstance(x[0], torch.Tensor | tuple):
        spoil(x[0])
    elif isinstance(x, list):
        x[0] = 1 - x[0]
    else:
        return False
    return True


@pytest.mark.parametrize("key", KEYS)
def test_an_answer_that_changes_its_arguments_is_refused_and_spoils_nothing(key):
    reference = exercises.exercises()[key].reference
    for index in range(len(inspect.signature(reference).parameters)):

        def answer(*args, index=index):
            result = reference(*args)
            return result if spoil(args[index]) else ...

        _, printed = verdict(key, answer)
        assert printed.startswith("…") or "votre fonction change `" in printed
    accepted(key, lambda *args: reference(*args))


@pytest.mark.parametrize("key", KEYS)
def test_an_answer_that_never_ends_is_stopped(key, monkeypatch):
    """Even one that catches every exception."""
    monkeypatch.setattr(harness, "SECONDS", 0.05)

    def endless(*_):
        while True:
            try:
                math.sqrt(2)
            except Exception:
                pass

    before = signal.getsignal(signal.SIGALRM)
    refused(key, endless, "votre fonction tourne encore")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0), "no alarm is left behind"
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize("key", KEYS)
def test_an_answer_with_other_arguments_is_told_what_it_raises(key):
    refused(key, lambda: 0, "votre fonction s'arrête, sur TypeError : `")
    refused(key, lambda *_: None, "avez-vous oublié `return` ?")
    refused(key, lambda *_: "texte", "")
    refused(key, lambda *_: torch.zeros(7, 11), "")


LEARNED = ("01.kl", "01.sum_mean", "02.join", "02.prior", "03a.recursion", "03b.stacks",
           "04.straight_through", "04.loss")  # fmt: skip


@pytest.mark.parametrize("key", LEARNED)
def test_a_value_without_its_gradient_is_refused(key):
    """Detached, or computed without gradients: where a model learns through it."""
    reference = exercises.exercises()[key].reference
    refused(key, lambda *args: reference(*args).detach(), "gradient")
    refused(key, torch.no_grad()(lambda *args: reference(*args)), "gradient")


def test_a_variance_without_its_gradient_is_refused():
    refused("01.kl", lambda mu, logvar: KL(mu, logvar.detach()), "gradient que reçoit logvar")


# ---- empty answers -----------------------------------------------------------------------------


def not_implemented(*_):
    raise NotImplementedError("à compléter")


EMPTY = [None, ..., not_implemented, lambda *_: ...]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("answer", EMPTY)
def test_empty_answers_are_to_do(key, answer, capsys):
    assert verify(key, answer) is exercises.exercises()[key].reference
    assert capsys.readouterr().out.startswith(f"… {key} : à ")


@pytest.mark.parametrize("key", KEYS)
def test_a_check_that_runs_twice_tells_that_the_reference_is_in_place(key, capsys):
    """`kl = verify("01.kl", kl)` again, after a wrong answer: no ✔ for the reference."""
    answer = verify(key, None)
    capsys.readouterr()
    assert verify(key, answer) is answer
    printed = capsys.readouterr().out
    assert printed.startswith(f"… {key} : la fonction de référence est en place")


def test_something_else_than_a_function(capsys):
    assert verify("01.kl", 3.0) is KL
    assert "on attend une fonction" in capsys.readouterr().out


def test_an_unknown_key_names_the_others():
    with pytest.raises(ValueError, match="exercice inconnu.*01.kl"):
        verify("01.lk", None)


# ---- help --------------------------------------------------------------------------------------


@pytest.fixture
def exercise(monkeypatch):
    """Make the only exercise, `test`, of a check and of its hints."""
    monkeypatch.setattr(exercises, "_EXERCISES", {})
    return lambda check, *hints: Exercise("test", KL, check, hints)


def test_hints_come_one_by_one_then_the_solution(exercise, capsys):
    exercise(lambda answer: "oui", "premier", "second")
    for expected in ("Indice 1/2 : premier", "Indice 2/2 : second", "Indice 2/2 : second"):
        hint("test")
        printed = capsys.readouterr().out
        assert printed.startswith(expected)
    assert 'solution("test")' in printed


def test_the_first_hint_comes_by_itself_where_the_message_explains_nothing(exercise, capsys):
    def check(answer):
        raise Wrong("non", puzzling=answer() == "?")

    exercise(check, "premier", "second")
    verify("test", lambda: "un autre")
    assert capsys.readouterr().out == '✘ test : non\n  Une piste : hint("test")\n'
    for _ in range(2):  # the same mistake again: the same hint
        verify("test", lambda: "?")
        assert capsys.readouterr().out == "✘ test : non\n  Indice 1/2 : premier\n"
    hint("test")
    assert capsys.readouterr().out.startswith("Indice 2/2 : second")


SENTENCES = [
    ("on attend 0.25 ; vous obtenez -1.5e-05.", "on attend 0,25 ; vous obtenez -1,5e-05."),
    ("[1 ; -0 ; -0.5], -0.0000. B = -0, 3.", "[1 ; 0 ; -0,5], 0,0000. B = 0, 3."),
    ("des pixels 0. ou 1. : h[0, 1] de 1e-05", "des pixels 0. ou 1. : h[0, 1] de 1e-05"),
    ("0.5 ; reçu : `'0.5, -0'`, et non 0.1", "0,5 ; reçu : `'0.5, -0'`, et non 0,1"),
]


@pytest.mark.parametrize(("said", "printed"), SENTENCES)
def test_numbers_are_printed_as_the_french_write_them(said, printed, exercise, capsys):
    def wrong(answer):
        raise Wrong(said)

    exercise(lambda answer: said)
    verify("test", math.sqrt)
    assert capsys.readouterr().out == f"✔ test : {printed}\n"
    exercise(wrong, "divisez par 2.0")
    verify("test", math.sqrt)
    assert capsys.readouterr().out.startswith(f"✘ test : {printed}\n")


def test_the_text_of_an_exception_is_left_alone(exercise, capsys):
    exercise(lambda answer: answer(), "divisez")
    verify("test", lambda: float("1.5 ; -0.0"))
    assert "float: '1.5 ; -0.0'`\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 bit"), ("1.50", "1.50 bit"), ("2.00", "2.00 bits"), (30, "30 bits"),
     ("-3.0", "-3.0 bits")],
)  # fmt: skip
def test_the_plural_begins_at_two(number, shown):
    assert trn("{count} bit", "{count} bits", number) == shown


def test_the_solution_is_the_source_of_the_reference(capsys):
    solution("01.kl")
    assert capsys.readouterr().out == exercises.reference_source("01.kl") + "\n"


# ---- the notebooks -----------------------------------------------------------------------------


def function_of(source):
    """The function of a cell, whose source can be read as in a notebook."""
    names, file = {}, f"<cell {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), names)
    return next(value for value in names.values() if inspect.isfunction(value))


def tools_of(notebook):
    """What a notebook imports, and the functions that it defines."""
    names, kinds = {}, ast.Import | ast.ImportFrom | ast.FunctionDef
    for cell in notebook.cells:
        if cell.cell_type == "code":
            body = [line for line in ast.parse(cell.source).body if isinstance(line, kinds)]
            exec(compile(ast.Module(body, []), "tools", "exec"), names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_references_in_the_stubs_pass_the_notebooks_checks(path, capsys):
    """Each stub is recognised; its reference, in its place, finds what it needs, and is right."""
    notebook = nbformat.read(path, as_version=4)
    stubs, checks = tagged(notebook, "exercise"), tagged(notebook, "check")
    names = tools_of(notebook)
    assert list(stubs) == list(checks), "an exercise has a stub and a check"
    for key, cell in stubs.items():
        _, printed = verdict(key, function_of(cell.source))
        assert printed.startswith(f"… {key} : à "), f"{key}: the stub is not recognised"
        exec(exercises.reference_source(key), names)
        exec(checks[key].source, names)
        printed = capsys.readouterr().out
        assert printed.startswith(f"✔ {key} : ") and len(printed.splitlines()) == 1


def test_every_exercise_stands_in_exactly_one_notebook():
    keys = [key for path in NOTEBOOKS for key in tagged(nbformat.read(path, 4), "exercise")]
    assert sorted(keys) == KEYS
