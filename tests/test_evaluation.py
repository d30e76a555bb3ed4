"""Comparison tables, the classifier that reads samples, exact sums over tiny formats."""

import json
import math
import re

import pytest
import torch
from safetensors import safe_open

from course_utils import VAE
from course_utils.data import Dataset, Split, load
from course_utils.evaluation import (
    CLASSIFIER_PATH,
    ComparisonTable,
    DigitClassifier,
    Table,
    best_diagonal_gaussian,
    enumerate_images,
    grid_posterior,
    label_fidelity,
    legible_share,
    load_classifier,
    measured_dependencies,
    on_digits,
    receptive_field,
    total_probability,
    train_classifier,
)
from course_utils.evaluation import classifier as classifier_module
from course_utils.evaluation.exact import MAX_ENUMERATION

# ---- tables -----------------------------------------------------------------------------------


def test_table_numbers():
    """Two models on 784 binary pixels; the second is a bound and has a remark."""
    table = ComparisonTable(dims=784)
    table.add("exact", torch.tensor([-71.3, -91.3]).repeat(50))
    assert table.add("VAE", torch.full((100,), -90.0), bound=True, note="z = 2") is table
    header, exact, vae = repr(table).splitlines()
    assert header.split() == [
        "modèle", "−log", "p(x),", "nats/image", "erreur", "type", "bits/dim", "remarque"
    ]  # fmt: skip
    # mean 81.3, standard error 10 / √100 = 1
    assert exact.split() == ["exact", "81.3", "±", "1.0", "0.150"]
    assert vae.split() == ["VAE", "≤", "90.0", "±", "0.0", "0.166", "z", "=", "2"]


def test_table_without_remarks_has_no_column_for_them():
    table = ComparisonTable(dims=4).add("one", torch.tensor([-1.0]))
    assert "remarque" not in repr(table)
    assert repr(table).splitlines()[1].split() == ["one", "1.0", "±", "0.0", "0.361"]


def test_table_of_densities_counts_the_bins():
    table = ComparisonTable(dims=10, dequantized_levels=256).add("flat", torch.zeros(5))
    assert "8.000" in repr(table)


def test_a_density_is_set_apart_from_probabilities():
    """What is positive can only be one; what is negative may be one, and is then told so."""
    table = ComparisonTable(dims=784).add("Bernoulli", torch.tensor([-90.0]))
    with pytest.raises(ValueError, match=r"'VAE' has log p\(x\) > 0.*density=True"):
        table.add("VAE", torch.tensor([-3.0, 5.0]), bound=True)
    table.add("VAE", torch.tensor([-3.0, 5.0]), bound=True, density=True, note="ELBO")
    *_, one, other = repr(table).splitlines()
    assert "densité" not in one
    assert other.endswith("ELBO; densité : ne se compare pas aux probabilités")


def test_table_columns_are_aligned():
    table = ComparisonTable(dims=4).add("a", -9 * torch.ones(2)).add("long name", -torch.ones(2))
    assert len({line.index("±") for line in repr(table).splitlines()[1:]}) == 1


def test_table_html_escapes_names_and_holds_the_same_cells():
    table = ComparisonTable(dims=784).add("<b>VAE</b> & co", torch.full((3,), -90.0), note="a < b")
    page = table._repr_html_()
    assert "&lt;b&gt;VAE&lt;/b&gt; &amp; co" in page and "a &lt; b" in page and "<b>" not in page
    assert re.findall("<td>(.*?)</td>", page)[1:4] == ["90.0", "± 0.0", "0.166"]
    assert page.count("<th>") == 5 and page.count("<tr>") == 2


@pytest.mark.parametrize(
    ("log_prob", "message"),
    [
        (torch.tensor(-3.0), r"each image, \(B,\), got \(\) torch.float32"),
        (torch.zeros(3, 1), r"each image, \(B,\), got \(3, 1\)"),
        (torch.zeros(3, dtype=torch.long), "got .* torch.int64"),
        (torch.zeros(0), r"got \(0,\)"),
        (torch.tensor([-3.0, math.nan]), "'VAE' are not all finite"),
        (torch.tensor([-3.0, -math.inf]), "'VAE' are not all finite"),
    ],
)
def test_table_refuses(log_prob, message):
    table = ComparisonTable(dims=784)
    with pytest.raises(ValueError, match=message):
        table.add("VAE", log_prob)
    assert table.rows == []


