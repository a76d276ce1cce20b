"""Pictures and data sets too large for memory: read in windows, predicted by tiles, kept within a bound."""

import json
import tracemalloc
from types import SimpleNamespace

import imageio.v3 as imageio
import keras
import numpy as np
import pytest
import tifffile
from PIL import Image

from course_lib import checkpoints, recipes
from course_lib.__main__ import main
from course_lib.datasets import cells, reading
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.loading import Batches, normalize, percentiles, window_normalizer
from course_lib.datasets.reading import LargeImage, pixel_count, read_image
from course_lib.models import unet
from course_lib.models.predict import predict_classes_tiled, predict_probabilities, softmax
from course_lib.segmenter import Outputs, Segmenter

pytestmark = pytest.mark.backend

WINDOW = np.ix_([2, 1, 0, 1, 2], [5, 4, 3, 2, 1, 0, 1, 30])


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    net = unet((None, None, 1), 3, base_filters=2, depth=2)
    rng = np.random.default_rng(0)
    for layer in net.layers:
        if getattr(layer, "bias", None) is not None:  # so that not all features of an untrained net are 0
            layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))
    # All classes alike on average, so that each wins somewhere.
    logits = keras.ops.convert_to_numpy(net(rng.random((1, 64, 64, 1), np.float32), training=False))
    bias = net.get_layer("logits").bias
    bias.assign(keras.ops.convert_to_numpy(bias) - logits.mean((0, 1, 2)))
    return net


def write(path, pixels, **arguments):
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, **arguments)
    else:
        imageio.imwrite(path, pixels)
    return path


class TestLargeImage:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(
        ("name", "dtype", "depth", "arguments"),
        [
            ("grey.png", np.uint8, (), {}),
            ("colour.png", np.uint8, (3,), {}),
            ("transparent.png", np.uint8, (4,), {}),
            ("deep.png", np.uint16, (), {}),
            ("grey.tif", np.uint8, (), {}),
            ("deep.tif", np.uint16, (3,), {}),
            ("packed.tif", np.uint8, (), {"compression": "zlib"}),
        ],
    )
    def test_a_window_is_that_of_the_whole_picture(self, tmp_path, name, dtype, depth, arguments, channels):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, np.iinfo(dtype).max, (23, 31, *depth), dtype, endpoint=True)
        path = write(tmp_path / name, pixels, **arguments)
        picture, whole = LargeImage(path, channels), read_image(path, channels)
        assert picture.shape == whole.shape == (23, 31, channels) and pixel_count(path) == 23 * 31
        for window in (WINDOW, np.s_[3:9, 4:]):  # the sum of the three colours may round another way
            np.testing.assert_allclose(picture[window], whole[window], rtol=0, atol=1e-6)
        assert picture[3:9, 4:].dtype == np.float32

    def test_palettes_and_black_and_white(self, tmp_path):
        for mode in ("P", "1"):
            path = tmp_path / f"{mode}.png"
            Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).convert(mode).save(path)
            np.testing.assert_array_equal(LargeImage(path, 1)[:, :], read_image(path, 1))

    def test_an_uncompressed_tiff_stays_on_disk(self, tmp_path):
        path = write(tmp_path / "a.tif", np.zeros((1000, 1000), np.uint8))
        tracemalloc.start()
        LargeImage(path, 1)[:10, :10]
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 500_000

    def test_pillows_limit_is_lifted_for_a_named_file_and_stands_again(self, tmp_path, monkeypatch):
        path = write(tmp_path / "a.png", np.zeros((30, 30), np.uint8))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(Image.DecompressionBombError):
            Image.open(path)
        assert LargeImage(path, 1).shape == (30, 30, 1) and pixel_count(path) == 900
        assert Image.MAX_IMAGE_PIXELS == 100

    @pytest.mark.parametrize(
        ("name", "pixels", "message"),
        [
            ("floats.tif", np.zeros((4, 4), np.float32), "holds floats. Save an image of this size with 8 or 16"),
            ("wide.tif", np.zeros((4, 4), np.int32), "contains int32 numbers, whose range is not known"),
            ("stack.tif", np.zeros((6, 5, 9), np.uint8), "holds 6 images. Save each"),
            ("series.tif", np.zeros((6, 5, 9, 3), np.uint8), "holds 30 images. Save each"),
        ],
    )  # fmt: skip
    def test_what_is_no_picture_is_named(self, tmp_path, name, pixels, message):
        with pytest.raises(ValueError, match=message):
            LargeImage(write(tmp_path / name, pixels, photometric="minisblack"), 1)

    def test_files_that_cannot_be_read(self, tmp_path):
        with pytest.raises(ValueError, match="there is no such file"):
            LargeImage(tmp_path / "none.png", 1)
        for name in ("text.png", "text.tif"):
            (tmp_path / name).write_text("no picture")
            assert pixel_count(tmp_path / name) is None
            with pytest.raises(ValueError, match="cannot be read as an image: its first bytes"):
                LargeImage(tmp_path / name, 1)


