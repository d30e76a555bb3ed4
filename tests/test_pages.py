"""The course as web pages: whole, offline, and its table of contents leads somewhere."""

import re
import subprocess
import sys

import nbformat
import pytest
from bs4 import BeautifulSoup
from notebook_files import NOTEBOOKS, ROOT

FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+?\$", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The text and the elements of each page, by the name of its file."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, ROOT / ".ci" / "pages.py", folder]
    subprocess.run(command, check=True, capture_output=True)
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    return {name: (text, BeautifulSoup(text, "html.parser")) for name, text in texts.items()}


def test_there_is_a_page_per_notebook_and_a_table_of_contents(pages):
    assert set(pages) == {"index.html", *(f"{path.stem}.html" for path in NOTEBOOKS)}


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
            assert {anchor} - {""} <= anchors[file or name], (name, link)
            inside += 1
    assert inside > 100


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_picture_and_section_is_there(path, pages):
    text, page = pages[f"{path.stem}.html"]
    contents, _ = pages["index.html"]
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
