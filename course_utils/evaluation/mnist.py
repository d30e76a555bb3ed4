"""The autoregressive models on binarised MNIST, beside the published figures.

`python -m course_utils.evaluation.mnist` trains them, on one thread of the CPU, and writes
`data/mnist_results.json`; the notebooks show that file with `results_table`. With `--device cuda`,
it trains larger ones on a GPU, towards the published figures.

Images of 28×28 pixels, 50 000 / 10 000 / 10 000, binarised once by sampling (kind « S »), or with
training images drawn anew at each visit (kind « D », dynamic), which spares some overfitting. The
figures of papers are mostly on another, fixed binarisation (kind « F »). The three do not compare
to the nat.

A record tells the time as `cpu_seconds` (of one thread) on the CPU, as `seconds` (of the clock) on
a GPU, whose name is its `device`.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..autoregressive import (
    FVSBN,
    MADE,
    NADE,
    DiagonalBiLSTM,
    MarkovTable,
    PixelCNN,
    RowLSTM,
    nearest_neighbours,
)
from ..data import load
from ..language import N_, tr
from ..training import fit
from ..weights import written_whole
from .tables import Table

RESULTS_PATH = Path(__file__).parents[2] / "data" / "mnist_results.json"


def neighbour_table(number):
    """Builder of a table of the `number` nearest neighbours."""
    return lambda shape: MarkovTable(shape, neighbours=nearest_neighbours(number))


@dataclass(frozen=True)
class Recipe:
    """How a model of the table is built from the shape of an image, and trained."""

    name: str
    build: callable
    training: dict = field(default_factory=dict)  # options of `fit`; empty for a table
    binarisation: str = "S"


# The convolutions on 16 bits: PixelCNN and PixelRNN learn more in the same time. A validation takes
# as long as tens of their steps: few of them.
SMALL_BATCHES = {"batch_size": 16, "val_every": 400, "bfloat16": True}

MADE_500 = Recipe(
    "MADE, 2 × 500",
    lambda shape: MADE(shape, hidden=(500, 500)),
    {"steps": 8_000, "lr": 3e-3, "weight_decay": 0.1},
)

CPU_RECIPES = (
    Recipe(N_("pixels indépendants"), neighbour_table(0)),
    Recipe(N_("table, 4 voisins"), neighbour_table(4)),
    Recipe(N_("table, 8 voisins"), neighbour_table(8)),
    Recipe(N_("table, 12 voisins"), neighbour_table(12)),
    Recipe("FVSBN", FVSBN, {"steps": 12_000, "lr": 5e-3}),
    Recipe("NADE, H = 500", NADE, {"steps": 5_000, "lr": 1e-2}),
    MADE_500,
    replace(MADE_500, name=N_("MADE, 2 × 500, tirages renouvelés"), binarisation="D"),
    Recipe(
        N_("PixelCNN simple, 32 × 15"),
        lambda shape: PixelCNN(shape, gated=False, layers=15),
        {"steps": 3_600, "lr": 3e-3, **SMALL_BATCHES},
    ),
    Recipe(
        N_("PixelCNN à portes, 32 × 7"), PixelCNN, {"steps": 2_600, "lr": 3e-3, **SMALL_BATCHES}
    ),
    Recipe(
        N_("PixelCNN à portes, trois fois plus longtemps"),
        PixelCNN,
        {"steps": 7_800, "lr": 3e-3, **SMALL_BATCHES},
    ),
    Recipe("Row LSTM, 32 × 2", RowLSTM, {"steps": 1_600, "lr": 3e-3, **SMALL_BATCHES}),
    Recipe(
        "Diagonal BiLSTM, 32 × 1",
        lambda shape: DiagonalBiLSTM(shape, layers=1),
        {"steps": 1_200, "lr": 3e-3, **SMALL_BATCHES},
    ),
)

# For one GPU, some minutes each, in the order of the lecture. Aims, in nats on the test set: 96.6,
# 85.7, 84.9, 81.4 for both PixelCNN, 80.75 for the Diagonal BiLSTM. Where thousands of small
# operations follow one another (NADE, the LSTMs), a larger batch hardly takes longer.
CUDA_RECIPES = (
    Recipe(
        N_("FVSBN, tirages renouvelés"),
        FVSBN,
        {"steps": 20_000, "lr": 5e-3, "batch_size": 512},
        "D",
    ),
    Recipe(
        N_("NADE, H = 500, tirages renouvelés"),
        NADE,
        {"steps": 5_000, "lr": 1e-2, "batch_size": 512},
        "D",
    ),
    Recipe(
        "MADE, 1 × 8000",
        lambda shape: MADE(shape, hidden=8000),
        {"steps": 20_000, "lr": 1e-3, "batch_size": 256, "weight_decay": 0.1},
        "D",
    ),
    Recipe(
        N_("PixelCNN simple, 64 × 15"),
        lambda shape: PixelCNN(shape, gated=False, layers=15, features=64),
        {"steps": 16_000, "lr": 2e-3, "batch_size": 128, "bfloat16": True},
        "D",
    ),
    Recipe(
        N_("PixelCNN à portes, 64 × 12"),
        lambda shape: PixelCNN(shape, layers=12, features=64),
        {"steps": 14_000, "lr": 2e-3, "batch_size": 128, "bfloat16": True},
        "D",
    ),
    Recipe(
        "Diagonal BiLSTM, 64 × 1",
        lambda shape: DiagonalBiLSTM(shape, layers=1, features=64),
        {"steps": 6_000, "lr": 2e-3, "batch_size": 256},
        "D",
    ),
    Recipe(
        "Row LSTM, 64 × 3",
        lambda shape: RowLSTM(shape, layers=3, features=64),
        {"steps": 6_000, "lr": 2e-3, "batch_size": 256},
        "D",
    ),
)

RECIPES = {"cpu": CPU_RECIPES, "cuda": CUDA_RECIPES}

FLOOR = N_("plancher : le bruit du tirage")

# Test −log p(x) in nats, as published; F: Larochelle's fixed binarisation, D: dynamic. With a
# slash, the source is a GitHub repository (its README unless said otherwise).
PUBLISHED = (
    # the first three: analyse_orderless_NADE.py
    (N_("NADE, un ordre"), 88.33, "F", "MarcCote/NADE"),
    (N_("EoNADE, 1 couche, 1 ordre"), 92.17, "F", "MarcCote/NADE"),
    (N_("EoNADE, 1 couche, 128 ordres"), 87.71, "F", "MarcCote/NADE"),
    (N_("MADE, 1 couche, 32 masques"), 88.04, "F", "Germain et al. 2015"),
    (N_("MADE, 2 couches, 32 masques"), 86.64, "F", "Germain et al. 2015"),
    ("FVSBN", 96.58, "D", "EugenHotaj/pytorch-generative"),
    ("NADE", 85.65, "D", "EugenHotaj/pytorch-generative"),
    (N_("MADE, 1 couche de 8 000"), 84.87, "D", "EugenHotaj/pytorch-generative"),
    ("PixelCNN", 81.30, "F", "van den Oord et al. 2016"),
    (N_("Diagonal BiLSTM, 1 couche"), 80.75, "F", "van den Oord et al. 2016"),
    (N_("Diagonal BiLSTM, 7 couches"), 79.20, "F", "van den Oord et al. 2016"),
    ("PixelCNN", 81.45, "D", "EugenHotaj/pytorch-generative"),
    (N_("PixelCNN à portes"), 81.50, "D", "EugenHotaj/pytorch-generative"),
)


def train_and_test(recipe, data, *, device="cpu", seed=0, steps=None, progress=True):
    """Train a model on a device and test it there; a record of `data/mnist_results.json`."""
    training = recipe.training | ({"steps": steps} if steps and recipe.training else {})
    device = torch.device(device)
    on_cpu = device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    torch.manual_seed(seed)
    start = clock()
    model = recipe.build(data.shape).start_from(data.train.images)
    if training:
        options = {"device": device, "patience": None, "progress": progress, "seed": seed}
        fit(model, data, **training, **options)
    seconds = clock() - start
    model.to(device).eval()
    with torch.no_grad():
        log_prob = [model.log_prob(x.to(device)).cpu() for x in data.test.images.split(500)]
    return _record(-torch.cat(log_prob).double()) | {
        "parameters": _count_parameters(model),
        "cpu_seconds" if on_cpu else "seconds": round(seconds, 1),
        "training": training,
        "binarisation": recipe.binarisation,
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(device),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _count_parameters(model):
    """Numbers learned or counted on the data; a masked weight of an FVSBN or a MADE counts too."""
    if isinstance(model, MarkovTable):
        return model.table.numel()
    return sum(parameter.numel() for parameter in model.parameters())


def noise_floor():
    """What no model can guess: the entropy of the draw that binarised the grey test images."""
    grey = load("mnist").test.images / 255
    entropy = torch.special.entr(grey) + torch.special.entr(1 - grey)
    return _record(entropy.double().flatten(1).sum(1)) | {"binarisation": "S"}


def _record(nats):
    """Mean and standard error of −log p(x), from its values `(N,)` on the test images."""
    return {
        "test_nats": round(nats.mean().item(), 3),
        "standard_error": round(nats.std().item() / math.sqrt(len(nats)), 3),
    }


def save_record(name, record, path=RESULTS_PATH):
    """Add or replace the record of a model in the file of results, atomically."""
    path = Path(path)
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    records[name] = record
    text = json.dumps(records, ensure_ascii=False, indent=2)
    with written_whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def results_table(*words, path=RESULTS_PATH):
    """The committed results beside the published ones, as a table.

    One binarisation after the other, the best of each last; the floor at the end.

    Args:
        words: only the models whose name holds one of them, such as "MADE", and the floor.
    """
    rows = [
        (r["test_nats"], tr(name), r["binarisation"], _minutes(r), _origin(r))
        for name, r in json.loads(Path(path).read_text(encoding="utf-8")).items()
    ]
    rows += [(nats, tr(name), kind, "", source) for name, nats, kind, source in PUBLISHED]
    for word in words:
        if not any(word in name for _, name, *_ in rows):
            raise ValueError(f"no model of the table has {word!r} in its name")
    if words:
        rows = [row for row in rows if any(word in row[1] for word in (*words, tr(FLOOR)))]
    rows.sort(key=lambda row: (row[1] == tr(FLOOR), "SFD".index(row[2]), -row[0]))
    return Table(
        (tr("modèle"), "−log p(x), nats/image", tr("données"), tr("minutes"), "source"),
        [
            (name, f"{nats:.2f}", kind, minutes, source)
            for nats, name, kind, minutes, source in rows
        ],
    )


def _minutes(record):
    seconds = record.get("cpu_seconds", record.get("seconds"))
    if seconds is None:  # nothing was trained
        return ""
    return "< 0.1" if seconds < 6 else f"{seconds / 60:.1f}"


def _origin(record):
    if "device" not in record:  # of the floor
        return tr("ce dépôt")
    device = tr("un cœur") if record["device"] == "cpu" else record["device"]
    return tr("ce dépôt, {device}", device=device)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Train on binarised MNIST, write the results.")
    names = {device: [recipe.name for recipe in recipes] for device, recipes in RECIPES.items()}
    parser.add_argument("models", nargs="*", help=f"among {names}; all of the device by default")
    parser.add_argument("--device", choices=RECIPES, default="cpu", help="cpu: one thread")
    parser.add_argument("--out", type=Path, default=RESULTS_PATH)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer steps, for a trial")
    options = parser.parse_args(arguments)
    unknown = set(options.models) - set(names[options.device])
    if unknown:
        expected = f"expected some of {names[options.device]}"
        parser.error(f"--device {options.device}: unknown models {sorted(unknown)}: {expected}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            f"--device cuda: PyTorch {torch.__version__} sees no NVIDIA GPU here. Train on the "
            "CPU, --device cpu, or install a build of PyTorch with CUDA on a machine with a GPU"
        )
    torch.set_num_threads(1)
    data = {kind: load("mnist", levels=2, redraw=kind == "D") for kind in "SD"}
    save_record(FLOOR, noise_floor(), options.out)
    trial = {"device": options.device, "seed": options.seed, "steps": options.steps}
    for recipe in RECIPES[options.device]:
        if not options.models or recipe.name in options.models:
            print(recipe.name)
            record = train_and_test(recipe, data[recipe.binarisation], **trial)
            save_record(recipe.name, record, options.out)
            print(f"  {record['test_nats']} nats/image on the test set")


if __name__ == "__main__":
    main()
