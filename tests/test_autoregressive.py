"""What every autoregressive model keeps: causality, exact probabilities, weights, messages."""

import copy
import itertools
import math
from functools import partial

import pytest
import torch
from autoregressive_models import (
    AGNOSTIC,
    ALL_CASES,
    CLASS_CASES,
    CLASSES,
    FEW_CASES,
    KINDS,
    NETWORKS,
    PIXEL_KINDS,
    SHAPE,
    TABLES,
    TRAINABLE,
    build,
    chain_images,
    column_by_column,
    conditions,
    default_shape,
    labels,
    laws,
    log_prob_of,
    random_images,
    random_ordering,
    same_state,
    seeded,
    state_of,
)

from course_utils.autoregressive import (
    FVSBN,
    MADE,
    NADE,
    DiagonalBiLSTM,
    MarkovTable,
    OrderAgnosticMADE,
    PixelCNN,
    RowLSTM,
)
from course_utils.evaluation import measured_dependencies, receptive_field, total_probability
from course_utils.weights import load_weights, save_weights

DIMS = math.prod(SHAPE)

# ---- causality --------------------------------------------------------------------------------


def relation(size, groups, rule):
    """`[i, j]`: does feature i read feature j? The rule tells, from what separates them.

    A feature is at (row, column), of a colour group. The rule receives the number of rows that j is
    above i, of columns that it is on the right, of groups that it comes after.
    """
    places = list(itertools.product(*map(range, size), range(groups)))
    reads = [[rule(r - s, d - c, k - g) for s, d, k in places] for r, c, g in places]
    return torch.tensor(reads).bool()


def mask_a(up, right, later):
    return up > 0 or (up == 0 and (right < 0 or (right == 0 and later < 0)))


def mask_b(up, right, later):
    return mask_a(up, right, later) or (up, right, later) == (0, 0, 0)


def kernel(mask, reach, rows_above):
    return lambda up, right, later: (
        up <= rows_above and abs(right) <= reach and mask(up, right, later)
    )


def row_lstm(up, right, later):
    """The triangle: j rows above, from j + 1 pixels on the left to j on the right."""
    return -up - 1 <= right <= up and mask_b(up, right, later)


def rules(model, kind):
    """What each layer reads of the one before it."""
    if kind == "gated" and len(model.layers) > 1:
        return [mask_a]  # no blind spot
    if kind == "gated":
        reach = model.layers[0].padding[0]  # the vertical kernel starts from the row above
        return [kernel(mask_a, reach, reach + 1)]
    convs = [layer.conv for layer in model.layers] if kind == "plain" else [model.first.conv]
    first, *others = (conv.padding[0] for conv in convs)
    found = [kernel(mask_a, first, first), *(kernel(mask_b, reach, reach) for reach in others)]
    if kind != "plain":
        found += [row_lstm if kind == "row" else mask_b] * len(model.layers)
    return found


def expected_reads(model, kind):
    """`(D, D)` booleans in the order of the visit: `[i, j]`, pixel i should read pixel j."""
    channels, *size = model.shape
    if kind == "table, neighbours":
        reads = relation(size, 1, lambda up, right, _: (up, right) in ((0, -1), (1, 0)))
        return reads[model.ordering][:, model.ordering]
    if kind in KINDS:
        order = int(kind.split()[-1]) if kind in TABLES else DIMS
        return torch.ones(DIMS, DIMS).tril(-1).triu(-order).bool()
    reads = None
    for rule in rules(model, kind.split(":")[0]):
        layer = relation(size, model.groups, rule)
        reads = layer if reads is None else (layer.float() @ reads.float()).bool()
    own = channels // model.groups  # channels that do not see each other
    return reads.repeat_interleave(own, 0).repeat_interleave(own, 1)


