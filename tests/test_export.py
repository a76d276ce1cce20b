"""Exported networks: each format read again by its own runtime gives the numbers of the original, within 1e-4."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from course_lib import export as exports
from course_lib import recipes
from course_lib.__main__ import main
from course_lib.export import SUFFIXES, TOLERANCE, ExportError, deviation, export, run
from course_lib.models import MaskRCNN, deeplab, fcn, unet
from course_lib.models.predict import softmax

pytestmark = pytest.mark.backend

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
SIZE = (32, 48)

NETS = {
    "unet": lambda: unet((None, None, 1), 3, base_filters=4, depth=2, normalization="batch"),
    "fcn": lambda: fcn((None, None, 3), 4, stride=8, backbone="small", widths=(4,) * 5, head_filters=8),
    "deeplab": lambda: deeplab(
        (None, None, 3), 4, backbone="small", widths=(4, 8, 8, 8), aspp_filters=8, decoder_filters=(4, 8), rates=(1, 2, 3)
    ),
}  # fmt: skip


def detector():
    return MaskRCNN(
        3,
        backbone="small",
        backbone_arguments={"widths": (8, 8, 8, 8), "blocks": (1, 1, 1, 1), "stem_stride": 4},
        filters=8,
        box_units=16,
        mask_filters=8,
        mask_convolutions=1,
        settings={"rpn_pre_nms_top_n": (16, 16), "rpn_post_nms_top_n": (8, 8), "box_detections_per_img": 4},
    )


def spread(model):
    """Weights of all sizes and normalizations that do something, so that a wrong one shows."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed_generator" in variable.path:
            continue
        if variable.path.endswith(("bias", "beta", "moving_mean")):
            variable.assign(rng.normal(0, 0.2, variable.shape))
        elif variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def nets():
    keras.utils.set_random_seed(0)
    return {name: spread(build()) for name, build in NETS.items()}


def pictures(channels, size=SIZE, batch=2):
    return np.random.default_rng(1).random((batch, *size, channels), np.float32)


