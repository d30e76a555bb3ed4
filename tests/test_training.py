"""The training loop: what it keeps, how it stops, how it resumes; the files it writes."""

import builtins
import json
import math
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from course_utils import VAE, fit, weights
from course_utils.data import Split
from course_utils.training import choose_device
from course_utils.weights import load_weights, save_weights

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU"))]  # fmt: skip


class Mean(nn.Module):
    """Learns the mean of its data: loss = mean (x − mean)². `on_step(n)` runs before step n."""

    def __init__(self, on_step=None):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3))
        self.on_step, self.calls = on_step, 0

    def loss(self, x, y=None):
        factor = None
        if self.training and self.on_step is not None:
            factor = self.on_step(self.calls)
        self.calls += self.training
        return ((x - self.mean) ** 2).mean() * (1.0 if factor is None else factor)


class Noisy(Mean):
    """The same with dropout and noise of its own: what a resumed training must find again."""

    def __init__(self, on_step=None):
        super().__init__(on_step)
        self.dropout = nn.Dropout(0.3)

    def loss(self, x, y=None):
        return super().loss(self.dropout(x) + 0.1 * torch.randn_like(x))


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


def interrupt_at(step):
    def on_step(n):
        if n == step:
            raise KeyboardInterrupt

    return on_step


def run(model, data, **options):
    options = {"steps": 60, "batch_size": 20, "lr": 0.1, "val_every": 5, "device": "cpu"} | options
    return fit(model, data, **{"progress": False} | options)


def val_loss(model, data):
    with torch.no_grad():
        return ((data.val.images - model.mean) ** 2).mean().item()


def same(one, other):
    """Equal bit for bit, two models or two lists of numbers (NaN included)."""
    if isinstance(one, nn.Module):
        one, other = one.state_dict(), other.state_dict()
        return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    return repr(one) == repr(other)


# ---- learning ---------------------------------------------------------------------------------


def test_loss_decreases_and_the_curves_say_so(data):
    model = Mean()
    history = run(model, data)
    assert history.end == "finished"
    assert history.steps == list(range(0, 61, 5))
    assert len(history.train) == len(history.val) == 13
    assert math.isnan(history.train[0]) and history.train[-1] < history.train[1]
    assert history.val[-1] < 0.05 * history.val[0]
    assert model.mean.tolist() == pytest.approx([1, 1, 1], abs=0.1)
    assert history.seconds > 0


def test_val_every_defaults_to_a_25th_and_the_last_step_is_always_validated(data):
    assert run(Mean(), data, steps=100, val_every=None, patience=None).steps[:3] == [0, 4, 8]
    assert run(Mean(), data, steps=13, val_every=5).steps == [0, 5, 10, 13]


def test_validation_looks_at_the_first_images_only_when_told(data):
    """The best mean of the first 10 validation images is 5, of all of them 1."""
    data.val.images[:10] = 5.0
    few = run(Mean(), data, steps=4, lr=1e-12, val_size=10).val
    every = run(Mean(), data, steps=4, lr=1e-12).val
    assert few[0] == pytest.approx(25.0)
    assert every[0] == pytest.approx((data.val.images**2).mean().item())


def test_train_curve_is_the_mean_since_the_last_validation(data):
    """With a learning rate of almost zero, the four batches of an epoch average to the data."""
    history = run(Mean(), data, steps=4, batch_size=50, val_every=4, lr=1e-12)
    assert history.train[1] == pytest.approx(data.train.images.square().mean().item(), rel=1e-4)


def test_every_image_is_seen_once_per_epoch_in_another_order_each_time():
    images = torch.arange(12.0).view(12, 1).expand(12, 3)
    data = SimpleNamespace(train=Split(images, torch.arange(12)), val=part(1.0, 5, 0))
    seen = []

    class Spy(Mean):
        def loss(self, x, y=None):
            if self.training:
                seen.extend(x[:, 0].tolist())
            return super().loss(x)

    run(Spy(), data, steps=6, batch_size=4)
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


