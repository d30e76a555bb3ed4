"""The demos of notebook 03b without a browser: painting by hand, and the receptive field."""

import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import test_demos
import torch
from autoregressive_models import build, perturb, same_state, seeded, state_of, train
from test_demos import DOWN, DRAG, Plain, decode, french, in_color, page_of, values

from course_utils import NADE, DiagonalBiLSTM, PixelCNN, RowLSTM, figures
from course_utils.autoregressive.masked import MaskedConv2d
from course_utils.demos import painting_explorer, pixels, receptive_field_explorer
from course_utils.evaluation import receptive_field

pytestmark = pytest.mark.usefixtures("no_screen")
words = test_demos.words

FOCUS, WAITING = figures.COLORS["focus"], 0.93 * 255
TOP = 30  # where the images stand in the picture


# ---- the pace of the play button --------------------------------------------------------------


@pytest.mark.parametrize(("pace", "bounds"), [(1, (0, 255, 1)), (3, (0, 257, 3))])
def test_the_pace_is_the_number_of_steps_at_each_tick(pace, bounds):
    plain = Plain(play="blue", pace=pace)
    play = plain.demo.play
    assert (play.min, play.max, play.step) == bounds
    assert (plain.controls["blue"].max, plain.controls["blue"].step) == (255, 1)


