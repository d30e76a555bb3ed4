"""Models trained beforehand, in `data/weights/`, that `fit` loads instead of training.

`use_pretrained(True)`, or `COURSE_PRETRAINED=1` in the environment, asks for it: an instructor then
runs a notebook without waiting. `python3 course.py weights` makes the files again: it runs the
notebooks with `COURSE_PRETRAINED=record`, so that the recipe of a model is written in one place,
the cell that trains it. With `COURSE_PRETRAINED=try`, as the tests do, each training begins, must
learn something, and the model is then loaded.

A file holds the weights, the learning curves, and the validation loss to be found again with them.
A file that is missing, damaged, or does not find its loss again is not used: the model trains.
"""

import os
from pathlib import Path

import torch

from .language import N_, tr
from .weights import copy_weights, read_tensors, restore, write_tensors

FOLDER = Path(__file__).parents[1] / "data" / "weights"
PART_BYTES = 1_000_000  # a larger model is cut in several files
ROUNDING = 1e-3  # how much of its validation loss a model may lose to the rounding of its weights
AGREEMENT = 5e-3  # and how far from the recorded one the loss may be, on another machine

_chosen = None  # by `use_pretrained`


LOADED = N_(
    "Les modèles déjà entraînés seront chargés : seules de petites démonstrations s'entraînent ici."
)


class UnusableWeights(Exception):
    """Why a file is not used, in a sentence."""


def use_pretrained(choice=None):
    """Say whether `fit` loads models trained beforehand (True) or trains them (False).

    None: as `COURSE_PRETRAINED` says, `1` or `0`; by default, models are trained.
    """
    global _chosen
    _chosen = choice
    if pretrained_mode() == "load":
        print(tr(LOADED))


def pretrained_mode():
    """`"train"`; `"load"`; `"try"`: begin to train, then load; `"record"`: train, and keep."""
    if _chosen is not None:
        return "load" if _chosen else "train"
    modes = {"": "train", "0": "train", "1": "load", "try": "try", "record": "record"}
    asked = os.environ.get("COURSE_PRETRAINED", "")
    if asked not in modes:
        raise ValueError(f"COURSE_PRETRAINED={asked!r}: expected 1 (load), 0 (train), try, record")
    return modes[asked]


def load_pretrained(name, model, recipe, validate):
    """Give a model its recorded weights; if they cannot be used, it keeps those it has.

    Args:
        name: of the file, without its suffix.
        model: of the same shape as the one recorded.
        recipe: how it would be trained, a dict; the file's must be the same.
        validate: function that returns the validation loss of the model.

    Returns:
        the recorded learning curves, a dict.

    Raises:
        UnusableWeights: with the reason.
    """
    tensors, metadata = _read(name)
    changed = [key for key in recipe if metadata["recipe"].get(key) != recipe[key]]
    if changed:
        here = ", ".join(f"{key} = {recipe[key]}" for key in changed)
        there = ", ".join(f"{key} = {metadata['recipe'].get(key)}" for key in changed)
        reason = tr(
            "Le fichier « {name} » vient d'un autre entraînement ({there} ; ici, {here}).",
            name=name, there=there, here=here,
        )  # fmt: skip
        raise UnusableWeights(reason)
    before = copy_weights(model)
    try:
        restore(model, _decoded(tensors), f"{name}.safetensors")
    except ValueError:
        reason = tr(
            "Le fichier « {name} » est celui d'un modèle d'une autre taille, ou d'autres options.",
            name=name,
        )
        raise UnusableWeights(reason) from None
    found, expected = validate(), metadata["loss"]
    if not abs(found - expected) <= AGREEMENT * abs(expected):
        model.load_state_dict(before)
        reason = tr(
            "Le fichier « {name} » ne retrouve pas son score ({found:.2f} nats/image au lieu "
            "de {expected:.2f}) : le modèle, ou les données, ne sont plus les mêmes.",
            name=name, found=found, expected=expected,
        )  # fmt: skip
        raise UnusableWeights(reason)
    return metadata["history"]


def save_pretrained(name, model, recipe, history, validate):
    """Record a trained model, and leave it with the weights that its file gives back.

    The weights are rounded, to 8 bits, else to 16, as long as the validation loss hardly changes.

    Args:
        history: the learning curves, a dict. The others: as for `load_pretrained`.
    """
    exact = copy_weights(model)
    loss = validate()
    for encode in (_on_8_bits, _on_16_bits, dict):
        tensors = encode(exact)
        model.load_state_dict(_decoded(tensors))
        rounded = validate()
        if abs(rounded - loss) <= ROUNDING * abs(loss):
            break
    parts = _parts(tensors)
    metadata = {"recipe": recipe, "history": history, "loss": rounded, "parts": len(parts)}
    for number, part in enumerate(parts):
        write_tensors(part, _path(name, number), metadata if number == 0 else {})


def _path(name, number=0):
    """`name.safetensors`, then `name.2.safetensors`…"""
    return FOLDER / (f"{name}.{number + 1}.safetensors" if number else f"{name}.safetensors")


def _read(name):
    """All the tensors of a model, as they are in its files, and what is written beside them."""
    try:
        tensors, metadata = read_tensors(_path(name))
        for number in range(1, metadata["parts"]):
            tensors |= read_tensors(_path(name, number))[0]
    except FileNotFoundError:
        reason = tr("Le fichier « {name} » manque dans data/weights/.", name=name)
        raise UnusableWeights(reason) from None
    except (ValueError, KeyError):
        reason = tr("Le fichier « {name} » est abîmé : téléchargez-le de nouveau.", name=name)
        raise UnusableWeights(reason) from None
    return tensors, metadata


def _parts(tensors):
    """Tensors in their order, cut where a file would be too large."""
    parts, size = [{}], 0
    for key, value in tensors.items():
        if parts[-1] and size + value.nbytes > PART_BYTES - 50_000:  # room for the header
            parts.append({})
            size = 0
        parts[-1][key] = value
        size += value.nbytes
    return parts


# ---------------------------------------------------------------------------------------------
# Rounding
# ---------------------------------------------------------------------------------------------

SCALE = "/scale"


def _on_8_bits(tensors):
    """Matrices and kernels as integers of [−127, 127], with a scale per row; the rest as it is."""
    encoded = {}
    for key, value in tensors.items():
        if value.is_floating_point() and value.dim() > 1:
            largest = value.flatten(1).abs().amax(1).clamp(min=1e-12)
            scale = (largest / 127).view(-1, *[1] * (value.dim() - 1))
            encoded[key] = (value / scale).round().to(torch.int8)
            encoded[key + SCALE] = scale
        else:
            encoded[key] = value
    return encoded


def _on_16_bits(tensors):
    return {key: value.half() if value.is_floating_point() else value
            for key, value in tensors.items()}  # fmt: skip


def _decoded(tensors):
    return {
        key: value.float() * tensors[key + SCALE] if key + SCALE in tensors else value
        for key, value in tensors.items()
        if not key.endswith(SCALE)
    }
