"""Exercises of notebook 02: concatenation, conditional ELBO, class grid, completion, prior."""

import math

import torch
import torch.nn.functional as F

from ..cvae import visible_part
from ..evaluation import label_fidelity
from ..vae import kl_between_gaussians, kl_to_standard_normal
from . import Exercise, Wrong
from .helpers import as_tensor, call, numbers, recognise
from .small_models import (
    LEFT,
    ambiguous_half,
    classifier,
    fixed_prior_cost,
    small_class_model,
    small_completion_model,
    train_half_model,
)


class Stubs:
    """What the notebook shows: to complete, or to repair."""

    def join(z, labels, num_classes):
        """z (B, d), puis la classe en « un parmi K » (one-hot). Résultat : (B, d + K)."""
        return ...

    def conditional_elbo(q, prior, likelihood):
        """q = q(z|x,c), prior = p(z|c), likelihood = p(x|z,c) : (Z,). Résultat en nats."""
        log_p = torch.log((prior * likelihood).sum())  # log p(x|c), comme sur la diapositive
        kl = (q * torch.log(q / prior)).sum()
        return (q * log_p).sum() - kl

    def class_grid(model, z):
        """Ligne k : la classe k ; colonne j : le style z[j]. z : (n, d). (10 n, 1, H, W)."""
        return ...

    def complete(x, mask, n, prior, decode):
        """n complétions de l'image x (1, H, W), dont mask (H, W) est vrai aux pixels visibles.

        La condition est c = visible_part(x[None], mask). prior(c) : mu, logvar (1, d).
        decode(z, c) : probabilité de chaque pixel, (n, 1, H, W), pour z (n, d).
        Résultat : (n, 1, H, W), des 0 et des 1.
        """
        return ...

    def cvae_loss(x, c, encode, prior, decode):
        """Coût d'un CVAE à loi a priori apprise, en nats par image : un seul nombre pour le lot.

        x (B, C, H, W) : des 0 et des 1. encode(x, c) et prior(c) : mu, logvar (B, d).
        decode(z, c) : log-cotes des pixels, (B, C, H, W). La KL s'écrit en forme close.
        """
        return ...


class References:
    """One right answer to each; `solution` shows its source."""

    def join(z, labels, num_classes):
        """z (B, d), puis la classe en « un parmi K » (one-hot). Résultat : (B, d + K)."""
        return torch.cat([z, F.one_hot(labels, num_classes)], dim=1)

    def conditional_elbo(q, prior, likelihood):
        """q = q(z|x,c), prior = p(z|c), likelihood = p(x|z,c) : (Z,). Résultat en nats."""
        kl = (q * torch.log(q / prior)).sum()
        return (q * torch.log(likelihood)).sum() - kl

    def class_grid(model, z):
        """Ligne k : la classe k ; colonne j : le style z[j]. z : (n, d). (10 n, 1, H, W)."""
        labels = torch.arange(10).repeat_interleave(len(z))  # 0, 0, …, 1, 1, …
        return model.decode(z.repeat(10, 1), labels)  # z[0], z[1], …, z[0], z[1], …

    def complete(x, mask, n, prior, decode):
        """n complétions de l'image x (1, H, W), dont mask (H, W) est vrai aux pixels visibles.

        La condition est c = visible_part(x[None], mask). prior(c) : mu, logvar (1, d).
        decode(z, c) : probabilité de chaque pixel, (n, 1, H, W), pour z (n, d).
        Résultat : (n, 1, H, W), des 0 et des 1.
        """
        c = visible_part(x[None], mask)  # (1, 2, H, W)
        mu, logvar = prior(c)
        z = mu + torch.exp(0.5 * logvar) * torch.randn(n, mu.shape[1])  # n tirages différents
        pixels = torch.bernoulli(decode(z, c))
        return torch.where(mask, x.float(), pixels)  # les pixels visibles sont recopiés

    def cvae_loss(x, c, encode, prior, decode):
        """Coût d'un CVAE à loi a priori apprise, en nats par image : un seul nombre pour le lot.

        x (B, C, H, W) : des 0 et des 1. encode(x, c) et prior(c) : mu, logvar (B, d).
        decode(z, c) : log-cotes des pixels, (B, C, H, W). La KL s'écrit en forme close.
        """
        mu_q, logvar_q = encode(x, c)
        mu_p, logvar_p = prior(c)
        z = mu_q + torch.exp(0.5 * logvar_q) * torch.randn_like(mu_q)
        bce = F.binary_cross_entropy_with_logits(decode(z, c), x, reduction="none")
        squares = (mu_q - mu_p) ** 2 / logvar_p.exp()
        kl = 0.5 * (squares + (logvar_q - logvar_p).exp() - 1 - (logvar_q - logvar_p)).sum(dim=1)
        return (bce.flatten(1).sum(dim=1) + kl).mean()


