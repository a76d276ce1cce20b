"""The networks of the course, each a function that returns a `keras.Model` whose output is logits."""

from course_lib.models.deeplab import deeplab
from course_lib.models.fcn import fcn
from course_lib.models.mask_rcnn import MaskRCNN
from course_lib.models.unet import unet

__all__ = ["MaskRCNN", "deeplab", "fcn", "unet"]
