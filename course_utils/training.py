"""One training loop for every model of the course.

`fit` knows no model: anything with a `loss(x, y=None)` in nats per image is trained. It keeps the
weights that do best on the validation set, whatever happens afterwards.
"""

import contextlib
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .pretrained import UnusableWeights, load_pretrained, pretrained_mode, save_pretrained
from .weights import copy_weights, read_tensors, restore, write_tensors


@dataclass
class History:
    """What happened during a training: the curves, in nats per image, and how it ended."""

    steps: list = field(default_factory=list)  # step of each validation
    train: list = field(default_factory=list)  # mean training loss since the previous validation
    val: list = field(default_factory=list)  # validation loss
    best_step: int = 0  # the weights returned are those of this step
    best_val: float = math.inf
    seconds: float = 0.0  # spent training and validating, resumed parts included
    end: str = "running"  # "finished", "early stop", "interrupted"


def choose_device():
    """CUDA or Apple's MPS when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def fit(
    model,
    data,
    *,
    conditional=False,
    steps=2000,
    batch_size=128,
    lr=2e-3,
    weight_decay=0.0,
    val_every=None,
    val_size=1000,
    patience=10,
    seed=0,
    device=None,
    bfloat16=False,
    checkpoint=None,
    resume=False,
    pretrained=None,
    progress=True,
):
    """Train `model` on `data.train`, watch it on `data.val`, leave it with its best weights.

    Adam with a one-cycle learning rate: up to `lr` during the first 30 % of the steps, then down
    to zero. Same `seed`, same machine: same weights; the global random stream is left untouched.
    Interrupt it (the ■ of Jupyter, Ctrl-C): the best weights so far are kept.

    Args:
        model: a `torch.nn.Module` with `loss(x, y=None) -> scalar`, in nats per image.
        data: has `train` and `val`, each with `images` `(N, …)` and `labels` `(N, …)`, or None.
        conditional: also give the labels to the model: `loss(x, y)`.
        steps: number of gradient steps, each on one batch.
        batch_size: images per batch.
        lr: highest learning rate.
        weight_decay: of AdamW; 0 is Adam.
        val_every: steps between two validations (a 25th of the training by default).
        val_size: validate on the first `val_size` images of `data.val`: enough to choose the best
            weights, and quick on large data sets.
        patience: stop after this many validations without progress (at least 1); `None` never
            stops.
        seed: of the batches and of the model's own noise.
        device: where to train (chosen automatically); the model goes back where it was.
        bfloat16: let the steps of the training compute their products and convolutions on 16 bits
            (`torch.autocast`): faster where the processor knows how to, slower elsewhere. The
            weights and the validation keep their 32 bits.
        checkpoint: file (`….safetensors`) rewritten atomically at each validation.
        resume: go on from `checkpoint` if that file exists; on a CPU, the result is bit for bit
            that of a training that was never cut.
        pretrained: name of the file of `data/weights/` where this model, trained, is kept; it is
            loaded instead of training when `use_pretrained` or `COURSE_PRETRAINED` asks for it.
        progress: show a progress bar with the current losses.

    Returns:
        History: the learning curves and how the training ended.

    Raises:
        TypeError: `data` is no data set of the course.
        ValueError: an argument is out of range, the labels are missing, or the checkpoint belongs
            to another training.
        FloatingPointError: the loss is no longer finite; the model has its best weights back.
    """
    val_every = max(1, steps // 25) if val_every is None else val_every
    for name, value in (
        ("steps", steps),
        ("batch_size", batch_size),
        ("val_every", val_every),
        ("val_size", val_size),
    ):
        if value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    if patience is not None and patience < 1:
        raise ValueError(f"patience={patience}: expected at least 1 validation, or None")
    if lr <= 0:
        raise ValueError(f"lr={lr}: expected a positive learning rate")
    _check_data(data, conditional)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs the checkpoint=… to go on from")

    recipe = {"steps": steps, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    recipe |= {"val_every": val_every, "val_size": val_size, "seed": seed}
    recipe |= {"conditional": conditional, "bfloat16": bfloat16}
    home = _device_of(model)

    def loss_of(part, indices):
        x = part.images[indices].to(_device_of(model))
        return model.loss(x, part.labels[indices].to(x.device)) if conditional else model.loss(x)

    @torch.no_grad()
    def validate():
        """Validation loss, with the same noise at every call: two values can be compared."""
        model.eval()
        count, total = min(val_size, len(data.val.images)), 0.0
        with _own_random_stream(_device_of(model), seed):
            for indices in torch.arange(count).split(500):
                total += loss_of(data.val, indices).item() * len(indices)
        model.train()
        return total / count

    mode = "train" if pretrained is None else pretrained_mode()
    if mode != "train":
        recipe_and_data = recipe | {"data": data.name, "images": list(data.train.images.shape)}
    if mode == "load":
        model.cpu()  # noise differs from a device to another: weights are judged on this one
        try:
            history = History(**load_pretrained(pretrained, model, recipe_and_data, validate))
        except UnusableWeights as reason:
            print(f"Le fichier « {pretrained} » {reason}. Le modèle s'entraîne donc ici.")
        else:
            if progress:
                print(f"Poids déjà entraînés. {_summary(model, history)}")
            return history
        finally:
            model.to(home).eval()

    device = choose_device() if device is None else torch.device(device)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps + 1)
    state = {"step": 0, "best": copy_weights(model), "history": History()}
    history = state["history"]

    def note_validation(train_loss):
        value = validate()
        history.steps.append(state["step"])
        history.train.append(train_loss)
        history.val.append(value)
        if value < history.best_val:
            history.best_val, history.best_step = value, state["step"]
            state["best"] = copy_weights(model)

    batches = _Batches(len(data.train.images), batch_size, seed)
    running, started = [], time.perf_counter()
    bar = tqdm(total=steps, unit="pas", disable=not progress)
    with _own_random_stream(device, seed):
        try:
            if resume and Path(checkpoint).exists():
                _load_training(checkpoint, recipe, model, optimizer, scheduler, state)
                history = state["history"]
                started -= history.seconds
                bar.update(state["step"])
            if state["step"] == 0:
                note_validation(train_loss=math.nan)  # the untrained model
            history.end = "running"
            model.train()
            while state["step"] < steps:
                if patience is not None and _validations_since_best(history) >= patience:
                    history.end = "early stop"
                    break
                indices = batches(state["step"])
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    loss = loss_of(data.train, indices)
                if not torch.isfinite(loss):
                    raise FloatingPointError(_not_finite(loss.item(), state["step"], scheduler))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                scheduler.step()
                running.append(loss.item())
                state["step"] += 1
                bar.update()
                if state["step"] % val_every == 0 or state["step"] == steps:
                    note_validation(sum(running) / len(running))
                    bar.set_postfix_str(
                        f"train {history.train[-1]:.1f}, val {history.val[-1]:.1f} nats/image"
                    )
                    running = []
                    history.seconds = time.perf_counter() - started
                    if checkpoint is not None:
                        _save_training(checkpoint, recipe, model, optimizer, scheduler, state)
            else:
                history.end = "finished"
        except KeyboardInterrupt:
            history.end = "interrupted"
            if running:  # the steps since the last validation count too
                note_validation(sum(running) / len(running))
            tqdm.write(
                f"Entraînement interrompu au pas {state['step']} sur {steps} : le modèle garde ses "
                f"meilleurs poids, ceux du pas {history.best_step} "
                f"(validation : {history.best_val:.1f} nats/image)."
            )
        finally:
            bar.close()
            model.load_state_dict(state["best"])
            model.to(home).eval()
            history.seconds = time.perf_counter() - started
    if progress and history.end != "interrupted":
        print(_summary(model, history))
    if mode == "record" and history.end != "interrupted":
        model.cpu()  # they will be judged there
        save_pretrained(pretrained, model, recipe_and_data, asdict(history), validate)
        model.to(home).eval()
    return history


def _summary(model, history):
    """How a training went, in words; a model may name its loss, which is else « coût »."""
    name = getattr(model, "loss_name", "coût")
    text = f"{history.steps[-1]} pas en {history.seconds:.0f} s"
    if history.end == "early stop":
        text += ", arrêt avant la fin : la validation ne progressait plus"
    text += f". Meilleure validation : {name} = {history.best_val:.1f} nats/image, "
    if history.best_step == 0:
        return text + (
            "avant le premier pas : rien n'a été appris. Essayez un pas d'apprentissage (lr) dix "
            "fois plus petit."
        )
    return text + f"au pas {history.best_step}."


def _device_of(model):
    return next(model.parameters()).device


def _check_data(data, conditional):
    """Raise unless `data` has a train and a val, with images, and labels if they are needed."""
    for name in ("train", "val"):
        part = getattr(data, name, None)
        if not isinstance(getattr(part, "images", None), torch.Tensor):
            raise TypeError(
                f"data: expected a Dataset, whose train and val hold tensors of images, got a "
                f"{type(data).__name__}. load(…) and load_images(folder) make one, and "
                "Dataset(name, levels, train, val, test) with Split(images, labels) for each part"
            )
        if len(part.images) == 0:
            raise ValueError(f"data.{name} must hold at least one image")
        if conditional and part.labels is None:
            raise ValueError(f"conditional=True: data.{name} needs labels, Split(images, labels)")


class _Batches:
    """Indices of each step's batch: a function of the step alone, so that resuming is exact."""

    def __init__(self, n, batch_size, seed):
        self.n, self.batch_size, self.seed = n, min(batch_size, n), seed
        self.epoch = None

    def __call__(self, step):
        # The last, incomplete batch of an epoch is left out; the next epoch has another order.
        epoch, position = divmod(step, self.n // self.batch_size)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            self.epoch, self.order = epoch, torch.randperm(self.n, generator=generator)
        return self.order[position * self.batch_size : (position + 1) * self.batch_size]


def _validations_since_best(history):
    return sum(step > history.best_step for step in history.steps)


@contextlib.contextmanager
def _own_random_stream(device, seed):
    """Inside, the noise starts at `seed`; outside, the global stream goes on as if nothing was."""
    mps_state = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if mps_state is not None:
                torch.mps.set_rng_state(mps_state)


def _not_finite(loss, step, scheduler):
    return (
        f"the loss became {loss} at step {step} (learning rate {scheduler.get_last_lr()[0]:.2g}). "
        "The model has its best weights back. Usual causes: a learning rate too high (try a "
        "tenth), an unbounded log-variance (see course_utils.vae.bound_logvar), a logarithm of zero"
    )


# ---------------------------------------------------------------------------------------------
# Checkpoints
# ---------------------------------------------------------------------------------------------


def _save_training(path, recipe, model, optimizer, scheduler, state):
    """All that a training needs to go on: weights, best weights, moments, noise, curves."""
    adam = optimizer.state_dict()
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in state["best"].items()}
    for index, moments in adam["state"].items():
        tensors |= {f"adam/{index}/{name}": value for name, value in moments.items()}
    tensors["random/cpu"] = torch.get_rng_state()
    device = next(model.parameters()).device
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    metadata = {
        "recipe": recipe,
        "step": state["step"],
        "history": asdict(state["history"]),
        "param_groups": adam["param_groups"],
        "scheduler": scheduler.state_dict(),
    }
    write_tensors(tensors, path, metadata)


def _load_training(path, recipe, model, optimizer, scheduler, state):
    tensors, metadata = read_tensors(path)
    if metadata.get("recipe") != recipe:
        raise ValueError(
            f"{path} was written by another training ({metadata.get('recipe')}, now {recipe}): "
            "give the same arguments, or another checkpoint="
        )
    parts = {"model": {}, "best": {}, "adam": {}, "random": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    restore(model, parts["model"], path)
    moments = {}
    for name, value in parts["adam"].items():
        index, _, key = name.partition("/")
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": metadata["param_groups"]})
    scheduler.load_state_dict(metadata["scheduler"])
    torch.set_rng_state(parts["random"]["cpu"])
    device = next(model.parameters()).device
    if device.type == "cuda" and "cuda" in parts["random"]:
        torch.cuda.set_rng_state(parts["random"]["cuda"], device)
    state["best"] = {name: value.to(device) for name, value in parts["best"].items()}
    state["step"], state["history"] = metadata["step"], History(**metadata["history"])
