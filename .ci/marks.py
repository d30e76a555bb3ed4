"""The marks of a class, from the notebooks that students saved and sent, under any name.

    python3 course.py marks FOLDER                   a table per notebook, a line per file
    python3 course.py marks FOLDER --csv marks.csv   the same for a spreadsheet
    python3 course.py marks FOLDER --run             each answer verified again

Without `--run`, nothing is run: what the notebooks show under their checks is believed, and an
output edited by hand is not seen. `--run` verifies each answer with the course's own check, in a
process of its own that starts in an empty folder. It runs what students wrote, with your rights.
"""

import argparse
import ast
import csv
import functools
import re
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from tqdm import tqdm

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
MEGABYTES = 50  # more than any notebook weighs
SECONDS = 60  # that a cell may take; one call of an answer has 20 (exercises/harness.py)
STATES = ("✔", "✘", "empty", "not run", "changed")  # of several copies of a check, the best counts
LEGEND = """\
empty: the answer is still to be written. not run: there is no verdict under the check.
changed: the check is not the course's any more, or is gone."""
READ_ONLY = "Outputs were read: one edited by hand is not seen. --run verifies each answer again."
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Exercise:
    """notebook: its stem; name: of the function to write; check, setup: sources of cells."""

    notebook: str
    name: str
    check: str
    setup: tuple


def tagged(notebook, kind):
    """Cells tagged `kind:key`, by key, in the order of the notebook."""
    cells = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if tag.startswith(f"{kind}:"):
                cells[tag.split(":")[1]] = cell
    return cells


@functools.cache
def exercises():
    """The exercises of the course, by key, in its order."""
    found = {}
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, 4)
        setup = tuple(c.source for c in notebook.cells if "setup" in c.metadata.get("tags", []))
        for key, cell in tagged(notebook, "check").items():
            (name,) = (node.targets[0].id for node in statements(cell.source))
            found[key] = Exercise(path.stem, name, cell.source, setup)
    return found


