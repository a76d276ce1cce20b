"""The claims of the notes, measured: one function per claim, one file of results per claim in `data/results`.

An experiment runs from fixed seeds, several times over, and gives an effect with a 95 % interval. What it says in the end
is one of three verdicts: `holds`, `holds when …`, `not seen here`. A demonstration needs no statistics: it shows what is
so, and a test holds it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from course_lib import hardware, resources
from course_lib.files import write_json
from course_lib.teaching import discovery

FOLDER = resources.DATA / "results"

NOT_YET: tuple[str, ...] = ()
"""Claims whose experiment stands here but whose result is still to be made."""


@dataclass(frozen=True)
class Interval:
    """A mean over repetitions with its 95 % interval (Student's t), `low` ≤ `mean` ≤ `high`."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    Attributes:
        claim: id in the list of claims, such as `"3.2"`.
        statement: the claim in the course's words.
        effect: what was measured to decide it, with its unit.
        interval: the effect's mean and 95 % interval over the repetitions; `None` for a demonstration, which is no
            measurement of chance but shows what is so.
        verdict: `"holds"`, `"holds when …"` or `"not seen here"`.
        teacher: the sentence a teacher would say.
        repetitions: how many independent runs; 1 for a demonstration.
        table: the numbers behind it, name → one value per repetition (or a nested table).
        recipe: digest of the recipe the runs vary, `""` where nothing was trained.
        seconds: how long it took.
        device: on what.
    """

    claim: str
    statement: str
    effect: str
    interval: Interval | None
    verdict: str
    teacher: str
    repetitions: int
    table: dict[str, Any]
    recipe: str = ""
    seconds: float = 0.0
    device: dict[str, str] = field(default_factory=dict)


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % interval of independent repetitions, by Student's t distribution.

    Raises:
        ValueError: for fewer than three values: an interval from two says nothing.
    """
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 3:
        raise ValueError(f"values has shape {values.shape}; an interval needs at least 3 repetitions.")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Interval(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def run(claim: str, progress: Callable[[str], None] = print) -> Result:
    """Measure a claim anew and write `data/results/<claim>.json`.

    Raises:
        ValueError: if there is no experiment for this claim.
    """
    module = discovery.module_of(claim)
    began = time.perf_counter()
    found: Result = getattr(module, f"claim_{claim.replace('.', '_')}")(progress)
    content = asdict(found) | {"seconds": round(time.perf_counter() - began), "device": hardware.describe()}
    write_json(FOLDER / f"{claim}.json", content)
    return read(claim)


def read(claim: str, folder: Path | None = None) -> Result:
    """The result that lies in `data/results`.

    Raises:
        FileNotFoundError: if the claim has not been measured; the message says how to.
    """
    path = (folder or FOLDER) / f"{claim}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"claim {claim} has no result yet; measure it: python -m course_lib claims --run {claim}"
        )
    content = json.loads(path.read_text(encoding="utf8"))
    found = content["interval"]
    return Result(**content | {"interval": None if found is None else Interval(**found)})