@pytest.mark.parametrize("pace", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("start", [0, 1, 2, 253, 255])
def test_playing_reaches_the_end_of_the_slider_from_anywhere(pace, start):
    """As the button does in the browser: one step more, unless it would pass its maximum."""
    plain = Plain(play="blue", pace=pace)
    play, slider = plain.demo.play, plain.controls["blue"]
    slider.value = start
    for _ in range(256):
        if play.value + play.step > play.max:
            break
        play.value += play.step
    assert slider.value == play.value == 255


@pytest.mark.parametrize("pace", [0, -1])
def test_a_pace_is_at_least_one_step(pace):
    with pytest.raises(ValueError, match=f"pace={pace}: expected at least one step"):
        Plain(play="blue", pace=pace)


# ---- painting_explorer ------------------------------------------------------------------------

HIGH, WIDE = 4, 5  # not square: rows are not columns
DIMS = HIGH * WIDE
ZOOM, SMALL = 61, 38  # of a pixel: 308 // 5 and 190 // 5
MIDDLE, RIGHT = WIDE * ZOOM + 24, WIDE * (ZOOM + SMALL) + 48  # where the panels stand
SIZE = (RIGHT + 430, TOP + 320)

# kind: shape, levels, classes
IMAGES = {
    "binary": ((1, HIGH, WIDE), 2, None),
    "grey": ((1, HIGH, WIDE), 5, None),
    "classes": ((1, HIGH, WIDE), 3, 4),
    "colour": ((3, HIGH, WIDE), 4, None),
    "colour, two levels": ((3, HIGH, WIDE), 2, None),
}


def counting_images(shape, levels, n=200):
    """Each pixel is one level above the pixel on its left, but once in five."""
    x = torch.randint(levels, (n, *shape), generator=seeded(1))
    free = torch.rand(n, *shape[1:], generator=seeded(2)) < 0.2
    for column in range(1, shape[2]):
        following = (x[..., column - 1] + 1) % levels
        x[..., column] = torch.where(free[:, None, :, column], x[..., column], following)
    return x.to(torch.uint8), torch.arange(n)


def pixel_models(kind):
    """Two models trained a little: a change by hand has consequences."""
    shape, levels, num_classes = IMAGES[kind]
    options = {"levels": levels, "num_classes": num_classes, "features": 12}
    torch.manual_seed(0)
    models = {
        "CNN": PixelCNN(shape, layers=2, **options),
        "LSTM": RowLSTM(shape, layers=1, **options),
    }
    x, y = counting_images(shape, levels)
    for model in models.values():
        train(model, x, y % num_classes if num_classes else None, steps=20)
    return models


@pytest.fixture(scope="module")
def painters():
    return {kind: pixel_models(kind) for kind in IMAGES}


@pytest.fixture(params=IMAGES)
def kind(request):
    return request.param


@pytest.fixture
def easel(painters, kind):
    return painting_explorer(painters[kind])


@pytest.fixture
def binary(painters):
    return painting_explorer(painters["binary"])


@pytest.fixture
def grey(painters):
    return painting_explorer(painters["grey"])


@pytest.fixture
def colour(painters):
    return painting_explorer(painters["colour"])


def panel(easel, *, untouched=False):
    """The colour in the middle of each pixel of an image, `(H, W, 3)`."""
    left, zoom = (MIDDLE, SMALL) if untouched else (0, ZOOM)
    page = page_of(easel)[TOP + zoom * 2 // 3 :: zoom, left + zoom * 2 // 3 :: zoom]
    return page[:HIGH, :WIDE]


def shown(x, levels, step=DIMS):
    """The colours `(H, W, 3)` of an image `(C, H, W)`, painted up to a step."""
    share = x.float() / (levels - 1)
    color = share if len(x) == 3 else (1 - share).expand(3, -1, -1)
    page = 255 * color.permute(1, 2, 0).reshape(DIMS, 3)
    page[step:] = WAITING
    return page.view(HIGH, WIDE, 3).numpy()


def same(page, expected):
    return np.abs(page - expected).max() < 1


def click(easel, row, column, event=DOWN):
    where = {"dataX": (column + 0.5) * ZOOM, "dataY": TOP + (row + 0.5) * ZOOM}
    easel._pointer(event | where)


def condition(model):
    return None if model.num_classes is None else torch.tensor([0])


def drawn(model, seed=0, temperature=1.0, **options):
    """The model's own image, `(C, H, W)`."""
    y = condition(model)
    x = model.sample(1, y, generator=seeded(seed), temperature=temperature, **options)
    return x[0]


def laws(model, x, temperature=1.0):
    """Probabilities of the levels of each pixel of `x` `(C, H, W)`: `(D, C, levels)`."""
    with torch.no_grad():
        logits = model.logits(x[None], condition(model))[0].double()
    if model.levels == 2:
        logits = torch.stack([torch.zeros_like(logits), logits])
    return torch.softmax(logits / temperature, 0).flatten(2).permute(2, 1, 0)


def prices(model, x, temperature=1.0):
    """−log p of each pixel of `x`, all channels together, `(D,)`."""
    chosen = x.flatten(1).T[..., None].long()
    return -laws(model, x, temperature).gather(2, chosen)[..., 0].log().sum(1)


def nats(value, digits):
    value = float(value)
    return f"{french(value, digits)} nat{'s' if value >= 2 else ''}"


def edited(model, edits, seed=0):
    """The model's image when some pixels are known: `{(row, column): values}`."""
    given = torch.zeros(1, *model.shape, dtype=torch.uint8)
    mask = torch.zeros(model.shape[1:], dtype=torch.bool)
    for (row, column), new in edits.items():
        given[0, :, row, column] = torch.tensor(new, dtype=torch.uint8)
        mask[row, column] = True
    return drawn(model, seed, given=given, mask=mask)


def test_the_controls_of_the_easel(easel, painters, kind):
    shape, levels, num_classes = IMAGES[kind]
    start = {"step": 12, "model": "CNN", "temperature": 1.0, "seed": 0, "edits": ""}
    if levels > 2 or shape[0] == 3:
        start["brush"] = "#ff0000" if shape[0] == 3 else levels - 1
    if num_classes:
        start["label"] = 0
        assert (easel.controls["label"].min, easel.controls["label"].max) == (0, num_classes - 1)
    assert values(easel) == start
    assert (easel.controls["step"].min, easel.controls["step"].max) == (0, DIMS)
    assert easel.controls["model"].options == tuple(painters[kind])
    assert easel.controls["edits"].disabled, "it is read, not typed"
    names = ["Changer ce pixel", "Effacer les retouches", "Autre image"]
    assert list(easel.buttons) == names
    laid_out = [child for row in easel.children[1:-1] for child in row.children]
    everything = [*easel.controls.values(), *easel.buttons.values(), easel.play, easel.reset_button]
    assert set(map(id, laid_out)) == set(map(id, everything)) and len(laid_out) == len(everything)


def test_the_easel_plays_thirty_pixels_a_second(painters):
    easel = painting_explorer(painters["grey"])
    assert easel.play.step * 1000 / easel.play.interval >= 30
    assert easel.controls["step"].step == 1
    assert painting_explorer(painters["grey"], pace=5).play.step == 5


def test_every_control_of_the_easel_changes_the_picture_and_not_its_size(easel, kind):
    changes = {"step": 17, "model": "LSTM", "temperature": 0.3, "seed": 7, "label": 2}
    changes["brush"] = 1 if kind in ("grey", "classes") else "#00ff00"
    changes["edits"] = "3=" + ",".join(["0"] * (1 + 2 * kind.startswith("colour")))
    changes["edits"] += " 4=" + changes["edits"][2:].replace("0", "1")
    pictures = [easel.picture.value]
    for name, control in easel.controls.items():
        easel.reset_button.click()
        control.value = changes[name]
        pictures.append(easel.picture.value)
    assert len(set(pictures)) == 1 + len(easel.controls)
    assert {decode(png).size for png in pictures} == {SIZE}


def test_the_easel_keeps_its_size(easel):
    for model, step, temperature in itertools.product(("CNN", "LSTM"), (0, 1, DIMS), (0.0, 2.0)):
        easel.set(model=model, step=step, temperature=temperature, seed=9999)
        easel.buttons["Changer ce pixel"].click()
        assert decode(easel.picture.value).size == SIZE


@pytest.mark.parametrize("name", ["CNN", "LSTM"])
@pytest.mark.parametrize(("seed", "temperature"), [(0, 1.0), (7, 0.4), (3, 0.0), (9999, 2.0)])
def test_the_last_step_shows_the_models_own_sample(easel, painters, kind, name, seed, temperature):
    easel.set(model=name, step=DIMS, seed=seed, temperature=temperature)
    model = painters[kind][name]
    x = drawn(model, seed, temperature)
    assert len(x.unique()) > 1
    assert same(panel(easel), shown(x, model.levels))
    assert same(panel(easel, untouched=True), shown(x, model.levels))


def test_the_class_is_that_of_the_control(painters):
    easel, model = painting_explorer(painters["classes"]), painters["classes"]["CNN"]
    pages = []
    for label in range(4):
        easel.set(step=DIMS, label=label)
        x = model.sample(1, torch.tensor([label]), generator=seeded(0))[0]
        assert same(panel(easel), shown(x, model.levels))
        pages.append(panel(easel).tobytes())
    assert len(set(pages)) > 1


@pytest.mark.parametrize("step", [0, 1, 2, 12, 19])
def test_what_is_not_painted_yet_is_grey(easel, painters, kind, step):
    model = painters[kind]["CNN"]
    easel.set(step=step)
    for untouched in (False, True):
        expected = shown(drawn(model), model.levels, step)
        assert same(panel(easel, untouched=untouched), expected)


@pytest.mark.parametrize("step", [1, 5, 12, DIMS])
def test_the_last_pixel_is_framed_in_both_images(binary, step):
    binary.set(step=step)
    row, column = divmod(step - 1, WIDE)
    for left, zoom in ((0, ZOOM), (MIDDLE, SMALL)):
        frame = in_color(
            page_of(binary)[TOP : TOP + HIGH * zoom + 2, left:][:, : WIDE * zoom + 2], FOCUS
        )
        y, x = np.nonzero(frame)
        box = (zoom * column, zoom * (column + 1), zoom * row, zoom * (row + 1))
        assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx(box, abs=1)


def test_before_the_first_pixel_there_is_no_law(easel, words):
    easel.set(step=0)
    assert "aucun pixel peint" in words and not any("nat" in word for word in words)
    page = page_of(easel)
    assert not in_color(page, FOCUS).any() and in_color(page[:, RIGHT:], "white").all()


# ---- the law and the bill ---------------------------------------------------------------------


@pytest.mark.parametrize(("step", "temperature"), [(1, 1.0), (12, 0.5), (DIMS, 2.0)])
def test_the_bars_are_the_law_of_the_last_pixel(easel, painters, kind, words, step, temperature):
    """Measured on the picture, channel by channel; the value drawn has the colour of x."""
    model = painters[kind]["CNN"]
    easel.set(step=step, temperature=temperature, seed=4)
    x = drawn(model, 4, temperature)
    expected = laws(model, x, temperature)[step - 1]  # (C, levels)
    channels, levels = expected.shape
    chosen = x.flatten(1)[:, step - 1].tolist()
    tints = ["#EDB5B0", "#A8D5B5", "#C3C4EE"] if channels == 3 else [figures.COLORS["prior"]]
    page, room, slot = page_of(easel), 308 / channels, 386 / levels
    for channel, level in itertools.product(range(channels), range(levels)):
        floor, full = round(TOP + room * (channel + 1)) - 22, round(room) - 42
        bar = page[floor - full - 5 : floor, round(RIGHT + 36 + slot * (level + 0.5))]
        color = figures.COLORS["x"] if level == chosen[channel] else tints[channel]
        share = expected[channel, level].item()
        if level == chosen[channel]:
            assert f"p({level}) = {french(share, 3)}" in words
            bar = bar[bar.shape[0] - round(full * share) - 1 :]  # the text is above
        assert in_color(bar, color).sum() == pytest.approx(full * share, abs=1.5)


@pytest.mark.parametrize("levels", [2, 4, 8, 17, 256])
def test_the_levels_are_written_under_the_bars(words, levels):
    torch.manual_seed(0)
    easel = painting_explorer({"": PixelCNN((1, 3, 3), levels=levels, layers=1, features=4)})
    words.clear()
    easel.set(step=5)
    labels = [int(word) for word in words if word.isdigit() and word not in ("0", "1")]
    labels += [0, 1] if levels <= 17 else [0]
    every = 14 if levels == 256 else 1
    assert sorted(labels) == list(range(0, levels, every))
    assert decode(easel.picture.value).size[0] < 1000


@pytest.mark.parametrize(("step", "temperature"), [(1, 1.0), (12, 0.4), (DIMS, 1.0)])
def test_the_bill_adds_the_price_of_each_pixel(easel, painters, kind, words, step, temperature):
    model = painters[kind]["CNN"]
    easel.set(step=step, temperature=temperature, seed=4)
    x = drawn(model, 4, temperature)
    paid = prices(model, x, temperature)[:step]
    value = ", ".join(map(str, x.flatten(1)[:, step - 1].tolist()))
    bits = paid.sum() / math.log(2) / (step * len(x))
    expected = {f"pixel {step} sur {DIMS}", f"tiré : {value}", f"coût : {nats(paid[-1], 2)}"}
    expected |= {f"total : {nats(paid.sum(), 1)}", f"soit {french(bits, 2)} bits/dim"}
    assert expected <= set(words)
    assert not any("différent" in word for word in words)


def test_the_whole_bill_is_minus_log_p(easel, painters, kind, words):
    for name, model in painters[kind].items():
        easel.set(model=name, step=DIMS, seed=3)
        total = -model.log_prob(drawn(model, 3)[None], condition(model)).item()
        assert f"total : {nats(total, 1)}" in words


def test_the_most_probable_image_costs_nothing(easel, words):
    easel.set(step=DIMS, temperature=0.0)
    assert {"coût : 0,00 nat", "total : 0,0 nat", "soit 0,00 bits/dim"} <= set(words)


# ---- changes by hand --------------------------------------------------------------------------


def brushed(easel, kind):
    """A brush, and the values that it gives to a pixel."""
    brush, new = {
        "grey": (1, (1,)),
        "classes": (2, (2,)),
        "colour": ("#0055ff", (0, 1, 3)),
        "colour, two levels": ("#00ff99", (0, 1, 1)),
    }[kind]
    easel.controls["brush"].value = brush
    return new


def test_a_click_gives_a_pixel_the_value_of_the_brush(easel, painters, kind):
    model, step = painters[kind]["CNN"], 1 * WIDE + 3
    easel.set(step=15)
    before = drawn(model)
    new = (1 - int(before[0, 1, 2]),) if kind == "binary" else brushed(easel, kind)
    click(easel, 1, 2)
    assert easel.controls["step"].value == step, "it is taken up again just after"
    assert easel.controls["edits"].value == f"{step}={','.join(map(str, new))}"
    after = edited(model, {(1, 2): new})
    assert after[:, 1, 2].tolist() == list(new)
    for then in (step, step + 1, DIMS):
        easel.set(step=then)
        assert same(panel(easel), shown(after, model.levels, then))
        assert same(panel(easel, untouched=True), shown(before, model.levels, then))


def test_what_was_painted_before_the_change_stays(easel, kind):
    """And something follows: the change is read by the pixels after it."""
    if kind != "binary":
        brushed(easel, kind)
    repainted = 0
    for seed in range(1, 10):
        easel.set(step=DIMS, seed=seed, edits="")
        before = panel(easel).reshape(DIMS, 3)
        click(easel, 1, 2)
        easel.set(step=DIMS)
        after = panel(easel).reshape(DIMS, 3)
        assert same(after[: WIDE + 2], before[: WIDE + 2])
        repainted += not same(after[WIDE + 3 :], before[WIDE + 3 :])
    assert repainted


def test_several_changes_are_kept_and_later_ones_are_forgotten(grey, painters):
    model = painters["grey"]["CNN"]
    grey.set(step=DIMS, brush=1)
    click(grey, 0, 3)
    grey.set(step=DIMS, brush=4)
    click(grey, 2, 1)
    assert grey.controls["edits"].value == "4=1 12=4"
    grey.set(step=DIMS)
    after = edited(model, {(0, 3): (1,), (2, 1): (4,)})
    assert same(panel(grey), shown(after, model.levels))
    grey.set(brush=0)
    click(grey, 1, 0)
    assert grey.controls["edits"].value == "4=1 6=0" and grey.controls["step"].value == 6
    grey.set(step=DIMS)
    after = edited(model, {(0, 3): (1,), (1, 0): (0,)})
    assert same(panel(grey), shown(after, model.levels))
    grey.set(brush=2)
    click(grey, 1, 0)
    assert grey.controls["edits"].value == "4=1 6=2", "the same pixel again"


def test_a_binary_pixel_is_flipped_back(binary, painters):
    model = painters["binary"]["CNN"]
    first = drawn(model)[0].flatten().tolist()
    for pixel in (7, 0, 11):
        binary.reset_button.click()
        for value in (1 - first[pixel], first[pixel], 1 - first[pixel]):
            click(binary, *divmod(pixel, WIDE))
            assert binary.controls["edits"].value == f"{pixel + 1}={value}"
            color = 255 * (1 - value)
            assert (panel(binary)[divmod(pixel, WIDE)] == color).all()


def test_a_flip_takes_the_changes_before_it_into_account(binary, painters):
    model, edits = painters["binary"]["LSTM"], {}
    binary.set(model="LSTM", seed=2)
    for row, column in ((0, 0), (0, 4), (1, 3), (3, 4)):
        binary.set(step=DIMS)
        value = 1 - int(edited(model, edits, 2)[0, row, column])
        click(binary, row, column)
        edits[row, column] = (value,)
        assert same(panel(binary), shown(edited(model, edits, 2), 2, row * WIDE + column + 1))


def test_changes_cost_nothing_and_are_marked(easel, painters, kind, words):
    model = painters[kind]["CNN"]
    easel.set(step=DIMS)
    new = (1 - int(drawn(model)[0, 1, 2]),) if kind == "binary" else brushed(easel, kind)
    click(easel, 1, 2)
    x = edited(model, {(1, 2): new})
    paid = prices(model, x)
    paid[WIDE + 2] = 0
    share = laws(model, x)[WIDE + 2, 0, new[0]]
    expected = {f"à la main : {', '.join(map(str, new))}", "coût : 0,00 nat"}
    expected |= {f"total : {nats(paid[: WIDE + 3].sum(), 1)}", f"p({new[0]}) = {french(share, 3)}"}
    assert expected <= set(words)
    words.clear()
    easel.set(step=DIMS)
    bits = paid.sum() / math.log(2) / ((DIMS - 1) * len(x))
    expected = {f"total : {nats(paid.sum(), 1)}", f"soit {french(bits, 2)} bits/dim"}
    count = int((x != drawn(model)).any(0).sum())
    expected.add(f"{count} pixels différents" if count > 1 else f"{count} pixel différent")
    assert expected <= set(words)

    marks = in_color(page_of(easel)[TOP:, : WIDE * ZOOM], FOCUS)
    corners = marks[5::ZOOM, 5::ZOOM][:HIGH, :WIDE]
    assert np.argwhere(corners).tolist() == [[1, 2]]
    small = in_color(page_of(easel)[TOP:, MIDDLE:], FOCUS)[5::SMALL, 5::SMALL]
    assert not small[:HIGH, :WIDE].any()


def test_the_bar_of_a_change_has_its_own_colour(binary):
    assert not in_color(page_of(binary)[TOP:, RIGHT:], FOCUS).any()
    binary.buttons["Changer ce pixel"].click()
    page = page_of(binary)[TOP:, RIGHT:]
    assert in_color(page, FOCUS).any() and not in_color(page, figures.COLORS["x"]).any()


def test_the_button_changes_the_last_pixel(easel, kind):
    easel.set(step=9)
    if kind != "binary":
        brushed(easel, kind)
    twin = easel.picture.value
    easel.buttons["Changer ce pixel"].click()
    changed, state = easel.picture.value, values(easel)
    assert changed != twin and state["step"] == 9 and state["edits"].startswith("9=")
    easel.set(edits="")
    click(easel, 1, 3)
    assert (easel.picture.value, values(easel)) == (changed, state)


def test_there_is_nothing_to_change_before_the_first_pixel(binary):
    binary.set(step=0)
    before, state = binary.picture.value, values(binary)
    binary.buttons["Changer ce pixel"].click()
    click(binary, 0, 0)
    assert (binary.picture.value, values(binary)) == (before, state)


def test_only_painted_pixels_answer_a_click(binary):
    binary.set(step=12)
    state = values(binary)
    click(binary, 2, 1, DRAG)
    click(binary, 2, 2)
    click(binary, 3, 4)
    for x, y in ((-1, 50), (50, TOP - 1), (WIDE * ZOOM, 50), (50, TOP + HIGH * ZOOM), (700, 60)):
        binary._pointer(DOWN | {"dataX": x, "dataY": y})
        assert values(binary) == state, (x, y)
    click(binary, 2, 1, DRAG)
    assert values(binary) == state, "a drag is no click"
    click(binary, 2, 1)
    assert values(binary) != state


def test_changes_are_erased(grey):
    grey.set(step=15, brush=0)
    before = grey.picture.value
    click(grey, 0, 1)
    click(grey, 0, 0)
    grey.set(step=15)
    assert grey.picture.value != before
    grey.buttons["Effacer les retouches"].click()
    assert grey.picture.value == before
    assert (grey.controls["edits"].value, grey.controls["step"].value) == ("", 15)


def test_another_image_has_another_seed_and_no_change(grey, painters):
    twin, seeds = painting_explorer(painters["grey"]), []
    grey.set(step=10, model="LSTM", temperature=0.7)
    for _ in range(3):
        grey.buttons["Changer ce pixel"].click()
        before = values(grey)
        assert before["edits"]
        grey.buttons["Autre image"].click()
        seeds.append(grey.controls["seed"].value)
        assert values(grey) == before | {"seed": seeds[-1], "edits": ""}
        twin.buttons["Autre image"].click()
        assert twin.controls["seed"].value == seeds[-1]
    assert len(set(seeds)) == 3


def test_reset_gives_the_first_image_back(easel):
    start, first = easel.picture.value, values(easel)
    easel.set(model="LSTM", step=3, temperature=0.2)
    easel.buttons["Changer ce pixel"].click()
    easel.buttons["Autre image"].click()
    easel.buttons["Changer ce pixel"].click()
    assert easel.picture.value != start and easel.controls["edits"].value
    easel.reset_button.click()
    assert easel.picture.value == start and values(easel) == first


@pytest.mark.parametrize(
    ("brush", "new"), [("white", "3,3,3"), ("#000", "0,0,0"), ("#808000", "2,2,0")]
)
def test_colours_are_brought_to_the_nearest_level(colour, brush, new):
    colour.set(brush=brush)
    click(colour, 0, 0)
    assert colour.controls["edits"].value == f"1={new}"


def test_the_brush_is_shown_as_it_paints(colour, grey):
    colour.set(brush="#0055ff")
    assert (page_of(colour)[15, WIDE * ZOOM - 12] == (0, 85, 255)).all()
    colour.set(brush="#104a60")  # not a level: 0, 1, 1
    assert (page_of(colour)[15, WIDE * ZOOM - 12] == (0, 85, 85)).all()
    grey.set(brush=1)
    assert (page_of(grey)[15, WIDE * ZOOM - 12] == 191).all()


def test_changes_have_no_effect_before_their_pixel(grey):
    grey.set(step=4)
    before = grey.picture.value
    grey.set(edits="5=0 9=2")
    assert grey.picture.value == before


def test_moving_along_an_image_does_not_sample_it_again(monkeypatch, painters):
    model = painters["grey"]["CNN"]
    easel = painting_explorer({"CNN": model})
    samples = []
    sample = model.sample
    monkeypatch.setattr(model, "sample", lambda *a, **o: samples.append(1) or sample(*a, **o))
    for seed, step in ((1, 3), (1, 4), (1, DIMS), (2, DIMS), (1, 5)):
        easel.set(seed=seed, step=step)
    assert len(samples) == 2
    easel.buttons["Changer ce pixel"].click()
    easel.set(step=DIMS)
    assert len(samples) == 3


def test_images_of_all_shapes_fit(words):
    for shape, levels in (((1, 28, 28), 2), ((1, 1, 1), 4), ((3, 14, 3), 17), ((1, 3, 20), 3)):
        model = PixelCNN(shape, levels=levels, features=6, layers=1)
        easel = painting_explorer({"": model})
        easel.set(step=shape[1] * shape[2])
        easel.buttons["Changer ce pixel"].click()
        width, height = decode(easel.picture.value).size
        assert width <= 1000 and height == SIZE[1]


def test_the_easel_leaves_its_models_as_they_were(painters, kind):
    models = pixel_models(kind)
    before = {name: state_of(model) for name, model in models.items()}
    easel = painting_explorer(models)
    easel.set(step=DIMS, seed=8)
    easel.buttons["Changer ce pixel"].click()
    assert all(same_state(state_of(models[name]), state) for name, state in before.items())


def test_other_family_members_paint_too():
    model = perturb(DiagonalBiLSTM((1, HIGH, WIDE), features=6, layers=1)).eval()
    easel = painting_explorer({"BiLSTM": model}, temperature=0.5)
    assert easel.controls["temperature"].value == 0.5
    easel.set(step=DIMS)
    assert same(panel(easel), shown(drawn(model, temperature=0.5), 2))


def test_the_easel_refuses_other_models(painters):
    cnn = painters["binary"]["CNN"]

    def small(shape=(1, HIGH, WIDE), **options):
        return PixelCNN(shape, features=6, layers=1, **options)

    with pytest.raises(ValueError, match="at least one model"):
        painting_explorer({})
    with pytest.raises(ValueError, match="'b': expected a PixelModel .*, got NADE"):
        painting_explorer({"a": cnn, "b": NADE((1, HIGH, WIDE), hidden=3)})
    with pytest.raises(ValueError, match="got MADE"):
        painting_explorer({"a": build("MADE, 1 layer")})
    for other in (small((1, WIDE, HIGH)), small(levels=3), small(num_classes=3)):
        with pytest.raises(ValueError, match="models of the same images"):
            painting_explorer({"a": cnn, "b": other})
    with pytest.raises(ValueError, match=r"1 or 3 channels, got the shape \(2, 3, 3\)"):
        painting_explorer({"a": small((2, 3, 3))})
    with pytest.raises(ValueError, match="pace=0"):
        painting_explorer({"a": cnn}, pace=0)


# ---- receptive_field_explorer -----------------------------------------------------------------

SIDE, CELL = 13, 30
RED = "#B3261E"
GATED = "à portes (deux piles)"
RIGHT_MASKS = "A puis B"


@pytest.fixture(scope="module")
def field():
    return receptive_field_explorer()


@pytest.fixture(autouse=True)
def at_the_start(request):
    if "field" in request.fixturenames:
        request.getfixturevalue("field").reset_button.click()


def cells(field, color, at=(10, 10)):
    """Where the grid has this colour, off the edges and off the hatches."""
    page = page_of(field)[at[0] :: CELL, at[1] :: CELL][:SIDE, :SIDE]
    return in_color(page, color)


def hatched(field):
    """Cells with dark lines."""
    page = page_of(field)[: SIDE * CELL, : SIDE * CELL]
    dark = in_color(page, "#444444").reshape(SIDE, CELL, SIDE, CELL).sum((1, 3))
    return dark > 40


def before(row, column):
    """Pixels that come before one in the raster order."""
    return np.arange(SIDE**2).reshape(SIDE, SIDE) < row * SIDE + column


@pytest.fixture(scope="module")
def measured():
    """What a real PixelCNN reads, by its gradients: `(SIDE, SIDE)` booleans."""

    def reads(layers, kernel, gated, pixel, kinds=("A", "B"), residual=True):
        torch.manual_seed(0)
        model = PixelCNN(
            (1, SIDE, SIDE), gated=gated, layers=layers, first_kernel_size=kernel,
            kernel_size=kernel, features=8,
        )  # fmt: skip
        for number, layer in enumerate(model.layers):
            conv = layer.horizontal if gated else layer.conv
            like = MaskedConv2d(
                kinds[number > 0], conv.mask.shape[1], 8, kernel, repeats=1 + gated,
                rows_above=0 if gated else None,
            )  # fmt: skip
            conv.mask = like.mask
            layer.first = layer.first or not residual
        shape = (1, SIDE, SIDE)
        return receptive_field(model.feature_maps, shape, pixel)[0].numpy()

    return reads


def test_the_controls_of_the_field(field):
    start = {"layers": 6, "kernel": 3, "network": "simple", "masks": "A puis B"}
    assert values(field) == start | {"row": 6, "column": 6}
    assert field.controls["kernel"].options == (3, 5, 7)
    assert field.controls["network"].options == ("simple", GATED)
    assert field.controls["masks"].options == ("A puis B", "B partout", "A partout")
    for name, bounds in {"layers": (1, 8), "row": (0, 12), "column": (0, 12)}.items():
        assert (field.controls[name].min, field.controls[name].max) == bounds


def test_every_control_changes_the_field_and_not_the_size(field):
    changes = {"layers": 2, "kernel": 5, "network": GATED, "masks": "B partout"}
    changes |= {"row": 9, "column": 2}
    assert changes.keys() == field.controls.keys()
    pictures = [field.picture.value]
    for name, value in changes.items():
        field.reset_button.click()
        field.controls[name].value = value
        pictures.append(field.picture.value)
    assert len(set(pictures)) == 1 + len(changes)
    assert {decode(png).size for png in pictures} == {(980, 393)}


def test_the_blind_spot_goes_away_with_gates(field, words):
    field.set(layers=6)
    assert {"lus : 69 sur 84", "angle mort : 15", "trop loin : 0"} <= set(words)
    assert any("Un angle mort de 15 pixels" in word for word in words)
    words.clear()
    field.set(network=GATED)
    assert {"lus : 84 sur 84", "angle mort : 0", "trop loin : 0"} <= set(words)
    assert "Pas d'angle mort : la sortie lit tous les pixels d'avant." in words


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("layers", [1, 2, 3, 6, 8])
def test_the_field_is_that_of_a_real_pixelcnn(field, measured, layers, kernel, gated):
    for row, column in ((6, 6), (0, 0), (0, 12), (12, 0), (12, 12), (5, 11), (9, 1)):
        network = GATED if gated else "simple"
        field.set(layers=layers, kernel=kernel, network=network, row=row, column=column)
        expected = measured(layers, kernel, gated, (row, column))
        assert (cells(field, figures.COLORS["x"]) == expected).all(), (row, column)
        assert not cells(field, RED).any()


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (3, 3), (6, 3), (2, 5), (4, 7)])
@pytest.mark.parametrize("masks", ["B partout", "A partout"])
def test_the_field_with_wrong_masks(field, measured, words, masks, layers, kernel, gated):
    for row, column in ((6, 6), (0, 0), (12, 12), (5, 11)):
        words.clear()
        field.set(layers=layers, kernel=kernel, network=GATED if gated else "simple")
        field.set(masks=masks, row=row, column=column)
        kinds = {"B partout": "BB", "A partout": "AA"}[masks]
        expected = measured(layers, kernel, gated, (row, column), kinds, residual=False)
        past = before(row, column)
        assert (cells(field, figures.COLORS["x"]) == expected & past).all()
        assert (cells(field, RED) == expected & ~past).all()
        forbidden = expected & ~past
        assert forbidden[row, column] == (masks == "B partout") and forbidden.sum() <= 1
        told = any(word.startswith("Interdit : la sortie lit sa propre valeur") for word in words)
        assert told == (masks == "B partout")
        assert f"interdit, mais lu : {forbidden.sum()}" in words


