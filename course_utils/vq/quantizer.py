"""The codebook of a VQ-VAE: the nearest atom, the copied gradient, atoms that learn and revive."""

import torch
import torch.nn.functional as F
from torch import nn

SCORES_AT_ONCE = 2**19  # distances in memory at a time, whatever the number of atoms
DEAD_BELOW = 0.25  # an atom is moved if it served at most this share of what the average one did


def nearest_atoms(z, codebook):
    """For each vector, the number of its nearest atom; the smallest number if several are.

    ‖z − e‖² = ‖z‖² − 2 z·e + ‖e‖², and ‖z‖² is the same for all atoms: one product does it, some
    positions at a time. No difference z − e is formed, and memory does not depend on K.

    Args:
        z: `(B, D, h, w)`.
        codebook: `(K, D)`.

    Returns:
        `(B, h, w)`, int64 in {0, …, K − 1}.
    """
    half_norms = 0.5 * codebook.square().sum(1)
    atoms = codebook.T.contiguous()  # (D, K)
    codes = []
    for image in z:
        vectors = image.flatten(1).T  # (h · w, D)
        chunks = vectors.split(max(1, SCORES_AT_ONCE // len(codebook)))
        codes += [torch.addmm(half_norms, part, atoms, alpha=-1).argmin(1) for part in chunks]
    return torch.cat(codes).view(len(z), *z.shape[2:])


class Quantize(torch.autograd.Function):
    """z_q and the two distances of the objective, with the gradients of the paper (section 3.2).

    The same as

        z_q        = z_e + (e − z_e).detach()               # the gradient is copied to the encoder
        codebook   = ((z_e.detach() − e) ** 2).sum(…)       # moves the atoms
        commitment = ((z_e − e.detach()) ** 2).sum(…)       # moves the encoder

    in half the time and memory: the three share one difference, and z_q is e, bit for bit.
    """

    @staticmethod
    def forward(ctx, z_e, codebook, codes):
        """`z_e` `(B, D, h, w)`, `codes` `(B, h, w)` -> z_q, like z_e, and two distances `(B,)`."""
        z_q = torch.empty_like(z_e).copy_(F.embedding(codes, codebook).movedim(-1, 1))
        difference = z_e - z_q
        ctx.save_for_backward(difference, codes)
        ctx.num_codes = len(codebook)
        distance = difference.flatten(1).square().sum(1)
        return z_q, distance, distance.clone()

    @staticmethod
    def backward(ctx, grad_z_q, grad_codebook, grad_commitment):
        difference, codes = ctx.saved_tensors
        grad_codebook, grad_commitment = (
            2 * grad[:, None, None, None] for grad in (grad_codebook, grad_commitment)
        )
        grad_z_e = torch.addcmul(grad_z_q, grad_commitment, difference)
        grad_atoms = None
        if ctx.needs_input_grad[1]:
            grad_atoms = sum_by_code(-grad_codebook * difference, codes, ctx.num_codes)
        return grad_z_e, grad_atoms, None


def sum_by_code(z, codes, num_codes):
    """Sum of the vectors `(B, D, h, w)` that have each code `(B, h, w)`: `(num_codes, D)`."""
    vectors = z.movedim(1, -1).flatten(0, -2)
    return vectors.new_zeros(num_codes, z.shape[1]).index_add_(0, codes.flatten(), vectors)


class VectorQuantizer(nn.Module):
    """A codebook of K atoms of D dimensions; each vector is replaced by its nearest atom.

    In training mode, `forward` has side effects, all of them on buffers (or, for a gradient
    codebook that restarts atoms, on the entries of the parameter): the first batch gives the atoms
    their first values; with `ema`, the atoms follow the mean of their vectors (appendix A.1 of the
    paper); every `restart_every` steps, the atoms that hardly served since the last time are moved
    onto vectors of the batch, drawn at random.

    Args:
        num_codes: K.
        code_dim: D.
        ema: True: exponential moving averages. False: the atoms are a `Parameter`, which the
            codebook loss moves.
        decay: of the moving averages.
        from_data: take the first atoms from the first batch.
        restart_every: steps; 0 never restarts.

    Attributes:
        codebook: `(K, D)`; a buffer with `ema`, else a `Parameter`.
    """

    def __init__(
        self,
        num_codes,
        code_dim,
        *,
        ema=True,
        decay=0.95,
        from_data=True,
        restart_every=20,
    ):
        super().__init__()
        if num_codes < 2:
            raise ValueError(f"num_codes={num_codes}: expected at least two atoms")
        if code_dim < 1:
            raise ValueError(f"code_dim={code_dim}: expected at least one dimension")
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: expected 0 ≤ decay < 1")
        if restart_every < 0:
            raise ValueError(f"restart_every={restart_every}: expected a number of steps, or 0")
        self.num_codes, self.code_dim = num_codes, code_dim
        self.ema, self.decay = ema, decay
        self.restart_every = restart_every
        codebook = torch.empty(num_codes, code_dim).uniform_(-1 / num_codes, 1 / num_codes)
        if ema:
            self.register_buffer("codebook", codebook)
            self.register_buffer("counts", torch.ones(num_codes))  # N_k: moving average of the uses
            self.register_buffer("sums", codebook.clone())  # m_k: and of the sum of the vectors
        else:
            self.codebook = nn.Parameter(codebook)
        self.register_buffer("started", torch.tensor(not from_data))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("uses", torch.zeros(num_codes, dtype=torch.int64))  # since a restart

    def nearest(self, z):
        """`(B, D, h, w)` -> codes `(B, h, w)`, int64."""
        return nearest_atoms(z.detach(), self.codebook.detach())

    def embed(self, codes):
        """Codes `(B, h, w)` -> atoms `(B, D, h, w)`."""
        return F.embedding(codes.long(), self.codebook).movedim(-1, 1)

    def forward(self, z_e):
        """Quantise `(B, D, h, w)`.

        Returns:
            z_q, like z_e, whose gradient goes to z_e unchanged; codes `(B, h, w)`; and two equal
            squared distances `(B,)`: ‖sg[z_e] − e‖², for the codebook, and ‖z_e − sg[e]‖², the
            commitment of the encoder.
        """
        if z_e.dim() != 4 or z_e.shape[1] != self.code_dim:
            raise ValueError(f"expected vectors (B, {self.code_dim}, h, w), got {tuple(z_e.shape)}")
        # in a training on 16 bits too, distances and moving averages keep those of the codebook
        with torch.autocast(z_e.device.type, enabled=False):
            return self._quantize(z_e.to(self.codebook.dtype))

    def _quantize(self, z_e):
        if self.training and not self.started:
            self._move(torch.ones_like(self.uses, dtype=torch.bool), z_e)
            self.started.fill_(True)
        codes = self.nearest(z_e)
        z_q, codebook, commitment = Quantize.apply(z_e, self.codebook, codes)
        if self.training:  # after z_q: this batch has seen the atoms as they were
            self._learn(z_e, codes)
        return z_q, codes, codebook, commitment

    @torch.no_grad()
    def _learn(self, z_e, codes):
        """What a training step teaches the buffers."""
        uses = codes.flatten().bincount(minlength=self.num_codes)
        self.uses += uses
        self.steps += 1
        if self.ema:
            self.counts.lerp_(uses.to(self.counts.dtype), 1 - self.decay)
            self.sums.lerp_(sum_by_code(z_e, codes, self.num_codes), 1 - self.decay)
            self.codebook.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])
        if self.restart_every and self.steps % self.restart_every == 0:
            self._move(self.uses <= DEAD_BELOW * self.uses.float().mean(), z_e)
            self.uses.zero_()

    @torch.no_grad()
    def _move(self, which, z_e):
        """Put some atoms, `(K,)` booleans, onto vectors of the batch drawn at random."""
        vectors = z_e.movedim(1, -1).flatten(0, -2)
        count = int(which.sum())
        drawn = torch.randperm(len(vectors), device=z_e.device)[:count]
        if len(drawn) < count:  # fewer vectors than atoms: some are drawn again
            more = torch.randint(len(vectors), (count - len(drawn),), device=z_e.device)
            drawn = torch.cat([drawn, more])
        self.codebook[which] = vectors[drawn]
        if self.ema:
            self.counts[which] = 1.0
            self.sums[which] = vectors[drawn]


def perplexity(codes, num_codes):
    """exp(entropy) of the frequencies of codes: how many of the K atoms seem to serve.

    It depends on how many codes are counted: give it those of a whole data set, not of a batch.
    """
    share = codes.flatten().long().bincount(minlength=num_codes).double()
    share = share / share.sum()
    return torch.exp(torch.special.entr(share).sum()).item()
