"""The demos without a browser: controls in, PNG out."""

import base64
import io
import itertools

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from autoregressive_models import build, same_state, seeded, state_of
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw

from course_utils import CVAE, VAE, CompletionVAE, figures
from course_utils.demos import (
    LivePicture,
    completion_explorer,
    condition_explorer,
    draw_offline,
    font,
    latent_explorer,
    mask_explorer,
    sampling_explorer,
    to_pil,
    to_png,
)
from course_utils.demos import live
from course_utils.evaluation import load_classifier

pytestmark = pytest.mark.usefixtures("no_screen")


def decode(png):
    return Image.open(io.BytesIO(png)).convert("RGB")


# ---- pieces -----------------------------------------------------------------------------------


def test_png_shows_the_image():
    image = Image.fromarray(np.arange(240, dtype=np.uint8).reshape(8, 10, 3))
    png = to_png(image)
    assert png.startswith(b"\x89PNG")
    assert np.array_equal(np.asarray(decode(png)), np.asarray(image))


def test_to_pil_enlarges_every_pixel_and_clips():
    page = np.array([[[0.0, 0.5, 1.0], [-1.0, 2.0, 0.2]]])
    image = np.asarray(to_pil(page, zoom=3))
    assert image.shape == (3, 6, 3)
    assert (image[:, :3] == [0, 128, 255]).all() and (image[:, 3:] == [0, 255, 51]).all()


def test_draw_offline_has_the_size_asked_for_and_leaves_no_figure():
    image = draw_offline(lambda figure: figure.text(0.5, 0.5, "x"), (320, 240))
    assert (image.size, image.mode) == ((320, 240), "RGB")
    assert len(image.getcolors(maxcolors=10_000)) > 1, "the text is there"
    assert plt.get_fignums() == []


def test_draw_offline_leaves_no_figure_after_an_error():
    with pytest.raises(ZeroDivisionError):
        draw_offline(lambda figure: 1 / 0, (100, 100))
    assert plt.get_fignums() == []


def test_the_font_has_the_size_asked_for_and_is_loaded_once():
    small, large = font(10), font(30)
    assert font(10) is small
    text = "même consigne, µ ← z₁"
    assert large.getlength(text) == pytest.approx(3 * small.getlength(text), rel=0.05)


# ---- LivePicture ------------------------------------------------------------------------------


class Plain:
    """A demo of two sliders that paints one colour, and counts its drawings."""

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
        image = decode(self.demo.picture.value)
        assert image.size == (30, 20)
        return image.getpixel((0, 0))


def test_the_picture_follows_its_controls():
    plain = Plain()
    before = plain.demo.picture.value
    assert plain.shown() == (10, 0, 20)
    plain.controls["red"].value = 200
    assert plain.shown() == (200, 0, 20) and plain.demo.picture.value != before
    plain.controls["blue"].value = 100
    assert plain.shown() == (200, 0, 100)


def test_the_picture_has_a_fixed_size():
    layout = Plain().demo.picture.layout
    assert (layout.width, layout.height, layout.flex) == ("30px", "20px", "0 0 auto")


def controls(*, count, vertical=False):
    layout = {"width": "40px", "height": "110px"} if vertical else {"width": "270px"}
    return [widgets.IntSlider(layout=layout) for _ in range(count)]


@pytest.mark.parametrize("size, caption, lines, zoom, scale", [
    ((300, 200), "x", [controls(count=2)], 1.3, 1.5),  # one half larger, at most
    ((1000, 200), "x", [controls(count=2)], 1.3, 1.11),  # as wide as the screen
    ((500, 500), "x", [controls(count=2)], 1.3, (590 - 1.3 * 62) / 500),  # as high as what is left
    ((900, 420), "x" * 120, [controls(count=4)] * 2, 1.0, (590 - 94) / 420),  # lines that wrap
    ((500, 520), "x", [controls(count=9, vertical=True)], 1.0, (590 - 144) / 520),  # made smaller
    ((500, 400), "x", [[widgets.VBox(controls(count=4))]], 1.15, (590 - 1.15 * 158) / 400),
])  # fmt: skip
def test_a_demo_fills_the_screen_of_a_projector(size, caption, lines, zoom, scale):
    assert live.on_a_projector(size, caption, lines) == (zoom, pytest.approx(scale))


def test_on_a_projector_a_demo_is_larger(monkeypatch):
    monkeypatch.setattr(live.figures, "PROJECTION", True)
    demo = Plain().demo
    assert (demo.picture.layout.width, demo.picture.layout.height) == ("45px", "30px")
    assert "{zoom: 1.3}" in demo.children[0].value and "course-demo" in demo._dom_classes


def test_elsewhere_nothing_is_enlarged():
    assert "zoom" not in Plain().demo.children[0].value


def alive(*parts):
    return [part for part in parts if part.comm is not None]


def test_a_closed_demo_keeps_none_of_its_parts():
    plain = Plain(on_pointer=lambda x, y, pressed: {}, buttons={"Encore": dict}, play="red")
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


def test_controls_come_before_the_picture_and_under_the_caption():
    plain = Plain()
    caption, row, picture = plain.demo.children
    assert "Essayez !" in caption.value and picture is plain.demo.picture
    assert row.children == (*plain.controls.values(), plain.demo.reset_button)


def test_set_redraws_once():
    plain = Plain()
    plain.demo.set(red=30, blue=40)
    assert plain.drawn == [(10, 20), (30, 40)] and plain.shown() == (30, 0, 40)


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


def test_reset_button_restores_the_start():
    plain = Plain()
    start = plain.demo.picture.value
    plain.demo.set(red=30, blue=40)
    plain.demo.reset_button.click()
    assert plain.demo.picture.value == start
    assert [control.value for control in plain.controls.values()] == [10, 20]


@pytest.mark.parametrize(
    ("event", "moves"),
    [
        ({"type": "mousedown"}, True),
        ({"type": "mousemove", "buttons": 1}, False),
        ({"type": "mousemove", "buttons": 0}, False),
        ({"type": "mousemove"}, False),
    ],
    ids=["click", "drag from elsewhere", "hover", "hover, old browser"],
)
def test_without_a_click_on_the_picture_nothing_moves(event, moves):
    plain = Plain(on_pointer=lambda x, y, pressed: {"red": x, "blue": y})
    plain.demo._pointer(event | {"dataX": 50, "dataY": 60})
    assert plain.shown() == ((50, 0, 60) if moves else (10, 0, 20))
    assert len(plain.drawn) == (2 if moves else 1)


DOWN, DRAG, HOVER = (
    {"type": "mousedown", "buttons": 1},
    {"type": "mousemove", "buttons": 1},
    {"type": "mousemove", "buttons": 0},
)


@pytest.mark.parametrize(
    ("events", "counted"),
    [
        ([DRAG, DRAG, DOWN], [2]),
        ([DOWN, DRAG, DRAG], [0, 1, 2]),
        ([DOWN, DRAG, HOVER, DRAG, DRAG], [0, 1]),
        ([DOWN, {"type": "mousemove"}, DRAG], [0]),
        ([DOWN, HOVER, DOWN, DRAG], [0, 2, 3]),
        ([DOWN, DOWN, DRAG], [0, 1, 2]),
    ],
    ids=[
        "begun elsewhere",
        "begun on the picture",
        "released, then pressed elsewhere",
        "released, old browser",
        "two drags",
        "released outside of the picture",
    ],
)
def test_a_drag_counts_from_its_click_to_its_release(events, counted):
    plain = Plain(on_pointer=lambda x, y, pressed: {"red": x, "blue": y})
    for i, event in enumerate(events):
        plain.demo._pointer(event | {"dataX": i, "dataY": 100 + i})
    assert plain.drawn == [(10, 20), *((i, 100 + i) for i in counted)]


