"""The editions in other languages, from the French notebooks and gettext catalogues.

    python3 course.py translate        bring catalogues and notebooks up to date
    python3 course.py translate de     begin a language: empty catalogues, to be filled

A catalogue gets the messages that its source holds now. Where a message changed, its translation
is kept and marked fuzzy, for a translator to read again; one that is gone is dropped. Then each
notebook whose catalogue is complete is written in its language, where only prose, strings and
comments differ. A cell that did not change keeps its outputs: `python3 course.py refresh` runs it.
"""

import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

import nbformat
from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import write_po

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from course_utils.exercises import exercises, reference_source  # noqa: E402
from course_utils.language import (  # noqa: E402
    CATALOGUES,
    SOURCE,
    WORD,
    catalogue,
    language_name,
    languages,
    pieces,
    translated,
    translations,
)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KEYWORDS = {"tr": None, "trn": (1, 2), "N_": None}
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]*\$", re.DOTALL)
BLANK_LINES = re.compile(r"(\n\s*\n)")
EDITION = "*[{}]({})*"  # under the title: a link to the edition in another language


# ---------------------------------------------------------------------------------------------
# What there is to translate
# ---------------------------------------------------------------------------------------------


def of_the_package():
    """Messages of the package and of the pages, and what `solution` shows of the exercises."""
    for folder in (ROOT / "course_utils", ROOT / ".ci"):
        for _, _, message, _, _ in extract_from_dir(folder, keywords=KEYWORDS):
            yield message
    for key in exercises():
        for _, _, text in pieces(reference_source(key)):
            yield text


def of_a_notebook(notebook):
    """Messages of a notebook, from top to bottom: paragraphs; strings and comments of its cells."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield from filter(has_words, BLANK_LINES.split(cell.source)[::2])
        else:
            yield from (text for _, _, text in pieces(cell.source))


def has_words(paragraph):
    """False for the links between editions, and for a formula that holds no text."""
    if re.fullmatch(r"(\*\[\w+\]\([\w./]+\)\* ?)+", paragraph):
        return False
    return bool(WORD.search(FORMULA.sub("", paragraph)) or r"\text{" in paragraph)


def sources():
    """`{name of the catalogue: its messages now}`."""
    found = {"course_utils": [*(path.stem for path in NOTEBOOKS), *of_the_package()]}
    for path in NOTEBOOKS:
        found[path.stem] = of_a_notebook(nbformat.read(path, 4))
    return {name: list(dict.fromkeys(messages)) for name, messages in found.items()}


# ---------------------------------------------------------------------------------------------
# Catalogues
# ---------------------------------------------------------------------------------------------


def template(messages, language):
    """A catalogue of these messages, not translated, without dates that would change each time."""
    made = datetime(2026, 1, 1, tzinfo=timezone.utc)
    found = Catalog(
        language, project="course_utils", version="1", header_comment="#", fuzzy=False,
        last_translator="course_utils", language_team=language, msgid_bugs_address="course_utils",
        creation_date=made, revision_date=made,
    )  # fmt: skip
    for message in messages:
        found.add(message)
    return found


def update(language, name, messages):
    """Write the catalogue of this name for the messages of today, with what was translated."""
    path = CATALOGUES / language / f"{name}.po"
    found = template(messages, language)
    if path.exists():
        before = catalogue(language, name)
        before.update(found)
        before.obsolete.clear()
        before.mime_headers, found = found.mime_headers, before
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        write_po(file, found, width=100, include_lineno=False)


def to_translate(language, name):
    """The messages of a catalogue without a translation, or with one that is to be read again."""

    def done(message):
        strings = [message.string] if isinstance(message.string, str) else message.string
        return all(strings) and not message.fuzzy

    return [message for message in catalogue(language, name) if message.id and not done(message)]


# ---------------------------------------------------------------------------------------------
# Notebooks
# ---------------------------------------------------------------------------------------------


def place(path, language):
    """Where the edition of a French notebook is, and its name in that language."""
    if language == SOURCE:
        return path
    name = translations(language).gettext(path.stem)
    return path.parent / language / f"{name}.ipynb"


def edition(path, language):
    """A French notebook in this language, with the outputs of its cells that are the same still."""
    notebook, translate = nbformat.read(path, 4), translations(language, path.stem).gettext
    names = {f"({p.stem}.ipynb": f"({place(p, language).name}" for p in NOTEBOOKS}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = translated(cell.source, translate)
            cell.outputs, cell.execution_count = [], None
        else:
            parts = BLANK_LINES.split(cell.source)
            source = "".join(translate(part) if has_words(part) else part for part in parts)
            cell.source = re.sub(r"\(\w+\.ipynb", lambda link: names.get(link[0], link[0]), source)
    link_editions(notebook, path, language)
    written = place(path, language)
    before = {c.id: c for c in nbformat.read(written, 4).cells} if written.exists() else {}
    for cell in notebook.cells:
        old = before.get(cell.id)
        if cell.cell_type == "code" and old is not None and old.source == cell.source:
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return notebook


def link_editions(notebook, path, language):
    """Under the title, links to the editions in the other languages."""
    here = place(path, language).parent
    links = []
    for other in languages():
        if other != language:
            target = os.path.relpath(place(path, other), here).replace(os.sep, "/")
            links.append(EDITION.format(language_name(other), target))
    title, *rest = notebook.cells[0].source.split("\n\n")
    if rest and not has_words(rest[0]):
        del rest[0]
    notebook.cells[0].source = "\n\n".join([title, *([" ".join(links)] if links else []), *rest])


def write(path, notebook):
    path.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, path)
    print(path.relative_to(ROOT))


def main(*new):
    found = sources()
    for language in [*languages()[1:], *new]:
        for name, messages in found.items():
            update(language, name, messages)
    missing = {
        (language, name): len(to_translate(language, name))
        for language in languages()[1:] for name in found
    }  # fmt: skip
    for (language, name), count in missing.items():
        if count:
            print(f"{language}, {name}: {count} messages to translate, or to read again")
    for path in NOTEBOOKS:
        french = nbformat.read(path, 4)
        link_editions(french, path, SOURCE)
        write(path, french)
        for language in languages()[1:]:
            if not missing[language, path.stem]:
                write(place(path, language), edition(path, language))


if __name__ == "__main__":
    main(*sys.argv[1:])
