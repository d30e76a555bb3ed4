"""The names of a notebook: each means one thing, and a section says which sections it needs."""

import ast
import builtins
import re
import symtable
from collections import defaultdict

import nbformat
import pytest
from notebook_files import NOTEBOOKS

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    """`(section, cell)` of the code: 0 before the first numbered section."""
    section = 0
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "code":
            yield section, cell
        else:
            section = int(([section] + re.findall(r"^## (\d+)\. ", cell.source, re.M))[-1])


def names(source):
    """Global names that a piece of code reads, and those it gives a value."""

    def visit(table):
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                reads.add(symbol.get_name())
            if top and (symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()):
                writes.add(symbol.get_name())
        for child in table.get_children():
            visit(child)

    reads, writes = set(), set()
    visit(symtable.symtable(source, "cell", "exec"))
    return reads - set(dir(builtins)), writes


def simple(body):
    """The statements of a body in their order, `with`, `for` and `if` opened up."""
    for statement in body:
        if isinstance(statement, ast.With):
            for item in statement.items:
                targets = [item.optional_vars] if item.optional_vars else []
                yield ast.Assign(targets, item.context_expr, lineno=0)
        elif isinstance(statement, ast.For):
            yield ast.Assign([statement.target], statement.iter, lineno=0)
        elif isinstance(statement, ast.If):
            yield ast.Expr(statement.test)
        else:
            yield statement
            continue
        yield from simple(statement.body + getattr(statement, "orelse", []))


def needs_and_gives(source):
    """Names that a cell wants from other cells, and the statements that give each name a value."""
    needs, gives = set(), defaultdict(set)
    for statement in simple(ast.parse(source).body):
        text = ast.unparse(statement)
        reads, writes = names(text)
        if isinstance(statement, ast.AugAssign):  # `x += 1` wants x
            reads |= writes
        elif isinstance(statement, ast.Assign):  # `x = f(x)` as well
            reads = reads - writes | names(ast.unparse(statement.value))[0]
        else:
            reads -= writes
        needs |= reads - set(gives)
        for name in writes:
            gives[name].add(text)
    return needs, gives


@pytest.mark.parametrize(
    "source, needs, gives",
    [
        ("y = x + 1\nprint(y)", {"x"}, {"y"}),
        ("x = f(x)", {"x", "f"}, {"x"}),
        ("def f(a):\n    return a + b + f(a)", {"b"}, {"f"}),
        ("for x in xs:\n    y = x", {"xs"}, {"x", "y"}),
        ("with a as b:\n    c = [d for d in b]", {"a"}, {"b", "c"}),
        ("x[0] = 1", {"x"}, set()),
        ("x += 1", {"x"}, {"x"}),
        ("with a:\n    for b in c:\n        d = d + b", {"a", "c", "d"}, {"b", "d"}),
    ],
)
def test_what_a_cell_needs_and_gives(source, needs, gives):
    found_needs, found_gives = needs_and_gives(source)
    assert (found_needs, set(found_gives)) == (needs, gives)


@each_notebook
def test_a_name_that_another_cell_reads_means_one_thing(path):
    """It gets its value in one cell, or by the same statement; and again where it is verified."""
    wanted, given = set(), defaultdict(set)
    for _, cell in code_cells(path):
        needs, gives = needs_and_gives(cell.source)
        wanted |= needs
        for name, statements in gives.items():
            if f"{name} = verify(" not in cell.source:
                # a cell may build a value in several steps
                given[name].add("\n".join(sorted(statements)))
    assert {name: list(given[name]) for name in wanted if len(given[name]) != 1} == {}


def needed_sections(path):
    """Earlier sections to run before each section: those that it needs, and those that they need.

    The cells before the first section are not counted: they set the notebook up.
    """
    where, needed = {}, defaultdict(set)
    for section, cell in code_cells(path):
        needs, gives = needs_and_gives(cell.source)
        for earlier in {where[name] for name in needs} - {0, section}:
            needed[section] |= {earlier} | needed[earlier]
        where |= dict.fromkeys(gives, section)
    return needed


def announced(sections):
    """`[2, 3, 4, 6]` -> the line that says so, in French."""
    if not sections:
        return None
    runs = []
    for number in sorted(sections):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = []
    for run in runs:
        parts += [f"{run[0]} à {run[-1]}"] if len(run) > 2 else map(str, run)
    text = ", ".join(parts[:-1]) + " et " + parts[-1] if len(parts) > 1 else parts[0]
    word = "la section" if len(sections) == 1 else "les sections"
    return f"*Pour commencer ici\u00a0: exécutez d'abord {word} {text}.*"


@each_notebook
def test_a_section_says_which_sections_it_needs(path):
    text = "\n\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    lines = {
        int(number): line
        for number, line in re.findall(r"^## (\d+)\. .*\n\n(\*Pour commencer.*)?", text, re.M)
    }
    needed = needed_sections(path)
    assert lines == {number: announced(needed[number]) or "" for number in lines}
