"""The demos of notebook 03b without a browser: painting by hand, and the receptive field."""

import math

import numpy as np
import pytest
import scene
import torch
from autoregressive_models import seeded
from demo_cases import PAINTED, painters

from course_utils import PixelCNN, figures
from course_utils.autoregressive.masked import MaskedConv2d
from course_utils.demos import field as fields
from course_utils.demos import painting, painting_explorer, receptive_field_explorer
from course_utils.evaluation import receptive_field

pytestmark = pytest.mark.usefixtures("no_screen")

# ---- painting_explorer ------------------------------------------------------------------------

WIDE, DIMS = 5, 20


@pytest.fixture(params=PAINTED)
def kind(request):
    return request.param


@pytest.fixture
def easel(kind):
    return painting_explorer(painters(kind))


@pytest.fixture
def binary():
    return painting_explorer(painters("binary"))


@pytest.fixture
def grey():
    return painting_explorer(painters("grey"))


def so_far(easel, name, x, levels, step):
    """Whether one of the two images is `x` `(C, H, W)`, grey after a step."""
    expected = scene.colors(x.float() / (levels - 1)).reshape(DIMS, 3)
    expected[step:] = 0.93 * 255
    return scene.same(scene.shown(easel, name).reshape(DIMS, 3), expected)


def drawn(model, seed=0, temperature=1.0, edits=None, label=None):
    """What the model paints around these edits: an image `(C, H, W)`, laws, costs."""
    values, laws, costs = painting._paint(model, label, temperature, seed, edits or {})
    return torch.from_numpy(values.T.reshape(model.shape)), laws, costs


def bill(costs, chosen):
    """The total of what was paid for so many values that the model chose, in words."""
    total, bits = costs.sum(), costs.sum() / math.log(2) / chosen
    words = f"total : {scene.amount(total, 1, 'nat')}"
    return {words, f"soit {scene.french(bits, 2)} bits/dim"}


@pytest.mark.parametrize("name", ["CNN", "LSTM"])
@pytest.mark.parametrize("temperature", [0.4, 1.0])
@pytest.mark.parametrize("edited", [(), (3, 12)], ids=["free", "edited"])
def test_what_is_painted_is_the_models_own_draw(kind, name, temperature, edited):
    """With the edits as known pixels, which cost nothing."""
    model = painters(kind)[name]
    label = None if model.num_classes is None else 2
    y = None if label is None else torch.tensor([label])
    edits = {pixel: (1,) * model.shape[0] for pixel in edited}
    x, laws, costs = drawn(model, 4, temperature, edits, label)
    mask = torch.zeros(DIMS, dtype=torch.bool)
    mask[list(edits)] = True
    mask = mask.view(model.shape[1:])
    how = {"given": mask.expand(1, *model.shape).to(torch.uint8), "mask": mask} if edits else {}
    own = model.sample(1, y, generator=seeded(4), temperature=temperature, **how)
    assert torch.equal(x[None], own) and len(x.unique()) > 1
    with torch.no_grad():
        logits = model.logits(own, y)[0].double()
    if model.levels == 2:
        logits = torch.stack([torch.zeros_like(logits), logits])
    expected = torch.softmax(logits / temperature, 0).flatten(2).permute(2, 1, 0)  # (D, C, levels)
    assert np.allclose(laws, expected, atol=1e-5)
    paid = -expected.gather(2, x.flatten(1).T[..., None].long())[..., 0].log().sum(1)
    paid[mask.flatten()] = 0
    assert np.allclose(costs, paid, atol=1e-4)
    if temperature == 1 and not edits:
        assert costs.sum() == pytest.approx(-model.log_prob(own, y).item(), rel=1e-4)


@pytest.mark.parametrize(("name", "step"), [("CNN", 1), ("LSTM", 2), ("CNN", 12), ("LSTM", DIMS)])
def test_the_easel_shows_and_bills_what_is_painted(easel, kind, name, step):
    """Both images, the law of the last pixel in bars, and what the pixels cost."""
    model, label = painters(kind)[name], step % 4 if kind == "classes" else None
    settings = {"model": name, "step": step, "temperature": 0.9, "seed": 7}
    said = scene.texts(easel, **settings, **({} if label is None else {"label": label}))
    x, laws, costs = drawn(model, 7, 0.9, label=label)
    for image in ("image", "untouched"):
        assert so_far(easel, image, x, model.levels, step)
        assert scene.framed(easel, image) == [step - 1]

    chosen = x.flatten(1)[:, step - 1].tolist()
    expected = {f"pixel {step} sur {DIMS}", f"tiré : {', '.join(map(str, chosen))}"}
    expected |= {f"coût : {scene.amount(costs[step - 1], 2, 'nat')}"}
    assert expected | bill(costs[:step], step * len(x)) <= set(said)
    assert not any("différent" in text for text in said)
    law = laws[step - 1]  # (C, levels)
    tints = ["#EDB5B0", "#A8D5B5", "#C3C4EE"] if len(law) == 3 else [figures.COLORS["prior"]]
    for channel, (shares, value, tint) in enumerate(zip(law, chosen, tints)):
        rises = scene.heights(easel, f"law {channel}", tint, figures.COLORS["x"])
        assert rises == pytest.approx(shares.tolist(), abs=0.02)
        assert scene.heights(easel, f"law {channel}", tint)[value] == 0, "it stands out"
        assert f"p({value}) = {scene.french(shares[value], 3)}" in said


