"""What three demos share: a model draws an image one value at a time, and each has its price."""

import math
from typing import NamedTuple

import ipywidgets as widgets
import torch

from ..language import tr
from .controls import chooser, number_box, slider


class Step(NamedTuple):
    """A value drawn: where, which one, and with what probabilities."""

    place: int
    value: int
    law: list

    @property
    def nats(self):
        """−log of the probability of the value."""
        return 0.0 - math.log(max(self.law[self.value], 1e-30))  # never −0.0


def follow(model, label, temperature, seed, *, device="cpu", **known):
    """One image drawn by a model: its steps, in their order; `known` is what it need not draw."""
    steps = []

    def note(place, values, probabilities):
        law = probabilities[0].tolist()  # at once: the tensor will serve again
        law = law if isinstance(law, list) else [1 - law, law]
        steps.append(Step(place, int(values[0]), law))

    model.sample(
        1,
        None if label is None else torch.tensor([label], device=device),
        generator=torch.Generator(device).manual_seed(seed),
        temperature=temperature,
        callback=note,
        **known,
    )
    return steps


def kind_of(models):
    """Shape, levels and number of classes of `{name: model}`, which must have the same."""
    kinds = {(model.shape, model.levels, model.num_classes) for model in models.values()}
    if len(kinds) != 1:
        raise ValueError(
            "the demo needs models of the same images, got (shape, levels, num_classes) = "
            + (" and ".join(sorted(map(str, kinds))) or "none")
        )
    return kinds.pop()


def step_controls(name, start, count, models, kind=None):
    """The controls of such a demo: how many steps, of which model, by which random numbers.

    Args:
        name: of a step, on its slider.
        start, count: number of steps at the start, and at most.
        models: `{name: model}`, of the same kind.
        kind: what the models are called, « modèle » by default.
    """
    controls = {
        "step": slider(name, start, 0, count, width=350),
        "model": chooser(kind or tr("modèle"), list(models)),
        "temperature": widgets.FloatSlider(
            value=1.0, min=0.0, max=2.0, step=0.1, description=tr("température"),
            readout_format=".1f", layout={"width": "270px"}, style={"description_width": "initial"},
        ),
        "seed": number_box(tr("tirage"), 0, 0, 9999),
    }  # fmt: skip
    _, _, num_classes = kind_of(models)
    if num_classes is not None:
        controls["label"] = number_box(tr("classe"), 0, 0, num_classes - 1)
    return controls
