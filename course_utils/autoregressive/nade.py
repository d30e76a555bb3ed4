"""The neural autoregressive distribution estimator (Larochelle & Murray 2011; Uria et al. 2016,
arXiv:1605.02226, Algorithm 1).

    aᵢ = c + Σ_{j before i} W[j] xⱼ       hᵢ = σ(aᵢ)       p(xᵢ = 1 | x₍<ᵢ₎) = σ( V[i]·hᵢ + b[i] )

All the hidden layers share one matrix W, so that aᵢ₊₁ = aᵢ + W[i] xᵢ: all the D hidden layers cost
O(D·H) instead of O(D²·H). W is stored by rows `(D, H)`, one row per pixel: the transpose of the
paper's.
"""

import torch
from torch import nn

from ..data import layer_sizes
from .base import AutoregressiveModel


def recursion(x, a, W, V):
    """The recursion of the paper, as one reads it: V[i]·hᵢ for every pixel.

    Args:
        x: `(D, B)`, the pixels in the order of the visit.
        a: `(B, H)`, the pre-activations before the first pixel, c.
        W, V: `(D, H)`, in the order of the visit.

    Returns:
        `(D, B)`.
    """
    out = []
    for i in range(len(x)):
        h = torch.sigmoid(a)
        out.append(h @ V[i])
        a = a + x[i, :, None] * W[i]
    return torch.stack(out)


class LeanRecursion(torch.autograd.Function):
    """`recursion`, faster and keeping one hidden layer in memory where autograd keeps all D.

    The backward pass walks the pixels in reverse, and finds aᵢ again as aᵢ₊₁ − W[i] xᵢ, up to
    rounding errors. Both passes skip the update of h where a pixel is 0 in the whole batch: a third
    of the time on digits.
    """

    @staticmethod
    def forward(ctx, x, a, W, V):
        a, out = a.clone(), torch.empty_like(x)
        h = torch.sigmoid(a)
        inked = x.any(dim=1).tolist()
        for x_i, W_i, V_i, out_i, ink in zip(x, W, V, out, inked):
            torch.mv(h, V_i, out=out_i)
            if ink:
                torch.sigmoid(a.addr_(x_i, W_i), out=h)  # a += x_i ⊗ W_i
        ctx.inked = inked
        ctx.save_for_backward(x, a, W, V)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, a, W, V = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            raise NotImplementedError("no gradient towards the pixels here: use NADE(lean=False)")
        a, grad = a.clone(), grad.contiguous()
        grad_a, grad_W, grad_V = torch.zeros_like(a), torch.zeros_like(W), torch.empty_like(V)
        h = torch.sigmoid(a)
        slope, product = h - h * h, torch.empty_like(a)  # σ′ = h − h²
        steps = list(zip(x, W, V, grad, grad_W, grad_V, ctx.inked))
        for x_i, W_i, V_i, grad_i, grad_W_i, grad_V_i, ink in reversed(steps):
            if ink:
                torch.mv(grad_a.T, x_i, out=grad_W_i)  # grad_a is still that of aᵢ₊₁
                torch.sigmoid(a.addr_(x_i, W_i, alpha=-1), out=h)  # back to aᵢ and hᵢ
                torch.addcmul(h, h, h, value=-1, out=slope)
            torch.mv(h.T, grad_i, out=grad_V_i)
            torch.mul(slope, V_i, out=product)
            grad_a.addcmul_(product, grad_i[:, None])
        return None, grad_a, grad_W, grad_V


class NADE(AutoregressiveModel):
    """Neural autoregressive distribution estimator, with one hidden layer of sigmoids.

    Args:
        shape, ordering, num_classes: see `AutoregressiveModel`.
        hidden: number H of hidden units.
        lean: use `LeanRecursion`; False for `recursion`: same values, D times the memory.
    """

    def __init__(self, shape, *, hidden=500, ordering=None, num_classes=None, lean=True):
        super().__init__(shape, ordering=ordering, num_classes=num_classes)
        sizes = layer_sizes(hidden)
        if len(sizes) != 1:
            raise ValueError(f"hidden={hidden}: a NADE has one hidden layer; MADE has several")
        (hidden,) = sizes
        self.lean = lean
        scale = self.dims**-0.5
        self.W = nn.Parameter(scale * (2 * torch.rand(self.dims, hidden) - 1))
        self.V = nn.Parameter(scale * (2 * torch.rand(self.dims, hidden) - 1))
        self.b = nn.Parameter(torch.zeros(self.dims))
        self.c = nn.Parameter(torch.zeros(hidden))
        if num_classes is not None:
            self.class_b = nn.Parameter(torch.zeros(num_classes, self.dims))
            self.class_c = nn.Parameter(torch.zeros(num_classes, hidden))

    def _biases(self, classes, n):
        """Biases of the hidden layer `(n, H)` and of the pixels `(n, D)`, class included."""
        hidden, pixels = self.c.expand(n, -1), self.b.expand(n, -1)
        if classes is None:
            return hidden, pixels
        return hidden + classes @ self.class_c, pixels + classes @ self.class_b

    def _logits(self, x, classes, ordering):
        a, b = self._biases(classes, len(x))
        W, V = self.W[ordering], self.V[ordering]
        x = x.T[ordering]  # (D, B): one row per step of the visit
        out = LeanRecursion.apply(x, a, W, V) if self.lean else recursion(x, a, W, V)
        return out[torch.argsort(ordering)].T + b

    def _stepper(self, classes, n, ordering):
        a, b = self._biases(classes, n)
        a, logits = a.clone(), b.T[ordering].contiguous().unbind()
        # lists of rows: indexing a list is faster than indexing a tensor
        W, V = self.W[ordering].unbind(), self.V[ordering].unbind()
        h = torch.sigmoid(a)

        def step(i, seen):
            if i > 0 and seen[i - 1].count_nonzero().item():  # an empty pixel changes nothing
                torch.sigmoid(a.addr_(seen[i - 1], W[i - 1]), out=h)
            return logits[i].addmv_(h, V[i])

        return step
