"""The vector-quantised auto-encoder (van den Oord, Vinyals & Kavukcuoglu 2017, arXiv:1711.00937).

    x ─encoder─▶ z_e ─nearest atom─▶ codes ─codebook─▶ z_q ─decoder─▶ parameters of p(x | z_q)

The latent of an image is a small map of codes: h × w integers, each the number of an atom of the
codebook. While the auto-encoder trains, all the codes are equally likely a priori; afterwards, an
autoregressive model (`PixelCNN`, on the maps of codes) learns which of them go together.

Every quantity is summed: nats over the pixels, squared distances over the positions and over the
dimensions of a code.
"""

from .quantizer import Quantize, VectorQuantizer, nearest_atoms, perplexity
from .vqvae import VQVAE, code_dataset, code_prior

__all__ = [
    "VQVAE",
    "Quantize",
    "VectorQuantizer",
    "code_dataset",
    "code_prior",
    "nearest_atoms",
    "perplexity",
]