def test_a_table_of_texts_is_aligned_and_shown_as_html():
    table = Table(["modèle", "nats"], (["<a> & b", "81.3"], ("FVSBN", "")))
    assert repr(table).splitlines() == ["modèle   nats", "<a> & b  81.3", "FVSBN"]
    page = table._repr_html_()
    assert re.findall("<th>(.*?)</th>", page) == ["modèle", "nats"]
    assert re.findall("<td>(.*?)</td>", page) == ["&lt;a&gt; &amp; b", "81.3", "FVSBN", ""]
    assert page.count("<tr>") == 3 and page.startswith("<table>") and page.endswith("</table>")


@pytest.mark.parametrize(
    "name, verdict, said",
    [("digits", torch.tensor(True), "True"), ("digits", 0 > 1, "False"),
     ("mnist", True, "sans objet (mnist)"), ("codes of digits", False, "sans objet (codes of")],
)  # fmt: skip
def test_a_threshold_of_the_digits_says_nothing_of_other_data(name, verdict, said, capsys):
    part = Split(torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    on_digits(Dataset(name, 2, part, part, part), "au moins 9", verdict)
    assert capsys.readouterr().out.startswith(f"au moins 9 : {said}")


def test_an_empty_table_shows_its_header():
    table = Table(("modèle", "nats"))
    assert repr(table) == "modèle  nats"
    assert "<td>" not in table._repr_html_() and "<th>nats</th>" in table._repr_html_()


# ---- the classifier ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """The default images: those of the accuracy written in the classifier's file."""
    return load("digits")


@pytest.fixture(scope="module")
def classifier():
    return load_classifier()


@pytest.fixture(scope="module")
def test_images(digits):
    return digits.test.images.float() / 255


def test_the_classifier_reads_the_test_digits_as_its_file_says(classifier, digits, test_images):
    label, confidence = classifier.read(test_images)
    assert label.shape == confidence.shape == (297,)
    accuracy = (label == digits.test.labels).float().mean().item()
    with safe_open(CLASSIFIER_PATH, framework="pt") as file:
        recorded = json.loads(file.metadata()["json"])["accuracy"]["digits"]
    assert accuracy >= 0.98
    assert accuracy == pytest.approx(recorded, abs=0.005)
    assert not classifier.training


def test_the_classifier_file_is_small():
    assert CLASSIFIER_PATH.stat().st_size < 1_000_000


def test_the_classifier_reads_binary_and_14_pixel_images(classifier, digits, test_images):
    binary = (test_images > 0.5).float()
    small = torch.nn.functional.avg_pool2d(test_images, 2)
    for images in (binary, small):
        assert label_fidelity(images, digits.test.labels, classifier=classifier) > 0.97


def test_confidence_is_the_probability_of_the_class_read(classifier, test_images):
    label, confidence = classifier.read(test_images[:5])
    expected = classifier(test_images[:5]).softmax(1)
    torch.testing.assert_close(confidence, expected.gather(1, label[:, None])[:, 0])
    assert torch.equal(label, expected.argmax(1)) and not confidence.requires_grad


def test_legible_share_is_high_for_digits_and_low_for_noise(classifier, test_images):
    noise = torch.rand(297, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert legible_share(test_images, classifier=classifier) > 0.9
    assert legible_share(noise, classifier=classifier) < 0.3
    assert legible_share(noise, classifier=classifier, threshold=0.0) == 1


def test_label_fidelity_is_the_share_of_labels_read(classifier, digits, test_images):
    label, _ = classifier.read(test_images[:100])
    label[:25] = (label[:25] + 1) % 10
    assert label_fidelity(test_images[:100], label, classifier=classifier) == 0.75


def test_label_fidelity_wants_one_label_per_image(classifier, test_images):
    with pytest.raises(ValueError, match=r"4 images.* labels \(3,\): expected one each"):
        label_fidelity(test_images[:4], torch.zeros(3), classifier=classifier)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 28, 28), r"grey images \(B, 1, H, W\), got \(2, 28, 28\)"),
        (torch.zeros(2, 3, 28, 28), r"grey images \(B, 1, H, W\)"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "got torch.uint8.*divide integers"),
        (torch.full((2, 1, 28, 28), 255.0), r"intensities in \[0, 1\].*divide integers"),
        (torch.full((2, 1, 28, 28), -0.1), r"intensities in \[0, 1\]"),
    ],
)
def test_the_classifier_refuses(classifier, images, message):
    with pytest.raises(ValueError, match=message):
        classifier.read(images)


