"""What every model of the package owes its user, whatever its shape, its precision, its file."""

import copy
import io
import pickle

import pytest
import torch

from course_utils import (
    CVAE,
    FVSBN,
    MADE,
    NADE,
    VAE,
    VQVAE,
    CompletionVAE,
    DiagonalBiLSTM,
    MarkovTable,
    OrderAgnosticMADE,
    PixelCNN,
    RowLSTM,
    fit,
)
from course_utils.cvae import visible_part
from course_utils.data import Dataset, Split
from course_utils.vq import code_prior

SMALL = {"features": 6, "layers": 2}
TINY = {"num_codes": 4, "code_dim": 3, "features": 6}
HALF = torch.arange(4) < 2  # the columns that a completion sees

# name: (levels, channels, build)
MODELS = {
    "FVSBN": (2, 1, FVSBN),
    "NADE": (2, 1, lambda shape: NADE(shape, hidden=8)),
    "NADE, plain": (2, 1, lambda shape: NADE(shape, hidden=8, lean=False)),
    "MADE": (2, 1, lambda shape: MADE(shape, hidden=(40, 20))),
    "MADE of classes": (2, 1, lambda shape: MADE(shape, hidden=40, num_classes=3)),
    "order-agnostic": (2, 1, lambda shape: OrderAgnosticMADE(shape, hidden=40, num_orderings=2)),
    "table": (2, 1, lambda shape: MarkovTable(shape, order=2)),
    "VAE": (2, 1, lambda shape: VAE(shape, z_dim=2, hidden=8)),
    "CVAE": (2, 1, lambda shape: CVAE(shape, num_classes=3, prior="learned", hidden=(8, 6))),
    "completion": (2, 1, lambda shape: CompletionVAE(shape, z_dim=3, hidden=8)),
    "VQVAE": (2, 1, lambda shape: VQVAE(shape, blocks=1, **TINY)),
    "VQVAE by gradient": (2, 1, lambda shape: VQVAE(
        shape, ema=False, from_data=False, restart_every=2, **TINY)),
    "VQVAE of levels": (5, 3, lambda shape: VQVAE(shape, levels=5, likelihood="laplace", **TINY)),
    "PixelCNN": (2, 1, lambda shape: PixelCNN(shape, **SMALL)),
    "plain PixelCNN": (5, 3, lambda shape: PixelCNN(shape, levels=5, gated=False, **SMALL)),
    "one-hot": (5, 1, lambda shape: PixelCNN(shape, levels=5, one_hot=True, **SMALL)),
    "PixelCNN of classes": (2, 1, lambda shape: PixelCNN(shape, num_classes=3, **SMALL)),
    "RowLSTM": (5, 1, lambda shape: RowLSTM(shape, levels=5, **SMALL)),
    "DiagonalBiLSTM": (2, 1, lambda shape: DiagonalBiLSTM(shape, **SMALL)),
    **{
        f"VAE, {law}": (5, 1, lambda shape, law=law: VAE(shape, levels=5, likelihood=law, hidden=8))
        for law in ("categorical", "gaussian", "laplace")
    },
    **{
        f"PixelCNN, {law}": (
            5, 1, lambda shape, law=law: PixelCNN(shape, levels=5, output=law, **SMALL)
        )
        for law in ("gaussian", "logistic mixture")
    },
}  # fmt: skip


@pytest.fixture(params=MODELS)
def case(request):
    """A model that has started from data, the data, what the model is conditioned on."""
    levels, channels, build = MODELS[request.param]
    draws = torch.Generator().manual_seed(0)
    size = (12, channels, 4, 4)
    images = torch.randint(levels, size, generator=draws, dtype=torch.uint8)
    labels = torch.arange(12) % 3
    torch.manual_seed(0)
    model = build(images.shape[1:])
    if hasattr(model, "start_from"):
        model.start_from(images)
    if isinstance(model, CompletionVAE):
        labels = visible_part(images, HALF.expand(4, 4))
    part = Split(images, labels)
    conditional = isinstance(model, CVAE) or getattr(model, "num_classes", None) is not None
    return model.eval(), Dataset("noise", levels, part, part, part), conditional


def condition(data, conditional, count):
    return data.train.labels[:count] if conditional else None


def log_prob(model, data, conditional, count=12):
    torch.manual_seed(0)
    with torch.no_grad():
        return model.log_prob(data.train.images[:count], condition(data, conditional, count))


def by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), by_torch]
)
def test_a_model_is_copied_and_pickled(case, copied):
    model, *rest = case
    assert torch.equal(log_prob(copied(model), *rest), log_prob(model, *rest))


def test_a_model_converted_to_float64_computes_the_same_more_exactly(case):
    """A bound draws its noise in the precision of the model: other draws, the same mean."""
    model, data, conditional = case
    double = copy.deepcopy(model).double()
    y = condition(data, conditional, 12)
    with torch.no_grad():
        if isinstance(model, VAE):
            z, c = torch.zeros(12, *model.latent_shape), y
            got, expected = (
                double.log_likelihood(data.train.images, z.double(), c),
                (model.log_likelihood(data.train.images, z, c)),
            )
            assert log_prob(double, data, conditional).dtype == torch.float64
        else:
            got, expected = (log_prob(m, data, conditional) for m in (double, model))
        images = double.sample(2, condition(data, conditional, 2))
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected.double(), rtol=1e-5, atol=1e-4)
    assert images.shape == (2, *data.shape) and images.dtype == torch.uint8
    if not isinstance(model, MarkovTable):
        double.loss(data.train.images, y).backward()