@pytest.mark.parametrize(("kind", "num_classes"), ALL_CASES)
def test_a_pixel_reads_those_that_it_should_and_no_other(kind, num_classes):
    """By perturbation, bit for bit."""
    model = build(kind, num_classes)
    y = labels(model, 24)
    for ordering, logits in laws(model):
        with torch.no_grad():
            found = measured_dependencies(
                lambda x: logits(x, y),  # noqa: B023
                model.shape,
                model.levels,
                num_images=24,
            )
        found = found[ordering][:, ordering]
        assert not found.triu().any()
        assert torch.equal(found, expected_reads(model, kind))


@pytest.mark.parametrize(
    ("kind", "num_classes"),
    [c for c in TRAINABLE if not c[0].endswith(("lean", "one-hot", "embedding"))],
)
def test_the_jacobian_is_strictly_triangular_in_the_order_of_the_visit(kind, num_classes):
    """On numbers between two levels, where a derivative sees what flips might hide."""
    model = build(kind, num_classes)
    x = (model.levels - 1) * torch.rand(12, model.dims, generator=seeded())
    classes = model.condition(labels(model, 12), 12)
    ordering = random_ordering(DIMS, 7) if kind in AGNOSTIC else model.ordering
    weights = 0.5 + torch.rand(12, 15, 1, generator=seeded(1))  # 15 parameters at most

    def summed(x):  # the images are independent: the sum separates their derivatives
        parameters = model._logits(x, classes, ordering).view(12, -1, model.dims)
        return (weights[:, : parameters.shape[1]] * parameters).sum((0, 1))

    jacobian = torch.autograd.functional.jacobian(summed, x)  # (D, B, D)
    read = (jacobian != 0).any(1)[ordering][:, ordering]
    assert torch.equal(read, expected_reads(model, kind))


@pytest.mark.parametrize(
    ("kind", "options", "count"),
    [("plain", {"layers": 6}, 69), ("gated", {"layers": 6}, 84)]
    + [("row", {"layers": 1}, 59), ("diagonal", {"layers": 1}, 83)],
)
def test_the_receptive_field_of_the_lecture(kind, options, count):
    """At the centre of 13×13: 84 pixels before. Blind: 15 on the right; the corner of a diagonal.

    In float32, the farthest pixels of an LSTM would weigh too little.
    """
    torch.manual_seed(0)
    model = PIXEL_KINDS[kind]((1, 13, 13), first_kernel_size=3, **options).double()
    seen = receptive_field(lambda x: model.feature_maps(x.double()), model.shape, (6, 6))
    assert torch.equal(seen.flatten(), expected_reads(model, f"{kind}:")[6 * 13 + 6])
    assert seen.sum() == count
    if kind == "plain":  # all but a triangle on the right, wider at each row above
        assert [row.tolist() for row in seen[0, 1:6]] == [
            [True] * (13 - blind) + [False] * blind for blind in (1, 2, 3, 4, 5)
        ]
    if kind == "diagonal":
        assert not seen[0, 5, 12]


# ---- probabilities ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "num_classes", "state"),
    [(*case, "random") for case in ALL_CASES] + [(*case, "trained") for case in FEW_CASES],
)
def test_the_probabilities_of_all_images_sum_to_one(kind, num_classes, state):
    shape = (2, 2, 2) if kind in KINDS else default_shape(kind, (2, 1) if num_classes else (2, 2))
    model = build(kind, num_classes, shape=shape, state=state)
    for y in conditions(model):
        functions = [lambda x: model.log_prob(x, y)]  # noqa: B023
        if kind in AGNOSTIC:
            functions += [
                lambda x, f=logits: log_prob_of(model, f(x, y), x)  # noqa: B023
                for _, logits in laws(model)
            ]
        for function in functions:
            total = total_probability(function, shape, model.levels)
            assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("kind", "num_classes"), ALL_CASES)
