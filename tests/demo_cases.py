"""Every demo of the course on small models."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from autoregressive_models import build, perturb, seeded, train

from course_utils import CVAE, VAE, CompletionVAE, PixelCNN, RowLSTM, demos
from course_utils.evaluation import load_classifier
from course_utils.vq import VQVAE, code_prior

# ---- the models -------------------------------------------------------------------------------


@functools.cache
def vae():
    torch.manual_seed(0)
    model = VAE((1, 8, 8), z_dim=2, hidden=(16,))
    with torch.no_grad():
        model.decoder.net[-1].weight.mul_(20)  # an untrained decoder hardly looks at z
    return model


def _amplify(model):
    """Weights of an untrained model made large: its images then follow z and the condition."""
    with torch.no_grad():
        for network in (model.decoder, model.prior_encoder):
            if network is not None:
                torch.nn.init.normal_(network.net[-1].weight, std=0.5)
    return model


def small_cvae(shape=(1, 14, 14), **options):
    torch.manual_seed(0)
    options = {"num_classes": 10, "condition_shape": (2,), "z_dim": 3, "hidden": (8,)} | options
    return _amplify(CVAE(shape, **options))


MEAN, STD = torch.tensor([10.0, 2.0]), torch.tensor([8.0, 0.4])  # of the slant, the thickness
cvae, classifier = functools.cache(small_cvae), functools.cache(load_classifier)


@functools.cache
def completer():
    torch.manual_seed(0)
    return _amplify(CompletionVAE((1, 14, 12), z_dim=3, hidden=(8,)))


@functools.cache
def ink():
    return (torch.rand(5, 1, 14, 12, generator=seeded()) < 0.3).to(torch.uint8)


WRITERS = ("NADE, lean", "MADE, 2 layers", "FVSBN", "table, order 3", "agnostic, 1 layer")


@functools.cache
def writers():
    """Models with random weights, each in its random ordering."""
    return {kind: build(kind, shape=(1, 5, 6)) for kind in WRITERS}


# kind: shape, levels, classes
PAINTED = {
    "binary": ((1, 4, 5), 2, None),
    "grey": ((1, 4, 5), 5, None),
    "classes": ((1, 4, 5), 3, 4),
    "colour": ((3, 4, 5), 4, None),
    "colour, two levels": ((3, 4, 5), 2, None),
}


@functools.cache
def painters(kind):
    """Two models trained a little: a change by hand has consequences."""
    shape, levels, num_classes = PAINTED[kind]
    options = {"levels": levels, "num_classes": num_classes, "features": 12}
    torch.manual_seed(0)
    models = {
        "CNN": PixelCNN(shape, layers=2, **options),
        "LSTM": RowLSTM(shape, layers=1, **options),
    }
    x = torch.randint(levels, (200, *shape), generator=seeded(1))
    free = torch.rand(200, *shape[1:], generator=seeded(2)) < 0.2
    for column in range(1, shape[2]):  # one level above the pixel on its left, but once in five
        following = (x[..., column - 1] + 1) % levels
        x[..., column] = torch.where(free[:, None, :, column], x[..., column], following)
    for model in models.values():
        y = torch.arange(200) % num_classes if num_classes else None
        train(model, x.to(torch.uint8), y, steps=20)
    return models


ATOMS, MAP = 7, (3, 4)  # codes, and the size of their maps


@functools.cache
def blots(n=40, channels=1):
    """Images of large blots: neighbouring pixels are alike."""
    small = torch.rand(n, channels, 4, 5, generator=seeded(1))
    smooth = torch.nn.functional.interpolate(small, (12, 16), mode="bilinear")
    return (smooth > 0.5).to(torch.uint8)


@functools.cache
def vqvae(channels=1, num_codes=ATOMS):
    torch.manual_seed(0)
    model = VQVAE((channels, 12, 16), num_codes=num_codes, code_dim=4, features=8)
    return train(model, blots(channels=channels), steps=60, lr=0.02)


@functools.cache
def priors():
    """Priors of the codes, of three classes: the first is trained a little."""
    torch.manual_seed(0)
    codes = vqvae().encode(blots())
    options = {"num_classes": 3, "features": 8, "layers": 2}
    trained, untrained = (code_prior(vqvae(), **options) for _ in range(2))
    train(trained, codes, torch.arange(len(codes)) % 3, steps=20)
    return {"entraîné": perturb(trained, 0.1), "non entraîné": perturb(untrained)}


def story(growth, moments=5):
    """Vectors that move away from the origin, `growth` times farther at each moment."""
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    return [(z * growth**k, z[:2] * growth**k / 2) for k in range(moments)]


# ---- the demos --------------------------------------------------------------------------------


class Case(NamedTuple):
    """A demo, and what all demos promise.

    Attributes:
        make: function without arguments that makes it.
        controls: their names.
        buttons: their labels, « Revenir au départ » apart.
        clicks: `{(x, y) or (panel, cell): what some controls become}`; nothing changes if that is
            empty.
        models: function without arguments: the models that it shows.
        edits: changes that may be made by hand.
    """

    make: Callable
    controls: str
    buttons: tuple = ()
    clicks: dict = {}
    models: Callable = tuple
    edits: str = ""


def nowhere(*points):
    return dict.fromkeys(points, {})


def _painting(kind):
    (channels, _, _), levels, num_classes = PAINTED[kind]
    one, two = (",".join([str(v)] * channels) for v in (0, 1))
    more = ["brush"] * (channels == 3 or levels > 2) + ["label"] * (num_classes is not None)
    return Case(
        lambda: demos.painting_explorer(painters(kind)),
        " ".join(["step model temperature seed edits", *more]),
        ("Changer ce pixel", "Effacer les retouches", "Autre image"),
        {("image", cell): {"step": cell + 1} for cell in (0, 1, 5, 11)}
        | nowhere((50, 25), (700, 60), ("image", 12), ("image", 19), ("untouched", 0)),
        lambda: painters(kind).values(),
        f"3={one} 4={two}",
    )


CASES = {
    "latent": Case(
        lambda: demos.latent_explorer(
            vae(), torch.randn(60, 2, generator=seeded()), torch.arange(60) % 10
        ),
        "z1 z2",
        (),
        {(60, 28): {"z1": -4.0, "z2": 4.0}, (412, 380): {"z1": 4.0, "z2": -4.0}}
        | {(148, 292): {"z1": -2.0, "z2": -2.0}}
        | nowhere((10, 220), (220, 435), (600, 220), (220, 2)),
        lambda: [vae()],
    ),
    "condition": Case(
        lambda: demos.condition_explorer(cvae(), classifier(), mean=MEAN, std=STD),
        "y0 y1 y2 y3 y4 y5 y6 y7 y8 y9 slant thickness z1 z2 z3",
        ("Tirer un autre z",),
        models=lambda: [cvae(), classifier()],
    ),
    "completion": Case(
        lambda: demos.completion_explorer(completer(), ink(), classifier()),
        "number hidden_rows hidden_columns seed",
        ("Autres tirages", "Cacher la droite", "Cacher la gauche", "Cacher le bas"),
        {("image", 0): {"hidden_rows": (0, 1), "hidden_columns": (0, 1)}}
        | {("image", 15): {"hidden_rows": (1, 2), "hidden_columns": (3, 4)}}
        | {("image", 167): {"hidden_rows": (13, 14), "hidden_columns": (11, 12)}}
        | nowhere((99, 25), ("completions", 0)),
        lambda: [completer(), classifier()],
    ),
    "sampling": Case(
        lambda: demos.sampling_explorer(writers()),
        "model step temperature seed",
        ("Autre image",),
        models=lambda: writers().values(),
    ),
    "masks": Case(
        demos.mask_explorer,
        "output layers masks order seed",
        (),
        {(122, 50): {"output": 1}, (238, 62): {"output": 2}, (508, 70): {"output": 5}}
        | nowhere((122, 200), (122, 350), (538, 350), (700, 90), (640, 326), (999, 399), (-5, 50)),
    ),
    **{f"painting, {kind}": _painting(kind) for kind in PAINTED},
    "field": Case(
        demos.receptive_field_explorer,
        "layers kernel network masks row column",
        (),
        {("grid", 0): {"row": 0, "column": 0}, ("grid", 168): {"row": 12, "column": 12}}
        | {("grid", 13): {"row": 1, "column": 0}, ("grid", 48): {"row": 3, "column": 9}}
        | nowhere((700, 100)),
    ),
    "editor": Case(
        lambda: demos.code_editor(
            vqvae(), blots()[:8], [f"blot {k}" for k in range(8)], tiles=blots()
        ),
        "image cell brush other edits",
        ("Effacer les retouches",),
        {("codes", cell): {"cell": cell + 1} for cell in (0, 1, 4, 11)}
        | nowhere((40, 25), ("decoded", 0), ("image", 0), ("change", 3))
        | nowhere(("palette", 7)),  # it has 7 atoms in 9 places
        lambda: [vqvae()],
        "1=3 7=2",
    ),
    "browser": Case(
        lambda: demos.codebook_browser(vqvae(), blots()),
        "atom",
        ("Plus fréquent", "Plus rare"),
        nowhere((280, 60), (100, 320), ("palette", 7), ("alone", 3), ("example 2", 0)),
        lambda: [vqvae()],
    ),
    "prior": Case(
        lambda: demos.prior_explorer(vqvae(), priors(), blots()),
        "step model temperature seed label",
        ("Autre tirage",),
        models=lambda: [vqvae(), *priors().values()],
    ),
    "commitment": Case(
        lambda: demos.commitment_explorer({"β = 0": story(3.0), "β = 2": story(1.0)}),
        "moment scale",
    ),
}
