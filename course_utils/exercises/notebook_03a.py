"""Exercises of notebook 03a: counting, normalisation, NADE, MADE's masks, ensemble, coder."""

import math
import numbers
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..autoregressive import FVSBN
from ..language import thousands, tr, trn
from . import Exercise
from .harness import SameAs, Wrong, as_number, lent, listed, tensor


# ---- 03a.total ---------------------------------------------------------------------------------


def total_probability(log_prob, shape):
    """Somme de p(x) sur toutes les images binaires de forme shape = (C, H, W) : un nombre.

    log_prob : images entières (B, C, H, W) → log p(x), (B,), en nats.
    """
    bits = torch.tensor([0, 1])
    images = torch.cartesian_prod(*[bits] * math.prod(shape)).view(-1, *shape)
    return log_prob(images).exp().sum().item()


def check_total_probability(answer):
    draws = torch.Generator().manual_seed(0)
    for shape in ((1, 2, 5), (2, 1, 3), (1, 3, 1)):
        model = FVSBN(shape).requires_grad_(False)
        torch.nn.init.normal_(model.alpha, generator=draws)
        everything = 2 ** math.prod(shape)
        for expected in (1.0, 0.931, 1.2):
            seen = []

            def log_prob(x, model=model, expected=expected, seen=seen):
                if x.is_floating_point():
                    raise Wrong(
                        tr("log_prob attend des images entières ; reçu : {dtype}.", dtype=x.dtype)
                    )
                if not ((x == 0) | (x == 1)).all():
                    raise Wrong(tr("log_prob attend des pixels 0 ou 1."))
                seen.extend(map(tuple, x.flatten(1).tolist()))
                return model.log_prob(x).double() + math.log(expected)

            asked = lent("log_prob", log_prob, x=("B", *shape))
            total = as_number(answer(asked, shape), tr("un seul nombre"))
            distinct, right = len(set(seen)), abs(total - expected) < 1e-5
            if distinct < everything or (len(seen) > everything and not right):
                text = tr(
                    "il y a {all} images binaires de forme {shape} ; vous en demandez {seen}, dont "
                    "{distinct} différentes.",
                    all=everything, shape=shape, seen=len(seen), distinct=distinct,
                )  # fmt: skip
                raise Wrong(text, puzzling=True)
            if not right:
                text = tr(
                    "pour un modèle de somme {expected:.3f} sur les images {shape}, vous obtenez "
                    "{total:.6g}. Les images sont les bonnes : on attend la somme des exp(log p).",
                    expected=expected, shape=shape, total=total,
                )  # fmt: skip
                raise Wrong(text)
    return tr("la somme est juste, pour un modèle normalisé et pour un autre qui ne l'est pas.")


Exercise(
    "03a.total",
    total_probability,
    check_total_probability,
    (
        tr("Il faut toutes les suites de C·H·W bits, une par ligne, puis .view(-1, *shape)."),
        tr("torch.cartesian_prod(*[torch.tensor([0, 1])] * n) donne les 2ⁿ suites de n bits."),
        tr("log_prob donne des logarithmes : c'est p(x) = exp(log p(x)) qu'on additionne."),
    ),
)


# ---- 03a.count ----------------------------------------------------------------------------------


def count_parameters(D, H):
    """Nombre de paramètres : FVSBN, NADE sans partage, NADE avec partage (trois entiers)."""
    fvsbn = D * (D + 1) // 2  # le pixel i : i − 1 poids et un biais
    unshared = H * D * (D - 1) // 2 + D * H + D * H + D  # les A_i, les c_i, les alpha_i, les b_i
    shared = D * H + D * H + D + H  # W, V, b, c
    return fvsbn, unshared, shared