def test_load_classifier_from_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_classifier(tmp_path / "absent.safetensors")


def test_a_short_training_beats_chance_by_far(monkeypatch, digits):
    monkeypatch.setattr(classifier_module, "load", lambda name: digits)  # spares a deformation
    model, accuracy = train_classifier(mnist=False, steps=40, progress=False)
    assert isinstance(model, DigitClassifier) and accuracy.keys() == {"digits"}
    assert accuracy["digits"] > 0.5


def test_classifier_loss_is_the_cross_entropy_when_evaluated(classifier, digits):
    x, y = digits.test.images[:20], digits.test.labels[:20]
    expected = -classifier(x.float() / 255).log_softmax(1)[torch.arange(20), y].mean()
    torch.testing.assert_close(classifier.loss(x, y), expected)


# ---- exact sums -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "levels", "count"),
    [((1, 2, 2), 2, 16), ((1, 1, 1), 5, 5), ((3, 1, 2), 3, 729), ((1, 1, 2), 256, 65_536)],
)
def test_enumerate_images(shape, levels, count):
    images = enumerate_images(shape, levels)
    assert images.shape == (count, *shape) and images.dtype == torch.uint8
    assert len(images.flatten(1).unique(dim=0)) == count
    assert images.min() == 0 and images.max() == levels - 1


@pytest.mark.parametrize(("shape", "levels"), [((1, 3, 7), 2), ((1, 28, 28), 256)])
def test_enumerate_images_has_a_limit(shape, levels):
    with pytest.raises(ValueError, match=f"too many to enumerate .at most {MAX_ENUMERATION}"):
        enumerate_images(shape, levels)


@pytest.mark.parametrize("batch_size", [4096, 5])
def test_total_probability_of_independent_pixels_is_one(batch_size):
    p = torch.tensor([[[0.1, 0.7, 0.5], [0.9, 0.2, 0.6]]])

    def log_prob(x):
        return torch.where(x == 1, p, 1 - p).log().sum((1, 2, 3))

    total = total_probability(log_prob, (1, 2, 3), batch_size=batch_size)
    assert total == pytest.approx(1, abs=1e-6)
    deficient = total_probability(lambda x: log_prob(x) - 1, (1, 2, 3))
    assert deficient == pytest.approx(math.exp(-1), abs=1e-6)


def reads(*pairs, dims=6):
    """The matrix of these pairs (output, pixel that it reads)."""
    matrix = torch.zeros(dims, dims, dtype=torch.bool)
    for output, pixel in pairs:
        matrix[output, pixel] = True
    return matrix


def left_neighbour(x):
    """Output (r, c) is pixel (r, c − 1), and 0 in the first column."""
    return torch.nn.functional.pad(x.float(), (1, 0))[..., :-1]


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_measured_dependencies_of_a_known_function(levels):
    """Rows are outputs, columns are the pixels read; one image is enough."""
    found = measured_dependencies(left_neighbour, (1, 2, 3), levels, num_images=1)
    assert found.dtype == torch.bool
    assert torch.equal(found, reads((1, 0), (2, 1), (4, 3), (5, 4)))
    itself = measured_dependencies(lambda x: x, (2, 1, 3), levels, num_images=1)
    assert torch.equal(itself, torch.eye(6, dtype=torch.bool))
    nothing = measured_dependencies(torch.zeros_like, (1, 2, 3), levels)
    assert not nothing.any()


def test_measured_dependencies_join_the_parameters_of_a_pixel():
    """An axis more: one parameter reads on the left, another above, the last nothing."""

    def parameters(x):
        above = torch.nn.functional.pad(x.float(), (0, 0, 1, 0))[..., :-1, :]
        return torch.stack([left_neighbour(x), above, torch.ones_like(above)], 1)

    found = measured_dependencies(parameters, (1, 2, 3), levels=5)
    left, above = [(1, 0), (2, 1), (4, 3), (5, 4)], [(3, 0), (4, 1), (5, 2)]
    assert torch.equal(found, reads(*left, *above))


