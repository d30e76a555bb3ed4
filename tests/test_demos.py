"""The demos without a browser: how one is made, what all promise; then those of 01, 02 and 03a."""

import base64
import itertools

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scene
import torch
from autoregressive_models import build, same_state, seeded, state_of
from demo_cases import (
    CASES,
    MAP,
    MEAN,
    STD,
    WRITERS,
    blots,
    classifier,
    completer,
    cvae,
    ink,
    small_cvae,
    story,
    vae,
    vqvae,
    writers,
)
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from course_utils import CVAE, NADE, VAE, CompletionVAE, PixelCNN, demos, figures
from course_utils.demos import LivePicture, live, to_pil
from course_utils.demos.live import to_png
from course_utils.demos.panels import Chart, Panel
from course_utils.demos.steps import follow
from course_utils.evaluation import measure_attributes

pytestmark = pytest.mark.usefixtures("no_screen")


# ---- pieces -----------------------------------------------------------------------------------


def test_to_pil_enlarges_every_pixel_and_clips():
    page = np.array([[[0.0, 0.5, 1.0], [-1.0, 2.0, 0.2]]])
    image = np.asarray(to_pil(page, zoom=3))
    assert image.shape == (3, 6, 3)
    assert (image[:, :3] == [0, 128, 255]).all() and (image[:, 3:] == [0, 255, 51]).all()


class Sketch:
    """A picture and its panels, to be read as those of a demo are."""

    def __init__(self, width=300, height=200, **panels):
        self.image, self.panels = Image.new("RGB", (width, height), "white"), panels

    @property
    def picture(self):
        return widgets.Image(value=to_png(self.image))


def test_a_panel_knows_its_cells_and_which_one_is_at_a_point():
    panel = Panel(5, 3, 20, left=7, top=40)
    assert (panel.right, panel.bottom) == (107, 100)
    assert panel.box(0) == (7, 40, 27, 60) and panel.box(8) == (67, 60, 87, 80)
    for cell in scene.cells(panel):
        left, top, right, bottom = panel.box(cell)
        corners = [(left, top), (right - 1, top), (left, bottom - 1), (right - 0.5, bottom - 0.5)]
        assert {panel.cell_at(x, y) for x, y in corners} == {cell}
    outside = [(6, 50), (107, 50), (50, 39), (50, 100), (-9, -9)]
    assert {panel.cell_at(x, y) for x, y in outside} == {None}


def test_a_panel_shows_an_image_and_its_marks():
    """Enlarged to fill it; the title above, the frame around, cells outlined or folded."""
    panel = Panel(3, 2, 40, "titre", "#CC0000", left=20, top=50)
    sketch = Sketch(panel=panel)
    image = torch.rand(3, 4, 6, generator=seeded())
    page = image.permute(1, 2, 0).numpy()
    assert scene.written(lambda: panel.show(sketch.image, page, "#0000CC", 3)) == ["titre"]
    assert scene.shows(sketch, "panel", image)
    red = scene.in_color(scene.page_of(sketch), "#CC0000").nonzero()
    assert red[0].max() < 50 and red[1].min() >= 20
    blue = scene.in_color(scene.page_of(sketch), "#0000CC")
    assert blue[47:133, 17:143].sum() == blue.sum() == 86 * 126 - 80 * 120
    panel.fold(sketch.image, 1)
    panel.frame(sketch.image, 4)
    panel.frame(sketch.image, 2, "#00CC00", 1)
    assert scene.folded(sketch, "panel") == [1] and scene.framed(sketch, "panel") == [4]
    assert scene.framed(sketch, "panel", "#00CC00", 0) == [2]
    assert scene.written(lambda: panel.write_in(sketch.image, 0, "7", "#CCCC00")) == ["7"]
    assert scene.in_color(scene.page_of(sketch)[55, 25], "#CCCC00")


def test_a_chart_rises_in_proportion_and_tells_the_bar_drawn():
    chart = Chart(4, 40, 180, 240, 120)
    sketch = Sketch(law=chart)
    said = scene.written(
        lambda: chart.bars(sketch.image, [0.5, 0, 0.25, 1.0], 2, ("#CC0000", "#007700"))
    )
    assert said == ["0", "1", "2", "3", "p(2) = 0,250"]
    assert scene.heights(sketch, "law", "#CC0000") == [0.5, 0, 0, 1]
    assert scene.heights(sketch, "law", "#007700") == [0, 0, 0.25, 0]
    for number, (x, y) in enumerate([(40, 180), (159, 60), (160, 90), (279, 179)]):
        assert chart.bar_at(x, y) == number
    assert {chart.bar_at(x, y) for x, y in [(39, 99), (280, 99), (99, 181), (99, 59)]} == {None}
    assert scene.written(lambda: chart.axis(sketch.image)) == ["0", "0,5", "1"]
    assert scene.written(lambda: Chart(2, 0, 90, 60, 60).axis(sketch.image)) == [], (
        "there is no room"
    )


@pytest.mark.parametrize("count, every", [(12, 1), (13, 2), (240, 20)])
def test_labels_that_would_touch_are_left_out(count, every):
    chart, sketch = Chart(count, 30, 180, 240, 120), Sketch()
    law = [1 / count] * count
    *labels, note = scene.written(
        lambda: chart.bars(sketch.image, law, 0, ("black", scene.FOCUS), note="!")
    )
    assert labels == [str(k) for k in range(0, count, every)] and note == "!"


@pytest.mark.parametrize("drawn, others", [(0, 0.9), (2, 0.9), (3, 0.9), (2, 0.1)])
def test_the_note_stands_above_its_bar_and_those_beside_it(drawn, others):
    """And within the chart; a text in the colour of the focus is darker."""
    chart, sketch, law = Chart(4, 30, 180, 120, 120), Sketch(), [others] * 4
    law[drawn] = 0.2
    chart.bars(sketch.image, law, drawn, ("#CC0000", scene.FOCUS), labels=[""] * 4)
    rows, columns = scene.in_color(scene.page_of(sketch), "#7A5B00").nonzero()
    top = 180 - 120 * max(law)
    assert top - 20 < rows.min() and rows.max() < top
    assert 30 <= columns.min() and columns.max() <= 150


