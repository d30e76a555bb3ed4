"""The demos of notebook 04 without a browser: codes edited, atoms, and a prior of the codes."""

import copy
import functools
import itertools
import math

import numpy as np
import pytest
import scene
import torch
from autoregressive_models import perturb, seeded
from demo_cases import ATOMS, CASES, MAP, blots, priors, vqvae
from matplotlib.colors import to_rgb

from course_utils import MADE, PixelCNN, figures
from course_utils.demos import code_editor, codebook_browser, prior_explorer
from course_utils.demos.codebook import Codebook
from course_utils.demos.steps import follow
from course_utils.vq import VQVAE, perplexity

pytestmark = pytest.mark.usefixtures("no_screen")

DARK, WAITING = "#222222", 0.93 * 255
CODE = 255 * (1 - np.array(to_rgb(figures.COLORS["code"])))  # what it takes from white
HIGH, WIDE, COUNT = *MAP, 12


@pytest.fixture(scope="module")
def book():
    return Codebook(vqvae(), blots())


@pytest.fixture(scope="module")
def maps():
    """The codes of the images, `(N, COUNT)`."""
    return vqvae().encode(blots()).flatten(1).long()


def decoded(codes, model=None):
    """Expected intensities `(C, H, W)` of codes given as a list."""
    with torch.no_grad():
        codes = torch.tensor(codes, dtype=torch.uint8).view(1, 1, HIGH, WIDE)
        return (model or vqvae()).decode_codes(codes)[0]


