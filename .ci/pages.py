"""The course as web pages, for those who only read: `python3 course.py html FOLDER`.

With `--solutions`, each exercise is solved and its check run: pages for who teaches.
The committed notebooks with their outputs, one page each, and a table of contents; the editions in
other languages in folders of their own. Nothing in a page comes from elsewhere: pictures and styles
are inside, formulas are MathML, which browsers draw themselves; a demo is its still picture.
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert
from marks import tagged
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from course_utils.exercises import reference_source  # noqa: E402
from course_utils.language import (  # noqa: E402
    N_,
    SOURCE,
    language_name,
    languages,
    translated,
    translations,
)

NOTEBOOKS = ROOT / "notebooks"

PAGE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_css -%}
{{ super() }}
<style>
  body { max-width: 60rem; margin: 0 auto; padding: 0 1rem 4rem; }
  nav.course { display: flex; justify-content: space-between; padding: 1rem 4.5rem; }
  math[display="block"] { margin: 0.6em 0; }
  /* nothing pale: the colours of code are made for white, its numbers are not to be faded */
  body { --jp-cell-editor-background: white; --jp-cell-prompt-not-active-opacity: 1; }
  @media print {
    body { max-width: none; padding: 0; }
    nav.course, .anchor-link { display: none; }
    pre { white-space: pre-wrap !important; word-break: normal !important; }
    pre { overflow-wrap: anywhere; }
    img, svg, tr, blockquote, .jp-InputArea, .jp-OutputArea-child { break-inside: avoid; }
    img, svg { max-width: 100%; max-height: 24cm; }
    h1, h2, h3, h4 { break-after: avoid; }
  }
</style>
{%- endblock -%}
{%- block data_png scoped -%}
{%- set alt = output | get_metadata("alt", "image/png") -%}
{{ super() | replace("<img ", '<img alt="' ~ alt | escape ~ '" ' if alt else "<img ", 1) }}
{%- endblock -%}
{%- block body_header -%}
{{ super() }}
{{ resources.course_links }}
{%- endblock -%}
{%- block body_footer -%}
{{ resources.course_links }}
{{ super() }}
{%- endblock -%}
"""

CONTENTS = """<!DOCTYPE html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body {{ font: 18px/1.6 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; }}
  body {{ padding: 0 1rem; }}
  h1 {{ font-size: 1.5rem; line-height: 1.3; }}
  h2 {{ font-size: 1.1rem; margin: 2rem 0 0; }}
  ul {{ margin: 0.3rem 0; padding-left: 1.2rem; }}
  a {{ color: #0072B2; text-decoration: none; }}
</style>
<h1>{title}</h1>
<p>{editions}</p>
{chapters}
</html>
"""
TITLE = N_("Auto-encodeurs variationnels et modèles autorégressifs, en les exécutant")
BACK = N_("Table des matières")


class Renderer(IPythonRenderer):
    """Formulas as MathML."""

    def block_math(self, body):
        return mathml(body, "block")

    def inline_math(self, body):
        return mathml(body, "inline")


def mathml(latex, display):
    html = convert(latex.strip().replace(r"\arg", r"\operatorname{arg}"), display=display)
    return re.sub(' xmlns="[^"]+"', "", html)  # a page needs none, and a title is confused by it


class Exporter(HTMLExporter):
    """Formulas as MathML; a demo as its picture; a link to a notebook leads to its page."""

    raw_template = PAGE
    embed_images = True

    @property
    def default_config(self):
        # A demo has a widget, which needs a kernel, and a picture, which needs nothing.
        shown = ["text/html", "image/svg+xml", "image/png", "text/markdown", "text/plain"]
        return Config({"NbConvertBase": {"display_data_priority": shown}})

    @pass_context
    def markdown2html(self, context, source):
        renderer = Renderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=True,
            path=context["resources"]["metadata"]["path"],
            anchor_link_text="¶",
        )
        html = MarkdownWithMath(renderer=renderer).render(source)
        return re.sub(r'href="([\w./]+)\.ipynb', r'href="\1.html', html)


def build(folder, solutions=False):
    places = {language: "" if language == SOURCE else f"{language}/" for language in languages()}
    written = [language for language, place in places.items() if (NOTEBOOKS / place).is_dir()]
    for language in written:
        up, notebooks = "../" if places[language] else "", NOTEBOOKS / places[language]
        links = [
            f'<a href="{up}{places[other]}index.html">{language_name(other)}</a>'
            for other in written if other != language
        ]  # fmt: skip
        pages = sorted(notebooks.glob("*.ipynb"))
        build_edition(folder / places[language], language, pages, " ".join(links), solutions)
    print(f"Open {folder / 'index.html'}")


def build_edition(folder, language, notebooks, editions, solutions=False):
    """The pages of one language; `editions`: links to the others."""
    folder.mkdir(parents=True, exist_ok=True)
    say, chapters = translations(language).gettext, []
    for path, before, after in zip(notebooks, [None, *notebooks], [*notebooks[1:], None]):
        notebook = nbformat.read(path, 4)
        if solutions:
            solve(notebook, path.parent, say)
        resources = {
            "metadata": {"name": path.stem, "path": str(path.parent)},
            "course_links": navigation(before, after, say(BACK)),
        }
        html, _ = Exporter(language_code=language).from_notebook_node(notebook, resources)
        (folder / f"{path.stem}.html").write_text(html, encoding="utf-8")
        chapters.append(chapter(path, html))
        print(f"{folder.name}/{path.stem}.html: {len(html.encode()) / 1e6:.1f} MB")
    contents = CONTENTS.format(
        language=language, title=say(TITLE), editions=editions, chapters="\n".join(chapters)
    )
    (folder / "index.html").write_text(contents, encoding="utf-8")


def solve(notebook, folder, translate):
    """Put the reference in each exercise and run its check; other cells keep their outputs.

    folder: where it runs, which says its language.
    """
    for key, cell in tagged(notebook, "exercise").items():
        cell.source = translated(reference_source(key), translate)
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": folder}},
        extra_arguments=["--log-level=ERROR"],
    )  # fmt: skip
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if re.search("setup|exercise:|check:", " ".join(cell.metadata.get("tags", []))):
                client.execute_cell(cell, index, execution_count=cell.execution_count)


def navigation(before, after, contents):
    """Links to the page before, to the table of contents and to the page after."""
    texts = [
        f'<a href="{before.stem}.html">← {before.stem}</a>' if before else "",
        f'<a href="index.html">{contents}</a>',
        f'<a href="{after.stem}.html">{after.stem} →</a>' if after else "",
    ]
    return '<nav class="course">' + "".join(f"<span>{text}</span>" for text in texts) + "</nav>"


def chapter(path, html):
    """The title of a page and of its sections, as links to their places in it."""
    headings = re.findall(r'<h([12]) id="([^"]+)">(.*?)<a class="anchor-link"', html, re.DOTALL)
    (_, _, title), *sections = headings
    items = "".join(
        f'<li><a href="{path.stem}.html#{at}">{text}</a></li>' for _, at, text in sections
    )
    return f'<h2><a href="{path.stem}.html">{title}</a></h2>\n<ul>{items}</ul>'


if __name__ == "__main__":
    parser = argparse.ArgumentParser("course.py html", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default="site")
    parser.add_argument("--solutions", action="store_true", help="solve each exercise")
    asked = parser.parse_args()
    build(asked.folder.resolve(), asked.solutions)
