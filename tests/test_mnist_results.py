"""The table of results on MNIST: how it is trained, written and shown; the committed figures."""

import json
import math
import re

import pytest
import torch
from autoregressive_models import chain_images

from course_utils import fit
from course_utils.autoregressive import FVSBN, DiagonalBiLSTM, MarkovTable, PixelCNN, RowLSTM
from course_utils.data import Dataset, Split
from course_utils.evaluation import mnist
from course_utils.evaluation.mnist import FLOOR, PUBLISHED, RECIPES, RESULTS_PATH, results_table

TINY = (1, 3, 3)
NAMES = [recipe.name for recipe in RECIPES]
KEYS = {
    "test_nats", "standard_error", "parameters", "cpu_seconds", "training", "seed", "threads",
    "torch",
}  # fmt: skip


def num_parameters(name, dims):
    """Counted by hand; a table has a line for each value of its parents."""
    if found := re.fullmatch(r"table, (\d+) voisins", name):
        return 2 ** int(found[1]) * dims
    # of 32 features; a masked 7×7 kernel has 4 rows of 7 weights, a 3×3 one 2 rows of 3
    first = 28 * 32 + 32 * dims  # with a bias at each position
    head = 32 * 32 + 32 + 32 + dims  # two 1×1 convolutions
    stacks = (64 * 28 + 64 * 4) + 6 * (64 * 6 * 32 + 64 * 2 * 32)  # vertical, horizontal kernels
    gated = stacks + 7 * (64 + 64 * 64 + 64 * dims + 32 * 32) + head  # biases, link, residual
    return {
        "pixels indépendants": dims,
        "FVSBN": dims * dims + dims,
        "NADE, H = 500": 2 * dims * 500 + dims + 500,
        "MADE, 2 × 500": 2 * dims * 500 + 500 * 500 + 2 * 500 + dims * dims + dims,
        "PixelCNN simple, 32 × 15": first + 14 * (6 * 32 * 32 + 32 * dims) + head,
        "PixelCNN à portes, 32 × 7": gated,
        "PixelCNN à portes, trois fois plus longtemps": gated,
        "Row LSTM, 32 × 2": first + 2 * (128 * (2 + 3) * 32 + 128 * dims + 32 * 32) + head,
        # two scans, of a 1×1 kernel on the input and two taps on the states
        "Diagonal BiLSTM, 32 × 1": first + 2 * (128 * 3 * 32 + 128 * dims) + 32 * 32 + head,
    }[name]


@pytest.fixture
def tiny(monkeypatch):
    """A tiny data set in the place of MNIST; the number of threads is put back afterwards.

    In grey levels, its ink has the probability 0.8 (204 / 255), its paper 0.
    """
    data = Dataset("mnist", 2, *(Split(*chain_images(n, TINY, seed=n)) for n in (300, 60, 80)))
    parts = (Split(204 * part.images, part.labels) for part in (data.train, data.val, data.test))
    grey = Dataset("mnist", 256, *parts)

    def load(name, *, levels=256):
        assert name == "mnist"
        return {2: data, 256: grey}[levels]

    monkeypatch.setattr(mnist, "load", load)
    threads = torch.get_num_threads()
    yield data
    torch.set_num_threads(threads)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.json"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# ---- training and writing ---------------------------------------------------------------------


