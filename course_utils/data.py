"""Images, handwritten digits or one's own, as integers in {0, …, levels − 1}.

`digits` is embedded in scikit-learn (1 797 real images, 8×8, 17 grey levels) and never needs a
network. `mnist` and `fashion_mnist` are downloaded once by torchvision. `load_images` reads a
folder of pictures.
"""

import contextlib
import math
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import platformdirs
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

NAMES = {"digits": None, "mnist": "MNIST", "fashion_mnist": "FashionMNIST"}  # torchvision's
SIZES = (8, 14, 28)

# One seed for everything random in the data: the split, the augmentation, the binarisation and
# the colours are the same on every machine and in every notebook.
DATA_SEED = 211


@dataclass(frozen=True)
class Split:
    """Images `(N, C, H, W)`, uint8 in {0, …, levels − 1}, with their labels `(N,)`, int64, if any.

    NumPy arrays become tensors.

    Raises:
        TypeError: they are neither tensors nor arrays.
        ValueError: there is not one label per image.
    """

    images: torch.Tensor
    labels: torch.Tensor | None = None

    def __post_init__(self):
        for field in ("images", "labels"):
            value = getattr(self, field)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, field, torch.as_tensor(value))
            elif not isinstance(value, torch.Tensor) and not (field == "labels" and value is None):
                raise TypeError(
                    f"{field}: expected a tensor or a NumPy array, got {type(value).__name__}. "
                    "Stack the images into one tensor (N, C, H, W), Split(images, labels), or "
                    "read a folder of pictures with load_images(folder)"
                )
        if self.labels is not None and len(self.labels) != len(self.images):
            raise ValueError(
                f"{len(self.labels)} labels for {len(self.images)} images: expected one per image"
            )

    def __len__(self):
        return len(self.images)

    def batch(self, indices):
        """Images `(B, C, H, W)` and labels `(B,)`, or None, at these indices: what `fit` visits."""
        return self.images[indices], None if self.labels is None else self.labels[indices]

    def to(self, device):
        """The same split, its tensors on `device`."""
        tensors = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: value.to(device) for name, value in tensors.items()})


@dataclass(frozen=True, kw_only=True)
class RedrawnSplit(Split):
    """Binary images drawn anew at each visit (« dynamic binarisation »); `images` is a first draw.

    The draws come from the global random stream, which `fit` seeds.

    Args:
        grey: probability that each pixel be 1, floats `(N, C, H, W)` in [0, 1].
    """

    grey: torch.Tensor

    def batch(self, indices):
        _, labels = super().batch(indices)
        return torch.bernoulli(self.grey[indices]).to(torch.uint8), labels


@dataclass(frozen=True)
class Dataset:
    """The three parts of a data set. Choices are made on `val`; `test` is for the final number."""

    name: str
    levels: int
    train: Split
    val: Split
    test: Split

    def __post_init__(self):
        for part in ("train", "val", "test"):
            found = getattr(self, part)
            if not isinstance(found, Split):
                kind = type(found).__name__
                raise TypeError(f"{part}: expected Split(images, labels), got {kind}")

    @property
    def shape(self):
        """Shape `(C, H, W)` of one image."""
        return tuple(self.train.images.shape[1:])

    @property
    def num_classes(self):
        """Number of classes (10 for each data set of the course), or None without labels."""
        parts = (self.train, self.val, self.test)
        labels = [part.labels for part in parts if part.labels is not None]
        return int(torch.cat(labels).max()) + 1 if labels else None

    def __repr__(self):
        c, h, w = self.shape
        counts = " / ".join(str(len(part)) for part in (self.train, self.val, self.test))
        return (
            f"Dataset({self.name}: {c}×{h}×{w}, {self.levels} levels, train / val / test {counts})"
        )


