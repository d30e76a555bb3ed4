"""What all autoregressive models share: the contract, and the sampler.

The pixels are visited one by one, in an `ordering`. A model gives the parameters of the law of each
pixel (for binary images: its log-odds) as a function of the pixels visited before it; the chain
rule does the rest:

    log p(x) = Σᵢ log p(x_ordering[i] | x_ordering[0], …, x_ordering[i − 1])
"""

import math

import torch
from torch import nn

from .. import likelihoods
from ..data import (
    check_images,
    check_mask,
    check_num_classes,
    check_shape,
    class_weights,
    one_per_image,
)
from .laws import Bernoulli


class AutoregressiveModel(nn.Module):
    """Base of the models: p(x) = ∏ᵢ p(xᵢ | x₍<ᵢ₎), exact; each factor is a Bernoulli by default.

    A model defines `_logits` (all the pixels in one pass, for the likelihood) and `_stepper` (one
    pixel at a time, for sampling, without computing anything twice).

    Args:
        shape: `(C, H, W)` of an image.
        ordering: a permutation of the D = C·H·W pixels, `ordering[i]` being the pixel visited at
            step i; by default the raster order, row by row.
        num_classes: give it for a model of p(x | y); `y` is then labels `(n,)` or weights of the
            classes `(n, num_classes)`, or a single one for all the images.
        law: that of a pixel, from `autoregressive.laws`; it says how many levels a pixel has.
    """

    def __init__(self, shape, *, ordering=None, num_classes=None, law=None):
        super().__init__()
        check_shape(shape)
        check_num_classes(num_classes)
        self.shape, self.num_classes = tuple(shape), num_classes
        self.dims = math.prod(shape)
        self.law = Bernoulli() if law is None else law
        # a buffer: it travels with the weights, which mean nothing in another ordering
        self.register_buffer("ordering", check_ordering(ordering, self.dims))

    # ---- what each model defines --------------------------------------------------------------

    def _logits(self, x, classes, ordering):
        """Log-odds of every pixel given those before it, in one pass.

        Args:
            x: `(B, D)`, the values of the pixels as floats, in the order of the image (not of the
                visit).
            classes: their weights `(B, num_classes)`, or None.
            ordering: `(D,)`.

        Returns:
            `(B, D)`, in the order of the image; `(B, P, D)` for a law of P parameters.
        """
        raise NotImplementedError

    def _stepper(self, classes, n, ordering):
        """Prepare the sampling of `n` images: a function `(i, seen) -> log-odds (n,)`.

        The function is called for i = 0, 1, …, D − 1 in turn; `seen` is `(D, n)`, the values of the
        pixels as floats, in the order of the visit; its first i rows are known, the others are 0.
        For a law of P parameters, it returns them all, `(n, P)`.
        """
        raise NotImplementedError

    # ---- the contract of the course -----------------------------------------------------------

    @property
    def levels(self):
        """Number of values of a pixel: 0, …, levels − 1."""
        return self.law.levels

    @property
    def dtype(self):
        """Of the weights, and of all that enters the network: float32, unless `double()`."""
        return self.b.dtype

    def logits(self, x, y=None):
        """Log-odds of each pixel given those visited before it.

        Args:
            x: integer images `(B, C, H, W)` in {0, …, levels − 1}.
            y: condition of a model with `num_classes`.

        Returns:
            `(B, C, H, W)`; `(B, P, C, H, W)` for a law of P parameters, whose docstring names them.
        """
        return self._logits_in(self.ordering, x, y)

    def pixel_log_prob(self, x, y=None):
        """log p(xᵢ | x₍<ᵢ₎) of each pixel, `(B, C, H, W)`, nats."""
        return self.law.log_prob(x, self.logits(x, y))

    def log_prob(self, x, y=None):
        """Exact log p(x), `(B,)`, nats summed over the pixels."""
        return likelihoods.sum_pixels(self.pixel_log_prob(x, y))

    loss_name = "−log p(x)"

    def loss(self, x, y=None):
        """Batch mean of −log p(x), nats per image: what `fit` minimises."""
        return -self.log_prob(x, y).mean()

    @torch.no_grad()
    def sample(
        self,
        n,
        y=None,
        *,
        generator=None,
        given=None,
        mask=None,
        temperature=1.0,
        callback=None,
        naive=False,
    ):
        """Draw `n` images, pixel by pixel, or complete partial ones.

        With `given` and `mask`, the known pixels are kept. The others then follow
        p(hidden | known) exactly if the known pixels come first in the ordering; a known pixel
        visited later is not seen by the hidden ones before it.

        Args:
            n: number of images.
            y: condition of a model with `num_classes`.
            generator: of the D uniform numbers per image, all drawn at the start.
            given: integer images to complete, `(n, C, H, W)`, or `(1, C, H, W)` for all.
            mask: True where a pixel of `given` is known; `(H, W)`, or any shape that broadcasts to
                `(n, 1, H, W)`.
            temperature: divides the log-odds (the log-probabilities of the levels): 1 for the
                model's law, less for safer images, 0 for the most probable value of each pixel.
            callback: function `(pixel, values, probabilities)` called after each pixel: its index
                in the flattened image, its values `(n,)` and, at this temperature, the
                probabilities `(n,)` that it be 1; or those of all its levels, `(n, levels)`. (An
                `OrderAgnosticMADE` draws the images in groups, by ordering: n is then the size of
                the group.)
            naive: recompute a full pass for each pixel: slow, and the same images bit for bit (the
                log-odds differ by rounding errors only).

        Returns:
            integer images `(n, C, H, W)`, uint8.
        """
        if not temperature >= 0:
            raise ValueError(f"temperature={temperature}: expected a number ≥ 0")
        given, known = self._known_pixels(n, given, mask)
        classes = self.condition(y, n)
        device = self.ordering.device
        uniform = torch.rand(n, self.dims, generator=generator, device=device)
        x = torch.empty(n, *self.shape, dtype=torch.uint8, device=device)
        for rows, ordering in self._visits(known, generator):
            parts = uniform[rows], given[rows], known[rows]
            by_step = [part.T[ordering].contiguous() for part in parts]  # (D, n) each
            choose = self.law.draw(*by_step, temperature)
            if callback is not None:
                choose = self._told(choose, ordering, temperature, callback)
            some = None if classes is None else classes[rows]
            x[rows] = self._visit(choose, len(parts[0]), some, ordering, naive)
        return x

    @torch.no_grad()
    def visit(self, choose, n, y=None):
        """Visit the pixels of `n` images in the model's ordering; `choose` decides of their values.

        Sampling draws them; a decoder reads them in a file; an encoder already knows them.

        Args:
            choose: function `(i, logits, out)`: from the log-odds `(n,)` of the pixels visited at
                step i (or the P parameters of their law, `(n, P)`), it writes their values into
                `out` `(n,)`, floats.
            n, y: as for `sample`.

        Returns:
            integer images `(n, C, H, W)`, uint8.
        """
        return self._visit(choose, n, self.condition(y, n), self.ordering).clone()

    def start_from(self, images):
        """Start near the model of independent pixels: output biases at the data's frequencies.

        Args:
            images: integer images `(N, C, H, W)`, usually `data.train.images`.

        Returns:
            the model itself: `NADE(data.shape).start_from(data.train.images)`.
        """
        check_images(images, self.shape, self.levels)
        with torch.no_grad():
            self.b.copy_(self.law.start(images).view_as(self.b))
        return self

    # ---- shared parts -------------------------------------------------------------------------

    def condition(self, y, n):
        """The condition as the networks receive it: weights `(n, num_classes)`, or None."""
        if self.num_classes is not None:
            return class_weights(y, self.num_classes, n).to(self.dtype)
        if y is not None:
            raise ValueError("this model has no condition: leave y out, or give num_classes")
        return None

    def _logits_in(self, ordering, x, y):
        """`logits`, for any ordering."""
        check_images(x, self.shape, self.levels)
        classes = self.condition(y, len(x))
        x = x.flatten(1).to(self.dtype)
        return self._logits(x, classes, ordering).unflatten(-1, self.shape)

    def _visits(self, known, generator):
        """Which ordering for which images: pairs (rows, ordering). Here, one for all."""
        return [(slice(None), self.ordering)]

    @torch.inference_mode()  # small operations are some 7 % faster than under no_grad
    def _visit(self, choose, n, classes, ordering, naive=False):
        """The loop of `visit`, for weights of the classes and any ordering.

        Returns an inference tensor, which autograd refuses: to be copied.
        """
        stepper = (self._naive_stepper if naive else self._stepper)(classes, n, ordering)
        seen = torch.zeros(self.dims, n, dtype=self.dtype, device=ordering.device)
        for i, pixels in enumerate(seen):
            choose(i, stepper(i, seen), out=pixels)
        return seen[torch.argsort(ordering)].T.reshape(n, *self.shape).to(torch.uint8)

    def _naive_stepper(self, classes, n, ordering):
        """One full pass for each pixel: the oracle of every fast `_stepper`."""

        def step(i, seen):
            x = seen.new_zeros(n, self.dims)
            x[:, ordering[:i]] = seen[:i].T
            return self._logits(x, classes, ordering)[..., ordering[i]]

        return step

    def _told(self, choose, ordering, temperature, callback):
        """The same choices, told to `callback` one by one."""

        def choose_and_tell(i, logits, out):
            choose(i, logits, out)
            callback(ordering[i].item(), out, self.law.probabilities(logits, temperature))

        return choose_and_tell

    def _known_pixels(self, n, given, mask):
        """Check `given` and `mask` -> the images given and which pixels are known, `(n, D)` both.

        With nothing to complete, no pixel is known.
        """
        if n < 1:
            raise ValueError(f"n={n}: expected at least one image")
        if (given is None) != (mask is None):
            raise ValueError("to complete images, give both given=… and mask=… (True where known)")
        if given is None:
            nothing = torch.zeros(n, self.dims, dtype=torch.bool, device=self.ordering.device)
            return nothing, nothing
        check_images(given, self.shape, self.levels)
        given, mask = one_per_image(given, n, "images given"), check_mask(mask, n, self.shape)
        return [part.expand(n, *self.shape).flatten(1) for part in (given, mask)]


def check_ordering(ordering, dims):
    """An ordering of `dims` pixels as an int64 tensor, the raster order for None.

    Raises:
        ValueError: it is no permutation of 0, …, dims − 1.
    """
    if ordering is None:
        return torch.arange(dims)
    ordering = torch.as_tensor(ordering)
    if ordering.is_floating_point() or ordering.dim() != 1 or len(ordering) != dims:
        raise ValueError(
            f"ordering: expected {dims} integers, one per pixel, got {tuple(ordering.shape)} "
            f"{ordering.dtype}"
        )
    ordering = ordering.long().clone()
    if not torch.equal(ordering.sort().values, torch.arange(dims, device=ordering.device)):
        missing = sorted(set(range(dims)) - set(ordering.tolist()))
        raise ValueError(
            f"ordering: expected a permutation of 0, …, {dims - 1}; pixel {missing[0]} is never "
            "visited. torch.randperm(D) draws one"
        )
    return ordering


def visited_before(ordering):
    """`(D, D)` booleans: `[i, j]` is True when pixel j comes before pixel i."""
    position = torch.argsort(ordering)
    return position[:, None] > position[None, :]
