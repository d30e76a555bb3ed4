"""Small autoregressive models of every kind, with what their tests share."""

import copy
import functools
import math

import torch

from course_utils import likelihoods
from course_utils.autoregressive import FVSBN, MADE, NADE, MarkovTable, OrderAgnosticMADE

SHAPE = (1, 2, 3)  # 64 images
CLASSES = 3

KINDS = {
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
    "MADE, 3 layers": lambda shape, **o: MADE(shape, hidden=(20, 15, 20), **o),
    "MADE, 1 layer alone": lambda shape, **o: MADE(shape, hidden=(20,), direct=False, **o),
    "MADE, 2 layers alone": lambda shape, **o: MADE(shape, hidden=(40, 40), direct=False, **o),
    "MADE, 3 layers alone": lambda shape, **o: MADE(shape, hidden=(40, 40, 40), direct=False, **o),
    "agnostic, 0 layers": lambda shape, **o: OrderAgnosticMADE(shape, hidden=(), **o),
    "agnostic, 1 layer": lambda shape, **o: OrderAgnosticMADE(shape, hidden=(20,), **o),
    "agnostic, 2 layers": lambda shape, **o: OrderAgnosticMADE(shape, hidden=(20, 15), **o),
    "agnostic, 2 layers alone": lambda shape, **o: OrderAgnosticMADE(
        shape, hidden=(40, 40), direct=False, **o
    ),
}
LEFT_AND_ABOVE = ((0, -1), (-1, 0))

TABLES = [kind for kind in KINDS if kind.startswith("table")]
NETWORKS = [kind for kind in KINDS if kind not in TABLES]
AGNOSTIC = [kind for kind in KINDS if kind.startswith("agnostic")]
CASES = [(kind, None) for kind in KINDS] + [(kind, CLASSES) for kind in NETWORKS]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_ordering(dims, seed=1):
    return torch.randperm(dims, generator=seeded(seed))


def column_by_column(shape):
    return torch.arange(math.prod(shape)).view(shape).transpose(1, 2).flatten()


def perturb(model, size=0.7, seed=2):
    """Noise on every weight, less on those of large layers: no output hides behind a zero."""
    generator = seeded(seed)

    def noise(like):
        return size * torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for weight in model.parameters():
            weight += noise(weight) / max(1, weight.shape[-1] / 8) ** 0.5
        if hasattr(model, "table"):
            model.table += noise(model.table)
    return model


def chain_images(n=200, shape=SHAPE, seed=3):
    """Each pixel repeats the previous one, but once in five. Labels: the sum of the first two."""
    flips = torch.rand(n, math.prod(shape), generator=seeded(seed)) < 0.2
    flips[:, 0] = torch.rand(n, generator=seeded(seed + 1)) < 0.5
    x = (flips.cumsum(1) % 2).to(torch.uint8)
    return x.view(n, *shape), x[:, :2].sum(1).long()


def train(model, x, y=None, steps=15, lr=0.05):
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optimizer.step()
    return model.eval()


def build(kind, num_classes=None, *, shape=SHAPE, state="random", seed=1):
    """A model of this kind in a random ordering: with random weights, or trained a little.

    The table of neighbours goes column by column: its parents must come before their pixel.
    """
    return copy.deepcopy(_build(kind, num_classes, shape, state, seed))


@functools.cache
def _build(kind, num_classes, shape, state, seed):
    torch.manual_seed(0)
    options = {} if num_classes is None else {"num_classes": num_classes}
    if kind in AGNOSTIC:
        options |= {"num_orderings": 3, "seed": seed}
    elif kind == "table, neighbours":
        options["ordering"] = column_by_column(shape)
    else:
        options["ordering"] = random_ordering(math.prod(shape), seed)
    model = KINDS[kind](shape, **options)
    if state == "random":
        return perturb(model).eval()
    x, y = chain_images(shape=shape)
    model.start_from(x)
    return model.eval() if kind in TABLES else train(model, x, y if num_classes else None)


def random_images(model, n=10, seed=4):
    return torch.randint(0, 2, (n, *model.shape), generator=seeded(seed)).to(torch.uint8)


def labels(model, n):
    return None if model.num_classes is None else torch.arange(n) % model.num_classes


def laws(model):
    """The chain rules of a model, as pairs (ordering, logits function): one, or its mixture's."""
    if not isinstance(model, OrderAgnosticMADE):
        return [(model.ordering, model.logits)]

    def in_ordering(ordering):
        return lambda x, y=None: model.logits(x, y, ordering=ordering)

    return [(ordering, in_ordering(ordering)) for ordering in model.orderings]


def log_prob_of(logits, x):
    """log p(x) of each image from the log-odds of its pixels, in double precision."""
    return likelihoods.bernoulli(x, logits.detach().double()).flatten(1).sum(1)


def state_of(model):
    """A copy of all its parameters and buffers, the unsaved ones included."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().clone() for name, value in tensors.items()}


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
