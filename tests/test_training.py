"""The training loop: what it keeps, how it stops, how it resumes; the files it writes."""

import builtins
import json
import math
import os
import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from course_utils import fit, training, weights
from course_utils.data import RedrawnSplit, Split
from course_utils.training import choose_device
from course_utils.weights import load_weights, save_weights


class Mean(nn.Module):
    """Learns the mean of its data: loss = mean (x − mean)²."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3))

    def loss(self, x, y=None):
        return ((x - self.mean) ** 2).mean()


class Noisy(Mean):
    """The same with dropout and noise of its own: what a resumed training must find again."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.3)

    def loss(self, x, y=None):
        return super().loss(self.dropout(x) + 0.1 * torch.randn_like(x))


class Spy(Mean):
    """The same, which lets one note something of the images of each training step."""

    def __init__(self, note):
        super().__init__()
        self.note = note

    def loss(self, x, y=None):
        if self.training:
            self.note(x)
        return super().loss(x.float())


class Products(nn.Module):
    """A product and a convolution; notes what each call of the loss computed with."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.conv = nn.Linear(3, 4), nn.Conv1d(1, 2, 3)
        self.met = []

    def loss(self, x, y=None):
        product, convolution = self.linear(x), self.conv(x[:, None])
        self.met.append((self.training, product.dtype, convolution.dtype, self.linear.weight.dtype))
        return (product.float() ** 2).mean() + (convolution.float() - 1).pow(2).mean()


def disturbed(model, step, event):
    """The model, whose training meets `event` at that step: an error, or a factor of the loss."""
    calls, loss = [], model.loss

    def disturbed_loss(x, y=None):
        value = loss(x, y)
        calls.extend([None] * model.training)
        if not model.training or len(calls) != step + 1:
            return value
        if isinstance(event, BaseException):
            raise event
        return value * event

    model.loss = disturbed_loss
    return model


def interrupted(model, step):
    return disturbed(model, step, KeyboardInterrupt())


def part(centre, n, seed):
    generator = torch.Generator().manual_seed(seed)
    images = centre + 0.1 * torch.randn(n, 3, generator=generator)
    return Split(images, torch.arange(n))


@pytest.fixture
def data():
    """Train and validation agree: the best mean is 1."""
    return SimpleNamespace(train=part(1.0, 200, 0), val=part(1.0, 40, 1))


@pytest.fixture
def overfitting():
    """On the way from 0 to 1, the mean passes 0.3, the best for the validation set."""
    return SimpleNamespace(train=part(1.0, 200, 0), val=part(0.3, 40, 1))


@pytest.fixture
def redrawn(data):
    """Training images of zeros and ones, drawn anew at each visit."""
    grey = data.train.images.clamp(0, 1) / 2
    data.train = RedrawnSplit((grey > 0.5).float(), data.train.labels, grey=grey)
    return data


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "new" / "run.safetensors"


def run(model, data, **options):
    options = {"steps": 60, "batch_size": 20, "lr": 0.1, "val_every": 5, "device": "cpu"} | options
    return fit(model, data, **{"progress": False} | options)


def val_loss(model, data):
    with torch.no_grad():
        return ((data.val.images - model.mean) ** 2).mean().item()


def same(one, other):
    """Two models, equal bit for bit."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# ---- learning ---------------------------------------------------------------------------------


def test_loss_decreases_and_the_curves_say_so(data):
    model = Mean()
    history = run(model, data)
    assert history.end == "finished" and history.seconds > 0
    assert history.steps == list(range(0, 61, 5))
    assert len(history.train) == len(history.val) == 13
    assert math.isnan(history.train[0]) and history.train[-1] < history.train[1]
    assert history.val[-1] < 0.05 * history.val[0]
    assert model.mean.tolist() == pytest.approx([1, 1, 1], abs=0.1)


def test_val_every_defaults_to_a_25th_and_the_last_step_is_always_validated(data):
    assert run(Mean(), data, steps=100, val_every=None, patience=None).steps[:3] == [0, 4, 8]
    assert run(Mean(), data, steps=13, val_every=5).steps == [0, 5, 10, 13]
    assert run(Mean(), data, steps=5, batch_size=10_000).end == "finished"  # the whole data


