"""Arithmetic coding: a likelihood turned into a file, and back (Rissanen 1976; Witten, Neal and
Cleary 1987, « Arithmetic coding for data compression »).

A sequence of bits is an interval inside of [0, 1): each bit keeps its share of the interval, the
first part for a 1, the second for a 0. In the end the interval has the width p(sequence), up to the
rounding of the probabilities. The shortest binary fraction inside, a code of fewer than
−log₂ p + 1 bits, names the sequence.

The start of the interval is one integer that grows with the code: simple, and fast enough for a few
hundred images. A production coder writes its first digits out as soon as they are settled.
"""

import torch

from .data import check_images

PRECISION = 32  # bits of a probability; the width of the interval keeps twice as many


class Encoder:
    """Narrows the interval [low, low + width) / 2**scale, all integers, bit after bit."""

    def __init__(self):
        self.low, self.width, self.scale = 0, 1, 0

    def write(self, bit, probability):
        """Add a bit, knowing the probability that it be 1."""
        zoom = max(0, 2 * PRECISION - self.width.bit_length())
        self.low, self.width, self.scale = self.low << zoom, self.width << zoom, self.scale + zoom
        ones = _share(self.width, probability)
        if bit:
            self.width = ones
        else:
            self.low, self.width = self.low + ones, self.width - ones

    def code(self):
        """The shortest binary fraction inside of the interval, as a string of 0s and 1s."""
        length = max(0, self.scale - self.width.bit_length())
        while True:
            step = 1 << (self.scale - length)
            fraction = -(-self.low // step)  # the first multiple of step from low on
            if fraction * step < self.low + self.width:
                return format(fraction, f"0{length}b") if length else ""
            length += 1


class Decoder:
    """Reads the bits back; needs the same probabilities, to the last digit."""

    def __init__(self, code):
        self.code, self.position = code, 0
        self.offset, self.width = 0, 1  # of the coded fraction, from the start of the interval

    def read(self, probability):
        """The next bit, knowing the probability that it be 1."""
        zoom = max(0, 2 * PRECISION - self.width.bit_length())
        digits = self.code[self.position : self.position + zoom].ljust(zoom, "0")
        self.position += zoom
        self.offset = (self.offset << zoom) + int(digits or "0", 2)
        self.width <<= zoom
        ones = _share(self.width, probability)
        if self.offset < ones:
            self.width = ones
            return 1
        self.offset, self.width = self.offset - ones, self.width - ones
        return 0


def _share(width, probability):
    """The share of a 1 in an interval: an integer, never nothing nor all."""
    scaled = min(max(round(probability * 2**PRECISION), 1), 2**PRECISION - 1)
    return width * scaled >> PRECISION


def compress(model, images, y=None):
    """Write images in about −log₂ p(images) bits: one code for all of them.

    Args:
        model: an autoregressive model of binary images, used in its own ordering: the first one,
            for a mixture of orderings. Both sides must have the same one, on the same machine: a
            probability that differs in its last digit, and all that follows is noise.
        images: integer images `(N, C, H, W)`.
        y: condition of a conditional model.

    Returns:
        bytes.
    """
    _check_binary(model)
    check_images(images, model.shape, model.levels)
    encoder = Encoder()
    pixels = images.flatten(1).T[model.ordering].tolist()  # in the order of the visit

    def choose(i, logits, out):
        for bit, probability in zip(pixels[i], torch.sigmoid(logits.double()).tolist()):
            encoder.write(bit, probability)
        out.copy_(torch.tensor(pixels[i]))

    model.visit(choose, len(images), y)
    code = encoder.code()
    padded = code + "0" * (-len(code) % 8)
    return int(padded or "0", 2).to_bytes(len(padded) // 8, "big")


def decompress(model, data, n, y=None):
    """Undo `compress`, with the same model and the same `y`: bytes -> `n` images `(n, C, H, W)`."""
    _check_binary(model)
    decoder = Decoder("".join(f"{byte:08b}" for byte in data))

    def choose(i, logits, out):
        probabilities = torch.sigmoid(logits.double()).tolist()
        out.copy_(torch.tensor([decoder.read(probability) for probability in probabilities]))

    return model.visit(choose, n, y)


def _check_binary(model):
    if model.levels != 2:
        raise ValueError(f"the coder writes bits, the model's pixels have {model.levels} levels")
