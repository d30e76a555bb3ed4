"""Settings of the unit tests."""

import matplotlib
import matplotlib.pyplot as plt
import pytest


@pytest.fixture
def no_screen():
    """Figures are drawn in memory, and none is left open."""
    matplotlib.use("Agg")
    plt.close("all")
    yield
    plt.close("all")
