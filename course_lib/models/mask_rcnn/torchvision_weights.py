"""torchvision's trained weights in our layers: whose name is whose, in which order of axes, and out of which file.

torchvision keeps a dictionary, the *state dict*, from the name of a parameter (`backbone.body.conv1.weight`) to its array.
Ours differ in three ways only:

- a layer's name has `-` where torchvision's module has a dot, and Keras has its own words for what is in it (`kernel` for
  `weight`, `gamma` for the weight of a normalization);
- the axes of a kernel are ordered (height, width, in, out) instead of (out, in, height, width);
- the first dense layer after a flattened map (`fc6`) takes the map's numbers pixel by pixel, torchvision's channel by
  channel.

The files are read here in plain Python: neither PyTorch nor safetensors is needed, and nothing in a file is executed.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import keras
import numpy as np

WORDS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Keras's name of a variable to PyTorch's."""

FLATTENED = {"roi_heads.box_head.fc6": (7, 7), "roi_heads.box_head.5": (7, 7)}
"""Dense layers whose input is a flattened map, and the map's rows and columns: in the weights of 2019, and of 2022."""

OLD_NAMES = (
    (re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)"), r"\1.0.\2"),
    (re.compile(r"rpn\.head\.conv\.(weight|bias)"), r"rpn.head.conv.0.0.\1"),
    *(
        (
            re.compile(rf"roi_heads\.mask_head\.mask_fcn{k + 1}\.(weight|bias)"),
            rf"roi_heads.mask_head.{k}.0.\1",
        )
        for k in range(4)
    ),
)
"""Names in files of torchvision before 0.12, the published ones of 2019 among them, and what they are called now."""


def load_torchvision(
    model: keras.Model,
    source: Mapping[str, Any] | str | Path,
    ignore: Sequence[str] = (),
) -> None:
    """Put torchvision's weights into a model whose layers are named after torchvision's modules.

    Args:
        model: a whole Mask R-CNN or a part of it; every layer with weights is named as torchvision's module, with `-` for
            the dots: `backbone-body-layer1-0-conv1`.
        source: a state dict (name to array), or the path of one: `.npz`, `.safetensors`, `.pth` or `.pt`.
        ignore: beginnings of torchvision's names that are neither wanted nor taken: `("roi_heads.mask",)` for a model
            without mask head, `("roi_heads.box_predictor", "roi_heads.mask_predictor")` for one of other classes.

    Raises:
        ValueError: if names are missing, extra or have another shape, all of which are listed, or if the file cannot be
            read. The model is left as it was.
        FileNotFoundError: if there is no such file.
    """
    state = {current_name(name): array for name, array in read_state_dict(source).items()}
    variables = _variables(model)
    wanted = {name: shape for name, shape in torchvision_shapes(model).items() if not _starts(name, ignore)}
    # Batch normalization in PyTorch counts its batches; nothing depends on it.
    given = {
        name: array
        for name, array in state.items()
        if not _starts(name, ignore) and not name.endswith(".num_batches_tracked")
    }

    missing = [f"missing: {name} {wanted[name]}" for name in sorted(wanted.keys() - given.keys())]
    extra = [f"extra: {name} {tuple(np.shape(given[name]))}" for name in sorted(given.keys() - wanted.keys())]
    misshapen = [
        f"misshapen: {name} is {tuple(np.shape(given[name]))}, the model's {wanted[name]}"
        for name in sorted(wanted.keys() & given.keys())
        if tuple(np.shape(given[name])) != wanted[name]
    ]
    if missing or extra or misshapen:
        raise ValueError(
            f"These weights do not fit the model {model.name}: {len(missing)} names missing, {len(extra)} extra, "
            f"{len(misshapen)} misshapen (shapes as in torchvision). Build the model that they belong to, or name what "
            "shall be left out in `ignore`.\n" + "\n".join(missing + extra + misshapen)
        )
    arrays = {name: to_keras(name, np.asarray(given[name])) for name in wanted}
    for name, array in arrays.items():
        variables[name].assign(array)


