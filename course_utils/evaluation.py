"""Judging the models: comparison tables, a classifier that reads samples, exact small sums.

`python -m course_utils.evaluation` trains the classifier again and rewrites its weights.
"""

import argparse
import html
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from .data import Dataset, Split, load
from .likelihoods import bits_per_dim, gaussian
from .training import fit, load_weights, save_weights

# ---------------------------------------------------------------------------------------------
# Comparing models
# ---------------------------------------------------------------------------------------------


class ComparisonTable:
    """Test log-likelihoods of several models, in nats per image and in bits per dimension.

    >>> table = ComparisonTable(dims=784)
    >>> table.add("VAE, z = 2", vae.log_prob(x), bound=True)
    >>> table                                   # the last line of a cell shows it

    Args:
        dims: number of dimensions C·H·W of an image.
        dequantized_levels: for densities on [0, 1], see `likelihoods.bits_per_dim`.
    """

    def __init__(self, dims, *, dequantized_levels=None):
        self.dims, self.dequantized_levels = dims, dequantized_levels
        self.rows = []

    def add(self, model, log_prob, *, bound=False, note=""):
        """Add a row: the mean of `log_prob` `(B,)`, nats per image, over the images of a test set.

        `bound` marks a lower bound on log p(x) (its negative is then shown with a « ≤ »).
        """
        log_prob = torch.as_tensor(log_prob).detach().cpu()
        if log_prob.dim() != 1 or len(log_prob) == 0 or not log_prob.is_floating_point():
            raise ValueError(
                f"expected the log-likelihood of each image, (B,), got {tuple(log_prob.shape)} "
                f"{log_prob.dtype}"
            )
        if not torch.isfinite(log_prob).all():
            raise ValueError(f"the log-likelihoods of {model!r} are not all finite")
        nats = -log_prob.double().mean().item()
        error = log_prob.double().std(correction=0).item() / math.sqrt(len(log_prob))
        bits = bits_per_dim(nats, self.dims, dequantized_levels=self.dequantized_levels)
        self.rows.append((model, "≤ " if bound else "", nats, error, bits, note))
        return self

    def _cells(self):
        header = ("modèle", "−log p(x), nats/image", "erreur type", "bits/dim", "remarque")
        rows = [
            (model, f"{bound}{nats:.1f}", f"± {error:.1f}", f"{bits:.3f}", note)
            for model, bound, nats, error, bits, note in self.rows
        ]
        width = 5 if any(row[-1] for row in rows) else 4
        return [cells[:width] for cells in (header, *rows)]

    def __repr__(self):
        cells = self._cells()
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells]
        return "\n".join(lines)

    def _repr_html_(self):
        header, *rows = self._cells()

        def line(cells, tag):
            return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)

        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
        return f"<table><thead><tr>{line(header, 'th')}</tr></thead><tbody>{body}</tbody></table>"


# ---------------------------------------------------------------------------------------------
# Reading samples
# ---------------------------------------------------------------------------------------------

CLASSIFIER_PATH = Path(__file__).parents[1] / "data" / "digit_classifier.safetensors"


