"""The self-checks of notebook 04: right answers however written, typical mistakes, hints."""

import math
import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exercise_answers import accepted, refused

from course_utils import exercises
from course_utils.exercises import verify
from course_utils.vq import Quantize, VectorQuantizer, nearest_atoms

pytestmark = pytest.mark.usefixtures("no_hint_seen")
KEYS = [key for key in exercises.exercises() if key.startswith("04.")]
NEAREST, COPY, LOSS, KL, REVIVE, LEFT = (
    exercises.exercises()[f"04.{name}"].reference
    for name in ("nearest", "straight_through", "loss", "kl", "revive", "prior")
)


# ---- right answers: the nearest atom -----------------------------------------------------------


def nearest_with_loops(z, codebook):
    codes = []
    for vector in z.tolist():
        distances = [math.dist(vector, atom) for atom in codebook.tolist()]
        codes.append(distances.index(min(distances)))
    return torch.tensor(codes)


def nearest_with_numpy(z, codebook):
    distances = np.linalg.norm(z.numpy()[:, None] - codebook.numpy(), axis=-1)
    return torch.from_numpy(distances.argmin(axis=1))


def nearest_by_cdist(z, codebook):
    return torch.min(torch.cdist(z, codebook), dim=1).indices


def nearest_by_a_product(z, codebook):
    """The trick of the notebook: ‖z‖² is left out."""
    scores = torch.einsum("nd,kd->nk", z, codebook) - codebook.square().sum(1) / 2
    return scores.argmax(1).int()


def nearest_in_float32(z, codebook):
    """All three terms, cancelled in single precision."""
    z, codebook = z.float(), codebook.float()
    distances = z.pow(2).sum(1, keepdim=True) - 2 * z @ codebook.T + (codebook**2).sum(1)
    return distances.argmin(1)


def nearest_of_the_library(z, codebook):
    return nearest_atoms(z[:, :, None, None], codebook).flatten()


# ---- right answers: the copied gradient --------------------------------------------------------


class Copy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z_e, e):
        return e.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def copy_by_a_function(z_e, e):
    return Copy.apply(z_e, e)


def copy_onto_the_atom(z_e, e):
    return e.detach() + (z_e - z_e.detach())


def copy_into_a_clone(z_e, e):
    """A view of the data: the value changes, the graph does not."""
    z_q = z_e.clone()
    z_q.data = e.data
    return z_q


def copy_of_the_library(z_e, e):
    """Every vector is an atom."""
    maps = z_e.view(len(z_e), -1, 1, 1)
    atoms = e.view(len(e), -1).detach()
    codes = torch.arange(len(e)).view(-1, 1, 1)
    return Quantize.apply(maps, atoms, codes)[0].view_as(z_e)


# ---- right answers: the loss -------------------------------------------------------------------


def loss_in_three_means(log_px, z_e, e, beta):
    codebook = F.mse_loss(e, z_e.detach(), reduction="sum") / len(e)
    commitment = F.mse_loss(z_e, e.detach(), reduction="sum") / len(e)
    return codebook + beta * commitment - log_px.mean()


def loss_with_a_loop(log_px, z_e, e, beta):
    total = 0
    for log_p, z, atom in zip(log_px, z_e, e):
        total = total - log_p + ((z.detach() - atom) ** 2).sum()
        total = total + beta * torch.dot(z - atom.detach(), z - atom.detach())
    return total / len(log_px)


def loss_minus_a_bound(log_px, z_e, e, beta):
    gap = torch.einsum("bd,bd->b", *2 * [e - z_e.detach()])
    return -(log_px - gap - beta * (z_e - e.detach()).pow(2).sum(-1)).mean()


def loss_of_the_library(log_px, z_e, e, beta):
    codes = torch.arange(len(e)).view(-1, 1, 1)
    _, codebook, commitment = Quantize.apply(z_e[:, :, None, None], e, codes)
    return (codebook + beta * commitment - log_px).mean()


# ---- right answers: the KL ---------------------------------------------------------------------


def kl_with_loops(q):
    K = q.shape[1]
    return sum(p * math.log(p * K) for p in q.flatten().tolist() if p > 0)


