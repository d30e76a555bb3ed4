"""Small models that the checks of notebook 02 train, once per kernel, in a few seconds."""

import functools

import torch

from ..cvae import CVAE, CompletionVAE, visible_part
from ..data import Dataset, Split
from ..evaluation import load_classifier
from .helpers import small_digits, train_small


def _paired(data, pair):
    """The data set of `pair(split) -> images, conditions`."""
    return Dataset(
        data.name, data.levels, *(Split(*pair(s)) for s in (data.train, data.val, data.test))
    )


@functools.cache
def classifier():
    with torch.random.fork_rng(devices=[]):
        return load_classifier()


@functools.cache
def small_class_model():
    """A class-conditional VAE of 14×14 digits (about two seconds)."""
    data = small_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CVAE(data.shape, num_classes=10, z_dim=4, hidden=(64,))
        return train_small(model.start_from(data.train.images), data, conditional=True, steps=300)


LEFT = torch.arange(14).expand(14, 14) < 7  # the visible half


@functools.cache
def small_completion_model():
    """A model that completes 14×14 digits whose left half is visible."""

    def hide_right(split):
        return split.images, visible_part(split.images, LEFT)

    data = small_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CompletionVAE(data.shape, z_dim=8, hidden=(64,))
        model.start_from(data.train.images)
        return train_small(model, _paired(data, hide_right), conditional=True, steps=400)


@functools.cache
def small_halves():
    """x: the right half of a 14×14 digit; condition: its left half."""
    return _paired(small_digits(), lambda split: (split.images[..., 7:], split.images[..., :7]))


def train_half_model(seed, prior="fixed", cvae_loss=None, steps=300):
    """Train p(right half | left half), with the cost `cvae_loss` or the library's.

    Returns:
        minus the ELBO on the test set, nats per image.
    """
    data = small_halves()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CVAE(data.shape, condition_shape=data.shape, prior=prior, z_dim=8, hidden=(64,))
        model.start_from(data.train.images)
        if cvae_loss is not None:
            # `fit` trains anything with a `loss`: here, the student's cost on a library CVAE.
            model.loss = lambda x, y: cvae_loss(
                x.float(),
                y.float(),
                lambda x, c: model.encode(x.to(torch.uint8), c),
                lambda c: model.prior(len(c), c),
                lambda z, c: model.decoder(z, model.condition(c, len(z)))[:, 0],
            )
        train_small(model, data, conditional=True, steps=steps, seed=seed)
        with torch.no_grad():
            elbo = [model.elbo(data.test.images, data.test.labels).mean() for _ in range(20)]
    return -torch.stack(elbo).mean().item()


@functools.cache
def fixed_prior_cost(seed):
    return train_half_model(seed)


@functools.cache
def ambiguous_half():
    """The test image whose hidden half the small model completes in the most varied way."""
    model, judge, images = small_completion_model(), classifier(), small_digits().test
    generator = torch.Generator().manual_seed(0)
    best, best_entropy = None, -1.0
    for image in images.images[:100]:
        x = model.sample(32, visible_part(image[None], LEFT), generator=generator)
        labels, _ = judge.read(x.float())
        share = torch.bincount(labels, minlength=10) / len(labels)
        entropy = torch.special.entr(share).sum().item()
        if entropy > best_entropy:
            best, best_entropy = image, entropy
    return best
