"""What the models of PixelRNN's family share: raster order, colours, laws, and the way to sample.

    p(x) = ∏ᵢ p(xᵢ,R | x₍<ᵢ₎) p(xᵢ,V | x₍<ᵢ₎, xᵢ,R) p(xᵢ,B | x₍<ᵢ₎, xᵢ,R, xᵢ,V)        (slide 15)

A model turns the image into a map of features, each of which knows only the pixels before it; two
1×1 convolutions turn the features of a pixel into the parameters of its law.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .. import likelihoods
from ..language import tr
from .base import AutoregressiveModel
from .laws import OUTPUTS, Bernoulli, Gaussian
from .masked import MaskedConv2d


class PixelModel(AutoregressiveModel):
    """Base of PixelCNN, RowLSTM and DiagonalBiLSTM.

    A model defines `_features` (the map of features in one pass) and `_cache` (the same, pixel by
    pixel).

    Args:
        shape: `(C, H, W)` of an image.
        levels: number of values of a pixel.
        output: the law of a pixel of more than two levels: `"softmax"`, `"gaussian"` or
            `"logistic mixture"`; see `laws`. With two levels, a Bernoulli.
        num_classes: give it for a model of p(x | y); see `AutoregressiveModel`.
        features: F, number of features of a pixel, and of cells of an LSTM; a multiple of C when
            the channels are linked. By default 32, or the next multiple.
        link_channels: True: V reads R, and B reads R and V, at the same pixel. False: given the
            pixels before, the channels are independent.
        one_hot: show each value to the network as `levels` zeros and ones, instead of as an
            intensity in [0, 1]: for levels that are names, not quantities.
        embedding: or as a row of this table `(levels, E)`, which is not trained.
    """

    def __init__(
        self,
        shape,
        *,
        levels=2,
        output="softmax",
        num_classes=None,
        features=None,
        link_channels=True,
        one_hot=False,
        embedding=None,
    ):
        if one_hot and embedding is not None:
            raise ValueError("give one_hot=True or an embedding, not both")
        if output not in OUTPUTS:
            raise ValueError(f"output={output!r}: expected one of {', '.join(OUTPUTS)}")
        if levels == 2 and output != "softmax":
            raise ValueError(
                f"output={output!r}: a pixel of two levels has but one law, a Bernoulli"
            )
        law = Bernoulli() if levels == 2 else OUTPUTS[output](levels)
        super().__init__(shape, num_classes=num_classes, law=law)
        channels = self.shape[0]
        # raster order, the channels of a pixel one after the other
        self.ordering.copy_(torch.arange(self.dims).view(self.shape).permute(1, 2, 0).flatten())
        self.groups = channels if link_channels else 1
        if features is None:
            features = 32 + -32 % self.groups
        self.features, self.one_hot = features, one_hot
        if features < 1 or features % self.groups:
            raise ValueError(
                f"features={features}: expected a multiple of {self.groups}, as many per colour"
            )
        self.in_features = channels
        if one_hot:
            embedding = torch.eye(self.levels)
        if embedding is not None:
            if embedding.dim() != 2 or len(embedding) != self.levels:
                raise ValueError(
                    f"embedding: expected a row per level, ({self.levels}, E), got "
                    f"{tuple(embedding.shape)}"
                )
            self.in_features *= embedding.shape[1]
            embedding = embedding.detach().clone().float()
        self.register_buffer("embedding", embedding, persistent=not one_hot)
        self.num_outputs = self.law.num_parameters or 1  # parameters of a pixel of one channel
        self.hidden = MaskedConv2d("B", features, features, 1, groups=self.groups)
        self.hidden_bias = nn.Parameter(torch.zeros(features))
        self.out = MaskedConv2d("B", features, channels * self.num_outputs, 1, groups=self.groups)
        self.b = nn.Parameter(torch.zeros(self.num_outputs, *self.shape))

    # ---- what each model defines --------------------------------------------------------------

    def _features(self, x, classes):
        """Features of all the pixels: `x` `(B, in_features, H, W)` -> `(B, F, H, W)`."""
        raise NotImplementedError

    def _cache(self, classes, n):
        """What sampling remembers: an object with

        - `row`: inputs of the current row `(W, in_features, n)`, to be written from left to right;
        - `start_row(row)`: the pixels of all the rows above are known;
        - `features(column)`: features `(F, n)` of a pixel, those on its left being known.
        """
        raise NotImplementedError

    # ---- the contract of the course -----------------------------------------------------------

    @property
    def loss_name(self):
        bound = isinstance(self.law, Gaussian)
        return tr("majorant de −log p(x)") if bound else "−log p(x)"

    def loss(self, x, y=None):
        """Batch mean of −log p(x), nats per image; an upper bound of it for a Gaussian output."""
        log_prob = self.law.training_log_prob(x, self.logits(x, y))
        return -likelihoods.sum_pixels(log_prob).mean()

    def feature_maps(self, x, y=None):
        """What the network makes of float images `(B, C, H, W)`, in levels: maps `(B, F, H, W)`.

        To look inside: they can be differentiated with respect to `x`.
        """
        return self._features(self._inputs(x), self.condition(y, len(x)))

    def encode(self, x, out=None):
        """What the network reads of the values of one channel, floats `(n, …)`: `(features, n, …)`.

        Written into `out` if it is given.
        """
        if self.embedding is None:
            return torch.div(x.unsqueeze(0), self.levels - 1, out=out)
        read = F.embedding(x.long(), self.embedding).movedim(-1, 0)
        return read if out is None else out.copy_(read)

    def _inputs(self, x):
        """Images `(B, C, H, W)` as the network reads them, `(B, in_features, H, W)`."""
        x = self.encode(x).movedim(0, 2).flatten(1, 2)  # (B, C · (1 or E), H, W)
        return x.to(memory_format=torch.channels_last)  # the convolutions prefer it

    def _logits(self, x, classes, ordering):
        h = F.relu(self._features(self._inputs(x.view(-1, *self.shape)), classes))
        h = F.relu(self.hidden(h) + self.hidden_bias[:, None, None])
        out = self.out(h).unflatten(1, (self.shape[0], -1)).transpose(1, 2)  # (B, P, C, H, W)
        out = (out + self.b).flatten(2)
        return out if self.law.num_parameters else out[:, 0]

    def _stepper(self, classes, n, ordering):
        """Features come from the cache; two products make the outputs. See `_cache`."""
        channels, height, width = self.shape
        cache = self._cache(classes, n)
        hidden, out = (conv.masked_weight().flatten(1) for conv in (self.hidden, self.out))
        hidden_bias = self.hidden_bias[:, None]
        # H·W columns: the output biases of a pixel, channel by channel
        biases = self.b.flatten(2).permute(2, 1, 0).flatten(1)[..., None].contiguous().unbind()
        inputs = [
            cell.unflatten(0, (channels, -1)).unbind() for cell in cache.row
        ]  # W × C views (1 or E, n)

        def pixel_outputs(pixel, column):
            h = F.relu(cache.features(column))
            h = torch.addmm(hidden_bias, hidden, h).relu_()
            return torch.addmm(biases[pixel], out, h).chunk(channels)  # C × (P, n)

        outputs = None

        def step(i, seen):
            nonlocal outputs
            pixel, channel = divmod(i, channels)
            row, column = divmod(pixel, width)
            if i > 0:  # the value just drawn
                cell = inputs[(i - 1) // channels % width][(i - 1) % channels]
                self.encode(seen[i - 1], out=cell)
            if column == 0 and channel == 0:
                cache.start_row(row)
            if channel == 0 or self.groups > 1:  # else: the channels do not see each other
                outputs = pixel_outputs(pixel, column)
            return outputs[channel].T if self.law.num_parameters else outputs[channel][0]

        return step


class Bias(nn.Module):
    """What a layer adds to its maps: a bias, at each position if asked, and one of the class.

    A convolution does the same thing everywhere; the map of biases lets it know where it is, which
    helps when the images are centred, as digits are. With `class_map`, each class has its own map:
    the condition depends on the position (arXiv:1606.05328, section 2.3).
    """

    def __init__(self, features, shape, *, position_map=True, num_classes=None, class_map=False):
        super().__init__()
        height, width = shape[1:] if position_map else (1, 1)
        self.size = shape[1:]
        self.map = nn.Parameter(torch.zeros(height, width, features))  # channels last, as the maps
        self.of_class = None
        if num_classes is not None:
            height, width = (height, width) if class_map else (1, 1)
            self.of_class = nn.Parameter(torch.zeros(num_classes, height, width, features))

    def forward(self, classes):
        """Biases `(B, features, H, W)`, or sizes 1 where they do not change."""
        bias = self.map[None]
        if classes is not None:
            bias = bias + torch.tensordot(classes, self.of_class, 1)  # (B, 1 or H, 1 or W, F)
        return bias.permute(0, 3, 1, 2)

    def rows(self, classes):
        """For sampling: a list of H rows `(W or 1, features, n or 1)`."""
        bias = self(classes).permute(2, 3, 1, 0).contiguous()  # (H or 1, W or 1, features, n or 1)
        return bias.expand(self.size[0], *bias.shape[1:]).unbind()