def test_curves_are_means_of_the_losses(data):
    """With a learning rate of almost zero, the four batches of an epoch average to the data."""
    data.val.images[:10] = 5.0
    options = {"steps": 4, "batch_size": 50, "val_every": 4, "lr": 1e-12}
    history = run(Mean(), data, **options)
    assert history.train[1] == pytest.approx(data.train.images.square().mean().item(), rel=1e-4)
    assert history.val[0] == pytest.approx((data.val.images**2).mean().item())
    assert run(Mean(), data, val_size=10, **options).val[0] == pytest.approx(25.0)


def test_every_image_is_seen_once_per_epoch_in_another_order_each_time(data):
    images = torch.arange(12.0).view(12, 1).expand(12, 3)
    data.train = Split(images, torch.arange(12))
    seen = []
    run(Spy(lambda x: seen.extend(x[:, 0].tolist())), data, steps=6, batch_size=4)
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


def test_best_weights_come_back_when_the_validation_loss_rises(overfitting):
    model = Mean()
    history = run(model, overfitting, patience=None)
    assert history.end == "finished" and history.val[-1] > 5 * history.best_val
    assert history.best_val == min(history.val)
    assert history.best_step == history.steps[history.val.index(min(history.val))]
    assert 0 < history.best_step < 60
    assert val_loss(model, overfitting) == pytest.approx(history.best_val, rel=1e-5)


@pytest.mark.parametrize("conditional", [False, True])
def test_labels_reach_the_model_only_when_asked(data, conditional):
    given = []

    class Conditional(Mean):
        def loss(self, x, y=None):
            given.append(y)
            if y is not None:  # labels are indices: they must go with their image
                source = data.train if self.training else data.val
                assert torch.equal(source.images[y], x)
            return super().loss(x)

    run(Conditional(), data, conditional=conditional, steps=5)
    assert all((y is not None) == conditional for y in given)


def test_weight_decay_shrinks_the_weights(data):
    free, decayed = Mean(), Mean()
    run(free, data)
    run(decayed, data, weight_decay=2.0)
    assert decayed.mean.norm() < 0.9 * free.mean.norm()


def test_the_learning_rate_rises_then_falls(data):
    """One cycle: the weight moves fastest around 30 % of the steps, hardly at the end."""
    means = []

    class Drift(Mean):
        def loss(self, x, y=None):
            if self.training:
                means.append(self.mean[0].item())
            return -self.mean.mean() + 0 * x.mean()

    run(Drift(), data, steps=100)
    pace = torch.tensor(means).diff()
    assert 20 <= pace.argmax() <= 40 and pace[-1] < 0.01 * pace.max()
    assert pace.max().item() == pytest.approx(0.1, rel=0.05)


# ---- what it says -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, said, unsaid",
    [
        ({}, "60 pas en DURATION. Meilleure validation : écart = 0.0 nats/image, au pas", "arrêt"),
        ({"lr": 300.0, "patience": 2}, "10 pas en DURATION, arrêt avant la fin", "au pas"),
        ({"lr": 300.0}, "coût = 1.0 nats/image, avant le premier pas : rien n'a été ap", "au pas"),
    ],
)
def test_it_says_why_it_stopped_and_whether_anything_was_learned(
    options, said, unsaid, data, capsys
):
    model = Mean()
    if "écart" in said:
        model.loss_name = "écart"
    run(model, data, **{"progress": True, "patience": None} | options)
    printed = capsys.readouterr()
    text = re.sub(r"en \d+ s", "en DURATION", printed.out)
    assert said in text and unsaid not in text
    assert "nats/image" in printed.err  # the progress bar


IMAGES = torch.zeros(6, 3)
BARE = Split(IMAGES)  # without labels
EMPTY = Split(IMAGES[:0], torch.arange(0))


