"""The course's folder as students get it."""

import shutil
from pathlib import Path

from course_lib import resources

LEFT_OUT = (
    *".git .github .ci .venv* solutions tests benchmarks teaching.md grade.py slides runs out build".split(),
    *"__pycache__ .pytest_cache .ruff_cache .hypothesis .ipynb_checkpoints *.egg-info".split(),
)


def release(out: Path) -> Path:
    """Write the course's folder as students get it: without the solutions, the tests, and what grades.

    Raises:
        ValueError: if there is something at `out` already, if it lies in the course's folder, or if this is not a
            checkout of the course.
    """
    out = Path(out).resolve()
    if not (resources.NOTEBOOKS / "solutions").is_dir():
        raise ValueError(
            "release needs the course's folder with notebooks/solutions; this is an installed package."
        )
    if out.exists() or out.is_relative_to(resources.PROJECT):
        raise ValueError(f"out is {out}; it must be a new folder outside of the course's own.")
    package = str(resources.PACKAGE)

    def left_out(folder: str, names: list[str]) -> set[str]:
        inside = folder.startswith(package)  # course_lib/teaching/slides is code
        return shutil.ignore_patterns(*LEFT_OUT)(folder, names) - ({"slides", "build"} if inside else set())

    shutil.copytree(resources.PROJECT, out, ignore=left_out, symlinks=True)
    return out
