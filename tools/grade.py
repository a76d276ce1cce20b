"""Grade exercise notebooks that were handed in.

Usage: python tools/grade.py FOLDER OUT, where FOLDER holds them (*.ipynb, in folders of its own if need be) and OUT is
where the grades go: grades.csv, and for each notebook what ran and what was said.

Of each notebook the code is taken as it is; behind it come the checks of notebooks/solutions with the outputs of a right
answer, and nbval compares. So nobody passes by changing a check or by typing its answer. What was handed in runs with your
rights: docs/teaching.md says how to shut it in.
"""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import notebooks

CHECK = re.compile(r'^check\("(\d\d)\.(\d)", \w+\)', re.M)
CELL_SECONDS = 60
MARKS = {"right": "✓", "wrong": "✗", "open": "○"}


def checks_of(solution: dict) -> dict[str, dict]:
    """Exercise number → the cell that checks it, with the output of a right answer."""
    cells = {}
    for cell in notebooks.code_cells(solution):
        if found := CHECK.search(notebooks.source(cell)):
            # Asked for anew, so that a `check` of the student's own is not the one that answers.
            call = f"from course_lib.teaching import check\n{found[0]}"
            cells[f"{found[1]}.{found[2]}"] = {**cell, "source": call}
    return cells


def chapter_of(submission: dict) -> str:
    """The chapter whose checks a notebook calls most often; empty if it calls none."""
    found = [
        match[1]
        for cell in notebooks.code_cells(submission)
        for match in CHECK.finditer(notebooks.source(cell))
    ]
    return max(found, key=found.count, default="")


def to_compare(submission: dict, checks: dict[str, dict]) -> dict:
    """The notebook that nbval runs: the student's code, its outputs ignored, and the checks behind it."""
    import nbformat.v4 as v4

    tags = {"tags": ["nbval-ignore-output"]}
    theirs = [
        v4.new_code_cell(notebooks.source(cell), metadata=tags) for cell in notebooks.code_cells(submission)
    ]
    # nbval compares the outputs of cells that have a number.
    ours = [
        v4.new_code_cell(cell["source"], outputs=cell["outputs"], execution_count=1)
        for cell in checks.values()
    ]
    return v4.new_notebook(cells=theirs + ours, metadata=notebooks.METADATA)


def run(path: Path, numbers: list[str]) -> dict[str, str]:
    """Run a notebook made by `to_compare` under nbval; exercise number → right, wrong or open."""
    report = path.with_suffix(".xml")
    options = ["--nbval", "--nbval-current-env", f"--nbval-cell-timeout={CELL_SECONDS}", "--color=no", "-q"]
    here = ["-c", os.devnull, f"--rootdir={path.parent}", "-p", "no:cacheprovider", f"--junitxml={report}"]
    with path.with_suffix(".txt").open("w", encoding="utf-8") as said:
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, *here, str(path)],
            env=os.environ | notebooks.ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    cases = [*ElementTree.parse(report).iter("testcase")][-len(numbers) :]
    report.unlink()
    states = {}
    for number, case in zip(numbers, cases, strict=True):
        failed = [*case.iter("failure"), *case.iter("error")]
        text = "".join("".join(one.itertext()) for one in failed)
        states[number] = "right" if not failed else "open" if f"○ {number} " in text else "wrong"
    return states


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__)
        return 2
    folder, out = (Path(argument).resolve() for argument in arguments)
    handed_in = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not handed_in:
        print(f"There is no notebook in {arguments[0]}.")
        return 1
    solutions = {
        path.name[:2]: checks_of(notebooks.read(path))
        for path in sorted((notebooks.ROOT / "notebooks" / "solutions").glob("*.ipynb"))
    }
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in handed_in:
        name = path.relative_to(folder).with_suffix("")
        try:
            submission = notebooks.read(path)
            chapter = chapter_of(submission)
            checks = solutions[chapter]
        except Exception as error:  # whatever was handed in must not stop the grading of the others
            reason = "it calls no check of the exercises" if isinstance(error, KeyError) else error
            print(f"{name}: not graded, {reason}", flush=True)
            rows.append({"submission": name, "chapter": "not graded"})
            continue
        made = out / f"{'-'.join(name.parts)}.ipynb"
        notebooks.write(to_compare(submission, checks), made)
        states = run(made, list(checks))
        right = [*states.values()].count("right")
        marks = "  ".join(f"{number} {MARKS[state]}" for number, state in states.items())
        print(f"{name}: {marks}  ({right} of {len(states)})", flush=True)
        row = {"submission": name, "chapter": chapter, "right": right}
        rows.append(row | {number[-1]: state for number, state in states.items()})
    with (out / "grades.csv").open("w", newline="", encoding="utf-8") as file:
        exercises = sorted({key for row in rows for key in row if key.isdigit()})
        writer = csv.DictWriter(file, ["submission", "chapter", "right", *exercises])
        writer.writeheader()
        writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