def test_the_likelihoods_agree(kind, num_classes):
    model = build(kind, num_classes)
    x, y = random_images(model), labels(model, 10)
    with torch.no_grad():
        logits, pixels, total = model.logits(x, y), model.pixel_log_prob(x, y), model.log_prob(x, y)
        torch.manual_seed(0)
        loss = model.loss(x, y)
    parameters = model.law.num_parameters
    assert logits.shape == ((10, parameters) if parameters else (10,)) + model.shape
    assert pixels.shape == x.shape and total.shape == (10,)
    assert pixels.dtype == total.dtype == torch.float32
    torch.testing.assert_close(pixels, model.law.log_prob(x, logits))
    each = torch.stack([log_prob_of(model, logits(x, y), x) for _, logits in laws(model)])
    mixture = each.logsumexp(0) - math.log(len(each))
    torch.testing.assert_close(total.double(), mixture, rtol=1e-5, atol=1e-4)
    if kind in AGNOSTIC:  # whose loss draws an ordering
        return
    if "gaussian" in kind:  # trained on its density: a bound
        torch.manual_seed(0)
        bound = model.law.training_log_prob(x, logits).flatten(1).sum(1)
        assert (bound != total).all()
        total = bound
    torch.testing.assert_close(loss, -total.mean())


@pytest.mark.parametrize(("kind", "num_classes"), CLASS_CASES)
def test_labels_weights_and_a_single_condition(kind, num_classes):
    model = build(kind, num_classes)
    x, y = random_images(model), labels(model, 10)
    by_label = model.logits(x, y)
    assert torch.equal(model.logits(x, torch.eye(CLASSES)[y]), by_label)
    assert torch.equal(model.logits(x, y.to(torch.uint8)), by_label)
    single = model.logits(x, torch.tensor([2]))
    torch.testing.assert_close(single, model.logits(x, torch.full((10,), 2)))
    assert (single - model.logits(x, torch.tensor([1]))).abs().amin(0).max() > 0.01
    one, many = (model.sample(10, c, generator=seeded()) for c in (y[2:3], y[2:3].expand(10)))
    assert torch.equal(one, many)


@pytest.mark.parametrize(("kind", "num_classes"), CLASS_CASES)
def test_the_parameters_of_a_class_change_its_images_only(kind, num_classes):
    model = build(kind, num_classes)
    x, y = random_images(model), labels(model, 10)
    before = model.logits(x, y)
    for name, _ in model.named_parameters():
        if "class" in name:
            other = build(kind, num_classes)
            with torch.no_grad():
                other.get_parameter(name)[1] += 1.0
            assert torch.equal((other.logits(x, y) != before).flatten(1).any(1), y == 1)


@pytest.mark.parametrize(("kind", "num_classes"), [c for c in CLASS_CASES if "map" not in c[0]])
def test_an_untrained_class_changes_nothing(kind, num_classes):
    """The parameters of the classes start at zero: a conditional model starts as a plain one."""
    plain, conditional = build(kind, state="new"), build(kind, num_classes, state="new")
    x = random_images(plain)
    torch.testing.assert_close(conditional.logits(x, labels(conditional, 10)), plain.logits(x))


# ---- starting, training -----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "num_classes"), TRAINABLE)
def test_start_from_is_the_model_of_independent_pixels(kind, num_classes):
    """Once the other weights are zero. (What the laws start from has its own tests.)"""
    model = build(kind, num_classes)
    images, _ = chain_images(50, model.shape, levels=model.levels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert model.start_from(images) is model
    found = model.logits(random_images(model), labels(model, 10)).detach()
    torch.testing.assert_close(found, model.law.start(images).expand_as(found))


@pytest.mark.parametrize(("kind", "num_classes"), TRAINABLE)
def test_the_loss_gives_a_gradient_to_every_parameter(kind, num_classes):
    model = build(kind, num_classes).train()
    x, y = chain_images(shape=model.shape, levels=model.levels)
    torch.manual_seed(0)
    model.loss(x, y if num_classes else None).backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("kind", "num_classes"), [c for c in FEW_CASES if c in TRAINABLE])