def test_a_model_trains_on_16_bits(case):
    model, data, conditional = case
    if isinstance(model, MarkovTable):
        pytest.skip("a table is counted, not trained")
    options = {"steps": 3, "bfloat16": True, "progress": False, "batch_size": 6}
    history = fit(model, data, conditional=conditional, **options)
    assert history.end == "finished" and all(map(torch.isfinite, map(torch.tensor, history.val)))
    assert all(v.dtype != torch.bfloat16 for v in model.state_dict().values())


def test_one_image_is_a_batch(case):
    model, *rest = case
    alone, among = log_prob(model, *rest, count=1), log_prob(model, *rest)
    assert alone.shape == (1,) and torch.isfinite(alone).all()
    if not isinstance(model, VAE):  # whose noise depends on the size of the batch
        torch.testing.assert_close(alone, among[:1], rtol=1e-5, atol=1e-4)


# ---- shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (2, 2, 2), (3, 2, 3)])
@pytest.mark.parametrize("model", [PixelCNN, RowLSTM, DiagonalBiLSTM, FVSBN, NADE, MADE, VAE])
def test_the_defaults_work_for_every_shape(model, shape):
    x = torch.randint(2, (2, *shape), dtype=torch.uint8)
    built = model(shape).start_from(x).eval()
    assert torch.isfinite(built.log_prob(x)).all()
    assert built.sample(1).shape == (1, *shape)


def test_the_default_number_of_features_is_the_next_multiple_of_the_colours():
    assert [PixelCNN((c, 2, 2)).features for c in (1, 2, 3)] == [32, 32, 33]
    assert PixelCNN((3, 2, 2), link_channels=False).features == 32


@pytest.mark.parametrize("output", ["gaussian", "logistic mixture"])
def test_one_image_is_enough_to_start_from(output):
    x = torch.tensor([0, 3, 16, 16], dtype=torch.uint8).view(1, 1, 2, 2)
    model = PixelCNN((1, 2, 2), levels=17, output=output).start_from(x)
    assert torch.isfinite(model.b).all()
    assert torch.isfinite(model.log_prob(x)).all()


@pytest.mark.parametrize("model", [VAE, MADE, NADE])
def test_a_hidden_layer_is_a_number_or_a_tuple(model):
    torch.manual_seed(0)
    number = model((1, 2, 2), hidden=5)
    torch.manual_seed(0)
    layer = model((1, 2, 2), hidden=(5,))
    assert [p.shape for p in number.parameters()] == [p.shape for p in layer.parameters()]
    for wrong in (0, -1, 2.5, True, (4, 0), None, "50"):
        with pytest.raises(ValueError, match="hidden=.*: expected the number of units"):
            model((1, 2, 2), hidden=wrong)


@pytest.mark.parametrize("hidden", [(5, 20), 14])
def test_a_made_too_narrow_to_see_all_the_past_says_so(hidden):
    with pytest.warns(UserWarning, match="fewer than 15 units.*more units, or direct=True"):
        MADE((1, 4, 4), hidden=hidden, direct=False)


@pytest.mark.parametrize("options", [{"hidden": 15, "direct": False}, {"hidden": 3}])
@pytest.mark.filterwarnings("error")
def test_a_made_that_sees_all_the_past_says_nothing(options):
    MADE((1, 4, 4), **options)


def test_a_code_of_the_wrong_width_is_told_from_a_right_one():
    x = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    for name, wrong in (
        ("VAE", (3,)),
        ("CVAE", (2,)),
        ("completion", (1, 3)),
        ("VQVAE", (3, 2, 1)),
    ):
        model = MODELS[name][2]((1, 4, 4))
        y = {"CVAE": torch.tensor([1]), "completion": visible_part(x, HALF.expand(4, 4))}.get(name)
        for use in (
            model.decode,
            model.sample_pixels,
            lambda z, y, m=model: m.log_likelihood(x, z, y),
        ):
            with pytest.raises(ValueError, match=r"expected codes \(B, .*\), got \(2, "):
                use(torch.zeros(2, *wrong), y)


# ---- a codebook that has collapsed -------------------------------------------------------------


def test_the_prior_of_a_codebook_whose_atoms_are_all_the_same():
    model = VQVAE((1, 8, 8), **TINY)
    model.quantizer.codebook.fill_(0.7)
    prior = code_prior(model, **SMALL)
    codes = torch.zeros(2, *model.code_shape, dtype=torch.uint8)
    assert torch.isfinite(prior.log_prob(codes)).all()


SHAPE = (1, 8, 8)


@pytest.mark.parametrize("build, name", [
    (lambda: VAE(SHAPE, z_dim=2), "−ELBO"),
    (lambda: VAE(SHAPE, z_dim=2, beta=4.0), "−E[log p(x|z)] + 4 KL"),
    (lambda: VQVAE(SHAPE, beta=0.5, **TINY), "−log p(x|z_q) + 0.5 ‖z_e − e‖²"),
    (lambda: VQVAE(SHAPE, beta=0.5, ema=False, **TINY), "−log p(x|z_q) + 1.5 ‖z_e − e‖²"),
    (lambda: VQVAE(SHAPE, beta=0, **TINY), "−log p(x|z_q) + 0 ‖z_e − e‖²"),
    (lambda: PixelCNN(SHAPE, features=1, layers=1), "−log p(x)"),
    (lambda: PixelCNN(SHAPE, levels=5, output="gaussian", **SMALL), "majorant de −log p(x)"),
])  # fmt: skip
def test_a_loss_says_what_it_is(build, name):
    assert build().loss_name == name
