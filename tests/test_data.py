"""Data sets: values, splits, augmentation, pictures; no network, no torchvision, damaged files."""

import gzip
import hashlib
import http.server
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from course_utils import data
from course_utils.data import (
    Dataset,
    Split,
    check_images,
    check_mask,
    check_num_classes,
    check_shape,
    class_weights,
    colorize,
    data_root,
    enlarge,
    load,
    load_images,
    log_frequencies,
    one_per_image,
    quantize,
)
from course_utils.figures import image_grid

PARTS = ("train", "val", "test")
IDX_NAMES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_course_variables(monkeypatch):
    monkeypatch.delenv("COURSE_DATASET", raising=False)
    monkeypatch.delenv("COURSE_DATA", raising=False)


@pytest.fixture(scope="module")
def small():
    """The original 8×8 images, all 17 levels."""
    return load("digits", size=8, levels=17)


@pytest.fixture(scope="module")
def augmented():
    """10 copies, by default."""
    return load("digits", size=14)


@pytest.fixture(scope="module")
def undeformed():
    return load("digits", size=14, copies=0)


def rows(images):
    return [tuple(image) for image in images.flatten(1).tolist()]


# ---- embedded digits ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 14, 28])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_images_are_integers_that_use_the_whole_range(size, levels):
    digits = load("digits", size=size, levels=levels, copies=0)
    assert (digits.shape, digits.levels, digits.num_classes) == ((1, size, size), levels, 10)
    for part, count in zip(PARTS, (1350, 150, 297)):
        split = getattr(digits, part)
        assert split.images.shape == (count, 1, size, size) and len(split) == count
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.images.min() == 0
        # the sigmoid of the enlarged digits stops a little below 1
        assert levels - 1 >= split.images.max() >= 0.97 * (levels - 1)


def test_17_levels_at_8_pixels_are_scikit_learns_images_each_in_one_part(small):
    bunch = load_digits()
    expected = sorted(zip(rows(torch.from_numpy(bunch.images)), bunch.target.tolist()))
    found = [
        pair
        for part in PARTS
        for pair in zip(rows(getattr(small, part).images), getattr(small, part).labels.tolist())
    ]
    assert sorted(found) == expected


@pytest.mark.parametrize("part", PARTS)
def test_split_is_stratified(small, part):
    labels = getattr(small, part).labels
    everything = torch.from_numpy(load_digits().target).bincount()
    expected = everything * len(labels) / 1797
    assert (labels.bincount(minlength=10) - expected).abs().max() <= 1


def test_two_levels_are_the_grey_levels_thresholded_at_one_half(small):
    binary = load("digits", size=8, levels=2)
    grey = small.train.images
    assert torch.equal(binary.train.images[grey != 8], (grey > 8).to(torch.uint8)[grey != 8])


def test_split_comes_before_augmentation(augmented, undeformed):
    """Each of the 10 blocks of the training set redraws the same 1 350 images, in order."""
    assert len(augmented.train) == 13_500
    labels = augmented.train.labels.view(10, 1350)
    assert (labels == undeformed.train.labels).all()
    blocks = augmented.train.images.float().view(10, 1350, -1)
    assert not (blocks[1:] == blocks[:1]).all(2).any(), "each copy has its own deformation"
    plain = undeformed.train.images.float().flatten(1)
    similarity = torch.cosine_similarity(blocks, plain[None], dim=2)
    unrelated = torch.cosine_similarity(blocks[0], plain.roll(1, 0), dim=1)
    assert similarity.mean() > 0.85 > unrelated.mean() + 0.2


@pytest.mark.parametrize("part", ["val", "test"])
def test_val_and_test_are_deformed_by_the_law_of_the_training_set(augmented, undeformed, part):
    def distance(a, b):
        return (a.float() - b.float()).pow(2).mean().sqrt().item()

    train = distance(augmented.train.images[:1350], undeformed.train.images)
    held_out = distance(getattr(augmented, part).images, getattr(undeformed, part).images)
    assert train > 5
    assert held_out == pytest.approx(train, rel=0.15)


def test_no_copies_means_no_deformation_in_any_part(small, undeformed):
    for part in PARTS:
        grey = getattr(small, part).images.float() / 16
        expected = torch.nn.functional.avg_pool2d(enlarge(grey), 2)
        assert torch.equal(getattr(undeformed, part).images, quantize(expected, 256))
        assert torch.equal(getattr(undeformed, part).labels, getattr(small, part).labels)


