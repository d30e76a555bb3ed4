"""The diagrams of the lecture, redrawn by code, in the colours of their concepts."""

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .figures import CODE_TEXT, COLORS

DARK = "#444444"  # networks and deterministic steps


def box(ax, centre, text, color, *, width=1.5, height=0.9, filled=True):
    """A rounded box of a diagram, in the colour of its concept."""
    x, y = centre
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02,rounding_size=0.15",
            fc=color if filled else "white",
            ec=color,
            lw=2,
        )
    )
    ax.text(x, y, text, ha="center", va="center", color="white" if filled else color, fontsize=13)


def arrow(ax, start, end, text="", *, color=DARK, dashed=False, curve=0.0):
    """An arrow between two points of a diagram, its label above the middle."""
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
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
    if text:
        x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
        ax.text(x, y + 0.14, text, ha="center", va="bottom", color=color, fontsize=11)


def vae(shapes=("", "", "", "")):
    """The VAE of slide 2: what is computed (boxes), what is drawn at random (ε), what is paid for.

    Args:
        shapes: text under x, under (mu, logvar), under z and under the output.
    """
    _, ax = plt.subplots(figsize=(10.5, 3.6))
    x, z = COLORS["x"], COLORS["z"]
    box(ax, (0.8, 1.6), "$x$", x, width=1.0)
    box(ax, (3.0, 1.6), "encodeur\n$q_\\phi(z|x)$", DARK, width=1.7, height=1.1, filled=False)
    box(ax, (5.2, 2.2), "$\\mu$", z, width=0.9, height=0.7)
    box(ax, (5.2, 1.0), "$\\log\\sigma^2$", z, width=1.1, height=0.7)
    box(ax, (7.4, 1.6), "$z=\\mu+\\sigma\\varepsilon$", z, width=1.7)
    box(ax, (9.9, 1.6), "décodeur\n$p_\\theta(x|z)$", DARK, width=1.7, height=1.1, filled=False)
    box(ax, (12.1, 1.6), "$\\hat{x}$", x, width=1.0)
    ax.text(7.4, 3.05, "$\\varepsilon\\sim\\mathcal{N}(0,I)$", ha="center", color=COLORS["prior"])
    arrow(ax, (7.4, 2.95), (7.4, 2.1), color=COLORS["prior"], dashed=True)
    for start, end in (
        ((1.32, 1.6), (2.12, 1.6)),
        ((3.88, 1.75), (4.72, 2.2)),
        ((3.88, 1.45), (4.62, 1.0)),
        ((5.68, 2.2), (6.52, 1.75)),
        ((5.78, 1.0), (6.52, 1.45)),
        ((8.28, 1.6), (9.02, 1.6)),
        ((10.78, 1.6), (11.58, 1.6)),
    ):
        arrow(ax, start, end)
    for centre, text in zip((0.8, 5.2, 7.4, 12.1), shapes):
        ax.text(centre, 0.42, text, ha="center", va="top", color=DARK, fontsize=11)
    ax.text(5.2, -0.25, "KL$(q\\,\\|\\,p(z))$", ha="center", color=z, fontsize=13)
    ax.text(12.1, -0.25, "$-\\log p(x|z)$", ha="center", color=x, fontsize=13)
    ax.set(xlim=(0, 13.0), ylim=(-0.5, 3.5), aspect="equal")
    ax.axis("off")


def _canvas(width, height, *, bottom=0.0):
    """Empty axes of a diagram, `width` × `height` in the units of its boxes."""
    _, ax = plt.subplots(figsize=(0.68 * width, 0.68 * (height - bottom)))
    ax.set(xlim=(-0.4, width), ylim=(bottom, height), aspect="equal")
    ax.axis("off")
    return ax


def _network(ax, centre, text):
    box(ax, centre, text, DARK, width=2.0, height=1.2, filled=False)


