"""The committed notebooks: run once from top to bottom, clean, and honest about their numbers."""

import ast
import re
from collections import Counter, defaultdict

import nbformat
import pytest
from notebook_files import NOTEBOOKS, ROOT, printed

from course_utils.figures import COLORS

READ = {path: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

KNOWN_TAGS = re.compile(
    r"setup|demo|widget-test|nbval-ignore-output|nbval-check-output|raises-exception"
    r"|(exercise|check):\d\d[ab]?\.\w+"
)


def code_cells(path):
    return [cell for cell in READ[path].cells if cell.cell_type == "code"]


@each_notebook
def test_run_once_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_no_error_and_nothing_on_stderr(path):
    for cell in code_cells(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.text


@each_notebook
def test_each_heading_begins_a_paragraph(path):
    for cell in READ[path].cells:
        if cell.cell_type == "markdown":
            lines = ["", *cell.source.splitlines()]
            for before, line in zip(lines, lines[1:]):
                heading = re.match("#+ ", line)
                assert not (heading and before), line
                assert heading or not re.search("##+ ", line), line


@each_notebook
def test_files_are_small_and_without_private_state(path):
    assert path.stat().st_size < 2_000_000
    assert "widgets" not in READ[path].metadata
    assert READ[path].metadata.kernelspec.name == "python3"
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp|work|Users)/", text), "a path of the author's machine"


@each_notebook
def test_cells_are_short_and_tags_are_known(path):
    for cell in code_cells(path):
        lines = [line.strip() for line in cell.source.splitlines()]
        assert len([line for line in lines if line and line[0] != "#"]) <= 25, cell.source
        assert all(KNOWN_TAGS.fullmatch(tag) for tag in cell.metadata.get("tags", []))


@each_notebook
def test_demos_are_followed_by_a_test_that_moves_them(path):
    cells = READ[path].cells
    for cell, following in zip(cells, [*cells[1:], nbformat.v4.new_code_cell()]):
        if "demo" in cell.metadata.get("tags", []):
            assert "widget-test" in following.metadata.get("tags", [])


def test_a_colour_named_in_the_text_is_that_of_its_concept():
    """« une couleur désigne un concept »: the legend of notebook 01, in the colours of figures."""
    cells = nbformat.read(NOTEBOOKS[1], as_version=4).cells
    texts = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
    named = re.findall(r"color:(#\w{6})", texts)
    assert named == [COLORS[concept] for concept in ("x", "z", "y", "code", "prior")]


def test_no_helper_is_defined_in_two_notebooks():
    where = defaultdict(set)
    for path in NOTEBOOKS:
        for cell in code_cells(path):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    where[node.name].add(path.stem)
    assert not {name: stems for name, stems in where.items() if len(stems) > 1}


# ---- numbers -----------------------------------------------------------------------------------
#
# A number in bold is printed, to the digit, by a cell above whose output nbval compares at each
# run: it is re-found. A number after « environ » is the result of a training: printed by a cell
# above, up to 5 %.

NUMBER = r"[−-]?\d[\d\u00a0]*(?:,\d+)?"
BOLD, ABOUT = r"\*\*([^*\n]+)\*\*", rf"[Ee]nviron[\s\u00a0]({NUMBER})"
PRINTED = re.compile(r"[−-]?\d+(?:\.\d+)?")


def normal(number):
    return number.replace("−", "-").replace("\u00a0", "").replace(",", ".")


def outputs_above(path, position, *, strict):
    above = [
        cell
        for cell in READ[path].cells[:position]
        if cell.cell_type == "code"
        and not (strict and "nbval-ignore-output" in cell.metadata.get("tags", []))
    ]
    return {normal(n) for cell in above for n in PRINTED.findall(printed(cell))}


def prose_numbers(path, pattern):
    for position, cell in enumerate(READ[path].cells):
        if cell.cell_type == "markdown":
            for text in re.findall(pattern, cell.source):
                if "iapositive" in text:  # a reference to a slide, not a result
                    continue
                for number in re.findall(NUMBER, text):
                    yield position, normal(number)


@each_notebook
def test_numbers_in_bold_are_found_again_at_each_run(path):
    for position, number in prose_numbers(path, BOLD):
        assert number in outputs_above(path, position, strict=True), number


@each_notebook
def test_approximate_numbers_are_those_of_the_committed_run(path):
    for position, number in prose_numbers(path, ABOUT):
        value = float(number)
        printed_values = [float(n) for n in outputs_above(path, position, strict=False)]
        assert any(abs(p - value) <= 0.05 * abs(value) for p in printed_values), number


@pytest.mark.parametrize("stem", [path.stem for path in NOTEBOOKS if path.stem != "00_accueil"])
def test_notebooks_quote_numbers(stem):
    """The two tests above would pass on a notebook without numbers: these have some."""
    path = next(path for path in NOTEBOOKS if path.stem == stem)
    assert len(list(prose_numbers(path, BOLD))) >= 8
    assert len(list(prose_numbers(path, ABOUT))) >= 3


# ---- the slides --------------------------------------------------------------------------------


def spelled(text):
    """The numbers of « 4 et 5 », « 1, 2 et 4 », « 2 à 6 »."""
    ends = re.findall(r"(\d+)(?:\s*à\s*(\d+))?", text)
    return {n for start, end in ends for n in range(int(start), int(end or start) + 1)}


def quoted_slides(path, pattern=r"[Dd]iapositives? ([\d, et]+)"):
    """The slides that each section names, as pairs (section, slide)."""
    found, section = set(), None
    for cell in READ[path].cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"(?m)^(?=## )", cell.source):
                heading = re.match(r"## (\d*)", part)
                section = heading[1] if heading else section
                numbers = set().union(*map(spelled, re.findall(pattern, part)))
                found |= {(int(section), n) for n in numbers if section}
    return found