def codes_shown(demo, book, name="codes"):
    """The codes of a map, recognised by the lower right of their tiles: there is no mark there."""
    page, panel = scene.page_of(demo), demo.panels[name]
    part = slice(panel.side // 2, panel.side - 5)
    tiles = [np.asarray(book.tile(atom, panel.side, 14)) for atom in range(book.num_codes)]
    codes = []
    for cell in scene.cells(panel):
        left, top, right, bottom = panel.box(cell)
        crop = page[top:bottom, left:right][part, part]
        (code,) = [k for k, tile in enumerate(tiles) if (tile[part, part] == crop).all()] or [None]
        codes.append(code)
    return codes


def click_atom(demo, book, atom, event=scene.DOWN):
    scene.click(demo, "palette", book.order.index(atom), event)


# ---- the tiles --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tile_is_the_mean_of_what_is_decoded_where_the_atom_serves(channels):
    model, images = vqvae(channels), blots(channels=channels)
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
    assert scene.written(lambda: book.tile(5, 60, 14)) == ["5"], "its number, where there is room"
    if channels == 3:  # its own colours; in grey, ink of the colour of codes
        middle = np.asarray(book.tile(2, 6)).astype(float)[1:5, 1:5]
        assert np.abs(middle - scene.colors(book.patches[2])[1:5, 1:5]).max() < 1
    else:
        share = (255 - np.asarray(book.tile(2, 60))[20:40, 20:40].astype(float)) / (CODE)
        assert share.max() > 0.2 and np.ptp(share, axis=-1).max() < 0.03


def test_an_atom_that_never_serves_has_an_empty_tile(monkeypatch):
    codes = vqvae().encode(blots())
    codes[codes == 3] = 2
    monkeypatch.setattr(VQVAE, "encode", lambda self, x: codes)
    book = Codebook(vqvae(), blots())
    assert book.uses[3] == 0 and (book.patches[3] == 0).all()
    codebook_browser(vqvae(), blots()).set(atom=3)
    code_editor(vqvae(), blots()).set(edits="2=3")


def test_the_palette_goes_from_light_to_dark_and_from_left_to_right(book):
    ink = book.patches.mean((1, 2, 3))[book.order]
    balance = (book.patches[..., 3:] - book.patches[..., :3]).mean((1, 2, 3))[book.order]
    assert sorted(book.order) == list(range(ATOMS)) and book.columns == 3
    rows = [slice(0, 3), slice(3, 6), slice(6, 7)]
    for row, following in itertools.pairwise(rows):
        assert ink[row].max() <= ink[following].min()
    for row in rows:
        assert (balance[row].diff() >= 0).all()


def test_tiles_of_other_images_leave_the_codes_as_they_are(book):
    few = Codebook(vqvae(), blots()[:3], tiles=blots())
    assert few.order == book.order and torch.equal(few.patches, book.patches)
    assert torch.equal(few.maps, book.maps[:3])
    assert few.order != Codebook(vqvae(), blots()[:3]).order
    editor = code_editor(vqvae(), blots()[:3], tiles=blots())
    assert codes_shown(editor, book) == few.maps[0].flatten().tolist()


# ---- code_editor ------------------------------------------------------------------------------


@pytest.fixture
def editor():
    return CASES["editor"].make()


def test_images_without_titles_are_numbered():
    editor = code_editor(vqvae(), blots()[:3])
    assert editor.controls["image"].options == (("image 1", 0), ("image 2", 1), ("image 3", 2))
    assert code_editor(vqvae(), blots()[:1]).controls["other"].value == 0


@pytest.mark.parametrize("image", [0, 1, 7])
def test_the_editor_shows_an_image_its_codes_and_its_reconstruction(editor, book, maps, image):
    said, codes = scene.texts(editor, image=image), maps[image].tolist()
    assert codes_shown(editor, book) == codes and scene.folded(editor, "codes") == []
    assert scene.shows(editor, "decoded", decoded(codes))
    assert scene.shows(editor, "image", blots()[image].float())
    assert scene.shows(editor, "before", decoded(codes))
    assert scene.same(scene.shown(editor, "change", (12, 16)), 255), "nothing has changed yet"
    assert {"aucun code changé sur 12", f"case 6 : atome {codes[5]}"} <= set(said)
    own = scene.texts(editor, edits=f"3={codes[2]}")
    assert "aucun code changé sur 12" in own and scene.folded(editor, "codes") == []


@pytest.mark.parametrize("cell", [0, 11])
def test_a_click_on_an_atom_gives_it_to_the_chosen_cell(editor, book, maps, cell):
    """Its own one undoes the edit, of this cell and no other."""
    start, other = maps[0].tolist(), (maps[0, 5].item() + 1) % ATOMS
    scene.click(editor, "codes", cell)
    assert scene.framed(editor, "codes") == scene.framed(editor, "decoded") == [cell]
    assert scene.framed(editor, "palette") == [book.order.index(start[cell])]
    for atom in (*range(ATOMS), start[cell]):
        editor.set(edits=f"6={other}")
        click_atom(editor, book, atom)
        codes, own = [*start], atom == start[cell]
        codes[cell], codes[5] = atom, other
        edits = {cell: atom, 5: other} if not own else {5: other}
        told = " ".join(f"{k + 1}={edits[k]}" for k in sorted(edits))
        assert editor.controls["edits"].value == told
        assert codes_shown(editor, book) == codes
        assert scene.folded(editor, "codes") == sorted(edits)
        assert scene.shows(editor, "decoded", decoded(codes))
        assert scene.shows(editor, "before", decoded(start))
        assert scene.framed(editor, "palette") == [book.order.index(atom)]
        first = scene.framed(editor, "palette", DARK)
        assert first == ([] if own else [book.order.index(start[cell])])


def test_a_drag_copies_the_code_of_the_chosen_cell_as_it_is_now(editor, book, maps):
    codes = maps[0].tolist()
    atom = next(k for k in range(ATOMS) if k not in codes[:2] + codes[5:7])
    scene.click(editor, "codes", 0)
    click_atom(editor, book, atom)
    for other in range(ATOMS):  # a drag over the palette changes nothing
        click_atom(editor, book, other, event=scene.DRAG)
    scene.click(editor, "codes", 0)
    for cell in (0, 1, 5, 6):
        scene.click(editor, "codes", cell, scene.DRAG)
        codes[cell] = atom
    scene.click(editor, "codes", 9, scene.HOVER)  # the button was released
    assert editor.controls["edits"].value == f"1={atom} 2={atom} 6={atom} 7={atom}"
    assert editor.controls["cell"].value == 1 and codes_shown(editor, book) == codes
    assert scene.shows(editor, "decoded", decoded(codes))


@pytest.mark.parametrize("where", ["codes", "other"])
def test_the_other_brush_pastes_the_codes_of_the_other_image(editor, book, maps, where):
    """On its map, or on the other map."""
    said = scene.texts(editor, brush="coller l'autre image", other=4)
    assert "à coller : blot 4" in said
    assert codes_shown(editor, book, "other") == maps[4].tolist()
    codes = maps[0].tolist()
    for number, cell in enumerate((1, 2, 6, *range(COUNT))):
        scene.click(editor, where, cell, scene.DRAG if number else scene.DOWN)
        codes[cell] = maps[4, cell].item()
        assert editor.controls["cell"].value == cell + 1
        assert codes_shown(editor, book) == codes and scene.shows(editor, "decoded", decoded(codes))
        changed = [k for k in range(COUNT) if codes[k] != maps[0, k]]
        assert scene.folded(editor, "codes") == scene.folded(editor, "other") == changed
    assert changed and codes == maps[4].tolist()
    scene.click(editor, "image", 0)
    assert codes_shown(editor, book) == codes, "elsewhere, nothing is pasted"


def test_only_what_was_pasted_is_marked_on_the_other_map(editor, maps):
    mine, theirs = maps[0].tolist(), maps[4].tolist()
    cell = next(k for k in range(COUNT) if mine[k] != theirs[k])
    pasted, by_hand = cell, (cell + 1) % COUNT
    code = next(k for k in range(ATOMS) if k not in (mine[by_hand], theirs[by_hand]))
    edits = f"{pasted + 1}={theirs[pasted]} {by_hand + 1}={code}"
    editor.set(brush="coller l'autre image", other=4, edits=edits)
    assert scene.folded(editor, "codes") == sorted([pasted, by_hand])
    assert scene.folded(editor, "other") == [pasted]


def test_edits_stay_when_the_image_changes_and_a_button_erases_them(editor, maps):
    editor.set(edits="3=1 12=6", image=5)
    codes = maps[5].tolist()
    codes[2], codes[11] = 1, 6
    assert scene.shows(editor, "decoded", decoded(codes))
    before = scene.values(editor)
    editor.buttons["clear"].click()
    assert scene.values(editor) == before | {"edits": ""}


@pytest.mark.parametrize("changed", [(5,), (0, 5, 6)], ids=str)
def test_what_changed_is_counted_and_drawn(editor, maps, changed):
    start = maps[0].tolist()
    codes = [(code + 1) % ATOMS if k in changed else code for k, code in enumerate(start)]
    edits = " ".join(f"{k + 1}={codes[k]}" for k in changed)
    said = scene.texts(editor, edits=edits, cell=changed[0] + 1)
    change = (decoded(codes) - decoded(start)).abs()[0]
    visible = change > 0.1
    outside = visible.clone()
    for k in changed:
        row, column = divmod(k, WIDE)
        outside[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = False
    seen, beyond = visible.sum().item(), outside.sum().item()
    assert seen > beyond > 0
    many, where = ("s", "ces cases") if len(changed) > 1 else ("", "cette case")
    text = f"{len(changed)} code{many} changé{many} sur 12 : {seen} pixels changent de plus de 0,1"
    k = changed[0]
    told = f"case {k + 1} : atome {codes[k]} (avant : {start[k]})"
    assert {f"{text}, dont {beyond} hors de {where}", told} <= set(said)
    tint = 255 - change[..., None].numpy() * (255 - 255 * np.array(to_rgb(scene.FOCUS)))
    assert scene.same(scene.shown(editor, "change", (12, 16)), tint)
    assert scene.framed(editor, "change", "#777777", 0) == list(changed)


def test_an_edit_that_no_pixel_shows(editor, monkeypatch):
    monkeypatch.setattr("course_utils.demos.codes.VISIBLE", 0.9999)
    text = "1 code changé sur 12 : 0 pixel change de plus de 1,0, dont 0 hors de cette case"
    assert text in scene.texts(editor, edits="3=6")


# ---- codebook_browser -------------------------------------------------------------------------


@pytest.fixture
def browser():
    return CASES["browser"].make()


def test_the_browser_starts_with_the_atom_that_puts_most_ink(browser, book):
    ink = [book.patches[k].mean() * book.uses[k] for k in range(ATOMS)]
    assert browser.controls["atom"].value == int(np.argmax(ink))
    assert f"l'atome {book.background} partout ailleurs" in browser.children[0].value


@pytest.mark.parametrize("atom", range(ATOMS))
def test_an_atom_alone_among_its_neighbours_and_where_it_serves(browser, book, maps, atom):
    """And how often: a bar per atom, from the most frequent to the rarest."""
    said = scene.texts(browser, atom=atom)
    codes = [book.background] * COUNT
    codes[1 * WIDE + 2] = atom
    assert scene.shows(browser, "alone", decoded(codes)) and scene.framed(browser, "alone") == [6]
    panel, side = browser.panels["tile"], 196
    page = scene.page_of(browser)[panel.top : panel.bottom, panel.left : panel.right]
    tile = np.asarray(book.tile(atom, side))
    assert np.array_equal(page[40:156, 40:156], tile[40:156, 40:156])
    y, x = np.nonzero(scene.in_color(page, scene.FOCUS))
    assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx((32.7, 163.3) * 2, abs=1)

    counts = (maps == atom).sum(0).view(HIGH, WIDE, 1).numpy()
    heat = 255 - counts / counts.max() * CODE
    assert scene.same(scene.shown(browser, "places"), heat)

    uses = maps.flatten().bincount(minlength=ATOMS).numpy()
    ranking = np.argsort(-uses, kind="stable").tolist()
    rank, share = ranking.index(atom), 100 * uses[atom] / uses.sum()
    assert f"atome {atom} : {scene.french(share, 1)} % (rang {rank + 1})" in said
    assert f"perplexité {scene.french(perplexity(maps, ATOMS), 1)}" in said
    assert not any(text.startswith("p(") for text in said)
    rises = scene.heights(browser, "uses", scene.FOCUS, figures.COLORS["code"])
    assert rises == pytest.approx((uses[ranking] / uses.max()).tolist(), abs=0.02)
    assert np.flatnonzero(scene.heights(browser, "uses", scene.FOCUS)).tolist() == [rank]
    assert scene.framed(browser, "palette") == [book.order.index(atom)]

    numbers = [n for n in range(40) if atom in maps[n]][:6]
    assert len(numbers) == 6 and "des images où il sert" in said
    for place, number in enumerate(numbers):
        assert scene.shows(browser, f"example {place}", blots()[number].float())
        found = scene.framed(browser, f"example {place}")
        assert found == (maps[number] == atom).nonzero().flatten().tolist()


def test_an_atom_of_few_images_leaves_the_rest_empty(maps):
    few = codebook_browser(vqvae(), blots()[:2])
    for atom in range(ATOMS):
        said, count = scene.texts(few, atom=atom), (maps[:2] == atom).any(1).sum()
        left = few.panels[f"example {count}"].left
        assert scene.in_color(
            scene.page_of(few)[few.panels["example 0"].top :, left - 3 :], "white"
        ).all()
        assert ("il ne sert dans aucune image" in said) == (count == 0)


def test_the_atoms_their_bars_and_the_buttons_choose_an_atom(browser, book):
    for atom, event in itertools.product(range(ATOMS), (scene.DOWN, scene.DRAG)):
        click_atom(browser, book, atom, event)
        assert browser.controls["atom"].value == atom
    ranking = book.uses.argsort(descending=True, stable=True).tolist()
    bars = browser.panels["uses"]
    for (place, atom), y in itertools.product(enumerate(ranking), (bars.floor - 50, bars.floor)):
        scene.point(browser, bars.middle(place), y)
        assert browser.controls["atom"].value == atom
    browser.set(atom=ranking[0])
    for atom in (*ranking[1:], ranking[-1]):
        browser.buttons["rarer"].click()
        assert browser.controls["atom"].value == atom
    for atom in (*ranking[-2::-1], ranking[0]):
        browser.buttons["commoner"].click()
        assert browser.controls["atom"].value == atom


# ---- prior_explorer ---------------------------------------------------------------------------


@pytest.fixture
def explorer():
    return CASES["prior"].make()


def sampled(prior, seed=0, temperature=1.0, label=0):
    """The prior's own codes, the laws `(COUNT, ATOMS)` that it told, the order of the places."""
    steps = follow(prior, label if prior.num_classes else None, temperature, seed)
    _, codes, laws = zip(*sorted(steps))
    return list(codes), torch.tensor(laws), [place for place, _, _ in steps]


def law_bars(demo):
    """Heights of the bars of the law, in [0, 1], and the one in focus."""
    drawn = np.flatnonzero(scene.heights(demo, "law", scene.FOCUS)).tolist()
    return scene.heights(demo, "law", scene.FOCUS, figures.COLORS["prior"]), drawn


@pytest.mark.parametrize("step", [1, 5, COUNT])
@pytest.mark.parametrize(
    ("name", "seed", "temperature", "label"),
    [
        ("entraîné", 0, 1.0, 0),
        ("entraîné", 7, 0.4, 2),
        ("non entraîné", 9999, 1.0, 1),
    ],
)
def test_the_priors_own_codes_are_shown_and_billed(
    explorer, book, name, seed, temperature, label, step
):
    """Those to come wait, decoded as the background; the law of the last one, in bars."""
    settings = {"model": name, "seed": seed, "temperature": temperature, "label": label}
    said = scene.texts(explorer, step=step, **settings)
    codes, laws, _ = sampled(priors()[name], seed, temperature, label)
    assert len(set(codes)) > 1
    assert codes_shown(explorer, book) == codes[:step] + [None] * (COUNT - step)
    page = scene.colors(decoded(codes[:step] + [book.background] * (COUNT - step)))
    waits = (np.arange(COUNT).reshape(HIGH, WIDE) >= step).repeat(4, 0).repeat(4, 1)[..., None]
    expected = np.where(waits, page / 2 + WAITING - 127.5, page)
    assert scene.same(scene.shown(explorer, "image", (12, 16)), expected)
    note = f"en gris : pas encore tiré, décodé comme l'atome {book.background}"
    assert (note in said) == (step < COUNT)
    assert step == COUNT or scene.same(scene.shown(explorer, "codes")[-1, -1], WAITING)
    assert scene.framed(explorer, "codes") == scene.framed(explorer, "image") == [step - 1]

    law, code = laws[step - 1], codes[step - 1]
    ranked = law.argsort(descending=True, stable=True).tolist()
    heights, drawn = law_bars(explorer)
    assert heights == pytest.approx(law[ranked].tolist(), abs=0.02)
    assert drawn in ([ranked.index(code)], []) and (drawn or law[code] < 0.01)
    assert [int(text) for text in said if text.isdigit()][-ATOMS:] == ranked
    paid, flat = -laws[range(COUNT), codes].log2()[:step], math.log2(ATOMS)
    assert {
        f"loi de la case {step}, sachant celles d'avant",
        f"p({code}) = {scene.french(law[code], 3)}",
        f"case {step} sur 12 : atome {code}",
        f"coût : {scene.amount(paid[-1], 2, 'bit')}, au lieu de {scene.french(flat, 2)} sans prior",
        f"total : {scene.amount(paid.sum(), 1, 'bit')}, au lieu de {scene.french(flat * step, 1)}",
        f"soit {scene.amount(paid.mean(), 2, 'bit')} par code",
    } <= set(said)
    if temperature == 1 and step == COUNT:
        x = torch.tensor(codes, dtype=torch.uint8).view(1, 1, HIGH, WIDE)
        bits = -priors()[name].log_prob(x, torch.tensor([label])).item() / math.log(2)
        assert any(text.startswith(f"total : {scene.amount(bits, 1, 'bit')}, ") for text in said)


def test_the_ends_of_the_bill(explorer, book):
    said = scene.texts(explorer, step=0)
    assert codes_shown(explorer, book) == [None] * COUNT
    assert "aucun code tiré" in said and not any("bit" in text for text in said)
    assert not scene.framed(explorer, "codes") and not scene.framed(explorer, "image")
    free = scene.texts(explorer, step=COUNT, temperature=0.0)
    assert "soit 0,00 bit par code" in free, "the most probable codes"
    assert "label" not in make("prior", vqvae()).controls, "this one has no classes"


def test_another_ordering_and_two_atoms():
    """A law of two levels is told as one probability."""
    ordering = torch.randperm(COUNT, generator=seeded(3))
    prior = perturb(MADE((1, HIGH, WIDE), hidden=(8,), ordering=ordering))
    model = vqvae(num_codes=2)
    demo, book = prior_explorer(model, {"": prior}, blots()), Codebook(model, blots())
    codes, _, order = sampled(prior)
    assert order == ordering.tolist()
    with torch.no_grad():
        law = prior.pixel_log_prob(torch.tensor(codes).view(1, 1, HIGH, WIDE)).exp().flatten()
    for step in (4, 9):
        said, place = scene.texts(demo, step=step), order[step - 1]
        assert scene.framed(demo, "codes") == [place]
        shown = [codes[k] if k in order[:step] else None for k in range(COUNT)]
        assert codes_shown(demo, book) == shown
        assert f"p({codes[place]}) = {scene.french(law[place], 3)}" in said


class Stubborn(PixelCNN):
    """Always the same code, of this law."""

    def __init__(self, told, code):
        super().__init__((1, *MAP), levels=len(told), features=4, layers=1)
        self.told, self.code = torch.tensor(told), code

    def sample(self, n, y=None, *, generator=None, temperature=1.0, callback=None):
        for place in range(COUNT):
            callback(place, torch.full((n,), float(self.code)), self.told.expand(n, -1))


@pytest.mark.parametrize("rank", [0, 9, 10, 15])
def test_ten_atoms_and_all_the_others(rank):
    law = [0.01 * (k % 7 + 1) for k in range(16)]
    law[3] = 1 - sum(law) + law[3]
    ranked = sorted(range(16), key=lambda k: -law[k])
    demo = prior_explorer(vqvae(num_codes=16), {"": Stubborn(law, ranked[rank])}, blots())
    kept = ranked[:10] if rank < 10 else [*ranked[:9], ranked[rank]]
    shares = [law[k] for k in kept]
    heights, drawn = law_bars(demo)
    assert heights == pytest.approx([*shares, 1 - sum(shares)], abs=0.02)
    assert drawn == [kept.index(ranked[rank])]
    said = scene.texts(demo)
    assert said[said.index("+6") - 10 : said.index("+6")] == [str(k) for k in kept]


# ---- all --------------------------------------------------------------------------------------


class Calm(PixelCNN):
    """It draws in eval mode only."""

    def sample(self, *args, **options):
        assert not self.training
        return super().sample(*args, **options)


@functools.cache
def plain_prior():
    """One without classes."""
    return perturb(Calm((1, *MAP), levels=ATOMS, features=4, layers=1))


def make(name, model, prior=None):
    """One of the three demos, of this model."""
    if name == "prior":
        return prior_explorer(model, {"": prior or plain_prior()}, blots())
    return {"editor": code_editor, "browser": codebook_browser}[name](model, blots())


@pytest.mark.parametrize("name", ["editor", "browser", "prior"])
@pytest.mark.parametrize("training", [False, True])
def test_the_demos_show_the_model_as_it_was_and_leave_it_so(name, training):
    """In eval mode, whatever its own; it may learn on."""
    model, prior = copy.deepcopy(vqvae()), copy.deepcopy(plain_prior())
    model.decoder.net.append(torch.nn.Dropout(0.5))
    for each in (model, prior):
        each.train(training)
    demo, twin = make(name, model, prior), make(name, vqvae())
    assert demo.picture.value == twin.picture.value
    for each in (model, prior):
        assert all(module.training is training for module in each.modules())
        perturb(each)
    moves = {"atom": 5, "edits": "2=3", "seed": 5}
    for one in (demo, twin):
        one.set(**{control: value for control, value in moves.items() if control in one.controls})
    assert demo.picture.value == twin.picture.value


def test_a_coloured_image_is_decoded_in_colours():
    model, images = vqvae(3), blots(channels=3)
    codes = model.encode(images[:1]).flatten().tolist()
    editor, browser = code_editor(model, images), codebook_browser(model, images)
    explorer = prior_explorer(model, {"": Stubborn([0.0] * 6 + [1.0], 6)}, images)
    explorer.set(step=COUNT)
    assert scene.shows(editor, "decoded", decoded(codes, model))
    assert scene.shows(explorer, "image", decoded([6] * COUNT, model))
    browser.set(atom=codes[0])
    assert scene.shows(browser, "example 0", images[0].float())


@pytest.mark.parametrize("num_codes", [2, 64, 256])
def test_codebooks_of_all_sizes_fit_in_the_same_picture(num_codes):
    model = VQVAE((1, 12, 16), num_codes=num_codes, code_dim=4, features=8)
    prior = PixelCNN((1, HIGH, WIDE), levels=num_codes, features=4, layers=1)
    last = {"edits": f"1={num_codes - 1}", "atom": num_codes - 1, "step": COUNT}
    for name in ("editor", "browser", "prior"):
        demo = make(name, model, prior)
        demo.set(**{control: value for control, value in last.items() if control in demo.controls})
        assert (
            scene.decode(demo.picture.value).size
            == scene.decode(CASES[name].make().picture.value).size
        )
