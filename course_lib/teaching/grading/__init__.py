"""Grade exercise notebooks that were handed in, each exercise in a process of its own.

Three kinds of processes, each trusting only the one before it:

- `grade` goes through the hand-ins and writes what came of each. It never runs their code.
- For each hand-in it starts one that judges (`judging`): it reads the notebook, picks the statements that an exercise
  needs, and looks at the answers with `checker`, where the right answers are. It never runs the hand-in's code either.
- For each exercise that one starts `child.py`, in an empty folder, on a copy of the library without exercises
  and answers, with bounds on time and memory. There the learner's code runs. What it is sent is inputs, what it sends
  back is values; no verdict comes from there, so replacing a check, ending the process or importing the answers gains
  nothing.

Nothing keeps the learner's code from reading the disk or from ending the grader's other processes: it runs with your
rights. docs/teaching.md has the command that shuts it in.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from course_lib import resources
from course_lib.cli import positive
from course_lib.files import write_atomically
from course_lib.teaching import checker
from course_lib.teaching.grading.for_students import release
from course_lib.teaching.grading.judging import Verdict, hidden_cases
from course_lib.teaching.grading.pages import HandIn, feedback, file_name, line_of, tables
from course_lib.teaching.grading.selection import read_cells

__all__ = ["HandIn", "Verdict", "add_options", "grade", "grade_one", "release", "run", "run_release"]

SECONDS = 60.0
"""How long an exercise may take, the learner's imports included."""
MEMORY_GB = 4.0
"""How much memory the learner's code may ask for (Linux)."""


class Judges(set):
    """The processes that judge at the moment; none is started any more once this is closed."""

    closed = False

    def close(self) -> None:
        """End them; they are in sessions of their own, which a Ctrl-C does not reach."""
        self.closed = True
        for process in list(self):
            process.terminate()


