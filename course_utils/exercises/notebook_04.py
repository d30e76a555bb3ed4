"""Exercises of notebook 04: nearest atom, copied gradient, loss, KL, dead atoms, a first prior."""

import math

import torch
import torch.nn.functional as F

from ..language import tr, trn
from . import Exercise
from .harness import SameAs, Wrong, listed, remixed, tensor


# ---- 04.nearest ---------------------------------------------------------------------------------


def nearest_atom(z, codebook):
    """Numéro de l'atome le plus proche de chaque vecteur : (N,) ; le plus petit, à égalité.

    z (N, D) : des vecteurs ; codebook (K, D) : les atomes.
    """
    distances = (z[:, None] - codebook[None]).square().sum(2)  # (N, K)
    return distances.argmin(1)


def _dictionaries():
    draws = torch.Generator().manual_seed(0)
    line = torch.tensor([[0.2], [0.9], [2.6], [-4.0]]), torch.tensor([[0.0], [1.0], [3.0]])
    yield tr("trois atomes d'une seule dimension"), list(line)
    for N, K, D in ((5, 4, 2), (1, 7, 3), (30, 12, 6)):
        z, codebook = (torch.randn(size, D, generator=draws) for size in (N, K))
        codebook *= torch.linspace(0.2, 3, K)[:, None]  # of various norms: a dot product is not it
        name = trn(
            "{count} vecteur de {D} dimensions, {K} atomes",
            "{count} vecteurs de {D} dimensions, {K} atomes",
            N, D=D, K=K,
        )  # fmt: skip
        yield name, [z, codebook]
    far = torch.tensor([[100.0, 100.0], [101.0, 100.0]])
    yield tr("deux atomes loin de l'origine"), [far + 0.2, far]
    twins = torch.tensor([[5.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    yield tr("deux atomes à égalité"), [torch.tensor([[0.0, 1.0], [1.1, 1.0]]), twins]
    # as the encoder gives them, in training
    yield tr("des vecteurs qui portent un gradient"), [line[0].clone().requires_grad_(), line[1]]


def _last_of_equals(z, codebook):
    distances = (z[:, None] - codebook.flip(0)[None]).square().sum(2)
    return len(codebook) - 1 - distances.argmin(1)


Exercise(
    "04.nearest",
    nearest_atom,
    SameAs(
        nearest_atom,
        _dictionaries,
        what=tr("un numéro par vecteur"),
        dtype=torch.int64,
        where=lambda i, z, codebook: tr("le vecteur {z}, le numéro du plus proche", z=listed(z[i])),
        slips=(
            (
                lambda z, codebook: torch.cdist(z, codebook, p=1).argmin(1),
                tr(
                    "C'est le plus proche en distance L1, la somme des écarts absolus : sommez "
                    "leurs carrés."
                ),
            ),
            (
                lambda z, codebook: (z @ codebook.T).argmax(1),
                tr(
                    "C'est celui du plus grand produit scalaire : un atome long y gagne, même loin."
                ),
            ),
            (
                lambda z, codebook: F.cosine_similarity(z[:, None], codebook, dim=2).argmax(1),
                tr("C'est l'atome de direction la plus proche : il peut être loin."),
            ),
            (
                lambda z, codebook: torch.cdist(z, codebook).argmax(1),
                tr("C'est l'atome le plus éloigné."),
            ),
            (_last_of_equals, tr("À égalité, vous prenez le dernier : on veut le plus petit.")),
            (
                lambda z, codebook: 1 + nearest_atom(z, codebook),
                tr("Vos numéros commencent à 1 : le premier atome a le numéro 0."),
            ),
        ),
        praise=tr("7 dictionnaires, tous les vecteurs à leur place."),
    ),
    (
        tr("z[:, None] - codebook[None] est de forme (N, K, D) : toutes les différences."),
        tr(
            "La distance : élevez ces différences au carré, sommez sur D. La racine est inutile : "
            "elle ne change pas l'ordre."
        ),
        tr("argmin(1) donne le numéro, et le plus petit en cas d'égalité."),
    ),
)


# ---- 04.straight_through ------------------------------------------------------------------------


def copy_gradient(z_e, e):
    """Vaut e, et copie à z_e le gradient reçu ; e n'en reçoit aucun. Même forme qu'eux."""
    return z_e + (e - z_e).detach()


def _vectors_and_atoms():
    draws = torch.Generator().manual_seed(0)
    for shape in ((4, 3), (2, 5, 3, 6)):
        yield tr("des vecteurs {shape}", shape=shape), list(torch.randn(2, *shape, generator=draws))


Exercise(
    "04.straight_through",
    copy_gradient,
    SameAs(
        copy_gradient,
        _vectors_and_atoms,
        what=tr("un tenseur comme z_e"),
        dtype=torch.float32,
        gradient=("z_e", "e"),
        where=lambda i, z_e, e: tr(
            "z_e = {z_e:.3g} et e = {e:.3g}, à la place {place}", z_e=z_e[i], e=e[i], place=list(i)
        ),
        slips=(
            (lambda z_e, e: z_e, tr("C'est z_e : le décodeur doit lire l'atome.")),
            (
                lambda z_e, e: e + (z_e - e).detach(),
                tr("C'est z_e, et c'est l'atome qui reçoit le gradient : échangez leurs rôles."),
            ),
            (lambda z_e, e: e - z_e, tr("C'est la différence : ajoutez-y z_e.")),
            (lambda z_e, e: e, tr("L'atome le reçoit à sa place.")),
            (lambda z_e, e: e.detach(), tr("Rien ne l'atteint : tout est détaché, ou s'annule.")),
            (
                lambda z_e, e: z_e + e - z_e.detach(),
                tr("z_e reçoit le sien, mais l'atome aussi : il ne doit en recevoir aucun ici."),
            ),
        ),
        praise=tr("la valeur est celle de l'atome, le gradient est celui du décodeur."),
    ),
    (
        tr("t.detach() a la valeur de t, et aucun gradient. Écrivez e comme z_e + (e - z_e)."),
        tr(
            "Le gradient doit traverser z_e, et lui seul : que faut-il détacher dans z_e + (e - "
            "z_e) ?"
        ),
        tr("Détachez toute la parenthèse (e - z_e) : l'atome n'y reçoit plus rien."),
    ),
)


# ---- 04.loss ------------------------------------------------------------------------------------


def vq_loss(log_px, z_e, e, beta):
    """Coût à minimiser, moyenne du lot : un scalaire.

    log_px (B,) : log p(x | z_q), en nats ; z_e, e (B, D) : sorties de l'encodeur, et atomes.
    """
    codebook = (z_e.detach() - e).square().sum(1)  # apprentissage des atomes
    commitment = (z_e - e.detach()).square().sum(1)
    return (-log_px + codebook + beta * commitment).mean()


def broken_vq_loss(log_px, z_e, e, beta):
    codebook = (z_e.detach() - e).square().sum(1)  # apprentissage des atomes
    commitment = (z_e - e.detach()).square().sum(1)
    return (log_px + codebook + beta * commitment).mean()


def _batches():
    draws = torch.Generator().manual_seed(0)
    sizes = ((1, 2, 0.25, -50), (6, 3, 0.25, -50), (4, 2, 2.0, -50), (5, 4, 0.0, -50))
    for B, D, beta, level in (*sizes, (3, 2, 0.5, 9)):  # a density may be more than 1
        log_px = level + torch.randn(B, generator=draws)
        z_e, e = torch.randn(2, B, D, generator=draws)
        name = tr("B = {B}, β = {b:g} et log_px autour de {level}", B=B, b=beta, level=level)
        yield name, [log_px, z_e, e, beta]


def _terms(log_px, z_e, e, beta):
    """−log_px, the two distances, beta, and the number of dimensions."""
    codebook = (z_e.detach() - e).square().sum(1)
    commitment = (z_e - e.detach()).square().sum(1)
    return -log_px, codebook, commitment, beta, z_e.shape[1]


Exercise(
    "04.loss",
    vq_loss,
    SameAs(
        vq_loss,
        _batches,
        what=tr("un scalaire, la moyenne du lot"),
        dtype=torch.float32,
        gradient=("log_px", "z_e", "e"),
        slips=(
            (lambda log_px, z_e, e, b: (-log_px + (1 + b) * (z_e - e).square().sum(1)).mean(),
             tr("Sans detach(), chaque distance déplace les deux vecteurs.")),
            (lambda log_px, z_e, e, b: vq_loss(-log_px.detach(), z_e, e, b) + 2 * log_px.mean(),
             tr("Votre coût baisse quand la vraisemblance baisse.")),
            *remixed(
                _terms,
                (lambda r, a, c, b, D: (-r + a + b * c).mean(),
                 tr("Votre coût baisse quand la vraisemblance baisse.")),
                (lambda r, a, c, b, D: (r - a - b * c).mean(),
                 tr("Vos deux distances se retranchent : à descendre ce coût, elles "
                    "grandiraient.")),
                (lambda r, a, c, b, D: (r + a + b * c).sum(),
                 tr("Vous sommez sur le lot : prenez-en la moyenne.")),
                (lambda r, a, c, b, D: (r + b * (a + c)).mean(),
                 tr("β ne pèse que sur l'engagement.")),
                (lambda r, a, c, b, D: (b * r + a + c).mean(),
                 tr("β pèse sur log_px : sa place est sur l'engagement.")),
                (lambda r, a, c, b, D: (r + a + c).mean(), tr("β manque.")),
                (lambda r, a, c, b, D: (r + a).mean(), tr("L'engagement manque.")),
                (lambda r, a, c, b, D: (r + b * c).mean(), tr("Le terme des atomes manque.")),
                (lambda r, a, c, b, D: (a + b * c).mean(), tr("La vraisemblance manque.")),
                (lambda r, a, c, b, D: (r + 0.5 * (a + b * c)).mean(),
                 tr("Vos distances sont divisées par deux.")),
                (lambda r, a, c, b, D: (r + (a + b * c) / D).mean(),
                 tr("Vos distances sont des moyennes sur les D dimensions : il en faut la "
                    "somme.")),
                (lambda r, a, c, b, D: (r + c + b * a).mean(),
                 tr("β pèse sur le terme des atomes : sa place est sur l'engagement, celui de "
                    "z_e.")),
            ),
        ),
        praise=tr("le coût monte quand la vraisemblance baisse : on peut le descendre."),
    ),
    (
        tr("On descend un coût. Veut-on descendre la vraisemblance, ou la monter ?"),
        tr("Par rapport à la cellule de départ, un seul signe est à changer : tout le reste y est "
           "juste, les deux distances, leurs poids et la moyenne."),
        tr("Ne touchez pas aux detach() : chaque distance ne déplace qu'un des deux vecteurs."),
    ),
    broken=broken_vq_loss,
)  # fmt: skip


# ---- 04.kl --------------------------------------------------------------------------------------


def kl_to_uniform(q):
    """KL(q ‖ uniforme) en nats, sommée sur les codes de l'image : un scalaire.

    q (N, K) : pour chacun des N codes, les probabilités des K atomes. Certaines sont nulles.
    """
    N, K = q.shape
    # Σ q log(q K) = log K + Σ q log q ; xlogy(0, 0) = 0
    return N * math.log(K) + torch.special.xlogy(q, q).sum()


def _rows():
    draws = torch.Generator().manual_seed(0)
    yield tr("un code sûr, K = 4"), [torch.tensor([[0.0, 1, 0, 0]])]
    one_hot = F.one_hot(torch.randint(8, (49,), generator=draws), 8).float()
    yield tr("49 codes sûrs, K = 8"), [one_hot]
    yield tr("une loi uniforme, K = 5"), [torch.full((2, 5), 0.2)]
    yield tr("un code qui hésite entre deux atomes sur quatre"), [torch.tensor([[0.5, 0.5, 0, 0]])]
    any_laws = torch.softmax(torch.randn(5, 6, generator=draws), 1)
    yield tr("cinq lois quelconques, K = 6"), [any_laws]
    yield tr("les mêmes, en float64"), [any_laws.double()]


def _plog(q):
    return torch.special.xlogy(q, q).sum()


Exercise(
    "04.kl",
    kl_to_uniform,
    SameAs(
        kl_to_uniform,
        _rows,
        what=tr("un scalaire, la somme sur les codes"),
        number=True,
        tolerance=1e-4,
        slips=(
            (
                lambda q: (q * (q * q.shape[1]).log()).sum(),
                tr("Combien vaut 0 · log 0, pour la machine ? Et pour nous ?"),
            ),
            (
                lambda q: kl_to_uniform(q) / math.log(2),
                tr("Ce sont des bits : en nats, le logarithme est népérien."),
            ),
            (
                lambda q: kl_to_uniform(q) / len(q),
                tr("C'est la moyenne sur les codes : prenez-en la somme."),
            ),
            (
                lambda q: len(q) * math.log(len(q)) + _plog(q),
                tr("Vous comptez log N, N codes, au lieu de log K."),
            ),
            (
                lambda q: -kl_to_uniform(q),
                tr("Le signe est à changer : une KL n'est jamais négative."),
            ),
            (
                lambda q: len(q) * math.log(q.shape[1]) - _plog(q),
                tr("Σ q log q s'ajoute à log K : vous l'en retirez."),
            ),
            (lambda q: math.log(q.shape[1]) + _plog(q), tr("Vous ne comptez log K qu'une fois.")),
            (lambda q: -_plog(q), tr("C'est l'entropie de q : où est log K ?")),
        ),
        praise=tr(
            "un code sûr coûte log K ; 49 codes sûrs parmi 8, {nats:.1f} nats.",
            nats=49 * math.log(8),
        ),
    ),
    (
        tr("Pour un code : la somme sur k de q_k log(q_k / (1/K))."),
        tr(
            "0 log 0 vaut 0 : torch.special.xlogy(q, q) le sait. Le reste est log K fois la somme "
            "des q_k, qui vaut 1."
        ),
        tr("Sommez sur les N codes : N codes sûrs coûtent N log K."),
    ),
)


# ---- 04.revive ----------------------------------------------------------------------------------


def revive(codebook, uses, z):
    """Remplace chaque atome qui n'a servi à personne par un vecteur de z : (K, D).

    codebook (K, D) ; uses (K,) : combien de vecteurs chaque atome a servis ; z (N, D), N ≥ K.
    """
    dead = uses == 0
    drawn = torch.randperm(len(z))[: int(dead.sum())]  # des vecteurs différents
    codebook = codebook.clone()
    codebook[dead] = z[drawn]
    return codebook


def check_revive(answer):
    for K, D, dead in ((16, 2, 15), (9, 5, 3)):
        moved = [_revived(answer, K, D, dead) for _ in range(2)]
        if torch.equal(*moved):
            raise Wrong(
                tr(
                    "deux appels posent les atomes aux mêmes endroits : tirez-les au hasard dans "
                    "tout le lot, à chaque appel."
                )
            )
    return tr("les atomes morts sont posés au hasard sur des vecteurs de z, les autres restent.")


def _revived(answer, K, D, dead):
    """The dead atoms of a dictionary, after `answer`."""
    draws = torch.Generator().manual_seed(0)
    z = 9 * torch.randn(25 * K, D, generator=draws)
    codebook = torch.randn(K, D, generator=draws) * 0.01 + 20
    uses = torch.tensor([1, 10_000, 7] * K)[:K]  # rarely used is not dead
    uses[torch.randperm(K, generator=draws)[:dead]] = 0
    new = answer(codebook, uses, z)
    tensor(new, (K, D), tr("un dictionnaire"), dtype=torch.float32)
    if not torch.equal(new[uses > 0], codebook[uses > 0]):
        raise Wrong(tr("un atome qui servait a été déplacé."))
    moved = new[uses == 0]
    if not (torch.cdist(moved, z).amin(1) < 0.3).all():  # a little noise does no harm
        raise Wrong(tr("un atome mort n'a pas été posé sur un vecteur de z."))
    places = len(moved.unique(dim=0))
    if places < 0.6 * dead:  # drawn with repetition, a few places may be the same
        text = trn(
            "les {dead} atomes morts sont posés tous au même endroit.",
            "les {dead} atomes morts sont posés en {count} endroits seulement.",
            places, dead=dead,
        )  # fmt: skip
        raise Wrong(text)
    answer(codebook, uses, z[:K])  # as many vectors as atoms
    try:
        unmoved = answer(codebook, torch.arange(1, K + 1), z)
    except Wrong as wrong:
        raise Wrong(tr("quand tous les atomes servent : {message}", message=wrong)) from wrong
    if not torch.equal(unmoved, codebook):
        raise Wrong(tr("quand tous les atomes servent, aucun ne doit bouger."))
    return moved


Exercise(
    "04.revive",
    revive,
    check_revive,
    (
        tr("dead = uses == 0 dit quels atomes sont morts ; travaillez sur codebook.clone()."),
        tr("codebook[dead] = …, autant de vecteurs de z qu'il y a de morts."),
        tr("torch.randperm(len(z)) mélange les numéros : prenez les premiers, tous différents."),
    ),
)


# ---- 04.prior -----------------------------------------------------------------------------------


def left_table(codes, K):
    """P[a, b] = p(code = b | son voisin de gauche = a) : (K, K), chaque ligne de somme 1.

    codes (N, h, w) : les cartes de codes d'apprentissage, des entiers de 0 à K − 1.
    """
    left, code = codes[:, :, :-1].flatten(), codes[:, :, 1:].flatten()
    pairs = torch.bincount(left * K + code, minlength=K * K).view(K, K)
    counts = pairs + 0.5  # aucune paire n'est impossible, même jamais vue
    return counts / counts.sum(1, keepdim=True)


def _maps():
    """Maps whose rows are Markov chains: a code is often that on its left, plus one."""
    draws = torch.Generator().manual_seed(0)
    for N, h, w, K in ((30, 6, 3, 8), (20, 2, 5, 4)):
        codes = torch.randint(K, (N, h, w), generator=draws)
        follow = torch.rand(N, h, w, generator=draws) < 0.7
        for column in range(1, w):
            following = (codes[:, :, column - 1] + 1) % K
            codes[:, :, column] = torch.where(follow[:, :, column], following, codes[:, :, column])
        yield (
            tr("des cartes {h}×{w}, K = {K}", h=h, w=w, K=K),
            [codes.clamp(max=K - 2), K],
        )  # the last: never seen


def _counts(smoothing, pairs=lambda codes: (codes[:, :, :-1], codes[:, :, 1:])):
    """The table of someone who counts other pairs, or adds something else to the counts."""

    def table(codes, K):
        left, code = (x.flatten() for x in pairs(codes))
        counts = torch.bincount(left * K + code, minlength=K * K).view(K, K) + smoothing
        return counts / counts.sum(1, keepdim=True)

    return table


def _counted_once(codes, K):
    counts = torch.full((K, K), 0.5)
    counts[codes[:, :, :-1], codes[:, :, 1:]] += 1  # a pair counts only once
    return counts / counts.sum(1, keepdim=True)


def _columns_sum_to_one(codes, K):
    left, code = codes[:, :, :-1].flatten(), codes[:, :, 1:].flatten()
    counts = torch.bincount(left * K + code, minlength=K * K).view(K, K) + 0.5
    return counts / counts.sum(0)


Exercise(
    "04.prior",
    left_table,
    SameAs(
        left_table,
        _maps,
        what=tr("une table (K, K)"),
        where=lambda i, codes, K: tr("P[{i[0]}, {i[1]}], le code {i[1]} après {i[0]}", i=i),
        slips=(
            (_counts(0.0), tr("Un code jamais vu n'a aucun compte : ajoutez 0,5 à tous.")),
            (_counts(1.0), tr("Vous ajoutez 1 à chaque compte : la consigne dit 0,5.")),
            (lambda codes, K: left_table(codes, K).log(), tr("Ce sont des log-probabilités.")),
            (_counted_once,
             tr("Chaque paire n'est comptée qu'une fois : avec des indices répétés, `t[a, b] += 1` "
                "n'ajoute que 1.")),
            (_counts(0.5, lambda c: (c[:, :, 1:], c[:, :, :-1])),
             tr("La gauche et la droite sont échangées.")),
            (_counts(0.5, lambda c: (c.flatten(1)[:, :-1], c.flatten(1)[:, 1:])),
             tr("Vos paires vont d'une ligne à la suivante : le premier code d'une ligne n'a pas "
                "de voisin de gauche.")),
            (_counts(0.5, lambda c: (c.flatten()[:-1], c.flatten()[1:])),
             tr("Vos paires vont d'une carte à la suivante.")),
            (_counts(0.5, lambda c: (c[:, :-1], c[:, 1:])),
             tr("Vos paires vont de haut en bas : le voisin est à gauche.")),
            (_counts(0.5, lambda c: (c[:, :, 0], c[:, :, 1])),
             tr("Vous ne comptez que les deux premières colonnes.")),
            (_columns_sum_to_one,
             tr("Ce sont vos colonnes qui ont pour somme 1 : il faut que ce soit les lignes.")),
            (lambda codes, K: left_table(codes, K).T, tr("Lignes et colonnes sont échangées.")),
        ),
        praise=tr("chaque ligne est la loi du code sachant son voisin, même pour un voisin jamais "
                  "vu."),
    ),
    (
        tr("Comptez les paires (gauche, code) : codes[:, :, :-1] et codes[:, :, 1:]. Puis divisez "
           "chaque ligne par sa somme."),
        tr("La ligne est le voisin de gauche, la colonne est le code : left * K + code numérote "
           "les paires, torch.bincount(…, minlength=K * K) les compte."),
        tr("Ajoutez 0,5 à tous les comptes avant de diviser."),
    ),
)  # fmt: skip
