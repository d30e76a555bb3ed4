"""Exercises of notebook 03b: masks, causality, receptive field, colours, logistic laws, stacks."""

import math

import torch
import torch.nn.functional as F

from ..autoregressive.masked import MaskedConv2d
from ..autoregressive.pixelcnn import gate
from . import Exercise
from .harness import SameAs, Wrong, counted, lent, listed, tensor


# ---- 03b.mask -----------------------------------------------------------------------------------


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


Exercise(
    "03b.mask",
    causal_mask,
    SameAs(
        causal_mask,
        lambda: [(f"le masque {kind}, k = {k}", [kind, k]) for k in (3, 5, 7, 1) for kind in "AB"],
        what="un masque carré",
        dtype=torch.float32,
        where=lambda i, kind, k: f"la case [{i[0]}, {i[1]}]",
        slips=(
            (
                lambda kind, k: causal_mask("B" if kind == "A" else "A", k),
                "Vos masques A et B sont échangés.",
            ),
            (lambda kind, k: causal_mask("A", k), "Le masque B garde aussi le centre."),
            (lambda kind, k: causal_mask("B", k), "Le masque A cache le centre."),
            (
                lambda kind, k: causal_mask(kind, k).flip(0, 1),
                "Vous gardez ce qui vient après, au lieu de ce qui vient avant.",
            ),
            (lambda kind, k: causal_mask(kind, k).T, "Lignes et colonnes sont échangées."),
            (
                lambda kind, k: torch.ones(k, k).tril(-1 if kind == "A" else 0),
                "C'est un triangle : la ligne du dessus se garde entière, à droite aussi.",
            ),
        ),
        praise="sur les 9 poids d'un noyau 3×3, le masque A en garde 4, le B 5.",
    ),
    (
        "Le centre est en [k // 2, k // 2]. Avant lui : les lignes du dessus, entières, puis la "
        "gauche de sa ligne.",
        "Le masque A cache le centre ; le masque B le garde. C'est leur seule différence.",
        "Partez de torch.zeros(k, k) ; mask[: k // 2] désigne les lignes du dessus.",
    ),
)


# ---- 03b.causal ---------------------------------------------------------------------------------


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


