"""The command line, as a user types it."""

import json
import subprocess
import sys

import imageio.v3 as imageio
import numpy as np
import pytest

from course_lib import checkpoints, recipes
from course_lib.__main__ import main
from course_lib.datasets import cells
from course_lib.datasets.reading import read_image, write_labels

needs_weights = pytest.mark.skipif(
    checkpoints.is_missing(recipes.CELLS), reason="unet-cells has no trained weights in data/checkpoints"
)


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["data"],
        ["train"],
        ["evaluate"],
        ["predict"],
        ["export"],
        ["claims"],
        ["cards"],
        ["slides"],
        ["posters"],
    ],
)
def test_help(command):
    done = subprocess.run(
        [sys.executable, "-m", "course_lib", *command, "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "usage: python -m course_lib" in done.stdout and done.stderr == ""


@needs_weights
def test_evaluate_prints_the_metrics_and_one_json_object_last(capsys):
    assert main(["evaluate", "unet-cells", "--split", "val", "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    card = checkpoints.card(recipes.CELLS)
    assert report["recipe"] == "unet-cells" and report["split"] == "val" and report["images"] == 32
    assert report["metrics"] == pytest.approx(card["val"], abs=1e-3)


@needs_weights
def test_predict_writes_a_16_bit_label_map_of_each_pictures_own_size(tmp_path, capsys):
    for name, size in (("square", (64, 64)), ("odd", (75, 131))):
        sample = cells("val", length=2, size=size, seed=4)[0]
        imageio.imwrite(tmp_path / f"{name}.png", (sample.image[..., 0] * 65535).astype(np.uint16))
    out = tmp_path / "out"
    assert (
        main(
            [
                "predict",
                "unet-cells",
                str(tmp_path / "square.png"),
                str(tmp_path / "odd.png"),
                "--out",
                str(out),
                "--json",
            ]
        )
        == 0
    )
    written = json.loads(capsys.readouterr().out.splitlines()[-1])["written"]
    assert [entry["image"] for entry in written] == ["square", "odd"]
    for entry, size in zip(written, ((64, 64), (75, 131))):
        labels = imageio.imread(out / f"{entry['image']}.png")
        assert labels.dtype == np.uint16 and labels.shape == size
        assert labels.max() == entry["objects"] > 0
        assert sorted(set(np.unique(labels)) - {0}) == list(range(1, entry["objects"] + 1))
        assert imageio.imread(out / "overlays" / f"{entry['image']}.png").shape == (*size, 3)


@needs_weights
def test_predict_on_a_split(tmp_path, capsys):
    assert main(["predict", "unet-cells", "--split", "val", "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.png"))) == 32 == len(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "unet-cats"], "recipe is 'unet-cats'; there are unet-cells"),
        (["train"], "no RECIPE given"),
        (["claims", "--run", "9.9"], "--run 9.9: there are experiments for 1.1, 1.2"),
        (["predict", "unet-cells", "--out", "x"], "give either IMAGE files or --split"),
        (["predict", "unet-cells", "--out", "x", "missing.png"], "missing.png: there is no such file"),
        (["predict", "unet-cells", "--out", "x", "a/one.png", "b/one.png"], "two pictures are called 'one'"),
        (["evaluate", "unet-cells", "--checkpoints", "nowhere"], "has no trained weights here; train it"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_data_lists_the_sets(capsys):
    assert main(["data"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("nuclei", "membranes", "camvid"))


def test_a_wrong_split_is_refused_by_the_parser(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "unet-cells", "--split", "dev"])
    assert stop.value.code == 2


class TestPictures:
    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    @pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3), (7, 9, 4)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_every_kind_of_file(self, tmp_path, dtype, shape, channels):
        values = np.random.default_rng(0).random(shape)
        pixels = (
            values.astype(dtype)
            if dtype == "float32"
            else np.rint(values * np.iinfo(dtype).max).astype(dtype)
        )
        path = tmp_path / "picture.tif"
        imageio.imwrite(path, pixels)
        read = read_image(path, channels)
        assert read.dtype == np.float32 and read.shape == (7, 9, channels)
        colours = values[..., None] if values.ndim == 2 else values[..., :3]
        expected = colours
        if channels == 1 and colours.shape[-1] == 3:
            expected = (colours @ [0.2125, 0.7154, 0.0721])[..., None]
        np.testing.assert_allclose(read, np.broadcast_to(expected, read.shape), atol=0.005)

    def test_grey_as_scikit_image_does_it(self, tmp_path):
        from skimage.color import rgb2gray
        from skimage.data import chelsea

        imageio.imwrite(tmp_path / "cat.png", chelsea())
        np.testing.assert_allclose(
            read_image(tmp_path / "cat.png", 1)[..., 0], rgb2gray(chelsea()), atol=1e-6
        )

    def test_what_is_no_picture_is_named(self, tmp_path):
        (tmp_path / "text.png").write_text("not a picture")
        with pytest.raises(ValueError, match="text.png: cannot be read as an image"):
            read_image(tmp_path / "text.png", 1)
        imageio.imwrite(tmp_path / "bright.tif", np.full((4, 4), 200.0, np.float32))
        with pytest.raises(ValueError, match="bright.tif: holds numbers from 200 to 200, as floats outside 0..1"):
            read_image(tmp_path / "bright.tif", 1)

    def test_labels_survive_the_file(self, tmp_path):
        labels = np.array([[0, 1], [300, 65535]])
        write_labels(tmp_path / "labels.png", labels)
        np.testing.assert_array_equal(imageio.imread(tmp_path / "labels.png"), labels)
        with pytest.raises(ValueError, match="a 16-bit PNG holds 0 to 65535"):
            write_labels(tmp_path / "labels.png", labels + 1)
