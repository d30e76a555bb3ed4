"""Settings of the unit tests."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

pytest.register_assert_rewrite("exercise_answers")  # a helper whose assertions say what they saw


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    """`fit` trains on the CPU unless a test names another device: one verdict on every machine."""
    monkeypatch.setattr("course_utils.training.choose_device", lambda: torch.device("cpu"))


@pytest.fixture
def no_hint_seen(monkeypatch):
    """The hints of the exercises start from the first, whatever the other tests have seen."""
    monkeypatch.setattr("course_utils.exercises._hints_shown", {})


@pytest.fixture
def no_screen():
    """Figures are drawn in memory, and none is left open."""
    matplotlib.use("Agg")
    plt.close("all")
    yield
    plt.close("all")