class TestNormalization:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_percentiles_are_numpys(self, dtype):
        levels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (67, 41, 2), dtype, endpoint=True)
        image = levels.astype(np.float64) / np.iinfo(dtype).max
        shares = (0, 1, 33.3, 50, 99.8, 100)
        found = percentiles(image.astype(np.float32), shares, rows=10)
        np.testing.assert_allclose(found, np.percentile(image, shares, axis=(0, 1)), rtol=0, atol=1e-12)

    def test_of_floats_it_is_a_step_off_at_most(self):
        image = np.random.default_rng(2).random((50, 60, 1), np.float32)
        found = percentiles(image, (1.0, 99.8))
        assert np.abs(found - np.percentile(image, (1.0, 99.8), axis=(0, 1))).max() <= 1 / 65535

    @pytest.mark.parametrize("how", ["none", "stretch"])
    def test_windows_are_those_of_the_normalized_picture(self, how):
        image = np.random.default_rng(3).integers(40, 90, (50, 60, 1)).astype(np.float32) / 255
        window = np.s_[10:20, 30:45]
        found = window_normalizer(image, how)(image[window])
        np.testing.assert_allclose(found, normalize(image, how)[window], rtol=0, atol=1e-6)

    def test_a_flat_picture_and_an_unknown_name(self):
        flat = np.full((4, 4, 1), 0.5, np.float32)
        assert (window_normalizer(flat, "stretch")(flat) == 0).all()
        with pytest.raises(ValueError, match="normalization is 'zscore'"):
            window_normalizer(flat, "zscore")