def test_with_residual_links_the_mask_a_everywhere_would_change_nothing(measured):
    """What the docstring says of the links."""
    for gated in (False, True):
        right = measured(4, 3, gated, (6, 6))
        assert (measured(4, 3, gated, (6, 6), "AA") == right).all()
        assert (measured(4, 3, gated, (6, 6), "AA", residual=False) != right).any()


@pytest.mark.parametrize("network", ["simple", GATED])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("masks", ["A puis B", "B partout", "A partout"])
def test_every_pixel_before_the_output_is_read_blind_or_too_far(
    field, words, network, kernel, masks
):
    """The blind spot: what more layers would not show."""
    for (row, column), layers in itertools.product(((6, 6), (12, 3), (4, 12)), (1, 3, 8)):
        words.clear()
        field.set(network=network, kernel=kernel, masks=masks, row=row, column=column)
        field.set(layers=layers)
        read, far = cells(field, figures.COLORS["x"]), cells(field, "#CFE3F1")
        blind, later = hatched(field), cells(field, "#F2F2F2") | cells(field, RED)
        past = before(row, column)
        assert (read.astype(int) + far + blind + later == 1).all()
        assert (later == ~past).all()
        assert f"lus : {read.sum()} sur {past.sum()}" in words
        assert {f"angle mort : {blind.sum()}", f"trop loin : {far.sum()}"} <= set(words)
        first, others = pixels.MASKS[masks]
        deeper = [
            pixels._pixels_read((first,) + (others,) * n, kernel, network == GATED, (row, column))
            for n in range(layers - 1, layers + 30)
        ]
        assert (blind == past & ~np.any(deeper, 0)).all()


