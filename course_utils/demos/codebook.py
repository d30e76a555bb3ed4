"""What the demos of notebook 04 share: a codebook drawn as tiles, maps of codes as mosaics."""

import copy
import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps

from .. import figures
from ..data import check_images
from ..vq import VQVAE
from .drawing import DARK, WAITING, font, paper, to_pil
from .panels import Panel

PALETTE = 272  # pixels: side of the palette of atoms
AROUND = 1  # pixels of its neighbours that the tile of an atom shows, on each side


class Codebook:
    """A `VQVAE` as these demos draw it: atoms as tiles, maps of codes as mosaics.

    The tile of an atom is the mean of what the decoder draws where it serves, with a little of what
    is around: alone on an empty page, most atoms draw nothing.

    Args:
        model: the `VQVAE`; a copy of it is kept, as it is now.
        images: integer images `(N, C, H, W)`.
        tiles: images from which the tiles are made, the first 500; the same by default.

    Attributes:
        maps: codes of the images, `(N, h, w)`, int64.
        uses: how many times each atom serves there, `(K,)`.
        background: the most frequent atom.
        order: the atoms from the lightest to the darkest, each row of the palette going from those
            whose ink is on the left to those whose ink is on the right.
    """

    @torch.no_grad()
    def __init__(self, model, images, tiles=None):
        if not isinstance(model, VQVAE):
            raise ValueError(f"the demo needs a VQVAE, got {type(model).__name__}")
        check_images(images, model.shape, model.levels)
        self.model = frozen(model)
        self.device = self.model.quantizer.codebook.device
        self.images, self.num_codes = images.cpu(), model.num_codes
        _, self.height, self.width = model.code_shape
        self.maps = self._maps(images)
        self.uses = self.maps.flatten().bincount(minlength=self.num_codes)
        self.background = self.uses.argmax().item()
        maps = self.maps[:500] if tiles is None else self._maps(tiles[:500])
        decoded = self.model.decode_codes(maps[:, None].to(self.device, torch.uint8))
        self.patches = self._mean_patches(decoded.cpu(), maps)
        self.columns = math.ceil(math.sqrt(self.num_codes))
        self.order = self._ordered()
        self.tile = functools.cache(self._tile)  # a picture has a hundred of them

    def _maps(self, images):
        """The codes of images: `(N, h, w)`, int64."""
        codes = [self.model.encode(part.to(self.device)) for part in images.split(500)]
        return torch.cat(codes)[:, 0].cpu().long()

    def codes(self, image):
        """The codes of an image, from its number: a tuple, row by row."""
        return tuple(self.maps[image].flatten().tolist())

    def intensities(self, image):
        """An image from its number, `(C, H, W)` in [0, 1]."""
        return self.images[image].float() / (self.model.levels - 1)

    @torch.no_grad()
    def decode(self, codes):
        """A tuple of codes -> expected intensities `(C, H, W)`."""
        codes = torch.tensor(codes, dtype=torch.uint8, device=self.device)
        return self.model.decode_codes(codes.view(1, *self.model.code_shape))[0].cpu()

    def half_drawn(self, codes):
        """The image of codes some of which wait (None), paler there: colours `(H, W, 3)`."""
        filled = [self.background if code is None else code for code in codes]
        page = paper(self.decode(filled))
        waits = np.array([code is None for code in codes]).reshape(self.height, self.width)
        step = page.shape[0] // self.height
        waits = waits.repeat(step, 0).repeat(step, 1)[..., None]
        return np.where(waits, 0.5 * page + np.array(WAITING) - 0.5, page)

    def _mean_patches(self, decoded, maps):
        """Mean of the patches of decoded maps of codes where each atom serves: `(K, C, s, s)`."""
        step = decoded.shape[-1] // self.width
        side = step + 2 * AROUND
        padded = F.pad(decoded, (AROUND,) * 4, mode="replicate")
        patches = F.unfold(padded, side, stride=step).mT.flatten(0, 1)  # (n · h · w, C · s · s)
        codes = maps.flatten()
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

    def map_panel(self, room, *title, **corner):
        """A panel for a map of codes, in a square of this side."""
        side = room // max(self.height, self.width)
        return Panel(self.width, self.height, side, *title, **corner)

    def image_panel(self, room, *title, **corner):
        """A panel for an image, whose cells are what stands under each code."""
        _, height, width = self.model.shape
        side = max(1, room // max(height, width)) * (width // self.width)
        return Panel(self.width, self.height, side, *title, **corner)

    def palette_panel(self, *title, **corner):
        """A panel for the atoms, in their order."""
        return Panel(self.columns, self.columns, PALETTE // self.columns, *title, **corner)

    def _tile(self, atom, side, size=0):
        """The tile of an atom; its number on it, `size` pixels high, unless `size` is 0."""
        tile = to_pil(paper(self.patches[atom])).resize((side, side), Image.Resampling.BICUBIC)
        if self.patches.shape[1] == 1:
            tile = ImageOps.colorize(tile.convert("L"), figures.COLORS["code"], "white")
        pen = ImageDraw.Draw(tile)
        pen.rectangle([0, 0, side - 1, side - 1], outline="#E3D3DC")
        if size:
            how = {"font": font(size), "anchor": "rs", "stroke_width": 2, "stroke_fill": "white"}
            pen.text((side - 4, side - 5), str(atom), fill=DARK, **how)
        return tile

    def show_map(self, picture, panel, codes, size=14):
        """A map of codes, tile by tile, under its title; None is a code that waits."""
        panel.write_title(picture)
        waiting = tuple(round(255 * share) for share in WAITING)
        for cell, code in enumerate(codes):
            box = panel.box(cell)
            if code is None:
                ImageDraw.Draw(picture).rectangle(box, fill=waiting, outline="white")
            else:
                picture.paste(self.tile(code, panel.side, size), box[:2])

    def show_palette(self, picture, panel):
        self.show_map(picture, panel, self.order, 11)

    def frame_atom(self, picture, panel, atom, color):
        """Outline an atom of the palette."""
        panel.frame(picture, self.order.index(atom), color)

    def atom_at(self, panel, x, y):
        """The atom of the palette at this point of the picture, or None."""
        place = panel.cell_at(x, y)
        return None if place is None or place >= self.num_codes else self.order[place]


def frozen(model):
    """A copy of a model as it is now: it may go on learning without its demo."""
    return copy.deepcopy(model).eval()
