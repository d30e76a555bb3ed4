"""The demos without a browser: controls in, PNG out."""

import base64
import io

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from course_utils import VAE, figures
from course_utils.demos import LivePicture, draw_offline, latent_explorer, to_pil, to_png

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


def test_controls_come_before_the_picture_and_under_the_caption():
    plain = Plain()
    caption, row, picture = plain.demo.children
    assert "Essayez !" in caption.value and picture is plain.demo.picture
    assert row.children == (*plain.controls.values(), plain.demo.reset_button)


def test_set_redraws_once():
    plain = Plain()
    plain.demo.set(red=30, blue=40)
    assert plain.drawn == [(10, 20), (30, 40)] and plain.shown() == (30, 0, 40)


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
        ({"type": "mousemove", "buttons": 1}, True),
        ({"type": "mousemove", "buttons": 0}, False),
        ({"type": "mousemove"}, False),
    ],
    ids=["click", "drag", "hover", "hover, old browser"],
)
def test_only_a_click_or_a_drag_moves_the_controls(event, moves):
    plain = Plain(on_pointer=lambda x, y: {"red": x, "blue": y})
    plain.demo._pointer(event | {"dataX": 50, "dataY": 60})
    assert plain.shown() == ((50, 0, 60) if moves else (10, 0, 20))
    assert len(plain.drawn) == (2 if moves else 1)


def test_a_pointer_outside_of_the_map_changes_nothing():
    plain = Plain(on_pointer=lambda x, y: {})
    plain.demo._pointer({"type": "mousedown", "dataX": 50, "dataY": 60})
    assert plain.drawn == [(10, 20)]


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
    explorer = latent_explorer(model, torch.tensor([[2.0, -1.0]]), torch.tensor([0]))
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