class DigitClassifier(nn.Module):
    """A small convolutional network that reads digits, grey or binary, 14×14 or 28×28.

    It judges the samples of the generative models: it never sees them while it learns.
    """

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),  # (B, 16, 14, 14)
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),  # (B, 32, 7, 7)
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, intensity):
        """Intensities `(B, 1, H, W)` in [0, 1] -> logits `(B, 10)`."""
        if intensity.dim() != 4 or intensity.shape[1] != 1:
            raise ValueError(f"expected grey images (B, 1, H, W), got {tuple(intensity.shape)}")
        if not intensity.is_floating_point() or not (intensity.min() >= 0 and intensity.max() <= 1):
            raise ValueError(
                f"expected intensities in [0, 1], got {intensity.dtype} in "
                f"[{intensity.min()}, {intensity.max()}]: divide integers by levels − 1"
            )
        if intensity.shape[-2:] != (28, 28):
            intensity = F.interpolate(intensity, (28, 28), mode="bilinear", antialias=True)
        return self.net(intensity)

    def loss(self, x, y=None):
        """Cross-entropy in nats per image, on greys {0, …, 255} randomly binarised or shrunk."""
        intensity = x.float() / 255
        if self.training:
            binary = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
            intensity = torch.where(binary, (intensity > 0.5).float(), intensity)
            if torch.rand(()) < 0.25:
                intensity = F.avg_pool2d(intensity, 2)
        return F.cross_entropy(self(intensity), y)

    @torch.no_grad()
    def read(self, intensity):
        """Intensities `(B, 1, H, W)` in [0, 1] -> most probable class, its probability: `(B,)`."""
        confidence, label = self(intensity).softmax(1).max(1)
        return label, confidence


