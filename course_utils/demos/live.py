"""The one way a demo is made: controls (and the mouse) in, one PNG out.

Every demo goes through `LivePicture`: a function draws a PIL image from the values of the
controls, and its PNG replaces the bytes of one `Image` widget of fixed size. No figure is shown
inside an Output widget: that flickers, leaks and, without a browser, can hang.
"""

import base64
import functools
import io
import math
from pathlib import Path

import ipywidgets as widgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from ipyevents import Event
from IPython import get_ipython
from PIL import Image, ImageFont

from .. import figures

CANVAS = 308  # pixels: side of the image being drawn
TOP = 30  # height of the titles above the panels
WAITING = (0.93, 0.93, 0.93)  # a pixel not drawn yet
FOCUS = figures.COLORS["focus"]
FOCUS_TEXT = "#7A5B00"  # the same, dark enough to read

RESET = "Revenir au départ"
# The raised handle of an upright slider leaves its name readable.
UPRIGHT = "<style>.course-demo .widget-vslider .slider-container {margin-top: 10px}</style>"

# On a projector: captions and controls larger, and the picture as large as fits under them.
ZOOMS = (1.3, 1.15, 1.0)  # the first that leaves the picture its size
SCREEN = (figures.SCREEN[0], 590)  # pixels left to a demo whose code is folded
LARGER = "<style>.course-demo > .widget-hbox, .course-demo > .widget-html {{zoom: {}}}</style>"


def to_png(image):
    """PIL image -> PNG bytes, compressed little: a demo writes one at each move."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def to_pil(page, zoom=1):
    """Array `(H, W, 3)` in [0, 1] -> PIL image, every pixel enlarged `zoom` times."""
    image = Image.fromarray((np.clip(page, 0, 1) * 255).round().astype(np.uint8))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


def on_a_projector(size, caption, lines):
    """How a demo fills the screen of a projector: zoom of its controls, scale of its picture.

    Args:
        size: width and height of the picture, in pixels.
        caption, lines: the text and the lines of controls above it.
    """
    for zoom in ZOOMS:
        width = SCREEN[0] / zoom
        above = 30 * math.ceil(9 * len(caption) / width) + sum(
            _height(line, width) for line in lines
        )
        scale = min(1.5, SCREEN[0] / size[0], (SCREEN[1] - zoom * above) / size[1])
        if scale >= 1:
            break
    return zoom, scale


def _height(line, width):
    """Height of a line of controls that wraps at this width, in pixels."""
    widths, heights = zip(*(_pixels(control) for control in line))
    return math.ceil(sum(widths) / width) * max(heights)


def _pixels(control):
    """Width and height of a control: those of its layout, else those it has by default."""
    if isinstance(control, widgets.VBox):
        widths, heights = zip(*map(_pixels, control.children))
        return max(widths), sum(heights)
    default = {widgets.Button: 160, widgets.Play: 130, widgets.ToggleButtons: 360}
    asked = control.layout.width, control.layout.height
    width, height = (int(a[:-2]) if a and a.endswith("px") else None for a in asked)
    return width or default.get(type(control), 310), (height or 28) + 4


@functools.cache
def font(size):
    """The typeface of the figures, for texts in a PIL image; `size` in pixels."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), size)


def decimal(value, digits=2):
    """A number as French writes it: 0,25."""
    return f"{value:.{digits}f}".replace(".", ",")


def amount(value, digits, unit):
    """A number and its unit: 1,5 nat, 2,0 nats."""
    return f"{decimal(value, digits)} {unit}{'s' if value >= 2 else ''}"


def draw_offline(paint, size):
    """Draw on a matplotlib figure of `size` (width, height) pixels without showing it.

    Args:
        paint: function of the figure.

    Returns:
        the PIL image.
    """
    with plt.ioff():
        figure = plt.figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
        try:
            paint(figure)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=100)
        finally:
            plt.close(figure)
    return Image.open(buffer).convert("RGB")