def test_a_drag_that_moved_nothing_goes_on():
    """Begun on the picture, but off its map: what follows is for the demo to judge."""
    received = []
    plain = Plain(on_pointer=lambda *args: received.append(args))
    for event in (DOWN, DRAG, HOVER, DRAG):
        plain.demo._pointer(event | {"dataX": 5, "dataY": 6})
    assert received == [(5, 6, True), (5, 6, False)] and plain.drawn == [(10, 20)]


def test_a_pointer_outside_of_the_map_changes_nothing():
    plain = Plain(on_pointer=lambda x, y, pressed: {})
    plain.demo._pointer({"type": "mousedown", "dataX": 50, "dataY": 60})
    assert plain.drawn == [(10, 20)]


def test_a_button_asks_its_function_at_each_click_and_redraws_once():
    values = iter([{"red": 1, "blue": 2}, {"blue": 3}])
    plain = Plain(buttons={"Suivant": lambda: next(values), "Rien": dict})
    assert list(plain.demo.buttons) == ["Suivant", "Rien"] and plain.drawn == [(10, 20)]
    plain.demo.buttons["Suivant"].click()
    plain.demo.buttons["Suivant"].click()
    assert plain.drawn == [(10, 20), (1, 2), (1, 3)]
    plain.demo.buttons["Rien"].click()
    assert plain.shown() == (1, 0, 3)
    plain.demo.reset_button.click()
    assert plain.shown() == (10, 0, 20)


def test_every_button_calls_its_own_function():
    """All are made in one loop: none may end up with the function of the last one."""
    names = ("red", "blue")
    plain = Plain(buttons={name: (lambda name=name: {name: 100}) for name in names})
    plain.demo.buttons["red"].click()
    assert plain.shown() == (100, 0, 20)
    plain.demo.buttons["blue"].click()
    assert plain.shown() == (100, 0, 100)


def test_buttons_come_after_the_controls_and_before_the_reset():
    plain = Plain(buttons={"A": dict, "B": dict})
    _, row, _ = plain.demo.children
    buttons = plain.demo.buttons
    expected = (*plain.controls.values(), buttons["A"], buttons["B"], plain.demo.reset_button)
    assert row.children == expected
    assert [button.description for button in buttons.values()] == ["A", "B"]


@pytest.mark.parametrize(
    "rows", [[["red"], ["blue"]], [["blue", "red"]], [["blue"], ["red"], []]], ids=str
)
def test_rows_say_which_controls_stand_on_each_line(rows):
    given = [list(names) for names in rows]
    plain = Plain(rows=rows, buttons={"A": dict})
    _, *lines, _ = plain.demo.children
    expected = [[plain.controls[name] for name in names] for names in rows]
    expected[-1] += [plain.demo.buttons["A"], plain.demo.reset_button]
    assert [list(line.children) for line in lines] == expected
    assert rows == given, "the caller's lists are left alone"


def test_a_list_in_a_row_is_a_column_and_buttons_may_be_placed_too():
    buttons = {"A": dict, "B": dict}
    plain = Plain(rows=[["red", ["blue", "Revenir au départ", "B"]]], buttons=buttons)
    _, line, _ = plain.demo.children
    red, column, last = line.children
    assert (red, last) == (plain.controls["red"], plain.demo.buttons["A"])
    expected = plain.controls["blue"], plain.demo.reset_button, plain.demo.buttons["B"]
    assert isinstance(column, widgets.VBox) and column.children == expected
    plain.controls["red"].value = 200
    plain.demo.reset_button.click()
    assert plain.shown() == (10, 0, 20)


def test_rows_change_nothing_to_the_order_of_the_values():
    plain = Plain(rows=[["blue"], ["red"]])
    plain.controls["red"].value = 200
    assert plain.shown() == (200, 0, 20)


def test_a_play_button_moves_its_slider_and_goes_on_from_where_a_hand_puts_it():
    plain = Plain(play="blue")
    play, slider = plain.demo.play, plain.controls["blue"]
    assert (play.value, play.min, play.max, play.step) == (20, 0, 255, 1)
    assert not play.playing and not play.show_repeat
    play.value = 21  # a tick
    assert slider.value == 21 and plain.drawn[1:] == [(10, 21)]
    slider.value = 90
    assert play.value == 90 and plain.drawn[2:] == [(10, 90)]
    plain.demo.reset_button.click()
    assert play.value == slider.value == 20 and plain.drawn[3:] == [(10, 20)]


def test_a_play_button_has_the_bounds_and_the_step_of_its_slider():
    slider = widgets.IntSlider(6, 2, 10, step=2)
    demo = LivePicture(lambda n: Image.new("RGB", (n, 9)), {"n": slider}, caption="", play="n")
    assert (demo.play.value, demo.play.min, demo.play.max, demo.play.step) == (6, 2, 10, 2)


@pytest.mark.parametrize("rows", [None, [["red"], ["blue"]], [["blue"], ["red"]]], ids=str)
@pytest.mark.parametrize("name", ["red", "blue"])
def test_a_play_button_stands_before_its_slider(rows, name):
    plain = Plain(rows=rows, play=name)
    _, *lines, _ = plain.demo.children
    expected = [[plain.controls[key] for key in names] for names in rows or [["red", "blue"]]]
    expected[-1].append(plain.demo.reset_button)
    line = next(line for line in expected if plain.controls[name] in line)
    line.insert(line.index(plain.controls[name]), plain.demo.play)
    assert [list(line.children) for line in lines] == expected


def test_no_play_button_when_none_is_asked_for():
    _, row, _ = Plain().demo.children
    assert not any(isinstance(child, widgets.Play) for child in row.children)


def test_a_still_picture_goes_with_the_widget():
    """For GitHub and exported pages, which have no kernel."""
    plain = Plain()
    plain.demo.set(red=99)
    data, metadata = plain.demo._repr_mimebundle_()
    assert decode(base64.b64decode(data["image/png"])).getpixel((0, 0)) == (99, 0, 20)
    assert data["text/plain"] == "[démo] Essayez !"
    assert "application/vnd.jupyter.widget-view+json" in data and isinstance(metadata, dict)


# ---- latent_explorer --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = VAE((1, 8, 8), z_dim=2, hidden=(16,))
    with torch.no_grad():
        model.decoder.net[-1].weight.mul_(20)  # an untrained decoder hardly looks at z
    return model