# ---- LivePicture ------------------------------------------------------------------------------


class Plain:
    """A demo of two sliders that paints one colour, and notes its drawings."""

    def __init__(self, **options):
        self.drawn = []
        self.controls = {
            "red": widgets.IntSlider(10, 0, 255),
            "blue": widgets.IntSlider(20, 0, 255),
        }
        self.demo = LivePicture(self.draw, self.controls, caption="Essayez !", **options)

    def draw(self, red, blue):
        self.drawn.append((red, blue))
        return Image.new("RGB", (30, 20), (red, 0, blue))

    def shown(self):
        image = scene.decode(self.demo.picture.value)
        assert image.size == (30, 20)
        return image.getpixel((0, 0))


def test_the_picture_follows_its_controls_at_a_fixed_size():
    plain = Plain(rows=[["blue"], ["red"]])
    assert plain.shown() == (10, 0, 20)
    plain.controls["red"].value = 200
    assert plain.shown() == (200, 0, 20)
    plain.controls["blue"].value = 100
    assert plain.shown() == (200, 0, 100)
    layout = plain.demo.picture.layout
    assert (layout.width, layout.height, layout.flex) == ("30px", "20px", "0 0 auto")


@pytest.mark.parametrize("size, flex", [((30, 20), "0 1 30px"), ((1000, 200), "0 1 220px")])
def test_on_a_projector_and_nowhere_else_a_demo_is_larger(monkeypatch, size, flex):
    """One half larger, or as wide as the screen; lower, in proportion, if there is less room."""
    assert "zoom" not in Plain().demo.children[0].value and Plain().demo.layout.max_height is None
    monkeypatch.setattr(live.figures, "PROJECTION", True)
    demo = LivePicture(lambda: Image.new("RGB", size), {}, caption="")
    layout = demo.picture.layout
    assert (layout.width, layout.height, layout.flex) == ("auto", "auto", flex)
    assert "zoom" in demo.children[0].value and "course-demo" in demo._dom_classes
    assert demo.layout.max_height == "590px"


def alive(*parts):
    return [part for part in parts if part.comm is not None]


def test_a_closed_demo_keeps_none_of_its_parts():
    plain = Plain(
        on_pointer=lambda x, y, pressed: {}, buttons={"again": ("Encore", dict)}, play="red"
    )
    demo = plain.demo
    parts = [demo, demo.picture, demo.reset_button, demo.play, demo._events]
    parts += [*plain.controls.values(), *demo.buttons.values(), *demo.children]
    parts += [part.layout for part in parts if hasattr(part, "layout")]
    parts += [control.style for control in plain.controls.values()]
    assert len(alive(*parts)) == len(parts)
    demo.close()
    assert not alive(*parts)
    drawn = len(plain.drawn)
    plain.controls["red"].value = 99
    assert len(plain.drawn) == drawn, "nothing is drawn any more"


class Shell:
    """A notebook's shell, as far as a demo asks it which cell is running."""

    def __init__(self):
        self.run("a", 1)

    def run(self, cell, execution):
        self.parent = {"metadata": {"cellId": cell}, "header": {"msg_id": execution}}

    def get_parent(self):
        return self.parent


def test_running_a_cell_again_closes_the_demos_of_its_previous_run(monkeypatch):
    shell = Shell()
    monkeypatch.setattr(live, "get_ipython", lambda: shell)
    monkeypatch.setattr(live, "_demos", {})
    first, second = Plain().demo, Plain().demo  # two in one cell
    shell.run("b", 2)
    other = Plain().demo
    assert len(alive(first, second, other)) == 3
    shell.run("a", 3)
    third = Plain().demo
    assert alive(first, second, other, third) == [other, third]
    shell.run("a", 4)
    fourth = Plain().demo
    assert alive(other, third, fourth) == [other, fourth]


def test_set_redraws_once_and_reset_restores_the_start():
    plain = Plain()
    plain.demo.set(red=30, blue=40)
    assert plain.drawn == [(10, 20), (30, 40)] and plain.shown() == (30, 0, 40)
    plain.demo.reset_button.click()
    assert plain.drawn[2:] == [(10, 20)] and plain.shown() == (10, 0, 20)
    assert scene.values(plain.demo) == {"red": 10, "blue": 20}


def test_check_moves_refuses_a_move_that_changes_nothing_and_resets_the_demo():
    plain = Plain()
    live.check_moves(plain.demo, {"red": 30}, {"blue": 40, "red": 50})
    assert plain.shown() == (10, 0, 20)
    with pytest.raises(AssertionError, match="red"):
        live.check_moves(plain.demo, {"red": 10})


def test_a_control_still_works_after_a_failed_set():
    plain = Plain()
    with pytest.raises(Exception, match="abc"):
        plain.demo.set(red="abc")
    plain.controls["red"].value = 77
    assert plain.shown() == (77, 0, 20)


EVENTS = {
    "press": scene.DOWN, "drag": scene.DRAG, "hover": scene.HOVER,
    "untold": {"type": "mousemove"},  # of browsers that do not tell the buttons
}  # fmt: skip


@pytest.mark.parametrize(
    ("events", "counted"),
    [
        ("hover untold", []),
        ("drag drag press", [2]),  # begun elsewhere
        ("press drag drag", [0, 1, 2]),
        ("press drag hover drag drag", [0, 1]),  # released, then pressed elsewhere
        ("press untold drag", [0]),
        ("press hover press drag", [0, 2, 3]),
        ("press press drag", [0, 1, 2]),  # released outside of the picture
    ],
)
def test_a_drag_counts_from_its_click_to_its_release(events, counted):
    plain = Plain(on_pointer=lambda x, y, pressed: {"red": x, "blue": y})
    for i, event in enumerate(events.split()):
        scene.point(plain.demo, i, 100 + i, EVENTS[event])
    assert plain.drawn == [(10, 20), *((i, 100 + i) for i in counted)]