def _network(change=None):
    """A small causal network, or one that `change(x, logits)` spoils."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = MaskedConv2d("A", 1, 6, 3), MaskedConv2d("B", 6, 1, 3)
    first.requires_grad_(False)  # not no_grad: an answer may well use gradients
    second.requires_grad_(False)

    def network(x):
        if not x.is_floating_point() or not ((x == 0) | (x == 1)).all():
            raise Wrong("network attend des pixels 0. ou 1. : ni NaN, ni autre valeur.")
        # image by image: in batches of other sizes, a convolution rounds otherwise
        logits = torch.cat([second(torch.tanh(first(image))) for image in x.split(1)])
        return logits if change is None else change(x, logits)

    return lent("network", [("x", (-1, 1, -1, -1))], network)


def _leak(output, source):
    """The output at one place reads the pixel at another."""

    def change(x, logits):
        logits = logits.clone()
        logits[(..., *output)] += x[(..., *source)]
        return logits

    return change


def _only_on(image):
    """Every output reads its own pixel, on the images whose first row is that of `image`."""

    def change(x, logits):
        return logits + x * (x[:, :, :1] == image[:, :1]).all(3, keepdim=True)

    return change


def check_is_causal(answer):
    x = torch.randint(2, (4, 1, 5, 6), generator=torch.Generator().manual_seed(0)).float()
    x[:, :, 1, 2], x[:, :, 3, 1] = 0, 1  # an answer that only writes zeros, or ones, misses one
    wrong = {
        "un réseau dont chaque sortie lit son propre pixel": lambda x, logits: logits + x,
        "un réseau qui lit le pixel de droite": lambda x, logits: logits + torch.roll(x, -1, 3),
        "un réseau qui lit le pixel du dessous": lambda x, logits: logits + torch.roll(x, -1, 2),
        "un réseau qui ne lit son propre pixel que sur la première image": _only_on(x[0]),
        "un réseau qui ne lit son propre pixel que sur la dernière image": _only_on(x[-1]),
        "un réseau dont chaque pixel change à peine sa propre log-cote": lambda x, logits: (
            logits + x * 2**-23 * logits.detach().abs()  # by one unit of its last place
        ),
    }
    places = [(0, 0), (1, 2), (3, 1), (4, 5)]
    leaks = [(place, place) for place in places]  # then: far, below and left, below and right, …
    leaks += [
        ((0, 0), (4, 5)),
        ((1, 4), (2, 0)),
        ((2, 1), (3, 5)),
        ((0, 5), (1, 0)),
        ((4, 1), (4, 4)),
    ]
    for output, source in leaks:
        name = f"un réseau où seule la sortie {output} lit le pixel {source}"
        wrong[name] = _leak(output, source)
    right = {
        "un réseau de deux convolutions masquées": None,
        "un réseau qui ne lit que le tout premier pixel": lambda x, logits: (
            x[:, :, :1, :1] * (torch.arange(30).view(5, 6) > 0)
        ),
    }
    for cases, expected in ((right, True), (wrong, False)):
        for name, change in cases.items():
            said = answer(_network(change), x)
            if getattr(said, "shape", None) == ():  # of numpy, or of torch
                said = said.item()
            if not isinstance(said, bool | int):
                raise Wrong("on attend True ou False, pour tout le réseau.")
            if bool(said) != expected:
                verdict = "est causal" if expected else "n'est pas causal"
                raise Wrong(f"{name} {verdict} ; vous répondez {bool(said)}.", puzzling=True)
    return f"{len(right)} réseaux causaux acceptés, {len(wrong)} autres démasqués."


Exercise(
    "03b.causal",
    is_causal,
    check_is_causal,
    (
        "Pour chaque pixel j : changez-le (0 ↔ 1) dans toutes les images, et comparez les sorties "
        "0, …, j à celles d'avant le changement, au bit près. Les suivantes ont le droit de "
        "bouger.",
        "Un NaN accuserait des innocents : 0 × NaN = NaN, même sous un masque. Changez 0 en 1 et "
        "1 en 0.",
        "Une copie, changed = x.clone(), dont on change changed.flatten(1)[:, j] ; puis "
        "network(changed) et network(x) se comparent avec !=.",
    ),
)


# ---- 03b.field ----------------------------------------------------------------------------------


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


def check_pixels_read(answer):
    cases = ((1, 5, 2, 2), (2, 7, 4, 3), (3, 9, 1, 7), (4, 5, 3, 2), (12, 13, 6, 6))
    for layers, size, row, column in cases:
        depth = counted(layers, "couche")
        case = f"{depth}, sortie ({row}, {column}) d'une image {size}×{size}"
        got = tensor(answer(layers, size, row, column), (size, size), "une carte") != 0
        expected = pixels_read(layers, size, row, column)
        for r, c in (got != expected).nonzero().tolist():
            if got[r, c] and (r, c) >= (row, column):
                raise Wrong(f"{case} : le pixel ({r}, {c}) ne vient pas avant la sortie.")
            verb = "n'est pas lu, vous le comptez" if got[r, c] else "est lu, vous l'oubliez"
            raise Wrong(f"{case} : le pixel ({r}, {c}) {verb}.", puzzling=True)
    return "6 couches : 69 pixels lus sur les 84 d'avant."


Exercise(
    "03b.field",
    pixels_read,
    check_pixels_read,
    (
        "Remontez de la sortie vers l'image, couche par couche. Au départ, une seule case est "
        "allumée : la sortie. Chaque case allumée allume celles que son noyau lit.",
        "La case (r, c) allume (r − 1, c − 1), (r − 1, c), (r − 1, c + 1), (r, c − 1), et (r, c) "
        "elle-même si le masque est B. Restez dans l'image.",
        "En remontant, la couche de masque A est la dernière : la sortie ne se lit pas elle-même.",
    ),
)


# ---- 03b.channels -------------------------------------------------------------------------------


def group_mask(kind, out_features, in_features):
    """Ce qu'un pixel lit de lui-même : (out_features, in_features), 1 où un poids est gardé.

    Chaque tiers des canaux appartient à une couleur : R, puis V, puis B. kind : "A" ou "B".
    """
    out_color = torch.arange(out_features) // (out_features // 3)  # 0, 1 ou 2
    in_color = torch.arange(in_features) // (in_features // 3)
    if kind == "A":
        return (out_color[:, None] > in_color[None, :]).float()
    return (out_color[:, None] >= in_color[None, :]).float()


def _color_of(index, features):
    return "RVB"[3 * index // features]


Exercise(
    "03b.channels",
    group_mask,
    SameAs(
        group_mask,
        lambda: [
            (f"le masque {kind}, {out} sorties, {features} entrées", [kind, out, features])
            for kind in "AB"
            for out, features in ((3, 3), (6, 3), (6, 6), (3, 9))
        ],
        what="un masque (sorties, entrées)",
        dtype=torch.float32,
        where=lambda i, kind, out, features: (
            f"la sortie {i[0]} ({_color_of(i[0], out)}) et l'entrée {i[1]} "
            f"({_color_of(i[1], features)})"
        ),
        slips=(
            (lambda kind, out, features: group_mask("A", out, features),
             "Le masque B garde aussi la couleur elle-même."),
            (lambda kind, out, features: group_mask("B", out, features),
             "Le masque A cache la couleur elle-même."),
            (lambda kind, out, features: group_mask("AB"[kind == "A"], out, features),
             "Vos masques A et B sont échangés."),
            (lambda kind, out, features: group_mask(kind, features, out).T,
             "Vos sorties lisent les couleurs d'après, au lieu de celles d'avant."),
            (
                lambda kind, out, features: torch.ones(out, features).tril(-(kind == "A")),
                "Vous comparez les numéros des canaux : comparez ceux de leurs couleurs."),
            (
                lambda kind, out, features: (
                    torch.arange(out)[:, None] % 3 >= torch.arange(features) % 3 + (kind == "A")
                ).float(),
                "Vos couleurs alternent (R, V, B, R, …) : chacune occupe un tiers d'un bloc."),
        ),
        praise="R ne lit que le passé, V lit aussi R, B lit aussi R et V.",
    ),
    (
        "Donnez un numéro à chaque canal : 0 pour R, 1 pour V, 2 pour B. Une sortie lit les "
        "couleurs d'avant la sienne.",
        "La couleur elle-même : le masque A la cache (c'est la valeur à deviner), le masque B la "
        "garde.",
        "torch.arange(n) // (n // 3) donne les numéros ; comparez out[:, None] à in[None, :].",
    ),
)  # fmt: skip


# ---- 03b.mixture --------------------------------------------------------------------------------


def mixture_probabilities(weights, mu, s, levels):
    """Probabilités des niveaux 0, …, levels − 1 : (levels,).

    weights, mu, s (M,) : poids (de somme 1), centres et échelles de M lois logistiques.
    Le niveau k est au milieu de la case [k − 0,5 ; k + 0,5]. Ce qui déborde va au niveau extrême.
    """
    k = torch.arange(levels)[:, None]  # (levels, 1)
    upper = torch.sigmoid((k + 0.5 - mu) / s)  # (levels, M)
    lower = torch.sigmoid((k - 0.5 - mu) / s)
    upper[-1] = 1  # la dernière case va jusqu'à +∞
    lower[0] = 0  # la première part de −∞
    return ((upper - lower) * weights).sum(dim=1)


def broken_mixture_probabilities(weights, mu, s, levels):
    k = torch.arange(levels)[:, None]  # (levels, 1)
    upper = torch.sigmoid((k + 0.5 - mu) / s)  # (levels, M) : sous le haut de la case
    lower = torch.sigmoid((k - 0.5 - mu) / s)
    return ((upper - lower) * weights).sum(dim=1)


def _mixtures():
    for weights, mu, s, levels in (
        ([1.0], [8.0], [1.5], 17),
        ([0.6, 0.4], [-3.0, 18.0], [2.0, 1.0], 17),  # half of the mass is outside of the levels
        ([0.2, 0.5, 0.3], [0.0, 3.0, 1.2], [0.3, 0.8, 5.0], 4),
        ([0.5, 0.5], [100.0, -100.0], [1.0, 1.0], 5),
    ):
        inputs = [torch.tensor(values) for values in (weights, mu, s)]
        names = zip(("poids", "mu", "s"), map(listed, inputs))
        shown = ", ".join(f"{name} = {values}" for name, values in names)
        yield f"{shown}, {levels} niveaux", [*inputs, levels]


def _without_infinity(where):
    """The probabilities of someone who forgets an end; `where`: (lower end, upper end) kept."""

    def probabilities(weights, mu, s, levels):
        p = broken_mixture_probabilities(weights, mu, s, levels)
        right = mixture_probabilities(weights, mu, s, levels)
        p[where] = right[where]
        return p

    return probabilities


Exercise(
    "03b.mixture",
    mixture_probabilities,
    SameAs(
        mixture_probabilities,
        _mixtures,
        what="une probabilité par niveau",
        where=lambda i, weights, mu, s, levels: (
            f"le niveau {i[0]}" + ", qui n'est pas extrême" * (0 < i[0] < levels - 1)
        ),
        slips=(
            (broken_mixture_probabilities, "Ce qui déborde n'est allé nulle part."),
            (
                lambda *inputs: F.normalize(broken_mixture_probabilities(*inputs), p=1, dim=0),
                "La somme vaut 1, mais ce qui déborde est partagé entre tous les niveaux : il "
                "revient au niveau extrême.",
            ),
            (_without_infinity(0), "Ce qui dépasse levels − 1 est perdu."),
            (_without_infinity(-1), "Ce qui passe sous 0 est perdu."),
        ),
        praise="la somme vaut 1, même quand la loi continue déborde des niveaux.",
    ),
    (
        "Une loi logistique vit sur toute la droite : il reste de la masse sous 0 et au-dessus de "
        "levels − 1. À quels niveaux la donner ?",
        "Seules les deux cases extrêmes changent : la première part de −∞, la dernière va jusqu'à "
        "+∞. Que valent les deux sigmoïdes à ces bouts-là ?",
        "upper[-1] = 1 et lower[0] = 0, avant la différence.",
    ),
    broken=broken_mixture_probabilities,
)


# ---- 03b.stacks ---------------------------------------------------------------------------------


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


def broken_two_stacks(x, kernels):
    v = h = x
    for layer, (W_v, W_h, W_link) in enumerate(kernels):
        above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)  # gauche, droite, haut, bas
        gates = F.conv2d(F.pad(h, (1, 0, 0, 0)), W_h) + F.conv2d(above, W_link)
        v = gate(above)
        h = gate(gates) if layer == 0 else h + gate(gates)
    return h


def _random_kernels(layers, features=4):
    generator = torch.Generator().manual_seed(0)

    def kernel(*shape):
        fan_in = math.prod(shape[1:])
        return torch.randn(shape, generator=generator) / fan_in**0.5

    return [
        (
            kernel(2 * features, inputs, 2, 3),
            kernel(2 * features, inputs, 1, 2),
            kernel(2 * features, 2 * features, 1, 1),
        )
        for inputs in [1] + [features] * (layers - 1)
    ]


def check_two_stacks(answer):
    size, kernels = 13, _random_kernels(6)
    x = torch.rand(1, 1, size, size)
    one_changed = x + torch.eye(size * size).view(-1, 1, size, size)  # pixel by pixel
    h = answer(torch.cat([x, one_changed]), kernels)
    what = "la pile horizontale"
    tensor(h, (1 + size * size, 4, size, size), what, dtype=torch.float32, learns=True)
    moves = (h[1:] != h[:1]).any(1)  # (pixel changed, row, column of the output)
    for row, column in ((6, 6), (0, 2), (12, 0)):  # the first is that of the figure
        read = moves[:, row, column].view(size, size)
        before = torch.arange(size * size).view(size, size) < row * size + column
        output = f"la sortie ({row}, {column})"
        forbidden = (read & ~before).nonzero().tolist()
        if forbidden == [[row, column]]:
            raise Wrong(f"{output} lit sa propre valeur : par quelle couche ?")
        if forbidden:
            i, j = forbidden[-1]
            raise Wrong(f"{output} lit le pixel ({i}, {j}), d'après.", puzzling=True)
        missing = (before & ~read).nonzero().tolist()
        if missing and row == 6:
            raise Wrong(
                f"{output} lit {int(read.sum())} des 84 pixels d'avant ; il manque "
                f"({missing[0][0]}, {missing[0][1]})."
            )
    return _same_numbers(answer)


def _masked_everywhere(x, kernels):
    mask = torch.tensor([1.0, 0.0])
    return two_stacks(x, [(W_v, W_h * mask, W_link) for W_v, W_h, W_link in kernels])


_same_numbers = SameAs(
    two_stacks,
    lambda: [
        (f"{counted(layers, 'couche')}, une image {height}×{width}",
         [torch.rand(B, 1, height, width), _random_kernels(layers, features)])
        for layers, features, B, height, width in ((6, 4, 2, 9, 9), (1, 3, 3, 4, 6))
    ],
    what="la pile horizontale",
    tolerance=1e-4,
    gradient=("x",),
    where=lambda i, x, kernels: f"h{list(i)} (les bons pixels sont lus)",
    slips=((_masked_everywhere, "Le masque A ne vaut que pour la première couche."),),
    praise="84 pixels lus sur 84 : plus d'angle mort, et rien d'interdit.",
)  # fmt: skip


Exercise(
    "03b.stacks",
    two_stacks,
    check_two_stacks,
    (
        "La pile v ne doit parler que des lignes du dessus, la pile h que de la gauche. Le reste "
        "est juste : les poids, le lien, le résidu.",
        "La pile v lit la ligne r entière, à droite aussi : faites-la partir de l'image descendue "
        "d'une ligne. Dans la première couche, W_h lit le pixel lui-même : il faut le masque A, "
        "W_h * torch.tensor([1.0, 0.0]).",
        "Ne changez rien d'autre : F.pad(x, (0, 0, 1, 0))[:, :, :-1] descend x d'une ligne.",
    ),
    broken=broken_two_stacks,
)
