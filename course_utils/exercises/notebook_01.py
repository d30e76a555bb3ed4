"""Exercises of notebook 01: the closed-form KL, sum or mean, the aggregate posterior, Laplace."""

import math

import torch
import torch.nn.functional as F

from .. import likelihoods
from ..vae import VAE, kl_to_standard_normal
from . import Exercise, Wrong
from .helpers import (
    as_tensor,
    call,
    compare,
    counted,
    numbers,
    recognise,
    small_digits,
    tolerance,
    train_small,
)


class Stubs:
    """What the notebook shows: to complete, or to repair."""

    def kl(mu, logvar):
        """KL( N(mu, diag(exp(logvar))) ‖ N(0, I) ). mu, logvar : (B, d). Résultat : (B,), nats."""
        return ...

    def vae_loss(logits, x, mu, logvar):
        """Coût d'un VAE, en nats par image. logits, x : (B, C, H, W). mu, logvar : (B, d)."""
        reconstruction = F.binary_cross_entropy_with_logits(logits, x)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        return reconstruction + kl

    def log_aggregate(z, mu, logvar):
        """log q(z) aux points z : (M, d), pour les N codes mu, logvar : (N, d). Résultat : (M,)."""
        squares = (z[:, None] - mu) ** 2 / logvar.exp()  # (M, N, d)
        log_q = -0.5 * (squares + logvar + math.log(2 * math.pi)).sum(dim=2)  # (M, N)
        return torch.logsumexp(log_q, dim=1)

    def laplace_elbo(x, x_hat, b, mu, logvar):
        """ELBO d'un décodeur de Laplace(x_hat, b). x, x_hat : (B, D). Résultat : (B,), nats."""
        return ...


class References:
    """One right answer to each; `solution` shows its source."""

    def kl(mu, logvar):
        """KL( N(mu, diag(exp(logvar))) ‖ N(0, I) ). mu, logvar : (B, d). Résultat : (B,), nats."""
        return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)

    def vae_loss(logits, x, mu, logvar):
        """Coût d'un VAE, en nats par image. logits, x : (B, C, H, W). mu, logvar : (B, d)."""
        bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        reconstruction = bce.flatten(1).sum(dim=1).mean()  # somme des pixels, moyenne du lot
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
        return reconstruction + kl

    def log_aggregate(z, mu, logvar):
        """log q(z) aux points z : (M, d), pour les N codes mu, logvar : (N, d). Résultat : (M,)."""
        squares = (z[:, None] - mu) ** 2 / logvar.exp()  # (M, N, d)
        log_q = -0.5 * (squares + logvar + math.log(2 * math.pi)).sum(dim=2)  # (M, N)
        return torch.logsumexp(log_q, dim=1) - math.log(len(mu))

    def laplace_elbo(x, x_hat, b, mu, logvar):
        """ELBO d'un décodeur de Laplace(x_hat, b). x, x_hat : (B, D). Résultat : (B,), nats."""
        log_likelihood = -((x - x_hat).abs() / b + math.log(2 * b)).sum(dim=1)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)
        return log_likelihood - kl


# ---------------------------------------------------------------------------------------------
# The checks: each raises `Wrong`, or returns the sentence of the ✔ line
# ---------------------------------------------------------------------------------------------


def check_kl(kl):
    mu = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.5, -2.0, 1.5]])
    sigma = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.1, 1.0, 1.0], [0.3, 2.0, 0.7]])
    mu, logvar = mu.double(), 2 * sigma.double().log()
    expected = References.kl(mu, logvar)
    advice = "Sommez sur les dimensions de z, et gardez une valeur par image."
    answer = call(kl, mu, logvar)
    got = as_tensor(answer, (4,), "un nombre par image", advice)
    compare(
        got,
        expected,
        tolerance(answer),
        lambda i: f"mu = {numbers(mu[i])} et sigma = {numbers(sigma[i])}",
    )
    return "même valeur que la référence, à 1e-6 près."


