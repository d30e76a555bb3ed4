"""Exercises of notebook 03a: counting, normalisation, NADE, MADE's masks, ensemble, coder."""

import functools
import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ..autoregressive import FVSBN, OrderAgnosticMADE
from ..evaluation import enumerate_images
from . import Exercise, Wrong
from .helpers import as_tensor, call, counted, numbers, time_limit


class Stubs:
    """What the notebook shows: to complete, or to repair."""

    def total_probability(log_prob, shape):
        """Somme de p(x) sur toutes les images binaires de forme shape = (C, H, W) : un nombre.

        log_prob : images entières (B, C, H, W) → log p(x), (B,), en nats.
        """
        return ...

    def count_parameters(D, H):
        """Nombre de paramètres : FVSBN, NADE sans partage, NADE avec partage (trois entiers)."""
        return ...

    def nade_logits(x, W, V, b, c):
        """Log-cotes des D pixels par la récurrence. x (B, D), W et V (D, H), b (D,), c (H,)."""
        return ...

    def made_masks(ordering, m):
        """Masques d'un MADE à une couche : M_W (H, D) et M_V (D, H), vrais où un poids est gardé.

        ordering[i] : le pixel visité à l'étape i. m (H,) : les numéros, de 1 à D − 1.
        """
        d = torch.arange(1, len(ordering) + 1)  # le rang de chaque pixel
        M_W = m[:, None] >= d[None, :]
        M_V = m[None, :] > d[:, None]  # comme sur la diapositive
        return M_W, M_V

    def ensemble_log_prob(logits, x):
        """log p(x) d'un ensemble de K ordres, (B,). logits (K, B, D) ; x (B, D), des 0 et des 1."""
        logits = logits.mean(dim=0)  # la moyenne des K avis
        return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(dim=1)

    def encode(bits, probabilities):
        """Code d'une suite de bits : moins de −log₂ p + 2 chiffres « 0 » ou « 1 ».

        probabilities[i] : la probabilité que bits[i] soit 1. Un 1 garde le début de l'intervalle,
        un 0 garde la fin.
        """
        return ...


