"""The fully visible sigmoid belief network (Neal 1992; Frey, Hinton & Dayan 1996).

    p(xᵢ = 1 | x₍<ᵢ₎) = σ( α₀⁽ⁱ⁾ + Σ_{j before i} αⱼ⁽ⁱ⁾ xⱼ )          (slide 11)

One logistic regression per pixel, on the pixels before it: D(D + 1)/2 free parameters.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .base import AutoregressiveModel, visited_before


class FVSBN(AutoregressiveModel):
    """Fully visible sigmoid belief network; see `AutoregressiveModel` for the arguments.

    `alpha[i]` holds the weights of the logistic regression of pixel i, on all pixels; those of
    pixels that do not come before i are masked, never used and never learned. `b[i]` is α₀⁽ⁱ⁾.
    """

    def __init__(self, shape, *, ordering=None, num_classes=None):
        super().__init__(shape, ordering=ordering, num_classes=num_classes)
        self.alpha = nn.Parameter(torch.zeros(self.dims, self.dims))
        self.b = nn.Parameter(torch.zeros(self.dims))
        if num_classes is not None:
            self.class_b = nn.Parameter(torch.zeros(num_classes, self.dims))

    def mask(self, ordering=None):
        """`(D, D)` booleans: `[i, j]` is True when pixel j comes before pixel i."""
        return visited_before(self.ordering if ordering is None else ordering)

    def _bias(self, classes):
        """Biases of the pixels: `(D,)`, or `(B, D)` when they depend on the class."""
        return self.b if classes is None else self.b + classes @ self.class_b

    def _logits(self, x, classes, ordering):
        return F.linear(x, self.alpha * self.mask(ordering)) + self._bias(classes)

    def _stepper(self, classes, n, ordering):
        # rows and columns in the order of the visit ([:, ordering] is slower than index_select)
        alpha = self.alpha[ordering].index_select(1, ordering).unbind()
        logits = self._bias(classes).expand(n, -1).T[ordering].contiguous().unbind()

        def step(i, seen):  # one product of a row of alpha with the pixels already drawn
            return logits[i].addmv_(seen[:i].T, alpha[i][:i])

        return step