def test_a_button_asks_its_own_function_at_each_click_and_redraws_once():
    news = iter([{"red": 1, "blue": 2}, {"blue": 3}])
    buttons = {
        "next": ("Suivant", lambda: next(news)),
        "black": ("Noir", lambda: {"red": 0, "blue": 0}),
    }
    plain = Plain(buttons=buttons)
    assert plain.drawn == [(10, 20)]
    for name in ("next", "next", "black"):
        plain.demo.buttons[name].click()
    assert plain.drawn == [(10, 20), (1, 2), (1, 3), (0, 0)]


@pytest.mark.parametrize(
    ("rows", "play"),
    [(None, None), ([["blue", "red"]], "red"), ([["blue"], ["red"], []], "red")],
    ids=str,
)
def test_rows_say_which_controls_stand_on_each_line(rows, play):
    """Under the caption, above the picture; the play button before its slider, others last."""
    given = rows and [list(names) for names in rows]
    plain = Plain(rows=rows, buttons={"a": ("A", dict), "b": ("B", dict)}, play=play)
    caption, *lines, picture, _ = plain.demo.children
    expected = [[plain.controls[name] for name in names] for names in rows or [["red", "blue"]]]
    expected[-1] += [plain.demo.buttons["a"], plain.demo.buttons["b"], plain.demo.reset_button]
    if play:
        line = next(line for line in expected if plain.controls[play] in line)
        line.insert(line.index(plain.controls[play]), plain.demo.play)
    assert "Essayez !" in caption.value and picture is plain.demo.picture
    assert [list(line.children) for line in lines] == expected
    assert rows == given, "the caller's lists are left alone"
    assert [button.description for button in plain.demo.buttons.values()] == ["A", "B"]


def test_a_list_in_a_row_is_a_column_and_buttons_may_be_placed_too():
    buttons = {"a": ("A", dict), "b": ("B", dict)}
    plain = Plain(rows=[["red", ["blue", "reset", "b"]]], buttons=buttons)
    _, line, _, _ = plain.demo.children
    red, column, last = line.children
    assert (red, last) == (plain.controls["red"], plain.demo.buttons["a"])
    expected = plain.controls["blue"], plain.demo.reset_button, plain.demo.buttons["b"]
    assert isinstance(column, widgets.VBox) and column.children == expected


def test_a_play_button_moves_its_slider_and_goes_on_from_where_a_hand_puts_it():
    plain = Plain(play="blue")
    play, slider = plain.demo.play, plain.controls["blue"]
    assert play.value == 20 and not play.playing and not play.show_repeat
    play.value = 21  # a tick
    assert slider.value == 21 and plain.drawn[1:] == [(10, 21)]
    slider.value = 90
    assert play.value == 90 and plain.drawn[2:] == [(10, 90)]
    plain.demo.reset_button.click()
    assert play.value == slider.value == 20 and plain.drawn[3:] == [(10, 20)]


@pytest.mark.parametrize("pace", [1, 3])
@pytest.mark.parametrize("start", [0, 1, 2, 253, 255])
def test_playing_reaches_the_end_of_the_slider_from_anywhere(pace, start):
    """As the button does in the browser: one step more, unless it would pass its maximum."""
    plain = Plain(play="blue", pace=pace)
    play, slider = plain.demo.play, plain.controls["blue"]
    assert (play.min, play.step) == (0, pace)
    slider.value = start
    for _ in range(256):
        if play.value + play.step > play.max:
            break
        play.value += play.step
    assert slider.value == 255


