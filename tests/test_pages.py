"""The course as web pages: whole, offline, and its table of contents leads somewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import nbformat
import pytest
from notebook_files import NOTEBOOKS, ROOT

LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+?\$", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


class Page(HTMLParser):
    """What a page asks for, where it leads, its anchors, and how many formulas it holds."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.anchors, self.formulas, self.pictures = [], [], set(), 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in LOADING and attributes.get(LOADING[tag]):
            self.loads.append(attributes[LOADING[tag]])
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        self.anchors.add(attributes.get("id"))
        self.formulas += tag == "math"
        self.pictures += tag == "img"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, ROOT / ".ci" / "pages.py", folder]
    subprocess.run(command, check=True, capture_output=True)
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    return {name: (Page(text), text) for name, text in texts.items()}


def test_there_is_a_page_per_notebook_and_a_table_of_contents(pages):
    assert set(pages) == {"index.html", *(f"{path.stem}.html" for path in NOTEBOOKS)}


def test_nothing_comes_from_elsewhere(pages):
    for name, (page, text) in pages.items():
        assert all(address.startswith("data:") for address in page.loads), name
        assert not re.search(r"url\(['\"]?https?:", text), name
        assert "<script" not in text or "requirejs" not in text, name


def test_every_link_inside_the_course_leads_somewhere(pages):
    inside = 0
    for name, (page, _) in pages.items():
        for link in page.links:
            if link.startswith(("http", "mailto:")):
                continue
            file, _, anchor = link.partition("#")
            target, _ = pages[file or name]
            assert not anchor or anchor in target.anchors, (name, link)
            inside += 1
    assert inside > 100


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_formula_and_every_picture_is_there(path, pages):
    page, text = pages[f"{path.stem}.html"]
    formulas = pictures = 0
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            formulas += len(FORMULA.findall(CODE.sub("", cell.source)))
        for output in cell.get("outputs", []):
            pictures += "image/png" in output.get("data", {})
    assert page.formulas == formulas
    assert page.pictures >= pictures
    assert "\\mathbb" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)


def test_the_contents_list_the_sections(pages):
    _, text = pages["index.html"]
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            for title in re.findall(r"^## (\d+\. .+)$", cell.source, re.MULTILINE):
                if cell.cell_type == "markdown" and "$" not in title and "`" not in title:
                    assert title.replace("&", "&amp;") in text or title.split("«")[0] in text, title