@pytest.mark.parametrize(
    ("part", "images", "labels"),
    [("train", -0.0682, -1.2287), ("val", -0.1519, 1.9101), ("test", 0.1549, 0.4062)],
)
def test_every_machine_draws_the_same_data(part, images, labels):
    """A sum with signs reads the order of the images and every constant of their making."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    split = getattr(load("digits", size=14, color=True, copies=2), part)
    assert torch.equal(torch.get_rng_state(), state), "load must not draw from the global stream"
    for values, expected in ((split.images / 255, images), (split.labels, labels)):
        signs = torch.arange(values.numel()).double().cos()
        found = (values.double().flatten() @ signs).item() / len(signs) ** 0.5
        assert found == pytest.approx(expected, abs=1e-3)


# ---- arguments and environment --------------------------------------------------------------


def test_default_data_set_is_digits_at_28_pixels():
    expected = "Dataset(digits: 1×28×28, 256 levels, train / val / test 13500 / 150 / 297)"
    assert repr(load()) == expected


def test_course_dataset_chooses_the_data_set(monkeypatch, tmp_path, offline):
    monkeypatch.setenv("COURSE_DATASET", "mnist")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(ConnectionError, match="MNIST"):
        load()
    assert load("digits", size=8).name == "digits"  # the argument wins


def test_bad_course_dataset_is_named(monkeypatch):
    monkeypatch.setenv("COURSE_DATASET", "minst")
    with pytest.raises(ValueError, match=r"'minst'.*digits, mnist, fashion_mnist.*COURSE_DATASET"):
        load()


def test_data_root(monkeypatch, tmp_path):
    assert data_root() == Path(data.__file__).parents[1] / "data"
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "elsewhere"))
    assert data_root() == tmp_path / "elsewhere"
    assert data_root(tmp_path) == tmp_path
    monkeypatch.setenv("COURSE_DATA", "~/x")
    assert data_root() == Path.home() / "x" == data_root("~/x")


def test_where_data_cannot_be_written_downloads_go_to_the_user(monkeypatch, tmp_path):
    shared = Path(data.__file__).parents[1] / "data"
    monkeypatch.setattr(data.os, "access", lambda folder, mode: folder != shared)
    own = data_root()
    assert own == platformdirs.user_cache_path("course_utils") and own != shared
    assert data_root(present=lambda folder: folder == shared) == shared, "what is there serves all"
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    assert data_root() == tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "cifar"}, "expected one of digits, mnist, fashion_mnist"),
        ({"size": 32}, r"size=32: expected one of \(8, 14, 28\)"),
        ({"levels": 1}, "levels=1: expected an integer from 2 to 256"),
        ({"levels": 257}, "levels=257"),
        ({"levels": 2.0}, "levels=2.0"),
        ({"levels": True}, "levels=True"),
        ({"copies": -1}, "copies=-1: expected a non-negative integer"),
        ({"copies": 1.5}, "copies=1.5"),
        ({"copies": 3, "size": 8}, "copies=3: only `digits` enlarged .* leave `copies` out"),
        ({"copies": 3, "name": "mnist"}, "leave `copies` out"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


# ---- small functions ------------------------------------------------------------------------


def test_quantize_rounds_to_the_nearest_level():
    grey = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, 1.0])
    assert quantize(grey, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert quantize(grey, 3).dtype == torch.uint8


@pytest.mark.parametrize(
    "bad",
    [torch.tensor([0, 255], dtype=torch.uint8), torch.tensor([-0.1]), torch.tensor([1.1]),
     torch.tensor([float("nan")])],
)  # fmt: skip
def test_quantize_wants_intensities(bad):
    with pytest.raises(ValueError, match=r"intensities in \[0, 1\].*divide integers"):
        quantize(bad, 256)


@pytest.mark.parametrize(
    ("check", "smallest", "below"),
    [(check_shape, (1, 1, 1), (1, 1, 0)), (check_shape, (1, 1, 1), (1, 1)),
     (check_num_classes, 2, 1)],
)  # fmt: skip
def test_smallest_shapes_and_numbers_of_classes(check, smallest, below):
    assert check(smallest) is None
    with pytest.raises(ValueError, match="expected"):
        check(below)


@pytest.mark.parametrize("levels", [2, 17, 255, 256])
def test_check_images_accepts_every_level(levels):
    """256 does not fit in uint8: comparing pixels with it must not wrap around."""
    x = torch.arange(levels).to(torch.uint8).view(-1, 1, 1, 1)
    assert check_images(x, (1, 1, 1), levels) is None
    with pytest.raises(ValueError, match=f"levels={levels - 1}"):
        check_images(x, (1, 1, 1), levels - 1)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1]], TypeError, "expected a tensor of images, got list"),
        (torch.zeros(2, 1, 4, 4), TypeError, r"float32: quantise .*quantize\(x, levels\)"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.cfloat), TypeError, "complex64"),
        (torch.zeros(2, 1, 4, 5, dtype=torch.uint8), ValueError, r"expected images \(B, 1, 4, 4\)"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), ValueError, r"batch dimension, x\[None\]"),
        (torch.full((2, 1, 4, 4), 2), ValueError, r"\{0, …, 1\}.*\[2, 2\]: .*levels=2, .*levels=3"),
        (torch.full((2, 1, 4, 4), -1), ValueError, "load the data set with levels=2$"),
    ],
)
def test_check_images_says_what_to_do(x, error, message):
    with pytest.raises(error, match=message):
        check_images(x, (1, 4, 4), 2)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 1, 4, 5), (5,), (4, 1), (3, 1, 1, 1), ()])
def test_check_mask_broadcasts_to_one_mask_per_image(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    found = check_mask(mask, 3, (2, 4, 5))
    assert found.shape == (3, 1, 4, 5) and found.dtype == torch.bool
    assert torch.equal(found, mask | torch.zeros(3, 1, 4, 5, dtype=torch.bool))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([[True]], TypeError, "mask: expected a tensor of booleans, got list"),
        (torch.ones(4, 5), TypeError, "booleans, True where visible, got torch.float32"),
        (torch.ones(4, 5, dtype=torch.uint8), TypeError, "got torch.uint8"),
        (torch.ones(5, 4).bool(), ValueError, r"\(5, 4\) does not broadcast to \(3, 1, 4, 5\)"),
        (torch.ones(2, 1, 4, 5).bool(), ValueError, "does not broadcast"),
        (torch.ones(3, 2, 4, 5).bool(), ValueError, "does not broadcast.*one value per pixel"),
        (torch.ones(1, 3, 1, 4, 5).bool(), ValueError, "does not broadcast"),
    ],
)
def test_what_check_mask_refuses(mask, error, message):
    with pytest.raises(error, match=message):
        check_mask(mask, 3, (2, 4, 5))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_class_weights_of_labels_are_one_hot(dtype):
    found = class_weights(torch.tensor([2, 0, 1, 2], dtype=dtype), 3, 4)
    assert found.dtype == torch.float32
    assert found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_class_weights_of_mixtures_are_themselves():
    mixtures = torch.tensor([[0.2, 0.8, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert torch.equal(class_weights(mixtures, 3, 2), mixtures)
    assert class_weights(mixtures.double(), 3, 2).dtype == torch.float32
    assert torch.equal(class_weights(mixtures[:1], 3, 5), mixtures[:1].expand(5, 3))
    assert torch.equal(class_weights(torch.tensor([1]), 3, 5), torch.eye(3)[[1] * 5])


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (None, ValueError, r"condition y: labels \(B,\) in \{0, …, 2\} or weights \(B, 3\)"),
        ([0, 1], TypeError, r"expected a tensor of labels \(B,\).*got list"),
        (torch.tensor([0.0, 1.0]), TypeError, r"integer labels, got torch.float32.*y.long\(\)"),
        (torch.tensor([True, False]), TypeError, "got torch.bool"),
        (torch.tensor([0, 3]), ValueError, r"labels in \{0, …, 2\}, got \[0, 3\]"),
        (torch.tensor([-1, 0]), ValueError, r"got \[-1, 0\]"),
        (torch.tensor(1), ValueError, r"weights \(B, 3\), got \(\)"),
        (torch.eye(2), ValueError, r"got \(2, 2\)"),
        (torch.tensor([[0.5, 0.6, 0.0]]), ValueError, r"sum to 1: .*y.sum\(1, keepdim=True\)"),
        (torch.tensor([[1.5, -0.5, 0.0]]), ValueError, "non-negative"),
        (torch.tensor([[float("nan"), 0.5, 0.5]]), ValueError, "non-negative"),
        (torch.tensor([0, 1, 2]), ValueError, "3 conditions for 2 images: expected 2, or a single"),
    ],
)
def test_what_class_weights_refuse(y, error, message):
    with pytest.raises(error, match=message):
        class_weights(y, 3, 2)


def test_one_per_image():
    many = torch.arange(24).view(4, 2, 3)
    assert torch.equal(one_per_image(many, 4), many)
    assert torch.equal(one_per_image(many[1:2], 3), many[[1, 1, 1]])
    with pytest.raises(ValueError, match="4 pages for 3 images: expected 3, or a single one"):
        one_per_image(many, 3, "pages")


def test_log_frequencies_add_half_an_image_to_each_value():
    images = torch.tensor([[0, 1], [0, 2], [0, 2]], dtype=torch.uint8).view(3, 1, 1, 2)
    found = log_frequencies(images, 3).exp()
    assert found.shape == (3, 1, 1, 2)
    expected = torch.tensor([[3.5, 0.5], [0.5, 1.5], [0.5, 2.5]]) / 4.5
    torch.testing.assert_close(found.view(3, 2), expected)
    torch.testing.assert_close(log_frequencies(images.long(), 5).exp().sum(0), torch.ones(1, 1, 2))


def test_colorize_paints_bright_ink_on_dark_paper_of_another_hue():
    generator = torch.Generator().manual_seed(0)
    pages = torch.cat([torch.zeros(50, 1, 1, 1), torch.ones(50, 1, 1, 1)], 3)  # paper, ink
    rgb = colorize(pages, generator)
    assert rgb.shape == (50, 3, 1, 2)
    paper, ink = rgb[:, :, 0, 0], rgb[:, :, 0, 1]
    assert rgb.min() >= 0 and torch.allclose(ink.amax(1), torch.ones(50))
    assert torch.allclose(paper.amax(1), torch.full((50,), 0.35))
    assert (paper.argmax(1) != ink.argmax(1)).all()


def test_enlarged_digits_are_centred_and_about_20_pixels_wide(small):
    big = enlarge(small.val.images.float() / 16)
    assert big.shape == (150, 1, 28, 28) and big.min() >= 0 and big.max() <= 1
    axis = torch.arange(28) - 13.5
    mass = big.sum((1, 2, 3))
    assert ((big.sum((1, 2)) * axis).sum(1) / mass).abs().max() < 1.5
    assert ((big.sum((1, 3)) * axis).sum(1) / mass).abs().max() < 1.5
    ink_height = (big.amax((1, 3)) > 0.5).sum(1).float()
    assert 17 < ink_height.mean() < 22


def test_enlarge_wants_8_by_8():
    with pytest.raises(ValueError, match=r"expected images \(N, 1, 8, 8\)"):
        enlarge(torch.zeros(2, 1, 28, 28))


# ---- splits and data sets of one's own ------------------------------------------------------


def dots(n):
    return torch.zeros(n, 1, 2, 2, dtype=torch.uint8)


def test_a_split_takes_arrays_and_needs_no_labels():
    split, bare = Split(dots(3).numpy(), np.arange(3)), Split(dots(3))
    assert torch.equal(split.images, dots(3)) and torch.equal(split.labels, torch.arange(3))
    assert Dataset("dots", 2, bare, bare, bare).num_classes is None
    last = Split(dots(1), torch.tensor([4]))
    assert Dataset("dots", 2, split, split, last).num_classes == 5, "the classes of every part"


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    [
        (Split, ([dots(1)],), TypeError, r"^images: .*got list.*load_images\(folder\)"),
        (Split, (None,), TypeError, "^images: .*got NoneType"),
        (Split, (dots(2), [0, 1]), TypeError, r"^labels: .*got list.*Split\(images, labels\)"),
        (Split, (dots(2), torch.zeros(3)), ValueError, "3 labels for 2 images: expected one per"),
        (Dataset, ("dots", 2, Split(dots(1)), [], 0), TypeError, r"^val: expected Split.*got list"),
    ],
)
def test_what_splits_and_data_sets_refuse(kind, arguments, error, message):
    with pytest.raises(error, match=message):
        kind(*arguments)


# ---- folders of pictures --------------------------------------------------------------------


def painted(paint, mode="L", size=(6, 6)):
    return Image.new(mode, size, paint)


def save(file, picture, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, **options)


def greys(split):
    """The brightness of each image, of one grey."""
    return (255 - split.images[:, 0, 0, 0].int()).tolist()


@pytest.fixture
def album(tmp_path):
    """Three classes of 10, 20 and 1 pictures, each of a grey of its own, and what is no picture."""
    for number in range(31):
        subfolder = "a" if number < 10 else "b" if number < 30 else "c"
        suffix = "JPG" if number % 2 else "png"
        save(tmp_path / subfolder / f"{number:02}.{suffix}", painted(8 * number))
    for skipped in (".hidden/x.png", "a/.hidden.png", "a/notes.txt", "b/folder.png/x", "empty/x"):
        (tmp_path / skipped).parent.mkdir(exist_ok=True)
        (tmp_path / skipped).write_text("no picture")
    return tmp_path


def test_sub_folders_of_pictures_are_classes(album, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    found = load_images(album, size=3)
    assert repr(found) == f"Dataset({album.name}: 1×3×3, 256 levels, train / val / test 25 / 3 / 3)"
    assert found.num_classes == 3 and found.train.labels.dtype == torch.int64
    parts = [getattr(found, part) for part in PARTS]
    numbers = [[round(grey / 8) for grey in greys(part)] for part in parts]
    assert sorted(sum(numbers, [])) == list(range(31)), "each picture once"
    for part, shown in zip(parts, numbers):
        assert part.labels.tolist() == [(n >= 10) + (n >= 30) for n in shown]
    monkeypatch.chdir(album)
    wide = load_images(".", val=0.4, test=0.2)
    expected = "1×28×28, 256 levels, train / val / test 13 / 12 / 6"
    assert repr(wide) == f"Dataset({album.name}: {expected})"
    for part in (*parts, wide.train, wide.val, wide.test):
        share = torch.tensor([10, 20, 1]) * len(part) / 31
        assert (part.labels.bincount(minlength=3) - share).abs().max() <= 1

    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: reversed(list(listed(folder))))
    again, other = load_images(album, size=3), load_images(album, size=3, seed=1)
    assert greys(again.test) == greys(found.test) != greys(other.test)


@pytest.mark.parametrize("color", [False, True])
def test_figures_show_pictures_as_they_are(tmp_path, monkeypatch, color):
    noise = torch.randint(256, (6, 6, 3), generator=torch.Generator().manual_seed(0)).byte()
    picture = Image.fromarray(noise.numpy())
    for name in "xyz":
        save(tmp_path / "home" / f"{name}.png", picture)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    found = load_images("~", size=6, color=color)
    assert found.name == "home" and found.num_classes is None
    expected = picture if color else picture.convert("L").convert("RGB")
    shown = image_grid(found.train.images, levels=256, gap=0)
    assert shown * 255 == pytest.approx(np.asarray(expected), abs=0.01)
    binary = load_images("~", size=6, levels=2, color=color).train.images
    assert torch.equal(binary, (found.train.images > 127).byte()), "thresholded at one half"


UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 6  # the orientation: to be turned by a quarter, clockwise
LEFT_WHITE = Image.fromarray(np.uint8([[255] * 9 + [0] * 9] * 18))


@pytest.mark.parametrize(
    ("suffix", "picture", "options", "corners"),
    [
        (".png", painted(1, "1"), {}, 255),
        (".png", painted(200 * 256 + 7, "I;16"), {}, 200),
        (".tiff", painted(200 * 256 + 7, "I"), {}, 200),
        (".tif", painted(200 * 65536, "I"), {}, 255),
        (".gif", painted(0, "P"), {}, 0),
        (".png", painted(0, "P"), {"transparency": 0}, 255),
        (".png", painted((0, 51), "LA"), {}, 204),
        (".webp", painted((0, 0, 0, 0), "RGBA"), {"lossless": True}, 255),
        (".jpeg", painted((0, 0, 0, 55), "CMYK"), {}, 200),
        (".bmp", painted(9, "L", (1, 80)), {}, 9),
        (".pgm", LEFT_WHITE.crop((0, 6, 18, 12)), {}, [[255, 0], [255, 0]]),  # its centre is kept
        (".png", LEFT_WHITE, {"exif": UPRIGHT}, [[255, 255], [0, 0]]),
    ],
)
def test_pictures_of_every_kind(tmp_path, suffix, picture, options, corners):
    for name in "xyz":
        save(tmp_path / f"{name}{suffix}", picture, **options)
    found = 255 - load_images(tmp_path, size=6).train.images[0, 0, ::5, ::5].int()
    assert (found - torch.tensor(corners)).abs().max() <= 3  # bicubic


THREE = ("x.png", "y.png", "z.png")


@pytest.mark.parametrize(
    ("pictures", "options", "error", "message"),
    [
        ((), {}, FileNotFoundError, r"no folder .*album: expected a folder of pictures"),
        (("notes.txt",), {}, ValueError, r"^0 pictures in .*album.*\.png.*"),
        (("x.png", "y.png"), {}, ValueError, "^2 pictures .*at least three pictures"),
        (("x/x.png", "y.png", "y/z.png"), {}, ValueError, "y.png.*one sub-folder per class"),
        (("x.png", "y.png", "damaged.png"), {}, ValueError, r"damaged\.png could not be read"),
        (("x.png", "y.png", "float.tiff"), {}, ValueError, r"float\.tiff .*no known range"),
        (THREE, {"size": 0}, ValueError, "size=0: expected a positive integer"),
        (THREE, {"size": True}, ValueError, "size=True"),
        (THREE, {"levels": 257}, ValueError, "levels=257"),
        (THREE, {"val": 0}, ValueError, "val=0, .*positive shares of sum below 1"),
        (THREE, {"test": -0.1}, ValueError, "test=-0.1"),
        (THREE, {"val": 0.7}, ValueError, "val=0.7"),
    ],
)
def test_what_load_images_refuses(tmp_path, pictures, options, error, message):
    for name in pictures:
        file = tmp_path / "album" / name
        picture = painted(0.5, "F") if file.suffix == ".tiff" else painted(0)
        save(file, picture, format="tiff" if file.suffix == ".tiff" else "png")
        if file.stem == "damaged":
            file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(error, match=message):
        load_images(tmp_path / "album", **options)


# ---- torchvision: absent, broken, offline ---------------------------------------------------


def test_digits_do_not_import_torchvision():
    code = "import sys, course_utils; course_utils.load('digits', size=8)\n" \
        "assert not any(name.split('.')[0] == 'torchvision' for name in sys.modules)"  # fmt: skip
    folder = Path(data.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=["absent", "broken"])
def no_torchvision(request, monkeypatch, tmp_path):
    if request.param == "absent":
        monkeypatch.setitem(sys.modules, "torchvision", None)
        return "torchvision"
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    package = tmp_path / "torchvision"
    package.mkdir()
    reason = "operator torchvision::nms does not exist"  # what an ill-matched build says
    (package / "__init__.py").write_text(f"raise RuntimeError({reason!r})")
    monkeypatch.syspath_prepend(tmp_path)
    return reason


def test_without_torchvision_the_error_names_digits_which_still_work(no_torchvision, tmp_path):
    with pytest.raises(ImportError, match=r'mnist needs torchvision.*load\("digits"\)') as caught:
        load("mnist", root=tmp_path)
    assert no_torchvision in str(caught.value)
    assert len(load("digits", size=8).train) == 1350


@pytest.fixture
def offline(monkeypatch):
    """Downloads of torchvision go to a closed port of this machine."""
    datasets = pytest.importorskip("torchvision.datasets")
    for dataset_class in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(dataset_class, "mirrors", ["http://127.0.0.1:9/"])


def contents(folder):
    return {file: file.is_file() and file.read_bytes() for file in folder.rglob("*")}


def check_refused(name, root, message):
    """One error, which says what to do, and the folder as it was."""
    before = contents(root)
    with pytest.raises(ConnectionError, match=message) as caught:
        load(name, root=root)
    for advice in ("four .gz archives into that folder", 'load("digits")'):
        assert advice in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__, "one traceback"
    assert contents(root) == before


@pytest.mark.parametrize("root", ["", "new/one"])
@pytest.mark.parametrize(
    ("name", "class_name"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_offline_says_what_to_do_and_leaves_nothing(offline, tmp_path, name, class_name, root):
    check_refused(name, tmp_path / root, f"^{class_name} could not")
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_stalls_is_given_up(offline, monkeypatch, tmp_path):
    class Stalling(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
            given_up.wait(10)

    given_up = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr("torchvision.datasets.MNIST.mirrors", [mirror])
        monkeypatch.setattr(data, "SILENCE", 0.3)
        check_refused("mnist", tmp_path, "Reason: TimeoutError")
        given_up.set()
        server.shutdown()
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(AssertionError, ConnectionError), (KeyboardInterrupt, KeyboardInterrupt)],
)
def test_a_download_cut_midway_leaves_nothing(offline, monkeypatch, tmp_path, failure, expected):
    def half_a_download(url, download_root, filename, md5):
        (Path(download_root) / filename).write_bytes(b"half")
        raise failure

    module = pytest.importorskip("torchvision.datasets.mnist")
    monkeypatch.setattr(module, "download_and_extract_archive", half_a_download)
    with pytest.raises(expected):
        load("mnist", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- MNIST: FAKE archives of the real sizes, never the real images --------------------------


def fake_idx(name):
    """An idx file of the size of MNIST's: every pixel of an image has the grey its index says."""
    count = 60_000 if name.startswith("train") else 10_000
    index = torch.arange(count, dtype=torch.int32)
    if "labels" in name:
        body, dims = (index // 7 % 10).to(torch.uint8), (count,)
    else:
        greys = (index % 256).to(torch.uint8)
        body, dims = greys.view(-1, 1).expand(-1, 784).contiguous(), (count, 28, 28)
    header = bytes([0, 0, 8, len(dims)]) + b"".join(dim.to_bytes(4, "big") for dim in dims)
    return header + body.numpy().tobytes()


@pytest.fixture
def fake_mnist(offline, monkeypatch, tmp_path):
    """A course folder whose `MNIST/raw` holds the four fake archives, and no network."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    resources = []
    for name in IDX_NAMES:
        packed = gzip.compress(fake_idx(name), compresslevel=1)
        (raw / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", resources)
    return tmp_path


def test_mnist_from_archives_brought_by_hand(fake_mnist, monkeypatch):
    mnist = load("mnist", size=14, root=fake_mnist)
    assert [len(getattr(mnist, part)) for part in PARTS] == [50_000, 10_000, 10_000]
    raw = fake_mnist / "MNIST" / "raw"
    expected = [name + suffix for name in IDX_NAMES for suffix in ("", ".gz")]
    assert sorted(file.name for file in raw.iterdir()) == sorted(expected)
    assert list(fake_mnist.iterdir()) == [raw.parent]
    for part, first in zip(PARTS, (0, 50_000, 0)):  # validation: the end of the training file
        index = first + torch.arange(len(getattr(mnist, part)))
        torch.testing.assert_close(getattr(mnist, part).labels, index // 7 % 10)  # int64 too
        greys = (index % 256).to(torch.uint8)
        assert (getattr(mnist, part).images == greys[:, None, None, None]).all()

    binary = load("mnist", size=8, levels=2, root=fake_mnist)
    assert binary.shape == (1, 8, 8) and binary.train.images.dtype == torch.uint8
    for grey in (0, 51, 128, 255):  # one draw, whose probabilities are the greys
        images = binary.train.images[grey::256].float()
        assert images[:, 0, 4, 4].mean().item() == pytest.approx(grey / 255, abs=0.12)
        assert images[:, :, 1:7, 1:7].mean().item() == pytest.approx(grey / 255, abs=0.02)
        # the 28 pixels are padded to 32: half of a border pixel is paper
        for border in (images[:, :, 0, 1:7], images[:, :, 1:7, 0]):
            assert border.mean().item() == pytest.approx(grey / 510, abs=0.05)

    # A damaged file is not taken for the data set: it is unpacked again, with the same draw.
    broken = raw / IDX_NAMES[2]
    whole = broken.read_bytes()
    broken.write_bytes(bytes(len(whole)))
    again = load("mnist", size=8, levels=2, root=fake_mnist)
    assert broken.read_bytes() == whole
    for part in PARTS:
        assert torch.equal(getattr(binary, part).images, getattr(again, part).images)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: bytes(len(whole))], ids=["short", "zeros"]
)
def test_damaged_files_and_archives_are_refused(offline, tmp_path, damage):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in IDX_NAMES:
        (raw / name).write_bytes(fake_idx(name))
        (raw / f"{name}.gz").write_bytes(b"damaged")
    (raw / IDX_NAMES[1]).write_bytes(damage((raw / IDX_NAMES[1]).read_bytes()))
    check_refused("mnist", tmp_path, "MNIST could not be downloaded")
