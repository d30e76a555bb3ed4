"""How an answer is tried: on copies, under a time limit, beside the reference, in its own world.

A check is mostly a table, `same_as`: inputs of several shapes, and the mistakes that it knows. What
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

import torch
from torch import nn

SECONDS = 20  # that an answer may take for one call
_SEED = 20_211_115  # of the check: an answer that sets another one is noticed


class Wrong(Exception):
    """Raised by a check: the message (French) shows where the answer is wrong.

    `hint`: the number of the hint that helps with this mistake, where the check knows it.
    """

    def __init__(self, message, *, hint=None):
        super().__init__(message)
        self.hint = hint


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
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)  # and again, should the answer catch it
    try:
        yield
    except _TooLong:
        text = f"au bout de {SECONDS} s, votre fonction tourne encore : une boucle sans fin ?"
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
        except (Wrong, Missing):  # raised by the functions that the check lends to the answer
            raise
        except Exception as error:
            frames = list(traceback.walk_tb(error.__traceback__))
            if isinstance(error, NotImplementedError) and len(frames) == 2:  # by the stub itself
                raise Missing from None
            raise Wrong(_where_it_stopped(answer, error)) from error
        finally:
            gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
        if result is ...:
            raise Missing
        if result is None:
            raise Wrong("votre fonction ne renvoie rien : avez-vous oublié `return` ?")
        for name, before, after in zip(names, inputs, copies):
            if not _same(before, after):
                raise Wrong(
                    f"votre fonction change `{name}`, que la suite du notebook utilisera : "
                    "travaillez sur une copie."
                )
        if not gradients or dtype != torch.float32:
            what = "type par défaut" if gradients else "calcul des gradients"
            raise Wrong(f"votre fonction change le {what} de torch pour toute la suite.")
        if torch.initial_seed() != _SEED:
            raise Wrong(
                "votre fonction fixe la graine (`torch.manual_seed`) : tous les tirages de la "
                "suite en dépendraient. Laissez faire le hasard."
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
        modes = [[m.training for m in model.modules()] for model in (before, after)]
        return modes[0] == modes[1] and _same(list(before.parameters()), list(after.parameters()))
    return before == after


def _where_it_stopped(answer, error):
    """What the exception says, and the line of the student's code that it comes from."""
    own_file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == own_file:
            line = linecache.getline(own_file, number).strip()
    where = f" à la ligne `{line}`" if line else ""
    said = str(error).strip().replace("`", "'")
    said = f" : `{said}`" if said else "."
    return f"votre fonction s'arrête{where}, sur {type(error).__name__}{said}"


def lent(name, arguments, function):
    """A function that the check lends to the answer, and that says how it must be called.

    arguments: for each, its name, and its shape or `None`; -1 in a shape stands for any length.
    """

    def call(*given):
        usage = f"{name}({', '.join(name for name, _ in arguments)})"
        if len(given) != len(arguments):
            raise Wrong(f"{usage} : votre fonction lui passe {counted(len(given), 'argument')}.")
        for (argument, shape), x in zip(arguments, given):
            if not isinstance(x, torch.Tensor):
                raise Wrong(f"{usage} : {argument} doit être un tenseur, pas {_kind(x)}.")
            if shape is not None and (
                x.dim() != len(shape) or any(n not in (-1, m) for n, m in zip(shape, x.shape))
            ):
                wanted = str(tuple("B" if n == -1 else n for n in shape)).replace("'", "")
                raise Wrong(
                    f"{usage} : {argument} doit être de forme {wanted} ; reçu : {tuple(x.shape)}."
                )
        return function(*given)

    return call


# ---------------------------------------------------------------------------------------------
# Reading a result
# ---------------------------------------------------------------------------------------------


def _kind(value):
    return f"un objet de type {type(value).__name__}"


def as_number(value, what="un seul nombre", advice=""):
    """The answer as a float: of Python, numpy, or a tensor without dimension."""
    if getattr(value, "shape", ()) != ():
        raise Wrong(f"on attend {what} ; reçu : {tuple(value.shape)}. {advice}".rstrip())
    if isinstance(value, str | bool) or not isinstance(value, numbers.Real | torch.Tensor):
        raise Wrong(f"on attend {what}, pas {_kind(value)}. {advice}".rstrip())
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def tensor(value, shape, what, *, advice="", dtype=None):
    """The answer, a tensor of that shape, as float64 and without gradient.

    dtype: what the next cells need: `torch.float32` (whole numbers and booleans do as well) or
    `torch.int64`.
    """
    if not isinstance(value, torch.Tensor):
        raise Wrong(
            f"on attend {what}, dans un tenseur de torch, pas {_kind(value)} : la suite du "
            "notebook s'en sert. `torch.as_tensor` convertit les tableaux et les listes."
        )
    if tuple(value.shape) != tuple(shape):
        received = f"on attend {what}, de forme {tuple(shape)} ; reçu : {tuple(value.shape)}."
        raise Wrong(f"{received} {advice}".rstrip())
    if value.is_complex():
        raise Wrong(f"on attend {what}, pas des nombres complexes.")
    exact = not value.is_floating_point()
    if dtype == torch.int64 and value.dtype != dtype:
        raise Wrong(
            f"on attend des entiers, pas des {value.dtype} : ces numéros serviront d'indices. "
            "`.long()` convertit."
        )
    if dtype == torch.float32 and not exact and value.dtype != dtype:
        raise Wrong(
            f"on attend des {dtype}, comme les poids des réseaux, pas des {value.dtype}. "
            "`.float()` convertit."
        )
    return value.detach().cpu().double()


