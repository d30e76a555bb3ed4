"""What every model of the package owes its user, whatever its shape, its precision, its file."""

import copy
import io
import pickle
from functools import partial

import autoregressive_models
import pytest
import torch
import vae_models
from autoregressive_models import CLASSES, random_images, same_state, seeded, state_of
from vae_models import vqvae

from course_utils import (
    FVSBN,
    MADE,
    NADE,
    VAE,
    DiagonalBiLSTM,
    MarkovTable,
    PixelCNN,
    RowLSTM,
    fit,
)
from course_utils.data import Dataset, Split
from course_utils.vq import code_prior

N = 12  # images

# Each gives a model, images, and their conditions or None.


def autoregressive(kind, num_classes=None):
    model = autoregressive_models.build(kind, num_classes)
    return model, random_images(model, N), autoregressive_models.labels(model, N)


def vae(kind, likelihood="bernoulli", levels=2):
    model = vae_models.build(kind, likelihood=likelihood, levels=levels)
    return model, random_images(model, N), vae_models.conditions(kind, model, N)


def vq(**options):
    model = vqvae(**options)
    return model, random_images(model, N), None


WRITERS = (
    "table, order 1", "FVSBN", "NADE, lean", "NADE, plain", "MADE, 2 layers", "agnostic, 1 layer",
    "gated: binary", "gated: one-hot", "gated: embedding", "gated: gaussian", "gated: mixture",
    "plain: softmax in colour", "row: softmax", "diagonal: binary",
)  # fmt: skip
MODELS = {
    **{kind: partial(autoregressive, kind) for kind in WRITERS},
    "MADE of classes": partial(autoregressive, "MADE, 1 layer", CLASSES),
    "PixelCNN of classes": partial(autoregressive, "gated: class map", CLASSES),
    **{f"VAE, {kind}": partial(vae, kind) for kind in vae_models.KINDS},
    **{f"VAE, {law}": partial(vae, "nothing", law, levels) for law, levels in vae_models.LAWS},
    "VQVAE": partial(vq, blocks=1),
    "VQVAE by gradient": partial(vq, ema=False, from_data=False, restart_every=2),
    "VQVAE of levels": partial(vq, shape=(3, 4, 4), levels=5, likelihood="laplace"),
}


@pytest.fixture(params=MODELS)
def case(request):
    model, x, y = MODELS[request.param]()
    return model.eval(), x, y


def log_prob(model, x, y):
    torch.manual_seed(0)
    with torch.no_grad():
        return model.log_prob(x, y)


def first(n, y):
    return None if y is None else y[:n]


def by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), by_torch]
)
def test_a_model_is_copied_and_pickled(case, copied):
    model, *data = case
    assert torch.equal(log_prob(copied(model), *data), log_prob(model, *data))


def test_a_model_converted_to_float64_computes_the_same_more_exactly(case):
    """A bound draws its noise in the precision of the model: other draws, the same mean."""
    model, x, y = case
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        if isinstance(model, VAE):
            z = torch.zeros(N, *model.latent_shape)
            got, expected = double.log_likelihood(x, z.double(), y), model.log_likelihood(x, z, y)
            assert log_prob(double, x, y).dtype == torch.float64
        else:
            got, expected = (log_prob(m, x, y) for m in (double, model))
        images = double.sample(2, first(2, y))
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, expected.double(), rtol=1e-5, atol=1e-4)
    assert images.shape == (2, *model.shape) and images.dtype == torch.uint8
    if not isinstance(model, MarkovTable):
        double.loss(x, y).backward()


def test_a_model_trains_on_16_bits(case):
    model, x, y = case
    if isinstance(model, MarkovTable):
        pytest.skip("a table is counted, not trained")
    part = Split(x, y)
    data = Dataset("noise", model.levels, part, part, part)
    options = {"steps": 3, "bfloat16": True, "progress": False, "batch_size": 6}
    history = fit(model, data, conditional=y is not None, **options)
    assert history.end == "finished" and all(map(torch.isfinite, map(torch.tensor, history.val)))
    assert all(v.dtype != torch.bfloat16 for v in model.state_dict().values())


