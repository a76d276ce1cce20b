"""The tools of the experiments, and the results that lie in data/results."""

import json

import keras
import numpy as np
import pytest
from scipy import stats

from course_lib.chapters.ch03_unet_encoder import scenes_networks as networks
from course_lib.chapters.ch08_losses_and_metrics import great_table
from course_lib.metrics.boundary import boundary_iou, rim
from course_lib.models.unet import unet as build_unet
from course_lib.teaching import discovery, ledger, statistics
from course_lib.teaching.experiments import key

MEASURED = sorted(ledger.FOLDER.glob("[0-9].[0-9].json"))


class TestBoundaryIoU:
    def square(self, shift=0):
        mask = np.zeros((20, 20), bool)
        mask[5:15, 5 + shift : 15 + shift] = True
        return mask

    def test_the_rim_by_hand(self):
        # A 10 × 10 square: its outermost ring has 100 − 64 pixels, the two outer rings 100 − 36.
        assert rim(self.square(), 1).sum() == 36 and rim(self.square(), 2).sum() == 64
        assert rim(np.ones((6, 6), bool), 1).sum() == 20  # the edge of the picture is outline too

    def test_same_none_and_empty(self):
        empty = np.zeros((20, 20), bool)
        assert boundary_iou(self.square(), self.square()) == 1 == boundary_iou(empty, empty)
        assert boundary_iou(self.square(), empty) == 0

    def test_a_shift_costs_the_rim_more_than_the_area(self):
        area = (self.square() & self.square(1)).sum() / (self.square() | self.square(1)).sum()
        assert boundary_iou(self.square(), self.square(1), 1) < area
        # Shifted by one column, rings of width 1 share the top and bottom rows but for one pixel each.
        assert boundary_iou(self.square(), self.square(1), 1) == pytest.approx(18 / (2 * 36 - 18))

    def test_a_wide_rim_is_the_area(self):
        area = (self.square() & self.square(3)).sum() / (self.square() | self.square(3)).sum()
        assert boundary_iou(self.square(), self.square(3), 20) == pytest.approx(area)

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="distance is 0.5"):
            boundary_iou(self.square(), self.square(), 0.5)
        with pytest.raises(ValueError, match="mask_pred is an array of int64"):
            boundary_iou(self.square(), self.square().astype(int))


class TestProbe:
    def test_it_finds_what_is_linear_and_is_at_chance_where_nothing_is(self):
        rng = np.random.default_rng(0)
        features, labels = rng.normal(size=(3000, 5)), rng.integers(0, 3, 3000)
        shifted = features.copy()
        shifted[np.arange(3000), labels] += 6
        for x, low, high in ((shifted, 0.98, 1), (features, 0.28, 0.39)):
            score = networks.linear_probe((x[:2000], labels[:2000]), (x[2000:], labels[2000:]), 3)
            assert low <= score <= high

    def test_a_rare_class_counts_as_much_as_a_frequent_one(self):
        rng = np.random.default_rng(1)
        labels = (rng.random(4000) < 0.05).astype(int)
        features = rng.normal(size=(4000, 1)) + 2 * labels[:, None]
        score = networks.linear_probe((features[:3000], labels[:3000]), (features[3000:], labels[3000:]), 2)
        assert score == pytest.approx(
            stats.norm.cdf(1), abs=0.07
        )  # the best threshold for equal weights lies halfway


