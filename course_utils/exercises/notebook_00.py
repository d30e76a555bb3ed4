"""Exercise of notebook 00: from nats to bits, to try the exercise scheme."""

import math

from . import Exercise
from .harness import SameAs, counted


def bits(nats):
    """Convertit des nats en bits."""
    return nats / math.log(2)


Exercise(
    "00.bits",
    bits,
    SameAs(
        bits,
        lambda: [(counted(nats, "nat", ".4g"), [nats]) for nats in (math.log(2), 1.0, 0.0, 81.3)],
        what="un nombre de bits",
        number=True,
        slips=(
            (lambda nats: nats * math.log(2), "C'est nats × log 2 : divisez par log 2."),
            (lambda nats: nats / math.log(10), "C'est le logarithme en base 10."),
        ),
        praise="une pièce équilibrée, log 2 nats, vaut bien 1 bit.",
    ),
    (
        "Un nat se mesure avec le logarithme népérien, un bit avec le logarithme en base 2.",
        "log₂ u = log u / log 2 : divisez par math.log(2).",
    ),
)