def test_a_few_steps_of_training_learn_something(kind, num_classes):
    model, new = build(kind, num_classes, state="trained"), build(kind, num_classes, state="new")
    x, y = chain_images(60, model.shape, levels=model.levels)
    y = y if num_classes else None
    with torch.no_grad():
        gain = (model.log_prob(x, y) - new.start_from(x).log_prob(x, y)).mean() / model.dims
    assert gain > 0.01


# ---- state ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "num_classes"), ALL_CASES)
def test_weights_carry_their_ordering_with_them(kind, num_classes, tmp_path):
    """Saved, then loaded by a copy of another model, which is left as it was. No mask is saved."""
    model, source = build(kind, num_classes), build(kind, num_classes, state="new", seed=9)
    other, before = copy.deepcopy(source), state_of(source)
    x, y = random_images(model, 16), labels(model, 16)
    assert (model.log_prob(x, y) - other.log_prob(x, y)).abs().max() > 0.1
    save_weights(model, tmp_path / "model.safetensors", kind=kind)
    assert load_weights(other, tmp_path / "model.safetensors") == {"kind": kind}
    assert torch.equal(other.log_prob(x, y), model.log_prob(x, y))
    for (_, one), (_, another) in zip(laws(model), laws(other)):
        assert torch.equal(one(x, y), another(x, y))
    images = [m.sample(16, y, generator=seeded()) for m in (model, other)]
    assert torch.equal(*images)
    assert same_state(state_of(source), before)
    assert not any("mask" in name for name in model.state_dict())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in AGNOSTIC])
def test_the_model_keeps_its_own_copy_of_the_ordering(kind):
    ordering = column_by_column(SHAPE)
    model = KINDS[kind](SHAPE, ordering=ordering)
    ordering[:] = torch.arange(DIMS)
    assert torch.equal(model.ordering, column_by_column(SHAPE))
    for same in (column_by_column(SHAPE).tolist(), column_by_column(SHAPE).to(torch.int32)):
        found = KINDS[kind](SHAPE, ordering=same).ordering
        assert found.dtype == torch.int64 and torch.equal(found, model.ordering)


def test_the_visit_is_in_raster_order_and_colour_after_colour():
    assert torch.equal(FVSBN(SHAPE).ordering, torch.arange(DIMS))
    expected = [
        c * 12 + row * 4 + column for row in range(3) for column in range(4) for c in (0, 1)
    ]
    assert PixelCNN((2, 3, 4)).ordering.tolist() == expected


# ---- wrong input ------------------------------------------------------------------------------

COLOUR = (3, 2, 3)