# ---------------------------------------------------------------------------------------------
# Comparing it
# ---------------------------------------------------------------------------------------------


def same_as(reference, cases, *, what, praise, where=None, slips=(), gradient=(), number=False,
            advice="", dtype=None, tolerance=1e-5, hint=None):  # fmt: skip
    """The check of an answer that has the values, and the gradients, of the reference.

    Args:
        reference: the right function.
        cases: a function of no argument that returns `(name, inputs)` for each case.
        what: what is expected, for the messages: « un nombre par image ».
        praise: the sentence of the ✔ line.
        where: `(index, *inputs)` → the input to show beside a wrong value, at that index.
        slips: mistakes, each a function that makes it, a sentence, and its hint's number.
        gradient: the names of the arguments that must receive one.
        number: the answer may be any number, where nothing learns through it.
        advice: what to say of a wrong shape.
        tolerance: of an error relative to the value, or to 1 where this is less.
        hint: the number of the hint for another mistake than these.
    """
    names = list(inspect.signature(reference).parameters)

    def run(function, inputs, upstream):
        """The value, and the gradients of its product with `upstream`."""
        leaves = [
            x.clone().requires_grad_() if name in gradient else x for name, x in zip(names, inputs)
        ]
        value = function(*leaves)
        if not gradient:
            return value, ()
        leaves = [leaf for name, leaf in zip(names, leaves) if name in gradient]
        if not getattr(value, "requires_grad", False) or value.shape != upstream.shape:
            return value, [torch.zeros_like(leaf) for leaf in leaves]
        return value, torch.autograd.grad(
            value, leaves, upstream.to(value.dtype), allow_unused=True, materialize_grads=True
        )

    def close(got, right):
        """Entry by entry; NaN and infinity are close to themselves only."""
        return torch.isclose(
            got.double(), right.double(), rtol=tolerance, atol=tolerance, equal_nan=True
        )

    def check(answer):
        draws = torch.Generator().manual_seed(0)
        table = []
        for name, inputs in cases():
            right = torch.as_tensor(reference(*inputs), dtype=torch.float64)
            upstream = torch.randn(right.shape, generator=draws)
            _, right_grads = run(reference, inputs, upstream)
            got, grads = run(answer, inputs, upstream)
            if number:
                value = torch.tensor(as_number(got, what, advice), dtype=torch.float64)
            else:
                value = tensor(got, right.shape, what, advice=advice, dtype=dtype)
            table.append((name, inputs, upstream, value, grads, right, right_grads))

        def slip_of(with_gradients):
            """The known mistake that this answer makes in every case: its sentence and its hint."""
            for slip, sentence, useful in slips:
                for _, inputs, upstream, value, grads, *_ in table:
                    wrong, wrong_grads = run(slip, inputs, upstream)
                    wrong = torch.as_tensor(wrong)
                    if wrong.shape != value.shape or not close(value, wrong).all():
                        break
                    if with_gradients and not all(map(_all_close, grads, wrong_grads)):
                        break
                else:
                    return " " + sentence, useful
            return "", hint

        for name, inputs, _, value, _, right, _ in table:
            if not close(value, right).all():
                index = tuple((~close(value, right)).nonzero()[0].tolist())
                sentence, useful = slip_of(False)
                shown = [name] if name else []
                shown += [where(index, *inputs)] if where else []
                expected, obtained = apart(right[index].item(), value[index].item())
                raise Wrong(
                    f"pour {', '.join(shown)} : on attend {expected} ; vous obtenez {obtained}."
                    + sentence,
                    hint=useful,
                )
        learners = [name for name in names if name in gradient]
        for _, _, _, _, grads, _, right_grads in table:
            for learner, mine, right in zip(learners, grads, right_grads):
                if not _all_close(mine, right):
                    sentence, useful = slip_of(True)
                    nothing = "" if mine.any() else " Il n'en reçoit aucun."
                    raise Wrong(
                        f"la valeur est juste, mais pas le gradient que reçoit {learner}."
                        + (sentence or nothing),
                        hint=useful,
                    )
        return praise

    check.slips = slips
    return check


def _all_close(got, right):
    return torch.allclose(got.double(), right.double(), rtol=1e-4, atol=1e-5)


def apart(expected, got):
    """Both numbers, with as many digits as it takes to tell them apart."""
    for digits in range(4, 12):
        texts = f"{expected:.{digits}g}", f"{got:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def counted(number, noun, form=""):
    """`1.50 bit`, `2 bits`, for the messages: in French, the plural begins at 2."""
    shown = f"{number:{form}}"
    return f"{shown} {noun}" + ("s" if abs(float(shown)) >= 2 else "")


def listed(tensor):
    """`[1 ; 0.5]`, for the messages; a single number without brackets."""
    values = [f"{value:.3g}" for value in tensor.flatten().tolist()]
    return values[0] if len(values) == 1 else "[" + " ; ".join(values) + "]"
