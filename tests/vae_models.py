"""Small VAEs of every kind, without and with condition, or codes; what their tests share."""

import torch
from autoregressive_models import random_images, seeded

from course_utils import CVAE, VAE, VQVAE, CompletionVAE
from course_utils.cvae import visible_part

SMALL = {"z_dim": 3, "hidden": (12, 8)}
LAWS = [("bernoulli", 2), ("categorical", 5), ("gaussian", 17), ("laplace", 256)]

KINDS = {  # by what the condition is
    "nothing": (VAE, {}),
    "labels": (CVAE, {"num_classes": 3}),
    "mixtures": (CVAE, {"num_classes": 3, "prior": "learned"}),
    "attributes": (CVAE, {"condition_shape": (2,), "condition_encoder": False}),
    "classes and attributes": (CVAE, {"num_classes": 3, "condition_shape": (2,)}),
    "image": (CVAE, {"condition_shape": (2, 3, 4), "prior": "learned"}),
    "completion": (CompletionVAE, {}),
}
CONDITIONAL = [kind for kind in KINDS if kind != "nothing"]


def new(kind, *, shape=(2, 3, 4), **options):
    torch.manual_seed(0)
    model, its_own = KINDS[kind]
    return model(shape, **SMALL | its_own | options)


def perturb(model, size=0.3):
    """Noise on every weight: a learned prior, which starts as N(0, I), then depends on c."""
    generator = seeded(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def build(kind="nothing", **options):
    return perturb(new(kind, **options))


def vqvae(shape=(1, 4, 8), **options):
    """Its atoms are far from each other: several serve from the start."""
    torch.manual_seed(0)
    model = VQVAE(shape, **{"num_codes": 3, "code_dim": 2, "features": 8} | options)
    with torch.no_grad():
        codebook = model.quantizer.codebook
        codebook.copy_(torch.randn(codebook.shape, generator=seeded()))
    return model.eval()


def random_masks(n=10):
    return torch.rand(n, 1, 3, 4, generator=seeded(8)) < 0.5


def conditions(kind, model, n=10):
    """Of `random_images(model, n)`, for a completion."""
    generator = seeded(5)
    weights = torch.rand(n, 3, generator=generator)
    weights /= weights.sum(1, keepdim=True)
    numbers = torch.randn(n, 2, generator=generator)
    return {
        "nothing": None,
        "labels": torch.arange(n) % 3,
        "mixtures": weights,
        "attributes": numbers,
        "classes and attributes": torch.cat([weights, numbers], 1),
        "image": torch.randn(n, 2, 3, 4, generator=generator),
        "completion": visible_part(random_images(model, n), random_masks(n), model.levels),
    }[kind]