# ---- what all demos promise -------------------------------------------------------------------


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def positions(control, edits):
    """Values that try a control from end to end; its own is not the last one."""
    if hasattr(control, "options"):
        found = [option[1] if isinstance(option, tuple) else option for option in control.options]
    elif isinstance(control, widgets.IntRangeSlider):
        low, high = control.min, control.max
        found = [(low, low), (high, high), (low, (low + high) // 2)]
    elif hasattr(control, "min"):
        found = [control.min, control.max]
    else:
        found = ["#00ff00" if isinstance(control, widgets.ColorPicker) else edits]
    return sorted(found, key=lambda value: value != control.value)


def stir(demo, case):
    """Move everything; all that is written can be read, and what is more than a label, heard."""

    def move():
        for control in demo.controls.values():
            control.value = positions(control, case.edits)[-1]
        for button in demo.buttons.values():
            button.click()

    texts = [text.replace("\n", " ") for text in scene.written(move)]
    assert all(text in texts for text in demo.spoken.value.split("\u00a0; ") if text)


def test_a_demo_has_its_controls_each_laid_out_once_and_its_words(case):
    demo = case.make()
    assert set(demo.controls) == set(case.controls.split())
    assert tuple(button.description for button in demo.buttons.values()) == case.buttons
    if "edits" in demo.controls:
        assert demo.controls["edits"].disabled, "it is read, not typed"
    laid_out = [child for row in demo.children[1:-2] for child in row.children]
    for column in [child for child in laid_out if isinstance(child, widgets.VBox)]:
        laid_out[laid_out.index(column) : laid_out.index(column) + 1] = column.children
    expected = [*demo.controls.values(), *demo.buttons.values(), demo.reset_button]
    expected += [demo.play] if hasattr(demo, "play") else []
    assert len(laid_out) == len(expected) and set(map(id, laid_out)) == set(map(id, expected))

    data, metadata = demo._repr_mimebundle_()  # on GitHub there is no kernel: a still picture
    assert base64.b64decode(data["image/png"]) == demo.picture.value
    assert data["text/plain"] == f"[démo] {demo._caption}" and demo._caption.endswith(".")
    assert demo._caption in demo.children[0].value
    assert "application/vnd.jupyter.widget-view+json" in data
    told = demo.spoken.value or demo._caption
    assert told in metadata["image/png"]["alt"], "and what it shows, for who cannot see it"


def test_every_control_changes_the_picture_and_none_its_size(case):
    """Each alone, from the start; then at its ends, one after the other without coming back."""
    demo = case.make()
    pictures = {bytes(demo.picture.value)}
    for name, control in demo.controls.items():
        if name != "other":
            demo.reset_button.click()
            found = set()
            for value in positions(control, case.edits):
                control.value = value
                found.add(bytes(demo.picture.value))
            assert found - pictures, name
            pictures |= found
    if "other" in demo.controls:  # it is seen with the other brush only
        demo.reset_button.click()
        live.check_moves(demo, {"brush": "coller l'autre image"}, {"other": 5})
    for control in demo.controls.values():
        for value in positions(control, case.edits):
            control.value = value
            pictures.add(bytes(demo.picture.value))
    assert len({scene.decode(png).size for png in pictures}) == 1


def test_a_demo_does_the_same_thing_twice_and_touches_nothing_else(case):
    models = case.models()
    states = [(state_of(model), [m.training for m in model.modules()]) for model in models]
    demo, twin = case.make(), case.make()
    start, first = demo.picture.value, scene.values(demo)
    stir(demo, case)
    torch.manual_seed(123)
    stream = torch.get_rng_state()
    stir(twin, case)
    assert demo.picture.value == twin.picture.value != start and scene.values(demo) == scene.values(
        twin
    )
    assert torch.equal(torch.get_rng_state(), stream)
    assert plt.get_fignums() == []
    for model, (state, training) in zip(models, states, strict=True):
        assert same_state(state_of(model), state)
        assert [module.training for module in model.modules()] == training
    demo.reset_button.click()
    assert demo.picture.value == start and scene.values(demo) == first


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.clicks])
def test_a_click_chooses_what_stands_there_and_nothing_elsewhere(name):
    case = CASES[name]
    demo = case.make()
    start, first = demo.picture.value, scene.values(demo)
    for place, expected in case.clicks.items():
        demo.reset_button.click()
        (scene.click if isinstance(place[0], str) else scene.point)(demo, *place)
        moved = scene.values(demo)
        if expected and name.startswith("painting"):
            assert moved["edits"].startswith(f"{moved['step']}=")
            expected = expected | {"edits": moved["edits"]}
        assert moved == first | expected
        assert (demo.picture.value == start) == (not expected), place


@pytest.mark.parametrize("name", ["completion", "sampling", "painting, grey", "prior"])
def test_another_draw_is_another_seed_at_the_same_settings(name):
    """The same ones in a new demo; what was changed by hand is forgotten."""
    demo, twin = CASES[name].make(), CASES[name].make()
    if "step" in demo.controls:
        demo.set(step=9, temperature=1.5)
    pictures = {demo.picture.value}
    for number in range(1, 4):
        if "edits" in demo.controls:
            demo.buttons["change"].click()
            assert demo.controls["edits"].value
        before = scene.values(demo) | ({"edits": ""} if "edits" in demo.controls else {})
        for each in (demo, twin):
            each.buttons["another"].click()
        assert scene.values(demo) == before | {"seed": twin.controls["seed"].value}
        pictures.add(demo.picture.value)
        assert len(pictures) == 1 + number


@pytest.mark.parametrize(
    ("name", "kind"), [("sampling", NADE), ("painting, grey", PixelCNN), ("prior", PixelCNN)]
)
def test_moving_along_an_image_does_not_draw_it_again(monkeypatch, name, kind):
    demo, sample, samples = CASES[name].make(), kind.sample, []
    monkeypatch.setattr(kind, "sample", lambda *a, **o: samples.append(1) or sample(*a, **o))
    for seed, step in ((1, 3), (1, 4), (1, 12), (2, 12), (1, 5)):
        demo.set(seed=seed, step=step)
    assert len(samples) == 2
    if "edits" in demo.controls:
        demo.buttons["change"].click()
        demo.set(step=12)
        assert len(samples) == 3


def pixel_cnn(shape=(1, 4, 5), **options):
    return PixelCNN(shape, features=4, layers=1, **options)


def orders_to(model):
    return demos.condition_explorer(model, None, mean=MEAN, std=STD)


def completions_by(model, factor=1):
    return demos.completion_explorer(model, factor * ink(), classifier())


def sampling(*models):
    return demos.sampling_explorer(dict(enumerate(models)))


def painting(*models):
    return demos.painting_explorer(dict(zip("ab", models)))


def of_codes(*models):
    return demos.prior_explorer(vqvae(), dict(zip("ab", models)), blots())


