"""Run the notebooks in place, strip what changes from run to run, and check what is left.

Usage: python tools/notebooks.py ACTION [NOTEBOOK ...], where ACTION is
- run: execute top to bottom, clean, check, write;
- clean: clean, check, write, without running;
- check: check only.
"""

import asyncio
import copy
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CELL_SECONDS = 600

# Committed outputs come from one setting, so that they are the same wherever they are made or checked.
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "COURSE_TRAIN": "0",
    "COURSE_PROGRESS": "",
    "COURSE_QUIZ_FIGURES": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Real data is never here, also where it is: none of its images may get into a committed output.
    "COURSE_DATA": "",
    "COURSE_CACHE": str(ROOT / "runs" / "no-data"),
    "COURSE_MIRROR": "http://127.0.0.1:9",
}

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
}
MAX_BYTES = 6_000_000
MAX_CELL_LINES = 40
MIN_COMPARED = 0.8
SLIDE_TYPES = {"slide", "subslide", "fragment", "skip", "notes", "-"}
OPENING = {
    "what the reader will be able to do": r"you will be able to",
    "what they need to know first": r"you need",
    "how many minutes it takes": r"minutes",
}
# What TensorFlow says of the processor, before it has read that it is to be silent: on some processors, and not each time.
START_UP = re.compile(
    r"^(WARNING: All log messages before absl::|[IWE]0000 00:00:|To enable the following instructions:).*\n?",
    re.M,
)
# The second cell of every chapter: one click on Colab is enough to begin, and at home it is silent.
COLAB = """# On Colab this cell installs the course beside Colab's own Keras. Elsewhere it does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install -q "segmentation-course[notebook]=={version}"
    from course_lib.hardware import summary

    print(summary())"""