def grade(
    folder: Path,
    out: Path,
    *,
    seconds: float = SECONDS,
    memory_gb: float = MEMORY_GB,
    hidden: Path | None = None,
    jobs: int | None = None,
) -> list[HandIn]:
    """Grade all notebooks of a folder; whatever one of them does, the others are graded.

    Args:
        folder: holds the notebooks, in folders of their own if need be; nothing in it is changed.
        out: gets `grades.csv`, `moodle.csv`, `canvas.csv` (after each notebook) and `feedback/<name>.html`.
        seconds: how long an exercise may take.
        memory_gb: how much memory it may ask for, where the system can bound that (Linux).
        hidden: a Python file of your own with further inputs, `CASES = {"01.2": [Case(...)]}`.
        jobs: how many hand-ins at a time; half of the processors unless given.

    Raises:
        ValueError: if `folder` holds no notebook, if `out` is in it, or if the file `hidden` holds no cases.
    """
    folder, out = Path(folder).resolve(), Path(out).resolve()
    for target in (out, (out / "feedback").resolve()):
        if target.is_relative_to(folder):
            raise ValueError(
                f"out is {out}; it must not lie in the folder of the hand-ins, whose notebooks it would mix with or "
                "overwrite. Name another folder."
            )
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise ValueError(f"folder is {folder}; it must hold notebooks (*.ipynb).")
    if hidden:
        hidden_cases(str(hidden))
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    limits = {"seconds": seconds, "memory_gb": memory_gb}
    hidden_path = str(Path(hidden).resolve()) if hidden else ""
    graded, files, judges = [], set(), Judges()
    with ThreadPoolExecutor(jobs or max(1, (os.cpu_count() or 1) // 2)) as pool:
        names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]

        def one(path: Path, name: str) -> HandIn:
            return grade_one(path, name, limits, hidden_path, judges)

        try:
            for hand_in in pool.map(one, paths, names):
                graded.append(hand_in)
                print(line_of(hand_in), flush=True)
                page = out / "feedback" / f"{file_name(hand_in.name, files)}.html"
                write_atomically(page, feedback(hand_in))
                for name, table in tables(graded).items():
                    write_atomically(out / name, table)
        finally:
            judges.close()
    return graded


def grade_one(path: Path, name: str, limits: dict, hidden: str = "", judges: Judges | None = None) -> HandIn:
    """Grade one notebook with a process that judges; begun again after the exercise with which it was ended."""
    hand_in, judges = HandIn(name), Judges() if judges is None else judges
    try:
        read_cells(path)
    except (OSError, ValueError) as error:
        hand_in.problem = str(error)
        return hand_in
    while not hand_in.problem:
        done = [(verdict.number, verdict.state) for verdict in hand_in.verdicts]
        request = {"path": str(path), "limits": limits, "hidden": hidden, "done": done}
        begun = None
        for message in asked_to_judge(request, 2 * limits["seconds"] + 60, judges):
            if "chapter" in message:
                hand_in.chapter = message["chapter"]
                hand_in.imports = message["imports"]
            elif "begun" in message:
                begun = message
            else:
                begun = None
                hand_in.verdicts.append(Verdict(**message["verdict"]))
        if not hand_in.chapter:
            hand_in.problem = "it has no exercise of the course"
        elif len(hand_in.verdicts) >= len(checker.exercises(hand_in.chapter)):
            break
        elif begun:
            text = "Not judged: the process that was to judge it was ended while it ran."
            hand_in.verdicts.append(Verdict(begun["begun"], begun["name"], "stopped", text))
        elif not hand_in.verdicts or len(hand_in.verdicts) == len(done):
            hand_in.problem = "the process that was to judge it did not start"
    return hand_in


def asked_to_judge(request: dict, patience: float, judges: Judges) -> Iterator[dict]:
    """What the process that judges says, until it ends or has said nothing for `patience` seconds."""
    if judges.closed:
        return
    process = subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            "from course_lib.teaching.grading import judging; judging.judge_for_parent()",
        ],
        cwd=tempfile.gettempdir(),
        env=os.environ | {"PYTHONPATH": str(resources.PROJECT), "MPLBACKEND": "Agg"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    judges.add(process)
    watchdog = threading.Timer(patience, process.kill)
    with process:
        try:
            with suppress(OSError):
                process.stdin.write(json.dumps(request).encode())
                process.stdin.close()
            watchdog.start()
            for line in process.stdout:
                watchdog.cancel()
                with suppress(ValueError):
                    yield json.loads(line)
                watchdog = threading.Timer(patience, process.kill)
                watchdog.start()
        finally:
            watchdog.cancel()
            if not judges.closed:  # that one is already removing its folders
                process.kill()
            judges.discard(process)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments and options of `grade`."""
    help_ = "the notebooks, in folders of their own if need be"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=help_)
    parser.add_argument("out", type=Path, metavar="OUT", help="where the tables and feedback/ go")
    help_ = "time for an exercise (default: %(default)g)"
    seconds = partial(positive, what="seconds")
    parser.add_argument("--seconds", type=seconds, default=SECONDS, help=help_)
    help_ = "GB for an exercise (default: %(default)g; Linux)"
    gigabytes = partial(positive, what="gigabytes")
    parser.add_argument("--memory", type=gigabytes, default=MEMORY_GB, help=help_)
    help_ = 'further inputs in a file of yours: CASES = {"01.2": [Case(...)]}'
    parser.add_argument("--hidden", type=Path, help=help_)
    help_ = "notebooks at a time (default: half of the processors)"
    parser.add_argument("--jobs", type=partial(positive, what="notebooks", kind=int), help=help_)


def run(options: argparse.Namespace) -> dict:
    """Grade exercise notebooks, each exercise in a process of its own: grades.csv, tables for Moodle and Canvas, and a
    page of feedback for each. What was handed in runs with your rights: docs/teaching.md says how to shut it in."""
    limits = {"seconds": options.seconds, "memory_gb": options.memory}
    graded = grade(options.folder, options.out, **limits, hidden=options.hidden, jobs=options.jobs)
    return {"graded": [dataclasses.asdict(hand_in) for hand_in in graded]}


def run_release(options: argparse.Namespace) -> dict:
    """Write the course's folder as students get it: without the solutions, the tests, and what grades."""
    out = str(release(options.out))
    if not options.json:
        print(out)
    return {"written": out}