# ---------------------------------------------------------------------------------------------
# The checks: each raises `Wrong`, or returns the sentence of the ✔ line
# ---------------------------------------------------------------------------------------------


def check_join(join):
    for batch, d, k in ((3, 2, 4), (5, 4, 10)):
        generator = torch.Generator().manual_seed(batch)
        z = torch.randn(batch, d, generator=generator).requires_grad_()
        labels = torch.randint(k, (batch,), generator=generator)
        result = call(join, z, labels, k)
        advice = "La classe devient un vecteur de K nombres : un 1 à sa place, des 0 ailleurs."
        got = as_tensor(result, (batch, d + k), "une ligne par image", advice)
        expected = References.join(z, labels, k).detach().double()
        for i in range(batch):
            if not torch.allclose(got[i], expected[i], atol=1e-6):
                raise Wrong(
                    f"pour z = {numbers(z[i])}, classe {labels[i]} parmi {k} : on attend "
                    f"{numbers(expected[i])} ; vous obtenez {numbers(got[i])}.",
                    hint=1 if torch.allclose(got[i, :d], expected[i, :d], atol=1e-6) else 2,
                )
        if not getattr(result, "requires_grad", False):
            raise Wrong("le gradient n'atteint plus z : ni .detach(), ni numpy, ni no_grad.")
        weights = torch.randn(result.shape, generator=generator)
        (gradient,) = torch.autograd.grad((result * weights).sum(), z)
        if not torch.allclose(gradient, weights[:, :d], atol=1e-5):
            raise Wrong("le gradient par rapport à z n'est pas celui d'une simple copie.")
    return "bonne forme, bonnes valeurs, et le gradient atteint z."


def check_conditional_elbo(conditional_elbo):
    generator = torch.Generator().manual_seed(0)
    for size in (2, 3, 5):
        logits = torch.randn(3, size, generator=generator).double()
        q, prior = logits[:2].softmax(1)
        likelihood = torch.sigmoid(logits[2])  # of one x: does not sum to 1 over z
        evidence = (prior * likelihood).sum()
        posterior = prior * likelihood / evidence
        answer = call(conditional_elbo, q, prior, likelihood)
        elbo = as_tensor(answer, (), "un seul nombre").item()
        gap = (q * torch.log(q / posterior)).sum().item()
        tolerance = 1e-10 if getattr(answer, "dtype", torch.float64) == torch.float64 else 1e-6
        if not abs(elbo + gap - evidence.log().item()) <= tolerance:
            raise Wrong(
                f"pour q = {numbers(q)}, p(z|c) = {numbers(prior)} et p(x|z,c) = "
                f"{numbers(likelihood)} : ELBO + KL(q‖postérieur) = {elbo + gap:.6f}, et "
                f"log p(x|c) = {evidence.log().item():.6f}."
            )
    return "log p(x|c) = ELBO + KL(q‖postérieur), à 1e-10 près."


def check_class_grid(class_grid):
    model, n = small_class_model(), 8
    z = torch.randn(n, model.z_dim, generator=torch.Generator().manual_seed(0))
    advice = "Dix lignes de n images : 10 n codes à décoder."
    images = as_tensor(
        call(class_grid, model, z), (10 * n, *model.shape), "une grille d'images", advice
    ).float()
    if images.min() < 0 or images.max() > 1 or ((images == 0) | (images == 1)).all():
        raise Wrong(
            "on attend les intensités de model.decode, telles quelles, entre 0 et 1.", hint=3
        )
    labels = torch.arange(10).repeat_interleave(n)
    judge = classifier()
    fidelity = label_fidelity(images, labels, classifier=judge)
    if fidelity < 0.9:
        in_columns = label_fidelity(images, torch.arange(10).repeat(n), classifier=judge)
        reason = " Les classes changent d'une colonne à l'autre." if in_columns > 0.9 else ""
        raise Wrong(
            f"le classifieur lit la bonne classe dans {fidelity:.0%} des cases seulement : la "
            f"ligne k doit montrer la classe k.{reason}",
            hint=2,
        )
    with torch.no_grad():
        expected = References.class_grid(model, z)
    error = (images - expected).flatten(1).abs().amax(1)
    if error.max() > 1e-4:
        row, column = divmod(int(error.argmax()), n)
        raise Wrong(
            f"la case de la ligne {row}, colonne {column} n'est pas le décodage de z[{column}] : "
            "une colonne garde le même style dans ses dix lignes.",
            hint=2,
        )
    return f"le classifieur lit la bonne classe dans {fidelity:.0%} des cases."


