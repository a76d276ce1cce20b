"""The course itself: import times, each notebook's seconds and memory, from nothing to the first figure, `make test`.

    python benchmarks/course.py [--rounds 3] [--notebooks 00,03] [--cold] [--tests]

Imports are timed in fresh processes, in turns: `course_lib` beside Keras with its backend. Every notebook is run top to
bottom in a kernel of its own, without being changed; its peak memory is that of the process with its kernel. `--cold`
clones the project into an empty folder, sets it up there as `make lab` does, and runs notebook 00 until its first figure
stands; it needs a network, or pip's cache. `--tests` times `make test`, which takes half an hour.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _shared import PROJECT, finish, in_turns, parser, row

RUN_NOTEBOOK = """
import json, resource, sys, time
from pathlib import Path
import nbformat
from nbclient import NotebookClient

path, until_figure = Path(sys.argv[1]), sys.argv[2] == "figure"
notebook = nbformat.read(path, 4)
client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}})
start = time.perf_counter()
with client.setup_kernel():
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            client.execute_cell(cell, number)
            if until_figure and any("image/png" in output.get("data", {}) for output in cell.outputs):
                break
seconds = time.perf_counter() - start
usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"seconds": seconds, "peak_mb": round(max(usage) / 1024)}))
"""


def run_notebook(path: Path, until: str = "end", python: str = sys.executable) -> dict:
    """Seconds and peak memory of a notebook that is run, but not written."""
    environment = os.environ | {
        "KERAS_BACKEND": "tensorflow",
        "COURSE_TRAIN": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [python, "-c", RUN_NOTEBOOK, str(path), until],
        capture_output=True,
        text=True,
        env=environment,
        cwd=path.parent,
    )
    if done.returncode:
        raise SystemExit(f"{path.name} stopped: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def cold() -> list[dict]:
    """From a clone to the first figure, step by step."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clone, start = Path(folder) / "course", time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", PROJECT.as_uri(), clone], check=True)
        cloned = time.perf_counter()
        subprocess.run(["make", "setup"], cwd=clone, check=True, stdout=subprocess.DEVNULL)
        ready = time.perf_counter()
        python = str(clone / ".venv" / "bin" / "python")
        run_notebook(clone / "notebooks" / "00_start_here.ipynb", "figure", python)
        drawn = time.perf_counter()
        rows.append(row("cold: make setup in a fresh clone", [ready - cloned]))
        rows.append(row("cold: notebook 00 to its first figure", [drawn - ready]))
        rows.append(row("cold: from git clone to the first figure", [drawn - start]))
    return rows


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--notebooks", default="", help="their numbers, with commas between (default: all)")
    options.add_argument("--cold", action="store_true", help="also from a fresh clone to the first figure")
    options.add_argument("--tests", action="store_true", help="also make test")
    options = options.parse_args()
    rows = []

    def imported(code, backend="tensorflow"):
        environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        return lambda: subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL
        )

    library, whole = (
        imported("import course_lib"),
        imported("from course_lib import models, datasets, training"),
    )
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    keras_alone = [imported("import keras", name) for name in backends]
    timed = in_turns(options.rounds, library, whole, *keras_alone)
    rows.append(row("import course_lib", timed[0], timed[2], "import keras"))
    rows.append(row("import its models, data and training", timed[1], timed[2], "import keras"))
    rows += [
        row(f"import keras on {name}", seconds) for name, seconds in zip(backends, timed[2:], strict=True)
    ]

    wanted = options.notebooks.split(",") if options.notebooks else [""]
    for path in sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb")):
        if any(path.name.startswith(number) for number in wanted):
            found = run_notebook(path)
            rows.append(row(f"notebook {path.stem}", [found["seconds"]], peak_mb=found["peak_mb"]))
            print(f"{path.stem}: {found['seconds']:.0f} s, {found['peak_mb']:,} MB at most", flush=True)
    if options.cold:
        rows += cold()
    if options.tests:
        start = time.perf_counter()
        code = subprocess.run(["make", "test"], cwd=PROJECT, stdout=subprocess.DEVNULL).returncode
        rows.append(row(f"make test ({'passed' if code == 0 else 'FAILED'})", [time.perf_counter() - start]))
    finish("course", rows)


if __name__ == "__main__":
    main()
