"""Mask R-CNN, the network of He et al. (2017), https://arxiv.org/abs/1703.06870, in parts that can be run separately."""

from course_lib.models.mask_rcnn.fpn import fpn
from course_lib.models.mask_rcnn.heads import box_head, mask_head, rpn_head
from course_lib.models.mask_rcnn.model import MaskRCNN, published
from course_lib.models.mask_rcnn.settings import Settings
from course_lib.models.mask_rcnn.stages import LOSSES
from course_lib.models.mask_rcnn.torchvision_weights import load_torchvision

__all__ = [
    "LOSSES",
    "MaskRCNN",
    "Settings",
    "box_head",
    "fpn",
    "load_torchvision",
    "mask_head",
    "published",
    "rpn_head",
]