def kl_with_numpy(q):
    q = q.numpy()
    kept = q[q > 0]
    return np.sum(kept * np.log(kept)) + len(q) * np.log(q.shape[1])


def kl_by_kl_div(q):
    return F.kl_div(torch.full_like(q, -math.log(q.shape[1])), q, reduction="sum")


def kl_by_distributions(q):
    uniform = torch.distributions.Categorical(torch.ones_like(q))
    return torch.distributions.kl_divergence(torch.distributions.Categorical(q), uniform).sum()


def kl_with_a_little_more(q):
    return (q * ((q + 1e-6) / (1 / q.shape[1])).log()).sum().item()


def kl_in_float32(q):
    q = q.float()
    return torch.where(q > 0, q * torch.log2(q * q.shape[1]), 0).sum() * math.log(2)


# ---- right answers: dead atoms -----------------------------------------------------------------


def revive_with_a_loop(codebook, uses, z):
    """Drawn with replacement; the uses are modified in place."""
    result = codebook.clone()
    for k in range(len(codebook)):
        if uses[k] == 0:
            result[k] = z[torch.randint(len(z), ())]
            uses[k] = 1
    return result


def revive_with_numpy(codebook, uses, z):
    dead = np.flatnonzero(uses.numpy() == 0)
    result = codebook.numpy().copy()
    result[dead] = z.numpy()[np.random.default_rng(0).choice(len(z), len(dead), replace=False)]
    return torch.from_numpy(result)


def revive_with_where(codebook, uses, z):
    return torch.where(uses[:, None] > 0, codebook, z[torch.randperm(len(z))[: len(codebook)]])


def revive_with_a_list(codebook, uses, z):
    drawn = random.Random(0).sample(list(z), len(codebook))
    return torch.stack([new if n == 0 else old for old, n, new in zip(codebook, uses, drawn)])


def revive_with_a_little_noise(codebook, uses, z):
    """Farthest vectors first, each a little aside; float64."""
    result = codebook.double()
    for k in (uses == 0).nonzero().flatten():
        result[k] = z[torch.cdist(z.double(), result[uses > 0]).sum(1).argsort()[-1 - 20 * int(k)]]
        result[k] += 1e-3
    return result


def revive_of_the_library(codebook, uses, z):
    quantizer = VectorQuantizer(*codebook.shape)
    quantizer.codebook.copy_(codebook)
    quantizer._move(uses == 0, z[:, :, None, None])
    return quantizer.codebook


# ---- right answers: the table ------------------------------------------------------------------


def table_of(more=0.5, pairs=lambda codes: (codes[:, :, :-1], codes[:, :, 1:]), end=None):
    """A `left_table` that counts some `pairs`, adds `more`; `end`: what is done with the counts."""

    def left_table(codes, K):
        left, code = pairs(codes)
        counts = torch.bincount(left.flatten() * K + code.flatten(), minlength=K * K)
        counts = counts.view(K, K) + more
        return counts / counts.sum(1, keepdim=True) if end is None else end(counts)

    return left_table


def table_with_loops(codes, K):
    counts = [[1] * K for _ in range(K)]
    for image in codes.tolist():
        for row in image:
            for left, code in zip(row, row[1:]):
                counts[left][code] += 1
    return torch.tensor([[count / sum(row) for count in row] for row in counts])


def table_with_numpy(codes, K):
    codes, counts = codes.numpy(), np.full((K, K), 1e-3)
    np.add.at(counts, (codes[..., :-1], codes[..., 1:]), 1)
    return torch.from_numpy(counts / counts.sum(axis=1, keepdims=True))


def table_of_one_hot(codes, K):
    one_hot = F.one_hot(codes, K).double()
    counts = torch.einsum("nija,nijb->ab", one_hot[:, :, :-1], one_hot[:, :, 1:])
    return torch.softmax(torch.log(counts + 1e-9), 1)


def table_with_scatter(codes, K):
    """Frequencies rather than counts, mixed with the uniform law; float32, in place."""
    pairs = (codes[:, :, :-1] * K + codes[:, :, 1:]).reshape(-1)
    P = torch.zeros(K * K).scatter_add_(0, pairs, torch.ones(len(pairs))).view(K, K)
    P /= P.sum(1, keepdim=True).clamp_(min=1)
    P[P.sum(1) == 0] = 1 / K
    return 0.99 * P + 0.01 / K