ORDERS = r"the demo needs CVAE\(\(1, S, S\), num_classes=K, condition_shape=\(2,\)\)"
COMPLETIONS = r"the demo needs a CompletionVAE\(\(1, H, W\)\)"
BINARY = r"models of binary images \(1, H, W\), without classes"
SAME = r"models of the same images, got \(shape, levels, num_classes\) = "
FOUR = (1, 4, 4)
REFUSED = [
    (
        "needs 2 latent dimensions, got z_dim=3",
        lambda: demos.latent_explorer(VAE((1, 8, 8), z_dim=3), torch.zeros(5, 3), []),
    ),
    (ORDERS, lambda: orders_to(small_cvae(num_classes=None))),
    (ORDERS, lambda: orders_to(small_cvae(condition_shape=(3,)))),
    (ORDERS, lambda: orders_to(small_cvae((3, 14, 14)))),
    (ORDERS, lambda: orders_to(small_cvae((1, 14, 12)))),
    (ORDERS, lambda: orders_to(vae())),
    (COMPLETIONS, lambda: completions_by(CompletionVAE((3, 14, 12)))),
    (COMPLETIONS, lambda: completions_by(CVAE((1, 14, 12), num_classes=10))),
    ("load the data set with levels=2", lambda: completions_by(completer(), factor=100)),
    (SAME + "none", lambda: sampling()),
    (SAME, lambda: sampling(build("FVSBN", shape=FOUR), build("FVSBN", shape=(1, 4, 3)))),
    (BINARY, lambda: sampling(build("FVSBN", shape=(3, 2, 2)))),
    (BINARY, lambda: sampling(build("FVSBN", 3, shape=FOUR))),
    (BINARY, lambda: sampling(pixel_cnn(levels=3))),
    (SAME + "none", lambda: painting()),
    ("'b': expected a PixelModel .*, got NADE", lambda: painting(pixel_cnn(), build("NADE, lean"))),
    (SAME, lambda: painting(pixel_cnn(), pixel_cnn((1, 5, 4)))),
    (SAME, lambda: painting(pixel_cnn(), pixel_cnn(levels=3))),
    (SAME, lambda: painting(pixel_cnn(), pixel_cnn(num_classes=3))),
    ("needs a VQVAE, got VAE", lambda: demos.codebook_browser(vae(), blots())),
    (r"images \(B, 1, 12, 16\)", lambda: demos.codebook_browser(vqvae(), blots()[0])),
    ("2 titles for 3 images", lambda: demos.code_editor(vqvae(), blots()[:3], ["a", "b"])),
    (SAME + "none", lambda: of_codes()),
    (r"priors of 7 codes in maps \(1, 4, 3\)", lambda: of_codes(pixel_cnn((1, 4, 3), levels=7))),
    (r"of 5 codes .* the VQVAE has 7 in \(1, 3", lambda: of_codes(pixel_cnn((1, *MAP), levels=5))),
    (
        r"stories of \[3, 5\] moments: expected as many moments in each",
        lambda: demos.commitment_explorer({"a": story(1.0), "b": story(1.0, moments=3)}),
    ),
]


@pytest.mark.parametrize(("words", "call"), REFUSED)
def test_what_a_demo_cannot_show_is_refused_with_what_it_needs(words, call):
    with pytest.raises(ValueError, match=words):
        call()


# ---- latent_explorer --------------------------------------------------------------------------


def centre_of(color, explorer):
    """Middle, in pixels, of what is drawn in a colour on the map, under its title."""
    at = np.abs(scene.page_of(explorer)[40:440, :440] / 255 - to_rgb(color)).max(2) < 0.02
    y, x = np.nonzero(at)
    return (x.min() + x.max()) / 2, (y.min() + y.max()) / 2 + 40


@pytest.mark.parametrize("z", [(2.0, -1.0), (-3.0, 2.5)])
def test_the_map_of_the_codes_the_point_and_the_mouse_have_the_same_axes(z):
    """Matplotlib draws the codes, the demo draws the point, and inverts the clicks."""
    code = torch.tensor([z], requires_grad=True)  # as an encoder gives them
    explorer = demos.latent_explorer(vae(), code, torch.tensor([0]))
    place = centre_of(figures.CLASS_COLORS[0], explorer)
    scene.point(explorer, *place)
    assert list(scene.values(explorer).values()) == pytest.approx(z, abs=0.06)
    bare = demos.latent_explorer(vae(), code[:0], torch.zeros(0))
    bare.set(**scene.values(explorer))
    assert centre_of(figures.COLORS["z"], bare) == pytest.approx(place, abs=1.5)


class Spy:
    """Notes what a method receives and returns."""

    def __init__(self, monkeypatch, owner, name):
        self.received, self.returned, self.method = [], [], getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args, **options):
        self.received.append(args)
        self.returned.append(self.method(*args, **options))
        return self.returned[-1]


def test_the_digit_is_decoded_at_the_point_and_its_neighbours_around(monkeypatch):
    explorer, decoded = CASES["latent"].make(), Spy(monkeypatch, vae(), "decode")
    explorer.set(z1=0.8, z2=-1.2)
    (z,), image = decoded.received[0], decoded.returned[0][0]
    around = [(0.8 + dx, -1.2 + dy) for dy in (0.4, 0, -0.4) for dx in (-0.4, 0, 0.4)]
    assert torch.allclose(z, torch.tensor([(0.8, -1.2), *around]))
    assert scene.shows(explorer, "digit", image)
    near = figures.image_grid(decoded.returned[0][1:], columns=3, gap=1)
    assert scene.same(scene.shown(explorer, "near"), 255 * near)


# ---- condition_explorer -----------------------------------------------------------------------


@pytest.fixture
def orders():
    return CASES["condition"].make()


@pytest.fixture
def decoded(monkeypatch):
    """What the CVAE decodes, from now on."""
    return Spy(monkeypatch, cvae(), "decode")