class References:
    """One right answer to each; `solution` shows its source."""

    def total_probability(log_prob, shape):
        """Somme de p(x) sur toutes les images binaires de forme shape = (C, H, W) : un nombre.

        log_prob : images entières (B, C, H, W) → log p(x), (B,), en nats.
        """
        bits = torch.tensor([0, 1])
        images = torch.cartesian_prod(*[bits] * math.prod(shape)).view(-1, *shape)
        return log_prob(images).exp().sum().item()

    def count_parameters(D, H):
        """Nombre de paramètres : FVSBN, NADE sans partage, NADE avec partage (trois entiers)."""
        fvsbn = D * (D + 1) // 2  # le pixel i : i − 1 poids et un biais
        unshared = (
            H * D * (D - 1) // 2 + D * H + D * H + D
        )  # les A_i, les c_i, les alpha_i, les b_i
        shared = D * H + D * H + D + H  # W, V, b, c
        return fvsbn, unshared, shared

    def nade_logits(x, W, V, b, c):
        """Log-cotes des D pixels par la récurrence. x (B, D), W et V (D, H), b (D,), c (H,)."""
        a = c.expand(len(x), -1)  # (B, H)
        logits = []
        for i in range(x.shape[1]):
            h = torch.sigmoid(a)
            logits.append(h @ V[i] + b[i])
            a = a + x[:, i, None] * W[i]  # le pixel i est connu : un seul ajout
        return torch.stack(logits, dim=1)

    def made_masks(ordering, m):
        """Masques d'un MADE à une couche : M_W (H, D) et M_V (D, H), vrais où un poids est gardé.

        ordering[i] : le pixel visité à l'étape i. m (H,) : les numéros, de 1 à D − 1.
        """
        d = torch.argsort(ordering) + 1  # le rang de chaque pixel
        M_W = m[:, None] >= d[None, :]
        M_V = d[:, None] > m[None, :]
        return M_W, M_V

    def ensemble_log_prob(logits, x):
        """log p(x) d'un ensemble de K ordres, (B,). logits (K, B, D) ; x (B, D), des 0 et des 1."""
        log_p = (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(dim=2)  # (K, B)
        return torch.logsumexp(log_p, dim=0) - math.log(len(logits))

    def encode(bits, probabilities):
        """Code d'une suite de bits : moins de −log₂ p + 2 chiffres « 0 » ou « 1 ».

        probabilities[i] : la probabilité que bits[i] soit 1. Un 1 garde le début de l'intervalle,
        un 0 garde la fin.
        """
        low, width = Fraction(0), Fraction(1)  # des fractions exactes
        for bit, p in zip(bits, probabilities):
            ones = width * Fraction(p)
            if bit:
                width = ones
            else:
                low, width = low + ones, width - ones
        length = 0
        while True:
            first = math.ceil(low * 2**length)  # first / 2**length : première fraction après low
            if first < (low + width) * 2**length:
                return format(first, f"0{length}b") if length else ""
            length += 1


# ---------------------------------------------------------------------------------------------
# The checks: each raises `Wrong`, or returns the sentence of the ✔ line
# ---------------------------------------------------------------------------------------------


def check_total_probability(total_probability):
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 2, 5), (2, 1, 3)):
        model = FVSBN(shape)
        torch.nn.init.normal_(model.alpha, generator=generator)

        def log_prob(x, shift=0.0, model=model, shape=shape):
            if not isinstance(x, torch.Tensor) or tuple(x.shape[1:]) != shape:
                received = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
                expected = ", ".join(map(str, shape))
                raise Wrong(
                    f"log_prob attend des images (B, {expected}) ; reçu : {received}.", hint=1
                )
            if x.is_floating_point():
                raise Wrong(f"log_prob attend des images entières ; reçu : {x.dtype}.", hint=2)
            with torch.no_grad():
                return model.log_prob(x).double() + shift

        for shift, expected in ((0.0, 1.0), (math.log(0.931), 0.931)):
            answer = total_probability(functools.partial(log_prob, shift=shift), shape)
            got = as_tensor(answer, (), "un seul nombre").item()
            if not abs(got - expected) < 1e-5:
                raise Wrong(
                    f"pour un modèle de somme {expected:.3f} sur les images {shape}, vous obtenez "
                    f"{got:.6g}.",
                    hint=3,
                )
    return "la somme est juste, pour un modèle normalisé et pour un autre qui ne l'est pas."


def check_count_parameters(count_parameters):
    names = ("FVSBN", "NADE sans partage", "NADE avec partage")
    for D, H in ((1, 1), (3, 2), (10, 7), (784, 500)):
        answer = count_parameters(D, H)
        got = as_tensor(
            list(answer) if isinstance(answer, tuple) else answer, (3,), "trois nombres"
        )
        expected = References.count_parameters(D, H)
        for number, (name, value, right) in enumerate(zip(names, got.tolist(), expected), 1):
            if value != right:
                raise Wrong(
                    f"pour D = {D}, H = {H}, {name} : on attend {right} ; vous obtenez "
                    f"{value:.10g}.",
                    hint=number,
                )
    return "784 pixels, 500 neurones : {} ; {} ; {}.".format(
        *(f"{n:,}".replace(",", "\u00a0") for n in References.count_parameters(784, 500))
    )


