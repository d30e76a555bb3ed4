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
    RedrawnSplit,
    Split,
    class_weights,
    enlarge,
    load,
    load_images,
    quantize,
)
from course_utils.figures import image_grid

IDX_NAMES = (
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def no_course_variables():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COURSE_DATASET", raising=False)
        patch.delenv("COURSE_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def small():
    """The original 8×8 images, all 17 levels."""
    return load("digits", size=8, levels=17)


def parts(dataset):
    return dataset.train, dataset.val, dataset.test


# ---- embedded digits ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 14, 28])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_images_are_integers_that_use_the_whole_range(size, levels, small):
    digits = load("digits", size=size, levels=levels, copies=0)
    assert (digits.shape, digits.levels, digits.num_classes) == ((1, size, size), levels, 10)
    for split, original, count in zip(parts(digits), parts(small), (1350, 150, 297)):
        assert split.images.shape == (count, 1, size, size) and len(split) == count
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.images.min() == 0
        # the sigmoid of the enlarged digits stops a little below 1
        assert levels - 1 >= split.images.max() >= 0.97 * (levels - 1)
        grey = original.images / 16  # neither deformed nor in another order
        grey = grey if size == 8 else torch.nn.functional.avg_pool2d(enlarge(grey), 28 // size)
        assert torch.equal(split.images, quantize(grey, levels))
        assert torch.equal(split.labels, original.labels)


def test_every_image_of_scikit_learn_is_in_one_part_and_each_part_is_stratified(small):
    bunch = load_digits()
    rows = [torch.cat([s.images.flatten(1), s.labels[:, None]], 1) for s in parts(small)]
    everything = np.c_[bunch.data, bunch.target]
    assert sorted(torch.cat(rows).tolist()) == sorted(everything.tolist())
    for split in parts(small):
        share = np.bincount(bunch.target) * len(split) / 1797
        assert abs(np.bincount(split.labels) - share).max() <= 1


def test_default_is_digits_at_28_pixels_split_before_they_are_deformed():
    """Each of the 10 blocks of the training set redraws the same 1 350 images, in order."""
    augmented, undeformed = load(), load(copies=0)
    expected = "Dataset(digits: 1×28×28, 256 levels, train / val / test 13500 / 150 / 297)"
    assert repr(augmented) == expected
    assert (augmented.train.labels.view(10, 1350) == undeformed.train.labels).all()
    blocks = augmented.train.images.float().view(10, 1350, -1)
    assert not (blocks[1:] == blocks[:1]).all(2).any(), "each copy has its own deformation"
    plain = undeformed.train.images.float().flatten(1)
    similarity = torch.cosine_similarity(blocks, plain[None], dim=2)
    unrelated = torch.cosine_similarity(blocks[0], plain.roll(1, 0), dim=1)
    assert similarity.mean() > 0.8 > unrelated.mean() + 0.2

    def distance(part):  # how much a deformation changes
        a, b = (getattr(dataset, part).images.float() for dataset in (augmented, undeformed))
        return (a[: len(b)] - b).pow(2).mean().sqrt().item()

    assert distance("train") > 5
    assert distance("val") == pytest.approx(distance("train"), rel=0.15), "by the same law"
    assert distance("test") == pytest.approx(distance("train"), rel=0.15)


def test_every_machine_draws_the_same_data():
    """A sum with signs reads the order of the images and every constant of their making."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    digits = load("digits", size=14, color=True, copies=2)
    assert torch.equal(torch.get_rng_state(), state), "load must not draw from the global stream"
    sums = [(-0.0682, -1.2287), (-0.1519, 1.9101), (0.1549, 0.4062)]
    for split, expected in zip(parts(digits), sums):
        for values, signed_sum in zip((split.images / 255, split.labels), expected):
            signs = torch.arange(values.numel()).double().cos()
            found = (values.double().flatten() @ signs).item() / len(signs) ** 0.5
            assert found == pytest.approx(signed_sum, abs=1e-3)


def test_enlarged_digits_are_centred_and_about_20_pixels_wide(small):
    big = enlarge(small.val.images.float() / 16)
    assert big.shape == (150, 1, 28, 28) and big.min() >= 0 and big.max() <= 1
    axis = torch.arange(28) - 13.5
    for across in (2, 3):
        centre = (big.sum((1, across)) * axis).sum(1) / big.sum((1, 2, 3))
        assert centre.abs().max() < 1.5
    ink_height = (big.amax((1, 3)) > 0.5).sum(1).float()
    assert 17 < ink_height.mean() < 22


def test_colorize_paints_bright_ink_on_dark_paper_of_another_hue():
    generator = torch.Generator().manual_seed(0)
    pages = torch.cat([torch.zeros(50, 1, 1, 1), torch.ones(50, 1, 1, 1)], 3)  # paper, ink
    rgb = data.colorize(pages, generator)
    assert rgb.shape == (50, 3, 1, 2)
    paper, ink = rgb[:, :, 0, 0], rgb[:, :, 0, 1]
    assert rgb.min() >= 0 and torch.allclose(ink.amax(1), torch.ones(50))
    assert torch.allclose(paper.amax(1), torch.full((50,), 0.35))
    assert (paper.argmax(1) != ink.argmax(1)).all()


# ---- the environment ------------------------------------------------------------------------


def test_course_dataset_chooses_the_data_set(monkeypatch, tmp_path, offline):
    monkeypatch.setenv("COURSE_DATASET", "mnist")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(ConnectionError, match="MNIST"):
        load()
    assert load("digits", size=8).name == "digits"  # the argument wins
    monkeypatch.setenv("COURSE_DATASET", "minst")
    with pytest.raises(ValueError, match=r"'minst'.*digits, mnist, fashion_mnist.*COURSE_DATASET"):
        load()


def test_data_root(monkeypatch, tmp_path):
    root, shared = data.data_root, Path(data.__file__).parents[1] / "data"
    assert root() == shared
    assert root(tmp_path) == tmp_path and root("~/x") == Path.home() / "x"
    monkeypatch.setattr(data.os, "access", lambda folder, mode: folder != shared)
    assert root() == platformdirs.user_cache_path("course_utils") != shared
    assert root(present=lambda folder: folder == shared) == shared, "what is there serves all"
    for told, expected in ((str(tmp_path), tmp_path), ("~/x", Path.home() / "x")):
        monkeypatch.setenv("COURSE_DATA", told)
        assert root() == expected


# ---- small functions ------------------------------------------------------------------------


def test_quantize_rounds_to_the_nearest_level():
    found = quantize(torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, 1.0]), 3)
    assert found.tolist() == [0, 0, 1, 1, 2, 2] and found.dtype == torch.uint8


@pytest.mark.parametrize("levels", [2, 17, 255, 256])
def test_check_images_accepts_every_level(levels):
    """256 does not fit in uint8: comparing pixels with it must not wrap around."""
    x = torch.arange(levels).to(torch.uint8).view(-1, 1, 1, 1)
    assert data.check_images(x, (1, 1, 1), levels) is None
    with pytest.raises(ValueError, match=f"levels={levels - 1}"):
        data.check_images(x, (1, 1, 1), levels - 1)


@pytest.mark.parametrize("shape", [(4, 5), (1, 4, 5), (3, 1, 4, 5), (5,), (4, 1), (3, 1, 1, 1), ()])
def test_check_mask_broadcasts_to_one_mask_per_image(shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5
    found = data.check_mask(mask, 3, (2, 4, 5))
    assert found.shape == (3, 1, 4, 5) and found.dtype == torch.bool
    assert torch.equal(found, mask | torch.zeros(3, 1, 4, 5, dtype=torch.bool))


def test_class_weights_of_labels_are_one_hot_and_of_mixtures_themselves():
    for dtype in (torch.uint8, torch.int32, torch.int64):
        found = class_weights(torch.tensor([2, 0, 1, 2], dtype=dtype), 3, 4)
        assert found.dtype == torch.float32
        assert found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    mixtures = torch.tensor([[0.2, 0.8, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert torch.equal(class_weights(mixtures, 3, 2), mixtures)
    assert class_weights(mixtures.double(), 3, 2).dtype == torch.float32
    assert torch.equal(class_weights(mixtures[:1], 3, 5), mixtures[:1].expand(5, 3))
    assert torch.equal(class_weights(torch.tensor([1]), 3, 5), torch.eye(3)[[1] * 5])


def test_one_per_image():
    many = torch.arange(24).view(4, 2, 3)
    assert torch.equal(data.one_per_image(many, 4), many)
    assert torch.equal(data.one_per_image(many[1:2], 3), many[[1, 1, 1]])


def test_log_frequencies_add_half_an_image_to_each_value():
    images = torch.tensor([[0, 1], [0, 2], [0, 2]], dtype=torch.uint8).view(3, 1, 1, 2)
    found = data.log_frequencies(images, 3).exp()
    assert found.shape == (3, 1, 1, 2)
    expected = torch.tensor([[3.5, 0.5], [0.5, 1.5], [0.5, 2.5]]) / 4.5
    torch.testing.assert_close(found.view(3, 2), expected)
    found = data.log_frequencies(images.long(), 5).exp()
    torch.testing.assert_close(found.sum(0), torch.ones(1, 1, 2))


def dots(n):
    return torch.zeros(n, 1, 2, 2, dtype=torch.uint8)


def test_a_split_takes_arrays_and_needs_no_labels():
    split, bare = Split(dots(3).numpy(), np.arange(3)), Split(dots(3))
    assert torch.equal(split.images, dots(3)) and torch.equal(split.labels, torch.arange(3))
    assert Dataset("dots", 2, bare, bare, bare).num_classes is None
    last = Split(dots(1), torch.tensor([4]))
    assert Dataset("dots", 2, split, split, last).num_classes == 5, "the classes of every part"


@pytest.mark.parametrize("kind", [Split, RedrawnSplit])
def test_a_batch_of_a_split(kind):
    """Its images and labels, in the order asked for; black and white are never in doubt."""
    images, indices = torch.eye(6, dtype=torch.uint8).view(6, 1, 2, 3), torch.tensor([4, 0, 4])
    grey = {"grey": images.float()} if kind is RedrawnSplit else {}
    for labels in (None, torch.arange(6)):
        split = kind(images, labels, **grey)
        for moved in (split, split.to("cpu")):
            x, y = moved.batch(indices)
            assert (
                type(moved) is kind and torch.equal(x, images[indices]) and x.dtype == torch.uint8
            )
            assert y is None if labels is None else torch.equal(y, indices)


def test_redrawn_images_are_new_at_each_visit_and_their_mean_is_the_grey():
    grey = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    split = RedrawnSplit((grey > 0.5).byte(), grey=grey)
    first = split.images.clone()
    indices = torch.arange(5).repeat(2000)

    def visits():
        torch.manual_seed(3)
        return [split.batch(indices)[0] for _ in range(2)]

    one, two = visits()
    assert not torch.equal(one, two) and torch.equal(torch.stack(visits()), torch.stack((one, two)))
    assert one.unique().tolist() == [0, 1] and torch.equal(split.images, first)
    mean = one.view(2000, *grey.shape).float().mean(0)
    torch.testing.assert_close(mean, grey, atol=5 * 0.5 / 2000**0.5, rtol=0)


def test_the_smallest_shape_and_number_of_classes_are_accepted():
    assert data.check_shape((1, 1, 1)) is data.check_num_classes(2) is None


# ---- what is refused, and the words that say how to mend it ---------------------------------


def loaded(options):
    load(**options)


def in_a_split(parts):
    Split(*parts)


def quantized(grey):
    quantize(grey, 256)


def as_images(x):
    data.check_images(x, (1, 4, 4), 2)


def as_mask(mask):
    data.check_mask(mask, 3, (2, 4, 5))


def as_classes(y):
    class_weights(y, 3, 2)


def pages_of_three(c):
    data.one_per_image(c, 3, "pages")


ONES, PAGE = torch.ones(4, 5), torch.zeros(2, 1, 4, 4)
COLORED = {"name": "mnist", "levels": 2, "color": True}


@pytest.mark.parametrize(
    ("call", "given", "error", "words"),
    [
        (loaded, {"name": "cifar"}, ValueError, "expected one of digits, mnist, fashion_mnist"),
        (loaded, {"size": 32}, ValueError, r"size=32: expected one of \(8, 14, 28\)"),
        (loaded, {"levels": 1}, ValueError, "levels=1: expected an integer from 2 to 256"),
        (loaded, {"levels": 257}, ValueError, "levels=257"),
        (loaded, {"levels": 2.0}, ValueError, "levels=2.0"),
        (loaded, {"copies": -1}, ValueError, "copies=-1: expected a non-negative integer"),
        (loaded, {"copies": True}, ValueError, "copies=True"),
        (loaded, {"copies": 3, "size": 8}, ValueError, "only `digits` enlarged .* leave `copies`"),
        (loaded, {"copies": 3, "name": "mnist"}, ValueError, "leave `copies` out"),
        (loaded, {"name": "digits", "levels": 2, "redraw": True}, ValueError, "leave `redraw` out"),
        (loaded, {"name": "mnist", "levels": 3, "redraw": True}, ValueError, "levels=3.*no image"),
        (loaded, COLORED | {"redraw": True}, ValueError, "color=True.*no image"),
        (in_a_split, ([dots(1)],), TypeError, r"^images: .*got list.*load_images\(folder\)"),
        (in_a_split, (None,), TypeError, "^images: .*got NoneType"),
        (in_a_split, (dots(2), [0, 1]), TypeError, r"^labels: .*got list.*Split\(images, labels\)"),
        (in_a_split, (dots(2), torch.zeros(3)), ValueError, "3 labels for 2 images: expected one"),
        (quantized, torch.tensor([0, 255]), ValueError, r"in \[0, 1\].*int64.*divide integers"),
        (quantized, torch.tensor([-0.1]), ValueError, r"intensities in \[0, 1\]"),
        (quantized, torch.tensor([1.1]), ValueError, r"intensities in \[0, 1\]"),
        (quantized, torch.tensor([float("nan")]), ValueError, r"intensities in \[0, 1\]"),
        (as_images, [[1]], TypeError, "expected a tensor of images, got list"),
        (as_images, PAGE, TypeError, r"float32: quantise .*quantize\(x, levels\)"),
        (as_images, PAGE.cfloat(), TypeError, "complex64"),
        (as_images, PAGE.byte()[..., :3], ValueError, r"expected images \(B, 1, 4, 4\)"),
        (as_images, PAGE.byte()[0], ValueError, r"batch dimension, x\[None\]"),
        (as_images, PAGE.byte() + 2, ValueError, r"\{0, …, 1\}.*\[2, 2\]: .*levels=2, .*levels=3"),
        (as_images, PAGE.long() - 1, ValueError, "load the data set with levels=2$"),
        (as_mask, [[True]], TypeError, "mask: expected a tensor of booleans, got list"),
        (as_mask, ONES, TypeError, "booleans, True where visible, got torch.float32"),
        (as_mask, ONES.byte(), TypeError, "got torch.uint8"),
        (as_mask, ONES.bool().T, ValueError, r"\(5, 4\) does not broadcast to \(3, 1, 4, 5\)"),
        (as_mask, ONES.bool().expand(2, 1, 4, 5), ValueError, "does not broadcast"),
        (as_mask, ONES.bool().expand(3, 2, 4, 5), ValueError, "broadcast.*one value per pixel"),
        (as_mask, ONES.bool().expand(1, 3, 1, 4, 5), ValueError, "does not broadcast"),
        (as_classes, None, ValueError, r"y: labels \(B,\) in \{0, …, 2\} or weights \(B, 3\)"),
        (as_classes, [0, 1], TypeError, r"expected a tensor of labels \(B,\).*got list"),
        (as_classes, torch.tensor([0.0, 1.0]), TypeError, r"integer labels.*float32.*y.long\(\)"),
        (as_classes, torch.tensor([True, False]), TypeError, "got torch.bool"),
        (as_classes, torch.tensor([0, 3]), ValueError, r"labels in \{0, …, 2\}, got \[0, 3\]"),
        (as_classes, torch.tensor([-1, 0]), ValueError, r"got \[-1, 0\]"),
        (as_classes, torch.tensor(1), ValueError, r"weights \(B, 3\), got \(\)"),
        (as_classes, torch.eye(2), ValueError, r"got \(2, 2\)"),
        (as_classes, torch.tensor([[0.5, 0.6, 0.0]]), ValueError, r"1: .*y.sum\(1, keepdim=True\)"),
        (as_classes, torch.tensor([[1.5, -0.5, 0.0]]), ValueError, "non-negative"),
        (as_classes, torch.tensor([[float("nan"), 0.5, 0.5]]), ValueError, "non-negative"),
        (as_classes, torch.arange(3), ValueError, "3 conditions for 2 images: .* a single one"),
        (pages_of_three, torch.zeros(4), ValueError, "4 pages for 3 images: expected 3"),
        (enlarge, torch.zeros(2, 1, 28, 28), ValueError, r"expected images \(N, 1, 8, 8\)"),
        (data.check_shape, (1, 1, 0), ValueError, r"expected \(channels, height, width\)"),
        (data.check_shape, (1, 1), ValueError, r"expected \(channels, height, width\)"),
        (data.check_num_classes, 1, ValueError, "expected at least two classes"),
    ],
)
def test_what_is_refused(call, given, error, words):
    with pytest.raises(error, match=words):
        call(given)


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
    numbers = [[round(grey / 8) for grey in greys(split)] for split in parts(found)]
    assert sorted(sum(numbers, [])) == list(range(31)), "each picture once"
    for split, shown in zip(parts(found), numbers):
        assert split.labels.tolist() == [(n >= 10) + (n >= 30) for n in shown]
    monkeypatch.chdir(album)
    wide = load_images(".", val=0.4, test=0.2)
    expected = "1×28×28, 256 levels, train / val / test 13 / 12 / 6"
    assert repr(wide) == f"Dataset({album.name}: {expected})"
    for split in (*parts(found), *parts(wide)):
        share = torch.tensor([10, 20, 1]) * len(split) / 31
        assert (split.labels.bincount(minlength=3) - share).abs().max() <= 1

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


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'torchvision'"),
        RuntimeError("operator torchvision::nms does not exist"),  # of an ill-matched build
    ],
)
def test_without_torchvision_the_error_names_digits_which_still_work(error, monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text(f"raise {error!r}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(ImportError, match=r'mnist needs torchvision.*load\("digits"\)') as caught:
        load("mnist", root=tmp_path)
    assert str(error) in str(caught.value)
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
def raw(offline, tmp_path):
    """Where the four archives are put by hand, in a course folder without network."""
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    return tmp_path / "MNIST" / "raw"


def test_mnist_from_archives_brought_by_hand(raw, tmp_path, monkeypatch):
    resources = []
    for name in IDX_NAMES:
        packed = gzip.compress(fake_idx(name), compresslevel=1)
        (raw / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr("torchvision.datasets.MNIST.resources", resources)
    mnist = load("mnist", size=14, root=tmp_path)
    assert [len(split) for split in parts(mnist)] == [50_000, 10_000, 10_000]
    expected = [name + suffix for name in IDX_NAMES for suffix in ("", ".gz")]
    assert sorted(file.name for file in raw.iterdir()) == sorted(expected)
    assert list(tmp_path.iterdir()) == [raw.parent]
    for split, first in zip(parts(mnist), (0, 50_000, 0)):  # validation: the end of training's
        index = first + torch.arange(len(split))
        torch.testing.assert_close(split.labels, index // 7 % 10)  # int64 too
        assert (split.images == (index % 256)[:, None, None, None]).all()

    binary = load("mnist", size=8, levels=2, root=tmp_path)
    assert binary.shape == (1, 8, 8) and binary.train.images.dtype == torch.uint8
    for grey in (0, 51, 128, 255):  # one draw, whose probabilities are the greys
        images = binary.train.images[grey::256].float()
        assert images[:, 0, 4, 4].mean().item() == pytest.approx(grey / 255, abs=0.12)
        assert images[:, :, 1:7, 1:7].mean().item() == pytest.approx(grey / 255, abs=0.02)
        # the 28 pixels are padded to 32: half of a border pixel is paper
        for border in (images[:, :, 0, 1:7], images[:, :, 1:7, 0]):
            assert border.mean().item() == pytest.approx(grey / 510, abs=0.05)

    redrawn = load("mnist", size=8, levels=2, redraw=True, root=tmp_path)
    assert [type(split) for split in parts(redrawn)] == [RedrawnSplit, Split, Split]
    for one, other in zip(parts(binary), parts(redrawn)):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    images, labels = redrawn.train.batch(torch.arange(51, 50_000, 256))
    assert images[:, :, 1:7, 1:7].float().mean().item() == pytest.approx(51 / 255, abs=0.02)
    assert torch.equal(labels, binary.train.labels[51::256])
    assert not torch.equal(images, binary.train.images[51::256])

    # A damaged file is not taken for the data set: it is unpacked again, with the same draw.
    broken = raw / IDX_NAMES[2]
    whole = broken.read_bytes()
    broken.write_bytes(bytes(len(whole)))
    again = load("mnist", size=8, levels=2, root=tmp_path)
    assert broken.read_bytes() == whole
    for one, other in zip(parts(binary), parts(again)):
        assert torch.equal(one.images, other.images)


def test_damaged_files_and_archives_are_refused(raw, tmp_path):
    for name in IDX_NAMES:
        (raw / name).write_bytes(fake_idx(name))
        (raw / f"{name}.gz").write_bytes(b"damaged")
    whole = (raw / IDX_NAMES[2]).read_bytes()  # in order, but for an image that is missing
    (raw / IDX_NAMES[2]).write_bytes(whole[:4] + (9_999).to_bytes(4, "big") + whole[8:-784])
    check_refused("mnist", tmp_path, "MNIST could not be downloaded")