VERDICTS = [
    ({}, "Un angle mort de 15 pixels : même avec plus de couches, ils restent invisibles."),
    (
        {"row": 1, "column": 10},
        "Un angle mort de 1 pixel : même avec plus de couches, il reste invisible.",
    ),
    ({"network": GATED}, "Pas d'angle mort : la sortie lit tous les pixels d'avant."),
    (
        {"network": GATED, "layers": 5, "column": 5},
        "Pas d'angle mort, mais 12 pixels encore trop loin : ajoutez des couches.",
    ),
    (
        {"masks": "B partout"},
        "Interdit : la sortie lit sa propre valeur, celle qu'elle doit deviner.",
    ),
    ({"row": 0, "column": 0}, "C'est le premier pixel : il n'y a rien à lire avant lui."),
    (
        {"masks": "A partout"},
        "Rien d'interdit, mais un angle mort de 35 pixels : sans lien résiduel, chaque masque A "
        "de plus éloigne la sortie de ses voisins.",
    ),
]


def test_the_verdict_is_one_sentence(field, monkeypatch):
    told = []
    verdict = pixels._verdict
    monkeypatch.setattr(pixels, "_verdict", lambda *a: told.append(verdict(*a)[0]) or verdict(*a))
    for settings, text in VERDICTS:
        field.reset_button.click()
        field.set(**settings)
        assert told[-1] == text


