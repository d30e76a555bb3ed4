"""The variational auto-encoder (Kingma & Welling 2014, arXiv:1312.6114).

    x ──encoder──▶ mu, logvar ──reparametrisation──▶ z ──decoder──▶ parameters of p(x | z)

Every quantity is in nats and summed over its dimensions: pixels for the likelihood, latent
dimensions for the KL divergence.
"""

import math

import torch
from torch import nn

from . import likelihoods
from .data import check_images, check_levels, check_shape, layer_sizes, log_frequencies, quantize

LOGVAR_BOUND = 10.0  # |log σ²| stays under this: σ between 0.007 and 150


def kl_to_standard_normal(mu, logvar):
    """Closed form of KL( N(mu, diag(σ²)) ‖ N(0, I) ), with σ² = exp(logvar).

    Args:
        mu, logvar: `(B, z_dim)`.

    Returns:
        `(B,)`, nats, summed over the latent dimensions. Kingma & Welling 2014, appendix B.
    """
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(-1)


def kl_between_gaussians(mu_q, logvar_q, mu_p, logvar_p):
    """Closed form of KL( N(mu_q, diag(σ_q²)) ‖ N(mu_p, diag(σ_p²)) ), with σ² = exp(logvar).

    Measured in units of p: with p = N(0, I) it is `kl_to_standard_normal`.

    Args:
        mu_q, logvar_q, mu_p, logvar_p: `(B, z_dim)`.

    Returns:
        `(B,)`, nats, summed over the latent dimensions.
    """
    return kl_to_standard_normal((mu_q - mu_p) * torch.exp(-0.5 * logvar_p), logvar_q - logvar_p)


def reparameterize(mu, logvar, generator=None):
    """Draw z ~ N(mu, diag(σ²)) as z = mu + σ ε, ε ~ N(0, I): differentiable in mu and logvar.

    Kingma & Welling 2014, section 2.4. Shapes: all `(B, z_dim)`.
    """
    epsilon = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    return mu + torch.exp(0.5 * logvar) * epsilon


def bound_logvar(raw):
    """Squash any number smoothly into (−10, 10), so that exp(logvar) never overflows."""
    return LOGVAR_BOUND * torch.tanh(raw / LOGVAR_BOUND)


def _mlp(sizes):
    """Linear layers with SiLU between them; He's initialisation keeps the signal's size."""
    layers = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    for hidden in layers[:-2:2]:
        nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
        nn.init.zeros_(hidden.bias)
    return nn.Sequential(*layers[:-1])  # the last layer stays linear


class Encoder(nn.Module):
    """q(z | x) = N(mu, diag(σ²)): inputs `(B, *shape)` in [0, 1] -> mu, logvar `(B, z_dim)`.

    With `condition_dim`, q(z | x, c): the condition `(B, condition_dim)` is concatenated to x.
    """

    def __init__(self, shape, z_dim, hidden, condition_dim=0):
        super().__init__()
        self.net = _mlp([math.prod(shape) + condition_dim, *hidden, 2 * z_dim])

    def forward(self, x, condition=None):
        mu, raw_logvar = self.net(_concatenate(x.flatten(1), condition)).chunk(2, dim=1)
        return mu, bound_logvar(raw_logvar)


class Decoder(nn.Module):
    """Parameters of p(x | z): z `(B, z_dim)` -> `(B, num_parameters, C, H, W)`.

    With `condition_dim`, p(x | z, c): the condition `(B, condition_dim)` is concatenated to z.
    """

    def __init__(self, shape, z_dim, hidden, num_parameters=1, condition_dim=0):
        super().__init__()
        self.output_shape = (num_parameters, *shape)
        self.net = _mlp([z_dim + condition_dim, *hidden, math.prod(self.output_shape)])

    def forward(self, z, condition=None):
        return self.net(_concatenate(z, condition)).unflatten(1, self.output_shape)


def _concatenate(features, condition):
    """`(B, n)` and `(B, m)` or None -> `(B, n + m)` or `(B, n)`."""
    return features if condition is None else torch.cat([features, condition], dim=1)


