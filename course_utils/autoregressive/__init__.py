"""Autoregressive models of binary images: Markov tables, FVSBN, NADE, MADE.

    p(x) = ∏ᵢ p(xᵢ | x₍<ᵢ₎)        exact, in nats: no bound, no latent variable

`base.py` holds the contract and the samplers; each model has its module, readable beside its paper.
"""

from .base import AutoregressiveModel
from .fvsbn import FVSBN
from .made import MADE, OrderAgnosticMADE
from .markov import MarkovTable, nearest_neighbours
from .nade import NADE

__all__ = [
    "FVSBN",
    "MADE",
    "NADE",
    "AutoregressiveModel",
    "MarkovTable",
    "OrderAgnosticMADE",
    "nearest_neighbours",
]
