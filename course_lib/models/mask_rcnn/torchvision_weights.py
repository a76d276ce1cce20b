"""torchvision's trained weights in our layers: names, order of axes, and file formats.

torchvision keeps a dictionary, the *state dict*, from the name of a parameter (`backbone.body.conv1.weight`) to its array.
Ours differ in three ways only:

- a layer's name has `-` where torchvision's module has a dot, and Keras has its own words for what is in it (`kernel` for
  `weight`, `gamma` for the weight of a normalization);
- the axes of a kernel are ordered (height, width, in, out) instead of (out, in, height, width);
- the first dense layer after a flattened map (`fc6`) takes the map's numbers pixel by pixel, torchvision's channel by
  channel.

Read are `.safetensors` and `.npz`. torchvision's site has `.pth`, which is a pickle, so a program.
PyTorch converts it, once:

    import torch, safetensors.torch
    state = torch.load("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", map_location="cpu", weights_only=True)
    state = {name: tensor.contiguous().float() for name, tensor in state.items()}
    safetensors.torch.save_file(state, "maskrcnn_resnet50_fpn_coco.safetensors")
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors.numpy import load_file

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
    model: keras.Model, source: Mapping[str, Any] | str | Path, ignore: Sequence[str] = ()
) -> None:
    """Load torchvision's weights into a model whose layers are named after torchvision's modules.

    Args:
        model: a whole Mask R-CNN or a part of it; every layer with weights is named as torchvision's module, with `-` for
            the dots: `backbone-body-layer1-0-conv1`.
        source: a state dict (name to array), or the path of one: `.safetensors` or `.npz`.
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
            f"{len(misshapen)} misshapen (shapes as in torchvision). Build the model that they belong to, or list in "
            "`ignore` what to leave out.\n" + "\n".join(missing + extra + misshapen)
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
            f"{name} takes {array.shape[1]} numbers, which is not a feature map of {rows} × {columns}; pool the regions "
            "to that size."
        )
    channels_first = array.reshape(array.shape[0], -1, rows, columns)
    return channels_first.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def current_name(name: str) -> str:
    """The present name of a parameter in torchvision, where an older file uses an older name."""
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
                "give the layers different names (see `prefix`)."
            )
        variables[name] = variable
    return variables


def _starts(name, beginnings):
    return name.startswith(tuple(beginnings))


# Files


def read_state_dict(source: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """Names and arrays of a state dict, as torchvision names and shapes them.

    Args:
        source: a mapping, which is returned as a dict, or a path that ends in `.npz` or `.safetensors`.

    Raises:
        ValueError: if the file is of no such kind, is damaged, or holds anything but arrays by name.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    if path.suffix in (".pth", ".pt"):
        raise ValueError(
            f"source is {path.name}; it must end in .safetensors or .npz. A .pth file is a pickle, a program that only "
            "PyTorch should run: convert it once, where PyTorch is installed (see course_lib.models.mask_rcnn."
            "torchvision_weights)."
        )
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"source is {path.name}; it must end in .safetensors or .npz.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; download the weights first.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged file can fail in any way: one message for all of them
        raise ValueError(
            f"{path.name} cannot be read as weights: {error} Download the file again, or save a plain state dict."
        ) from error
