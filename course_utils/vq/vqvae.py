"""The auto-encoder around the codebook, and the prior of its codes."""

import math

import torch
from torch import nn

from ..autoregressive import PixelCNN
from ..data import Dataset, Split, check_images
from ..vae import ImageModel
from .quantizer import VectorQuantizer


class ResidualBlock(nn.Module):
    """ReLU, 3×3, ReLU, 1×1, beside a residual link."""

    def __init__(self, features):
        super().__init__()
        self.net = nn.Sequential(
            nn.ReLU(), nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(), nn.Conv2d(features, features, 1),
        )  # fmt: skip

    def forward(self, h):
        return h + self.net(h)


class _Decoder(nn.Module):
    def __init__(self, shape, code_dim, features, blocks, num_parameters):
        super().__init__()
        self.num_parameters = num_parameters
        self.net = nn.Sequential(
            nn.Conv2d(code_dim, features, 3, padding=1),
            *(ResidualBlock(features) for _ in range(blocks)),
            nn.ReLU(),
            nn.ConvTranspose2d(features, features, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(features, num_parameters * shape[0], 4, stride=2, padding=1),
        )

    def forward(self, z_q, condition=None):
        return self.net(z_q).unflatten(1, (self.num_parameters, -1))


class VQVAE(ImageModel):
    """Auto-encoder with discrete codes: a map of h × w = H/4 × W/4 atoms per image.

    Codes are handled as small integer images, `(B, 1, h, w)` in {0, …, K − 1}: `encode` makes them,
    `decode_codes` reads them, and any autoregressive model of such images can be their prior.

    Args:
        shape, levels, likelihood, scale: as for `VAE`; H and W are multiples of 4.
        num_codes: K, size of the codebook; at most 256, a code being stored in one byte.
        code_dim: D, dimensions of an atom.
        features: of the convolutions.
        blocks: residual blocks of the encoder, and of the decoder. Each lets an atom see, and draw,
            farther: better reconstructions, codes that are harder to predict.
        beta: weight of the commitment in `loss`.
        options: of the `VectorQuantizer`: `ema`, `decay`, `from_data`, `restart_every`.
    """

    def __init__(
        self,
        shape,
        *,
        levels=2,
        num_codes=64,
        code_dim=16,
        features=32,
        blocks=0,
        likelihood="bernoulli",
        scale=None,
        beta=0.25,
        **options,
    ):
        super().__init__(shape, levels, likelihood, scale)
        channels, height, width = self.shape
        if height % 4 or width % 4:
            raise ValueError(f"shape={shape}: expected a height and a width multiple of 4")
        if num_codes > 256:
            raise ValueError(f"num_codes={num_codes}: expected at most 256")
        if beta < 0:
            raise ValueError(f"beta={beta}: the weight of the commitment cannot be negative")
        self.beta, self.num_codes = beta, num_codes
        self.code_shape = (1, height // 4, width // 4)
        self.latent_shape = (code_dim, height // 4, width // 4)
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, features, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 4, stride=2, padding=1),
            *(ResidualBlock(features) for _ in range(blocks)),
            nn.ReLU(),
            nn.Conv2d(features, code_dim, 1),
        )
        self.quantizer = VectorQuantizer(num_codes, code_dim, **options)
        self.decoder = _Decoder(self.shape, code_dim, features, blocks, self.num_parameters)

    # ---- images and codes ---------------------------------------------------------------------

    def encode(self, x):
        """Integer images `(B, C, H, W)` -> codes `(B, 1, h, w)`, uint8."""
        return self.quantizer.nearest(self.embed_images(x))[:, None].to(torch.uint8)

    def embed_images(self, x):
        """Integer images `(B, C, H, W)` -> z_e `(B, D, h, w)`, before quantisation."""
        check_images(x, self.shape, self.levels)
        # channels last in memory: the convolutions prefer it
        return self.encoder(self._intensity(x).to(memory_format=torch.channels_last))

    def embed(self, codes):
        """Codes `(B, 1, h, w)` -> z_q `(B, D, h, w)`."""
        check_images(codes, self.code_shape, self.num_codes)
        return self.quantizer.embed(codes[:, 0])

    def decode_codes(self, codes):
        """Codes `(B, 1, h, w)` -> expected intensity of each pixel `(B, C, H, W)`, in [0, 1]."""
        return self.decode(self.embed(codes))

    # ---- the contract of the course -----------------------------------------------------------

    def loss_terms(self, x):
        """log p(x | z_q), nats, ‖sg[z_e] − e‖² and ‖z_e − sg[e]‖²: `(B,)` each."""
        z_q, _, codebook, commitment = self.quantizer(self.embed_images(x))
        return self.log_likelihood(x, z_q), codebook, commitment

    @property
    def loss_name(self):
        weight = self.beta if self.quantizer.ema else 1 + self.beta  # the two distances are equal
        return f"−log p(x|z_q) + {weight:g} ‖z_e − e‖²"

    def loss(self, x, y=None):
        """Batch mean of −log p(x | z_q) + ‖sg[z_e] − e‖² + β ‖z_e − sg[e]‖² (eq. 3).

        Without the second term if the codebook follows moving averages: it would move nothing.
        """
        self.condition(y, len(x))
        log_likelihood, codebook, commitment = self.loss_terms(x)
        loss = self.beta * commitment - log_likelihood
        return (loss if self.quantizer.ema else loss + codebook).mean()

    def elbo(self, x, y=None, *, prior=None):
        """Lower bound on log p(x): log p(x | z_q) + log P(codes).

        q(z | x) puts all its mass on one map of codes: its entropy is zero, and the bound is one
        term of the sum log Σ_codes P(codes) p(x | codes).

        Args:
            x: integer images `(B, C, H, W)`.
            y: condition of the prior, if it has one.
            prior: model of the codes, with `log_prob(codes, y)`; None: all maps equally likely,
                h·w·log K nats.

        Returns:
            `(B,)`, nats per image.
        """
        codes = self.encode(x)
        if prior is None:
            self.condition(y, len(x))
            log_prior = -math.prod(self.code_shape) * math.log(self.num_codes)
        else:
            log_prior = prior.log_prob(codes, y)
        return self.log_likelihood(x, self.embed(codes)) + log_prior

    def log_prob(self, x, y=None, *, prior=None):
        """The bound of `elbo`: no other code is tried."""
        return self.elbo(x, y, prior=prior)

    @torch.no_grad()
    def sample(self, n, y=None, *, prior=None, temperature=1.0, generator=None):
        """Draw `n` integer images `(n, C, H, W)`: codes, then every pixel ~ p(x | z_q).

        Args:
            y, temperature: given to the prior.
            prior: model of the codes, with `sample(n, y, …)`; None: uniform codes.
        """
        if prior is None:
            self.condition(y, n)
            size, device = (n, *self.code_shape), self.quantizer.codebook.device
            codes = torch.randint(self.num_codes, size, generator=generator, device=device)
        else:
            codes = prior.sample(n, y, temperature=temperature, generator=generator)
        return self.sample_pixels(self.embed(codes), generator=generator)


@torch.no_grad()
def code_dataset(model, data):
    """The codes of a data set, as a data set: images `(N, 1, h, w)` of K levels, same labels.

    A prior then trains like any model: `fit(code_prior(vqvae), code_dataset(vqvae, data))`.
    """

    def codes_of(part):
        codes = [model.encode(images) for images in part.images.split(500)]
        return Split(torch.cat(codes), part.labels)

    parts = (codes_of(part) for part in (data.train, data.val, data.test))
    return Dataset(f"codes of {data.name}", model.num_codes, *parts)


def code_prior(model, *, num_classes=None, features=32, layers=4, **options):
    """A gated PixelCNN for the codes of a `VQVAE`, to be trained on `code_dataset`.

    A code is a name, not a quantity: the network reads the atoms themselves (centred, of unit
    variance). With classes, each has its own map of biases.

    Args:
        model: a trained `VQVAE`.
        num_classes, features, layers, options: of the `PixelCNN`.
    """
    atoms = model.quantizer.codebook.detach()
    atoms = atoms - atoms.mean(0)
    spread = atoms.std().clamp(min=1e-6)  # zero if the codebook has collapsed into one point
    options = {"first_kernel_size": 3, "class_map": num_classes is not None} | options
    return PixelCNN(
        model.code_shape,
        levels=model.num_codes,
        num_classes=num_classes,
        embedding=atoms / spread,
        features=features,
        layers=layers,
        **options,
    )
