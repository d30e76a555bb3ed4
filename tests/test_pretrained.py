"""Models loaded instead of trained: what `fit` accepts, what it refuses, and what it says then."""

import pytest
import torch
from torch import nn

from course_utils import VAE, fit, load, pretrained, use_pretrained
from course_utils.pretrained import PART_BYTES, load_pretrained, pretrained_mode, save_pretrained
from course_utils.weights import copy_weights, read_tensors, write_tensors

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


def vae(seed=0, shape=(1, 8, 8), **options):
    torch.manual_seed(seed)
    return VAE(shape, **{"z_dim": 2, "hidden": (32,)} | options)


def run(model, data, mode, monkeypatch, **options):
    monkeypatch.setenv("COURSE_PRETRAINED", mode)
    options = {"steps": 60, "batch_size": 64, "lr": 5e-3} | options
    return fit(model, data, pretrained=NAME, **options)


def equal(model, weights):
    return all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


# ---- the switch --------------------------------------------------------------------------------


def test_the_environment_chooses_and_the_notebook_has_the_last_word(monkeypatch, capsys):
    modes = {"": "train", "0": "train", "try": "try", "record": "record", "1": "load"}
    for asked, mode in modes.items():
        monkeypatch.setenv("COURSE_PRETRAINED", asked)
        assert pretrained_mode() == mode
    for choice, mode in ((False, "train"), (True, "load"), (None, "load")):
        use_pretrained(choice)
        assert pretrained_mode() == mode
        assert ("chargés" in capsys.readouterr().out) == (mode == "load")
    monkeypatch.setenv("COURSE_PRETRAINED", "yes")
    with pytest.raises(ValueError, match="COURSE_PRETRAINED='yes': expected 1"):
        pretrained_mode()


# ---- what is loaded ----------------------------------------------------------------------------


def test_a_recorded_model_comes_back_with_its_curves_and_trains_no_step(data, monkeypatch, capsys):
    recorded, loaded = vae(seed=1), vae()
    loaded.loss = lambda *args: VAE.loss(loaded, *args) if not loaded.training else 1 / 0
    stream = torch.get_rng_state()
    first = run(recorded, data, "record", monkeypatch)
    after = torch.get_rng_state()
    capsys.readouterr()
    # Noise differs from a device to another: nothing is computed on the one that would train. A
    # « meta » device stands in for it: it has shapes, and no numbers to judge by.
    monkeypatch.setattr("course_utils.training.choose_device", lambda: torch.device("meta"))
    torch.set_rng_state(stream)
    history = run(loaded, data, "1", monkeypatch)
    assert torch.equal(torch.get_rng_state(), after), (
        "the random stream is where training leaves it"
    )
    assert equal(loaded, copy_weights(recorded))
    assert history.steps == first.steps and history.val == first.val
    assert history.best_val == first.best_val and history.end == "finished"
    assert not loaded.training
    assert "Poids déjà entraînés. 60 pas" in capsys.readouterr().out


def test_a_training_that_is_tried_begins_learns_and_is_spared(data, monkeypatch, capsys):
    recorded, loaded, steps = vae(seed=1), vae(), []
    loaded.loss = lambda *args: steps.append(loaded.training) or VAE.loss(loaded, *args)
    first = run(recorded, data, "record", monkeypatch)
    stream = torch.get_rng_state()
    history = run(loaded, data, "try", monkeypatch, val_every=2)  # the recipe of the file: 60 // 25
    assert sum(steps) == 2
    assert equal(loaded, copy_weights(recorded)) and history.val == first.val
    assert torch.equal(torch.get_rng_state(), stream)
    assert "Poids déjà entraînés. 60 pas" in capsys.readouterr().out


def test_a_training_that_is_tried_and_learns_nothing_is_an_error(data, monkeypatch):
    model = vae()
    before = copy_weights(model)
    with pytest.raises(RuntimeError, match=r"nothing is learned in 2 steps: .* goes from .* to "):
        run(model, data, "try", monkeypatch, lr=1e4)
    assert equal(model, before) and not model.training


def test_without_a_name_a_model_always_trains(data, monkeypatch):
    monkeypatch.setenv("COURSE_PRETRAINED", "1")
    model = vae()
    before = copy_weights(model)
    fit(model, data, steps=2)
    assert not equal(model, before)