def check_nade_logits(nade_logits):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    for B, D, H in ((2, 3, 2), (5, 9, 4)):
        x = torch.randint(2, (B, D), generator=generator).double()
        W, V, b, c = normal(D, H), normal(D, H), normal(D), normal(H)
        W.requires_grad_()
        expected = torch.stack(  # from the definition: a_i = c + the sum of W[j] x_j for j < i
            [torch.sigmoid(c + x[:, :i] @ W[:i]) @ V[i] + b[i] for i in range(D)], dim=1
        )
        result = call(nade_logits, x, W, V, b, c)
        got = as_tensor(result, (B, D), "une log-cote par pixel")
        wrong = (~((got - expected).abs() <= 1e-5)).nonzero()  # NaN counts as wrong
        if len(wrong):
            k, i = wrong[0].tolist()
            raise Wrong(
                f"pour x = {numbers(x[k])}, le pixel {i + 1} a la log-cote {expected[k, i]:.6f} ; "
                f"vous obtenez {got[k, i]:.6f}.",
                hint=2,
            )
        if not getattr(result, "requires_grad", False):
            raise Wrong(
                "le gradient n'atteint plus W : ni .detach(), ni numpy, ni no_grad.", hint=3
            )
    _not_started_again(nade_logits)
    return "les log-cotes sont celles de la définition, sans recommencer la somme."


def _not_started_again(nade_logits, B=4, D=60, H=8):
    """Count the multiplications of matrices: about B·D·H for the outputs, B·D²·H from scratch."""
    x, b, c = torch.zeros(B, D), torch.zeros(D), torch.zeros(H)
    W, V = torch.zeros(2, D, H)
    with FlopCounterMode(display=False) as counter:
        call(nade_logits, x, W, V, b, c)
    multiplications = counter.get_total_flops() // 2
    if multiplications > 5 * B * D * H:
        raise Wrong(
            f"les valeurs sont justes, mais pour D = {D} pixels vous faites {multiplications} "
            f"multiplications, au lieu de {B * D * H} environ : la somme repart du début à chaque "
            "pixel.",
            hint=2,
        )


def check_made_masks(made_masks):
    generator = torch.Generator().manual_seed(0)
    for number, (D, H) in enumerate(((4, 6), (4, 6), (7, 12), (2, 3))):
        # the first ordering is the raster: only the strict inequality can be wrong there
        ordering = torch.randperm(D, generator=generator) if number else torch.arange(D)
        m = torch.randint(1, D, (H,), generator=generator)
        answer = made_masks(ordering.clone(), m.clone())
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("on attend deux masques, M_W et M_V.")
        M_W = as_tensor(answer[0], (H, D), "M_W, une ligne par neurone").bool()
        M_V = as_tensor(answer[1], (D, H), "M_V, une ligne par sortie").bool()
        case = f"ordre {ordering.tolist()}, numéros m = {m.tolist()}"
        helpful = 2 if number else 1
        rank = torch.argsort(ordering)
        paths = M_V.double() @ M_W.double() > 0
        for i, j in paths.nonzero().tolist():
            if rank[j] >= rank[i]:
                which = "de lui-même" if i == j else f"du pixel {j}, visité après"
                text = f"{case} : la sortie du pixel {i} reçoit un chemin {which}."
                raise Wrong(text, hint=helpful)
        right_W, right_V = References.made_masks(ordering, m)
        for name, mask, right in (("M_W", M_W, right_W), ("M_V", M_V, right_V)):
            for i, j in (mask != right).nonzero().tolist():
                verb = "coupe pour rien" if right[i, j] else "garde à tort"
                raise Wrong(f"{case} : {name}[{i}, {j}] {verb} un poids.", hint=helpful)
    return "strictement causal dans tous les ordres essayés, et aucun poids coupé pour rien."


