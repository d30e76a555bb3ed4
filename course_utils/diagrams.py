"""The diagrams of the lecture, redrawn by code, in the colours of their concepts."""

import matplotlib.pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from .figures import COLORS, LATER, ink_on
from .language import tr

DARK = "#444444"  # networks and deterministic steps
NOISE = "$\\varepsilon\\sim\\mathcal{N}(0,I)$"


def box(ax, centre, text, color, *, width=1.5, height=0.9, filled=True):
    """A rounded box of a diagram, in the colour of its concept."""
    x, y = centre
    corner = x - width / 2, y - height / 2
    fill, ink = (color, ink_on(color)) if filled else ("white", color)
    style = "round,pad=0.02,rounding_size=0.15"
    ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=13)
    return ax.add_patch(
        FancyBboxPatch(corner, width, height, boxstyle=style, fc=fill, ec=color, lw=2)
    )


def word(ax, centre, text, *, size=17):
    """A word without a box, such as « + »; arrows stop around it."""
    ax.text(*centre, text, ha="center", va="center", fontsize=size, color=DARK)
    return ax.add_patch(Circle(centre, 0.22, fc="none", ec="none"))


def arrows(ax, *ends, color=DARK, dashed=False, curve=0.0):
    """An arrow from each end to the next: a box, a word or a point, `(x, y)`."""
    for start, end in zip(ends, ends[1:]):
        ax.add_patch(
            FancyArrowPatch(
                _middle(start),
                _middle(end),
                patchA=None if isinstance(start, tuple) else start,
                patchB=None if isinstance(end, tuple) else end,
                arrowstyle="-|>",
                mutation_scale=16,
                color=color,
                lw=1.8,
                ls="--" if dashed else "-",
                connectionstyle=f"arc3,rad={curve}",
                shrinkA=0,
                shrinkB=0,
            )
        )


