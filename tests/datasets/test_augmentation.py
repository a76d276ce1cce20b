"""Augmentation and batches: labels move with the image, and chance comes from the seed alone."""

from dataclasses import replace

import numpy as np
import pytest

from course_lib.datasets import augmentation, cells
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.loading import Batches, stretch
from course_lib.tasks import Borders

ALL = Augmentation(
    flip=True,
    turn=True,
    rotate=30,
    scale=(0.8, 1.25),
    elastic=4,
    gain=0.2,
    offset=0.1,
    gamma=1.3,
    noise=0.02,
    blur=0.5,
)


def picture(height=40, width=52):
    rows, columns = np.mgrid[:height, :width]
    labels = (rows * width + columns).astype(
        np.int32
    )  # each pixel its own label: it tells where it came from
    return (labels / labels.max()).astype(np.float32)[..., None], labels


@pytest.mark.parametrize("change", [{}, {"flip": True}, {"turn": True}, {"flip": True, "turn": True}])
@pytest.mark.parametrize("crop", [(16, 16), (15, 20), (64, 60)])
def test_exact_changes_move_labels_with_the_image(change, crop):
    image, labels = picture()
    for seed in range(12):
        moved, (moved_labels,) = Augmentation(**change).apply(
            image, [labels], crop, np.random.default_rng(seed)
        )
        assert moved.shape == (*crop, 1) and moved_labels.shape == crop
        assert moved_labels.dtype == np.int32 and moved.dtype == np.float32
        # The pixel's value and its label name the same source pixel: nothing was blurred, nothing slipped.
        np.testing.assert_allclose(moved[..., 0] * labels.max(), moved_labels, atol=0.2)


def test_crops_reach_every_part_of_the_picture():
    image, labels = picture(12, 12)
    seen = np.zeros(144, bool)
    for seed in range(200):
        seen[Augmentation().apply(image, [labels], (8, 8), np.random.default_rng(seed))[1][0]] = True
    assert seen.all()


def test_all_eight_views_of_the_square_occur():
    image, labels = picture(9, 9)
    views = {
        Augmentation(flip=True, turn=True)
        .apply(image, [labels], (9, 9), np.random.default_rng(seed))[1][0]
        .tobytes()
        for seed in range(120)
    }
    expected = {np.rot90(side, k).tobytes() for side in (labels, labels[:, ::-1]) for k in range(4)}
    assert views == expected


def test_elastic_and_affine_move_labels_with_the_image():
    rows, columns = np.mgrid[:80, :80]
    disc = ((rows - 40) ** 2 + (columns - 36) ** 2 < 22**2).astype(np.int32)
    image = disc.astype(np.float32)[..., None]
    for seed in range(8):
        change = Augmentation(flip=True, turn=True, rotate=180, scale=(0.7, 1.4), elastic=6)
        moved, (moved_labels,) = change.apply(image, [disc], (80, 80), np.random.default_rng(seed))
        assert np.mean((moved[..., 0] > 0.5) != moved_labels) < 0.01
        assert set(np.unique(moved_labels)) <= {0, 1}


def test_elastic_really_bends():
    image, labels = picture(64, 64)
    straight, bent = (
        Augmentation(elastic=elastic).apply(image, [labels], (64, 64), np.random.default_rng(0))[1][0]
        for elastic in (0, 5)
    )
    shift = np.hypot(*(a - b for a, b in zip(np.divmod(straight, 64), np.divmod(bent, 64))))
    assert 1 < shift.mean() < 15 and shift.std() > 0.5


@pytest.mark.parametrize("magnification", [0.5, 2.0])
def test_scale_is_a_magnification(magnification):
    rows, columns = np.mgrid[:101, :101]
    disc = ((rows - 50) ** 2 + (columns - 50) ** 2 <= 15**2).astype(np.int32)
    change = Augmentation(scale=(magnification, magnification))
    whole = (round(101 * magnification),) * 2  # the crop that shows the whole picture at this magnification
    moved = change.apply(disc.astype(np.float32)[..., None], [disc], whole, np.random.default_rng(0))[1][0]
    assert moved.sum() / disc.sum() == pytest.approx(magnification**2, rel=0.06)


@pytest.mark.parametrize("change", [{"scale": (0.4, 0.9)}, {"scale": (1.1, 2.5), "flip": True}])
@pytest.mark.parametrize("crop", [(20, 31), (60, 70)])
def test_scale_and_flip_alone_sample_as_the_general_way_does(change, crop, monkeypatch):
    image, labels = picture()
    maps = [labels, labels.astype(np.float32)]
    for seed in range(5):
        quick = Augmentation(**change).apply(image, maps, crop, np.random.default_rng(seed))
        with monkeypatch.context() as general:
            general.setattr(augmentation, "_upright", lambda places: False)
            slow = Augmentation(**change).apply(image, maps, crop, np.random.default_rng(seed))
        np.testing.assert_allclose(quick[0], slow[0], atol=1e-5)
        np.testing.assert_array_equal(quick[1][0], slow[1][0])
        np.testing.assert_allclose(quick[1][1], slow[1][1], rtol=1e-5, atol=1e-2)
        assert [one.dtype for one in quick[1]] == [np.int32, np.float32]


def test_color_changes_each_channel_by_a_factor_of_its_own():
    grey = np.full((8, 8, 3), 0.5, np.float32)
    moved = Augmentation(color=0.4).apply(grey, [], (8, 8), np.random.default_rng(0))[0]
    factors = moved[0, 0] / 0.5
    np.testing.assert_allclose(moved, np.broadcast_to(0.5 * factors, moved.shape), rtol=1e-6)
    assert len(set(factors.tolist())) == 3 and np.all(np.abs(factors - 1) <= 0.4)