def test_the_ends_of_the_bill(easel):
    said = scene.texts(easel, step=0)
    assert "aucun pixel peint" in said and not any("nat" in text for text in said)
    page, law = scene.page_of(easel), easel.panels["law 0"]
    assert (
        not scene.framed(easel, "image") and scene.in_color(page[:, law.left - 36 :], "white").all()
    )
    free = {"coût : 0,00 nat", "total : 0,0 nat", "soit 0,00 bits/dim"}
    assert free <= set(scene.texts(easel, step=DIMS, temperature=0.0)), "the most probable image"


def test_the_easel_plays_thirty_pixels_a_second(grey):
    assert grey.play.step * 1000 / grey.play.interval >= 30 and grey.controls["step"].step == 1


def brushed(easel, kind, model, seed=0):
    """A brush, and the values that it gives to the pixel (1, 2); without brush, it is flipped."""
    if kind == "binary":
        return (1 - int(drawn(model, seed)[0][0, 1, 2]),)
    brush, new = {
        "grey": (1, (1,)),
        "classes": (2, (2,)),
        "colour": ("#0055ff", (0, 1, 3)),
        "colour, two levels": ("#00ff99", (0, 1, 1)),
    }[kind]
    easel.controls["brush"].value = brush
    return new


def test_a_click_gives_a_pixel_another_value_and_the_model_goes_on(easel, kind):
    """The change costs nothing, is told, marked, and counted."""
    model, place = painters(kind)["CNN"], WIDE + 2
    label = 0 if kind == "classes" else None
    for seed in range(20):  # until some pixel after the change is another one
        new = brushed(easel, kind, model, seed)
        before, _, _ = drawn(model, seed, label=label)
        after, laws, costs = drawn(model, seed, edits={place: new}, label=label)
        if (after != before).flatten(1)[:, place + 1 :].any():
            break
    easel.set(step=15, seed=seed)
    said = scene.written(lambda: scene.click(easel, "image", place))
    assert easel.controls["step"].value == place + 1, "it is taken up again just after"
    assert easel.controls["edits"].value == f"{place + 1}={','.join(map(str, new))}"
    assert after[:, 1, 2].tolist() == list(new)
    assert not (after != before).flatten(1)[:, :place].any(), "what was painted before stays"
    assert (after != before).flatten(1)[:, place + 1 :].any()
    expected = {f"à la main : {', '.join(map(str, new))}", "coût : 0,00 nat"}
    expected |= bill(costs[: place + 1], place * len(after))
    expected |= {f"p({new[0]}) = {scene.french(laws[place, 0, new[0]], 3)}"}
    assert expected <= set(said)

    for step in (place + 1, place + 2, DIMS):
        said = scene.texts(easel, step=step)
        assert so_far(easel, "image", after, model.levels, step)
        assert so_far(easel, "untouched", before, model.levels, step)
        count = int((after != before).any(0).flatten()[:step].sum())
        many = "s" if count > 1 else ""
        told = {f"{count} pixel{many} différent{many}"} | bill(
            costs[:step], (step - 1) * len(after)
        )
        assert told <= set(said)
    assert scene.folded(easel, "image") == [place] and scene.folded(easel, "untouched") == []


def test_several_changes_are_kept_and_later_ones_are_forgotten(grey):
    model, edits = painters("grey")["CNN"], {}
    for pixel, brush, told in (
        (3, 1, "4=1"),
        (11, 4, "4=1 12=4"),
        (5, 0, "4=1 6=0"),
        (5, 2, "4=1 6=2"),
    ):
        grey.set(step=DIMS, brush=brush)
        scene.click(grey, "image", pixel)
        edits = {k: v for k, v in edits.items() if k < pixel} | {pixel: (brush,)}
        assert grey.controls["edits"].value == told
        grey.set(step=DIMS)
        assert so_far(grey, "image", drawn(model, edits=edits)[0], model.levels, DIMS)


