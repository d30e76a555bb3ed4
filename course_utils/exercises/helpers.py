"""What the checks of several notebooks share: calling an answer, reading it, comparing it."""

import contextlib
import functools
import signal
import threading

import torch

from ..data import load
from ..training import fit
from . import Wrong


def call(answer, *inputs):
    """Call the answer on copies, so that it may edit them: float64, or float32 where it insists."""
    try:
        return answer(*(x.clone() if isinstance(x, torch.Tensor) else x for x in inputs))
    except RuntimeError as error:
        try:
            return answer(*map(_as_float32, inputs))
        except Exception:
            raise error from None  # the first is the one to read


def _as_float32(x):
    """A copy; labels and whatever is no tensor stay as they are."""
    if not isinstance(x, torch.Tensor):
        return x
    return x.to(torch.float32 if x.is_floating_point() else x.dtype, copy=True)


@contextlib.contextmanager
def time_limit(seconds, hint=None):
    """Stop an answer that runs without end, with a `Wrong` (where the system has alarms)."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() != threading.main_thread():
        yield
        return

    def stop(*_):
        raise Wrong(f"au bout de {seconds} s, votre fonction tourne encore.", hint=hint)

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def as_tensor(value, shape, what, advice=""):
    """The answer as a float64 tensor of the expected shape, whatever library produced it."""
    try:
        if isinstance(value, list):
            value = [x.item() if isinstance(x, torch.Tensor) else x for x in value]
        if not isinstance(value, torch.Tensor):
            value = torch.as_tensor(value, dtype=torch.float64)  # a float keeps its precision
        value = value.detach().cpu().double()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"on attend {what}, pas un objet de type {type(value).__name__}.") from None
    if tuple(value.shape) != tuple(shape):
        received = f"on attend {what}, de forme {tuple(shape)} ; reçu : {tuple(value.shape)}."
        raise Wrong(f"{received} {advice}".rstrip())
    return value


def must_be_a_tensor(value, *, of_integers=False):
    """For an answer that the next cells use as a tensor: a list or an array would stop them."""
    if not isinstance(value, torch.Tensor):
        raise Wrong(
            f"on attend un tenseur, pas un objet de type {type(value).__name__} : la suite du "
            "notebook s'en sert. `torch.as_tensor` convertit."
        )
    if of_integers and value.is_floating_point():
        raise Wrong(
            f"on attend des entiers, pas des {value.dtype} : ces numéros serviront d'indices. "
            "`.long()` convertit."
        )


def tolerance(answer):
    """1e-6, or what float32 allows."""
    return 1e-5 if getattr(answer, "dtype", None) == torch.float32 else 1e-6


def compare(got, expected, tolerance, describe):
    """Raise `Wrong` at the first entry that differs; `describe(index)` names the input there."""
    for index in range(len(expected)):
        error = abs(got[index] - expected[index])
        if not error <= tolerance * max(1.0, abs(expected[index])):  # `not <=` also catches NaN
            raise Wrong(
                f"pour {describe(index)}, on attend {expected[index]:.8g} ; "
                f"vous obtenez {got[index]:.8g}."
            )


def recognise(got, slips, atol=1e-6):
    """Name the mistake behind a wrong value.

    Args:
        slips: for each mistake that the check knows, its value, a sentence, and its hint's number.

    Returns:
        the sentence, after a space, and the hint of the mistake that has this value; or "", None.
    """
    got = torch.as_tensor(got, dtype=torch.float64)
    for value, sentence, hint in slips:
        value = torch.as_tensor(value, dtype=torch.float64)
        if torch.allclose(got, value, rtol=1e-4, atol=atol):
            return f" {sentence}", hint
    return "", None


def counted(number, noun, form=""):
    """`1.50 bit`, `2 bits`, for the messages: in French, the plural begins at 2."""
    shown = f"{number:{form}}"
    return f"{shown} {noun}" + ("s" if abs(float(shown)) >= 2 else "")


def numbers(tensor):
    """`[1 ; 0.5]`, for the messages."""
    return "[" + " ; ".join(f"{value:.3g}" for value in tensor.flatten().tolist()) + "]"


@functools.cache
def small_digits():
    return load("digits", size=14, levels=2, copies=0)


def train_small(model, data, *, steps, conditional=False, seed=0):
    """Train a small model on the CPU, without a word; an interruption stops the check as well."""
    options = {"device": "cpu", "progress": False, "patience": None, "lr": 5e-3, "seed": seed}
    if fit(model, data, conditional=conditional, steps=steps, **options).end == "interrupted":
        raise KeyboardInterrupt  # the student's, not ours to keep
    return model