def test_one_image_is_a_batch(case):
    model, x, y = case
    alone, among = log_prob(model, x[:1], first(1, y)), log_prob(model, x, y)
    assert alone.shape == (1,) and torch.isfinite(alone).all()
    if not isinstance(model, VAE):  # whose noise depends on the size of the batch
        torch.testing.assert_close(alone, among[:1], rtol=1e-5, atol=1e-4)


def evaluations(model, y):
    """The methods that judge images, each as a function of the images alone."""
    names = ("logits", "pixel_log_prob", "log_prob", "loss", "elbo", "elbo_terms")
    return [partial(getattr(model, name), y=y) for name in names if hasattr(model, name)]


def test_evaluating_and_sampling_change_nothing(case):
    model, x, y = case
    before, images = state_of(model), x.clone()
    for method in evaluations(model, y):
        method(x)
    model.sample(N, y)
    assert same_state(state_of(model), before) and torch.equal(x, images)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_same_generator_same_result_and_the_global_stream_is_left_alone(case):
    model, x, y = case
    calls = [lambda generator: model.sample(N, y, generator=generator)]
    if isinstance(model, VAE):
        calls.append(lambda generator: model.elbo(x, y, generator=generator))
        calls.append(lambda generator: model.log_prob(x, y, num_samples=2, generator=generator))
    state = torch.get_rng_state()
    for call in calls:
        first, again, other = (call(seeded(seed)) for seed in (3, 3, 4))
        assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    assert torch.equal(model.sample(N, y), calls[0](seeded(3)))


def test_every_method_checks_its_images(case):
    """What is no batch of images has its own tests: those of `check_images`."""
    model, x, y = case
    others = ("start_from", "count", "embed_images")
    methods = evaluations(model, y)
    methods += [getattr(model, name) for name in others if hasattr(model, name)]
    wrong = [(x.float(), TypeError), (x[..., 1:], ValueError), (x.int() + 255, ValueError)]
    for method in methods:
        for images, error in wrong:
            with pytest.raises(error, match="^expected (integer )?(images|pixels)"):
                method(images)


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


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("V")])
def test_a_code_of_the_wrong_width_is_told_from_a_right_one(name):
    model, x, y = MODELS[name]()
    width, *size = model.latent_shape
    for wrong in ((width + 1, *size), (1, width, *size)):
        for use in (model.decode, model.sample_pixels, partial(model.log_likelihood, x)):
            with pytest.raises(ValueError, match=rf"expected codes \(B, {width}.*\), got \(12, "):
                use(torch.zeros(N, *wrong), y)


# ---- a codebook that has collapsed -------------------------------------------------------------


def test_the_prior_of_a_codebook_whose_atoms_are_all_the_same():
    model = vqvae()
    model.quantizer.codebook.fill_(0.7)
    prior = code_prior(model, features=6, layers=2)
    codes = torch.zeros(2, *model.code_shape, dtype=torch.uint8)
    assert torch.isfinite(prior.log_prob(codes)).all()


SHAPE = (1, 8, 8)


@pytest.mark.parametrize("build, name", [
    (lambda: VAE(SHAPE, z_dim=2), "−ELBO"),
    (lambda: VAE(SHAPE, z_dim=2, beta=4.0), "−E[log p(x|z)] + 4 KL"),
    (lambda: vqvae(beta=0.5), "−log p(x|z_q) + 0.5 ‖z_e − e‖²"),
    (lambda: vqvae(beta=0.5, ema=False), "−log p(x|z_q) + 1.5 ‖z_e − e‖²"),
    (lambda: vqvae(beta=0), "−log p(x|z_q) + 0 ‖z_e − e‖²"),
    (lambda: PixelCNN(SHAPE, features=1, layers=1), "−log p(x)"),
    (lambda: PixelCNN(SHAPE, levels=5, output="gaussian"), "majorant de −log p(x)"),
])  # fmt: skip
def test_a_loss_says_what_it_is(build, name):
    assert build().loss_name == name