def test_main_trains_every_model_and_writes_its_record(tiny, path, capsys):
    mnist.main(["--steps", "3", "--seed", "5", "--out", str(path)])
    records, printed = read(path), capsys.readouterr().out
    assert list(records) == [FLOOR, *NAMES]
    for recipe in RECIPES:
        record = records[recipe.name]
        assert record.keys() == KEYS
        assert record["training"] == ({**recipe.training, "steps": 3} if recipe.training else {})
        assert (record["seed"], record["threads"]) == (5, 1)
        assert 3 < record["test_nats"] < 8
        assert 0 < record["standard_error"] < 1
        assert record["parameters"] == num_parameters(recipe.name, 9)
        assert record["cpu_seconds"] >= 0 and record["torch"] == torch.__version__
        result = rf"^{recipe.name}\n(.*\n)?  {record['test_nats']} nats/image on the test set$"
        assert re.search(result, printed, re.MULTILINE)
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_main_trains_the_models_named_tests_them_and_keeps_the_other_records(tiny, path):
    old = {"FVSBN": {"test_nats": 99.0}, "autre modèle": {"test_nats": 1.0}}
    path.write_text(json.dumps(old), encoding="utf-8")
    mnist.main(["pixels indépendants", "FVSBN", "--steps", "20", "--out", str(path)])
    records, images = read(path), tiny.test.images
    assert list(records) == ["FVSBN", "autre modèle", FLOOR, "pixels indépendants"]
    assert records["autre modèle"] == {"test_nats": 1.0}
    assert "autre modèle" in path.read_text(encoding="utf-8")  # no \u00e8
    table = MarkovTable(TINY, order=0).count(tiny.train.images)
    torch.manual_seed(0)
    fvsbn = FVSBN(TINY).start_from(tiny.train.images)
    lr = dict((recipe.name, recipe.training) for recipe in RECIPES)["FVSBN"]["lr"]
    fit(fvsbn, tiny, steps=20, lr=lr, patience=None, device="cpu", seed=0, progress=False)
    for name, model in (("pixels indépendants", table), ("FVSBN", fvsbn)):
        nats = -model.log_prob(images).detach().double()
        assert records[name]["test_nats"] == pytest.approx(nats.mean().item(), abs=1e-3)
        error = nats.std().item() / math.sqrt(len(images))
        assert records[name]["standard_error"] == pytest.approx(error, abs=1e-3)
    assert records["FVSBN"]["test_nats"] < records["pixels indépendants"]["test_nats"]


def test_the_floor_is_the_entropy_of_the_grey_test_images(tiny):
    """Of a pixel of ink, log 5 − 0.8 log 4 nat; of the paper, nothing."""
    nats = tiny.test.images.double().flatten(1).sum(1) * (math.log(5) - 0.8 * math.log(4))
    floor = mnist.noise_floor()
    assert floor["test_nats"] == pytest.approx(nats.mean().item(), abs=1e-3)
    assert floor["standard_error"] == pytest.approx(nats.std().item() / math.sqrt(80), abs=1e-3)
    assert len(floor) == 2


def test_main_refuses_unknown_models(tiny, path, capsys):
    with pytest.raises(SystemExit):
        mnist.main(["FVSBN", "PixelCNN", "--out", str(path)])
    error = capsys.readouterr().err
    assert "unknown models ['PixelCNN']: expected some of" in error and "NADE, H = 500" in error
    assert not path.exists()


PIXEL_MODELS = {
    "PixelCNN simple, 32 × 15": (PixelCNN, False, 15),
    "PixelCNN à portes, 32 × 7": (PixelCNN, True, 7),
    "PixelCNN à portes, trois fois plus longtemps": (PixelCNN, True, 7),
    "Row LSTM, 32 × 2": (RowLSTM, None, 2),
    "Diagonal BiLSTM, 32 × 1": (DiagonalBiLSTM, None, 1),
}


def test_the_pixel_models_are_what_their_names_say():
    """Gates, 32 features, the number of layers; three times as many steps, all else equal."""
    recipes = {r.name: r for r in RECIPES if re.search("Pixel|LSTM", r.name)}
    assert recipes.keys() == PIXEL_MODELS.keys()
    for name, (kind, gated, layers) in PIXEL_MODELS.items():
        model, training = recipes[name].build(TINY), recipes[name].training
        assert type(model) is kind and getattr(model, "gated", None) == gated
        assert (model.features, len(model.layers)) == (32, layers)
        assert training.keys() == {"steps", "lr", "batch_size", "val_every", "bfloat16"}
        assert training["val_every"] < training["steps"], "validated at least once on the way"
    short, long = (recipe.training for name, recipe in recipes.items() if "à portes" in name)
    assert long == short | {"steps": 3 * short["steps"]}


