"""What every autoregressive model keeps: causality, exact probabilities, weights, messages."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from autoregressive_models import (
    AGNOSTIC,
    CASES,
    CLASSES,
    KINDS,
    LEFT_AND_ABOVE,
    NETWORKS,
    SHAPE,
    TABLES,
    build,
    chain_images,
    column_by_column,
    labels,
    laws,
    log_prob_of,
    perturb,
    random_images,
    random_ordering,
    same_state,
    seeded,
    state_of,
)

from course_utils import fit
from course_utils.autoregressive import FVSBN, MADE, NADE, MarkovTable, OrderAgnosticMADE
from course_utils.data import Split
from course_utils.evaluation import enumerate_images, measured_dependencies, total_probability
from course_utils.weights import load_weights, save_weights

DIMS = math.prod(SHAPE)
STATES = ["random", "trained"]


# ---- causality --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_no_pixel_reads_itself_nor_those_after(kind, num_classes, state):
    """Bit for bit: all the pixels from step i on are drawn again, those visited so far stay."""
    model = build(kind, num_classes, state=state)
    x, y = random_images(model, 16), labels(model, 16)
    for ordering, logits in laws(model):
        before = logits(x, y).flatten(1)
        for i in range(DIMS):
            changed = x.clone().flatten(1)
            changed[:, ordering[i:]] = random_images(model, 16, seed=5 + i).flatten(1)[:, i:]
            after = logits(changed.view_as(x), y).flatten(1)
            assert torch.equal(after[:, ordering[: i + 1]], before[:, ordering[: i + 1]])


def expected_dependencies(kind, ordering):
    """`[i, j]`: pixel i should read pixel j."""
    expected = torch.zeros(DIMS, DIMS, dtype=torch.bool)
    order = int(kind.split()[-1]) if kind.startswith("table, order") else DIMS
    visit = ordering.tolist()
    for step, pixel in enumerate(visit):
        expected[pixel, visit[max(0, step - order) : step]] = True
    if kind == "table, neighbours":
        _, height, width = SHAPE
        expected[:] = False
        for row in range(height):
            for column in range(width):
                if column > 0:
                    expected[row * width + column, row * width + column - 1] = True
                if row > 0:
                    expected[row * width + column, (row - 1) * width + column] = True
    return expected


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_every_pixel_reads_all_those_it_should(kind, num_classes, state):
    model = build(kind, num_classes, state=state)
    y = labels(model, 32)
    for ordering, logits in laws(model):
        found = measured_dependencies(lambda x: logits(x, y), SHAPE, num_images=32)  # noqa: B023
        assert torch.equal(found, expected_dependencies(kind, ordering))


@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind != "NADE, lean"])
def test_the_jacobian_is_strictly_triangular_in_the_order_of_the_visit(kind):
    """`_logits` on numbers between 0 and 1, where a derivative sees what flips might hide."""
    model = build(kind)
    x = torch.rand(4, DIMS, generator=seeded())
    ordering = random_ordering(DIMS, 7) if kind in AGNOSTIC else model.ordering

    def summed(x):  # the images are independent: the sum separates their derivatives
        return model._logits(x, None, ordering).sum(0)

    jacobian = torch.autograd.functional.jacobian(summed, x).transpose(0, 1)  # (B, D, D)
    read = (jacobian != 0).any(0)[ordering][:, ordering]
    assert torch.equal(read, torch.ones(DIMS, DIMS).tril(-1).bool())


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_several_channels(kind, num_classes):
    model = build(kind, num_classes, shape=(2, 2, 2))
    y = labels(model, 1)
    assert total_probability(lambda x: model.log_prob(x, y), (2, 2, 2)) == pytest.approx(1)


# ---- probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_the_probabilities_of_all_images_sum_to_one(kind, num_classes, state):
    model = build(kind, num_classes, state=state)
    for y in [None] if num_classes is None else [*torch.eye(num_classes), torch.full((3,), 1 / 3)]:
        y = None if y is None else y[None]
        total = total_probability(lambda x: model.log_prob(x, y), SHAPE)  # noqa: B023
        assert total == pytest.approx(1, abs=1e-5)
        for _, logits in laws(model):
            total = total_probability(lambda x: log_prob_of(logits(x, y), x), SHAPE)  # noqa: B023
            assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_the_three_likelihoods_agree(kind, num_classes):
    model = build(kind, num_classes)
    x, y = random_images(model), labels(model, 10)
    with torch.no_grad():
        pixels, total, loss = model.pixel_log_prob(x, y), model.log_prob(x, y), model.loss(x, y)
    assert model.logits(x, y).shape == pixels.shape == x.shape and total.shape == (10,)
    assert pixels.dtype == total.dtype == torch.float32
    odds = model.logits(x, y).sigmoid().log() - (-model.logits(x, y)).sigmoid().log()
    expected = torch.where(x == 1, 0, -odds) + model.logits(x, y).sigmoid().log()
    torch.testing.assert_close(pixels, expected)
    each = torch.stack([log_prob_of(logits(x, y), x) for _, logits in laws(model)])
    torch.testing.assert_close(total.double(), each.exp().mean(0).log(), rtol=1e-5, atol=1e-5)
    if kind not in AGNOSTIC:  # whose loss draws an ordering
        torch.testing.assert_close(loss, -total.mean())
        torch.testing.assert_close(total, pixels.flatten(1).sum(1))


@pytest.mark.parametrize("kind", NETWORKS)
def test_labels_weights_and_a_single_condition(kind):
    model = build(kind, CLASSES)
    x, y = random_images(model), labels(model, 10)
    by_label = model.logits(x, y)
    assert torch.equal(model.logits(x, torch.eye(CLASSES)[y]), by_label)
    assert torch.equal(model.logits(x, y.to(torch.uint8)), by_label)
    single = model.logits(x, torch.tensor([2]))
    assert torch.equal(single, model.logits(x, torch.full((10,), 2)))
    assert (single - model.logits(x, torch.tensor([1]))).abs().amin(0).max() > 0.01
    assert torch.equal(
        model.sample(10, torch.tensor([2]), generator=seeded()),
        model.sample(10, torch.full((10,), 2), generator=seeded()),
    )


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_untrained_class_changes_nothing(kind):
    """The parameters of the classes start at zero: a conditional model starts as a plain one."""
    torch.manual_seed(0)
    plain = KINDS[kind](SHAPE)
    torch.manual_seed(0)
    conditional = KINDS[kind](SHAPE, num_classes=CLASSES)
    x = random_images(plain)
    torch.testing.assert_close(conditional.logits(x, labels(conditional, 10)), plain.logits(x))


# ---- starting, training -----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_start_from_is_the_model_of_independent_pixels(kind, num_classes):
    model = build(kind, num_classes, state="trained" if kind in TABLES else "random")
    images, _ = chain_images(50)
    independent = MarkovTable(SHAPE, order=0).count(images, pseudo_count=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert model.start_from(images) is model
    x = enumerate_images(SHAPE)
    expected = KINDS[kind](SHAPE, ordering=model.ordering).count(images) if kind in TABLES else None
    if expected is None:
        expected = independent
        ones = images.float().sum(0)
        odds = ((ones + 0.5) / (50 - ones + 0.5)).log().expand(64, *SHAPE)
        torch.testing.assert_close(model.logits(x, labels(model, 64)).detach(), odds)
    found = model.log_prob(x, labels(model, 64)).detach()
    torch.testing.assert_close(found, expected.log_prob(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_classes", [None, CLASSES])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_loss_gives_a_gradient_to_every_parameter(kind, num_classes):
    model = perturb(build(kind, num_classes)).train()
    x, y = chain_images()
    torch.manual_seed(0)
    model.loss(x, y if num_classes else None).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("num_classes", [None, CLASSES])
@pytest.mark.parametrize("kind", NETWORKS)
def test_fit_learns(kind, num_classes):
    """The previous pixel of the chain says 0.2 nat of each of five; the label, 1.0 of two."""
    options = {} if kind in AGNOSTIC else {"ordering": torch.arange(DIMS)}
    torch.manual_seed(0)
    model = KINDS[kind](SHAPE, num_classes=num_classes, **options)
    data = SimpleNamespace(
        train=Split(*chain_images(500, seed=8)), val=Split(*chain_images(200, seed=9))
    )
    model.start_from(data.train.images)
    history = fit(
        model, data, conditional=num_classes is not None, steps=100, lr=0.05, val_every=50,
        device="cpu", progress=False,
    )  # fmt: skip
    assert history.best_val < history.val[0] - (0.4 if num_classes is None else 1.0)
    assert not model.training


# ---- state ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_evaluating_changes_no_state(kind, num_classes):
    model = build(kind, num_classes)
    x, y = random_images(model), labels(model, 10)
    before = state_of(model)
    model.logits(x, y), model.pixel_log_prob(x, y), model.log_prob(x, y), model.loss(x, y)
    assert same_state(state_of(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_weights_carry_their_ordering_with_them(kind, num_classes, tmp_path):
    model, other = build(kind, num_classes), build(kind, num_classes, state="trained", seed=9)
    if kind == "table, neighbours":
        other = MarkovTable(SHAPE, neighbours=LEFT_AND_ABOVE)
    x, y = enumerate_images(SHAPE), labels(model, 64)
    assert not torch.equal(model.ordering, other.ordering)
    assert (model.log_prob(x, y) - other.log_prob(x, y)).abs().max() > 0.1
    save_weights(model, tmp_path / "model.safetensors")
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(other.log_prob(x, y), model.log_prob(x, y))
    for (_, one), (_, another) in zip(laws(model), laws(other)):
        assert torch.equal(one(x, y), another(x, y))
    assert torch.equal(
        other.sample(16, labels(model, 16), generator=seeded()),
        model.sample(16, labels(model, 16), generator=seeded()),
    )


@pytest.mark.parametrize(("kind", "num_classes"), CASES)
def test_a_copy_lives_its_own_life(kind, num_classes):
    model, source = build(kind, num_classes), build(kind, num_classes, state="trained", seed=9)
    x, y = enumerate_images(SHAPE), labels(model, 64)
    expected, before = source.log_prob(x, y), state_of(model)
    twin = copy.deepcopy(model)
    assert torch.equal(twin.log_prob(x, y), model.log_prob(x, y))
    twin.load_state_dict(source.state_dict())
    assert torch.equal(twin.log_prob(x, y), expected)
    assert same_state(state_of(model), before)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in AGNOSTIC])
def test_the_model_keeps_its_own_copy_of_the_ordering(kind):
    ordering = column_by_column(SHAPE)
    model = KINDS[kind](SHAPE, ordering=ordering)
    ordering[:] = torch.arange(DIMS)
    assert torch.equal(model.ordering, column_by_column(SHAPE))
    for same in (column_by_column(SHAPE).tolist(), column_by_column(SHAPE).to(torch.int32)):
        found = KINDS[kind](SHAPE, ordering=same).ordering
        assert found.dtype == torch.int64 and torch.equal(found, model.ordering)


def test_the_default_ordering_is_the_raster():
    assert torch.equal(FVSBN(SHAPE).ordering, torch.arange(DIMS))


# ---- wrong input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (2, 3)}, r"shape=\(2, 3\): expected \(channels, height, width\)"),
        ({"shape": (1, 0, 3)}, r"expected \(channels, height, width\)"),
        ({"num_classes": 1}, "num_classes=1: expected at least two classes"),
        ({"ordering": [0, 1, 2, 3, 4, 4]}, r"permutation of 0, …, 5; pixel 5 is never visited"),
        ({"ordering": [1, 2, 3, 4, 5, 6]}, r"pixel 0 is never visited. torch.randperm\(D\)"),
        ({"ordering": [-1, 0, 1, 2, 3, 4]}, "pixel 5 is never visited"),
        ({"ordering": [0, 1, 2]}, r"expected 6 integers, one per pixel, got \(3,\)"),
        ({"ordering": torch.arange(6).view(2, 3)}, r"expected 6 integers.*\(2, 3\)"),
        ({"ordering": torch.arange(6.0)}, r"expected 6 integers.*float32"),
        ({"ordering": torch.arange(6, 0, -1).double() - 1}, "expected 6 integers.*float64"),
    ],
)
@pytest.mark.parametrize("model", [FVSBN, NADE, MADE])
def test_wrong_construction(model, options, message):
    with pytest.raises(ValueError, match=message):
        model(**{"shape": SHAPE} | options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NADE(SHAPE, hidden=0), "hidden=0: expected the number of units"),
        (lambda: MADE(SHAPE, hidden=(8, 0)), r"hidden=\(8, 0\): expected the number of units"),
        (lambda: MADE(SHAPE, hidden=(), direct=False), "no pixel sees another"),
        (lambda: MADE(SHAPE, dropout=1.0), r"dropout=1.0: expected a share in \[0, 1\)"),
        (lambda: MADE(SHAPE, dropout=-0.1), "dropout=-0.1"),
        (lambda: MADE(SHAPE, dropout=math.nan), "dropout=nan"),
        (lambda: OrderAgnosticMADE(SHAPE, num_orderings=0), "num_orderings=0: .*at least one"),
        (lambda: OrderAgnosticMADE(SHAPE, ordering=[0, 1]), "no ordering of its own: leave it out"),
        (lambda: MarkovTable(SHAPE), "order=… .* or neighbours=…, not both"),
        (lambda: MarkovTable(SHAPE, order=1, neighbours=()), "not both"),
        (lambda: MarkovTable(SHAPE, order=-1), "order=-1: expected 0 or more"),
        (lambda: MarkovTable(SHAPE, order=13), r"13 parents: .*2\^13 lines.*at most 12"),
        (lambda: MarkovTable(SHAPE, neighbours=((0, -1),) * 13), "13 parents"),
        (lambda: MarkovTable(SHAPE, neighbours=((0, -4),)), r"neighbour \(0, -4\): outside"),
    ],
)
def test_wrong_options(build, message):
    with pytest.raises(ValueError, match=message):
        build()


METHODS = ["logits", "pixel_log_prob", "log_prob", "loss", "start_from"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["table, order 1", "FVSBN", "MADE, 1 layer", "agnostic, 1 layer"])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(5, *SHAPE), TypeError, r"float32: quantise .*quantize\(x, levels\)"),
        (torch.zeros(5, 1, 3, 2, dtype=torch.uint8), ValueError, r"images \(B, 1, 2, 3\)"),
        (torch.zeros(SHAPE, dtype=torch.uint8), ValueError, r"batch dimension, x\[None\]"),
        (torch.full((5, *SHAPE), 2), ValueError, r"\[2, 2\].*levels=2"),
    ],
    ids=["float", "shape", "no batch", "range"],
)
def test_images_are_checked(kind, method, x, error, message):
    with pytest.raises(error, match=message):
        getattr(build(kind), method)(x)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueError, r"needs a condition y: labels \(B,\) in \{0, …, 2\} or weights"),
        (torch.tensor([0, 1, 3, 0]), ValueError, r"labels in \{0, …, 2\}, got \[0, 3\]"),
        (torch.tensor([0, -1, 1, 0]), ValueError, r"got \[-1, 1\]"),
        (torch.tensor([0, 1]), ValueError, "2 conditions for 4 images"),
        (torch.zeros(4), TypeError, r"convert with y.long\(\)"),
        (torch.full((4, 3), 0.5), ValueError, "sum to 1"),
        (torch.eye(4), ValueError, r"weights \(B, 3\), got \(4, 4\)"),
        ([0, 1, 2, 0], TypeError, "got list"),
    ],
    ids=["missing", "too large", "negative", "too few", "float", "sum", "classes", "list"],
)
def test_conditions_are_checked(kind, y, error, message):
    model = build(kind, CLASSES)
    for call in (model.logits, model.log_prob, model.loss):
        with pytest.raises(error, match=message):
            call(random_images(model, 4), y)
    with pytest.raises(error, match=message):
        model.sample(4, y)


@pytest.mark.parametrize("kind", KINDS)
def test_a_condition_is_refused_by_a_model_without_classes(kind):
    model = build(kind)
    y = torch.zeros(4, dtype=torch.long)
    for call in (model.logits, model.log_prob, model.loss):
        with pytest.raises(ValueError, match="no condition: leave y out, or give num_classes"):
            call(random_images(model, 4), y)
    with pytest.raises(ValueError, match="no condition: leave y out"):
        model.sample(4, y)
