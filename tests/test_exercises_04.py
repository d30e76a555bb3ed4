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
    "04.nearest": (nearest_with_loops, nearest_by_cdist,
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
    "04.nearest": r"7 dictionnaires, ",
    "04.kl": r"49 codes sûrs parmi 8, 101,9 nats\.$",
}


@pytest.mark.parametrize("key", PRAISE)
def test_the_praise_quotes_right_numbers(key, capsys):
    verify(key, lambda *args: exercises.exercises()[key].reference(*args))
    assert re.search(PRAISE[key], capsys.readouterr().out)


# ---- wrong answers -----------------------------------------------------------------------------


def reviving(dead=lambda uses: uses == 0, drawn=lambda z, n: z[torch.randperm(len(z))[:n]]):
    """A `revive` of the atoms `dead`, put onto the vectors `drawn`."""

    def revive(codebook, uses, z):
        which = dead(uses)
        result = codebook.clone()
        result[which] = drawn(z, int(which.sum()))
        return result

    return revive


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


def raising(error):
    def answer(*_):
        raise error

    return answer


WRONG = [
    # none moved, all, the living; too many of them
    ("04.revive", lambda c, uses, z: c, "un atome mort n'a pas été posé sur un vecteur de"),
    ("04.revive", lambda c, uses, z: z[::25], "un atome qui servait a été déplacé"),
    ("04.revive", reviving(lambda uses: uses > 0), "un atome qui servait a été déplacé"),
    ("04.revive", reviving(lambda uses: uses == uses.min()), "aucun ne doit bouger"),
    ("04.revive", reviving(lambda uses: uses <= 1), "quand tous les atomes servent, aucun"),
    ("04.revive", reviving(lambda uses: uses < uses.float().mean()), "aucun ne doit bouger"),
    # rarely used is not dead; dead, though few are
    ("04.revive", reviving(lambda uses: uses < uses.max() / 100), "un atome qui servait a été"),
    ("04.revive", reviving(lambda uses: (uses == 0) & ((uses == 0).float().mean() > 0.5)),
     "un atome mort n'a pas été posé"),
    # neighbours in the batch
    ("04.revive", reviving(drawn=lambda z, n: z[(s := torch.randint(len(z) - n, ())) : s + n]),
     "des vecteurs de z voisins"),
    # one vector for all, their mean, the first ones; elsewhere; NaN
    (
        "04.revive",
        reviving(drawn=lambda z, n: z[torch.randint(len(z), ())]),
        "les 15 atomes morts sont posés tous au même endroit."),
    ("04.revive", reviving(drawn=lambda z, n: z.mean(0)), "sur un vecteur de z."),
    ("04.revive", reviving(drawn=lambda z, n: z[[0, 9] * n][:n]), "en 2 endroits seulement."),
    ("04.revive", reviving(drawn=lambda z, n: z[:n]), "vecteurs de z voisins, qui se res"),
    ("04.revive", revive_with_the_first_vectors, "ressemblent : tirez-les au hasard dans"),
    ("04.revive", reviving(drawn=lambda z, n: z[::26][:n]), "deux appels posent les atomes au"),
    ("04.revive", reviving(drawn=lambda z, n: 9 * torch.randn(n, 2)), "sur un vecteur de z."),
    ("04.revive", reviving(drawn=lambda z, n: z[-n:] + torch.randn(n, 2)), "un vecteur de z"),
    ("04.revive", reviving(drawn=lambda z, n: math.nan), "un atome mort n'a pas été posé"),
    # the codebook changed in place, in two ways
    ("04.revive", revive_in_place, "votre fonction change `codebook`, que la suite du notebook"),
    ("04.revive", lambda c, uses, z: c.copy_(z[::25]), "votre fonction change `codebook`, que "),
    # nothing returned; z shuffled in place; the atoms in another order; the dead alone
    ("04.revive", revive_that_forgets_return, "avez-vous oublié `return` ?"),
    ("04.revive", revive_that_shuffles_z, "votre fonction change `z`, que la suite du notebook"),
    ("04.revive", revive_that_sorts_the_atoms, "un atome qui servait a été déplacé."),
    ("04.revive", lambda c, uses, z: REVIVE(c, uses, z)[uses == 0], "(16, 2) ; reçu : (15, 2)"),
    # what the answer raises
    *((key, raising(KeyError("atome")), "sur KeyError : `'atome'`")
      for key in KEYS),
    # the right value of another mistake: the gradients tell them apart
    ("04.loss", lambda lp, z, e, b: (-lp + (z - e.detach()).square().sum(1)).mean(),
     "Gradient juste pour log_px, faux pour z_e et e"),
    # for one dtype; for fewer atoms than vectors
    ("04.kl", lambda q: (torch.special.xlogy(q, q).sum(1, True)
                         + q @ torch.full((q.shape[1], 1), math.log(q.shape[1]))).sum(),
     "pour les mêmes, en float64 : votre fonction s'arrête"),
    ("04.revive", reviving(drawn=lambda z, n: z[torch.randperm(len(z) - 20)[:n]]), "s'arrête"),
    # right, but what the next cells could not use, or would find changed; or not what is asked
    ("04.nearest", nearest_with_numpy, "des vecteurs qui portent un gradient"),
    ("04.nearest", nearest_by_a_product,
     "pas des torch.int32 : ces numéros serviront d'indices"),
    ("04.revive", revive_with_a_loop, "votre fonction change `uses`"),
    ("04.revive", revive_with_numpy, "votre hasard ne change jamais"),
    ("04.revive", revive_with_a_list, "votre hasard ne change jamais"),
    ("04.revive", revive_with_a_little_noise, "`.float()` convertit"),
    ("04.prior", table_with_loops, "Vous ajoutez 1 à chaque compte"),
    ("04.prior", table_with_numpy, "on attend"),
    ("04.prior", table_of_one_hot, "on attend"),
    ("04.prior", table_with_scatter, "on attend"),
]  # fmt: skip


@pytest.mark.parametrize("key, answer, message", WRONG)
def test_wrong_answers_meet_a_counter_example(key, answer, message):
    refused(key, answer, message)