def test_the_texts_stay_in_the_picture(field, monkeypatch):
    """Every text, in all the settings, at every place."""
    boxes, write = [], pixels.ImageDraw.ImageDraw.text

    def text(pen, where, what, **how):
        boxes.append(pen.textbbox(where, what, font=how["font"], anchor=how.get("anchor")))
        write(pen, where, what, **how)

    monkeypatch.setattr(pixels.ImageDraw.ImageDraw, "text", text)
    for network, masks, kernel in itertools.product(("simple", GATED), pixels.MASKS, (3, 5, 7)):
        field.set(network=network, masks=masks, kernel=kernel, row=12, column=12, layers=2)
    left, top, right, bottom = np.array(boxes).T
    assert left.min() > SIDE * CELL and right.max() <= 980 and top.min() >= 0
    assert bottom.max() <= 393


@pytest.mark.parametrize(
    ("network", "kernel", "masks", "expected"),
    [
        ("simple", 3, "A puis B", "111100000111110000"),
        ("simple", 3, "B partout", "111110000111110000"),
        ("simple", 3, "A partout", "111100000111100000"),
        ("simple", 5, "A puis B", "1111111111110000000000000" + "1111111111111000000000000"),
        (GATED, 3, "A puis B", "111111" + "100" + "110"),
        (GATED, 5, "B partout", "1" * 15 + "11100" + "11100"),
        (GATED, 3, "A partout", "111111" + "100" + "100"),
    ],
)
def test_the_kernels_are_written_in_ones_and_zeros(field, words, network, kernel, masks, expected):
    words.clear()
    field.set(network=network, kernel=kernel, masks=masks, row=5)
    start = max(number for number, word in enumerate(words) if word == "la sortie")
    assert "".join(word for word in words[start:] if word in ("0", "1")) == expected


