"""Reusable layers, data and tools of the course on auto-encoders and autoregressive models."""

import os

import torch
from threadpoolctl import threadpool_limits

from .autoregressive import (
    FVSBN,
    MADE,
    NADE,
    DiagonalBiLSTM,
    MarkovTable,
    OrderAgnosticMADE,
    PixelCNN,
    RowLSTM,
)
from .cvae import CVAE, CompletionVAE
from .data import load, load_images
from .pretrained import use_pretrained
from .training import fit
from .vae import VAE
from .vq import VQVAE

__all__ = [
    "CVAE",
    "FVSBN",
    "MADE",
    "NADE",
    "VAE",
    "VQVAE",
    "CompletionVAE",
    "DiagonalBiLSTM",
    "MarkovTable",
    "OrderAgnosticMADE",
    "PixelCNN",
    "RowLSTM",
    "fit",
    "load",
    "load_images",
    "use_pretrained",
]
__version__ = "0.1.0"

# Thread policy. The course's networks are small: a second thread gains a third to a half, and two
# notebooks that both want all the cores slow each other down three to four times, a mixture of
# scikit-learn forty times (tests/benchmarks/threads.py measures it). So: one thread, unless
# COURSE_THREADS says otherwise.
_threads = os.environ.get("COURSE_THREADS") or "1"
if not _threads.isdigit() or int(_threads) < 1:
    raise ValueError(f"COURSE_THREADS={_threads!r}: expected a number of threads, 1 or more")
torch.set_num_threads(int(_threads))
threadpool_limits(int(_threads))  # of the libraries that are loaded already; the others will read:
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, _threads)
