"""The demos of notebook 03b: painting with a model, and the pixels that an output reads."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from course_utils import FVSBN, PixelCNN
from course_utils.demos import painting_explorer, receptive_field_explorer
from course_utils.demos.pixels import _pixels_read
from course_utils.evaluation import receptive_field

TOP, SIDE = 30, 51  # where the image begins; side of a pixel of a 5×6 image: 308 // 6


def small(shape=(1, 5, 6), **options):
    torch.manual_seed(0)
    options = {"features": 6, "layers": 2, "first_kernel_size": 3, "gated": False} | options
    model = PixelCNN(shape, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


MODELS = {
    "binary": small(),
    "grey": small(levels=5),
    "colour": small((3, 5, 6), levels=4),
    "classes": small(num_classes=3),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def page(demo):
    return np.asarray(Image.open(io.BytesIO(demo.picture.value)).convert("RGB")).astype(int)


def shown(demo):
    """The colour in the middle of each pixel of the image on the left."""
    return page(demo)[TOP + SIDE // 2 :: SIDE, SIDE // 2 :: SIDE][:5, :6]


def expected(x, levels):
    """The colours of an image `(C, H, W)`: dark ink on white paper, or its own."""
    x = x.permute(1, 2, 0).numpy() / (levels - 1)
    return 255 * np.repeat(1 - x, 3, 2) if x.shape[2] == 1 else 255 * x


def own_sample(model, seed=0, **options):
    y = None if model.num_classes is None else torch.tensor([0])
    return model.sample(1, y, generator=torch.Generator().manual_seed(seed), **options)[0]


def test_the_last_step_shows_the_models_own_sample(model):
    demo = painting_explorer({"a": model})
    for seed, temperature in ((0, 1.0), (7, 0.5), (3, 0.0)):
        demo.set(step=30, seed=seed, temperature=temperature)
        x = own_sample(model, seed, temperature=temperature)
        assert np.abs(shown(demo) - expected(x, model.levels)).max() <= 1


def test_every_control_changes_the_picture_and_not_its_size(model):
    demo = painting_explorer({"a": model, "b": small(model.shape, levels=model.levels,
                              num_classes=model.num_classes, layers=3)})  # fmt: skip
    demo.set(step=30)
    start = page(demo)
    changes = {"model": "b", "temperature": 0.1, "seed": 5, "step": 12}
    if model.num_classes:
        changes["label"] = 2
    for name, value in changes.items():
        before = demo.controls[name].value
        demo.controls[name].value = value
        assert page(demo).shape == start.shape
        assert (page(demo) != start).any(), name
        demo.controls[name].value = before
        assert (page(demo) == start).all()


def click(demo, row, column):
    demo.set(**demo.on_pointer(SIDE * column + 20, TOP + SIDE * row + 20, True))


def test_a_click_changes_a_pixel_and_the_model_goes_on():
    model = MODELS["binary"]
    demo = painting_explorer({"a": model})
    demo.set(step=30)
    before = own_sample(model)
    click(demo, 2, 3)
    assert demo.controls["step"].value == 2 * 6 + 3 + 1
    demo.set(step=30)
    given, mask = before.clone(), torch.zeros(5, 6, dtype=torch.bool)
    given[0, 2, 3], mask[2, 3] = 1 - before[0, 2, 3], True
    after = own_sample(model, given=given[None], mask=mask)
    assert torch.equal(after.flatten()[:15], before.flatten()[:15])
    image = page(demo)[TOP + 12 :: SIDE, 12::SIDE][:5, :6]  # away from the mark of the edit
    assert np.abs(image - expected(after, 2)).max() <= 1
    demo.reset_button.click()
    assert demo.controls["edits"].value == ""


def test_an_edit_forgets_those_that_come_later_and_only_painted_pixels_change():
    demo = painting_explorer({"a": MODELS["grey"]})
    demo.set(step=20, brush=4)
    click(demo, 4, 0)  # not painted yet
    assert demo.controls["edits"].value == "" and demo.controls["step"].value == 20
    click(demo, 2, 0)
    demo.set(step=20)
    click(demo, 2, 5)
    assert demo.controls["edits"].value == "13=4 18=4"
    click(demo, 1, 1)
    assert demo.controls["edits"].value == "8=4" and demo.controls["step"].value == 8
    assert (shown(demo)[1, 1] == shown(demo)[1, 1].min()).all()


def test_buttons():
    demo = painting_explorer({"a": MODELS["grey"]})
    demo.set(step=10, brush=0)
    demo.buttons["Changer ce pixel"].click()
    assert demo.controls["edits"].value == "10=0" and demo.controls["step"].value == 10
    demo.buttons["Effacer les retouches"].click()
    assert demo.controls["edits"].value == ""
    demo.buttons["Changer ce pixel"].click()
    demo.buttons["Autre image"].click()
    assert demo.controls["edits"].value == "" and demo.controls["seed"].value != 0


def test_play_paints_several_pixels_per_tick():
    demo = painting_explorer({"a": MODELS["binary"]})
    assert demo.play.step * 1000 / demo.play.interval >= 30  # pixels per second
    assert demo.controls["step"].step == 1


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "at least one"),
        ({"a": FVSBN((1, 5, 6))}, "PixelModel"),
        ({"a": MODELS["binary"], "b": MODELS["grey"]}, "same images"),
        ({"a": small((2, 5, 6))}, "channels"),
    ],
)
def test_bad_models(models, message):
    with pytest.raises(ValueError, match=message):
        painting_explorer(models)


# ---- the receptive field ----------------------------------------------------------------------


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 5), (6, 3), (3, 7)])
@pytest.mark.parametrize("pixel", [(6, 6), (0, 5), (9, 0), (12, 12)])
def test_the_pixels_read_are_those_of_the_network(gated, layers, kernel, pixel):
    torch.manual_seed(0)
    model = PixelCNN((1, 13, 13), gated=gated, layers=layers, features=8,
                     kernel_size=kernel, first_kernel_size=kernel)  # fmt: skip
    measured = receptive_field(model.feature_maps, model.shape, pixel)[0]
    predicted = _pixels_read(("A",) + ("B",) * (layers - 1), kernel, gated, pixel)
    assert torch.equal(torch.as_tensor(np.asarray(predicted)).bool(), measured)


def test_the_field_explorer_moves():
    demo = receptive_field_explorer()
    start, moves = page(demo), [
        {"masks": "B partout"}, {"masks": "A partout"}, {"network": "à portes (deux piles)"},
        {"layers": 2}, {"kernel": 5}, {"row": 3}, {"column": 9},
    ]  # fmt: skip
    for values in moves:
        demo.set(**values)
        assert page(demo).shape == start.shape and (page(demo) != start).any(), values
        demo.reset_button.click()
        assert (page(demo) == start).all()
    assert demo.on_pointer(30 * 4 + 10, 30 * 2 + 10, True) == {"row": 2, "column": 4}


def test_no_figure_is_left():
    assert plt.get_fignums() == []