def plain(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


@pytest.mark.parametrize("name", NETS)
def test_the_keras_file_is_the_network(nets, name, tmp_path):
    model = nets[name]
    images = pictures(model.input_shape[-1])
    written = export(model, tmp_path / "net.keras", "keras")
    loaded = keras.saving.load_model(written.path)
    assert np.allclose(plain(loaded, images), plain(model, images), rtol=0, atol=1e-6)
    assert written.bytes == written.path.stat().st_size


# Elsewhere a process of its own writes these; it takes seconds, and one network shows that it works.
TRACED = [name for name in NETS if ON_TENSORFLOW or name == "unet"]


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.slow
def test_onnx_runtime_gives_the_same_for_any_batch_and_size(nets, name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tensorflow")
    model = nets[name]
    written = export(model, tmp_path / "net.onnx", "onnx")
    session = onnxruntime.InferenceSession(written.path)
    (image,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (image.name, logits.name) == ("image", "logits")
    assert image.shape == ["batch", "height", "width", model.input_shape[-1]]
    assert logits.shape[0] == "batch" and logits.shape[-1] == model.output_shape[-1]
    for size, batch in ((SIZE, 2), ((64, 32), 1)):
        images = pictures(model.input_shape[-1], size, batch)
        (found,) = session.run(None, {"image": images})
        assert found.shape == (batch, *size, model.output_shape[-1])
        assert np.abs(found - plain(model, images)).max() <= TOLERANCE
    inside = json.loads(session.get_modelmeta().custom_metadata_map["course_lib"])
    assert inside["input"] == json.loads(written.sidecar.read_text())["input"]


@pytest.mark.skipif(not ON_TENSORFLOW, reason="written as for ONNX; the next test reads one")
@pytest.mark.parametrize("name", TRACED)
@pytest.mark.slow
def test_tensorflow_gives_the_same_from_the_saved_model(nets, name, tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    model = nets[name]
    written = export(model, tmp_path / "net", "saved_model")
    loaded = tensorflow.saved_model.load(str(written.path))
    for size, batch in ((SIZE, 2), ((64, 32), 1)):
        images = pictures(model.input_shape[-1], size, batch)
        found = loaded.serve(tensorflow.constant(images))
        assert set(found) == {"logits"}
        assert np.abs(found["logits"].numpy() - plain(model, images)).max() <= TOLERANCE


@pytest.mark.slow
def test_run_reads_a_saved_model_in_a_process_without_keras(nets, tmp_path):
    pytest.importorskip("tensorflow")
    written = export(nets["unet"], tmp_path / "net", "saved_model")
    assert deviation(nets["unet"], written.path, pictures(1)) <= TOLERANCE


def test_what_a_process_of_its_own_says_last_is_passed_on():
    with pytest.raises(ExportError, match="^running net in a process of its own failed: no such signature$"):
        exports._child("import sys; sys.exit('first\\nno such signature')", doing="running net")


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("format", ["keras", "onnx"] if ON_TENSORFLOW else ["keras"])
def test_probabilities_are_the_softmax_that_the_course_computes(classes, format, tmp_path):
    model = unet((None, None, 1), classes, base_filters=4, depth=1)
    written = export(model, tmp_path / f"net{SUFFIXES[format]}", format, probabilities=True)
    found = run(written.path, pictures(1))
    assert set(found) == {"probabilities"}
    wanted = softmax(plain(model, pictures(1)))
    assert found["probabilities"].shape == wanted.shape == (2, *SIZE, max(2, classes))
    assert np.abs(found["probabilities"] - wanted).max() <= TOLERANCE
    assert deviation(model, written.path, pictures(1)) <= TOLERANCE


def test_a_fixed_size_is_fixed(nets, tmp_path):
    if not ON_TENSORFLOW:
        pytest.skip("a fixed size goes the same way as a free one on other backends")
    written = export(nets["unet"], tmp_path / "net.onnx", "onnx", size=SIZE)
    assert deviation(nets["unet"], written.path, pictures(1)) <= TOLERANCE
    with pytest.raises(ExportError, match="ONNX Runtime does not accept"):
        run(written.path, pictures(1, (64, 64)))


@pytest.mark.parametrize("format", list(SUFFIXES) if ON_TENSORFLOW else ["keras"])
@pytest.mark.slow
def test_mask_rcnn_in_every_format(format, tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    model = detector()
    path = tmp_path / f"net{SUFFIXES[format]}"
    written = export(model, path, format, size=(64, 64))
    card = json.loads(written.sidecar.read_text())
    images = pictures(3, (64, 64))
    if format == "saved_model":  # here and not in a process of its own, which takes seconds
        loaded = pytest.importorskip("tensorflow").saved_model.load(str(path))
        found = {name: value.numpy() for name, value in loaded.serve(images).items()}
        monkeypatch.setattr(exports, "run", lambda path, images: found)
    else:
        found = run(path, images)
    assert {output["name"]: output["shape"][1:] for output in card["outputs"]} == {
        name: list(value.shape[1:]) for name, value in found.items()
    }
    assert found["valid"].any()  # so that the comparison compares something
    assert deviation(model, path, images) <= TOLERANCE


def test_a_deviation_is_seen(nets, tmp_path):
    """Another network's file, and a number that is none."""
    written = export(nets["unet"], tmp_path / "net.keras")
    other = keras.models.clone_model(nets["unet"])
    other.set_weights(nets["unet"].get_weights())
    bias = other.get_layer("logits").bias
    bias.assign(keras.ops.convert_to_numpy(bias) + np.float32(0.01))
    assert deviation(other, written.path, pictures(1)) == pytest.approx(0.01, abs=1e-4)
    bias.assign(np.full(3, np.nan, np.float32))
    assert deviation(other, written.path, pictures(1)) == np.inf


def test_the_sidecar_says_how_to_use_the_file(nets, tmp_path):
    recipe = recipes.NUCLEI
    written = export(nets["unet"], tmp_path / "net.keras", recipe=recipe, thresholds={"min_size": 20})
    assert written.sidecar == tmp_path / "net.keras.json"
    card = json.loads(written.sidecar.read_text())
    assert card["input"]["shape"] == [None, None, None, 1] and card["input"]["range"] == [0, 1]
    assert card["input"]["sides_are_multiples_of"] == 4  # two halvings
    assert "percentiles 1 and 99.8" in card["input"]["normalization"]
    assert card["classes"] == ["background", "cell", "border"] and card["thresholds"] == {"min_size": 20}
    assert (card["recipe"], card["digest"]) == ("unet-nuclei", recipe.digest)
    assert card["outputs"] == [
        {"name": "logits", "shape": [None, None, None, 3], "meaning": exports.MEANINGS["logits"]}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "tflite"}, "format is 'tflite'; it must be one of 'keras', 'saved_model', 'onnx'."),
        ({"path": "net.h5"}, r"path is .*net\.h5; the name of a file for format='keras' ends in \.keras"),
        ({"path": "net.onnx", "format": "saved_model"}, "a SavedModel is a folder"),
        ({"path": "taken.keras"}, r"path is .*taken\.keras exists already: remove it or give another name"),
        ({"path": "card.keras"}, r"path is .*card\.keras\.json exists already"),
        ({"path": "net", "format": "saved_model", "size": (30, 32)}, "sides that are multiples of 4"),
        ({"size": (0, 32)}, r"size is \(0, 32\); it must be a height and a width"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is(nets, tmp_path, arguments, message):
    (tmp_path / "taken.keras").touch()
    (tmp_path / "card.keras.json").touch()
    before = sorted(tmp_path.iterdir())
    path = tmp_path / arguments.pop("path", "net.keras")
    with pytest.raises(ValueError, match=message):
        export(nets["unet"], path, **arguments)
    assert sorted(tmp_path.iterdir()) == before


def test_a_mask_rcnn_wants_a_size_and_has_no_logits(tmp_path):
    model = detector()
    with pytest.raises(ValueError, match="size is missing; a Mask R-CNN has anchors for one image size"):
        export(model, tmp_path / "net.onnx", "onnx")
    with pytest.raises(ValueError, match="a Mask R-CNN already returns scores"):
        export(model, tmp_path / "net.keras", probabilities=True)


def test_other_models_are_named(tmp_path):
    flat = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="only networks with one image .* can be exported"):
        export(flat, tmp_path / "net.keras")


@pytest.mark.parametrize(
    ("package", "extra"), [("tensorflow", "cpu"), ("onnx", "scale"), ("tf2onnx", "scale"), ("onnxruntime", "scale")]
)  # fmt: skip
def test_what_is_not_installed_is_named_with_its_extra(nets, tmp_path, monkeypatch, package, extra):
    if package == "onnxruntime":
        written = export(nets["unet"], tmp_path / "net.keras")
        card = json.loads(written.sidecar.read_text())
        written.sidecar.write_text(json.dumps(card | {"format": "onnx"}))
    find = exports.importlib.util.find_spec
    finder = SimpleNamespace(find_spec=lambda name: None if name == package else find(name))
    monkeypatch.setattr(exports.importlib, "util", finder)
    with pytest.raises(ExportError, match=rf"^{package} is not installed.*extra '{extra}': pip install"):
        if package == "onnxruntime":
            assert exports.missing_runtime("onnx") == "onnxruntime"
            run(tmp_path / "net.keras", pictures(1))
        else:
            export(nets["unet"], tmp_path / "net.onnx", "onnx")


def test_a_network_that_cannot_be_written_leaves_nothing(nets, tmp_path, monkeypatch):
    def broken(*arguments, **keywords):
        raise RuntimeError("first\nop Magic is not supported")

    monkeypatch.setattr(exports.keras.Model, "export", broken)
    monkeypatch.setattr(
        exports, "_convert_elsewhere", lambda model, folder, *rest: exports._convert(model, *rest)
    )
    pytest.importorskip("tf2onnx")
    with pytest.raises(
        ExportError, match="unet cannot be written with format='onnx': op Magic is not supported"
    ):
        export(nets["unet"], tmp_path / "net.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(nets, tmp_path, monkeypatch):
    def no_room(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(exports.os, "rename", no_room)
        export(nets["unet"], tmp_path / "net.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_path_without_an_export_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"is not an export with its net\.onnx\.json beside it"):
        run(tmp_path / "net.onnx", pictures(1))


def test_the_command_writes_reads_again_and_reports(tmp_path, capsys):
    pytest.importorskip("tensorflow")
    if exports.missing_runtime("onnx"):
        pytest.skip("onnxruntime is not installed")
    format, name = ("onnx", "net.onnx") if ON_TENSORFLOW else ("keras", "net.keras")
    command = ["export", "unet-scenes", "--format", format, "--out", str(tmp_path / name), "--json"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["recipe"] == "unet-scenes" and report["path"] == str(tmp_path / name)
    assert report["deviation"] <= TOLERANCE and report["bytes"] == (tmp_path / name).stat().st_size
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err


def test_the_command_says_what_is_off(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exports, "deviation", lambda *arguments: float("nan"))
    path = tmp_path / "net.keras"
    assert main(["export", "unet-scenes", "--format", "keras", "--out", str(path)]) == 1
    assert (
        "net.keras differs from the model by nan, more than 0.0001; do not use it" in capsys.readouterr().err
    )
