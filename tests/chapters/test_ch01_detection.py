"""Chapter 1 of the claims: boxes and masks, their bytes, and how much of its box an object fills."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import ops
from pycocotools import mask as coco
from skimage.color import hed2rgb
from skimage.measure import regionprops

from course_lib.chapters.ch01_detection_vs_segmentation import detection
from course_lib.datasets import DataUnavailable, cells, photographs, scenes
from course_lib.ops.boxes import box_iou
from course_lib.teaching import ledger


class TestRunLengths:
    MASK = np.array([[0, 1, 1], [0, 1, 0]], bool)  # column by column: 0 0 1 1 1 0

    def test_by_hand(self):
        assert detection.run_lengths(self.MASK).tolist() == [2, 3, 1]

    def test_the_first_run_is_off_even_if_it_is_empty(self):
        assert detection.run_lengths(~self.MASK).tolist() == [0, 2, 3, 1]

    def test_nothing_and_everything(self):
        assert detection.run_lengths(np.zeros((2, 3), bool)).tolist() == [6]
        assert detection.run_lengths(np.ones((2, 3), bool)).tolist() == [0, 6]

    @settings(deadline=None)
    @given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
    def test_pycocotools_reads_them(self, mask):
        runs = detection.run_lengths(mask)
        encoded = coco.frPyObjects({"counts": runs.tolist(), "size": list(mask.shape)}, *mask.shape)
        np.testing.assert_array_equal(coco.decode(encoded), mask)


class TestBoxAsMask:
    def test_its_length_lies_along_the_rows_until_it_is_turned(self):
        for degrees, axis in ((0, 0), (90, 1)):
            mask = detection.drawn("rectangle", 40, 10, degrees)
            assert (mask.any(axis).sum(), mask.any(1 - axis).sum()) == (40, 10)

    def test_another_shape_is_refused(self):
        with pytest.raises(ValueError, match="shape is 'star'; it must be one of 'ellipse', 'rectangle'"):
            detection.drawn("star", 4, 4, 0)

    @pytest.mark.parametrize("degrees", [0, 20, 45, 90, 130])
    @pytest.mark.parametrize("shape", detection.SHAPES)
    def test_the_formula_is_what_a_large_object_gives(self, shape, degrees):
        (region,) = regionprops(detection.drawn(shape, 180, 60, degrees).astype(int))
        assert region.extent == pytest.approx(detection.formula(shape, 3, degrees), abs=0.02)

    def test_the_formula_at_its_landmarks(self):
        assert detection.formula("ellipse", 5, 0) == pytest.approx(np.pi / 4)
        assert detection.formula("ellipse", 1, 37) == pytest.approx(np.pi / 4)
        assert detection.formula("rectangle", 8, 90) == pytest.approx(1)
        assert detection.formula("rectangle", 1, 45) == pytest.approx(1 / 2)

    @pytest.mark.parametrize("sample", [cells("val", 1)[0], scenes("val", 2)[1], photographs.coins()])
    def test_filled_fractions_are_scikit_images_extent(self, sample):
        extents = {}
        for region, kind in zip(regionprops(sample.instances), sample.classes):
            extents.setdefault(str(kind), []).append(region.extent)
        found = detection.filled_fractions([sample])
        assert found.keys() == extents.keys() and len(found)
        for kind, shares in found.items():
            assert shares == pytest.approx(extents[kind])


def test_the_brown_stain_is_told_from_the_blue_one():
    stains = np.zeros((20, 30, 3))
    stains[:, :10, 2] = 0.2  # brown
    stains[:, 10:20, 0] = 0.2  # blue
    found = detection.stained_tissue(hed2rgb(stains))
    assert found[:, :10].all() and not found[:, 10:].any()


class TestClaims:
    def test_1_1_is_what_is_committed(self):
        now = detection.claim_1_1(lambda text: None)
        assert now.table == ledger.read("1.1").table
        assert now.table["detection"]["bytes"] == 4 * 4 + 4

    def test_1_2_is_what_is_committed(self):
        now, committed = (one.table for one in (detection.claim_1_2(lambda text: None), ledger.read("1.2")))
        np.testing.assert_allclose(
            now["fraction_by_geometry"]["rectangle"], committed["fraction_by_geometry"]["rectangle"]
        )
        found, shapes = now["fraction_of_the_box_filled"], committed["fraction_of_the_box_filled"]
        assert shapes["coins"]["objects"] == 24 and shapes["real nuclei"]["objects"] > 1000
        for name in found:
            assert found[name] == shapes[name]

    def test_1_3_as_committed_is_measured_anew(self):
        found, committed = detection.medicine(), ledger.read("1.3").table["medicine"]
        assert found.keys() == committed.keys()
        for what in found:
            assert found[what].keys() == committed[what].keys()
            for name, value in found[what].items():
                same = value if isinstance(value, str) else pytest.approx(value, rel=1e-3)
                assert committed[what][name] == same

    def test_1_3_says_what_it_could_not_show(self, monkeypatch):
        def nowhere(split):
            raise DataUnavailable("not here")

        monkeypatch.setattr(detection, "camvid", nowhere)
        monkeypatch.setattr(detection, "faces", lambda: {"iou": 1.0})
        monkeypatch.setattr(detection, "medicine", dict)
        said = []
        result = detection.claim_1_3(said.append)
        assert set(result.table) == {"faces", "medicine", "not shown"}
        assert "the street scenes are not installed" in result.teacher
        assert said[-1] == "without street scenes: not here"

    def test_1_3_the_face_is_found(self):
        """Anew, and where the committed result has it. Not to the pixel: the cascade finds the face in many windows and
        answers with their mean, and rounding, which differs between processors, decides which windows just pass.
        """
        found, committed = detection.faces(), ledger.read("1.3").table["faces"]
        assert found["iou"] > 0.5
        same = ops.convert_to_numpy(box_iou(np.float32(found["boxes"]), np.float32(committed["boxes"])))
        assert same.shape == (1, 1) and same.item() >= 0.8

    def test_1_3_street(self, real_data, monkeypatch):
        monkeypatch.setenv("COURSE_DATA", str(real_data))
        found, committed = detection.street(), ledger.read("1.3").table
        for use in ("pedestrians", "driving"):
            assert found[use] == committed[use]

    def test_a_demonstration_that_fails_is_an_error(self, monkeypatch):
        class Blind:
            def __init__(self, file):
                pass

            def detect_multi_scale(self, **arguments):
                return []

        monkeypatch.setattr(detection.feature, "Cascade", Blind)
        with pytest.raises(AssertionError, match="not shown: the detector finds the one face; it found 0"):
            detection.faces()