def test_measured_dependencies_see_the_last_digit():
    """The smallest weight that a float shows is seen; one that changes nothing is not."""
    shape, last_digit = (1, 1, 2), 2.0**-23
    for weight, seen in ((last_digit, True), (last_digit / 8, False), (0.0, False)):
        found = measured_dependencies(lambda x: 1 + weight * x.flip(-1).float(), shape)  # noqa: B023
        assert torch.equal(found, reads((0, 1), (1, 0), dims=2) & seen)


def test_measured_dependencies_need_an_image_on_which_the_unit_speaks():
    """Output 0 reads pixel 1 only where the eight others are 0."""

    def parameters(x):
        out = torch.zeros(x.shape)
        out[..., 0] = (x[..., 1:] == 0).all(-1).float()
        return out

    few = measured_dependencies(parameters, (1, 1, 10), num_images=1)
    many = measured_dependencies(parameters, (1, 1, 10), num_images=5000)
    assert not few.any() and many[0, 1:].all() and not many[:, 0].any() and not many[1:].any()
    another = measured_dependencies(parameters, (1, 1, 10), num_images=5000, seed=1)
    assert torch.equal(another, many)


def test_measured_dependencies_change_a_pixel_to_every_other_level():
    """Output 1 only tells whether pixel 0 is even: a change by 1 or 3 shows it, by 2 does not."""

    def parameters(x):
        return (x.flip(-1) % 2).float()

    found = measured_dependencies(parameters, (1, 1, 2), levels=4, num_images=16)
    assert torch.equal(found, reads((0, 1), (1, 0), dims=2))
    met = []
    measured_dependencies(lambda x: met.append(x) or x, (1, 1, 2), levels=4, num_images=64)
    before, first, second = met
    assert torch.equal(first[..., 1], before[..., 1]) and torch.equal(
        second[..., 0], before[..., 0]
    )
    shifts = (first[..., 0].int() - before[..., 0].int()) % 4
    assert shifts.unique().tolist() == [1, 2, 3]
    assert all(x.dtype == torch.uint8 and x.max() == 3 for x in met)


def test_receptive_field_of_known_functions():
    """The output at (1, 2) of a 3×4 image reads its left neighbour, or a 3×3 square around."""
    expected = torch.zeros(1, 3, 4, dtype=torch.bool)
    expected[0, 1, 1] = True
    found = receptive_field(left_neighbour, (1, 3, 4), (1, 2))
    assert found.dtype == torch.bool and torch.equal(found, expected)
    square = torch.nn.Conv2d(2, 5, 3, padding=1)
    expected = torch.zeros(2, 3, 4, dtype=torch.bool)
    expected[:, :, 1:4] = True
    assert torch.equal(receptive_field(square, (2, 3, 4), (1, 2)), expected)
    assert not receptive_field(lambda x: 0 * x, (1, 3, 4), (1, 2)).any()
    # at a corner, what is outside of the image is not counted
    assert receptive_field(square, (2, 3, 4), (0, 3)).sum() == 2 * 4


def test_receptive_field_separates_channels_and_joins_maps():
    def maps(x):  # the second map reads the second channel, one row above
        return torch.stack([x[:, 0], torch.nn.functional.pad(x[:, 1], (0, 0, 1, 0))[:, :-1]], 1)

    expected = torch.zeros(2, 3, 4, dtype=torch.bool)
    expected[0, 2, 1] = expected[1, 1, 1] = True
    assert torch.equal(receptive_field(maps, (2, 3, 4), (2, 1)), expected)


def test_receptive_field_of_maps_whose_gradients_cancel():
    """Two opposite maps: their sum reads nothing, each of them does."""
    found = receptive_field(lambda x: torch.cat([x, -x], 1), (1, 2, 2), (0, 1))
    assert found.flatten().tolist() == [False, True, False, False]


def test_receptive_field_needs_an_image_on_which_the_unit_speaks():
    """The output is pixel 0 where all the five others are 1: once in 32 images."""

    def network(x):
        silent = (x[:, :, 0, 1:].amin(-1) > 0).float()
        return x * silent[:, :, None, None]

    met = []
    receptive_field(lambda x: met.append(x) or network(x), (1, 1, 6), (0, 0))
    assert met[0].shape == (8, 1, 1, 6) and set(met[0].unique().tolist()) == {0.0, 1.0}
    assert not receptive_field(network, (1, 1, 6), (0, 0), num_images=1).any()
    for seed in (0, 1):
        many = receptive_field(network, (1, 1, 6), (0, 0), num_images=500, seed=seed)
        assert many.flatten().tolist() == [True] + [False] * 5


