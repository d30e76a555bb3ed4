"""How an answer is tried, and what is said of it, whatever the exercise; the notebooks' stubs.

Answers to each exercise: `test_exercises_right.py`, `test_exercises_wrong.py`.
"""

import ast
import inspect
import linecache
import math
import re
import signal

import nbformat
import pytest
import torch
from exercise_answers import accepted, refused, verdict
from notebook_files import NOTEBOOKS, tagged

from course_utils import exercises
from course_utils.exercises import (
    Exercise,
    harness,
    hint,
    notebook_02,
    notebook_03a,
    notebook_03b,
    solution,
    verify,
)
from course_utils.exercises.harness import SameAs, Wrong
from course_utils.language import thousands, trn

pytestmark = pytest.mark.usefixtures("no_hint_seen")
EXERCISES = exercises.exercises()
KEYS = sorted(EXERCISES)
KL = EXERCISES["01.kl"].reference
TABLES = {
    **{key: it.check for key, it in EXERCISES.items() if isinstance(it.check, SameAs)},
    "02.prior": notebook_02._same_cost,
    "03a.recursion": notebook_03a._values_are_right,
    "03b.stacks": notebook_03b._same_numbers,
}


# ---- the references, and their known mistakes --------------------------------------------------


# a check whose praise quotes numbers: they are those of the notebook
PRAISE = {
    "03a.count": thousands(2 * 784 * 500 + 784 + 500),
    "03b.mask": f"le masque A en garde {4}, le B {4 + 1}",
    "03b.field": f"{63 + 6} pixels lus sur les {6 * 13 + 6} d'avant",  # rows of 13, 12, …, 8; of 6
    "03b.stacks": "84 pixels lus sur 84",
    "03b.causal": "2 réseaux causaux acceptés, ",
    "04.nearest": f"{len(list(EXERCISES['04.nearest'].check.cases()))} dictionnaires, ",
    "04.kl": "49 codes sûrs parmi 8, 101,9 nats.",
}


@pytest.mark.parametrize("key", KEYS)
def test_the_reference_is_accepted_and_the_random_stream_is_left_alone(key, capsys):
    def answer(*args):  # the reference itself is not an answer
        return EXERCISES[key].reference(*args)

    state = torch.get_rng_state()
    assert verify(key, answer) is answer
    assert torch.equal(torch.get_rng_state(), state)
    printed = capsys.readouterr().out
    assert printed.startswith(f"✔ {key} : ") and PRAISE.get(key, "") in printed


SLIPS = [(key, *slip) for key, table in TABLES.items() for slip in table.slips]


@pytest.mark.parametrize("key, slip, sentence", SLIPS)
def test_each_known_mistake_is_named(key, slip, sentence):
    """The mistakes that a check knows, as answers: in every case, this sentence."""
    with pytest.raises(Wrong, match=re.escape(sentence)):
        TABLES[key](slip)


@pytest.mark.parametrize("key", [key for key in KEYS if EXERCISES[key].broken])
def test_a_function_to_repair_is_wrong(key):
    """Were it not recognised by its code: it holds a mistake, and the check sees it."""
    refused(key, lambda *args: EXERCISES[key].broken(*args), "")