class TestPredictClasses:
    def test_it_is_the_argmax_of_tiled_probabilities(self, model):
        image = np.random.default_rng(4).random((70, 90, 1), np.float32)
        tiled = predict_probabilities(model, image, largest=16, tile=32, margin=16)
        found = predict_classes_tiled(model, image, tile=32, margin=16)
        assert found.dtype == np.uint8 and len(np.unique(found)) > 1
        np.testing.assert_array_equal(found, tiled.argmax(-1))

    @pytest.mark.parametrize("tta", ["none", "flips", "turns"])
    @pytest.mark.slow
    def test_within_the_margin_it_is_the_whole_picture_at_once(self, model, tta):
        image = np.random.default_rng(5).random((128, 160, 1), np.float32)
        whole = predict_probabilities(model, image, tta)
        found = predict_classes_tiled(model, image, tta=tta, tile=32, margin=32)
        inside = np.s_[32:-32, 32:-32]
        top_two = np.sort(whole, axis=-1)[..., -2:]
        # Rounding decides where two are alike.
        sure = (top_two[..., 1] - top_two[..., 0] > 1e-4)[inside]
        assert sure.mean() > 0.9 and len(np.unique(found[inside][sure])) > 1
        np.testing.assert_array_equal(found[inside][sure], whole.argmax(-1)[inside][sure])

    def test_one_channel_is_two_classes(self):
        single = unet((None, None, 1), 1, base_filters=2, depth=1)
        image = np.random.default_rng(6).random((32, 32, 1), np.float32)
        logits = keras.ops.convert_to_numpy(single(image[None], training=False))[0]
        found = predict_classes_tiled(single, image, tile=32, margin=0)
        np.testing.assert_array_equal(found, softmax(logits).argmax(-1))

    def test_a_file_to_a_file(self, model, tmp_path):
        pixels = np.random.default_rng(7).integers(0, 256, (70, 90), np.uint8)
        picture = LargeImage(write(tmp_path / "a.tif", pixels), 1)
        out = tifffile.memmap(tmp_path / "out.tif", shape=(70, 90), dtype=np.uint8)
        steps = []
        result = predict_classes_tiled(
            model, picture, out, window_normalizer(picture, "stretch"), tile=32, margin=16,
            progress=lambda batches: [steps.append(1) or batch for batch in batches],
        )  # fmt: skip
        assert result is out and len(steps) == 9
        out.flush()
        whole = normalize(read_image(tmp_path / "a.tif", 1), "stretch")
        wanted = predict_probabilities(model, whole, largest=16, tile=32, margin=16)
        same = imageio.imread(tmp_path / "out.tif") == wanted.argmax(-1)
        assert same.mean() > 0.999  # the percentiles differ in the last bit of a float32

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"tta": "all"}, "tta is 'all'"),
            ({"image": np.zeros((8, 8, 3), np.float32)}, r"this model takes \(height, width, 1\)"),
            ({"out": np.zeros((8, 9), np.uint8)}, r"out is uint8 \(8, 9\); it must hold integers up to 2"),
            ({"out": np.zeros((8, 8), np.float32)}, "out is float32"),
        ],
    )
    def test_bad_arguments(self, model, arguments, message):
        arguments = {"image": np.zeros((8, 8, 1), np.float32)} | arguments
        with pytest.raises(ValueError, match=message):
            predict_classes_tiled(model, **arguments)

    def test_memory_does_not_grow_with_the_picture(self, tmp_path):
        """Of the picture and its classes, which stay on disk, windows alone are in memory."""
        net = unet((None, None, 1), 2, base_filters=1, depth=1)

        def used(side):
            path = tmp_path / f"{side}.tif"
            picture = tifffile.memmap(path, shape=(side, side), dtype=np.uint8)
            picture[::7] = 200
            picture.flush()
            out = tifffile.memmap(tmp_path / f"out_{side}.tif", shape=(side, side), dtype=np.uint8)
            tracemalloc.start()
            picture = LargeImage(path, 1)
            predict_classes_tiled(
                net, picture, out, window_normalizer(picture, "stretch"), tile=512, margin=8
            )
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return peak

        used(600)  # what is loaded or compiled once
        small, large = used(600), used(2500)
        assert large < small + 2500 * 2500  # not even a byte for each pixel


class TestCommand:
    @pytest.fixture(autouse=True)
    def tiny(self, monkeypatch):
        """What counts as large, lowered so that small pictures do."""
        monkeypatch.setattr(reading, "LARGE", 5000)
        if checkpoints.is_missing(recipes.CELLS):
            pytest.skip("unet-cells has no trained weights in data/checkpoints")

    def test_a_large_picture_gets_a_map_of_classes(self, tmp_path, capsys):
        image = cells("val", length=1, size=(80, 96), seed=4)[0].image
        pixels = np.rint(image[..., 0] * 255).astype(np.uint8)
        write(tmp_path / "large.png", pixels)
        write(tmp_path / "small.png", pixels[:64, :64])
        files = [str(tmp_path / name) for name in ("large.png", "small.png")]
        assert main(["predict", "unet-cells", *files, "--out", str(tmp_path / "out"), "--json"]) == 0
        captured = capsys.readouterr()
        large, small = json.loads(captured.out.splitlines()[-1])["written"]
        assert large["labels"].endswith("large.tif") and small["labels"].endswith("small.png")
        assert (
            "large: too large to number its objects; it gets a map of 0 = background, 1 = cell, 2"
            in captured.err
        )
        found = tifffile.imread(large["labels"])
        assert found.shape == (80, 96) and found.dtype == np.uint8
        assert large["classes"] == len(np.unique(found)) > 1
        model = recipes.CELLS.model()
        checkpoints.load(recipes.CELLS, model, quiet=True)
        whole = predict_probabilities(model, normalize(image.round(8), "stretch"))
        assert (found == whole.argmax(-1)).mean() > 0.9  # up to the rim, where tiles are mirrored
        assert imageio.imread(tmp_path / "out" / "overlays" / "large.png").shape == (80, 96, 3)
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "large.tif",
            "overlays",
            "small.png",
        ]

    def test_a_detector_says_that_it_cannot(self, tmp_path):
        picture = LargeImage(write(tmp_path / "a.png", np.zeros((80, 96), np.uint8)), 1)
        with pytest.raises(
            ValueError, match="image has 80 × 96 pixels; a detector finds objects in whole images"
        ):
            Segmenter.of(recipes.get("maskrcnn-nuclei"), object()).predict_large(picture)


