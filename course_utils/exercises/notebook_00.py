"""Exercise of notebook 00: from nats to bits, to try the exercise scheme."""

import math

from ..language import tr, trn
from . import Exercise
from .harness import SameAs


def bits(nats):
    """Convertit des nats en bits."""
    return nats / math.log(2)


Exercise(
    "00.bits",
    bits,
    SameAs(
        bits,
        lambda: [
            (trn("{count} nat", "{count} nats", format(nats, ".4g")), [nats])
            for nats in (math.log(2), 1.0, 0.0, 81.3)
        ],
        what=tr("un nombre de bits"),
        number=True,
        slips=(
            (lambda nats: nats * math.log(2), tr("C'est nats × log 2 : divisez par log 2.")),
            (lambda nats: nats / math.log(10), tr("C'est le logarithme en base 10.")),
        ),
        praise=tr("une pièce équilibrée, log 2 nats, vaut bien 1 bit."),
    ),
    (
        tr("Un nat se mesure avec le logarithme népérien, un bit avec le logarithme en base 2."),
        tr("log₂ u = log u / log 2 : divisez par math.log(2)."),
    ),
)
