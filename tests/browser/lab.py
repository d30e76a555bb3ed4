"""JupyterLab in a real browser: what the tests of this folder do with it.

A notebook is copied into a folder of its own, so that nothing it does touches the repository; the
settings of JupyterLab too are those of the test, not of the user.
"""

import base64
import contextlib
import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import course
from PIL import Image

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SCREEN = {"width": 1280, "height": 720}  # a common projector

OWN_FOLDERS = (
    "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"
)  # fmt: skip
SLIDER, NUMBER = ".noUi-handle", "input[type=number]"
CONTROLS = {  # in the order in which a demo's are moved, and the keys to try
    SLIDER: [["ArrowRight"] * 3, ["ArrowLeft"] * 6],
    NUMBER: [["ArrowUp"]],
    ".widget-toggle-buttons button:not(.mod-active)": [["Space"]],
    ".widget-checkbox input": [["Space"]],
    "select:has(option + option)": [["Space", "ArrowDown", "Enter"]],  # else they are JupyterLab's
}
# nothing is saved, nothing pops up
SETTINGS = {"docmanager-extension/plugin": {"autosave": False}} | course.QUIET

# What the tests ask of the page.
SCRIPT = """
window.course = {
  notebook() { return jupyterapp.shell.currentWidget.content },
  cell(i) { return this.notebook().widgets[i].node },
  async show(i) {
    this.notebook().activeCellIndex = i
    await this.notebook().scrollToItem(i, 'start')
    this.cell(i).scrollIntoView()
  },
  picture(i) { return this.cell(i).querySelector('.jp-OutputArea .widget-image') },
  tagged(tag) {
    const tags = this.notebook().widgets.map(w => w.model.getMetadata('tags') || [])
    return [...tags.keys()].filter(i => tags[i].includes(tag))
  },
  async digest(i) {
    const answer = await fetch(this.picture(i).src)
    const digest = await crypto.subtle.digest('SHA-256', await answer.arrayBuffer())
    return [...new Uint8Array(digest)].join(' ')
  },
  async run(i) {
    this.notebook().activeCellIndex = i
    await jupyterapp.commands.execute('notebook:run-cell')
  },
  async ask(expression) {
    const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel
    const request = { code: '', silent: true, user_expressions: { value: expression } }
    const reply = await kernel.requestExecute(request).done
    const { data, evalue } = reply.content.user_expressions.value
    return data ? data['text/plain'] : evalue
  },
  box(i) {
    const box = this.picture(i).getBoundingClientRect()
    return [box.left, box.top, box.right, Math.min(box.bottom, innerHeight)].map(Math.round)
  },
  sizes(i) {  // of a picture, on the screen and in its file; of its demo
    const picture = this.picture(i), { left, top, width, height } = picture.getBoundingClientRect()
    const demo = picture.closest('.course-demo').getBoundingClientRect().height
    return { left, top, width, height, wide: picture.naturalWidth, high: picture.naturalHeight,
      demo }
  },
  outputs() {
    return this.notebook().widgets.map(w => w.model).filter(m => m.type === 'code').map(m => ({
      source: m.sharedModel.getSource(), tags: m.getMetadata('tags') || [],
      count: m.executionCount, outputs: m.outputs.toJSON() }))
  },
  broken() {
    const texts = [...document.querySelectorAll('.jp-OutputArea-output')].map(n => n.innerText)
    return texts.filter(t => /Error (displaying|creating) widget|Javascript Error/.test(t))
  },
  watch(i) {  // where a picture is in each frame, and how high
    this.places = []
    const frame = () => {
      const { top, height } = this.picture(i).getBoundingClientRect()
      this.places.push(`${Math.round(top)} ${Math.round(height)}`)
      this.watching = requestAnimationFrame(frame)
    }
    frame()
  },
  unwatch() {
    cancelAnimationFrame(this.watching)
    return this.places
  },
}
"""


def chromium():
    """The browser of this machine: `COURSE_CHROMIUM`, or a Chromium that is installed, or None."""
    named = os.environ.get("COURSE_CHROMIUM")
    if named:
        return named
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


