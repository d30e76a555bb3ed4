"""The self-checks accept right answers, however written, and reject the typical wrong ones."""

import math

import nbclient
import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from notebook_files import NOTEBOOKS, tagged

from course_utils import exercises
from course_utils.exercises import Exercise, Wrong, hint, solution, verify

KEYS = sorted(exercises.exercises())
KL, LOSS, AGGREGATE, LAPLACE = (
    exercises.exercises()[key].reference
    for key in ("01.kl", "01.sum_mean", "01.aggregate", "01.laplace")
)


# ---- right answers -----------------------------------------------------------------------------


def kl_by_distributions(mu, logvar):
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    p = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    return torch.distributions.kl_divergence(q, p).sum(-1)


def kl_with_numpy(mu, logvar):
    mu, logvar = mu.numpy(), logvar.numpy()
    return -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1)


def kl_as_a_list(mu, logvar):
    return [
        sum(0.5 * (m * m + math.exp(v) - 1 - v) for m, v in zip(row_mu, row_v))
        for row_mu, row_v in zip(mu.tolist(), logvar.tolist())
    ]


def kl_in_place(mu, logvar):
    """Ugly, but right: the check must not be fooled by answers that edit their input."""
    result = logvar.exp().sub_(logvar).sub_(1)
    result += mu.pow_(2)
    return result.sum(1).div_(2)


def loss_by_sum_over_batch_size(logits, x, mu, logvar):
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return (bce - 0.5 * torch.sum(1 + logvar - mu**2 - logvar.exp())) / len(x)


def loss_by_scaled_mean(logits, x, mu, logvar):
    bce = F.binary_cross_entropy_with_logits(logits, x) * x[0].numel()
    return bce + kl_by_distributions(mu, logvar).mean()


def aggregate_by_mean(z, mu, logvar):
    q = torch.distributions.Normal(mu, (0.5 * logvar).exp())
    return q.log_prob(z[:, None]).sum(-1).exp().mean(1).log()


def aggregate_by_mixture(z, mu, logvar):
    parts = torch.distributions.Independent(torch.distributions.Normal(mu, (0.5 * logvar).exp()), 1)
    weights = torch.distributions.Categorical(logits=torch.zeros(len(mu), dtype=mu.dtype))
    return torch.distributions.MixtureSameFamily(weights, parts).log_prob(z)


def laplace_by_distributions(x, x_hat, b, mu, logvar):
    log_likelihood = torch.distributions.Laplace(x_hat, b).log_prob(x).sum(1)
    return log_likelihood - kl_by_distributions(mu, logvar)


class KLAsAnObject:
    def __call__(self, mu, logvar):
        return KL(mu, logvar)


def kl_that_insists_on_float32(mu, logvar):
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar) @ torch.ones(mu.shape[1])


def laplace_in_place(x, x_hat, b, mu, logvar):
    kl = 0.5 * (mu.pow_(2) + logvar.exp() - 1 - logvar).sum(1)
    return -(x.sub_(x_hat).abs_() / b + math.log(2 * b)).sum(1) - kl


RIGHT = [
    ("00.bits", lambda nats: math.log2(math.e) * nats),
    ("00.bits", lambda nats: np.float32(nats) / np.log(2)),
    ("01.kl", kl_by_distributions),
    ("01.kl", kl_with_numpy),
    ("01.kl", kl_as_a_list),
    ("01.kl", kl_in_place),
    ("01.kl", kl_that_insists_on_float32),
    ("01.kl", KLAsAnObject()),
    ("01.laplace", laplace_in_place),
    ("01.sum_mean", loss_by_sum_over_batch_size),
    ("01.sum_mean", loss_by_scaled_mean),
    ("01.aggregate", aggregate_by_mean),
    ("01.aggregate", aggregate_by_mixture),
    ("01.laplace", laplace_by_distributions),
]


@pytest.mark.parametrize("key, answer", RIGHT, ids=lambda value: getattr(value, "__name__", value))
def test_right_answers_are_accepted_and_returned(key, answer, capsys):
    assert verify(key, answer) is answer
    assert capsys.readouterr().out.startswith(f"✔ {key} : ")


@pytest.mark.parametrize("key", KEYS)
def test_the_reference_is_accepted(key, capsys):
    reference = exercises.exercises()[key].reference
    assert verify(key, reference) is reference
    assert capsys.readouterr().out.startswith(f"✔ {key} : ")