def check_count_parameters(answer):
    names = ("FVSBN", tr("NADE sans partage"), tr("NADE avec partage"))
    for D, H in ((1, 1), (3, 2), (10, 7), (784, 500)):
        counts = answer(D, H)
        if not isinstance(counts, tuple | list) or len(counts) != 3:
            raise Wrong(tr("on attend trois entiers : `return fvsbn, sans_partage, avec_partage`."))
        if not all(isinstance(n, numbers.Integral) for n in counts):
            kinds = ", ".join(type(n).__name__ for n in counts)
            raise Wrong(tr("on attend trois entiers de Python ; reçu : {kinds}.", kinds=kinds))
        expected = count_parameters(D, H)
        for name, value, right in zip(names, counts, expected):
            if value != right:
                text = tr(
                    "pour D = {D}, H = {H}, {name} : on attend {right} ; vous obtenez {value}.",
                    D=D, H=H, name=name, right=right, value=value,
                )  # fmt: skip
                raise Wrong(text, puzzling=name == "FVSBN")
    return tr("784 pixels, 500 neurones : {n[0]} ; {n[1]} ; {n[2]}.", n=[*map(thousands, expected)])


Exercise(
    "03a.count",
    count_parameters,
    check_count_parameters,
    (
        tr("FVSBN : le pixel i a un biais et i − 1 poids. Sommez de 1 à D."),
        tr(
            "Sans partage, le pixel i a sa matrice A_i (H × (i − 1)), son c_i (H), son alpha_i (H) "
            "et son b_i."
        ),
        tr(
            "Avec partage : une seule matrice W (H × D) et un seul c (H) ; les alpha_i forment V "
            "(D × H), les b_i un vecteur b (D)."
        ),
    ),
)


# ---- 03a.recursion ------------------------------------------------------------------------------


def nade_logits(x, W, V, b, c):
    """Log-cotes des D pixels par la récurrence. x (B, D), W et V (D, H), b (D,), c (H,)."""
    a = c.expand(len(x), -1)  # (B, H)
    logits = []
    for i in range(x.shape[1]):
        h = torch.sigmoid(a)
        logits.append(h @ V[i] + b[i])
        a = a + x[:, i, None] * W[i]  # le pixel i est connu : un seul ajout
    return torch.stack(logits, dim=1)


def _nade_inputs():
    draws = torch.Generator().manual_seed(0)
    for B, D, H in ((2, 3, 5), (5, 9, 4)):
        x = torch.randint(2, (B, D), generator=draws).float()
        W, V = torch.randn(2, D, H, generator=draws)
        b, c = torch.randn(D, generator=draws), torch.randn(H, generator=draws)
        yield "", [x, W, V, b, c]


def _shifted(steps, use_c=True):
    """The logits of someone whose sums are `steps` pixels late, or who forgets c."""

    def logits(x, W, V, b, c):
        seen = torch.ones(len(V), len(V)).tril(-1 + steps)  # (D, D): output, pixel read
        a = torch.einsum("ij,bj,jh->bih", seen, x, W) + c * use_c
        return (torch.sigmoid(a) * V).sum(dim=2) + b

    return logits


_values_are_right = SameAs(
    nade_logits,
    _nade_inputs,
    what=tr("une log-cote par pixel"),
    dtype=torch.float32,
    where=lambda i, x, *_: tr("x = {x}, la case {place}", x=listed(x[i[0]]), place=list(i)),
    gradient=("W", "V", "b", "c"),
    slips=(
        (_shifted(1), tr("Chaque pixel se lit lui-même.")),
        (_shifted(-1), tr("La somme a un pixel de retard.")),
        (_shifted(0, use_c=False), tr("Le biais c manque.")),
        (
            lambda x, W, V, b, c: torch.sigmoid(nade_logits(x, W, V, b, c)),
            tr("C'est une probabilité : la log-cote vient avant le dernier σ."),
        ),
        (lambda x, W, V, b, c: nade_logits(x, W, V, 0 * b, c), tr("Le biais b[i] manque.")),
    ),
    praise=tr("valeurs et gradients sont ceux de la définition, sans recommencer la somme."),
)