@pytest.mark.parametrize(
    "given, options, error, message",
    [
        (IMAGES, {}, TypeError, "expected a Dataset.*got a Tensor.*load_images"),
        (torch.utils.data.DataLoader(IMAGES), {}, TypeError, "got a DataLoader"),
        (torch.utils.data.TensorDataset(IMAGES), {}, TypeError, "got a TensorDataset"),
        ((BARE, IMAGES), {}, TypeError, "expected a Dataset"),
        ((EMPTY, BARE), {}, ValueError, "data.train must hold at least one image"),
        ((BARE, EMPTY), {}, ValueError, "data.val must hold at least one image"),
        ((BARE, BARE), {"conditional": True}, ValueError, r"data.train needs labels, Split\(imag"),
        ((BARE, BARE), {"steps": 0}, ValueError, "steps=0: expected at least 1"),
        ((BARE, BARE), {"batch_size": 0}, ValueError, "batch_size=0: expected at least 1"),
        ((BARE, BARE), {"val_every": 0}, ValueError, "val_every=0: expected at least 1"),
        ((BARE, BARE), {"val_size": 0}, ValueError, "val_size=0: expected at least 1"),
        ((BARE, BARE), {"patience": 0}, ValueError, "patience=0: expected at least 1 validation"),
        ((BARE, BARE), {"lr": 0.0}, ValueError, "lr=0.0: expected a positive learning rate"),
        ((BARE, BARE), {"resume": True}, ValueError, "resume=True needs the checkpoint=…"),
    ],
)
def test_what_fit_refuses(given, options, error, message):
    if isinstance(given, tuple):
        given = SimpleNamespace(train=given[0], val=given[1])
    model = Mean()
    with pytest.raises(error, match=message):
        run(model, given, **options)
    assert model.mean.grad is None


def test_labels_are_optional_and_the_smallest_arguments_are_accepted():
    bare = SimpleNamespace(train=BARE, val=BARE)
    for name in ("steps", "batch_size", "val_every", "val_size", "patience"):
        assert run(Mean(), bare, **{name: 1}).end in ("finished", "early stop")


# ---- randomness, device and mode --------------------------------------------------------------


def test_same_seed_same_weights_other_seed_other_weights(data):
    models = [Noisy() for _ in range(3)]
    for model, seed, noise in zip(models, (0, 0, 1), (10, 11, 12)):
        torch.manual_seed(noise)  # the global stream must not matter
        run(model, data, seed=seed)
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_redrawn_images_change_at_each_visit(redrawn):
    visits = []

    def note(x):
        visits.append(x.sum(1).sort().values)  # in whatever order the images came

    run(Spy(note), redrawn, steps=2, batch_size=200)  # twice all the images
    assert not torch.equal(*visits)


@pytest.mark.parametrize("model", [Noisy(), interrupted(Noisy(), 7)], ids=["finished", "cut"])
def test_global_random_stream_is_left_untouched(data, model):
    state = torch.get_rng_state()
    run(model, data)
    assert torch.equal(torch.get_rng_state(), state)


def test_validation_has_the_same_noise_each_time_and_does_not_disturb_the_training(data):
    often, rarely = Noisy(), Noisy()
    run(often, data, val_every=1, patience=None, steps=20)
    run(rarely, data, val_every=20, patience=None, steps=20)
    assert same(often, rarely)
    flat = run(Noisy(), data, steps=5, val_every=1, lr=1e-12).val
    assert max(flat) - min(flat) < 1e-6


@pytest.mark.parametrize("bfloat16", [False, True])
def test_bfloat16_is_for_the_products_of_the_training_only(checkpoint, data, bfloat16):
    """Weights, gradients and validation keep their 32 bits; the file tells."""
    model = Products()
    history = run(model, data, bfloat16=bfloat16, lr=0.02, checkpoint=checkpoint)
    assert history.val[-1] < 0.1 * history.val[0]
    full = torch.float32
    half = torch.bfloat16 if bfloat16 else full
    assert set(model.met) == {(True, half, half, full), (False, full, full, full)}
    assert all(value.dtype == full for value in model.state_dict().values())
    assert all(parameter.grad.dtype == full for parameter in model.parameters())
    assert not torch.is_autocast_enabled("cpu")
    with safe_open(checkpoint, framework="pt") as file:
        assert json.loads(file.metadata()["json"])["recipe"]["bfloat16"] is bfloat16
        moments = [name for name in file.keys() if name.startswith(("adam", "best", "model"))]
        assert moments and all(file.get_tensor(name).dtype == full for name in moments)


