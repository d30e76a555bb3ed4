"""Exercises of notebook 04: nearest atom, copied gradient, loss, KL, dead atoms, a first prior."""

import math

import torch
import torch.nn.functional as F

from . import Exercise, Wrong
from .helpers import as_tensor, call, counted, must_be_a_tensor, numbers, recognise


class Stubs:
    """What the notebook shows: to complete, or to repair."""

    def nearest_atom(z, codebook):
        """Numéro de l'atome le plus proche de chaque vecteur : (N,) ; le plus petit, à égalité.

        z (N, D) : des vecteurs ; codebook (K, D) : les atomes.
        """
        return ...

    def copy_gradient(z_e, e):
        """Vaut e, et copie à z_e le gradient reçu ; e n'en reçoit aucun. Même forme qu'eux."""
        return ...

    def vq_loss(log_px, z_e, e, beta):
        """Coût à minimiser, moyenne du lot : un scalaire.

        log_px (B,) : log p(x | z_q), en nats ; z_e, e (B, D) : sorties de l'encodeur, et atomes.
        """
        codebook = (z_e.detach() - e).square().sum(1)  # apprentissage des atomes
        commitment = (z_e - e.detach()).square().sum(1)
        return (log_px + codebook + beta * commitment).mean()

    def kl_to_uniform(q):
        """KL(q ‖ uniforme) en nats, sommée sur les codes de l'image : un scalaire.

        q (N, K) : pour chacun des N codes, les probabilités des K atomes. Certaines sont nulles.
        """
        return ...

    def revive(codebook, uses, z):
        """Remplace chaque atome qui n'a servi à personne par un vecteur de z : (K, D).

        codebook (K, D) ; uses (K,) : combien de vecteurs chaque atome a servis ; z (N, D), N ≥ K.
        """
        return ...

    def left_table(codes, K):
        """P[a, b] = p(code = b | son voisin de gauche = a) : (K, K), chaque ligne de somme 1.

        codes (N, h, w) : les cartes de codes d'apprentissage, des entiers de 0 à K − 1.
        """
        return ...


class References:
    """One right answer to each; `solution` shows its source."""

    def nearest_atom(z, codebook):
        """Numéro de l'atome le plus proche de chaque vecteur : (N,) ; le plus petit, à égalité.

        z (N, D) : des vecteurs ; codebook (K, D) : les atomes.
        """
        distances = (z[:, None] - codebook[None]).square().sum(2)  # (N, K)
        return distances.argmin(1)

    def copy_gradient(z_e, e):
        """Vaut e, et copie à z_e le gradient reçu ; e n'en reçoit aucun. Même forme qu'eux."""
        return z_e + (e - z_e).detach()

    def vq_loss(log_px, z_e, e, beta):
        """Coût à minimiser, moyenne du lot : un scalaire.

        log_px (B,) : log p(x | z_q), en nats ; z_e, e (B, D) : sorties de l'encodeur, et atomes.
        """
        codebook = (z_e.detach() - e).square().sum(1)  # apprentissage des atomes
        commitment = (z_e - e.detach()).square().sum(1)
        return (-log_px + codebook + beta * commitment).mean()

    def kl_to_uniform(q):
        """KL(q ‖ uniforme) en nats, sommée sur les codes de l'image : un scalaire.

        q (N, K) : pour chacun des N codes, les probabilités des K atomes. Certaines sont nulles.
        """
        N, K = q.shape
        # Σ q log(q K) = log K + Σ q log q ; xlogy(0, 0) = 0
        return N * math.log(K) + torch.special.xlogy(q, q).sum()

    def revive(codebook, uses, z):
        """Remplace chaque atome qui n'a servi à personne par un vecteur de z : (K, D).

        codebook (K, D) ; uses (K,) : combien de vecteurs chaque atome a servis ; z (N, D), N ≥ K.
        """
        dead = uses == 0
        drawn = torch.randperm(len(z))[: int(dead.sum())]  # des vecteurs différents
        codebook = codebook.clone()
        codebook[dead] = z[drawn]
        return codebook

    def left_table(codes, K):
        """P[a, b] = p(code = b | son voisin de gauche = a) : (K, K), chaque ligne de somme 1.

        codes (N, h, w) : les cartes de codes d'apprentissage, des entiers de 0 à K − 1.
        """
        left, code = codes[:, :, :-1].flatten(), codes[:, :, 1:].flatten()
        pairs = torch.bincount(left * K + code, minlength=K * K).view(K, K)
        counts = pairs + 0.5  # aucune paire n'est impossible, même jamais vue
        return counts / counts.sum(1, keepdim=True)


