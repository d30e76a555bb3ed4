"""Arithmetic coding: nothing is lost, and the code is as long as the likelihood says."""

import math
import random

import pytest
import torch
from autoregressive_models import (
    AGNOSTIC,
    CASES,
    CLASSES,
    SHAPE,
    build,
    labels,
    random_images,
    random_ordering,
)

from course_utils.autoregressive import MarkovTable, PixelCNN
from course_utils.coding import PRECISION, Decoder, Encoder, compress, decompress

# ---- bits -------------------------------------------------------------------------------------

SMALLEST = 2.0**-PRECISION


def encode(bits, probabilities):
    encoder = Encoder()
    for bit, probability in zip(bits, probabilities):
        encoder.write(bit, probability)
        assert encoder.width >= 1, "no bit is impossible: `code` ends"
    return encoder.code()


def decode(code, probabilities):
    decoder = Decoder(code)
    return [decoder.read(probability) for probability in probabilities]


def cost(bits, probabilities):
    """−log₂ p of a sequence, no bit being surer than the coder admits."""
    clamped = [min(max(p, SMALLEST), 1 - SMALLEST) for p in probabilities]
    return -sum(math.log2(p if bit else 1 - p) for bit, p in zip(bits, clamped))


PROBABILITIES = {
    "fair": lambda draw: 0.5,
    "any": lambda draw: draw.random(),
    "extreme": lambda draw: 1 / (1 + math.exp(draw.gauss(0, 15))),
    "certain": lambda draw: draw.choice([0.0, 1.0, 1e-300, SMALLEST / 2, 1 - 1e-16, 0.5]),
}


@pytest.mark.parametrize("likely", [True, False], ids=["drawn by their law", "fair coins"])
@pytest.mark.parametrize("kind", PROBABILITIES)
@pytest.mark.parametrize("length", [1, 2, 3, 10, 1000])
def test_nothing_is_lost_and_the_code_is_short(length, kind, likely):
    draw = random.Random(length)
    for _ in range(30 if length < 1000 else 3):
        probabilities = [PROBABILITIES[kind](draw) for _ in range(length)]
        bits = [int(draw.random() < (p if likely else 0.5)) for p in probabilities]
        code = encode(bits, probabilities)
        assert set(code) <= {"0", "1"}
        assert decode(code, probabilities) == bits
        # each share is rounded down: 1e-6 bit lost at most
        assert len(code) <= cost(bits, probabilities) + 1 + 1e-6


def test_a_code_worked_out_by_hand():
    """1 keeps the first part of the interval, 0 the second; the code is the shortest inside."""
    assert encode([], []) == "" and decode("", []) == []
    assert encode([1], [0.5]) == ""  # [0, 1/2): 0 is inside
    assert encode([0], [0.5]) == "1"  # [1/2, 1)
    assert encode([1, 0], [0.5, 0.5]) == "01"  # [1/4, 1/2)
    assert encode([0, 1], [0.75, 0.5]) == "11"  # [3/4, 7/8)
    assert encode([0, 0], [0.75, 0.5]) == "111"  # [7/8, 1)
    assert encode([1] * 10, [0.999] * 10) == ""  # 0 is inside


def test_a_decoder_reads_the_first_bits_without_the_others():
    """The bits come out one by one; zeros after the code change nothing, other digits do."""
    draw = random.Random(1)
    probabilities = [draw.random() for _ in range(200)]
    bits = [int(draw.random() < p) for p in probabilities]
    code = encode(bits, probabilities)
    for count in (0, 1, 100):
        assert decode(code, probabilities[:count]) == bits[:count]
    assert decode(code + "0" * 100, probabilities) == bits
    half = decode(code[: len(code) // 2], probabilities)
    assert half[:50] == bits[:50] and half != bits


# ---- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["random", "trained"])
@pytest.mark.parametrize(("kind", "num_classes"), [*CASES, ("gated: binary", None)])
def test_images_come_back_and_cost_what_the_model_says(kind, num_classes, state):
    model = build(kind, num_classes, state=state)
    # a mixture is coded in its first ordering
    options = {"ordering": model.ordering} if kind in AGNOSTIC else {}
    for n in (1, 30):
        images, y = random_images(model, n), labels(model, n)
        data = compress(model, images, y)
        assert isinstance(data, bytes)
        found = decompress(model, data, n, y)
        assert found.dtype == torch.uint8 and torch.equal(found, images)
        log_prob = model.pixel_log_prob(images, y, **options).detach().double()
        bits = (-log_prob / math.log(2)).clamp(max=PRECISION).sum().item()
        assert bits / 8 - 1 <= len(data) <= math.ceil((bits + 1 + 1e-3) / 8)


def test_impossible_images_come_back_too():
    """Probabilities that round to 0 or 1: a costly image is not a lost one."""
    model = MarkovTable((1, 4, 4), order=0, ordering=random_ordering(16))
    model.table.fill_(200.0)
    images = torch.tensor([0, 1], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    data = compress(model, images)
    assert torch.equal(decompress(model, data, 2), images)
    assert len(data) == pytest.approx(16 * PRECISION / 8, abs=1)
    assert compress(model, images[1:]) == b""


LEVELS = PixelCNN((1, 2, 2), levels=3, features=4, layers=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: compress(build("FVSBN"), torch.zeros(5, *SHAPE)), TypeError, "float32: quantise"),
        (
            lambda: compress(build("FVSBN"), torch.zeros(5, 1, 3, 2).byte()),
            ValueError,
            "images .B, 1, 2, 3.",
        ),
        (lambda: decompress(build("FVSBN", CLASSES), b"", 2), ValueError, "needs a condition y"),
        (lambda: compress(LEVELS, torch.zeros(1, 1, 2, 2).byte()), ValueError, "3 levels"),
        (lambda: decompress(LEVELS, b"", 1), ValueError, "3 levels"),
    ],
)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