class TestScenesNetworks:
    def test_the_scenes_show_the_four_shapes_alone_and_none_is_much_rarer(self):
        images, labels, instances = networks.scenes("test", 40, 0)
        assert images.shape == (40, 48, 48, 3) and images.dtype == "float32"
        pixels = np.bincount(labels.ravel(), minlength=5)
        assert len(pixels) == 5 and pixels[1:].min() > 0.1 * pixels[1:].max()
        assert ((instances > 0) == (labels > 0)).all()

    def test_interpolated_features_are_those_of_a_resized_map(self):
        features = np.random.default_rng(0).random((2, 6, 6, 3)).astype("float32")
        large = keras.ops.convert_to_numpy(keras.ops.image.resize(features, (48, 48), "bilinear"))
        places = np.random.default_rng(1).integers(0, [[2], [48], [48]], (3, 200))
        found = networks.read_features(features, places, "interpolated")
        np.testing.assert_allclose(found, large[tuple(places)], atol=1e-5)
        blocks = networks.read_features(features, places, "block")
        np.testing.assert_array_equal(blocks, np.repeat(np.repeat(features, 8, 1), 8, 2)[tuple(places)])

    def test_a_cut_of_nothing_is_the_network_and_a_cut_of_all_is_constant_inside(self):
        network = networks.trainee("concat")
        network.start(0)
        images = np.random.default_rng(0).random((3, 48, 48, 3)).astype("float32")
        np.testing.assert_allclose(
            networks.run_cut(network.model, images, {}), network.logits(images), atol=1e-5
        )
        maps = networks.level_features(network.model, images, networks.LEVELS[:4])
        found = networks.run_cut(network.model, images, {n: m.mean((0, 1, 2)) for n, m in maps.items()})
        np.testing.assert_allclose(found[0], found[1], atol=1e-5)

    def test_networks_of_the_three_skips_are_equally_large(self):
        sizes = {
            skip: build_unet(
                (48, 48, 3), 5, depth=3, filters=filters, skip=skip, normalization="batch"
            ).count_params()
            for skip, filters in networks.FILTERS.items()
        }
        assert max(sizes.values()) / min(sizes.values()) < 1.02

    def test_the_shipped_network_passes_the_gate(self):
        images, labels, _ = networks.scenes("test", 60, 0)
        found = networks.run_model(networks.shipped(), images).argmax(-1)
        assert min(networks.class_ious(found, labels)) >= networks.GATE

    def test_a_network_below_the_gate_gives_its_place_to_the_next_seed(self):
        good, bad = {"class_iou": [0.9] * 5}, {"class_iou": [0.9] * 4 + [0.4]}
        done = {key({"skip": "concat", "seed": seed}): bad if seed == 1 else good for seed in range(3)}
        assert [run["seed"] for run in networks.plan(done)] == [0, 1, 2, 3, 4, 5]


class TestGreatTable:
    def test_scores_at_every_threshold_are_scikit_learns(self):
        metrics = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(0)
        margins = rng.normal(size=4000).round(1)  # with ties
        labels = (rng.random(4000) < 1 / (1 + np.exp(2 - margins))).astype(int)
        found = great_table.ThresholdFree(margins, labels)
        assert found.average_precision == pytest.approx(metrics.average_precision_score(labels, margins))
        ious = [metrics.jaccard_score(labels, margins > t) for t in np.unique(margins).round(1) - 0.05]
        assert (
            found.best_iou == pytest.approx(max(ious)) == pytest.approx(found.at(found.best_threshold)["iou"])
        )
        at = found.at(0.0)
        assert at["dice"] == pytest.approx(metrics.f1_score(labels, margins > 0))
        assert at["predicted"] == pytest.approx(1 + at["false_positives"] - at["false_negatives"])

    def test_only_the_background_varies(self, monkeypatch):
        monkeypatch.setattr(great_table, "CELLS", {"val": 500})
        measured = {}
        for fraction in (0.1, 0.01):
            images, labels, cells = great_table.images_of.__wrapped__("val", fraction, 5)
            assert labels.mean() == pytest.approx(fraction, rel=0.15) and 500 <= cells < 515
            measured[fraction] = labels.sum() / cells, images[labels == 1].mean()
        assert measured[0.1] == pytest.approx(measured[0.01], rel=0.12)

    def test_the_tuning_goes_beyond_the_end_of_the_grid(self):
        done, rates = {}, []
        while len(runs := great_table.tuning("ce", 0.1, done)[0]) > len(done):
            run = next(run for run in runs if key(run) not in done)
            done[key(run)] = {"val_iou": run["rate"]}  # the higher the rate, the better
            rates.append(run["rate"])
        assert rates == [0.003, 0.001, 0.01, 0.03, 0.03] and great_table.tuning("ce", 0.1, done)[1]
        assert great_table.reported("ce", 0.1, 0, done)["rate"] == 0.03

    def test_every_loss_is_made_and_finite(self):
        logits = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype("float32")
        labels = np.zeros((2, 8, 8), "int32")
        labels[:, 3:5, 3:5] = 1
        for loss, (_, _, values) in great_table.LOSSES.items():
            for own in values:
                value = float(
                    keras.ops.convert_to_numpy(great_table.loss_of(loss, own, 0.01)(labels, logits))
                )
                assert np.isfinite(value) and value > 0, loss


