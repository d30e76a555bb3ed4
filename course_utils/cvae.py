"""The conditional variational auto-encoder (Sohn, Lee & Yan 2015, « Learning Structured Output
Representation using Deep Conditional Generative Models »).

    x, c ──encoder──▶ mu, logvar ──reparametrisation──▶ z
                                                     z, c ──decoder──▶ parameters of p(x | z, c)
    c ──prior network──▶ mu, logvar of p(z | c)         or simply p(z | c) = N(0, I)

It is a VAE whose every law is « given c »: the condition is concatenated to the input of each
network. `vae.py` holds the bound, the sampler and the laws of the pixels.
"""

import math

import torch
from torch import nn

from .data import (
    check_condition,
    check_images,
    check_mask,
    check_num_classes,
    check_shape,
    class_weights,
    layer_sizes,
    one_per_image,
)
from .vae import VAE, Encoder


class CVAE(VAE):
    """Conditional VAE: p(x | z, c) and q(z | x, c), with p(z | c) fixed or learned.

    What its methods expect as the condition `y`, for n images (or a single one for all of them):

    - with `num_classes=K`: labels `(n,)`, integers, or mixtures of classes: weights `(n, K)`,
      non-negative, of sum 1;
    - with `condition_shape`: any finite numbers `(n, *condition_shape)`, of variance about 1 for
      an easy training: attributes, an image…;
    - with both, `condition_shape=(A,)`: `(n, K + A)`, the weights of the classes, then the numbers.

    The decoder starts with larger weights for what would be heard less (√K times for classes,
    √(numbers / z_dim) times for z beside an image): see `__init__`.

    Args:
        shape, levels, hidden, likelihood, scale, beta: as for `VAE`.
        num_classes, condition_shape: what the condition is; one of them or both.
        z_dim: number of latent dimensions. Few: a large z also carries what y should say.
        prior: `"fixed"` for p(z | c) = N(0, I), `"learned"` for a Gaussian whose mu and logvar
            are computed from c by a network (Sohn et al. 2015, section 4.1).
        condition_encoder: False gives the condition to the decoder alone, q(z | x): the variant
            of slides that concatenate c to the code only.
    """

    PRIORS = ("fixed", "learned")

    def __init__(
        self,
        shape,
        *,
        num_classes=None,
        condition_shape=None,
        levels=2,
        z_dim=4,
        hidden=(400, 200),
        likelihood="bernoulli",
        scale=None,
        beta=1.0,
        prior="fixed",
        condition_encoder=True,
    ):
        if num_classes is None and condition_shape is None:
            raise ValueError(
                "what is the condition? Give num_classes (labels or mixtures of classes), "
                "condition_shape (attributes, an image), or both"
            )
        check_num_classes(num_classes)
        if condition_shape is not None and not _are_sizes(condition_shape):
            raise ValueError(f"condition_shape={condition_shape}: expected positive sizes, (2,)")
        if num_classes is not None and condition_shape is not None and len(condition_shape) > 1:
            raise ValueError(
                f"condition_shape={condition_shape}: beside classes, expected a vector, (2,)"
            )
        if prior not in self.PRIORS:
            raise ValueError(f"prior={prior!r}: expected one of {self.PRIORS}")
        numbers = 0 if condition_shape is None else math.prod(condition_shape)
        condition_dim = (num_classes or 0) + numbers
        super().__init__(
            shape,
            levels=levels,
            z_dim=z_dim,
            hidden=hidden,
            likelihood=likelihood,
            scale=scale,
            beta=beta,
            condition_dims=(condition_dim if condition_encoder else 0, condition_dim),
        )
        self.num_classes, self.condition_encoder = num_classes, condition_encoder
        self.condition_shape = None if condition_shape is None else tuple(condition_shape)
        # Let z and c be equally loud at the start; what the decoder hears last it learns to do
        # without: the labels are followed less, or z is ignored.
        with torch.no_grad():
            weight = self.decoder.net[0].weight
            if num_classes is not None:  # a component of a one-hot vector varies √K times less
                weight[:, z_dim : z_dim + num_classes] *= num_classes**0.5
            if numbers > z_dim:  # an image: many numbers against a few
                weight[:, :z_dim] *= (numbers / z_dim) ** 0.5
        self.prior_encoder = None
        if prior == "learned":
            self.prior_encoder = Encoder((condition_dim,), z_dim, layer_sizes(hidden)[-1:])
            nn.init.zeros_(self.prior_encoder.net[-1].weight)  # it starts as N(0, I)
            nn.init.zeros_(self.prior_encoder.net[-1].bias)

    def condition(self, y, n):
        """The condition as the networks receive it: float `(n, condition_dim)`.

        Labels become one-hot vectors; a single condition is repeated `n` times.
        """
        return self._condition(y, n).to(next(self.parameters()).dtype)

    def _condition(self, y, n):
        if self.num_classes is None:
            return one_per_image(self._numbers(y), n)
        if self.condition_shape is None:
            return class_weights(y, self.num_classes, n)
        k, (a,) = self.num_classes, self.condition_shape
        expected = f"class weights, then numbers, (B, {k} + {a})"
        check_condition(y, expected)
        if y.shape[1:] != (k + a,):
            raise ValueError(f"expected {expected}, got {tuple(y.shape)}")
        weights, numbers = class_weights(y[:, :k], k, len(y)), self._numbers(y[:, k:])
        return one_per_image(torch.cat([weights, numbers], dim=1), n)

    def encode(self, x, y=None):
        """Images `(B, C, H, W)` and their conditions -> mu, logvar `(B, z_dim)` of q(z | x, c)."""
        check_images(x, self.shape, self.levels)
        condition = self.condition(y, len(x))
        return self.encoder(self._intensity(x), condition if self.condition_encoder else None)

    def prior(self, n, y=None):
        """mu, logvar `(n, z_dim)` of p(z | c)."""
        if self.prior_encoder is None:
            return super().prior(n, y)
        return self.prior_encoder(self.condition(y, n))

    def _numbers(self, y):
        """Conditions `(B, *condition_shape)` -> finite floats `(B, condition_dim)`."""
        shape = ", ".join(map(str, self.condition_shape))
        check_condition(y, f"numbers (B, {shape})")
        if y.shape[1:] != self.condition_shape:
            raise ValueError(f"expected a condition (B, {shape}), got {tuple(y.shape)}")
        y = y.float()
        if not torch.isfinite(y).all():
            raise ValueError("the condition holds infinite or undefined (NaN) values")
        return y.flatten(1)