def test_a_record_that_cannot_be_written_leaves_the_file_whole(path):
    mnist.save_record("one", {"test_nats": 1.0}, path)
    with pytest.raises(TypeError):
        mnist.save_record("two", {"test_nats": torch.tensor(1.0)}, path)
    assert read(path) == {"one": {"test_nats": 1.0}}


# ---- showing ----------------------------------------------------------------------------------


def test_the_table_puts_ours_among_the_published_best_last(path):
    ours = {"le nôtre": (85.0, 90.0), "le pire": (200.0, 0.4), "le meilleur": (75.0, 600.0)}
    for name, (nats, seconds) in ours.items():
        mnist.save_record(name, {"test_nats": nats, "cpu_seconds": seconds}, path)
    mnist.save_record(FLOOR, {"test_nats": 58.5}, path)
    table = results_table(path=path)
    assert table.header == (
        "modèle", "−log p(x), nats/image", "données", "minutes d'un cœur", "source"
    )  # fmt: skip
    published = [(name, f"{nats:.2f}", kind, "", source) for name, nats, kind, source in PUBLISHED]
    trained = [
        ("le pire", "200.00", "S", "< 0.1", "ce dépôt"),
        ("le nôtre", "85.00", "S", "1.5", "ce dépôt"),
        ("le meilleur", "75.00", "S", "10.0", "ce dépôt"),
        (FLOOR, "58.50", "S", "", "ce dépôt"),
    ]
    assert sorted(table.rows) == sorted(published + trained)
    nats = [float(row[1]) for row in table.rows]
    assert nats == sorted(nats, reverse=True)


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
    "NADE, H = 500": (89.0, 600),
    "PixelCNN simple, 32 × 15": (87.0, 600),
    "PixelCNN à portes, 32 × 7": (88.0, 600),
    "PixelCNN à portes, trois fois plus longtemps": (87.0, 1800),
    "Row LSTM, 32 × 2": (90.0, 600),
    "Diagonal BiLSTM, 32 × 1": (89.0, 600),
}


@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_the_committed_record(recipe):
    record = read(RESULTS_PATH)[recipe.name]
    assert record.keys() == KEYS
    assert record["training"] == recipe.training
    assert record["threads"] == 1
    assert record["parameters"] == num_parameters(recipe.name, 784)
    nats, seconds = LIMITS.get(recipe.name, (math.inf, math.inf))
    assert record["test_nats"] <= nats and record["cpu_seconds"] <= seconds
    assert 0 < record["standard_error"] < 1


def test_the_committed_models_rank_as_they_should():
    """Nothing is worse than independent pixels, none beats the noise; nothing else in the file."""
    records = read(RESULTS_PATH)
    assert records.keys() == {FLOOR, *NAMES}
    nats = {name: record["test_nats"] for name, record in records.items()}
    assert max(nats, key=nats.get) == "pixels indépendants"
    assert min(nats, key=nats.get) == FLOOR and nats[FLOOR] > 0
    assert nats["table, 4 voisins"] > nats["FVSBN"]
    assert nats["FVSBN"] > max(nats["NADE, H = 500"], nats["MADE, 2 × 500"])
    assert max(nats[name] for name in PIXEL_MODELS) < nats["FVSBN"]
    long, short = "PixelCNN à portes, trois fois plus longtemps", "PixelCNN à portes, 32 × 7"
    assert nats[long] < nats[short] < nats["MADE, 2 × 500"]
    assert records[long]["cpu_seconds"] > 2 * records[short]["cpu_seconds"]
    best_published = min(nats for _, nats, _, _ in PUBLISHED)
    assert best_published < min(nats[name] for name in NAMES)
    assert len(results_table().rows) == len(records) + len(PUBLISHED)
