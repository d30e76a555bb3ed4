"""Tables: p(xᵢ | a few pixels before it), counted on the data. No network, no gradient."""

import torch

from ..data import check_images
from .base import AutoregressiveModel

MAX_PARENTS = 12  # a table has 2^parents lines per pixel


def nearest_neighbours(number):
    """Offsets (rows, columns) of the `number` nearest pixels that come before in raster order."""
    reach = range(-number, number + 1)
    before = [(row, column) for row in reach for column in reach if (row, column) < (0, 0)]
    return sorted(before, key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset))[:number]


class MarkovTable(AutoregressiveModel):
    """One table per pixel: its log-odds for each value of its parents, a few pixels before it.

    Args:
        shape: `(C, H, W)` of an image.
        order: the parents are the `order` pixels visited just before: a Markov chain of that
            order. 0 for independent pixels.
        neighbours: instead of `order`, the parents are neighbours in the image, as offsets
            (rows, columns): `((0, -1), (-1, 0))` for the pixels on the left and above. They must
            come before in the ordering. A neighbour outside of the image counts as 0.
        ordering: see `AutoregressiveModel`.

    Call `count(images)` before use: until then every pixel is a fair coin.
    """

    def __init__(self, shape, *, order=None, neighbours=None, ordering=None):
        super().__init__(shape, ordering=ordering)
        if (order is None) == (neighbours is None):
            raise ValueError("give order=… (the pixels just before) or neighbours=…, not both")
        if order is not None and order < 0:
            raise ValueError(f"order={order}: expected 0 or more")
        num_parents = order if neighbours is None else len(neighbours)
        if num_parents > MAX_PARENTS:
            raise ValueError(
                f"{num_parents} parents: a table would have 2^{num_parents} lines per pixel; "
                f"at most {MAX_PARENTS}. That is why the lecture goes on to networks"
            )
        # (D, parents): index of each pixel's parents in the image; D for « outside, always 0 »
        parents = self._just_before(order) if neighbours is None else self._near(neighbours)
        self.register_buffer("parents", parents)
        self.register_buffer("table", torch.zeros(self.dims, 2**num_parents))  # log-odds

    @property
    def dtype(self):
        return self.table.dtype

    def _just_before(self, order):
        position = torch.argsort(self.ordering)
        step = position[:, None] - torch.arange(1, order + 1)  # (D, order)
        return torch.where(step >= 0, self.ordering[step.clamp(min=0)], self.dims)

    def _near(self, neighbours):
        _, height, width = self.shape
        pixel = torch.arange(self.dims)
        row, column = pixel // width % height, pixel % width
        parents = torch.full((self.dims, len(neighbours)), self.dims)
        for k, (rows, columns) in enumerate(neighbours):
            above, left = row + rows, column + columns
            inside = (0 <= above) & (above < height) & (0 <= left) & (left < width)
            parents[inside, k] = (pixel + rows * width + columns)[inside]
        position = _visited_at(self.ordering)
        if not (position[parents] < position[:-1, None]).all():
            raise ValueError(
                f"neighbours={neighbours}: a parent comes after its pixel in this ordering; in "
                "raster order, parents are above, or on the left in the same row"
            )
        return parents

    def count(self, images):
        """Fill the tables with the frequencies of `images` `(N, C, H, W)`; return the model.

        Half an image is added to both values of every line: no probability is 0 or 1.
        """
        check_images(images, self.shape, self.levels)
        counts = torch.full((2, *self.table.shape), 0.5, device=self.table.device)
        for x in images.flatten(1).split(1000):  # in parts: memory does not grow with the images
            line = self._line(x.float())
            for value in (0, 1):
                counts[value].scatter_add_(1, line.T, (x.T == value).float())
        self.table.copy_(counts[1].log() - counts[0].log())
        return self

    def start_from(self, images):
        """The same as `count`: a table has nothing else to learn."""
        return self.count(images)

    def loss(self, x, y=None):
        """−log p(x), for evaluation only: the tables are counted, not trained."""
        if self.training and torch.is_grad_enabled():
            raise TypeError("a MarkovTable is not trained by gradient: call count(images)")
        return super().loss(x, y)

    def _line(self, x):
        """Line of each pixel's table: its parents read as a binary number. `(B, D)` -> `(B, D)`."""
        outside = x.new_zeros(len(x), 1)
        bits = torch.cat([x, outside], 1).long()[:, self.parents]  # (B, D, parents)
        weights = 2 ** torch.arange(self.parents.shape[1], device=x.device)
        return (bits * weights).sum(-1)

    def _logits(self, x, classes, ordering):  # the parents are chosen: no other ordering
        return self.table.gather(1, self._line(x).T).T

    def _stepper(self, classes, n, ordering):
        steps = _visited_at(ordering)[self.parents][ordering]  # (D, parents): when each was visited
        weights = 2 ** torch.arange(self.parents.shape[1], device=steps.device).to(self.dtype)
        table = self.table[ordering]

        def step(i, seen):
            bits = seen[steps[i]] * (steps[i] >= 0)[:, None]  # (parents, n)
            return table[i][(weights @ bits).long()]

        return step


def _visited_at(ordering):
    """`(D + 1,)`: the step at which each pixel is visited; -1, before all, for « outside »."""
    return torch.cat([torch.argsort(ordering), torch.tensor([-1], device=ordering.device)])
