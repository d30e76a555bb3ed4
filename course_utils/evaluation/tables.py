"""Comparing models: test log-likelihoods side by side."""

import html
import math

import torch

from ..language import tr
from ..likelihoods import bits_per_dim


class Table:
    """Rows of texts under a header: shown as HTML by a notebook, aligned by `print`."""

    def __init__(self, header, rows=()):
        self.header, self.rows = tuple(header), [tuple(row) for row in rows]

    def _cells(self):
        return [self.header, *self.rows]

    def __repr__(self):
        cells = self._cells()
        widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells]
        return "\n".join(lines)

    def _repr_html_(self):
        header, *rows = self._cells()

        def line(cells, opening, closing):
            return "".join(opening + html.escape(cell) + closing for cell in cells)

        head = line(header, '<th scope="col">', "</th>")
        body = "".join(f"<tr>{line(row, '<td>', '</td>')}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class ComparisonTable(Table):
    """Test log-likelihoods of several models, in nats per image and in bits per dimension.

    >>> table = ComparisonTable(dims=784)
    >>> table.add("VAE, z = 2", vae.log_prob(x), bound=True)
    >>> table                                   # the last line of a cell shows it

    Args:
        dims: number of dimensions C·H·W of an image.
        quantity: what is in nats per image, the head of its column.
    """

    def __init__(self, dims, *, quantity="−log p(x)"):
        self.dims, self.quantity, self.rows = dims, quantity, []

    def add(self, model, log_prob, *, bound=False, density=False, note=""):
        """Add a row: the mean of `log_prob` `(B,)`, nats per image, over the images of a test set.

        `bound` marks a lower bound on log p(x) (its negative is then shown with a « ≤ »);
        `density`, the density of a continuous law, which does not compare to a probability.
        """
        log_prob = torch.as_tensor(log_prob).detach().cpu()
        if log_prob.dim() != 1 or len(log_prob) == 0 or not log_prob.is_floating_point():
            raise ValueError(
                f"expected the log-likelihood of each image, (B,), got {tuple(log_prob.shape)} "
                f"{log_prob.dtype}"
            )
        if not torch.isfinite(log_prob).all():
            raise ValueError(f"the log-likelihoods of {model!r} are not all finite")
        if density:
            note = "; ".join(
                filter(None, (note, tr("densité : ne se compare pas aux probabilités")))
            )
        elif (log_prob > 0).any():
            raise ValueError(
                f"{model!r} has log p(x) > 0: this is a density, not a probability, and the two do "
                "not compare. Mark its row: add(…, density=True)"
            )
        nats = -log_prob.double().mean().item()
        error = log_prob.double().std(correction=0).item() / math.sqrt(len(log_prob))
        bits = bits_per_dim(nats, self.dims)
        self.rows.append((model, "≤ " if bound else "", nats, error, bits, note))
        return self

    def _cells(self):
        quantity = f"{self.quantity}, nats/image"
        header = (tr("modèle"), quantity, tr("erreur type"), "bits/dim", tr("remarque"))
        rows = [
            (model, f"{bound}{nats:.1f}", f"± {error:.1f}", f"{bits:.3f}", note)
            for model, bound, nats, error, bits, note in self.rows
        ]
        width = 5 if any(row[-1] for row in rows) else 4
        return [cells[:width] for cells in (header, *rows)]


def on_digits(data, sentence, verdict):
    """Print whether a threshold of the course holds: it was set for the embedded digits alone."""
    verdict = bool(verdict) if data.name == "digits" else tr("sans objet ({name})", name=data.name)
    print(tr("{sentence} : {verdict}", sentence=sentence, verdict=verdict))