def train_small_vae(vae_loss, steps=400):
    """Train a small VAE on 14×14 digits with the cost `vae_loss`.

    Returns:
        the model, images of the test set, and the mean KL of their codes, in nats.
    """
    data = small_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VAE(data.shape, z_dim=8, hidden=(64,)).start_from(data.train.images)

        def loss(x):
            mu, logvar = model.encode(x)
            z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
            return vae_loss(model.decoder(z)[:, 0], x.float(), mu, logvar)

        # `fit` trains anything with a `loss`: here, the student's cost on a library VAE.
        model.loss = loss
        train_small(model, data, steps=steps)
    with torch.no_grad():
        kl = kl_to_standard_normal(*model.encode(data.test.images)).mean().item()
    return model, data.test.images, kl


def check_vae_loss(vae_loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 2, 4, generator=generator)
    x = (torch.rand(3, 1, 2, 4, generator=generator) < 0.5).float()
    mu, logvar = torch.randn(2, 3, 2, generator=generator)
    expected = References.vae_loss(logits, x, mu, logvar).item()
    cost = call(vae_loss, logits.requires_grad_(), x, mu, logvar)
    advice = "Prenez la moyenne sur les images."
    got = as_tensor(cost, (), "un seul nombre pour le lot", advice).item()
    if not getattr(cost, "requires_grad", False):
        raise Wrong("le coût doit rester dérivable : ni .item(), ni .detach(), ni numpy.")
    if abs(got - expected) <= 1e-4 * abs(expected):
        _, _, nats = train_small_vae(vae_loss)
        if not nats > 5:
            spent = counted(nats, "nat", ".2f")
            raise Wrong(f"après 400 pas, KL = {spent} : le code z est ignoré.")
        return "le modèle entraîné avec votre coût dépense plus de 5 nats de KL : il se sert de z."
    kl = References.kl(mu, logvar).mean().item()
    reconstruction = expected - kl
    slips = (
        (3 * expected, "Vous avez sommé sur les 3 images : prenez-en la moyenne.", 2),
        (
            3 * reconstruction + kl,
            "La reconstruction est sommée sur les 3 images : divisez par la taille du lot.",
            2,
        ),
        (reconstruction / 8 + kl, "La reconstruction est une moyenne sur les 8 pixels.", 1),
        (expected / 8, "Vous avez tout divisé par le nombre de pixels.", 2),
    )
    reason, helpful = recognise(got, slips)
    raise Wrong(
        f"sur un lot de 3 images de 8 pixels, on attend {expected:.4g} nats par image ; "
        f"vous obtenez {got:.4g}.{reason}",
        hint=helpful,
    )


def check_log_aggregate(log_aggregate):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 2, generator=generator).double()
    mu, logvar = torch.randn(2, 3, 2, generator=generator).double()
    answer = call(log_aggregate, z, mu, logvar)
    log_q_2d = as_tensor(answer, (5,), "un nombre par point z")
    expected_2d = References.log_aggregate(z, mu, logvar)

    mu = torch.tensor([[-1.0], [0.5], [2.0], [2.5]]).double()
    logvar = 2 * torch.tensor([[0.5], [0.2], [1.0], [0.3]]).double().log()
    z = torch.linspace(-6, 8, 2801).double()[:, None]
    answer = call(log_aggregate, z, mu, logvar)
    log_q = as_tensor(answer, (2801,), "un nombre par point z")
    total = log_q.exp().sum().item() * 14 / 2800
    if not abs(total - 1) < 1e-3:
        raise Wrong(
            f"avec 4 codes, l'intégrale de q(z) vaut {total:.3f} au lieu de 1.",
            hint=1 if total > 1 else 2,
        )
    expected = References.log_aggregate(z, mu, logvar)
    compare(log_q, expected, 10 * tolerance(answer), lambda i: f"z = {z[i].item():.3g}")
    compare(log_q_2d, expected_2d, 10 * tolerance(answer), lambda i: "3 codes de dimension 2")
    return "l'intégrale de q(z) vaut 1."


