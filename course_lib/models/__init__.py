"""The networks of the course, each a function that returns a `keras.Model` with logits out."""

from course_lib.models.unet import unet

__all__ = ["unet"]
