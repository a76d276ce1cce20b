"""Claims 2.2, 2.3 and 6.1 to 6.5: their tools, on cases that can be reckoned by hand."""

import dataclasses

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib import datasets, recipes, training
from course_lib.chapters.ch06_mask_rcnn_components import figures, roi
from course_lib.chapters.ch07_mask_rcnn_training_and_limits import claim_2_3, claim_6_5, comparison, limits
from course_lib.ops.masks import crop_masks
from course_lib.teaching.ledger import Interval

MAP = np.zeros((6, 12), int)
MAP[1:4, 1:4], MAP[1:4, 4:7], MAP[1:4, 9:11] = 1, 2, 3  # 1 and 2 touch


class TestTallies:
    def test_who_touches(self):
        assert comparison.touching(MAP).tolist() == [True, True, False]
        assert comparison.touching(np.zeros((3, 3), int)).tolist() == []

    def test_a_merged_pair_by_hand(self):
        merged = np.where(MAP == 2, 1, MAP)
        merged[MAP == 3] = 2
        row = comparison.tallies(MAP, merged)
        # The piece of 18 pixels has an IoU of exactly 0.5 with either object, which is not above it.
        assert row == {
            "true": 3, "found": 2, "hits_50": 1, "hits_75": 1, "touching": 2, "touching_hits": 0,
        }  # fmt: skip
        scores = comparison.scores_of(comparison.by_name([row]))
        assert scores["ap_50"] == pytest.approx(1 / 4) and scores["count_error"] == pytest.approx(1 / 3)
        assert scores["recall_touching"] == 0 and scores["recall_alone"] == 1

    def test_intervals_are_paired_and_hold_the_mean(self):
        rng = np.random.default_rng(0)
        hits = rng.integers(3, 9, 30)
        counts = {}
        for method, more in (("components", 0), ("mask_rcnn", 2)):
            rows = [comparison.tallies(MAP, MAP) for _ in hits]
            counts[method] = comparison.by_name(rows) | {
                "touching": np.full(30, 12), "touching_hits": hits + more,
            }  # fmt: skip
        table = comparison.with_intervals(counts)
        mean, low, high = table["gain"]["components"]["recall_touching"]
        assert (
            low == pytest.approx(mean) == pytest.approx(high) == pytest.approx(1 / 6)
        )  # the same everywhere
        mean, low, high = table["methods"]["mask_rcnn"]["recall_touching"]
        assert low < mean < high


class TestChoosing:
    @staticmethod
    def row(hits):
        return {"true": 10, "found": 10, "hits_50": hits, "hits_75": hits, "touching": 0, "touching_hits": 0}

    def test_a_setting_is_chosen_on_the_images_that_it_is_not_reported_on(self):
        first = [self.row(hits) for hits in (9, 1, 9, 1)]  # good on images 0 and 2
        second = [self.row(hits) for hits in (2, 8, 2, 8)]
        chosen, rows = comparison.cross_fitted([first, second])
        assert chosen == [1, 0]  # images 0 and 2 are reported with what is best on 1 and 3
        assert [row["hits_50"] for row in rows] == [2, 1, 2, 1]

    def test_every_method_tries_about_as_many_settings(self):
        for method in comparison.METHODS.values():
            recipe = recipes.get(comparison.DETECTOR if method.reading == "objects" else comparison.UNET)
            settings = [setting for setting, _ in comparison.readings(method, recipe)]
            assert 15 <= len(settings) <= 20 and settings[0] != settings[-1]

    def test_a_foreground_is_read_as_components_and_cut_by_the_watershed(self):
        probabilities = np.zeros((24, 40, 3))
        rows, columns = np.mgrid[:24, :40]
        disc = lambda x: (rows - 12) ** 2 + (columns - x) ** 2 < 64  # noqa: E731
        probabilities[..., 0] = ~(disc(12) | disc(26))
        recipe = recipes.get(comparison.UNET)
        found = {}
        for name in ("components", "watershed"):
            _, read = next(comparison.readings(comparison.METHODS[name], recipe))
            found[name] = int(read(probabilities).max())
        assert found == {"components": 1, "watershed": 2}


class TestReading:
    def test_align_is_exact_on_a_ramp_and_pool_is_not(self):
        found = roi.ramp_errors(shifts=20)
        assert max(found["align"]["rms"], found["aligned"]["rms"]) < 1e-4
        assert 0.1 < found["pool"]["rms"] < 0.7
        assert len(found["shifts"]) == len(found["pool"]["first"]) == 20

    def test_only_the_reader_and_the_map_differ(self):
        ours = roi.variant("pool", "coarse").network_arguments["settings"]
        plain = roi.SMALL.network_arguments["settings"]
        assert {name for name in ours if ours[name] != plain.get(name)} == {"roi_op", "canonical_box_size"}

    @pytest.mark.slow
    def test_a_second_seed_starts_afresh(self, tmp_path, monkeypatch):
        """The net that was trained from another seed before gives what a new one gives."""
        monkeypatch.setattr(training, "RUNS", tmp_path)
        compile_model = training.compile_model

        def compile_eagerly(model, recipe, jit="auto"):
            compile_model(model, recipe, jit)
            # Tracing the step takes TensorFlow longer than these few steps.
            model.run_eagerly = keras.backend.backend() == "tensorflow"

        monkeypatch.setattr(training, "compile_model", compile_eagerly)
        short = dataclasses.replace(roi.variant(), steps=2, batch_size=2)
        bench = roi.Bench(short)
        bench.train(1)
        after = bench.train(0).get_weights()
        for path in tmp_path.iterdir():
            path.unlink()
        for ours, fresh in zip(after, roi.Bench(short).train(0).get_weights(), strict=True):
            np.testing.assert_allclose(ours, fresh, atol=1e-5)


