"""The codes of a VQ-VAE: edit them, meet each atom, watch a prior draw them (notebook 04)."""

import copy
import functools
import math

import ipywidgets as widgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw
from torch import nn

from .. import figures
from ..data import check_images
from ..vq import VQVAE, perplexity
from .live import (
    CANVAS,
    FOCUS,
    FOCUS_TEXT,
    TOP,
    WAITING,
    LivePicture,
    amount,
    axis,
    bars,
    cell_box,
    class_box,
    decimal,
    edits_box,
    font,
    mark,
    read_edits,
    seed_box,
    temperature_slider,
    to_pil,
    write_edits,
)

GAP = 24  # pixels between two panels
PALETTE = 272  # side of the palette of atoms
AROUND = 1  # pixels of its neighbours that the tile of an atom shows, on each side
CODE_TEXT = "#8E3A6B"  # the colour of codes, dark enough to read
DARK = figures.COLORS["truth"]


# ---------------------------------------------------------------------------------------------
# Atoms, tiles and maps
# ---------------------------------------------------------------------------------------------


class Codebook:
    """A `VQVAE` as these demos draw it: atoms as tiles, maps of codes as mosaics.

    The tile of an atom is the mean of what the decoder draws where it serves, with a little of what
    is around: alone on an empty page, most atoms draw nothing.

    Args:
        model: the `VQVAE`; a copy of it is kept, as it is now.
        images: integer images `(N, C, H, W)`; the tiles are means over the first 500.

    Attributes:
        maps: codes of the images, `(N, h, w)`, int64.
        uses: how many times each atom serves there, `(K,)`.
        background: the most frequent atom.
        order: the atoms from the lightest to the darkest, each row of the palette going from those
            whose ink is on the left to those whose ink is on the right.
    """

    @torch.no_grad()
    def __init__(self, model, images):
        if not isinstance(model, VQVAE):
            raise ValueError(f"the demo needs a VQVAE, got {type(model).__name__}")
        if model.shape[0] not in (1, 3):
            raise ValueError(f"the demo needs images of 1 or 3 channels, got {model.shape}")
        check_images(images, model.shape, model.levels)
        if not len(images):
            raise ValueError("the demo needs at least one image")
        self.model = _frozen(model)
        self.device = self.model.quantizer.codebook.device
        self.images, self.num_codes = images.cpu(), model.num_codes
        _, self.height, self.width = model.code_shape
        codes = [self.model.encode(part.to(self.device)) for part in images.split(500)]
        self.maps = torch.cat(codes)[:, 0].cpu().long()
        self.uses = self.maps.flatten().bincount(minlength=self.num_codes)
        self.background = self.uses.argmax().item()
        self.patches = self._mean_patches(self.model.decode_codes(codes[0]).cpu())
        self.columns = math.ceil(math.sqrt(self.num_codes))
        self.order = self._ordered()
        self.tile_side = PALETTE // self.columns
        # the same codes are decoded again and again while the mouse moves
        self.decode = functools.lru_cache(maxsize=64)(self._decode)
        self.tile = functools.cache(self._tile)
        self.palette = functools.cache(self._palette)

    def codes(self, image):
        """The codes of an image, from its number: a tuple, row by row."""
        return tuple(self.maps[image].flatten().tolist())

    def intensities(self, image):
        """An image from its number, `(C, H, W)` in [0, 1]."""
        return self.images[image].float() / (self.model.levels - 1)

    @torch.no_grad()
    def _decode(self, codes):
        """A tuple of codes -> expected intensities `(C, H, W)`."""
        codes = torch.tensor(codes, dtype=torch.uint8, device=self.device)
        return self.model.decode_codes(codes.view(1, *self.model.code_shape))[0].cpu()

    def _mean_patches(self, decoded):
        """Mean of the patches of images `(n, C, H, W)` where each atom serves: `(K, C, s, s)`."""
        step = decoded.shape[-1] // self.width
        side = step + 2 * AROUND
        padded = F.pad(decoded, (AROUND,) * 4, mode="replicate")
        patches = F.unfold(padded, side, stride=step).mT.flatten(0, 1)  # (n · h · w, C · s · s)
        codes = self.maps[: len(decoded)].flatten()
        sums = patches.new_zeros(self.num_codes, patches.shape[1]).index_add_(0, codes, patches)
        uses = codes.bincount(minlength=self.num_codes).clamp(min=1)
        return (sums / uses[:, None]).view(self.num_codes, -1, side, side)

    def _ordered(self):
        ink = self.patches.mean(1)  # (K, s, s)
        half = ink.shape[-1] // 2
        balance = (ink[:, :, -half:] - ink[:, :, :half]).mean((1, 2))
        rows = ink.mean((1, 2)).argsort(stable=True).split(self.columns)
        return [atom for row in rows for atom in row[balance[row].argsort(stable=True)].tolist()]

    # ---- drawings -----------------------------------------------------------------------------

    def _tile(self, atom, side, size=0):
        """The tile of an atom; its number on it, `size` pixels high, unless `size` is 0."""
        page = figures.image_grid(self.patches[[atom]], gap=0)
        if self.patches.shape[1] == 1:
            page = _tinted(1 - page, CODE_TEXT)
        tile = to_pil(page).resize((side, side), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(tile)
        pen.rectangle([0, 0, side - 1, side - 1], outline="#E3D3DC")
        if size:
            how = {"font": font(size), "anchor": "rs", "stroke_width": 2, "stroke_fill": "white"}
            pen.text((side - 4, side - 5), str(atom), fill=DARK, **how)
        return tile

    def paste_map(self, picture, corner, side, codes):
        """A map of codes, tile by tile; None is a code that waits."""
        waiting = tuple(round(255 * share) for share in WAITING)
        for number, code in enumerate(codes):
            box = cell_box(number, self.width, side, *corner)
            if code is None:
                ImageDraw.Draw(picture).rectangle(box, fill=waiting, outline="white")
            else:
                picture.paste(self.tile(code, side, 14), box[:2])

    def _palette(self):
        side = self.tile_side
        palette = Image.new("RGB", (PALETTE, PALETTE), "white")
        for place, atom in enumerate(self.order):
            where = cell_box(place, self.columns, side, 0, 0)[:2]
            palette.paste(self.tile(atom, side), where)
        return palette

    def outline_atom(self, pen, corner, atom, color):
        """Frame an atom of the palette that begins at this corner."""
        box = cell_box(self.order.index(atom), self.columns, self.tile_side, *corner)
        pen.rectangle(box, outline=color, width=3)

    def atom_at(self, x, y, corner):
        """The atom of the palette at this point of the picture, or None."""
        place = _cell_at(x, y, corner, self.tile_side, self.columns, self.columns)
        return None if place is None or place >= self.num_codes else self.order[place]

    def frame_cell(self, pen, cell, zoom, corner, color=FOCUS, width=2):
        """On an image enlarged `zoom` times, frame the pixels that stand under a code."""
        side = zoom * self.model.shape[-1] // self.width
        pen.rectangle(cell_box(cell, self.width, side, *corner), outline=color, width=width)

    def zoom(self, side):
        """How many times an image can be enlarged within a square of this side."""
        return max(1, side // max(self.model.shape[1:]))


def _frozen(model):
    """A copy of a model as it is now: it may go on learning without its demo."""
    model = copy.deepcopy(model)
    return model.eval() if isinstance(model, nn.Module) else model


def _cell_at(x, y, corner, side, width, height):
    """The number of the cell of a grid at this point of the picture, or None."""
    column, row = (x - corner[0]) // side, (y - corner[1]) // side
    inside = 0 <= row < height and 0 <= column < width
    return int(row * width + column) if inside else None


def _page(image):
    """Intensities `(C, H, W)` -> colours `(H, W, 3)`, dark ink on white paper."""
    return figures.image_grid(image[None], gap=0)


def _tinted(shares, color):
    """Shares in [0, 1], `(H, W, 1 or 3)` -> colours, from white to this one."""
    return 1 - shares * (1 - np.array(to_rgb(color)))


def _paste(picture, page, zoom, corner):
    """Colours `(H, W, 3)`, enlarged, in a thin frame."""
    picture.paste(to_pil(page, zoom), corner)
    x, y = corner
    edges = [x - 1, y - 1, x + zoom * page.shape[1], y + zoom * page.shape[0]]
    ImageDraw.Draw(picture).rectangle(edges, outline="#BBBBBB")


def _title(pen, x, text, color=DARK, y=TOP):
    """The title of a panel, just above it."""
    pen.text((x, y - 7), text, fill=color, font=font(16), anchor="ls")


# ---------------------------------------------------------------------------------------------
# Edit the codes of an image
# ---------------------------------------------------------------------------------------------

ATOM, PASTE = "atome", "coller l'autre image"
SMALL = 84  # pixels: side of the three small images
VISIBLE = 0.1  # a pixel whose intensity moves by more has changed


def code_editor(model, images, titles=None):
    """Change the codes of an image, one by one, and see what the decoder draws.

    On the left the map of codes: a click chooses a cell, a drag copies its code onto others; a
    click on the palette, on the right, gives the cell another atom. With the other brush, a click
    or a drag pastes the codes of a second image instead.

    Args:
        model: a `VQVAE`.
        images: integer images `(N, C, H, W)` to choose from.
        titles: their N names.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    book = Codebook(model, images)
    if titles is None:
        titles = [f"image {number + 1}" for number in range(len(images))]
    if len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images: expected one each")
    count = book.height * book.width
    side, zoom, small = CANVAS // max(book.height, book.width), book.zoom(CANVAS), book.zoom(SMALL)
    middle = CANVAS + GAP
    column = middle + CANVAS + GAP
    right = column + 104 + 16
    paste_side = PALETTE // max(book.height, book.width)
    size = (right + PALETTE + 2, TOP + CANVAS + 40)

    def draw(image, cell, brush, other, edits):
        start, cell = book.codes(image), cell - 1
        codes = _edited(start, edits)
        changed = [k for k in range(count) if codes[k] != start[k]]
        before, after = book.decode(start), book.decode(codes)
        change = (after - before).abs().amax(0).numpy()

        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        _title(pen, 0, "carte des codes", CODE_TEXT)
        book.paste_map(picture, (0, TOP), side, codes)
        for k in changed:
            mark(pen, cell_box(k, book.width, side))
        pen.rectangle(cell_box(cell, book.width, side), outline=FOCUS, width=4)

        _title(pen, middle, "image décodée", figures.COLORS["x"])
        _paste(picture, _page(after), zoom, (middle, TOP))
        book.frame_cell(pen, cell, zoom, (middle, TOP))
        draw_small(picture, pen, image, before, change, changed)
        if brush == ATOM:
            draw_palette(picture, pen, codes[cell], start[cell])
        else:
            draw_other(picture, pen, other, codes, changed)
        first = f" (avant : {start[cell]})" if cell in changed else ""
        text = f"case {cell + 1} : atome {codes[cell]}{first}"
        pen.text((right, TOP + PALETTE + 18), text, fill=FOCUS_TEXT, font=font(16), anchor="lm")
        text = _summary(changed, change > VISIBLE, book)
        pen.text((0, TOP + CANVAS + 24), text, fill=DARK, font=font(16), anchor="lm")
        return picture

    def draw_small(picture, pen, image, before, change, changed):
        panels = {
            "image": _page(book.intensities(image)),
            "sans retouche": _page(before),
            "différence": _tinted(change[..., None], FOCUS),
        }
        for number, (text, page) in enumerate(panels.items()):
            y = TOP + number * (CANVAS - SMALL) // 2
            pen.text((column, y - 7), text, fill=DARK, font=font(14), anchor="ls")
            _paste(picture, page, small, (column, y))
        for k in changed:
            book.frame_cell(pen, k, small, (column, y), "#777777", 1)

    def draw_palette(picture, pen, atom, first):
        _title(pen, right, f"palette des {book.num_codes} atomes", CODE_TEXT)
        picture.paste(book.palette(), (right, TOP))
        book.outline_atom(pen, (right, TOP), first, DARK)
        book.outline_atom(pen, (right, TOP), atom, FOCUS)

    def draw_other(picture, pen, other, codes, changed):
        _title(pen, right, f"à coller : {titles[other]}", CODE_TEXT)
        theirs = book.codes(other)
        book.paste_map(picture, (right, TOP), paste_side, theirs)
        for k in changed:
            if codes[k] == theirs[k]:
                mark(pen, cell_box(k, book.width, paste_side, right))

    def chooser(value, description):
        return widgets.Dropdown(
            options=[(str(title), number) for number, title in enumerate(titles)],
            value=value, description=description, layout={"width": "230px"},
        )  # fmt: skip

    controls = {
        "image": chooser(0, "image"),
        "cell": widgets.BoundedIntText(
            value=count // 2 + 1, min=1, max=count, description="case", layout={"width": "150px"}
        ),
        "brush": widgets.ToggleButtons(
            options=[ATOM, PASTE], description="pinceau", style={"button_width": "160px"}
        ),
        "other": chooser(min(1, len(images) - 1), "autre image"),
        "edits": edits_box(),
    }

    def give(cell, code):
        """Give a cell a code; its own again is no edit."""
        start = book.codes(controls["image"].value)
        edits = read_edits(controls["edits"].value) | {cell: (code,)}
        if start[cell] == code:
            del edits[cell]
        return {"edits": write_edits(dict(sorted(edits.items())))}

    def on_pointer(x, y, pressed):
        """A click or a drag on a map, or a click on the palette."""
        here = _cell_at(x, y, (0, TOP), side, book.width, book.height)
        if controls["brush"].value == PASTE:
            there = _cell_at(x, y, (right, TOP), paste_side, book.width, book.height)
            cell = there if here is None else here
            if cell is None:
                return {}
            return give(cell, book.codes(controls["other"].value)[cell]) | {"cell": cell + 1}
        if here is not None and pressed:
            return {"cell": here + 1}
        atom, chosen = book.atom_at(x, y, (right, TOP)), controls["cell"].value - 1
        if here is not None:
            codes = _edited(book.codes(controls["image"].value), controls["edits"].value)
            return give(here, codes[chosen])
        return give(chosen, atom) if atom is not None and pressed else {}

    return LivePicture(
        draw,
        controls,
        caption="Cliquez sur un code, puis sur un atome de la palette : le décodeur redessine "
        "l'image. Glissez depuis une case pour recopier son code. Puis prenez l'autre pinceau : "
        "collez la moitié d'un autre chiffre.",
        on_pointer=on_pointer,
        buttons={"Effacer les retouches": lambda: {"edits": ""}},
        rows=[["image", "brush", "other"], ["cell", "edits"]],
    )


def _edited(codes, edits):
    """The codes once edited, `"25=17 26=3"`: cells are counted from 1."""
    edits = read_edits(edits)
    return tuple(edits[k][0] if k in edits else code for k, code in enumerate(codes))


def _summary(changed, visible, book):
    """How many codes and pixels changed, in a sentence; `visible`: `(H, W)` booleans."""
    if not changed:
        return f"aucun code changé sur {book.height * book.width}"
    kept = np.ones((book.height, book.width), dtype=bool)
    kept.flat[changed] = False
    step = visible.shape[0] // book.height
    outside = visible & kept.repeat(step, 0).repeat(step, 1)
    plural, these = ("s", "ces cases") if len(changed) > 1 else ("", "cette case")
    pixels = "pixels changent" if visible.sum() > 1 else "pixel change"
    return (
        f"{len(changed)} code{plural} changé{plural} sur {kept.size} : {visible.sum()} {pixels} de "
        f"plus de {decimal(VISIBLE, 1)}, dont {outside.sum()} hors de {these}"
    )


# ---------------------------------------------------------------------------------------------
# What each atom draws
# ---------------------------------------------------------------------------------------------

PANEL = 196  # side of the three panels
SHOWN, SHOWN_SIDE = 6, 112  # images where the atom serves: how many, and their side


def codebook_browser(model, images):
    """What each atom draws: alone, among its neighbours; where it serves, and how often.

    Args:
        model: a `VQVAE`.
        images: integer images `(N, C, H, W)`, over which everything is counted.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    book = Codebook(model, images)
    total, left = book.uses.sum().item(), PALETTE + 2 * GAP
    ranking = book.uses.argsort(descending=True, stable=True).tolist()
    reached = perplexity(book.maps, book.num_codes)
    width = 1048 - left
    panels = [left + number * (width - PANEL) // 2 for number in range(3)]
    shown = [left + number * (width - SHOWN_SIDE) // (SHOWN - 1) for number in range(SHOWN)]
    chart, chart_height = TOP + PALETTE + 92, 60  # the floor of the chart, and its height
    second = TOP + PANEL + 36  # the second row
    size = (1050, chart + 8)
    zoom, small = book.zoom(PANEL), book.zoom(SHOWN_SIDE)
    centre = (book.height // 2) * book.width + book.width // 2

    def draw(atom):
        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        _title(pen, 0, f"les {book.num_codes} atomes, du clair au foncé", CODE_TEXT)
        picture.paste(book.palette(), (0, TOP))
        book.outline_atom(pen, (0, TOP), atom, FOCUS)
        draw_usage(pen, atom)

        _title(pen, panels[0], "seul, sur le fond")
        codes = [book.background] * (book.height * book.width)
        codes[centre] = atom
        _paste(picture, _page(book.decode(tuple(codes))), zoom, (panels[0], TOP))
        book.frame_cell(pen, centre, zoom, (panels[0], TOP))
        _title(pen, panels[1], "avec ses voisins (moyenne)", CODE_TEXT)
        picture.paste(book.tile(atom, PANEL), (panels[1], TOP))
        inside = PANEL * AROUND / book.patches.shape[-1]
        corner, end = (panels[1] + inside, TOP + inside), PANEL - 2 * inside
        pen.rectangle([*corner, corner[0] + end, corner[1] + end], outline=FOCUS, width=2)
        draw_places(picture, pen, panels[2], book.maps == atom)
        draw_examples(picture, pen, atom)
        return picture

    def draw_usage(pen, atom):
        share = decimal(100 * book.uses[atom].item() / total, 1)
        rank = ranking.index(atom)
        title = f"atome {atom} : {share} % (rang {rank + 1})"
        _title(pen, 0, title, FOCUS_TEXT, TOP + PALETTE + 30)
        heights = (book.uses[ranking] / book.uses.max()).tolist()
        labels = [""] * book.num_codes
        colors = (figures.COLORS["code"], FOCUS)
        bars(
            pen, (0, chart), (PALETTE, chart_height - 10), heights, rank, colors, labels=labels,
            note="",
        )  # fmt: skip
        text = f"perplexité {decimal(reached, 1)}"
        where = (PALETTE, chart - chart_height + 8)
        pen.text(where, text, fill=CODE_TEXT, font=font(14), anchor="rm")

    def draw_places(picture, pen, x, places):
        """Heat map of the places where the atom serves, `(N, h, w)` booleans."""
        _title(pen, x, "où il sert", CODE_TEXT)
        counts = places.sum(0).numpy()
        heat = (counts / max(1, counts.max()))[..., None]
        _paste(picture, _tinted(heat, figures.COLORS["code"]), PANEL // max(counts.shape), (x, TOP))

    def draw_examples(picture, pen, atom):
        """The first images where the atom serves, and where."""
        numbers = (book.maps == atom).flatten(1).any(1).nonzero()[:SHOWN, 0].tolist()
        text = "des images où il sert" if numbers else "il ne sert dans aucune image"
        _title(pen, left, text, figures.COLORS["x"], second)
        for x, number in zip(shown, numbers):
            _paste(picture, _page(book.intensities(number)), small, (x, second))
            for cell, code in enumerate(book.codes(number)):
                if code == atom:
                    book.frame_cell(pen, cell, small, (x, second))

    def on_pointer(x, y, pressed):
        """A click, or a drag, on the palette or on the bars."""
        atom = book.atom_at(x, y, (0, TOP))
        if 0 <= x < PALETTE and chart - chart_height <= y < chart:
            atom = ranking[int(x * book.num_codes / PALETTE)]
        return {} if atom is None else {"atom": atom}

    def move(by):
        rank = ranking.index(slider.value) + by
        return {"atom": ranking[min(max(rank, 0), book.num_codes - 1)]}

    # something to look at first: the atom that puts the most ink on these images
    ink = book.patches.mean((1, 2, 3)) * book.uses
    slider = widgets.IntSlider(
        value=ink.argmax().item(), min=0, max=book.num_codes - 1, description="atome",
        layout={"width": "340px"},
    )  # fmt: skip
    return LivePicture(
        draw,
        {"atom": slider},
        caption="Cliquez sur un atome. Seul au milieu d'une carte vide (l'atome "
        f"{book.background} partout ailleurs), que dessine-t-il ? Comparez à ce que le décodeur "
        "dessine quand il a ses voisins habituels.",
        on_pointer=on_pointer,
        buttons={"Plus fréquent": lambda: move(-1), "Plus rare": lambda: move(1)},
    )


# ---------------------------------------------------------------------------------------------
# A prior draws the codes
# ---------------------------------------------------------------------------------------------

LIKELIEST = 10  # atoms whose probability is shown
LAW = 386  # width of their chart


def prior_explorer(model, priors, images, *, temperature=1.0):
    """Watch a prior draw a map of codes, one by one, and the decoder draw the image.

    On the left the codes so far; in the middle the image that they give, the codes to come being
    replaced by the most frequent one; on the right the law of the last code, and the bill in bits.

    Args:
        model: a `VQVAE`.
        priors: `{name: model of its codes}`: autoregressive models, or any object whose
            `sample(1, y, generator=, temperature=, callback=)` tells each code it draws; `y` is
            None unless it has `num_classes`.
        images: integer images `(N, C, H, W)`, from which the tiles of the atoms are made.
        temperature: where the temperature starts.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    book = Codebook(model, images)
    num_classes = _check_priors(book, priors)
    priors = {name: _frozen(prior) for name, prior in priors.items()}
    count = book.height * book.width
    side, zoom = CANVAS // max(book.height, book.width), book.zoom(CANVAS)
    middle = CANVAS + GAP
    right = middle + CANVAS + GAP
    size = (right + LAW, TOP + CANVAS + 40)

    @functools.lru_cache(maxsize=64)
    def drawn(prior, temperature, seed, label=None):
        return _draw_codes(priors[prior], label, temperature, seed, book)

    def draw(step, prior, temperature, seed, label=None):
        steps = drawn(prior, temperature, seed, label)[:step]
        codes = [None] * count
        for place, code, _ in steps:
            codes[place] = code

        picture = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(picture)
        _title(pen, 0, "carte des codes", CODE_TEXT)
        book.paste_map(picture, (0, TOP), side, codes)
        _title(pen, middle, "image décodée", figures.COLORS["x"])
        _paste(picture, _half_drawn(codes, book), zoom, (middle, TOP))
        if None in codes:
            text = f"en gris : pas encore tiré, décodé comme l'atome {book.background}"
            pen.text((0, TOP + CANVAS + 24), text, fill="#666666", font=font(16), anchor="lm")
        if not steps:
            pen.text((right, TOP), "aucun code tiré", fill=DARK, font=font(16))
            return picture
        place, code, law = steps[-1]
        pen.rectangle(cell_box(place, book.width, side), outline=FOCUS, width=4)
        book.frame_cell(pen, place, zoom, (middle, TOP))
        _title(pen, right, f"loi du code {step}, sachant ceux d'avant", FOCUS_TEXT)
        _draw_law(picture, pen, (right, TOP + 170), law, code, book)
        for number, (text, color) in enumerate(_bill(steps, count, book.num_codes)):
            where = (right, TOP + 250 + 24 * number)
            pen.text(where, text, fill=color, font=font(16), anchor="lm")
        return picture

    controls = {
        "step": widgets.IntSlider(
            value=count // 2 + 1, min=0, max=count, description="code", layout={"width": "340px"}
        ),
        "prior": widgets.Dropdown(
            options=list(priors), description="prior", layout={"width": "270px"}
        ),
        "temperature": temperature_slider(temperature),
        "seed": seed_box(),
    }
    rows = [["step", "prior"], ["temperature", "seed"]]
    if num_classes is not None:
        controls["label"] = class_box(num_classes)
        rows[1].append("label")
    draws = torch.Generator().manual_seed(1)
    return LivePicture(
        draw,
        controls,
        caption="Lancez ▶ : le prior tire les codes un par un, le décodeur en fait une image. "
        "Arrêtez-vous sur un code qui coûte cher, puis baissez la température, ou changez de "
        "classe ou de prior.",
        buttons={
            "Autre tirage": lambda: {"seed": int(torch.randint(10_000, (1,), generator=draws))}
        },
        rows=rows,
        play="step",
    )


def _check_priors(book, priors):
    """The number of classes of the priors that have some, or None."""
    if not priors:
        raise ValueError("the demo needs at least one prior")
    expected = {"shape": tuple(book.model.code_shape), "levels": book.num_codes}
    for name, prior in priors.items():
        if not callable(getattr(prior, "sample", None)):
            raise ValueError(f"prior {name!r}: {type(prior).__name__} has no sample method")
        for what, value in expected.items():
            found = getattr(prior, what, value)
            if found != value:
                raise ValueError(f"prior {name!r}: {what} {found}, the codes have {value}")
    classes = {getattr(prior, "num_classes", None) for prior in priors.values()} - {None}
    if len(classes) > 1:
        raise ValueError(f"priors of {sorted(classes)} classes: expected as many for all")
    return classes.pop() if classes else None


def _draw_codes(prior, label, temperature, seed, book):
    """One map of codes, drawn by a prior: a list of (place, code, law of the code)."""
    steps = []

    def note(place, values, probabilities):
        law = probabilities[0].tolist()  # at once: the tensor will serve again
        steps.append((place, int(values[0]), law if isinstance(law, list) else [1 - law, law]))

    conditional = getattr(prior, "num_classes", None) is not None
    prior.sample(
        1,
        torch.tensor([label], device=book.device) if conditional else None,
        generator=torch.Generator(book.device).manual_seed(seed),
        temperature=temperature,
        callback=note,
    )
    if len(steps) != book.height * book.width:
        raise ValueError(
            f"a prior told {len(steps)} codes: expected {book.height * book.width}, "
            "each by callback(place, values, probabilities)"
        )
    return steps


def _half_drawn(codes, book):
    """The image of codes some of which wait, paler where they do: colours `(H, W, 3)`."""
    filled = tuple(book.background if code is None else code for code in codes)
    page = _page(book.decode(filled))
    waits = np.array([code is None for code in codes]).reshape(book.height, book.width)
    step = page.shape[0] // book.height
    waits = waits.repeat(step, 0).repeat(step, 1)[..., None]
    return np.where(waits, 0.5 * page + np.array(WAITING) - 0.5, page)


def _draw_law(picture, pen, corner, law, code, book):
    """The most probable atoms, their tiles under their bars; one bar for all the others."""
    x, floor = corner
    ranked = sorted(range(len(law)), key=lambda atom: -law[atom])[:LIKELIEST]
    if code not in ranked:
        ranked[-1] = code
    shares = [law[atom] for atom in ranked]
    others = len(law) - len(ranked)
    if others:
        shares.append(max(0.0, 1 - sum(shares)))
    axis(pen, (x + 32, floor), (LAW - 36, 140), 14)
    place, inside = ranked.index(code), (x + 36, floor)
    colors, note = (figures.COLORS["prior"], FOCUS), f"p({code}) = {decimal(law[code], 3)}"
    bars(pen, inside, (LAW - 44, 140), shares, place, colors, labels=[""] * len(shares), note=note)
    slot = (LAW - 44) / len(shares)
    side = min(30, int(slot))
    for number, atom in enumerate([*ranked, *[None] * (others > 0)]):
        left = round(inside[0] + slot * (number + 0.5) - side / 2)
        if atom is not None:
            picture.paste(book.tile(atom, side), (left, floor + 8))
        text = f"+{others}" if atom is None else str(atom)
        where = (left + side / 2, floor + side + 24)
        pen.text(where, text, fill=FOCUS_TEXT if atom == code else DARK, font=font(14), anchor="ms")


def _bill(steps, count, num_codes):
    """What the last code cost, and all so far: lines of text and their colours."""
    bits = [0.0 - math.log2(max(law[code], 1e-30)) for _, code, law in steps]  # never −0.0
    total, flat = sum(bits), math.log2(num_codes)
    return [
        (f"code {len(steps)} sur {count} : atome {steps[-1][1]}", FOCUS_TEXT),
        (f"coût : {amount(bits[-1], 2, 'bit')}, au lieu de {decimal(flat)} sans prior", DARK),
        (f"total : {amount(total, 1, 'bit')}, au lieu de {decimal(flat * len(steps), 1)}", DARK),
        (f"soit {amount(total / len(steps), 2, 'bit')} par code", DARK),
    ]