@pytest.mark.parametrize(
    ("settings", "classes", "attributes"),
    [
        ({"y3": 0.2, "y8": 0.6, "slant": 18.0, "thickness": 1.8}, {3: 0.25, 8: 0.75}, (1, -0.5)),
        ({"y3": 0.05, "slant": -6.0, "thickness": 2.8}, {3: 1.0}, (-2, 2)),
        ({"y3": 0.0}, dict.fromkeys(range(10), 0.1), (0, 0)),  # no class: all of them
    ],
    ids=str,
)
def test_the_digit_answers_the_order(orders, decoded, settings, classes, attributes):
    """Weights of sum one, attributes in standard units; what is shown is what is measured."""
    said = scene.texts(orders, z1=0.5, z3=-2.0, **settings)
    ((z, y),) = decoded.received
    assert z.shape == (9, 3) and z[0].tolist() == [0.5, 0.0, -2.0]
    expected = [classes.get(k, 0) for k in range(10)]
    assert y.shape == (1, 12) and y[0].tolist() == pytest.approx([*expected, *attributes], abs=1e-5)
    image = decoded.returned[0][:1]
    assert scene.shows(orders, "digit", image[0])
    slant, thickness = measure_attributes((image > 0.5).float())[0].tolist()
    measured = f"mesuré : {slant:+.0f}°, {scene.french(thickness, 1)} px".replace("-", "−")
    assert {measured, "demandé", "lu"} <= set(said)
    chart, page = orders.panels["classes"], scene.page_of(orders)
    for x, color, shares in (
        (4, "y", y[0, :10]),
        (13, "truth", classifier()(image).softmax(1)[0]),
    ):
        for k, share in enumerate(shares.tolist()):
            bar = page[: chart.floor, round(chart.left + chart.slot * k) + x]
            rise = scene.in_color(bar, figures.COLORS[color]).sum()
            assert rise == pytest.approx(chart.height * share, abs=2)


def test_one_order_for_nine_styles_of_which_eight_stay(orders, decoded):
    orders.set(z1=0.5, z3=-2.0)
    orders.set(y1=1.0, slant=0.0)
    (z, _), (again, _) = decoded.received
    assert torch.equal(z, again) and len(torch.unique(z[1:], dim=0)) == 8


def test_another_z_keeps_the_order(orders, decoded):
    orders.set(y8=0.5, slant=15.0)
    asked, styles = decoded.received[0][1], set()
    for _ in range(30):
        before = scene.values(orders)
        orders.buttons["another"].click()
        after = scene.values(orders)
        assert {name for name in after if after[name] != before[name]} == {"z1", "z2", "z3"}
        z, y = decoded.received[-1]
        style = [after[name] for name in ("z1", "z2", "z3")]
        assert max(map(abs, style)) <= 3 and z[0].tolist() == pytest.approx(style)
        assert torch.equal(y, asked)
        styles.add(tuple(style))
    assert len(styles) == 30


@pytest.mark.parametrize(
    "options", [{"num_classes": 3, "z_dim": 11}, {"prior": "learned"}], ids=str
)
def test_orders_to_other_models_in_units_given_as_a_list(options):
    model = small_cvae(**options)
    units = {"mean": MEAN.tolist(), "std": STD.tolist()}
    demo = demos.condition_explorer(model, classifier(), **units)
    assert len(demo.controls) == model.num_classes + 2 + model.z_dim
    names = [demo.controls[f"z{i + 1}"].description for i in range(model.z_dim)]
    assert names == "z₁ z₂ z₃ z₄ z₅ z₆ z₇ z₈ z₉ z₁₀ z₁₁".split()[: model.z_dim]
    live.check_moves(demo, {"y1": 0.5, "slant": 20.0})


# ---- completion_explorer ----------------------------------------------------------------------


@pytest.fixture
def painter():
    return CASES["completion"].make()


@pytest.fixture
def completed(monkeypatch):
    """What the CompletionVAE decodes, from now on."""
    return Spy(monkeypatch, completer(), "decode")


def pointer(demo, row, column, event):
    """The mouse in the middle of a pixel of the image, perhaps outside of it."""
    x, y = demo.panels["image"].corner(row + 0.5, column + 0.5)
    scene.point(demo, x, y, event)


def rectangle(demo):
    return demo.controls["hidden_rows"].value, demo.controls["hidden_columns"].value


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ((0, 14), (6, 12)),
        ((13, 14), (0, 1)),  # one pixel
        ((5, 5), (2, 8)),  # nothing
        ((0, 14), (0, 12)),  # everything
    ],
    ids=str,
)
def test_the_model_sees_what_is_not_hidden_and_leaves_it(painter, completed, rows, columns):
    said = scene.texts(painter, number=3, hidden_rows=rows, hidden_columns=columns)
    hidden = torch.zeros(14, 12, dtype=torch.bool)
    hidden[slice(*rows), slice(*columns)] = True
    ((_, y),), (completions,) = completed.received, completed.returned
    image = ink()[3].float()
    intensity, mask = y[0]
    assert len(y) == 1 and torch.equal(mask, (~hidden).float())
    assert torch.equal(intensity, torch.where(hidden, 0.0, image[0]))
    assert completions.shape == (18, 1, 14, 12)
    assert (completions == image)[:, :, ~hidden].all()
    if hidden.any():
        spread = completions[:, :, hidden].std(0)
        assert spread.mean() > 0.01, "eighteen completions, not eighteen copies"
    grid = figures.image_grid(completions, columns=6)
    assert scene.same(scene.shown(painter, "completions"), 255 * grid)
    read = classifier().read(completions)[0].tolist()
    (line,) = (text for text in said if text.startswith("le classifieur lit : "))
    counts = [pair.split(" ×") for pair in line.removeprefix("le classifieur lit : ").split(", ")]
    assert {int(d): int(n) for d, n in counts} == {d: read.count(d) for d in set(read)}


def test_the_codes_follow_the_prior_of_the_model(painter, completed):
    """Eighteen draws at many seeds: their mean and deviation are those of p(z|c)."""
    for seed in range(60):
        painter.controls["seed"].value = seed
    z = torch.cat([z for z, _ in completed.received])
    assert len(torch.unique(z, dim=0)) == len(z) >= 59 * 18
    with torch.no_grad():
        mu, logvar = completer().prior(1, completed.received[0][1])
    sigma = torch.exp(0.5 * logvar[0])
    assert ((z.mean(0) - mu[0]).abs() < 5 * sigma / len(z) ** 0.5).all()
    assert z.std(0).tolist() == pytest.approx(sigma.tolist(), rel=0.1)


