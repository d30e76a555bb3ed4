"""Autoregressive models: Markov tables, FVSBN, NADE, MADE, PixelCNN and PixelRNN.

    p(x) = ∏ᵢ p(xᵢ | x₍<ᵢ₎)        exact, in nats: no bound, no latent variable

`base.py` holds the contract and the sampler, `laws.py` the law of one pixel, `pixels.py` what
PixelCNN and PixelRNN share; each model has its module, readable beside its paper.
"""

from .base import AutoregressiveModel
from .fvsbn import FVSBN
from .made import MADE, OrderAgnosticMADE
from .markov import MarkovTable, nearest_neighbours
from .nade import NADE
from .pixelcnn import PixelCNN
from .pixelrnn import DiagonalBiLSTM, RowLSTM

__all__ = [
    "DiagonalBiLSTM",
    "FVSBN",
    "MADE",
    "NADE",
    "AutoregressiveModel",
    "MarkovTable",
    "OrderAgnosticMADE",
    "PixelCNN",
    "RowLSTM",
    "nearest_neighbours",
]