def test_early_stop_after_patience_validations_without_progress(overfitting):
    history = run(Mean(), overfitting, patience=3)
    assert history.end == "early stop"
    assert history.steps[-1] == history.best_step + 3 * 5


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
        ({}, "60 pas en 0 s. Meilleure validation : coût = 0.0 nats/image, au pas", "arrêt"),
        ({"lr": 300.0, "patience": 2}, "10 pas en 0 s, arrêt avant la fin", "au pas"),
        (
            {"lr": 300.0},
            "coût = 1.0 nats/image, avant le premier pas : rien n'a été appris",
            "au pas",
        ),
    ],
)
def test_it_says_why_it_stopped_and_whether_anything_was_learned(
    options, said, unsaid, data, capsys
):
    run(Mean(), data, **{"progress": True, "patience": None} | options)
    text = capsys.readouterr().out
    assert said in text and unsaid not in text


def test_a_model_names_its_loss(data, capsys):
    model = Mean()
    model.loss_name = "écart"
    run(model, data, progress=True)
    assert "validation : écart = 0.0 nats/image" in capsys.readouterr().out


# ---- data that are no data set ----------------------------------------------------------------

IMAGES = torch.zeros(6, 3)


@pytest.mark.parametrize(
    "given, error, message",
    [
        (IMAGES, TypeError, "expected a Dataset.*got a Tensor.*load_images"),
        (torch.utils.data.DataLoader(IMAGES), TypeError, "got a DataLoader"),
        (torch.utils.data.TensorDataset(IMAGES), TypeError, "got a TensorDataset"),
        (SimpleNamespace(train=Split(IMAGES, None), val=IMAGES), TypeError, "expected a Dataset"),
        (
            SimpleNamespace(train=Split(IMAGES, None), val=Split(IMAGES[:0], None)),
            ValueError,
            "val must hold",
        ),
    ],
)
def test_other_data_are_refused_with_the_way_to_give_them(given, error, message):
    model = Mean()
    with pytest.raises(error, match=message):
        run(model, given)
    assert model.calls == 0


def test_labels_are_optional_unless_the_model_needs_them(data):
    without = SimpleNamespace(
        train=Split(data.train.images, None), val=Split(data.val.images, None)
    )
    assert run(Mean(), without).end == "finished"
    with pytest.raises(ValueError, match=r"data.train needs labels, Split\(images, labels\)"):
        run(Mean(), without, conditional=True)


# ---- randomness -------------------------------------------------------------------------------


def test_same_seed_same_weights_other_seed_other_weights(data):
    models = [Noisy() for _ in range(3)]
    for model, seed, noise in zip(models, (0, 0, 1), (10, 11, 12)):
        torch.manual_seed(noise)  # the global stream must not matter
        run(model, data, seed=seed)
    assert same(models[0], models[1]) and not same(models[0], models[2])


@pytest.mark.parametrize("on_step", [None, interrupt_at(7)], ids=["finished", "interrupted"])
def test_global_random_stream_is_left_untouched(data, on_step):
    state = torch.get_rng_state()
    run(Noisy(on_step), data)
    assert torch.equal(torch.get_rng_state(), state)


def test_validation_does_not_disturb_the_training(data):
    often, rarely = Noisy(), Noisy()
    run(often, data, val_every=1, patience=None, steps=20)
    run(rarely, data, val_every=20, patience=None, steps=20)
    assert same(often, rarely)


def test_every_validation_has_the_same_noise(data):
    """With a learning rate of almost zero the validation curve is flat, noise or not."""
    values = run(Noisy(), data, steps=5, val_every=1, lr=1e-12).val
    assert max(values) - min(values) < 1e-6


# ---- device and mode --------------------------------------------------------------------------


class Products(nn.Module):
    """A product and a convolution; notes what each call of the loss computed with."""

    def __init__(self, on_step=None):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.conv = nn.Linear(3, 4), nn.Conv1d(1, 2, 3)
        self.on_step, self.met = on_step, []

    def loss(self, x, y=None):
        if self.training and self.on_step is not None:
            self.on_step(sum(training for training, *_ in self.met))
        product, convolution = self.linear(x), self.conv(x[:, None])
        self.met.append((self.training, product.dtype, convolution.dtype, self.linear.weight.dtype))
        return (product.float() ** 2).mean() + (convolution.float() - 1).pow(2).mean()


@pytest.mark.parametrize("bfloat16", [False, True])
def test_bfloat16_is_for_the_products_of_the_training_only(tmp_path, data, bfloat16):
    """Weights, gradients and validation keep their 32 bits; the file tells."""
    model, checkpoint = Products(), tmp_path / "run.safetensors"
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


def test_bfloat16_changes_the_training_a_little(data):
    weights = []
    for bfloat16 in (False, True, True):
        model = Products()
        run(model, data, bfloat16=bfloat16, steps=20, lr=0.02)
        weights.append(model.linear.weight.detach())
    assert torch.equal(weights[1], weights[2]) and not torch.equal(weights[0], weights[1])
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0.02)


