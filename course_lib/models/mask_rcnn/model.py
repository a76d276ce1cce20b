"""Mask R-CNN of He et al. (2017), https://arxiv.org/abs/1703.06870, with the feature pyramid of Lin et al. (2017).

Five parts, each a model of its own that can be called alone. They bear torchvision's names:

    backbone      a ResNet: from the image to four feature maps
    fpn           the feature pyramid: from those to five maps of equal depth
    rpn_head      on every map: which anchors are objects, and how to move them
    box_head      on every proposal: its class, and how to move it
    mask_head     on every detection: which pixels belong to the object

Between them stand the functions of `stages.py`. Read `features`, then `detect` and `compute_losses`: that is the whole
network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from course_lib._checks import one_of
from course_lib.models.arguments import plain_arguments
from course_lib.models.backbone import IMAGENET_MEAN, IMAGENET_STD, resnet50, small_resnet
from course_lib.models.encoders import features_by_stride
from course_lib.models.mask_rcnn import stages
from course_lib.models.mask_rcnn.fpn import fpn
from course_lib.models.mask_rcnn.heads import box_head, mask_head, rpn_head
from course_lib.models.mask_rcnn.optimizer import FiniteMean, finite_steps
from course_lib.models.mask_rcnn.settings import Settings
from course_lib.models.mask_rcnn.torchvision_weights import load_torchvision
from course_lib.ops.anchors import pyramid_anchors

BACKBONES = {"resnet50": resnet50, "small": small_resnet}
ENCODER_STRIDES = (4, 8, 16, 32)
"""Of an encoder's feature maps, those that the pyramid is built on: C2 to C5."""


