"""The pixel models by the names that the tests of their laws use."""

from autoregressive_models import PIXEL_KINDS as KINDS
from autoregressive_models import seeded

__all__ = ["KINDS", "seeded"]