def torchvision_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """torchvision's name and shape of each weight of a model, in the model's order.

    Raises:
        ValueError: if two of the model's variables would have the same name.
    """

    def shape(variable):
        if len(variable.shape) < 2:
            return tuple(variable.shape)
        *sides, incoming, outgoing = variable.shape
        return (outgoing, incoming, *sides)

    return {name: shape(variable) for name, variable in _variables(model).items()}


def to_keras(name: str, array: np.ndarray) -> np.ndarray:
    """An array of torchvision's in our order of axes, float32.

    Args:
        name: torchvision's name, which tells a dense layer after a flattened map.
        array: a kernel `(out, in, height, width)` or `(out, in)`, a transposed convolution's `(in, out, height, width)`, or
            a vector.

    Raises:
        ValueError: if what should be a flattened map is none.
    """
    array = array.astype(np.float32, copy=False)
    if array.ndim == 4:
        # Keras keeps the kernel of a transposed convolution as (height, width, out, in): one rule serves both.
        return array.transpose(2, 3, 1, 0)
    if array.ndim != 2:
        return array
    rows, columns = FLATTENED.get(name.removesuffix(".weight"), (1, 1))
    if array.shape[1] % (rows * columns):
        raise ValueError(
            f"{name} takes {array.shape[1]} numbers, which are no map of {rows} × {columns}; pool the regions to that size."
        )
    channels_first = array.reshape(array.shape[0], -1, rows, columns)
    return channels_first.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def current_name(name: str) -> str:
    """What torchvision calls a parameter today, where an older file has an older name."""
    for pattern, today in OLD_NAMES:
        if pattern.fullmatch(name):
            return pattern.sub(today, name)
    return name


def _variables(model):
    """The model's weights by torchvision's name."""
    variables = {}
    for variable in model.weights:
        layer, word = variable.path.split("/")[-2:]
        name = f"{layer.replace('-', '.')}.{WORDS.get(word, word)}"
        if name in variables:
            raise ValueError(
                f"model has two variables for torchvision's {name}: {variables[name].path} and {variable.path}; "
                "give the layers names of their own (see `prefix`)."
            )
        variables[name] = variable
    return variables


def _starts(name, beginnings):
    return name.startswith(tuple(beginnings))


# Files