def statements(source):
    """Those of a cell, as syntax trees; hints and solutions may be asked for anywhere."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return []  # a magic of IPython, or no Python
    return [n for n in body if not (isinstance(n, ast.Expr) and calls(n, "hint", "solution"))]


def calls(node, *names):
    """The first arguments of the calls of these functions."""
    return [
        call.args[0].value for call in ast.walk(node)
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) in names
        and call.args and isinstance(call.args[0], ast.Constant)
    ]  # fmt: skip


def verdict(cell, key):
    """The state of an exercise, from its check cell."""
    ours = exercises()[key].check
    if [*map(ast.dump, statements(cell.source))] != [*map(ast.dump, statements(ours))]:
        return "changed"
    text = "".join(output.get("text", "") for output in cell.outputs)
    said = re.findall(rf"([✔✘…]) {re.escape(key)}\s?:(.*)", text)
    if not said:
        return "not run"
    mark, message = said[-1]  # what the answer itself prints comes before
    if mark == "…":  # to complete, with the way to a hint; else only the check ran, a second time
        return "empty" if f'hint("{key}")' in message else "not run"
    return mark


def marks(path, run=False):
    """`{key: state}` for the exercises of the notebooks that a file holds the checks of.

    Raises:
        Exception: of any kind, where it is no notebook of the course.
    """
    if path.stat().st_size > MEGABYTES * 1e6:
        raise ValueError(f"larger than {MEGABYTES} MB: not read")
    notebook = nbformat.reads(path.read_text("utf-8-sig"), 4, capture_validation_error={})
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    checks = defaultdict(list, {key: [cell] for key, cell in tagged(notebook, "check").items()})
    for cell in notebook.cells:
        for key in {key for node in statements(cell.source) for key in calls(node, "verify")}:
            checks[key].append(cell)
    parts = {exercise.notebook for key, exercise in exercises().items() if key in checks}
    keys = [key for key, exercise in exercises().items() if exercise.notebook in parts]
    if not keys:
        raise ValueError("no exercise of the course in it")
    if run:
        return {key: run_again(notebook.cells, key) for key in keys}
    return {
        key: min((verdict(cell, key) for cell in checks[key]), key=STATES.index, default="changed")
        for key in keys
    }


def run_again(cells, key):
    """The state of an exercise, its answer taken from these cells and its check from the course."""
    sources = program(cells, key)
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, sources)])
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=SECONDS, allow_errors=True, resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],
        )  # fmt: skip
        try:
            client.execute()
        except (CellTimeoutError, DeadKernelError):
            return "✘"  # the answer has no end, or ended its process
    return verdict(notebook.cells[-1], key)


def program(cells, key):
    """Cells to run: all that an answer may need, without data or training; its check is the last.

    Of the course's first cells and of the student's, imports and definitions, and in full those
    that give the answer its name; the other exercises are solved.
    """
    exercise, sources = exercises()[key], []
    for source in [*exercise.setup, *(cell.source for cell in cells)]:
        body = [node for node in statements(source) if not calls(node, "verify")]
        if not any(exercise.name in names(node) for node in body):
            body = [node for node in body if isinstance(node, DEFINITIONS)]
        sources.append(ast.unparse(ast.Module(body, [])))
    solved = "\n".join(
        f"{other.name} = exercises()[{its_key!r}].reference"
        for its_key, other in exercises().items()
        if other.notebook == exercise.notebook and its_key != key
    )
    tools = f"from course_utils.exercises import exercises, verify\n{solved}"
    return [*filter(None, sources), tools, exercise.check]


def names(node):
    """What a statement gives a value to, as `def f` or `f = …` do."""
    targets = [node, *getattr(node, "targets", [])]
    return [getattr(target, "id", getattr(target, "name", None)) for target in targets]


def table(notebook, found):
    """Lines for the screen: a file each, then how many are in each state; nothing without files."""
    keys = [key for key, exercise in exercises().items() if exercise.notebook == notebook]
    rows = {name: states for name, states in found.items() if keys[0] in states}
    if not rows:
        return []
    counts = {key: Counter(states[key] for states in rows.values()) for key in keys}
    lines = [(notebook, *(key.split(".")[1] for key in keys))]
    lines += [(name, *(states[key] for key in keys)) for name, states in rows.items()]
    lines += [(f"  {state}", *(str(counts[key][state]) for key in keys)) for state in STATES]
    widths = [max(map(len, column)) for column in zip(*lines)]
    cells = [[text.ljust(width) for text, width in zip(line, widths)] for line in lines]
    return ["  ".join(line).rstrip() for line in cells] + ["", ""]


def main(arguments):
    parser = argparse.ArgumentParser("course.py marks", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where the notebooks are, in sub-folders or not")
    parser.add_argument("--csv", type=Path, help="a file to write: a line per notebook")
    parser.add_argument("--run", action="store_true", help="verify each answer again: some seconds")
    asked = parser.parse_args(arguments)
    if not asked.folder.is_dir():
        parser.error(f"{asked.folder} is no folder")
    warnings.simplefilter("ignore")  # about what students wrote
    found, refused = {}, {}
    files = [path for path in sorted(asked.folder.rglob("*")) if path.is_file()]
    for path in tqdm(files, disable=not asked.run):
        name = path.relative_to(asked.folder).as_posix()
        if re.search(r"(^|/)(\.|__MACOSX/)", name) or path == asked.csv:
            continue  # what systems and JupyterLab leave behind
        try:
            found[name] = marks(path, asked.run)
        except Exception as error:  # whatever was sent, the others get their marks
            refused[name] = re.sub(r"\s+", " ", f"{error}" or type(error).__name__)[:60]
    for notebook in dict.fromkeys(exercise.notebook for exercise in exercises().values()):
        print(*table(notebook, found), sep="\n", end="")
    for name, reason in refused.items():
        print(f"{name}: not read ({reason})")
    print(LEGEND, *([] if asked.run else [READ_ONLY]), sep="\n")
    if asked.csv:
        with open(asked.csv, "w", newline="", encoding="utf-8-sig") as file:  # as Excel wants it
            writer = csv.DictWriter(file, ["file", *exercises(), "not read"])
            writer.writeheader()
            writer.writerows({"file": name, **states} for name, states in found.items())
            writer.writerows({"file": name, "not read": why} for name, why in refused.items())


if __name__ == "__main__":
    main(sys.argv[1:])