class Counting(list):
    """Samples, and how often each was read."""

    def __init__(self, samples):
        super().__init__(samples)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


class TestBoundedCache:
    @pytest.fixture
    def samples(self):
        drawn = cells("train", length=6, size=32, seed=1)
        return Counting(drawn[k] for k in range(6))

    def epochs(self, samples, **arguments):
        batches = Batches(samples, 2, (16, 16), augmentation=Augmentation(flip=True), seed=3, **arguments)
        result = []
        for _ in range(3):
            result += [batches[k] for k in range(len(batches))]
            batches.on_epoch_end()
        return batches, result

    def test_the_batches_are_the_same_whatever_is_kept(self, samples):
        size = samples[0].image.nbytes + samples[0].semantic.nbytes
        _, wanted = self.epochs(samples, cache=False)
        for cache in (True, 2 * size, 1):
            _, found = self.epochs(samples, cache=cache)
            for one, other in zip(wanted, found, strict=True):
                for a, b in zip(one, other, strict=True):
                    np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(("places", "reads"), [(0, 18), (2, 2 + 3 * 4), (6, 6)])
    def test_the_first_that_fit_stay_and_no_more(self, samples, places, reads):
        size = samples[0].image.nbytes + samples[0].semantic.nbytes
        samples.read.clear()
        batches, _ = self.epochs(samples, cache=places * size + size // 2, workers=1)
        assert len(samples.read) == reads
        assert len(batches._cache) == places
        held = sum(part.nbytes for encoded in batches._cache.values() for part in encoded)
        assert held <= places * size + size // 2

    def test_a_view_does_not_keep_what_it_looks_at(self, samples):
        batches, _ = self.epochs(samples)
        assert all(part.base is None for encoded in batches._cache.values() for part in encoded)

    @pytest.mark.parametrize("cache", [-1, 0.5])
    def test_what_is_no_number_of_bytes(self, samples, cache):
        with pytest.raises(
            ValueError, match="cache is .*; it must be a whole number of bytes, True or False"
        ):
            Batches(samples, cache=cache)


class TestPredictions:
    def test_what_fits_is_predicted_once_and_the_rest_when_asked_for(self):
        asked = []

        def output(image):
            asked.append(image)
            return np.full(10, image, np.float32)

        data = [type("Sample", (), {"image": k}) for k in range(5)]
        said = Outputs(SimpleNamespace(output=output), data, limit=2 * 40 + 10)
        assert asked == [0, 1, 2] and len(said) == 5
        for _ in range(2):
            assert [int(one[0]) for one in said] == [0, 1, 2, 3, 4]
        assert asked == [0, 1, 2] + 2 * [2, 3, 4]
        assert int(said[-1][0]) == 4
        with pytest.raises(IndexError, match="output 5: there are 5"):
            said[5]

    def test_the_metrics_do_not_depend_on_what_is_kept(self):
        recipe = recipes.SCENES
        model, val = recipe.model(), cells("val", length=3, size=32, seed=1)
        grey = [type("Sample", (), {"image": np.repeat(s.image, 3, -1), "semantic": s.semantic}) for s in val]
        segmenter = Segmenter.of(recipe, model)
        scores = [segmenter.score(grey, Outputs(segmenter, grey, limit=limit)) for limit in (0, 10**9)]
        assert scores[0] == pytest.approx(scores[1], nan_ok=True) and "mean_iou" in scores[0]
