"""The self-checks refuse typical mistakes, and say which.

Those that a check knows, its `slips`, are in the package: `test_exercises.py` tries them.
"""

import functools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exercise_answers import refused

from course_utils.autoregressive import FVSBN, NADE
from course_utils.autoregressive.pixelcnn import gate
from course_utils.cvae import visible_part
from course_utils.evaluation import enumerate_images
from course_utils.exercises import exercises
from course_utils.vae import kl_between_gaussians, reparameterize

REFERENCES = {key: exercise.reference for key, exercise in exercises().items()}


# ---- answers that have steps, one of which is wrong ----------------------------------------------


def see(x, mask):
    return visible_part(x[None], mask)


def draw_each(mu, logvar, n):
    return mu + torch.exp(0.5 * logvar) * torch.randn(n, mu.shape[1])


def drawing(noise):
    """The codes of 02.complete, made of another noise."""
    return lambda mu, logvar, n: mu + torch.exp(0.5 * logvar) * noise(n, mu.shape[1])


def completing(seen=see, told=None, codes=draw_each, pixels=torch.bernoulli, copy=torch.where):
    """An answer to 02.complete.

    seen: function of x and the mask, the condition that prior and decode receive; told: function
    of that condition, what decode receives in its place.
    """

    def complete(x, mask, n, prior, decode):
        c = seen(x, mask)
        z = codes(*prior(c), n)
        return copy(mask, x.float(), pixels(decode(z, told(c) if told else c)))

    return complete


def complete_without_the_prior(x, mask, n, prior, decode):
    c = visible_part(x[None], mask)
    return torch.where(mask, x, torch.bernoulli(decode(torch.randn(n, 3), c)))


def complete_with_numpy_draws(x, mask, n, prior, decode):
    images = completing()(x, mask, n, prior, decode)
    return images.numpy()


def costing(code=reparameterize, kl=kl_between_gaussians, pixels=None, total=torch.mean):
    """An answer to 02.prior."""

    def cvae_loss(x, c, encode, prior, decode):
        mu, logvar = encode(x, c)
        logits = decode(code(mu, logvar), c)
        bce = (pixels or F.binary_cross_entropy_with_logits)(logits, x, reduction="none")
        return total(bce.flatten(1).sum(1) + kl(mu, logvar, *prior(c)))

    return cvae_loss


def noisy(noise):
    """An answer to 02.prior, the code of which is made of another noise."""
    return costing(code=lambda mu, logvar: mu + torch.exp(0.5 * logvar) * noise(mu))


