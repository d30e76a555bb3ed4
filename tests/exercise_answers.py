"""What the tests of the self-checks share: an answer is accepted, refused, or still a stub."""

import contextlib
import io

from course_utils.exercises import exercises, verify


def verdict(key, answer):
    """The function that `verify` returns, and what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        returned = verify(key, answer)
    return returned, printed.getvalue()


def accepts(key, answer):
    """Whether the answer is right."""
    return verdict(key, answer)[0] is answer


def accepted(key, answer):
    """The answer is right: it is returned, after one line."""
    returned, printed = verdict(key, answer)
    assert returned is answer
    assert printed.startswith(f"✔ {key} : ") and len(printed.splitlines()) == 1


def refused(key, answer, message):
    """The answer is wrong: the reference is returned, after `message` and the way to a hint."""
    exercise = exercises()[key]
    returned, printed = verdict(key, answer)
    assert returned is exercise.reference
    mistake, clue = printed.removesuffix("\n").rsplit("\n  ", 1)
    assert mistake.startswith(f"✘ {key} : ") and message in mistake
    first = f"Indice 1/{len(exercise.hints)} : {exercise.hints[0]}"
    assert clue in (first, f'Une piste : hint("{key}")')