@pytest.mark.parametrize(
    ("start", "ends", "expected"),
    [
        ((3, 2), [(13, 11), (9, 7)], ((3, 10), (2, 8))),  # through other places
        ((9, 7), [(3, 2)], ((3, 10), (2, 8))),
        ((3, 7), [(9, 2)], ((3, 10), (2, 8))),
        ((9, 2), [(3, 7)], ((3, 10), (2, 8))),
        ((12, 5), [], ((12, 13), (5, 6))),
        ((5, 6), [(40, 30)], ((5, 14), (6, 12))),
        ((5, 6), [(-1, 30)], ((0, 6), (6, 12))),
        ((5, 6), [(40, -1)], ((5, 14), (0, 7))),
        ((5, 6), [(5, 30)], ((5, 6), (6, 12))),
        ((-1, 4), [(5, 6), (8, 9)], ((0, 14), (6, 12))),  # begun outside of the image: ignored
        ((4, 12), [(5, 6), (8, 9)], ((0, 14), (6, 12))),
    ],
    ids=str,
)
def test_a_drag_hides_the_rectangle_between_its_ends(painter, start, ends, expected):
    """Within the image; the next drag begins another rectangle."""
    pointer(painter, *start, scene.DOWN)
    for end in ends:
        pointer(painter, *end, scene.DRAG)
    assert rectangle(painter) == expected
    pointer(painter, 8, 9, scene.DOWN)
    assert rectangle(painter) == ((8, 9), (9, 10))


def test_what_is_hidden_stands_under_the_mouse():
    """On a white image, only the hidden rectangle is tinted."""
    painter = demos.completion_explorer(completer(), 0 * ink()[:1], classifier())
    pointer(painter, 9, 7, scene.DOWN)
    pointer(painter, 4, 3, scene.DRAG)
    page, hidden = scene.shown(painter, "image"), np.zeros((14, 12), dtype=bool)
    hidden[4:10, 3:8] = True
    assert ((page[..., 1] - page[..., 0] > 5) == hidden).all()


def test_buttons_of_the_completions(painter):
    pictures = set()
    for name, expected in {
        "hide_right": ((0, 14), (6, 12)),
        "hide_left": ((0, 14), (0, 6)),
        "hide_bottom": ((7, 14), (0, 12)),
    }.items():
        pointer(painter, 3, 2, scene.DOWN)
        painter.buttons[name].click()
        assert rectangle(painter) == expected
        pictures.add(painter.picture.value)
    assert len(pictures) == 3
    for seed, following in ((0, 1), (41, 42), (99, 0)):
        painter.set(seed=seed)
        painter.buttons["another"].click()
        assert painter.controls["seed"].value == following


def test_completions_of_grey_levels():
    torch.manual_seed(0)
    model = CompletionVAE((1, 8, 8), levels=5, likelihood="categorical", hidden=(8,))
    greys = torch.randint(5, (2, 1, 8, 8)).to(torch.uint8)
    live.check_moves(demos.completion_explorer(model, greys, classifier()), {"number": 1})


# ---- sampling_explorer ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.0, 2.0])
def test_the_steps_of_an_image_are_the_models_own(kind, temperature):
    """Its values in the order of the visit, the law of each, what they cost."""
    model = writers()[kind]
    steps = follow(model, None, temperature, 4)
    x = model.sample(1, generator=seeded(4), temperature=temperature)
    order = [place for place, _, _ in steps]
    assert sorted(order) == list(range(30)) and 0 < x.sum() < 30
    assert [value for _, value, _ in steps] == x.flatten()[order].tolist()
    ordering = {"ordering": torch.tensor(order)} if hasattr(model, "orderings") else {}
    with torch.no_grad():
        logits = model.logits(x, **ordering).flatten()[order]
    p = torch.sigmoid(logits / temperature) if temperature else (logits > 0).float()
    assert np.allclose([law for _, _, law in steps], torch.stack([1 - p, p], 1), atol=1e-5)
    for step in steps:
        assert step.nats == pytest.approx(-np.log(step.law[step.value]))


@pytest.mark.parametrize(
    ("kind", "step", "temperature", "seed"),
    [
        *((kind, 30, 1.0, number) for number, kind in enumerate(WRITERS[:4])),
        (WRITERS[4], 30, 0.4, 9999),
        *(("MADE, 2 layers", step, 1.0, 2) for step in (0, 1, 2, 29)),
    ],
)
def test_the_sampler_shows_and_bills_the_models_own_draw(kind, step, temperature, seed):
    sampler, model = CASES["sampling"].make(), writers()[kind]
    said = scene.texts(sampler, model=kind, step=step, temperature=temperature, seed=seed)
    steps = follow(model, None, temperature, seed)[:step]
    order = [place for place, _, _ in steps]
    for name, shares, color in (
        ("image", [value for _, value, _ in steps], "black"),
        ("chances", [law[1] for _, _, law in steps], figures.COLORS["x"]),
    ):
        expected = np.full((30, 3), 0.93 * 255)
        expected[order] = 255 * (1 - np.reshape(shares, (step, 1)) * (1 - np.array(to_rgb(color))))
        assert scene.same(scene.shown(sampler, name), expected.reshape(5, 6, 3))
        assert scene.framed(sampler, name) == order[-1:]
    if not step:
        assert "aucun pixel tiré" in said and not any("nat" in text for text in said)
        law = sampler.panels["law"]
        page = scene.page_of(sampler)[30:, law.left :]
        assert scene.in_color(page, "white").all(), "no bar either"
        return
    _, value, law = steps[-1]
    assert {
        f"pixel {step} sur 30",
        f"tiré : {value}",
        *(f"p({k}) = {scene.french(share, 2)}" for k, share in enumerate(law)),
        f"coût : {scene.amount(steps[-1].nats, 2, 'nat')}",
        f"total : {scene.amount(sum(each.nats for each in steps), 1, 'nat')}",
    } <= set(said)
    if step == 30 and temperature == 1:
        nats = -model.log_prob(model.sample(1, generator=seeded(seed))).item()
        assert f"total : {scene.french(nats, 1)} nats" in said
    for level, share in enumerate(law):
        tint = figures.COLORS["x" if level == value else "prior"]
        assert scene.heights(sampler, "law", tint)[level] == pytest.approx(share, abs=0.01)


