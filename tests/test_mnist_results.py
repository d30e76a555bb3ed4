"""The table of results on MNIST: how it is trained, written and shown; the committed figures."""

import json
import math
import re

import pytest
import torch
from autoregressive_models import chain_images

from course_utils import fit
from course_utils.autoregressive import (
    MADE,
    DiagonalBiLSTM,
    MarkovTable,
    PixelCNN,
    RowLSTM,
)
from course_utils.data import Dataset, RedrawnSplit, Split
from course_utils.evaluation import mnist
from course_utils.evaluation.mnist import (
    CPU_RECIPES,
    CUDA_RECIPES,
    FLOOR,
    PUBLISHED,
    RESULTS_PATH,
    results_table,
)

TINY = (1, 3, 3)
NAMES = [recipe.name for recipe in CPU_RECIPES]
CUDA_NAMES = [recipe.name for recipe in CUDA_RECIPES]
KEYS = {
    "test_nats", "standard_error", "parameters", "cpu_seconds", "training", "binarisation",
    "device", "seed", "threads", "torch",
}  # fmt: skip
CUDA_KEYS = KEYS - {"cpu_seconds"} | {"seconds"}
NEW_DRAWS = "MADE, 2 × 500, tirages renouvelés"

PIXEL_MODELS = {  # kind, gates, features, layers
    "PixelCNN simple, 32 × 15": (PixelCNN, False, 32, 15),
    "PixelCNN à portes, 32 × 7": (PixelCNN, True, 32, 7),
    "PixelCNN à portes, trois fois plus longtemps": (PixelCNN, True, 32, 7),
    "Row LSTM, 32 × 2": (RowLSTM, None, 32, 2),
    "Diagonal BiLSTM, 32 × 1": (DiagonalBiLSTM, None, 32, 1),
    "PixelCNN simple, 64 × 15": (PixelCNN, False, 64, 15),
    "PixelCNN à portes, 64 × 12": (PixelCNN, True, 64, 12),
    "Row LSTM, 64 × 3": (RowLSTM, None, 64, 3),
    "Diagonal BiLSTM, 64 × 1": (DiagonalBiLSTM, None, 64, 1),
}


def num_parameters(model):
    """Numbers learned, or counted on the data: a table has a line for each value of its parents."""
    if isinstance(model, MarkovTable):
        return 2 ** model.parents.shape[1] * model.dims
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def tiny(monkeypatch):
    """A tiny data set in the place of MNIST; the number of threads is put back afterwards.

    In grey levels, its ink has the probability 0.8 (204 / 255), its paper 0.
    """
    data = Dataset("mnist", 2, *(Split(*chain_images(n, TINY, seed=n)) for n in (300, 60, 80)))
    parts = (Split(204 * part.images, part.labels) for part in (data.train, data.val, data.test))
    grey = Dataset("mnist", 256, *parts)

    train = RedrawnSplit(data.train.images, data.train.labels, grey=0.8 * data.train.images)
    redrawn = Dataset("mnist", 2, train, data.val, data.test)

    def load(name, *, levels=256, redraw=False):
        assert name == "mnist"
        return redrawn if redraw else {2: data, 256: grey}[levels]

    monkeypatch.setattr(mnist, "load", load)
    threads = torch.get_num_threads()
    yield redrawn
    torch.set_num_threads(threads)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.json"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# ---- training and writing ---------------------------------------------------------------------


def check_record(record, recipe, keys, steps, shape=TINY):
    assert record.keys() == keys
    assert record["training"] == ({**recipe.training, **steps} if recipe.training else {})
    assert record["binarisation"] == recipe.binarisation
    assert (record["device"] == "cpu") == ("cpu_seconds" in keys)
    assert record["threads"] == 1
    assert 0 < record["standard_error"] < 1
    assert record["parameters"] == num_parameters(recipe.build(shape))