class ImageModel(nn.Module):
    """Base of the models with a decoder: p(x | z), from the decoder's parameters of each pixel.

    A model defines `decoder(z, condition)`, which returns `(B, num_parameters, C, H, W)`, and
    `latent_shape`, that of the code of one image.

    Args:
        shape, levels, likelihood, scale: see `VAE`.
    """

    LIKELIHOODS = ("bernoulli", "categorical", "gaussian", "laplace")

    def __init__(self, shape, levels, likelihood, scale):
        super().__init__()
        check_shape(shape)
        check_levels(levels)
        if likelihood not in self.LIKELIHOODS:
            raise ValueError(f"likelihood={likelihood!r}: expected one of {self.LIKELIHOODS}")
        if likelihood == "bernoulli" and levels != 2:
            raise ValueError(
                f"a Bernoulli likelihood needs binary pixels, not {levels} levels: load the data "
                'with levels=2, or choose likelihood="categorical", "gaussian" or "laplace"'
            )
        if scale is not None and (scale <= 0 or likelihood not in ("gaussian", "laplace")):
            raise ValueError(f"scale={scale}: expected a positive Gaussian or Laplace scale")
        self.shape, self.levels, self.likelihood = tuple(shape), levels, likelihood
        self.num_parameters = levels if likelihood == "categorical" else 1  # of a pixel
        if likelihood in ("gaussian", "laplace"):
            log_scale = torch.tensor(math.log(0.2 if scale is None else scale))
            self.log_scale = nn.Parameter(log_scale, requires_grad=scale is None)

    def condition(self, y, n):
        """What the networks receive beside x and z for `n` images: nothing. `CVAE` overrides it."""
        if y is not None:
            raise ValueError("this VAE has no condition: leave y out, or use CVAE")
        return None

    def pixel_parameters(self, z, y=None):
        """Codes `(B, …)` -> the parameters of the law of each pixel `(B, P, C, H, W)`."""
        if tuple(z.shape[1:]) != self.latent_shape:
            expected = ", ".join(map(str, self.latent_shape))
            raise ValueError(f"expected codes (B, {expected}), got {tuple(z.shape)}")
        return self.decoder(z, self.condition(y, len(z)))

    def decode(self, z, y=None):
        """Codes `(B, …)` -> expected intensity of each pixel `(B, C, H, W)`, in [0, 1]."""
        parameters = self.pixel_parameters(z, y)
        if self.likelihood == "bernoulli":
            return torch.sigmoid(parameters[:, 0])
        if self.likelihood == "categorical":
            level = torch.linspace(0, 1, self.levels, device=z.device).view(-1, 1, 1, 1)
            return (parameters.softmax(1) * level).sum(1)
        return parameters[:, 0].clamp(0, 1)

    def pixel_log_likelihood(self, x, z, y=None):
        """log p(x | z) of each pixel, `(B, C, H, W)`, nats."""
        parameters = self.pixel_parameters(z, y)
        if self.likelihood == "bernoulli":
            return likelihoods.bernoulli(x, parameters[:, 0])
        if self.likelihood == "categorical":
            return likelihoods.categorical(x, parameters)
        x, mean = self._intensity(x), parameters[:, 0]
        if self.likelihood == "gaussian":
            return likelihoods.gaussian(x, mean, 2 * self.log_scale)
        return likelihoods.laplace(x, mean, self.log_scale)

    def log_likelihood(self, x, z, y=None):
        """log p(x | z), `(B,)`, nats summed over the pixels. x `(B, C, H, W)`, z `(B, …)`."""
        return likelihoods.sum_pixels(self.pixel_log_likelihood(x, z, y))

    @torch.no_grad()
    def sample_pixels(self, z, y=None, *, generator=None):
        """Draw x ~ p(x | z): codes `(B, …)` -> integer images `(B, C, H, W)`."""
        if self.likelihood == "bernoulli":
            return torch.bernoulli(self.decode(z, y), generator=generator).to(torch.uint8)
        parameters = self.pixel_parameters(z, y)
        if self.likelihood == "categorical":
            probabilities = parameters.softmax(1).movedim(1, -1)  # (B, C, H, W, levels)
            x = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
            return x.view(probabilities.shape[:-1]).to(torch.uint8)
        mean = parameters[:, 0]
        if self.likelihood == "gaussian":
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        else:  # inverse of the Laplace distribution function, u uniform in (−1/2, 1/2)
            u = torch.rand(mean.shape, generator=generator, device=mean.device) - 0.5
            noise = -u.sign() * torch.log1p(-2 * u.abs() + 1e-7)
        return quantize((mean + self.log_scale.exp() * noise).clamp(0, 1), self.levels)

    def _intensity(self, x):
        """Integers {0, …, levels − 1} -> [0, 1]."""
        return x.to(next(self.parameters()).dtype) / (self.levels - 1)