def load(name=None, *, size=28, levels=256, color=False, copies=None, redraw=False, root=None):
    """Load a data set, already split, as integer images.

    Args:
        name: `"digits"`, `"mnist"` or `"fashion_mnist"`. By default the environment variable
            `COURSE_DATASET`, else `"digits"`.
        size: height and width in pixels: 8, 14 or 28.
        levels: number of values a pixel can take, 2 to 256. With 2 levels, `digits` is
            thresholded at one half; `mnist` and `fashion_mnist`, unless in colour, are binarised
            by one fixed Bernoulli draw of probability the grey level (kind « S » of the
            literature).
        color: paint each digit with a random colour on a random background: `(N, 3, H, W)`.
        copies: for `digits` enlarged to 14 or 28 pixels, how many randomly deformed copies of
            each image the training set holds (10 by default). The validation and test images
            are deformed once, by the same law. 0 switches the deformation off everywhere.
        redraw: for what a Bernoulli draw binarises (`levels`): draw the training images anew each
            time that `fit` visits them (kind « D »), a `RedrawnSplit`. `train.images`, `val` and
            `test` stay the fixed draw.
        root: where the downloaded files live. By default the environment variable
            `COURSE_DATA`, else the folder `data/` of the course, or one of the user's own where
            that one cannot be written.

    Returns:
        Dataset: train / val / test of uint8 images `(N, C, size, size)` and int64 labels `(N,)`.

    Raises:
        ValueError: an argument is out of range.
        ConnectionError: the data set is not there yet and cannot be downloaded.
        ImportError: `mnist` or `fashion_mnist` is asked for and torchvision does not import.
    """
    name = os.environ.get("COURSE_DATASET") or "digits" if name is None else name
    if name not in NAMES:
        raise ValueError(
            f"unknown data set {name!r}: expected one of {', '.join(NAMES)} "
            "(argument `name` or environment variable COURSE_DATASET)"
        )
    if size not in SIZES:
        raise ValueError(f"size={size!r}: expected one of {SIZES} (pixels)")
    check_levels(levels)
    if copies is not None and not is_whole(copies, 0):
        raise ValueError(f"copies={copies!r}: expected a non-negative integer")
    if copies and (name != "digits" or size == 8):
        raise ValueError(
            f"copies={copies}: only `digits` enlarged to 14 or 28 pixels are deformed; "
            "leave `copies` out"
        )
    drawn = levels == 2 and name != "digits" and not color
    if redraw and not drawn:
        raise ValueError(
            f"redraw=True: load({name!r}, levels={levels}, color={color}) draws no image. Only "
            "`mnist` and `fashion_mnist` in grey, levels=2, are drawn; leave `redraw` out"
        )

    if name == "digits":
        parts = _digits(size, 10 if copies is None else copies)
    else:
        parts = _torchvision(name, size, root)

    generator = torch.Generator().manual_seed(DATA_SEED)
    splits = []
    for grey, labels in parts:  # grey: (N, 1, H, W) in [0, 1]
        if color:
            images = quantize(colorize(grey, generator), levels)
        elif drawn:
            images = torch.bernoulli(grey, generator=generator).to(torch.uint8)
        else:
            images = quantize(grey, levels)
        splits.append(Split(images, labels))
    if redraw:
        splits[0] = RedrawnSplit(splits[0].images, splits[0].labels, grey=parts[0][0])
    return Dataset(name, levels, *splits)


def quantize(grey, levels):
    """Round intensities of [0, 1] to integers {0, …, levels − 1} (uint8), of any shape."""
    check_levels(levels)
    if not grey.is_floating_point() or not (grey.min() >= 0 and grey.max() <= 1):
        raise ValueError(
            f"expected floating-point intensities in [0, 1], got {grey.dtype} in "
            f"[{grey.min():.3g}, {grey.max():.3g}]; divide integers by their maximum first"
        )
    return (grey * (levels - 1)).round().to(torch.uint8)


def is_whole(value, least, most=math.inf):
    """Whether a value is an integer of [least, most]; True, an integer to Python, is none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def check_shape(shape):
    """Raise unless `shape` is `(C, H, W)`, positive sizes."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape={shape}: expected (channels, height, width)")


def check_num_classes(num_classes):
    """Raise unless `num_classes` is None (no classes) or at least 2."""
    if num_classes is not None and num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: expected at least two classes")


def check_levels(levels):
    """Raise unless `levels` is an integer from 2 to 256: a pixel is stored in one byte."""
    if not is_whole(levels, 2, 256):
        raise ValueError(f"levels={levels!r}: expected an integer from 2 to 256")


def layer_sizes(hidden):
    """Numbers of units of the hidden layers, as a tuple; one number is one layer."""
    sizes = hidden if isinstance(hidden, tuple | list) else [hidden]
    if not all(is_whole(units, 1) for units in sizes):
        raise ValueError(
            f"hidden={hidden!r}: expected the number of units of each hidden layer, such as "
            "(400, 200), or one number"
        )
    return tuple(sizes)


