"""The vector-quantised auto-encoder (van den Oord, Vinyals & Kavukcuoglu 2017, arXiv:1711.00937).

    x ─encoder─▶ z_e ─nearest atom─▶ codes ─codebook─▶ z_q ─decoder─▶ parameters of p(x | z_q)

The latent of an image is a small map of codes: h × w integers, each the number of an atom of the
codebook. While the auto-encoder trains, all the codes are equally likely a priori; afterwards, an
autoregressive model (`PixelCNN`, on the maps of codes) learns which of them go together.

Every quantity is summed: nats over the pixels, squared distances over the positions and over the
dimensions of a code.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .autoregressive import PixelCNN
from .data import Dataset, Split, check_images
from .vae import ImageModel

SCORES_AT_ONCE = 2**19  # distances in memory at a time, whatever the number of atoms


def nearest_atoms(z, codebook):
    """For each vector, the number of its nearest atom; the smallest number if several are.

    ‖z − e‖² = ‖z‖² − 2 z·e + ‖e‖², and ‖z‖² is the same for all atoms: one product does it, some
    positions at a time. No difference z − e is formed, and memory does not depend on K.

    Args:
        z: `(B, D, h, w)`.
        codebook: `(K, D)`.

    Returns:
        `(B, h, w)`, int64 in {0, …, K − 1}.
    """
    half_norms = 0.5 * codebook.square().sum(1)
    atoms = codebook.T.contiguous()  # (D, K)
    codes = []
    for image in z:
        vectors = image.flatten(1).T  # (h · w, D)
        chunks = vectors.split(max(1, SCORES_AT_ONCE // len(codebook)))
        codes += [torch.addmm(half_norms, part, atoms, alpha=-1).argmin(1) for part in chunks]
    return torch.cat(codes).view(len(z), *z.shape[2:])


class Quantize(torch.autograd.Function):
    """z_q and the two distances of the objective, with the gradients of the paper (section 3.2).

    The same as

        z_q        = z_e + (e − z_e).detach()               # the gradient is copied to the encoder
        codebook   = ((z_e.detach() − e) ** 2).sum(…)       # moves the atoms
        commitment = ((z_e − e.detach()) ** 2).sum(…)       # moves the encoder

    in half the time and memory: the three share one difference, and z_q is e, bit for bit.
    """

    @staticmethod
    def forward(ctx, z_e, codebook, codes):
        """`z_e` `(B, D, h, w)`, `codes` `(B, h, w)` -> z_q, like z_e, and two distances `(B,)`."""
        z_q = torch.empty_like(z_e).copy_(F.embedding(codes, codebook).movedim(-1, 1))
        difference = z_e - z_q
        ctx.save_for_backward(difference, codes)
        ctx.num_codes = len(codebook)
        distance = difference.flatten(1).square().sum(1)
        return z_q, distance, distance.clone()

    @staticmethod
    def backward(ctx, grad_z_q, grad_codebook, grad_commitment):
        difference, codes = ctx.saved_tensors
        grad_codebook, grad_commitment = (
            2 * grad[:, None, None, None] for grad in (grad_codebook, grad_commitment)
        )
        grad_z_e = torch.addcmul(grad_z_q, grad_commitment, difference)
        grad_atoms = None
        if ctx.needs_input_grad[1]:
            grad_atoms = sum_by_code(-grad_codebook * difference, codes, ctx.num_codes)
        return grad_z_e, grad_atoms, None


def sum_by_code(z, codes, num_codes):
    """Sum of the vectors `(B, D, h, w)` that have each code `(B, h, w)`: `(num_codes, D)`."""
    vectors = z.movedim(1, -1).flatten(0, -2)
    return vectors.new_zeros(num_codes, z.shape[1]).index_add_(0, codes.flatten(), vectors)


class VectorQuantizer(nn.Module):
    """A codebook of K atoms of D dimensions; each vector is replaced by its nearest atom.

    In training mode, `forward` has side effects, all of them on buffers (or, for a gradient
    codebook that restarts atoms, on the entries of the parameter): the first batch gives the atoms
    their first values; with `ema`, the atoms follow the mean of their vectors (appendix A.1 of the
    paper); every `restart_every` steps, the atoms that hardly served since the last time are moved
    onto vectors of the batch, drawn at random.

    Args:
        num_codes: K.
        code_dim: D.
        ema: True: exponential moving averages. False: the atoms are a `Parameter`, which the
            codebook loss moves.
        decay: of the moving averages.
        from_data: take the first atoms from the first batch.
        restart_every: steps; 0 never restarts.
        dead_below: an atom is moved if it served at most this share of what the average atom did;
            0: only those that served nobody.

    Attributes:
        codebook: `(K, D)`; a buffer with `ema`, else a `Parameter`.
    """

    def __init__(
        self,
        num_codes,
        code_dim,
        *,
        ema=True,
        decay=0.95,
        from_data=True,
        restart_every=20,
        dead_below=0.25,
    ):
        super().__init__()
        if num_codes < 2:
            raise ValueError(f"num_codes={num_codes}: expected at least two atoms")
        if code_dim < 1:
            raise ValueError(f"code_dim={code_dim}: expected at least one dimension")
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: expected 0 ≤ decay < 1")
        if restart_every < 0:
            raise ValueError(f"restart_every={restart_every}: expected a number of steps, or 0")
        if not 0 <= dead_below < 1:
            raise ValueError(f"dead_below={dead_below}: expected 0 ≤ dead_below < 1")
        self.num_codes, self.code_dim = num_codes, code_dim
        self.ema, self.decay = ema, decay
        self.restart_every, self.dead_below = restart_every, dead_below
        codebook = torch.empty(num_codes, code_dim).uniform_(-1 / num_codes, 1 / num_codes)
        if ema:
            self.register_buffer("codebook", codebook)
            self.register_buffer("counts", torch.ones(num_codes))  # N_k: moving average of the uses
            self.register_buffer("sums", codebook.clone())  # m_k: and of the sum of the vectors
        else:
            self.codebook = nn.Parameter(codebook)
        self.register_buffer("started", torch.tensor(not from_data))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("uses", torch.zeros(num_codes, dtype=torch.int64))  # since a restart

    def nearest(self, z):
        """`(B, D, h, w)` -> codes `(B, h, w)`, int64."""
        return nearest_atoms(z.detach(), self.codebook.detach())

    def embed(self, codes):
        """Codes `(B, h, w)` -> atoms `(B, D, h, w)`."""
        return F.embedding(codes.long(), self.codebook).movedim(-1, 1)

    def forward(self, z_e):
        """Quantise `(B, D, h, w)`.

        Returns:
            z_q, like z_e, whose gradient goes to z_e unchanged; codes `(B, h, w)`; and two equal
            squared distances `(B,)`: ‖sg[z_e] − e‖², for the codebook, and ‖z_e − sg[e]‖², the
            commitment of the encoder.
        """
        if z_e.dim() != 4 or z_e.shape[1] != self.code_dim:
            raise ValueError(f"expected vectors (B, {self.code_dim}, h, w), got {tuple(z_e.shape)}")
        if self.training and not self.started:
            self._move(torch.ones_like(self.uses, dtype=torch.bool), z_e)
            self.started.fill_(True)
        codes = self.nearest(z_e)
        z_q, codebook, commitment = Quantize.apply(z_e, self.codebook, codes)
        if self.training:  # after z_q: this batch has seen the atoms as they were
            self._learn(z_e, codes)
        return z_q, codes, codebook, commitment

    @torch.no_grad()
    def _learn(self, z_e, codes):
        """What a training step teaches the buffers."""
        uses = codes.flatten().bincount(minlength=self.num_codes)
        self.uses += uses
        self.steps += 1
        if self.ema:
            self.counts.lerp_(uses.float(), 1 - self.decay)
            self.sums.lerp_(sum_by_code(z_e, codes, self.num_codes), 1 - self.decay)
            self.codebook.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])
        if self.restart_every and self.steps % self.restart_every == 0:
            self._move(self.uses <= self.dead_below * self.uses.float().mean(), z_e)
            self.uses.zero_()

    @torch.no_grad()
    def _move(self, which, z_e):
        """Put some atoms, `(K,)` booleans, onto vectors of the batch drawn at random."""
        vectors = z_e.movedim(1, -1).flatten(0, -2)
        count = int(which.sum())
        drawn = torch.randperm(len(vectors), device=z_e.device)[:count]
        if len(drawn) < count:  # fewer vectors than atoms: some are drawn again
            more = torch.randint(len(vectors), (count - len(drawn),), device=z_e.device)
            drawn = torch.cat([drawn, more])
        self.codebook[which] = vectors[drawn]
        if self.ema:
            self.counts[which] = 1.0
            self.sums[which] = vectors[drawn]


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
        options: of the `VectorQuantizer`: `ema`, `decay`, `from_data`, `restart_every`,
            `dead_below`.
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
    options = {"first_kernel_size": 3, "class_map": num_classes is not None} | options
    return PixelCNN(
        model.code_shape,
        levels=model.num_codes,
        num_classes=num_classes,
        embedding=atoms / atoms.std(),
        features=features,
        layers=layers,
        **options,
    )


def perplexity(codes, num_codes):
    """exp(entropy) of the frequencies of codes: how many of the K atoms seem to serve.

    It depends on how many codes are counted: give it those of a whole data set, not of a batch.
    """
    share = codes.flatten().long().bincount(minlength=num_codes).double()
    share = share / share.sum()
    return torch.exp(torch.special.entr(share).sum()).item()