def test_receptive_field_leaves_no_gradient_and_no_trace():
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    state = torch.get_rng_state()
    receptive_field(network, (1, 4, 4), (2, 2))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


class Linear(torch.nn.Module):
    """p(x | z) = N(x; z, 0.5² I), read in closed form: the posterior is N(0.8 x, 0.2 I)."""

    z_dim, shape = 2, (1, 1, 2)

    def log_likelihood(self, x, z):
        law = torch.distributions.Normal(z, 0.5)
        return law.log_prob(x.flatten(1)).sum(1)


def test_grid_posterior_of_a_linear_gaussian_model():
    """The axes come out in the documented order: density[i, j] at z = (axis[j], axis[i])."""
    x = torch.tensor([1.0, -0.5])
    axis, density, log_evidence = grid_posterior(Linear(), x.view(1, 1, 2))
    exact = torch.distributions.Normal(0.0, math.sqrt(1.25)).log_prob(x).sum().item()
    assert log_evidence == pytest.approx(exact, abs=1e-4)
    cell = (axis[1] - axis[0]).item() ** 2
    assert density.sum().item() * cell == pytest.approx(1, abs=1e-4)
    assert (density.sum(0) * axis).sum().item() * cell == pytest.approx(0.8, abs=1e-3)
    assert (density.sum(1) * axis).sum().item() * cell == pytest.approx(-0.4, abs=1e-3)


def test_best_diagonal_gaussian_of_an_oblique_posterior():
    """Of a Gaussian of precision P it keeps the diagonal of P; it misses −½ log(1 − ρ²) nat."""
    precision = torch.tensor([[6.0, 5.0], [5.0, 6.0]])
    posterior = torch.distributions.MultivariateNormal(torch.tensor([0.5, -0.3]), None, precision)
    axis = torch.linspace(-4, 4, 161)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    density = posterior.log_prob(torch.stack([z1, z2], -1)).exp().double()
    mu, logvar, gap = best_diagonal_gaussian(axis, density)
    torch.testing.assert_close(mu, torch.tensor([0.5, -0.3]), rtol=0, atol=0.01)
    torch.testing.assert_close(logvar.exp(), torch.tensor([1 / 6, 1 / 6]), rtol=0.02, atol=0)
    assert gap == pytest.approx(-0.5 * math.log(1 - (5 / 6) ** 2), abs=0.005)


@pytest.mark.parametrize("side", [-2.0, 2.0])
def test_best_diagonal_gaussian_of_two_bumps_is_that_where_one_starts(side):
    """It covers one bump of the two: log 2 nat; the density may be known up to a factor."""
    axis = torch.linspace(-4, 4, 161)
    z2, z1 = torch.meshgrid(axis, axis, indexing="ij")
    bumps = [torch.exp(-((z1 - at) ** 2 + z2**2) / (2 * 0.3**2)) for at in (-2.0, 2.0)]
    mu, logvar, gap = best_diagonal_gaussian(axis, 7 * sum(bumps), start=(side, 0.5))
    torch.testing.assert_close(mu, torch.tensor([side, 0.0]), rtol=0, atol=0.02)
    torch.testing.assert_close(logvar, torch.full((2,), math.log(0.09)), rtol=0, atol=0.05)
    assert gap == pytest.approx(math.log(2), abs=0.01)


def test_grid_options():
    axis, density, _ = grid_posterior(Linear(), torch.zeros(1, 1, 2), half_width=3, resolution=41)
    assert axis.shape == (41,) and density.shape == (41, 41)
    assert (axis[0].item(), axis[-1].item()) == (-3, 3)


@pytest.mark.parametrize(
    ("z_dim", "shape", "message"),
    [
        (3, (1, 2, 2), "needs 2 latent dimensions, the model has 3"),
        (2, (5, 1, 2, 2), r"expected one image \(1, 2, 2\), got \(5, 1, 2, 2\)"),
    ],
)
def test_grid_posterior_refuses(z_dim, shape, message):
    model = VAE((1, 2, 2), z_dim=z_dim, hidden=(4,))
    with pytest.raises(ValueError, match=message):
        grid_posterior(model, torch.zeros(shape, dtype=torch.uint8))
