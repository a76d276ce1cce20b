"""What one can set on a Mask R-CNN, apart from the layers: where it looks, what it learns from, what it answers."""

from __future__ import annotations

from dataclasses import dataclass

ROI_READERS = ("align", "pool")


@dataclass(frozen=True)
class Settings:
    """The defaults are torchvision's, which are the papers' with later habits (Lin et al. 2017 for the pyramid).

    Attributes:
        anchor_sizes: for each level of the pyramid from the finest, the side in pixels of its square anchor.
        aspect_ratios: height / width of the anchors at each position.
        anchor_high: an anchor with at least this IoU with an object answers for it; so does each object's best anchor.
        anchor_low: an anchor with less IoU with all objects is background; in between it isn't learned from.
        anchor_samples: anchors of each picture that the RPN learns from in a step.
        anchor_positive: the largest share of them that may be objects.
        candidates: per level, how many of the highest scored boxes go into NMS: while training, and else.
        proposals: how many the RPN proposes for each picture, of all levels together: while training, and else.
        proposal_nms: IoU above which the lower scored of two proposals goes.
        roi_iou: a proposal with at least this IoU with an object answers for it; the others are background.
        roi_samples: proposals of each picture that the heads learn from in a step.
        roi_positive: the largest share of them that may be objects; only these have a mask to learn.
        box_weights: by which the box head's dx, dy, dw, dh are multiplied, to bring them to about unit variance.
        roi_reader: `"align"` or `"pool"`: how a region is cut out of the pyramid.
        box_size: rows and columns of the regions that the box head sees.
        mask_size: of those that the mask head sees; its masks have twice as many.
        sampling_ratio: points that RoI Align reads in each cell, along each axis.
        canonical_size: a box of this side in pixels is read from level P4, one half as large from P3, and so on.
        score_threshold: detections with a lower probability are left out.
        detection_nms: IoU above which the lower scored of two detections of one class goes.
        detections: how many a picture may have at most.
        loss_weights: of the five losses, in the order of `LOSSES`.
    """

    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_high: float = 0.7
    anchor_low: float = 0.3
    anchor_samples: int = 256
    anchor_positive: float = 0.5
    candidates: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (2000, 1000)
    proposal_nms: float = 0.7
    roi_iou: float = 0.5
    roi_samples: int = 512
    roi_positive: float = 0.25
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    roi_reader: str = "align"
    box_size: int = 7
    mask_size: int = 14
    sampling_ratio: int = 2
    canonical_size: float = 224.0
    score_threshold: float = 0.05
    detection_nms: float = 0.5
    detections: int = 100
    loss_weights: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)

    def __post_init__(self):
        for name, kind in self.__dataclass_fields__.items():
            if kind.type.startswith("tuple"):  # a saved model's settings come back as lists
                object.__setattr__(self, name, tuple(getattr(self, name)))
        shares = "anchor_high anchor_low anchor_positive proposal_nms roi_iou roi_positive score_threshold detection_nms"
        for name in shares.split():
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must lie in 0..1.")
        for name in (
            "anchor_samples",
            "roi_samples",
            "box_size",
            "mask_size",
            "sampling_ratio",
            "detections",
        ):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a whole number, at least 1.")
        for name in ("candidates", "proposals"):
            pair = getattr(self, name)
            if len(pair) != 2 or not all(isinstance(number, int) and number >= 1 for number in pair):
                raise ValueError(f"{name} is {pair!r}; give two whole numbers: while training, and else.")
        for name in ("anchor_sizes", "aspect_ratios"):
            row = getattr(self, name)
            if not row or not all(number > 0 for number in row):
                raise ValueError(f"{name} is {row!r}; give positive numbers.")
        if self.anchor_low > self.anchor_high:
            raise ValueError(f"anchor_low is {self.anchor_low}, above anchor_high, {self.anchor_high}.")
        if self.roi_reader not in ROI_READERS:
            raise ValueError(f"roi_reader is {self.roi_reader!r}; it must be 'align' or 'pool'.")
        if len(self.loss_weights) != 5:
            raise ValueError(f"loss_weights is {self.loss_weights!r}; give five numbers.")
