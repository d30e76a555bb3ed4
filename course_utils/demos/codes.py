"""The codes of a VQ-VAE: edit those of an image, meet each atom (notebook 04)."""

import ipywidgets as widgets
import numpy as np
from PIL import Image, ImageDraw

from .. import figures
from ..vq import perplexity
from .codebook import (
    AROUND,
    DARK,
    GAP,
    PALETTE,
    Codebook,
    cell_at,
    panel_title,
    paper,
    paste_image,
    tinted,
)
from .live import (
    CANVAS,
    FOCUS,
    FOCUS_TEXT,
    TOP,
    LivePicture,
    bars,
    cell_box,
    decimal,
    edits_box,
    font,
    mark,
    read_edits,
    write_edits,
)

# ---------------------------------------------------------------------------------------------
# Edit the codes of an image
# ---------------------------------------------------------------------------------------------

ATOM, PASTE = "atome", "coller l'autre image"
SMALL = 84  # pixels: side of the three small images
VISIBLE = 0.1  # a pixel whose intensity moves by more has changed


def code_editor(model, images, titles=None, *, tiles=None):
    """Change the codes of an image, one by one, and see what the decoder draws.

    On the left the map of codes: a click chooses a cell, a drag copies its code onto others; a
    click on the palette, on the right, gives the cell another atom. With the other brush, a click
    or a drag pastes the codes of a second image instead.

    Args:
        model: a `VQVAE`.
        images: integer images `(N, C, H, W)` to choose from.
        titles: their N names.
        tiles: images from which the tiles of the atoms are made; the same by default.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    book = Codebook(model, images, tiles)
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
        panel_title(pen, 0, "carte des codes", figures.CODE_TEXT)
        book.paste_map(picture, (0, TOP), side, codes)
        for k in changed:
            mark(pen, cell_box(k, book.width, side))
        pen.rectangle(cell_box(cell, book.width, side), outline=FOCUS, width=4)

        panel_title(pen, middle, "image décodée", figures.COLORS["x"])
        paste_image(picture, paper(after), zoom, (middle, TOP))
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
            "image": paper(book.intensities(image)),
            "sans retouche": paper(before),
            "différence": tinted(change[..., None], FOCUS),
        }
        for number, (text, page) in enumerate(panels.items()):
            y = TOP + number * (CANVAS - SMALL) // 2
            pen.text((column, y - 7), text, fill=DARK, font=font(14), anchor="ls")
            paste_image(picture, page, small, (column, y))
        for k in changed:
            book.frame_cell(pen, k, small, (column, y), "#777777", 1)

    def draw_palette(picture, pen, atom, first):
        panel_title(pen, right, f"palette des {book.num_codes} atomes", figures.CODE_TEXT)
        picture.paste(book.palette(), (right, TOP))
        book.outline_atom(pen, (right, TOP), first, DARK)
        book.outline_atom(pen, (right, TOP), atom, FOCUS)

    def draw_other(picture, pen, other, codes, changed):
        panel_title(pen, right, f"à coller : {titles[other]}", figures.CODE_TEXT)
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
            value=count // 2, min=1, max=count, description="case", layout={"width": "150px"}
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
        here = cell_at(x, y, (0, TOP), side, book.width, book.height)
        if controls["brush"].value == PASTE:
            there = cell_at(x, y, (right, TOP), paste_side, book.width, book.height)
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
        panel_title(pen, 0, f"les {book.num_codes} atomes, du clair au foncé", figures.CODE_TEXT)
        picture.paste(book.palette(), (0, TOP))
        book.outline_atom(pen, (0, TOP), atom, FOCUS)
        draw_usage(pen, atom)

        panel_title(pen, panels[0], "seul, sur le fond")
        codes = [book.background] * (book.height * book.width)
        codes[centre] = atom
        paste_image(picture, paper(book.decode(tuple(codes))), zoom, (panels[0], TOP))
        book.frame_cell(pen, centre, zoom, (panels[0], TOP))
        panel_title(pen, panels[1], "avec ses voisins (moyenne)", figures.CODE_TEXT)
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
        panel_title(pen, 0, title, FOCUS_TEXT, TOP + PALETTE + 30)
        heights = (book.uses[ranking] / book.uses.max()).tolist()
        labels = [""] * book.num_codes
        colors = (figures.COLORS["code"], FOCUS)
        bars(
            pen, (0, chart), (PALETTE, chart_height - 10), heights, rank, colors, labels=labels,
            note="",
        )  # fmt: skip
        text = f"perplexité {decimal(reached, 1)}"
        where = (PALETTE, chart - chart_height + 8)
        pen.text(where, text, fill=figures.CODE_TEXT, font=font(14), anchor="rm")

    def draw_places(picture, pen, x, places):
        """Heat map of the places where the atom serves, `(N, h, w)` booleans."""
        panel_title(pen, x, "où il sert", figures.CODE_TEXT)
        counts = places.sum(0).numpy()
        heat = (counts / max(1, counts.max()))[..., None]
        paste_image(
            picture, tinted(heat, figures.COLORS["code"]), PANEL // max(counts.shape), (x, TOP)
        )

    def draw_examples(picture, pen, atom):
        """The first images where the atom serves, and where."""
        numbers = (book.maps == atom).flatten(1).any(1).nonzero()[:SHOWN, 0].tolist()
        text = "des images où il sert" if numbers else "il ne sert dans aucune image"
        panel_title(pen, left, text, figures.COLORS["x"], second)
        for x, number in zip(shown, numbers):
            paste_image(picture, paper(book.intensities(number)), small, (x, second))
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