def check_main(device, recipes, keys, path, capsys):
    mnist.main(["--device", device, "--steps", "3", "--seed", "5", "--out", str(path)])
    records, printed = read(path), capsys.readouterr().out
    assert list(records) == [FLOOR, *(recipe.name for recipe in recipes)]
    for recipe in recipes:
        record = records[recipe.name]
        check_record(record, recipe, keys, {"steps": 3})
        assert record["seed"] == 5 and record["torch"] == torch.__version__
        assert 3 < record["test_nats"] < 8
        assert record.get("cpu_seconds", record.get("seconds")) >= 0
        result = rf"^{recipe.name}\n(.*\n)?  {record['test_nats']} nats/image on the test set$"
        assert re.search(result, printed, re.MULTILINE)
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_main_trains_every_model_and_writes_its_record(tiny, path, capsys):
    check_main("cpu", CPU_RECIPES, KEYS, path, capsys)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
def test_main_trains_every_model_on_a_gpu(tiny, path, capsys):
    check_main("cuda", CUDA_RECIPES, CUDA_KEYS, path, capsys)


@pytest.mark.parametrize("recipe", CUDA_RECIPES, ids=CUDA_NAMES)
def test_the_recipes_of_the_gpu_run_on_the_cpu_too(tiny, recipe):
    """At toy size; on images of 3×3, eight thousand units see no more than a few."""
    torch.set_num_threads(1)
    record = mnist.train_and_test(recipe, tiny, steps=3, progress=False)
    check_record(record, recipe, KEYS, {"steps": 3})
    assert record["binarisation"] == "D" and 3 < record["test_nats"] < 8


def test_the_models_trained_on_new_draws_see_them(tiny, path):
    """Two recipes that differ by the draws alone; the tests are the same images."""
    recipes = {recipe.name: recipe for recipe in CPU_RECIPES}
    one, new = recipes["MADE, 2 × 500"], recipes[NEW_DRAWS]
    assert (one.training, one.binarisation, new.binarisation) == (new.training, "S", "D")
    mnist.main([one.name, new.name, "--steps", "30", "--out", str(path)])
    nats = [read(path)[name]["test_nats"] for name in (one.name, new.name)]
    for train, expected in zip((Split(tiny.train.images), tiny.train), nats):
        torch.manual_seed(0)
        made = MADE(TINY, hidden=(500, 500)).start_from(train.images)
        data = Dataset("mnist", 2, train, tiny.val, tiny.test)
        options = one.training | {"steps": 30, "patience": None, "device": "cpu"}
        fit(made, data, **options, progress=False)
        found = -made.log_prob(tiny.test.images).mean().item()
        assert found == pytest.approx(expected, abs=1e-3)
    assert nats[0] != pytest.approx(nats[1], abs=0.01)


def test_main_trains_the_models_named_tests_them_and_keeps_the_other_records(tiny, path):
    old = {"FVSBN": {"test_nats": 99.0}, "autre modèle": {"test_nats": 1.0}}
    path.write_text(json.dumps(old), encoding="utf-8")
    mnist.main(["pixels indépendants", "FVSBN", "--steps", "20", "--out", str(path)])
    records = read(path)
    assert list(records) == ["FVSBN", "autre modèle", FLOOR, "pixels indépendants"]
    assert records["autre modèle"] == {"test_nats": 1.0}
    assert "autre modèle" in path.read_text(encoding="utf-8")  # no \u00e8
    table = MarkovTable(TINY, order=0).count(tiny.train.images)
    nats = -table.log_prob(tiny.test.images).double()
    record = records["pixels indépendants"]
    assert record["test_nats"] == pytest.approx(nats.mean().item(), abs=1e-3)
    error = nats.std().item() / math.sqrt(len(nats))
    assert record["standard_error"] == pytest.approx(error, abs=1e-3)
    assert records["FVSBN"]["test_nats"] < record["test_nats"]


