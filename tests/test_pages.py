"""The course as web pages: whole, offline, and its table of contents leads somewhere."""

import posixpath
import re
import subprocess
import sys

import nbformat
import pages as build_pages
import pytest
from bs4 import BeautifulSoup
from notebook_files import NOTEBOOKS, ROOT, printed, tagged

from course_utils.language import translations

FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+?\$", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The text and the elements of each page, by its place: `01_vae_recap.html`, `en/…`."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, ROOT / ".ci" / "pages.py", folder]
    subprocess.run(command, check=True, capture_output=True)
    texts = {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*.html")
    }
    return {name: (text, BeautifulSoup(text, "html.parser")) for name, text in texts.items()}


EDITIONS = [("", "fr", NOTEBOOKS), ("en/", "en", sorted(NOTEBOOKS[0].parent.glob("en/*.ipynb")))]


def test_there_is_a_page_per_notebook_and_a_table_of_contents_in_each_language(pages):
    for folder, language, notebooks in EDITIONS:
        names = {f"{folder}{name}.html" for name in ("index", *(path.stem for path in notebooks))}
        found = {name for name in pages if posixpath.dirname(name) + "/" == (folder or "/")}
        assert found == names and len(names) == 7
        assert {pages[name][1].html["lang"] for name in names} == {language}


def test_nothing_comes_from_elsewhere(pages):
    for name, (text, page) in pages.items():
        for element in page.find_all(["script", "link", "img", "iframe", "source"]):
            address = element.get("href" if element.name == "link" else "src")
            assert not address or address.startswith("data:"), name
        assert not re.search(r"url\(['\"]?https?:", text), name
        assert "<script" not in text or "requirejs" not in text, name


def test_every_link_inside_the_course_leads_somewhere(pages):
    anchors = {name: {e["id"] for e in page.find_all(id=True)} for name, (_, page) in pages.items()}
    inside = 0
    for name, (_, page) in pages.items():
        for link in page.find_all("a", href=re.compile("^(?!http|mailto:)")):
            file, _, anchor = link["href"].partition("#")
            place = posixpath.normpath(posixpath.join(posixpath.dirname(name), file))
            assert {anchor} - {""} <= anchors[place if file else name], (name, link)
            inside += 1
    assert inside > 100


def test_every_picture_says_what_it_shows_and_every_table_has_a_header(pages):
    for name, (_, page) in pages.items():
        for image in page.find_all("img"):
            assert len(image["alt"]) > 8 and "No description" not in image["alt"], name
        for table in page.find_all("table"):
            assert table.thead.find_all("th"), name


@pytest.mark.parametrize("folder, path", [
    pytest.param(folder, path, id=f"{folder}{path.stem}")
    for folder, _, notebooks in EDITIONS for path in notebooks
])  # fmt: skip
def test_every_formula_picture_and_section_is_there(folder, path, pages):
    text, page = pages[f"{folder}{path.stem}.html"]
    contents, _ = pages[f"{folder}index.html"]
    formulas = pictures = 0
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            formulas += len(FORMULA.findall(CODE.sub("", cell.source)))
            for title in re.findall(r"^## (\d+\. .+)$", cell.source, re.MULTILINE):
                if "$" not in title and "`" not in title:
                    listed = title.replace("&", "&amp;"), title.split("«")[0]
                    assert any(words in contents for words in listed), title
        for output in cell.get("outputs", []):
            pictures += "image/png" in output.get("data", {})
    assert len(page.find_all("math")) == formulas
    assert len(page.find_all("img")) >= pictures
    assert "\\mathbb" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("name, language", [("00_accueil", "fr"), ("en/00_welcome", "en")])
def test_a_page_with_solutions_shows_them_checked(name, language):
    path = NOTEBOOKS[0].parent / f"{name}.ipynb"
    notebook, before = nbformat.read(path, 4), nbformat.read(path, 4)
    build_pages.solve(notebook, path.parent, translations(language).gettext)
    check, exercise = (tagged(notebook, kind)["00.bits"] for kind in ("check", "exercise"))
    assert printed(check).startswith("✔ 00.bits") and "math.log(2)" in exercise.source
    for cell, old in zip(notebook.cells, before.cells):
        assert cell in (check, exercise) or printed(cell) == printed(old)
