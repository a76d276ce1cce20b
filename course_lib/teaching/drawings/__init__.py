"""Networks drawn from the live model: what is on the page is what is in memory.

A drawing is made in two steps. First a *plan* is read off the model (`read_unet`, `read_fcn`, …): the maps that matter,
with their shapes. Then the plan is drawn (`draw_unet`, `draw_fcn`, …). A U-Net's plan can also be computed from the
arguments of `unet` alone (`unet_plan`), without building the network, so that a drawing can follow a slider.

Colours never stand alone: what they say is also said by hatching, by the shape of a line, or in words.
"""

from course_lib.teaching.drawings.canvas import Level, to_pdf, to_svg
from course_lib.teaching.drawings.deeplab import DeepLabPlan, draw_deeplab, read_deeplab
from course_lib.teaching.drawings.fcn import FCNPlan, draw_fcn, read_fcn
from course_lib.teaching.drawings.mask_rcnn import MaskRCNNPlan, draw_mask_rcnn, read_mask_rcnn
from course_lib.teaching.drawings.unet import UNetPlan, draw_unet, draw_unet_here, read_unet, unet_plan

__all__ = [
    "DeepLabPlan",
    "FCNPlan",
    "Level",
    "MaskRCNNPlan",
    "UNetPlan",
    "draw_deeplab",
    "draw_fcn",
    "draw_mask_rcnn",
    "draw_unet",
    "draw_unet_here",
    "read_deeplab",
    "read_fcn",
    "read_mask_rcnn",
    "read_unet",
    "to_pdf",
    "to_svg",
    "unet_plan",
]