def check_complete(complete):
    model, image = small_completion_model(), ambiguous_half()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        _check_the_steps(complete)
        answer = call(
            complete,
            image,
            LEFT,
            32,
            lambda c: model.prior(len(c), c),
            lambda z, c: torch.sigmoid(model.decoder(z, model.condition(c, len(z)))[:, 0]),
        )
    labels, _ = classifier().read(as_tensor(answer, (32, *model.shape), "32 images").float())
    classes = sorted(set(labels.tolist()))
    if len(classes) < 2:
        raise Wrong("32 complétions d'une moitié ambiguë montrent toutes la même classe.")
    return f"pixels visibles intacts ; une même moitié devient {' ou '.join(map(str, classes))}."


def _check_the_steps(complete):
    """The steps one by one, on a false model that notes what it receives."""
    n, conditions, codes = 400, [], []
    mu, sigma = torch.tensor([[5.0, -5.0, 0.0]]), torch.tensor([[0.2, 1.0, 2.0]])
    probability = torch.full((1, 4, 4), 0.25)
    probability[0, 0], probability[0, 1] = 0.0, 1.0  # rows that are always white, always black

    def prior(c):
        conditions.append(c)
        return mu.expand(len(c), -1), (2 * sigma.log()).expand(len(c), -1)

    def decode(z, c):
        conditions.append(c)
        codes.append(z)
        return probability.expand(len(z), 1, 4, 4)

    x = (torch.arange(16).view(1, 4, 4) % 3 == 0).to(torch.uint8)
    mask = torch.arange(4).expand(4, 4) != 2
    answer = complete(x.clone(), mask.clone(), n, prior, decode)
    images = as_tensor(answer, (n, 1, 4, 4), f"{n} images pour n = {n}")
    if len(conditions) == len(codes) or not codes:
        raise Wrong("il faut appeler prior(c), pour la loi de z, puis decode(z, c).", hint=1)
    expected = visible_part(x[None], mask)
    if not all(c.shape[1:] == expected.shape[1:] and (c == expected).all() for c in conditions):
        raise Wrong(
            "prior et decode ne reçoivent pas la bonne condition : c = visible_part(x[None], "
            "mask).",
            hint=1,
        )
    z = torch.cat(codes)
    if tuple(z.shape) != (n, 3):
        raise Wrong(
            f"decode a reçu des codes {tuple(z.shape)} : pour n = {n} et d = 3, il en faut "
            f"({n}, 3), un par complétion.",
            hint=2,
        )
    if (z == z[0]).all():
        raise Wrong(
            "les n complétions partagent le même code z : tirez-en un pour chacune.", hint=2
        )
    _check_law(z, mu, sigma, "de prior(c)", hints=(1, 2))
    if not ((images == 0) | (images == 1)).all():
        raise Wrong("on attend des 0 et des 1 : tirez chaque pixel (torch.bernoulli).", hint=1)
    if not (images == x)[:, :, mask].all():
        raise Wrong("un pixel visible a changé : recopiez x partout où mask est vrai.", hint=3)
    drawn = images.mean(0)[0, :, 2]  # share of black among the n draws, in the hidden column
    if not ((drawn - probability[0, :, 2]).abs() < 0.1).all():
        raise Wrong(
            f"decode donne aux quatre pixels cachés les probabilités "
            f"{numbers(probability[0, :, 2])} ; vous les noircissez avec les fréquences "
            f"{numbers(drawn)}.",
            hint=1,
        )