def test_the_floor_is_the_entropy_of_the_grey_test_images(tiny):
    """Of a pixel of ink, log 5 − 0.8 log 4 nat; of the paper, nothing."""
    nats = tiny.test.images.double().flatten(1).sum(1) * (math.log(5) - 0.8 * math.log(4))
    floor = mnist.noise_floor()
    assert floor["test_nats"] == pytest.approx(nats.mean().item(), abs=1e-3)
    assert floor["standard_error"] == pytest.approx(nats.std().item() / math.sqrt(80), abs=1e-3)
    assert floor.keys() == {"test_nats", "standard_error", "binarisation"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["FVSBN", "PixelCNN"], "unknown models ['PixelCNN']: expected some of"),
        (["MADE, 1 × 8000"], "--device cpu: unknown models ['MADE, 1 × 8000']"),
        (["--device", "cuda", "FVSBN"], "--device cuda: unknown models ['FVSBN']"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--device", "cuda"], "sees no NVIDIA GPU here. Train on the CPU, --device cpu, or"),
        (["--device", "cuda", "MADE, 1 × 8000"], "--device cuda: PyTorch"),
    ],
)
def test_what_main_refuses(tiny, path, capsys, monkeypatch, asked, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        mnist.main([*asked, "--out", str(path)])
    assert words in capsys.readouterr().err
    assert not path.exists()


def test_every_recipe_has_a_name_of_its_own():
    assert len({*NAMES, *CUDA_NAMES}) == len(NAMES) + len(CUDA_NAMES)


def test_the_pixel_models_are_what_their_names_say():
    """Gates, features, layers; on the CPU, three times as many steps, all else equal."""
    recipes = {r.name: r for r in (*CPU_RECIPES, *CUDA_RECIPES) if re.search("Pixel|LSTM", r.name)}
    assert recipes.keys() == PIXEL_MODELS.keys()
    for name, (kind, gated, features, layers) in PIXEL_MODELS.items():
        model, training = recipes[name].build(TINY), recipes[name].training
        assert type(model) is kind and getattr(model, "gated", None) == gated
        assert (model.features, len(model.layers)) == (features, layers)
        if name in NAMES:
            assert training.keys() == {"steps", "lr", "batch_size", "val_every", "bfloat16"}
            assert training["val_every"] < training["steps"], "validated at least once on the way"
    short, long = (
        r.training for name, r in recipes.items() if "à portes" in name and name in NAMES
    )
    assert long == short | {"steps": 3 * short["steps"]}


def test_a_record_that_cannot_be_written_leaves_the_file_whole(path):
    mnist.save_record("one", {"test_nats": 1.0}, path)
    with pytest.raises(TypeError):
        mnist.save_record("two", {"test_nats": torch.tensor(1.0)}, path)
    assert read(path) == {"one": {"test_nats": 1.0}}


# ---- showing ----------------------------------------------------------------------------------


def test_the_table_puts_ours_among_the_published(path):
    """One binarisation after the other, S, F, D, the best of each last; then the floor."""
    ours = {
        "le nôtre": ("S", 85.0, {"device": "cpu", "cpu_seconds": 90.0}),
        "le pire": ("S", 200.0, {"device": "cpu", "cpu_seconds": 0.4}),
        "le grand": ("D", 84.0, {"device": "NVIDIA Toy", "seconds": 240.0}),
        "le meilleur": ("S", 75.0, {"device": "cpu", "cpu_seconds": 600.0}),
    }
    mnist.save_record(FLOOR, {"test_nats": 58.5, "binarisation": "S"}, path)
    for name, (kind, nats, record) in ours.items():
        mnist.save_record(name, {"test_nats": nats, "binarisation": kind} | record, path)
    table = results_table(path=path)
    assert table.header == ("modèle", "−log p(x), nats/image", "données", "minutes", "source")
    published = [(name, f"{nats:.2f}", kind, "", source) for name, nats, kind, source in PUBLISHED]
    trained = [
        ("le pire", "200.00", "S", "< 0.1", "ce dépôt, un cœur"),
        ("le nôtre", "85.00", "S", "1.5", "ce dépôt, un cœur"),
        ("le meilleur", "75.00", "S", "10.0", "ce dépôt, un cœur"),
        ("le grand", "84.00", "D", "4.0", "ce dépôt, NVIDIA Toy"),
    ]
    floor = (FLOOR, "58.50", "S", "", "ce dépôt")
    assert sorted(table.rows) == sorted([*published, *trained, floor])
    *rows, last = table.rows
    assert last == floor and rows[:3] == trained[:3]
    assert [kind for *_, kind, _, _ in rows] == sorted((row[2] for row in rows), key="SFD".index)
    for kind in "SFD":
        nats = [float(row[1]) for row in rows if row[2] == kind]
        assert nats == sorted(nats, reverse=True)
    assert rows.index(trained[3]) > rows.index(published[7])  # after the published MADE, also « D »


def test_the_published_figures_are_given_once_with_their_binarisation():
    assert len(set(PUBLISHED)) == len(PUBLISHED)
    for _, _, kind, source in PUBLISHED:
        assert kind == ("D" if source.startswith("EugenHotaj") else "F")
    fixed = {name for name, _, kind, _ in PUBLISHED if kind == "F"}
    assert fixed >= {"PixelCNN", "Diagonal BiLSTM, 1 couche", "Diagonal BiLSTM, 7 couches"}
    assert "MADE, 2 couches, 32 masques" in fixed


def test_the_table_of_some_models():
    table = results_table("NADE", "FVSBN")
    names = [row[0] for row in table.rows]
    assert names[-1] == FLOOR and names.count("NADE, H = 500") == 1
    assert all(re.search("NADE|FVSBN", name) for name in names[:-1])
    assert len([row for row in PUBLISHED if re.search("NADE|FVSBN", row[0])]) + 3 == len(names)
    with pytest.raises(ValueError, match="no model of the table has 'Pixel RNN' in its name"):
        results_table("NADE", "Pixel RNN")


# ---- the committed file -----------------------------------------------------------------------

# at most: nats per image, seconds of one core
LIMITS = {
    "FVSBN": (98.2, 180),
    "MADE, 2 × 500": (89.9, 600),
    NEW_DRAWS: (88.7, 600),
    "NADE, H = 500": (89.0, 600),
    "PixelCNN simple, 32 × 15": (87.0, 600),
    "PixelCNN à portes, 32 × 7": (88.0, 600),
    "PixelCNN à portes, trois fois plus longtemps": (87.0, 1800),
    "Row LSTM, 32 × 2": (90.0, 600),
    "Diagonal BiLSTM, 32 × 1": (89.0, 600),
}


@pytest.mark.parametrize("recipe", CPU_RECIPES, ids=NAMES)
def test_the_committed_record(recipe):
    record = read(RESULTS_PATH)[recipe.name]
    check_record(record, recipe, KEYS, {}, (1, 28, 28))
    nats, seconds = LIMITS.get(recipe.name, (math.inf, math.inf))
    assert record["test_nats"] <= nats and record["cpu_seconds"] <= seconds


def test_the_committed_records_of_a_gpu():
    """There may be none: then the tables show none."""
    records = read(RESULTS_PATH)
    for recipe in CUDA_RECIPES:
        if recipe.name in records:
            check_record(records[recipe.name], recipe, CUDA_KEYS, {}, (1, 28, 28))


def test_the_committed_models_rank_as_they_should():
    """Nothing is worse than independent pixels, none beats the noise; nothing else in the file."""
    records = read(RESULTS_PATH)
    assert {FLOOR, *NAMES} <= records.keys() <= {FLOOR, *NAMES, *CUDA_NAMES}
    nats = {name: record["test_nats"] for name, record in records.items()}
    assert max(nats, key=nats.get) == "pixels indépendants"
    assert min(nats, key=nats.get) == FLOOR and nats[FLOOR] > 0
    assert nats["table, 4 voisins"] > nats["FVSBN"]
    assert nats["FVSBN"] > max(nats["NADE, H = 500"], nats["MADE, 2 × 500"])
    assert max(nats[name] for name in PIXEL_MODELS if name in nats) < nats["FVSBN"]
    assert nats[NEW_DRAWS] < nats["MADE, 2 × 500"]
    long, short = "PixelCNN à portes, trois fois plus longtemps", "PixelCNN à portes, 32 × 7"
    assert nats[long] < nats[short] < nats["MADE, 2 × 500"]
    assert records[long]["cpu_seconds"] > 2 * records[short]["cpu_seconds"]
    best_published = min(nats for _, nats, _, _ in PUBLISHED)
    assert best_published < min(nats[name] for name in NAMES)
    assert len(results_table().rows) == len(records) + len(PUBLISHED)
