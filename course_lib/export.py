"""A trained network as a file that other programs run: Keras's own file, TensorFlow's SavedModel, or ONNX.

    written = export(model, "nuclei.onnx", "onnx", recipe=recipe)    # and nuclei.onnx.json, which says how to use it
    deviation(model, written.path, images)                           # run again by its own runtime, and compared

An exported network takes what the network takes: float32 `(batch, height, width, channels)`, scaled to 0..1 and normalized
as in training. The normalization is not part of the file, on purpose: `"stretch"` takes percentiles of the whole image,
and a program that processes a large image in windows would stretch each of them differently. The sidecar says what to
do in a sentence and two numbers.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from course_lib import __version__, resources
from course_lib._checks import one_of
from course_lib.files import write_json
from course_lib.models import MaskRCNN
from course_lib.recipes import Recipe

SUFFIXES = {"keras": ".keras", "saved_model": "", "onnx": ".onnx"}
"""The formats, and how the name of their file ends; a SavedModel is a folder."""

TOLERANCE = 1e-4
"""How far any value of an exported network may be from its original's."""

NORMALIZATIONS = {
    "none": "none: values in 0..1 as they are",
    "stretch": "of each channel of the whole image, percentiles 1 and 99.8 become 0 and 1, clipped to 0..1",
}
MEANINGS = {
    "logits": "a score for each class and pixel; the softmax over the last axis gives probabilities",
    "probabilities": "for each class and pixel, summing to 1 over the last axis",
    "boxes": "x1, y1, x2, y2 in pixels, x2 and y2 exclusive",
    "classes": "the class of each place",
    "scores": "in 0..1, the highest first",
    "valid": "false where a place holds no object",
    "masks": "the probability that a pixel belongs to the object, on a grid within its box",
}
# TensorFlow loads its own format, and the course does not import TensorFlow: a process without Keras does.
RUN_SAVED_MODEL = """
import sys, numpy, tensorflow
model = tensorflow.saved_model.load(sys.argv[1])
found = model.serve(tensorflow.constant(numpy.load(sys.argv[2])))
found = found if isinstance(found, dict) else {"": found}
numpy.savez(sys.argv[3], **{name or "output": value.numpy() for name, value in found.items()})
"""
CONVERT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from course_lib import export
export._convert(*sys.argv[2:5], json.loads(sys.argv[5]))
"""


class ExportError(RuntimeError):
    """A network cannot be written in this format on this machine, or cannot be run."""


@dataclass(frozen=True)
class Exported:
    """The files that an export wrote.

    Attributes:
        path: the file; of a SavedModel the folder.
        sidecar: the JSON file beside it.
        format: `"keras"`, `"saved_model"` or `"onnx"`.
        bytes: of the file, or of all files in the folder.
    """

    path: Path
    sidecar: Path
    format: str
    bytes: int


def export(
    model: keras.Model,
    path: Path | str,
    format: str = "keras",
    *,
    recipe: Recipe | None = None,
    thresholds: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    probabilities: bool = False,
) -> Exported:
    """Write a network so that other programs can run it, and beside it `<path>.json`, which says how to use it.

    The batch is free, and so are height and width where the network allows it. In a SavedModel and in ONNX input and output
    have names: `image`, and `logits` or `probabilities`; a detector's are those of its outputs. Whoever looks sees nothing
    or the whole of it, never a half.

    SavedModel and ONNX are written by TensorFlow. Where Keras runs on JAX or PyTorch, a process of its own does that, from
    a Keras file; layers of your own must then be registered with Keras in `course_lib`.

    Args:
        model: with one input `(batch, height, width, channels)` and one output of logits, or a `MaskRCNN`.
        path: where to; `.keras` or `.onnx` at its end, no such end for a SavedModel. Nothing may be there yet.
        format: `"keras"`, `"saved_model"` or `"onnx"`.
        recipe: what the network was trained by; classes, normalization and digest go into the sidecar.
        thresholds: as chosen on the validation set, from the checkpoint's card, for the sidecar.
        size: height and width in pixels, to fix them; a Mask R-CNN needs it, its anchors belong to one size.
        probabilities: put the softmax into the file: probabilities come out instead of logits.

    Returns:
        An `Exported`.

    Raises:
        ValueError: for an unknown format, a path that is taken or ends otherwise, a size the network does not take, or
            `probabilities` for a detector, which has no logits of pixels.
        ExportError: if what writes this format is not installed, or cannot write this network.
    """
    path = _checked_path(Path(path), format)
    _check_form(model)
    multiple = None if isinstance(model, MaskRCNN) else multiple_of(model)
    model_size = _checked_size(model, size, format, probabilities, multiple)
    whole = _with_softmax(model) if probabilities else model
    _check_installed(format)
    card = _card(model, path, format, recipe, thresholds, model_size, probabilities, multiple)

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        made = Path(folder) / f"model{SUFFIXES[format]}"
        if format == "keras":
            whole.save(made)
        elif keras.backend.backend() == "tensorflow":
            _convert(whole, made, format, card)
        else:
            _convert_elsewhere(whole, Path(folder), made, format, card)
        written = sum(file.stat().st_size for file in ([made] if made.is_file() else made.rglob("*")))
        write_json(_sidecar(path), card | {"bytes": written})
        try:
            os.rename(made, path)
        except OSError:
            _sidecar(path).unlink()
            raise
    return Exported(path, _sidecar(path), format, written)


def run(path: Path | str, images: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of an exported network, computed by its own runtime: Keras, TensorFlow without Keras (in a separate
    process), or ONNX Runtime.

    Args:
        path: what `export` wrote, with its sidecar beside it.
        images: float32 `(batch, height, width, channels)`, normalized as in training.

    Returns:
        The outputs by name, such as `{"logits": (batch, height, width, classes)}`.

    Raises:
        ValueError: if there is no such export.
        ExportError: if its runtime is not installed, or does not take these images.
    """
    path, images = Path(path), np.asarray(images, np.float32)
    if not path.exists() or not _sidecar(path).is_file():
        raise ValueError(f"{path} is not an export with its {_sidecar(path).name} beside it.")
    card = json.loads(_sidecar(path).read_text(encoding="utf8"))
    names = [output["name"] for output in card["outputs"]]
    if card["format"] == "keras":
        found = keras.saving.load_model(path, compile=False)(images, training=False)
        found = found if isinstance(found, Mapping) else {names[0]: found}
        return {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}
    if card["format"] == "onnx":
        _need("onnxruntime", "running an ONNX file")
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        try:
            found = session.run(None, {session.get_inputs()[0].name: images})
        except Exception as error:  # ONNX Runtime's errors have no common class that is public
            raise ExportError(
                f"{path}: ONNX Runtime does not accept images of shape {images.shape}: {error}"
            ) from error
        return {output.name: value for output, value in zip(session.get_outputs(), found, strict=True)}
    _need("tensorflow", "running a SavedModel")
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "images.npy", Path(folder) / "found.npz"
        np.save(given, images)
        _child(RUN_SAVED_MODEL, str(path), str(given), str(answer), doing=f"running {path.name}")
        with np.load(answer) as file:
            return dict(file)