# ---------------------------------------------------------------------------------------------
# The checks: each raises `Wrong`, or returns the sentence of the ✔ line
# ---------------------------------------------------------------------------------------------


def check_nearest_atom(nearest_atom):
    draws = torch.Generator().manual_seed(0)
    cases = [("trois atomes d'une seule dimension", torch.tensor([[0.2], [0.9], [2.6], [-4.0]]),
              torch.tensor([[0.0], [1.0], [3.0]]))]  # fmt: skip
    for N, K, D in ((5, 4, 2), (1, 7, 3), (30, 12, 6)):
        z, codebook = (torch.randn(size, D, generator=draws) for size in (N, K))
        codebook *= torch.linspace(0.2, 3, K)[:, None]  # of various norms: a dot product is not it
        cases.append((f"{counted(N, 'vecteur')}, {K} atomes, {D} dimensions", z, codebook))
    far = torch.tensor([[100.0, 100.0], [101.0, 100.0]])
    cases.append(("deux atomes loin de l'origine", far + 0.2, far))
    twins = torch.tensor([[5.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    cases.append(("deux atomes à égalité", torch.tensor([[0.0, 1.0], [1.1, 1.0]]), twins))
    for name, z, codebook in cases:
        z, codebook = z.double(), codebook.double()
        answer = call(nearest_atom, z, codebook)
        got = as_tensor(answer, (len(z),), "un numéro par vecteur")
        expected = torch.cdist(z, codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        slips = (
            (
                torch.cdist(z, codebook, p=1).argmin(1),
                "C'est le plus proche en distance L1, la somme des écarts absolus : sommez leurs "
                "carrés.",
                2,
            ),
            (
                (z @ codebook.T).argmax(1),
                "C'est celui du plus grand produit scalaire : un atome long y gagne, même loin.",
                2,
            ),
        )
        reason, helpful = recognise(got, slips)
        for i in (got != expected).nonzero().flatten().tolist():
            raise Wrong(
                f"{name} : pour le vecteur {numbers(z[i])}, l'atome le plus proche est le numéro "
                f"{expected[i]}, {numbers(codebook[expected[i]])} ; vous répondez {got[i]:g}."
                f"{reason}",
                hint=helpful or (3 if "égalité" in name else 2),
            )
        must_be_a_tensor(answer, of_integers=True)
    return f"{len(cases)} dictionnaires, tous les vecteurs à leur place."


def check_copy_gradient(copy_gradient):
    draws = torch.Generator().manual_seed(0)
    for shape in ((4, 3), (2, 5, 3, 3)):
        z_e, e, upstream = (
            torch.randn(shape, generator=draws, dtype=torch.float64) for _ in range(3)
        )
        z_e, e = z_e.requires_grad_(), e.requires_grad_()
        before = z_e.detach().clone()
        z_q = copy_gradient(z_e, e)
        value = as_tensor(z_q, shape, "un tenseur comme z_e")
        if not torch.equal(z_e, before):
            raise Wrong("votre fonction change le z_e reçu : le coût en aura besoin.", hint=1)
        if not torch.allclose(value, e.detach(), atol=1e-6):
            raise Wrong(
                "la valeur doit être celle de e, l'atome. Le décodeur ne lit que lui.", hint=1
            )
        if not getattr(z_q, "requires_grad", False):
            raise Wrong(
                "votre résultat n'a plus de gradient du tout : l'encodeur n'apprend rien.", hint=1
            )
        grad_z, grad_e = torch.autograd.grad(
            (z_q * upstream).sum(), (z_e, e), allow_unused=True, materialize_grads=True
        )
        if not torch.allclose(grad_z, upstream, atol=1e-9):
            nothing = not grad_z.any()
            raise Wrong(
                "z_e reçoit un gradient nul, ou aucun." if nothing else
                f"z_e reçoit {numbers(grad_z.flatten()[:3])}… ; le décodeur envoyait "
                f"{numbers(upstream.flatten()[:3])}…",
                hint=2,
            )  # fmt: skip
        if grad_e.any():
            raise Wrong("l'atome e reçoit aussi un gradient ; il ne doit en recevoir aucun ici.",
                        hint=3)  # fmt: skip
    return "la valeur est celle de l'atome, le gradient est celui du décodeur."


def check_vq_loss(vq_loss):
    draws = torch.Generator().manual_seed(0)
    cases = ((1, 2, 0.25, -50), (6, 3, 0.25, -50), (4, 2, 2.0, -50), (5, 4, 0.0, -50))
    for B, D, beta, level in (*cases, (3, 2, 0.5, 9)):  # a density may be more than 1
        log_px = level + torch.randn(B, generator=draws, dtype=torch.float64)
        z_e, e = (torch.randn(B, D, generator=draws, dtype=torch.float64) for _ in range(2))
        inputs = [tensor.requires_grad_() for tensor in (log_px, z_e, e)]
        results = []
        for function in (vq_loss, References.vq_loss):
            loss = function(*inputs, beta)
            value = as_tensor(loss, (), "un scalaire, la moyenne du lot")
            if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
                raise Wrong("votre coût n'a plus de gradient : rien ne pourra apprendre.", hint=3)
            grads = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
            results.append((value, *grads))
        case = f"B = {B}, β = {beta:g} et log_px autour de {level}"
        (got, *grads), (expected, *right_grads) = results
        if not torch.allclose(got, expected, rtol=1e-5):
            mean, gap = log_px.detach().mean(), (z_e - e).detach().square().sum(1).mean()
            slips = (
                (expected + 2 * mean, "Votre coût baisse quand la vraisemblance baisse.", 1),
                (B * expected, "Vous sommez sur le lot : prenez-en la moyenne.", 2),
                (expected + (beta - 1) * gap, "β ne pèse que sur l'engagement.", 2),
                (2 * gap - beta * mean, "β pèse sur log_px : sa place est sur l'engagement.", 2),
            )
            reason, helpful = recognise(got, slips)
            raise Wrong(
                f"{case} : on attend {expected:.4f} ; vous obtenez {got:.4f}.{reason}",
                hint=helpful or (1 if got < 0 else 2),
            )
        of_z, of_e = right_grads[1:]
        misplaced = "β pèse sur le terme des atomes : sa place est sur l'engagement, celui de z_e."
        reason, _ = recognise(torch.stack(grads[1:]), [(-torch.stack([of_e, of_z]), misplaced, 3)])
        for name, grad, right in zip(("log_px", "z_e", "e"), grads, right_grads):
            if not torch.allclose(grad, right, atol=1e-6):
                raise Wrong(
                    f"{case} : valeur juste, mais pas le gradient que reçoit {name}. Attendu : "
                    f"{numbers(right.flatten()[:3])} ; obtenu : {numbers(grad.flatten()[:3])}."
                    f"{reason}",
                    hint=3,
                )
    return "le coût monte quand la vraisemblance baisse : on peut le descendre."


def check_kl_to_uniform(kl_to_uniform):
    draws = torch.Generator().manual_seed(0)
    one_hot = F.one_hot(torch.randint(8, (49,), generator=draws), 8).double()
    mixed = torch.softmax(torch.randn(5, 6, generator=draws, dtype=torch.float64), 1)
    half = torch.tensor([[0.5, 0.5, 0, 0]], dtype=torch.float64)
    cases = (
        ("un code sûr, K = 4", half.new_tensor([[0, 1, 0, 0]]), 1),
        ("49 codes sûrs, K = 8", one_hot, 3),
        ("une loi uniforme, K = 5", torch.full((2, 5), 0.2, dtype=torch.float64), 2),
        ("un code qui hésite entre deux atomes sur quatre", half, 2),
        ("cinq lois quelconques, K = 6", mixed, 2),
    )

    def value(q):
        return as_tensor(call(kl_to_uniform, q), (), "un scalaire, la somme sur les codes")

    for name, q, helpful in cases:
        got, expected = value(q), References.kl_to_uniform(q)
        if got.isnan():
            raise Wrong(f"{name} : vous obtenez NaN. Combien vaut 0 · log 0 ?", hint=2)
        if not (got - expected).abs() < 1e-4 * max(1.0, abs(expected.item())):
            # named where any two mistakes differ: one code, or sure ones, would hide some
            reason, known = recognise(value(mixed), _kl_slips(mixed))
            raise Wrong(
                f"{name} : en nats, on attend {expected:.4f} ; vous obtenez {got:.4f}.{reason}",
                hint=known or helpful,
            )
    return f"un code sûr coûte log K ; 49 codes sûrs parmi 8, {49 * math.log(8):.1f} nats."


def _kl_slips(q):
    (N, K), right = q.shape, References.kl_to_uniform(q)
    return (
        (right / math.log(2), "Ce sont des bits : en nats, le logarithme est népérien.", 1),
        (right / N, "C'est la moyenne sur les codes : prenez-en la somme.", 3),
        (right + N * math.log(N / K), "Vous comptez log N, N codes, au lieu de log K.", 2),
        (-right, "Le signe est à changer : une KL n'est jamais négative.", 1),
        (2 * N * math.log(K) - right, "Σ q log q s'ajoute à log K : vous l'en retirez.", 2),
    )


def check_revive(revive):
    draws = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(16, 2, generator=draws)
    z = centres.repeat_interleave(25, 0)  # as in a batch, the first vectors are alike
    z = z + 0.2 * torch.randn(400, 2, generator=draws)
    codebook = torch.randn(16, 2, generator=draws) * 0.01 + torch.tensor([20.0, 20.0])
    codebook[3] = z.mean(0)  # the only one that serves
    nearest = torch.cdist(z, codebook).argmin(1)
    uses = nearest.bincount(minlength=16)
    given, before = codebook.clone(), z.clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        answer = revive(given, uses.clone(), z)
        new = as_tensor(answer, (16, 2), "un dictionnaire").float()
        must_be_a_tensor(answer)
        if not torch.equal(z, before):
            raise Wrong("votre fonction change les vecteurs z reçus.")
        if not torch.equal(given, codebook):
            raise Wrong("votre fonction change le dictionnaire reçu : remplissez-en une copie.",
                        hint=1)  # fmt: skip
        if not torch.equal(new[uses > 0], codebook[uses > 0]):
            raise Wrong("un atome qui servait a été déplacé.", hint=1)
        moved = new[uses == 0]
        if not (torch.cdist(moved, z).amin(1) < 0.5).all():
            raise Wrong("un atome mort n'a pas été posé sur un vecteur de z.", hint=2)
        places = len(moved.unique(dim=0))
        if places < 10:
            where = f"en {places} endroits seulement" if places > 1 else "tous au même endroit"
            raise Wrong(f"les {len(moved)} atomes morts sont posés {where}.", hint=3)
        if torch.cdist(moved, z[:16]).amin(1).max() == 0:
            raise Wrong("les atomes morts sont posés sur les premiers vecteurs de z, qui se "
                        "ressemblent : tirez-les au hasard.", hint=3)  # fmt: skip
        alone = revive(codebook.clone(), torch.arange(1, 17), z)
        if not torch.equal(as_tensor(alone, (16, 2), "un dictionnaire").float(), codebook):
            raise Wrong("quand tous les atomes servent, aucun ne doit bouger.", hint=1)
    share = torch.cdist(z, new).argmin(1).bincount(minlength=16) / len(z)
    perplexity = torch.exp(torch.special.entr(share).sum()).item()
    if perplexity <= 16 / 4:
        raise Wrong(f"après votre passage, la perplexité n'est que de {perplexity:.1f} sur 16.",
                    hint=3)  # fmt: skip
    return f"la perplexité passe de 1 à {perplexity:.1f} sur 16."


def _chains(n, K, draws):
    """Maps of codes whose rows are Markov chains: a code is often that on its left, plus one."""
    codes = torch.randint(K, (n, 6, 3), generator=draws)
    follow = torch.rand(n, 6, 3, generator=draws) < 0.7
    for column in range(1, 3):
        following = (codes[:, :, column - 1] + 1) % K
        codes[:, :, column] = torch.where(follow[:, :, column], following, codes[:, :, column])
    return codes.clamp(max=K - 2)  # the last atom is never seen


def check_left_table(left_table):
    K, draws = 8, torch.Generator().manual_seed(0)
    train, test = _chains(300, K, draws), _chains(200, K, draws)
    answer = left_table(train.clone(), K)
    P = as_tensor(answer, (K, K), "une table (K, K)")
    must_be_a_tensor(answer)
    smoothing = "Ajoutez 0,5 à tous les comptes, avant de diviser."
    if P.isnan().any() or (P < 0).any():
        raise Wrong("votre table a des valeurs NaN ou négatives : une ligne jamais vue ? "
                    f"{smoothing}", hint=3)  # fmt: skip
    sums = P.sum(1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-5):
        worst = (sums - 1).abs().argmax().item()
        columns = "Vos colonnes, oui : ce sont les lignes, une par voisin de gauche, qu'il faut."
        reason, helpful = recognise(P.sum(0), [(torch.ones_like(sums), columns, 2)], atol=1e-5)
        if sums[worst] == 0 and not reason:
            reason, helpful = f" {smoothing}", 3
        text = f"la ligne {worst} a pour somme {sums[worst]:.4f}, pas 1.{reason}"
        raise Wrong(text, hint=helpful or 1)
    if (P == 0).any():
        a, b = (P == 0).nonzero()[0].tolist()
        raise Wrong(f"P[{a}, {b}] = 0 : le jour où {b} suit {a}, le coût est infini. {smoothing}",
                    hint=3)  # fmt: skip

    def bits(table):
        return -table[test[:, :, :-1], test[:, :, 1:]].log2().mean().item()

    counts = train.flatten().bincount(minlength=K) + 0.5
    unigram = bits((counts / counts.sum()).double().expand(K, K))
    got, right = bits(P), bits(References.left_table(train, K).double())
    cost = counted(got, "bit", ".2f")
    once = torch.full((K, K), 0.5)
    once[train[:, :, :-1], train[:, :, 1:]] += 1  # what many write: a pair counts only once
    slips = (
        (
            once / once.sum(1, keepdim=True),
            "Chaque paire n'est comptée qu'une fois : avec des "
            "indices répétés, `t[a, b] += 1` n'ajoute que 1.",
            2,
        ),
        (References.left_table(train.flip(2), K), "La gauche et la droite sont échangées.", 2),
        (
            References.left_table(train.flatten(1)[:, None], K),
            "Vos paires vont d'une ligne à la suivante : le premier code d'une ligne n'a pas de "
            "voisin de gauche.",
            1,
        ),
    )
    reason, helpful = recognise(P, slips, atol=0.05)  # however smoothed
    if got >= unigram:
        raise Wrong(f"sur d'autres cartes, votre table coûte {cost} par code ; les simples "
                    f"fréquences, {unigram:.2f}.{reason}", hint=helpful or 2)  # fmt: skip
    if got > right + 0.05:  # smoothed otherwise: 0.01 more; pairs across rows: 0.1
        raise Wrong(f"sur d'autres cartes, votre table coûte {cost} par code ; on peut descendre "
                    f"à {right:.2f}.{reason}", hint=helpful or 1)  # fmt: skip
    return f"{cost} par code au lieu de {unigram:.2f}."


Exercise(
    key="04.nearest",
    stub=Stubs.nearest_atom,
    reference=References.nearest_atom,
    check=check_nearest_atom,
    hints=(
        "z[:, None] - codebook[None] est de forme (N, K, D) : toutes les différences.",
        "Une distance, pas un produit scalaire : élevez au carré, sommez sur D. La racine est "
        "inutile : elle ne change pas l'ordre.",
        "argmin(1) donne le numéro, et le plus petit en cas d'égalité.",
    ),
)
Exercise(
    key="04.straight_through",
    stub=Stubs.copy_gradient,
    reference=References.copy_gradient,
    check=check_copy_gradient,
    hints=(
        "t.detach() a la valeur de t, et aucun gradient. Écrivez e comme z_e + (e - z_e).",
        "Le gradient doit traverser z_e, et lui seul : que faut-il détacher dans z_e + (e - z_e) ?",
        "Détachez toute la parenthèse (e - z_e) : l'atome n'y reçoit plus rien.",
    ),
)
Exercise(
    key="04.loss",
    stub=Stubs.vq_loss,
    reference=References.vq_loss,
    check=check_vq_loss,
    hints=(
        "On descend un coût. Veut-on descendre la vraisemblance, ou la monter ?",
        "Un seul signe est à changer. Les deux distances sont à minimiser : elles sont justes.",
        "Ne touchez pas aux detach() : chaque distance ne déplace qu'un des deux vecteurs.",
    ),
)
Exercise(
    key="04.kl",
    stub=Stubs.kl_to_uniform,
    reference=References.kl_to_uniform,
    check=check_kl_to_uniform,
    hints=(
        "Pour un code : la somme sur k de q_k log(q_k / (1/K)).",
        "0 log 0 vaut 0 : torch.special.xlogy(q, q) le sait. Le reste est log K fois la somme des "
        "q_k, qui vaut 1.",
        "Sommez sur les N codes : N codes sûrs coûtent N log K.",
    ),
)
Exercise(
    key="04.revive",
    stub=Stubs.revive,
    reference=References.revive,
    check=check_revive,
    hints=(
        "dead = uses == 0 dit quels atomes sont morts ; travaillez sur codebook.clone().",
        "codebook[dead] = …, autant de vecteurs de z qu'il y a de morts.",
        "torch.randperm(len(z)) mélange les numéros : prenez les premiers, tous différents.",
    ),
)
Exercise(
    key="04.prior",
    stub=Stubs.left_table,
    reference=References.left_table,
    check=check_left_table,
    hints=(
        "Comptez les paires (gauche, code) : codes[:, :, :-1] et codes[:, :, 1:]. Puis divisez "
        "chaque ligne par sa somme.",
        "La ligne est le voisin de gauche, la colonne est le code : left * K + code numérote les "
        "paires, torch.bincount(…, minlength=K * K) les compte.",
        "Ajoutez une petite quantité, 0,5 par exemple, à tous les comptes avant de diviser.",
    ),
)