def _shape(ax, centre, text):
    """The shape of a tensor, under its box."""
    x, y = centre
    ax.text(x, y - 0.62, text, ha="center", va="top", color=DARK, fontsize=10.5)


def cvae_training(shapes=("", "", "", "", "")):
    """The CVAE while it learns (slide 7): the condition enters the encoder and the decoder.

    Args:
        shapes: text under x, under c, under (mu, logvar), under [z, c] and under the output.
    """
    ax = _canvas(16.0, 4.1, bottom=-0.9)
    x, z, y = COLORS["x"], COLORS["z"], COLORS["y"]
    box(ax, (0.8, 2.9), "$x$", x, width=1.1)
    box(ax, (0.8, 0.9), "$c$", y, width=1.1)
    _network(ax, (3.1, 1.9), "encodeur\n$q_\\phi(z|x,c)$")
    box(ax, (5.7, 2.5), "$\\mu$", z, width=1.0, height=0.7)
    box(ax, (5.7, 1.5), "$\\log\\sigma^2$", z, width=1.2, height=0.7)
    box(ax, (8.1, 1.9), "$z=\\mu+\\sigma\\varepsilon$", z, width=1.9)
    ax.text(8.1, 3.6, "$\\varepsilon\\sim\\mathcal{N}(0,I)$", ha="center", color=COLORS["prior"])
    arrow(ax, (8.1, 3.5), (8.1, 2.4), color=COLORS["prior"], dashed=True)
    box(ax, (10.2, 1.9), "$z$", z, width=0.6)  # the concatenation: two boxes that touch
    box(ax, (10.84, 1.9), "$c$", y, width=0.6)
    _network(ax, (12.85, 1.9), "décodeur\n$p_\\theta(x|z,c)$")
    box(ax, (15.15, 1.9), "$\\hat{x}$", x, width=0.9)
    for start, end, color in (
        ((1.38, 2.8), (2.06, 2.2), DARK),
        ((1.38, 1.0), (2.06, 1.6), y),
        ((4.13, 2.05), (5.16, 2.5), DARK),
        ((4.13, 1.75), (5.06, 1.5), DARK),
        ((6.23, 2.5), (7.11, 2.05), DARK),
        ((6.33, 1.5), (7.11, 1.75), DARK),
        ((9.08, 1.9), (9.86, 1.9), DARK),
        ((11.18, 1.9), (11.81, 1.9), DARK),
        ((13.88, 1.9), (14.66, 1.9), DARK),
    ):
        arrow(ax, start, end, color=color)
    ax.plot([1.38, 10.84], [0.7, 0.7], color=y, lw=1.8)
    arrow(ax, (10.84, 0.68), (10.84, 1.4), color=y)
    ax.text(6.1, 0.58, "concaténation", ha="center", va="top", color=y, fontsize=12)
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
    ax = _canvas(11.6, 3.6, bottom=-0.3)
    x, z, y = COLORS["x"], COLORS["z"], COLORS["y"]
    box(ax, (1.9, 2.4), "1. choisir $c$", y, width=2.7, height=0.8)
    box(ax, (1.9, 0.9), "2. $z\\sim p(z|c)$", z, width=2.7, height=0.8)
    box(ax, (5.0, 1.65), "$z$", z, width=0.6)
    box(ax, (5.64, 1.65), "$c$", y, width=0.6)
    ax.text(5.32, 2.3, "3. concaténer", ha="center", color=DARK, fontsize=12)
    _network(ax, (7.9, 1.65), "décodeur\n$p_\\theta(x|z,c)$")
    ax.text(7.9, 2.45, "4. décoder", ha="center", color=DARK, fontsize=12)
    box(ax, (10.5, 1.65), "$\\hat{x}$", x, width=1.0)
    for start, end, color in (
        ((3.28, 2.3), (4.66, 1.8), y),
        ((3.28, 1.0), (4.66, 1.5), z),
        ((5.98, 1.65), (6.86, 1.65), DARK),
        ((8.93, 1.65), (9.96, 1.65), DARK),
    ):
        arrow(ax, start, end, color=color)
    for centre, text in zip(((1.9, 0.94), (1.9, 2.44), (10.5, 1.65)), shapes):
        _shape(ax, centre, text)