def check_images(x, shape, levels):
    """Raise unless `x` is a batch of integer images: shape `(B, *shape)`, in {0, …, levels − 1}.

    Raises:
        TypeError: `x` is no integer tensor.
        ValueError: the shape or the range is not the expected one.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"expected a tensor of images, got {type(x).__name__}")
    if x.is_floating_point() or x.is_complex():
        raise TypeError(
            f"expected integer images in {{0, …, {levels - 1}}}, got {x.dtype}: "
            "quantise intensities of [0, 1] with course_utils.data.quantize(x, levels)"
        )
    if tuple(x.shape[1:]) != tuple(shape):
        one = ": a single image needs a batch dimension, x[None]" if x.shape == tuple(shape) else ""
        sizes = ", ".join(map(str, shape))
        raise ValueError(f"expected images (B, {sizes}), got {tuple(x.shape)}{one}")
    # as Python integers: compared inside torch, a uint8 of 255 and 256 would wrap around
    low, high = torch.stack([x.min(), x.max()]).tolist() if x.numel() else (0, 0)
    if low < 0 or high >= levels:
        larger = f", or build the model with levels={high + 1}" if low >= 0 else ""
        raise ValueError(
            f"expected pixels in {{0, …, {levels - 1}}}, got [{low}, {high}]: "
            f"load the data set with levels={levels}{larger}"
        )


def check_mask(mask, n, shape):
    """A mask of the known pixels, True where known, broadcast to `(n, 1, H, W)`.

    Args:
        mask: booleans `(H, W)`, or any shape that broadcasts to `(n, 1, H, W)`.
        n: number of images.
        shape: `(C, H, W)` of an image.

    Raises:
        TypeError: `mask` is no tensor of booleans.
        ValueError: it does not broadcast.
    """
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"mask: expected a tensor of booleans, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected booleans, True where visible, got {mask.dtype}")
    try:
        return mask.broadcast_to(n, 1, *shape[1:])
    except RuntimeError:
        raise ValueError(
            f"mask: {tuple(mask.shape)} does not broadcast to {(n, 1, *shape[1:])}, "
            "one value per pixel"
        ) from None


def class_weights(y, num_classes, n):
    """Labels, or mixtures of classes, as weights `(n, num_classes)`: one-hot rows for labels.

    Args:
        y: integer labels `(n,)`, or non-negative weights `(n, num_classes)` of sum 1; a single one
            is repeated `n` times.
    """
    expected = f"labels (B,) in {{0, …, {num_classes - 1}}} or weights (B, {num_classes})"
    check_condition(y, expected)
    if y.dim() == 1:
        if y.is_floating_point() or y.dtype == torch.bool:
            raise TypeError(f"expected integer labels, got {y.dtype}: convert with y.long()")
        if y.numel() and (int(y.min()) < 0 or int(y.max()) >= num_classes):
            raise ValueError(
                f"expected labels in {{0, …, {num_classes - 1}}}, "
                f"got [{int(y.min())}, {int(y.max())}]"
            )
        y = F.one_hot(y.long(), num_classes)
    elif y.dim() != 2 or y.shape[1] != num_classes:
        raise ValueError(f"expected {expected}, got {tuple(y.shape)}")
    y = y.float()
    if not ((y >= 0).all() and ((y.sum(1) - 1).abs() < 1e-4).all()):
        raise ValueError(
            "the weights of the classes must be non-negative and sum to 1: "
            "divide them by their sum, y / y.sum(1, keepdim=True)"
        )
    return one_per_image(y, n)


def check_condition(y, expected):
    """Raise unless `y` is a tensor; `expected` says, in the message, what the model wants."""
    if y is None:
        raise ValueError(f"this model needs a condition y: {expected}")
    if not isinstance(y, torch.Tensor):
        raise TypeError(f"expected a tensor of {expected}, got {type(y).__name__}")


def one_per_image(c, n, what="conditions"):
    """Conditions `(n, …)`, or a single one `(1, …)` -> `(n, …)`."""
    if len(c) not in (1, n):
        raise ValueError(f"{len(c)} {what} for {n} images: expected {n}, or a single one")
    return c.expand(n, *c.shape[1:])


def log_frequencies(images, levels):
    """Logarithm of the share of `images` `(N, C, H, W)` in which each pixel has each value.

    Half an image is added to each value, so that no frequency is zero.

    Returns:
        `(levels, C, H, W)`.
    """
    counts = torch.stack([(images == k).sum(0) for k in range(levels)])
    return ((counts + 0.5) / (len(images) + 0.5 * levels)).log()


def colorize(grey, generator):
    """Paint grey digits `(N, 1, H, W)` in [0, 1]: a vivid ink on a dark paper of another hue.

    Returns:
        RGB intensities `(N, 3, H, W)` in [0, 1].
    """
    n = len(grey)
    hue = torch.rand(n, generator=generator)
    shift = 0.5 + 0.15 * (2 * torch.rand(n, generator=generator) - 1)
    ink = _hsv_to_rgb(hue, 0.75, 1.0)
    paper = _hsv_to_rgb((hue + shift) % 1, 0.8, 0.35)
    return paper[:, :, None, None] * (1 - grey) + ink[:, :, None, None] * grey


def _hsv_to_rgb(hue, saturation, value):
    """Hues `(N,)` in [0, 1) to RGB `(N, 3)`; piecewise linear, one phase per channel."""
    phase = (hue[:, None] * 6 + torch.tensor([5.0, 3.0, 1.0])) % 6
    ramp = torch.minimum(phase, 4 - phase).clamp(0, 1)
    return value * (1 - saturation * ramp)


# ---------------------------------------------------------------------------------------------
# digits: scikit-learn's own files
# ---------------------------------------------------------------------------------------------


def _digits(size, copies):
    """Three pairs (grey images in [0, 1], labels): train 1 350 / val 150 / test 297."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = torch.from_numpy(bunch.target).long()
    grey = torch.from_numpy(bunch.images).float()[:, None] / 16  # (1797, 1, 8, 8), k / 16

    # Split first, deform afterwards: no two copies of one image end up in different parts.
    rest, test = train_test_split(
        torch.arange(len(labels)), test_size=297, stratify=labels, random_state=DATA_SEED
    )
    train, val = train_test_split(
        rest, test_size=150, stratify=labels[rest], random_state=DATA_SEED
    )

    generator = torch.Generator().manual_seed(DATA_SEED)
    parts = []
    for indices, repeats in ((train, max(copies, 1)), (val, 1), (test, 1)):
        images, targets = grey[indices], labels[indices]
        if size != 8:
            images = images.repeat(repeats, 1, 1, 1)
            targets = targets.repeat(repeats)
            images = enlarge(images, generator if copies else None)
            images = F.avg_pool2d(images, 28 // size)
        parts.append((images, targets))
    return parts


def enlarge(grey, generator=None):
    """Redraw 8×8 digits as smooth 28×28 ones that look like MNIST on a projector.

    The digit is sharpened, centred on its mass, scaled by a bicubic `grid_sample` into a box of
    about 20 pixels, and its edge made crisp by a steep sigmoid.

    Args:
        grey: `(N, 1, 8, 8)` in [0, 1].
        generator: draws a small random deformation for each image (rotation ±10°, scale ±10 %,
            shear ±0.15, shift ±0.75 px, stroke thickness); `None` for no deformation.

    Returns:
        `(N, 1, 28, 28)` in [0, 1].
    """
    if grey.shape[1:] != (1, 8, 8):
        raise ValueError(f"expected images (N, 1, 8, 8), got {tuple(grey.shape)}")
    n = len(grey)

    def uniform(half_width):
        if generator is None:
            return torch.zeros(n)
        return half_width * (2 * torch.rand(n, generator=generator) - 1)

    sharp = grey + (grey - F.avg_pool2d(grey, 3, stride=1, padding=1, count_include_pad=False))
    padded = F.pad(sharp, (2, 2, 2, 2))  # (N, 1, 12, 12)

    # Centre of mass, in the coordinates of grid_sample: −1 and 1 are the outer edges.
    axis = (torch.arange(12) + 0.5) / 6 - 1
    mass = padded.clamp(min=0)
    total = mass.sum((1, 2, 3))
    centre_x = (mass.sum((1, 2)) * axis).sum(1) / total
    centre_y = (mass.sum((1, 3)) * axis).sum(1) / total

    # Affine map from an output pixel to a point of the small image. 8 pixels become 20 of 28.
    scale = (28 / 20) * (8 / 12) * (1 + uniform(0.10))
    angle = uniform(math.radians(10))
    shear = uniform(0.15)
    shift = 0.75 * 2 / 28  # 0.75 pixel
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([scale * cos, scale * (shear * cos - sin), centre_x + uniform(shift)], 1),
            torch.stack([scale * sin, scale * (shear * sin + cos), centre_y + uniform(shift)], 1),
        ],
        1,
    )  # (N, 2, 3)
    grid = F.affine_grid(theta, (n, 1, 56, 56), align_corners=False)
    smooth = F.grid_sample(padded, grid, mode="bicubic", align_corners=False)

    threshold = 0.6 + uniform(0.08)
    crisp = torch.sigmoid(10 * (smooth - threshold[:, None, None, None]))
    return F.avg_pool2d(crisp, 2)


