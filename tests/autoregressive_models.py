"""Small autoregressive models of every kind, in one table, with what their tests share."""

import copy
import functools
import math

import torch

from course_utils.autoregressive import (
    FVSBN,
    MADE,
    NADE,
    DiagonalBiLSTM,
    MarkovTable,
    OrderAgnosticMADE,
    PixelCNN,
    RowLSTM,
)

SHAPE = (1, 2, 3)  # 64 images
CLASSES = 3
LEFT_AND_ABOVE = ((0, -1), (-1, 0))

KINDS = {  # of binary images, in an ordering of one's choice
    "table, order 0": lambda shape, **o: MarkovTable(shape, order=0, **o),
    "table, order 1": lambda shape, **o: MarkovTable(shape, order=1, **o),
    "table, order 3": lambda shape, **o: MarkovTable(shape, order=3, **o),
    "table, neighbours": lambda shape, **o: MarkovTable(shape, neighbours=LEFT_AND_ABOVE, **o),
    "FVSBN": FVSBN,
    "NADE, lean": lambda shape, **o: NADE(shape, hidden=7, **o),
    "NADE, plain": lambda shape, **o: NADE(shape, hidden=7, lean=False, **o),
    "MADE, 0 layers": lambda shape, **o: MADE(shape, hidden=(), **o),
    "MADE, 1 layer": lambda shape, **o: MADE(shape, hidden=(20,), **o),
    "MADE, 2 layers": lambda shape, **o: MADE(shape, hidden=(20, 15), **o),
    "MADE, narrow": lambda shape, **o: MADE(shape, hidden=(20, 3, 15), **o),
    "MADE, 1 layer alone": lambda shape, **o: MADE(shape, hidden=(20,), direct=False, **o),
    "MADE, 3 layers alone": lambda shape, **o: MADE(shape, hidden=(40, 40, 40), direct=False, **o),
    "agnostic, 0 layers": lambda shape, **o: OrderAgnosticMADE(shape, hidden=(), **o),
    "agnostic, 1 layer": lambda shape, **o: OrderAgnosticMADE(shape, hidden=(20,), **o),
    "agnostic, 2 layers": lambda shape, **o: OrderAgnosticMADE(shape, hidden=(20, 15), **o),
    "agnostic, 2 layers alone": lambda shape, **o: OrderAgnosticMADE(
        shape, hidden=(40, 40), direct=False, **o
    ),
}
TABLES = [kind for kind in KINDS if kind.startswith("table")]
NETWORKS = [kind for kind in KINDS if kind not in TABLES]
AGNOSTIC = [kind for kind in KINDS if kind.startswith("agnostic")]
CASES = [(kind, None) for kind in KINDS] + [(kind, CLASSES) for kind in NETWORKS]

PIXEL_KINDS = {  # in raster order
    "plain": lambda shape, **o: PixelCNN(shape, **{"gated": False, "layers": 3} | o),
    "gated": lambda shape, **o: PixelCNN(shape, **{"gated": True, "layers": 3} | o),
    "row": RowLSTM,
    "diagonal": DiagonalBiLSTM,
}
VARIANTS = {  # channels, options
    "binary": (1, {}),
    "softmax": (1, {"levels": 4}),
    "gaussian": (1, {"levels": 4, "output": "gaussian"}),
    "mixture": (1, {"levels": 4, "output": "logistic mixture"}),
    "colour": (3, {}),
    "softmax in colour": (2, {"levels": 3}),
    "gaussian in colour": (2, {"levels": 3, "output": "gaussian"}),
    "unlinked": (3, {"link_channels": False}),
    "unlinked mixture": (2, {"levels": 3, "output": "logistic mixture", "link_channels": False}),
    "one-hot": (2, {"levels": 3, "one_hot": True}),
    "embedding": (2, {"levels": 3, "embedding": torch.tensor([[1.0, 0], [-0.5, 1], [0, -2]])}),
    "no map": (2, {"position_map": False}),
    "wide": (1, {"first_kernel_size": 5, "kernel_size": 5}),
    "one layer": (2, {"layers": 1}),
    "class map": (2, {"class_map": True}),
}
FEW_VARIANTS = (": binary", "gaussian", "mixture", "in colour", "one-hot")  # of each law, input
PIXEL_CASES = [
    (f"{kind}: {variant}", num_classes)
    for kind in PIXEL_KINDS
    for variant in VARIANTS
    for num_classes in (None, CLASSES)
    if (variant in ("binary", "softmax in colour", "no map", "class map") or num_classes is None)
    and (variant != "class map" or (num_classes and kind in ("plain", "gated")))
]
ALL_CASES = CASES + PIXEL_CASES
FEW_CASES = CASES + [case for case in PIXEL_CASES if case[0].endswith(FEW_VARIANTS)]
TRAINABLE = [case for case in ALL_CASES if case[0] not in TABLES]
CLASS_CASES = [case for case in ALL_CASES if case[1]]
ONE_ORDERING = [case for case in ALL_CASES if case[0] not in AGNOSTIC]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_ordering(dims, seed=1):
    return torch.randperm(dims, generator=seeded(seed))


