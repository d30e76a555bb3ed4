"""The codes of a VQ-VAE: edit those of an image, meet each atom (notebook 04)."""

import ipywidgets as widgets
import numpy as np
from PIL import Image, ImageDraw

from .. import figures
from ..language import decimal, tr, trn
from ..vq import perplexity
from .codebook import AROUND, PALETTE, Codebook
from .controls import chooser, edits_box, number_box, read_edits, slider, write_edits
from .drawing import CANVAS, DARK, FOCUS, GAP, TOP, paper, tinted, write, write_title
from .live import LivePicture
from .panels import Chart, Panel

# ---------------------------------------------------------------------------------------------
# Edit the codes of an image
# ---------------------------------------------------------------------------------------------

ATOM, PASTE = tr("atome"), tr("coller l'autre image")
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
        titles = [tr("image {number}", number=number + 1) for number in range(len(images))]
    if len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images: expected one each")
    editor = _Editor(book, titles)
    return LivePicture(
        editor.draw,
        editor.controls,
        caption=tr(
            "Cliquez sur un code, puis sur un atome de la palette : le décodeur redessine l'image. "
            "Glissez depuis une case pour recopier son code. Puis prenez l'autre pinceau : collez "
            "la moitié d'un autre chiffre."
        ),
        panels=editor.panels,
        on_pointer=editor.on_pointer,
        buttons={"clear": (tr("Effacer les retouches"), lambda: {"edits": ""})},
        rows=[["image", "brush", "other"], ["cell", "edits"]],
    )