@pytest.fixture(scope="module")
def codes():
    return torch.randn(60, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def explorer(model, codes):
    return latent_explorer(model, codes, torch.arange(60) % 10)


def centre_of(color, explorer):
    """Middle, in pixels, of what is drawn in a colour on the map, under its title."""
    page = np.asarray(decode(explorer.picture.value)).astype(float)[:440, :440] / 255
    at = (np.abs(page - to_rgb(color)) < 0.02).all(2)
    at[:40] = False
    y, x = np.nonzero(at)
    return (x.min() + x.max()) / 2, (y.min() + y.max()) / 2


def marker(explorer):
    return centre_of(figures.COLORS["z"], explorer)


@pytest.fixture
def bare_explorer(model, codes):
    """Without codes on the map: the marker is the only thing of its colour."""
    return latent_explorer(model, codes[:0], torch.zeros(0))


def test_each_slider_moves_the_point_and_changes_the_digit(explorer):
    assert list(explorer.controls) == ["z1", "z2"]
    size = decode(explorer.picture.value).size
    pictures = [explorer.picture.value]
    for control in explorer.controls.values():
        control.value = 1.5
        pictures.append(explorer.picture.value)
    assert len(set(pictures)) == 3
    assert {decode(png).size for png in pictures} == {size}
    digits = {decode(png).crop((452, 70, 750, 370)).tobytes() for png in pictures}
    assert len(digits) == 3


def test_moving_leaves_no_open_figure(explorer):
    explorer.controls["z1"].value = -2.0
    assert plt.get_fignums() == []


def test_the_digit_in_the_middle_is_decoded_at_the_point(explorer, model):
    explorer.set(z1=0.8, z2=-1.2)
    with torch.no_grad():
        intensity = model.decode(torch.tensor([[0.8, -1.2]]))
    expected = to_pil(figures.image_grid(intensity, gap=0), 38)  # 38 = 308 // 8
    shown = decode(explorer.picture.value).crop((452, 68, 452 + 304, 68 + 304))
    difference = np.asarray(shown).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 6, "up to the 256 colours of the PNG"


@pytest.mark.parametrize(("x", "y"), [(150, 100), (220, 220), (400, 350)])
def test_a_click_on_the_map_puts_the_point_under_the_mouse(bare_explorer, x, y):
    bare_explorer._pointer({"type": "mousedown", "dataX": x, "dataY": y})
    assert marker(bare_explorer) == pytest.approx((x, y), abs=1.5)


def test_the_map_is_not_upside_down(bare_explorer):
    bare_explorer.set(z1=0.0, z2=0.0)
    x, y = marker(bare_explorer)
    bare_explorer.set(z1=2.0, z2=3.0)
    right, up = marker(bare_explorer)
    assert right > x + 50 and up < y - 100


def test_the_marker_and_the_codes_have_the_same_axes(model):
    """Matplotlib draws the codes, the demo draws the point: at equal z they must coincide."""
    codes = torch.tensor([[2.0, -1.0]], requires_grad=True)  # as an encoder gives them
    explorer = latent_explorer(model, codes, torch.tensor([0]))
    code = centre_of(figures.CLASS_COLORS[0], explorer)
    explorer.set(z1=2.0, z2=-1.0)
    assert marker(explorer) == pytest.approx(code, abs=3)


@pytest.mark.parametrize(("x", "y"), [(10, 220), (220, 435), (600, 220), (220, 2)])
def test_a_click_outside_of_the_map_changes_nothing(explorer, x, y):
    before = explorer.picture.value
    explorer._pointer({"type": "mousedown", "dataX": x, "dataY": y})
    assert explorer.picture.value == before


def test_reset_puts_the_point_back_at_the_origin(explorer):
    start = explorer.picture.value
    explorer.set(z1=1.0, z2=2.0)
    explorer.reset_button.click()
    assert explorer.picture.value == start
    assert [control.value for control in explorer.controls.values()] == [0, 0]


@pytest.mark.parametrize("width", [3, 1])
def test_the_map_needs_two_dimensions(width):
    with pytest.raises(ValueError, match=f"needs 2 latent dimensions, got z_dim={width}"):
        latent_explorer(VAE((1, 8, 8), z_dim=width), torch.zeros(5, width), torch.zeros(5))


# ---- condition_explorer -----------------------------------------------------------------------


class Spy:
    """Notes what a method receives and returns."""

    def __init__(self, monkeypatch, owner, name):
        self.received, self.returned, self.method = [], [], getattr(owner, name)
        monkeypatch.setattr(owner, name, self)

    def __call__(self, *args, **options):
        self.received.append(args)
        self.returned.append(self.method(*args, **options))
        return self.returned[-1]


def amplify(model):
    """Weights of an untrained model made large: its images then follow z and the condition."""
    with torch.no_grad():
        for network in (model.decoder, model.prior_encoder):
            if network is not None:
                torch.nn.init.normal_(network.net[-1].weight, std=0.5)
    return model


def small_cvae(shape=(1, 14, 14), **options):
    torch.manual_seed(0)
    options = {"num_classes": 10, "condition_shape": (2,), "z_dim": 3, "hidden": (8,)} | options
    return amplify(CVAE(shape, **options))


@pytest.fixture(scope="module")
def classifier():
    return load_classifier()


@pytest.fixture(scope="module")
def cvae():
    return small_cvae()


MEAN, STD = torch.tensor([10.0, 2.0]), torch.tensor([8.0, 0.4])
START = {f"y{k}": float(k == 3) for k in range(10)} | {"slant": 10.0, "thickness": 2.0}
START |= {"z1": 0.0, "z2": 0.0, "z3": 0.0}
DIGIT = (4, 34, 304, 334)  # the digit in the picture, without its frame: 14 × 22 = 308 pixels


@pytest.fixture
def orders(cvae, classifier):
    return condition_explorer(cvae, classifier, mean=MEAN, std=STD)


@pytest.fixture
def decoded(monkeypatch, cvae):
    """What the CVAE decodes, from now on."""
    return Spy(monkeypatch, cvae, "decode")


def values(demo):
    return {name: control.value for name, control in demo.controls.items()}


def crop(demo, box):
    return decode(demo.picture.value).crop(box)


def test_the_controls_are_the_classes_the_attributes_and_z(orders):
    assert values(orders) == START
    (line,) = orders.children[1:-1]
    *classes, attributes, style = line.children
    assert len(classes) == 10 and len(style.children) == 3
    button = orders.buttons["Tirer un autre z"]
    assert attributes.children[2:] == (button, orders.reset_button)


@pytest.mark.parametrize(("name", "low", "high"), [("slant", -6, 26), ("thickness", 1.2, 2.8)])
def test_an_attribute_goes_two_deviations_each_way(orders, name, low, high):
    control = orders.controls[name]
    assert (control.min, control.max) == pytest.approx((low, high))


def test_every_control_changes_the_digit_and_not_the_size(orders):
    pictures = [decode(orders.picture.value)]
    changes = {f"y{k}": 0.0 if k == 3 else 0.7 for k in range(10)}
    changes |= {"slant": 20.0, "thickness": 2.6, "z1": 1.5, "z2": 1.5, "z3": 1.5}
    assert changes.keys() == orders.controls.keys()
    for name, value in changes.items():
        orders.reset_button.click()
        orders.controls[name].value = value
        pictures.append(decode(orders.picture.value))
    assert len({picture.size for picture in pictures}) == 1
    assert len({picture.crop(DIGIT).tobytes() for picture in pictures}) == 1 + len(changes)


def test_the_large_digit_answers_the_order(orders, cvae):
    orders.set(y3=0.0, y5=1.0, slant=18.0, z2=-1.0)
    y = torch.zeros(1, 12)
    y[0, 5] = y[0, 10] = 1
    with torch.no_grad():
        intensity = cvae.decode(torch.tensor([[0.0, -1.0, 0.0]]), y)
    expected = to_pil(figures.image_grid(intensity, gap=0), 22).crop((4, 4, 304, 304))
    difference = np.asarray(crop(orders, DIGIT)).astype(int) - np.asarray(expected)
    assert np.abs(difference).mean() < 6


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"y3": 0.2, "y8": 0.6}, {3: 0.25, 8: 0.75}),
        ({"y3": 1.0, "y8": 1.0}, {3: 0.5, 8: 0.5}),
        ({"y3": 0.05}, {3: 1.0}),
        ({f"y{k}": 1.0 for k in range(10)}, dict.fromkeys(range(10), 0.1)),
        ({"y3": 0.0}, dict.fromkeys(range(10), 0.1)),
    ],
    ids=["mixture", "one half each", "alone", "all", "none: all of them"],
)
def test_the_model_receives_weights_of_sum_one(orders, decoded, weights, expected):
    orders.set(**weights)
    ((_, y),) = decoded.received
    assert y.shape == (1, 12) and y[0, :10].sum().item() == pytest.approx(1)
    assert y[0, :10].tolist() == pytest.approx([expected.get(k, 0) for k in range(10)])


def test_no_class_at_all_is_drawn_and_forgotten_at_once(orders):
    start = orders.picture.value
    orders.controls["y3"].value = 0.0
    nothing = orders.picture.value
    orders.controls["y3"].value = 1.0
    assert nothing != start and orders.picture.value == start


