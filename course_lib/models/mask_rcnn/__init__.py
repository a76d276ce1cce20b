"""Mask R-CNN, the network of He et al. (2017), https://arxiv.org/abs/1703.06870, in pieces that each run alone."""

from course_lib.models.mask_rcnn.fpn import fpn
from course_lib.models.mask_rcnn.torchvision_weights import load_torchvision

__all__ = ["fpn", "load_torchvision"]
