"""The masked autoencoder (Germain, Gregor, Murray & Larochelle 2015, arXiv:1502.03509).

An ordinary network, from all the pixels to all the log-odds, some of whose weights are cut. Hidden
unit k receives a degree m(k): it sees the first m(k) pixels of the visit, and no other.

    pixel d (the d-th visited, from 1) → hidden k      kept when  m(k) ≥ d
    hidden k → hidden k′ of the next layer             kept when  m(k′) ≥ m(k)
    hidden k → output d                                kept when  d > m(k)
    pixel d′ → output d (direct connection)            kept when  d > d′

The paper draws the degrees at random; here they are spread evenly, and sorted.
"""

import math
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from .. import likelihoods
from ..data import layer_sizes
from ..language import tr
from .base import AutoregressiveModel, check_ordering, visited_before


def masks(ordering, degrees):
    """The masks of a network, 1 where a weight is kept: a list of the hidden layers', and V's.

    Args:
        ordering: `(D,)`, the pixels in the order of the visit.
        degrees: the degrees m(k) of each hidden layer, a list of `(units,)`.

    Returns:
        masks of the shape of their weights, `(outputs, inputs)`, floats.
    """
    rank = torch.argsort(ordering) + 1  # d of the paper: the pixel visited first has rank 1
    before, hidden = rank, []
    for m in degrees:
        hidden.append((m[:, None] >= before[None, :]).float())
        before = m
    return hidden, (rank[:, None] > before[None, :]).float()


