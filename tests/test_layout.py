"""The map of the package, in the README, and what each floor may import."""

import ast
import re

from notebook_files import ROOT

PACKAGE = ROOT / "course_utils"


def floors():
    """`{module or sub-package: its floor}`, as the README says."""
    rows = re.findall(r"(?m)^\| (\d): (.*?) \|", (ROOT / "README.md").read_text(encoding="utf-8"))
    return {
        name.removesuffix(".py"): int(floor)
        for floor, names in rows
        for name in re.findall(r"`(\w+(?:\.py)?)/?`", names)
    }


def imported(path):
    """Modules and sub-packages of the package that a file imports, by their first name."""
    here = path.relative_to(PACKAGE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = here[: len(here) + 1 - node.level]
            inside = (*above, *(node.module or "").split("."))
            yield from [inside[0]] if inside[0] else [alias.name for alias in node.names]


def test_the_map_names_every_module():
    modules = {path.stem for path in PACKAGE.glob("[!_]*.py")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(floors()) == modules | packages


def test_a_module_imports_from_no_floor_above_its_own():
    floor, seen = floors(), 0
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        for other in imported(path):
            seen += 1
            assert floor[other] <= floor[name], f"{path.name} imports {other}"
    assert seen > 50
