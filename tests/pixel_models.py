"""Small PixelCNN and PixelRNN of every kind, with what their tests share."""

import copy
import functools

import torch

from course_utils.autoregressive import DiagonalBiLSTM, PixelCNN, RowLSTM

CLASSES = 3
SIZE = (3, 4)  # of the images, unless told
TINY = (2, 2)  # where all the images are enumerated

KINDS = {
    "plain": lambda shape, **o: PixelCNN(shape, **{"gated": False, "layers": 3} | o),
    "gated": lambda shape, **o: PixelCNN(shape, **{"gated": True, "layers": 3} | o),
    "row": lambda shape, **o: RowLSTM(shape, **o),
    "diagonal": lambda shape, **o: DiagonalBiLSTM(shape, **o),
}

VARIANTS = {  # channels, options
    "binary": (1, {}),
    "softmax": (1, {"levels": 4}),
    "gaussian": (1, {"levels": 4, "output": "gaussian"}),
    "mixture": (1, {"levels": 4, "output": "logistic mixture"}),
    "colour": (3, {}),
    "colour, gaussian": (2, {"levels": 3, "output": "gaussian"}),
    "colour, unlinked": (3, {"link_channels": False}),
    "unlinked, mixture": (2, {"levels": 3, "output": "logistic mixture", "link_channels": False}),
    "one-hot": (2, {"levels": 3, "one_hot": True}),
    "embedding": (2, {"levels": 3, "embedding": torch.tensor([[1.0, 0], [-0.5, 1], [0, -2]])}),
    "classes": (1, {"num_classes": CLASSES}),
    "colour, classes": (2, {"levels": 3, "num_classes": CLASSES}),
    "no map": (1, {"position_map": False}),
    "no map, classes": (2, {"position_map": False, "num_classes": CLASSES}),
    "class map, classes": (2, {"class_map": True, "num_classes": CLASSES}),
    "wide": (1, {"first_kernel_size": 5, "kernel_size": 5}),
    "one layer": (2, {"layers": 1}),
}
CASES = [
    (kind, variant)
    for kind in KINDS
    for variant in VARIANTS
    if "class map" not in variant or kind in ("plain", "gated")
]
CLASS_CASES = [case for case in CASES if "classes" in case[1]]
# trained a little: one variant of each law, of each input
TRAINED = ["binary", "gaussian", "mixture", "colour", "one-hot", "colour, classes"]
TRAINED_CASES = [(kind, variant) for kind in KINDS for variant in TRAINED]
STATE_CASES = [(*case, "random") for case in CASES] + [(*case, "trained") for case in TRAINED_CASES]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def perturb(model, seed=2):
    """Noise on every weight, none that saturates: no output hides behind a zero.

    The laws of several levels get a scale at which every level is likely.
    """
    generator = seeded(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            size = 0.4
            if name.endswith("weight"):
                size = 2 / weight[0].numel() ** 0.5
            weight += size * torch.randn(weight.shape, generator=generator)
        if model.law.num_parameters not in (None, model.levels):
            scales = model.law.num_parameters // (3 if hasattr(model.law, "components") else 2)
            model.b[-scales:] -= 1
            model.out.weight *= 0.3
    return model


def structured_images(shape, levels, n=40, seed=3):
    """Bright or dark images, with noise, brighter on the right. Labels: from dark to bright."""
    generator = seeded(seed)
    light = torch.rand(n, 1, 1, 1, generator=generator)
    noise = 0.5 * torch.rand(n, *shape, generator=generator)
    grey = 0.7 * light + noise + 0.1 * torch.arange(shape[2])
    x = (grey * (levels - 1)).round().clamp(0, levels - 1).to(torch.uint8)
    return x, (light.flatten() * CLASSES).long()


def train(model, x, y=None, steps=8, lr=0.03):
    torch.manual_seed(0)  # of the noise of the Gaussian output
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(x, y).backward()
        optimizer.step()
    return model.eval()


def build(kind, variant="binary", *, size=SIZE, state="random", **options):
    """A model of this kind: untrained, with random weights, or trained a little."""
    return copy.deepcopy(_build(kind, variant, size, state, tuple(options.items())))


@functools.cache
def _build(kind, variant, size, state, options):
    channels, variant_options = VARIANTS[variant]
    options = {"features": 12, "first_kernel_size": 3} | variant_options | dict(options)
    if kind in ("row", "diagonal"):
        options.pop("kernel_size", None)  # their layers are no convolutions
    torch.manual_seed(0)
    model = KINDS[kind]((channels, *size), **options)
    if state == "new":
        return model.eval()
    if state == "random":
        return perturb(model).eval()
    x, y = structured_images(model.shape, model.levels)
    return train(model.start_from(x), x, None if model.num_classes is None else y)


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


def state_of(model):
    """A copy of all its parameters and buffers, the unsaved ones included."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: value.detach().clone() for name, value in tensors.items()}


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
