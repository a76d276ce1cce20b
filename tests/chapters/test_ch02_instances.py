"""Claim 2.1: from class maps to objects, what touches, and the result that lies in data/results."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from course_lib.chapters.ch02_semantic_vs_instance import instances as chapter
from course_lib.datasets import Sample, boxes_from_instances, cells, scenes
from course_lib.metrics.instance import average_precision
from course_lib.teaching import ledger


def sample_of(instances, classes):
    instances, classes = np.asarray(instances, np.int32), np.asarray(classes, np.int32)
    return Sample(
        np.zeros((*instances.shape, 1), np.float32),
        np.concatenate([[0], classes]).astype(np.int32)[instances],
        instances,
        boxes_from_instances(instances),
        classes,
        "by hand",
    )


def discs(*centres, radius=10, size=(40, 60)):
    rows, columns = np.indices(size)
    return sum((rows - y) ** 2 + (columns - x) ** 2 <= radius**2 for y, x in centres) > 0


class TestComponents:
    def test_corners_join_for_8_and_not_for_4(self):
        stairs = np.eye(3, dtype=int)
        assert chapter.components(stairs).max() == 1
        assert chapter.components(stairs, 4).max() == 3

    @pytest.mark.parametrize(("connectivity", "structure"), [(4, None), (8, np.ones((3, 3)))])
    def test_two_classes_are_scipys(self, connectivity, structure):
        mask = np.random.default_rng(0).random((40, 50)) < 0.45
        ours, theirs = chapter.components(mask, connectivity), ndimage.label(mask, structure)[0]
        assert ours.dtype == np.int32
        assert len(set(zip(ours.ravel(), theirs.ravel()))) == ours.max() + 1 == theirs.max() + 1

    def test_each_class_alone_and_ignored_pixels_are_background(self):
        assert chapter.components(np.array([[1, 1, 2, 2, -1, 2]])).tolist() == [[1, 1, 2, 2, 0, 3]]

    def test_another_connectivity(self):
        with pytest.raises(ValueError, match="connectivity is 6; a pixel has 4 or 8 neighbours"):
            chapter.components(np.eye(3, dtype=int), 6)


class TestWatershed:
    def test_two_pressed_discs_are_two_and_one_is_one(self):
        pressed = discs((20, 20), (20, 37)).astype(int)
        found = chapter.by_watershed(pressed, 1.0)
        assert found.max() == 2 and found[20, 20] != found[20, 37]
        assert ((found > 0) == (pressed > 0)).all()
        assert chapter.by_watershed(discs((20, 20)).astype(int), 1.0).max() == 1

    def test_the_cut_is_made_only_where_the_pass_is_deep_enough(self):
        pressed = discs((20, 20), (20, 37)).astype(int)
        height = ndimage.distance_transform_edt(pressed)
        drop = height.max() - height[20, 28:30].max()  # from the summits down to the pass between them
        assert chapter.by_watershed(pressed, drop - 0.2).max() == 2
        assert chapter.by_watershed(pressed, drop + 0.2).max() == 1

    def test_endlessly_deep_it_cuts_nothing(self):
        for sample in (*cells("val", 3, 64), *scenes("val", 3, 64)):
            whole = chapter.components(sample.semantic)
            found = chapter.by_watershed(sample.semantic, 1000.0)
            assert average_precision([whole], [found], 0.99) == 1

    def test_it_keeps_every_pixel_and_mixes_no_classes(self):
        for sample in scenes("val", 4, 64, occlusion=1.0):
            found = chapter.by_watershed(sample.semantic, 0.5)
            np.testing.assert_array_equal(found > 0, sample.semantic > 0)
            for one in range(1, found.max() + 1):
                assert len(np.unique(sample.semantic[found == one])) == 1

    def test_a_plateau_or_two_equal_summits_of_one_hill_are_one_object(self):
        bar = np.zeros((15, 40), int)
        bar[4:11, 3:37] = 1
        assert chapter.by_watershed(bar, 0.5).max() == 1
        pressed = discs((20, 20), (20, 25)).astype(int)
        assert chapter.by_watershed(pressed, 1.0).max() == 1

    def test_a_piece_lower_than_the_depth_stays_whole(self):
        speck = np.zeros((9, 9), int)
        speck[4, 2:5] = 1
        assert chapter.by_watershed(speck, 3.0).tolist() == speck.tolist()

    def test_no_object_and_a_bad_depth(self):
        assert chapter.by_watershed(np.zeros((8, 8), int), 1.0).max() == 0
        with pytest.raises(ValueError, match="depth is 0; it is a height in pixels and must be positive"):
            chapter.by_watershed(np.ones((8, 8), int), 0)


def test_the_border_class_known_without_error_gives_the_cells_back():
    samples = list(cells("val", 6, touching=0.8))
    found = [chapter.at_best_with_borders(sample.instances) for sample in samples]
    scores = chapter.counted([sample.instances for sample in samples], found)
    assert scores["count_error"] < 0.02 and scores["ap_50"] > 0.97


class TestTouching:
    def test_pairs_by_hand(self):
        instances = np.array([[1, 1, 0, 3], [2, 0, 3, 0], [0, 0, 0, 4], [5, 0, 0, 0]])
        # 1 and 3 meet at a corner, as do 3 and 4; 5 is alone.
        assert chapter.touching_pairs(instances).tolist() == [[1, 2], [1, 3], [3, 4]]
        assert chapter.touching_pairs(np.zeros((4, 4), int)).shape == (0, 2)

    def test_pairs_are_those_that_growing_by_one_pixel_finds(self):
        instances = np.random.default_rng(1).integers(0, 9, (20, 20)) * (
            np.random.default_rng(2).random((20, 20)) < 0.3
        )
        slow = {
            (a, b)
            for a in range(1, 9)
            for b in range(a + 1, 9)
            if (ndimage.binary_dilation(instances == a, np.ones((3, 3))) & (instances == b)).any()
        }
        assert set(map(tuple, chapter.touching_pairs(instances).tolist())) == slow

    def test_the_share_by_class_and_by_any(self):
        row = sample_of([[1, 2, 3, 0, 4, 0]], [1, 1, 2, 1])
        assert chapter.touching_share([row]) == 2 / 4
        assert chapter.touching_share([row], same_class=False) == 3 / 4
        assert chapter.touching_share([row, sample_of([[1, 0]], [1])]) == 2 / 5
        assert chapter.touching_share([]) == 0

    @pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
    def test_components_are_the_groups_of_touching_cells_so_between_half_and_all_of_them_are_lost(
        self, level
    ):
        samples = list(cells("val", 6, seed=3, touching=level, density=0.3))
        for sample in samples:
            pairs, count = chapter.touching_pairs(sample.instances) - 1, len(sample.classes)
            graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(count, count))
            groups = connected_components(graph, directed=False)[0]
            assert chapter.components(sample.semantic).max() == groups
        truths = [sample.instances for sample in samples]
        lost = -chapter.counted(truths, [chapter.components(s.semantic) for s in samples])["count_bias"]
        share = chapter.touching_share(samples)
        assert share / 2 <= lost <= share
        assert (lost > 0) == (level > 0)


class TestScores:
    def test_counting_by_hand(self):
        truths = [np.array([[1, 1, 0, 2, 2]]), np.array([[1, 1, 0, 2, 2]])]
        answers = [np.array([[1, 1, 0, 0, 0]]), np.array([[1, 2, 0, 3, 3]])]
        scores = chapter.counted(truths, answers)
        assert scores["count_error"] == 2 / 4 and scores["count_bias"] == 0
        # Found: one object, then one more; the halves have an IoU of 1/2, which is not greater than 0.5.
        assert scores["ap_50"] == scores["ap_75"] == pytest.approx(2 / (2 + 2 + 2))

    def test_merged_and_split_by_hand(self):
        # Object 2 lies over object 1 and cuts it in two; objects 3 and 4 are of one class and touch.
        sample = sample_of([[1, 2, 1, 0, 3, 4]], [1, 2, 1, 1])
        assert chapter.merged_and_split([sample]) == {"merged": 1 / 4, "split": 1 / 4}
        assert chapter.components(sample.semantic).max() == 4  # the right count, for two wrong reasons

    def test_merged_and_split_explain_the_count(self):
        samples = list(scenes("val", 8, 64, occlusion=1.0))
        why = chapter.merged_and_split(samples)
        found = [chapter.components(sample.semantic) for sample in samples]
        bias = chapter.counted([sample.instances for sample in samples], found)["count_bias"]
        assert bias == pytest.approx(why["split"] - why["merged"])
        assert why["split"] > 0 and why["merged"] > 0

    def test_touching_objects_of_one_class_merge_and_others_do_not(self):
        row = sample_of([[1, 2, 3, 0, 4, 5]], [1, 1, 2, 1, 2])
        assert chapter.pairs_merged([row]) == {
            "same_class": {"pairs": 1, "merged": 1},
            "other_class": {"pairs": 2, "merged": 0},
        }


def test_the_depth_is_chosen_on_train_alone(monkeypatch):
    asked = []

    def watched(split, *arguments, **dials):
        asked.append(split)
        return cells(split, 2, 64, **dials)

    monkeypatch.setattr(chapter, "cells", watched)
    monkeypatch.setattr(chapter, "TOUCHING", (0.5,))
    depth, scores = chapter.choose_depth()
    assert set(asked) == {"train"}
    assert scores[f"{depth:g}"] == max(scores.values()) and len(scores) == len(chapter.DEPTHS)


class TestVerdict:
    def verdict(self, full, merged):
        rng = np.random.default_rng(0)
        runs = len(chapter.SEEDS)
        other = {"pairs": [50] * runs, "merged": (rng.random(runs) < 0.5) * 2 + merged}
        table = {
            "scenes": {"six_classes": {"0": {"other_class": other}}},
            "components_full_minus_none": full + 0.01 * rng.normal(size=runs),
        }
        return chapter.merging(table).verdict

    def test_it_follows_the_numbers(self):
        assert self.verdict(0.9, 0).startswith("supported when: objects of one class")
        assert self.verdict(0.9, 40) == "supported"
        assert self.verdict(-0.9, 40) == "supported when: objects of different classes"


class TestResult:
    def test_every_list_has_a_value_for_each_repetition_and_the_verdict_is_the_codes(self):
        result = ledger.read("2.1")
        assert result.repetitions == len(chapter.SEEDS)

        def lists(table):
            for value in table.values():
                if isinstance(value, dict):
                    yield from lists(value)
                elif isinstance(value, list):
                    yield value

        lengths = [len(values) for values in lists(result.table)]
        assert lengths and set(lengths) == {result.repetitions}
        again = chapter.merging(result.table)
        assert (result.verdict, result.teacher) == (again.verdict, again.teacher)
        settings = result.table["settings"]
        scores = settings["ap_50_on_train_by_depth"]
        assert scores[f"{settings['watershed_depth']:g}"] == max(scores.values())

    def test_it_is_what_the_code_measures(self):
        table = ledger.read("2.1").table
        again = chapter.count_cells(1.0, chapter.SEEDS[0], table["settings"]["watershed_depth"])
        for name in ("touching", "objects"):
            assert again[name] == pytest.approx(table["cells"]["1"][name][0], abs=1e-5)
        for way in ("components", "watershed", "three_classes"):
            for score, value in again[way].items():
                assert value == pytest.approx(table["cells"]["1"][way][score][0], abs=0.005)

    def test_between_half_and_all_of_the_touching_cells_are_lost(self):
        table = ledger.read("2.1").table
        for level in (*table["cells"].values(), *table["crowds"].values()):
            share, lost = np.array(level["touching"]), np.array(level["components"]["count_error"])
            assert (share / 2 <= lost + 1e-9).all() and (lost <= share + 1e-9).all()