# ---------------------------------------------------------------------------------------------
# mnist, fashion_mnist: torchvision downloads, verifies and unpacks
# ---------------------------------------------------------------------------------------------

SILENCE = 30  # seconds without a byte before a download is given up


def data_root(root=None, *, present=lambda folder: False):
    """Folder of the downloaded files: `root`, else `COURSE_DATA`, else the course's `data/`.

    Where `data/` cannot be written, as in an installation that many share, and is not known to
    hold what is looked for (`present`, a function of the folder), it is a folder of the user's.
    """
    root = root or os.environ.get("COURSE_DATA")
    if root:
        return Path(root).expanduser()
    shared = Path(__file__).parents[1] / "data"
    if present(shared) or os.access(shared, os.W_OK):
        return shared
    return platformdirs.user_cache_path("course_utils")


def _torchvision(name, size, root):
    """Three pairs (grey images in [0, 1], labels): train 50 000 / val 10 000 / test 10 000."""
    class_name = NAMES[name]
    try:
        # Imported only here: a broken torchvision must not stop work on the embedded digits.
        from torchvision import datasets
    except Exception as error:  # RuntimeError when its build does not fit torch's
        raise ImportError(
            f"{name} needs torchvision, which does not import here ({error}). Reinstall torch "
            "and torchvision together, or use the embedded images: "
            'load("digits"), COURSE_DATASET=digits'
        ) from error
    dataset_class = getattr(datasets, class_name)
    root = data_root(root, present=lambda folder: (folder / class_name / "raw").is_dir())
    full, test = _read(dataset_class, root) or _download(dataset_class, root)

    def grey(images):  # (N, 28, 28) uint8 -> (N, 1, size, size) in [0, 1]
        images = images[:, None].float() / 255
        if size == 8:
            images = F.pad(images, (2, 2, 2, 2))
        return F.avg_pool2d(images, images.shape[-1] // size)

    return [
        (grey(full.data[:50_000]), full.targets[:50_000].long()),
        (grey(full.data[50_000:]), full.targets[50_000:].long()),
        (grey(test.data), test.targets.long()),
    ]


def _read(dataset_class, root):
    """Train and test, or None if a file is missing or damaged, whatever torchvision says of it."""
    try:
        parts = [dataset_class(root, train=train) for train in (True, False)]
    except Exception:
        return None
    return parts if [len(part) for part in parts] == [60_000, 10_000] else None


def _download(dataset_class, root):
    """Download, verify (MD5, by torchvision) and unpack aside, then move into place, and read.

    Whatever happens on the way, nothing is left behind.
    """
    name = dataset_class.__name__
    raw = root / name / "raw"
    try:
        # Aside, but on the same disk: in the nearest folder that exists.
        aside = {"prefix": ".download-", "dir": next(p for p in raw.parents if p.is_dir())}
        with tempfile.TemporaryDirectory(**aside, ignore_cleanup_errors=True) as staging:
            staged = Path(staging, name, "raw")
            staged.mkdir(parents=True)
            for archive in raw.glob("*.gz"):  # archives brought by hand spare the download
                shutil.copy(archive, staged)
            with _silence_limited():
                dataset_class(staging, download=True)
            parts = _read(dataset_class, staging)
            if parts is None:
                raise RuntimeError("the unpacked files are damaged")
            raw.mkdir(parents=True, exist_ok=True)
            for file in staged.glob("*-ubyte"):
                os.replace(file, raw / file.name)
    except Exception as error:  # of the network, of the disk, or of torchvision's own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConnectionError(
            f"{name} could not be downloaded to {raw}. Nothing was left half-written. "
            "Check the network, and that this folder can be written, then try again; or put its "
            "four .gz archives into that folder, whole (a damaged one is downloaded again); or "
            f'use the embedded images: load("digits"), COURSE_DATASET=digits. Reason: {reason}'
        ) from None
    return parts


