"""Exercise of notebook 00: from nats to bits, to try the exercise scheme."""

import math

from . import Exercise, Wrong
from .helpers import counted


class Stubs:
    """What the notebook shows: to complete."""

    def bits(nats):
        """Convertit des nats en bits."""
        return ...


class References:
    """One right answer; `solution` shows its source."""

    def bits(nats):
        """Convertit des nats en bits."""
        return nats / math.log(2)


def check_bits(bits):
    for nats in (math.log(2), 1.0, 0.0, 81.3):
        expected, got = References.bits(nats), float(bits(nats))
        if not abs(got - expected) <= 1e-6 * max(1, expected):
            given, right = counted(nats, "nat", ".4g"), counted(expected, "bit", ".8g")
            raise Wrong(f"pour {given}, on attend {right} ; reçu : {got:.8g}.")
    return "une pièce équilibrée, log 2 nats, vaut bien 1 bit."


Exercise(
    "00.bits",
    Stubs.bits,
    References.bits,
    check_bits,
    (
        "Un nat se mesure avec le logarithme népérien, un bit avec le logarithme en base 2.",
        "log₂ u = log u / log 2 : divisez par math.log(2).",
    ),
)