# ---- wrong answers -----------------------------------------------------------------------------


def mean_loss_with_mean_kl(logits, x, mu, logvar):
    return F.binary_cross_entropy_with_logits(logits, x) + KL(mu, logvar).mean()


def loss_with_reduction_sum(logits, x, mu, logvar):
    bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    return bce + KL(mu, logvar).mean()


WRONG = [
    ("00.bits", lambda nats: nats * math.log(2), "on attend 1 bit"),
    ("00.bits", lambda nats: math.log2(nats + 1), "bit"),
    # mean over the dimensions; no ½; σ taken for σ²; total over the batch; sign; no sum; NaN
    ("01.kl", lambda mu, lv: KL(mu, lv) / 3, "mu = [1 ; 0 ; 0]"),
    ("01.kl", lambda mu, lv: 2 * KL(mu, lv), "on attend 0.5"),
    ("01.kl", lambda mu, lv: KL(mu, lv / 2), "sigma = [0.1 ; 1 ; 1]"),
    ("01.kl", lambda mu, lv: KL(mu, lv).sum(), "de forme (4,)"),
    ("01.kl", lambda mu, lv: -KL(mu, lv), "vous obtenez -0.5"),
    ("01.kl", lambda mu, lv: 0.5 * (mu**2 + lv.exp() - 1 - lv), "de forme (4,)"),
    ("01.kl", lambda mu, lv: KL(mu, lv) * float("nan"), "vous obtenez nan"),
    ("01.kl", lambda mu, lv: "0.5", "objet de type str"),
    ("01.kl", lambda mu, lv: None, "avez-vous oublié `return`"),
    ("01.kl", lambda mu: mu, "TypeError"),
    ("01.kl", lambda mu, lv: 1 / 0, "ZeroDivisionError"),
    (
        "01.kl",
        lambda mu, lv: torch.distributions.Distribution(validate_args=False).sample(),
        "NotImplementedError",
    ),
    ("01.sum_mean", mean_loss_with_mean_kl, "une moyenne sur les 8 pixels"),
    ("01.sum_mean", lambda lo, x, mu, lv: len(x) * LOSS(lo, x, mu, lv), "la moyenne"),
    ("01.sum_mean", lambda lo, x, mu, lv: LOSS(lo, x, mu, lv) / 8, "tout divisé"),
    ("01.sum_mean", lambda *args: LOSS(*args).item(), "dérivable"),
    ("01.sum_mean", lambda *args: LOSS(*args).repeat(3), "la moyenne sur les images"),
    ("01.sum_mean", loss_with_reduction_sum, "divisez par la taille du lot"),
    ("01.sum_mean", lambda lo, x, mu, lv: KL(mu, lv), "un seul nombre"),
    ("01.aggregate", lambda z, mu, lv: AGGREGATE(z, mu, lv) + math.log(4), "vaut 4.000"),
    ("01.aggregate", lambda z, mu, lv: AGGREGATE(z, mu, lv) - math.log(4), "vaut 0.250"),
    ("01.aggregate", lambda z, mu, lv: AGGREGATE(z, mu, lv).exp(), "l'intégrale"),
    # right in one dimension and for four codes only
    ("01.aggregate", lambda z, mu, lv: AGGREGATE(z, mu, lv) + math.log(len(mu) / 4), "3 codes"),
    ("01.aggregate", lambda z, mu, lv: AGGREGATE(z, mu, lv) - math.log(mu.shape[1]), "3 codes"),
    ("01.aggregate", lambda z, mu, lv: AGGREGATE(z, mu.flip(0), lv), "pour z ="),
    # the constant log 2b forgotten; −log b only; 1/b on the constant; KL added
    ("01.laplace", lambda x, xh, b, mu, lv: -((x - xh).abs() / b).sum(1) - KL(mu, lv), "constante"),
    ("01.laplace", lambda x, xh, b, mu, lv: LAPLACE(x, xh, b, mu, lv) + 5 * math.log(2), "b = "),
    ("01.laplace", lambda x, xh, b, mu, lv: LAPLACE(x, xh, b, mu, lv) + 2 * KL(mu, lv), "b = "),
    ("01.laplace", lambda x, xh, b, mu, lv: LAPLACE(x, xh, b, mu, lv).mean(), "de forme (4,)"),
]