def _middle(end):
    """The middle of a box or of a word, at whose edge matplotlib cuts the arrow; or the point."""
    if isinstance(end, tuple):
        return end
    extent = end.get_path().get_extents(end.get_patch_transform())
    return (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2


def vae(shapes=("", "", "", "")):
    """The VAE of slide 2: what is computed (boxes), what is drawn at random (ε), what is paid for.

    Args:
        shapes: text under x, under (mu, logvar), under z and under the output.
    """
    figure, ax = plt.subplots(figsize=(10.5, 3.6))
    figure.set_label(
        tr(
            "Schéma du VAE : l'image x entre dans l'encodeur, qui donne µ et log σ² ; on tire "
            "z = µ + σε, et le décodeur en fait l'image. On paie la KL de z et −log p(x|z)."
        )
    )
    x, z = COLORS["x"], COLORS["z"]
    image = box(ax, (0.8, 1.6), "$x$", x, width=1.0)
    network = {"width": 1.7, "height": 1.1, "filled": False}
    encoder = box(ax, (3.0, 1.6), tr("encodeur\n$q_\\phi(z|x)$"), DARK, **network)
    mu = box(ax, (5.2, 2.2), "$\\mu$", z, width=0.9, height=0.7)
    logvar = box(ax, (5.2, 1.0), "$\\log\\sigma^2$", z, width=1.1, height=0.7)
    code = box(ax, (7.4, 1.6), "$z=\\mu+\\sigma\\varepsilon$", z, width=1.7)
    decoder = box(ax, (9.9, 1.6), tr("décodeur\n$p_\\theta(x|z)$"), DARK, **network)
    output = box(ax, (12.1, 1.6), "$\\hat{x}$", x, width=1.0)
    arrows(ax, image, encoder, mu, code, decoder, output)
    arrows(ax, encoder, logvar, code)
    ax.text(7.4, 3.05, NOISE, ha="center", color=COLORS["prior"])
    arrows(ax, (7.4, 2.95), code, color=COLORS["prior"], dashed=True)
    for centre, text in zip((0.8, 5.2, 7.4, 12.1), shapes):
        ax.text(centre, 0.42, text, ha="center", va="top", color=DARK, fontsize=11)
    ax.text(5.2, -0.25, "KL$(q\\,\\|\\,p(z))$", ha="center", color=z, fontsize=13)
    ax.text(12.1, -0.25, "$-\\log p(x|z)$", ha="center", color=x, fontsize=13)
    ax.set(xlim=(0, 13.0), ylim=(-0.5, 3.5), aspect="equal")
    ax.axis("off")


def _canvas(width, height, sentence, *, bottom=0.0):
    """Empty axes of a diagram, `width` × `height` in the units of its boxes.

    The sentence says the diagram to those who cannot see it.
    """
    figure, ax = plt.subplots(figsize=(0.68 * width, 0.68 * (height - bottom)))
    figure.set_label(sentence)
    ax.set(xlim=(-0.4, width), ylim=(bottom, height), aspect="equal")
    ax.axis("off")
    return ax


def _network(ax, centre, text):
    return box(ax, centre, text, DARK, width=2.0, height=1.2, filled=False)


def _shape(ax, centre, text):
    """The shape of a tensor, under its box."""
    x, y = centre
    ax.text(x, y - 0.62, text, ha="center", va="top", color=DARK, fontsize=10.5)


def cvae_training(shapes=("", "", "", "", "")):
    """The CVAE while it learns (slide 7): the condition enters the encoder and the decoder.

    Args:
        shapes: text under x, under c, under (mu, logvar), under [z, c] and under the output.
    """
    sentence = tr(
        "Schéma du CVAE qui apprend : celui du VAE, où la condition c entre deux fois, dans "
        "l'encodeur avec l'image, puis, concaténée à z, dans le décodeur."
    )
    ax = _canvas(16.0, 4.1, sentence, bottom=-0.9)
    x, z, y = COLORS["x"], COLORS["z"], COLORS["y"]
    image = box(ax, (0.8, 2.9), "$x$", x, width=1.1)
    condition = box(ax, (0.8, 0.9), "$c$", y, width=1.1)
    encoder = _network(ax, (3.1, 1.9), tr("encodeur\n$q_\\phi(z|x,c)$"))
    mu = box(ax, (5.7, 2.5), "$\\mu$", z, width=1.0, height=0.7)
    logvar = box(ax, (5.7, 1.5), "$\\log\\sigma^2$", z, width=1.2, height=0.7)
    drawn = box(ax, (8.1, 1.9), "$z=\\mu+\\sigma\\varepsilon$", z, width=1.9)
    code = box(ax, (10.2, 1.9), "$z$", z, width=0.6)  # the concatenation: two boxes that touch
    beside = box(ax, (10.84, 1.9), "$c$", y, width=0.6)
    decoder = _network(ax, (12.85, 1.9), tr("décodeur\n$p_\\theta(x|z,c)$"))
    output = box(ax, (15.15, 1.9), "$\\hat{x}$", x, width=0.9)
    arrows(ax, image, encoder, mu, drawn, code)
    arrows(ax, encoder, logvar, drawn)
    arrows(ax, beside, decoder, output)
    arrows(ax, condition, encoder, color=y)
    ax.text(8.1, 3.6, NOISE, ha="center", color=COLORS["prior"])
    arrows(ax, (8.1, 3.5), drawn, color=COLORS["prior"], dashed=True)
    ax.plot([1.38, 10.84], [0.7, 0.7], color=y, lw=1.8)
    arrows(ax, (10.84, 0.68), beside, color=y)
    ax.text(6.1, 0.58, tr("concaténation"), ha="center", va="top", color=y, fontsize=12)
    _shape(ax, (0.8, 2.9), shapes[0])
    _shape(ax, (0.8, 0.9), shapes[1])
    ax.text(5.7, 3.02, shapes[2], ha="center", color=DARK, fontsize=10.5)
    ax.text(10.52, 2.55, shapes[3], ha="center", color=DARK, fontsize=10.5)
    _shape(ax, (15.15, 1.9), shapes[4])
    ax.text(5.7, -0.75, "KL$(q_\\phi(z|x,c)\\,\\|\\,p(z|c))$", ha="center", color=z, fontsize=13)
    ax.text(13.6, -0.75, "$-\\log p_\\theta(x|z,c)$", ha="center", color=x, fontsize=13)


def cvae_sampling(shapes=("", "", "")):
    """The CVAE when it invents (slide 8): choose c, draw z, concatenate, decode.

    Args:
        shapes: text under z, under c and under the output.
    """
    sentence = tr(
        "Schéma du CVAE qui invente, en quatre étapes : choisir c, tirer z selon p(z|c), les "
        "concaténer, décoder."
    )
    ax = _canvas(11.6, 3.6, sentence, bottom=-0.3)
    x, z, y = COLORS["x"], COLORS["z"], COLORS["y"]
    condition = box(ax, (1.9, 2.4), tr("1. choisir $c$"), y, width=2.7, height=0.8)
    drawn = box(ax, (1.9, 0.9), "2. $z\\sim p(z|c)$", z, width=2.7, height=0.8)
    code = box(ax, (5.0, 1.65), "$z$", z, width=0.6)
    beside = box(ax, (5.64, 1.65), "$c$", y, width=0.6)
    ax.text(5.32, 2.3, tr("3. concaténer"), ha="center", color=DARK, fontsize=12)
    decoder = _network(ax, (7.9, 1.65), tr("décodeur\n$p_\\theta(x|z,c)$"))
    ax.text(7.9, 2.45, tr("4. décoder"), ha="center", color=DARK, fontsize=12)
    output = box(ax, (10.5, 1.65), "$\\hat{x}$", x, width=1.0)
    arrows(ax, condition, code, color=y)
    arrows(ax, drawn, code, color=z)
    arrows(ax, beside, decoder, output)
    for centre, text in zip(((1.9, 0.94), (1.9, 2.44), (10.5, 1.65)), shapes):
        _shape(ax, centre, text)


def nade():
    """NADE (slide 12): one running sum a, to which each pixel adds its column of W once."""
    sentence = tr(
        "Schéma de NADE : une même somme, a, avance de pixel en pixel. Elle donne h, puis la loi "
        "du pixel ; une fois connu, le pixel y ajoute sa colonne de W."
    )
    ax = _canvas(15.4, 5.4, sentence, bottom=-0.5)
    x = COLORS["x"]
    before = word(ax, (-0.15, 2.0), "$c$", size=14)
    for i, (centre, past) in enumerate(((1.6, ""), (5.6, "|x_1"), (9.6, "|x_1,x_2")), 1):
        total = box(ax, (centre, 2.0), f"$a_{i}$", DARK, width=1.2, height=0.8, filled=False)
        name = f"$h_{i}=\\sigma(a_{i})$"
        hidden = box(ax, (centre, 3.4), name, DARK, width=2.3, height=0.8, filled=False)
        law = box(ax, (centre, 4.8), f"$p(x_{i}{past})$", x, width=2.4, height=0.8)
        pixel = box(ax, (centre + 2.0, 0.4), f"$x_{i}$", x, width=0.9, height=0.8)
        addition = word(ax, (centre + 2.0, 2.0), "+")
        arrows(ax, before, total, addition)
        arrows(ax, total, hidden)
        arrows(ax, hidden, law, color=x)
        arrows(ax, pixel, addition, color=x)
        ax.text(centre + 0.15, 4.08, f"$V_{i},\\ b_{i}$", ha="left", va="center", fontsize=11)
        ax.text(centre + 2.15, 1.3, f"$W_{i}$", ha="left", va="center", color=x, fontsize=12)
        before = addition
    arrows(ax, before, word(ax, (13.4, 2.0), "$\\cdots$"))


def gated_layer():
    """One layer of the gated PixelCNN: a vertical stack and a horizontal one (slide 15)."""
    sentence = tr(
        "Schéma d'une couche à portes : la pile verticale lit les lignes du dessus ; la pile "
        "horizontale lit la gauche et, par une convolution 1×1, la pile verticale ; un lien "
        "résiduel la contourne."
    )
    ax = _canvas(15.2, 5.6, sentence, bottom=-0.2)
    x = COLORS["x"]
    stacks = []
    for level, name, kernel in ((4.4, "v", "conv.\n2×3"), (1.2, "h", tr("conv. masquée\n1×2"))):
        given = box(ax, (0.5, level), f"${name}$", x, width=0.9, height=0.8)
        convolution = box(ax, (3.6, level), kernel, DARK, width=2.4, height=1.1, filled=False)
        gates = box(ax, (9.0, level), "tanh · σ", DARK, width=2.0, filled=False)
        result = box(ax, (14.4, level), f"${name}'$", x, width=0.9, height=0.8)
        stacks.append((given, convolution, gates, result))
    link, last = (
        box(ax, centre, "1×1", DARK, width=1.1, height=0.8, filled=False)
        for centre in ((6.4, 2.8), (11.3, 1.2))
    )
    addition, residual = word(ax, (6.4, 1.2), "+"), word(ax, (12.9, 1.2), "+")
    vertical, (given, convolution, gates, result) = stacks
    arrows(ax, *vertical)
    arrows(ax, given, convolution, addition, gates, last, residual, result)
    arrows(ax, (6.4, 4.36), link, addition)
    ax.plot([0.5, 0.5, 12.9], [0.76, 0.2, 0.2], color=DARK, lw=1.8)  # the residual link
    arrows(ax, (12.9, 0.2), residual)
    ax.text(0.0, 5.3, tr("pile verticale : les lignes du dessus"), color=DARK, fontsize=12)
    ax.text(0.0, 2.1, tr("pile horizontale : la gauche"), color=DARK, fontsize=12)


def pixel_networks():
    """What one layer reads at one pixel: PixelCNN, Row LSTM and Diagonal BiLSTM (slide 16)."""
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.7))
    figure.set_label(
        tr(
            "Trois grilles : ce que lit une couche en un pixel, en plus de lui. PixelCNN : ses "
            "quatre voisins d'avant. Row LSTM : la gauche, et trois états du dessus. Diagonal "
            "BiLSTM : l'état de gauche et celui du dessus, qui reçoit l'autre sens."
        )
    )
    here, inputs, states = (2, 2), COLORS["x"], DARK
    panels = {
        tr("PixelCNN (masque B)"): ([(1, 1), (1, 2), (1, 3), (2, 1)], [], False),
        "Row LSTM": ([(2, 1)], [(1, 1), (1, 2), (1, 3)], False),
        "Diagonal BiLSTM": ([], [(2, 1), (1, 2)], True),
    }
    for ax, (title, (read, memory, mirrored)) in zip(axes, panels.items()):
        for row in range(4):
            for column in range(5):
                known = (row, column) < here
                face = "#BBD7EA" if known else LATER
                face = COLORS["focus"] if (row, column) == here else face
                ax.add_patch(plt.Rectangle((column, -row), 0.92, 0.92, fc=face, ec="none"))
        for cells, color in ((read, inputs), (memory, states)):
            for row, column in cells:
                _reach(ax, (row, column), here, color)
        ax.plot(2.46, -1.54, "o", color=inputs, markersize=9, zorder=3)  # the pixel itself
        if mirrored:  # the scan from the right stops one row above: its map is moved down
            _reach(ax, (1, 3), (1, 2), states, "--")
            _reach(ax, (0, 2), (1, 2), states, "--")
            ax.text(
                4.92, 0.52, tr("carte descendue\nd'une ligne"), ha="right", va="center", fontsize=10
            )
        ax.set(xlim=(-0.1, 5), ylim=(-3.1, 1.1), aspect="equal")
        ax.set_title(title, fontsize=13)
        ax.axis("off")