@pytest.mark.parametrize("event", [DOWN, DRAG], ids=["click", "drag"])
def test_a_click_on_the_grid_chooses_the_output(field, event):
    click_at = {"dataX": 20, "dataY": 20}
    field._pointer(DOWN | click_at)
    for row, column in ((0, 0), (12, 12), (3, 9), (9, 3)):
        field._pointer(event | {"dataX": CELL * column + 14, "dataY": CELL * row + 16})
        assert (field.controls["row"].value, field.controls["column"].value) == (row, column)
        y, x = np.nonzero(in_color(page_of(field)[:, : SIDE * CELL + 2], FOCUS))
        box = (CELL * column, CELL * (column + 1), CELL * row, CELL * (row + 1))
        assert (x.min(), x.max(), y.min(), y.max()) == pytest.approx(box, abs=1)


def test_a_click_beside_the_grid_changes_nothing(field):
    start = field.picture.value
    for x, y in ((-1, 5), (5, -1), (SIDE * CELL, 5), (5, SIDE * CELL), (700, 100)):
        field._pointer(DOWN | {"dataX": x, "dataY": y})
        assert field.picture.value == start, (x, y)


def test_reset_gives_the_first_field_back(field):
    start, first = field.picture.value, values(field)
    field.set(layers=2, kernel=7, network=GATED, masks="A partout", row=1, column=2)
    assert field.picture.value != start
    field.reset_button.click()
    assert field.picture.value == start and values(field) == first


def test_drawing_does_not_spoil_what_is_remembered(field):
    """The sets are cached: the same settings give the same picture, in any order."""
    start = field.picture.value
    field.set(masks="B partout", network=GATED)
    other = field.picture.value
    for settings, expected in (({"masks": "A puis B", "network": "simple"}, start),
                               ({"masks": "B partout", "network": GATED}, other)):  # fmt: skip
        field.set(**settings)
        assert field.picture.value == expected


# ---- both -------------------------------------------------------------------------------------


def test_the_demos_leave_no_open_figure_nor_the_random_stream(easel, field):
    state = torch.get_rng_state()
    for demo in (easel, field):
        for button in demo.buttons.values():
            button.click()
    easel.set(seed=12)
    assert plt.get_fignums() == [] and torch.equal(torch.get_rng_state(), state)
