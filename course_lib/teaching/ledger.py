"""The claims, measured: one function per claim, one file of results per claim in `data/results`.

A **demonstration** shows what is so by definition or geometry: it needs no statistics, and a test holds it. An
**experiment** runs from fixed seeds and ends in one of five verdicts (see `statistics`): supported, supported
for …, equivalent, contradicted, undecided. A claim that was measured before these rules is undecided until
its runs are made. Its old numbers stay in its table, and its effect says that they come from the first edition.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from course_lib import hardware, resources
from course_lib.files import write_json
from course_lib.teaching import discovery, statistics
from course_lib.teaching.experiments import Experiment, rounded
from course_lib.teaching.statistics import Gate, Interval, Verdict, interval

__all__ = [
    "FOLDER",
    "Interval",
    "Result",
    "demonstrated",
    "experiments",
    "interval",
    "judged",
    "read",
    "run",
    "short_lines",
    "status",
    "waiting",
]

FOLDER = resources.DATA / "results"
DEMONSTRATED = "demonstrated"
FIRST_EDITION = "first edition, under its older rules: "
NOT_YET: tuple[str, ...] = ()
"""Claims whose experiment is written but whose result is still to be measured."""


@dataclass(frozen=True)
class Result:
    """The result of an experiment or a demonstration.

    Attributes:
        claim: id in the list of claims, such as `"3.2"`.
        statement: the claim in the course's words.
        effect: the quantity that decides the claim, with its unit.
        interval: mean and 95 % interval of the effect in `setting`; `None` for a demonstration.
        verdict: `"demonstrated"`, or one of the five verdicts of `statistics`.
        teacher: the result in a sentence; for an experiment it is made from `comparisons`.
        repetitions: number of independent runs; 1 for a demonstration.
        table: the numbers behind the result.
        comparisons: setting → result of `statistics.compare`, with the setting's own verdict.
        gate: setting → whether the networks have learned their task, as `statistics.Gate` describes it.
        reason: why the verdict is undecided.
        missing: number of runs still to be made.
        left_out: seeds whose networks failed the gate and were replaced.
        recipe: digest of the recipe that the runs vary; `""` where nothing was trained.
        seconds: running time.
        device: the device it ran on.
    """

    claim: str
    statement: str
    effect: str
    interval: Interval | None
    verdict: str
    teacher: str
    repetitions: int
    table: dict[str, Any]
    comparisons: dict[str, dict] = field(default_factory=dict)
    gate: dict[str, dict] = field(default_factory=dict)
    reason: str = ""
    missing: int = 0
    left_out: list[int] = field(default_factory=list)
    recipe: str = ""
    seconds: float = 0.0
    device: dict[str, str] = field(default_factory=dict)

    @property
    def is_demonstration(self) -> bool:
        return self.verdict == DEMONSTRATED

    @property
    def setting(self) -> str:
        """The setting that `interval` is shown for: the first supported one, else the first; `""` if there is none."""
        return _setting(self.comparisons)

    @property
    def null(self) -> float:
        """The value that means no effect: 1 for a ratio, else 0."""
        if self.comparisons:
            return next(iter(self.comparisons.values()))["null"]
        return 1.0 if "(1 =" in self.effect else 0.0


def _setting(comparisons: Mapping[str, dict]) -> str:
    supported = (name for name, one in comparisons.items() if one["verdict"] == statistics.SUPPORTED)
    return next(supported, next(iter(comparisons), ""))


def demonstrated(claim: str, statement: str, effect: str, teacher: str, table: dict) -> Result:
    """The result of a demonstration."""
    return Result(claim, statement, effect, None, DEMONSTRATED, teacher, 1, table)


def judged(
    claim: str,
    statement: str,
    effect: str,
    verdict: Verdict,
    table: dict,
    gates: Gate | Mapping[str, Gate] | None = None,
    missing: int = 0,
    left_out: list[int] | tuple[int, ...] = (),
) -> Result:
    """The result of an experiment; sentence and interval come from the verdict's comparisons."""
    comparisons, reason = rounded(verdict.comparisons), verdict.reason
    if missing and verdict.word == statistics.UNDECIDED:
        reason = statistics.missing_runs(
            missing
        )  # those of the tuning too, which the verdict does not know of
    gates = gates if isinstance(gates, Mapping) else {} if gates is None else {"": gates}
    shown = comparisons.get(_setting(comparisons))
    return Result(
        claim,
        statement,
        effect,
        shown and Interval(shown["mean"], shown["low"], shown["high"]),
        verdict.word,
        statistics.sentence(effect, verdict.word, comparisons, reason),
        max((one["runs"] for one in comparisons.values()), default=0),
        rounded(table),
        comparisons,
        {name: rounded(asdict(gate) | {"passed": gate.passed}) for name, gate in gates.items()},
        reason,
        missing,
        list(left_out),
    )


