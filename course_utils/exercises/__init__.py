"""Self-checked exercises: `verify`, `hint`, `solution`.

In a notebook, a stub to complete is followed by its check:

    kl = verify("01.kl", kl)

It prints ✔, or ✘ with an input where the answer is wrong and a hint, or « à compléter ». It
returns the student's answer when it is right and the reference otherwise: the cells that follow
run in any case.

The stub lives in the notebook; the reference, the check and the hints of an exercise, in the
module of its notebook (`notebook_01.py`, …). How an answer is tried: `harness.py`.
"""

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass

from ..language import POINT, tr, translated
from .harness import Missing, Wrong, guarded, own_world

_EXERCISES = {}
_hints_shown = {}  # by key, the furthest


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    key: for instance "01.kl"; reference: one right answer, whose source `solution` shows.
    check: called with the answer, raises `Wrong`, or returns the sentence of the ✔ line.
    hints: from the idea to the code.
    broken: the stub, where it is a function to repair; another one has nothing but `...` or an
    exception in its body.
    """

    key: str
    reference: callable
    check: callable
    hints: tuple
    broken: callable = None

    def __post_init__(self):
        _EXERCISES[self.key] = self


def exercises():
    """All exercises, by key."""
    return dict(_EXERCISES)


def _get(key):
    if key not in _EXERCISES:
        known = ", ".join(sorted(_EXERCISES))
        raise ValueError(tr("exercice inconnu : {key!r} ; il y a {known}", key=key, known=known))
    return _EXERCISES[key]


def verify(key, answer=None):
    """Check the answer to an exercise, say so, and return a function that works.

    Args:
        key: name of the exercise, for instance `"01.kl"`.
        answer: the student's function.

    Returns:
        `answer` when it is right, the reference otherwise.
    """
    exercise = _get(key)
    if answer is None or answer is ... or _is_stub(answer, exercise):
        return _to_do(exercise)
    if answer is exercise.reference:  # the check ran twice: it had put the reference in place
        text = tr(
            "… {key} : la fonction de référence est en place. Pour vérifier la vôtre, réexécutez "
            "d'abord la cellule où vous l'écrivez.",
            key=key,
        )
        print(text)
        return answer
    if not callable(answer):
        kind = type(answer).__name__
        print(
            tr("✘ {key} : on attend une fonction, pas un objet de type {kind}.", key=key, kind=kind)
        )
        return exercise.reference
    try:
        with own_world():
            names = inspect.signature(exercise.reference).parameters
            praise = exercise.check(guarded(answer, names))
    except Missing:
        return _to_do(exercise)
    except Wrong as wrong:
        print(tr("✘ {key} : {message}", key=key, message=_as_written(str(wrong))))
        if wrong.puzzling:
            _hints_shown.setdefault(key, 1)
            last, first = len(exercise.hints), exercise.hints[0]
            print("  " + tr("Indice 1/{last} : {hint}", last=last, hint=first))
        else:
            print("  " + tr('Une piste : hint("{key}")', key=key))
        return exercise.reference
    print(tr("✔ {key} : {message}", key=key, message=_as_written(praise)))
    return answer


def hint(key):
    """Print the next hint of an exercise: one more at each call."""
    hints = _get(key).hints
    shown = min(_hints_shown.get(key, 0) + 1, len(hints))
    _hints_shown[key] = shown
    last = len(hints)
    print(tr("Indice {shown}/{last} : {hint}", shown=shown, last=last, hint=hints[shown - 1]))
    if shown == last:
        print(tr('C\'était le dernier. Ensuite : solution("{key}")', key=key))


def solution(key):
    """Print the reference solution of an exercise, its comments in the language spoken here."""
    print(translated(reference_source(key), tr))


def reference_source(key):
    """Source code of the reference, in French, under the name the notebook uses."""
    return _source(_get(key).reference)


def _source(function):
    return textwrap.dedent(inspect.getsource(function)).strip()


def _to_do(exercise):
    if exercise.broken:
        print(tr('… {key} : à réparer (une piste : hint("{key}")).', key=exercise.key))
    else:
        print(tr('… {key} : à compléter (une piste : hint("{key}")).', key=exercise.key))
    return exercise.reference


def _as_written(sentence):
    """Numbers as in « 0,5 » or 0.5, never -0.0. Code, between backquotes, is left alone."""
    code, point = r"(?P<code>`[^`]*`)", r"(?P<point>(?<=\d)\.(?=\d))"
    minus_zero = r"(?<!\w)-(?=0(\.0+)?(?!\.?\d))"

    def mended(found):
        return found["code"] or (POINT if found["point"] else "")

    return re.sub(f"{code}|{point}|{minus_zero}", mended, sentence)


def _is_stub(answer, exercise):
    """True for an untouched function to repair; another stub shows by what it returns, or raises.

    The name of the function, its docstring, comments and blank lines do not count.
    """
    return exercise.broken is not None and _statements(answer) == _statements(exercise.broken)


def _statements(function):
    """Those of the body of a `def`, as syntax trees; none for anything else."""
    try:
        (found,) = ast.parse(_source(function)).body
    except (OSError, TypeError, SyntaxError, ValueError):  # no source, or a lambda cut out of it
        return []
    if not isinstance(found, ast.FunctionDef):
        return []
    if ast.get_docstring(found) is not None:
        found.body.pop(0)
    return [ast.dump(statement) for statement in found.body]


from . import (  # noqa: E402, F401  (they register)
    notebook_00,
    notebook_01,
    notebook_02,
    notebook_03a,
    notebook_03b,
    notebook_04,
)