def _reach(ax, start, end, color, style="-"):
    """An arrow between the centres of two cells `(row, column)`."""
    (row, column), (end_row, end_column) = start, end
    ax.annotate(
        "",
        xy=(end_column + 0.46, -end_row + 0.46),
        xytext=(column + 0.46, -row + 0.46),
        arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2.2, "ls": style,
                    "shrinkA": 4, "shrinkB": 8, "mutation_scale": 16},
    )  # fmt: skip


def vq_vae(shapes=("", "", "", "", "")):
    """The VQ-VAE of slides 19 to 22: codes between two networks, the gradient that is copied.

    Args:
        shapes: text under x, under z_e, under the codes, under z_q and under the output.
    """
    sentence = tr(
        "Schéma du VQ-VAE : chaque vecteur qui sort de l'encodeur est remplacé par l'atome le "
        "plus proche du dictionnaire, puis décodé. Le gradient, lui, saute du décodeur à "
        "l'encodeur."
    )
    ax = _canvas(16.1, 4.6, sentence, bottom=-1.5)
    x, z, code = COLORS["x"], COLORS["z"], COLORS["code"]
    image = box(ax, (0.6, 1.9), "$x$", x, width=1.0)
    encoder = _network(ax, (2.75, 1.9), tr("encodeur"))
    vector = box(ax, (5.05, 1.9), "$z_e(x)$", z, width=1.3)
    codes = box(ax, (7.95, 1.9), "codes $k$", code, width=1.6)
    chosen = box(ax, (10.85, 1.9), "$z_q(x)$", code, width=1.3)
    decoder = _network(ax, (13.15, 1.9), tr("décodeur\n$p_\\theta(x|z_q)$"))
    output = box(ax, (15.35, 1.9), "$\\hat{x}$", x, width=1.0)
    box(ax, (7.95, -0.75), tr("dictionnaire $e_1, \\dots, e_K$"), code, width=4.2, filled=False)
    arrows(ax, image, encoder, vector, codes, chosen, decoder, output)
    ax.text(6.42, 2.04, "arg min", ha="center", va="bottom", color=DARK, fontsize=11)
    ax.text(9.47, 2.04, "$e_k$", ha="center", va="bottom", color=DARK, fontsize=11)
    for start, end in (((7.0, -0.28), (6.45, 1.75)), ((8.9, -0.28), (9.45, 1.75))):
        arrows(ax, start, end, color=code, dashed=True)
    # backwards: from the decoder to the encoder, over the codebook
    arrows(ax, (13.15, 2.53), (5.05, 2.38), color=COLORS["truth"], dashed=True, curve=0.22)
    copied = tr("le gradient du décodeur est copié à $z_e$ ; le dictionnaire n'en reçoit rien")
    ax.text(9.1, 3.45, copied, ha="center", va="bottom", fontsize=12)
    for centre, text in zip((0.6, 5.05, 7.95, 10.85, 15.35), shapes):
        _shape(ax, (centre, 1.9), text)
