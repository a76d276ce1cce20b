"""The command line, as a user types it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

import course_lib
from course_lib import checkpoints, cli, files, own_recipes, recipes
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
@pytest.mark.slow
def test_one_image_in_many_encodings_gives_the_same_objects(tmp_path, monkeypatch, capsys):
    import tifffile
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    grey = np.rint(cells("val", length=1, size=64, seed=4)[0].image[..., 0] * 255).astype(np.uint8)
    deep, image, exif = grey.astype(np.uint16) * 257, Image.fromarray(grey), Image.Exif()
    exif[274] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(grey))).save("turned.png", exif=exif)
    for name, one, options in (
        ("plain.png", image, {}), ("deep.png", Image.fromarray(deep), {}), ("palette.png", image.convert("P"), {}),
        ("colours.png", image.convert("RGB"), {}), ("alpha.png", image.convert("LA"), {}),
        ("reduced.png", image.quantize(), {}),
        ("a.gif", image, {}), ("a.webp", image, {"lossless": True}), ("a.bmp", image, {}), ("a.jp2", image, {}),
        ("a.jpg", image, {"format": "PNG"}), ("lzw.tif", image, {"compression": "tiff_lzw"}),
        ("inks.tif", Image.merge("CMYK", [Image.new("L", image.size)] * 3 + [Image.fromarray(255 - grey)]), {}),
    ):  # fmt: skip
        one.save(name, **options)
    for name, array, options in (
        ("white.tif", 255 - grey, {"photometric": "miniswhite"}), ("floats.tif", (grey / 255).astype(np.float32), {}),
        ("big.tif", deep, {"byteorder": ">", "bigtiff": True, "tile": (16, 16)}), ("imagej.tif", grey, {"imagej": True}),
        ("planes.tif", np.stack([grey] * 3), {"photometric": "rgb", "planarconfig": "separate"}),
    ):  # fmt: skip
        tifffile.imwrite(name, array, **options)
    names = sorted(
        path.name for path in Path().iterdir() if path.name not in ("a.gif", "a.webp", "a.bmp", "a.jp2")
    )
    for number, name in enumerate(
        ["a.gif", "a.webp", "a.bmp", "a.jp2"]
    ):  # one label map would overwrite the other
        names.append(Path(name).rename(f"{number}{name}").name)
    assert main(["predict", "unet-cells", *names, "--out", "out"]) == 0
    maps = [imageio.imread(f"out/{Path(name).stem}.png") for name in names]
    assert len(maps) == 19 and maps[0].max() > 1
    for name, labels in zip(names, maps, strict=True):
        # A palette that was made anew may round by a level.
        assert (labels == maps[0]).mean() >= (0.99 if name == "reduced.png" else 1), name


@needs_weights
def test_predict_on_a_split(tmp_path, capsys):
    assert main(["predict", "unet-cells", "--split", "val", "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.png"))) == 32 == len(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "unet-cats"], "recipe is 'unet-cats'; there are unet-cells"),
        (["train"], "no RECIPE given"),
        (["claims", "--run", "9.9"], "--run is 9.9; it must be all or one of 1.1, 1.2"),
        (["predict", "unet-cells", "--out", "x"], "give either IMAGE files or --split"),
        (["predict", "unet-cells", "--out", "x", "missing.png"], "missing.png: there is no such file"),
        (["predict", "unet-cells", "--out", "x", "."], ". is a folder; name the image files in it"),
        (["predict", "unet-cells", "--out", "x", "--", "-dash.png"], "-dash.png: there is no such file"),
        (["predict", "nowhere.py", "--split", "val", "--out", "x"], "nowhere.py: there is no such file"),
        (["evaluate", "unet-cells", "--checkpoints", "nowhere"], "has no trained weights yet; train it"),
        (["export", "unet-cells", "--out", "net.txt"], "ends in .onnx"),
        (["train", "no-such-recipe"], "recipe is 'no-such-recipe'"),
        (
            ["predict", "unet-cells", "--out", "x", os.devnull],
            "null is not an ordinary file; name an image file",
        ),
        (["claims", "--write"], "belong to --run; name a claim"),
        (["claims", "--minutes", "3"], "belong to --run; name a claim"),
        (["exam", "--questions", "0", "--out", "x"], "it must be a whole number from 1 to"),
        (["exam", "--out", "x" * 300], "File name too long; give a shorter name."),
        (["cards", "--out", "x.zip"], "files that end in .apkg"),
        (["quiz", "--out", "x.html"], "it must end in .xml"),
        (["posters", "--out", "x", "vit"], "there are posters of unet"),
        (["slides", "99"], "there is no notebook '99'"),
        (["grade", "nowhere", "x"], "it must hold notebooks"),
        (["data", "cats"], "it must be one of nuclei"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["exam", "--questions", "1", "--out", "file"],
        ["exam", "--questions", "1", "--out", "file/x"],
        ["cards", "--out", "file/x.apkg"],
        ["train", "unet-cells", "--runs", "file"],
        ["train", "unet-cells", "--runs", "runs", "--checkpoints", "file/x"],
        ["predict", "unet-cells", "g.png", "--out", "file"],
        ["release", "file"],
        ["grade", "hand-ins", "out", "--hidden", "file"],
    ],
)
def test_a_file_where_a_folder_must_be_is_told_before_any_work(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "hand-ins").mkdir()
    (tmp_path / "hand-ins" / "a.ipynb").write_text("{}")
    imageio.imwrite("g.png", np.zeros((8, 8), np.uint8))
    monkeypatch.setattr("course_lib.training.fit", None)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "file" in said and "[Errno" not in said and "COURSE_CACHE" not in said
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "mine"


def ending(monkeypatch, function) -> int:
    monkeypatch.setattr(cli, "run_data", function)
    return main(["data"])


def test_an_error_that_nobody_thought_of_is_a_sentence_too(monkeypatch, capsys):
    def fail(options):
        return {}["x"]

    assert ending(monkeypatch, fail) == 1
    said = capsys.readouterr().err
    assert "KeyError: 'x'" in said and "test_cli.py, line" in said and said.count("\n") == 1
    monkeypatch.setenv("COURSE_DEBUG", "1")
    with pytest.raises(KeyError):
        ending(monkeypatch, fail)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
def test_sigterm_ends_a_command_as_ctrl_c_does(monkeypatch, capsys, tmp_path):
    def wait(options):
        with files.replacing(tmp_path / "x.png") as unfinished:
            unfinished.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)

    assert ending(monkeypatch, wait) == 128 + signal.SIGTERM
    assert "data: stopped." in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_a_signal_during_an_import_ends_it_without_a_traceback(tmp_path):
    (tmp_path / "numpy.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "course_lib", "data"], stderr=subprocess.PIPE, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(cli.__file__).parents[1]}"}, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


class TestOutputs:
    """What a terminal or a pipe does to a command's output."""

    def run(self, code, **options):
        source = (
            "import sys; from course_lib import cli; from course_lib.__main__ import main\n"
            f"{code}\nsys.exit(main(['data']))"
        )
        environment = os.environ | options.pop("env", {})
        return subprocess.run(
            [sys.executable, "-c", source], cwd=Path(cli.__file__).parents[1], env=environment,
            stderr=subprocess.PIPE, text=True, timeout=120, **options,
        )  # fmt: skip

    def test_whoever_reads_it_may_stop(self):
        ours, theirs = os.pipe()
        os.close(ours)
        done = self.run("", stdout=theirs)
        os.close(theirs)
        assert (done.returncode, done.stderr) == (1, "")

    @pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM there")
    def test_sigterm_within_an_exec(self):
        code = "import os\ncli.run_data = lambda options: exec('os.kill(os.getpid(), 15)', {'os': os})"
        done = self.run(code, stdout=subprocess.PIPE)
        assert (done.returncode, done.stderr.count("data: stopped.")) == (143, 1)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_a_full_disk(self):
        with open("/dev/full", "wb") as full:
            done = self.run("", stdout=full)
        assert done.returncode == 1
        assert done.stderr == (
            "course_lib data: No space left on device; free some space, or choose a folder on another disk.\n"
        )

    def test_names_that_a_terminal_cannot_show(self):
        code = "cli.run_data = lambda options: print('\\u00fc \\udcff') or 0"
        done = self.run(code, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"})
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "\\xfc \\udcff\n")


