"""The demos of notebook 04 without a browser: codes edited, atoms, and a prior of the codes."""

import copy
import functools
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import test_demos
import torch
from matplotlib.colors import to_rgb
from autoregressive_models import perturb, same_state, seeded, state_of, train
from test_demos import DOWN, DRAG, HOVER, decode, french, in_color, values

from course_utils import MADE, VAE, PixelCNN, figures
from course_utils.demos import code_editor, codebook_browser, prior_explorer
from course_utils.demos.codebook import Codebook
from course_utils.vq import VQVAE, code_prior, perplexity

pytestmark = pytest.mark.usefixtures("no_screen")
words = test_demos.words

FOCUS, WAITING, DARK = figures.COLORS["focus"], 0.93 * 255, "#222222"
TOP, CANVAS = 30, 308
HIGH, WIDE = 3, 4  # of the maps: rows are not columns
COUNT, ATOMS = HIGH * WIDE, 7
SIDE, ZOOM = 77, 19  # of a cell, and of a pixel of the decoded image: 308 // 4 and 308 // 16
MIDDLE = CANVAS + 24  # where the decoded image stands
COLUMN, SMALL = 2 * MIDDLE, 5  # and the small images, enlarged 84 // 16 times
RIGHT = COLUMN + 120  # and the palette
TILE, PASTED = 90, 68  # side of a tile of the palette: 272 // 3; of a cell to paste: 272 // 4
EDITOR, BROWSER, PRIOR = (RIGHT + 274, 378), (1050, 402), (1050, 378)


def blots(n=40, channels=1, seed=1):
    """Images of large blots: neighbouring pixels are alike."""
    small = torch.rand(n, channels, HIGH + 1, WIDE + 1, generator=seeded(seed))
    smooth = torch.nn.functional.interpolate(small, (4 * HIGH, 4 * WIDE), mode="bilinear")
    return (smooth > 0.5).to(torch.uint8)


def small_model(channels=1, num_codes=ATOMS):
    return copy.deepcopy(trained(channels, num_codes))


@functools.cache
def trained(channels, num_codes):
    torch.manual_seed(0)
    shape = (channels, 4 * HIGH, 4 * WIDE)
    model = VQVAE(shape, num_codes=num_codes, code_dim=4, features=8)
    return train(model, blots(channels=channels), steps=60, lr=0.02)


@pytest.fixture(scope="module")
def models():
    return {"grey": small_model(), "colour": small_model(3)}


@pytest.fixture(scope="module")
def model(models):
    return models["grey"]


@pytest.fixture(scope="module")
def images():
    return blots()


@pytest.fixture(scope="module")
def book(model, images):
    return Codebook(model, images)


@pytest.fixture(scope="module")
def maps(model, images):
    """The codes of the images, `(N, COUNT)`."""
    return model.encode(images).flatten(1).long()


def decoded(model, codes):
    """Expected intensities `(C, H, W)` of codes given as a list."""
    with torch.no_grad():
        return model.decode_codes(torch.tensor(codes, dtype=torch.uint8).view(1, 1, HIGH, WIDE))[0]


def colors(image):
    """Intensities `(C, H, W)` as they are shown: `(H, W, 3)` in [0, 255]."""
    if len(image) == 1:
        image = 1 - image.expand(3, -1, -1)
    return 255 * image.permute(1, 2, 0).numpy()


