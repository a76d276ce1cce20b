"""Which statements of a notebook an exercise needs, found by name; nothing of it runs here."""

import ast
import json
import re
from dataclasses import dataclass
from pathlib import Path

from course_lib.teaching import checker
from course_lib.teaching.exercise import Exercise

MAX_NOTEBOOK = 50 * 2**20
"""Bytes of a notebook; what is larger is not read."""


@dataclass
class Cell:
    """A code cell: what messages call it, its Python, and its top-level statements."""

    title: str
    source: str
    statements: list[ast.stmt]
    error: str = ""


def read_cells(path: Path) -> list[Cell]:
    """The code cells of a notebook; one that is not Python has no statements and says why.

    Raises:
        ValueError: if the file is not a notebook that can be read; the message says why.
    """
    if not path.is_file() or path.stat().st_size > MAX_NOTEBOOK:
        raise ValueError(f"it is not a file of at most {MAX_NOTEBOOK >> 20} MB")
    try:
        notebook = json.loads(path.read_bytes())
        cells = notebook["cells"]
        sources = ["".join(cell["source"]) if cell.get("cell_type") == "code" else "" for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("it is not a Jupyter notebook (format 4)") from None
    if not any(source.strip() for source in sources):
        raise ValueError("it has no code")
    return [parsed(f"cell {k}", source) for k, source in enumerate(sources, start=1) if source.strip()]


def parsed(title: str, source: str) -> Cell:
    """A cell from its source; IPython's `%` and `!` lines become calls that nothing runs."""
    from IPython.core.inputtransformer2 import TransformerManager

    source = re.sub(r"\A\s*%%(time|timeit|capture|prun)\b.*", "", source)  # the cell under it is Python
    try:
        source = TransformerManager().transform_cell(source)
        return Cell(title, source, ast.parse(source).body)
    except SyntaxError as error:
        return Cell(title, source, [], f"line {error.lineno} of {title} is not Python ({error.msg})")
    except (ValueError, RecursionError, MemoryError) as error:
        return Cell(title, source, [], f"{title} cannot be read ({type(error).__name__})")


def bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds or changes; `*` for a star import."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    names = set()
    for node in ast.walk(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.MatchAs(name=str(name)):
                names.add(name)
            case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store()):
                names.add(name)
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store()):
                names.add(name)
    return names


def used(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def selection(cells: list[Cell], expression: str) -> tuple[list[tuple[str, str, list[int]]], set[str]]:
    """The statements that an expression needs, and the names that they use.

    What is only shown, plotted, checked or tried out does not run: an error there, or an endless loop, costs nothing.

    Returns:
        For each cell with such statements its title, source, and their positions; and the names used.
    """
    statements = [(cell, k, bound(one), used(one)) for cell in cells for k, one in enumerate(cell.statements)]
    needed, chosen = used(ast.parse(expression, mode="eval")), set()
    while True:
        new = {
            j
            for j, (_, _, binds, _) in enumerate(statements)
            if j not in chosen and (binds & needed or "*" in binds)
        }
        if not new:
            break
        chosen |= new
        needed = needed.union(*(statements[j][3] for j in new))
    picked = {}
    for j in sorted(chosen):
        cell, k, *_ = statements[j]
        picked.setdefault(id(cell), (cell.title, cell.source, []))[2].append(k)
    return list(picked.values()), needed


def checked_expressions(cells: list[Cell]) -> dict[str, str]:
    """Number or name of an exercise → what the notebook's last check of it is called with, as source."""
    found = {}
    for node in (node for cell in cells for one in cell.statements for node in ast.walk(one)):
        match node:
            case ast.Call(func=ast.Name(id="check"), args=[ast.Constant(value=str(number)), asked, *_]):
                found[number] = ast.unparse(asked)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="check"), attr=name), args=[asked]):
                found[name] = ast.unparse(asked)
    return found


def expression_of(exercise: Exercise, cells: list[Cell]) -> str | None:
    """What to judge: the function that the notebook checks, else the one with the exercise's name; or nothing."""
    names = set().union(*(bound(one) for cell in cells for one in cell.statements))
    checked = checked_expressions(cells)
    for expression in (checked.get(exercise.number), checked.get(exercise.name), exercise.name):
        if expression and (not expression.isidentifier() or expression in names or "*" in names):
            return expression
    return None


def chapter_of(cells: list[Cell]) -> str:
    """The chapter whose exercises a notebook checks or defines most often; empty if there is none."""
    names = {exercise.name: exercise.number for exercise in checker.exercises()}
    found = [names.get(asked, asked) for asked in checked_expressions(cells)]
    found += [
        names[name] for cell in cells for one in cell.statements for name in bound(one) if name in names
    ]
    found += [names[name] for cell in cells if cell.error for name in lost_names(cell) if name in names]
    chapters = [number.partition(".")[0] for number in found]
    chapters = [chapter for chapter in chapters if chapter in checker.CHAPTERS]
    return max(chapters, key=chapters.count, default="")


def lost_names(cell: Cell) -> list[str]:
    """The functions and classes that a cell which is not Python would have defined."""
    return re.findall(r"^(?:def|class) (\w+)", cell.source, re.M)


def imported(cells: list[Cell]) -> set[str]:
    """The modules that a notebook imports anywhere."""
    modules = set()
    for node in (node for cell in cells for one in cell.statements for node in ast.walk(one)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or ".")
    return modules
