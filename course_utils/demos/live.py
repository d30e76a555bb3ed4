"""The one way a demo is made: controls (and the mouse) in, one PNG out.

Every demo goes through `LivePicture`: a function draws a PIL image from the values of the
controls, and its PNG replaces the bytes of one `Image` widget of fixed size. No figure is shown
inside an Output widget: that flickers, leaks and, without a browser, can hang.
"""

import base64
import io

import ipywidgets as widgets
from ipyevents import Event
from IPython import get_ipython

from .. import figures
from ..language import tr

RESET = "reset"  # the name of the button that every demo has
# The raised handle of an upright slider leaves its name readable.
UPRIGHT = "<style>.course-demo .widget-vslider .slider-container {margin-top: 10px}</style>"
# Under the picture, what it shows, in words, for screen readers alone: a picture has no alt here.
SPOKEN = """<style>
.course-spoken {position: absolute; width: 1px; height: 1px; overflow: hidden}
</style>"""

# On a projector the caption and the controls are larger, and the picture takes what they leave.
SCREEN = (1100, 590)  # pixels left to a demo whose code is folded
LARGER = """<style>
.course-demo > .widget-html, .course-demo > .widget-hbox {zoom: 1.25; flex-shrink: 0}
</style>"""


def to_png(image):
    """PIL image -> PNG bytes, compressed little: a demo writes one at each move."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


class LivePicture(widgets.VBox):
    """Controls above a picture that follows them.

    Args:
        draw: function of the controls' values (by name) returning a PIL image, always of the
            same size.
        controls: `{name: widget}`, in the order of `draw`'s arguments.
        caption: one French sentence that says what to try.
        panels: `{name: panel or chart}`, the places of the picture, for who asks what is where.
        on_pointer: function `(x, y, pressed)` of a click or a drag, in pixels of the picture,
            returning the new values of some controls as a dict (or an empty one); `pressed` is
            True for the click and False while the mouse is dragged.
        buttons: `{name: (label, function)}`; a click calls the function, which returns the new
            values of some controls as a dict.
        rows: names of the controls laid out on each line, `[["a", "b"], ["c"]]`, a list among
            them being a column, `[["a", ["b", "c"]]]`; by default all on one line, which wraps.
            Buttons may be named there too; the others end the last line.
        play: name of an `IntSlider` that a play button moves on its own, step by step.
        pace: steps of that slider at each tick of the play button, every 80 ms.
    """

    def __init__(
        self,
        draw,
        controls,
        *,
        caption,
        panels=None,
        on_pointer=None,
        buttons=None,
        rows=None,
        play=None,
        pace=1,
    ):
        self.draw, self.controls, self.panels = draw, controls, panels or {}
        self.on_pointer = on_pointer
        self._caption = caption
        self._dragging = False
        self._quiet = False  # True while `set` moves several controls
        self._start = {name: control.value for name, control in controls.items()}
        first = draw(**self._start)
        self.picture = widgets.Image(value=to_png(first), format="png", layout=_layout(first))
        self.spoken = widgets.Label(_texts(first)).add_class("course-spoken")
        self.reset_button = _button(
            tr("Revenir au départ"), lambda: self.set(**self._start), icon="undo"
        )
        self.buttons = {
            name: _button(label, lambda new_values=new_values: self.set(**new_values()))
            for name, (label, new_values) in (buttons or {}).items()
        }
        for control in controls.values():
            control.observe(self._redraw, "value")
        self._events = None if on_pointer is None else self._listen()
        lines = self._lines(rows or [list(controls)])
        if play is not None:
            self._add_play_button(lines, play, pace)
        text = f"<i>{caption}</i>{UPRIGHT}{SPOKEN}{LARGER if figures.PROJECTION else ''}"
        boxes = [widgets.HBox(line, layout={"flex_flow": "row wrap"}) for line in lines]
        super().__init__([widgets.HTML(text), *boxes, self.picture, self.spoken])
        self.add_class("course-demo")
        if figures.PROJECTION:
            self.layout.max_height = f"{SCREEN[1]}px"
        self._all_parts = list(_parts(self))[:-1]  # the last one is this
        if self._events is not None:
            self._all_parts.append(self._events)
        _replace_those_of_this_cell(self)

    def close(self):
        """Close the demo with all its parts: neither the browser nor an event knows them still."""
        for part in getattr(self, "_all_parts", ()):  # none if the demo could not be made
            part.unobserve_all()
            part.close()
        super().close()

    def _lines(self, rows):
        """The controls and the buttons of each line; those that no row names end the last one."""
        parts = self.controls | self.buttons | {RESET: self.reset_button}
        lines = [[_take(parts, name) for name in names] for names in rows]
        lines[-1] += [part for part in parts.values() if isinstance(part, widgets.Button)]
        return lines

    def _add_play_button(self, lines, name, pace):
        """Play, pause, stop: before its slider, moves it step by step, as a hand would."""
        slider = self.controls[name]
        (line,) = (line for line in lines if slider in line)
        # The button stops before a step that would pass its maximum. This one lets the last step
        # pass the end of the slider, which stays there: none of its values is out of reach.
        last = slider.max + pace - 1
        play = widgets.Play(value=slider.value, min=slider.min, max=last, step=pace, interval=80)
        play.show_repeat = False
        widgets.link((play, "value"), (slider, "value"))  # it goes on from where a hand puts it
        line.insert(line.index(slider), play)
        self.play = play

    def _listen(self):
        """Hear the mouse over the picture."""
        events = Event(
            source=self.picture,
            watched_events=["mousedown", "mousemove"],
            prevent_default_action=True,
            wait=30,
            throttle_or_debounce="throttle",
        )
        events.on_dom_event(self._pointer)
        return events

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
            image = self.draw(**values)
            self.picture.value, self.spoken.value = to_png(image), _texts(image)

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
        data = dict(data) | {"text/plain": tr("[démo] {caption}", caption=self._caption)}
        data["image/png"] = base64.b64encode(self.picture.value).decode()
        alt = tr("Image fixe d'une démo. {caption}", caption=self._caption)
        if self.spoken.value:
            alt = tr("Image fixe d'une démo. On y lit : {texts}.", texts=self.spoken.value)
        return data, metadata | {"image/png": {"alt": alt}}


def _texts(image):
    """What is written on a picture."""
    return tr(" ; ").join(image.info.get("texts", []))


def _layout(image):
    """The place of a picture: its size; on a projector, as much of the screen as is left."""
    if not figures.PROJECTION:
        return {"width": f"{image.width}px", "height": f"{image.height}px", "flex": "0 0 auto"}
    # The box keeps the proportions of the picture: the mouse is told in pixels of the box.
    scale = min(1.5, SCREEN[0] / image.width)
    flex = f"0 1 {round(scale * image.height)}px"
    size = {"width": "auto", "height": "auto", "min_height": "0"}
    return size | {"flex": flex, "align_self": "flex-start"}


def _button(label, action, icon=""):
    button = widgets.Button(description=label, icon=icon, layout={"width": "auto"})
    button.on_click(lambda _: action())
    return button


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
# The check in the cell after a demo
# ---------------------------------------------------------------------------------------------


def check_moves(demo, *moves):
    """Each move, a dict of new values of controls, changes the picture; the demo is then reset.

    It starts from its beginning, wherever a hand has left it.
    """
    demo.reset_button.click()
    for values in moves:
        before = demo.picture.value
        demo.set(**values)
        assert demo.picture.value != before, values
    demo.reset_button.click()