def check_laplace_elbo(laplace_elbo):
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.rand(2, 4, 5, generator=generator).double()
    mu, logvar = torch.randn(2, 4, 3, generator=generator).double()
    for b in (1.0, 0.5, 0.1, 2.0):
        answer = call(laplace_elbo, x, x_hat, b, mu, logvar)
        got = as_tensor(answer, (4,), "un nombre par image")
        expected = References.laplace_elbo(x, x_hat, b, mu, logvar)

        constant = 5 * math.log(2 * b)
        if abs(constant) > 1e-9 and torch.allclose(got, expected + constant):
            raise Wrong(
                f"avec b = {b} et 5 pixels, chaque valeur a {counted(constant, 'nat', '+.3g')} "
                "d'écart, soit 5 log(2b) : la constante de la loi de Laplace manque.",
                hint=2,
            )

        def describe(i, b=b):
            kl = References.kl(mu, logvar)[i]
            where = f"x = {numbers(x[i])}, x_hat = {numbers(x_hat[i])}"
            return f"b = {b}, {where} et KL = {kl:.4g}"

        compare(got, expected, tolerance(answer), describe)
    gap = _smallest_gap(laplace_elbo)
    if gap < 0:
        raise Wrong(f"la « borne » dépasse log p(x) de {counted(-gap, 'nat', '.3g')}.")
    return "votre borne reste sous log p(x), calculé par quadrature."


def _smallest_gap(laplace_elbo):
    """Smallest log p(x) − ELBO of a toy model: z ~ N(0, 1), x ~ Laplace(2z, 0.3), any q."""
    z = torch.linspace(-8, 8, 4001).double()
    step, b = 16 / 4000, 0.3
    gaps = []
    for x in (-1.5, 0.0, 0.4, 3.0):
        x = torch.full_like(z, x)
        log_joint = likelihoods.laplace(x, 2 * z, math.log(b))
        log_joint = log_joint + likelihoods.gaussian(z, torch.zeros_like(z), 0.0)
        log_evidence = torch.logsumexp(log_joint, 0) + math.log(step)
        for mu, sigma in ((0.45 * x, 0.2), (0.3 * x, 0.5), (0.0 * x, 1.0)):
            logvar = torch.full_like(z, 2 * math.log(sigma))
            columns = [tensor[:, None] for tensor in (x, 2 * z, mu, logvar)]  # (4001, 1) each
            bound = torch.as_tensor(call(laplace_elbo, *columns[:2], b, *columns[2:]))
            q = likelihoods.gaussian(z, mu, logvar).exp() * step
            gaps.append((log_evidence - (q * bound).sum() / q.sum()).item())
    return min(gaps)


Exercise(
    "01.kl",
    Stubs.kl,
    References.kl,
    check_kl,
    (
        "Une dimension d'abord : E_q[log q(z) − log p(z)], avec E_q[z²] = µ² + σ².",
        "En une dimension : ½ (µ² + σ² − 1 − log σ²). Et la divergence de variables indépendantes "
        "est la somme des divergences : sommez sur la dernière dimension.",
    ),
)
Exercise(
    "01.sum_mean",
    Stubs.vae_loss,
    References.vae_loss,
    check_vae_loss,
    (
        "La KL est juste. Que fait binary_cross_entropy_with_logits des pixels, si on ne lui dit "
        "rien ?",
        'log p(x|z) d\'une image est la somme sur ses pixels : reduction="none", puis '
        ".flatten(1).sum(dim=1), puis la moyenne sur les images du lot.",
    ),
)
Exercise(
    "01.aggregate",
    Stubs.log_aggregate,
    References.log_aggregate,
    check_log_aggregate,
    (
        "La somme de N densités s'intègre à N. Que faut-il pour que ce soit un mélange ?",
        "q(z) = (1/N) Σ q(z|x_i). Dans le logarithme, diviser par N, c'est soustraire log N.",
    ),
)
Exercise(
    "01.laplace",
    Stubs.laplace_elbo,
    References.laplace_elbo,
    check_laplace_elbo,
    (
        "Densité de Laplace : p(x|x̂) = exp(−|x − x̂| / b) / (2b), pour chaque pixel.",
        "Vérifiez la constante : chaque pixel apporte −log(2b), D fois au total.",
        "ELBO = Σ_pixels (−|x − x̂|/b − log 2b) − KL, avec la KL du premier exercice.",
    ),
)
