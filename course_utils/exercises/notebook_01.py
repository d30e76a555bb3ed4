"""Exercises of notebook 01: the closed-form KL, sum or mean, the aggregate posterior, Laplace."""

import math

import torch
import torch.nn.functional as F

from ..language import tr, trn
from . import Exercise
from .harness import SameAs, listed, remixed


def _normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ---- 01.kl -------------------------------------------------------------------------------------


def kl(mu, logvar):
    """KL( N(mu, diag(exp(logvar))) ‖ N(0, I) ). mu, logvar : (B, d). Résultat : (B,), nats."""
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)


def _gaussians():
    """One thing at a time (a mean, a narrow and a wide scale), then others of other shapes."""
    mu = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.5, -2.0, 1.5]])
    sigma = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.1, 1.0, 1.0], [0.3, 2.0, 0.7]])
    others = [("", [_normal(B, B, d), 3 * _normal(d, B, d)]) for B, d in ((2, 5), (5, 1))]
    return [("", [mu, 2 * sigma.log()]), *others]


Exercise(
    "01.kl",
    kl,
    SameAs(
        kl,
        _gaussians,
        what=tr("un nombre par image"),
        where=lambda i, mu, logvar: tr(
            "mu = {mu} et sigma = {sigma}",
            mu=listed(mu[i]),
            sigma=listed(torch.exp(0.5 * logvar[i])),
        ),
        gradient=("mu", "logvar"),
        slips=(
            (lambda mu, logvar: -kl(mu, logvar), tr("Le signe est à changer.")),
            (lambda mu, logvar: 2 * kl(mu, logvar), tr("C'est le double : il manque le ½.")),
            (
                lambda mu, logvar: kl(mu, logvar) / mu.shape[1],
                tr("C'est la moyenne sur les dimensions : il en faut la somme."),
            ),
            (
                lambda mu, logvar: kl(mu, 2 * logvar),
                tr("Vous lisez logvar comme log σ : c'est log σ², le logarithme de la variance."),
            ),
            (lambda mu, logvar: kl(mu, logvar) + mu.shape[1] / 2, tr("Le − 1 manque.")),
        ),
        praise=tr("la valeur et le gradient sont ceux de la référence, dans trois formes."),
    ),
    (
        tr("Une dimension d'abord : E_q[log q(z) − log p(z)], avec E_q[z²] = µ² + σ²."),
        tr(
            "En une dimension : ½ (µ² + σ² − 1 − log σ²). Et la divergence de variables "
            "indépendantes est la somme des divergences : sommez sur la dernière dimension."
        ),
    ),
)


# ---- 01.sum_mean -------------------------------------------------------------------------------


def vae_loss(logits, x, mu, logvar):
    """Coût d'un VAE, en nats par image. logits, x : (B, C, H, W). mu, logvar : (B, d)."""
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    reconstruction = bce.flatten(1).sum(dim=1).mean()  # somme des pixels, moyenne du lot
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
    return reconstruction + kl


def broken_vae_loss(logits, x, mu, logvar):
    reconstruction = F.binary_cross_entropy_with_logits(logits, x)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
    return reconstruction + kl


def _batches():
    """Batches of unlike sizes, the second in colours."""
    for B, C, H, W, d in ((3, 1, 2, 4, 2), (2, 3, 5, 3, 4)):
        logits, mu, logvar = _normal(0, B, C, H, W), _normal(1, B, d), _normal(2, B, d)
        x = (_normal(3, B, C, H, W) > 0).float()
        name = tr("{B} images {C}×{H}×{W} et {d} dimensions de z", B=B, C=C, H=H, W=W, d=d)
        yield name, [logits, x, mu, logvar]


def _parts(logits, x, mu, logvar):
    """The reconstruction, the KL; how many pixels, images, and dimensions of z."""
    k = kl(mu, logvar).mean()
    return vae_loss(logits, x, mu, logvar) - k, k, x[0].numel(), len(x), mu.shape[1]