@pytest.mark.parametrize(
    ("slant", "thickness", "expected"),
    [(10.0, 2.0, (0, 0)), (18.0, 1.8, (1, -0.5)), (-6.0, 2.8, (-2, 2))],
)
def test_the_model_receives_attributes_in_standard_units(
    orders, decoded, slant, thickness, expected
):
    orders.set(slant=slant, thickness=thickness)
    ((_, y),) = decoded.received
    assert y[0, 10:].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_units_may_be_a_list(cvae, classifier, orders):
    demo = condition_explorer(cvae, classifier, mean=MEAN.tolist(), std=STD.tolist())
    assert demo.picture.value == orders.picture.value


def test_one_order_for_nine_styles_of_which_eight_stay(orders, decoded):
    orders.set(z1=0.5, z3=-2.0)
    orders.set(y1=1.0, slant=0.0)
    (z, _), (again, _) = decoded.received
    assert z.shape == (9, 3) and z[0].tolist() == [0.5, 0.0, -2.0]
    assert torch.equal(z, again) and len(torch.unique(z[1:], dim=0)) == 8


def test_another_z_keeps_the_order(orders, decoded):
    button = orders.buttons["Tirer un autre z"]
    orders.set(y8=0.5, slant=15.0)
    pictures = [orders.picture.value]
    for _ in range(2):
        before = values(orders)
        button.click()
        pictures.append(orders.picture.value)
        changed = {name for name, value in values(orders).items() if value != before[name]}
        assert changed == {"z1", "z2", "z3"}
    assert len(set(pictures)) == 3
    asked = [y for _, y in decoded.received]
    assert torch.equal(asked[0], asked[1]) and torch.equal(asked[0], asked[2])
    for _ in range(50):
        button.click()
        z = [orders.controls[name].value for name in ("z1", "z2", "z3")]
        (point, *_), _ = decoded.received[-1]
        assert max(map(abs, z)) <= 3 and point.tolist() == pytest.approx(z)


def test_a_new_demo_draws_the_same_styles(orders, cvae, classifier):
    twin = condition_explorer(cvae, classifier, mean=MEAN, std=STD)
    for demo in (orders, twin):
        demo.buttons["Tirer un autre z"].click()
    assert twin.picture.value == orders.picture.value


def test_reset_gives_the_first_order_back(orders):
    start = orders.picture.value
    orders.set(y3=0.2, y8=0.6, slant=0.0, thickness=1.5)
    orders.buttons["Tirer un autre z"].click()
    assert orders.picture.value != start
    orders.reset_button.click()
    assert orders.picture.value == start and values(orders) == START


@pytest.mark.parametrize(
    "options", [{"num_classes": 3}, {"z_dim": 1}, {"prior": "learned"}], ids=str
)
def test_orders_to_other_models(options, classifier):
    model = small_cvae(**options)
    demo = condition_explorer(model, classifier, mean=MEAN, std=STD)
    assert len(demo.controls) == model.num_classes + 2 + model.z_dim
    start = demo.picture.value
    demo.set(y1=0.5, slant=20.0)
    assert demo.picture.value != start


def test_the_sliders_of_z_are_numbered_from_one(classifier):
    demo = condition_explorer(small_cvae(z_dim=11), classifier, mean=MEAN, std=STD)
    labels = [demo.controls[f"z{i}"].description for i in range(1, 12)]
    assert labels == "z₁ z₂ z₃ z₄ z₅ z₆ z₇ z₈ z₉ z₁₀ z₁₁".split()


@pytest.mark.parametrize(
    "make",
    [
        lambda: small_cvae(condition_shape=None),
        lambda: small_cvae(num_classes=None),
        lambda: small_cvae(condition_shape=(3,)),
        lambda: small_cvae((3, 14, 14)),
        lambda: small_cvae((1, 14, 12)),
        lambda: CompletionVAE((1, 14, 14)),
        lambda: VAE((1, 14, 14)),
    ],
    ids=[
        "no attributes",
        "no classes",
        "three attributes",
        "colours",
        "not square",
        "completions",
        "no condition",
    ],
)
def test_orders_need_square_grey_images_classes_and_two_attributes(make, classifier):
    message = r"the demo needs CVAE\(\(1, S, S\), num_classes=K, condition_shape=\(2,\)\)"
    with pytest.raises(ValueError, match=message):
        condition_explorer(make(), classifier, mean=MEAN, std=STD)


# ---- completion_explorer ----------------------------------------------------------------------


HEIGHT, WIDTH = 14, 12  # not square: rows are not columns
ZOOM, TOP = 22, 30  # where the image stands in the picture: 14 × 22 = 308 pixels


@pytest.fixture(scope="module")
def completer():
    torch.manual_seed(0)
    return amplify(CompletionVAE((1, HEIGHT, WIDTH), z_dim=3, hidden=(8,)))