def column_by_column(shape):
    return torch.arange(math.prod(shape)).view(shape).transpose(1, 2).flatten()


def perturb(model, size=0.7, seed=2):
    """Noise on every weight, less where many inputs add up: no output hides behind a zero."""
    generator = seeded(seed)

    def noise(like):
        return size * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for weight in model.parameters():
            weight += noise(weight) / max(1, weight[0].numel() / 8) ** 0.5
        if hasattr(model, "table"):
            model.table += noise(model.table)
    return model


def chain_images(n=200, shape=SHAPE, seed=3, levels=2):
    """Each pixel repeats the previous one, but once in five. Labels: the sum of the first two."""
    flips = torch.rand(n, math.prod(shape), generator=seeded(seed)) < 0.2
    flips[:, 0] = torch.rand(n, generator=seeded(seed + 1)) < 0.5
    steps = torch.randint(1, levels, flips.shape, generator=seeded(seed + 2))
    x = ((flips * steps).cumsum(1) % levels).to(torch.uint8)
    return x.view(n, *shape), x[:, :2].sum(1).long().clamp(max=CLASSES - 1)


def train(model, x, y=None, steps=15, lr=0.05):
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optimizer.step()
    return model.eval()


def build(kind, num_classes=None, *, shape=None, size=None, state="random", seed=1, **options):
    """A model of this kind in a random ordering: untrained, with random weights, or trained.

    Those of pixels, « gated: colour », keep the raster order, and have the channels of their
    variant: give the `size` of their images only. The table of neighbours goes column by column:
    its parents must come before their pixel.
    """
    shape = shape or default_shape(kind, size)
    return copy.deepcopy(_build(kind, num_classes, shape, state, seed, tuple(options.items())))


def default_shape(kind, size=None):
    """The shape of the images of `build`, or the same with another size."""
    if kind in KINDS:
        return (1, *(size or SHAPE[1:]))
    return (VARIANTS[kind.split(": ")[1]][0], *(size or (3, 4)))


@functools.cache
def _build(kind, num_classes, shape, state, seed, options):
    torch.manual_seed(0)
    options = (
        dict(options) if num_classes is None else {"num_classes": num_classes, **dict(options)}
    )
    if kind not in KINDS:
        kind, variant = kind.split(": ")
        options = {"features": 12, "first_kernel_size": 3} | VARIANTS[variant][1] | options
        if kind in ("row", "diagonal"):
            options.pop("kernel_size", None)  # their layers are no convolutions
    elif kind in AGNOSTIC:
        options |= {"num_orderings": 3, "seed": seed}
    elif kind == "table, neighbours":
        options["ordering"] = column_by_column(shape)
    else:
        options["ordering"] = random_ordering(math.prod(shape), seed)
    model = (KINDS | PIXEL_KINDS)[kind](shape, **options)
    if state == "random":
        perturb(model)
        if options.get("output"):  # laws of a few parameters: every level is likely
            with torch.no_grad():
                model.out.weight *= 0.1
                model.b[model.num_outputs * 2 // 3 :] -= 1  # their scales
    elif state == "trained":
        x, y = chain_images(60, shape, levels=model.levels)
        model.start_from(x)
        if kind not in TABLES:
            train(model, x, y if num_classes else None)
    return model.eval()


def random_images(model, n=10, seed=4):
    x = torch.randint(0, model.levels, (n, *model.shape), generator=seeded(seed))
    return x.to(torch.uint8)


def labels(model, n):
    return None if model.num_classes is None else torch.arange(n) % model.num_classes


def conditions(model):
    """One condition of each class, and one mixture; None for a model without."""
    if model.num_classes is None:
        return [None]
    return [torch.tensor([k]) for k in range(CLASSES)] + [torch.tensor([[0.2, 0.5, 0.3]])]


def laws(model):
    """The chain rules of a model, as pairs (ordering, logits function): one, or its mixture's."""
    if not isinstance(model, OrderAgnosticMADE):
        return [(model.ordering, model.logits)]
    return [
        (ordering, functools.partial(model.logits, ordering=ordering))
        for ordering in model.orderings
    ]


def log_prob_of(model, logits, x):
    """log p(x) of each image from the parameters of its pixels, in double precision."""
    return model.law.log_prob(x, logits.detach().double()).flatten(1).sum(1)


def state_of(model):
    """A copy of all its parameters and buffers, the unsaved ones included."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().clone() for name, value in tensors.items()}


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