class _Editor:
    """What the editor of codes shows, and what it answers to the mouse."""

    def __init__(self, book, titles):
        self.book, self.titles = book, titles
        codes = book.map_panel(CANVAS, tr("carte des codes"), figures.COLORS["code"])
        decoded = book.image_panel(
            CANVAS, tr("image décodée"), figures.COLORS["x"], left=codes.right + GAP
        )
        column, step = decoded.right + GAP, (CANVAS - SMALL) // 2
        right = column + SMALL + 40
        atoms = tr("palette des {count} atomes", count=book.num_codes)
        self.panels = {
            "codes": codes,
            "decoded": decoded,
            "image": book.image_panel(SMALL, tr("image"), left=column),
            "before": book.image_panel(SMALL, tr("sans retouche"), left=column, top=TOP + step),
            "change": book.image_panel(SMALL, tr("différence"), left=column, top=TOP + 2 * step),
            "palette": book.palette_panel(atoms, figures.COLORS["code"], left=right),
            "other": book.map_panel(PALETTE, left=right),  # instead, with the other brush
        }
        numbered = [(str(title), number) for number, title in enumerate(titles)]
        count = book.height * book.width
        self.controls = {
            "image": chooser(tr("image"), numbered, width=230),
            "cell": number_box(tr("case"), count // 2, 1, count),
            "brush": widgets.ToggleButtons(
                options=[ATOM, PASTE], description=tr("pinceau"), style={"button_width": "160px"}
            ),
            "other": chooser(tr("autre image"), numbered, width=230, value=min(1, len(titles) - 1)),
            "edits": edits_box(),
        }

    def draw(self, image, cell, brush, other, edits):
        book, panels, cell = self.book, self.panels, cell - 1
        start = book.codes(image)
        codes = _edited(start, edits)
        changed = [k for k, code in enumerate(codes) if code != start[k]]
        before, after = book.decode(start), book.decode(codes)
        change = (after - before).abs().amax(0).numpy()
        right = panels["palette"].left

        picture = Image.new("RGB", (right + PALETTE + 2, TOP + CANVAS + 40), "white")
        book.show_map(picture, panels["codes"], codes)
        panels["decoded"].show(picture, paper(after))
        panels["image"].show(picture, paper(book.intensities(image)))
        panels["before"].show(picture, paper(before))
        panels["change"].show(picture, tinted(change[..., None], FOCUS))
        for k in changed:
            panels["codes"].fold(picture, k)
            panels["change"].frame(picture, k, "#777777", 1)
        panels["codes"].frame(picture, cell)
        panels["decoded"].frame(picture, cell)
        if brush == ATOM:
            book.show_palette(picture, panels["palette"])
            book.frame_atom(picture, panels["palette"], start[cell], DARK)
            book.frame_atom(picture, panels["palette"], codes[cell], FOCUS)
        else:
            self._show_other(picture, other, codes, changed)

        told = {"cell": cell + 1, "atom": codes[cell], "before": start[cell]}
        text = tr("case {cell} : atome {atom}", **told)
        if cell in changed:
            text = tr("case {cell} : atome {atom} (avant : {before})", **told)
        write(picture, (right, TOP + PALETTE + 18), text, FOCUS, anchor="lm")
        text = _summary(changed, change > VISIBLE, book)
        write(picture, (0, TOP + CANVAS + 24), text, anchor="lm")
        return picture

    def _show_other(self, picture, other, codes, changed):
        """The codes of the other image; those that were pasted are marked."""
        panel, theirs = self.panels["other"], self.book.codes(other)
        title = tr("à coller : {title}", title=self.titles[other])
        write_title(picture, panel.left, panel.top, title, figures.COLORS["code"])
        self.book.show_map(picture, panel, theirs)
        for k in changed:
            if codes[k] == theirs[k]:
                panel.fold(picture, k)

    def on_pointer(self, x, y, pressed):
        """A click or a drag on a map, or a click on the palette."""
        values = {name: control.value for name, control in self.controls.items()}
        here, chosen = self.panels["codes"].cell_at(x, y), values["cell"] - 1
        if values["brush"] == PASTE:
            cell = self.panels["other"].cell_at(x, y) if here is None else here
            if cell is None:
                return {}
            return self._give(cell, self.book.codes(values["other"])[cell]) | {"cell": cell + 1}
        if here is None:
            atom = self.book.atom_at(self.panels["palette"], x, y)
            return self._give(chosen, atom) if pressed and atom is not None else {}
        if pressed:
            return {"cell": here + 1}
        codes = _edited(self.book.codes(values["image"]), values["edits"])
        return self._give(here, codes[chosen])

    def _give(self, cell, code):
        """Give a cell a code; its own again is no edit."""
        start = self.book.codes(self.controls["image"].value)
        edits = read_edits(self.controls["edits"].value) | {cell: (code,)}
        if start[cell] == code:
            del edits[cell]
        return {"edits": write_edits(dict(sorted(edits.items())))}


def _edited(codes, edits):
    """The codes once edited, `"25=17 26=3"`: cells are counted from 1."""
    edits = read_edits(edits)
    return tuple(edits[k][0] if k in edits else code for k, code in enumerate(codes))


def _summary(changed, visible, book):
    """How many codes and pixels changed, in a sentence; `visible`: `(H, W)` booleans."""
    if not changed:
        return tr("aucun code changé sur {count}", count=book.height * book.width)
    kept = np.ones((book.height, book.width), dtype=bool)
    kept.flat[changed] = False
    step = visible.shape[0] // book.height
    outside = visible & kept.repeat(step, 0).repeat(step, 1)
    codes = trn(
        "{count} code changé sur {all}", "{count} codes changés sur {all}", len(changed),
        all=kept.size,
    )  # fmt: skip
    pixels = trn(
        "{count} pixel change de plus de {share}", "{count} pixels changent de plus de {share}",
        visible.sum(), share=decimal(VISIBLE, 1),
    )  # fmt: skip
    elsewhere = trn("hors de cette case", "hors de ces cases", len(changed))
    return tr(
        "{codes} : {pixels}, dont {outside} {elsewhere}",
        codes=codes, pixels=pixels, outside=outside.sum(), elsewhere=elsewhere,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------
# What each atom draws
# ---------------------------------------------------------------------------------------------

PANEL = 196  # side of the three panels
SHOWN, SHOWN_SIDE = 6, 112  # images where the atom serves: how many, and their side
WIDTH = 1050  # of the picture


def codebook_browser(model, images):
    """What each atom draws: alone, among its neighbours; where it serves, and how often.

    Args:
        model: a `VQVAE`.
        images: integer images `(N, C, H, W)`, over which everything is counted.

    Returns:
        LivePicture: a widget; the last line of a cell shows it.
    """
    browser = _Browser(Codebook(model, images))
    return LivePicture(
        browser.draw,
        {"atom": browser.slider},
        caption=tr(
            "Cliquez sur un atome. Seul au milieu d'une carte vide (l'atome {background} partout "
            "ailleurs), que dessine-t-il ? Comparez à ce que le décodeur dessine quand il a ses "
            "voisins habituels.",
            background=browser.book.background,
        ),
        panels=browser.panels,
        on_pointer=browser.on_pointer,
        buttons={
            "commoner": (tr("Plus fréquent"), lambda: browser.move(-1)),
            "rarer": (tr("Plus rare"), lambda: browser.move(1)),
        },
    )


class _Browser:
    """What the browser of atoms shows, and what it answers to the mouse."""

    def __init__(self, book):
        self.book = book
        self.ranking = book.uses.argsort(descending=True, stable=True).tolist()
        self.perplexity = perplexity(book.maps, book.num_codes)
        left, second = PALETTE + 2 * GAP, TOP + PANEL + 36  # the second column, its second row
        middle, last = (left + WIDTH - 2 - PANEL) // 2, WIDTH - 2 - PANEL
        title = tr("les {count} atomes, du clair au foncé", count=book.num_codes)
        self.panels = {
            "palette": book.palette_panel(title, figures.COLORS["code"]),
            "alone": book.image_panel(PANEL, tr("seul, sur le fond"), left=left),
            "tile": Panel(
                1, 1, PANEL, tr("avec ses voisins (moyenne)"), figures.COLORS["code"], left=middle
            ),
            "places": book.map_panel(PANEL, tr("où il sert"), figures.COLORS["code"], left=last),
            "uses": Chart(book.num_codes, 0, TOP + PALETTE + 92, PALETTE, 50),
        }
        step = (WIDTH - 2 - left - SHOWN_SIDE) // (SHOWN - 1)
        for number in range(SHOWN):
            self.panels[f"example {number}"] = book.image_panel(
                SHOWN_SIDE, left=left + number * step, top=second
            )
        # something to look at first: the atom that puts the most ink on these images
        ink = book.patches.mean((1, 2, 3)) * book.uses
        self.slider = slider(tr("atome"), ink.argmax().item(), 0, book.num_codes - 1, width=340)

    def draw(self, atom):
        picture = Image.new("RGB", (WIDTH, self.panels["uses"].floor + 8), "white")
        self.book.show_palette(picture, self.panels["palette"])
        self.book.frame_atom(picture, self.panels["palette"], atom, FOCUS)
        self._show_uses(picture, atom)
        self._show_alone(picture, atom)
        self._show_tile(picture, atom)
        self._show_places(picture, atom)
        self._show_examples(picture, atom)
        return picture

    def _show_uses(self, picture, atom):
        """A bar per atom, from the most frequent to the rarest."""
        chart, uses = self.panels["uses"], self.book.uses
        rank, share = self.ranking.index(atom), 100 * (uses[atom] / uses.sum()).item()
        title = tr(
            "atome {atom} : {share} % (rang {rank})",
            atom=atom, share=decimal(share, 1), rank=rank + 1,
        )  # fmt: skip
        write_title(picture, 0, chart.floor - 62, title, FOCUS)
        heights = (uses[self.ranking] / uses.max()).tolist()
        colors, labels = (figures.COLORS["code"], FOCUS), [""] * len(heights)
        chart.bars(picture, heights, rank, colors, labels=labels, note="")
        text = tr("perplexité {value}", value=decimal(self.perplexity, 1))
        write(picture, (PALETTE, chart.floor - 52), text, figures.COLORS["code"], 14, "rm")

    def _show_alone(self, picture, atom):
        """What is decoded of this atom in the middle of a map of the background."""
        book, panel = self.book, self.panels["alone"]
        centre = (book.height // 2) * book.width + book.width // 2
        codes = [book.background] * (book.height * book.width)
        codes[centre] = atom
        panel.show(picture, paper(book.decode(codes)))
        panel.frame(picture, centre)

    def _show_tile(self, picture, atom):
        """The tile of the atom, framed without what is around it."""
        panel = self.panels["tile"]
        panel.write_title(picture)
        picture.paste(self.book.tile(atom, PANEL), (panel.left, panel.top))
        inside = PANEL * AROUND / self.book.patches.shape[-1]
        corner = [panel.left + inside, panel.top + inside]
        end = [panel.right - inside, panel.bottom - inside]
        ImageDraw.Draw(picture).rectangle([*corner, *end], outline=FOCUS, width=3)

    def _show_places(self, picture, atom):
        """How often the atom serves at each place of the map."""
        counts = (self.book.maps == atom).sum(0).numpy()
        heat = (counts / max(1, counts.max()))[..., None]
        self.panels["places"].show(picture, tinted(heat, figures.COLORS["code"]))

    def _show_examples(self, picture, atom):
        """The first images where the atom serves, and where."""
        book, first = self.book, self.panels["example 0"]
        numbers = (book.maps == atom).flatten(1).any(1).nonzero()[:SHOWN, 0].tolist()
        text = tr("des images où il sert") if numbers else tr("il ne sert dans aucune image")
        write_title(picture, first.left, first.top, text, figures.COLORS["x"])
        for place, number in enumerate(numbers):
            panel = self.panels[f"example {place}"]
            panel.show(picture, paper(book.intensities(number)))
            for cell, code in enumerate(book.codes(number)):
                if code == atom:
                    panel.frame(picture, cell, width=2)

    def on_pointer(self, x, y, pressed):
        """A click, or a drag, on the palette or on the bars."""
        atom = self.book.atom_at(self.panels["palette"], x, y)
        bar = self.panels["uses"].bar_at(x, y)
        if bar is not None:
            atom = self.ranking[bar]
        return {} if atom is None else {"atom": atom}

    def move(self, by):
        """The atom whose rank is so many places farther, if there is one."""
        rank = self.ranking.index(self.slider.value) + by
        return {"atom": self.ranking[min(max(rank, 0), self.book.num_codes - 1)]}
