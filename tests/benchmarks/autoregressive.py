"""What the fast paths of the autoregressive models gain: ratios of times, in one run.

    .venv/bin/python tests/benchmarks/autoregressive.py

Not collected by the tests: times depend on the machine and on what else it does. All the variants
take turns on one thread, so that a slow moment slows all of them: read the ratios of one run.
"""

import torch
import torch.nn.functional as F
from measure import compare, cpu_time, forward, training_step
from torch import nn

from course_utils import FVSBN, MADE, NADE, load

TRAIN, SAMPLE = 100, 16  # images in a training step, images drawn
HIDDEN = 500

# Two timed tasks, the sign and the value of the goal for first / second; no goal: information.
LINES = (
    ("NADE step", "NADE same operations alone", "≤", 1.4),
    ("NADE plain step", "NADE step", "≥", 3.5),
    ("NADE sample", "NADE plain forward", "≤", 1.0),
    ("NADE sample", "NADE forward", "", None),
    ("MADE 1×500 step", "masked MLP step", "≤", 1.15),
    ("MADE 1×500 sample", "MADE 1×500 forward", "≤", 12),
    ("MADE 2×500 sample", "MADE 2×500 forward", "≤", 15),
    ("MADE 1×500 direct sample", "MADE 1×500 direct forward", "", None),
    ("MADE 2×500 direct sample", "MADE 2×500 direct forward", "", None),
    ("MADE 1×500 naive sample", "MADE 1×500 forward", "", None),
    ("FVSBN step", "masked MLP step", "", None),
    ("FVSBN sample", "FVSBN forward", "≤", 15),
)


class MaskedMLP(nn.Module):
    """The reference for MADE: the ordinary masked network, as short as it can be written."""

    def __init__(self, dims, hidden):
        super().__init__()
        self.below, self.above = nn.Linear(dims, hidden), nn.Linear(hidden, dims)
        rank, degrees = torch.arange(dims), torch.randint(0, dims - 1, (hidden,))
        self.register_buffer("mask_below", (degrees[:, None] >= rank).float())
        self.register_buffer("mask_above", (rank[:, None] > degrees).float())

    def loss(self, x):
        x = x.flatten(1).float()
        h = F.relu(F.linear(x, self.mask_below * self.below.weight, self.below.bias))
        logits = F.linear(h, self.mask_above * self.above.weight, self.above.bias)
        return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1).mean()


def same_operations(model, images):
    """A function that does the operations of `LeanRecursion`, both passes, and nothing else.

    No autograd, no memory to allocate: what a training step of NADE would cost if all the rest,
    the optimiser included, were free.
    """
    W, V = model.W.detach(), model.V.detach()
    x = images.flatten(1).float().T.contiguous()
    start = model.c.detach().expand(len(images), -1).contiguous()
    a, h, slope, product, grad_a = (torch.empty_like(start) for _ in range(5))
    out, grad = torch.empty_like(x), torch.randn_like(x)
    grad_W, grad_V = torch.empty_like(W), torch.empty_like(V)
    inked = x.any(dim=1).tolist()
    steps = list(zip(x, W, V, out, grad, grad_W, grad_V, inked))

    def run():
        torch.sigmoid(a.copy_(start), out=h)
        for x_i, W_i, V_i, out_i, _, _, _, ink in steps:
            torch.mv(h, V_i, out=out_i)
            if ink:
                torch.sigmoid(a.addr_(x_i, W_i), out=h)
        grad_a.zero_()
        torch.addcmul(h, h, h, value=-1, out=slope)
        for x_i, W_i, V_i, _, grad_i, grad_W_i, grad_V_i, ink in reversed(steps):
            if ink:
                torch.mv(grad_a.T, x_i, out=grad_W_i)
                torch.sigmoid(a.addr_(x_i, W_i, alpha=-1), out=h)
                torch.addcmul(h, h, h, value=-1, out=slope)
            torch.mv(h.T, grad_i, out=grad_V_i)
            torch.mul(slope, V_i, out=product)
            grad_a.addcmul_(product, grad_i[:, None])

    return run


def make_models(images):
    """The models by name, a few training steps away from independent pixels."""
    shape = images.shape[1:]
    models = {
        "NADE": NADE(shape, hidden=HIDDEN),
        "FVSBN": FVSBN(shape),
        "MADE 1×500": MADE(shape, hidden=(HIDDEN,), direct=False),
        "MADE 2×500": MADE(shape, hidden=(HIDDEN,) * 2, direct=False),
        "MADE 1×500 direct": MADE(shape, hidden=(HIDDEN,)),
        "MADE 2×500 direct": MADE(shape, hidden=(HIDDEN,) * 2),
    }
    for model in models.values():
        step = training_step(model.start_from(images), images[:TRAIN])
        for _ in range(3):
            step()
    models["NADE plain"] = NADE(shape, hidden=HIDDEN, lean=False)
    models["NADE plain"].load_state_dict(models["NADE"].state_dict())
    return models


def make_tasks(models, images):
    """The functions to time, by name."""
    batch, few = images[:TRAIN], images[:SAMPLE]
    tasks = {
        "NADE same operations alone": same_operations(models["NADE"], batch),
        "masked MLP step": training_step(MaskedMLP(models["NADE"].dims, HIDDEN), batch),
    }
    for name, model in models.items():
        tasks[f"{name} step"] = training_step(model, batch)
        tasks[f"{name} forward"] = forward(model, few)
        tasks[f"{name} sample"] = lambda model=model: model.sample(SAMPLE)
    return tasks


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = load("digits", levels=2, copies=1).train.images
    models = make_models(images)
    naive = models["MADE 1×500"]  # too slow to take turns: timed once
    known = {"MADE 1×500 naive sample": cpu_time(lambda: naive.sample(SAMPLE, naive=True))}
    title = f"step: {TRAIN} images; others: {SAMPLE} images"
    compare(title, make_tasks(models, images), LINES, known=known)


if __name__ == "__main__":
    main()
