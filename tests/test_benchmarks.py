"""What the timings share: ratios pair by pair, the table, the file; and `make bench`, which names what it does not know."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shared(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    return load(PROJECT / "benchmarks" / "_shared.py")


def test_a_ratio_is_the_median_over_pairs(shared):
    # A machine that was busy in one round slows both: the pairs say 2, the medians would say 3.
    line = shared.row("a", [2.0, 20.0, 6.0], [1.0, 10.0, 2.0], "b", boxes=3)
    assert line["ratio"] == 2.0 and line["boxes"] == 3 and line["theirs"] == [1.0, 10.0, 2.0]
    assert shared.row("a", [1.0])["ratio"] is None


def test_the_table_has_the_ratio_first_and_the_reason_last(shared):
    rows = [
        shared.row("fast", [0.5], [1.0], "other"),
        shared.row("left out", [], why="not run: no such thing"),
    ]
    first, second = shared.lines(rows)
    assert first.split() == ["0.50", "fast", "500.00", "ms", "other", "1.00", "s"]
    assert second.strip().startswith("left out ") and second.endswith(" (not run: no such thing)")


def test_everyone_has_a_turn_in_every_round(shared):
    called = []
    seconds = shared.in_turns(2, lambda: called.append("a"), lambda: called.append("b"))
    assert "".join(called) == "ab" + "abab" and [len(one) for one in seconds] == [2, 2]


def test_the_file_holds_command_machine_and_raw_seconds(shared, tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["somewhere/benchmarks/nms.py", "--rounds", "2"])
    path = shared.save("nms", [shared.row("a", [0.123456])], size=4)
    content = json.loads(path.read_text(encoding="utf8"))
    assert path.name == "bench-nms.json" and content["command"] == "python benchmarks/nms.py --rounds 2"
    assert content["rows"][0]["ours"] == [0.1235] and content["size"] == 4
    assert {"processor", "cores", "memory_gb", "versions", "busy_before"} <= set(content["machine"])


def test_an_unknown_benchmark_is_named(shared, monkeypatch, capsys):
    bench = load(PROJECT / "tools" / "bench.py")
    monkeypatch.setenv("BENCH", "nms speed")
    assert bench.main() == 2
    said = capsys.readouterr().out
    assert said.startswith("BENCH: there is no nms, speed; choose from course ") and "unet_step" in said


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "data" / "results").glob("bench-*.json")), ids=lambda path: path.stem
)
def test_committed_numbers_are_those_of_a_benchmark_that_exists(shared, path):
    content = json.loads(path.read_text(encoding="utf8"))
    name = path.stem.removeprefix("bench-").replace("-", "_")
    assert (PROJECT / "benchmarks" / f"{name}.py").is_file() and content["rows"]
    assert content["command"].startswith(f"python benchmarks/{name}.py")
    assert shared.lines(content["rows"])
    assert str(PROJECT) not in path.read_text(encoding="utf8")


def test_the_documentation_shows_the_committed_times_of_prediction(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    rows = json.loads((PROJECT / "data" / "results" / "bench-predict.json").read_text(encoding="utf8"))[
        "rows"
    ]
    benchmark = load(PROJECT / "benchmarks" / "predict.py")
    shown = benchmark.table(rows)
    assert [line.split("`")[1] for line in shown[2:]] == benchmark.different_recipes()
    text = (PROJECT / "docs" / "own_images.md").read_text(encoding="utf8")
    assert "\n".join(shown) in text
    words = " ".join(text.split())
    wall = [one for one in rows if one["what"].endswith("wall time, 2 cores")]
    unet, mask = ([one for one in wall if name in one["what"]] for name in ("unet-nuclei", "maskrcnn-nuclei"))
    seconds = [
        np.median(each) for each in (unet[0]["ours"], mask[0]["ours"], *(one["theirs"] for one in unet))
    ]
    assert [f"{one:.2f}" for one in seconds] == re.findall(
        r"(0\.\d\d)(?: seconds| \(wall| with `grid)", words
    )