def test_no_file_is_written_unless_asked_and_trained_to_the_end(data, monkeypatch, folder):
    run(vae(), data, "0", monkeypatch)
    model = vae()

    def interrupted(*args):
        if model.training:
            raise KeyboardInterrupt
        return VAE.loss(model, *args)

    model.loss = interrupted
    assert run(model, data, "record", monkeypatch).end == "interrupted"
    assert not list(folder.iterdir())


# ---- what is refused: it says why, then trains -------------------------------------------------


@pytest.fixture
def file(data, monkeypatch, folder):
    run(vae(), data, "record", monkeypatch, progress=False)
    return folder / f"{NAME}.safetensors"


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-1])


def without_metadata(file):
    tensors, _ = read_tensors(file)
    write_tensors(tensors, file, {})


def with_other_weights(file):
    tensors, metadata = read_tensors(file)
    name = next(key for key in tensors if key.startswith("decoder") and key.endswith("bias"))
    write_tensors(tensors | {name: tensors[name] + 1}, file, metadata)


def untouched(file):
    pass


LARGER = "images = [1350, 1, 8, 8] ; ici, images = [1350, 1, 14, 14]"


@pytest.mark.parametrize(
    "damage, built, trained, said",
    [
        (lambda file: file.unlink(), {}, {}, "manque dans data/weights/"),
        (cut_short, {}, {}, "est abîmé : téléchargez-le de nouveau"),
        (without_metadata, {}, {}, "est abîmé"),
        (untouched, {"z_dim": 3}, {}, "d'une autre taille"),
        (untouched, {}, {"steps": 80}, "(steps = 60, val_every = 2 ; ici, steps = 80, "),
        (untouched, {}, {"lr": 1e-3}, "(lr = 0.005 ; ici, lr = 0.001)"),
        (untouched, {"shape": (1, 14, 14)}, {}, LARGER),
        # Same weights, another β: nothing in the file says so, its validation loss does.
        (untouched, {"beta": 4.0}, {}, "ne retrouve pas son score"),
        (with_other_weights, {}, {}, "nats/image au lieu de"),
    ],
)
def test_what_is_refused(damage, built, trained, said, file, data, monkeypatch, capsys):
    damage(file)
    if "shape" in built:
        data = load("digits", size=14, levels=2, copies=0)
    history = run(vae(seed=3, **built), data, "1", monkeypatch, progress=False, **trained)
    text = capsys.readouterr().out
    assert said in text and "s'entraîne donc ici" in text and f"« {NAME} »" in text
    assert history.best_val < history.val[0] and history.end == "finished"


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
        self.exact, self.sensitivity = copy_weights(self), sensitivity

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
    assert equal(again, copy_weights(model))


def test_a_large_model_is_cut_in_files_below_the_limit(folder):
    model = Numbers(5, 600)  # 360 000 numbers each, one byte per number
    save_pretrained(NAME, model, {}, {}, model.loss)
    files = sorted(folder.iterdir())
    names = [f"{NAME}{number}.safetensors" for number in (".2", ".3", "")]
    assert [file.name for file in files] == names
    assert all(file.stat().st_size < PART_BYTES for file in files)
    again = Numbers(5, 600)
    load_pretrained(NAME, again, {}, again.loss)
    assert equal(again, copy_weights(model))
    files[1].unlink()
    with pytest.raises(pretrained.UnusableWeights, match="manque"):
        load_pretrained(NAME, again, {}, again.loss)


def test_the_score_may_differ_a_little_from_one_machine_to_another():
    """Beyond, the model keeps the weights it has."""
    model, other = Numbers(1, 10), Numbers(1, 10)
    nn.init.zeros_(other.w0)
    save_pretrained(NAME, model, {}, {}, lambda: 100.0)
    for refused in (100.6, 99.4, float("nan")):
        with pytest.raises(pretrained.UnusableWeights, match="score"):
            load_pretrained(NAME, other, {}, lambda found=refused: found)
        assert not other.w0.any()
    for accepted in (100.4, 99.6):
        load_pretrained(NAME, other, {}, lambda found=accepted: found)
        assert equal(other, copy_weights(model))