def read_state_dict(source: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """Names and arrays of a state dict, as torchvision names and shapes them.

    Args:
        source: a mapping, which is returned as a dict, or a path that ends in `.npz`, `.safetensors`, `.pth` or `.pt`.

    Raises:
        ValueError: if the file is of no such kind, is damaged, or holds anything but arrays by name.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors, ".pth": _read_pth, ".pt": _read_pth}
    if path.suffix not in readers:
        raise ValueError(f"source is {path.name}; a file of weights ends in {', '.join(readers)}.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; download the weights first.")
    try:
        with open(path, "rb") as file:
            return readers[path.suffix](file, path.stat().st_size)
    except Exception as error:  # a damaged file can fail in any way: one message for all of them
        raise ValueError(
            f"{path.name} cannot be read as weights: {error} Get the file again, or save a plain state dict."
        ) from error


def _read_npz(file, size):
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bfloat16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
"""Types in a safetensors file."""

STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""Types in PyTorch's file."""


def _bytes_of(dtype):
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _decode(raw, dtype):
    """Bytes as a vector; bfloat16, which NumPy does not have, as float32, whose upper half it is."""
    if dtype == "bfloat16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, dtype)


def _read_safetensors(file, size):
    """8 bytes: the length of the header; the header, in JSON: type, shape and place of each array; the arrays."""
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise ValueError(f"its header claims {length} bytes of a file of {size}.")
    header = json.loads(file.read(length))
    data = file.read()
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{name} has the type {entry['dtype']}, which is not read here.")
        dtype, shape, (start, stop) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
        if not 0 <= start <= stop <= len(data) or stop - start != math.prod(shape) * _bytes_of(dtype):
            raise ValueError(f"{name}, of shape {shape}, does not lie where the header says.")
        arrays[name] = _decode(data[start:stop], dtype).reshape(shape)
    return arrays


def _read_pth(file, size):
    """PyTorch's file: a pickle of names and views, and the numbers beside it, in a zip (or, before 2020, behind it)."""
    if file.read(4) == b"PK\x03\x04":
        return _read_zip(file)
    return _read_legacy(file, size)


def _read_zip(file):
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive without PyTorch's data.pkl.")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("its bytes are in big-endian order.")
        views = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()

        def numbers(storage):
            info = archive.getinfo(f"{folder}data/{storage.key}")
            # PyTorch stores and does not compress; a small file cannot claim to be a huge one.
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{info.filename} is compressed.")
            return archive.read(info)

        return _arrays(views, numbers)


LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The number with which PyTorch's older files begin."""


def _read_legacy(file: BinaryIO, size: int):
    """Five pickles (magic number, version, the machine, the state dict, the keys), then each key's count and numbers."""
    file.seek(0)
    if _Unpickler(file).load() != LEGACY_MAGIC:
        raise ValueError("it is no file of PyTorch's.")
    version, machine = _Unpickler(file).load(), _Unpickler(file).load()
    if version != 1001 or not machine["little_endian"]:
        raise ValueError(f"it has version {version} or its bytes are in big-endian order.")
    views = _Unpickler(file).load()
    if not isinstance(views, dict):
        raise ValueError("it holds no names.")
    dtypes = {view.storage.key: view.storage.dtype for view in views.values() if isinstance(view, _View)}
    content = {}
    for key in _Unpickler(file).load():
        count = file.read(8)
        length = int.from_bytes(count, "little") * _bytes_of(dtypes[key])
        if len(count) < 8 or length > size - file.tell():
            raise ValueError("it ends too early.")
        content[key] = file.read(length)
    return _arrays(views, lambda storage: content[storage.key])


class _Storage(NamedTuple):
    """Numbers in a row somewhere in the file."""

    dtype: str
    key: str
    count: int


class _View(NamedTuple):
    """An array as a view of a storage, its sizes and steps counted in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Reads the few things that a state dict is pickled of.

    A pickle can name any function of any module and have it called. This one knows three names; whatever else is asked
    for is refused before anything happens.
    """

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._view
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise ValueError(f"it asks for {module}.{name}, which a state dict does not need.")

    def persistent_load(self, pid):
        kind, dtype, key, _location, count, *part = pid
        if kind != "storage" or dtype not in STORAGES.values() or any(part):
            raise ValueError(f"it refers to {pid!r}, which is no storage of numbers.")
        return _Storage(dtype, key, count)

    def _view(self, storage, offset, shape, strides, *_of_training):
        return _View(storage, offset, tuple(shape), tuple(strides))


def _arrays(views, numbers):
    """The arrays of a state dict; `numbers` gives the bytes of a storage."""
    if not isinstance(views, dict) or not all(
        isinstance(name, str) and isinstance(view, _View) for name, view in views.items()
    ):
        names = ", ".join(map(repr, list(views)[:5])) if isinstance(views, dict) else type(views).__name__
        raise ValueError(f"it holds {names}, not arrays by name alone.")
    decoded = {}
    arrays = {}
    for name, (storage, offset, shape, strides) in views.items():
        if storage not in decoded:
            decoded[storage] = _decode(numbers(storage), storage.dtype)
        vector = decoded[storage]
        count = math.prod(shape)
        last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        if len(vector) != storage.count or min(offset, *shape, *strides, 0) < 0 or count > len(vector):
            raise ValueError(f"{name}, of shape {shape}, does not lie in its storage.")
        if count and last >= len(vector):
            raise ValueError(f"{name}, of shape {shape}, does not lie in its storage.")
        steps = [stride * vector.itemsize for stride in strides]
        arrays[name] = np.lib.stride_tricks.as_strided(vector[offset:], shape, steps).copy()
    return arrays
