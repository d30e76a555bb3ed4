"""Exercises of notebook 02: concatenation, conditional ELBO, class grid, completion, prior."""

import torch
import torch.nn.functional as F

from ..cvae import CVAE, visible_part
from ..language import tr, trn
from ..vae import kl_between_gaussians, kl_to_standard_normal
from . import Exercise
from .harness import SameAs, Wrong, gradients, lent, listed, remixed, tensor
from .notebook_01 import COSTS


# ---- 02.join -----------------------------------------------------------------------------------


def join(z, labels, num_classes):
    """z (B, d), puis la classe en « un parmi K » (one-hot). Résultat : (B, d + K)."""
    return torch.cat([z, F.one_hot(labels, num_classes)], dim=1)


def _labelled_codes():
    for B, d, K in ((3, 2, 4), (5, 4, 10)):
        draws = torch.Generator().manual_seed(B)
        z = torch.randn(B, d, generator=draws)
        yield f"K = {K}", [z, torch.randint(K, (B,), generator=draws), K]


Exercise(
    "02.join",
    join,
    SameAs(
        join,
        _labelled_codes,
        what=tr("une ligne par image"),
        where=lambda i, z, labels, K: tr(
            "z = {z} et la classe {c}, la case {place}",
            z=listed(z[i[0]]),
            c=labels[i[0]].item(),
            place=list(i),
        ),
        gradient=("z",),
        dtype=torch.float32,
        slips=(
            (
                lambda z, labels, K: torch.cat([F.one_hot(labels, K), z], dim=1),
                tr("La classe vient avant z."),
            ),
            (
                lambda z, labels, K: torch.cat([z, labels[:, None].expand(-1, K)], dim=1),
                tr("C'est le numéro de la classe, répété."),
            ),
            (
                lambda z, labels, K: join(z.detach(), labels, K),
                tr("Il ne traverse plus votre fonction."),
            ),
        ),
        praise=tr("bonnes formes, bonnes valeurs, et le gradient atteint z."),
    ),
    (
        tr("F.one_hot(labels, num_classes) donne le vecteur « un parmi K » de chaque classe."),
        tr(
            "torch.cat colle des tenseurs ; dim=1 les met côte à côte, image par image : z d'abord."
        ),
        tr("Le gradient traverse torch.cat ; ni .detach(), ni .item(), ni numpy, ni no_grad."),
    ),
)


# ---- 02.elbo -----------------------------------------------------------------------------------


def conditional_elbo(q, prior, likelihood):
    """q = q(z|x,c), prior = p(z|c), likelihood = p(x|z,c) : (Z,). Résultat en nats."""
    kl = (q * torch.log(q / prior)).sum()
    return (q * torch.log(likelihood)).sum() - kl


def broken_conditional_elbo(q, prior, likelihood):
    log_p = torch.log((prior * likelihood).sum())  # log p(x|c), comme sur la diapositive
    kl = (q * torch.log(q / prior)).sum()
    return (q * log_p).sum() - kl


def _tables():
    draws = torch.Generator().manual_seed(0)
    for size in (2, 3, 5):
        logits = torch.randn(3, size, generator=draws)
        yield "", [*logits[:2].softmax(1), torch.sigmoid(logits[2])]  # the last: of a single x


def _kl(q, p):
    return q @ (q / p).log()


