"""What changes of the recipe buy: thresholds that no image chooses itself, differences within a seed, and the runs kept."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from course_lib import datasets
from course_lib.chapters.ch09_one_real_case import nuclei_changes, real_data
from course_lib.datasets.sample import Sample
from course_lib.teaching.experiments import key
from course_lib.teaching.statistics import interval


def test_halves_take_turns_within_a_source():
    assert nuclei_changes.halves(["a", "b", "a", "a", "b", "c"]).tolist() == [0, 0, 1, 0, 1, 0]


def test_no_image_chooses_its_own_thresholds(monkeypatch):
    # Each image is right at one threshold only, its own; the other image's threshold leaves nothing of it.
    truth = np.zeros((16, 16), np.int32)
    truth[4:10, 4:10] = 1
    image = np.zeros((16, 16, 1), np.float32)
    boxes = np.array([[4.0, 4.0, 10.0, 10.0]])
    val = [Sample(image, (truth > 0).astype(np.int32), truth, boxes, np.ones(1, int), name) for name in "ab"]
    outputs = [{"own": 0.2}, {"own": 0.8}]

    class Task:
        choices = {"cut": (0.2, 0.5, 0.8)}

        def decode(self, output, cut):
            return truth if cut == output["own"] else np.zeros_like(truth)

    recipe = SimpleNamespace(task=Task(), model=lambda: SimpleNamespace(set_weights=lambda weights: None))
    monkeypatch.setattr(nuclei_changes, "samples", lambda split: val)
    monkeypatch.setattr(nuclei_changes.Segmenter, "of", lambda *_: SimpleNamespace(outputs=lambda _: outputs))
    assert nuclei_changes.read(recipe, [])["all"] == [[0, 0, 2], [0, 0, 2]]
    outputs[1]["own"] = 0.2  # now each image's threshold suits the other one
    assert nuclei_changes.read(recipe, [])["all"] == [[2, 0, 0], [2, 0, 0]]


def _small(monkeypatch) -> int:
    """Cells instead of nuclei and two steps of training; returns how many cells are to be found."""
    cells = {split: datasets.cells(split, length=4, size=48) for split in ("train", "val")}
    short = {"epochs": 1, "steps": 2, "batch_size": 2, "crop": (32, 32)}
    network = {"base_filters": 4, "depth": 2, "normalization": "batch"}
    recipe = replace(nuclei_changes.RECIPE, network_arguments=network, **short)
    monkeypatch.setattr(nuclei_changes, "samples", lambda split: list(cells[split]))
    monkeypatch.setattr(nuclei_changes, "RECIPE", recipe)
    return sum(len(np.unique(sample.instances)) - 1 for sample in cells["val"])


def test_a_run_counts_every_object(monkeypatch):
    truth = _small(monkeypatch)
    result = nuclei_changes.measure("the recipe", 3)
    assert set(result) == {"plain", *nuclei_changes.READINGS, "loss", "parameters"} and np.isfinite(
        result["loss"]
    )
    for reading in ("plain", *nuclei_changes.READINGS):
        right, _, missed = np.moveaxis(np.array(result[reading]["all"]), -1, 0)
        assert (right + missed == truth).all()


def test_the_average_follows_the_weights():
    average = nuclei_changes.Average()
    weights = [np.zeros(2)]
    average.set_model(SimpleNamespace(get_weights=lambda: [one.copy() for one in weights]))
    average.on_train_begin()
    weights[0][:] = 1
    for _ in range(3):
        average.on_train_batch_end(0)
    np.testing.assert_allclose(average.weights[0], 1 - nuclei_changes.DECAY**3)


def test_differences_are_taken_within_a_seed():
    def run(right, wrong):
        return {"plain": {"all": [[0, 1, 1], [right, wrong, 0]]}}

    results = {}
    for seed, base in enumerate((10, 40, 70)):
        results[key({"change": "the recipe", "seed": seed})] = run(base, 100 - base) | {
            name: run(base, 100 - base)["plain"] for name in nuclei_changes.READINGS
        }
        results[key({"change": "larger crops", "seed": seed})] = run(base + 5 + seed, 95 - base - seed)
    results[key({"change": "twice as long", "seed": 0})] = run(50, 50)  # one seed is none
    rows = nuclei_changes.table("all", 0.75, results)
    assert set(rows) == {"the recipe", "larger crops", *nuclei_changes.READINGS}
    assert rows["the recipe"].scores == pytest.approx((0.1, 0.4, 0.7)) and not any(
        rows["the recipe"].differences
    )
    row, wanted = rows["larger crops"], interval([0.05, 0.06, 0.07])
    assert row.differences == pytest.approx((0.05, 0.06, 0.07))
    assert (row.change.mean, row.change.low) == pytest.approx((wanted.mean, wanted.low))
    with pytest.raises(ValueError):
        nuclei_changes.table("all", 0.6, results)


def test_the_runs_kept_are_whole_and_of_these_images():
    results = nuclei_changes.EXPERIMENT.results()
    assert len(results) >= 3 * len(nuclei_changes.CHANGES)
    per_image = real_data.read("nuclei")["per_image"]
    nuclei = sum(row["nuclei"] for row in per_image)
    of = {
        source: sum(r["nuclei"] for r in per_image if r["kind"] == source)
        for source in nuclei_changes.SOURCES
    }
    for result in results.values():
        for reading in {"plain", *nuclei_changes.READINGS} & set(result):
            groups = {name: np.array(counts) for name, counts in result[reading].items()}
            assert (groups["wide"] + groups["not wide"] == groups["all"]).all()
            for name, total in (of | {"all": nuclei}).items():
                assert (groups[name][:, [0, 2]].sum(-1) == total).all()
