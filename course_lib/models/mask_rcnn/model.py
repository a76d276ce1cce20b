"""Mask R-CNN of He et al. (2017), https://arxiv.org/abs/1703.06870, with the feature pyramid of Lin et al. (2017).

Five parts, each a model of its own that can be called alone:

    body          a ResNet: the picture to four maps of features
    neck          the pyramid: those to five maps of equal depth
    rpn           on every map: which anchors are objects, and how they must move
    boxes         on every region that was proposed: its class, and how it must move
    masks         on every region: which pixels belong to the object

Between them stand the functions of `stages.py`. Read `features`, then `detect` and `losses`: that is the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from keras import ops

from course_lib.models.backbone import IMAGENET_MEAN, IMAGENET_STD, resnet50, small_resnet
from course_lib.models.mask_rcnn import stages
from course_lib.models.mask_rcnn.fpn import fpn
from course_lib.models.mask_rcnn.heads import box_head, mask_head, rpn_head
from course_lib.models.mask_rcnn.optimizer import finite_steps
from course_lib.models.mask_rcnn.settings import Settings
from course_lib.models.mask_rcnn.torchvision_weights import load_torchvision
from course_lib.ops.anchors import pyramid_anchors

BACKBONES = {"resnet50": resnet50, "small": small_resnet}


@keras.saving.register_keras_serializable(package="course_lib")
class MaskRCNN(keras.Model):
    """Finds objects, and for each its class, its box and its mask.

        >>> model = MaskRCNN(num_classes=7, backbone="small", filters=64, box_units=256, mask_filters=64)
        >>> model.compile(optimizer="adam")
        >>> model.fit(batches)                  # (images, truth), see below; five losses in the progress bar
        >>> found = model.predict(images)       # boxes, classes, scores, valid, masks

    Args:
        num_classes: classes, background (class 0) included.
        channels: of the pictures, 1 or 3.
        backbone: `"resnet50"` or `"small"` (see `models.backbone`).
        backbone_arguments: for the backbone's builder: `normalization`, `epsilon`, `widths`, `blocks`, `stem_stride`.
        filters: channels of the pyramid's maps.
        pyramid_normalization: see `fpn`.
        rpn_convolutions: see `rpn_head`.
        box_units, box_convolutions: see `box_head`.
        mask_head: without one it is Faster R-CNN (Ren et al. 2015): boxes and classes, no masks.
        mask_filters, mask_convolutions: see `mask_head`.
        head_normalization: after the convolutions of the box and the mask head; see `models.backbone`.
        mean, std: of each channel of the pictures, to see them around 0; one number for all, or one each. By default those
            of ImageNet for three channels, and 0.5 and 0.25 for others.
        settings: a `Settings`, or a dict of those that are not at their default.
        seed: of the chance by which anchors and regions are chosen while training.
        name: of the model.

    Call:
        Pictures float32 `(batch, height, width, channels)` in 0..1, of any one size. With `training=True` it returns what
        `features` does, from which the losses are computed; otherwise what `detect` does. The sizes are fixed when it is
        compiled, and nothing in it depends on how many objects there are: one size of picture, one compilation.

    Fit:
        Batches of `(pictures, truth)`; `stages.py` says what the truth is, `datasets.detection` makes such batches. The
        validation losses use the same anchors and regions each time.

    Raises:
        ValueError: for an argument that is none of the above.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 3,
        backbone: str = "resnet50",
        backbone_arguments: Mapping[str, Any] | None = None,
        filters: int = 256,
        pyramid_normalization: str | None = None,
        rpn_convolutions: int = 1,
        box_units: int = 1024,
        box_convolutions: int = 0,
        mask_head: bool = True,
        mask_filters: int = 256,
        mask_convolutions: int = 4,
        head_normalization: str | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
        seed: int = 0,
        name: str = "mask_rcnn",
        **arguments,
    ):
        super().__init__(name=name, **arguments)
        if not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(
                f"num_classes is {num_classes!r}; it counts the background too, so it is at least 2."
            )
        if backbone not in BACKBONES:
            raise ValueError(
                f"backbone is {backbone!r}; it must be one of {', '.join(map(repr, BACKBONES))}."
            )
        if not isinstance(settings, Settings):
            settings = Settings(**(settings or {}))
        self.settings, self.num_classes, self.channels = settings, num_classes, channels
        self._arguments = {
            "num_classes": num_classes,
            "channels": channels,
            "backbone": backbone,
            "backbone_arguments": dict(backbone_arguments or {}),
            "filters": filters,
            "pyramid_normalization": pyramid_normalization,
            "rpn_convolutions": rpn_convolutions,
            "box_units": box_units,
            "box_convolutions": box_convolutions,
            "mask_head": mask_head,
            "mask_filters": mask_filters,
            "mask_convolutions": mask_convolutions,
            "head_normalization": head_normalization,
            "mean": mean,
            "std": std,
            "settings": asdict(settings),
            "seed": seed,
        }
        self.mean = _per_channel("mean", mean, channels, IMAGENET_MEAN, 0.5)
        self.std = _per_channel("std", std, channels, IMAGENET_STD, 0.25)

        self.body = BACKBONES[backbone](
            (None, None, channels), prefix="backbone-body-", name="body", **self._arguments["backbone_arguments"]
        )  # fmt: skip
        self.neck = fpn(
            [features.shape[-1] for features in self.body.outputs],
            filters,
            pyramid_normalization,
            prefix="backbone-fpn-",
            name="neck",
        )
        if len(settings.anchor_sizes) != len(self.neck.outputs):
            raise ValueError(
                f"anchor_sizes has {len(settings.anchor_sizes)} sizes; the pyramid has {len(self.neck.outputs)} levels."
            )
        # From the network and not from the sizes of its maps, which are rounded up where a stride does not divide a side.
        finest = self._arguments["backbone_arguments"].get("stem_stride", 4)
        self.strides = tuple(finest * 2**level for level in range(len(self.neck.outputs)))
        self.rpn = rpn_head(
            filters, len(settings.aspect_ratios), rpn_convolutions, prefix="rpn-head-", name="rpn"
        )
        self.boxes = box_head(
            num_classes, filters, settings.box_size, box_units, box_convolutions, head_normalization,
            prefix="roi_heads-", name="boxes",
        )  # fmt: skip
        self.masks = None
        if mask_head:
            self.masks = _mask_head(
                num_classes, filters, settings.mask_size, mask_filters, mask_convolutions, head_normalization,
                prefix="roi_heads-", name="masks",
            )  # fmt: skip
        self.chance = keras.random.SeedGenerator(seed)
        self.loss_names = stages.LOSSES if mask_head else stages.LOSSES[:-1]
        self.trackers = [keras.metrics.Mean(name=name) for name in self.loss_names]
        self.built = True

    # The network

    def call(self, images, training=None):
        features = self.features(images, training)
        if training:
            return features
        return self.detect(features, tuple(images.shape[1:3]), training)

    def features(self, images, training=None) -> dict[str, list]:
        """What is computed of the whole picture.

        Args:
            images: `(batch, height, width, channels)`, 0..1.
            training: whether normalizations are.

        Returns:
            `pyramid`, the maps P2 to P5 and the pooled one, and the RPN's answers for each of them: `objectness` logits
            `(batch, rows, columns, k)` and `deltas` `(batch, rows, columns, 4 · k)`.
        """
        images = ops.convert_to_tensor(images)
        if len(images.shape) != 4 or None in images.shape[1:3] or images.shape[3] != self.channels:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; give (batch, height, width, {self.channels}), "
                "of a height and width known beforehand."
            )
        images = (ops.cast(images, "float32") - self.mean) / self.std
        pyramid = self.neck(self.body(images, training=training), training=training)
        answers = [self.rpn(level, training=training) for level in pyramid]
        return {
            "pyramid": list(pyramid),
            "objectness": [answer[0] for answer in answers],
            "deltas": [answer[1] for answer in answers],
        }

    def anchors(self, image_size: tuple[int, int], features: Mapping[str, list]) -> list[np.ndarray]:
        """The anchors of each level for pictures of this height and width, `(rows · columns · k, 4)`."""
        sizes, settings = [tuple(level.shape[1:3]) for level in features["pyramid"]], self.settings
        # torchvision pads pictures to multiples of 32 and divides their sides by the maps', rounded down. On such sides its
        # weights and numbers want the same: a map of stride 64 has 2 rows for 96, and its anchors stand 48 apart.
        strides = self.strides if any(side % 32 for side in image_size) else None
        return pyramid_anchors(image_size, sizes, settings.anchor_sizes, settings.aspect_ratios, strides)

    def propose(self, features: Mapping[str, list], image_size: tuple[int, int], training: bool = False):
        """Proposals: boxes `(batch, n, 4)`, logits `(batch, n)`, valid `(batch, n)`; see `stages.propose`."""
        number = 0 if training else 1
        return stages.propose(
            features["objectness"], features["deltas"], self.anchors(image_size, features), image_size,
            self.settings.candidates[number], self.settings.proposals[number], self.settings.proposal_nms,
        )  # fmt: skip

    def look_at(self, features: Mapping[str, list], boxes, image_size: tuple[int, int], training=None):
        """The box head on boxes `(batch, n, 4)`: logits `(batch, n, classes)` and deltas `(batch, n, 4 · classes)`."""
        regions = self.regions(features, boxes, image_size, self.settings.box_size)
        logits, deltas = self.boxes(_merge(regions), training=training)
        return _split(logits, boxes), _split(deltas, boxes)

    def outline(self, features: Mapping[str, list], boxes, image_size: tuple[int, int], training=None):
        """The mask head's answers for boxes `(batch, n, 4)`: logits `(batch, n, m, m, classes)`."""
        regions = self.regions(features, boxes, image_size, self.settings.mask_size)
        return _split(self.masks(_merge(regions), training=training), boxes)

    def regions(self, features: Mapping[str, list], boxes, image_size: tuple[int, int], size: int):
        """The features under boxes `(batch, n, 4)`, cut out to `(batch, n, size, size, channels)`."""
        levels = features["pyramid"][:-1]  # the last is for the largest anchors alone
        return stages.read_regions(levels, boxes, self.strides[: len(levels)], size, self.settings)

    def detect(
        self, features: Mapping[str, list], image_size: tuple[int, int], training=None, trim: bool = False
    ) -> dict:
        """The answer: what is in the pictures.

        Args:
            features: what `features` returns.
            image_size: height and width of the pictures.
            training: whether normalizations are.
            trim: leave off places that are empty in all pictures, so that the heads work on what is there: a picture
                with 30 nuclei is no work for 400. Not within a compiled function: the shapes depend on the picture.

        Returns:
            For `settings.detections` places in each picture, the highest scored first: `boxes` `(batch, n, 4)`, `classes`
            int32 `(batch, n)`, `scores` `(batch, n)` in 0..1, `valid` bool `(batch, n)`, and with a mask head `masks`, the
            probabilities `(batch, n, m, m)` within each box (`ops.masks.whole_image_masks` pastes them into the picture).
        """
        proposals, _, valid = self.propose(features, image_size)
        if trim:
            proposals, valid = _trimmed(valid, proposals, valid)
        logits, deltas = self.look_at(features, proposals, image_size, training)
        boxes, classes, scores, valid = stages.choose_detections(
            logits, deltas, proposals, valid, image_size, self.settings
        )
        if trim:
            boxes, classes, scores, valid = _trimmed(valid, boxes, classes, scores, valid)
        found = {"boxes": boxes, "classes": classes, "scores": scores, "valid": valid}
        if self.masks is not None:
            logits = self.outline(features, boxes, image_size, training)
            found["masks"] = stages.masks_of_classes(logits, classes)
        return found

    def losses_of(
        self,
        features: Mapping[str, list],
        truth: Mapping[str, Any],
        image_size: tuple[int, int],
        training: bool = True,
    ) -> dict[str, Any]:
        """The five losses (four without mask head), unweighted scalars by the names of `stages.LOSSES`."""
        settings, anchors = self.settings, self.anchors(image_size, features)
        values = list(
            stages.rpn_losses(
                features["objectness"], features["deltas"], anchors, truth, settings,
                self._random(sum(map(len, anchors)), training),
            )
        )  # fmt: skip
        proposals, _, valid = self.propose(features, image_size, training)
        rows = proposals.shape[1] + truth["boxes"].shape[1]
        regions = stages.choose_regions(proposals, valid, truth, settings, self._random(rows, training))
        boxes, objects, positive, negative = regions
        logits, deltas = self.look_at(features, boxes, image_size, training)
        values += stages.box_losses(logits, deltas, boxes, objects, positive, negative, truth, settings)
        if self.masks is not None:
            # Objects come first, so only the first places can have a mask.
            few = min(boxes.shape[1], max(1, int(settings.roi_samples * settings.roi_positive)))
            boxes, objects, positive = boxes[:, :few], objects[:, :few], positive[:, :few]
            logits = self.outline(features, boxes, image_size, training)
            values.append(stages.mask_loss(logits, boxes, objects, positive, truth))
        return dict(zip(self.loss_names, values, strict=True))

    def _random(self, rows: int, training: bool):
        """Chance while training; the same numbers each time for the validation losses."""
        return self.chance if training else np.random.default_rng(0).random(rows).astype(np.float32)

    # What Keras calls

    def compile(self, optimizer="adam", **arguments):
        """As Keras's, but no step whose gradient is not finite reaches the weights: it is left out (see `optimizer.py`).

        The losses are the network's own; none is to be given.
        """
        super().compile(optimizer=finite_steps(optimizer, self.compute_dtype == "float16"), **arguments)

    def compile_from_config(self, config):
        """For `load`: Keras leaves a model with a `compile` of its own uncompiled, unless it says how."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The weighted sum of the losses; it also keeps their means for the progress bar."""
        if not isinstance(y, Mapping) or not {"boxes", "classes"} <= set(y):
            raise ValueError(
                "fit and evaluate want batches (images, truth), truth a dict of boxes, classes and masks."
            )
        if self.masks is not None and "masks" not in y:
            raise ValueError("the truth has no masks; give them, or build the model with mask_head=False.")
        # In validation Keras asks for detections, which no loss is made of; they are then never computed.
        features = y_pred if "pyramid" in y_pred else self.features(x, training=False)
        values = self.losses_of(features, y, tuple(x.shape[1:3]), training)
        total = 0.0
        batch = ops.shape(x)[0]
        # Four losses without a mask head, five weights all the same.
        for tracker, weight in zip(self.trackers, self.settings.loss_weights, strict=False):
            value = values[tracker.name]
            tracker.update_state(value, sample_weight=ops.cast(batch, "float32"))
            total = total + weight * value
        return total

    def load_torchvision(self, source: Mapping[str, Any] | str, ignore: Sequence[str] = ()) -> None:
        """Put torchvision's weights into this network; see `torchvision_weights.load_torchvision`.

        `published("COCO_V1")` and `published("COCO_V2")` build the two networks whose weights torchvision publishes.
        """
        if self.masks is None:
            ignore = (*ignore, "roi_heads.mask")
        load_torchvision(self, source, ignore)

    def get_config(self):
        return {**super().get_config(), **self._arguments}