RIGHT = {
    "04.nearest": (nearest_with_loops, nearest_with_numpy, nearest_by_cdist,
                   nearest_in_float32, nearest_of_the_library),
    "04.straight_through": (copy_by_a_function, copy_onto_the_atom, copy_into_a_clone,
                            copy_of_the_library),
    "04.loss": (loss_in_three_means, loss_with_a_loop, loss_minus_a_bound, loss_of_the_library),
    "04.kl": (kl_with_loops, kl_with_numpy, kl_by_kl_div, kl_by_distributions,
              kl_with_a_little_more, kl_in_float32),
    "04.revive": (revive_with_where, revive_of_the_library),
    "04.prior": (table_of(),),
}  # fmt: skip
CASES = [(key, answer) for key, answers in RIGHT.items() for answer in answers]


@pytest.mark.parametrize("key, answer", CASES, ids=lambda value: getattr(value, "__name__", value))
def test_right_answers_are_accepted_and_returned(key, answer):
    accepted(key, answer)


PRAISE = {  # those that quote numbers
    "04.nearest": r"6 dictionnaires, ",
    "04.kl": r"49 codes sûrs parmi 8, 101,9 nats\.$",
}


@pytest.mark.parametrize("key", PRAISE)
def test_the_praise_quotes_right_numbers(key, capsys):
    verify(key, lambda *args: exercises.exercises()[key].reference(*args))
    assert re.search(PRAISE[key], capsys.readouterr().out)


# ---- wrong answers -----------------------------------------------------------------------------


def losing(sign=-1, codebook=lambda z, e: z.detach() - e, commitment=lambda z, e: z - e.detach(),
           reduce=torch.mean, beta=None):  # fmt: skip
    """A `vq_loss`; `beta`: the one used, whatever is asked."""

    def vq_loss(log_px, z_e, e, asked):
        first, second = (f(z_e, e).square().sum(1) for f in (codebook, commitment))
        return reduce(sign * log_px + first + (asked if beta is None else beta) * second)

    return vq_loss


def loss_with_beta_on_the_atoms(log_px, z_e, e, beta):
    codebook, commitment = (z_e.detach() - e).square(), (z_e - e.detach()).square()
    return (-log_px + (beta * codebook + commitment).sum(1)).mean()


def loss_with_beta_on_both(log_px, z_e, e, beta):
    codebook, commitment = (z_e.detach() - e).square(), (z_e - e.detach()).square()
    return (-log_px + beta * (codebook + commitment).sum(1)).mean()


def loss_with_beta_on_the_likelihood(log_px, z_e, e, beta):
    return LOSS(beta * log_px, z_e, e, 1)


def reviving(dead=lambda uses: uses == 0, drawn=lambda z, n: z[torch.randperm(len(z))[:n]]):
    """A `revive` of the atoms `dead`, put onto the vectors `drawn`."""

    def revive(codebook, uses, z):
        which = dead(uses)
        result = codebook.clone()
        result[which] = drawn(z, int(which.sum()))
        return result

    return revive


def copy_in_place(z_e, e):
    z_e.data = e.data
    return z_e


def uniform(q):
    return torch.full_like(q, 1 / q.shape[1])


def revive_that_forgets_return(codebook, uses, z):
    codebook[uses == 0] = z[torch.randperm(len(z))[: int((uses == 0).sum())]]


def revive_in_place(codebook, uses, z):
    codebook[uses == 0] = z[torch.randperm(len(z))[: int((uses == 0).sum())]]
    return codebook


def revive_with_the_first_vectors(codebook, uses, z):
    return torch.where(uses[:, None] == 0, z[: len(codebook)], codebook)


def revive_that_shuffles_z(codebook, uses, z):
    z[:] = z[torch.randperm(len(z))]
    return torch.where(uses[:, None] == 0, z[: len(codebook)], codebook)


def revive_that_sorts_the_atoms(codebook, uses, z):
    drawn = z[torch.randperm(len(z))[: int((uses == 0).sum())]]
    return torch.cat([codebook[uses > 0], drawn])