def nade():
    """NADE (slide 12): one running sum a, to which each pixel adds its column of W once."""
    ax = _canvas(15.4, 5.4, bottom=-0.5)
    x, dots = COLORS["x"], "$\\cdots$"
    for i, centre in enumerate((1.6, 5.6, 9.6)):
        box(ax, (centre, 2.0), f"$a_{i + 1}$", DARK, width=1.2, height=0.8, filled=False)
        box(
            ax,
            (centre, 3.4),
            f"$h_{i + 1}=\\sigma(a_{i + 1})$",
            DARK,
            width=2.3,
            height=0.8,
            filled=False,
        )
        past = "" if i == 0 else "|x_1" if i == 1 else "|x_1,x_2"
        box(ax, (centre, 4.8), f"$p(x_{i + 1}{past})$", x, width=2.4, height=0.8)
        arrow(ax, (centre, 2.42), (centre, 2.98))
        arrow(ax, (centre, 3.82), (centre, 4.38), color=x)
        ax.text(
            centre + 0.15, 4.08, f"$V_{i + 1},\\ b_{i + 1}$", ha="left", va="center", fontsize=11
        )
        box(ax, (centre + 2.0, 0.4), f"$x_{i + 1}$", x, width=0.9, height=0.8)
        ax.text(centre + 2.0, 2.0, "+", ha="center", va="center", fontsize=17, color=DARK)
        arrow(ax, (centre + 2.0, 0.82), (centre + 2.0, 1.75), color=x)
        ax.text(centre + 2.15, 1.3, f"$W_{i + 1}$", ha="left", va="center", color=x, fontsize=12)
        arrow(ax, (centre + 0.62, 2.0), (centre + 1.8, 2.0))
        arrow(ax, (centre + 2.2, 2.0), (centre + 3.38, 2.0))
    ax.text(-0.3, 2.0, "$c$", ha="center", va="center", fontsize=14, color=DARK)
    arrow(ax, (-0.1, 2.0), (0.98, 2.0))
    ax.text(13.4, 2.0, dots, ha="center", va="center", fontsize=17, color=DARK)


def gated_layer():
    """One layer of the gated PixelCNN: a vertical stack and a horizontal one (slide 15)."""
    ax = _canvas(15.2, 5.6, bottom=-0.2)
    x = COLORS["x"]
    for level, name, kernel in ((4.4, "v", "conv.\n2×3"), (1.2, "h", "conv. masquée\n1×2")):
        box(ax, (0.5, level), f"${name}$", x, width=0.9, height=0.8)
        box(ax, (3.6, level), kernel, DARK, width=2.4, height=1.1, filled=False)
        box(ax, (9.0, level), "tanh · σ", DARK, width=2.0, height=0.9, filled=False)
        box(ax, (14.4, level), f"${name}'$", x, width=0.9, height=0.8)
        arrow(ax, (0.98, level), (2.36, level))
    arrow(ax, (4.84, 4.4), (7.96, 4.4))
    arrow(ax, (10.04, 4.4), (13.9, 4.4))
    box(ax, (6.4, 2.8), "1×1", DARK, width=1.1, height=0.8, filled=False)  # the link
    arrow(ax, (6.4, 4.36), (6.4, 3.24))
    arrow(ax, (6.4, 2.38), (6.4, 1.5))
    box(ax, (11.3, 1.2), "1×1", DARK, width=1.1, height=0.8, filled=False)
    for centre in (6.4, 12.9):
        ax.text(centre, 1.2, "+", ha="center", va="center", fontsize=18, color=DARK)
    for start, end in (((4.84, 1.2), (6.12, 1.2)), ((6.68, 1.2), (7.96, 1.2)),
                       ((10.04, 1.2), (10.72, 1.2)), ((11.88, 1.2), (12.62, 1.2)),
                       ((13.18, 1.2), (13.9, 1.2))):  # fmt: skip
        arrow(ax, start, end)
    ax.plot([0.5, 0.5, 12.9], [0.76, 0.2, 0.2], color=DARK, lw=1.8)  # the residual link
    arrow(ax, (12.9, 0.2), (12.9, 0.95))
    ax.text(0.0, 5.3, "pile verticale : les lignes du dessus", color=DARK, fontsize=12)
    ax.text(0.0, 2.1, "pile horizontale : la gauche", color=DARK, fontsize=12)