def test_a_resumed_training_in_bfloat16_equals_an_uncut_one(tmp_path, data):
    whole, cut, resumed = Products(), Products(interrupt_at(23)), Products()
    checkpoint = tmp_path / "run.safetensors"
    options = {"bfloat16": True, "lr": 0.02}
    run(whole, data, **options)
    assert run(cut, data, checkpoint=checkpoint, **options).end == "interrupted"
    run(resumed, data, checkpoint=checkpoint, resume=True, **options)
    assert same(resumed, whole)


@pytest.mark.parametrize("device", DEVICES)
def test_model_goes_home_in_eval_mode(data, device):
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


def test_a_model_in_eval_mode_is_trained_in_train_mode(data):
    one, other = Noisy().eval(), Noisy().train()
    run(one, data, steps=5)
    run(other, data, steps=5)
    assert same(one, other)


# ---- interruption -----------------------------------------------------------------------------


def test_interruption_keeps_the_best_weights_and_says_so(overfitting, capsys):
    model = Mean(interrupt_at(33))
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
    model = Mean(interrupt_at(17))
    history = run(model, data, val_every=50)
    assert history.steps == [0, 17] and history.best_step == 17
    assert val_loss(model, data) < history.val[0]


def test_interruption_of_the_very_first_step(data):
    model = Mean(interrupt_at(0))
    history = run(model, data)
    assert (history.end, history.steps, model.mean.tolist()) == ("interrupted", [0], [0, 0, 0])


# ---- a loss that is no longer finite ----------------------------------------------------------


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_gives_the_best_weights_back(overfitting, factor):
    model = Mean(lambda n: factor if n == 42 else None)
    with pytest.raises(FloatingPointError, match=r"at step 42 \(learning rate .*best weights back"):
        run(model, overfitting)
    reference = Mean(interrupt_at(42))
    run(reference, overfitting)
    assert same(model, reference) and torch.isfinite(model.mean).all() and not model.training


