"""Models loaded instead of trained: what `fit` accepts, what it refuses, and what it says then."""

import pytest
import torch
from torch import nn

from course_utils import VAE, fit, load, pretrained, use_pretrained
from course_utils.pretrained import PART_BYTES, load_pretrained, pretrained_mode, save_pretrained
from course_utils.weights import read_tensors, write_tensors

NAME = "99_vae"


@pytest.fixture(scope="module")
def data():
    return load("digits", size=8, levels=2)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    monkeypatch.setattr(pretrained, "_chosen", None)
    monkeypatch.delenv("COURSE_PRETRAINED", raising=False)
    return tmp_path


def vae(seed=0, **options):
    torch.manual_seed(seed)
    return VAE((1, 8, 8), z_dim=2, hidden=(32,), **options)


def run(model, data, mode, monkeypatch, **options):
    monkeypatch.setenv("COURSE_PRETRAINED", mode)
    options = {"steps": 60, "batch_size": 64, "lr": 5e-3} | options
    return fit(model, data, pretrained=NAME, **options)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(model, weights):
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


# ---- the switch --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment, mode", [("", "train"), ("0", "train"), ("1", "load"), ("record", "record")]
)
def test_the_environment_chooses(environment, mode, monkeypatch):
    monkeypatch.setenv("COURSE_PRETRAINED", environment)
    assert pretrained_mode() == mode


@pytest.mark.parametrize("choice, mode", [(True, "load"), (False, "train"), (None, "load")])
def test_the_notebook_has_the_last_word(choice, mode, monkeypatch):
    monkeypatch.setenv("COURSE_PRETRAINED", "1")
    use_pretrained(choice)
    assert pretrained_mode() == mode


def test_the_switch_says_that_nothing_will_train_and_else_is_silent(capsys):
    use_pretrained()
    use_pretrained(False)
    assert capsys.readouterr().out == ""
    use_pretrained(True)
    assert "chargés" in capsys.readouterr().out


def test_an_unknown_mode_is_refused(monkeypatch):
    monkeypatch.setenv("COURSE_PRETRAINED", "yes")
    with pytest.raises(ValueError, match="COURSE_PRETRAINED='yes': expected 1"):
        pretrained_mode()


# ---- what is loaded ----------------------------------------------------------------------------


def test_a_recorded_model_comes_back_with_its_curves_and_trains_no_step(data, monkeypatch, capsys):
    recorded = vae()
    first = run(recorded, data, "record", monkeypatch)
    capsys.readouterr()
    loaded = vae(seed=1)
    loaded.loss = lambda *args: VAE.loss(loaded, *args) if not loaded.training else 1 / 0
    history = run(loaded, data, "1", monkeypatch)
    assert equal(loaded, weights_of(recorded))
    assert history.steps == first.steps and history.val == first.val
    assert history.best_val == first.best_val and history.end == "finished"
    assert not loaded.training
    assert "Poids déjà entraînés. 60 pas" in capsys.readouterr().out


def test_loading_leaves_the_random_stream_where_training_would(data, monkeypatch):
    draws = []
    for mode in ("record", "1"):
        model = vae()
        run(model, data, mode, monkeypatch)
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_the_verdict_does_not_depend_on_the_device(data, monkeypatch):
    """Noise differs from a device to another: nothing is computed on the one that would train.

    A « meta » device stands in for it: it has shapes, and no numbers to judge by.
    """
    recorded, loaded = vae(), vae(seed=1)
    run(recorded, data, "record", monkeypatch)
    monkeypatch.setattr("course_utils.training.choose_device", lambda: torch.device("meta"))
    run(loaded, data, "1", monkeypatch)
    assert equal(loaded, weights_of(recorded))


def test_without_a_name_a_model_always_trains(data, monkeypatch):
    monkeypatch.setenv("COURSE_PRETRAINED", "1")
    model = vae()
    before = weights_of(model)
    fit(model, data, steps=2)
    assert not equal(model, before)


def test_training_writes_no_file_unless_asked(data, monkeypatch, folder):
    run(vae(), data, "0", monkeypatch)
    assert not list(folder.iterdir())


def test_an_interrupted_training_is_not_recorded(data, monkeypatch, folder):
    model = vae()

    def interrupted(*args):
        if model.training:
            raise KeyboardInterrupt
        return VAE.loss(model, *args)

    model.loss = interrupted
    assert run(model, data, "record", monkeypatch).end == "interrupted"
    assert not list(folder.iterdir())


# ---- what is refused: it says why, then trains -------------------------------------------------


def refused(data, monkeypatch, capsys, model=None, **options):
    """The sentence that is printed; the model has trained."""
    history = run(model or vae(seed=3), data, "1", monkeypatch, progress=False, **options)
    text = capsys.readouterr().out
    assert "s'entraîne donc ici" in text and f"« {NAME} »" in text
    assert history.best_val < history.val[0] and history.end == "finished"
    return text


@pytest.fixture
def file(data, monkeypatch, folder):
    run(vae(), data, "record", monkeypatch, progress=False)
    return folder / f"{NAME}.safetensors"


def test_a_missing_file(data, monkeypatch, capsys):
    assert "manque dans data/weights/" in refused(data, monkeypatch, capsys)


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_a_truncated_file(kept, file, data, monkeypatch, capsys):
    file.write_bytes(file.read_bytes()[:kept])
    text = refused(data, monkeypatch, capsys)
    assert "est abîmé : téléchargez-le de nouveau" in text


