"""One training loop for every model of the course.

`fit` knows no model: anything with a `loss(x, y=None)` in nats per image is trained. It keeps the
weights that do best on the validation set, whatever happens afterwards.
"""

import contextlib
import math
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .data import Split
from .language import tr
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
        data: has `train` and `val`, each a `Split` with `images` `(N, …)` and `labels` `(N, …)`,
            or None.
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
        seed: of the batches, of images drawn anew, and of the model's own noise.
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
        FloatingPointError: the loss was not finite at some step, as the validation after it finds
            out; the model has its best weights back.
        RuntimeError: with `COURSE_PRETRAINED=try`, the training begins and nothing is learned.
    """
    val_every = max(1, steps // 25) if val_every is None else val_every
    recipe = _Recipe(
        steps, batch_size, lr, weight_decay, val_every, val_size, seed, conditional, bfloat16
    )
    if patience is not None and patience < 1:
        raise ValueError(f"patience={patience}: expected at least 1 validation, or None")
    _check_data(data, conditional)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs the checkpoint=… to go on from")

    home = _device_of(model)
    kept = _Pretrained(pretrained, model, data, recipe)
    device = choose_device() if device is None else torch.device(device)
    try:
        if kept.mode == "try":
            _Training(model.to(device), data, recipe).begin()
        if history := kept.load():
            if progress:
                print(tr("Poids déjà entraînés."), _summary(model, history))
            return history

        training = _Training(model.to(device), data, recipe)
        history = training.run(patience, checkpoint, resume, progress)
        if history.end != "interrupted":
            if progress:
                print(_summary(model, history))
            kept.save(history)
        return history
    finally:
        model.to(home).eval()


@dataclass(frozen=True)
class _Recipe:
    """What makes a training what it is: on one machine, the same recipe gives the same weights."""

    steps: int
    batch_size: int
    lr: float
    weight_decay: float
    val_every: int
    val_size: int
    seed: int
    conditional: bool
    bfloat16: bool

    def __post_init__(self):
        for name in ("steps", "batch_size", "val_every", "val_size"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if self.lr <= 0:
            raise ValueError(f"lr={self.lr}: expected a positive learning rate")


RESIDENT = 2**30  # bytes: up to this size, the training images live on the device


class _Training:
    """A training on its way: what it trains, how far it is, and the best weights so far.

    A device that is not the CPU works on its own, as long as nobody asks for a value: the batches
    are gathered there, and the losses stay there until a validation reads them.
    """

    def __init__(self, model, data, recipe):
        self.model, self.data, self.recipe = model, data, recipe
        self.device = _device_of(model)
        self.train = data.train
        if self.train.images.nbytes <= RESIDENT:
            self.train = self.train.to(self.device)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, max_lr=recipe.lr, total_steps=recipe.steps + 1
        )
        self.batches = _Batches(self.train.images, recipe.batch_size, recipe.seed)
        self.step, self.best, self.history = 0, copy_weights(model), History()
        self.losses = []  # of the steps since the last validation, with their learning rates

    def run(self, patience, checkpoint, resume, progress):
        """All the steps, unless something stops them; the model then has its best weights."""
        steps, started = self.recipe.steps, time.perf_counter()
        bar = tqdm(total=steps, unit=tr("pas"), disable=not progress)
        with bar, _own_random_stream(self.device, self.recipe.seed):
            try:
                if resume and Path(checkpoint).exists():
                    self.load(checkpoint)
                    started -= self.history.seconds
                    bar.update(self.step)
                if self.step == 0:
                    self.validate()  # the untrained model
                self.model.train()
                while self.step < steps:
                    if patience is not None and _validations_since_best(self.history) >= patience:
                        self.history.end = "early stop"
                        break
                    self.one_step()
                    bar.update()
                    if self.step % self.recipe.val_every == 0 or self.step == steps:
                        self.validate()
                        train, val = self.history.train[-1], self.history.val[-1]
                        bar.set_postfix_str(f"train {train:.1f}, val {val:.1f} nats/image")
                        self.history.seconds = time.perf_counter() - started
                        if checkpoint is not None:
                            self.save(checkpoint)
                else:
                    self.history.end = "finished"
            except KeyboardInterrupt:
                self.history.end = "interrupted"
                if self.losses:  # the steps since the last validation count too
                    self.validate()
                text = tr(
                    "Entraînement interrompu au pas {step} sur {steps} : le modèle garde ses "
                    "meilleurs poids, ceux du pas {best} (validation : {loss:.1f} nats/image).",
                    step=self.step, steps=steps,
                    best=self.history.best_step, loss=self.history.best_val,
                )  # fmt: skip
                tqdm.write(text)
            finally:
                self.model.load_state_dict(self.best)
                self.history.seconds = time.perf_counter() - started
        return self.history

    def begin(self):
        """The steps up to the first validation, to see that it learns; the model forgets them."""
        with _own_random_stream(self.device, self.recipe.seed):
            self.validate()
            untrained = self.best
            self.model.train()
            while self.step < self.recipe.val_every:
                self.one_step()
            self.validate()
        self.model.load_state_dict(untrained)
        if self.history.best_step == 0:
            before, after = self.history.val
            raise RuntimeError(
                f"nothing is learned in {self.step} steps: the validation loss goes from "
                f"{before:.2f} to {after:.2f} nats/image"
            )

    def one_step(self):
        indices = self.batches(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            loss = _loss(self.model, self.train, indices, self.recipe.conditional)
        lr = self.scheduler.get_last_lr()[0]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.losses.append((loss.detach(), lr))
        self.step += 1

    def validate(self):
        """Note both losses, and keep the weights if they are the best."""
        train = self.mean_loss()
        value = _validation_loss(self.model, self.data, self.recipe)
        self.history.steps.append(self.step)
        self.history.train.append(train)
        self.history.val.append(value)
        self.losses = []
        if value < self.history.best_val:
            self.history.best_val, self.history.best_step = value, self.step
            self.best = copy_weights(self.model)

    def mean_loss(self):
        """Of the steps since the last validation, whose losses are read only now; NaN if none."""
        if not self.losses:
            return math.nan
        losses, rates = zip(*self.losses)
        losses = torch.stack(losses).tolist()
        for number, (loss, lr) in enumerate(zip(losses, rates)):
            if not math.isfinite(loss):
                step = self.history.steps[-1] + number
                raise FloatingPointError(
                    f"the loss became {loss} at step {step} (learning rate {lr:.2g}). The model "
                    "has its best weights back. Usual causes: a learning rate too high (try a "
                    "tenth), an unbounded log-variance (see course_utils.vae.bound_logvar), a "
                    "logarithm of zero"
                )
        return sum(losses) / len(losses)

    def save(self, path):
        """All that it needs to go on: weights, best weights, moments, noise, curves."""
        adam = self.optimizer.state_dict()
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for index, moments in adam["state"].items():
            tensors |= {f"adam/{index}/{name}": value for name, value in moments.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.device)
        metadata = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "history": asdict(self.history),
            "param_groups": adam["param_groups"],
            "scheduler": self.scheduler.state_dict(),
        }
        write_tensors(tensors, path, metadata)

    def load(self, path):
        tensors, metadata = read_tensors(path)
        if metadata.get("recipe") != asdict(self.recipe):
            raise ValueError(
                f"{path} was written by another training ({metadata.get('recipe')}, now "
                f"{asdict(self.recipe)}): give the same arguments, or another checkpoint="
            )
        parts = defaultdict(dict)
        for place, value in tensors.items():
            part, _, name = place.rpartition("/")
            parts[part][name] = value
        restore(self.model, parts["model"], path)
        (group,) = metadata["param_groups"]
        moments = {index: parts[f"adam/{index}"] for index in group["params"]}
        self.optimizer.load_state_dict({"state": moments, "param_groups": [group]})
        self.scheduler.load_state_dict(metadata["scheduler"])
        torch.set_rng_state(parts["random"]["cpu"])
        if self.device.type == "cuda" and "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"], self.device)
        self.best = {name: value.to(self.device) for name, value in parts["best"].items()}
        self.step, self.history = metadata["step"], History(**metadata["history"])


class _Pretrained:
    """The file of `data/weights/` where a model, trained, is kept: used, or made, when asked for.

    Noise differs from a device to another: weights are judged on the CPU, always.
    """

    def __init__(self, name, model, data, recipe):
        self.name, self.model = name, model
        self.mode = "train" if name is None else pretrained_mode()
        self.judge = lambda: _validation_loss(model, data, recipe)
        if self.mode != "train":
            self.asked = asdict(recipe) | {"data": data.name}
            self.asked["images"] = list(data.train.images.shape)

    def load(self):
        """The history of the training recorded, whose weights the model now has; or None."""
        if self.mode not in ("load", "try"):
            return None
        try:
            return History(**load_pretrained(self.name, self.model.cpu(), self.asked, self.judge))
        except UnusableWeights as reason:
            print(reason, tr("Le modèle s'entraîne donc ici."))

    def save(self, history):
        if self.mode == "record":
            save_pretrained(self.name, self.model.cpu(), self.asked, asdict(history), self.judge)


def _loss(model, part, indices, conditional):
    device = _device_of(model)
    x, y = part.batch(indices)
    return model.loss(x.to(device), y.to(device)) if conditional else model.loss(x.to(device))


@torch.no_grad()
def _validation_loss(model, data, recipe):
    """With the same noise at every call: two values can be compared."""
    training = model.training
    model.eval()
    count, total = min(recipe.val_size, len(data.val.images)), 0.0
    with _own_random_stream(_device_of(model), recipe.seed):
        for indices in torch.arange(count).split(500):
            loss = _loss(model, data.val, indices, recipe.conditional)
            total += loss.item() * len(indices)
    model.train(training)
    return total / count


def _summary(model, history):
    """How a training went, in words; a model may name its loss, which is else « coût »."""
    name, best = getattr(model, "loss_name", tr("coût")), history.best_val
    length = {"steps": history.steps[-1], "seconds": history.seconds}
    if history.end == "early stop":
        done = tr(
            "{steps} pas en {seconds:.0f} s, arrêt avant la fin : la validation ne progressait "
            "plus.",
            **length,
        )
    else:
        done = tr("{steps} pas en {seconds:.0f} s.", **length)
    if history.best_step == 0:
        result = tr(
            "Meilleure validation : {name} = {best:.1f} nats/image, avant le premier pas : rien "
            "n'a été appris. Essayez un pas d'apprentissage (lr) dix fois plus petit.",
            name=name, best=best,
        )  # fmt: skip
    else:
        result = tr(
            "Meilleure validation : {name} = {best:.1f} nats/image, au pas {step}.",
            name=name, best=best, step=history.best_step,
        )  # fmt: skip
    return f"{done} {result}"


def _device_of(model):
    return next(model.parameters()).device


def _check_data(data, conditional):
    """Raise unless `data` has a train and a val, with images, and labels if they are needed."""
    for name in ("train", "val"):
        part = getattr(data, name, None)
        if not isinstance(part, Split):
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

    def __init__(self, images, batch_size, seed):
        self.n, self.device, self.seed = len(images), images.device, seed
        self.batch_size = min(batch_size, self.n)
        self.epoch = None

    def __call__(self, step):
        # The last, incomplete batch of an epoch is left out; the next epoch has another order.
        epoch, position = divmod(step, self.n // self.batch_size)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            order = torch.randperm(self.n, generator=generator)
            self.epoch, self.order = epoch, order.to(self.device)
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