def test_float_maps_are_interpolated_and_integer_maps_are_not():
    image, labels = picture()
    weights = labels.astype(np.float32)
    change = Augmentation(rotate=20)
    _, (whole, between) = change.apply(image, [labels, weights], (20, 20), np.random.default_rng(3))
    assert whole.dtype == np.int32 and between.dtype == np.float32
    assert (between % 1 > 1e-3).any()
    assert np.isin(whole, labels).all()


def test_same_state_same_result_and_range():
    image, labels = picture()
    first, second = (ALL.apply(image, [labels], (32, 32), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1][0], second[1][0])
    assert first[0].min() >= 0 and first[0].max() <= 1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="scale is"):
        Augmentation(scale=(1.2, 0.8))
    with pytest.raises(ValueError, match="elastic is -1"):
        Augmentation(elastic=-1)
    with pytest.raises(ValueError, match="color is -0.1"):
        Augmentation(color=-0.1)
    with pytest.raises(ValueError, match="gamma is 0.5"):
        Augmentation(gamma=0.5)
    image, labels = picture()
    with pytest.raises(ValueError, match=r"labels\[0\] is 39 × 52 pixels and the image 40 × 52"):
        Augmentation().apply(image, [labels[1:]], (8, 8), np.random.default_rng(0))


def test_stretch():
    image = np.linspace(0.1, 0.2, 400, dtype=np.float32).reshape(20, 20, 1)
    stretched = stretch(image)
    assert stretched.min() == 0 and stretched.max() == 1
    assert (stretch(np.full((4, 4, 1), 0.3, np.float32)) == 0).all()


class TestBatches:
    data = cells("train", length=10, size=48, seed=1)

    def make(self, **arguments):
        return Batches(
            self.data, **({"batch_size": 4, "crop": (32, 32), "augmentation": ALL, "seed": 3} | arguments)
        )

    def test_a_batch_depends_on_seed_epoch_and_number_alone(self):
        forwards = [self.make()[k][0] for k in range(3)]
        again = self.make()
        backwards = [again[k][0] for k in (2, 1, 0)][::-1]
        for a, b in zip(forwards, backwards):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(self.make(seed=4)[0][0], forwards[0])
        again.on_epoch_end()
        assert not np.array_equal(again[0][0], forwards[0])
        resumed = self.make()
        resumed.epoch = 1
        np.testing.assert_array_equal(again[1][0], resumed[1][0])

    def test_an_epoch_takes_each_sample_once(self):
        batches = self.make(batch_size=5)
        assert sorted(batches.order(0)) == list(range(10))
        assert batches.order(0).tolist() != batches.order(1).tolist()

    def test_validation_is_the_same_every_epoch_and_counts_each_sample_once(self):
        batches = self.make(augmentation=None)
        first = [batches[k] for k in range(len(batches))]
        batches.on_epoch_end()
        assert sum(len(images) for images, _ in first) == 10
        for (before, _), k in zip(first, range(len(batches))):
            np.testing.assert_array_equal(before, batches[k][0])

    def test_fit_sees_the_same_batches_with_any_number_of_threads(self):
        import keras

        seen = {}
        for workers in (1, 3):
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Conv2D(2, 3, padding="same")])
            model.compile(
                keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            )
            seen[workers] = model.fit(self.make(workers=workers), epochs=2, verbose=0, shuffle=False).history[
                "loss"
            ]
        assert seen[1] == pytest.approx(seen[3], rel=1e-5)

    def test_targets(self):
        images, labels, weights = self.make(task=Borders(border_weight=10))[0]
        assert images.shape == (4, 32, 32, 1) and labels.shape == weights.shape == (4, 32, 32)
        assert set(np.unique(labels)) <= {0, 1, 2} and weights.max() > 3
        assert images.dtype == weights.dtype == np.float32 and labels.dtype == np.int32

    def test_bad_arguments_are_named(self):
        with pytest.raises(ValueError, match="batch_size is 0"):
            self.make(batch_size=0)
        with pytest.raises(ValueError, match="crop is 0"):
            self.make(crop=(0, 32))
        with pytest.raises(ValueError, match="normalization is 'mean'"):
            self.make(normalization="mean")
        with pytest.raises(ValueError, match="dataset is empty"):
            Batches([])
        with pytest.raises(IndexError, match="a batch from 0 to 2"):
            self.make()[3]


@pytest.mark.parametrize("sizes", [((20, 20), (20, 24)), ((20, 20), (20, 20), (16, 20))])
def test_images_of_several_sizes_in_a_batch_are_named_with_what_to_do(sizes):
    samples = [
        replace(
            cells("train", 1)[0],
            name=f"cell {k}",
            image=np.zeros((*size, 1), "float32"),
            semantic=np.zeros(size, int),
        )
        for k, size in enumerate(sizes)
    ]
    words = (
        r"crop is None; it must be \(height, width\), .*'cell 0' 20 x 20 x 1 and 'cell \d' .* batch_size=1"
    )
    with pytest.raises(ValueError, match=words):
        Batches(samples, len(sizes))[0]
    assert Batches(samples, 1)[0][0].shape == (1, 20, 20, 1)
    assert Batches(samples, len(sizes), crop=(16, 16))[0][0].shape == (len(sizes), 16, 16, 1)