def test_the_losses_are_read_at_validations_only(data, monkeypatch):
    """Between two validations, `fit` waits for no value that a GPU has yet to compute."""
    reads, known = [], []

    def counted(original):
        def read(tensor, *args):
            reads.append(original)
            return original(tensor, *args)

        return read

    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name)))

    run(Spy(lambda x: known.append(len(reads))), data, steps=20, val_every=10)
    assert known[:10] == known[:1] * 10 and known[10:] == known[10:11] * 10
    assert known[0] < known[10] < len(reads)


@pytest.mark.parametrize("resident", [0, 10**6])
def test_a_training_set_that_is_not_too_large_goes_to_the_device(data, monkeypatch, resident):
    moves = []

    class Moved(Split):
        def to(self, device):
            moves.append(device)
            return super().to(device)

    data.train = Moved(data.train.images, data.train.labels)
    monkeypatch.setattr(training, "RESIDENT", resident)
    run(Mean(), data, conditional=True)
    assert moves == [torch.device("cpu")] * (resident > 0)


def test_model_goes_home_in_eval_mode(data):
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        model = Noisy().train()
        run(model, data, steps=5, device=device)
        assert model.mean.device.type == "cpu" and not model.training


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_choose_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == torch.device(expected)


# ---- trainings cut short ----------------------------------------------------------------------


def test_early_stop_after_patience_validations_without_progress(overfitting):
    history = run(Mean(), overfitting, patience=3)
    assert history.end == "early stop"
    assert history.steps[-1] == history.best_step + 3 * 5


def test_interruption_keeps_the_best_weights_and_says_so(overfitting, capsys):
    model = interrupted(Mean(), 33)
    history = run(model, overfitting)
    assert history.end == "interrupted"
    assert history.steps[-1] == 33 and history.best_step < 33
    assert val_loss(model, overfitting) == pytest.approx(min(history.val), rel=1e-5)
    said = capsys.readouterr().out
    assert "Entraînement interrompu au pas 33 sur 60" in said
    assert f"ceux du pas {history.best_step}" in said
    model.loss(overfitting.val.images).backward()  # the model still works
    assert torch.isfinite(model.mean.grad).all() and not model.training


def test_interruption_before_the_first_validation_keeps_what_was_learned(data):
    model = interrupted(Mean(), 17)
    history = run(model, data, val_every=50)
    assert history.steps == [0, 17] and history.best_step == 17
    assert val_loss(model, data) < history.val[0]
    model = interrupted(Mean(), 0)
    history = run(model, data)
    assert (history.end, history.steps, model.mean.tolist()) == ("interrupted", [0], [0, 0, 0])


@pytest.mark.parametrize(
    "event, error, message",
    [
        (math.nan, FloatingPointError, r"at step 42 \(learning rate .*best weights back"),
        (RuntimeError("out of memory"), RuntimeError, "out of memory"),
    ],
)
def test_an_error_gives_the_best_weights_back(overfitting, event, error, message):
    model, reference = disturbed(Mean(), 42, event), interrupted(Mean(), 42)
    with pytest.raises(error, match=message):
        run(model, overfitting)
    run(reference, overfitting)
    assert same(model, reference) and torch.isfinite(model.mean).all() and not model.training


@pytest.mark.parametrize("event", [math.nan, math.inf])
def test_the_first_loss_that_is_not_finite_is_found_at_the_next_validation(data, event):
    """It is told as if it had been seen at once: its step, its value, its learning rate."""
    told = []
    for val_every in (1, 5, 60):
        with pytest.raises(FloatingPointError, match=f"became {event} at step 42 ") as caught:
            run(disturbed(Mean(), 42, event), data, val_every=val_every, patience=None)
        told.append(str(caught.value))
    assert told == told[:1] * 3


# ---- resuming ---------------------------------------------------------------------------------


def curves(history):
    """All that a history says, but for the time it took; text, where NaN equals NaN."""
    return repr(vars(history) | {"seconds": None})