# mixes of these parts: of the cost with a fixed prior, or with one that is learned (02.prior)
COSTS = (
    (lambda r, k, D, B, d: r / D + k, tr("La reconstruction est une moyenne sur les pixels.")),
    (lambda r, k, D, B, d: B * (r + k),
     tr("Vous avez sommé sur les images du lot : prenez-en la moyenne.")),
    (lambda r, k, D, B, d: B * r + k,
     tr("La reconstruction est sommée sur les images : divisez par la taille du lot.")),
    (lambda r, k, D, B, d: (r + k) / D, tr("Vous avez tout divisé par le nombre de pixels.")),
    (lambda r, k, D, B, d: r, tr("La KL manque.")),
    (lambda r, k, D, B, d: r - k, tr("La KL est comptée à l'envers.")),
    (lambda r, k, D, B, d: r + 2 * k, tr("La KL est double : il manque le ½ ?")),
    (lambda r, k, D, B, d: r + k / d, tr("La KL est une moyenne sur les dimensions de z.")),
    (lambda r, k, D, B, d: r + B * k, tr("La KL est sommée sur les images.")),
    (lambda r, k, D, B, d: k - r, tr("La reconstruction est comptée à l'envers.")),
    (lambda r, k, D, B, d: -r - k, tr("C'est l'ELBO : un coût à minimiser est −ELBO.")),
    (lambda r, k, D, B, d: r + k.detach(), tr("La KL ne compte plus : elle est détachée.")),
)  # fmt: skip


Exercise(
    "01.sum_mean",
    vae_loss,
    SameAs(
        vae_loss,
        _batches,
        what=tr("un seul nombre pour le lot"),
        gradient=("logits", "mu", "logvar"),
        slips=remixed(_parts, *COSTS),
        praise=tr("la valeur et le gradient sont justes, pour un canal comme pour trois."),
    ),
    (
        tr("Que fait binary_cross_entropy_with_logits des pixels, si on ne lui dit rien ?"),
        tr("log p(x|z) d'une image est la somme sur ses pixels : reduction=\"none\", puis "
           ".flatten(1).sum(dim=1), puis la moyenne sur les images du lot."),
        tr("Le coût est la reconstruction plus la KL, telle qu'elle était écrite : la somme sur "
           "les dimensions de z, la moyenne sur les images."),
    ),
    broken=broken_vae_loss,
)  # fmt: skip


# ---- 01.aggregate ------------------------------------------------------------------------------


def log_aggregate(z, mu, logvar):
    """log q(z) aux points z : (M, d), pour les N codes mu, logvar : (N, d). Résultat : (M,)."""
    squares = (z[:, None] - mu) ** 2 / logvar.exp()  # (M, N, d)
    log_q = -0.5 * (squares + logvar + math.log(2 * math.pi)).sum(dim=2)  # (M, N)
    return torch.logsumexp(log_q, dim=1) - math.log(len(mu))


def broken_log_aggregate(z, mu, logvar):
    squares = (z[:, None] - mu) ** 2 / logvar.exp()  # (M, N, d)
    log_q = -0.5 * (squares + logvar + math.log(2 * math.pi)).sum(dim=2)  # (M, N)
    return torch.logsumexp(log_q, dim=1)


def _codes_and_points():
    for M, N, d in ((5, 3, 2), (2, 4, 1), (3, 7, 5)):
        name = trn(
            "{M} points, {N} codes et {count} dimension",
            "{M} points, {N} codes et {count} dimensions",
            d, M=M, N=N,
        )  # fmt: skip
        inputs = [_normal(M, M, d), _normal(N, N, d), _normal(d, N, d)]
        yield name, inputs
    near_and_far = torch.tensor([[0.0, 0.0], [60.0, 60.0]])
    inputs = [near_and_far, _normal(0, 3, 2), torch.zeros(3, 2)]
    yield tr("deux points, dont un si loin que q(z) y est trop petit pour un flottant"), inputs