class VAE(ImageModel):
    """Variational auto-encoder with a standard normal prior and a diagonal Gaussian posterior.

    Args:
        shape: `(C, H, W)` of an image.
        levels: number of values of a pixel; images are integers in {0, …, levels − 1}.
        z_dim: number of latent dimensions.
        hidden: units of the encoder's hidden layers; the decoder mirrors them.
        likelihood: law of a pixel given z. `"bernoulli"` (levels = 2 only), `"categorical"`, or a
            density on the intensity x / (levels − 1): `"gaussian"`, `"laplace"`.
        scale: σ of the Gaussian or b of the Laplace law, in intensity; learned when `None`.
        beta: weight of the KL in `loss` (β-VAE, Higgins et al. 2017). `elbo` and `log_prob` keep
            the weight 1: only then are they bounds on log p(x).
        condition_dims: numbers added to the input of the encoder and of the decoder; for `CVAE`.
    """

    def __init__(
        self,
        shape,
        *,
        levels=2,
        z_dim=16,
        hidden=(400, 200),
        likelihood="bernoulli",
        scale=None,
        beta=1.0,
        condition_dims=(0, 0),
    ):
        super().__init__(shape, levels, likelihood, scale)
        if z_dim < 1:
            raise ValueError(f"z_dim={z_dim}: expected at least one latent dimension")
        if beta < 0:
            raise ValueError(f"beta={beta}: the weight of the KL cannot be negative")
        hidden = layer_sizes(hidden)
        self.z_dim, self.latent_shape, self.beta = z_dim, (z_dim,), beta
        self.encoder = Encoder(shape, z_dim, hidden, condition_dims[0])
        self.decoder = Decoder(shape, z_dim, hidden[::-1], self.num_parameters, condition_dims[1])

    def start_from(self, images):
        """Start the decoder at the best model that ignores z: independent pixels.

        The output bias becomes the log-odds of each pixel of `images` (Bernoulli), the logarithm
        of its histogram (categorical) or its mean (Gaussian, Laplace). Training starts several
        hundred nats lower.

        Args:
            images: integer images `(N, C, H, W)`, usually `data.train.images`.

        Returns:
            the model itself: `VAE(data.shape).start_from(data.train.images)`.
        """
        check_images(images, self.shape, self.levels)
        if self.likelihood in ("bernoulli", "categorical"):
            bias = log_frequencies(images, self.levels)  # (levels, C, H, W)
            if self.likelihood == "bernoulli":
                bias = bias[1:] - bias[:1]
        else:
            bias = self._intensity(images).mean(0)
        with torch.no_grad():
            self.decoder.net[-1].bias.copy_(bias.flatten())
        return self

    # ---- the networks -------------------------------------------------------------------------

    def encode(self, x, y=None):
        """Images `(B, C, H, W)` -> mu, logvar `(B, z_dim)` of q(z | x)."""
        check_images(x, self.shape, self.levels)
        return self.encoder(self._intensity(x), self.condition(y, len(x)))

    def prior(self, n, y=None):
        """mu, logvar `(n, z_dim)` of p(z): zeros, for N(0, I)."""
        self.condition(y, n)
        zeros = next(self.parameters()).new_zeros(n, self.z_dim)
        return zeros, zeros

    # ---- the contract of the course -----------------------------------------------------------

    def elbo_terms(self, x, y=None, *, generator=None):
        """One-sample estimate of E_q[log p(x | z)], and the exact KL( q ‖ p(z) ): `(B,)`, nats."""
        mu, logvar = self.encode(x, y)
        z = reparameterize(mu, logvar, generator)
        kl = kl_between_gaussians(mu, logvar, *self.prior(len(x), y))
        return self.log_likelihood(x, z, y), kl

    def elbo(self, x, y=None, *, generator=None):
        """Evidence lower bound: log p(x) ≥ E_q[log p(x | z)] − KL( q(z | x) ‖ p(z) ).

        Args:
            x: integer images `(B, C, H, W)`.
            y: condition of a `CVAE`; a VAE has none.

        Returns:
            `(B,)`, nats per image; one draw of z estimates the expectation.
        """
        log_likelihood, kl = self.elbo_terms(x, y, generator=generator)
        return log_likelihood - kl

    def log_prob(self, x, y=None, *, num_samples=100, generator=None):
        """Importance-weighted bound on log p(x) (Burda et al. 2016, arXiv:1509.00519, eq. 8).

        log (1/K) Σ_k p(x | z_k) p(z_k) / q(z_k | x), z_k ~ q(z | x). With K = `num_samples` = 1
        it is the ELBO; it rises to log p(x) as K grows.

        Returns:
            `(B,)`, nats per image.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples={num_samples}: expected at least one sample")
        mu, logvar = self.encode(x, y)
        mu_prior, logvar_prior = self.prior(len(x), y)
        log_weights = []
        for _ in range(num_samples):  # one at a time: memory does not grow with K
            z = reparameterize(mu, logvar, generator)
            log_prior = likelihoods.gaussian(z, mu_prior, logvar_prior).sum(1)
            log_posterior = likelihoods.gaussian(z, mu, logvar).sum(1)
            log_weights.append(self.log_likelihood(x, z, y) + log_prior - log_posterior)
        return torch.logsumexp(torch.stack(log_weights), dim=0) - math.log(num_samples)

    @torch.no_grad()
    def sample(self, n, y=None, *, generator=None):
        """Draw `n` integer images `(n, C, H, W)`: z ~ p(z), then every pixel ~ p(x | z)."""
        z = reparameterize(*self.prior(n, y), generator)
        return self.sample_pixels(z, y, generator=generator)

    @property
    def loss_name(self):
        return "−ELBO" if self.beta == 1 else f"−E[log p(x|z)] + {self.beta:g} KL"

    def loss(self, x, y=None):
        """Batch mean of −E_q[log p(x | z)] + β KL, nats per image: what `fit` minimises."""
        log_likelihood, kl = self.elbo_terms(x, y)
        return (self.beta * kl - log_likelihood).mean()
