"""What the widget of the receptive field computes and draws: how it grows layer by layer, and where the gradient lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from course_lib.teaching.widgets.canvas import (
    BLACK,
    BLUE,
    DARK,
    GREY,
    ORANGE,
    WHITE,
    Answer,
    Canvas,
    Plane,
    rgb,
)


@dataclass(frozen=True)
class Field:
    """What one location of a layer's map can see of the image: `size` pixels from `start + stride · location` on."""

    layer: str
    size: int
    stride: int
    start: int


def grown_fields(model) -> list[Field]:
    """The receptive fields of all convolutions and poolings of a padded encoder, up to the first layer that upsamples.

    Args:
        model: a Keras model that begins with a chain of convolutions and poolings, as a U-Net does.

    Raises:
        ValueError: if the model has none, or one without padding.
    """
    import keras

    size, stride, start, fields = 1, 1, 0, []
    for layer in model.layers:
        if isinstance(
            layer, (keras.layers.Conv2DTranspose, keras.layers.UpSampling2D, keras.layers.Concatenate)
        ):
            break
        if isinstance(layer, keras.layers.Conv2D):
            if layer.padding != "same":
                raise ValueError(
                    f"{layer.name!r} has padding {layer.padding!r}; the widget takes padded convolutions."
                )
            reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
            start -= reach // 2 * stride
        elif isinstance(layer, keras.layers.MaxPooling2D):
            reach = layer.pool_size[0] - 1
        else:
            continue
        size += reach * stride
        stride *= layer.strides[0]
        fields.append(Field(layer.name, size, stride, start))
    if not fields:
        raise ValueError(f"model: {model.name!r} begins with no convolution or pooling.")
    return fields


def gradients(model, fields: Sequence[Field], images: np.ndarray) -> list[np.ndarray]:
    """Each layer's effective receptive field in the middle of the images, `(side, side)` each; its values add up to 1."""
    from course_lib.models.analysis import effective_receptive_field

    found = []
    for field in fields:
        location = (images.shape[1] // 2 // field.stride,) * 2
        gradient = effective_receptive_field(model, images, field.layer, location)
        found.append(gradient / max(gradient.sum(), 1e-12))
    return found


def half_side(gradient: np.ndarray, field: Field) -> int:
    """Side of the smallest square around the middle of the field that holds half of the gradient."""
    low = field.start + gradient.shape[0] // 2 // field.stride * field.stride
    for cut in range((field.size - 1) // 2, -1, -1):
        inside = gradient[
            max(low + cut, 0) : low + field.size - cut, max(low + cut, 0) : low + field.size - cut
        ]
        if inside.sum() >= 0.5:
            return field.size - 2 * cut
    return field.size


def field_answer(
    image: np.ndarray,
    fields: Sequence[Field],
    effective: Mapping[str, Sequence[np.ndarray]],
    layer: str,
    network: str,
) -> Answer:
    """One layer's receptive field on an image.

    Args:
        image: `(side, side)` in 0..1; all is seen from its middle.
        fields: of all layers, in their order.
        effective: name of the network → a gradient `(side, side)` for each layer.
        layer: the name of the layer that is shown.
        network: whose gradient is laid over the image.

    Returns:
        The answer; its numbers are `size` (of the receptive field), `half` (side of the square that holds half of the
        gradient) and `halves` (of all layers).
    """
    at = [field.layer for field in fields].index(layer)
    halves = [half_side(one, field) for one, field in zip(effective[network], fields, strict=True)]
    field = fields[at]
    words = (
        f"{_plain(layer)}: one feature can depend on {field.size} × {field.size} pixels, and the next feature lies "
        f"{field.stride} pixels further. Half of the gradient of the {network} network lies within "
        f"{halves[at]} × {halves[at]} pixels."
    )
    numbers = {"size": field.size, "half": halves[at], "halves": halves}
    return Answer(numbers, words, _draw(image, fields, at, effective[network][at], halves, network))


def _draw(image, fields, at: int, gradient, halves, network: str) -> Canvas:
    canvas = Canvas(900, 440)
    side = len(image)
    plane = Plane(canvas, 15, 30, 390 / side)
    # The root, or only the very middle would show.
    heat = np.sqrt(gradient / max(gradient.max(), 1e-12))[..., None]
    shown = (1 - heat) * (0.15 + 0.7 * np.asarray(image, float)[..., None]) + heat * rgb(ORANGE)
    canvas.image(shown, (*plane.at(0, 0), *plane.at(side, side)))
    canvas.text(15, 14, "blue: receptive field    orange: gradient", 13, DARK)
    for k, field in enumerate(fields[: at + 1]):
        low = field.start + side // 2 // field.stride * field.stride
        edges = np.clip((low, low, low + field.size, low + field.size), 0, side)
        now = k == at
        plane.box(edges, edge=BLUE if now else WHITE, width=4 if now else 1)
        if now:
            cut = (field.size - halves[at]) // 2
            edges = np.clip((low + cut,) * 2 + (low + field.size - cut,) * 2, 0, side)
            plane.box(edges, edge=WHITE, width=2, dash=5)
    canvas.text(15, 430, "dashed: holds half of the gradient", 13, DARK)

    height = 390 / len(fields)
    scale = 240 / max(field.size for field in fields)
    canvas.text(585, 14, f"field, and half of the gradient ({network})", 13, DARK)
    for k, (field, half) in enumerate(zip(fields, halves, strict=True)):
        y, now = 30 + (k + 0.5) * height, k == at
        canvas.text(575, y, _plain(field.layer), 14, BLACK if k <= at else GREY, at="rm", bold=now)
        if k > at:
            continue
        canvas.box((585, y - 0.36 * height, 585 + scale * field.size, y + 0.36 * height), fill=BLUE)
        canvas.box((585, y - 0.18 * height, 585 + scale * half, y + 0.18 * height), fill=ORANGE)
        canvas.text(592 + scale * field.size, y, f"{field.size}, {half}", 14, bold=now)
    return canvas


def _plain(layer: str) -> str:
    """`encoder_1_a_conv` as words."""
    return layer.removesuffix("_conv").replace("_", " ")
