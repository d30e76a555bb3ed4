"""How an answer is tried: on copies, under a time limit, beside the reference, in its own world.

A check is mostly a table, `SameAs`: inputs of several shapes, and the mistakes that it knows. What
is said of one answer is said of all:

- the answer works on copies, and is refused when it changes them, or the state of torch;
- where a model learns through it, its gradients are compared too;
- a mistake is named when the answer has its value in every case.
"""

import contextlib
import copy
import inspect
import linecache
import numbers
import signal
import threading
import traceback
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from babel.lists import format_list
from torch import nn

from ..language import LANGUAGE, POINT, tr, trn

SECONDS = 20  # that an answer may take for one call
_SEED = 20_211_115  # of the check: an answer that sets another one is noticed


class Wrong(Exception):
    """Raised by a check: the message shows where the answer is wrong.

    puzzling: it does not say why; the first hint will help.
    """

    def __init__(self, message, *, puzzling=False):
        super().__init__(message)
        self.puzzling = puzzling


class Missing(Exception):
    """The answer is still empty: it returned `...`, or is the stub of the notebook."""


class _TooLong(BaseException):
    """Not an `Exception`: an answer that catches these must not catch this one."""


@contextlib.contextmanager
def own_world():
    """Whatever the notebook did to torch, a check finds the usual state; it leaves no trace."""
    dtype = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        with (
            torch.random.fork_rng(devices=[]),
            torch.device("cpu"),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            torch.manual_seed(_SEED)
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def _time_limit():
    """Stop an answer that runs without end (where the system has alarms)."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() != threading.main_thread():
        yield
        return

    def stop(*_):
        raise _TooLong

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 0.1)  # and again, should the answer catch it
    try:
        yield
    except _TooLong:
        text = tr(
            "au bout de {s} s, votre fonction tourne encore : une boucle sans fin ?", s=SECONDS
        )
        raise Wrong(text) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def guarded(answer, names):
    """The student's function, tried on copies; it must return something, and change nothing.

    names: of its arguments, for the messages.
    """

    def call(*inputs):
        copies = [_copy(x) for x in inputs]
        try:
            with _time_limit():
                result = answer(*copies)
        except Wrong:  # raised by the functions that the check lends to the answer
            raise
        except Exception as error:
            frames = list(traceback.walk_tb(error.__traceback__))
            if isinstance(error, NotImplementedError) and len(frames) == 2:  # by the stub itself
                raise Missing from None
            raise Wrong(_where_it_stopped(answer, error)) from error
        finally:
            learns = torch.is_grad_enabled()
            torch.set_grad_enabled(True)
        if result is ...:
            raise Missing
        if result is None:
            raise Wrong(tr("votre fonction ne renvoie rien : avez-vous oublié `return` ?"))
        for name, before, after in zip(names, inputs, copies):
            if not _same(before, after):
                text = tr(
                    "votre fonction change `{name}`, que la suite du notebook utilisera : "
                    "travaillez sur une copie.",
                    name=name,
                )
                raise Wrong(text)
        if not learns:
            raise Wrong(
                tr("votre fonction change le calcul des gradients de torch pour toute la suite.")
            )
        if torch.initial_seed() != _SEED:
            raise Wrong(
                tr(
                    "votre fonction change la graine de torch, ou l'état de son hasard : tous les "
                    "tirages de la suite en dépendraient. Laissez faire le hasard."
                )
            )
        return result

    return call


def _copy(x):
    """Of tensors (the gradient reaches the original), models, and lists of these."""
    if isinstance(x, torch.Tensor):
        return x.clone()
    if isinstance(x, list | tuple):
        return type(x)(map(_copy, x))
    return copy.deepcopy(x) if isinstance(x, nn.Module) else x


def _same(before, after):
    if isinstance(before, torch.Tensor):
        return (before.dtype, before.shape) == (after.dtype, after.shape) and torch.allclose(
            before, after, rtol=0, atol=0, equal_nan=True
        )
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_same, before, after))
    if isinstance(before, nn.Module):
        return _same(list(before.parameters()), list(after.parameters()))
    return before == after


def _where_it_stopped(answer, error):
    """What the exception says, and the line of the student's code that it comes from."""
    own_file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == own_file:
            line = linecache.getline(own_file, number).strip()
    name, said = type(error).__name__, str(error).strip().replace("`", "'")
    error = tr("{name} : `{said}`", name=name, said=said) if said else f"{name}."
    if line:
        return tr(
            "votre fonction s'arrête à la ligne `{line}`, sur {error}", line=line, error=error
        )
    return tr("votre fonction s'arrête, sur {error}", error=error)


def lent(name, function, **shapes):
    """A function that the check lends to the answer, and that says how it must be called.

    shapes: of the arguments, by name; a letter, as in ("B", 1, "H", "W"), stands for any length.
    """
    usage = f"{name}({', '.join(shapes)})"

    def call(*given, **named):
        arguments = dict(zip(shapes, given)) | named
        if len(given) + len(named) != len(shapes) or arguments.keys() != shapes.keys():
            raise Wrong(tr("{usage} : votre fonction lui passe d'autres arguments.", usage=usage))
        for argument, shape in shapes.items():
            x = arguments[argument]
            if not isinstance(x, torch.Tensor):
                text = tr(
                    "{usage} : {argument} doit être un tenseur, pas {kind}.",
                    usage=usage, argument=argument, kind=_kind(x),
                )  # fmt: skip
                raise Wrong(text)
            wanted = [m if isinstance(n, str) else n for n, m in zip(shape, x.shape)]
            if x.dim() != len(shape) or wanted != list(x.shape):
                text = tr(
                    "{usage} : {argument} doit être de forme {wanted} ; reçu : {shape}.",
                    usage=usage, argument=argument,
                    wanted=str(shape).replace("'", ""), shape=tuple(x.shape),
                )  # fmt: skip
                raise Wrong(text)
        return function(**arguments)

    return call


# ---------------------------------------------------------------------------------------------
# Reading a result
# ---------------------------------------------------------------------------------------------


def _kind(value):
    return tr("un objet de type {name}", name=type(value).__name__)


def as_number(value, what):
    """The answer as a float: of Python, or a tensor or an array without dimension."""
    if getattr(value, "shape", ()) != ():
        shape = tuple(value.shape)
        text = tr("on attend {what} ; reçu : un tableau de forme {shape}.", what=what, shape=shape)
        raise Wrong(text)
    if isinstance(value, torch.Tensor | np.ndarray):
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise Wrong(tr("on attend {what}, pas {kind}.", what=what, kind=_kind(value)))
    return float(value)


def tensor(value, shape, what, *, dtype=None, learns=False):
    """The answer, a tensor of that shape, as float64 and without gradient.

    dtype: what the next cells need: `torch.float32` (whole numbers and booleans do as well) or
    `torch.int64`. learns: a model learns through it.
    """
    if isinstance(value, list | tuple) and any(isinstance(part, torch.Tensor) for part in value):
        text = trn(
            "on attend {what}, dans un seul tenseur (`torch.stack`, `torch.cat`), pas {count} "
            "tenseur.",
            "on attend {what}, dans un seul tenseur (`torch.stack`, `torch.cat`), pas {count} "
            "tenseurs.",
            len(value), what=what,
        )  # fmt: skip
        raise Wrong(text)
    if not isinstance(value, torch.Tensor):
        why = tr("la suite s'en sert. `torch.as_tensor` convertit les tableaux et les listes.")
        if learns:
            why = tr(
                "aucun gradient n'y passe. Restez dans torch : ni `.item()`, ni `float`, ni numpy."
            )
        text = tr(
            "on attend {what}, dans un tenseur de torch, pas {kind} : {why}",
            what=what, kind=_kind(value), why=why,
        )  # fmt: skip
        raise Wrong(text)
    if tuple(value.shape) != tuple(shape):
        text = tr(
            "on attend {what}, de forme {shape} ; reçu : {got}.",
            what=what, shape=tuple(shape), got=tuple(value.shape),
        )  # fmt: skip
        raise Wrong(text)
    if dtype and value.dtype != dtype and (value.is_floating_point() or dtype == torch.int64):
        text = tr(
            "on attend des {dtype}, pas des {got} : la suite du notebook s'en sert. "
            "`.to({dtype})` convertit.",
            dtype=dtype, got=value.dtype,
        )  # fmt: skip
        raise Wrong(text)
    return value.detach().cpu().double()


# ---------------------------------------------------------------------------------------------
# Comparing it
# ---------------------------------------------------------------------------------------------


def gradients(value, leaves, upstream=None):
    """What the leaves receive from the answer's value; zeros where nothing arrives."""
    if not leaves or not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    try:
        return torch.autograd.grad(
            value, leaves, upstream, allow_unused=True, materialize_grads=True
        )
    except Exception as error:  # of torch, or of a backward that the student wrote
        said = str(error).strip().replace("`", "'").partition(". ")[0]
        text = tr(
            "la valeur se calcule, mais pas son gradient : {name}, `{said}`. Le plus souvent : un "
            "calcul en place (`+=`, `mul_`) sur un tenseur dont le gradient a besoin, ou un "
            "`.backward()` dans votre fonction.",
            name=type(error).__name__, said=said,
        )  # fmt: skip
        raise Wrong(text) from error


def _received(value, leaves):
    """The gradients, by name, of the product of the value and of a random tensor."""
    draws = torch.Generator().manual_seed(0)
    upstream = torch.randn(value.shape, generator=draws).to(value.dtype)
    return dict(zip(leaves, gradients(value, list(leaves.values()), upstream)))


@dataclass
class _Case:
    """An answer beside the reference: their values and, by argument, their gradients."""

    name: str
    inputs: list
    value: torch.Tensor  # of the answer, as float64
    right: torch.Tensor
    gradients: dict
    right_gradients: dict


def remixed(parts, *mixes):
    """Known mistakes of someone who computes the right parts, and mixes them otherwise.

    parts: from the arguments of the exercise, a tuple. mixes: `(function of the parts, sentence)`.
    """

    def slip(mix):
        return lambda *inputs: mix(*parts(*inputs))

    return tuple((slip(mix), sentence) for mix, sentence in mixes)


@dataclass
class SameAs:
    """The check of an answer that has the values, and the gradients, of the reference.

    reference: the right function.
    cases: a function of no argument that returns `(name, inputs)` for each case, the usual first.
    what: what is expected, for the messages: "one number per image".
    praise: the sentence of the ✔ line.
    where: `(index, *inputs)` → the input to show beside a wrong value, at that index.
    slips: known mistakes, each a function that makes it, and a sentence.
    gradient: the names of the arguments that must receive one.
    number: the answer may be any number, where nothing learns through it.
    dtype: see `tensor`.
    tolerance: of an error relative to the value, or to 1 where this is less.
    """

    reference: callable
    cases: callable
    _: KW_ONLY
    what: str
    praise: str
    where: callable = None
    slips: tuple = ()
    gradient: tuple = ()
    number: bool = False
    dtype: torch.dtype = None
    tolerance: float = 1e-5

    def __call__(self, answer):
        cases = [self._try(answer, name, inputs) for name, inputs in self.cases()]
        for case in cases:
            if not self._close(case.value, case.right).all():
                raise self._wrong_value(case, cases)
        for name, is_right in self._right_gradients(cases).items():
            if not is_right:
                raise self._wrong_gradient(name, cases)
        return self.praise

    def _try(self, answer, name, inputs):
        right, right_leaves = self._run(self.reference, inputs)
        right = torch.as_tensor(right)
        try:
            got, leaves = self._run(answer, inputs)
        except Wrong as wrong:
            text = tr("pour {name} : {message}", name=name, message=wrong) if name else str(wrong)
            raise Wrong(text) from wrong
        if self.number:
            got = torch.tensor(as_number(got, self.what), dtype=torch.float64)
        learns = bool(self.gradient)
        value = tensor(got, right.shape, self.what, dtype=self.dtype, learns=learns)
        received = _received(got, leaves), _received(right, right_leaves)
        return _Case(name, inputs, value, right, *received)

    def _run(self, function, inputs):
        """The value and, by name, the arguments that must receive a gradient."""
        inputs, leaves = list(inputs), {}
        for place, name in enumerate(inspect.signature(self.reference).parameters):
            if name in self.gradient:
                inputs[place] = leaves[name] = inputs[place].clone().requires_grad_()
        return function(*inputs), leaves

    def _close(self, got, right):
        """Entry by entry; NaN and infinity are close to themselves only."""
        got, right = (torch.as_tensor(x, dtype=torch.float64) for x in (got, right))
        return torch.isclose(got, right, rtol=self.tolerance, atol=self.tolerance, equal_nan=True)

    def _right_gradients(self, cases):
        """For each argument that must receive a gradient, whether it is right in every case."""
        return {
            name: all(_all_close(c.gradients[name], c.right_gradients[name]) for c in cases)
            for name in cases[0].gradients
        }

    def _slip(self, cases, with_gradients):
        """The sentence of the known mistake that this answer makes in every case, or nothing."""
        for function, sentence in self.slips:
            for case in cases:
                value, leaves = self._run(function, case.inputs)
                value = torch.as_tensor(value)
                if value.shape != case.value.shape or not self._close(case.value, value).all():
                    break
                if with_gradients:
                    received = _received(value, leaves)
                    if not all(_all_close(case.gradients[n], received[n]) for n in received):
                        break
            else:
                return sentence
        return None

    def _wrong_value(self, case, cases):
        index = tuple((~self._close(case.value, case.right)).nonzero()[0].tolist())
        expected, obtained = apart(case.right[index].item(), case.value[index].item())
        shown = [case.name] if case.name else []
        shown += [self.where(index, *case.inputs)] if self.where else []
        text = tr(
            "pour {shown} : on attend {expected} ; vous obtenez {obtained}.",
            shown=", ".join(shown), expected=expected, obtained=obtained,
        )  # fmt: skip
        some = any(each.any() for each_case in cases for each in each_case.gradients.values())
        if sentence := self._slip(cases, with_gradients=some):
            return Wrong(f"{text} {sentence}")
        if case.right[index].isfinite() and not case.value[index].isfinite():
            clue = tr("Un calcul déborde : exp trop grand, log 0 ou d'un négatif, 0/0 ?")
            return Wrong(f"{text} {clue}")
        fine = self._right_gradients(cases)
        well, ill = (
            format_list([n for n in fine if fine[n] == good], locale=LANGUAGE)
            for good in (True, False)
        )
        if well and ill:
            text += " " + tr("Gradient juste pour {well}, faux pour {ill}.", well=well, ill=ill)
        elif well:
            text += " " + tr("Gradient juste pour {well}.", well=well)
        # right in the usual case, the idea is right: the first hint would not help
        return Wrong(text, puzzling=case is cases[0] and not (well and ill))

    def _wrong_gradient(self, name, cases):
        text = tr("la valeur est juste, mais pas le gradient que reçoit {name}.", name=name)
        if sentence := self._slip(cases, with_gradients=True):
            return Wrong(f"{text} {sentence}")
        mine = torch.cat([case.gradients[name].flatten() for case in cases])
        if not mine.any():
            text += " " + tr("Il n'en reçoit aucun : est-il détaché ?")
        elif not mine.isfinite().all():
            text += " " + tr("Il n'est pas fini.")
        return Wrong(text)


def _all_close(got, right):
    return torch.allclose(got.double(), right.double(), rtol=1e-4, atol=1e-5)


def apart(expected, got):
    """Both numbers, with as many digits as it takes to tell them apart; a rounding error is 0."""
    expected, got = (0.0 if abs(x) < 1e-6 else x for x in (expected, got))
    for digits in range(4, 12):
        texts = f"{expected:.{digits}g}", f"{got:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def listed(tensor):
    """`[1 ; 0.5]`, for the messages, or `[1, 0.5]`; a single number without brackets."""
    values = [f"{value:.3g}" for value in tensor.flatten().tolist()]
    between = " ; " if POINT == "," else ", "
    return values[0] if len(values) == 1 else "[" + between.join(values) + "]"