def deviation(model: keras.Model, path: Path | str, images: np.ndarray) -> float:
    """The largest difference between an exported network and its original, over all values of all outputs.

    Args:
        model: the original.
        path: what `export` wrote of it.
        images: as for `run`.

    Returns:
        The largest absolute difference; infinite where one of the two has a number and the other has none. A detector's
        empty places, whatever stands in them, do not count.

    Raises:
        ValueError, ExportError: as `run`.
    """
    found = run(path, images)
    wanted = model(np.asarray(images, np.float32), training=False)
    if not isinstance(wanted, Mapping):
        (name,) = found
        logits = keras.ops.convert_to_numpy(wanted)
        wanted = {name: _softmax(logits) if name == "probabilities" else logits}
    wanted = {name: np.asarray(keras.ops.convert_to_numpy(value)) for name, value in wanted.items()}
    if set(found) != set(wanted):
        raise ExportError(f"{path} returns {sorted(found)}; the original model returns {sorted(wanted)}.")
    used = found["valid"] | wanted["valid"] if "valid" in found else ...
    worst = 0.0
    for name, value in wanted.items():
        if value.shape != found[name].shape:
            raise ExportError(
                f"{path} returns {name} of shape {found[name].shape}; the original model returns {value.shape}."
            )
        value, other = value[used].astype(np.float64), found[name][used].astype(np.float64)
        if value.size:
            difference = float(np.abs(value - other).max())
            worst = max(worst, difference) if np.isfinite(difference) else np.inf
    return worst