@functools.cache
def _small_ensemble():
    """Four orderings of one random model on all images of 6 pixels: x `(64, 6)`, logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OrderAgnosticMADE((1, 2, 3), hidden=(8,), num_orderings=4)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
    images = enumerate_images((1, 2, 3))
    with torch.no_grad():
        logits = torch.stack([model.logits(images, ordering=o).flatten(1) for o in model.orderings])
    return images.flatten(1).double(), logits.double()


def check_ensemble_log_prob(ensemble_log_prob):
    x, logits = _small_ensemble()
    log_p = as_tensor(call(ensemble_log_prob, logits, x), (len(x),), "un nombre par image")
    total = log_p.exp().sum().item()
    if not abs(total - 1) < 1e-4:
        raise Wrong(
            f"sur les 64 images de 6 pixels, votre « p(x) » a pour somme {total:.4f}, pas 1.",
            hint=3 if abs(total - len(logits)) < 1e-4 else 1,
        )
    expected = References.ensemble_log_prob(logits, x)
    if not torch.allclose(log_p, expected, atol=1e-4):
        k = (log_p - expected).abs().argmax()
        raise Wrong(
            f"pour x = {numbers(x[k])}, on attend log p = {expected[k]:.5f} ; vous obtenez "
            f"{log_p[k]:.5f}."
        )
    big_x = torch.zeros(2, 2000, dtype=torch.float64)
    big_logits = torch.ones(3, 2, 2000, dtype=torch.float64)  # log p ≈ −2 600: exp gives 0
    big = as_tensor(call(ensemble_log_prob, big_logits, big_x), (2,), "un nombre par image")
    if not torch.allclose(big, References.ensemble_log_prob(big_logits, big_x), rtol=1e-4):
        raise Wrong(
            f"pour 2 000 pixels, on attend log p ≈ −2 626 ; vous obtenez {big[0]:.4g}. "
            "exp(−2 626) vaut 0 pour la machine : il faut rester en logarithmes.",
            hint=3,
        )
    return "la somme vaut 1, et les grandes images ne font pas déborder le calcul."


def check_encode(encode):
    generator = torch.Generator().manual_seed(0)
    # the second interval, [0.3125 ; 0.5), ends at a short fraction which is not inside
    cases = [([1, 0, 1], [0.75, 0.25, 0.5]), ([1, 0], [0.5, 0.625]), ([1], [0.5]), ([0], [0.5])]
    for length, power in ((12, 1.0), (12, 3.0), (300, 1.0)):
        p = torch.rand(length, generator=generator, dtype=torch.float64) ** power
        p = (p * 254 + 1).round() / 256  # exact in floating point, never 0 nor 1
        bits = torch.bernoulli(p, generator=generator).long().tolist()
        cases.append((bits, p.tolist()))
    for bits, probabilities in cases:
        with time_limit(10, hint=2):
            code = encode(list(bits), list(probabilities))
        _check_code(code, bits, probabilities)
    return "le code désigne la bonne suite, à moins de 2 bits de −log₂ p, même sur 300 bits."


def _check_code(code, bits, probabilities):
    case = f"{len(bits)} bits"
    if len(bits) <= 3:
        case = f"bits {numbers(torch.tensor(bits))}, "
        case += f"probabilités {numbers(torch.tensor(probabilities))}"
    if isinstance(code, list | tuple):
        code = "".join(str(int(digit)) for digit in code)
    if not isinstance(code, str) or set(code) - {"0", "1"}:
        raise Wrong(f"{case} : on attend une chaîne de « 0 » et de « 1 » ; reçu : `{code!r}`.")
    value = Fraction(int(code, 2), 2 ** len(code)) if code else Fraction(0)
    low, width = _interval(bits, probabilities)
    if not low <= value < low + width:
        if value == low + width:
            raise Wrong(
                f"{case} : votre code désigne {float(value)}, la fin, exclue, de l'intervalle.",
                hint=3,
            )
        mirror, mirror_width = _interval([1 - b for b in bits], [1 - p for p in probabilities])
        if mirror <= value < mirror + mirror_width:
            text = f"{case} : c'est le 1 qui garde le début de l'intervalle, pas le 0."
            raise Wrong(text, hint=1)
        shown = f"[{float(low):.6f} ; {float(low + width):.6f})"
        raise Wrong(
            f"{case} : l'intervalle est {shown} ; votre code désigne {float(value):.6f}.",
            hint=2 if len(bits) > 50 else 1,
        )
    nll = -math.log2(width.numerator) + math.log2(width.denominator)
    if len(code) > nll + 2:
        ideal = counted(nll, "bit", ".2f")
        text = f"{case} : −log₂ p = {ideal}, et votre code en prend {len(code)}."
        raise Wrong(text, hint=3)


def _interval(bits, probabilities):
    """The exact interval of a sequence: its start and its width, p(bits)."""
    low, width = Fraction(0), Fraction(1)
    for bit, p in zip(bits, probabilities):
        ones = width * Fraction(p)
        low, width = (low, ones) if bit else (low + ones, width - ones)
    return low, width


Exercise(
    "03a.total",
    Stubs.total_probability,
    References.total_probability,
    check_total_probability,
    (
        "Il faut toutes les suites de C·H·W bits, une par ligne, puis .view(-1, *shape).",
        "torch.cartesian_prod(*[torch.tensor([0, 1])] * n) donne les 2ⁿ suites de n bits.",
        "log_prob donne des logarithmes : c'est p(x) = exp(log p(x)) qu'on additionne.",
    ),
)
Exercise(
    "03a.count",
    Stubs.count_parameters,
    References.count_parameters,
    check_count_parameters,
    (
        "FVSBN : le pixel i a un biais et i − 1 poids. Sommez de 1 à D.",
        "Sans partage, le pixel i a sa matrice A_i (H × (i − 1)), son c_i (H), son alpha_i (H) et "
        "son b_i.",
        "Avec partage : une seule matrice W (H × D) et un seul c (H) ; les alpha_i forment V "
        "(D × H), les b_i un vecteur b (D).",
    ),
)
Exercise(
    "03a.recursion",
    Stubs.nade_logits,
    References.nade_logits,
    check_nade_logits,
    (
        "Partez de a = c, une ligne par image : a = c.expand(len(x), -1).",
        "Pour le pixel i : d'abord sa log-cote, sigmoid(a) @ V[i] + b[i] ; ensuite seulement, "
        "a = a + x[:, i, None] * W[i].",
        "Rangez les D log-cotes dans une liste, puis torch.stack(logits, dim=1).",
    ),
)
Exercise(
    "03a.masks",
    Stubs.made_masks,
    References.made_masks,
    check_made_masks,
    (
        "Une sortie de rang d ne doit lire que les neurones qui voient moins de d pixels.",
        "Le rang du pixel p est l'étape où il est visité : l'inverse de la permutation ordering. "
        "Pour ordering = [3, 2, 0, 1], les rangs sont [3, 4, 2, 1].",
        "torch.argsort(ordering) inverse une permutation.",
    ),
)
Exercise(
    "03a.ensemble",
    Stubs.ensemble_log_prob,
    References.ensemble_log_prob,
    check_ensemble_log_prob,
    (
        "Un mélange de K lois : p(x) = (1/K) Σ_k p_k(x). On moyenne des probabilités d'images "
        "entières.",
        "Calculez d'abord log p_k(x) pour chaque ordre, une matrice (K, B).",
        "log Σ_k exp(log p_k) s'écrit torch.logsumexp(log_p, dim=0). Il reste le 1/K.",
    ),
)
Exercise(
    "03a.encode",
    Stubs.encode,
    References.encode,
    check_encode,
    (
        "Gardez low et width : l'intervalle est [low, low + width). Un 1 : width = width · p. "
        "Un 0 : low avance de width · p, width diminue d'autant.",
        "Des flottants s'épuisent vers 50 bits : l'intervalle devient vide, et une boucle peut ne "
        "jamais finir. Fraction (module fractions) calcule exactement : width * Fraction(p).",
        "À la fin, essayez les longueurs 0, 1, 2… : la première fraction n / 2^longueur qui ne "
        "précède pas low est ceil(low · 2^longueur) / 2^longueur. Est-elle dans l'intervalle ?",
    ),
)
