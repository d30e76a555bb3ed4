"""Weights on disk: safetensors only, nothing unpickled; a file is written whole or not at all."""

import contextlib
import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


def save_weights(model, path, **metadata):
    """Write the weights of `model` to a safetensors file, atomically: the old file or the new one.

    `metadata` (numbers, strings, lists) travels in the file's header as JSON.
    """
    write_tensors(model.state_dict(), path, metadata)


def load_weights(model, path):
    """Load a file of `save_weights` into `model`; return its metadata.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or was written by a model of another shape.
    """
    tensors, metadata = read_tensors(path)
    restore(model, tensors, path)
    return metadata


def copy_weights(model):
    """The weights as they are now, for `load_state_dict`: training goes on without moving them."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def restore(model, tensors, path):
    """Load weights all or nothing: names and shapes are compared first."""
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != expected:
        name = next(n for n in {**expected, **found} if expected.get(n) != found.get(n))
        raise ValueError(
            f"{path} holds the weights of another model: {name} has the shape {found.get(name)}, "
            f"expected {expected.get(name)}"
        )
    model.load_state_dict(tensors)


def write_tensors(tensors, path, metadata):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # clones: safetensors refuses tensors that share their memory, such as tied weights
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"json": json.dumps(metadata)})
        temporary.chmod(0o644)  # safetensors writes files that only their owner can read


@contextlib.contextmanager
def written_whole(path):
    """Write to the file this gives: it replaces `path` at the end, whole, or nothing does."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path):
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            # clones: the tensors of the file stay mapped to it, and it will be rewritten
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            return tensors, json.loads((file.metadata() or {}).get("json", "{}"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and train again") from error