def test_the_map_of_the_slides_is_that_of_the_notebooks():
    """Where 00 sends a slide, a section names it; what a section quotes is in the map."""
    row = re.compile(r"(?m)^\| ([\d et,]+) \| .* \| \[\w+\]\((\w+)\.ipynb\), sections? (.*) \|$")
    mapped = defaultdict(set)
    for cell in READ[NOTEBOOKS[0]].cells:
        for slides, name, sections in row.findall(cell.source):
            mapped[name] |= {(k, n) for k in spelled(sections) for n in spelled(slides)}
    for path in NOTEBOOKS[1:]:
        everywhere = quoted_slides(path)
        for slide in {n for _, n in mapped[path.stem]}:
            assert {k for k, n in mapped[path.stem] if n == slide} & {
                k for k, n in everywhere if n == slide
            }, f"{path.stem}: no section of the map names the slide {slide}"
        quoted = quoted_slides(path, r"> \*\*Diapositives? ([\d, et]+)\.")
        assert quoted <= mapped[path.stem], quoted - mapped[path.stem]
    assert {n for pairs in mapped.values() for _, n in pairs} == set(range(2, 24))


# ---- the minutes -------------------------------------------------------------------------------
#
# How they are counted is said in 00. What a heading calls « facultatif », with all that it heads,
# is not of the core path.

WORDS, LINES, EXERCISE, STARRED, DEMO = 130, 7, 10, 15, 5


def minutes(path):
    """Per numbered section: all its minutes, and those that are optional."""
    total, optional = Counter(), Counter()
    section = heading = ""
    for cell in READ[path].cells:
        tags = " ".join(cell.metadata.get("tags", []))
        if cell.cell_type == "code":
            spent = len([line for line in cell.source.splitlines() if line.strip()]) / LINES
            spent += DEMO * ("demo" in tags)
            spent += (STARRED if "★" in heading else EXERCISE) * ("exercise:" in tags)
            total[section] += spent
            optional[section] += spent * ("facultatif" in section + heading)
            continue
        for part in re.split(r"(?m)^(?=##+ )", cell.source):
            if part.startswith("##"):
                heading = part.split("\n")[0]
                section = heading if heading.startswith("## ") else section
            spent = len(re.findall(r"\w+", re.sub(r"\$[^$]*\$", " x x x ", part))) / WORDS
            total[section] += spent
            optional[section] += spent * ("facultatif" in section + heading)
    return [(total[s], optional[s]) for s in total if re.match(r"## \d", s)]


def announced_minutes(path):
    """The same, as the table under the title says."""
    rows = re.findall(r"(?m)^\| \d+ \|.*\| (\d+) \| (\d*) \|$", READ[path].cells[0].source)
    return [(int(all_of_it), int(optional or 0)) for all_of_it, optional in rows]


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_the_announced_minutes_are_those_of_the_text(path):
    found, said = minutes(path), announced_minutes(path)
    assert len(said) == len(found)
    for section, (pair, expected) in enumerate(zip(said, found), 1):
        assert all(abs(a - b) <= 5 for a, b in zip(pair, expected)), (section, pair, expected)


def test_the_plan_adds_up_the_minutes():
    def spelled_out(minutes):
        hours, rest = divmod(minutes, 60)
        return f"{hours} h {rest:02}" if rest else f"{hours} h"

    plan = READ[NOTEBOOKS[0]].cells[1].source.replace("\u00a0", " ")
    sums = [tuple(map(sum, zip(*announced_minutes(path)))) for path in NOTEBOOKS[1:]]
    for path, (total, optional) in zip(NOTEBOOKS[1:], sums):
        row = next(line for line in plan.splitlines() if f"({path.name})" in line)
        durations = f"| {spelled_out(total)} | {spelled_out(total - optional)} |"
        assert row.endswith(durations), durations
    total, optional = map(sum, zip(*sums))
    assert f"Soit {spelled_out(total)} en tout, et {spelled_out(total - optional)} pour" in plan


def test_the_five_sittings_add_up_the_same_minutes():
    plan = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"`(0\d\w+)` \| (?:10 \+ )?(\d+) min \| ([\d, ]+): (\d+) min \| ([\d, ]+) \|", plan
    )
    assert [name for name, *_ in rows] == [path.stem for path in NOTEBOOKS[1:]]
    for path, (_, total, stay, short, home) in zip(NOTEBOOKS[1:], rows):
        core = {k: a - b for k, (a, b) in enumerate(announced_minutes(path), 1) if a > b}
        stay, home = ({int(k) for k in listed.split(",")} for listed in (stay, home))
        assert stay | home == set(core) and not stay & home
        assert (int(total), int(short)) == (sum(core.values()), sum(core[k] for k in stay))
