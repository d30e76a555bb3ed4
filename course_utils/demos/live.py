"""The one way a demo is made: controls (and the mouse) in, one PNG out.

Every demo goes through `LivePicture`: a function draws a PIL image from the values of the
controls, and its PNG replaces the bytes of one `Image` widget of fixed size. No figure is shown
inside an Output widget: that flickers, leaks and, without a browser, can hang.
"""

import base64
import functools
import io
from pathlib import Path

import ipywidgets as widgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from ipyevents import Event
from PIL import Image, ImageFont

CANVAS = 308  # pixels: side of the image being drawn
WAITING = (0.93, 0.93, 0.93)  # a pixel not drawn yet
FOCUS = "#E69F00"  # what one looks at: the pixel being drawn, the active paths
FOCUS_TEXT = "#8A5F00"  # the same, dark enough to read


def to_png(image):
    """PIL image -> PNG bytes, compressed lightly: speed matters more than size here."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def to_pil(page, zoom=1):
    """Array `(H, W, 3)` in [0, 1] -> PIL image, every pixel enlarged `zoom` times."""
    image = Image.fromarray((np.clip(page, 0, 1) * 255).round().astype(np.uint8))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)


@functools.cache
def font(size):
    """The typeface of the figures, for texts in a PIL image; `size` in pixels."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), size)


def decimal(value, digits=2):
    """A number as French writes it: 0,25."""
    return f"{value:.{digits}f}".replace(".", ",")


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
        rows: names of the controls laid out on each line, `[["a", "b"], ["c"]]`; by default all
            on one line, which wraps.
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
        self._start = {name: control.value for name, control in controls.items()}
        first = draw(**self._start)
        self.picture = widgets.Image(
            value=to_png(first),
            format="png",
            layout={"width": f"{first.width}px", "height": f"{first.height}px", "flex": "0 0 auto"},
        )
        self.reset_button = widgets.Button(
            description="Revenir au départ", icon="undo", layout={"width": "auto"}
        )
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
        lines = [[controls[name] for name in names] for names in rows or [list(controls)]]
        if play is not None:
            if play not in controls or not any(controls[play] in line for line in lines):
                raise ValueError(f"play={play!r}: expected the name of a slider laid out in rows")
            if pace < 1:
                raise ValueError(f"pace={pace}: expected at least one step at each tick")
            self.play = self._play_button(controls[play], pace)
            line = next(line for line in lines if controls[play] in line)
            line.insert(line.index(controls[play]), self.play)
        lines[-1] += [*self.buttons.values(), self.reset_button]
        lines = [widgets.HBox(line, layout={"flex_flow": "row wrap"}) for line in lines]
        super().__init__([widgets.HTML(f"<i>{caption}</i>"), *lines, self.picture])

    @staticmethod
    def _play_button(slider, pace):
        """Play, pause, stop: moves the slider in the browser, as a hand would."""
        step = pace * slider.step
        # The button stops before a step that would pass its maximum. This one lets the last step
        # pass the end of the slider, which stays there: none of its values is out of reach.
        last = slider.max + step - slider.step
        play = widgets.Play(value=slider.value, min=slider.min, max=last, step=step, interval=80)
        play.show_repeat = False
        widgets.jslink((play, "value"), (slider, "value"))
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