def what_is_missing():
    """Why the tests cannot run here, or an empty string."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright is not installed: see requirements.txt"
    if chromium() is None:
        return "no Chromium here: install one, or name it in COURSE_CHROMIUM"
    return ""


@contextlib.contextmanager
def jupyterlab(folder, **environment):
    """Serve the notebooks of `folder`; gives the address of the page of a notebook, by its name."""
    own = {name: str(folder / f".{name.lower()}") for name in OWN_FOLDERS}
    own |= course.lab_settings(folder / ".settings", SETTINGS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--allow-root", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
        "--LabApp.expose_app_in_browser=True", "--ContentsManager.allow_hidden=True",
    ]  # fmt: skip
    with (folder / ".log").open("w") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **own, **environment}, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status", server, folder / ".log")
        yield lambda name: f"http://127.0.0.1:{port}/lab/tree/{name}?reset"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def _wait_for(address, server, log):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            return opener.open(address, timeout=2).read()
        time.sleep(0.3)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def browser():
    """Chromium, without proxy nor profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium(), args=OPTIONS)
        yield chrome
        chrome.close()


class Notebook:
    """A notebook open in JupyterLab; cells are numbered from 0, texts included."""

    def __init__(self, chrome, address):
        self.page = page = chrome.new_page(viewport=SCREEN, locale="fr-FR")
        page.set_default_timeout(60_000)
        self.errors, self.elsewhere = [], []
        host = "/".join(address.split("/")[:3])
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: self._note_request(request.url, host))
        page.goto(address)
        page.wait_for_function(
            "window.jupyterapp && jupyterapp.shell.currentWidget?.content?.widgets"
            " && jupyterapp.shell.currentWidget.sessionContext.isReady"
            " && jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'"
        )
        page.evaluate(SCRIPT)
        page.evaluate("jupyterapp.shell.collapseLeft()")

    def _note_request(self, url, host):
        if not url.startswith((host, host.replace("http", "ws"), "data:", "blob:", "about:")):
            self.elsewhere.append(url)

    def run_all(self, timeout):
        """Run every cell, within so many seconds."""
        self.page.evaluate(
            "() => { course.done = false; jupyterapp.commands.execute('notebook:run-all-cells')"
            ".finally(() => { course.done = true }) }"
        )
        self.page.wait_for_function("course.done", timeout=1000 * timeout)
        self.wait_idle()

    def run(self, cell):
        """Run one cell again."""
        self.page.evaluate("i => course.run(i)", cell)
        self.wait_idle()

    def ask(self, expression):
        """The value of a Python expression in the kernel, as its `repr` shows it."""
        return self.page.evaluate("expression => course.ask(expression)", expression)

    def wait_idle(self):
        self.page.wait_for_function(
            "jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
        )
        self.page.wait_for_timeout(300)

    def show(self, cell):
        """Bring a cell to the top of the screen."""
        self.page.evaluate("i => course.show(i)", cell)
        self.page.wait_for_timeout(300)

    def close(self):
        """Close the page and stop the kernel."""
        self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()

    def tagged(self, tag):
        """The numbers of the cells that have a tag."""
        return self.page.evaluate("tag => course.tagged(tag)", tag)

    def picture(self, cell):
        """What the picture of a demo shows: two equal digests are of the same picture."""
        return self.page.evaluate("i => course.digest(i)", cell)

    def comes(self, cell, wanted, within):
        """Whether the picture of a demo becomes what is `wanted`, within so many seconds."""
        for _ in range(10 * within):
            if wanted(self.picture(cell)):
                return True
            self.page.wait_for_timeout(100)
        return False

    def controls(self, cell, selector):
        node = self.page.evaluate_handle("i => course.cell(i)", cell).as_element()
        return node.query_selector_all(f".jp-OutputArea {selector}")

    def moves(self, cell):
        """For each control of a demo: its name, and functions that move it with the keyboard."""
        for selector, ways in CONTROLS.items():
            for number, control in enumerate(self.controls(cell, selector)):
                if control.is_visible() and not control.is_disabled():
                    moves = [lambda c=control, keys=keys: self._type(c, keys) for keys in ways]
                    yield f"{selector} {number}", moves

    def _type(self, control, keys):
        control.focus()
        for key in keys:
            self.page.keyboard.press(key)
        self.wait_idle()

    @contextlib.contextmanager
    def film(self, cell):
        """What the screen shows of the picture of a demo meanwhile, and the places where it was.

        Two lists, filled at the end.
        """
        box = self.page.evaluate("i => course.box(i)", cell)
        session, frames = self.page.context.new_cdp_session(self.page), []
        images, places = [], []

        def keep(event):
            frames.append(event["data"])
            session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

        session.on("Page.screencastFrame", keep)
        session.send("Page.startScreencast", {"format": "png"})
        self.page.evaluate("i => course.watch(i)", cell)
        yield images, places
        session.send("Page.stopScreencast")
        places += self.page.evaluate("course.unwatch()")
        for frame in frames:
            images.append(Image.open(io.BytesIO(base64.b64decode(frame))).convert("L").crop(box))