PUBLISHED = {
    "COCO_V1": {"backbone_arguments": {"normalization": "frozen_batch", "epsilon": 0.0}},
    "COCO_V2": {
        "backbone_arguments": {"normalization": "batch"},
        "pyramid_normalization": "batch",
        "rpn_convolutions": 2,
        "box_convolutions": 4,
        "head_normalization": "batch",
    },
}
"""How torchvision's two sets of weights for COCO differ: `MaskRCNN_ResNet50_FPN_Weights` and `…_V2_Weights`."""


def published(weights: str = "COCO_V1", **arguments) -> MaskRCNN:
    """The network that torchvision's published weights belong to, untrained: 91 classes (COCO's ids, 0 = background).

        >>> model = published("COCO_V1")
        >>> model.load_torchvision("maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth")     # a file from torchvision's site

    Args:
        weights: `"COCO_V1"` (2019) or `"COCO_V2"` (2022).
        **arguments: for `MaskRCNN`, where they shall differ.

    Raises:
        ValueError: for another name.
    """
    if weights not in PUBLISHED:
        raise ValueError(f"weights is {weights!r}; it must be one of {', '.join(map(repr, PUBLISHED))}.")
    return MaskRCNN(**{"num_classes": 91, **PUBLISHED[weights], **arguments})


_mask_head = mask_head  # inside the class the name is an argument's


def _trimmed(valid, *values):
    """The first places of each value: 32, 64, 128 …, so that few shapes occur, and enough for the fullest picture."""
    most = int(ops.max(ops.sum(ops.cast(valid, "int32"), axis=1)))
    places = 32
    while places < most:
        places *= 2
    return [value[:, :places] for value in values]


def _merge(regions):
    """`(batch, n, …)` to `(batch · n, …)`: a head sees one region at a time."""
    return ops.reshape(regions, (-1, *regions.shape[2:]))


def _split(values, boxes):
    """And back: `(batch, n, …)`, n as of the boxes `(batch, n, 4)`."""
    return ops.reshape(values, (-1, boxes.shape[1], *values.shape[1:]))


def _per_channel(name, value, channels, imagenet, otherwise) -> np.ndarray:
    if value is None:
        value = imagenet if channels == 3 else otherwise
    array = np.asarray(value, np.float32)
    if array.shape not in ((), (channels,)):
        raise ValueError(f"{name} is {value!r}; give one number, or one for each of the {channels} channels.")
    return array