def _check_law(z, mu, sigma, whose, hints):
    """Raise unless the rows of z `(n, d)`, n in the hundreds, look like draws of N(mu, σ²).

    hints: the numbers of those about the law, and about its independent dimensions.
    """
    epsilon = (z - mu) / sigma
    mean, variance = epsilon.mean(0), epsilon.var(0)
    if not ((mean.abs() < 0.3).all() and ((0.6 < variance) & (variance < 1.5)).all()):
        raise Wrong(
            f"vos codes z ne suivent pas la loi {whose} : en les ramenant à ε = (z − mu) / σ, on "
            f"trouve une moyenne {numbers(mean)} et une variance {numbers(variance)}, au lieu de "
            "0 et 1. Rappel : σ = exp(logvar / 2).",
            hint=hints[0],
        )
    if (epsilon.T.corrcoef().tril(-1).abs() > 0.3).any():
        text = "les dimensions de z bougent ensemble : il faut un ε pour chacune."
        raise Wrong(text, hint=hints[1])


def check_cvae_loss(cvae_loss):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _check_z(cvae_loss)
        _check_its_value(cvae_loss)
    costs = []
    for seed in range(3):
        fixed, learned = fixed_prior_cost(seed), train_half_model(seed, "learned", cvae_loss)
        costs.append(f"{learned:.1f} contre {fixed:.1f}")
        if not learned < fixed:
            raise Wrong(
                f"graine {seed} : p(z|c) apprise donne {learned:.2f} nats par image, N(0, I) "
                f"{fixed:.2f}. Elle devrait faire mieux."
            )
    return f"mieux que N(0, I) sur trois graines ({' ; '.join(costs)} nats)."


def _check_z(cvae_loss):
    """The code that decode receives: its law, and the gradient that runs through it."""
    received = []
    mu = torch.tensor([1.0, -2.0]).repeat(400, 1).requires_grad_()
    logvar = torch.full((400, 2), math.log(4.0)).requires_grad_()

    def decode(z, c):
        received.append(z)
        return z.view(400, 1, 1, 2)

    zeros = torch.zeros(400, 2)
    cvae_loss(
        torch.zeros(400, 1, 1, 2),
        torch.zeros(400, 1),
        lambda x, c: (mu * 1, logvar * 1),
        lambda c: (zeros.clone(), zeros.clone()),
        decode,
    )
    if not received:
        raise Wrong("votre coût n'appelle pas decode(z, c).", hint=3)
    z = received[0]
    if tuple(z.shape) != (400, 2):
        raise Wrong(f"pour 400 images et d = 2, decode a reçu des codes {tuple(z.shape)}.", hint=3)
    _check_law(z.detach(), mu.detach(), 2.0, "q(z|x,c)", hints=(3, 3))
    slopes = (None, None)
    if z.requires_grad:
        slopes = torch.autograd.grad(z.sum(), (mu, logvar), allow_unused=True)
    for name, slope, expected in zip(("mu", "logvar"), slopes, (torch.ones_like(mu), (z - mu) / 2)):
        if slope is None or not torch.allclose(slope, expected, atol=1e-4):
            raise Wrong(
                f"le gradient ne remonte pas de z à {name} de q : il faut z = mu + σ ε, sans rien "
                "détacher (ni .sample(), ni .detach()).",
                hint=3,
            )