@pytest.fixture(scope="module")
def images():
    ink = torch.rand(5, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    return (ink < 0.3).to(torch.uint8)


@pytest.fixture
def painter(completer, images, classifier):
    return completion_explorer(completer, images, classifier)


@pytest.fixture
def completed(monkeypatch, completer):
    """What the CompletionVAE decodes, from now on."""
    return Spy(monkeypatch, completer, "decode")


def pointer(demo, row, column, *, pressed):
    """The mouse in the middle of a pixel of the image, perhaps outside of it."""
    where = {"dataX": (column + 0.5) * ZOOM, "dataY": TOP + (row + 0.5) * ZOOM}
    demo._pointer({"type": "mousedown" if pressed else "mousemove", "buttons": 1} | where)


def rectangle(demo):
    return demo.controls["hidden_rows"].value, demo.controls["hidden_columns"].value


def hidden_pixels(demo):
    """True where a pixel is hidden, according to the controls."""
    (top, bottom), (left, right) = rectangle(demo)
    hidden = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    hidden[top:bottom, left:right] = True
    return hidden


def test_the_right_half_is_hidden_first(painter):
    assert values(painter) == {
        "number": 0,
        "hidden_rows": (0, HEIGHT),
        "hidden_columns": (WIDTH // 2, WIDTH),
        "seed": 0,
    }
    assert painter.controls["number"].max == 4


def test_every_control_changes_the_completions_and_not_the_size(painter):
    changes = {"number": 2, "hidden_rows": (3, 9), "hidden_columns": (0, 5), "seed": 7}
    pictures = [decode(painter.picture.value)]
    for name, value in changes.items():
        painter.reset_button.click()
        painter.controls[name].value = value
        pictures.append(decode(painter.picture.value))
    assert changes.keys() == painter.controls.keys()
    assert len({picture.size for picture in pictures}) == 1
    right = (WIDTH * ZOOM + 10, 0, *pictures[0].size)
    assert len({picture.crop(right).tobytes() for picture in pictures}) == 5


RECTANGLES = {
    "right": ((0, HEIGHT), (WIDTH // 2, WIDTH)),
    "a few pixels": ((3, 9), (2, 5)),
    "one pixel": ((13, 14), (0, 1)),
    "nothing: no row": ((5, 5), (2, 8)),
    "nothing: no column": ((0, HEIGHT), (WIDTH, WIDTH)),
    "everything": ((0, HEIGHT), (0, WIDTH)),
}


@pytest.mark.parametrize(("rows", "columns"), RECTANGLES.values(), ids=RECTANGLES)
def test_visible_pixels_are_those_of_the_image(painter, images, completed, rows, columns):
    painter.set(number=3, hidden_rows=rows, hidden_columns=columns)
    hidden = hidden_pixels(painter)
    (completions,) = completed.returned
    assert completions.shape == (18, 1, HEIGHT, WIDTH)
    assert (completions == images[3].float())[:, :, ~hidden].all()
    if hidden.any():
        spread = completions[:, :, hidden].std(0)
        assert spread.mean() > 0.01, "eighteen completions, not eighteen copies"


@pytest.mark.parametrize(("rows", "columns"), RECTANGLES.values(), ids=RECTANGLES)
def test_the_model_does_not_see_what_is_hidden(painter, images, completed, rows, columns):
    painter.set(number=1, hidden_rows=rows, hidden_columns=columns)
    hidden = hidden_pixels(painter)
    ((_, y),) = completed.received
    intensity, mask = y[0]
    assert len(y) == 1 and torch.equal(mask, (~hidden).float())
    assert torch.equal(intensity, torch.where(hidden, 0.0, images[1, 0].float()))


def test_the_codes_follow_the_prior_of_the_model(painter, completer, completed):
    """Eighteen draws at a hundred seeds: their mean and deviation are those of p(z|c)."""
    for seed in range(100):
        painter.controls["seed"].value = seed
    z = torch.cat([z for z, _ in completed.received])
    assert len(torch.unique(z, dim=0)) == len(z) >= 99 * 18
    with torch.no_grad():
        mu, logvar = completer.prior(1, completed.received[0][1])
    sigma = torch.exp(0.5 * logvar[0])
    assert ((z.mean(0) - mu[0]).abs() < 5 * sigma / len(z) ** 0.5).all()
    assert z.std(0).tolist() == pytest.approx(sigma.tolist(), rel=0.1)


def test_the_same_seed_gives_the_same_picture(painter, completer, images, classifier):
    painter.controls["seed"].value = 5
    before = painter.picture.value
    painter.controls["seed"].value = 6
    assert painter.picture.value != before
    torch.manual_seed(123)
    painter.controls["seed"].value = 5
    assert painter.picture.value == before
    twin = completion_explorer(completer, images, classifier)
    twin.set(seed=5)
    assert twin.picture.value == before


def test_a_demo_leaves_the_global_random_stream_alone(painter, orders):
    state = torch.get_rng_state()
    painter.controls["seed"].value = 5
    orders.buttons["Tirer un autre z"].click()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("start", "end"),
    [((3, 2), (9, 7)), ((9, 7), (3, 2)), ((3, 7), (9, 2)), ((9, 2), (3, 7))],
    ids=["down right", "up left", "down left", "up right"],
)
def test_a_drag_hides_the_rectangle_between_its_ends(painter, start, end):
    pointer(painter, *start, pressed=True)
    pointer(painter, 13, 11, pressed=False)  # through other places
    pointer(painter, *end, pressed=False)
    assert rectangle(painter) == ((3, 10), (2, 8))


def test_a_click_hides_one_pixel_and_starts_a_new_rectangle(painter):
    pointer(painter, 3, 2, pressed=True)
    pointer(painter, 9, 7, pressed=False)
    pointer(painter, 12, 5, pressed=True)
    assert rectangle(painter) == ((12, 13), (5, 6))
    pointer(painter, 13, 4, pressed=False)
    assert rectangle(painter) == ((12, 14), (4, 6))


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ((40, 30), ((5, HEIGHT), (6, WIDTH))),
        ((-1, 30), ((0, 6), (6, WIDTH))),
        ((40, -1), ((5, HEIGHT), (0, 7))),
        ((5, 30), ((5, 6), (6, WIDTH))),
    ],
    ids=["below, on the right", "above, on the right", "below, on the left", "on the right"],
)
def test_a_drag_that_leaves_the_image_stops_at_its_edge(painter, end, expected):
    pointer(painter, 5, 6, pressed=True)
    pointer(painter, *end, pressed=False)
    assert rectangle(painter) == expected


@pytest.mark.parametrize(("row", "column"), [(-1, 4), (HEIGHT, 4), (4, WIDTH), (4, -1), (4, 20)])
def test_a_drag_from_outside_of_the_image_is_ignored(painter, row, column):
    start = painter.picture.value
    pointer(painter, row, column, pressed=True)
    pointer(painter, 5, 6, pressed=False)
    pointer(painter, 8, 9, pressed=False)
    assert painter.picture.value == start
    pointer(painter, 8, 9, pressed=True)
    assert rectangle(painter) == ((8, 9), (9, 10)), "the next one is not"


def test_what_is_hidden_stands_under_the_mouse(completer, classifier):
    """On a white image, only the hidden rectangle is tinted."""
    white = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.uint8)
    painter = completion_explorer(completer, white, classifier)
    pointer(painter, 9, 7, pressed=True)
    pointer(painter, 4, 3, pressed=False)
    left = (0, TOP, WIDTH * ZOOM + 3, TOP + HEIGHT * ZOOM + 3)
    page = np.asarray(crop(painter, left)).astype(int)
    y, x = np.nonzero(page[:, :, 1] - page[:, :, 0] > 5)
    assert (x.min(), x.max()) == pytest.approx((3 * ZOOM, 8 * ZOOM), abs=4)
    assert (y.min(), y.max()) == pytest.approx((4 * ZOOM, 10 * ZOOM), abs=4)