def test_a_binary_pixel_is_flipped_and_flipped_back(binary):
    """From what it is after the changes before it."""
    model, edits = painters("binary")["LSTM"], {}
    for pixel in (0, 4, 8, 19):
        binary.set(model="LSTM", seed=2, step=DIMS)
        value = 1 - int(drawn(model, 2, edits=edits)[0].flatten()[pixel])
        for flipped in (value, 1 - value, value):
            scene.click(binary, "image", pixel)
            edits[pixel] = (flipped,)
            assert binary.controls["edits"].value.split()[-1] == f"{pixel + 1}={flipped}"
            assert so_far(binary, "image", drawn(model, 2, edits=edits)[0], 2, pixel + 1)


def test_the_button_changes_the_last_pixel(easel, kind):
    brushed(easel, kind, painters(kind)["CNN"])
    easel.set(step=9)
    twin = easel.picture.value
    easel.buttons["change"].click()
    changed, state = easel.picture.value, scene.values(easel)
    assert changed != twin and state["step"] == 9 and state["edits"].startswith("9=")
    told = [scene.heights(easel, "law 0", figures.COLORS[color]) for color in ("focus", "x")]
    assert any(told[0]) and not any(told[1]), "it is not the model that chose"
    easel.set(edits="")
    scene.click(easel, "image", 8)
    assert (easel.picture.value, scene.values(easel)) == (changed, state)


def test_nothing_is_changed_before_a_pixel_is_painted_nor_by_a_drag(binary):
    binary.set(step=0)
    state = scene.values(binary)
    binary.buttons["change"].click()
    assert scene.values(binary) == state
    binary.set(step=12)
    scene.click(binary, "image", 12)  # not painted yet: the drag begins there
    scene.click(binary, "image", 11, scene.DRAG)
    assert scene.values(binary) == state | {"step": 12}


def test_changes_are_erased_and_have_no_effect_before_their_pixel(grey):
    grey.set(step=4)
    before = grey.picture.value
    grey.set(edits="5=0 9=2")
    assert grey.picture.value == before
    grey.set(step=15)
    assert grey.picture.value != before
    grey.buttons["clear"].click()
    assert (grey.controls["edits"].value, grey.controls["step"].value) == ("", 15)
    grey.set(step=4)
    assert grey.picture.value == before


@pytest.mark.parametrize(
    ("kind", "brush", "new", "swatch"),
    [
        ("colour", "white", "3,3,3", (255, 255, 255)),
        ("colour", "#000", "0,0,0", (0, 0, 0)),
        ("colour", "#808000", "2,2,0", (170, 170, 0)),
        ("colour", "#104a60", "0,1,1", (0, 85, 85)),
        ("grey", 1, "1", (191, 191, 191)),
    ],
)
def test_the_brush_is_brought_to_the_nearest_level_and_shown_so(kind, brush, new, swatch):
    easel = painting_explorer(painters(kind))
    easel.set(brush=brush)
    assert (scene.page_of(easel)[15, easel.panels["image"].right - 12] == swatch).all()
    scene.click(easel, "image", 0)
    assert easel.controls["edits"].value == f"1={new}"


@pytest.mark.parametrize(
    ("shape", "levels"),
    [((1, 28, 28), 2), ((3, 14, 3), 17), ((1, 3, 20), 256)],
)
def test_images_of_all_shapes_fit(shape, levels):
    model = PixelCNN(shape, levels=levels, features=6, layers=1)
    easel = painting_explorer({"": model})
    easel.set(step=shape[1] * shape[2])
    easel.buttons["change"].click()
    width, height = scene.decode(easel.picture.value).size
    assert width <= 1000 and height == 350


# ---- receptive_field_explorer -----------------------------------------------------------------

SIDE = 13
READ, RED, FAR = figures.COLORS["x"], "#B3261E", fields.TOO_FAR
GATED = "à portes (deux piles)"


@pytest.fixture(scope="module")
def remembered():
    return receptive_field_explorer()


@pytest.fixture
def field(remembered):
    remembered.reset_button.click()
    return remembered


def tinted(field, color):
    """Where the grid has this colour, off the edges and off the hatches."""
    corners = [field.panels["grid"].box(cell)[:2] for cell in scene.cells(field.panels["grid"])]
    page = np.array([scene.page_of(field)[y + 10, x + 10] for x, y in corners])
    return scene.in_color(page, color).reshape(SIDE, SIDE)


