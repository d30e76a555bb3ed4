"""Arithmetic coding: nothing is lost, and the code is as long as the likelihood says."""

import math
import random

import pytest
import torch
from autoregressive_models import (
    AGNOSTIC,
    CASES,
    CLASSES,
    KINDS,
    SHAPE,
    build,
    chain_images,
    labels,
    random_images,
    random_ordering,
)

from course_utils.autoregressive import MADE, MarkovTable, PixelCNN
from course_utils.coding import PRECISION, Decoder, Encoder, compress, decompress

# ---- bits -------------------------------------------------------------------------------------

SMALLEST = 2.0**-PRECISION


def encode(bits, probabilities):
    encoder = Encoder()
    for bit, probability in zip(bits, probabilities):
        encoder.write(bit, probability)
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


@pytest.mark.parametrize("probability", [0.0, 1e-300, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("bit", [0, 1])
def test_no_bit_is_impossible(bit, probability):
    """Whatever the probability, something is left of the interval: `code` ends."""
    encoder = Encoder()
    for _ in range(5):
        encoder.write(bit, probability)
        assert encoder.width >= 1


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


def test_the_code_is_not_shorter_than_the_information():
    """On average: no code beats the entropy."""
    draw = random.Random(0)
    probabilities = [0.1] * 2000
    bits = [int(draw.random() < 0.1) for _ in probabilities]
    assert len(encode(bits, probabilities)) >= cost(bits, probabilities) - 1


def test_a_code_worked_out_by_hand():
    """1 keeps the first part of the interval, 0 the second; the code is the shortest inside."""
    assert encode([1], [0.5]) == ""  # [0, 1/2): 0 is inside
    assert encode([0], [0.5]) == "1"  # [1/2, 1)
    assert encode([1, 0], [0.5, 0.5]) == "01"  # [1/4, 1/2)
    assert encode([0, 1], [0.75, 0.5]) == "11"  # [3/4, 7/8)
    assert encode([0, 0], [0.75, 0.5]) == "111"  # [7/8, 1)
    assert encode([1] * 10, [0.999] * 10) == ""  # 0 is inside


def test_the_empty_sequence_has_an_empty_code():
    assert Encoder().code() == "" and decode("", []) == []


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


def test_the_code_can_be_read_at_any_time():
    """Asking for the code leaves the encoder as it was."""
    encoder, bits, probabilities = Encoder(), [1, 0, 0, 1, 1, 0], [0.3, 0.2, 0.9, 0.6, 0.01, 0.5]
    for count, (bit, probability) in enumerate(zip(bits, probabilities), start=1):
        encoder.write(bit, probability)
        assert encoder.code() == encode(bits[:count], probabilities[:count])


# ---- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["random", "trained"])
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_images_come_back_and_cost_what_the_model_says(kind, num_classes, state):
    model = build(kind, num_classes, state=state)
    images, y = random_images(model, 30), labels(model, 30)
    data = compress(model, images, y)
    assert isinstance(data, bytes)
    found = decompress(model, data, 30, y)
    assert found.dtype == torch.uint8 and torch.equal(found, images)
    # a mixture is coded in its first ordering
    options = {"ordering": model.ordering} if kind in AGNOSTIC else {}
    log_prob = model.pixel_log_prob(images, y, **options).detach().double()
    bits = (-log_prob / math.log(2)).clamp(max=PRECISION).sum().item()
    assert bits / 8 - 1 <= len(data) <= math.ceil((bits + 1 + 1e-3) / 8)


def test_a_better_model_makes_a_smaller_file():
    images, _ = chain_images(500)
    sizes = [
        len(compress(MarkovTable(SHAPE, order=order).count(images), images)) for order in (0, 1)
    ]
    fair = len(compress(MarkovTable(SHAPE, order=0), images))
    assert fair == 500 * 6 / 8
    assert sizes[0] <= fair and sizes[1] < 0.85 * sizes[0]


@pytest.mark.parametrize("kind", KINDS)
def test_one_image(kind):
    model = build(kind)
    for image in random_images(model, 10):
        data = compress(model, image[None])
        assert torch.equal(decompress(model, data, 1), image[None])


def test_impossible_images_come_back_too():
    """Probabilities that round to 0 or 1: a costly image is not a lost one."""
    model = MarkovTable((1, 4, 4), order=0, ordering=random_ordering(16))
    model.table.fill_(200.0)
    images = torch.tensor([0, 1], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    data = compress(model, images)
    assert torch.equal(decompress(model, data, 2), images)
    assert len(data) == pytest.approx(16 * PRECISION / 8, abs=1)
    assert compress(model, images[1:]) == b""


@pytest.mark.parametrize(
    "other",
    [
        lambda: build("MADE, 1 layer", state="trained"),
        lambda: build("MADE, 1 layer", seed=9),
        lambda: MADE(SHAPE),
    ],
    ids=["other weights", "other ordering", "untrained"],
)
def test_another_model_reads_other_images(other):
    model = build("MADE, 1 layer")
    images = random_images(model, 30)
    found = decompress(other(), compress(model, images), 30)
    assert found.shape == images.shape and found.max() <= 1
    assert not torch.equal(found, images)


def test_another_class_reads_other_images():
    model = build("MADE, 1 layer", CLASSES)
    images, y = random_images(model, 30), labels(model, 30)
    data = compress(model, images, y)
    assert not torch.equal(decompress(model, data, 30, (y + 1) % CLASSES), images)
    with pytest.raises(ValueError, match="needs a condition y"):
        decompress(model, data, 30)


def test_only_images_of_the_model_are_compressed():
    with pytest.raises(TypeError, match="float32: quantise"):
        compress(build("FVSBN"), torch.zeros(5, *SHAPE))
    with pytest.raises(ValueError, match=r"images \(B, 1, 2, 3\)"):
        compress(build("FVSBN"), torch.zeros(5, 1, 3, 2, dtype=torch.uint8))


def test_only_bits_are_coded():
    model = PixelCNN((1, 2, 2), levels=3, features=4, layers=1)
    for coder in (
        lambda: compress(model, torch.zeros(1, 1, 2, 2, dtype=torch.uint8)),
        lambda: decompress(model, b"", 1),
    ):
        with pytest.raises(ValueError, match="3 levels"):
            coder()


def test_a_pixelcnn_compresses_too():
    """The cached sampler gives the coder and the decoder the same log-odds."""
    torch.manual_seed(0)
    model = PixelCNN((1, 4, 5), features=6, layers=3, first_kernel_size=3)
    images = torch.randint(2, (7, 1, 4, 5), dtype=torch.uint8)
    assert torch.equal(decompress(model, compress(model, images), 7), images)
