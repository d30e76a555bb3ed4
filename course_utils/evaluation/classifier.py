"""A classifier that reads digits, to judge the samples of the models."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..data import Dataset, Split
from ..training import fit
from ..weights import load_weights

CLASSIFIER_PATH = Path(__file__).parents[2] / "data" / "digit_classifier.safetensors"


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


def train_classifier(*sources, steps=6000, seed=0, progress=True):
    """Train the classifier on grey data sets of digits, `load("digits")` for one.

    Returns:
        the model, and the share of each test set it reads correctly, as a dict.
    """
    together = Dataset(
        " + ".join(source.name for source in sources),
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
    options = {"val_size": len(together.val), "patience": None, "progress": progress}
    fit(model, together, conditional=True, steps=steps, seed=seed, **options)
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


def legible_share(images, *, classifier):
    """Share of images that the classifier reads with a confidence above 95 %.

    A crude score of sample quality: it says that a sample looks like *some* digit, not that all
    digits are produced; look at the distribution of the classes as well.

    Args:
        images: intensities `(B, 1, H, W)` in [0, 1].

    Returns:
        a number in [0, 1].
    """
    _, confidence = classifier.read(images)
    return (confidence > 0.95).float().mean().item()


def label_fidelity(images, labels, *, classifier):
    """Share of images `(B, 1, H, W)` in [0, 1] that the classifier reads as the `labels` `(B,)`."""
    read, _ = classifier.read(images)
    if read.shape != labels.shape:
        raise ValueError(f"{len(images)} images, labels {tuple(labels.shape)}: expected one each")
    return (read == labels).float().mean().item()
