"""Exercises of notebook 03b: masks, causality, receptive field, colours, logistic laws, stacks."""

import math

import torch
import torch.nn.functional as F

from ..autoregressive.masked import MaskedConv2d, channel_mask
from ..autoregressive.pixelcnn import gate
from . import Exercise, Wrong
from .helpers import as_tensor, call, counted, numbers, time_limit


class Stubs:
    """What the notebook shows: to complete, or to repair."""

    def causal_mask(kind, k):
        """Masque (k, k) d'un noyau de taille impaire k : 1 où un poids est gardé, 0 ailleurs.

        kind : "A" (la première couche) ou "B" (les suivantes).
        """
        return ...

    def is_causal(network, x):
        """Vrai si aucune sortie ne change quand on change son pixel, ou un pixel d'après.

        network : images (B, 1, H, W), des 0. et des 1. → log-cotes (B, 1, H, W). x : des images.
        """
        return ...

    def pixels_read(layers, size, row, column):
        """Pixels lus par la sortie (row, column) : (size, size) booléens.

        layers couches 3×3 : la première de masque A, les autres de masque B.
        """
        return ...

    def group_mask(kind, out_features, in_features):
        """Ce qu'un pixel lit de lui-même : (out_features, in_features), 1 où un poids est gardé.

        Chaque tiers des canaux appartient à une couleur : R, puis V, puis B. kind : "A" ou "B".
        """
        return ...

    def mixture_probabilities(weights, mu, s, levels):
        """Probabilités des niveaux 0, …, levels − 1 : (levels,).

        weights, mu, s (M,) : poids (de somme 1), centres et échelles de M lois logistiques.
        Le niveau k est au milieu de la case [k − 0,5 ; k + 0,5].
        """
        k = torch.arange(levels)[:, None]  # (levels, 1)
        upper = torch.sigmoid((k + 0.5 - mu) / s)  # (levels, M) : sous le haut de la case
        lower = torch.sigmoid((k - 0.5 - mu) / s)
        return ((upper - lower) * weights).sum(dim=1)

    def two_stacks(x, kernels):
        """Les deux piles : images (B, 1, H, W) → pile horizontale (B, F, H, W).

        kernels : une liste de couches (W_v, W_h, W_link) :
        W_v (2F, entrées, 2, 3) : lignes r − 1 et r, colonnes c − 1 à c + 1 ;
        W_h (2F, entrées, 1, 2) : ligne r, colonnes c − 1 et c ; W_link (2F, 2F, 1, 1).
        """
        v = h = x
        for layer, (W_v, W_h, W_link) in enumerate(kernels):
            above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)  # gauche, droite, haut, bas
            gates = F.conv2d(F.pad(h, (1, 0, 0, 0)), W_h) + F.conv2d(above, W_link)
            v = gate(above)
            h = gate(gates) if layer == 0 else h + gate(gates)
        return h


