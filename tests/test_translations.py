"""The other languages: catalogues that say all that the French says, notebooks made from them."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import nbformat
import pytest
import translate
from babel.messages.pofile import read_po, write_po
from notebook_files import NOTEBOOKS, PRINT_DURATIONS

from course_utils.language import catalogue, languages

SOURCES = translate.sources()
OTHERS = languages()[1:]
CATALOGUES = [(code, name) for code in OTHERS for name in SOURCES]

# ---- what a translation may not change --------------------------------------------------------

THIN = "\u00a0\u202f "  # spaces between thousands, in French


def numbers(text, code):
    """The numbers of a text, as Python would write them: those of 1 797 and 1,797 are the same."""
    text = text.replace("{,}", ",").replace(r"\,", "\u202f")
    if code == "fr":
        text = re.sub(rf"(?<=\d)[{THIN}](?=\d{{3}}(?!\d))", "", text)
        return Counter(n.replace(",", ".") for n in re.findall(r"\d+(?:[.,]\d+)?", text))
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return Counter(re.findall(r"\d+(?:\.\d+)?", text))


def formulas(text, code):
    """The formulas of a paragraph, without the words in them."""
    found = Counter()
    for formula in translate.FORMULA.findall(text):
        bare = re.sub(r"\\text\{[^}]*\}", "", formula)
        if code == "fr":  # 0{,}5 and 0.5; [0 ; 1[ and [0, 1); V, the green of RVB
            bare = bare.replace("x_{i,V}", "x_{i,G}")
            bare = re.sub(r"(?<=\d)\{,\}(?=[\dc])", ".", bare)
            bare = re.sub(r"\[([^][;]*);([^][]*)\[", r"[\1,\2)", bare.replace(r"\,;", ";"))
        bare = re.sub(r"\\,|\s", "", bare.replace("{,}", ""))  # spaces, and between thousands
        found[bare.replace(";", ",")] += 1
    return found


def code_spans(text, code):
    """What stands between backquotes; words are left out: strings, comments, names of axes."""
    spans = re.findall(r"`([^`]+)`", text.replace(f"/{code}/", "/"))
    return Counter(re.sub(r"\"[^\"]*\"|#.*|^\([^\W\d]+, [^\W\d]+\)$", "", span) for span in spans)


def fields(text):
    """The fields of a message, `{x:.3f}`, as `str.format` and f-strings read them."""
    return Counter(re.sub(r"'[^']*'|\"[^\"]*\"", "", f) for f in re.findall(r"\{[^{}]*\}", text))


def kept(text, code):
    """All that a message must keep in any language."""
    prose = translate.FORMULA.sub("", text)
    return {
        "formulas": formulas(text, code),
        "numbers": numbers(re.sub(r"`[^`]+`|\{[^{}]*\}|\]\([^)]*\)|<[^>]*>", "", prose), code),
        "code": code_spans(text, code),
        "fields": fields(re.sub(r"`[^`]+`|\$[^$]*\$", "", prose)),
        "links": Counter(re.findall(r"\]\(([^)]+)\)", text)),
        "tags": Counter(re.findall(r"<[^>]*>", prose)),
        "marks": re.findall(r"(?m)^(?:#+|>|[-*]|\d+\.|\|)(?= |$)", text),
    }


def texts(message):
    """The pairs (source, translation) of a message: one, or one for each plural."""
    if isinstance(message.id, str):
        return [(message.id, message.string)]
    return list(zip(message.id, message.string))


@pytest.mark.parametrize("code, name", CATALOGUES)
def test_a_catalogue_has_each_message_of_today_and_nothing_else(code, name):
    messages = [message.id for message in catalogue(code, name) if message.id]
    assert set(messages) == set(SOURCES[name]), "run: python3 course.py translate"


@pytest.mark.parametrize("code, name", CATALOGUES)
def test_each_message_is_translated_and_read_again(code, name):
    assert [message.id for message in translate.to_translate(code, name)] == []


@pytest.mark.parametrize("code, name", CATALOGUES)
def test_a_translation_keeps_numbers_formulas_code_links_and_headings(code, name):
    found = []
    for message in catalogue(code, name):
        for french, other in texts(message) if message.id else ():
            before, after = kept(french, "fr"), kept(other, code)
            found += [(french, what) for what in before if before[what] != after[what] and other]
    assert not found, "\n".join(f"{what}: {french}" for french, what in found)


# ---- the package ------------------------------------------------------------------------------

ACCENTS = re.compile(r"[àâçéèêëîïôùûœ«»]", re.IGNORECASE)
WORDS = re.compile(
    r"\b(le|la|les|un|une|des|du|et|est|pas|pour|vous|sur|votre)\b", re.IGNORECASE
)  # two of them

MESSAGES = {m.id for m in catalogue("en", "course_utils") if len(m.id) > 1 and m.string != m.id}


def french_left_out(tree, shown=()):
    """The French strings of a module outside of `tr`: `(line, text)` each.

    shown: names of functions whose source is translated as a whole.
    """
    texts, known = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in translate.KEYWORDS:
            known.update(node.args)
        elif isinstance(node, ast.Expr):  # a docstring
            known.add(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name in shown:
            known.update(ast.walk(node))
        elif isinstance(node, ast.JoinedStr):  # its constant parts make one text
            parts = [part for part in node.values if isinstance(part, ast.Constant)]
            texts[node] = " ".join(part.value for part in parts)
            known.update(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts[node] = node.value
    for node in texts.keys() - known:
        text = texts[node]
        if text in MESSAGES or ACCENTS.search(text) or len(WORDS.findall(text)) > 1:
            yield node.lineno, text


def test_no_french_is_left_out_of_tr():
    references = [exercise.reference for exercise in translate.exercises().values()]
    found = []
    for path in (translate.ROOT / "course_utils").rglob("*.py"):
        shown = [f.__name__ for f in references if f.__module__.endswith(f".{path.stem}")]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if path.name != "language.py":  # which knows the letters of French
            found += [(path.name, *place) for place in french_left_out(tree, shown)]
    assert not found


# ---- notebooks --------------------------------------------------------------------------------


class Bare(ast.NodeTransformer):
    """The syntax tree of a cell without its strings; the fields of an f-string in a fixed order."""

    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node):
        self.generic_visit(node)
        fields = [value for value in node.values if isinstance(value, ast.FormattedValue)]
        return ast.JoinedStr(sorted(fields, key=ast.dump))


def bare(source):
    return ast.dump(Bare().visit(ast.parse(source)))


EDITIONS = [
    pytest.param(path, code, id=f"{code}-{path.stem}") for code in OTHERS for path in NOTEBOOKS
]


@pytest.mark.parametrize("path, code", EDITIONS)
def test_a_notebook_is_what_its_catalogue_gives_and_only_words_differ(path, code):
    french = nbformat.read(path, 4).cells
    made = translate.edition(path, code).cells
    committed = nbformat.read(translate.place(path, code), 4).cells
    assert [c.source for c in committed] == [c.source for c in made], "course.py translate"
    assert [c.metadata for c in committed] == [c.metadata for c in french]
    for one, other in zip(french, committed):
        if one.cell_type == "code":
            assert bare(one.source) == bare(other.source), other.source
            assert len(one.outputs) == len(other.outputs), "course.py refresh"


def printed_digits(cell, code):
    """The digits that a cell prints, tables included, and their decimal points."""
    text = "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )
    text = re.sub(r"\b\d+ s\b", "", text)  # how long a training took
    if code == "fr":
        text = re.sub(r"(?<=\d),(?=\d)", ".", text)
    else:
        text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return re.findall(r"\d|(?<=\d)\.(?=\d)", text)


@pytest.mark.parametrize("path, code", EDITIONS)
def test_a_notebook_prints_the_same_numbers_in_each_language(path, code):
    pairs = zip(nbformat.read(path, 4).cells, nbformat.read(translate.place(path, code), 4).cells)
    for one, other in pairs:
        if one.cell_type == "code" and one.id not in PRINT_DURATIONS:
            assert printed_digits(one, "fr") == printed_digits(other, code), other.source


# ---- a language more --------------------------------------------------------------------------


def test_another_language_is_a_folder_of_catalogues(tmp_path):
    """Esperanto, of which we only know that each message ends with a star."""
    for folder in ("course_utils", "notebooks", ".ci"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(translate.ROOT / folder, tmp_path / folder, ignore=ignored)
    for path in NOTEBOOKS[2:]:  # two notebooks tell as much as six
        (tmp_path / "notebooks" / path.name).unlink()

    def run(*command, **settings):
        environment = os.environ | {"PYTHONPATH": str(tmp_path)} | settings
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, check=True,
            capture_output=True, text=True,
        ).stdout  # fmt: skip

    begun = run(".ci/translate.py", "eo")
    assert "eo, 01_vae_recap" in begun and not (tmp_path / "notebooks" / "eo").exists()
    for path in (tmp_path / "course_utils" / "locale" / "eo").glob("*.po"):
        with open(path, "rb") as file:
            messages = read_po(file)
        for message in messages:
            if message.id and path.stem != "course_utils":
                message.string = message.id + "*" * (message.id != ",")
            elif message.id:
                message.string = message.id
        with open(path, "wb") as file:
            write_po(file, messages)
    run(".ci/translate.py")
    editions = sorted(path.name for path in (tmp_path / "notebooks" / "eo").iterdir())
    assert editions == [path.name for path in NOTEBOOKS[:2]]
    made = nbformat.read(tmp_path / "notebooks" / "eo" / "01_vae_recap.ipynb", 4)
    assert made.cells[0].source.startswith("# 01 · Rappels\u00a0: l'auto-encodeur variationnel*\n")
    assert "*[Français](../01_vae_recap.ipynb)* *[English](../en/01_vae_recap.ipynb)*" in (
        made.cells[0].source
    )
    french = nbformat.read(tmp_path / "notebooks" / "01_vae_recap.ipynb", 4)
    assert "[English](en/01_vae_recap.ipynb)* *[Esperanto](eo/01_" in french.cells[0].source
    spoken = run("-c", "from course_utils.language import *; print(LANGUAGE)", COURSE_LANG="eo")
    assert spoken == "eo\n"