class LivePicture(widgets.VBox):
    """Controls above a picture that follows them.

    Args:
        draw: function of the controls' values (by name) returning a PIL image, always of the
            same size.
        controls: `{name: widget}`, in the order of `draw`'s arguments.
        caption: one French sentence that says what to try.
        on_pointer: function `(x, y, pressed)` of a click or a drag, in pixels of the picture,
            returning the new values of some controls as a dict (or an empty one); `pressed` is
            True for the click and False while the mouse is dragged.
        buttons: `{label: function}`; a click calls the function, which returns the new values
            of some controls as a dict.
        rows: names of the controls laid out on each line, `[["a", "b"], ["c"]]`, a list among
            them being a column, `[["a", ["b", "c"]]]`; by default all on one line, which wraps.
            Buttons are named by their labels; those not named end the last line.
        play: name of an `IntSlider` that a play button moves on its own, step by step.
        pace: steps of that slider at each tick of the play button, every 80 ms.
    """

    def __init__(
        self,
        draw,
        controls,
        *,
        caption,
        on_pointer=None,
        buttons=None,
        rows=None,
        play=None,
        pace=1,
    ):
        self.draw, self.controls, self.on_pointer = draw, controls, on_pointer
        self._dragging = False
        self._quiet = False  # True while `set` moves several controls
        self._played = play
        self._start = {name: control.value for name, control in controls.items()}
        first = draw(**self._start)
        self.picture = widgets.Image(
            value=to_png(first),
            format="png",
            layout={"width": f"{first.width}px", "height": f"{first.height}px", "flex": "0 0 auto"},
        )
        self.reset_button = widgets.Button(description=RESET, icon="undo", layout={"width": "auto"})
        self.reset_button.on_click(lambda _: self.set(**self._start))
        self.buttons = {}
        for label, new_values in (buttons or {}).items():
            button = widgets.Button(description=label, layout={"width": "auto"})
            button.on_click(lambda _, new_values=new_values: self.set(**new_values()))
            self.buttons[label] = button
        for control in controls.values():
            control.observe(self._redraw, "value")
        if on_pointer is not None:
            self._events = Event(
                source=self.picture,
                watched_events=["mousedown", "mousemove"],
                prevent_default_action=True,
                wait=30,
                throttle_or_debounce="throttle",
            )
            self._events.on_dom_event(self._pointer)
        self._caption = caption
        parts = controls | self.buttons | {RESET: self.reset_button}
        lines = []
        for names in rows or [list(controls)]:
            lines.append([_take(parts, name) for name in names])
        if play is not None:
            if play not in controls or not any(controls[play] in line for line in lines):
                raise ValueError(f"play={play!r}: expected the name of a slider laid out in rows")
            if pace < 1:
                raise ValueError(f"pace={pace}: expected at least one step at each tick")
            self.play = self._play_button(controls[play], pace)
            line = next(line for line in lines if controls[play] in line)
            line.insert(line.index(controls[play]), self.play)
        lines[-1] += [part for part in parts.values() if isinstance(part, widgets.Button)]
        text = f"<i>{caption}</i>{UPRIGHT}"
        if figures.PROJECTION:
            zoom, scale = on_a_projector(first.size, caption, lines)
            text += LARGER.format(zoom)
            self.picture.layout.width = f"{round(scale * first.width)}px"
            self.picture.layout.height = f"{round(scale * first.height)}px"
        lines = [widgets.HBox(line, layout={"flex_flow": "row wrap"}) for line in lines]
        super().__init__([widgets.HTML(text), *lines, self.picture])
        self.add_class("course-demo")
        self._all_parts = list(_parts(self))[:-1]  # the last one is this
        if on_pointer is not None:
            self._all_parts.append(self._events)
        _replace_those_of_this_cell(self)

    def close(self):
        """Close the demo with all its parts: neither the browser nor an event knows them still."""
        for part in getattr(self, "_all_parts", ()):  # none if the demo could not be made
            part.unobserve_all()
            part.close()
        super().close()

    @staticmethod
    def _play_button(slider, pace):
        """Play, pause, stop: moves the slider step by step, as a hand would."""
        step = pace * slider.step
        # The button stops before a step that would pass its maximum. This one lets the last step
        # pass the end of the slider, which stays there: none of its values is out of reach.
        last = slider.max + step - slider.step
        play = widgets.Play(value=slider.value, min=slider.min, max=last, step=step, interval=80)
        play.show_repeat = False
        # Here and not by `jslink`, in the browser: a move of the slider would send two messages,
        # the button's first, and wait for it (almost 30 ms).
        play.observe(lambda change: slider.set_trait("value", change["new"]), "value")
        return play

    def set(self, **values):
        """Give several controls their values and redraw once."""
        self._quiet = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._quiet = False
        self._redraw()

    def _redraw(self, _change=None):
        if not self._quiet:
            values = {name: control.value for name, control in self.controls.items()}
            self.picture.value = to_png(self.draw(**values))
            if self._played is not None:  # it goes on from where the hand has put its slider
                self.play.value = self.controls[self._played].value

    def _pointer(self, event):
        pressed = event["type"] == "mousedown"
        # A drag counts when it began on the picture, and until the button is released.
        self._dragging = pressed or (self._dragging and bool(event.get("buttons")))
        if self._dragging:
            values = self.on_pointer(event["dataX"], event["dataY"], pressed)
            if values:
                self.set(**values)

    def _repr_mimebundle_(self, **kwargs):
        """The widget, and a still picture for readers without a kernel (GitHub, HTML pages)."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        data = dict(data) | {"text/plain": f"[démo] {self._caption}"}
        data["image/png"] = base64.b64encode(self.picture.value).decode()
        return data, metadata


def _take(parts, name):
    """The part of this name, taken from the others; a list of names gives a column."""
    if isinstance(name, str):
        return parts.pop(name)
    return widgets.VBox([parts.pop(each) for each in name])


def _parts(widget):
    """A widget, those it contains, and their layouts and styles, which are widgets too."""
    for child in getattr(widget, "children", ()):
        yield from _parts(child)
    yield from filter(None, (getattr(widget, name, None) for name in ("layout", "style")))
    yield widget


_demos = {}  # of each cell of the notebook: its execution, and the demos it made


def _replace_those_of_this_cell(demo):
    """A cell that is run again closes the demos of its previous run: nobody sees them any more."""
    shell = get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = request.get("metadata", {}).get("cellId")
    if cell is None:  # no notebook
        return
    execution = request["header"]["msg_id"]
    previous, demos = _demos.get(cell, (execution, []))
    if previous != execution:
        for old in demos:
            old.close()
        demos = []
    _demos[cell] = execution, [*demos, demo]


# ---------------------------------------------------------------------------------------------
# Drawings that several demos have
# ---------------------------------------------------------------------------------------------


def cell_box(number, width, side, x=0, top=TOP):
    """Where a cell of a grid, `width` in a row, stands in the picture: a box."""
    row, column = divmod(number, width)
    left, top = x + side * column, top + side * row
    return left, top, left + side, top + side


def mark(pen, box):
    """What was changed by hand, a pixel or a code, has a corner turned down."""
    left, top, right, _ = box
    fold = max(5, 0.42 * (right - left))
    pen.polygon([(left, top), (left + fold, top), (left, top + fold)], fill=FOCUS)
    pen.line([left + fold, top, left, top + fold], fill="white")


def axis(pen, corner, size, height=12):
    """The lines 0, ½ and 1 of a chart; `corner`: its lower left one; `height` of the texts."""
    (x, floor), (width, full) = corner, size
    for share, text in ((0, "0"), (0.5, "0,5"), (1, "1")):
        y = floor - round(full * share)
        pen.line([x, y, x + width, y], fill="#888888" if share == 0 else "#E3E3E3")
        if full > 100:
            pen.text((x - 6, y), text, fill="#888888", font=font(height), anchor="rm")


def bars(pen, corner, size, law, drawn, colors, *, labels=None, note=None):
    """A bar per level; that of the value drawn has another colour, and its height in figures.

    Args:
        corner, size: lower left corner of the chart; its width, and the height of a bar of 1.
        law: heights in [0, 1].
        drawn: number of the bar that stands out.
        colors: of the other bars, and of that one.
        labels: texts under the bars, their numbers by default.
        note: text above that bar, its probability by default.
    """
    (x, floor), (width, full) = corner, size
    slot = width / len(law)
    half = max(0.5, min(0.36 * slot, 28))  # of a bar
    every = math.ceil(20 / slot)  # labels that would touch each other are left out
    middles = [x + slot * (level + 0.5) for level in range(len(law))]
    rises = [round(full * share) for share in law]
    for level, (middle, rise) in enumerate(zip(middles, rises)):
        if rise:
            box = [middle - half, floor - rise, middle + half, floor - 1]
            pen.rectangle(box, colors[level == drawn])
        if level % every == 0:
            ink = figures.COLORS["truth"]
            label = str(level) if labels is None else labels[level]
            pen.text((middle, floor + 9), label, fill=ink, font=font(12), anchor="mt")

    middle, color = middles[drawn], colors[True]
    pen.polygon([(middle, floor + 1), (middle - 4, floor + 5), (middle + 4, floor + 5)], color)
    text = f"p({drawn}) = {decimal(law[drawn], 3)}" if note is None else note
    reach = font(14).getlength(text) / 2
    at = min(max(middle, x + reach), x + width - reach)
    # above its bar, and above those beside it that the text would cover
    rise = max(r for r, m in zip(rises, middles) if abs(m - at) < reach + half)
    ink = FOCUS_TEXT if color == FOCUS else color
    pen.text((at, floor - rise - 3), text, fill=ink, font=font(14), anchor="mb")


# ---------------------------------------------------------------------------------------------
# The check in the cell after a demo
# ---------------------------------------------------------------------------------------------


def check_moves(demo, *moves):
    """Each move, a dict of new values of controls, changes the picture; then the demo is reset."""
    for values in moves:
        before = demo.picture.value
        demo.set(**values)
        assert demo.picture.value != before, values
    demo.reset_button.click()


# ---------------------------------------------------------------------------------------------
# Controls that several demos have
# ---------------------------------------------------------------------------------------------


def temperature_slider(value):
    return widgets.FloatSlider(
        value=value, min=0.0, max=2.0, step=0.1, description="température",
        readout_format=".1f", layout={"width": "270px"}, style={"description_width": "initial"},
    )  # fmt: skip


def seed_box():
    return widgets.BoundedIntText(
        value=0, min=0, max=9999, description="tirage", layout={"width": "150px"}
    )


def class_box(num_classes):
    return widgets.BoundedIntText(
        value=0, min=0, max=num_classes - 1, description="classe", layout={"width": "150px"}
    )


def edits_box():
    """What was changed by hand is a control as well: « Revenir au départ » forgets it."""
    return widgets.Text(
        value="", disabled=True, description="retouches", placeholder="aucune",
        layout={"width": "250px"},
    )  # fmt: skip


def read_edits(text):
    """`"28=1 36=0"` -> `{27: (1,), 35: (0,)}`: pixels are counted from 1, as on the slider."""
    pairs = [edit.split("=") for edit in text.split()]
    return {int(pixel) - 1: tuple(map(int, values.split(","))) for pixel, values in pairs}


def write_edits(edits):
    return " ".join(f"{pixel + 1}={','.join(map(str, values))}" for pixel, values in edits.items())