class _Work(TorchDispatchMode):
    """Count the numbers that torch reads and writes (views do neither)."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if not function.is_view:
            touched = [
                t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)
            ]
            self.numbers += sum(t.numel() for t in touched)
        return result


def _work(answer, D, B=4, H=32):
    with _Work() as work:
        answer(torch.zeros(B, D), *torch.zeros(2, D, H), torch.zeros(D), torch.zeros(H))
    return work.numbers


def check_nade_logits(answer):
    praise = _values_are_right(answer)
    growth = _work(answer, 240) / _work(answer, 120)
    if growth > 2.8:
        text = tr(
            "les valeurs sont justes, mais deux fois plus de pixels coûtent {growth:.1f} fois "
            "plus de calculs, au lieu de 2 : chaque pixel en refait un sur tous ceux d'avant, ou "
            "sur tous.",
            growth=growth,
        )
        raise Wrong(text)
    return praise


Exercise(
    "03a.recursion",
    nade_logits,
    check_nade_logits,
    (
        tr(
            "Partez de a = c, une ligne par image : a = c.expand(len(x), -1). Rangez les log-cotes "
            "dans une liste."
        ),
        tr(
            "Pour le pixel i : d'abord sa log-cote, d'après a ; ensuite seulement, a reçoit ce "
            "qu'apporte le pixel i, et cela servira à tous les suivants."
        ),
        tr(
            "La log-cote : sigmoid(a) @ V[i] + b[i]. L'ajout : a = a + x[:, i, None] * W[i]. "
            "Enfin, torch.stack(logits, dim=1)."
        ),
    ),
)


# ---- 03a.masks ----------------------------------------------------------------------------------


def made_masks(ordering, m):
    """Masques d'un MADE à une couche : M_W (H, D) et M_V (D, H), vrais où un poids est gardé.

    ordering[i] : le pixel visité à l'étape i. m (H,) : les numéros, de 1 à D − 1.
    """
    d = torch.argsort(ordering) + 1  # le rang de chaque pixel
    M_W = m[:, None] >= d[None, :]
    M_V = d[:, None] > m[None, :]
    return M_W, M_V


def broken_made_masks(ordering, m):
    d = torch.arange(1, len(ordering) + 1)  # le rang de chaque pixel
    M_W = m[:, None] >= d[None, :]
    M_V = m[None, :] > d[:, None]  # comme sur la diapositive
    return M_W, M_V


def check_made_masks(answer):
    draws = torch.Generator().manual_seed(0)
    for case, (D, H) in enumerate(((4, 6), (4, 6), (7, 12), (2, 3))):
        # the first ordering is the raster: only the strict inequality can be wrong there
        ordering = torch.randperm(D, generator=draws) if case else torch.arange(D)
        m = torch.randint(1, D, (H,), generator=draws)
        masks = answer(ordering, m)
        if not isinstance(masks, tuple | list) or len(masks) != 2:
            raise Wrong(tr("on attend deux masques : `return M_W, M_V`."))
        shapes = (
            (tr("M_W, une ligne par neurone"), (H, D)),
            (tr("M_V, une ligne par sortie"), (D, H)),
        )
        M_W, M_V = (tensor(mask, shape, what) for mask, (what, shape) in zip(masks, shapes))
        rank = torch.argsort(ordering) + 1
        for name, mask, right in zip(("M_W", "M_V"), (M_W, M_V), made_masks(ordering, m)):
            for row, column in (mask != right).nonzero().tolist():
                neuron, pixel = (row, column) if name == "M_W" else (column, row)
                cell = f"{name}[{row}, {column}]"
                text = tr(
                    "ordre {ordering}, numéros m = {m} : {cell} vaut {value:g} au lieu de {right}, "
                    "pour le poids entre le pixel {p}, de rang {r}, et le neurone {n}, numéroté "
                    "{number}.",
                    ordering=ordering.tolist(), m=m.tolist(), cell=cell,
                    value=mask[row, column], right=int(right[row, column]),
                    p=pixel, r=rank[pixel], n=neuron, number=m[neuron],
                )  # fmt: skip
                raise Wrong(text, puzzling=True)
    return tr("strictement causal dans tous les ordres essayés, et aucun poids coupé pour rien.")


Exercise(
    "03a.masks",
    made_masks,
    check_made_masks,
    (
        tr(
            "Le neurone de numéro m voit les pixels de rang 1 à m. Une sortie de rang d ne doit "
            "lire que les neurones qui voient moins de d pixels."
        ),
        tr(
            "Le rang du pixel p est l'étape où il est visité : l'inverse de la permutation "
            "ordering. Pour ordering = [3, 2, 0, 1], les rangs sont [3, 4, 2, 1]."
        ),
        tr("torch.argsort(ordering) inverse une permutation."),
    ),
    broken=broken_made_masks,
)


# ---- 03a.ensemble -------------------------------------------------------------------------------


def ensemble_log_prob(logits, x):
    """log p(x) d'un ensemble de K ordres, (B,). logits (K, B, D) ; x (B, D), des 0 et des 1."""
    log_p = (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(dim=2)  # (K, B)
    return torch.logsumexp(log_p, dim=0) - math.log(len(logits))


def broken_ensemble_log_prob(logits, x):
    logits = logits.mean(dim=0)  # la moyenne des K avis
    return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(dim=1)


def _by_image(logits, x):
    """log p_k(x): `(K, B)`."""
    return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(dim=2)


def _opinions():
    draws = torch.Generator().manual_seed(0)
    for K, B, D in ((4, 3, 6), (3, 5, 2)):
        x = torch.randint(2, (B, D), generator=draws).float()
        yield tr("{K} ordres", K=K), [torch.randn(K, B, D, generator=draws), x]
    sure = torch.full((2, 1, 3), 40.0)
    yield tr("des log-cotes de 40, un pixel blanc"), [sure, torch.tensor([[1.0, 1.0, 0.0]])]
    black_and_white = torch.stack([torch.zeros(2000), torch.ones(2000)])  # log p: −2 626, −626
    yield tr("2 000 pixels"), [torch.ones(3, 2, 2000), black_and_white]


Exercise(
    "03a.ensemble",
    ensemble_log_prob,
    SameAs(
        ensemble_log_prob,
        _opinions,
        what=tr("un nombre par image"),
        dtype=torch.float32,
        tolerance=1e-4,
        where=lambda i, logits, x: (
            f"x = {listed(x[i])}" if x.shape[1] < 10 else tr("des log-cotes toutes égales à 1")
        ),
        slips=(
            (broken_ensemble_log_prob, tr("Ce sont encore les log-cotes que vous moyennez.")),
            (
                lambda logits, x: torch.logsumexp(_by_image(logits, x), 0),
                tr("C'est la somme des K lois : il manque le 1/K."),
            ),
            (
                lambda logits, x: _by_image(logits, x).mean(0),
                tr("Vous moyennez des logarithmes : il faut moyenner les probabilités."),
            ),
            (
                lambda logits, x: (
                    (
                        x * torch.sigmoid(logits).mean(0)
                        + (1 - x) * (1 - torch.sigmoid(logits).mean(0))
                    )
                    .log()
                    .sum(1)
                ),
                tr(
                    "Vous moyennez des probabilités pixel par pixel : il faut celles d'images "
                    "entières."
                ),
            ),
            (
                lambda logits, x: _by_image(logits, x).exp().mean(0).log(),
                tr(
                    "Votre calcul déborde : exp(−2 626) vaut 0 pour la machine. Restez en "
                    "logarithmes."
                ),
            ),
        ),
        praise=tr(
            "la somme des p(x) vaut 1, et les grandes images ne font pas déborder le calcul."
        ),
    ),
    (
        tr(
            "Un mélange de K lois : p(x) = (1/K) Σ_k p_k(x). On moyenne des probabilités d'images "
            "entières."
        ),
        tr("Calculez d'abord log p_k(x) pour chaque ordre, une matrice (K, B)."),
        tr("log Σ_k exp(log p_k) s'écrit torch.logsumexp(log_p, dim=0). Il reste le 1/K."),
    ),
    broken=broken_ensemble_log_prob,
)


# ---- 03a.encode ---------------------------------------------------------------------------------


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


def _sequences():
    """Bits and probabilities: three short ones, two of 12 bits, one that exhausts floats."""
    yield from (([1, 0, 1], [0.75, 0.25, 0.5]), ([1], [0.5]), ([0], [0.5]))
    # this interval, [0.3125 ; 0.5), ends at a short fraction which is not inside
    yield [1, 0], [0.5, 0.625]
    draws = torch.Generator().manual_seed(0)
    for length, scale in ((12, 1.0), (12, 4.0), (300, 1.0)):
        p = torch.sigmoid(scale * torch.randn(length, generator=draws, dtype=torch.float64))
        yield torch.bernoulli(p, generator=draws).long().tolist(), p.tolist()


def check_encode(answer):
    table = []
    for bits, probabilities in _sequences():
        case = tr("{n} bits", n=len(bits))
        if len(bits) <= 3:
            case = tr("bits `{bits}`, probabilités `{p}`", bits=bits, p=probabilities)
        floats = tr("Un flottant n'en tient que 53 : en utilisez-vous ?") if len(bits) > 50 else ""
        try:
            code = answer(list(bits), list(probabilities))
        except Wrong as wrong:
            text = tr("{case} : {message}", case=case, message=wrong)
            raise Wrong(f"{text} {floats}".rstrip()) from wrong
        if not isinstance(code, str) or set(code) - {"0", "1"}:
            text = tr(
                '{case} : on attend un seul texte, comme "0110" ; reçu : `{code!r}`.',
                case=case, code=code,
            )  # fmt: skip
            raise Wrong(text)
        table.append((code, bits, probabilities, case, floats))

    for code, bits, probabilities, case, floats in table:
        low, width = _interval(bits, probabilities)
        if not low <= _value(code) < low + width:
            named = [text for made, text in _MISTAKES if all(made(*row[:3]) for row in table)]
            text = tr(
                "{case} : l'intervalle est [{low:.6f} ; {end:.6f}[ ; votre code désigne "
                "{value:.6f}.",
                case=case, low=float(low), end=float(low + width), value=float(_value(code)),
            )  # fmt: skip
            if floats:  # its bounds look the same
                text = tr("{case} : votre code ne tombe pas dans l'intervalle.", case=case)
            if _value(code) == low + width:
                text += " " + tr("C'est la fin, exclue, de l'intervalle.")
            raise Wrong(" ".join([text, *(named or [floats])]).rstrip(), puzzling=not named)
        nll = math.log2(width.denominator) - math.log2(width.numerator)
        if len(code) >= nll + 2:
            text = trn(
                "{case} : −log₂ p = {count} bit, il faut moins de 2 chiffres de plus, et votre "
                "code en compte {n} en tout.",
                "{case} : −log₂ p = {count} bits, il faut moins de 2 chiffres de plus, et votre "
                "code en compte {n} en tout.",
                format(nll, ".2f"), case=case, n=len(code),
            )  # fmt: skip
            raise Wrong(text)
    return tr("le code désigne la bonne suite, à moins de 2 bits de −log₂ p, même sur 300 bits.")


def _value(code):
    """The number that « 0110 » designates."""
    return Fraction(int(code, 2), 2 ** len(code)) if code else Fraction(0)


def _designates_the_mirror(code, bits, probabilities):
    low, width = _interval([1 - b for b in bits], [1 - Fraction(p) for p in probabilities])
    return low <= _value(code) < low + width


_MISTAKES = (
    (lambda code, *sequence: code == encode(*sequence).lstrip("0"),
     tr("Votre code perd ses zéros de tête.")),
    (_designates_the_mirror, tr("C'est le 1 qui garde le début de l'intervalle, pas le 0.")),
)  # fmt: skip


def _interval(bits, probabilities):
    """The exact interval of a sequence: its start and its width, p(bits)."""
    low, width = Fraction(0), Fraction(1)
    for bit, p in zip(bits, probabilities):
        ones = width * Fraction(p)
        low, width = (low, ones) if bit else (low + ones, width - ones)
    return low, width


Exercise(
    "03a.encode",
    encode,
    check_encode,
    (
        tr(
            "Gardez low et width : l'intervalle est [low ; low + width[. Un 1 : width = width · p. "
            "Un 0 : low avance de width · p, width diminue d'autant."
        ),
        tr(
            "Des flottants s'épuisent vers 50 bits : l'intervalle devient vide, et une boucle peut "
            "ne jamais finir. Fraction (module fractions) calcule exactement : width * "
            "Fraction(p)."
        ),
        tr(
            "À la fin, essayez les longueurs 0, 1, 2… : la première fraction n / 2^longueur qui ne "
            "précède pas low est ceil(low · 2^longueur) / 2^longueur. Est-elle dans l'intervalle ?"
        ),
    ),
)