@pytest.mark.parametrize("step", [3, 20, 38])
@pytest.mark.parametrize(
    "images, build, options",
    [
        ("data", Noisy, {}),
        ("data", Products, {"lr": 0.02}),
        ("data", Products, {"lr": 0.02, "bfloat16": True}),
        ("redrawn", Mean, {"patience": None}),
    ],
)
def test_resumed_training_equals_an_uncut_one_bit_for_bit(
    checkpoint, images, build, options, step, request
):
    """Even of models in eval mode, as `fit` leaves them: the dropout must be back on."""
    data = request.getfixturevalue(images)
    whole, cut, resumed = build(), interrupted(build().eval(), step), build().eval()
    expected = run(whole, data, **options)
    assert run(cut, data, checkpoint=checkpoint, **options).end == "interrupted"
    torch.manual_seed(99)
    history = run(resumed, data, checkpoint=checkpoint, resume=True, **options)
    assert same(resumed, whole) and curves(history) == curves(expected)


@pytest.mark.parametrize(("patience", "end"), [(10, "finished"), (2, "early stop")])
def test_resuming_a_training_that_is_over_changes_nothing(checkpoint, overfitting, patience, end):
    one, other = Noisy(), Noisy()
    options = {"patience": patience, "checkpoint": checkpoint, "resume": True}
    first, again = (run(model, overfitting, **options) for model in (one, other))
    assert first.end == end and same(one, other) and curves(first) == curves(again)


@pytest.mark.parametrize(
    "other",
    [{"steps": 61}, {"batch_size": 21}, {"lr": 0.2}, {"weight_decay": 0.1}, {"val_every": 6},
     {"val_size": 9}, {"seed": 1}, {"conditional": True}, {"bfloat16": True}],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_resuming_with_another_recipe_is_refused(checkpoint, data, other):
    run(Mean(), data, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="another training .*the same arguments, or another check"):
        run(Mean(), data, checkpoint=checkpoint, resume=True, **other)


# ---- files ------------------------------------------------------------------------------------


def test_weights_round_trip_with_their_metadata(tmp_path):
    model, other = Noisy(), Noisy()
    nn.init.normal_(model.mean)
    path = tmp_path / "new" / "model.safetensors"
    metadata = {"accuracy": {"digits": 0.99}, "steps": 6000, "note": "écrit", "sizes": [1, 2]}
    save_weights(model, path, **metadata)
    assert load_weights(other, path) == metadata
    assert same(model, other)
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]
    if os.name != "nt":  # the permissions are those of Unix: all may read
        assert path.stat().st_mode & 0o777 == 0o644


def test_files_are_safetensors_and_nothing_is_pickled(checkpoint, data, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("pickle")

    for module, names in (
        (pickle, ("dump", "dumps", "load", "loads", "Pickler", "Unpickler")),
        (torch, ("save", "load")),
        (builtins, ("eval",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, forbidden)
    run(interrupted(Noisy(), 30), data, checkpoint=checkpoint)
    run(Noisy(), data, checkpoint=checkpoint, resume=True)
    with safe_open(checkpoint, framework="pt") as file:
        assert {"model/mean", "best/mean", "random/cpu"} <= set(file.keys())


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_cut_midway_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "model.safetensors"
    save_weights(Mean(), path)
    old = path.read_bytes()

    def cut(tensors, file, metadata):
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(weights, "save_file", cut)
    with pytest.raises(type(error)):
        save_weights(Mean(), path, note="new")
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kept", [0, 4, 50, 200, -1])
def test_damaged_and_missing_files_are_refused(checkpoint, data, kept):
    with pytest.raises(FileNotFoundError, match="no weights at .*new"):
        load_weights(Mean(), checkpoint)
    run(Mean(), data, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    for refused in (
        lambda: load_weights(Mean(), checkpoint),
        lambda: run(Mean(), data, checkpoint=checkpoint, resume=True),
    ):
        with pytest.raises(ValueError, match="damaged.*delete it and train again"):
            refused()


def test_weights_of_another_model_are_refused(checkpoint, tmp_path, data):
    path = tmp_path / "model.safetensors"
    save_weights(Mean(), path)
    run(Mean(), data, checkpoint=checkpoint)
    wider = nn.ParameterDict({"mean": torch.zeros(3), "extra": torch.zeros(2)})
    for other in (nn.Linear(3, 1), nn.ParameterDict({"mean": torch.zeros(4)}), wider):
        with pytest.raises(ValueError, match="holds the weights of another model"):
            load_weights(other, path)
    with pytest.raises(ValueError, match="holds the weights of another model"):
        run(Products(), data, checkpoint=checkpoint, resume=True)