Exercise(
    "02.elbo",
    conditional_elbo,
    SameAs(
        conditional_elbo,
        _tables,
        what=tr("un seul nombre"),
        number=True,
        where=lambda i, q, prior, likelihood: tr(
            "q = {q}, p(z|c) = {prior} et p(x|z,c) = {likelihood}",
            q=listed(q),
            prior=listed(prior),
            likelihood=listed(likelihood),
        ),
        slips=(
            (
                broken_conditional_elbo,
                tr("C'est encore la formule de la diapositive : son premier terme est log p(x|c)."),
            ),
            (
                lambda q, prior, likelihood: (q @ likelihood).log() - _kl(q, prior),
                tr("Vous prenez le logarithme de la moyenne, et non la moyenne des logarithmes."),
            ),
            (
                lambda q, prior, likelihood: q @ likelihood.log() + _kl(q, prior),
                tr("La KL se retranche, et vaut Σ q log(q/p)."),
            ),
            (lambda q, prior, likelihood: q @ likelihood.log(), tr("La KL manque.")),
            (
                lambda q, prior, likelihood: q @ likelihood.log() - 2 * _kl(q, prior),
                tr("La KL est double."),
            ),
            (
                lambda q, prior, likelihood: -conditional_elbo(q, prior, likelihood),
                tr("C'est −ELBO : on demande la borne, pas le coût."),
            ),
            (
                lambda q, prior, likelihood: q @ likelihood.log() - _kl(prior, q),
                tr("La KL est dans l'autre sens : elle va de q vers p(z|c)."),
            ),
            (
                lambda q, prior, likelihood: (prior @ likelihood).log(),
                tr("C'est log p(x|c), et non sa borne."),
            ),
            (
                lambda q, prior, likelihood: prior @ likelihood.log() - _kl(q, prior),
                tr("L'espérance est sous p(z|c) : elle doit l'être sous q."),
            ),
        ),
        praise=tr("votre borne est juste : ELBO + KL(q‖postérieur) = log p(x|c)."),
    ),
    (
        tr("ELBO = log-vraisemblance de x sachant z, moyennée sous q, moins la KL de q à p(z|c)."),
        tr(
            "Sur la diapositive, la KL est juste. Mais l'espérance porte sur log p(x|z,c), pas sur "
            "log p(x|c) : que vaut likelihood ?"
        ),
        tr("ELBO = E_q[log p(x|z,c)] − KL(q‖p(z|c)), avec E_q[f(z)] = Σ_z q(z) f(z)."),
    ),
    broken=broken_conditional_elbo,
)


# ---- 02.grid -----------------------------------------------------------------------------------


def class_grid(model, z):
    """Ligne k : la classe k ; colonne j : le style z[j]. z : (n, d). (10 n, 1, H, W)."""
    labels = torch.arange(10).repeat_interleave(len(z))  # 0, 0, …, 1, 1, …
    return model.decode(z.repeat(10, 1), labels)  # z[0], z[1], …, z[0], z[1], …


def _decoders():
    """Untrained models: any of them tells the classes and the codes apart."""
    for n, height, width, z_dim in ((8, 4, 5, 3), (3, 6, 4, 2)):
        model = CVAE((1, height, width), num_classes=10, z_dim=z_dim, hidden=(16,)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter.requires_grad_(False))
        yield tr("{n} codes", n=n), [model, torch.randn(n, z_dim)]


Exercise(
    "02.grid",
    class_grid,
    SameAs(
        class_grid,
        _decoders,
        what=tr("une grille d'images"),
        dtype=torch.float32,
        where=lambda i, model, z: tr(
            "ligne {row}, colonne {column}, pixel ({i[2]}, {i[3]})",
            row=i[0] // len(z),
            column=i[0] % len(z),
            i=i,
        ),
        slips=(
            (
                lambda model, z: model.decode(
                    z.repeat_interleave(10, 0), torch.arange(10).repeat(len(z))
                ),
                tr(
                    "Vos classes changent d'une image à la suivante : la ligne k doit montrer la "
                    "classe k."
                ),
            ),
            (
                lambda model, z: model.decode(
                    z.repeat_interleave(10, 0), torch.arange(10).repeat_interleave(len(z))
                ),
                tr("Les classes sont à leur place, pas les styles : une colonne garde le même z."),
            ),
            (
                lambda model, z: model.decode(z.repeat(10, 1), torch.arange(10).repeat(len(z))),
                tr(
                    "Les styles sont à leur place, pas les classes : la ligne k montre la classe k."
                ),
            ),
            (
                lambda model, z: class_grid(model, z[:1].expand_as(z)),
                tr("Toutes vos colonnes ont le même style."),
            ),
        ),
        praise=tr("la ligne k montre la classe k, la colonne j le style z[j]."),
    ),
    (
        tr(
            "Il faut 10 n codes et 10 n classes, dans l'ordre de lecture : ligne par ligne. Et ce "
            "que rend model.decode, tel quel."
        ),
        tr(
            "Les codes se répètent en bloc, z.repeat(10, 1) ; les classes une à une, "
            "torch.arange(10).repeat_interleave(n)."
        ),
        tr("model.decode(codes, classes) fait le reste."),
    ),
)


# ---- 02.complete -------------------------------------------------------------------------------