# ---- the world ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
def test_the_verdict_does_not_depend_on_the_world(key):
    """Another default type and device, without gradients: the reference stays right."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), torch.inference_mode():
            accepted(key, lambda *args: EXERCISES[key].reference(*args))
            left = torch.empty(0)
            assert left.is_inference() and left.is_meta and left.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


CHANGES = [
    (lambda: torch.set_grad_enabled(False), "change le calcul des gradients de torch"),
    (lambda: torch.manual_seed(0), "votre fonction change la graine"),
]


@pytest.mark.parametrize("change, message", CHANGES)
def test_an_answer_that_changes_the_world_is_refused(change, message):
    def answer(*args):
        result = KL(*args)
        change()
        return result

    refused("01.kl", answer, message)
    assert torch.is_grad_enabled()


def spoil(x):
    """Change a tensor, a model, or the first of a list, in place."""
    if isinstance(x, torch.Tensor):
        with torch.no_grad():
            x[...] = x + 1 if x.dtype != torch.bool else ~x
    elif isinstance(x, torch.nn.Module):
        x.double()
    elif isinstance(x, list | tuple) and isinstance(x[0], torch.Tensor | tuple):
        spoil(x[0])
    elif isinstance(x, list):
        x[0] = 1 - x[0]
    else:
        return False
    return True


@pytest.mark.parametrize("key", KEYS)
def test_an_answer_that_changes_its_arguments_is_refused_and_spoils_nothing(key):
    reference = EXERCISES[key].reference
    for index in range(len(inspect.signature(reference).parameters)):

        def answer(*args, index=index):
            result = reference(*args)
            return result if spoil(args[index]) else ...

        _, printed = verdict(key, answer)
        assert printed.startswith("…") or "votre fonction change `" in printed
    accepted(key, lambda *args: reference(*args))


def test_an_answer_that_never_ends_is_stopped(monkeypatch):
    """Even one that catches every exception."""
    monkeypatch.setattr(harness, "SECONDS", 0.05)

    def endless(*_):
        while True:
            try:
                math.sqrt(2)
            except Exception:
                pass

    before = signal.getsignal(signal.SIGALRM)
    refused("01.kl", endless, "votre fonction tourne encore")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0), "no alarm is left behind"
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.parametrize("key", KEYS)
def test_an_answer_with_other_arguments_is_told_what_it_raises(key):
    refused(key, lambda: 0, "votre fonction s'arrête, sur TypeError : `")
    refused(key, lambda *_: None, "avez-vous oublié `return` ?")
    refused(key, lambda *_: "texte", "")
    refused(key, lambda *_: torch.zeros(7, 11), "")


@pytest.mark.parametrize("key", [key for key, table in TABLES.items() if table.gradient])
def test_a_value_without_its_gradient_is_refused(key):
    """Detached, or computed without gradients: where a model learns through it."""
    reference = EXERCISES[key].reference
    refused(key, lambda *args: reference(*args).detach(), "gradient")
    refused(key, torch.no_grad()(lambda *args: reference(*args)), "gradient")


@pytest.mark.parametrize("key", [key for key, table in TABLES.items() if not table.gradient])
def test_where_nothing_learns_a_gradient_does_no_harm(key):
    """That of the weights of a network, for one."""

    def answer(*args):
        value = torch.as_tensor(EXERCISES[key].reference(*args))
        return value.requires_grad_() if value.is_floating_point() else value

    accepted(key, answer)


# ---- empty answers -----------------------------------------------------------------------------


def not_implemented(*_):
    raise NotImplementedError("à compléter")


EMPTY = [None, ..., not_implemented, lambda *_: ...]


@pytest.mark.parametrize("answer", EMPTY)
def test_empty_answers_are_to_do(answer, capsys):
    assert verify("01.kl", answer) is KL
    assert capsys.readouterr().out.startswith("… 01.kl : à compléter")


def test_a_check_that_runs_twice_tells_that_the_reference_is_in_place(capsys):
    """`kl = verify("01.kl", kl)` again, after a wrong answer: no ✔ for the reference."""
    assert verify("01.kl", KL) is KL
    assert capsys.readouterr().out.startswith("… 01.kl : la fonction de référence est en place")


def test_something_else_than_a_function(capsys):
    assert verify("01.kl", 3.0) is KL
    assert "on attend une fonction" in capsys.readouterr().out


def test_an_unknown_key_names_the_others():
    with pytest.raises(ValueError, match="exercice inconnu.*01.kl"):
        verify("01.lk", None)


# ---- help --------------------------------------------------------------------------------------


@pytest.fixture
def exercise(monkeypatch):
    """Make the only exercise, `test`, of a check and of its hints."""
    monkeypatch.setattr(exercises, "_EXERCISES", {})
    return lambda check, *hints: Exercise("test", KL, check, hints)


def test_hints_come_one_by_one_then_the_solution(exercise, capsys):
    exercise(lambda answer: "oui", "premier", "second")
    for expected in ("Indice 1/2 : premier", "Indice 2/2 : second", "Indice 2/2 : second"):
        hint("test")
        printed = capsys.readouterr().out
        assert printed.startswith(expected)
    assert 'solution("test")' in printed


def test_the_first_hint_comes_by_itself_where_the_message_explains_nothing(exercise, capsys):
    def check(answer):
        raise Wrong("non", puzzling=answer() == "?")

    exercise(check, "premier", "second")
    verify("test", lambda: "un autre")
    assert capsys.readouterr().out == '✘ test : non\n  Une piste : hint("test")\n'
    for _ in range(2):  # the same mistake again: the same hint
        verify("test", lambda: "?")
        assert capsys.readouterr().out == "✘ test : non\n  Indice 1/2 : premier\n"
    hint("test")
    assert capsys.readouterr().out.startswith("Indice 2/2 : second")


SENTENCES = [
    ("on attend 0.25 ; vous obtenez -1.5e-05.", "on attend 0,25 ; vous obtenez -1,5e-05."),
    ("[1 ; -0 ; -0.5], -0.0000. B = -0, 3.", "[1 ; 0 ; -0,5], 0,0000. B = 0, 3."),
    ("des pixels 0. ou 1. : h[0, 1] de 1e-05", "des pixels 0. ou 1. : h[0, 1] de 1e-05"),
    ("0.5 ; reçu : `'0.5, -0'`, et non 0.1", "0,5 ; reçu : `'0.5, -0'`, et non 0,1"),
]


@pytest.mark.parametrize(("said", "printed"), SENTENCES)
def test_numbers_are_printed_as_the_french_write_them(said, printed, exercise, capsys):
    def wrong(answer):
        raise Wrong(said)

    exercise(lambda answer: said)
    verify("test", math.sqrt)
    assert capsys.readouterr().out == f"✔ test : {printed}\n"
    exercise(wrong, "divisez par 2.0")
    verify("test", math.sqrt)
    assert capsys.readouterr().out.startswith(f"✘ test : {printed}\n")


def test_the_text_of_an_exception_is_left_alone(exercise, capsys):
    exercise(lambda answer: answer(), "divisez")
    verify("test", lambda: float("1.5 ; -0.0"))
    assert "float: '1.5 ; -0.0'`\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 bit"), ("1.50", "1.50 bit"), ("2.00", "2.00 bits"), (30, "30 bits"),
     ("-3.0", "-3.0 bits")],
)  # fmt: skip
def test_the_plural_begins_at_two(number, shown):
    assert trn("{count} bit", "{count} bits", number) == shown


def test_the_solution_is_the_source_of_the_reference(capsys):
    solution("01.kl")
    assert capsys.readouterr().out == exercises.reference_source("01.kl") + "\n"


# ---- the notebooks -----------------------------------------------------------------------------


def function_of(source):
    """The function of a cell, whose source can be read as in a notebook."""
    names, file = {}, f"<cell {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), names)
    return next(value for value in names.values() if inspect.isfunction(value))


def tools_of(notebook):
    """What a notebook imports, and the functions that it defines."""
    names, kinds = {}, ast.Import | ast.ImportFrom | ast.FunctionDef
    for cell in notebook.cells:
        if cell.cell_type == "code":
            body = [line for line in ast.parse(cell.source).body if isinstance(line, kinds)]
            exec(compile(ast.Module(body, []), "tools", "exec"), names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_references_in_the_stubs_pass_the_notebooks_checks(path, capsys):
    """Each stub is recognised; its reference, in its place, finds what it needs, and is right."""
    notebook = nbformat.read(path, as_version=4)
    stubs, checks = tagged(notebook, "exercise"), tagged(notebook, "check")
    names = tools_of(notebook)
    assert list(stubs) == list(checks), "an exercise has a stub and a check"
    for key, cell in stubs.items():
        _, printed = verdict(key, function_of(cell.source))
        assert printed.startswith(f"… {key} : à "), f"{key}: the stub is not recognised"
        exec(exercises.reference_source(key), names)
        exec(checks[key].source, names)
        printed = capsys.readouterr().out
        assert printed.startswith(f"✔ {key} : ") and len(printed.splitlines()) == 1


def test_every_exercise_stands_in_exactly_one_notebook():
    keys = [key for path in NOTEBOOKS for key in tagged(nbformat.read(path, 4), "exercise")]
    assert sorted(keys) == KEYS