class References:
    """One right answer to each; `solution` shows its source."""

    def causal_mask(kind, k):
        """Masque (k, k) d'un noyau de taille impaire k : 1 où un poids est gardé, 0 ailleurs.

        kind : "A" (la première couche) ou "B" (les suivantes).
        """
        mask = torch.zeros(k, k)
        mask[: k // 2] = 1  # les lignes du dessus
        mask[k // 2, : k // 2] = 1  # la gauche de la ligne du milieu
        if kind == "B":
            mask[k // 2, k // 2] = 1  # le pixel lui-même
        return mask

    def is_causal(network, x):
        """Vrai si aucune sortie ne change quand on change son pixel, ou un pixel d'après.

        network : images (B, 1, H, W), des 0. et des 1. → log-cotes (B, 1, H, W). x : des images.
        """
        before = network(x).flatten(1)  # (B, D)
        for j in range(before.shape[1]):
            changed = x.clone()
            changed.flatten(1)[:, j] = 1 - changed.flatten(1)[:, j]  # flatten(1) : une vue
            after = network(changed).flatten(1)
            if (after[:, : j + 1] != before[:, : j + 1]).any():  # les sorties 0, …, j
                return False
        return True

    def pixels_read(layers, size, row, column):
        """Pixels lus par la sortie (row, column) : (size, size) booléens.

        layers couches 3×3 : la première de masque A, les autres de masque B.
        """
        read = torch.zeros(1, 1, size, size)
        read[0, 0, row, column] = 1
        for layer in range(layers):  # de la sortie vers l'image : le masque A vient en dernier
            mask = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 0, 0]])
            if layer == layers - 1:
                mask[1, 1] = 0
            # une convolution transposée : chaque pixel allume ceux que son noyau lit
            read = F.conv_transpose2d(read, mask[None, None], padding=1).clamp(max=1)
        return read[0, 0] > 0

    def group_mask(kind, out_features, in_features):
        """Ce qu'un pixel lit de lui-même : (out_features, in_features), 1 où un poids est gardé.

        Chaque tiers des canaux appartient à une couleur : R, puis V, puis B. kind : "A" ou "B".
        """
        out_color = torch.arange(out_features) // (out_features // 3)  # 0, 1 ou 2
        in_color = torch.arange(in_features) // (in_features // 3)
        if kind == "A":
            return (out_color[:, None] > in_color[None, :]).float()
        return (out_color[:, None] >= in_color[None, :]).float()

    def mixture_probabilities(weights, mu, s, levels):
        """Probabilités des niveaux 0, …, levels − 1 : (levels,).

        weights, mu, s (M,) : poids (de somme 1), centres et échelles de M lois logistiques.
        Le niveau k est au milieu de la case [k − 0,5 ; k + 0,5].
        """
        k = torch.arange(levels)[:, None]  # (levels, 1)
        upper = torch.sigmoid((k + 0.5 - mu) / s)  # (levels, M)
        lower = torch.sigmoid((k - 0.5 - mu) / s)
        upper[-1] = 1  # la dernière case va jusqu'à +∞
        lower[0] = 0  # la première part de −∞
        return ((upper - lower) * weights).sum(dim=1)

    def two_stacks(x, kernels):
        """Les deux piles : images (B, 1, H, W) → pile horizontale (B, F, H, W).

        kernels : une liste de couches (W_v, W_h, W_link) :
        W_v (2F, entrées, 2, 3) : lignes r − 1 et r, colonnes c − 1 à c + 1 ;
        W_h (2F, entrées, 1, 2) : ligne r, colonnes c − 1 et c ; W_link (2F, 2F, 1, 1).
        """
        v, h = F.pad(x, (0, 0, 1, 0))[:, :, :-1], x  # v : l'image descendue d'une ligne
        for layer, (W_v, W_h, W_link) in enumerate(kernels):
            if layer == 0:
                W_h = W_h * torch.tensor([1.0, 0.0])  # masque A : pas le pixel lui-même
            above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)  # gauche, droite, haut, bas
            gates = F.conv2d(F.pad(h, (1, 0, 0, 0)), W_h) + F.conv2d(above, W_link)
            v = gate(above)
            h = gate(gates) if layer == 0 else h + gate(gates)
        return h


# ---------------------------------------------------------------------------------------------
# The checks: each raises `Wrong`, or returns the sentence of the ✔ line
# ---------------------------------------------------------------------------------------------


def check_causal_mask(causal_mask):
    for k in (3, 5, 7, 1):
        for kind in ("A", "B"):
            answer = causal_mask(kind, k)
            if answer is not ... and not isinstance(answer, torch.Tensor):
                raise Wrong(
                    f"on attend un tenseur de torch, pas un {type(answer).__name__}.", hint=3
                )
            got = as_tensor(answer, (k, k), "un masque carré")
            expected = References.causal_mask(kind, k).double()
            for row, column in (got != expected).nonzero().tolist():
                where = f"masque {kind}, k = {k} : la case [{row}, {column}]"
                value = f"vaut {got[row, column]:g}, et devrait valoir {expected[row, column]:g}"
                centre = row == column == k // 2
                raise Wrong(f"{where} {value}.", hint=2 if centre else 1)
    counts = [int(References.causal_mask(kind, 3).sum()) for kind in "AB"]
    return f"sur les 9 poids d'un noyau 3×3, le masque A en garde {counts[0]}, le B {counts[1]}."