def train_classifier(*, steps=6000, seed=0, mnist=True, progress=True):
    """Train the classifier on the embedded digits and, with `mnist`, on MNIST as well.

    Returns:
        the model, and the share of each test set it reads correctly, as a dict.
    """
    sources = [load("digits")] + ([load("mnist")] if mnist else [])
    both = Dataset(
        "digits + mnist",
        256,
        *(
            Split(
                torch.cat([getattr(source, part).images for source in sources]),
                torch.cat([getattr(source, part).labels for source in sources]),
            )
            for part in ("train", "val", "test")
        ),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitClassifier()
    options = {"val_size": len(both.val), "patience": None, "progress": progress}
    fit(model, both, conditional=True, steps=steps, seed=seed, **options)
    accuracy = {}
    for source in sources:
        label, _ = model.read(source.test.images.float() / 255)
        accuracy[source.name] = (label == source.test.labels).float().mean().item()
    return model, accuracy


def load_classifier(path=CLASSIFIER_PATH):
    """The committed classifier, ready to read digits (`data/digit_classifier.safetensors`)."""
    model = DigitClassifier()
    load_weights(model, path)
    return model.eval()


def legible_share(images, *, classifier, threshold=0.95):
    """Share of images that the classifier reads with a confidence above `threshold`.

    A crude score of sample quality: it says that a sample looks like *some* digit, not that all
    digits are produced; look at the distribution of the classes as well.

    Args:
        images: intensities `(B, 1, H, W)` in [0, 1].

    Returns:
        a number in [0, 1].
    """
    _, confidence = classifier.read(images)
    return (confidence > threshold).float().mean().item()


def label_fidelity(images, labels, *, classifier):
    """Share of images `(B, 1, H, W)` in [0, 1] that the classifier reads as the `labels` `(B,)`."""
    read, _ = classifier.read(images)
    if read.shape != labels.shape:
        raise ValueError(f"{len(images)} images, labels {tuple(labels.shape)}: expected one each")
    return (read == labels).float().mean().item()


# ---------------------------------------------------------------------------------------------
# Exact sums
# ---------------------------------------------------------------------------------------------

MAX_ENUMERATION = 2**20


def enumerate_images(shape, levels=2):
    """All images of a tiny format, as `(levels^(C·H·W), C, H, W)` integers.

    Raises:
        ValueError: there are more than 2²⁰ of them.
    """
    dims = math.prod(shape)
    if levels**dims > MAX_ENUMERATION:
        raise ValueError(
            f"{levels}^{dims} images of shape {tuple(shape)}: too many to enumerate "
            f"(at most {MAX_ENUMERATION})"
        )
    values = torch.arange(levels, dtype=torch.uint8)
    return torch.cartesian_prod(*[values] * dims).view(-1, *shape)


@torch.no_grad()
def total_probability(log_prob, shape, levels=2, *, batch_size=4096):
    """Σ_x p(x) over all images of a tiny format: 1 for any normalised model.

    Args:
        log_prob: function `(B, C, H, W)` -> `(B,)` in nats, for instance `model.log_prob`.
    """
    batches = enumerate_images(shape, levels).split(batch_size)
    return sum(log_prob(x).double().exp().sum().item() for x in batches)


@torch.no_grad()
def grid_posterior(model, x, *, half_width=4.0, resolution=161):
    """Exact posterior of a VAE with two latent dimensions, by summing over a grid.

    log p(x, z) is computed at every point of a square grid; its logsumexp, with the area of a
    cell, is log p(x) up to the (tiny) error of the quadrature.

    Args:
        model: a `VAE` with `z_dim=2`.
        x: one integer image `(C, H, W)`.
        half_width: the grid covers [−half_width, half_width]².
        resolution: points per side.

    Returns:
        axis `(R,)`, posterior density `(R, R)` at `z = (axis[j], axis[i])`, and log p(x), a float.
    """
    if model.z_dim != 2:
        raise ValueError(f"the grid needs 2 latent dimensions, the model has {model.z_dim}")
    if tuple(x.shape) != model.shape:
        raise ValueError(f"expected one image {model.shape}, got {tuple(x.shape)}")
    axis = torch.linspace(-half_width, half_width, resolution, device=x.device)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    z = torch.stack([z1.flatten(), z2.flatten()], 1)  # (R², 2)
    log_likelihood = torch.cat(
        [model.log_likelihood(x.expand(len(part), *x.shape), part) for part in z.split(4096)]
    )
    log_prior = -0.5 * (z**2).sum(1) - math.log(2 * math.pi)
    log_joint = (log_likelihood + log_prior).cpu().double()
    log_cell = 2 * math.log(2 * half_width / (resolution - 1))
    log_evidence = torch.logsumexp(log_joint, 0) + log_cell
    density = torch.exp(log_joint - log_evidence).view(resolution, resolution)
    return axis.cpu(), density, log_evidence.item()


def best_diagonal_gaussian(axis, density, *, steps=300):
    """The diagonal Gaussian nearest to a posterior known on a grid, in KL(q ‖ posterior).

    What separates it from the posterior is the limit of the Gaussian family; what separates the
    encoder's Gaussian from it is the price of amortisation (Cremer et al. 2018).

    Args:
        axis, density: from `grid_posterior`.

    Returns:
        mu `(2,)`, logvar `(2,)`, and the remaining divergence in nats, a float.
    """
    density = density.double()  # 1e-300 below is zero in float32
    weights = density / density.sum()
    log_posterior = density.clamp(min=1e-300).log()
    z2, z1 = torch.meshgrid(axis.double(), axis.double(), indexing="ij")
    z = torch.stack([z1, z2], -1)  # (R, R, 2)
    mu = (weights[..., None] * z).sum((0, 1))  # start: the moments of the posterior
    logvar = (weights[..., None] * (z - mu) ** 2).sum((0, 1)).log()
    mu, logvar = mu.requires_grad_(), logvar.requires_grad_()
    optimizer = torch.optim.Adam([mu, logvar], lr=0.02)
    for _ in range(steps):
        log_q = gaussian(z, mu.expand_as(z), logvar).sum(-1)
        q = log_q.flatten().softmax(0).view_as(log_q)  # its probabilities on the grid
        gap = (q * (log_q - log_posterior)).sum()
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
    return mu.detach().float(), logvar.detach().float(), gap.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the digit classifier, write its weights.")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--digits-only", action="store_true", help="do without MNIST")
    parser.add_argument("--out", type=Path, default=CLASSIFIER_PATH)
    options = parser.parse_args()
    model, accuracy = train_classifier(
        steps=options.steps, seed=options.seed, mnist=not options.digits_only
    )
    save_weights(model, options.out, accuracy=accuracy, steps=options.steps, seed=options.seed)
    print(f"{options.out}: {accuracy}")