def hatched(field):
    """Cells with dark lines."""
    grid = field.panels["grid"]
    page = scene.in_color(scene.page_of(field)[: grid.bottom, : grid.right], "#444444")
    return page.reshape(SIDE, grid.side, SIDE, grid.side).sum((1, 3)) > 40


def before(row, column):
    """Pixels that come before one in the raster order."""
    return np.arange(SIDE**2).reshape(SIDE, SIDE) < row * SIDE + column


def measured(layers, kernel, gated, pixel, kinds=("A", "B"), residual=True):
    """What a real PixelCNN reads, by its gradients: `(SIDE, SIDE)` booleans."""
    torch.manual_seed(0)
    model = PixelCNN(
        (1, SIDE, SIDE), gated=gated, layers=layers, first_kernel_size=kernel, kernel_size=kernel,
        features=8,
    )  # fmt: skip
    for number, layer in enumerate(model.layers):
        conv = layer.horizontal if gated else layer.conv
        like = MaskedConv2d(
            kinds[number > 0], conv.mask.shape[1], 8, kernel, repeats=1 + gated,
            rows_above=0 if gated else None,
        )  # fmt: skip
        conv.mask = like.mask
        layer.first = layer.first or not residual
    return receptive_field(model.feature_maps, (1, SIDE, SIDE), pixel)[0].numpy()


@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (6, 3), (2, 5), (4, 7)])
@pytest.mark.parametrize("masks", fields.MASKS)
def test_the_field_is_that_of_a_real_pixelcnn(field, masks, layers, kernel, gated):
    """A pixel before the output is read, in the blind spot or too far; what is not is told."""
    network, kinds = GATED if gated else "simple", fields.MASKS[masks]
    field.set(layers=layers, kernel=kernel, network=network, masks=masks)
    for row, column in ((6, 6), (0, 0), (0, 12), (12, 12), (5, 11), (9, 1)):
        said = scene.texts(field, row=row, column=column)
        expected = measured(layers, kernel, gated, (row, column), kinds, masks == "A puis B")
        past, forbidden = before(row, column), expected & ~before(row, column)
        read, far, blind = tinted(field, READ), tinted(field, FAR), hatched(field)
        assert (read == expected & past).all(), (row, column)
        assert (tinted(field, RED) == forbidden).all()
        assert forbidden[row, column] == (masks == "B partout") and forbidden.sum() <= 1
        later = tinted(field, figures.LATER) | tinted(field, RED)
        assert (read.astype(int) + far + blind + later == 1).all() and (later == ~past).all()
        deeper = [
            fields._pixels_read((kinds[0],) + (kinds[1],) * n, kernel, gated, (row, column))
            for n in range(layers - 1, layers + 30)
        ]
        assert (blind == past & ~np.any(deeper, 0)).all(), "what more layers would not show"
        assert {
            f"lus : {read.sum()} sur {past.sum()}",
            f"angle mort : {blind.sum()}",
            f"trop loin : {far.sum()}",
            f"interdit, mais lu : {forbidden.sum()}",
        } <= set(said)
        assert scene.framed(field, "grid") == [row * SIDE + column]


def test_with_residual_links_the_mask_a_everywhere_would_change_nothing():
    """What the docstring says of the links."""
    for gated in (False, True):
        right = measured(4, 3, gated, (6, 6))
        assert (measured(4, 3, gated, (6, 6), "AA") == right).all()
        assert (measured(4, 3, gated, (6, 6), "AA", residual=False) != right).any()


BLIND = "même avec plus de couches, "
VERDICTS = [
    ({}, f"Un angle mort de 15 pixels : {BLIND}ils restent invisibles."),
    ({"row": 1, "column": 10}, f"Un angle mort de 1 pixel : {BLIND}il reste invisible."),
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


@pytest.mark.parametrize(("settings", "verdict"), VERDICTS)
def test_the_verdict_is_one_sentence_whose_lines_are_cut(field, settings, verdict):
    said = scene.texts(field, **settings)
    assert said[said.index("la sortie") + 1].replace("\n", " ") == verdict


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
def test_the_kernels_are_written_in_ones_and_zeros(field, network, kernel, masks, expected):
    said = scene.texts(field, network=network, kernel=kernel, masks=masks, row=5)
    after = said[said.index("la sortie") :]
    assert "".join(text for text in after if text in ("0", "1")) == expected


def test_a_drag_chooses_the_output_as_a_click_does(field):
    scene.click(field, "grid", 0)
    for row, column in ((0, 0), (12, 12), (3, 9), (9, 3)):
        scene.click(field, "grid", row * SIDE + column, scene.DRAG)
        assert (field.controls["row"].value, field.controls["column"].value) == (row, column)