def always_the_same(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def cvae_loss_that_decodes_twice(x, c, encode, prior, decode):
    decode(encode(x, c)[0], c)
    return costing()(x, c, encode, prior, decode)


def summing(images=enumerate_images, value=torch.exp, total=torch.sum):
    """An answer to 03a.total."""
    return lambda log_prob, shape: total(value(log_prob(images(shape))))


def miscounted(which, error):
    """An answer to 03a.count, one of whose numbers is wrong by error(D, H)."""

    def count_parameters(D, H):
        counts = list(REFERENCES["03a.count"](D, H))
        counts[which] += error(D, H)
        return counts

    return count_parameters


def count_the_models_weights(D, H):
    fvsbn, nade = FVSBN((1, 1, D)), NADE((1, 1, D), hidden=H)
    each = torch.arange(D) * H + 2 * H + 1  # what pixels 1, …, D own without sharing
    shared = sum(weights.numel() for weights in nade.parameters())
    return [fvsbn.mask().sum() + fvsbn.b.numel(), each.sum(), shared]


def nade_reading(seen):
    """The log-odds by the definition; pixel i (from 0) reads the first seen(i) pixels."""

    def nade_logits(x, W, V, b, c):
        a = [c + x[:, : seen(i)] @ W[: seen(i)] for i in range(x.shape[1])]
        return torch.stack([torch.sigmoid(a_i) @ V[i] + b[i] for i, a_i in enumerate(a)], dim=1)

    return nade_logits


def nade_with_a_triangular_mask(x, W, V, b, c):
    before = torch.ones(len(W), len(W), dtype=x.dtype).tril(-1)
    h = torch.sigmoid(c + torch.einsum("ij,bj,jh->bih", before, x, W))
    return torch.einsum("bih,ih->bi", h, V) + b


def rank_from_one(ordering):
    return ordering.argsort() + 1


def masking(rank=rank_from_one, see=torch.ge, speak=torch.gt):
    """An answer to 03a.masks: `rank` of the pixels, then m see d, and d speak m."""

    def made_masks(ordering, m):
        d = rank(ordering)
        return see(m[:, None], d[None, :]), speak(d[:, None], m[None, :])

    return made_masks


def encoding(before=lambda bits, p: (bits, p), after=lambda code: code):
    """An answer to 03a.encode that changes what comes in, or what goes out."""
    return lambda bits, p: after(REFERENCES["03a.encode"](*before(bits, p)))


def encode_with_floats(bits, probabilities, longest=None):
    low, width = 0.0, 1.0
    for bit, p in zip(bits, probabilities):
        low, width = (low, width * p) if bit else (low + width * p, width * (1 - p))
    length = 0
    while length != longest and not math.ceil(low * 2**length) < (low + width) * 2**length:
        length += 1
    return format(math.ceil(low * 2**length), f"0{length}b") if length else ""


def trying(
    pixels=range, compared=lambda j: slice(j + 1), images=..., change=None, same=torch.equal
):
    """An answer to 03b.causal, which changes `pixels(D)` and compares some of the outputs."""

    def is_causal(network, x):
        before = network(x).flatten(1)[images]
        for j in pixels(before.shape[1]):
            changed = x.clone()
            value = changed.flatten(1)[:, j]
            changed.flatten(1)[:, j] = 1 - value if change is None else change(value)
            after = network(changed).flatten(1)[images]
            if not same(after[:, compared(j)], before[:, compared(j)]):
                return False
        return True

    return is_causal


def causal_that_spoils_x(network, x):
    x[:, :, 0, 0] = 1 - x[:, :, 0, 0]
    return REFERENCES["03b.causal"](network, x)


def asking(change):
    """An answer to 03b.causal, which gives the network something else."""
    return lambda network, x: REFERENCES["03b.causal"](lambda x: network(change(x)), x)


def pixels_before(layers, size, row, column):
    return (torch.arange(size * size) < row * size + column).view(size, size)


def field_without_blind_spot(layers, size, row, column):
    i = torch.arange(size)
    near = ((i - row).abs() <= layers)[:, None] & ((i - column).abs() <= layers)
    return near & pixels_before(layers, size, row, column)


def field_of_a_symmetric_triangle(layers, size, row, column):
    up, right = row - torch.arange(size)[:, None], torch.arange(size) - column
    triangle = (up > 0) & (up <= layers) & (right.abs() <= up)
    return triangle | (up == 0) & (right < 0) & (right >= -layers)


def field_with_the_output(layers, size, row, column):
    read = REFERENCES["03b.field"](layers, size, row, column)
    read[row, column] = True
    return read


def down(x):
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def stacking(start=down, masked=lambda layer: layer == 0, again=None, add=True, out="h"):
    """A `two_stacks`, whose vertical stack starts from `start(x)`.

    masked: the layers with the mask A; again: what each other layer does first to the vertical
    stack; add: whether the residual link is there.
    """

    def two_stacks(x, kernels):
        v, h = start(x), x
        for layer, (W_v, W_h, W_link) in enumerate(kernels):
            W_h = W_h * torch.tensor([1.0, 0.0]) if masked(layer) else W_h
            v = again(v) if again and layer else v
            above = F.conv2d(F.pad(v, (1, 1, 1, 0)), W_v)
            gates = F.conv2d(F.pad(h, (1, 0, 0, 0)), W_h) + F.conv2d(above, W_link)
            v = gate(above)
            h = h + gate(gates) if layer and add else gate(gates)
        return {"h": h, "v": v, "both": (v, h)}[out]

    return two_stacks


def stacks_with_all_the_kernels_masked_in_place(x, kernels):
    for _, W_h, _ in kernels:
        W_h[..., 1] = 0
    return REFERENCES["03b.stacks"](x, kernels)


def reviving(dead=lambda uses: uses == 0, drawn=lambda z, n: z[torch.randperm(len(z))[:n]]):
    """A `revive` of the atoms `dead`, put onto the vectors `drawn`."""

    def revive(codebook, uses, z):
        which = dead(uses)
        result = codebook.clone()
        result[which] = drawn(z, int(which.sum()))
        return result

    return revive


def revive_in_place(codebook, uses, z):
    codebook[uses == 0] = z[torch.randperm(len(z))[: int((uses == 0).sum())]]
    return codebook


def revive_that_sorts_the_atoms(codebook, uses, z):
    drawn = z[torch.randperm(len(z))[: int((uses == 0).sum())]]
    return torch.cat([codebook[uses > 0], drawn])


# ---- whatever the exercise, what the harness says ------------------------------------------------


def kl_with_numpy(mu, logvar):
    mu, logvar = mu.numpy(), logvar.numpy()
    return -0.5 * np.sum(1 + logvar - mu**2 - np.exp(logvar), axis=1)


def kl_in_place(mu, logvar):
    """Ugly, but right: the check must not be fooled by answers that edit their input."""
    result = logvar.exp().sub_(logvar).sub_(1)
    result += mu.pow_(2)
    return result.sum(1).div_(2)


def kl_in_a_buffer(mu, logvar):
    variance = logvar.exp()
    variance -= 1  # the gradient of exp needs its value
    return 0.5 * (mu**2 + variance - logvar).sum(1)


def kl_that_goes_backward(mu, logvar):
    result = REFERENCES["01.kl"](mu, logvar)
    result.sum().backward()
    return result


def aggregate_around_the_best_of_all(z, mu, logvar):
    log_q = torch.distributions.Normal(mu, (0.5 * logvar).exp()).log_prob(z[:, None]).sum(2)
    return (log_q - log_q.max()).exp().mean(1).log() + log_q.max()


def ensemble_around_the_best_of_all(logits, x):
    log_p = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(2)
    return (log_p - log_p.max()).exp().mean(0).log() + log_p.max()


def of(key, change):
    """The right answer, changed at the end."""
    return lambda *args: change(REFERENCES[key](*args))


WRONG = [
    # no number, no tensor, several; another shape, another type
    ("00.bits", of("00.bits", str), "on attend un nombre de bits, pas un objet de type str"),
    ("04.kl", lambda q: math.log(q.shape[1]) + torch.special.xlogy(q, q).sum(1),
     "on attend un scalaire, la somme sur les codes ; reçu : un tableau de forme (1,)."),
    ("01.sum_mean", of("01.sum_mean", torch.Tensor.item), "ni `.item()`, ni `float`"),
    ("02.grid", of("02.grid", torch.Tensor.numpy), "pas un objet de type ndarray"),
    ("03b.mixture", of("03b.mixture", list), "pas 17 tenseurs"),
    ("03a.recursion", of("03a.recursion", lambda logits: logits.T), "(2, 3) ; reçu : (3, 2)"),
    ("02.join", of("02.join", torch.Tensor.double), "`.to(torch.float32)` convertit"),
    ("04.nearest", of("04.nearest", torch.Tensor.int), "on attend des torch.int64, pas des"),
    # what it raises, and where; in one of the cases only; nothing returned
    ("01.kl", kl_with_numpy, "la ligne `mu, logvar = mu.numpy(), logvar.numpy()`, sur RuntimeErr"),
    ("03a.count", lambda D, H: {}["H"], "sur KeyError : `'H'`"),
    ("04.kl", lambda q: torch.special.xlogy(q, q).sum() + (q @ torch.ones(q.shape[1], 1)).sum()
     * math.log(q.shape[1]), "pour les mêmes, en float64 : votre fonction s'arrête"),
    ("04.revive", lambda codebook, uses, z: None, "avez-vous oublié `return` ?"),
    # an argument changed; a gradient that cannot be had, right in part, for ever 0
    ("01.kl", kl_in_place, "votre fonction change `mu`"),
    ("01.kl", kl_in_a_buffer, "mais pas son gradient : RuntimeError"),
    ("01.kl", kl_that_goes_backward, "un `.backward()` dans votre fonction"),
    ("01.kl", lambda mu, logvar: REFERENCES["01.kl"](mu, logvar.detach()),
     "gradient que reçoit logvar. Il n'en reçoit aucun"),
    ("04.loss", lambda lp, z, e, b: (-lp + (z - e.detach()).square().sum(1)).mean(),
     "Gradient juste pour log_px, faux pour z_e et e"),
    # one maximum for the whole batch: it hides the least likely
    ("01.aggregate", aggregate_around_the_best_of_all, "il faut rester en logarithmes"),
    ("03a.ensemble", ensemble_around_the_best_of_all, "Un calcul déborde"),
    # 02.complete. The condition: of all pixels, without its mask; decode is not told it
    ("02.complete", completing(seen=lambda x, mask: see(x, torch.ones_like(mask))),
     "prior ne reçoit pas c = visible_part(x[None], mask)."),
    ("02.complete", completing(seen=lambda x, mask: see(x, mask)[:, :1]),
     "prior(c) : c doit être de forme (B, 2, 4, 5) ; reçu : (1, 1, 4, 5)."),
    ("02.complete", completing(told=torch.zeros_like), "decode ne reçoit pas c = visible_part"),
    # one code for all; p(z|c) ignored; logvar taken for log σ; one noise for all dimensions
    ("02.complete", completing(codes=lambda mu, lv, n: draw_each(mu, lv, 1).repeat(n, 1)),
     "des lignes de z ont le même ε"),
    ("02.complete", completing(codes=lambda mu, lv, n: draw_each(mu, lv, 1)), "de forme (600, 1,"),
    ("02.complete", lambda x, mask, n, *laws: completing()(x, mask, 1, *laws).repeat(n, 1, 1, 1),
     "decode a reçu 1 code : il en faut un par complétion, 600."),
    ("02.complete", complete_without_the_prior, "il faut appeler prior(c), pour la loi de z"),
    ("02.complete", completing(codes=lambda mu, lv, n: torch.randn(n, mu.shape[1])),
     "ne suivent pas la loi de prior(c)"),
    ("02.complete", completing(codes=lambda mu, lv, n: draw_each(mu, 2 * lv, n)),
     "au lieu de 0 et 1. Rappel : σ = exp(logvar / 2)"),
    ("02.complete", completing(codes=drawing(lambda n, d: torch.randn(n, 1))),
     "les dimensions de z bougent ensemble"),
    # another mean, a colder noise, one that is not Gaussian, one that never changes
    ("02.complete", completing(codes=drawing(lambda n, d: torch.randn(n, d) + 0.5)), "suivent pas"),
    ("02.complete", completing(codes=drawing(lambda n, d: 0.8 * torch.randn(n, d))), "suivent pas"),
    ("02.complete", completing(codes=drawing(lambda n, d: (torch.rand(n, d) - 0.5) * 12**0.5)),
     "pas gaussiens"),
    ("02.complete", completing(codes=drawing(always_the_same)), "donnent les mêmes tirages"),
    # visible pixels not copied; probabilities; rounded; the same draw for all images, pixels, calls
    ("02.complete", completing(copy=lambda mask, x, pixels: pixels), "un pixel visible a changé"),
    ("02.complete", completing(pixels=lambda p: p), "on attend des 0 et des 1"),
    ("02.complete", completing(pixels=torch.round),
     "là où decode donne la probabilité 0,25 à un pixel caché, vous le noircissez avec la "
     "fréquence 0."),
    ("02.complete", completing(pixels=lambda p: torch.rand(p.shape[1:]) < p), "la fréquence 1."),
    ("02.complete", completing(pixels=lambda p: torch.rand(len(p), 1, 1, 1) < p),
     "vos pixels cachés noircissent ensemble : tirez chacun d'eux."),
    ("02.complete",
     completing(pixels=lambda p: torch.bernoulli(p, generator=torch.Generator().manual_seed(0))),
     "donnent les mêmes tirages"),
    ("02.complete", complete_with_numpy_draws, "`torch.as_tensor` convertit"),
    # 02.prior. The KL: the other way, to N(0, I), forgotten, double, halved; a sum over the images,
    # one number for each; a number, or a law, without gradient
    ("02.prior", costing(kl=lambda *q_p: kl_between_gaussians(*q_p[2:], *q_p[:2])), "l'autre sens"),
    ("02.prior", costing(kl=lambda mu, lv, *p: REFERENCES["01.kl"](mu, lv)), "vers N(0, I)"),
    ("02.prior", costing(kl=lambda *q_p: 0), "La KL manque."),
    ("02.prior", costing(kl=lambda *q_p: 2 * kl_between_gaussians(*q_p)), "La KL est double"),
    ("02.prior", costing(kl=lambda *q_p: kl_between_gaussians(*q_p) / 2),
     "Gradient juste pour logits, faux pour mu_q, logvar_q, mu_p et logvar_p."),
    ("02.prior", costing(total=torch.sum), "Vous avez sommé sur les images du lot"),
    ("02.prior", costing(total=lambda costs: costs), "on attend un seul nombre pour le lot, de"),
    ("02.prior", costing(total=lambda costs: costs.mean().item()), "aucun gradient n'y passe"),
    ("02.prior",
     costing(kl=lambda *q_p: kl_between_gaussians(*q_p[:2], *(t.detach() for t in q_p[2:]))),
     "le gradient que reçoit mu_p"),
    # a mean over the pixels, a second sigmoid
    ("02.prior",
     costing(pixels=lambda s, x, **_: F.binary_cross_entropy_with_logits(s, x).expand(len(x), 1)),
     "La reconstruction est une moyenne sur les pixels."),
    ("02.prior",
     costing(pixels=lambda s, x, **how: F.binary_cross_entropy_with_logits(s.sigmoid(), x, **how)),
     "faux pour logits"),
    # z without gradient, or half of it; without noise; of σ = 1, of another image; of one noise
    ("02.prior", costing(code=lambda *q: reparameterize(*q).detach()), "de z à mu de q est nul"),
    ("02.prior", costing(code=lambda mu, lv: reparameterize(mu, lv.detach())), "à logvar de q est"),
    ("02.prior", costing(code=lambda mu, lv: mu), "des lignes de z ont le même ε"),
    ("02.prior", costing(code=lambda mu, lv: mu + torch.randn_like(mu)),
     "ne suivent pas la loi q(z|x,c)"),
    ("02.prior", costing(code=lambda mu, lv: reparameterize(mu.flip(0), lv)), "ne suivent pas"),
    ("02.prior", noisy(lambda mu: torch.randn(len(mu), 1)), "les dimensions de z bougent ensemble"),
    ("02.prior", noisy(lambda mu: always_the_same(*mu.shape)), "donnent les mêmes tirages"),
    # z not decoded, decoded twice; the conditions or the images of others, x and c swapped
    ("02.prior", lambda x, c, encode, *_: encode(x, c)[0].mean(), "votre coût n'appelle pas dec"),
    ("02.prior", cvae_loss_that_decodes_twice, "des lignes de z ont le même ε"),
    ("02.prior", lambda x, c, encode, prior, decode: costing()(x, c, encode,
                                                               lambda c: prior(c.flip(0)), decode),
     "prior ne reçoit pas la condition c de chaque image, telle quelle."),
    ("02.prior", lambda x, c, encode, *laws: costing()(x, c, lambda x, c: encode(1 - x, c), *laws),
     "encode ne reçoit pas les images x"),
    ("02.prior", lambda x, c, encode, *laws: costing()(x, c, lambda x, c: encode(c, x), *laws),
     "encode(x, c) : x doit être de forme (B, 1, 1, 2) ; reçu : (400, 1)."),
    ("02.prior", lambda x, c, encode, prior, decode: costing()(x, c, encode, prior,
                                                               lambda z, c: decode(z)),
     "decode(z, c) : votre fonction lui passe d'autres arguments."),
    ("02.prior", lambda x, c, encode, prior, decode: costing()(x, c, encode, prior,
                                                               lambda z, c: decode(z, c, x)),
     "decode(z, c) : votre fonction lui passe d'autres arguments."),
    # 03a.total. log p not exponentiated; no sum; already known; cut at 1; softmax
    ("03a.total", summing(value=lambda log_p: log_p), "de somme 1,000 sur les images (1, 2, 5)"),
    ("03a.total", summing(total=lambda p: p), "de forme (1024,)"),
    ("03a.total", lambda log_prob, shape: 1.0, "il y a 1024 images binaires de forme (1, 2, 5) ; "
     "vous en demandez 0, dont 0 différentes."),
    ("03a.total", summing(total=lambda p: min(1.0, p.sum())), "de somme 1,200"),
    ("03a.total", summing(value=lambda log_p: log_p.softmax(0)), "de somme 0,931 sur les images"),
    # one image missing, all of them twice; floats, arrays, other values; flat
    ("03a.total", summing(lambda shape: enumerate_images(shape)[1:]), "vous en demandez 1023"),
    ("03a.total", summing(lambda shape: enumerate_images(shape).repeat(2, 1, 1, 1)),
     "vous en demandez 2048, dont 1024 différentes."),
    ("03a.total", summing(lambda shape: enumerate_images(shape).float()), "reçu : torch.float32"),
    ("03a.total", summing(lambda shape: enumerate_images(shape).numpy()),
     "log_prob(x) : x doit être un tenseur, pas un objet de type ndarray."),
    ("03a.total", summing(lambda shape: 2 * enumerate_images(shape)), "attend des pixels 0 ou 1."),
    ("03a.total", summing(lambda shape: enumerate_images(shape).flatten(1)),
     "log_prob(x) : x doit être de forme (B, 1, 2, 5) ; reçu : (1024, 10)."),
    # 03a.count. i weights for i − 1; the b_i forgotten; one c for each pixel; for small images only
    ("03a.count", miscounted(0, lambda D, H: D), "FVSBN : on attend 1 ; vous obtenez 2."),
    ("03a.count", miscounted(1, lambda D, H: -D), "sans partage : on attend 3 ; vous obtenez 2"),
    ("03a.count", miscounted(2, lambda D, H: D * H - H),
     "pour D = 3, H = 2, NADE avec partage : on attend 17 ; vous obtenez 21"),
    ("03a.count", miscounted(0, lambda D, H: D // 784), "attend 307720 ; vous obtenez 307721"),
    ("03a.count", of("03a.count", sum), "on attend trois entiers : `return fvsbn, sans_partage"),
    ("03a.count", of("03a.count", lambda n: n[1:]), "on attend trois entiers : `return fvsbn, "),
    ("03a.count", count_the_models_weights, "reçu : Tensor, Tensor, int"),
    # 03a.recursion. One pixel more, one less; right, but each pixel starts the sum again
    ("03a.recursion", nade_reading(lambda i: i + 1), "Chaque pixel se lit lui-même."),
    ("03a.recursion", nade_reading(lambda i: max(i - 1, 0)), "La somme a un pixel de retard."),
    ("03a.recursion", nade_reading(lambda i: i), "plus de pixels coûtent 3,3 fois plus"),
    ("03a.recursion", nade_with_a_triangular_mask, "plus de pixels coûtent 3,1 fois plus"),
    # 03a.masks. The slide's inequality, one too weak, one too strong; ranks from 0
    ("03a.masks", masking(speak=torch.lt), "ordre [0, 1, 2, 3], numéros m = ["),
    ("03a.masks", masking(speak=torch.ge), "vaut 1 au lieu de 0, pour le poids entre le pixel"),
    ("03a.masks", masking(see=torch.gt), "vaut 0 au lieu de 1, pour le poids entre le pixel"),
    ("03a.masks", masking(torch.argsort), "M_W[0, 3] vaut 1 au lieu de 0"),
    # the ordering ignored; taken for its inverse: the raster order does not tell
    ("03a.masks", masking(lambda o: o.sort().values + 1), "ordre [3, 2, 0, 1]"),
    ("03a.masks", masking(lambda ordering: ordering + 1), "ordre [3, 2, 0, 1]"),
    # transposed; a mask alone
    ("03a.masks", of("03a.masks", lambda masks: [mask.T for mask in masks]),
     "une ligne par neurone, de forme (6, 4) ; reçu : (4, 6)"),
    ("03a.masks", of("03a.masks", lambda masks: masks[0]), "on attend deux masques"),
    # 03a.encode. 0 keeps the beginning; p ignored; backwards; the last bit lost; p rounded
    ("03a.encode", encoding(lambda bits, p: ([1 - b for b in bits], [1 - Fraction(q) for q in p])),
     "C'est le 1 qui garde le début de l'intervalle, pas le 0"),
    ("03a.encode", encoding(lambda bits, p: (bits, [0.5] * len(p))), "l'intervalle est ["),
    ("03a.encode", encoding(lambda bits, p: (bits[::-1], p[::-1])),
     "bits `[1, 0]`, probabilités `[0.5, 0.625]` : l'intervalle est"),
    ("03a.encode", encoding(lambda bits, p: (bits[:-1], p[:-1])),
     "probabilités `[0.75, 0.25, 0.5]` : l'intervalle est"),
    ("03a.encode", encoding(lambda bits, p: (bits, [Fraction(round(256 * q), 256) for q in p])),
     "12 bits : l'intervalle"),
    # zeros in front lost; too long; the end of the interval, which is not inside
    ("03a.encode", encoding(after=lambda code: code.lstrip("0")), "perd ses zéros de tête."),
    ("03a.encode", lambda bits, p: "000" if bits == [1] else encoding()(bits, p),
     "−log₂ p = 1,00 bit, il faut moins de 2 chiffres de plus, et votre code en compte 3 en tout."),
    ("03a.encode", lambda bits, p: "1" if p[1:] == [0.625] else encoding()(bits, p),
     "C'est la fin, exclue, de l'intervalle."),
    # floats that run out after some fifty bits, in two ways
    ("03a.encode", encode_with_floats, "OverflowError"),
    ("03a.encode", functools.partial(encode_with_floats, longest=900), "n'en tient que 53"),
    # no string of digits
    ("03a.encode", encoding(after=len), "on attend un seul texte"),
    ("03a.encode", encoding(after=lambda code: "0." + code), "; reçu : `'0."),
    # 03b.causal. Its own pixel forgotten; all the outputs; itself only; the opposite
    ("03b.causal", trying(compared=lambda j: slice(j)),
     "un réseau dont chaque sortie lit son propre pixel n'est pas causal ; vous répondez True"),
    ("03b.causal", trying(compared=lambda j: slice(None)),
     "un réseau de deux convolutions masquées est causal ; vous répondez False"),
    ("03b.causal", trying(compared=lambda j: slice(j, j + 1)), "le pixel de droite n'est pas"),
    ("03b.causal", lambda network, x: np.bool_(False), "deux convolutions masquées est causal"),
    # pixels left out: all but the first, the last; all but one in two; always zeros, or ones
    ("03b.causal", trying(lambda dims: [0]), "n'est pas causal ; vous répondez True"),
    ("03b.causal", trying(lambda dims: [dims - 1]), "n'est pas causal ; vous répondez True"),
    ("03b.causal", trying(lambda dims: range(dims - 1)), "seule la sortie (4, 5) lit le pixel (4"),
    ("03b.causal", trying(lambda dims: range(1, dims)), "seule la sortie (0, 0) lit le pixel (0"),
    ("03b.causal", trying(change=lambda v: 0 * v), "seule la sortie (1, 2) lit le pixel (1, 2)"),
    ("03b.causal", trying(change=lambda v: 0 * v + 1), "seule la sortie (3, 1) lit le pixel (3"),
    # one image only, all but the first; a tolerance
    ("03b.causal", trying(images=slice(1)), "que sur la dernière image n'est pas causal"),
    ("03b.causal", trying(images=slice(1, None)), "que sur la première image n'est pas causal"),
    ("03b.causal", trying(same=torch.allclose), "change à peine sa propre"),
    # no truth value; x changed; changed by NaN; as integers; as arrays; flat
    ("03b.causal", lambda network, x: network(x) > 0, "True ou False, pour tout le réseau."),
    ("03b.causal", causal_that_spoils_x, "votre fonction change `x`"),
    ("03b.causal", trying(change=lambda v: v * math.nan), "ni NaN, ni autre valeur"),
    ("03b.causal", asking(torch.Tensor.long), "pixels 0. ou 1."),
    ("03b.causal", asking(torch.Tensor.numpy), "network(x) : x doit être un tenseur, pas un obj"),
    ("03b.causal", asking(torch.flatten), "x doit être de forme (B, 1, H, W) ; reçu : (120,)"),
    # 03b.field. No blind spot; no limit; a triangle as wide on the left; the output itself
    ("03b.field", field_without_blind_spot,
     "2 couches, sortie (4, 3) d'une image 7×7 : le pixel (3, 5) n'est pas lu, vous le comptez."),
    ("03b.field", pixels_before, "le pixel (0, 0) n'est pas lu, vous le comptez"),
    ("03b.field", field_of_a_symmetric_triangle, "le pixel (3, 1) est lu, vous l'oubliez"),
    ("03b.field", field_with_the_output, "le pixel (2, 2) ne vient pas avant la sortie."),
    ("03b.field", lambda L, s, r, c: REFERENCES["03b.field"](L, s, c, r), "sortie (4, 3) d'une"),
    # 03b.stacks. No shift: the row is read on the right; the mask A forgotten, or misplaced
    ("03b.stacks", stacking(start=lambda x: x), "la sortie (6, 6) lit le pixel (6, 12), d'après."),
    ("03b.stacks", stacking(masked=lambda layer: False), "lit sa propre valeur"),
    ("03b.stacks", stacking(masked=lambda layer: True), "que pour la première couche."),
    ("03b.stacks", stacking(masked=lambda layer: layer > 0), "lit sa propre valeur"),
    # rolled: the last row comes back on top; only the first row cheats
    ("03b.stacks", stacking(lambda x: x.roll(1, 2)), "la sortie (6, 6) lit le pixel (12,"),
    ("03b.stacks", stacking(lambda x: torch.cat([x[:, :, :1], x[:, :, :-1]], 2)), "sortie (0, 2)"),
    # shifted at each layer; the residual link forgotten; the vertical stack, both; kernels masked
    ("03b.stacks", stacking(again=down), "lit 69 des 84 pixels d'avant ; il manque (1, 12)."),
    ("03b.stacks", stacking(add=False), "(les bons pixels sont lus) : on attend"),
    ("03b.stacks", stacking(out="v"), "lit 78 des 84 pixels d'avant ; il manque (6, 0)"),
    ("03b.stacks", stacking(out="both"), "pas 2 tenseurs"),
    ("03b.stacks", stacks_with_all_the_kernels_masked_in_place, "change `kernels`, que la suite"),
    # 04.revive. None moved, all, some that serve; dead, though few are; rarely used is not dead
    ("04.revive", lambda c, uses, z: c.clone(), "un atome mort n'a pas été posé sur un vecteur de"),
    ("04.revive", reviving(lambda uses: uses == uses.min()), "servent, aucun ne doit bouger"),
    ("04.revive", reviving(lambda uses: uses < uses.max() / 100), "un atome qui servait a été"),
    ("04.revive", reviving(lambda uses: (uses == 0) & ((uses == 0).float().mean() > 0.5)),
     "un atome mort n'a pas été posé"),
    # one vector for all, two, the first ones; elsewhere
    ("04.revive", reviving(drawn=lambda z, n: z[torch.randint(len(z), ())]),
     "les 15 atomes morts sont posés tous au même endroit."),
    ("04.revive", reviving(drawn=lambda z, n: z[[0, 9] * n][:n]), "en 2 endroits seulement."),
    ("04.revive", reviving(drawn=lambda z, n: z[:n]), "au hasard dans tout le lot, à chaque"),
    ("04.revive", reviving(drawn=lambda z, n: z[-n:] + 1), "un vecteur de z"),
    # in place; the atoms in another order; the dead alone; for fewer atoms than vectors
    ("04.revive", revive_in_place, "votre fonction change `codebook`, que la suite du notebook"),
    ("04.revive", revive_that_sorts_the_atoms, "un atome qui servait a été déplacé."),
    ("04.revive", lambda c, uses, z: reviving()(c, uses, z)[uses == 0], "(16, 2) ; reçu : (15, 2)"),
    ("04.revive", reviving(drawn=lambda z, n: z[torch.randperm(len(z) - 20)[:n]]), "s'arrête"),
]  # fmt: skip


@pytest.mark.usefixtures("no_hint_seen")
@pytest.mark.parametrize("key, answer, message", WRONG)
def test_wrong_answers_meet_a_counter_example_and_a_hint(key, answer, message):
    torch.manual_seed(0)
    refused(key, answer, message)
