"""The exercise notebooks, made from the solutions: one source, two files.

In a solution, the lines from `# solution` to `# end of solution` are what the learner writes; the exercise has
`...  # your code` in their place (`# your code` outside of a function). A cell with the tag `solution` is left out.
Everything else is the same, so that an exercise and its solution cannot drift apart. `python tools/exercises.py make`
makes and runs them.
"""

import copy
import json
from pathlib import Path
from typing import Any

from course_lib import resources
from course_lib.files import write_atomically

NOTEBOOKS = resources.NOTEBOOKS
BEGIN, END = "# solution", "# end of solution"
BLANK = "...  # your code"
BLANK_ALONE = "# your code"  # outside of a function: there, an Ellipsis would be shown as the cell's output
TAG = "solution"


def solutions(folder: Path | None = None) -> list[Path]:
    """The solution notebooks, in the order of their chapters."""
    return sorted(((folder or NOTEBOOKS) / "solutions").glob("[0-9A-Z]*_*.ipynb"))


def exercise_path(solution: Path) -> Path:
    """Where the exercise of a solution lies: `exercises/` beside `solutions/`, the same name."""
    return solution.parent.parent / "exercises" / solution.name


def blanked(source: str) -> str:
    """A cell's source without its solutions.

    Raises:
        ValueError: if a solution begins twice, ends without a beginning, or does not end.
    """
    lines, inside = [], False
    for line in source.splitlines():
        bare = line.strip()
        if bare == BEGIN:
            if inside:
                raise ValueError(f"{BEGIN!r} stands within a solution; end the first one with {END!r}.")
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(indent + BLANK if indent else BLANK_ALONE)
        elif bare == END:
            if not inside:
                raise ValueError(f"{END!r} stands without {BEGIN!r} before it.")
            inside = False
        elif not inside:
            lines.append(line)
    if inside:
        raise ValueError(f"a solution begins with {BEGIN!r} and has no {END!r} in its cell.")
    return "\n".join(lines)


def exercise_of(solution: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """The exercise notebook of a solution notebook.

    Args:
        solution: a notebook as `json.loads` reads it.
        before: the exercise notebook as it was, for the outputs of the cells that did not change; without it there are
            no outputs.

    Returns:
        A new notebook.

    Raises:
        ValueError: if the solution's markers do not pair up; the message says in which cell.
    """
    kept = {cell["id"]: cell for cell in (before or {"cells": []})["cells"]}
    made = copy.deepcopy(solution)
    made["cells"] = [cell for cell in made["cells"] if TAG not in cell["metadata"].get("tags", [])]
    for cell in made["cells"]:
        if cell["cell_type"] != "code":
            continue
        try:
            cell["source"] = blanked(_text(cell)).splitlines(keepends=True)
        except ValueError as error:
            raise ValueError(f"cell {cell['id']}: {error}") from None
        old = kept.get(cell["id"])
        same = old is not None and _text(old) == _text(cell)
        cell["outputs"] = copy.deepcopy(old["outputs"]) if same else []
        cell["execution_count"] = old["execution_count"] if same else None
    return made


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def text_of(notebook: dict[str, Any]) -> str:
    """The notebook as its file holds it."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def stale(solution: Path) -> bool:
    """Whether the exercise notebook is not what its solution makes of it."""
    path = exercise_path(solution)
    if not path.is_file():
        return True
    return text_of(exercise_of(read(solution), read(path))) != path.read_text(encoding="utf-8")


def make(solution: Path) -> Path:
    """Write the exercise of a solution, with the outputs of what did not change; returns its path."""
    path = exercise_path(solution)
    made = exercise_of(read(solution), read(path) if path.is_file() else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text_of(made))
    return path


def _text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])