def waiting(
    claim: str,
    statement: str,
    effect: str,
    found: Interval,
    repetitions: int,
    table: dict,
    reason: str,
    missing: int,
) -> Result:
    """The undecided result of a claim whose runs under the present rules have not been made yet."""
    reason = f"{reason}; {statistics.missing_runs(missing)}"
    word = statistics.UNDECIDED
    return Result(
        claim,
        statement,
        FIRST_EDITION + effect,
        found,
        word,
        statistics.sentence(effect, word, {}, reason),
        repetitions,
        table,
        reason=reason,
        missing=missing,
    )


def experiments(claim: str) -> tuple[Experiment, ...]:
    """The experiments whose runs decide a claim; none where the claim is measured in one go."""
    return getattr(discovery.module_of(claim), "EXPERIMENTS", ())


def run(
    claim: str,
    progress: Callable[[str], None] = print,
    minutes: float | None = None,
    write: bool = False,
    folder: Path | None = None,
) -> Result:
    """Make a claim's missing runs, then judge the claim by all its runs.

    Args:
        claim: its id.
        progress: called with each line of progress of a claim that is measured in one go.
        minutes: start no run after this time; 0 judges the claim by the existing runs.
        write: write the result to the ledger. Single runs are always kept.
        folder: of the ledger, by default `data/results`.

    Raises:
        ValueError: if there is no experiment for this claim.
    """
    module, began = discovery.module_of(claim), time.perf_counter()
    for experiment in experiments(claim):
        left = None if minutes is None else minutes - (time.perf_counter() - began) / 60
        experiment.run(left)
    found: Result = getattr(module, f"claim_{claim.replace('.', '_')}")(progress)
    if write:
        content = asdict(found) | {
            "seconds": round(time.perf_counter() - began),
            "device": hardware.describe(),
        }
        path = (folder or FOLDER) / f"{claim}.json"
        if found.missing and path.is_file():
            # Half an experiment has no table yet: keep the previous complete one, under an undecided verdict.
            content["table"] = json.loads(path.read_text(encoding="utf8"))["table"] | found.table
        write_json(path, content)
        return read(claim, folder)
    return found


def run_all(minutes: float | None = None) -> int:
    """Make the missing runs of all experiments, the most valuable first; returns how many were made."""
    began, made = time.perf_counter(), 0
    for experiment in all_experiments():
        left = None if minutes is None else minutes - (time.perf_counter() - began) / 60
        if left is None or left > 0:
            made += experiment.run(left)
    return made


def all_experiments() -> list[Experiment]:
    """Each experiment once, the most valuable first."""
    found = {one.name: one for claim in discovery.claims() for one in experiments(claim)}
    return sorted(found.values(), key=lambda one: -one.worth)


def status() -> list[dict[str, Any]]:
    """For each experiment: its claims, the numbers of runs done, missing and stale, and the minutes still needed."""
    claims = {one.name: [c for c in discovery.claims() if one in experiments(c)] for one in all_experiments()}
    return [one.status() | {"claims": claims[one.name]} for one in all_experiments()]


class Report(NamedTuple):
    """The output of `python -m course_lib claims`: lines to print, and the same as plain values."""

    lines: list[str]
    claims: list[dict]
    experiments: list[dict]


