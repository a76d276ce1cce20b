"""The exercise notebooks are what their solutions make of them, and both are fit to commit."""

import copy
import importlib.util
import re
from pathlib import Path

import pytest

from course_lib.teaching import exercises
from course_lib.teaching.checker import CHAPTERS
from course_lib.teaching.checker import exercises as checks
from course_lib.teaching.course_map import CHAPTERS as COURSE

PROJECT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("tools_notebooks", PROJECT / "tools" / "notebooks.py")
tool = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)

SOLUTIONS = exercises.solutions()
NAMES = [path.name for path in SOLUTIONS]


def outputs(path):
    return "\n".join(text for cell in tool.code_cells(tool.read(path)) for text in tool.output_texts(cell))


def test_every_chapter_with_checks_has_its_notebooks_under_the_chapters_name():
    assert [path.stem for path in SOLUTIONS] == [
        chapter.name for chapter in COURSE if chapter.number in CHAPTERS
    ]
    found = sorted(path.name for path in (PROJECT / "notebooks" / "exercises").glob("*.ipynb"))
    assert found == NAMES


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_the_exercise_is_byte_for_byte_what_the_solution_makes(path):
    written = exercises.exercise_path(path)
    again = exercises.exercise_of(exercises.read(path), exercises.read(written))
    assert written.read_text(encoding="utf-8") == exercises.text_of(again)
    assert not exercises.stale(path)


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_both_are_executed_and_fit_to_commit(path):
    for each in (path, exercises.exercise_path(path)):
        assert tool.problems(tool.read(each), each.stat().st_size) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_a_solution_shows_a_green_check_for_each_exercise_and_an_exercise_what_is_to_do(path):
    numbers = [f"{each.number} {each.name}" for each in checks(path.name.partition("_")[0])]
    assert re.findall(r"^✓ (\w+\.\d \w+):", outputs(path), re.M) == numbers
    open_ones = outputs(exercises.exercise_path(path))
    assert re.findall(r"^○ (\w+\.\d \w+): still to do", open_ones, re.M) == numbers
    assert "✓" not in open_ones and "✗" not in open_ones


@pytest.mark.parametrize("path", SOLUTIONS, ids=NAMES)
def test_no_solution_is_left_in_an_exercise(path):
    text = exercises.exercise_path(path).read_text(encoding="utf-8")
    assert exercises.BEGIN not in text and exercises.END not in text and f'"{exercises.TAG}"' not in text
    assert text.count(exercises.BLANK) == len(checks(path.name.partition("_")[0]))


# Making one


def notebook(*cells):
    made = [
        {
            "id": f"c{k}",
            "cell_type": kind,
            "metadata": {"tags": tags},
            "source": source.splitlines(keepends=True),
        }
        for k, (kind, tags, source) in enumerate(cells)
    ]
    for cell in made:
        if cell["cell_type"] == "code":
            cell |= {
                "outputs": [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}],
                "execution_count": 1,
            }
    return {"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


FUNCTION = "def f(x):\n    # solution\n    y = x\n    return y\n    # end of solution\n\n\nprint(1)"


def test_solutions_become_blanks_and_tagged_cells_go():
    solution = notebook(
        ("code", [], FUNCTION),
        ("markdown", ["solution"], "It is so."),
        ("code", [], "# solution\nf(1)\n# end of solution"),
    )
    before = copy.deepcopy(solution)
    made = exercises.exercise_of(solution)
    assert solution == before
    assert ["".join(cell["source"]) for cell in made["cells"]] == [
        "def f(x):\n    ...  # your code\n\n\nprint(1)",
        "# your code",
    ]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in made["cells"])


def test_outputs_stay_where_the_cell_is_the_same():
    solution = notebook(("code", [], FUNCTION), ("code", [], "print(2)"))
    before = notebook(("code", [], "old"), ("code", [], "print(2)"))
    made = exercises.exercise_of(solution, before)
    assert made["cells"][0]["outputs"] == []
    assert made["cells"][1]["outputs"] == before["cells"][1]["outputs"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("# solution\nx = 1", "has no '# end of solution' in its cell"),
        ("# end of solution", "stands without '# solution' before it"),
        ("# solution\n# solution\n# end of solution", "stands within a solution"),
    ],
)
def test_markers_that_do_not_pair_up_are_an_error_that_names_the_cell(source, message):
    with pytest.raises(ValueError, match=rf"cell c0: .*{message}"):
        exercises.exercise_of(notebook(("code", [], source)))


def test_a_solution_that_changed_makes_its_exercise_stale(tmp_path):
    path = tmp_path / "solutions" / "01_x.ipynb"
    path.parent.mkdir()
    path.write_text(exercises.text_of(notebook(("code", [], FUNCTION))), encoding="utf-8")
    assert exercises.stale(path)
    exercises.make(path)
    assert not exercises.stale(path) and exercises.solutions(tmp_path) == [path]
    path.write_text(exercises.text_of(notebook(("code", [], FUNCTION + "\nprint(3)"))), encoding="utf-8")
    assert exercises.stale(path)