def table_of_pairs_seen(codes, K):
    """With repeated indices, `+=` adds only once."""
    counts = torch.full((K, K), 0.5)
    counts[codes[:, :, :-1], codes[:, :, 1:]] += 1
    return counts / counts.sum(1, keepdim=True)


def table_of_frequencies(codes, K):
    counts = codes.flatten().bincount(minlength=K) + 0.5
    return (counts / counts.sum()).expand(K, K)


def raising(error):
    def answer(*_):
        raise error

    return answer


WRONG = [
    # a product; the farthest; not squared; another distance; half a square missing
    (
        "04.nearest",
        lambda z, c: (z @ c.T).argmax(1),
        "C'est celui du plus grand produit scalaire : un atome long y gagne, mê",
        2,
    ),
    ("04.nearest", lambda z, c: torch.cdist(z, c).argmax(1), "C'est l'atome le plus éloigné.", 3),
    ("04.nearest", lambda z, c: (z[:, None] - c).sum(2).argmin(1), "vous obtenez", 1),
    ("04.nearest", lambda z, c: torch.cdist(z, c, p=1).argmin(1), "C'est le plus proche en dis", 2),
    (
        "04.nearest",
        lambda z, c: (z[:, None] - c).abs().sum(2).argmin(1),
        "C'est le plus proche en distance L1, la somme des écarts absolus : som",
        2,
    ),
    ("04.nearest", lambda z, c: (c.square().sum(1) - z @ c.T).argmin(1), "vous obtenez", 1),
    # right numbers, of no use as indices
    ("04.nearest", lambda z, c: NEAREST(z, c).tolist(), "pas un objet de type list : la s", None),
    ("04.nearest", lambda z, c: NEAREST(z, c).numpy(), "pas un objet de type ndarray :", None),
    ("04.nearest", lambda z, c: NEAREST(z, c).float(), "des entiers, pas des torch.float32", None),
    # the largest number; from one; a distance, the atom; the wrong dimension, none
    (
        "04.nearest",
        lambda z, c: len(c) - 1 - torch.cdist(z, c).flip(1).argmin(1),
        "À égalité, vous prenez le dernier : on veut le plus petit.",
        3,
    ),
    ("04.nearest", lambda z, c: NEAREST(z, c) + 1, "Vos numéros commencent à 1 : le premier", None),
    ("04.nearest", lambda z, c: torch.cdist(z, c).amin(1), 'on attend des entiers, pas des ', None),
    ("04.nearest", lambda z, c: c[NEAREST(z, c)], "de forme (4,) ; reçu : (4, 1).", 1),
    ("04.nearest", lambda z, c: torch.cdist(z, c).argmin(0), "un numéro par vecteur, de f", 1),
    ("04.nearest", lambda z, c: torch.cdist(z, c), "de forme (4,) ; reçu : (4, 3).", 1),
    ("04.nearest", lambda z, c: (z - c).square().sum(1).argmin(), "s'arrête sur RuntimeError", 1),
    # the other four ways of the notebook, and more
    ("04.straight_through", lambda z, e: e, "la valeur est juste, mais pas le gradient que reç", 2),
    ("04.straight_through", lambda z, e: z + (e - z), "la valeur est juste, mais pas le gradie", 2),
    ("04.straight_through", lambda z, e: e + (z - e).detach(), "C'est z_e : le décodeur doit l", 1),
    ("04.straight_through", lambda z, e: e + (z - z.detach()), 'la valeur est juste, mais pas ', 3),
    ("04.straight_through", lambda z, e: z, "C'est z_e : le décodeur doit lire l'atome.", 1),
    (
        "04.straight_through",
        lambda z, e: 2 * z + (e - 2 * z).detach(),
        "la valeur est juste, mais pas le gradient que reçoit z_e.",
        1,
    ),
    ("04.straight_through", lambda z, e: e.detach(), "la valeur est juste, mais pas le gradien", 2),
    ("04.straight_through", lambda z, e: e.detach().numpy(), 'on attend un tenseur comme z_e, ', 1),
    ("04.straight_through", copy_in_place, "votre fonction change `z_e`, que la suite du noteb", 1),
    ("04.straight_through", lambda z, e: z.copy_(e), "votre fonction change `z_e`, que la suit", 1),
    ("04.straight_through", lambda *args: COPY(*args)[0], "comme z_e, de forme (4, 3) ; re", 1),
    # the sign: of no term, of all, of the last; an absolute value, of a density
    (
        "04.loss",
        losing(1),
        "Votre coût baisse quand la vraisemblance baisse.",
        1,
    ),
    ("04.loss", lambda *args: -losing(1)(*args), "log_px autour de -50 : on attend 5", 2),
    ("04.loss", lambda log_px, z, e, beta: LOSS(log_px, z, e, -beta), "B = 1, β = 0,25 ", 1),
    ("04.loss", lambda log_px, *args: LOSS(-log_px.abs(), *args), "vous obtenez", 1),
    # no detach, exchanged, too many; of the likelihood; everywhere
    ("04.loss", losing(codebook=torch.sub), "la valeur est juste, mais pas le gradient que reç", 1),
    ("04.loss", losing(commitment=torch.sub), "la valeur est juste, mais pas le gradient que r", 1),
    (
        "04.loss",
        losing(codebook=lambda z, e: z - e.detach(), commitment=lambda z, e: z.detach() - e),
        'la valeur est juste, mais pas le gradient que reçoit z_e. β pèse sur l',
        3,
    ),
    ("04.loss", loss_with_beta_on_the_atoms, 'la valeur est juste, mais pas le gradient que re', 3),
    ("04.loss", loss_with_beta_on_both, "β ne pèse que sur l'engagement.", 2),
    ("04.loss", loss_with_beta_on_the_likelihood, ". β pèse sur log_px : sa place est sur l'", 2),
    ("04.loss", losing(codebook=lambda z, e: (z - e).detach()), "la valeur est juste, mais pas", 1),
    ("04.loss", losing(commitment=lambda z, e: (z - e).detach()), "la valeur est juste, mais p", 1),
    ("04.loss", lambda log_px, *args: LOSS(log_px.detach(), *args), "la valeur est juste, mais", 1),
    ("04.loss", torch.no_grad()(LOSS), "la valeur est juste, mais pas le gradient que reçoi", None),
    # beta forgotten, a constant; a sum, no mean, a mean over D
    ("04.loss", losing(beta=1), "B = 1, β = 0,25 et log_px autour", None),
    ("04.loss", losing(beta=0.25), "B = 4, β = 2 et log_px autour de -50 : on attend", None),
    (
        "04.loss",
        losing(reduce=torch.sum),
        "Vous sommez sur le lot : prenez-en la moyenne.",
        2,
    ),
    ("04.loss", losing(reduce=lambda losses: losses), "la moyenne du lot, de forme () ; reçu", 1),
    ("04.loss", lambda p, z, e, b: (1 + b) * F.mse_loss(z, e) - p.mean(), "B = 1, β = 0,25", 1),
    # bits; a mean; log N; no log K, or once; the sign; a constant; the likeliest atom alone
    (
        "04.kl",
        lambda q: KL(q) / math.log(2),
        "Ce sont des bits : en nats, le logarithme est népérien.",
        1,
    ),
    (
        "04.kl",
        lambda q: KL(q) / len(q),
        "C'est la moyenne sur les codes : prenez-en la somme.",
        3,
    ),
    (
        "04.kl",
        lambda q: torch.special.xlogy(q, q * len(q)).sum(),
        "Vous comptez log N, N codes, au lieu de log K.",
        2,
    ),
    ("04.kl", lambda q: torch.special.xlogy(q, q).sum(), "vous obtenez", 1),
    ("04.kl", lambda q: torch.special.entr(q).sum(), "C'est l'entropie de q : où est log K ?", 2),
    (
        "04.kl",
        lambda q: math.log(q.shape[1]) - torch.special.entr(q).sum(),
        "Vous ne comptez log K qu'une fois.",
        3,
    ),
    (
        "04.kl",
        lambda q: len(q) * math.log(q.shape[1]) + torch.special.entr(q).sum(),
        "Σ q log q s'ajoute à log K : vous l'en retirez.",
        2,
    ),
    ("04.kl", lambda q: len(q) * math.log(q.shape[1]), "vous obtenez", 1),
    ("04.kl", lambda q: (q.amax(1) * q.shape[1]).log().sum(), "cinq lois quelconques, K", 1),
    ("04.kl", lambda q: -KL(q), "Le signe est à changer : une KL n'est jamais négative.", 1),
    # NaN; the other direction; batchmean; too much added; a vector
    ("04.kl", lambda q: (q * (q / uniform(q)).log()).sum(), "Combien vaut 0 · log 0, pour la m", 2),
    ("04.kl", lambda q: F.kl_div(q.log(), uniform(q), reduction="sum"), "obtenez inf.", 1),
    ("04.kl", lambda q: F.kl_div(uniform(q).log(), q, reduction="batchmean"), ". C'est l", 3),
    ("04.kl", lambda q: (q * ((q + 0.01) / uniform(q)).log()).sum(), "vous obtenez", None),
    ("04.kl", lambda q: torch.stack([KL(law[None]) for law in q]), "on attend un scalaire, la ", 1),
    # none moved, all, the living; too many of them
    ("04.revive", lambda c, uses, z: c, "un atome mort n'a pas été posé sur un vecteur de", 2),
    ("04.revive", lambda c, uses, z: z[::25], "un atome qui servait a été déplacé", 1),
    ("04.revive", reviving(lambda uses: uses > 0), "un atome qui servait a été déplacé", 1),
    ("04.revive", reviving(lambda uses: uses == uses.min()), "aucun ne doit bouger", 1),
    ("04.revive", reviving(lambda uses: uses <= 1), "quand tous les atomes servent, aucun", 1),
    ("04.revive", reviving(lambda uses: uses < uses.float().mean()), "aucun ne doit bouger", 1),
    # one vector for all, their mean, the first ones; elsewhere; NaN
    (
        "04.revive",
        reviving(drawn=lambda z, n: z[torch.randint(len(z), ())]),
        "les 15 atomes morts sont posés tous au même endroit.",
        3,
    ),
    ("04.revive", reviving(drawn=lambda z, n: z.mean(0)), "sur un vecteur de z.", 2),
    ("04.revive", reviving(drawn=lambda z, n: z[[0, 9] * n][:n]), "en 2 endroits seulement.", 3),
    ("04.revive", reviving(drawn=lambda z, n: z[:n]), "les premiers vecteurs de z, qui se res", 3),
    ("04.revive", revive_with_the_first_vectors, "ressemblent : tirez-les au hasard.", 3),
    ("04.revive", reviving(drawn=lambda z, n: z[400 - n :]), "deux appels posent les atomes au", 3),
    ("04.revive", reviving(drawn=lambda z, n: 9 * torch.randn(n, 2)), "sur un vecteur de z.", 2),
    ("04.revive", reviving(drawn=lambda z, n: z[-n:] + torch.randn(n, 2)), "un vecteur de z", 2),
    ("04.revive", reviving(drawn=lambda z, n: math.nan), "un atome mort n'a pas été posé", 2),
    # the codebook changed in place, in two ways
    ("04.revive", revive_in_place, "votre fonction change `codebook`, que la suite du notebook", 1),
    ("04.revive", lambda c, uses, z: c.copy_(z[::25]), "votre fonction change `codebook`, que ", 1),
    # nothing returned; z shuffled in place; the atoms in another order; the dead alone
    ("04.revive", revive_that_forgets_return, "avez-vous oublié `return` ?", 1),
    ("04.revive", revive_that_shuffles_z, "votre fonction change `z`, que la suite du notebook", 1),
    ("04.revive", revive_that_sorts_the_atoms, "un atome qui servait a été déplacé.", 1),
    ("04.revive", lambda c, uses, z: REVIVE(c, uses, z)[uses == 0], "(16, 2) ; reçu : (15, 2)", 1),
    # exchanged, divided by the other sum, in two ways; by all; not at all
    (
        "04.prior",
        lambda *args: LEFT(*args).T,
        "Lignes et colonnes sont échangées.",
        2,
    ),
    ("04.prior", table_of(end=lambda n: n / n.sum(0)), "Ce sont vos colonnes qui ont pour somm", 2),
    ("04.prior", table_of(end=lambda n: n / n.sum(1)), "vous obtenez", 1),
    ("04.prior", table_of(end=lambda n: n / n.sum()), "vous obtenez", 1),
    ("04.prior", table_of(end=lambda n: n), "vous obtenez", 1),
    # nothing added: NaN, a row of zeros, a column; a lot added; added afterwards
    (
        "04.prior",
        table_of(0),
        "Un code jamais vu n'a aucun compte : ajoutez 0,5 à tous.",
        3,
    ),
    ("04.prior", table_of(0, end=lambda n: F.normalize(n.float(), 1)), "vous obtenez", 1),
    ("04.prior", table_of(0, end=lambda n: (n + 0.0).log_softmax(1).exp()), "vous obtenez", 1),
    (
        "04.prior",
        lambda c, K: table_of(0)(c, K).nan_to_num(1 / K),
        "vous obtenez",
        1,
    ),
    ("04.prior", table_of(50), "vous obtenez", None),
    ("04.prior", table_of_pairs_seen, "Chaque paire n'est comptée qu'une fois : avec des", 2),
    ("04.prior", lambda *args: LEFT(*args).numpy(), "pas un objet de type ndarray", None),
    ("04.prior", lambda *args: LEFT(*args) + 0.01, "vous obtenez", 1),
    # no neighbour: frequencies, a constant; exchanged, above, two columns before
    ("04.prior", table_of_frequencies, "vous obtenez", 1),
    ("04.prior", lambda c, K: torch.full((K, K), 1 / K), "vous obtenez", 1),
    ("04.prior", table_of(pairs=lambda c: (c[:, :, 1:], c[:, :, :-1])), "La gauche et la droit", 2),
    (
        "04.prior",
        table_of(5, pairs=lambda c: (c[:, :, 1:], c[:, :, :-1])),
        "vous obtenez",
        1,
    ),
    ("04.prior", table_of(pairs=lambda c: (c[:, :-1], c[:, 1:])), "Vos paires vont de haut en ", 1),
    ("04.prior", table_of(pairs=lambda c: (c[:, :, 0], c[:, :, 2])), "vous obtenez", 1),
    # across rows: of all maps, of each; around; one atom less
    ("04.prior", table_of(pairs=lambda c: (c.flatten()[:-1], c.flatten()[1:])), "Vos paires v", 1),
    (
        "04.prior",
        table_of(2, pairs=lambda c: (c.flatten(1)[:, :-1], c.flatten(1)[:, 1:])),
        "vous obtenez",
        1,
    ),
    ("04.prior", table_of(pairs=lambda c: (c, c.roll(-1, 2))), "vous obtenez", 1),
    ("04.prior", lambda c, K: LEFT(c, K - 1), "on attend une table (K, K), de forme (8, 8)", 1),
    # what the answer raises
    *((key, raising(KeyError("atome")), "sur KeyError : `'atome'`", 1)
      for key in KEYS),
]  # fmt: skip


# right, but what the next cells could not use, or would find changed; or not what is asked
UNUSABLE = [
    ("04.nearest", nearest_by_a_product, "pas des torch.int32 : ces numéros serviront d'indices"),
    ("04.revive", revive_with_a_loop, "votre fonction change `uses`"),
    ("04.revive", revive_with_numpy, "votre hasard ne change jamais"),
    ("04.revive", revive_with_a_list, "votre hasard ne change jamais"),
    ("04.revive", revive_with_a_little_noise, "`.float()` convertit"),
    ("04.prior", table_with_loops, "Vous ajoutez 1 à chaque compte"),
    ("04.prior", table_with_numpy, "on attend"),
    ("04.prior", table_of_one_hot, "on attend"),
    ("04.prior", table_with_scatter, "on attend"),
]


@pytest.mark.parametrize("key, answer, message", UNUSABLE)
def test_answers_that_the_notebook_cannot_use_are_told_why(key, answer, message):
    refused(key, answer, message)


@pytest.mark.parametrize("key, answer, message, number", WRONG)
def test_wrong_answers_meet_a_counter_example_and_the_hint_that_helps(key, answer, message, number):
    refused(key, answer, message, number)
