"""Exercises of notebook 03b: masks, causality, receptive field, colours, logistic laws, stacks."""

import math

import torch
import torch.nn.functional as F

from ..autoregressive.masked import MaskedConv2d
from ..autoregressive.pixelcnn import gate
from ..language import tr, trn
from . import Exercise
from .harness import SameAs, Wrong, lent, listed, tensor


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
        lambda: [
            (tr("le masque {kind}, k = {k}", kind=kind, k=k), [kind, k])
            for k in (3, 5, 7, 1)
            for kind in "AB"
        ],
        what=tr("un masque carré"),
        dtype=torch.float32,
        where=lambda i, kind, k: tr("la case [{i[0]}, {i[1]}]", i=i),
        slips=(
            (
                lambda kind, k: causal_mask("B" if kind == "A" else "A", k),
                tr("Vos masques A et B sont échangés."),
            ),
            (lambda kind, k: causal_mask("A", k), tr("Le masque B garde aussi le centre.")),
            (lambda kind, k: causal_mask("B", k), tr("Le masque A cache le centre.")),
            (
                lambda kind, k: causal_mask(kind, k).flip(0, 1),
                tr("Vous gardez ce qui vient après, au lieu de ce qui vient avant."),
            ),
            (lambda kind, k: causal_mask(kind, k).T, tr("Lignes et colonnes sont échangées.")),
            (
                lambda kind, k: torch.ones(k, k).tril(-1 if kind == "A" else 0),
                tr("C'est un triangle : la ligne du dessus se garde entière, à droite aussi."),
            ),
        ),
        praise=tr("sur les 9 poids d'un noyau 3×3, le masque A en garde 4, le B 5."),
    ),
    (
        tr(
            "Le centre est en [k // 2, k // 2]. Avant lui : les lignes du dessus, entières, puis "
            "la gauche de sa ligne."
        ),
        tr("Le masque A cache le centre ; le masque B le garde. C'est leur seule différence."),
        tr("Partez de torch.zeros(k, k) ; mask[: k // 2] désigne les lignes du dessus."),
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
            raise Wrong(tr("network attend des pixels 0. ou 1. : ni NaN, ni autre valeur."))
        # image by image: in batches of other sizes, a convolution rounds otherwise
        logits = torch.cat([second(torch.tanh(first(image))) for image in x.split(1)])
        return logits if change is None else change(x, logits)

    return lent("network", network, x=("B", 1, "H", "W"))


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
        tr("un réseau dont chaque sortie lit son propre pixel"): lambda x, logits: logits + x,
        tr("un réseau qui lit le pixel de droite"): lambda x, logits: logits + x.roll(-1, 3),
        tr("un réseau qui lit le pixel du dessous"): lambda x, logits: logits + x.roll(-1, 2),
        tr("un réseau qui ne lit son propre pixel que sur la première image"): _only_on(x[0]),
        tr("un réseau qui ne lit son propre pixel que sur la dernière image"): _only_on(x[-1]),
        tr("un réseau dont chaque pixel change à peine sa propre log-cote"): lambda x, logits: (
            logits + x * 2**-23 * logits.detach().abs()  # by one unit of its last place
        ),
    }
    places = [(0, 0), (1, 2), (3, 1), (4, 5)]
    leaks = [*zip(places, places), ((0, 0), (4, 5))]
    for output, source in leaks:
        name = tr("un réseau où seule la sortie {o} lit le pixel {p}", o=output, p=source)
        wrong[name] = _leak(output, source)
    right = {
        tr("un réseau de deux convolutions masquées"): None,
        tr("un réseau qui ne lit que le tout premier pixel"): lambda x, logits: (
            x[:, :, :1, :1] * (torch.arange(30).view(5, 6) > 0)
        ),
    }
    for cases, expected in ((right, True), (wrong, False)):
        for name, change in cases.items():
            said = answer(_network(change), x)
            if getattr(said, "shape", None) == ():  # of numpy, or of torch
                said = said.item()
            if not isinstance(said, bool | int):
                raise Wrong(tr("on attend True ou False, pour tout le réseau."))
            if bool(said) != expected:
                text = tr("{name} n'est pas causal ; vous répondez True.", name=name)
                if expected:
                    text = tr("{name} est causal ; vous répondez False.", name=name)
                raise Wrong(text, puzzling=True)
    right, wrong = len(right), len(wrong)
    return tr(
        "{right} réseaux causaux acceptés, {wrong} autres démasqués.", right=right, wrong=wrong
    )


