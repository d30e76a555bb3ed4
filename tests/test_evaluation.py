"""Comparison tables, the classifier that reads samples, exact sums over tiny formats."""

import html
import itertools
import json
import math
import re
from dataclasses import replace

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

# ---- bad input --------------------------------------------------------------------------------


def add(log_prob):
    return ComparisonTable(dims=784).add("VAE", log_prob)


def read(images):
    return DigitClassifier().read(images)


def grid(shape, z_dim=2):
    model = VAE((1, 2, 2), z_dim=z_dim, hidden=(4,))
    return grid_posterior(model, torch.zeros(shape, dtype=torch.uint8))


def fidelity(images, labels):
    return label_fidelity(images, labels, classifier=DigitClassifier())


PAGE = (2, 1, 28, 28)


@pytest.mark.parametrize("function, arguments, message", [
    (add, [torch.tensor(-3.0)], "log-likelihood of each image, (B,), got () torch.float32"),
    (add, [torch.zeros(3, 1)], "log-likelihood of each image, (B,), got (3, 1)"),
    (add, [torch.zeros(3, dtype=torch.long)], "got (3,) torch.int64"),
    (add, [torch.zeros(0)], "got (0,)"),
    (add, [torch.tensor([-3.0, math.nan])], "the log-likelihoods of 'VAE' are not all finite"),
    (add, [torch.tensor([-3.0, -math.inf])], "the log-likelihoods of 'VAE' are not all finite"),
    (read, [torch.zeros(2, 28, 28)], "expected grey images (B, 1, H, W), got (2, 28, 28)"),
    (read, [torch.zeros(2, 3, 28, 28)], "expected grey images (B, 1, H, W), got (2, 3, 28, 28)"),
    (read, [torch.zeros(PAGE).byte()], "in [0, 1], got torch.uint8 in [0, 0]: divide integers by"),
    (read, [torch.full(PAGE, 255.0)], "in [0, 1], got torch.float32 in [255.0, 255.0]: divide"),
    (read, [torch.full(PAGE, -0.1)], "expected intensities in [0, 1]"),
    (fidelity, [torch.zeros(PAGE), torch.zeros(3)], "2 images, labels (3,): expected one each"),
    (enumerate_images, [(1, 3, 7), 2], "too many to enumerate (at most 1048576)"),
    (enumerate_images, [(1, 28, 28), 256], "too many to enumerate (at most 1048576)"),
    (grid, [(1, 2, 2), 3], "the grid needs 2 latent dimensions, the model has 3"),
    (grid, [(5, 1, 2, 2)], "expected one image (1, 2, 2), got (5, 1, 2, 2)"),
])  # fmt: skip
def test_bad_input_is_refused_in_words_that_say_what_was_expected(function, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(*arguments)


def test_a_refused_row_is_not_added_and_a_missing_file_is_named(tmp_path):
    table = ComparisonTable(dims=784)
    with pytest.raises(ValueError, match="not all finite"):
        table.add("VAE", torch.tensor([math.nan]))
    assert table.rows == []
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_classifier(tmp_path / "absent.safetensors")


# ---- tables -----------------------------------------------------------------------------------


def test_table_numbers():
    """Two models on 784 binary pixels; the second is a bound and has a remark, with its column."""
    table = ComparisonTable(dims=784)
    table.add("exact", torch.tensor([-71.3, -91.3]).repeat(50))
    header, exact = repr(table).splitlines()
    # mean 81.3, standard error 10 / √100 = 1
    assert exact.split() == ["exact", "81.3", "±", "1.0", "0.150"] and "remarque" not in header
    assert table.add("VAE", torch.full((100,), -90.0), bound=True, note="z = 2") is table
    header, *rows = repr(table).splitlines()
    assert header.split() == [
        "modèle", "−log", "p(x),", "nats/image", "erreur", "type", "bits/dim", "remarque"
    ]  # fmt: skip
    assert rows[1].split() == ["VAE", "≤", "90.0", "±", "0.0", "0.166", "z", "=", "2"]
    assert len({row.index("±") for row in rows}) == 1, "the columns are aligned"


def test_a_density_is_set_apart_from_probabilities():
    """What is positive can only be one; what is negative may be one, and is then told so."""
    table = ComparisonTable(dims=784).add("Bernoulli", torch.tensor([-90.0]))
    with pytest.raises(ValueError, match=r"'VAE' has log p\(x\) > 0.*density=True"):
        table.add("VAE", torch.tensor([-3.0, 5.0]), bound=True)
    table.add("VAE", torch.tensor([-3.0, 5.0]), bound=True, density=True, note="ELBO")
    *_, one, other = repr(table).splitlines()
    assert "densité" not in one
    assert other.endswith("ELBO; densité : ne se compare pas aux probabilités")


@pytest.mark.parametrize("rows, lines", [
    ((), ["modèle  nats"]),
    ((["<b>VAE</b> & co", "81.3"], ("FVSBN", "")),
     ["modèle           nats", "<b>VAE</b> & co  81.3", "FVSBN"]),
])  # fmt: skip
def test_a_table_is_printed_aligned_and_shown_as_html_with_the_same_cells(rows, lines):
    table = Table(["modèle", "nats"], rows)
    assert repr(table).splitlines() == lines
    page = table._repr_html_()
    assert re.findall('<th scope="col">(.*?)</th>', page) == ["modèle", "nats"]
    cells = [html.unescape(cell) for cell in re.findall("<td>(.*?)</td>", page)]
    assert cells == [cell for row in rows for cell in row] and "<b>" not in page
    assert page.count("<tr>") == len(lines)
    assert page.startswith("<table>") and page.endswith("</table>")


@pytest.mark.parametrize(
    "name, verdict, said",
    [("digits", torch.tensor(True), "True"), ("digits", 0 > 1, "False"),
     ("mnist", True, "sans objet (mnist)"), ("codes of digits", False, "sans objet (codes of")],
)  # fmt: skip
def test_a_threshold_of_the_digits_says_nothing_of_other_data(name, verdict, said, capsys):
    part = Split(torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    on_digits(Dataset(name, 2, part, part, part), "au moins 9", verdict)
    assert capsys.readouterr().out.startswith(f"au moins 9 : {said}")


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
    assert CLASSIFIER_PATH.stat().st_size < 1_000_000


def test_the_classifier_reads_binary_and_14_pixel_images(classifier, digits, test_images):
    binary = (test_images > 0.5).float()
    small = torch.nn.functional.avg_pool2d(test_images, 2)
    for images in (binary, small):
        assert label_fidelity(images, digits.test.labels, classifier=classifier) > 0.97
    label, _ = classifier.read(test_images[:100])
    label[:25] = (label[:25] + 1) % 10
    assert label_fidelity(test_images[:100], label, classifier=classifier) == 0.75


def test_confidence_is_the_probability_of_the_class_read(classifier, test_images):
    label, confidence = classifier.read(test_images[:5])
    expected = classifier(test_images[:5]).softmax(1)
    torch.testing.assert_close(confidence, expected.gather(1, label[:, None])[:, 0])
    assert torch.equal(label, expected.argmax(1)) and not confidence.requires_grad
    loss = classifier.loss((255 * test_images[:5]).round().byte(), label)  # in evaluation mode
    torch.testing.assert_close(loss, -confidence.log().mean())


def test_legible_share_is_high_for_digits_and_low_for_noise(classifier, test_images):
    noise = torch.rand(297, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert legible_share(test_images, classifier=classifier) > 0.9
    assert legible_share(noise, classifier=classifier) < 0.3
    _, confidence = classifier.read(test_images)
    share = (confidence > 0.95).sum().item() / 297
    assert legible_share(test_images, classifier=classifier) == pytest.approx(share)


def test_a_short_training_beats_chance_by_far_on_each_of_its_sources(digits):
    sources = digits, replace(digits, name="the same")
    model, accuracy = train_classifier(*sources, steps=40, progress=False)
    assert isinstance(model, DigitClassifier) and accuracy.keys() == {"digits", "the same"}
    assert min(accuracy.values()) > 0.5


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


def test_total_probability_of_independent_pixels_is_one():
    """Over 8 192 images: more than are judged at a time."""
    p = torch.linspace(0.1, 0.9, 13).view(1, 1, 13)

    def log_prob(x):
        return torch.where(x == 1, p, 1 - p).log().sum((1, 2, 3))

    total = total_probability(log_prob, p.shape)
    assert total == pytest.approx(1, abs=1e-6)
    deficient = total_probability(lambda x: log_prob(x) - 1, p.shape)
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


def three_parameters(x):
    """One parameter reads on the left, another above, the last nothing."""
    above = torch.nn.functional.pad(x.float(), (0, 0, 1, 0))[..., :-1, :]
    return torch.stack([left_neighbour(x), above, torch.ones_like(above)], 1)


LEFT, ABOVE = [(1, 0), (2, 1), (4, 3), (5, 4)], [(3, 0), (4, 1), (5, 2)]


@pytest.mark.parametrize("levels", [2, 3, 256])
@pytest.mark.parametrize("function, shape, expected", [
    (left_neighbour, (1, 2, 3), LEFT),
    (three_parameters, (1, 2, 3), LEFT + ABOVE),
    (lambda x: x, (2, 1, 3), [(k, k) for k in range(6)]),
    (torch.zeros_like, (1, 2, 3), []),
])  # fmt: skip
def test_measured_dependencies_of_a_known_function(function, shape, expected, levels):
    """Rows are outputs, columns are the pixels read; one image is enough."""
    found = measured_dependencies(function, shape, levels, num_images=1)
    assert found.dtype == torch.bool and torch.equal(found, reads(*expected))


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


def second_above(x):
    """The first channel as it is, the second one row lower."""
    return torch.stack([x[:, 0], torch.nn.functional.pad(x[:, 1], (0, 0, 1, 0))[:, :-1]], 1)


def square(x):
    """A convolution 3×3 of two channels."""
    torch.manual_seed(0)
    return torch.nn.Conv2d(2, 5, 3, padding=1)(x)


@pytest.mark.parametrize("network, shape, pixel, expected", [
    (left_neighbour, (1, 3, 4), (1, 2), [(0, 1, 1)]),
    (lambda x: 0 * x, (1, 3, 4), (1, 2), []),
    (lambda x: torch.cat([x, -x], 1), (1, 2, 2), (0, 1), [(0, 0, 1)]),  # their sum reads nothing
    (second_above, (2, 3, 4), (2, 1), [(0, 2, 1), (1, 1, 1)]),
    (square, (2, 3, 4), (1, 2), itertools.product((0, 1), (0, 1, 2), (1, 2, 3))),
    (square, (2, 3, 4), (0, 3), itertools.product((0, 1), (0, 1), (2, 3))),  # at a corner
])  # fmt: skip
def test_receptive_field_of_known_functions(network, shape, pixel, expected):
    """The pixels read, `(channel, row, column)`."""
    found = receptive_field(network, shape, pixel)
    assert found.dtype == torch.bool and found.shape == shape
    assert [tuple(where) for where in found.nonzero().tolist()] == list(expected)


def test_receptive_field_needs_an_image_on_which_the_unit_speaks():
    """The output is pixel 0 where all the five others are 1: once in 32 images."""

    def network(x):
        silent = (x[:, :, 0, 1:].amin(-1) > 0).float()
        return x * silent[:, :, None, None]

    met = []
    receptive_field(lambda x: met.append(x) or network(x), (1, 1, 6), (0, 0))
    assert met[0].shape == (8, 1, 1, 6) and set(met[0].unique().tolist()) == {0.0, 1.0}
    assert not receptive_field(network, (1, 1, 6), (0, 0), num_images=1).any()
    many = receptive_field(network, (1, 1, 6), (0, 0), num_images=500)
    assert many.flatten().tolist() == [True] + [False] * 5


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
    assert (axis[0].item(), axis[-1].item()) == (-4, 4) and density.shape == (161, 161)


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