# ---- mask_explorer ----------------------------------------------------------------------------


MASKS = ("justes", "diapositive 13", "sans masque")
ORDERINGS = ("naturel", "au hasard")
FORBIDDEN, ALLOWED = "#E9A3A0", "#CFE8DC"  # cells of the table of paths


@pytest.fixture
def network():
    return demos.mask_explorer()


def table(demo, color):
    """Which cells of the table of paths have this colour, `(outputs, pixels)`."""
    panel = demo.panels["paths"]
    corners = [panel.box(cell)[:2] for cell in scene.cells(panel)]
    page = np.array([scene.page_of(demo)[y + 3, x + 3] for x, y in corners])
    return scene.in_color(page, color).reshape(panel.rows, panel.columns)


def redrawn(demo, **settings):
    """What is written on the picture: degrees `(layers, units)`, ranks, numbers of paths."""
    said = scene.texts(demo, **settings)
    rank = torch.tensor([int(text[5:]) for text in said if text.startswith("rang ")])
    counts = torch.tensor([int(text) for text in said if text.isdigit()])  # the table comes last
    layers = demo.controls["layers"].value
    degrees, paths = counts[: -(len(rank) ** 2)], counts[-(len(rank) ** 2) :]
    return degrees.view(layers, -1), rank, paths.view(len(rank), -1), said


def expected_paths(degrees, rank, masks):
    """The numbers of paths by the definition of the masks."""
    if masks == "sans masque":
        return torch.full((len(rank), len(rank)), degrees.shape[1] ** len(degrees))
    below, paths = rank, torch.eye(len(rank), dtype=torch.long)
    for m in degrees:
        paths, below = (m[:, None] >= below).long() @ paths, m
    kept = below > rank[:, None] if masks == "diapositive 13" else rank[:, None] > below
    return kept.long() @ paths


def test_the_table_counts_the_paths_and_tells_the_forbidden_ones(network):
    orders = {order: set() for order in ORDERINGS}
    for layers, masks, order in itertools.product((1, 2, 3), MASKS, ORDERINGS):
        drawn = redrawn(network, layers=layers, masks=masks, order=order, seed=layers)
        degrees, rank, paths, _ = drawn
        orders[order].add(tuple(rank.tolist()))
        assert degrees.shape == (layers, 7) and degrees.min() >= 1 and degrees.max() < 5
        assert sorted(rank.tolist()) == [1, 2, 3, 4, 5]
        assert torch.equal(paths, expected_paths(degrees, rank, masks))
        forbidden = ((paths > 0) & (rank[None, :] >= rank[:, None])).numpy()
        seen = (paths > 0).numpy()
        assert (table(network, FORBIDDEN) == forbidden).all()
        assert (table(network, ALLOWED) == seen & ~forbidden).all()
        assert (table(network, "white") == ~seen).all()
        if masks == "justes":  # no pixel reaches itself, by any number of detours
            assert not np.linalg.matrix_power(seen.astype(int), 5).any()
        if masks == "sans masque":
            assert seen.all()
        if masks == "diapositive 13" and order == "naturel":
            assert forbidden[0, 0] and not forbidden[-1, -1], "the last one sees nothing"
    assert orders["naturel"] == {(1, 2, 3, 4, 5)} and len(orders["au hasard"]) > 1


@pytest.mark.parametrize("output", [1, 2, 5])
@pytest.mark.parametrize("masks", MASKS)
def test_the_chosen_output_lights_what_it_sees_and_the_paths_from_there(
    monkeypatch, network, masks, output
):
    lines, draw_line = [], ImageDraw.ImageDraw.line

    def line(pen, where, fill=None, width=0):
        lines.append((tuple(where), fill))
        draw_line(pen, where, fill=fill, width=width)

    monkeypatch.setattr(ImageDraw.ImageDraw, "line", line)
    settings = {"masks": masks, "output": output, "layers": 2, "order": "au hasard", "seed": 5}
    _, rank, paths, said = redrawn(network, **settings)
    seen = [k for k in range(5) if paths[output - 1, k]]
    page = scene.page_of(network)
    for k in range(5):
        x = 70 + 104 * k + 52
        assert scene.in_color(
            page[350, x - 13], scene.FOCUS if k in seen else figures.COLORS["x"]
        ), k
        assert scene.in_color(page[50, x - 13], scene.FOCUS if k == output - 1 else "white"), k
    lines.clear()
    network.set()
    lit = {where for where, color in lines if color == scene.FOCUS}
    assert {round(x) for (x, y), _ in lit if y == 350} == {122 + 104 * k for k in seen}
    assert {round(x) for _, (x, y) in lit if y == 50} == (
        {122 + 104 * (output - 1)} if seen else set()
    )
    names = ", ".join(f"x{k + 1}" for k in seen) or "rien"
    assert f"x̂{output} voit : {names}" in said
    forbidden = ", ".join(f"x{k + 1}" for k in seen if rank[k] >= rank[output - 1])
    assert [text for text in said if "interdit" in text] == [
        f"interdit : {forbidden}" if forbidden else "rien d'interdit : seulement des pixels d'avant"
    ]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_outputs_answer_a_click_whatever_the_layers(network, layers):
    for k, shift in itertools.product((4, 0, 1, 2, 3), ((0, 0), (12, 12), (-30, 20))):
        network.set(layers=layers, output=2 if k else 1)
        scene.point(network, 122 + 104 * k + shift[0], 50 + shift[1])
        assert scene.values(network) == scene.values(network) | {"output": k + 1, "layers": layers}
        assert scene.in_color(scene.page_of(network)[50, 122 + 104 * k - 13], scene.FOCUS)
