"""From a point to a mask: a small model after Segment Anything (Kirillov et al. 2023, https://arxiv.org/abs/2304.02643).

There are two parts: a heavy **image encoder** runs once per image, and a light **mask decoder** runs for every click.
So a click costs almost nothing, and the same network serves every kind of object: which one is meant is no longer a class
that was learned, but part of the input.
"""

import keras
import numpy as np
from keras import layers, ops

from course_lib.models.unet import unet


@keras.saving.register_keras_serializable(package="course_lib")
class AtPoint(layers.Layer):
    """The features at a point of each image.

    Call:
        `[features (batch, h, w, c), points (batch, k, 2)]`, points as x, y in pixels of the features, which are rounded
        down; returns `(batch, k, c)`.
    """

    def call(self, inputs):
        features, points = inputs
        height, width, channels = features.shape[1:]
        at = ops.cast(points, "int32")
        place = ops.clip(at[..., 1], 0, height - 1) * width + ops.clip(at[..., 0], 0, width - 1)
        flat = ops.reshape(features, (-1, height * width, channels))
        return ops.take_along_axis(flat, place[..., None], axis=1)

    def compute_output_shape(self, input_shape):
        features, points = input_shape
        return (*points[:2], features[-1])


@keras.saving.register_keras_serializable(package="course_lib")
class Nearness(layers.Layer):
    """How near each pixel is to a point, for each point a map: exp(−distance² / 2σ²) at three widths σ.

    Args:
        side: of the map in pixels.

    Call:
        points `(batch, k, 2)`, x and y in pixels; returns `(batch, k, side, side, 3)`.
    """

    def __init__(self, side: int, **arguments):
        super().__init__(**arguments)
        self.side = side

    def call(self, points):
        middles = np.arange(self.side, dtype=np.float32) + 0.5
        across = ops.square(middles - points[..., 0, None])[..., None, :]
        down = ops.square(middles - points[..., 1, None])[..., :, None]
        return ops.stack([ops.exp(-(across + down) / (2 * sigma**2)) for sigma in (2.0, 6.0, 18.0)], axis=-1)

    def compute_output_shape(self, points_shape):
        return (*points_shape[:2], self.side, self.side, 3)

    def get_config(self):
        return {**super().get_config(), "side": self.side}


def image_encoder(side: int = 64, filters: tuple[int, ...] = (12, 24, 48, 96)) -> keras.Model:
    """A U-Net whose last features are an embedding of each pixel: `(batch, side, side, 3)` in, `(…, filters[0])` out."""
    body = unet((side, side, 3), 1, depth=3, filters=filters, normalization="batch")
    return keras.Model(body.input, body.get_layer("decoder_1").output, name="image_encoder")


def mask_decoder(side: int = 64, channels: int = 12, points: int = 1) -> keras.Model:
    """From an image's embeddings and some points, each by itself, to the mask of the object at each point.

    Args:
        side, channels: of the embeddings.
        points: how many points are processed at once.

    Returns:
        A model, embeddings `(batch, side, side, channels)` and points `(batch, points, 2)` (x, y in pixels) in, logits
        `(batch, points, side, side)` out.
    """
    features, where = (
        keras.Input((side, side, channels), name="features"),
        keras.Input((points, 2), name="points"),
    )
    asked = AtPoint(name="at_point")([features, where])
    asked = layers.Dense(channels, name="question_b")(
        layers.Dense(2 * channels, activation="relu", name="question_a")(asked)
    )
    # How much each pixel is like the one at the point, channel by channel, and how near.
    alike = ops.expand_dims(features, 1) * ops.expand_dims(ops.expand_dims(asked, 2), 2)
    x = layers.Concatenate(name="alike_and_near")([alike, Nearness(side, name="near")(where)])
    x = ops.reshape(x, (-1, side, side, channels + 3))
    for name in ("a", "b"):
        x = layers.Conv2D(
            channels,
            3,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"mask_{name}",
        )(x)
    x = layers.Conv2D(1, 1, dtype="float32", name="mask")(x)
    return keras.Model([features, where], ops.reshape(x, (-1, points, side, side)), name="mask_decoder")


def prompted_network(
    side: int = 64, filters: tuple[int, ...] = (12, 24, 48, 96), points: int = 1
) -> keras.Model:
    """Both parts as one model, for training: `[images, points]` in, mask logits `(batch, points, side, side)` out.

    `model.get_layer("image_encoder")` and `model.get_layer("mask_decoder")` are the parts; the decoder's weights do not
    depend on the number of points.
    """
    images, where = keras.Input((side, side, 3), name="image"), keras.Input((points, 2), name="points")
    features = image_encoder(side, filters)(images)
    return keras.Model(
        [images, where], mask_decoder(side, filters[0], points)([features, where]), name="prompted"
    )