def command(
    wanted: Sequence[str] = (), minutes: float | None = None, write: bool = False, show_status: bool = False
) -> Report:
    """Make and judge the requested runs, then report on all claims, or on the experiments.

    Args:
        wanted: ids of claims whose missing runs are made first, or `"all"`.
        minutes, write: as for `run`.
        show_status: report on the experiments instead of the claims.

    Raises:
        ValueError: for an unknown claim.
    """
    known = discovery.claims()
    if unknown := [claim for claim in wanted if claim not in (*known, "all")]:
        raise ValueError(f"--run is {unknown[0]}; it must be all or one of {', '.join(known)}.")
    if minutes is not None and minutes < 0:
        raise ValueError(f"--minutes is {minutes:g}; it must be 0 or more.")
    fresh: dict[str, Result] = {}
    if "all" in wanted:
        run_all(minutes)
        fresh = {claim: run(claim, minutes=0, write=write) for claim in known if experiments(claim)}
    for claim in wanted:
        if claim != "all":
            fresh[claim] = run(claim, _to_stderr, minutes, write)
    if show_status:
        rows = status()
        return Report([status_line(row) for row in rows], [], rows)
    results = [
        fresh.get(claim) or read(claim)
        for claim in known
        if claim in fresh or (FOLDER / f"{claim}.json").is_file()
    ]
    return Report([line for result in results for line in lines_of(result)], [asdict(r) for r in results], [])


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def status_line(row: Mapping[str, Any]) -> str:
    """The state of an experiment in one line."""
    time_left = "time unknown" if row["minutes"] is None else f"about {row['minutes']:g} minutes"
    return (
        f"{row['experiment']:<18} {row['done']} done, {row['missing']} missing, {row['stale']} of them stale; {time_left}; "
        f"claims {', '.join(row['claims'])}"
    )


def lines_of(result: Result) -> list[str]:
    """The result of a claim as lines: verdict and sentence, detectable effects, gate."""
    lines = [f"{result.claim}  {result.statement}"]
    if result.is_demonstration:
        return [*lines, f"     {result.verdict}: {result.teacher}", f"     shown: {result.effect}"]
    lines.append(f"     {result.teacher}")
    if result.comparisons:
        powers = ", ".join(
            f"{one['detectable']:.3f} ({name or 'all'})" for name, one in result.comparisons.items()
        )
        lines.append(f"     detectable with 80 % power: {powers}")
    for name, gate in result.gate.items():
        of = f" ({name})" if name else ""
        lines.append(
            f"     gate{of}: {gate['score']} {gate['reached']:.2f}, {'passed' if gate['passed'] else 'not passed'} "
            f"(needed {gate['needed']:g}, constant prediction {gate['constant']:.2f})"
        )
    if result.left_out:
        seeds = "seed" + "s" * (len(result.left_out) > 1)
        lines.append(f"     left out because below the gate: {seeds} {', '.join(map(str, result.left_out))}")
    if not result.comparisons and result.interval:
        lines.append(f"     {result.effect}: {result.interval}")
    return lines


def short_lines(result: Result) -> list[str]:
    """A claim's verdict in lines of at most 72 characters, to fit on a slide: the verdict, then a line for each setting.

    With a single setting everything is on one line. If no run is missing, `undecided` is followed by its reason.
    """
    word, settings = result.verdict, result.comparisons
    if word == statistics.UNDECIDED:
        reason = result.reason.partition(" (")[0]
        if result.missing:
            reason = f"{result.missing} run{'s' * (result.missing > 1)} missing"
        word += f": {reason}"
    elif word not in (DEMONSTRATED, *statistics.WORDS):  # supported when …
        supported = sum(one["verdict"] == statistics.SUPPORTED for one in settings.values())
        word = f"{statistics.SUPPORTED} in {supported} of {len(settings)} settings"
    lines = [f"{result.claim}  {word}"]
    for name, one in settings.items():
        own = f": {one['verdict']}" if len(settings) > 1 and one["verdict"] != result.verdict else ""
        lines.append(f"     {statistics.numbers(one)}  {name}{own}".rstrip())
    return ["  ".join(map(str.strip, lines))] if len(settings) == 1 else lines


def read(claim: str, folder: Path | None = None) -> Result:
    """A result from `data/results`.

    Raises:
        FileNotFoundError: if the claim has not been measured; the message says how to do it.
    """
    path = (folder or FOLDER) / f"{claim}.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"claim {claim} has no result yet; measure it: python -m course_lib claims --run {claim} --write"
        )
    content = json.loads(path.read_text(encoding="utf8"))
    found = content["interval"]
    return Result(**content | {"interval": None if found is None else Interval(**found)})
