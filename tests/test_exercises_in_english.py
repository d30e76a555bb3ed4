"""The exercises in English: no French in what they say, the verdicts and the numbers of French."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from exercise_answers import verdict
from notebook_files import ROOT
from test_exercises_wrong import WRONG
from test_translations import ACCENTS, WORDS, numbers

from course_utils.exercises import exercises, hint, solution


def everything_said():
    """All that the exercises print, in the language of this process: `{occasion: text}`."""
    said = {}
    for key, exercise in exercises().items():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            for _ in exercise.hints:
                hint(key)
            solution(key)
        said[f"help of {key}"] = printed.getvalue()
        said[f"{key} not begun"] = verdict(key, ...)[1]
        said[f"{key} right"] = verdict(key, lambda *args, e=exercise: e.reference(*args))[1]
        slips = getattr(exercise.check, "slips", ())
        said[f"slips of {key}"] = "\n".join(sentence for _, sentence in slips)
    for place, (key, answer, _) in enumerate(WRONG):
        torch.manual_seed(0)
        said[f"wrong answer {place}, to {key}"] = verdict(key, answer)[1]
    return said


@pytest.fixture(scope="module")
def in_english():
    command = "import json, test_exercises_in_english as t; print(json.dumps(t.everything_said()))"
    environment = os.environ | {"COURSE_LANG": "en", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_they_say_nothing_in_french(in_english):
    """A line of the student's code, between backquotes, may be in French."""
    said = {occasion: re.sub("`.*?`", "", text) for occasion, text in in_english.items()}
    french = [o for o, text in said.items() if ACCENTS.search(text) or WORDS.search(text)]
    assert not {occasion: said[occasion] for occasion in french}


def test_they_judge_and_count_as_in_french(in_english, no_hint_seen):
    def seen(said, code):
        return {o: (re.findall("[✔✘…]", text), numbers(text, code)) for o, text in said.items()}

    assert seen(in_english, "en") == seen(everything_said(), "fr")