@contextlib.contextmanager
def _silence_limited():
    """Sockets opened in this context give up after `SILENCE` seconds without a byte."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


# ---------------------------------------------------------------------------------------------
# One's own pictures
# ---------------------------------------------------------------------------------------------

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def load_images(folder, *, size=28, levels=256, color=False, val=0.1, test=0.1, seed=DATA_SEED):
    """Load a folder of pictures, split at random, as integer images.

    Pictures that lie in sub-folders get as label the rank of their sub-folder's name, in
    alphabetical order; pictures that lie in the folder itself have no labels. Hidden files, and
    files whose name does not end like a picture's (`PICTURES`), are skipped.

    Each picture is turned upright as its camera says, its transparent parts laid on white paper,
    its largest centred square resized. In grey, a pixel is a quantity of ink, 1 − brightness, as
    in the other data sets; in colour, it is red, green and blue.

    Args:
        folder: path of the folder; `~` is the home folder.
        size: height and width of an image in pixels, any positive integer.
        levels: number of values a pixel can take, 2 to 256. With 2 levels, each intensity is
            thresholded at one half.
        color: keep the colours, `(N, 3, size, size)`, or not, `(N, 1, size, size)`.
        val, test: share of the pictures in each of these parts, which hold one at least. Every
            class has its share, to within one picture.
        seed: draws the split: as long as the folder keeps its pictures, so does each part.

    Returns:
        Dataset: named like the folder; train / val / test of uint8 images `(N, C, size, size)`,
            and int64 labels `(N,)` or None.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an argument is out of range, the folder holds too few pictures, some in it
            and others in its sub-folders, or one that cannot be read.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.resolve()}: expected a folder of pictures")
    if not is_whole(size, 1):
        raise ValueError(f"size={size!r}: expected a positive integer (pixels)")
    check_levels(levels)

    files = _pictures(folder)
    classes = [group for entry in _visible(folder) if (group := _pictures(entry))]
    if files and classes:
        raise ValueError(
            f"{folder} holds pictures, {files[0].name} first, beside sub-folders of pictures: "
            "expected one sub-folder per class and no other picture, or all the pictures in one "
            "folder, for no labels"
        )
    groups = classes or [files]
    files = [file for group in groups for file in group]
    labels = torch.tensor([label for label, group in enumerate(groups) for _ in group])
    n_val, n_test = (max(1, round(share * len(files))) for share in (val, test))
    if len(files) <= n_val + n_test or val <= 0 or test <= 0:
        raise ValueError(
            f"{len(files)} pictures in {folder} and its sub-folders, val={val}, test={test}: "
            "expected at least three pictures, whose names end in "
            f"{', '.join(PICTURES)}, and positive shares of sum below 1"
        )

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(files), generator=generator)
    # Class after class, so that evenly spaced pictures are of all classes.
    order = order[labels[order].argsort(stable=True)]
    test_indices, rest = _evenly(order, n_test)
    val_indices, train_indices = _evenly(rest, n_val)

    images = torch.stack([quantize(_intensities(file, size, color), levels) for file in files])
    splits = []
    for indices in (train_indices, val_indices, test_indices):
        indices = indices[torch.randperm(len(indices), generator=generator)]  # classes mixed again
        splits.append(Split(images[indices], labels[indices] if classes else None))
    return Dataset(folder.resolve().name, levels, *splits)