Exercise(
    "01.aggregate",
    log_aggregate,
    SameAs(
        log_aggregate,
        _codes_and_points,
        what=tr("un nombre par point z"),
        where=lambda i, z, mu, logvar: f"z = {listed(z[i])}",
        slips=(
            (
                lambda z, mu, logvar: log_aggregate(z, mu, logvar) + 2 * math.log(len(mu)),
                tr("Le facteur 1/N est à l'envers : il diminue q(z)."),
            ),
            (
                lambda z, mu, logvar: broken_log_aggregate(z, mu, logvar) - math.log(len(z)),
                tr("Vous divisez par le nombre de points z : q(z) est un mélange de codes."),
            ),
            (broken_log_aggregate, tr("L'intégrale de votre q(z) vaut le nombre de codes, pas 1.")),
            (
                lambda z, mu, logvar: broken_log_aggregate(z, mu, logvar).exp().div(len(mu)).log(),
                tr("L'exponentielle y vaut 0 : il faut rester en logarithmes."),
            ),
        ),
        praise=tr("q(z) s'intègre à 1, et reste juste loin des codes."),
    ),
    (
        tr("La somme de N densités s'intègre à N. Que faut-il pour que ce soit un mélange ?"),
        tr("q(z) = (1/N) Σ q(z|x_i). Dans le logarithme, diviser par N, c'est soustraire log N."),
    ),
    broken=broken_log_aggregate,
)


# ---- 01.laplace --------------------------------------------------------------------------------


def laplace_elbo(x, x_hat, b, mu, logvar):
    """ELBO d'un décodeur de Laplace(x_hat, b). x, x_hat : (B, D). Résultat : (B,), nats."""
    log_likelihood = -((x - x_hat).abs() / b + math.log(2 * b)).sum(dim=1)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1)
    return log_likelihood - kl


def _grey_images():
    for b, B, D, d in ((1.0, 4, 5, 3), (0.1, 2, 7, 4), (2.0, 3, 2, 1)):
        x, x_hat = torch.rand(2, B, D, generator=torch.Generator().manual_seed(B))
        name = tr("{D} pixels et b = {b:g}", D=D, b=b)
        yield name, [x, x_hat, b, _normal(0, B, d), _normal(1, B, d)]


def _terms(x, x_hat, b, mu, logvar):
    """The error in units of b, the constant of a pixel, the number of pixels, the KL."""
    return (x - x_hat).abs().sum(dim=1) / b, math.log(2 * b), x.shape[1], kl(mu, logvar)


Exercise(
    "01.laplace",
    laplace_elbo,
    SameAs(
        laplace_elbo,
        _grey_images,
        what=tr("un nombre par image"),
        where=lambda i, x, x_hat, b, mu, logvar: tr(
            "x = {x}, x_hat = {x_hat} et KL = {kl:.4g}",
            x=listed(x[i]), x_hat=listed(x_hat[i]), kl=kl(mu, logvar)[i],
        ),
        slips=remixed(
            _terms,
            (lambda e, c, D, k: -e - k,
             tr("La constante de la loi de Laplace manque : D log(2b).")),
            (lambda e, c, D, k: -e - c - k,
             tr("La constante −log(2b) est comptée une fois par image, et non une fois par "
                "pixel.")),
            (lambda e, c, D, k: -e - D * (c - math.log(2)) - k,
             tr("La constante est log(2b), et non log b.")),
            (lambda e, c, D, k: -e + D * c - k, tr("La constante est comptée à l'envers.")),
            (lambda e, c, D, k: -e - D * c + k, tr("Vous ajoutez la KL : elle se retranche.")),
            (lambda e, c, D, k: -e - D * c, tr("La KL manque.")),
            (lambda e, c, D, k: -e - D * c - 2 * k, tr("La KL est double : il manque le ½ ?")),
            (lambda e, c, D, k: e + D * c + k, tr("C'est −ELBO, un coût ; on demande l'ELBO.")),
            (lambda e, c, D, k: e - D * c - k,
             tr("L'erreur doit faire baisser la vraisemblance.")),
            (lambda e, c, D, k: -e / D - c - k,
             tr("C'est la moyenne sur les pixels : il en faut la somme.")),
        ),
        praise=tr("valeurs justes, constante comprise, pour trois échelles b."),
    ),
    (
        tr("ELBO = E_q[log p(x|z)] − KL. La densité de Laplace d'un pixel : exp(−|x − x̂| / b) / "
           "(2b)."),
        tr("Chaque pixel apporte aussi −log(2b), D fois au total."),
        tr("ELBO = Σ_pixels (−|x − x̂|/b − log 2b) − KL, avec la KL du premier exercice."),
    ),
)  # fmt: skip