@pytest.mark.parametrize("key, answer, message", WRONG)
def test_wrong_answers_meet_a_counter_example_and_a_hint(key, answer, message, capsys):
    assert verify(key, answer) is exercises.exercises()[key].reference
    printed = capsys.readouterr().out
    assert printed.startswith(f"✘ {key} : ")
    assert message in printed
    assert "Indice : " in printed


def test_a_bound_above_the_evidence_is_caught_by_the_quadrature():
    """The last line of defence of 01.laplace, tried on its own: an ELBO 1 nat too high."""
    from course_utils.exercises.notebook_01 import _smallest_gap

    assert _smallest_gap(LAPLACE) > 0
    assert _smallest_gap(lambda *args: LAPLACE(*args) + 1) < 0


def test_a_cost_that_ignores_z_is_caught_by_the_training():
    from course_utils.exercises.notebook_01 import train_small_vae

    assert train_small_vae(mean_loss_with_mean_kl)[2] < 0.1
    assert train_small_vae(LOSS)[2] > 5


# ---- empty answers -----------------------------------------------------------------------------


def not_implemented(*_):
    raise NotImplementedError("à compléter")


EMPTY = [None, ..., not_implemented, lambda *_: ...]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("answer", EMPTY)
def test_empty_answers_are_to_do(key, answer, capsys):
    assert verify(key, answer) is exercises.exercises()[key].reference
    assert capsys.readouterr().out.startswith(f"… {key} : à ")


@pytest.mark.parametrize("key", KEYS)
def test_the_untouched_stub_is_to_do(key, capsys):
    """Stubs to repair return something: they are recognised by their code."""
    assert verify(key, exercises.exercises()[key].stub) is exercises.exercises()[key].reference
    to_repair = key in ("01.sum_mean", "01.aggregate")
    assert capsys.readouterr().out.startswith(f"… {key} : à {'réparer' if to_repair else 'compl'}")


def test_something_else_than_a_function(capsys):
    assert verify("01.kl", 3.0) is KL
    assert "on attend une fonction" in capsys.readouterr().out


def test_an_unknown_key_names_the_others():
    with pytest.raises(ValueError, match="exercice inconnu.*01.kl"):
        verify("01.lk", None)


# ---- help --------------------------------------------------------------------------------------


def test_hints_come_one_by_one_then_the_solution(capsys):
    def check(answer):
        raise Wrong("non")

    Exercise("test.hints", KL, KL, check, ("premier", "second"))
    try:
        for expected in ("Indice 1/2 : premier", "Indice 2/2 : second", "Indice 2/2 : second"):
            hint("test.hints")
            printed = capsys.readouterr().out
            assert printed.startswith(expected)
        assert 'solution("test.hints")' in printed
    finally:
        del exercises._EXERCISES["test.hints"]


@pytest.mark.parametrize("key", KEYS)
def test_the_printed_solution_runs_and_is_right(key, capsys):
    solution(key)
    source = capsys.readouterr().out
    names = {"math": math, "torch": torch, "F": F}
    exec(source, names)
    name = exercises.exercises()[key].reference.__name__
    assert verify(key, names[name]) is names[name]


# ---- the notebooks -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_references_in_the_stubs_pass_the_notebooks_checks(path):
    """The notebook's set-up, each stub replaced by its reference, each check as it is committed."""
    notebook = nbformat.read(path, as_version=4)
    stubs, checks = tagged(notebook, "exercise"), tagged(notebook, "check")
    assert list(stubs) == list(checks), "an exercise has a stub and a check"
    for key, cell in stubs.items():
        assert cell.source == exercises.stub_source(key), f"{key}: the stub has drifted"
        cell.source = exercises.reference_source(key)
    setup = [c for c in notebook.cells if "setup" in c.metadata.get("tags", [])]
    notebook.cells = [*setup, *(cell for key in stubs for cell in (stubs[key], checks[key]))]
    nbclient.execute(notebook, cwd=path.parent, timeout=300)
    for key, cell in checks.items():
        printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")
        assert printed.startswith(f"✔ {key} : ") and len(printed.splitlines()) == 1


def test_every_exercise_stands_in_exactly_one_notebook():
    keys = [key for path in NOTEBOOKS for key in tagged(nbformat.read(path, 4), "exercise")]
    assert sorted(keys) == KEYS