def _check_its_value(cvae_loss):
    """Value and gradients where chance plays no part: a decoder that ignores z."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(4, 4, 2, generator=generator)  # mu_q, logvar_q, mu_p, logvar_p
    x = (torch.rand(4, 1, 2, 3, generator=generator) < 0.5).float()
    logits = torch.randn(4, 1, 2, 3, generator=generator)
    condition = torch.arange(4.0)[:, None]  # a different one for each image
    asked = []

    def run(loss):
        leaves = [t.clone().requires_grad_() for t in inputs]
        mu_q, logvar_q, mu_p, logvar_p = (t * 1 for t in leaves)

        def encode(x, c):
            asked.append(("encode", c))
            return mu_q, logvar_q

        def prior(c):
            asked.append(("prior", c))
            return mu_p, logvar_p

        def decode(z, c):
            asked.append(("decode", c))
            return logits + 0 * z.sum()

        return loss(x.clone(), condition.clone(), encode, prior, decode), leaves

    cost, leaves = run(cvae_loss)
    for name, c in asked:
        if c.shape != condition.shape or not (c == condition).all():
            raise Wrong(f"{name} ne reçoit pas la condition c de chaque image, telle quelle.")
    got = as_tensor(cost, (), "un seul nombre pour le lot", "Prenez la moyenne sur les images.")
    if not getattr(cost, "requires_grad", False):
        raise Wrong("le coût doit rester dérivable : ni .item(), ni .detach(), ni numpy.")
    right, twins = run(References.cvae_loss)
    got, expected = got.item(), right.item()
    if not abs(got - expected) <= 1e-4 * expected:
        mu_q, logvar_q, mu_p, logvar_p = inputs
        kl = kl_between_gaussians(mu_q, logvar_q, mu_p, logvar_p).mean().item()
        reversed_kl = kl_between_gaussians(mu_p, logvar_p, mu_q, logvar_q).mean().item()
        to_standard = kl_to_standard_normal(mu_q, logvar_q).mean().item()
        reconstruction = expected - kl
        slips = (
            (
                reconstruction + reversed_kl,
                "La KL est dans l'autre sens : q d'abord, p(z|c) après.",
                1,
            ),
            (
                reconstruction + to_standard,
                "C'est la KL vers N(0, I) : mesurez l'écart à p(z|c).",
                1,
            ),
            (reconstruction / 6 + kl, "La reconstruction est une moyenne sur les 6 pixels.", 3),
            (4 * expected, "Vous avez sommé sur les 4 images : prenez-en la moyenne.", 3),
        )
        reason, helpful = recognise(got, slips)
        raise Wrong(
            f"sur un lot de 4 images de 6 pixels, on attend {expected:.4g} nats par image ; "
            f"vous obtenez {got:.4g}.{reason}",
            hint=helpful,
        )
    names = ("mu de q", "logvar de q", "mu de p(z|c)", "logvar de p(z|c)")
    gradients = torch.autograd.grad(cost, leaves, allow_unused=True)
    for name, mine, twin in zip(names, gradients, torch.autograd.grad(right, twins)):
        if mine is None or not torch.allclose(mine, twin, atol=1e-4):
            raise Wrong(f"la valeur est bonne, mais pas son gradient par rapport à {name}.")


Exercise(
    "02.join",
    Stubs.join,
    References.join,
    check_join,
    (
        "F.one_hot(labels, num_classes) donne le vecteur « un parmi K » de chaque classe.",
        "torch.cat colle des tenseurs ; dim=1 les met côte à côte, image par image : z d'abord.",
    ),
)
Exercise(
    "02.elbo",
    Stubs.conditional_elbo,
    References.conditional_elbo,
    check_conditional_elbo,
    (
        "Sur la diapositive, la KL est juste. Mais le premier terme dépend-il de z ?",
        "L'espérance porte sur log p(x|z,c), pas sur log p(x|c) : que vaut likelihood ?",
        "E_q[log p(x|z,c)] = Σ_z q(z) log p(x|z,c).",
    ),
)
Exercise(
    "02.grid",
    Stubs.class_grid,
    References.class_grid,
    check_class_grid,
    (
        "Il faut 10 n codes et 10 n classes, dans l'ordre de lecture : ligne par ligne.",
        "Les codes se répètent en bloc, z.repeat(10, 1) ; les classes une à une, "
        "torch.arange(10).repeat_interleave(n).",
        "model.decode(codes, classes) fait le reste.",
    ),
)
Exercise(
    "02.complete",
    Stubs.complete,
    References.complete,
    check_complete,
    (
        "La condition faite : mu et logvar de prior(c) ; n codes z = µ + σ ε ; les probabilités de "
        "decode(z, c) ; un tirage de chaque pixel ; enfin, recopier les pixels visibles.",
        "ε = torch.randn(n, d), avec d = mu.shape[1] : un ε par complétion.",
        "torch.where(mask, x, pixels) garde x où mask est vrai, et prend pixels ailleurs.",
    ),
)
Exercise(
    "02.prior",
    Stubs.cvae_loss,
    References.cvae_loss,
    check_cvae_loss,
    (
        "Comme l'exercice 2 du notebook 01, mais la KL va de q vers p(z|c) = N(mu_p, σ_p²).",
        "En une dimension : KL = ½ [ (µ_q − µ_p)² / σ_p² + σ_q² / σ_p² − 1 − log(σ_q² / σ_p²) ].",
        "Reconstruction : somme sur les pixels ; KL : somme sur les dimensions de z ; puis la "
        "moyenne sur les images. Et z = µ_q + σ_q ε, pour que le gradient passe.",
    ),
)