def pixel_networks():
    """What one layer reads at one pixel: PixelCNN, Row LSTM and Diagonal BiLSTM (slide 16)."""
    _, axes = plt.subplots(1, 3, figsize=(9.6, 3.7))
    here, inputs, states = (2, 2), COLORS["x"], DARK
    panels = {
        "PixelCNN (masque B)": ([(1, 1), (1, 2), (1, 3), (2, 1)], [], False),
        "Row LSTM": ([(2, 1)], [(1, 1), (1, 2), (1, 3)], False),
        "Diagonal BiLSTM": ([], [(2, 1), (1, 2)], True),
    }
    for ax, (title, (read, memory, mirrored)) in zip(axes, panels.items()):
        for row in range(4):
            for column in range(5):
                known = (row, column) < here
                face = "#DCEAF4" if known else "#F4F4F4"
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
                4.92, 0.52, "carte descendue\nd'une ligne", ha="right", va="center", fontsize=10
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
    ax = _canvas(16.1, 4.6, bottom=-1.5)
    x, z, code = COLORS["x"], COLORS["z"], CODE_TEXT
    box(ax, (0.6, 1.9), "$x$", x, width=1.0)
    _network(ax, (2.75, 1.9), "encodeur")
    box(ax, (5.05, 1.9), "$z_e(x)$", z, width=1.3)
    box(ax, (7.95, 1.9), "codes $k$", code, width=1.6)
    box(ax, (10.85, 1.9), "$z_q(x)$", code, width=1.3)
    _network(ax, (13.15, 1.9), "décodeur\n$p_\\theta(x|z_q)$")
    box(ax, (15.35, 1.9), "$\\hat{x}$", x, width=1.0)
    box(ax, (7.95, -0.75), "dictionnaire $e_1, \\dots, e_K$", code, width=4.2, filled=False)
    for start, end in (
        ((1.12, 1.9), (1.73, 1.9)),
        ((3.77, 1.9), (4.38, 1.9)),
        ((5.72, 1.9), (7.13, 1.9)),
        ((8.77, 1.9), (10.18, 1.9)),
        ((11.52, 1.9), (12.13, 1.9)),
        ((14.17, 1.9), (14.83, 1.9)),
    ):
        arrow(ax, start, end)
    ax.text(6.42, 2.04, "arg min", ha="center", va="bottom", color=DARK, fontsize=11)
    ax.text(9.47, 2.04, "$e_k$", ha="center", va="bottom", color=DARK, fontsize=11)
    for start, end in (((7.0, -0.28), (6.45, 1.75)), ((8.9, -0.28), (9.45, 1.75))):
        arrow(ax, start, end, color=code, dashed=True)
    # backwards: from the decoder to the encoder, over the codebook
    arrow(ax, (13.15, 2.4), (5.05, 2.4), color=COLORS["truth"], dashed=True, curve=0.24)
    copied = "le gradient du décodeur est copié à $z_e$ ; le dictionnaire n'en reçoit rien"
    ax.text(9.1, 3.45, copied, ha="center", va="bottom", fontsize=12)
    for centre, text in zip((0.6, 5.05, 7.95, 10.85, 15.35), shapes):
        _shape(ax, (centre, 1.9), text)