@pytest.mark.parametrize("content", ['{"backend": 5}', "[]", '{"backend": ""}', '{"backend": "a.b"}', "x"])
def test_settings_of_keras_that_name_no_backend(content, monkeypatch, tmp_path):
    (tmp_path / "keras.json").write_text(content)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    course_lib._choose_backend()
    assert os.environ.get("KERAS_BACKEND", "tensorflow") in ("tensorflow", "jax", "torch")


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
        with pytest.raises(
            ValueError, match="bright.tif: contains numbers from 200 to 200, floats outside 0..1"
        ):
            read_image(tmp_path / "bright.tif", 1)

    def test_labels_survive_the_file(self, tmp_path):
        labels = np.array([[0, 1], [300, 65535]])
        write_labels(tmp_path / "labels.png", labels)
        np.testing.assert_array_equal(imageio.imread(tmp_path / "labels.png"), labels)
        with pytest.raises(ValueError, match="a 16-bit PNG holds 0 to 65535"):
            write_labels(tmp_path / "labels.png", labels + 1)


class TestNothingIsOverwritten:
    """Refused before anything is predicted, and what is there stays."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("g.png", "scan.tif"):
            imageio.imwrite(tmp_path / name, np.full((32, 32), 9, np.uint8))
        (tmp_path / "precious.txt").write_text("mine")
        return tmp_path

    def refused(self, capsys, *arguments):
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        assert main(["predict", "unet-cells", *arguments]) == 1
        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
        return capsys.readouterr().err

    def test_an_image_in_the_output_folder(self, folder, capsys):
        assert "g.png would be overwritten by its label map" in self.refused(capsys, "g.png", "--out", ".")
        assert "scan.tif would be overwritten" in self.refused(capsys, "scan.tif", "--out", str(folder))

    def test_the_same_file_under_another_name(self, folder, capsys):
        (folder / "there").symlink_to(folder)
        assert "would be overwritten" in self.refused(capsys, "g.png", "--out", "there")
        (folder / "out").mkdir()
        os.link("g.png", "out/h.png")
        imageio.imwrite("h.png", np.zeros((32, 32), np.uint8))
        assert "g.png would be overwritten" in self.refused(capsys, "h.png", "g.png", "--out", "out")

    def test_an_image_among_the_overlays(self, folder, capsys):
        (folder / "overlays").mkdir()
        (folder / "g.png").rename("overlays/g.png")
        assert "would be overwritten" in self.refused(capsys, "overlays/g.png", "--out", ".")

    @pytest.mark.parametrize("link", ["out/g.png", "out/overlays/g.png", "out/overlays"])
    def test_a_link_in_the_output_folder(self, folder, capsys, link):
        (folder / link).parent.mkdir(parents=True)
        (folder / link).symlink_to(folder / "precious.txt")
        assert f"{link} is a link" in self.refused(capsys, "g.png", "--out", "out")

    @pytest.mark.parametrize(
        "names",
        [("a/x.png", "b/x.png"), ("x.png", "X.png"), ("\u00fc.png", "u\u0308.png"), ("x.png", "x.tif")],
    )
    def test_two_images_of_one_name(self, folder, capsys, names):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            imageio.imwrite(name, np.zeros((32, 32), np.uint8))
        assert "would overwrite the other" in self.refused(capsys, *names, "--out", "out")

    @needs_weights
    def test_a_write_that_fails_leaves_the_older_map(self, folder, monkeypatch, capsys):
        (folder / "out").mkdir()
        (folder / "out" / "g.png").write_text("older")

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.os, "fsync", full)
        assert main(["predict", "unet-cells", "g.png", "--out", "out"]) == 1
        assert "No space left" in capsys.readouterr().err
        assert (folder / "out" / "g.png").read_text() == "older"
        assert [path.name for path in (folder / "out").iterdir() if path.is_file()] == ["g.png"]


def test_ctrl_c_says_what_is_true(monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_check_images", stop)
    assert main(["predict", "unet-cells", "x.png", "--out", "x"]) == 130
    assert "starts again from the beginning" in capsys.readouterr().err


def test_a_backend_that_there_is_none_of(monkeypatch, capsys):
    def fail(options):
        raise ImportError("Unable to import backend : TensorFlow")

    monkeypatch.setenv("KERAS_BACKEND", "TensorFlow")
    assert ending(monkeypatch, fail) == 1
    assert "KERAS_BACKEND is 'TensorFlow'; it must be torch, jax, tensorflow" in capsys.readouterr().err


def test_a_backend_without_its_package_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['torch'] = None; "
         "from course_lib.__main__ import main; sys.exit(main(['train', 'unet-cells']))"],
        cwd=Path(cli.__file__).parents[1],
        env=os.environ | {"KERAS_BACKEND": "torch"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "KERAS_BACKEND is 'torch', and PyTorch is not installed here" in done.stderr


@pytest.mark.parametrize("minutes", ["abc", "0", "-1", "nan", "inf"])
def test_minutes_that_are_none(minutes, capsys):
    with pytest.raises(SystemExit):
        main(["train", "unet-cells", f"--minutes={minutes}"])
    assert f"{minutes} is not a positive number of minutes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["claims", "--run", "4.1", "--minutes=nan"],
        ["claims", "--run", "4.1", "--minutes=-1"],
        ["grade", "x", "y", "--seconds=nan"],
        ["grade", "x", "y", "--seconds=0"],
        ["grade", "x", "y", "--memory=-4"],
        ["grade", "x", "y", "--jobs=0"],
        ["grade", "x", "y", "--jobs=1.5"],
        ["exam", "--out", "x", "--questions=ten"],
        ["export", "unet-cells", "--out", "x.onnx", "--size", "64"],
        ["export", "unet-cells", "--out", "x.onnx", "--format", "tflite"],
        ["train", "unet-cells", "--no-such-option"],
        ["predict", "unet-cells", "x.png", "--outt", "x"],
        ["nonsense"],
        [],
    ],
)
def test_an_invalid_command_line_is_told_by_the_parser(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("devices", ["0", "-2", "many", "2.5"])
def test_devices_that_are_none(devices, capsys):
    with pytest.raises(SystemExit):
        main(["train", "unet-cells", f"--devices={devices}"])
    assert f"{devices} is neither 'all' nor a number of devices" in capsys.readouterr().err


class TestOwnRecipes:
    def test_a_python_file(self, tmp_path):
        (tmp_path / "mine.py").write_text(
            "from dataclasses import replace\nfrom course_lib import recipes\n"
            "first = replace(recipes.CELLS, name='first')\n"
        )
        assert own_recipes.find(str(tmp_path / "mine.py")).name == "first"
        with (tmp_path / "mine.py").open("a") as file:
            file.write("second = replace(first, name='second')\n")
        with pytest.raises(ValueError, match="holds 2 recipes .first, second.; name one"):
            own_recipes.find(str(tmp_path / "mine.py"))
        assert own_recipes.find(f"{tmp_path / 'mine.py'}:second").name == "second"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x = 1", "holds no Recipe"),
            ("x = 1 / 0", "ZeroDivisionError"),
            ("raise SystemExit", "SystemExit"),
            ("x =", "SyntaxError"),
        ],
    )
    def test_a_python_file_without_one(self, tmp_path, text, message):
        (tmp_path / "mine.py").write_text(text)
        with pytest.raises(ValueError, match=message):
            own_recipes.find(str(tmp_path / "mine.py"))

    @pytest.fixture
    def folder(self, tmp_path):
        for part in ("images", "labels"):
            (tmp_path / part).mkdir()
        for k, sample in enumerate(cells("train", length=20, size=48, seed=1)):
            imageio.imwrite(tmp_path / "images" / f"c{k}.png", (sample.image[..., 0] * 255).astype(np.uint8))
            imageio.imwrite(tmp_path / "labels" / f"c{k}.png", (sample.semantic * 255).astype(np.uint8))
        return tmp_path

    def test_a_folder(self, folder):
        recipe = own_recipes.find(str(folder))
        assert recipe.class_names() == ("background", "class 1") and recipe.channels() == 1
        assert recipe.crop == (48, 48) and set(np.unique(recipe.data("train")[0].semantic)) == {0, 1}
        assert own_recipes.find(str(folder), ("nothing", "cell")).class_names() == ("nothing", "cell")
        with pytest.raises(ValueError, match="--classes names 1 classes; the labels hold 2"):
            own_recipes.find(str(folder), ("cell",))

    @pytest.mark.parametrize("part", ["images", "labels"])
    def test_predictions_of_a_split_do_not_take_the_place_of_its_files(self, folder, part, capsys):
        before = {path: path.read_bytes() for path in folder.rglob("*.png")}
        assert main(["predict", str(folder), "--split", "val", "--out", str(folder / part)]) == 1
        assert "would be overwritten by its label map" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before

    def test_a_folder_with_the_name_of_a_shipped_recipe(self, folder):
        mine = folder.rename(folder.with_name("unet-cells"))
        recipe = own_recipes.find(str(mine))
        assert recipe.name == "unet-cells"
        assert (
            checkpoints.target(recipe) == checkpoints.OWN / "unet-cells" != checkpoints.folder(recipes.CELLS)
        )

    def test_a_folder_that_is_none(self, tmp_path):
        with pytest.raises(ValueError, match="is not a folder of data; put the images in its images/"):
            own_recipes.find(str(tmp_path))