@keras.saving.register_keras_serializable(package="course_lib")
class MaskRCNN(keras.Model):
    """Finds objects, and for each its class, its bounding box and its mask.

        >>> model = MaskRCNN(num_classes=7, backbone="small", filters=64, box_units=256, mask_filters=64)
        >>> model.compile(optimizer="adam")
        >>> model.fit(batches)                      # (images, targets), see below; five losses in the progress bar
        >>> predictions = model.predict(images)     # boxes, classes, scores, valid, masks

    Args:
        num_classes: classes, background (class 0) included.
        channels: of the images, 1 or 3.
        backbone: `"resnet50"` or `"small"` (see `models.backbone`).
        backbone_arguments: for the backbone's builder: `normalization`, `epsilon`, `widths`, `blocks`, `stem_stride`.
        filters: channels of the pyramid's maps.
        pyramid_normalization: see `fpn`.
        rpn_convolutions: see `rpn_head`.
        box_units, box_convolutions: see `box_head`.
        with_mask: without the mask head it is Faster R-CNN (Ren et al. 2015): boxes and classes, no masks.
        mask_filters, mask_convolutions: see `mask_head`.
        head_normalization: after the convolutions of the box and the mask head; see `models.backbone`.
        mean, std: of each channel of the images, which are normalized by them; one number for all, or one each. By default
            those of ImageNet for three channels, and 0.5 and 0.25 for others. An encoder scales images by itself.
        settings: a `Settings`, or a dict of those that are not at their default.
        encoder: in place of the backbone, a classifier of `keras.applications` (see `models.encoders`), such as
            `"efficientnetv2b0"`: the layer `"encoder"`, which `model.get_layer("encoder").trainable = False` freezes.
            Images are filled up with black, at the bottom and on the right, to a multiple of 32 pixels.
        weights: of that encoder: `None` for random ones, `"imagenet"`, `"hed"`, or the path of a file. A saved model holds
            its own.
        keep_statistics: whether the encoder's batch normalization keeps the statistics it was loaded with, whatever else
            is trained; by default if there are weights.
        torchvision_anchors: compute the anchors' strides as torchvision does, see `anchors`; for its weights.
        seed: of the random choice of anchors and proposals in training.
        name: of the model.

    Call:
        Images float32 `(batch, height, width, channels)` in 0..1, of any one size. With `training=True` it returns what
        `features` does, from which the losses are computed; otherwise what `detect` does. The sizes are fixed when it is
        compiled, and nothing in it depends on how many objects there are: one image size, one compilation.

    Fit:
        Batches of `(images, targets)`; `stages.py` says what the targets are, `datasets.detection` makes such batches. The
        validation losses use the same anchors and proposals each time.

    Raises:
        ValueError: for an argument that is none of the above.
    """

    @plain_arguments
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
        with_mask: bool = True,
        mask_filters: int = 256,
        mask_convolutions: int = 4,
        head_normalization: str | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        settings: Settings | Mapping[str, Any] | None = None,
        encoder: str | None = None,
        weights: str | Path | None = None,
        keep_statistics: bool | None = None,
        torchvision_anchors: bool = False,
        seed: int = 0,
        name: str = "mask_rcnn",
        **arguments,
    ):
        super().__init__(name=name, **arguments)
        if not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(
                f"num_classes is {num_classes!r}; it must be a whole number, at least 2: the background is class 0."
            )
        one_of("backbone", backbone, BACKBONES)
        if encoder is None and (weights is not None or keep_statistics is not None):
            raise ValueError("weights and keep_statistics belong to an encoder; give encoder, too.")
        if encoder is not None and (
            backbone != "resnet50" or backbone_arguments or mean is not None or std is not None
        ):
            raise ValueError(
                f"encoder is {encoder!r}; leave out backbone, backbone_arguments, mean and std, which do not apply to it."
            )
        if keep_statistics is None:
            keep_statistics = weights is not None
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
            "with_mask": with_mask,
            "mask_filters": mask_filters,
            "mask_convolutions": mask_convolutions,
            "head_normalization": head_normalization,
            "mean": mean,
            "std": std,
            "settings": asdict(settings),
            "encoder": encoder,
            "keep_statistics": keep_statistics if encoder else None,
            "torchvision_anchors": torchvision_anchors,
            "seed": seed,
        }
        self.mean = _per_channel("mean", mean, channels, IMAGENET_MEAN, 0.5)
        self.std = _per_channel("std", std, channels, IMAGENET_STD, 0.25)

        if encoder is None:
            self.backbone = BACKBONES[backbone](
                (None, None, channels),
                prefix="backbone-body-",
                name="backbone",
                **self._arguments["backbone_arguments"],
            )
        else:
            images = keras.Input((None, None, channels), name="image")
            found = features_by_stride(encoder, images, weights, ENCODER_STRIDES[-1], keep_statistics)
            self.backbone = keras.Model(images, [found[stride] for stride in ENCODER_STRIDES], name="encoder")
            self.mean, self.std = np.float32(0), np.float32(1)
        self.fpn = fpn(
            [features.shape[-1] for features in self.backbone.outputs],
            filters,
            pyramid_normalization,
            prefix="backbone-fpn-",
            name="fpn",
        )
        levels = len(self.fpn.outputs)
        if len(settings.anchor_sizes) != levels:
            raise ValueError(
                f"anchor_sizes is {settings.anchor_sizes}; it must be {levels} sizes, one for each level of the pyramid."
            )
        # From the network and not from the sizes of its maps, which are rounded up where a stride does not divide a side.
        finest = self._arguments["backbone_arguments"].get("stem_stride", 4)
        self.strides = tuple(finest * 2**level for level in range(levels))
        self.rpn_head = rpn_head(
            filters, len(settings.aspect_ratios), rpn_convolutions, prefix="rpn-head-", name="rpn_head"
        )
        self.box_head = box_head(
            num_classes,
            filters,
            settings.box_roi_size,
            box_units,
            box_convolutions,
            head_normalization,
            prefix="roi_heads-",
            name="box_head",
        )
        self.mask_head = None
        if with_mask:
            self.mask_head = mask_head(
                num_classes,
                filters,
                settings.mask_roi_size,
                mask_filters,
                mask_convolutions,
                head_normalization,
                prefix="roi_heads-",
                name="mask_head",
            )
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.loss_names = stages.LOSSES if with_mask else stages.LOSSES[:-1]
        self.loss_trackers = [FiniteMean(name=name) for name in self.loss_names]
        self.built = True

    # The network

    def call(self, images, training=None):
        features = self.features(images, training)
        if training:
            return features
        return self.detect(features, tuple(images.shape[1:3]), training)

    def features(self, images, training=None) -> dict[str, list]:
        """The forward pass over the whole image: everything before the first proposal.

        Args:
            images: `(batch, height, width, channels)`, 0..1.
            training: whether normalization layers are in training mode.

        Returns:
            `pyramid`, the maps P2 to P5 and the pooled one, and the RPN's outputs for each of them: `objectness` logits
            `(batch, rows, columns, k)` and `deltas` `(batch, rows, columns, 4 · k)`.

        Raises:
            ValueError: if the images have other channels, or a height or width that is not known in advance.
        """
        images = ops.convert_to_tensor(images)
        if len(images.shape) != 4 or None in images.shape[1:3] or images.shape[3] != self.channels:
            raise ValueError(
                f"images has shape {tuple(images.shape)}; it must be (batch, height, width, {self.channels}), "
                "with a height and width known in advance."
            )
        return self._features(self.filled_up(images), training)

    def filled_up(self, images):
        """Images `(batch, height, width, channels)` as the backbone takes them: an encoder wants sides that are a multiple
        of its deepest stride, the others any."""
        if self._arguments["encoder"] is None:
            return images
        rest = [(0, -side % ENCODER_STRIDES[-1]) for side in images.shape[1:3]]
        return ops.pad(images, [(0, 0), *rest, (0, 0)])

    def features_model(self) -> keras.Model:
        """`features` as a network of its own, for images of any size and without training: to compile it once."""
        images = keras.Input((None, None, self.channels), name="images")
        return keras.Model(images, self._features(images, False), name="features")

    def _features(self, images, training) -> dict[str, list]:
        images = (ops.cast(images, "float32") - self.mean) / self.std
        pyramid = self.fpn(self.backbone(images, training=training), training=training)
        outputs = [self.rpn_head(level, training=training) for level in pyramid]
        return {
            "pyramid": list(pyramid),
            "objectness": [objectness for objectness, _ in outputs],
            "deltas": [deltas for _, deltas in outputs],
        }

    def anchors(self, image_size: tuple[int, int], features: Mapping[str, list]) -> list[np.ndarray]:
        """The anchors of each level for images of this height and width, `(rows · columns · k, 4)`.

        Neighbouring anchors of a level are one stride of the network apart. torchvision divides the side of the image by
        that of the map instead, rounded down: on a side of 96, a map of stride 64 has 2 rows, and its anchors lie 48
        apart. `torchvision_anchors` does the same.
        """
        sizes, settings = [tuple(level.shape[1:3]) for level in features["pyramid"]], self.settings
        strides = None if self._arguments["torchvision_anchors"] else self.strides
        return pyramid_anchors(image_size, sizes, settings.anchor_sizes, settings.aspect_ratios, strides)

    def propose(self, features: Mapping[str, list], image_size: tuple[int, int], training: bool = False):
        """Proposals: boxes `(batch, n, 4)`, logits `(batch, n)`, valid `(batch, n)`; see `stages.propose`."""
        settings, number = self.settings, 0 if training else 1
        return stages.propose(
            features["objectness"],
            features["deltas"],
            self.anchors(image_size, features),
            image_size,
            settings.rpn_pre_nms_top_n[number],
            settings.rpn_post_nms_top_n[number],
            settings.rpn_nms_thresh,
        )

    def roi_features(self, features: Mapping[str, list], boxes, size: int):
        """The features under boxes `(batch, n, 4)`, cut out to `(batch, n, size, size, channels)`."""
        levels = features["pyramid"][:-1]  # the last is for the largest anchors alone
        return stages.roi_features(levels, boxes, self.strides[: len(levels)], size, self.settings)

    def predict_boxes(self, features: Mapping[str, list], boxes, training=None):
        """The box head on boxes `(batch, n, 4)`: logits `(batch, n, classes)` and deltas `(batch, n, 4 · classes)`."""
        regions = self.roi_features(features, boxes, self.settings.box_roi_size)
        logits, deltas = self.box_head(_merge(regions), training=training)
        return _split(logits, boxes), _split(deltas, boxes)

    def predict_masks(self, features: Mapping[str, list], boxes, training=None):
        """The mask head on boxes `(batch, n, 4)`: logits `(batch, n, m, m, classes)`."""
        regions = self.roi_features(features, boxes, self.settings.mask_roi_size)
        return _split(self.mask_head(_merge(regions), training=training), boxes)

    def detect(
        self, features: Mapping[str, list], image_size: tuple[int, int], training=None, trim: bool = False
    ) -> dict:
        """The detections of each image.

        Args:
            features: what `features` returns.
            image_size: height and width of the images.
            training: whether normalization layers are in training mode.
            trim: leave off places that are empty in all images, so that the heads compute no more than is needed: an image
                with 30 nuclei needs no computation for 400. Not inside a compiled function: the shapes depend on the image.

        Returns:
            For `settings.box_detections_per_img` places in each image, the highest scored first: `boxes` `(batch, n, 4)`,
            `classes` int32 `(batch, n)`, `scores` `(batch, n)` in 0..1, `valid` bool `(batch, n)`, and with a mask head
            `masks`, the probabilities `(batch, n, m, m)` within each box (`ops.masks.whole_image_masks` pastes them into
            the image).
        """
        proposals, _, valid = self.propose(features, image_size)
        if trim:
            proposals, valid = _trimmed(valid, proposals, valid)
        logits, deltas = self.predict_boxes(features, proposals, training)
        boxes, classes, scores, valid = stages.postprocess_detections(
            logits, deltas, proposals, valid, image_size, self.settings
        )
        if trim:
            boxes, classes, scores, valid = _trimmed(valid, boxes, classes, scores, valid)
        predictions = {"boxes": boxes, "classes": classes, "scores": scores, "valid": valid}
        if self.mask_head is not None:
            logits = self.predict_masks(features, boxes, training)
            predictions["masks"] = stages.masks_of_classes(logits, classes)
        return predictions

    def compute_losses(
        self,
        features: Mapping[str, list],
        targets: Mapping[str, Any],
        image_size: tuple[int, int],
        training: bool = True,
    ) -> dict[str, Any]:
        """The five losses (four without mask head), unweighted scalars by the names of `stages.LOSSES`."""
        settings, anchors = self.settings, self.anchors(image_size, features)
        random = self._random(sum(map(len, anchors)), training)
        values = list(
            stages.rpn_losses(features["objectness"], features["deltas"], anchors, targets, settings, random)
        )
        proposals, _, valid = self.propose(features, image_size, training)
        random = self._random(proposals.shape[1] + targets["boxes"].shape[1], training)
        samples = stages.select_training_samples(proposals, valid, targets, settings, random)
        boxes, objects, positive, negative = samples
        logits, deltas = self.predict_boxes(features, boxes, training)
        values += stages.box_losses(logits, deltas, boxes, objects, positive, negative, targets, settings)
        if self.mask_head is not None:
            # Objects come first, so only the first places can have a mask.
            most = max(1, int(settings.box_batch_size_per_image * settings.box_positive_fraction))
            few = min(boxes.shape[1], most)
            boxes, objects, positive = boxes[:, :few], objects[:, :few], positive[:, :few]
            logits = self.predict_masks(features, boxes, training)
            values.append(stages.mask_loss(logits, boxes, objects, positive, targets))
        return dict(zip(self.loss_names, values, strict=True))

    def _random(self, rows: int, training: bool):
        """Random in training; the same numbers each time for the validation losses."""
        return self.seed_generator if training else np.random.default_rng(0).random(rows).astype(np.float32)

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
        """The weighted sum of the losses and of the layers' own (regularizers); it also keeps their means for the log.

        Raises:
            ValueError: if `y` is not a dict of targets, or for sample weights, which the losses of boxes do not support.
        """
        if sample_weight is not None:
            raise ValueError(
                "sample_weight is given; it must be None: the losses of a Mask R-CNN are means over anchors and proposals "
                "of the whole batch. Leave out images, or mark objects as crowd, instead."
            )
        if not isinstance(y, Mapping) or not {"boxes", "classes"} <= set(y):
            raise ValueError(
                f"y is {sorted(y) if isinstance(y, Mapping) else type(y).__name__}; it must be the targets, a dict of "
                "boxes, classes and masks. Give batches (images, targets)."
            )
        if self.mask_head is not None and "masks" not in y:
            raise ValueError(
                "targets has no masks; it must have them, or the model must be built with with_mask=False."
            )
        # In validation Keras asks for detections, which no loss is made of; compiled, they are then never computed.
        features = y_pred if "pyramid" in y_pred else self.features(x, training=False)
        values = self.compute_losses(features, y, tuple(x.shape[1:3]), training)
        total = sum(self.losses, 0.0)
        batch = ops.shape(x)[0]
        # Four losses without a mask head, five weights all the same.
        for tracker, weight in zip(self.loss_trackers, self.settings.loss_weights, strict=False):
            value = values[tracker.name]
            tracker.update_state(value, sample_weight=ops.cast(batch, "float32"))
            total = total + weight * value
        return total

    def load_torchvision(self, source: Mapping[str, Any] | str, ignore: Sequence[str] = ()) -> None:
        """Load torchvision's weights into this network; see `torchvision_weights.load_torchvision`.

        `published("COCO_V1")` and `published("COCO_V2")` build the two networks whose weights torchvision publishes.
        """
        if self.mask_head is None:
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
    """The network that fits torchvision's published weights, untrained: 91 classes (COCO's ids, 0 = background).

        >>> model = published("COCO_V1")
        >>> model.load_torchvision("maskrcnn_resnet50_fpn_coco.safetensors")     # see torchvision_weights.py

    Args:
        weights: `"COCO_V1"` (2019) or `"COCO_V2"` (2022).
        **arguments: for `MaskRCNN`, where they differ from these.

    Raises:
        ValueError: for another name.
    """
    one_of("weights", weights, PUBLISHED)
    return MaskRCNN(**{"num_classes": 91, "torchvision_anchors": True, **PUBLISHED[weights], **arguments})


def _trimmed(valid, *values):
    """The first places of each value, enough for the fullest image: 16, 32, 48 … 128, 160 … 256, 320 …, at most a quarter
    more, and yet few shapes, each of which JAX compiles."""
    most = max(1, int(ops.max(ops.sum(ops.cast(valid, "int32"), axis=1))))
    step = max(16, 2 ** ((most - 1).bit_length() - 3))
    places = -(-most // step) * step
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
        raise ValueError(
            f"{name} is {value!r}; it must be one number, or one for each of the {channels} channels."
        )
    return array