def test_another_error_of_the_model_also_gives_the_best_weights_back(data):
    def fail(n):
        if n == 12:
            raise RuntimeError("out of memory")

    model = Mean(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(model, data)
    assert val_loss(model, data) < 0.9 and not model.training


# ---- resuming ---------------------------------------------------------------------------------


def noisy_vae(on_step=None):
    torch.manual_seed(0)
    model = VAE((1, 2, 2), z_dim=2, hidden=(8,))
    calls, loss = [], model.loss

    def counted(x, y=None):
        if on_step is not None and model.training:
            on_step(len(calls))
            calls.append(None)
        return loss(x, y)

    model.loss = counted
    return model


@pytest.fixture
def binary():
    images = torch.randint(0, 2, (150, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    split = Split(images.to(torch.uint8), torch.zeros(150, dtype=torch.long))
    return SimpleNamespace(train=split, val=Split(split.images[:30], split.labels[:30]))


@pytest.mark.parametrize("step", [3, 20, 38])
@pytest.mark.parametrize("build", [noisy_vae, Noisy])
def test_resumed_training_equals_an_uncut_one_bit_for_bit(tmp_path, data, binary, build, step):
    source = binary if build is noisy_vae else data
    whole, cut, resumed = build(), build(interrupt_at(step)), build()
    expected = run(whole, source)
    checkpoint = tmp_path / "run.safetensors"
    assert run(cut, source, checkpoint=checkpoint).end == "interrupted"
    torch.manual_seed(99)
    history = run(resumed, source, checkpoint=checkpoint, resume=True)
    assert same(resumed, whole)
    for name in ("steps", "train", "val", "best_step", "best_val", "end"):
        assert same(getattr(history, name), getattr(expected, name)), name


def test_resuming_with_the_model_of_the_same_session(tmp_path, data):
    """`fit` leaves the model in eval mode: the dropout must be back on when it resumes."""
    whole, cut = Noisy(), Noisy(interrupt_at(23))
    run(whole, data)
    assert run(cut, data, checkpoint=tmp_path / "run.safetensors").end == "interrupted"
    cut.on_step = None
    run(cut, data, checkpoint=tmp_path / "run.safetensors", resume=True)
    assert same(cut, whole)


def test_resume_without_a_file_starts_from_scratch(tmp_path, data):
    one, other = Noisy(), Noisy()
    run(one, data)
    run(other, data, checkpoint=tmp_path / "new" / "run.safetensors", resume=True)
    assert same(one, other) and (tmp_path / "new" / "run.safetensors").exists()


def test_resuming_a_finished_training_changes_nothing(tmp_path, data):
    one, other = Noisy(), Noisy()
    expected = run(one, data, checkpoint=tmp_path / "run.safetensors")
    history = run(other, data, checkpoint=tmp_path / "run.safetensors", resume=True)
    assert same(one, other) and (history.steps, history.end) == (expected.steps, "finished")


def test_resuming_an_early_stopped_training_changes_nothing(tmp_path, overfitting):
    options = {"patience": 2, "checkpoint": tmp_path / "run.safetensors"}
    expected = run(Mean(), overfitting, **options)
    history = run(Mean(), overfitting, resume=True, **options)
    assert (history.steps, history.end) == (expected.steps, "early stop")


@pytest.mark.parametrize(
    "other",
    [{"steps": 61}, {"batch_size": 21}, {"lr": 0.2}, {"weight_decay": 0.1}, {"val_every": 6},
     {"seed": 1}, {"conditional": True}, {"bfloat16": True}],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_resuming_with_another_recipe_is_refused(tmp_path, data, other):
    checkpoint = tmp_path / "run.safetensors"
    run(Mean(), data, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="another training .*the same arguments, or another check"):
        run(Mean(), data, checkpoint=checkpoint, resume=True, **other)


def test_resuming_another_model_is_refused(tmp_path, data):
    class Wider(Mean):
        def __init__(self):
            super().__init__()
            self.extra = nn.Parameter(torch.zeros(2))

    run(Mean(), data, checkpoint=tmp_path / "run.safetensors")
    with pytest.raises(ValueError, match="the weights of another model"):
        run(Wider(), data, checkpoint=tmp_path / "run.safetensors", resume=True)


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_a_damaged_checkpoint_is_refused(tmp_path, data, kept):
    checkpoint = tmp_path / "run.safetensors"
    run(Mean(), data, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(ValueError, match="damaged.*delete it and train again"):
        run(Mean(), data, checkpoint=checkpoint, resume=True)


# ---- wrong arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
        ({"val_every": 0}, "val_every=0: expected at least 1"),
        ({"lr": 0.0}, "lr=0.0: expected a positive learning rate"),
        ({"resume": True}, r"resume=True needs the checkpoint=…"),
    ],
)
def test_wrong_arguments(data, options, message):
    with pytest.raises(ValueError, match=message):
        run(Mean(), data, **options)


@pytest.mark.parametrize("empty", ["train", "val"])
def test_empty_data(data, empty):
    setattr(data, empty, part(1.0, 0, 0))
    with pytest.raises(ValueError, match=f"data.{empty} must hold at least one image"):
        run(Mean(), data)


def test_a_batch_larger_than_the_data_is_the_whole_data(data):
    assert run(Mean(), data, batch_size=10_000).end == "finished"


def test_progress_bar_shows_the_losses(data, capsys):
    run(Mean(), data, progress=True)
    assert "nats/image" in capsys.readouterr().err


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


def test_files_are_safetensors_and_nothing_is_pickled(tmp_path, data, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("pickle")

    for module, names in (
        (pickle, ("dump", "dumps", "load", "loads", "Pickler", "Unpickler")),
        (torch, ("save", "load")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, forbidden)
    monkeypatch.setattr(builtins, "eval", forbidden)
    checkpoint = tmp_path / "run.safetensors"
    run(Noisy(interrupt_at(30)), data, checkpoint=checkpoint)
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


@pytest.mark.skipif(os.name == "nt", reason="the permissions are those of Unix")
def test_a_file_of_weights_can_be_read_by_all(tmp_path):
    save_weights(Mean(), tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_missing_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*absent"):
        load_weights(Mean(), tmp_path / "absent.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 50, -1])
def test_truncated_weights(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    save_weights(Mean(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="damaged.*delete it"):
        load_weights(Mean(), path)


@pytest.mark.parametrize("other", [nn.Linear(3, 1), nn.ParameterDict({"mean": torch.zeros(4)})])
def test_weights_of_another_model(tmp_path, other):
    path = tmp_path / "model.safetensors"
    save_weights(Mean(), path)
    with pytest.raises(ValueError, match="holds the weights of another model"):
        load_weights(other, path)
