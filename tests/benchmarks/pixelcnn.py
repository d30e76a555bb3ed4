"""What PixelCNN costs to train and to sample: ratios of times, in one run.

    .venv/bin/python tests/benchmarks/pixelcnn.py

Not collected by the tests: times depend on the machine and on what else it does. All the variants
take turns on one thread, so that a slow moment slows all of them: read the ratios of one run.
"""

import torch
import torch.nn.functional as F
from measure import compare, cpu_time, forward, training_step
from torch import nn

from course_utils import DiagonalBiLSTM, PixelCNN, RowLSTM, load

TRAIN = 32  # images in a training step
FEATURES, LAYERS = 32, 15

# Two timed tasks, the sign and the value of the goal for first / second; no goal: information.
LINES = (
    ("textbook step", "gated step", "≥", 1.2),
    ("gated step", "plain step", "", None),
    ("gated sample 16", "gated forward 16", "≤", 2.0),
    ("gated sample 64", "gated forward 64", "≤", 1.3),
    ("plain sample 16", "plain forward 16", "≤", 8.0),
    ("plain sample 64", "plain forward 64", "≤", 2.5),
    ("Row LSTM sample 16", "Row LSTM forward 16", "", None),
    ("Diagonal BiLSTM sample 16", "Diagonal BiLSTM forward 16", "", None),
    ("gated naive sample 16", "gated sample 16", "", None),
)


class TextbookLayer(nn.Module):
    """A gated layer written as the figure of the paper: whole kernels under masks, maps moved."""

    def __init__(self, in_features, features, kernel_size, first):
        super().__init__()
        self.first, centre = first, kernel_size // 2
        padding = {"padding": centre, "bias": True}
        self.vertical = nn.Conv2d(in_features, 2 * features, kernel_size, **padding)
        self.horizontal = nn.Conv2d(
            in_features, 2 * features, (1, kernel_size), padding=(0, centre)
        )
        self.link = nn.Conv2d(2 * features, 2 * features, 1)
        self.residual = nn.Conv2d(features, features, 1)
        mask = torch.ones(1, 1, kernel_size, kernel_size)
        mask[:, :, centre + 1 :] = 0
        row = torch.ones(1, 1, 1, kernel_size)
        row[..., centre + (0 if first else 1) :] = 0
        self.register_buffer("mask", mask)
        self.register_buffer("row", row)

    def forward(self, v, h):
        above = F.conv2d(
            v, self.vertical.weight * self.mask, self.vertical.bias, padding=self.vertical.padding
        )
        moved = F.pad(above, (0, 0, 1, 0))[:, :, :-1]
        gates = self.link(moved) + F.conv2d(
            h, self.horizontal.weight * self.row, self.horizontal.bias,
            padding=self.horizontal.padding,
        )  # fmt: skip
        new = self.residual(textbook_gate(gates))
        return textbook_gate(above), new if self.first else h + new


def textbook_gate(features):
    a, b = features.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class Textbook(nn.Module):
    """The reference for the training step: the same network, as it is usually written."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            TextbookLayer(FEATURES if i else 1, FEATURES, 3 if i else 7, first=i == 0)
            for i in range(LAYERS)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(FEATURES, FEATURES, 1), nn.ReLU(), nn.Conv2d(FEATURES, 1, 1)
        )

    def loss(self, x):
        v = h = x.float()
        for layer in self.layers:
            v, h = layer(v, h)
        logits = self.head(h)
        return F.binary_cross_entropy_with_logits(logits, x.float(), reduction="sum") / len(x)


def make_models(images):
    shape, size = images.shape[1:], {"features": FEATURES}
    models = {
        "gated": PixelCNN(shape, layers=LAYERS, **size),
        "plain": PixelCNN(shape, layers=LAYERS, gated=False, **size),
        "Row LSTM": RowLSTM(shape, layers=2, **size),
        "Diagonal BiLSTM": DiagonalBiLSTM(shape, layers=1, **size),
    }
    return {name: model.start_from(images).eval() for name, model in models.items()}


def make_tasks(models, images):
    """The functions to time, by name."""
    tasks = {"textbook step": training_step(Textbook(), images[:TRAIN])}
    for name, model in models.items():
        tasks[f"{name} step"] = training_step(model, images[:TRAIN])
        for n in (16, 64):
            tasks[f"{name} forward {n}"] = forward(model, images[:n])
            tasks[f"{name} sample {n}"] = lambda model=model, n=n: model.sample(n)
    return tasks


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = load("digits", levels=2, copies=1).train.images
    models = make_models(images)
    # too slow to take turns: 784 passes, from the time of one
    naive = 784 * cpu_time(forward(models["gated"], images[:16]), 3)
    title = f"28×28, {LAYERS} × {FEATURES}; step: {TRAIN}"
    tasks = make_tasks(models, images)
    compare(title, tasks, LINES, rounds=7, known={"gated naive sample 16": naive})


if __name__ == "__main__":
    main()