def _are_sizes(shape):
    return isinstance(shape, tuple | list) and len(shape) > 0 and min(shape) >= 1


# ---------------------------------------------------------------------------------------------
# An image as the condition: completing what is hidden
# ---------------------------------------------------------------------------------------------


def visible_part(images, mask, levels=2):
    """What is given of an image, as a condition: its visible pixels, and which ones they are.

    Args:
        images: integer images `(B, C, H, W)`.
        mask: True where a pixel is visible; `(H, W)`, or any shape that broadcasts to
            `(B, 1, H, W)`.
        levels: number of values of a pixel.

    Returns:
        `(B, C + 1, H, W)` floats: intensities in [0, 1], zero where hidden, then the mask.
    """
    if not isinstance(images, torch.Tensor) or images.dim() != 4:
        raise ValueError(
            "images: expected a tensor (B, C, H, W); one image needs a batch dimension, x[None]"
        )
    check_images(images, images.shape[1:], levels)
    mask = check_mask(mask, len(images), images.shape[1:]).to(images.device)
    return torch.cat([images / (levels - 1) * mask, mask], dim=1)


class CompletionVAE(CVAE):
    """p(hidden pixels | visible pixels): a CVAE whose condition is a part of the image itself.

    The condition is made by `visible_part`. The likelihood counts the hidden pixels only; the
    images that `decode` and `sample` return keep the visible ones exactly.
    """

    def __init__(self, shape, *, prior="learned", z_dim=16, **options):
        check_shape(shape)
        condition_shape = (shape[0] + 1, *shape[1:])
        super().__init__(
            shape, condition_shape=condition_shape, prior=prior, z_dim=z_dim, **options
        )

    def decode(self, z, y=None):
        """Codes -> expected intensity of each pixel `(B, C, H, W)`; visible pixels as given."""
        intensity, mask = self._split(y)
        return torch.where(mask, intensity, super().decode(z, y))

    def pixel_log_likelihood(self, x, z, y=None):
        """log p(x | z, visible pixels) of each pixel, nats; zero for the visible ones."""
        intensity, mask = self._split(y)
        given = (intensity * (self.levels - 1)).round()
        if not ((given == x) | ~mask).all():
            raise ValueError("the visible pixels of the condition y are not those of the image x")
        return super().pixel_log_likelihood(x, z, y) * ~mask

    @torch.no_grad()
    def sample_pixels(self, z, y=None, *, generator=None):
        """Draw the hidden pixels ~ p(x | z, c); the visible ones are copied from the condition."""
        intensity, mask = self._split(y)
        given = (intensity * (self.levels - 1)).round().to(torch.uint8)
        return torch.where(mask, given, super().sample_pixels(z, y, generator=generator))

    def _split(self, y):
        """Condition `(B, C + 1, H, W)` -> intensities `(B, C, H, W)`, booleans `(B, 1, H, W)`."""
        y = self._numbers(y).unflatten(1, self.condition_shape)
        return y[:, :-1], y[:, -1:] > 0.5
