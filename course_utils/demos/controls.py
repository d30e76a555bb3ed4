"""The controls that several demos have, and what is written in them."""

import ipywidgets as widgets
import torch

from ..language import tr


def slider(name, value, low, high, width):
    """A slider of whole numbers, `width` pixels wide with its name."""
    return widgets.IntSlider(
        value=value, min=low, max=high, description=name, layout={"width": f"{width}px"}
    )


def number_box(name, value, low, high):
    return widgets.BoundedIntText(
        value=value, min=low, max=high, description=name, layout={"width": "150px"}
    )


def chooser(name, options, width=270, value=None):
    """A list to choose from, its first option at the start unless `value` says another."""
    box = widgets.Dropdown(options=options, description=name, layout={"width": f"{width}px"})
    if value is not None:
        box.value = value
    return box


def another_seed():
    """What a button « another image » calls: a new seed each time, the same ones in each demo."""
    draws = torch.Generator().manual_seed(1)
    return lambda: {"seed": int(torch.randint(10_000, (1,), generator=draws))}


def edits_box():
    """What was changed by hand is a control as well: the reset button forgets it."""
    return widgets.Text(
        value="", disabled=True, description=tr("retouches"), placeholder=tr("aucune"),
        layout={"width": "250px"},
    )  # fmt: skip


def read_edits(text):
    """`"28=1 36=0"` -> `{27: (1,), 35: (0,)}`: cells are counted from 1, as on the slider."""
    pairs = [edit.split("=") for edit in text.split()]
    return {int(cell) - 1: tuple(map(int, values.split(","))) for cell, values in pairs}


def write_edits(edits):
    return " ".join(f"{cell + 1}={','.join(map(str, values))}" for cell, values in edits.items())