def missing_runtime(format: str) -> str | None:
    """The package that runs this format, if it is not installed here."""
    package = {"saved_model": "tensorflow", "onnx": "onnxruntime"}.get(format)
    return package if package and importlib.util.find_spec(package) is None else None


def _checked_path(path: Path, format: str) -> Path:
    suffix = SUFFIXES[one_of("format", format, SUFFIXES)]
    if suffix and path.suffix != suffix:
        raise ValueError(f"path is {path}; the name of a file for format={format!r} ends in {suffix}.")
    if not suffix and path.suffix in SUFFIXES.values() and path.suffix:
        raise ValueError(f"path is {path}; a SavedModel is a folder: give a name without {path.suffix}.")
    for taken in (path, _sidecar(path)):
        if taken.exists():
            raise ValueError(f"path is {path}; {taken} exists already: remove it or give another name.")
    return path


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _check_form(model: keras.Model) -> None:
    if isinstance(model, MaskRCNN):
        return
    inputs, outputs = (getattr(model, name, None) or [] for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 4 or len(outputs[0].shape) != 4:
        raise ValueError(
            f"model is {getattr(model, 'name', model)!r} with {len(inputs)} inputs and {len(outputs)} outputs; only "
            "networks with one image (batch, height, width, channels) in and one score map (batch, height, width, classes) "
            "out can be exported, and MaskRCNN."
        )


def _checked_size(
    model: keras.Model, size, format: str, probabilities: bool, multiple: int | None
) -> tuple[int | None, int | None]:
    """Height and width that the export takes, `None` where they are free."""
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size is {size}; it must be a height and a width in pixels, both at least 1.")
    if isinstance(model, MaskRCNN):
        if probabilities:
            raise ValueError("probabilities is given; a Mask R-CNN already returns scores: leave it out.")
        if size is None and format != "keras":
            raise ValueError(
                "size is missing; a Mask R-CNN has anchors for one image size: give height and width, such as (256, 256)."
            )
        return tuple(size or (None, None))
    own = tuple(model.input_shape[1:3])
    if size is None or format == "keras":  # Keras's file keeps the network as it was built
        return own
    if any(side is not None and side != wanted for side, wanted in zip(own, size, strict=True)):
        raise ValueError(f"size is {tuple(size)}; this network was built for {own}.")
    if multiple and any(side % multiple for side in size):
        raise ValueError(f"size is {tuple(size)}; this network takes sides that are multiples of {multiple}.")
    return tuple(size)


def multiple_of(model: keras.Model) -> int | None:
    """What the sides of an image must be a multiple of, so that the network returns a map of the image's size: 1, 2,
    4 … 64, found by trying; `None` where none of them does or the size is fixed."""
    if None not in model.input_shape[1:3]:
        return None
    for multiple in (1, 2, 4, 8, 16, 32, 64):
        sides = tuple(side or 64 + multiple for side in model.input_shape[1:3])
        try:
            found = model(np.zeros((1, *sides, model.input_shape[-1]), np.float32), training=False)
        except Exception:  # each backend has errors of its own for maps that do not fit together
            continue
        if tuple(found.shape[1:3]) == sides:
            return multiple
    return None


def _with_softmax(model: keras.Model) -> keras.Model:
    logits = model.output
    if logits.shape[-1] == 1:  # the second of two classes, as in `models.predict.softmax`
        logits = keras.ops.concatenate([keras.ops.zeros_like(logits), logits], axis=-1)
    return keras.Model(model.input, keras.layers.Softmax(name="probabilities")(logits), name=model.name)


def _softmax(logits: np.ndarray) -> np.ndarray:
    from course_lib.models.predict import softmax

    return softmax(logits)


def _card(model, path, format, recipe, thresholds, size, probabilities, multiple) -> dict[str, Any]:
    """The sidecar: everything one has to know to use the file without this library."""
    if isinstance(model, MaskRCNN):
        channels, places = model.channels, model.settings.box_detections_per_img
        side = model.settings.mask_roi_size * 2
        shapes = {"boxes": [4], "classes": [], "scores": [], "valid": []} | (
            {"masks": [side, side]} if model.mask_head is not None else {}
        )
        outputs = [
            {"name": name, "shape": [None, places, *shape], "meaning": MEANINGS[name]}
            for name, shape in shapes.items()
        ]
    else:
        channels = model.input_shape[-1]
        name = "probabilities" if probabilities else "logits"
        same = multiple is not None or tuple(model.output_shape[1:3]) == tuple(model.input_shape[1:3]) != (
            None,
            None,
        )
        sides = size if same else model.output_shape[1:3]
        classes = max(2, model.output_shape[-1]) if probabilities else model.output_shape[-1]
        outputs = [{"name": name, "shape": [None, *sides, classes], "meaning": MEANINGS[name]}]
    card = {
        "format": format,
        "file": path.name,
        "input": {
            "name": "image",
            "shape": [None, *size, channels],
            "axes": ["batch", "height", "width", "channels"],
            "dtype": "float32",
            "range": [0.0, 1.0],
            "normalization": NORMALIZATIONS[recipe.normalization] if recipe else None,
            "sides_are_multiples_of": multiple,
        },
        "outputs": outputs,
        "classes": list(recipe.class_names()) if recipe else None,
        "chosen": dict(thresholds) if thresholds is not None else None,  # the name that older programs read
        "thresholds": dict(thresholds) if thresholds is not None else None,
        "recipe": recipe.name if recipe else None,
        "digest": recipe.digest if recipe else None,
        "title": recipe.title if recipe else model.name,
        "written_by": {
            "course_lib": __version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        },
    }
    return card


def _need(package: str, doing: str) -> None:
    if importlib.util.find_spec(package) is None:
        extra = "cpu" if package == "tensorflow" else "scale"
        raise ExportError(
            f"{package} is not installed, and {doing} needs it; install the extra {extra!r}: pip install -e .[{extra}]"
        )


def _check_installed(format: str) -> None:
    if format != "keras":
        _need("tensorflow", f"writing format={format!r}")
    if format == "onnx":
        for package in ("onnx", "tf2onnx"):
            _need(package, "writing format='onnx'")


def _convert(model: keras.Model | str, path: Path | str, format: str, card: Mapping[str, Any]) -> None:
    """Write a SavedModel or an ONNX file, where Keras runs on TensorFlow. `model`: a network, or a Keras file of one."""
    if isinstance(model, str):
        model = keras.saving.load_model(model, compile=False)
    signature = [keras.InputSpec(shape=tuple(card["input"]["shape"]), dtype="float32", name="image")]
    if not isinstance(model, MaskRCNN):
        # An output in a dict keeps its name in both formats.
        model = keras.Model(model.input, {card["outputs"][0]["name"]: model.output}, name=model.name)
    try:
        with _quiet():
            model.export(
                str(path),
                format="onnx" if format == "onnx" else "tf_saved_model",
                input_signature=signature,
                verbose=False,
            )
    except Exception as error:  # what the converters raise has no common class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ExportError(f"{model.name} cannot be written with format={format!r}: {reason}") from error
    if format == "onnx":
        _label_onnx(Path(path), card)


def _label_onnx(path: Path, card: Mapping[str, Any]) -> None:
    """Names for the free axes instead of the converter's numbers, and what the sidecar says inside the file, too."""
    import onnx

    network = onnx.load(path)
    for values, axes in (
        (network.graph.input, "batch height width"),
        (network.graph.output, "batch rows columns"),
    ):
        if values is network.graph.output and card["input"]["sides_are_multiples_of"]:
            axes = "batch height width"
        for value in values:
            for dimension, axis in zip(value.type.tensor_type.shape.dim, axes.split(), strict=False):
                if not dimension.HasField("dim_value"):
                    dimension.dim_param = axis
    onnx.helper.set_model_props(network, {"course_lib": json.dumps(card, ensure_ascii=False)})
    onnx.checker.check_model(network)
    onnx.save(network, path)


def _convert_elsewhere(
    model: keras.Model, folder: Path, made: Path, format: str, card: Mapping[str, Any]
) -> None:
    """The same on any backend: a process whose Keras runs on TensorFlow reads a Keras file and writes the format."""
    source = folder / "source.keras"
    model.save(source)
    root = str(resources.PROJECT)
    _child(
        CONVERT, root, str(source), str(made), format, json.dumps(card),
        doing=f"writing {model.name} with format={format!r}",
    )  # fmt: skip


def _child(code: str, *arguments: str, doing: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        # No GPU for it: this process may hold all of the GPU's memory.
        env=os.environ
        | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"{doing} in a process of its own failed: {reason}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the converters' C++ code writes to standard error off the screen; errors are raised, not written."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