def test_a_file_without_its_metadata(file, data, monkeypatch, capsys):
    tensors, _ = read_tensors(file)
    write_tensors(tensors, file, {})
    assert "est abîmé" in refused(data, monkeypatch, capsys)


def test_a_model_of_another_size(file, data, monkeypatch, capsys):
    torch.manual_seed(3)
    model = VAE((1, 8, 8), z_dim=3, hidden=(32,))
    assert "d'une autre taille" in refused(data, monkeypatch, capsys, model)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"steps": 80}, "(steps = 60, val_every = 2 ; ici, steps = 80, "),
        ({"lr": 1e-3}, "(lr = 0.005 ; ici, lr = 0.001)"),
    ],
)
def test_another_training(options, said, file, data, monkeypatch, capsys):
    assert said in refused(data, monkeypatch, capsys, **options)


def test_other_data(file, monkeypatch, capsys):
    other = load("digits", size=14, levels=2, copies=0)
    torch.manual_seed(3)
    model = VAE(other.shape, z_dim=2, hidden=(32,))
    text = refused(other, monkeypatch, capsys, model)
    assert "images = [1350, 1, 8, 8] ; ici, images = [1350, 1, 14, 14]" in text


def test_a_model_that_computes_something_else_does_not_find_its_score(
    file, data, monkeypatch, capsys
):
    """Same weights, another β: nothing in the file says so, its validation loss does."""
    text = refused(data, monkeypatch, capsys, vae(seed=3, beta=4.0))
    assert "ne retrouve pas son score" in text and "au lieu de" in text


def test_weights_that_were_changed_do_not_find_their_score(file, data, monkeypatch, capsys):
    tensors, metadata = read_tensors(file)
    name = next(key for key in tensors if key.startswith("decoder") and key.endswith("bias"))
    tensors[name] = tensors[name] + 1
    write_tensors(tensors, file, metadata)
    assert "ne retrouve pas son score" in refused(data, monkeypatch, capsys)


def test_refused_weights_leave_those_of_the_model(file, data):
    model = vae(seed=3, beta=4.0)
    before = weights_of(model)
    recipe = read_tensors(file)[1]["recipe"]
    with pytest.raises(pretrained.UnusableWeights):
        load_pretrained(NAME, model, recipe, lambda: 1e9)
    assert equal(model, before)


# ---- rounding and parts ------------------------------------------------------------------------


class Numbers(nn.Module):
    """Its loss says how far its weights are from what they were."""

    def __init__(self, count, width, sensitivity=0.0):
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        for k in range(count):
            setattr(self, f"w{k}", nn.Parameter(torch.randn(width, width, generator=draws)))
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(2, 3))
        self.exact, self.sensitivity = weights_of(self), sensitivity

    def loss(self):
        gaps = [(v - self.exact[k]).abs().max().item() for k, v in self.named_parameters()]
        return 100.0 + self.sensitivity * max(gaps)


@pytest.mark.parametrize("sensitivity, dtype, worst", [
    (0.0, torch.int8, 2e-2), (20.0, torch.float16, 2e-3), (1e6, torch.float32, 0.0)])  # fmt: skip
def test_weights_are_rounded_as_far_as_the_loss_allows(sensitivity, dtype, worst, folder):
    model = Numbers(2, 40, sensitivity)
    save_pretrained(NAME, model, {"steps": 1}, {}, model.loss)
    tensors, metadata = read_tensors(folder / f"{NAME}.safetensors")
    assert tensors["w0"].dtype == dtype and tensors["steps"].item() == 7
    assert abs(metadata["loss"] - 100) <= 0.1
    gap = (model.w0 - model.exact["w0"]).abs().max()
    assert gap <= worst and (gap > 0) == (worst > 0)
    assert torch.equal(model.empty, torch.zeros(2, 3))

    again = Numbers(2, 40, sensitivity)
    load_pretrained(NAME, again, {"steps": 1}, again.loss)
    assert equal(again, weights_of(model))


def test_a_large_model_is_cut_in_files_below_the_limit(folder):
    model = Numbers(5, 600)  # 360 000 numbers each, one byte per number
    save_pretrained(NAME, model, {}, {}, model.loss)
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [
        f"{NAME}.2.safetensors", f"{NAME}.3.safetensors", f"{NAME}.safetensors"]  # fmt: skip
    assert all(file.stat().st_size < PART_BYTES for file in files)
    again = Numbers(5, 600)
    load_pretrained(NAME, again, {}, again.loss)
    assert equal(again, weights_of(model))
    files[1].unlink()
    with pytest.raises(pretrained.UnusableWeights, match="manque"):
        load_pretrained(NAME, again, {}, again.loss)


def test_the_score_may_differ_a_little_from_one_machine_to_another():
    model = Numbers(1, 10)
    save_pretrained(NAME, model, {}, {}, lambda: 100.0)
    for found, accepted in ((100.4, True), (99.6, True), (100.6, False), (float("nan"), False)):
        if accepted:
            load_pretrained(NAME, model, {}, lambda found=found: found)
        else:
            with pytest.raises(pretrained.UnusableWeights, match="score"):
                load_pretrained(NAME, model, {}, lambda found=found: found)