def panel(demo, left, zoom, top=TOP):
    """The colour in the middle of each pixel of an image."""
    page = page_of(demo)[top + zoom // 2 :: zoom, left + zoom // 2 :: zoom]
    return page[: 4 * HIGH, : 4 * WIDE]


def same(page, expected):
    return np.abs(page - expected).max() < 1


def corner_of(cell, side, left=0, top=TOP, width=WIDE):
    return left + side * (cell % width), top + side * (cell // width)


def codes_shown(demo, book, left=0, side=SIDE):
    """The codes of a map, recognised by the lower right of their tiles: there is no mark there."""
    page, part = page_of(demo), slice(side // 2, side - 5)
    tiles = [book.tile(atom, side, 14) for atom in range(book.num_codes)]
    tiles = [np.asarray(tile).astype(int)[part, part] for tile in tiles]
    shown = []
    for cell in range(COUNT):
        x, y = corner_of(cell, side, left)
        crop = page[y : y + side, x : x + side][part, part]
        (code,) = [k for k, tile in enumerate(tiles) if np.array_equal(crop, tile)] or [None]
        shown.append(code)
    return shown


def framed(demo, color, left, side, width, count, top=TOP, inset=1):
    """The cells of a grid whose four sides have this colour; their outer line is shared."""
    page, found = in_color(page_of(demo), color), []
    for cell in range(count):
        x, y = corner_of(cell, side, left, top, width)
        near, far, along = inset, side - inset, slice(5, side - 4)
        square = page[y : y + side + 1, x : x + side + 1]
        lines = square[near, along], square[far, along], square[along, near], square[along, far]
        found += [cell] if np.concatenate(lines).all() else []
    return found


def marked(demo, left=0, side=SIDE):
    """The cells that have a corner turned down."""
    page, found = page_of(demo), []
    for cell in range(COUNT):
        x, y = corner_of(cell, side, left)
        found += [cell] if in_color(page[y + 7, x + 7], FOCUS) else []
    return found


@functools.lru_cache(maxsize=1)
def pixels_of(png):
    return np.asarray(decode(png)).astype(int)


def page_of(demo):
    return pixels_of(bytes(demo.picture.value))


def click(demo, x, y, event=DOWN):
    demo._pointer(event | {"dataX": x, "dataY": y})


def click_cell(demo, cell, event=DOWN, left=0, side=SIDE):
    x, y = corner_of(cell, side, left)
    click(demo, x + side // 2, y + side // 2, event)


def click_atom(demo, book, atom, left=RIGHT, event=DOWN):
    x, y = corner_of(book.order.index(atom), TILE, left, width=3)
    click(demo, x + TILE // 2, y + TILE // 2, event)


# ---- the tiles --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_a_tile_is_the_mean_of_what_is_decoded_where_the_atom_serves(models, kind):
    model, images = models[kind], blots(channels=models[kind].shape[0])
    codes = model.encode(images)
    with torch.no_grad():
        page = torch.nn.functional.pad(model.decode_codes(codes), (1,) * 4, mode="replicate")
    book = Codebook(model, images)
    assert torch.equal(book.maps, codes[:, 0].long())
    for atom in range(ATOMS):
        patches = [
            page[n, :, 4 * i : 4 * i + 6, 4 * j : 4 * j + 6]
            for n, i, j in (codes[:, 0] == atom).nonzero().tolist()
        ]
        assert book.uses[atom] == len(patches) > 0
        assert torch.allclose(book.patches[atom], torch.stack(patches).mean(0), atol=1e-5)
    assert book.background == book.uses.argmax() and len(book.uses.unique()) > 1


def test_an_atom_that_never_serves_has_an_empty_tile(model, images, monkeypatch):
    codes = model.encode(images)
    codes[codes == 3] = 2
    monkeypatch.setattr(VQVAE, "encode", lambda self, x: codes)
    book = Codebook(model, images)
    assert book.uses[3] == 0 and (book.patches[3] == 0).all()
    for demo in (codebook_browser(model, images), code_editor(model, images)):
        demo.set(**{"atom": 3} if "atom" in demo.controls else {"edits": "2=3"})


def test_grey_tiles_have_the_colour_of_codes_and_coloured_ones_their_own(models, book):
    ink = np.array([0x8E, 0x3A, 0x6B])
    tile = np.asarray(book.tile(2, 60)).astype(float)[20:40, 20:40]
    share = (255 - tile) / (255 - ink)
    assert share.max() > 0.2 and np.ptp(share, axis=-1).max() < 0.03
    book = Codebook(models["colour"], blots(channels=3))
    middle = np.asarray(book.tile(2, 6)).astype(float)[1:5, 1:5]
    assert np.abs(middle - colors(book.patches[2])[1:5, 1:5]).max() < 1


def test_the_palette_goes_from_light_to_dark_and_from_left_to_right(book):
    ink = book.patches.mean((1, 2, 3))[book.order]
    balance = (book.patches[..., 3:] - book.patches[..., :3]).mean((1, 2, 3))[book.order]
    assert sorted(book.order) == list(range(ATOMS)) and book.columns == 3
    rows = [slice(0, 3), slice(3, 6), slice(6, 7)]
    for row, following in itertools.pairwise(rows):
        assert ink[row].max() <= ink[following].min()
    for row in rows:
        assert (balance[row].diff() >= 0).all()


def test_tiles_of_other_images_leave_the_codes_as_they_are(model, images, book):
    few = Codebook(model, images[:3], tiles=images)
    assert few.order == book.order and torch.equal(few.patches, book.patches)
    assert torch.equal(few.maps, book.maps[:3])
    assert few.order != Codebook(model, images[:3]).order
    editor = code_editor(model, images[:3], tiles=images)
    assert editor.picture.value != code_editor(model, images[:3]).picture.value


def test_the_numbers_of_the_codes_are_written_on_the_map(model, images, maps, words):
    editor = code_editor(model, images)
    assert set(map(str, maps[0].tolist())) <= set(words)
    editor.set(brush="coller l'autre image")
    assert set(map(str, maps[1].tolist())) <= set(words)


# ---- code_editor ------------------------------------------------------------------------------


@pytest.fixture
def editor(model, images):
    return code_editor(model, images, [f"blot {k}" for k in range(40)])


def test_the_controls_of_the_editor(editor, model, images):
    start = {"image": 0, "cell": 6, "brush": "atome", "other": 1, "edits": ""}
    assert values(editor) == start
    for name in ("image", "other"):
        assert editor.controls[name].options == tuple((f"blot {k}", k) for k in range(40))
    assert (editor.controls["cell"].min, editor.controls["cell"].max) == (1, COUNT)
    assert editor.controls["edits"].disabled, "it is read, not typed"
    assert list(editor.buttons) == ["Effacer les retouches"]
    laid_out = [child for row in editor.children[1:-1] for child in row.children]
    everything = [*editor.controls.values(), *editor.buttons.values(), editor.reset_button]
    assert set(map(id, laid_out)) == set(map(id, everything)) and len(laid_out) == len(everything)
    untitled = code_editor(model, images[:3])
    assert untitled.controls["image"].options == (("image 1", 0), ("image 2", 1), ("image 3", 2))
    assert code_editor(model, images[:1]).controls["other"].value == 0


def test_every_control_of_the_editor_changes_the_picture_and_not_its_size(editor):
    changes = {"image": 2, "cell": 4, "brush": "coller l'autre image", "edits": "1=3 7=2"}
    pictures = [editor.picture.value]
    for name, value in changes.items():
        editor.reset_button.click()
        editor.controls[name].value = value
        pictures.append(editor.picture.value)
    editor.set(brush="coller l'autre image", edits="")
    editor.controls["other"].value = 5
    pictures.append(editor.picture.value)
    assert len(set(pictures)) == 6 and {decode(png).size for png in pictures} == {EDITOR}


@pytest.mark.parametrize("image", [0, 1, 7])
def test_the_editor_shows_an_image_its_codes_and_its_reconstruction(
    editor, model, book, images, maps, image, words
):
    editor.set(image=image)
    codes = maps[image].tolist()
    assert codes_shown(editor, book) == codes
    reconstruction = colors(decoded(model, codes))
    assert same(panel(editor, MIDDLE, ZOOM), reconstruction)
    assert same(panel(editor, COLUMN, SMALL), colors(images[image].float()))
    assert same(panel(editor, COLUMN, SMALL, TOP + 112), reconstruction)
    assert same(panel(editor, COLUMN, SMALL, TOP + 224), 255), "nothing has changed yet"
    assert "aucun code changé sur 12" in words and f"case 6 : atome {codes[5]}" in words
    assert marked(editor) == []


def test_a_click_on_a_cell_chooses_it(editor, book, maps):
    before = editor.picture.value
    for cell in range(COUNT):
        click_cell(editor, cell)
        assert editor.controls["cell"].value == cell + 1 and editor.controls["edits"].value == ""
        assert framed(editor, FOCUS, 0, SIDE, WIDE, COUNT) == [cell]
        assert framed(editor, FOCUS, MIDDLE, 4 * ZOOM, WIDE, COUNT) == [cell]
        code = maps[0, cell].item()
        assert framed(editor, FOCUS, RIGHT, TILE, 3, ATOMS) == [book.order.index(code)]
    assert editor.picture.value != before


def test_the_edges_of_the_cells_are_where_they_are_drawn(editor):
    for (x, y), cell in {
        (0, 30): 1,
        (76, 106): 1,
        (77, 106): 2,
        (76, 107): 5,
        (307, 260): 12,
    }.items():
        click(editor, x, y)
        assert editor.controls["cell"].value == cell


def test_a_click_elsewhere_changes_nothing(editor):
    before = editor.picture.value
    for x, y in ((308, 40), (40, 29), (40, 261), (MIDDLE + 40, 60), (RIGHT - 1, 60), (-1, 60)):
        click(editor, x, y)
    click(editor, RIGHT + 3 * TILE, TOP + 10)
    click(editor, RIGHT + TILE + 9, TOP + 2 * TILE + 9)  # the palette has 7 atoms in 9 places
    assert editor.picture.value == before and editor.controls["edits"].value == ""


def test_a_click_on_an_atom_gives_it_to_the_chosen_cell(editor, model, book, maps):
    start = maps[0].tolist()
    for cell, atom in itertools.product((0, 11), range(ATOMS)):
        editor.set(edits="", cell=cell + 1)
        click_atom(editor, book, atom)
        codes = [*start[:cell], atom, *start[cell + 1 :]]
        own = atom == start[cell]
        assert editor.controls["edits"].value == ("" if own else f"{cell + 1}={atom}")
        assert codes_shown(editor, book) == codes
        assert same(panel(editor, MIDDLE, ZOOM), colors(decoded(model, codes)))
        assert same(panel(editor, COLUMN, SMALL, TOP + 112), colors(decoded(model, start)))
        assert marked(editor) == ([] if own else [cell])
        places = [book.order.index(atom)], [book.order.index(start[cell])]
        assert framed(editor, FOCUS, RIGHT, TILE, 3, ATOMS) == places[0]
        assert framed(editor, DARK, RIGHT, TILE, 3, ATOMS) == ([] if own else places[1])


def test_its_own_atom_undoes_the_edit_of_a_cell_and_no_other(editor, book, maps):
    start = maps[0].tolist()
    first, second = ((code + 1) % ATOMS for code in start[:2])
    editor.set(cell=2)
    click_atom(editor, book, second)
    editor.set(cell=1)
    click_atom(editor, book, first)
    assert editor.controls["edits"].value == f"1={first} 2={second}"
    click_atom(editor, book, start[0])
    assert editor.controls["edits"].value == f"2={second}"


def test_a_drag_copies_the_code_of_the_chosen_cell(editor, model, book, maps):
    codes = maps[0].tolist()
    source = next(k for k in range(COUNT) if codes[k] != codes[(k + 5) % COUNT])
    path = [(source + by) % COUNT for by in (0, 5, 6)]
    click_cell(editor, source)
    for cell in path:
        click_cell(editor, cell, DRAG)
        codes[cell] = codes[source]
    assert editor.controls["cell"].value == source + 1
    assert codes_shown(editor, book) == codes != maps[0].tolist()
    assert same(panel(editor, MIDDLE, ZOOM), colors(decoded(model, codes)))
    click_cell(editor, (source + 7) % COUNT, HOVER)
    assert codes_shown(editor, book) == codes, "the button was released"


def test_a_drag_copies_the_edited_code(editor, book, maps):
    atom = next(k for k in range(ATOMS) if k not in (maps[0, 0], maps[0, 1]))
    click_cell(editor, 0)
    click_atom(editor, book, atom)
    click_cell(editor, 0)
    click_cell(editor, 1, DRAG)
    assert editor.controls["edits"].value == f"1={atom} 2={atom}"


def test_a_drag_over_the_palette_changes_nothing(editor, book, maps):
    click_cell(editor, 0)
    for atom in range(ATOMS):
        click_atom(editor, book, atom, event=DRAG)
    assert editor.controls["edits"].value == ""


@pytest.mark.parametrize("there", [False, True], ids=["on its map", "on the other map"])
def test_the_other_brush_pastes_the_codes_of_the_other_image(editor, model, book, maps, there):
    editor.set(brush="coller l'autre image", other=4)
    assert codes_shown(editor, book, RIGHT, PASTED) == maps[4].tolist()
    codes, how = maps[0].tolist(), {"left": RIGHT, "side": PASTED} if there else {}
    for cell, event in ((1, DOWN), (2, DRAG), (6, DRAG), (11, DOWN)):
        click_cell(editor, cell, event, **how)
        codes[cell] = maps[4, cell].item()
        assert editor.controls["cell"].value == cell + 1
        assert codes_shown(editor, book) == codes
        assert same(panel(editor, MIDDLE, ZOOM), colors(decoded(model, codes)))
    changed = [k for k in range(COUNT) if codes[k] != maps[0, k]]
    assert changed and marked(editor) == changed
    assert marked(editor, RIGHT, PASTED) == changed
    click(editor, COLUMN + 5, TOP + 5)
    assert codes_shown(editor, book) == codes, "elsewhere, nothing is pasted"


def test_only_what_was_pasted_is_marked_on_the_other_map(editor, maps):
    mine, theirs = maps[0].tolist(), maps[4].tolist()
    cell = next(k for k in range(COUNT) if mine[k] != theirs[k])
    pasted, by_hand = cell, (cell + 1) % COUNT
    code = next(k for k in range(ATOMS) if k not in (mine[by_hand], theirs[by_hand]))
    edits = f"{pasted + 1}={theirs[pasted]} {by_hand + 1}={code}"
    editor.set(brush="coller l'autre image", other=4, edits=edits)
    assert marked(editor) == sorted([pasted, by_hand])
    assert marked(editor, RIGHT, PASTED) == [pasted]


def test_pasting_a_whole_image_gives_that_image(editor, model, maps):
    editor.set(brush="coller l'autre image", other=3)
    for cell in range(COUNT):
        click_cell(editor, cell, DRAG if cell else DOWN)
    assert same(panel(editor, MIDDLE, ZOOM), colors(decoded(model, maps[3].tolist())))


def test_edits_stay_when_the_image_changes(editor, model, maps):
    editor.set(edits="3=1 12=6", image=5)
    codes = maps[5].tolist()
    codes[2], codes[11] = 1, 6
    assert same(panel(editor, MIDDLE, ZOOM), colors(decoded(model, codes)))


def test_edits_are_forgotten_by_both_buttons(editor):
    start, first = editor.picture.value, values(editor)
    editor.set(edits="1=3 7=2", image=3, brush="coller l'autre image", other=2, cell=2)
    editor.buttons["Effacer les retouches"].click()
    kept = {"image": 3, "cell": 2, "brush": "coller l'autre image", "other": 2, "edits": ""}
    assert values(editor) == kept
    editor.set(edits="1=3")
    editor.reset_button.click()
    assert editor.picture.value == start and values(editor) == first


@pytest.mark.parametrize("cells", [(5,), (0, 5, 6)], ids=str)
def test_what_changed_is_counted_and_drawn(editor, model, maps, words, cells):
    start = maps[0].tolist()
    codes = [(code + 1) % ATOMS if k in cells else code for k, code in enumerate(start)]
    words.clear()
    editor.set(edits=" ".join(f"{k + 1}={codes[k]}" for k in cells))
    change = (decoded(model, codes) - decoded(model, start)).abs()[0]
    visible = change > 0.1
    outside = visible.clone()
    for k in cells:
        row, column = divmod(k, WIDE)
        outside[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = False
    seen, beyond = visible.sum().item(), outside.sum().item()
    assert seen > beyond > 0
    many = "s" if len(cells) > 1 else ""
    text = f"{len(cells)} code{many} changé{many} sur 12 : {seen} pixels changent de plus de 0,1, "
    text += f"dont {beyond} hors de {'ces cases' if many else 'cette case'}"
    assert text in words
    focus = 255 * np.array(to_rgb(FOCUS))
    tint = 255 - change[..., None].numpy() * (255 - focus)
    assert same(panel(editor, COLUMN, SMALL, TOP + 224), tint)
    grey = framed(editor, "#777777", COLUMN, 4 * SMALL, WIDE, COUNT, TOP + 224, 0)
    assert grey == list(cells)
    editor.set(cell=cells[0] + 1)
    assert f"case {cells[0] + 1} : atome {codes[cells[0]]} (avant : {start[cells[0]]})" in words


def test_an_edit_that_no_pixel_shows(editor, monkeypatch, words):
    monkeypatch.setattr("course_utils.demos.codes.VISIBLE", 0.9999)
    editor.set(edits="3=6")
    text = "1 code changé sur 12 : 0 pixel change de plus de 1,0, dont 0 hors de cette case"
    assert text in words


def test_an_edit_that_gives_a_code_back_counts_for_nothing(editor, maps, words):
    words.clear()
    editor.set(edits=f"3={maps[0, 2]}")
    assert "aucun code changé sur 12" in words and marked(editor) == []


def test_the_editor_refuses_other_arguments(model, images):
    with pytest.raises(ValueError, match="2 titles for 3 images: expected one each"):
        code_editor(model, images[:3], ["a", "b"])


# ---- codebook_browser -------------------------------------------------------------------------

PANELS = [320, 586, 852]  # where they stand: 196 pixels wide, up to 1048
SHOWN = [320 + k * 616 // 5 for k in range(6)]
SECOND, FLOOR = 262, 394  # the images; the floor of the chart


@pytest.fixture
def browser(model, images):
    return codebook_browser(model, images)


def test_the_controls_of_the_browser(browser, book):
    slider = browser.controls["atom"]
    assert list(browser.controls) == ["atom"] and (slider.min, slider.max) == (0, ATOMS - 1)
    ink = [book.patches[k].mean() * book.uses[k] for k in range(ATOMS)]
    assert slider.value == int(np.argmax(ink))
    assert list(browser.buttons) == ["Plus fréquent", "Plus rare"]
    assert f"l'atome {book.background} partout ailleurs" in browser.children[0].value


def test_every_atom_has_its_picture(browser):
    pictures = []
    for atom in range(ATOMS):
        browser.controls["atom"].value = atom
        pictures.append(browser.picture.value)
    assert len(set(pictures)) == ATOMS and {decode(png).size for png in pictures} == {BROWSER}


@pytest.mark.parametrize("atom", range(ATOMS))
def test_an_atom_is_shown_alone_and_with_its_neighbours(browser, model, book, atom):
    browser.set(atom=atom)
    codes = [book.background] * COUNT
    codes[1 * WIDE + 2] = atom
    assert same(panel(browser, PANELS[0], 12), colors(decoded(model, codes)))
    assert framed(browser, FOCUS, PANELS[0], 48, WIDE, COUNT) == [6]
    tile = np.asarray(book.tile(atom, 196)).astype(int)
    shown = page_of(browser)[TOP : TOP + 196, PANELS[1] : PANELS[1] + 196]
    assert np.array_equal(shown[40:156, 40:156], tile[40:156, 40:156])
    y, x = np.nonzero(in_color(shown, FOCUS))
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((32.7, 163.3) * 2, abs=1)


def test_where_an_atom_serves(browser, maps):
    pink = np.array([0xCC, 0x79, 0xA7])
    for atom in range(ATOMS):
        browser.set(atom=atom)
        counts = (maps == atom).sum(0).view(HIGH, WIDE, 1).numpy()
        expected = 255 - counts / counts.max() * (255 - pink)
        page = page_of(browser)[TOP + 24 :: 49, PANELS[2] + 24 :: 49][:HIGH, :WIDE]
        assert same(page, expected)


def test_how_often_an_atom_serves(browser, book, maps, words):
    """Measured on the picture: a bar per atom, from the most frequent to the rarest."""
    uses = np.array([(maps == atom).sum().item() for atom in range(ATOMS)])
    ranking = np.argsort(-uses, kind="stable").tolist()
    slot = 272 / ATOMS
    for atom in range(ATOMS):
        words.clear()
        browser.set(atom=atom)
        rank, share = ranking.index(atom), 100 * uses[atom] / uses.sum()
        assert f"atome {atom} : {french(share, 1)} % (rang {rank + 1})" in words
        assert f"perplexité {french(perplexity(maps, ATOMS), 1)}" in words
        assert not any(word.startswith("p(") for word in words)
        page = page_of(browser)
        for place, other in enumerate(ranking):
            bar = page[FLOOR - 52 : FLOOR, round(slot * (place + 0.5))]
            color = FOCUS if place == rank else figures.COLORS["code"]
            assert in_color(bar, color).sum() == pytest.approx(50 * uses[other] / uses.max(), abs=1)
        assert framed(browser, FOCUS, 0, TILE, 3, ATOMS) == [book.order.index(atom)]


def test_images_where_an_atom_serves(browser, images, maps, words):
    for atom in range(ATOMS):
        browser.set(atom=atom)
        numbers = [n for n in range(len(images)) if atom in maps[n]][:6]
        assert len(numbers) == 6
        for x, number in zip(SHOWN, numbers):
            assert same(panel(browser, x, 7, SECOND), colors(images[number].float()))
            cells = framed(browser, FOCUS, x, 28, WIDE, COUNT, SECOND)
            assert cells == [k for k in range(COUNT) if maps[number, k] == atom]
    assert "des images où il sert" in words


def test_an_atom_of_few_images_leaves_the_rest_empty(model, images, maps, words):
    few = codebook_browser(model, images[:2])
    counts = [(maps[:2] == atom).any(1).sum().item() for atom in range(ATOMS)]
    for atom in range(ATOMS):
        words.clear()
        few.set(atom=atom)
        beyond = page_of(few)[SECOND:374, SHOWN[counts[atom]] - 3 :]
        assert in_color(beyond, "white").all()
        assert ("il ne sert dans aucune image" in words) == (counts[atom] == 0)


def test_a_click_or_a_drag_chooses_an_atom(browser, book, maps):
    for atom, event in itertools.product(range(ATOMS), (DOWN, DRAG)):
        click_atom(browser, book, atom, 0, event)
        assert browser.controls["atom"].value == atom
    ranking = book.uses.argsort(descending=True, stable=True).tolist()
    for place, atom in enumerate(ranking):
        for y in (FLOOR - 60, FLOOR - 1):
            click(browser, round(272 / ATOMS * (place + 0.5)), y)
            assert browser.controls["atom"].value == atom
    before = browser.picture.value
    for x, y in ((272, FLOOR - 5), (-1, FLOOR - 5), (5, FLOOR), (5, FLOOR - 61), (300, 60)):
        click(browser, x, y)
    assert browser.picture.value == before


def test_buttons_walk_along_the_usage(browser, book):
    ranking = book.uses.argsort(descending=True, stable=True).tolist()
    browser.set(atom=ranking[0])
    for atom in (*ranking[1:], ranking[-1]):
        browser.buttons["Plus rare"].click()
        assert browser.controls["atom"].value == atom
    for atom in (*ranking[-2::-1], ranking[0]):
        browser.buttons["Plus fréquent"].click()
        assert browser.controls["atom"].value == atom


# ---- prior_explorer ---------------------------------------------------------------------------


class Uniform:
    """Not a network: the contract only."""

    def sample(self, n, y=None, *, generator=None, temperature=1.0, callback=None):
        assert y is None, "it has no classes"
        codes = torch.randint(ATOMS, (n, COUNT), generator=generator, dtype=torch.uint8)
        for place in range(COUNT):
            callback(place, codes[:, place], torch.full((n, ATOMS), 1 / ATOMS))
        return codes.view(n, 1, HIGH, WIDE)


@pytest.fixture(scope="module")
def priors(model, images, maps):
    """Trained a little, in two orders; one has classes."""
    torch.manual_seed(0)
    codes, labels = maps.view(-1, 1, HIGH, WIDE).to(torch.uint8), torch.arange(len(maps)) % 3
    classes = code_prior(model, num_classes=3, features=8, layers=2)
    plain = PixelCNN((1, HIGH, WIDE), levels=ATOMS, one_hot=True, features=8, layers=2)
    train(classes, codes, labels, steps=20)
    train(plain, codes, steps=20)
    return {"classes": perturb(classes, 0.1), "sans": plain, "uniforme": Uniform()}


@pytest.fixture
def explorer(model, priors, images):
    return prior_explorer(model, priors, images)


def sampled(prior, seed=0, temperature=1.0, label=0):
    """The prior's own codes, `(COUNT,)`; and the laws that it told, `(COUNT, ATOMS)`."""
    laws = torch.zeros(COUNT, ATOMS)

    def note(place, values, probabilities):
        laws[place] = probabilities[0]

    y = torch.tensor([label]) if getattr(prior, "num_classes", None) else None
    codes = prior.sample(1, y, generator=seeded(seed), temperature=temperature, callback=note)
    return codes.flatten().tolist(), laws


def bits(value, digits):
    value = float(value)
    return f"{french(value, digits)} bit{'s' if value >= 2 else ''}"


def test_the_controls_of_the_prior(explorer, model, priors, images):
    start = {"step": 7, "prior": "classes", "temperature": 1.0, "seed": 0, "label": 0}
    assert values(explorer) == start
    assert (explorer.controls["step"].min, explorer.controls["step"].max) == (0, COUNT)
    assert (explorer.controls["label"].min, explorer.controls["label"].max) == (0, 2)
    assert explorer.controls["prior"].options == tuple(priors)
    assert explorer.play.step == 1 and list(explorer.buttons) == ["Autre tirage"]
    without = prior_explorer(model, {"sans": priors["sans"]}, images, temperature=0.5)
    assert "label" not in without.controls and without.controls["temperature"].value == 0.5


def test_every_control_of_the_prior_changes_the_picture_and_not_its_size(explorer):
    changes = {"step": 9, "prior": "sans", "temperature": 0.3, "seed": 4, "label": 2}
    assert changes.keys() == explorer.controls.keys()
    pictures = [explorer.picture.value]
    for name, value in changes.items():
        explorer.reset_button.click()
        explorer.controls[name].value = value
        pictures.append(explorer.picture.value)
    for step in (0, 1, COUNT):
        explorer.set(step=step)
        pictures.append(explorer.picture.value)
    assert len(set(pictures)) == 9 and {decode(png).size for png in pictures} == {PRIOR}


@pytest.mark.parametrize("name", ["classes", "sans", "uniforme"])
@pytest.mark.parametrize(("seed", "temperature", "label"), [(0, 1.0, 0), (7, 0.4, 2), (9999, 2, 1)])
def test_the_last_step_shows_the_priors_own_sample(
    explorer, model, priors, book, name, seed, temperature, label
):
    explorer.set(prior=name, seed=seed, temperature=temperature, label=label, step=COUNT)
    codes, _ = sampled(priors[name], seed, temperature, label)
    assert len(set(codes)) > 1
    assert codes_shown(explorer, book) == codes
    assert same(panel(explorer, MIDDLE, ZOOM), colors(decoded(model, codes)))


@pytest.mark.parametrize("step", [0, 1, 5, 11])
def test_codes_to_come_wait_and_are_decoded_as_the_background(
    explorer, model, priors, book, words, step
):
    explorer.set(step=step)
    codes = sampled(priors["classes"])[0][:step]
    assert codes_shown(explorer, book) == codes + [None] * (COUNT - step)
    note = f"en gris : pas encore tiré, décodé comme l'atome {book.background}"
    assert note in words
    words.clear()
    explorer.set(step=COUNT)
    assert note not in words
    explorer.set(step=step)
    x, y = corner_of(COUNT - 1, SIDE)
    assert np.abs(page_of(explorer)[y + 20, x + 20] - WAITING).max() < 1
    page = colors(decoded(model, codes + [book.background] * (COUNT - step)))
    waits = np.arange(COUNT).reshape(HIGH, WIDE) >= step
    waits = waits.repeat(4, 0).repeat(4, 1)[..., None]
    page = np.where(waits, page / 2 + WAITING - 127.5, page)
    assert same(panel(explorer, MIDDLE, ZOOM), page)


@pytest.mark.parametrize("step", [1, 6, COUNT])
def test_the_last_code_is_framed_on_the_map_and_on_the_image(explorer, step):
    explorer.set(step=step)
    for left, side in ((0, SIDE), (MIDDLE, 4 * ZOOM)):
        assert framed(explorer, FOCUS, left, side, WIDE, COUNT) == [step - 1]


def test_before_the_first_code_there_is_no_law(explorer, words):
    explorer.set(step=0)
    assert "aucun code tiré" in words and not any("bit" in word for word in words)
    assert not in_color(page_of(explorer), FOCUS).any()


def test_another_ordering_and_two_atoms(images, words):
    """A law of two levels is told as one probability."""
    ordering = torch.randperm(COUNT, generator=seeded(3))
    prior = perturb(MADE((1, HIGH, WIDE), hidden=(8,), ordering=ordering))
    model = small_model(num_codes=2)
    demo, book = prior_explorer(model, {"": prior}, images), Codebook(model, images)
    codes = prior.sample(1, generator=seeded(0))
    with torch.no_grad():
        law = prior.pixel_log_prob(codes).exp().flatten()
    for step in (4, 9):
        demo.set(step=step)
        place = ordering[step - 1].item()
        assert framed(demo, FOCUS, 0, SIDE, WIDE, COUNT) == [place]
        drawn = ordering[:step].tolist()
        code = codes.flatten().tolist()
        assert codes_shown(demo, book) == [code[k] if k in drawn else None for k in range(COUNT)]
        assert f"p({code[place]}) = {french(law[place], 3)}" in words


def law_bars(demo, count):
    """Heights of the bars of the law, in [0, 1], and the one in focus."""
    page, slot = page_of(demo)[:200, COLUMN + 36 :], 342 / count
    heights, drawn = [], []
    for k in range(count):
        bar = page[55:200, round(slot * (k + 0.5))]
        heights.append((in_color(bar, FOCUS) | in_color(bar, figures.COLORS["prior"])).sum() / 140)
        drawn += [k] if in_color(bar, FOCUS).any() else []
    return heights, drawn


@pytest.mark.parametrize(("step", "temperature"), [(1, 1.0), (6, 0.5), (COUNT, 2.0)])
def test_the_bars_are_the_law_of_the_last_code(explorer, priors, words, step, temperature):
    words.clear()
    explorer.set(step=step, temperature=temperature, seed=4)
    codes, laws = sampled(priors["classes"], 4, temperature)
    law, code = laws[step - 1], codes[step - 1]
    ranked = law.argsort(descending=True, stable=True).tolist()
    heights, drawn = law_bars(explorer, ATOMS)
    assert heights == pytest.approx(law[ranked].tolist(), abs=0.02)
    assert drawn in ([ranked.index(code)], []) and (drawn or law[code] < 0.01)
    assert f"p({code}) = {french(law[code], 3)}" in words
    assert f"loi de la case {step}, sachant celles d'avant" in words
    numbers = [int(word) for word in words if word.isdigit()]
    assert numbers[-ATOMS:] == ranked


class Stubborn:
    """Always the same code, of this law."""

    def __init__(self, law, code):
        self.law, self.code = torch.tensor(law), code

    def sample(self, n, y=None, *, generator=None, temperature=1.0, callback=None):
        for place in range(COUNT):
            callback(place, torch.full((n,), float(self.code)), self.law.expand(n, -1))


def test_ten_atoms_and_all_the_others(images, words):
    law = [0.01 * (k % 7 + 1) for k in range(16)]
    law[3] = 1 - sum(law) + law[3]
    model = small_model(num_codes=16)
    ranked = sorted(range(16), key=lambda k: -law[k])
    for code in (ranked[0], ranked[9], ranked[10], ranked[15]):
        words.clear()
        demo = prior_explorer(model, {"": Stubborn(law, code)}, images)
        kept = ranked[:10] if code in ranked[:10] else [*ranked[:9], code]
        heights, drawn = law_bars(demo, 11)
        shares = [law[k] for k in kept]
        assert heights == pytest.approx([*shares, 1 - sum(shares)], abs=0.02)
        assert drawn == [kept.index(code)]
        texts = words[words.index("+6") - 10 : words.index("+6")]
        assert texts == [str(k) for k in kept]


@pytest.mark.parametrize("step", [1, 6, COUNT])
@pytest.mark.parametrize(("name", "label"), [("classes", 1), ("sans", 0), ("uniforme", 0)])
def test_the_bill_adds_the_bits_of_each_code(explorer, priors, words, name, label, step):
    words.clear()
    explorer.set(prior=name, label=label, step=step, seed=3)
    codes, laws = sampled(priors[name], 3, label=label)
    paid = -laws[range(COUNT), codes].log2()[:step]
    flat = math.log2(ATOMS)
    assert {
        f"case {step} sur 12 : atome {codes[step - 1]}",
        f"coût : {bits(paid[-1], 2)}, au lieu de {french(flat, 2)} sans prior",
        f"total : {bits(paid.sum(), 1)}, au lieu de {french(flat * step, 1)}",
        f"soit {bits(paid.mean(), 2)} par code",
    } <= set(words)


def test_the_whole_bill_is_minus_log_p(explorer, priors, words):
    for label in range(3):
        prior = priors["classes"]
        explorer.set(label=label, step=COUNT, seed=8)
        codes = prior.sample(1, torch.tensor([label]), generator=seeded(8))
        total = -prior.log_prob(codes, torch.tensor([label])).item() / math.log(2)
        assert any(word.startswith(f"total : {bits(total, 1)}, ") for word in words)


def test_the_most_probable_codes_cost_nothing(explorer, words):
    explorer.set(step=COUNT, temperature=0.0)
    assert "soit 0,00 bit par code" in words


def test_another_draw_is_another_seed_at_the_same_settings(explorer, model, priors, images):
    explorer.set(step=9, temperature=0.5)
    before, seeds = values(explorer), []
    for _ in range(3):
        explorer.buttons["Autre tirage"].click()
        seeds.append(explorer.controls["seed"].value)
        assert values(explorer) == before | {"seed": seeds[-1]}
    assert len(set(seeds)) == 3
    twin = prior_explorer(model, priors, images)
    for seed in seeds:
        twin.buttons["Autre tirage"].click()
        assert twin.controls["seed"].value == seed


class Counting(Uniform):
    calls = []

    def sample(self, *args, **options):
        self.calls.append(args)
        return super().sample(*args, **options)


def test_moving_along_a_map_does_not_draw_it_again(model, images):
    explorer = prior_explorer(model, {"": Counting()}, images)
    Counting.calls.clear()
    for seed, step in ((1, 3), (1, 4), (1, 9), (2, 9), (1, 5)):
        explorer.set(seed=seed, step=step)
    assert len(Counting.calls) == 2


def test_the_prior_explorer_refuses_other_priors(model, priors, images):
    with pytest.raises(ValueError, match="at least one prior"):
        prior_explorer(model, {}, images)
    with pytest.raises(ValueError, match="prior 'a': str has no sample method"):
        prior_explorer(model, {"a": "b"}, images)
    with pytest.raises(ValueError, match=r"prior 'a': shape \(1, 4, 3\), the codes have \(1, 3, 4"):
        prior_explorer(model, {"a": PixelCNN((1, 4, 3), levels=ATOMS, features=4)}, images)
    with pytest.raises(ValueError, match="prior 'a': levels 5, the codes have 7"):
        prior_explorer(model, {"a": PixelCNN((1, HIGH, WIDE), levels=5, features=4)}, images)
    other = code_prior(model, num_classes=4, features=8, layers=1)
    with pytest.raises(ValueError, match=r"priors of \[3, 4\] classes: expected as many for all"):
        prior_explorer(model, {"a": priors["classes"], "b": other}, images)

    class Silent(Uniform):
        def sample(self, n, y=None, *, generator=None, temperature=1.0, callback=None):
            callback(0, torch.zeros(1), torch.full((1, ATOMS), 1 / ATOMS))

    with pytest.raises(ValueError, match="a prior told 1 codes: expected 12"):
        prior_explorer(model, {"a": Silent()}, images)


# ---- all --------------------------------------------------------------------------------------


@pytest.fixture(params=["editor", "browser", "explorer"])
def make(request, priors):
    return {
        "editor": lambda model, images: code_editor(model, images),
        "browser": lambda model, images: codebook_browser(model, images),
        "explorer": lambda model, images: prior_explorer(model, priors, images),
    }[request.param]


def stir(demo):
    """Move everything."""
    for control, other in (("cell", 2), ("edits", "2=3"), ("atom", 3), ("seed", 5), ("step", 9)):
        if control in demo.controls:
            demo.controls[control].value = other
    for button in demo.buttons.values():
        button.click()
    if demo.on_pointer is not None:
        click(demo, 100, 100)


def test_the_demos_refuse_other_models_and_images(make, model, images):
    with pytest.raises(ValueError, match="the demo needs a VQVAE, got VAE"):
        make(VAE((1, 12, 16)), images)
    with pytest.raises(ValueError, match=r"images of 1 or 3 channels, got \(2, 12, 16\)"):
        make(VQVAE((2, 12, 16)), blots(channels=2))
    with pytest.raises(ValueError, match=r"expected images \(B, 1, 12, 16\)"):
        make(model, images[0])
    with pytest.raises(ValueError, match="at least one image"):
        make(model, images[:0])


@pytest.mark.parametrize("training", [False, True])
def test_the_demos_leave_the_model_and_the_random_stream_as_they_were(make, images, training):
    model = small_model().train(training)
    before, stream = state_of(model), torch.get_rng_state()
    stir(make(model, images))
    assert same_state(state_of(model), before)
    assert all(module.training is training for module in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), stream)


class Watched(torch.nn.Module, Uniform):
    def sample(self, *args, **options):
        assert not self.training
        return super().sample(*args, **options)


def test_the_demos_use_their_models_in_eval_mode(images):
    model = small_model()
    codes = model.encode(images[:1]).flatten().tolist()
    expected = colors(decoded(model, codes))
    model.decoder.net.append(torch.nn.Dropout(0.5))
    model.train()
    assert same(panel(code_editor(model, images), MIDDLE, ZOOM), expected)
    prior = Watched().train()
    prior_explorer(model, {"": prior}, images).set(seed=2)
    assert prior.training


def test_the_priors_are_left_as_they_were(model, priors, images):
    before = {name: state_of(priors[name]) for name in ("classes", "sans")}
    priors["sans"].train()
    stir(prior_explorer(model, priors, images))
    assert priors["sans"].training and not priors["classes"].training
    assert all(same_state(state_of(priors[name]), state) for name, state in before.items())


def test_the_demos_show_the_model_as_it_was(make, images):
    model = small_model()
    demo, twin = make(model, images), make(small_model(), images)
    perturb(model)
    for one in (demo, twin):
        stir(one)
    assert demo.picture.value == twin.picture.value


def test_the_demos_of_codes_leave_no_open_figure(make, model, images):
    stir(make(model, images))
    assert plt.get_fignums() == []


def test_a_coloured_image_is_decoded_in_colours(models):
    model, images = models["colour"], blots(channels=3)
    codes = model.encode(images[:1]).flatten().tolist()
    editor, browser = code_editor(model, images), codebook_browser(model, images)
    explorer = prior_explorer(model, {"": Stubborn([0.0] * 6 + [1.0], 6)}, images)
    explorer.set(step=COUNT)
    assert same(panel(editor, MIDDLE, ZOOM), colors(decoded(model, codes)))
    assert same(panel(explorer, MIDDLE, ZOOM), colors(decoded(model, [6] * COUNT)))
    browser.set(atom=model.encode(images[:1])[0, 0, 0, 0].item())
    assert same(panel(browser, SHOWN[0], 7, SECOND), colors(images[0].float()))


@pytest.mark.parametrize("num_codes", [2, 64, 256])
def test_codebooks_of_all_sizes_fit_in_the_same_picture(num_codes, images):
    model = VQVAE((1, 12, 16), num_codes=num_codes, code_dim=4, features=8)
    prior = PixelCNN((1, HIGH, WIDE), levels=num_codes, features=4, layers=1)
    editor, browser = code_editor(model, images), codebook_browser(model, images)
    explorer = prior_explorer(model, {"": prior}, images)
    editor.set(edits=f"1={num_codes - 1}")
    browser.set(atom=num_codes - 1)
    explorer.set(step=COUNT)
    sizes = [decode(demo.picture.value).size for demo in (editor, browser, explorer)]
    assert sizes == [EDITOR, BROWSER, PRIOR]