def complete(x, mask, n, prior, decode):
    """n complétions de l'image x (1, H, W), dont mask (H, W) est vrai aux pixels visibles.

    La condition est c = visible_part(x[None], mask). prior(c) : mu, logvar (1, d).
    decode(z, c) : probabilité de chaque pixel, (n, 1, H, W), pour z (n, d).
    Résultat : (n, 1, H, W), des 0 et des 1.
    """
    c = visible_part(x[None], mask)  # (1, 2, H, W)
    mu, logvar = prior(c)
    z = mu + torch.exp(0.5 * logvar) * torch.randn(n, mu.shape[1])  # n tirages différents
    pixels = torch.bernoulli(decode(z, c))
    return torch.where(mask, x.float(), pixels)  # les pixels visibles sont recopiés


def _check_law(z, mu, sigma, law):
    """Raise unless the rows of z `(n, d)`, n in the hundreds, look like draws of N(mu, σ²).

    law: its name, for the message.
    """
    epsilon = (z - mu) / sigma
    if len(epsilon.abs().unique(dim=0)) < len(epsilon):
        raise Wrong(
            tr("des lignes de z ont le même ε, au signe près : il faut un tirage par image.")
        )
    mean, variance = epsilon.mean(0), epsilon.var(0)
    if not ((mean.abs() < 0.25).all() and ((0.75 < variance) & (variance < 1.3)).all()):
        text = tr(
            "vos codes z ne suivent pas {law} : en les ramenant à ε = (z − mu) / σ, on trouve une "
            "moyenne {mean} et une variance {variance}, au lieu de 0 et 1. Rappel : "
            "σ = exp(logvar / 2).",
            law=law, mean=listed(mean), variance=listed(variance),
        )  # fmt: skip
        raise Wrong(text)
    if (epsilon.T.corrcoef().tril(-1).abs() > 0.3).any():
        raise Wrong(tr("les dimensions de z bougent ensemble : il faut un ε pour chacune."))
    if not 0.62 < (epsilon.abs() < 1).float().mean() < 0.75:  # 0.683 for a Gaussian
        raise Wrong(tr("vos codes z ont la bonne variance, mais ne sont pas gaussiens."))


def _check_hidden_pixels(drawn, probability):
    """Raise unless drawn `(n, pixels)` looks like independent draws with these probabilities."""
    if not ((drawn == 0) | (drawn == 1)).all():
        raise Wrong(tr("on attend des 0 et des 1 : tirez chaque pixel (torch.bernoulli)."))
    for p in probability.unique():
        alike = probability == p  # which images, for each pixel
        shares = (drawn * alike).sum(0) / alike.sum(0)
        share = shares[(shares - p).abs().argmax()].item()
        if not abs(share - p) < 0.15:
            text = tr(
                "là où decode donne la probabilité {p:.2g} à un pixel caché, vous le noircissez "
                "avec la fréquence {share:.2g}.",
                p=p, share=share,
            )  # fmt: skip
            raise Wrong(text)
    residual = (drawn - probability).T  # (pixels, n)
    if (residual.corrcoef().tril(-1).abs() > 0.3).any():
        raise Wrong(tr("vos pixels cachés noircissent ensemble : tirez chacun d'eux."))


def _trial(answer, n, height, width, d):
    """Complete an image, check each step; return the codes, and the hidden pixels and their p."""
    asked, codes = [], []
    mu = torch.tensor([[5.0, -5.0, 0.0, 2.0]])[:, :d]
    sigma = torch.tensor([[0.2, 1.0, 2.0, 0.5]])[:, :d]
    x = (torch.arange(height * width).view(1, height, width) % 3 == 0).to(torch.uint8)
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(0)) < 0.5

    def prior(c):
        asked.append(("prior", c))
        return mu.repeat(len(c), 1), 2 * sigma.log().repeat(len(c), 1)

    def light_or_dark(z):
        """By its own code; and the reverse at one pixel out of two."""
        light = (z[:, 1] > -5).view(-1, 1, 1, 1)
        odd = (torch.arange(height * width) % 2 == 1).view(height, width)
        return torch.where(light ^ odd, 0.75, 0.25).to(z.dtype)

    def decode(z, c):
        asked.append(("decode", c))
        codes.append(z)
        return light_or_dark(z)

    c = ("B", 2, height, width)
    laws = lent("prior", prior, c=c), lent("decode", decode, z=("B", d), c=c)
    result = answer(x, mask, n, *laws)
    images = tensor(result, (n, 1, height, width), tr("{n} images pour n = {n}", n=n))
    if {name for name, _ in asked} != {"prior", "decode"}:
        raise Wrong(tr("il faut appeler prior(c), pour la loi de z, puis decode(z, c)."))
    for name, c in asked:
        if not (c == visible_part(x[None], mask)).all():
            raise Wrong(tr("{name} ne reçoit pas c = visible_part(x[None], mask).", name=name))
    z = torch.cat(codes).detach()[-n:]  # after a first try, may be
    if len(z) != n:
        text = trn(
            "decode a reçu {count} code : il en faut un par complétion, {n}.",
            "decode a reçu {count} codes : il en faut un par complétion, {n}.",
            len(z), n=n,
        )  # fmt: skip
        raise Wrong(text)
    _check_law(z, mu, sigma, tr("la loi de prior(c)"))
    if not (images == x)[:, :, mask].all():
        raise Wrong(tr("un pixel visible a changé : recopiez x partout où mask est vrai."))
    drawn, probability = images[:, 0, ~mask], light_or_dark(z)[:, 0, ~mask].double()
    _check_hidden_pixels(drawn, probability)
    return z, drawn, probability