COLAB_METADATA = {
    "jupyter": {"source_hidden": True},
    "slideshow": {"slide_type": "skip"},
    "tags": ["hide-input", "remove-cell"],
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
REAL_DATA = re.compile(r"\b(?:nuclei|membranes|camvid)\(")
"""How a cell reads a real data set, beside the tag `real-data`."""
IMAGE = re.compile(r"<img|<svg|data:image", re.I)
NOT_COMPARED_TAGS = {"nbval-ignore-output", "nbval-skip"}
NOT_COMPARED_WORDS = ("NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP", "PYTEST_VALIDATE_IGNORE_OUTPUT")
VOLATILE = {
    "a path of the machine it ran on": r"(?<![\w:/.<])/(?:[\w.-]+/){2,}[\w.-]+|\b[A-Z]:\\\w",
    "a date": r"\b20\d\d-[01]\d-[0-3]\d\b",
    "a time of day": r"\b[0-2]?\d:[0-5]\d:[0-5]\d\b",
    "an address in memory": r"\bat 0x[0-9a-f]{6,}",
    "a warning": r"\b\w*Warning\b",
}


def find_notebooks(root: Path = ROOT) -> list[Path]:
    """All notebooks. The exercises run from top to bottom as well, and say what is still to do."""
    return [
        path
        for path in sorted((root / "notebooks").rglob("*.ipynb"))
        if ".ipynb_checkpoints" not in path.relative_to(root).parts
    ]


def code_cells(notebook: dict) -> list[dict]:
    """The code cells that hold any code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and source(cell).strip()]


def source(cell: dict) -> str:
    """A cell's source as one string, whichever way the file holds it."""
    return "".join(cell["source"])


def is_compared(cell: dict) -> bool:
    """Whether nbval compares the output of this code cell with the committed one."""
    tags = set(cell["metadata"].get("tags", []))
    return not tags & NOT_COMPARED_TAGS and not any(word in source(cell) for word in NOT_COMPARED_WORDS)


def shows_real_data(cell: dict) -> bool:
    """Whether a cell that reads a real data set holds an image, of whatever: its outputs are committed."""
    tagged = "real-data" in cell["metadata"].get("tags", [])
    if not tagged and not REAL_DATA.search(source(cell)):
        return False
    mimes = [mime for output in cell.get("outputs", []) for mime in output.get("data", {})]
    return any(mime.startswith("image/") for mime in mimes) or any(map(IMAGE.search, output_texts(cell)))


def output_texts(cell: dict) -> list[str]:
    """Everything in a cell's outputs that a reader can read."""
    texts = []
    for output in cell.get("outputs", []):
        texts.append("".join(output.get("text", [])))
        for mime, content in output.get("data", {}).items():
            if mime.startswith("text/"):
                texts.append("".join(content))
    return texts


def problems(notebook: dict, size: int = 0) -> list[str]:
    """What keeps a notebook from being committed, one sentence each; an empty list is a good notebook."""
    found = []
    cells = code_cells(notebook)

    counts = [cell.get("execution_count") for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        found.append(f"not executed top to bottom in a fresh kernel: execution counts {counts[:8]}")

    for number, cell in enumerate(cells, start=1):
        where = f"code cell {number}"
        allowed_to_raise = "raises-exception" in cell["metadata"].get("tags", [])
        for output in cell.get("outputs", []):
            if output["output_type"] == "error" and not allowed_to_raise:
                found.append(f"{where}: an error output ({output.get('ename')})")
            if output.get("name") == "stderr":
                found.append(f"{where}: text on stderr: {''.join(output['text'])[:80]!r}")
        for what, pattern in VOLATILE.items():
            for text in output_texts(cell):
                if match := re.search(pattern, text):
                    found.append(f"{where}: {what} in its output: {match.group(0)!r}")
        if shows_real_data(cell):
            found.append(
                f"{where}: reads real data and shows an image; run it with `make notebooks`, without the data"
            )
        if (lines := len(source(cell).splitlines())) > MAX_CELL_LINES:
            found.append(f"{where}: {lines} lines; at most {MAX_CELL_LINES}, better 15")

        if source(cell).rstrip().endswith(";"):
            found.append(f"{where}: ends on ';', which nbval does not heed; assign the value to _ instead")

    if cells and (fraction := sum(map(is_compared, cells)) / len(cells)) <= MIN_COMPARED:
        found.append(f"nbval compares {fraction:.0%} of the code cells; it has to be over {MIN_COMPARED:.0%}")

    for number, cell in enumerate(notebook["cells"], start=1):
        slide = cell["metadata"].get("slideshow", {}).get("slide_type")
        if slide not in SLIDE_TYPES:
            found.append(f"cell {number}: no slide type (metadata.slideshow.slide_type is {slide!r})")
        if {"execution", "ExecuteTime", "collapsed"} & set(cell["metadata"]):
            found.append(f"cell {number}: metadata of one run; `make notebooks` strips it")

    first = notebook["cells"][0] if notebook["cells"] else {"cell_type": "none", "source": ""}
    for what, pattern in OPENING.items():
        if first["cell_type"] != "markdown" or not re.search(pattern, source(first), re.IGNORECASE):
            found.append(f"the first cell does not say {what} ({pattern!r})")

    if notebook["metadata"] != METADATA:
        found.append("the notebook's metadata are those of one machine; `make notebooks` strips them")
    if size > MAX_BYTES:
        found.append(f"{size / 1e6:.1f} MB; smaller or fewer figures, at most {MAX_BYTES / 1e6:.0f} MB")
    return found


def version() -> str:
    """The course's version, read without importing it."""
    text = (ROOT / "course_lib" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'__version__ = "(.+?)"', text).group(1)


def put_colab_cell(notebook: dict) -> None:
    """Make the second cell the one for Colab, in place. It prints nothing, so it counts as run."""
    import nbformat

    cells = [cell for cell in notebook["cells"] if cell.get("id") != "colab"]
    cell = nbformat.v4.new_code_cell(
        COLAB.replace("{version}", version()), metadata=copy.deepcopy(COLAB_METADATA)
    )
    cell["id"], cell["execution_count"] = "colab", 1
    was_there = len(cells) < len(notebook["cells"])
    if not was_there:
        for other in code_cells({"cells": cells}):
            if other.get("execution_count"):
                other["execution_count"] += 1
                for output in other.get("outputs", []):
                    if output.get("execution_count"):
                        output["execution_count"] += 1
    notebook["cells"] = [*cells[:1], cell, *cells[1:]]


def has_colab_cell(notebook: dict) -> bool:
    """Whether the second cell is the one for Colab, at this version."""
    return len(notebook["cells"]) > 1 and source(notebook["cells"][1]) == COLAB.replace(
        "{version}", version()
    )


def is_chapter(path: Path) -> bool:
    """Whether this is a chapter, and no sheet of exercises."""
    return path.parent == ROOT / "notebooks"


def clean(notebook: dict) -> dict:
    """The notebook without what differs between two honest runs; changed in place and returned."""
    notebook["metadata"] = copy.deepcopy(METADATA)
    for cell in notebook["cells"]:
        for key in ("execution", "ExecuteTime", "collapsed"):
            cell["metadata"].pop(key, None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)  # its model id is random
            if output.get("name") == "stderr":
                output["text"] = START_UP.sub("", "".join(output["text"]))
        if "outputs" in cell:
            cell["outputs"] = [
                output
                for output in cell["outputs"]
                if output.get("name") != "stderr" or output["text"].strip()
            ]
    return notebook


def read(path: Path) -> dict:
    """The notebook as nbformat gives it."""
    import nbformat

    return nbformat.read(path, as_version=4)


def write(notebook: dict, path: Path) -> None:
    """Write whole or not at all: a run that is stopped leaves the old file."""
    import nbformat

    unfinished = path.with_suffix(".ipynb.new")
    unfinished.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    unfinished.replace(path)


def execute(notebook: dict, folder: Path) -> None:
    """Run every cell in a fresh kernel that starts in `folder`; outputs go into `notebook`.

    Raises:
        KeyboardInterrupt: on Ctrl-C, the kernel ended. nbclient alone would report a dead kernel, as of one bad notebook.
    """
    from nbclient import NotebookClient

    class Client(NotebookClient):
        interrupted = False

        @asynccontextmanager
        async def async_setup_kernel(self, **kwargs):
            async with super().async_setup_kernel(**kwargs):
                with suppress(RuntimeError):  # Windows has no such handlers
                    asyncio.get_running_loop().add_signal_handler(
                        signal.SIGINT, self.interrupt, asyncio.current_task()
                    )
                yield

        def interrupt(self, task: asyncio.Task) -> None:
            self.interrupted, self.shutdown_kernel = True, "immediate"
            task.cancel()

    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    client = Client(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    try:
        client.execute(env=os.environ | ENVIRONMENT)
    except BaseException as error:
        raise KeyboardInterrupt if client.interrupted else error from None


def main(arguments: list[str]) -> int:
    action, names = (arguments or ["check"])[0], arguments[1:]
    if action not in ("run", "clean", "check"):
        print(__doc__)
        return 2
    paths = [Path(name).resolve() for name in names] or find_notebooks()
    if not paths:
        print("There is no notebook in notebooks/.")
        return 1
    failed = 0
    for path in paths:
        start = time.monotonic()
        notebook = read(path)
        if action != "check" and is_chapter(path):
            put_colab_cell(notebook)
        if action == "run":
            print(f"Running {path.name} …", flush=True)
            try:
                execute(notebook, path.parent)
            except Exception as error:  # a cell that raised or hung; the message holds it and its traceback
                print(f"{path.name} stopped; the file is as it was.\n{error}")
                failed += 1
                continue
        if action != "check":
            write(clean(notebook), path)
        found = problems(notebook, path.stat().st_size)
        if is_chapter(path) and not has_colab_cell(notebook):
            found.append("its second cell is not the one for Colab; `tools/notebooks.py clean` writes it")
        failed += bool(found)
        verdict = f"{len(found)} problems" if found else "good"
        print(f"{path.name}: {verdict} ({time.monotonic() - start:.0f} s)")
        print("".join(f"  - {problem}\n" for problem in found), end="")
    return 1 if failed else 0


def until_interrupted(run: Callable[[list[str]], int]) -> int:
    """What `run` gives for the command line's arguments; Ctrl-C ends all of it, in one sentence."""
    try:
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        print("\nStopped; the notebook that was running is as it was, and so are those after it.")
        return 130


if __name__ == "__main__":
    sys.exit(until_interrupted(main))
