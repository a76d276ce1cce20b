"""The tools of the experiments, and the results that lie in data/results."""

import json

import keras
import numpy as np
import pytest
from scipy import stats

from course_lib import recipes
from course_lib.chapters.ch03_unet_encoder import encoder_decoder
from course_lib.chapters.ch04_unet_decoder import unet
from course_lib.chapters.ch04_unet_decoder.unet import CELLS_FOR_SKIPS
from course_lib.chapters.ch07_mask_rcnn_training_and_limits import objects
from course_lib.datasets import scenes
from course_lib.metrics.boundary import boundary_iou, rim
from course_lib.models.unet import unet as build_unet
from course_lib.teaching import discovery, ledger

MEASURED = sorted(ledger.FOLDER.glob("[0-9].[0-9].json"))


class TestInterval:
    def test_it_is_scipys(self):
        values = [0.2, 0.5, 0.3, 0.9]
        found = ledger.interval(values)
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))

    def test_it_covers_the_truth_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        found = [ledger.interval(rng.normal(1, 2, 3)) for _ in range(4000)]
        assert np.mean([one.low <= 1 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)

    def test_two_repetitions_are_too_few(self):
        with pytest.raises(ValueError, match="at least 3 repetitions"):
            ledger.interval([1, 2])


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
        with pytest.raises(ValueError, match="mask_pred is of int64"):
            boundary_iou(self.square(), self.square().astype(int))


class TestProbe:
    def test_it_finds_what_is_linear_and_is_at_chance_where_nothing_is(self):
        rng = np.random.default_rng(0)
        features, labels = rng.normal(size=(3000, 5)), rng.integers(0, 3, 3000)
        shifted = features.copy()
        shifted[np.arange(3000), labels] += 6
        for x, low, high in ((shifted, 0.98, 1), (features, 0.28, 0.39)):
            score = encoder_decoder.linear_probe((x[:2000], labels[:2000]), (x[2000:], labels[2000:]), 3)
            assert low <= score <= high

    def test_a_rare_class_counts_as_much_as_a_frequent_one(self):
        rng = np.random.default_rng(1)
        labels = (rng.random(4000) < 0.05).astype(int)
        features = rng.normal(size=(4000, 1)) + 2 * labels[:, None]
        score = encoder_decoder.linear_probe(
            (features[:3000], labels[:3000]), (features[3000:], labels[3000:]), 2
        )
        assert score == pytest.approx(
            stats.norm.cdf(1), abs=0.07
        )  # the best threshold for equal weights lies halfway

    def test_levels_in_the_order_of_the_picture(self):
        model = build_unet((16, 16, 1), base_filters=2, depth=2)
        assert encoder_decoder.level_names(model) == [
            "encoder_1",
            "encoder_2",
            "bottleneck",
            "decoder_2",
            "decoder_1",
        ]
        sides = [
            m.shape[1]
            for m in encoder_decoder.level_features(model, np.zeros((2, 16, 16, 1), "float32")).values()
        ]
        assert sides == [16, 8, 4, 8, 16]

    def test_drawn_pixels_answer_the_questions(self):
        data = encoder_decoder._First(scenes("train", length=12, size=64, seed=2), 12)
        drawn = encoder_decoder._drawn_pixels(data, seed=0)
        (image, row, column), answer = drawn["what"]
        for i, r, c, k in zip(image, row, column, answer):
            assert data[i].semantic[r, c] == k + 1
        (image, row, column), answer = drawn["where"]
        for i, r, c, k in zip(image[::37], row[::37], column[::37], answer[::37]):
            around = data[i].instances[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2]
            assert data[i].semantic[r, c] > 0
            if k == 0:
                assert (around == data[i].instances[r, c]).all()
            else:
                assert (around != data[i].instances[r, c]).any()


class TestCutSkip:
    def model(self):
        keras.utils.set_random_seed(0)
        model = build_unet((16, 16, 1), 2, base_filters=4, depth=2, normalization="batch")
        for layer in model.layers:  # statistics that are not the untouched 0 and 1
            if "norm" in layer.name:
                layer.moving_mean.assign(np.linspace(-0.5, 0.5, layer.moving_mean.shape[0]))
        return model

    @pytest.mark.parametrize("level", [1, 2])
    def test_it_is_the_net_with_the_skips_mean_in_place_of_the_skip(self, level):
        model = self.model()
        images = np.random.default_rng(0).random((8, 16, 16, 1), np.float32)
        cut = encoder_decoder.cut_skip(model, level, images)
        # The same, built another way: a second net whose skip layer is told the constant.
        encoder = keras.Model(model.input, model.get_layer(f"encoder_{level}").output)
        mean = encoder.predict(images, verbose=0).mean((0, 1, 2))

        def replace(layer):
            return Constant(mean, name=layer.name) if layer.name == f"decoder_{level}_skip" else layer

        twin = keras.models.clone_model(
            model, clone_function=lambda layer: replace(layer.__class__.from_config(layer.get_config()))
        )
        twin.set_weights(model.get_weights())
        inside = slice(
            6, -6
        )  # zero padding meets the constant at the rim, where the cut net has no constant to pad
        np.testing.assert_allclose(
            cut.predict(images, verbose=0)[:, inside, inside],
            twin.predict(images, verbose=0)[:, inside, inside],
            atol=1e-4,
        )

    def test_the_original_is_left_alone(self):
        model = self.model()
        before = model.get_weights()
        encoder_decoder.cut_skip(model, 1, np.zeros((1, 16, 16, 1), "float32"))
        for a, b in zip(before, model.get_weights()):
            np.testing.assert_array_equal(a, b)


class Constant(keras.layers.Layer):
    """Concatenates a constant in place of its first input."""

    def __init__(self, constant, **arguments):
        super().__init__(**arguments)
        self.constant = constant

    def call(self, inputs):
        constant = keras.ops.zeros_like(inputs[0]) + keras.ops.convert_to_tensor(self.constant)
        return keras.ops.concatenate([constant, inputs[1]], axis=-1)


def test_nets_without_a_skip_have_as_many_parameters():
    sizes = {skip: unet.with_skip(recipes.SCENES, skip, 1).model().count_params() for skip in unet.SKIPS}
    assert max(sizes.values()) / min(sizes.values()) < 1.15  # whole filters: as near as it goes
    assert unet.with_skip(recipes.SCENES, "concat", 0).digest == recipes.SCENES.digest


class TestResults:
    def test_every_experiment_has_been_run_or_is_named_as_missing(self):
        measured = {path.stem for path in MEASURED}
        assert measured == set(discovery.claims()) - set(ledger.NOT_YET)

    @pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
    def test_a_result_is_whole_and_its_interval_is_that_of_its_table(self, path):
        result = ledger.read(path.stem)
        assert result.claim == path.stem
        assert result.verdict in ("holds", "not seen here") or result.verdict.startswith("holds when ")
        assert result.statement and result.effect and result.teacher and result.seconds >= 0
        if result.interval is None:
            assert result.repetitions == 1 and result.table and result.verdict == "holds"
            return
        if result.claim == "2.2":  # the bootstrap's
            assert result.interval == objects.of_table(result.table)
            return
        lists = [values for values in result.table.values() if isinstance(values, list)]
        assert result.repetitions >= 3
        assert any(
            len(values) == result.repetitions and ledger.interval(values) == result.interval
            for values in lists
        )
        of_module = {"unet": CELLS_FOR_SKIPS, "encoder_decoder": recipes.SCENES}
        if discovery.claims()[result.claim] in of_module:
            assert result.recipe == of_module[discovery.claims()[result.claim]].digest

    def test_an_unmeasured_or_unknown_claim(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="python -m course_lib claims --run 4.1"):
            ledger.read("4.1", tmp_path)
        with pytest.raises(ValueError, match="claim is '9.9'; there are experiments for 1.1, 1.2"):
            ledger.run("9.9")

    def test_a_run_writes_what_read_reads(self, tmp_path, monkeypatch):
        made = ledger.Result("3.2", "s", "e", ledger.interval([1, 2, 4]), "holds", "t", 3, {"x": [1, 2, 4]})
        monkeypatch.setattr(ledger, "FOLDER", tmp_path)
        monkeypatch.setattr(unet, "claim_3_2", lambda progress: made)
        found = ledger.run("3.2")
        assert (
            found.interval == made.interval
            and found.table == made.table
            and found.device["keras"] == keras.__version__
        )
        assert json.loads((tmp_path / "3.2.json").read_text())["verdict"] == "holds"
