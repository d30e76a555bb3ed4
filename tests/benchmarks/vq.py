"""What vector quantisation costs: ratios of times, in one run.

    .venv/bin/python tests/benchmarks/vq.py

Not collected by the tests: times depend on the machine and on what else it does. All the variants
take turns on one thread, so that a slow moment slows all of them: read the ratios of one run.
"""

import torch
import torch.nn.functional as F
from measure import compare

from course_utils.vq import VectorQuantizer, nearest_atoms

SHAPE = (64, 64, 32, 32)  # images, dimensions, height, width

# Two timed tasks, the sign and the value of the goal for first / second; no goal: information.
LINES = (
    ("layer 512", "product 512", "≤", 2.2),
    ("layer 1024", "product 1024", "≤", 1.9),
    ("lookup 512", "product 512", "", None),
    ("lookup 1024", "product 1024", "", None),
    ("gradient layer 512", "product 512", "", None),
    ("textbook layer 512", "layer 512", "", None),
)


def layer(quantizer, z):
    """Forward and backward, in training mode."""
    z, upstream = z.clone().requires_grad_(), torch.randn_like(z)

    def run():
        z.grad = None
        z_q, _, codebook, commitment = quantizer(z)
        loss = 0.25 * commitment.sum() + (0 if quantizer.ema else codebook.sum())
        torch.autograd.backward([z_q, loss], [upstream, torch.ones_like(loss)])

    return run


def textbook_layer(codebook, z):
    """As it is usually written: all the distances, a one-hot matrix, `detach`, and averages."""
    z, upstream = z.clone().requires_grad_(), torch.randn_like(z)
    counts, sums = torch.ones(len(codebook)), codebook.clone()

    def run():
        z.grad = None
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        distances = (
            flat.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * flat @ codebook.T
        )
        one_hot = F.one_hot(distances.argmin(1), len(codebook)).float()
        e = (one_hot @ codebook).view(len(z), *z.shape[2:], -1).permute(0, 3, 1, 2)
        with torch.no_grad():
            counts.lerp_(one_hot.sum(0), 0.05)
            sums.lerp_(one_hot.T @ flat, 0.05)
        commitment = 0.25 * (z - e.detach()).square().sum()
        torch.autograd.backward(
            [z + (e - z).detach(), commitment], [upstream, torch.ones_like(commitment)]
        )

    return run


def make_tasks():
    torch.manual_seed(0)
    z = torch.randn(SHAPE)
    flat = z.permute(0, 2, 3, 1).reshape(-1, SHAPE[1])
    tasks = {}
    for num_codes in (512, 1024):
        quantizer = VectorQuantizer(num_codes, SHAPE[1], from_data=False, restart_every=0)
        quantizer.codebook.normal_()
        atoms, out = quantizer.codebook.T.contiguous(), torch.empty(len(flat), num_codes)
        # the one product that no method avoids, into a tensor made in advance
        tasks[f"product {num_codes}"] = lambda a=atoms, out=out: torch.mm(flat, a, out=out)
        tasks[f"lookup {num_codes}"] = lambda c=quantizer.codebook: nearest_atoms(z, c)
        tasks[f"layer {num_codes}"] = layer(quantizer, z)
    gradient = VectorQuantizer(512, SHAPE[1], ema=False, from_data=False, restart_every=0)
    tasks["gradient layer 512"] = layer(gradient, z)
    tasks["textbook layer 512"] = textbook_layer(torch.randn(512, SHAPE[1]), z)
    return tasks


def main():
    torch.set_num_threads(1)
    compare(f"{'×'.join(map(str, SHAPE))}, K after the name", make_tasks(), LINES, rounds=7)


if __name__ == "__main__":
    main()