@pytest.mark.parametrize("model", [FVSBN, NADE, MADE, PixelCNN, RowLSTM, DiagonalBiLSTM])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (2, 3)}, r"shape=\(2, 3\): expected \(channels, height, width\)"),
        ({"num_classes": 1}, "num_classes=1: expected at least two classes"),
    ],
)
def test_wrong_construction(model, options, message):
    with pytest.raises(ValueError, match=message):
        model(**{"shape": SHAPE} | options)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (FVSBN, {"ordering": [0, 1, 2, 3, 4, 4]}, "permutation of 0, …, 5; pixel 5 is never vis"),
        (NADE, {"ordering": [1, 2, 3, 4, 5, 6]}, r"pixel 0 is never visited. torch.randperm\(D\)"),
        (MADE, {"ordering": [-1, 0, 1, 2, 3, 4]}, "pixel 5 is never visited"),
        (FVSBN, {"ordering": [0, 1, 2]}, r"expected 6 integers, one per pixel, got \(3,\)"),
        (FVSBN, {"ordering": torch.arange(6).view(2, 3)}, r"expected 6 integers.*\(2, 3\)"),
        (FVSBN, {"ordering": torch.arange(6.0)}, r"expected 6 integers.*float32"),
        (NADE, {"hidden": (5, 5)}, "one hidden layer; MADE has several"),
        (MADE, {"hidden": (), "direct": False}, "no pixel sees another"),
        (MADE, {"dropout": 1.0}, r"dropout=1.0: expected a share in \[0, 1\)"),
        (MADE, {"dropout": -0.1}, "dropout=-0.1"),
        (MADE, {"dropout": math.nan}, "dropout=nan"),
        (OrderAgnosticMADE, {"num_orderings": 0}, "num_orderings=0: .*at least one"),
        (OrderAgnosticMADE, {"ordering": [0, 1]}, "no ordering of its own: leave it out"),
        (MarkovTable, {}, "order=… .* or neighbours=…, not both"),
        (MarkovTable, {"order": 1, "neighbours": ()}, "not both"),
        (MarkovTable, {"order": -1}, "order=-1: expected 0 or more"),
        (MarkovTable, {"order": 13}, r"13 parents: .*2\^13 lines.*at most 12"),
        (MarkovTable, {"neighbours": ((0, -1),) * 13}, "13 parents"),
        (PixelCNN, {"levels": 1}, "levels=1: expected an integer from 2 to 256"),
        (PixelCNN, {"output": "laplace"}, "output='laplace': expected one of softmax, gaussian, l"),
        (RowLSTM, {"output": "gaussian"}, "'gaussian': a pixel of two levels has but one law, a B"),
        (PixelCNN, {"shape": COLOUR, "features": 32}, "^features=32: .* multiple of 3, .* per col"),
        (PixelCNN, {"features": 0}, "^features=0"),
        (PixelCNN, {"layers": 0}, "layers=0: expected at least one"),
        (RowLSTM, {"layers": 0}, "layers=0: expected at least one"),
        (PixelCNN, {"first_kernel_size": 4}, "kernel_size=4: expected an odd number, at least 3"),
        (RowLSTM, {"first_kernel_size": 1}, "kernel_size=1: expected an odd number, at least 3"),
        (PixelCNN, {"kernel_size": 1}, "kernel_size=1: expected an odd number, at least 3"),
        (PixelCNN, {"dropout": 1.0}, "dropout=1.0: expected a probability"),
        (PixelCNN, {"dropout": -0.1}, "dropout=-0.1"),
        (PixelCNN, {"dropout": math.nan}, "dropout=nan"),
        (PixelCNN, {"levels": 3, "embedding": torch.eye(4)}, "a row per level"),
        (PixelCNN, {"levels": 3, "embedding": torch.ones(3)}, "a row per level"),
        (PixelCNN, {"one_hot": True, "embedding": torch.eye(2)}, "not both"),
        (PixelCNN, {"class_map": True}, "class_map=True needs"),
        (
            PixelCNN,
            {"class_map": True, "num_classes": 3, "position_map": False},
            "class_map=True needs",
        ),
    ],
)
def test_wrong_options(model, options, message):
    with pytest.raises(ValueError, match=message):
        model(**{"shape": SHAPE} | options)


# what is no label and no mixture is in the tests of `class_weights`
@pytest.mark.parametrize(
    ("num_classes", "y", "message"),
    [
        (3, None, r"needs a condition y: labels \(B,\) in \{0, …, 2\} or weights"),
        (3, torch.tensor([0, 1, 3, 0]), r"labels in \{0, …, 2\}, got \[0, 3\]"),
        (3, torch.tensor([0, 1]), "2 conditions for 4 images"),
        (None, torch.zeros(4).long(), "no condition: leave y out, or give num_classes"),
    ],
)
@pytest.mark.parametrize("kind", [*NETWORKS, *(f"{kind}: binary" for kind in PIXEL_KINDS)])
def test_conditions_are_checked(kind, num_classes, y, message):
    model = build(kind, num_classes)
    x = random_images(model, 4)
    for call in (model.logits, model.pixel_log_prob, model.log_prob, model.loss):
        with pytest.raises(ValueError, match=message):
            call(x, y)
    for call in (model.sample, partial(model.visit, lambda i, logits, out: None)):
        with pytest.raises(ValueError, match=message):
            call(4, y)