Exercise(
    "03b.causal",
    is_causal,
    check_is_causal,
    (
        tr(
            "Pour chaque pixel j : changez-le (0 ↔ 1) dans toutes les images, et comparez les "
            "sorties 0, …, j à celles d'avant le changement, au bit près. Les suivantes ont le "
            "droit de bouger."
        ),
        tr(
            "Un NaN accuserait des innocents : 0 × NaN = NaN, même sous un masque. Changez 0 en 1 "
            "et 1 en 0."
        ),
        tr(
            "Une copie, changed = x.clone(), dont on change changed.flatten(1)[:, j] ; puis "
            "network(changed) et network(x) se comparent avec !=."
        ),
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
        case = trn(
            "{count} couche, sortie ({row}, {column}) d'une image {size}×{size}",
            "{count} couches, sortie ({row}, {column}) d'une image {size}×{size}",
            layers, row=row, column=column, size=size,
        )  # fmt: skip
        got = tensor(answer(layers, size, row, column), (size, size), tr("une carte")) != 0
        expected = pixels_read(layers, size, row, column)
        for place in map(tuple, (got != expected).nonzero().tolist()):
            if not got[place]:
                text = tr("le pixel {p} est lu, vous l'oubliez.", p=place)
            elif place < (row, column):
                text = tr("le pixel {p} n'est pas lu, vous le comptez.", p=place)
            else:
                text = tr("le pixel {p} ne vient pas avant la sortie.", p=place)
            text = tr("{case} : {message}", case=case, message=text)
            raise Wrong(text, puzzling=place < (row, column))
    return tr("6 couches : 69 pixels lus sur les 84 d'avant.")


Exercise(
    "03b.field",
    pixels_read,
    check_pixels_read,
    (
        tr(
            "Remontez de la sortie vers l'image, couche par couche. Au départ, une seule case est "
            "allumée : la sortie. Chaque case allumée allume celles que son noyau lit."
        ),
        tr(
            "La case (r, c) allume (r − 1, c − 1), (r − 1, c), (r − 1, c + 1), (r, c − 1), et (r, "
            "c) elle-même si le masque est B. Restez dans l'image."
        ),
        tr(
            "En remontant, la couche de masque A est la dernière : la sortie ne se lit pas "
            "elle-même."
        ),
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
    return tr("RVB")[3 * index // features]


Exercise(
    "03b.channels",
    group_mask,
    SameAs(
        group_mask,
        lambda: [
            (
                tr("le masque {A}, {o} sorties, {i} entrées", A=kind, o=out, i=features),
                [kind, out, features],
            )
            for kind in "AB"
            for out, features in ((3, 3), (6, 3), (6, 6), (3, 9))
        ],
        what=tr("un masque (sorties, entrées)"),
        dtype=torch.float32,
        where=lambda i, kind, out, features: tr(
            "la sortie {i[0]} ({out}) et l'entrée {i[1]} ({into})",
            i=i, out=_color_of(i[0], out), into=_color_of(i[1], features),
        ),
        slips=(
            (lambda kind, out, features: group_mask("A", out, features),
             tr("Le masque B garde aussi la couleur elle-même.")),
            (lambda kind, out, features: group_mask("B", out, features),
             tr("Le masque A cache la couleur elle-même.")),
            (lambda kind, out, features: group_mask("AB"[kind == "A"], out, features),
             tr("Vos masques A et B sont échangés.")),
            (lambda kind, out, features: group_mask(kind, features, out).T,
             tr("Vos sorties lisent les couleurs d'après, au lieu de celles d'avant.")),
            (
                lambda kind, out, features: torch.ones(out, features).tril(-(kind == "A")),
                tr("Vous comparez les numéros des canaux : comparez ceux de leurs couleurs.")),
            (
                lambda kind, out, features: (
                    torch.arange(out)[:, None] % 3 >= torch.arange(features) % 3 + (kind == "A")
                ).float(),
                tr("Vos couleurs alternent (R, V, B, R, …) : chacune occupe un tiers d'un bloc.")),
        ),
        praise=tr("R ne lit que le passé, V lit aussi R, B lit aussi R et V."),
    ),
    (
        tr("Donnez un numéro à chaque canal : 0 pour R, 1 pour V, 2 pour B. Une sortie lit les "
           "couleurs d'avant la sienne."),
        tr("La couleur elle-même : le masque A la cache (c'est la valeur à deviner), le masque B "
           "la garde."),
        tr("torch.arange(n) // (n // 3) donne les numéros ; comparez out[:, None] à in[None, :]."),
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
        w, mu, s = map(listed, inputs)
        name = tr("poids = {w}, mu = {mu}, s = {s}, {n} niveaux", w=w, mu=mu, s=s, n=levels)
        yield name, [*inputs, levels]


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
        what=tr("une probabilité par niveau"),
        where=lambda i, weights, mu, s, levels: (
            tr("le niveau {i[0]}, qui n'est pas extrême", i=i)
            if 0 < i[0] < levels - 1
            else tr("le niveau {i[0]}", i=i)
        ),
        slips=(
            (broken_mixture_probabilities, tr("Ce qui déborde n'est allé nulle part.")),
            (
                lambda *inputs: F.normalize(broken_mixture_probabilities(*inputs), p=1, dim=0),
                tr(
                    "La somme vaut 1, mais ce qui déborde est partagé entre tous les niveaux : il "
                    "revient au niveau extrême."
                ),
            ),
            (_without_infinity(0), tr("Ce qui dépasse levels − 1 est perdu.")),
            (_without_infinity(-1), tr("Ce qui passe sous 0 est perdu.")),
        ),
        praise=tr("la somme vaut 1, même quand la loi continue déborde des niveaux."),
    ),
    (
        tr(
            "Une loi logistique vit sur toute la droite : il reste de la masse sous 0 et au-dessus "
            "de levels − 1. À quels niveaux la donner ?"
        ),
        tr(
            "Seules les deux cases extrêmes changent : la première part de −∞, la dernière va "
            "jusqu'à +∞. Que valent les deux sigmoïdes à ces bouts-là ?"
        ),
        tr("upper[-1] = 1 et lower[0] = 0, avant la différence."),
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
    what = tr("la pile horizontale")
    tensor(h, (1 + size * size, 4, size, size), what, dtype=torch.float32, learns=True)
    moves = (h[1:] != h[:1]).any(1)  # (pixel changed, row, column of the output)
    for row, column in ((6, 6), (0, 2), (12, 0)):  # the first is that of the figure
        read = moves[:, row, column].view(size, size)
        before = torch.arange(size * size).view(size, size) < row * size + column
        out, forbidden = (row, column), [*map(tuple, (read & ~before).nonzero().tolist())]
        if forbidden == [out]:
            raise Wrong(tr("la sortie {out} lit sa propre valeur : par quelle couche ?", out=out))
        if forbidden:
            text = tr("la sortie {out} lit le pixel {p}, d'après.", out=out, p=forbidden[-1])
            raise Wrong(text, puzzling=True)
        missing = (before & ~read).nonzero().tolist()
        if missing and row == 6:
            text = tr(
                "la sortie {out} lit {n} des 84 pixels d'avant ; il manque {p}.",
                out=out, n=int(read.sum()), p=tuple(missing[0]),
            )  # fmt: skip
            raise Wrong(text)
    return _same_numbers(answer)


def _masked_everywhere(x, kernels):
    mask = torch.tensor([1.0, 0.0])
    return two_stacks(x, [(W_v, W_h * mask, W_link) for W_v, W_h, W_link in kernels])


def _images_and_kernels():
    for layers, features, B, h, w in ((6, 4, 2, 9, 9), (1, 3, 3, 4, 6)):
        name = trn(
            "{count} couche, une image {h}×{w}",
            "{count} couches, une image {h}×{w}",
            layers, h=h, w=w,
        )  # fmt: skip
        yield name, [torch.rand(B, 1, h, w), _random_kernels(layers, features)]


_same_numbers = SameAs(
    two_stacks,
    _images_and_kernels,
    what=tr("la pile horizontale"),
    tolerance=1e-4,
    gradient=("x",),
    where=lambda i, x, kernels: tr("h{place} (les bons pixels sont lus)", place=list(i)),
    slips=((_masked_everywhere, tr("Le masque A ne vaut que pour la première couche.")),),
    praise=tr("84 pixels lus sur 84 : plus d'angle mort, et rien d'interdit."),
)


Exercise(
    "03b.stacks",
    two_stacks,
    check_two_stacks,
    (
        tr(
            "La pile v ne doit parler que des lignes du dessus, la pile h que de la gauche. Le "
            "reste est juste : les poids, le lien, le résidu."
        ),
        tr(
            "La pile v lit la ligne r entière, à droite aussi : faites-la partir de l'image "
            "descendue d'une ligne. Dans la première couche, W_h lit le pixel lui-même : il faut "
            "le masque A, W_h * torch.tensor([1.0, 0.0])."
        ),
        tr("Ne changez rien d'autre : F.pad(x, (0, 0, 1, 0))[:, :, :-1] descend x d'une ligne."),
    ),
    broken=broken_two_stacks,
)