def check_complete(answer):
    first, second, _ = (_trial(answer, 600, *size) for size in ((4, 5, 3), (4, 5, 3), (5, 3, 4)))
    (z, drawn, p), (again, drawn_again, p_again) = first, second
    if (z == again).all() or (drawn == drawn_again)[p == p_again].all():
        raise Wrong(tr("deux appels donnent les mêmes tirages : votre hasard ne change jamais."))
    return tr("chaque z suit prior(c), chaque pixel caché suit decode ; le visible est intact.")


Exercise(
    "02.complete",
    complete,
    check_complete,
    (
        tr(
            "La condition faite : mu et logvar de prior(c) ; n codes z = µ + σ ε ; les "
            "probabilités de decode(z, c) ; un tirage de chaque pixel ; enfin, recopier les pixels "
            "visibles."
        ),
        tr("ε = torch.randn(n, d), avec d = mu.shape[1] : un ε par complétion."),
        tr("torch.where(mask, x, pixels) garde x où mask est vrai, et prend pixels ailleurs."),
    ),
)


# ---- 02.prior ----------------------------------------------------------------------------------


def cvae_loss(x, c, encode, prior, decode):
    """Coût d'un CVAE à loi a priori apprise, en nats par image : un seul nombre pour le lot.

    x (B, C, H, W) : des 0 et des 1. encode(x, c) et prior(c) : mu, logvar (B, d).
    decode(z, c) : log-cotes des pixels, (B, C, H, W). La KL s'écrit en forme close.
    """
    mu_q, logvar_q = encode(x, c)
    mu_p, logvar_p = prior(c)
    z = mu_q + torch.exp(0.5 * logvar_q) * torch.randn_like(mu_q)
    bce = F.binary_cross_entropy_with_logits(decode(z, c), x, reduction="none")
    squares = (mu_q - mu_p) ** 2 / logvar_p.exp()
    kl = 0.5 * (squares + (logvar_q - logvar_p).exp() - 1 - (logvar_q - logvar_p)).sum(dim=1)
    return (bce.flatten(1).sum(dim=1) + kl).mean()


def _networks(images, mu_q, logvar_q, mu_p, logvar_p, decode):
    """The condition, the number of each image, and the three networks, `lent`, which look it up.

    decode: codes and numbers of the images → logits.
    """
    every = torch.arange(float(len(images)))[:, None]

    def by_condition(name, function, **shapes):
        def called(c, **others):
            whole = len(c) == len(every)  # or image by image
            if not (torch.equal(c, every) if whole else torch.isin(c, every).all()):
                text = tr(
                    "{name} ne reçoit pas la condition c de chaque image, telle quelle.", name=name
                )
                raise Wrong(text)
            return function(**others, rows=c.flatten().long())

        return lent(name, called, **shapes, c=("B", 1))

    def encode(x, rows):
        if not torch.equal(x, images[rows]):
            raise Wrong(tr("encode ne reçoit pas les images x, dans l'ordre de leurs conditions."))
        return mu_q[rows], logvar_q[rows]

    def prior(rows):
        return mu_p[rows], logvar_p[rows]

    return (
        every,
        by_condition("encode", encode, x=("B", *images.shape[1:])),
        by_condition("prior", prior),
        by_condition("decode", decode, z=("B", mu_q.shape[1])),
    )


