"""The hyperparameters of a Mask R-CNN apart from its layers, under the names of torchvision's `MaskRCNN`."""

from dataclasses import dataclass, fields

from course_lib._checks import in_range, one_of, whole_number

ROI_OPS = ("align", "pool")


@dataclass(frozen=True)
class Settings:
    """The hyperparameters. The defaults are torchvision's: the papers', with later conventions (Lin et al. 2017: pyramid).

    Attributes:
        anchor_sizes: for each level of the pyramid from the finest, the side in pixels of its square anchor.
        aspect_ratios: height / width of the anchors at each location.
        rpn_fg_iou_thresh: an anchor with at least this IoU with an object is foreground; so is each object's best anchor.
        rpn_bg_iou_thresh: an anchor with less IoU with all objects is background; anchors in between are ignored.
        rpn_batch_size_per_image: anchors of each image that the RPN learns from in a step.
        rpn_positive_fraction: the largest fraction of them that may be foreground.
        rpn_pre_nms_top_n: per level, how many of the highest scored boxes go into NMS: (in training, in testing).
        rpn_post_nms_top_n: proposals of each image, of all levels together: (in training, in testing).
        rpn_nms_thresh: IoU above which the lower scored of two proposals is removed.
        box_fg_iou_thresh: a proposal with at least this IoU with an object is foreground.
        box_bg_iou_thresh: a proposal with less IoU with all objects is background; proposals in between are ignored.
        box_batch_size_per_image: proposals of each image that the heads learn from in a step.
        box_positive_fraction: the largest fraction of them that may be foreground; only these have a mask to learn.
        bbox_reg_weights: factors of the box head's dx, dy, dw, dh, which bring them to about unit variance.
        roi_op: `"align"` or `"pool"`: how the features of a region are cut out of the pyramid.
        box_roi_size: rows and columns of the region features of the box head (torchvision's `box_roi_pool.output_size`).
        mask_roi_size: those of the mask head; its masks have twice as many.
        sampling_ratio: points that RoI Align reads in each bin, along each axis.
        canonical_box_size: a box of this side in pixels is read from level P4, one half as large from P3, and so on.
        box_score_thresh: detections with a lower probability are removed.
        box_nms_thresh: IoU above which the lower scored of two detections of one class is removed.
        box_detections_per_img: the largest number of detections of an image.
        loss_weights: of the five losses, in the order of `LOSSES`.

    Raises:
        TypeError, ValueError: if a value is no number, or out of its range.
    """

    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_pre_nms_top_n: tuple[int, int] = (2000, 1000)
    rpn_post_nms_top_n: tuple[int, int] = (2000, 1000)
    rpn_nms_thresh: float = 0.7
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25
    bbox_reg_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    roi_op: str = "align"
    box_roi_size: int = 7
    mask_roi_size: int = 14
    sampling_ratio: int = 2
    canonical_box_size: float = 224.0
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    loss_weights: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)

    def __post_init__(self):
        for field in fields(self):
            if isinstance(getattr(self, field.name), list):  # a saved model's settings come back as lists
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
            if field.name.endswith(("_thresh", "_fraction")):
                in_range(field.name, getattr(self, field.name), 0, 1)
            elif isinstance(field.default, int):
                whole_number(field.name, getattr(self, field.name), 1)
        for name in ("rpn_pre_nms_top_n", "rpn_post_nms_top_n"):
            pair = getattr(self, name)
            if len(pair) != 2 or not all(isinstance(number, int) and number >= 1 for number in pair):
                raise ValueError(
                    f"{name} is {pair!r}; it must be two whole numbers, at least 1: in training and in testing."
                )
        for name in ("anchor_sizes", "aspect_ratios"):
            if not getattr(self, name) or not all(number > 0 for number in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be positive numbers.")
        for part in ("rpn", "box"):
            low, high = f"{part}_bg_iou_thresh", f"{part}_fg_iou_thresh"
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} is {getattr(self, low)}; it must not exceed {high}, {getattr(self, high)}."
                )
        one_of("roi_op", self.roi_op, ROI_OPS)
        if len(self.loss_weights) != 5:
            raise ValueError(f"loss_weights is {self.loss_weights!r}; it must be five numbers.")