class MADE(AutoregressiveModel):
    """Masked autoencoder for distribution estimation, in one ordering.

    The masks multiply the weights at each pass; the weights themselves are never edited.

    Args:
        shape, ordering, num_classes: see `AutoregressiveModel`.
        hidden: number of units of each hidden layer; `()` leaves an FVSBN.
        direct: also connect each output to the pixels before it. Without it, a layer of fewer than
            D − 1 units hides some pixels from those that follow: a warning says so.
        dropout: share of the hidden units switched off at each training step.
    """

    def __init__(
        self,
        shape,
        *,
        hidden=(500,),
        direct=True,
        dropout=0.0,
        ordering=None,
        num_classes=None,
    ):
        super().__init__(shape, ordering=ordering, num_classes=num_classes)
        hidden = layer_sizes(hidden)
        if not hidden and not direct:
            raise ValueError("without hidden layers nor direct connections, no pixel sees another")
        if not direct and min(hidden) < self.dims - 1:
            warnings.warn(
                f"hidden={hidden} and direct=False: with fewer than {self.dims - 1} units in a "
                "layer, some pixels no longer see all those before them. Give more units, or "
                "direct=True",
                stacklevel=2,
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: expected a share in [0, 1)")
        self.dropout = dropout
        sizes = [self.dims, *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        self.V = nn.Linear(sizes[-1], self.dims, bias=False) if hidden else None
        self.A = nn.Parameter(torch.zeros(self.dims, self.dims)) if direct else None
        self.b = nn.Parameter(torch.zeros(self.dims))
        if num_classes is not None:
            self.class_b = nn.Parameter(torch.zeros(num_classes, self.dims))
            self.class_hidden = nn.ParameterList(
                nn.Parameter(torch.zeros(num_classes, units)) for units in hidden
            )
        # Degrees spread evenly over 1, …, D − 1, and sorted: the units that see the first i
        # pixels are then the first units of their layer, which the sampler turns into speed.
        for number, units in enumerate(hidden):
            degrees = 1 + torch.arange(units) * max(self.dims - 1, 1) // units
            self.register_buffer(f"degrees{number}", degrees)

    def degrees(self):
        """The degrees m(k) of each hidden layer, a list of `(units,)`."""
        return [getattr(self, f"degrees{number}") for number in range(len(self.layers))]

    def _masks(self, ordering):
        """Those of the hidden layers, of V, and of A if there is one: all the pixels before."""
        hidden, mask_V = masks(ordering, self.degrees())
        return hidden, mask_V, None if self.A is None else visited_before(ordering).float()

    def _biases(self, classes, hidden_masks, mask_A):
        """Biases of the hidden layers and of the outputs, class included; masks: a mixture's."""
        hidden = [layer.bias for layer in self.layers]
        if classes is None:
            return hidden, self.b
        hidden = [bias + classes @ of_class for bias, of_class in zip(hidden, self.class_hidden)]
        return hidden, self.b + classes @ self.class_b

    def _logits(self, x, classes, ordering):
        hidden_masks, mask_V, mask_A = self._masks(ordering)
        biases, out = self._biases(classes, hidden_masks, mask_A)
        if self.A is not None:
            out = out + F.linear(x, self.A * mask_A)
        h = x
        for layer, bias, mask in zip(self.layers, biases, hidden_masks):
            h = F.relu(F.linear(h, layer.weight * mask) + bias)
            h = F.dropout(h, self.dropout, self.training)
        return out if self.V is None else out + F.linear(h, self.V.weight * mask_V)

    def _stepper(self, classes, n, ordering):
        """Each hidden unit is computed once, as soon as the pixels it sees are known.

        The cut weights are zeros here: every product may read a whole layer, units to come
        included. Slicing out those already known would take longer than the zeros do.
        """
        hidden_masks, mask_V, mask_A = self._masks(ordering)
        biases, b = self._biases(classes, hidden_masks, mask_A)
        logits = b.expand(n, -1).T[ordering].contiguous().unbind()  # D rows (n,)
        # lists of rows: indexing a list is faster than indexing a tensor; and on the columns,
        # index_select is several times faster than [:, ordering]
        A = V = None
        if self.A is not None:
            A = (self.A * mask_A)[ordering].index_select(1, ordering).unbind()
        if self.V is not None:
            V = (self.V.weight * mask_V)[ordering].unbind()
        weights = [layer.weight * mask for layer, mask in zip(self.layers, hidden_masks)]
        if weights:
            weights[0] = weights[0].index_select(1, ordering)
        # (H, n): the biases, to which each unit adds its inputs. Copies: they are written to
        h = [bias.expand(n, -1).T.clone(memory_format=torch.contiguous_format) for bias in biases]
        last = h[-1].T if h else None
        # what to compute at step i, layer by layer: the units of degree i, from the layer below
        new = [[] for _ in range(self.dims + 1)]  # an image of one pixel still has degree 1
        for degrees, units, weight, below in zip(self.degrees(), h, weights, [None, *h]):
            counts = torch.bincount(degrees, minlength=self.dims).tolist()
            for i, block in enumerate(zip(units.split(counts), weight.split(counts))):
                if counts[i] > 0:
                    new[i].append((*block, below))

        def step(i, seen):
            for units, weight, below in new[i]:
                units.addmm_(weight, seen if below is None else below).relu_()
            if A is not None:
                logits[i].addmv_(seen.T, A[i])
            if V is not None:
                logits[i].addmv_(last, V[i])
            return logits[i]

        return step


class OrderAgnosticMADE(MADE):
    """One MADE trained in all orderings at once, used as a mixture of a few of them.

    Each training step draws a new ordering (« order-agnostic training »). The model is the mixture

        p(x) = (1/K) Σ_k p(x | ordering k)

    of `num_orderings` fixed orderings: probabilities are averaged, never logits. And any missing
    pixels can be completed: `sample` visits the known ones first.

    To a plain MADE, a pixel that is 0 and a pixel not visited yet look the same. Here each unit
    also learns a weight for « visited », whatever the value: the matrices U of the paper.

    Args:
        num_orderings: K, the number of orderings of the mixture.
        seed: draws them.
        Others: see `MADE`.
    """

    def __init__(self, shape, *, num_orderings=8, seed=0, **options):
        if "ordering" in options:
            raise ValueError("an order-agnostic model has no ordering of its own: leave it out")
        if num_orderings < 1:
            raise ValueError(f"num_orderings={num_orderings}: expected at least one")
        generator = torch.Generator().manual_seed(seed)
        orderings = torch.stack(
            [torch.randperm(math.prod(shape), generator=generator) for _ in range(num_orderings)]
        )
        super().__init__(shape, ordering=orderings[0], **options)
        self.register_buffer("orderings", orderings)  # (K, D)
        self.U_hidden = (
            nn.Parameter(torch.zeros_like(self.layers[0].weight)) if self.layers else None
        )
        self.U_A = nn.Parameter(torch.zeros_like(self.A)) if self.A is not None else None

    def _biases(self, classes, hidden_masks, mask_A):
        """The biases, plus what each unit reads of « visited »: constant for a given ordering."""
        hidden, out = super()._biases(classes, hidden_masks, mask_A)
        if self.U_hidden is not None:
            hidden[0] = hidden[0] + (self.U_hidden * hidden_masks[0]).sum(1)
        if self.U_A is not None:
            out = out + (self.U_A * mask_A).sum(1)
        return hidden, out

    def logits(self, x, y=None, *, ordering=None):
        """Log-odds of each pixel in one ordering (the first of the mixture by default)."""
        ordering = self.ordering if ordering is None else check_ordering(ordering, self.dims)
        return self._logits_in(ordering, x, y)

    def pixel_log_prob(self, x, y=None, *, ordering=None):
        """log p(xᵢ | pixels before it in `ordering`), `(B, C, H, W)`, nats."""
        return likelihoods.bernoulli(x, self.logits(x, y, ordering=ordering))

    def log_prob(self, x, y=None):
        """Exact log p(x) of the mixture, `(B,)`, nats."""
        terms = [
            likelihoods.sum_pixels(self.pixel_log_prob(x, y, ordering=ordering))
            for ordering in self.orderings
        ]
        return torch.logsumexp(torch.stack(terms), 0) - math.log(len(terms))

    loss_name = tr("−log p(x), dans un ordre au hasard")

    def loss(self, x, y=None):
        """Batch mean of −log p(x) in one random ordering, drawn from the global random stream."""
        ordering = torch.randperm(self.dims, device=self.orderings.device)
        return -likelihoods.sum_pixels(self.pixel_log_prob(x, y, ordering=ordering)).mean()

    def _visits(self, known, generator):
        """Each image draws one ordering of the mixture.

        When some pixels are known, they come first: another ordering, of the same network. Nothing
        forces the laws of two orderings to agree.
        """
        device = self.orderings.device
        k = torch.randint(len(self.orderings), (len(known),), generator=generator, device=device)
        orderings = self.orderings[k]  # (n, D)
        hidden = ~known.gather(1, orderings)
        orderings = orderings.gather(1, torch.argsort(hidden.byte(), dim=1, stable=True))
        distinct, which = torch.unique(orderings, dim=0, return_inverse=True)
        return [(which == i, ordering) for i, ordering in enumerate(distinct)]