class TestFigures:
    def test_the_map_fills_the_parts_that_are_meant(self):
        figure = figures.you_are_here({2, 4})
        boxes = [patch for patch in figure.axes[0].patches if hasattr(patch, "get_boxstyle")]
        filled = [patch.get_facecolor() != boxes[0].get_facecolor() for patch in boxes]
        plt.close(figure)
        assert filled == [False, True, False, True, False]
        with pytest.raises(ValueError, match="parts is 6"):
            figures.you_are_here(6)

    def test_a_frame_lies_on_the_edges_of_its_pixels(self):
        figure, axis = plt.subplots()
        figures.frame(axis, [2, 3, 6, 5], "white")
        frame = axis.patches[0]
        plt.close(figure)
        assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (1.5, 2.5, 4, 2)


class TestSizes:
    samples = list(datasets.scenes("val", 12, 64, seed=3, objects=(3, 6)))

    def test_images_are_taken_until_no_class_and_size_is_short(self, monkeypatch):
        monkeypatch.setattr(claim_6_5, "SIZES", (2, 16, 128))
        monkeypatch.setattr(claim_6_5, "BINS", ("2-16", "16-128"))
        data = datasets.scenes("test", 400, 64, seed=11)
        chosen = list(claim_6_5.choose(data, 3))
        objects = claim_6_5.counts(chosen, [np.ones(len(sample.classes)) for sample in chosen])
        assert objects.shape == (len(chosen), 5, 2) and objects.sum(0).min() >= 3
        assert objects[:-1].sum(0).min() < 3  # the last image was needed
        with pytest.raises(ValueError, match="quota is 300; 400 images lack"):
            list(claim_6_5.choose(data, 300))

    def test_enlarging_adds_nothing(self):
        image = np.random.default_rng(0).random((8, 8, 3), np.float32)
        twice = claim_6_5.enlarged(image, 2)
        assert twice.shape == (16, 16, 3) and twice.mean() == pytest.approx(image.mean(), abs=0.02)

    def test_the_best_iou_of_each_object_by_hand(self):
        half = (MAP == 1) & (np.arange(12) < 3)
        masks = np.stack([MAP > 0, half, MAP == 3])
        assert claim_6_5.best_ious(MAP, masks) == pytest.approx([6 / 9, 9 / 24, 1])
        assert claim_6_5.best_ious(MAP, np.zeros((0, 6, 12), bool)).tolist() == [0, 0, 0]

    def test_half_a_pixel_by_hand(self):
        wide, narrow = claim_6_5.half_a_pixel(MAP == 1)  # 3 × 3 pixels become 4 × 4 or 2 × 2
        assert (wide, narrow) == (pytest.approx(9 / 16), pytest.approx(4 / 9))

    def test_classes_count_alike_whatever_their_numbers(self):
        objects = np.zeros((2, 5, 6))
        objects[0], objects[1, 0] = 1, 9  # nine more objects of the first class in the second image
        hits = objects.copy()
        hits[1, 0] = 0
        once, twice = claim_6_5.balanced(hits, objects, np.array([[1, 1], [1, 0]]))
        assert once == pytest.approx(np.full(6, (0.1 + 4) / 5)) and twice == pytest.approx(np.ones(6))

    def test_ap_of_perfect_detections_and_of_a_missing_size(self):
        found = []
        for sample in self.samples:
            masks = (sample.instances == np.arange(1, len(sample.classes) + 1)[:, None, None]).astype(
                "float32"
            )
            grids = crop_masks(masks[None], np.arange(len(masks))[None], sample.boxes[None], 28)
            found.append(
                {
                    "classes": sample.classes, "boxes": sample.boxes, "masks": np.asarray(grids)[0],
                    "scores": np.full(len(masks), 0.9), "size": np.array(sample.instances.shape),
                }
            )  # fmt: skip
        assert claim_6_5.average_precision(self.samples, found)[3]["ap_50"] > 0.97
        for sample, one in zip(self.samples, found, strict=True):
            for name in ("classes", "boxes", "masks", "scores"):
                one[name] = one[name][claim_6_5.bins_of(sample) > 1]
        table = claim_6_5.average_precision(self.samples, found)
        assert table[1]["ap"] == 0 < table[3]["ap"]


class TestCosts:
    def test_turns(self):
        counted = {"a": 0, "b": 0}

        def call(name):
            counted[name] += 1

        seconds = limits.take_turns({name: lambda name=name: call(name) for name in counted}, 4)
        assert counted == {"a": 6, "b": 6} and all(len(values) == 4 for values in seconds.values())

    def test_the_work_is_that_of_the_settings(self):
        counted = claim_2_3.counted()
        one_view = limits.network_costs(limits.shipped(limits.UNET)[1], (limits.SIDE, limits.SIDE))
        assert counted["unet"]["multiply_adds"] == 4 * one_view["multiply_adds"]
        assert counted["mask_rcnn"]["parameters"] == limits.shipped(limits.DETECTOR)[1].count_params()


def test_an_interval_prints_itself():
    assert str(Interval(0.1, 0.05, 0.15)) == "0.100 [0.050, 0.150]"