def test_buttons_of_the_completions(painter):
    buttons = {
        "Cacher la droite": ((0, HEIGHT), (WIDTH // 2, WIDTH)),
        "Cacher la gauche": ((0, HEIGHT), (0, WIDTH // 2)),
        "Cacher le bas": ((HEIGHT // 2, HEIGHT), (0, WIDTH)),
    }
    assert painter.buttons.keys() == {"Autres tirages", *buttons}
    pictures = set()
    for label, expected in buttons.items():
        pointer(painter, 3, 2, pressed=True)
        painter.buttons[label].click()
        assert rectangle(painter) == expected
        pictures.add(painter.picture.value)
    assert len(pictures) == 3


@pytest.mark.parametrize(("seed", "following"), [(0, 1), (41, 42), (99, 0)])
def test_other_draws_are_those_of_the_next_seed(painter, seed, following):
    painter.set(seed=seed, number=2)
    before = painter.picture.value
    painter.buttons["Autres tirages"].click()
    assert painter.controls["seed"].value == following and painter.picture.value != before
    assert painter.controls["number"].value == 2


def test_reset_shows_the_first_completions_again(painter):
    start, first = painter.picture.value, values(painter)
    pointer(painter, 3, 2, pressed=True)
    painter.set(number=2, seed=12)
    assert painter.picture.value != start
    painter.reset_button.click()
    assert painter.picture.value == start and values(painter) == first


@pytest.mark.parametrize("draws", [1, 5, 16])
def test_the_number_of_completions(completer, images, classifier, completed, draws):
    painter = completion_explorer(completer, images, classifier, draws=draws)
    ((z, _),) = completed.received
    assert len(z) == draws
    assert f"le modèle imagine {draws} suite" in painter.children[0].value


def test_completions_of_grey_levels(classifier):
    torch.manual_seed(0)
    model = CompletionVAE((1, 8, 8), levels=5, likelihood="categorical", hidden=(8,))
    greys = torch.randint(5, (2, 1, 8, 8)).to(torch.uint8)
    painter = completion_explorer(model, greys, classifier)
    start = painter.picture.value
    painter.set(number=1)
    assert painter.picture.value != start


@pytest.mark.parametrize(
    "make",
    [
        lambda: CompletionVAE((3, HEIGHT, WIDTH)),
        lambda: VAE((1, HEIGHT, WIDTH)),
        lambda: CVAE((1, HEIGHT, WIDTH), num_classes=10),
        lambda: CVAE((1, HEIGHT, WIDTH), condition_shape=(2, HEIGHT, WIDTH)),
    ],
    ids=["colours", "no condition", "classes", "images, but a plain CVAE"],
)
def test_completions_need_a_completion_model_of_grey_images(make, images, classifier):
    with pytest.raises(ValueError, match=r"the demo needs a CompletionVAE\(\(1, H, W\)\)"):
        completion_explorer(make(), images, classifier)


def test_completions_need_the_levels_of_the_model(completer, images, classifier):
    with pytest.raises(ValueError, match="load the data set with levels=2"):
        completion_explorer(completer, 100 * images, classifier)


# ---- sampling_explorer ------------------------------------------------------------------------


HIGH, WIDE = 5, 6  # not square: rows are not columns
SIDE = 61  # of a pixel: 308 // 5
MIDDLE, RIGHT = WIDE * SIDE + 24, 2 * WIDE * SIDE + 48  # where the chances and the bars stand
DIMS = HIGH * WIDE
FOCUS = figures.COLORS["focus"]  # the pixel being drawn; the units that an output sees
WRITERS = ("NADE, lean", "MADE, 2 layers", "FVSBN", "table, order 3", "agnostic, 1 layer")


@pytest.fixture(scope="module")
def writers():
    """Models with random weights, each in its random ordering."""
    return {kind: build(kind, shape=(1, HIGH, WIDE)) for kind in WRITERS}


@pytest.fixture
def sampler(writers):
    return sampling_explorer(writers)


@pytest.fixture
def words(monkeypatch):
    """The texts written on the pictures from now on."""
    written, write = [], ImageDraw.ImageDraw.text

    def text(pen, where, what, **how):
        written.append(what)
        write(pen, where, what, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return written


def page_of(demo):
    return np.asarray(decode(demo.picture.value)).astype(int)


def in_color(page, color):
    """Where a page has exactly this colour."""
    return (page == np.round(255 * np.array(to_rgb(color)))).all(-1)


def panel(demo, left):
    """The colour in the middle of each pixel of an image that begins at the column `left`."""
    page = page_of(demo)[TOP + SIDE // 2 :: SIDE, left + SIDE // 2 :: SIDE]
    return page[:HIGH, :WIDE]


def sampled(model, seed=0, temperature=1.0):
    """The model's own image, and the probabilities that it met, both `(DIMS,)`."""
    x = model.sample(1, generator=seeded(seed), temperature=temperature)
    with torch.no_grad():
        logits = model.logits(x).flatten()
    p = torch.sigmoid(logits / temperature) if temperature else (logits > 0).float()
    return x.flatten(), p


def price(x, p):
    """−log of the probability of each pixel's value."""
    return -torch.where(x == 1, p, 1 - p).log()


def french(number, decimals):
    return f"{number:.{decimals}f}".replace(".", ",")


def test_the_controls_of_the_sampler(sampler):
    start = {"model": WRITERS[0], "step": 12, "temperature": 1.0, "seed": 0}  # two rows of pixels
    assert values(sampler) == start
    assert sampler.controls["model"].options == WRITERS
    assert (sampler.controls["step"].min, sampler.controls["step"].max) == (0, DIMS)
    first, second = sampler.children[1:-1]
    assert first.children == (sampler.play, sampler.controls["step"])
    expected = tuple(sampler.controls[k] for k in ("model", "temperature", "seed"))
    buttons = (sampler.buttons["Autre image"], sampler.reset_button)
    assert second.children == (*expected, *buttons)


def test_the_sampler_plays_all_the_pixels(sampler):
    play, step = sampler.play, sampler.controls["step"]
    assert (play.min, play.max, play.step, play.value) == (0, DIMS, 1, step.value)
    play.value = 30
    assert step.value == 30
    sampler.reset_button.click()


def test_every_control_of_the_sampler_changes_its_panels_and_not_its_size(sampler):
    changes = {"model": "FVSBN", "step": 20, "temperature": 0.3, "seed": 7}
    assert changes.keys() == sampler.controls.keys()
    pages = [decode(sampler.picture.value)]
    for name, value in changes.items():
        sampler.reset_button.click()
        sampler.controls[name].value = value
        pages.append(decode(sampler.picture.value))
    for left, right in ((0, MIDDLE - 1), (MIDDLE, RIGHT - 1), (RIGHT, pages[0].width)):
        panels = {page.crop((left, TOP, right, page.height)).tobytes() for page in pages}
        assert len(panels) == 1 + len(changes), left


def test_the_sampler_keeps_its_size(sampler):
    for model, step, temperature in itertools.product(WRITERS, (0, 1, DIMS), (0.0, 0.1, 2.0)):
        sampler.set(model=model, step=step, temperature=temperature, seed=9999)
        size = decode(sampler.picture.value).size
        assert size == (RIGHT + 262, TOP + HIGH * SIDE + 8)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(("seed", "temperature"), [(0, 1.0), (7, 0.4), (3, 0.0), (9999, 2.0)])
def test_the_last_step_shows_the_models_own_sample(sampler, writers, kind, seed, temperature):
    sampler.set(model=kind, step=DIMS, temperature=temperature, seed=seed)
    x, _ = sampled(writers[kind], seed, temperature)
    assert 0 < x.sum() < DIMS
    expected = 255 * (1 - x.view(HIGH, WIDE, 1).int()).expand(-1, -1, 3)
    assert (panel(sampler, 0) == expected.numpy()).all()


@pytest.mark.parametrize("step", [0, 1, 2, 12, 29, 30])
def test_pixels_come_in_the_order_of_the_visit(sampler, writers, step):
    """What is not drawn yet is grey, in both panels."""
    model = writers["MADE, 2 layers"]
    sampler.set(model="MADE, 2 layers", step=step, seed=2)
    x, p = sampled(model, 2)
    ink = torch.tensor(to_rgb(figures.COLORS["x"]))
    waiting = torch.ones(DIMS, dtype=torch.bool)
    waiting[model.ordering[:step]] = False
    for left, share, color in ((0, x, torch.zeros(3)), (MIDDLE, p, ink)):
        expected = 255 * (1 - share[:, None] * (1 - color))
        expected[waiting] = 0.93 * 255
        shown = torch.tensor(panel(sampler, left)).view(DIMS, 3)
        assert (shown - expected).abs().max() < 1


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_the_chances_are_those_at_this_temperature(sampler, writers, temperature):
    sampler.set(step=DIMS, temperature=temperature, seed=1)
    _, p = sampled(writers["NADE, lean"], 1, temperature)
    red = 255 * (1 - p.view(HIGH, WIDE))  # the ink has no red
    assert np.abs(panel(sampler, MIDDLE)[:, :, 0] - red.numpy()).max() < 1


@pytest.mark.parametrize("step", [1, 5, 30])
def test_the_current_pixel_is_framed_in_both_panels(sampler, writers, step):
    sampler.set(model="FVSBN", step=step)
    row, column = divmod(writers["FVSBN"].ordering[step - 1].item(), WIDE)
    for left in (0, MIDDLE):
        frame = in_color(page_of(sampler)[:, left : left + WIDE * SIDE + 4], FOCUS)
        y, x = np.nonzero(frame)
        assert (x.min(), x.max()) == pytest.approx((SIDE * column, SIDE * (column + 1)), abs=1)
        assert (y.min() - TOP, y.max() - TOP) == pytest.approx(
            (SIDE * row, SIDE * (row + 1)), abs=1
        )


@pytest.mark.parametrize(("step", "temperature"), [(1, 1.0), (12, 1.0), (12, 0.4), (30, 2.0)])
def test_two_bars_show_the_law_of_the_current_pixel(sampler, writers, step, temperature):
    """130 pixels for a probability of 1; the value drawn has the colour of x."""
    model = writers["NADE, lean"]
    sampler.set(step=step, temperature=temperature, seed=4)
    x, p = (each[model.ordering[step - 1]].item() for each in sampled(model, 4, temperature))
    for value, share in ((0, 1 - p), (1, p)):
        bar = page_of(sampler)[TOP + 20 : TOP + 190, RIGHT + 45 + 80 * value]
        color, other = ("x", "prior") if value == x else ("prior", "x")
        assert in_color(bar, figures.COLORS[color]).sum() == pytest.approx(130 * share, abs=1.5)
        assert not in_color(bar, figures.COLORS[other]).any()


@pytest.mark.parametrize(("step", "temperature"), [(1, 1.0), (12, 0.4), (29, 2.0), (30, 1.0)])
def test_the_bill_adds_the_price_of_each_pixel(sampler, writers, words, step, temperature):
    model = writers["NADE, lean"]
    sampler.set(step=step, temperature=temperature, seed=4)
    x, p = (each[model.ordering[:step]] for each in sampled(model, 4, temperature))
    paid, last = price(x, p), p[-1].item()
    expected = {f"pixel {step} sur {DIMS}", f"tiré : {x[-1]}", french(last, 2), french(1 - last, 2)}
    expected |= {f"coût : {french(paid[-1], 2)} nat", f"total : {french(paid.sum(), 1)} nats"}
    assert expected <= set(words)


def test_the_whole_bill_is_minus_log_p(sampler, writers, words):
    for seed, kind in enumerate(("NADE, lean", "MADE, 2 layers", "FVSBN", "table, order 3")):
        words.clear()
        sampler.set(model=kind, step=DIMS, seed=seed)
        x = writers[kind].sample(1, generator=seeded(seed))
        assert f"total : {french(-writers[kind].log_prob(x).item(), 1)} nats" in words


def test_the_most_probable_image_costs_nothing(sampler, words):
    sampler.set(step=DIMS, temperature=0.0)
    assert {"coût : 0,00 nat", "total : 0,0 nats", "1,00"} <= set(words)


def test_before_the_first_pixel_there_is_no_law(sampler, words):
    sampler.set(step=0)
    assert "aucun pixel tiré" in words and not any("nat" in word for word in words)
    page = page_of(sampler)
    assert not in_color(page, FOCUS).any()
    assert in_color(page[TOP + 40 :, RIGHT:], "white").all(), "no bar either"


def test_another_image_is_another_seed_at_the_same_settings(sampler, writers):
    sampler.set(model="FVSBN", step=20, temperature=0.5)
    pictures, seeds, before = {sampler.picture.value}, [], values(sampler)
    for _ in range(3):
        sampler.buttons["Autre image"].click()
        pictures.add(sampler.picture.value)
        seeds.append(sampler.controls["seed"].value)
        assert values(sampler) == before | {"seed": seeds[-1]}
    assert len(pictures) == 4
    twin = sampling_explorer(writers)
    for seed in seeds:
        twin.buttons["Autre image"].click()
        assert twin.controls["seed"].value == seed


def test_the_sampler_draws_the_same_image_again(sampler, writers):
    sampler.set(model="agnostic, 1 layer", step=25, seed=5)
    before = sampler.picture.value
    sampler.controls["seed"].value = 6
    assert sampler.picture.value != before
    torch.manual_seed(123)
    sampler.controls["seed"].value = 5
    assert sampler.picture.value == before
    twin = sampling_explorer(writers)
    twin.set(model="agnostic, 1 layer", step=25, seed=5)
    assert twin.picture.value == before


def test_reset_gives_the_first_image_back(sampler):
    start, first = sampler.picture.value, values(sampler)
    sampler.set(model="FVSBN", step=3, temperature=0.2)
    sampler.buttons["Autre image"].click()
    assert sampler.picture.value != start
    sampler.reset_button.click()
    assert sampler.picture.value == start and values(sampler) == first


def test_moving_along_an_image_does_not_sample_it_again(monkeypatch, sampler, writers):
    samples = Spy(monkeypatch, writers["NADE, lean"], "sample").returned
    for seed, step in ((1, 3), (1, 4), (1, 20), (2, 20), (1, 5)):
        sampler.set(seed=seed, step=step)
    assert len(samples) == 2


@pytest.mark.parametrize("kind", WRITERS)
def test_the_sampler_leaves_its_models_as_they_were(kind):
    model = build(kind, shape=(1, HIGH, WIDE))
    before = state_of(model)
    sampling_explorer({"seul": model}).set(step=DIMS, seed=8)
    assert same_state(state_of(model), before)


def test_the_temperature_may_start_elsewhere(writers):
    assert sampling_explorer(writers, temperature=0.5).controls["temperature"].value == 0.5


def test_the_sampler_refuses_other_models():
    grey = build("FVSBN", shape=(1, 4, 4))
    for models in (
        [build("FVSBN", shape=(3, 2, 2))],
        [grey, build("FVSBN", shape=(1, 4, 3))],
        [build("FVSBN", 3, shape=(1, 4, 4))],
        [grey, build("NADE, lean", 3, shape=(1, 4, 4))],
    ):
        with pytest.raises(ValueError, match=r"of the same grey images \(1, H, W\), without class"):
            sampling_explorer(dict(enumerate(models)))


# ---- mask_explorer ----------------------------------------------------------------------------


OUTPUTS = 5
MASKS = ("justes", "diapositive 13", "sans masque")
ORDERS = ("naturel", "au hasard")
FORBIDDEN, ALLOWED = "#E9A3A0", "#CFE8DC"  # cells of the table of paths


@pytest.fixture
def network():
    return mask_explorer(OUTPUTS, 7)


def unit(level, k, layers, count):
    """The centre of a unit: level 0 for the pixels, `layers + 1` for the outputs."""
    return round(70 + 520 * (k + 0.5) / count), round(350 - 300 / (layers + 1) * level)


def cells(demo, color, dims=OUTPUTS):
    """Which cells of the table of paths have this colour, `(outputs, pixels)`."""
    side = min(34, 220 // dims)
    page = page_of(demo)[73 : 73 + side * dims : side, 683 : 683 + side * dims : side]
    return in_color(page, color)


def redrawn(demo, words, **settings):
    """What is written on the new picture: degrees `(layers, units)`, ranks, numbers of paths."""
    demo.set(seed=999)  # another network: the table of this one is written again
    words.clear()
    demo.set(**{"seed": 3} | settings)
    rank = torch.tensor([int(word[5:]) for word in words if word.startswith("rang ")])
    counts = torch.tensor([int(word) for word in words if word.isdigit()])  # the table comes first
    paths, degrees = counts[: len(rank) ** 2], counts[len(rank) ** 2 :]
    layers = demo.controls["layers"].value
    return degrees.view(layers, -1), rank, paths.view(len(rank), -1)


def expected_paths(degrees, rank, masks):
    """The numbers of paths by the definition of the masks."""
    if masks == "sans masque":
        return torch.full((len(rank), len(rank)), degrees.shape[1] ** len(degrees))
    below, paths = rank, torch.eye(len(rank), dtype=torch.long)
    for m in degrees:
        paths, below = (m[:, None] >= below).long() @ paths, m
    kept = below > rank[:, None] if masks == "diapositive 13" else rank[:, None] > below
    return kept.long() @ paths


def test_the_controls_of_the_masks(network):
    start = {"output": 3, "layers": 1, "masks": "justes", "order": "naturel", "seed": 3}
    assert values(network) == start
    assert network.controls["masks"].options == MASKS
    assert network.controls["order"].options == ORDERS
    bounds = [(network.controls[k].min, network.controls[k].max) for k in ("output", "layers")]
    assert bounds == [(1, OUTPUTS), (1, 3)]
    first, second = network.children[1:-1]
    assert first.children == tuple(network.controls[k] for k in ("output", "layers"))
    controls = tuple(network.controls[k] for k in ("masks", "order", "seed"))
    assert second.children == (*controls, network.reset_button)


def test_every_control_changes_the_network_and_not_the_size(network):
    changes = {"output": 5, "layers": 2, "masks": "sans masque", "order": "au hasard", "seed": 8}
    assert changes.keys() == network.controls.keys()
    pictures = [network.picture.value]
    for name, value in changes.items():
        network.reset_button.click()
        network.controls[name].value = value
        pictures.append(network.picture.value)
    assert len(set(pictures)) == 1 + len(changes)
    assert {decode(png).size for png in pictures} == {(1000, 400)}


@pytest.mark.parametrize(("dims", "hidden"), [(2, 1), (3, 10), (8, 1), (8, 10)])
def test_networks_of_all_sizes_fit_in_the_same_picture(dims, hidden, words):
    network = mask_explorer(dims, hidden)
    assert network.controls["output"].value == min(3, dims)
    network.set(output=dims)
    for layers, masks, order in itertools.product((1, 2, 3), MASKS, ORDERS):
        drawn = redrawn(network, words, layers=layers, masks=masks, order=order)
        degrees, rank, paths = drawn
        assert decode(network.picture.value).size == (1000, 400)
        assert degrees.shape == (layers, hidden) and degrees.min() >= 1 and degrees.max() < dims
        assert sorted(rank.tolist()) == list(range(1, dims + 1))
        assert torch.equal(paths, expected_paths(degrees, rank, masks))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("masks", MASKS)
def test_the_table_counts_the_paths_and_tells_the_forbidden_ones(
    network, words, masks, order, layers
):
    orders = set()
    for seed in range(5):
        settings = {"masks": masks, "order": order, "layers": layers, "seed": seed}
        degrees, rank, paths = redrawn(network, words, **settings)
        orders.add(tuple(rank.tolist()))
        assert torch.equal(paths, expected_paths(degrees, rank, masks))
        forbidden = (paths > 0) & (rank[None, :] >= rank[:, None])
        allowed = (paths > 0) & ~forbidden
        assert (cells(network, FORBIDDEN) == forbidden.numpy()).all()
        assert (cells(network, ALLOWED) == allowed.numpy()).all()
        assert (cells(network, "white") == (paths == 0).numpy()).all()
        assert forbidden.any() == (masks != "justes")
        assert allowed.any()
    assert (len(orders) > 1) == (order == "au hasard")


def test_right_masks_are_strictly_triangular_in_any_order(network):
    """Without reading the ranks: no unit ever reaches itself, by any number of detours."""
    for layers, seed in itertools.product((1, 2, 3), range(10)):
        network.set(order="au hasard", layers=layers, seed=seed)
        sees = ~cells(network, "white")
        assert sees.any() and not np.linalg.matrix_power(sees.astype(int), OUTPUTS).any()


def test_the_slide_lets_a_pixel_see_itself(network):
    network.set(masks="diapositive 13")
    itself = cells(network, FORBIDDEN).diagonal()
    assert itself[0] and not itself[-1], "but not the last one, which sees nothing"


@pytest.mark.parametrize("output", [1, 2, 5])
@pytest.mark.parametrize("masks", MASKS)
def test_the_chosen_output_lights_what_it_sees(network, words, masks, output):
    settings = {"masks": masks, "output": output, "layers": 2, "order": "au hasard", "seed": 5}
    _, rank, paths = redrawn(network, words, **settings)
    seen = [k for k in range(OUTPUTS) if paths[output - 1, k]]
    page = page_of(network)
    for k in range(OUTPUTS):
        x, y = unit(0, k, 2, OUTPUTS)
        color = FOCUS if k in seen else figures.COLORS["x"]
        assert in_color(page[y, x - 13], color), k
        x, y = unit(3, k, 2, OUTPUTS)
        assert in_color(page[y, x - 13], FOCUS if k == output - 1 else "white"), k
    names = ", ".join(f"x{k + 1}" for k in seen) or "rien"
    assert f"x̂{output} voit : {names}" in words
    forbidden = ", ".join(f"x{k + 1}" for k in seen if rank[k] >= rank[output - 1])
    verdicts = [word for word in words if "interdit" in word]
    assert verdicts == [
        f"interdit : {forbidden}" if forbidden else "rien d'interdit : seulement des pixels d'avant"
    ]


def test_the_first_output_of_the_visit_lights_nothing_else(network):
    network.set(output=1)
    y, x = np.nonzero(in_color(page_of(network), FOCUS))
    centre = unit(2, 0, 1, OUTPUTS)
    assert np.hypot(x - centre[0], y - centre[1]).max() < 19
    network.set(output=2)
    y, x = np.nonzero(in_color(page_of(network), FOCUS))
    assert y.min() < 60 and y.max() > 340, "paths from the outputs down to the pixels"


def test_only_the_lines_to_the_chosen_output_are_lit(network):
    """Just under the outputs, where the lines of two outputs do not meet."""
    network.set(output=2, masks="sans masque")
    (out, top), below = unit(2, 1, 1, OUTPUTS), 20
    _, level = unit(1, 0, 1, 7)
    lines = [out + (unit(1, k, 1, 7)[0] - out) * below / (level - top) for k in range(7)]
    (lit,) = np.nonzero(in_color(page_of(network)[top + below], FOCUS))
    gaps = np.abs(lit[:, None] - np.array(lines))
    assert gaps.min(0).max() < 3, "every line that leads to it"
    assert gaps.min(1).max() < 4, "and no other"


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("shift", [(0, 0), (12, 12), (-30, 20)], ids=str)
def test_a_click_on_an_output_chooses_it(network, layers, shift):
    network.set(layers=layers, masks="sans masque")
    pictures = set()
    for k in (4, 0, 1, 2, 3):
        x, y = unit(layers + 1, k, layers, OUTPUTS)
        network._pointer(DOWN | {"dataX": x + shift[0], "dataY": y + shift[1]})
        assert network.controls["output"].value == k + 1
        pictures.add(network.picture.value)
    assert len(pictures) == OUTPUTS
    assert network.controls["layers"].value == layers


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_click_elsewhere_changes_nothing(network, layers):
    network.set(layers=layers)
    before = network.picture.value
    places = [unit(level, k, layers, 5) for level in range(layers + 1) for k in (0, 4)]
    for x, y in (*places, (700, 90), (800, 50), (640, 326), (999, 399), (-5, 50)):
        network._pointer(DOWN | {"dataX": x, "dataY": y})
        assert network.picture.value == before, (x, y)


def test_reset_gives_the_first_network_back(network):
    start, first = network.picture.value, values(network)
    network.set(output=1, layers=3, masks="diapositive 13", order="au hasard", seed=77)
    assert network.picture.value != start
    network.reset_button.click()
    assert network.picture.value == start and values(network) == first


def test_the_same_numbers_give_the_same_network(network):
    torch.manual_seed(123)
    network.set(order="au hasard", seed=41)
    twin = mask_explorer(OUTPUTS, 7)
    twin.set(order="au hasard", seed=41)
    assert twin.picture.value == network.picture.value
    assert mask_explorer().picture.value == mask_explorer(OUTPUTS, 7).picture.value


@pytest.mark.parametrize(("dims", "hidden"), [(1, 7), (9, 7), (5, 0), (5, 11)])
def test_the_masks_refuse_other_sizes(dims, hidden):
    with pytest.raises(ValueError, match=f"dims={dims}, hidden={hidden}: expected 2 to 8 pixels"):
        mask_explorer(dims, hidden)


# ---- both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sampler", "network"])
def test_autoregressive_demos_leave_the_global_random_stream_alone(request, name):
    demo = request.getfixturevalue(name)
    state = torch.get_rng_state()
    demo.set(seed=9)
    for button in demo.buttons.values():
        button.click()
    assert torch.equal(torch.get_rng_state(), state)


def test_autoregressive_demos_leave_no_open_figure(sampler, network):
    sampler.set(step=3)
    network.set(seed=9)
    assert plt.get_fignums() == []