def _check_z(answer, B=400):
    """The code that decode receives: its law, its chance, and the gradient that runs through it."""
    draws = torch.Generator().manual_seed(0)
    mu = (3 * torch.randn(B, 2, generator=draws)).requires_grad_()
    logvar = torch.randn(B, 2, generator=draws).requires_grad_()
    x, zeros = torch.zeros(B, 1, 1, 2), torch.zeros(B, 2)
    calls = []
    for _ in range(2):
        received = []

        def decode(z, rows, received=received):
            received.append((z, rows))
            return z.view(-1, 1, 1, 2)

        answer(x, *_networks(x, mu, logvar, zeros, zeros, decode))
        if not received:
            raise Wrong(tr("votre coût n'appelle pas decode(z, c)."))
        calls.append([torch.cat(parts) for parts in zip(*received)])
    (z, rows), (again, _) = calls
    sigma = (logvar / 2).exp().detach()
    _check_law(z.detach(), mu[rows].detach(), sigma[rows], tr("la loi q(z|x,c)"))
    if torch.equal(z, again):
        raise Wrong(tr("deux appels donnent les mêmes tirages : votre hasard ne change jamais."))
    moved = (z - mu[rows]).detach() / 2  # ∂z/∂logvar = σ ε / 2
    slopes = gradients(z.sum(), (mu, logvar))
    for name, slope, each in zip(("mu", "logvar"), slopes, (torch.ones_like(moved), moved)):
        if not torch.allclose(slope, torch.zeros(B, 2).index_add(0, rows, each), atol=1e-4):
            text = tr(
                "le gradient qui remonte de z à {name} de q est nul ou faux : il faut "
                "z = mu + σ ε, avec σ = exp(logvar / 2), sans rien détacher (ni .sample(), ni "
                ".detach()).",
                name=name,
            )
            raise Wrong(text)


def _without_chance(loss):
    """The cost as a function of what the networks say, for a decoder that ignores z."""

    def cost(x, mu_q, logvar_q, mu_p, logvar_p, logits):
        def decode(z, rows):
            return logits[rows] + 0 * z.sum()

        return loss(x, *_networks(x, mu_q, logvar_q, mu_p, logvar_p, decode))

    return cost


def _batches():
    for B, shape, d in ((4, (1, 2, 3), 2), (3, (2, 5, 4), 7)):
        draws = torch.Generator().manual_seed(B)
        laws = torch.randn(4, B, d, generator=draws)  # mu_q, logvar_q, mu_p, logvar_p
        x = (torch.rand(B, *shape, generator=draws) < 0.5).float()
        name = tr("un lot de {B} images de {D} pixels", B=B, D=x[0].numel())
        yield name, [x, *laws, torch.randn(B, *shape, generator=draws)]


def _parts(x, mu_q, logvar_q, mu_p, logvar_p, logits, divergence=kl_between_gaussians):
    """The reconstruction, the KL; how many pixels, images, and dimensions of z."""
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
    kl = divergence(mu_q, logvar_q, mu_p, logvar_p).mean()
    return reconstruction, kl, x[0].numel(), len(x), mu_q.shape[1]


def _with(divergence):
    return lambda *inputs: sum(_parts(*inputs, divergence)[:2])


_same_cost = SameAs(
    _without_chance(cvae_loss),
    _batches,
    what=tr("un seul nombre pour le lot"),
    gradient=("mu_q", "logvar_q", "mu_p", "logvar_p", "logits"),
    slips=(
        (_with(lambda mu_q, logvar_q, *p: kl_between_gaussians(*p, mu_q, logvar_q)),
         tr("La KL est dans l'autre sens : q, puis p(z|c).")),
        (_with(lambda mu_q, logvar_q, *p: kl_to_standard_normal(mu_q, logvar_q)),
         tr("C'est la KL vers N(0, I) : visez p(z|c).")),
        *remixed(_parts, *COSTS),
    ),
    praise=tr("la loi de z, la valeur du coût et ses gradients sont justes."),
)  # fmt: skip


def check_cvae_loss(answer):
    _check_z(answer)
    return _same_cost(_without_chance(answer))


Exercise(
    "02.prior",
    cvae_loss,
    check_cvae_loss,
    (
        tr("Comme l'exercice 2 du notebook 01, mais la KL va de q vers p(z|c) = N(mu_p, σ_p²)."),
        tr(
            "En une dimension : KL = ½ [ (µ_q − µ_p)² / σ_p² + σ_q² / σ_p² − 1 − log(σ_q² / σ_p²) "
            "]."
        ),
        tr(
            "Reconstruction : somme sur les pixels ; KL : somme sur les dimensions de z ; puis la "
            "moyenne sur les images. Et z = µ_q + σ_q ε, pour que le gradient passe."
        ),
    ),
)