class TestLedger:
    WORDS = (statistics.SUPPORTED, statistics.EQUIVALENT, statistics.CONTRADICTED, statistics.UNDECIDED)

    def test_every_claim_with_a_module_has_a_result(self):
        assert {path.stem for path in MEASURED} == set(discovery.claims()) - set(ledger.NOT_YET)

    @pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
    def test_sentence_numbers_gate_and_verdict_agree(self, path):
        result = ledger.read(path.stem)
        assert result.claim == path.stem and result.statement and result.effect and result.teacher
        if result.is_demonstration:
            assert result.interval is None and result.repetitions == 1 and result.table
            return
        assert result.verdict.split(" when: ")[0] in self.WORDS
        said = statistics.sentence(result.effect, result.verdict, result.comparisons, result.reason)
        assert result.teacher == said or not result.comparisons and result.reason in result.teacher
        if result.comparisons:
            shown = result.comparisons[result.setting]
            assert (result.interval.mean, result.interval.low, result.interval.high) == (
                shown["mean"], shown["low"], shown["high"],
            )  # fmt: skip
            # Beside "supported when" no interval stands that the verdict does not speak of.
            assert "when" not in result.verdict or shown["verdict"] == statistics.SUPPORTED
        if result.verdict != statistics.UNDECIDED:
            decided = [
                name for name, one in result.comparisons.items() if one["verdict"] != statistics.UNDECIDED
            ]
            assert decided
            for name in decided:  # no verdict from networks that have not learned
                gate = result.gate.get(name) or result.gate.get("")
                assert gate is None or gate["passed"] and gate["reached"] >= gate["needed"]
            assert all(one["detectable"] >= 0 for one in result.comparisons.values())
        else:
            assert result.reason and (result.missing or result.comparisons)

    @pytest.mark.parametrize("claim", [c for c in discovery.claims() if ledger.experiments(c)])
    def test_the_ledger_is_what_the_committed_runs_say(self, claim):
        now, written = ledger.run(claim, minutes=0), ledger.read(claim)
        # Where this fails, runs were made since: python -m course_lib claims --run all --minutes 0 --write
        for name in ("verdict", "teacher", "comparisons", "gate", "missing", "reason"):
            assert getattr(now, name) == getattr(written, name), name
        if now.missing == 0:
            assert json.loads(json.dumps(now.table)) == written.table

    def test_claims_of_trained_networks_name_their_gate(self):
        for claim in discovery.claims():
            result = ledger.read(claim)
            if ledger.experiments(claim) and result.verdict != statistics.UNDECIDED:
                assert result.gate

    def test_an_unmeasured_or_unknown_claim(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="python -m course_lib claims --run 4.1 --write"):
            ledger.read("4.1", tmp_path)
        with pytest.raises(ValueError, match="claim is '9.9'; there are experiments for 1.1, 1.2"):
            ledger.run("9.9")
        with pytest.raises(ValueError, match="--run is 9.9; it must be all or one of 1.1"):
            ledger.command(["9.9"])
        with pytest.raises(ValueError, match="--minutes is -1; it must be 0 or more"):
            ledger.command(["4.1"], minutes=-1)

    def test_nothing_is_written_unless_asked_and_half_an_experiment_keeps_the_table(self, tmp_path):
        found = ledger.run("7.1", folder=tmp_path)
        assert list(tmp_path.iterdir()) == [] and found.is_demonstration
        (tmp_path / "7.7.json").write_text(json.dumps({"table": {"old": 1}}))
        written = ledger.run("7.7", minutes=0, write=True, folder=tmp_path)
        assert written == ledger.read("7.7", tmp_path)
        if written.missing:
            assert written.verdict != statistics.SUPPORTED and written.table["old"] == 1

    def test_the_command_reports_claims_and_experiments(self):
        report = ledger.command(["4.1"], minutes=0)
        assert any(line.startswith("     gate: lowest class IoU") for line in report.lines)
        assert any("detectable with 80 % power" in line for line in report.lines)
        assert {one["claim"] for one in report.claims} == {path.stem for path in MEASURED}
        rows = ledger.command(show_status=True).experiments
        assert {"scenes-networks", "great-table"} <= {row["experiment"] for row in rows}
        assert all(row["claims"] and row["done"] >= 0 for row in rows)
