"""What the timings share: taking turns, the machine in words, the raw numbers as a file, a table."""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))
RESULTS = PROJECT / "data" / "results"
PACKAGES = (
    "keras",
    "tensorflow-cpu",
    "tensorflow",
    "jax",
    "torch",
    "torchvision",
    "numpy",
    "pycocotools",
    "scikit-image",
    "stardist",
)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system and versions; and how busy the machine was, 1 = one core, before the timing."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": found,
        "busy_before": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def save(name: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> Path:
    """Write `data/results/bench-<name>.json`: command, machine, and for each row its raw seconds.

    Args:
        name: of the benchmark.
        rows: see `row`.
        more: what else belongs to it.
    """
    from course_lib.files import write_json

    path = RESULTS / f"bench-{name}.json"
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    write_json(path, {"command": command, "machine": machine(), **more, "rows": [dict(one) for one in rows]})
    return path


def row(
    what: str,
    ours: Sequence[float],
    theirs: Sequence[float] | None = None,
    other: str = "",
    why: str = "",
    **more: Any,
) -> dict[str, Any]:
    """One line of a benchmark: seconds of ours and of the other, round by round, and the median of their ratios.

    Args:
        what: was timed.
        ours, theirs: seconds in each round; the rounds were taken in turns, so they are compared pair by pair.
        other: whose seconds `theirs` are.
        why: there is nothing to compare with.
        more: sizes, and what else belongs to the line.
    """
    line = {"what": what, "other": other, "ratio": None, "ours": [float(f"{s:.4g}") for s in ours], **more}
    if theirs:
        line["theirs"] = [float(f"{s:.4g}") for s in theirs]
        line["ratio"] = round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)
    if why:
        line["why"] = why
    return line


def in_turns(
    rounds: int, *functions: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Seconds of each function in each round: all of them once in every round, after one call that is not counted."""
    for function in functions:
        function()
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, kept in zip(functions, seconds, strict=True):
            start = clock()
            function()
            kept.append(clock() - start)
    return seconds


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table: the ratio first (below 1: the course is quicker), then both medians."""
    said = []
    for one in rows:
        ours = statistics.median(one["ours"]) if one["ours"] else None
        ratio = "      " if one["ratio"] is None else f"{one['ratio']:6.2f}"
        line = f"{ratio}  {one['what']:<62}"
        if ours is not None:
            line += f" {_seconds(ours)}"
        if one.get("theirs"):
            line += f"  {one['other']} {_seconds(statistics.median(one['theirs']))}"
        if one.get("why"):
            line += f"  ({one['why']})"
        said.append(line.rstrip())
    return said


def _seconds(value: float) -> str:
    return f"{value:8.2f} s " if value >= 1 else f"{1000 * value:8.2f} ms"


def parser(text: str, rounds: int) -> argparse.ArgumentParser:
    """A parser with `--rounds`."""
    made = argparse.ArgumentParser(description=text.splitlines()[0])
    made.add_argument(
        "--rounds", type=int, default=rounds, help=f"times that each is timed (default {rounds})"
    )
    return made


def finish(name: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Print the table and write the file."""
    print("\n".join(lines(rows)), flush=True)
    save(name, rows, **more)