def _network(change=None, seed=0):
    """A small causal network, or one that `change(x, logits)` spoils."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second = MaskedConv2d("A", 1, 6, 3), MaskedConv2d("B", 6, 1, 3)
    first.requires_grad_(False)  # not no_grad: an answer may well use gradients
    second.requires_grad_(False)

    def network(x):
        if not isinstance(x, torch.Tensor) or x.dim() != 4 or x.shape[1] != 1:
            shape = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
            raise Wrong(f"network attend des images (B, 1, H, W) ; reçu : {shape}.")
        if not x.is_floating_point() or not ((x == 0) | (x == 1)).all():
            raise Wrong("network attend des pixels 0. ou 1. : ni NaN, ni autre valeur.", hint=2)
        # image by image: in batches of other sizes, a convolution rounds otherwise
        logits = torch.cat([second(torch.tanh(first(image))) for image in x.split(1)])
        return logits if change is None else change(x, logits)

    return network


def _moved(x, down, right):
    """The image moved: each pixel receives the one `down` rows and `right` columns before it."""
    return torch.roll(x, (down, right), (2, 3))


def _leak_at(row, column, source_row, source_column):
    def change(x, logits):
        logits = logits.clone()
        logits[:, :, row, column] += x[:, :, source_row, source_column]
        return logits

    return change


def _only_on(image):
    """Every output reads its own pixel, on the images whose first row is that of `image`."""

    def change(x, logits):
        return logits + x * (x[:, :, :1] == image[:, :1]).all(3, keepdim=True)

    return change


def check_is_causal(is_causal):
    x = torch.randint(2, (4, 1, 5, 6), generator=torch.Generator().manual_seed(0)).float()
    x[:, :, 1, 2], x[:, :, 3, 1] = 0, 1  # an answer that only writes zeros, or ones, misses one
    wrong = {
        "un réseau dont chaque sortie lit son propre pixel": lambda x, logits: logits + x,
        "un réseau qui lit un peu (à 1e-4) le pixel de droite": lambda x, logits: (
            logits + 1e-4 * _moved(x, 0, -1)
        ),
        "un réseau qui lit le pixel du dessous": lambda x, logits: logits + _moved(x, -1, 0),
        "un réseau dont la première sortie lit le dernier pixel": _leak_at(0, 0, -1, -1),
        "un réseau qui ne lit son propre pixel que sur la dernière image": _only_on(x[-1]),
    }
    for row, column in ((0, 0), (1, 2), (3, 1), (4, 5)):
        name = f"un réseau où seule la sortie ({row}, {column}) lit son propre pixel"
        wrong[name] = _leak_at(row, column, row, column)
    right = {
        "un réseau causal": None,
        "un réseau qui ne lit que le tout premier pixel": lambda x, logits: (
            x[:, :, :1, :1] * (torch.arange(30).view(5, 6) > 0)
        ),
    }
    for cases, expected in ((right, True), (wrong, False)):
        for name, change in cases.items():
            images = x.clone()
            with time_limit(20):
                answer = is_causal(_network(change), images)
            answer = as_tensor(answer, getattr(answer, "shape", ()), "True ou False")
            if answer.numel() != 1:
                raise Wrong(
                    f"on attend True ou False ; reçu : {counted(answer.numel(), 'valeur')}."
                )
            if not torch.equal(images, x):
                raise Wrong("votre fonction change les images reçues : travaillez sur x.clone().")
            if bool(answer) != expected:
                verdict = "causal" if expected else "non causal"
                helpful = 3 if expected or "1e-4" in name else 1
                raise Wrong(f"{name} est {verdict} ; vous répondez {bool(answer)}.", hint=helpful)
    return f"{len(right)} réseaux causaux acceptés, {len(wrong)} autres démasqués."


def check_pixels_read(pixels_read):
    cases = ((1, 5, 2, 2), (2, 7, 4, 3), (6, 13, 6, 6), (3, 9, 1, 7), (4, 5, 3, 2))
    for layers, size, row, column in cases:
        depth = counted(layers, "couche")
        case = f"{depth}, sortie ({row}, {column}) d'une image {size}×{size}"
        got = as_tensor(pixels_read(layers, size, row, column), (size, size), "une carte") != 0
        expected = References.pixels_read(layers, size, row, column)
        for r, c in (got != expected).nonzero().tolist():
            if got[r, c] and (r, c) >= (row, column):
                raise Wrong(f"{case} : le pixel ({r}, {c}) ne vient pas avant la sortie.",
                            hint=3 if (r, c) == (row, column) else 2)  # fmt: skip
            verb = "n'est pas lu, vous le comptez" if got[r, c] else "est lu, vous l'oubliez"
            raise Wrong(f"{case} : le pixel ({r}, {c}) {verb}.", hint=2 if layers > 1 else 1)
    return "6 couches : 69 pixels lus sur les 84 d'avant."


def check_group_mask(group_mask):
    for kind in ("A", "B"):
        for out_features, in_features in ((3, 3), (6, 3), (6, 6), (3, 9)):
            got = as_tensor(
                group_mask(kind, out_features, in_features),
                (out_features, in_features),
                "un masque (sorties, entrées)",
            )
            expected = channel_mask(kind, out_features, in_features, 3).double()
            for i, j in (got != expected).nonzero().tolist():
                out_color, in_color = ("RVB"[3 * i // out_features], "RVB"[3 * j // in_features])
                verb = "doit lire" if expected[i, j] else "ne doit pas lire"
                raise Wrong(
                    f"masque {kind}, {out_features} sorties, {in_features} entrées : la sortie {i} "
                    f"({out_color}) {verb} l'entrée {j} ({in_color}).",
                    # right on three channels, wrong on more: the numbers of the channels
                    hint=3 if out_features + in_features > 6 else 1 + (out_color == in_color),
                )
    return "R ne lit que le passé, V lit aussi R, B lit aussi R et V."


def check_mixture_probabilities(mixture_probabilities):
    cases = (
        ([1.0], [8.0], [1.5], 17),
        ([0.6, 0.4], [-3.0, 18.0], [2.0, 1.0], 17),  # half of the mass is outside of the levels
        ([0.2, 0.5, 0.3], [0.0, 3.0, 1.2], [0.3, 0.8, 5.0], 4),
        ([0.5, 0.5], [100.0, -100.0], [1.0, 1.0], 5),
    )
    for weights, mu, s, levels in cases:
        inputs = [torch.tensor(values, dtype=torch.float64) for values in (weights, mu, s)]
        got = as_tensor(
            call(mixture_probabilities, *inputs, levels), (levels,), "une probabilité par niveau"
        )
        case = f"mu = {numbers(inputs[1])}, s = {numbers(inputs[2])}, {levels} niveaux"
        total = got.sum().item()
        if not abs(total - 1) < 1e-5:
            raise Wrong(f"{case} : vos probabilités ont pour somme {total:.4f}.",
                        hint=2 if total > 1 else 1)  # fmt: skip
        expected = References.mixture_probabilities(*inputs, levels)
        worst = (got - expected).abs().argmax().item()
        if not abs(got[worst] - expected[worst]) < 1e-5:
            raise Wrong(
                f"{case} : le niveau {worst} a la probabilité {expected[worst]:.5f} ; vous obtenez "
                f"{got[worst]:.5f}.",
                hint=2,
            )
    return "la somme vaut 1, même quand la loi continue déborde des niveaux."


def _random_kernels(layers, features=4):
    generator = torch.Generator().manual_seed(0)

    def kernel(*shape):
        fan_in = math.prod(shape[1:])
        return torch.randn(shape, generator=generator, dtype=torch.float64) / fan_in**0.5

    return [
        (
            kernel(2 * features, inputs, 2, 3),
            kernel(2 * features, inputs, 1, 2),
            kernel(2 * features, 2 * features, 1, 1),
        )
        for inputs in [1] + [features] * (layers - 1)
    ]


def _as_float(kernels):
    return [tuple(kernel.float() for kernel in layer) for layer in kernels]


def check_two_stacks(two_stacks):
    size, middle = 13, 6
    kernels = _as_float(_random_kernels(6))
    x = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    answer = two_stacks(x, [tuple(k.clone() for k in layer) for layer in kernels])
    as_tensor(answer, (2, 4, size, size), "la pile horizontale")
    if not getattr(answer, "requires_grad", False):
        raise Wrong("le gradient n'atteint plus l'image : ni .detach(), ni numpy, ni no_grad.")
    (gradient,) = torch.autograd.grad(answer[:, :, middle, middle].pow(2).sum(), x)
    read = (gradient != 0).any(0)[0]
    before = torch.arange(size * size).view(size, size) < middle * size + middle
    forbidden = (read & ~before).nonzero().tolist()
    for row, column in forbidden:
        if (row, column) != (middle, middle):
            text = f"la sortie ({middle}, {middle}) lit le pixel ({row}, {column}), d'après."
            raise Wrong(text, hint=1)
    if forbidden:
        raise Wrong(f"la sortie ({middle}, {middle}) lit sa propre valeur.", hint=2)
    missing = (before & ~read).nonzero().tolist()
    if missing:
        raise Wrong(
            f"la sortie ({middle}, {middle}) lit {int(read.sum())} des 84 pixels d'avant ; il "
            f"manque ({missing[0][0]}, {missing[0][1]}).",
            hint=3,
        )
    expected = References.two_stacks(x, kernels)
    error = (answer - expected).abs()
    if not error.max() < 1e-4:
        b, f, row, column = (error == error.max()).nonzero()[0].tolist()
        raise Wrong(
            f"les bons pixels sont lus, mais h[{b}, {f}, {row}, {column}] vaut "
            f"{answer[b, f, row, column]:.4f} au lieu de {expected[b, f, row, column]:.4f}.",
            hint=3,
        )
    return "84 pixels lus sur 84 : plus d'angle mort, et rien d'interdit."


Exercise(
    "03b.mask",
    Stubs.causal_mask,
    References.causal_mask,
    check_causal_mask,
    (
        "Le centre est en [k // 2, k // 2]. Avant lui : les lignes du dessus, entières, puis la "
        "gauche de sa ligne.",
        "Le masque A cache le centre ; le masque B le garde. C'est leur seule différence.",
        "Partez de torch.zeros(k, k) ; mask[: k // 2] désigne les lignes du dessus.",
    ),
)
Exercise(
    "03b.causal",
    Stubs.is_causal,
    References.is_causal,
    check_is_causal,
    (
        "Pour chaque pixel j : changez-le (0 ↔ 1) dans toutes les images, et comparez les sorties "
        "0, …, j à celles d'avant le changement.",
        "Un NaN accuserait des innocents : 0 × NaN = NaN, même sous un masque. Changez 0 en 1 et "
        "1 en 0.",
        "La sortie j doit rester la même quand le pixel j change ; les sorties d'après ont le "
        "droit de bouger. Comparez avec !=, au bit près.",
    ),
)
Exercise(
    "03b.field",
    Stubs.pixels_read,
    References.pixels_read,
    check_pixels_read,
    (
        "Remontez de la sortie vers l'image. Au départ, une seule case est allumée : la sortie.",
        "À chaque couche, chaque case allumée (r, c) allume celles que son noyau lit : (r − 1, "
        "c − 1), (r − 1, c), (r − 1, c + 1), (r, c − 1), et (r, c) elle-même si le masque est B. "
        "Restez dans l'image.",
        "En remontant, la couche de masque A est la dernière : la sortie ne se lit pas elle-même.",
    ),
)
Exercise(
    "03b.channels",
    Stubs.group_mask,
    References.group_mask,
    check_group_mask,
    (
        "Donnez un numéro à chaque canal : 0 pour R, 1 pour V, 2 pour B. Une sortie lit les "
        "couleurs d'avant la sienne.",
        "La couleur elle-même : le masque A la cache (c'est la valeur à deviner), le masque B la "
        "garde.",
        "torch.arange(n) // (n // 3) donne les numéros ; comparez out[:, None] à in[None, :].",
    ),
)
Exercise(
    "03b.mixture",
    Stubs.mixture_probabilities,
    References.mixture_probabilities,
    check_mixture_probabilities,
    (
        "Une loi logistique vit sur toute la droite : il reste de la masse sous 0 et au-dessus de "
        "levels − 1. À quels niveaux la donner ?",
        "Seules les deux cases extrêmes changent : la première part de −∞ (lower = 0), la dernière "
        "va jusqu'à +∞ (upper = 1).",
        "upper[-1] = 1 et lower[0] = 0, avant la différence.",
    ),
)
Exercise(
    "03b.stacks",
    Stubs.two_stacks,
    References.two_stacks,
    check_two_stacks,
    (
        "La pile v lit la ligne r entière, à droite aussi. Elle ne doit parler que des lignes du "
        "dessus : faites-la partir de l'image descendue d'une ligne.",
        "Dans la première couche, W_h lit le pixel lui-même : il faut le masque A, "
        "W_h * torch.tensor([1.0, 0.0]).",
        "Ne changez rien d'autre : F.pad(x, (0, 0, 1, 0))[:, :, :-1] descend x d'une ligne.",
    ),
)