def _visible(folder):
    """What a folder holds, by name, but for hidden files and folders."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda e: e.name)


def _pictures(folder):
    """The pictures that lie in a folder itself, by name."""
    return [e for e in _visible(folder) if e.suffix.lower() in PICTURES and e.is_file()]


def _evenly(order, count):
    """Take `count` elements, evenly spaced, out of `order`: those taken, and the others."""
    taken = torch.zeros(len(order), dtype=torch.bool)
    taken[(2 * torch.arange(count) + 1) * len(order) // (2 * count)] = True
    return order[taken], order[~taken]


def _intensities(file, size, color):
    """One picture as intensities `(C, size, size)` in [0, 1]; see `load_images`."""
    try:
        with Image.open(file) as picture:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode == "F":
            raise ValueError("its floating-point pixels have no known range")
        if picture.mode.startswith("I"):  # 16 bits per pixel; `convert` would clip them at 255
            bytes_ = (np.asarray(picture) // 256).clip(0, 255).astype(np.uint8)
            picture = Image.fromarray(bytes_)
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture).convert("RGB" if color else "L")
        pixels = np.array(ImageOps.fit(picture, (size, size)))
    except Exception as error:  # a decoder may raise anything on a damaged file
        raise ValueError(
            f"{file} could not be read as a picture ({error}): "
            "save it again as a .png, or take it out of the folder"
        ) from None
    intensities = torch.from_numpy(pixels).float() / 255  # (size, size) or (size, size, 3)
    return intensities.permute(2, 0, 1) if color else 1 - intensities[None]
