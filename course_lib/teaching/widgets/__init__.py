"""Things to touch: widgets whose image and numbers follow the sliders, each with a still image of itself.

    from course_lib.teaching import widgets
    widgets.boxes()          # in a notebook

With a kernel one moves the controls, by mouse or keyboard. The image also lies in the cell's output as a PNG, for those
who read the notebook without one. What a widget computes and draws stands apart, as plain functions from the controls'
values to an `Answer`: `boxes_canvas`, `masks_canvas`, ... .
"""

import base64
import functools
import html
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from course_lib.teaching.widgets.canvas import Answer


class Live:
    """A widget and what it says at the moment.

    Attributes:
        controls: name → the ipywidgets control of that name.
        answer: the `Answer` to the controls as they stand.
        widget: all of it as one ipywidgets box.
    """

    def __init__(
        self,
        answer_to: Callable[..., Answer],
        controls: dict[str, Any],
        shows: str,
        plays: str = "",
        click: str = "",
    ):
        """Put controls, image and words together.

        Args:
            answer_to: from the controls' values, by name, to the answer.
            controls: name → control.
            shows: what is to be seen, in a sentence; the image's alt text.
            plays: the name of a slider that buttons move by themselves.
            click: JavaScript that a click on the image runs; it can set controls, and adds nothing that they cannot do.
        """
        widgets = _ipywidgets()
        self.controls, self._answer_to, self._shows, self._click = controls, answer_to, shows, click
        self._picture, self._words = widgets.HTML(), widgets.HTML()
        row = widgets.Layout(display="flex", flex_flow="row wrap")
        touched = list(controls.values())
        if plays:
            slider = controls[plays]
            play = widgets.Play(min=slider.min, max=slider.max, value=slider.value, interval=400)
            widgets.jslink((play, "value"), (slider, "value"))
            touched.append(play)
        self.widget = widgets.VBox([widgets.Box(touched, layout=row), self._picture, self._words])
        for control in controls.values():
            control.observe(self._follow, names="value")
        self._follow()

    def _follow(self, change: Any = None) -> None:
        """Answer to the controls as they stand now."""
        self.answer = self._answer_to(**{name: control.value for name, control in self.controls.items()})
        picture = self.answer.drawing.markup(self._shows)
        if self._click:
            picture = picture.replace("<img ", f'<img onclick="{html.escape(self._click)}" ', 1)
        self._picture.value = picture
        self._words.value = (
            f'<div role="status" aria-live="polite" style="max-width: {self.answer.drawing.width}px; line-height: 1.4">'
            f"{html.escape(self.answer.words)}</div>"
        )

    def frames(self, *names: str, most: int = 24) -> dict[tuple[int, ...], Answer]:
        """The answers for the values of some controls, the others as they stand: the widget without a kernel.

        A control with two ends is moved as a whole: what lies between them keeps its length.

        Args:
            names: of the controls.
            most: how many values of each control at most; of more values, as many at equal distances.

        Returns:
            For the place of a value in the row of each control, such as `(0, 2)`, the answer.

        Raises:
            KeyError: if there is no such control.
        """
        rows = [enumerate(_thinned(_values(self.controls[name]), most)) for name in names]
        others = {name: each.value for name, each in self.controls.items()}
        found = {}
        for chosen in product(*rows):
            places, values = zip(*chosen, strict=True)
            found[places] = self._answer_to(**(others | dict(zip(names, values, strict=True))))
        return found

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        """The widget, and beside it the image and the words: a reader shows the liveliest that it can."""
        drawing = self.answer.drawing
        data = view_of(self.widget) | {
            "text/plain": self.answer.words,
            "image/png": base64.b64encode(drawing.png).decode(),
        }
        return data, {"image/png": {"width": drawing.width, "height": drawing.height}}


def _values(control: Any) -> list:
    """What a control can be set to, from its first value to its last."""
    if hasattr(control, "options"):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    if isinstance(control.value, bool):
        return [False, True]
    lower, upper = control.value if isinstance(control.value, tuple) else (0, 0)
    span = upper - lower
    count = round((control.max - control.min - span) / control.step) + 1
    values = [control.min + number * control.step for number in range(count)]
    if hasattr(control, "base"):  # a slider of a logarithm: its ends and steps are exponents
        return [control.base**value for value in values]
    return [(value, value + span) for value in values] if isinstance(control.value, tuple) else values


def _thinned(values: list, most: int) -> list:
    places = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[place] for place in np.unique(places)]


def view_of(widget: Any) -> dict[str, dict]:
    """What shows a widget in a front end. Written out, because ipywidgets 7, which Colab has, has no method for it."""
    return {
        "application/vnd.jupyter.widget-view+json": {
            "version_major": 2,
            "version_minor": 0,
            "model_id": widget.model_id,
        }
    }


def boxes(a: tuple[int, int, int, int] = (2, 1, 6, 4), b: tuple[int, int, int, int] = (4, 2, 9, 5)) -> Live:
    """Two boxes to move on a grid of 16 × 10 squares; IoU, GIoU and Dice follow.

    Args:
        a, b: where they lie at first, `x1, y1, x2, y2`.
    """
    from course_lib.teaching.widgets.boxes_canvas import COLUMNS, ROWS, boxes_answer

    def slider(name: str, value: tuple[int, int], most: int):
        return _control("IntRangeSlider", name, value=value, min=0, max=most)

    controls = {
        "a_x": slider("a: left, right", a[::2], COLUMNS),
        "a_y": slider("a: top, bottom", a[1::2], ROWS),
        "b_x": slider("b: left, right", b[::2], COLUMNS),
        "b_y": slider("b: top, bottom", b[1::2], ROWS),
    }

    def answer_to(a_x, a_y, b_x, b_y) -> Answer:
        return boxes_answer((a_x[0], a_y[0], a_x[1], a_y[1]), (b_x[0], b_y[0], b_x[1], b_y[1]))

    return Live(
        answer_to, controls, "Two boxes on a grid, the squares they share, and bars for IoU, GIoU and Dice."
    )


def mask_metrics(objects: np.ndarray | None = None) -> Live:
    """A mask to grow, shrink, move and hole while every metric follows.

    Args:
        objects: the ground truth, int `(height, width)`, 0 = background; three discs by default.

    Raises:
        ValueError: if `objects` is no map of at least one object.
    """
    from course_lib.teaching.widgets.masks_canvas import mask_answer, three_discs

    objects = three_discs() if objects is None else np.asarray(objects)
    if objects.ndim != 2 or objects.dtype.kind not in "iub" or not (objects > 0).any():
        raise ValueError(
            f"objects has shape {objects.shape} and type {objects.dtype}; give a map of integers (height, width), "
            "0 for background, with at least one object."
        )
    controls = {
        "grow": _control("IntSlider", "grow (− shrink)", value=-1, min=-8, max=8),
        "hole": _control("IntSlider", "radius of a hole", value=0, min=0, max=10),
        "right": _control("IntSlider", "move right", value=2, min=-20, max=20),
        "down": _control("IntSlider", "move down", value=0, min=-20, max=20),
    }
    return Live(
        functools.partial(mask_answer, objects),
        controls,
        "The true and the found mask laid over each other, and a bar for each of ten scores.",
    )


def threshold(target: np.ndarray | None = None, probability: np.ndarray | None = None) -> Live:
    """A threshold to move; the mask, precision and recall follow.

    Args:
        target: bool `(height, width)`; cells by default.
        probability: float `(height, width)` in 0..1; by default an unsure guess of `target`.

    Raises:
        ValueError: if the two do not fit each other, or `probability` is none.
    """
    from course_lib.teaching.widgets.masks_canvas import (
        example,
        threshold_answer,
        threshold_curve,
        unsure_guess,
    )

    if target is None and probability is not None:
        raise ValueError("target is missing; give the mask that this probability is a guess of.")
    target = example()[0] if target is None else np.asarray(target)
    if target.ndim != 2 or target.dtype != bool or not target.any():
        raise ValueError(
            f"target has shape {target.shape} and type {target.dtype}; give a mask (height, width) of true and false, "
            "such as labels == 1, that is true somewhere."
        )
    probability = unsure_guess(target) if probability is None else np.asarray(probability, float)
    if probability.shape != target.shape or not (0 <= probability.min() and probability.max() <= 1):
        raise ValueError(
            f"probability has shape {probability.shape} and values {probability.min():g} to {probability.max():g}; "
            f"give one in 0..1 for each of {target.shape} pixels. Logits go through a sigmoid first."
        )
    curve = threshold_curve(target, probability)
    controls = {"threshold": _control("FloatSlider", "threshold", value=0.5, min=0, max=1, step=0.02)}
    return Live(
        functools.partial(threshold_answer, target, probability, curve=curve),
        controls,
        "A map of probabilities, the mask above the threshold, and a point on the curve of precision against recall.",
    )


def anchors(
    image: np.ndarray | None = None, boxes: np.ndarray | None = None, names: Sequence[str] = ()
) -> Live:
    """Anchors by side, ratio and stride; the best one for each object follows.

    Args:
        image: float `(height, width, 1 or 3)` in 0..1; an image of `scenes` by default.
        boxes: its objects, `(n, 4)` in pixels.
        names: of the objects; numbers by default.

    Raises:
        ValueError: if there is no object, or not as many names as objects.
    """
    from course_lib.teaching.widgets.boxes_canvas import anchors_answer

    if image is None:
        from course_lib.datasets import SCENE_CLASSES, scenes

        sample = scenes("val", length=1, size=128, seed=5, objects=(4, 5), occlusion=0.0)[0]
        image, boxes = sample.image, sample.boxes
        names = [SCENE_CLASSES[kind] for kind in sample.classes]
    boxes = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, float)
    if boxes.ndim != 2 or boxes.shape[-1] != 4 or not len(boxes):
        raise ValueError(
            f"boxes has shape {boxes.shape}; give the image's objects (n, 4): x1, y1, x2, y2, at least one."
        )
    if np.ndim(image) != 3 or np.shape(image)[-1] not in (1, 3):
        raise ValueError(f"image has shape {np.shape(image)}; give one image (height, width, 1 or 3).")
    if len(names) not in (0, len(boxes)):
        raise ValueError(f"names: {len(names)} for {len(boxes)} boxes; give one each, or none.")
    most, powers = int(np.log2(max(np.shape(image)[:2]))), {"base": 2, "step": 0.25}
    controls = {
        "side": _control(
            "FloatLogSlider", "side in pixels", value=32, min=2, max=most, readout_format=".0f", **powers
        ),
        "ratio": _control(
            "FloatLogSlider", "ratio: height / width", value=2, min=-2, max=2, readout_format=".2f", **powers
        ),
        "stride": _control("SelectionSlider", "stride", value=8, options=[4, 8, 16, 32]),
        "three": _control("Checkbox", "also 1 and 1 / ratio", value=True),
    }
    return Live(
        functools.partial(anchors_answer, np.asarray(image, float), boxes, names=names),
        controls,
        "An image with its objects and anchors, and for each object a bar: the IoU of its best anchor.",
    )


def roi_align(feature_map: np.ndarray | None = None) -> Live:
    """A region to move over a map; the points that RoI Align reads and what comes out follow, beside RoI Pool.

    Args:
        feature_map: float `(height, width)`, at least 2 × 2; a slope with a bump by default.

    Raises:
        ValueError: if the map has another shape, or a value that is not a number.
    """
    from course_lib.teaching.widgets.regions_canvas import roi_answer, slope

    feature_map = slope() if feature_map is None else np.asarray(feature_map, np.float32)
    if feature_map.ndim != 2 or min(feature_map.shape) < 2 or not np.isfinite(feature_map).all():
        raise ValueError(
            f"feature_map has shape {feature_map.shape}; give one channel (height, width) of finite numbers, "
            "at least 2 × 2."
        )

    def edges(name: str, last: int):
        value = round(0.21 * last, 1), round(0.79 * last, 1)
        return _control(
            "FloatRangeSlider", name, value=value, min=0, max=last, step=0.1, readout_format=".1f"
        )

    controls = {
        "columns": edges("left, right", feature_map.shape[1] - 1),
        "rows": edges("top, bottom", feature_map.shape[0] - 1),
        "cells": _control("IntSlider", "cells a side", value=3, min=1, max=7),
        "points": _control("IntSlider", "points a side", value=2, min=1, max=4),
    }
    return Live(
        functools.partial(roi_answer, feature_map),
        controls,
        "A region on a map with the points that RoI Align reads, and the values that RoI Align and RoI Pool give.",
    )


def convolution(image: np.ndarray | None = None, kernel: np.ndarray | None = None, rate: int = 1) -> Live:
    """A kernel that slides over an image, product by product, while the feature map fills.

    Args:
        image: `(height, width)`, at most 16 × 16; a dark image with a bright corner by default.
        kernel: `(3, 3)`, to be had beside the widget's own.
        rate: pixels from one weight of the kernel to the next; above 1 the convolution is atrous.

    Raises:
        ValueError: if image, kernel and rate do not fit each other.
    """
    from course_lib.teaching.widgets.convolution_canvas import KERNELS, LARGEST, convolution_answer, corner

    image = corner() if image is None else np.asarray(image, float)
    if image.ndim != 2 or not (3 <= min(image.shape) and max(image.shape) <= LARGEST):
        raise ValueError(
            f"image has shape {image.shape}; give one channel (height, width), from 3 × 3 to {LARGEST} × {LARGEST}."
        )
    kernels = dict(KERNELS)
    if kernel is not None:
        if np.shape(kernel) != (3, 3):
            raise ValueError(f"kernel has shape {np.shape(kernel)}; give one of 3 × 3.")
        kernels = {"yours": np.asarray(kernel, float), **kernels}
    rates = [k for k in (1, 2, 3) if 2 * k < min(image.shape)]
    if rate not in rates:
        raise ValueError(f"rate is {rate}; for an image of {image.shape} it must be one of {rates}.")
    most = 9 * (image.shape[0] - 2) * (image.shape[1] - 2)
    rows, columns = (side - 2 * rate for side in image.shape)
    first = (
        9 * (rows // 2 * columns + columns // 2) + 6
    )  # in the middle of the map, after two thirds of the products
    controls = {
        "step": _control("IntSlider", "products so far", value=first, min=1, max=most),
        "kernel": _control("Dropdown", "kernel", options=list(kernels)),
        "rate": _control("SelectionSlider", "rate", value=rate, options=rates),
    }
    return Live(
        functools.partial(convolution_answer, image, kernels),
        controls,
        "An image of numbers with the kernel over it, the nine products, and the feature map as far as it is computed.",
        plays="step",
    )


def receptive_field(image: np.ndarray | None = None, models: dict[str, Any] | None = None) -> Live:
    """A receptive field that grows layer by layer, with the gradient of an untrained and a trained network over it.

    Args:
        image: float32 `(side, side, channels)` in 0..1, as the models take it; it is seen from its middle. A piece of the
            photograph of coins by default.
        models: name → network that begins with padded convolutions and poolings, all of one architecture; by default the
            course's U-Net for cells before and after its training.

    Raises:
        ValueError: if the image is no square, or a model begins otherwise.
    """
    from course_lib.teaching.widgets.field_canvas import field_answer, gradients, grown_fields

    if image is None:
        from course_lib.datasets import photographs

        image = photographs.coins().image[143:239, 160:256]  # its middle is the point of notebook 03
    image = np.asarray(image, np.float32)
    if image.ndim != 3 or image.shape[0] != image.shape[1]:
        raise ValueError(f"image has shape {image.shape}; give a square one (side, side, channels).")
    models = _networks_for_cells() if models is None else models
    fields = grown_fields(next(iter(models.values())))
    if any(grown_fields(model) != fields for model in models.values()):
        raise ValueError(
            f"models: {', '.join(models)} must have the same layers, and the same names for them."
        )
    # One image gives a ragged gradient; four differ in what they show and not in how they are lit.
    mirrored = np.stack([image, image[::-1], image[:, ::-1], image[::-1, ::-1]])
    effective = {name: gradients(model, fields, mirrored) for name, model in models.items()}
    layers = [field.layer for field in fields]
    controls = {
        "layer": _control("SelectionSlider", "layer", value=layers[-1], options=layers),
        "network": _control("Dropdown", "network", value=list(models)[-1], options=list(models)),
    }
    return Live(
        functools.partial(field_answer, image.mean(-1), fields, effective),
        controls,
        "An image with the receptive field of a layer as a frame and its gradient as a glow, and a bar for each layer.",
    )


@functools.cache
def _networks_for_cells() -> dict[str, Any]:
    import keras

    from course_lib import checkpoints, recipes

    keras.utils.set_random_seed(0)
    untrained, trained = recipes.CELLS.model(), recipes.CELLS.model()
    checkpoints.load(recipes.CELLS, trained, quiet=True)
    return {"untrained": untrained, "trained": trained}


def probes(
    image: np.ndarray, scores: dict[str, np.ndarray], labels: np.ndarray, names: Sequence[str]
) -> Live:
    """A pixel to choose, by a click or by its row and column; what the linear probe of each level says of it follows.

    Args:
        image: `(height, width, 1 or 3)` in 0..1.
        scores: name of the level → the scores that its probe gives, `(height / stride, width / stride, classes)`.
        labels: int `(height, width)`, the class of each pixel from 0, -1 where it has none.
        names: of the classes.

    Raises:
        ValueError: if these do not fit each other.
    """
    from course_lib.teaching.widgets.probes_canvas import click, probes_answer

    image, labels = np.asarray(image, float), np.asarray(labels)
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or labels.shape != image.shape[:2]:
        raise ValueError(
            f"image has shape {image.shape}, labels {labels.shape}; give (height, width, 1 or 3) and (height, width)."
        )
    if not -1 <= labels.min() <= labels.max() < len(names) or labels.max() < 0:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}; there are {len(names)} names, so they must lie in "
            f"-1..{len(names) - 1}, with at least one pixel that has a class."
        )
    height, width = labels.shape
    for level, one in scores.items():
        rows, columns, classes = np.shape(one)
        if classes != len(names) or height % rows or width % columns or height // rows != width // columns:
            raise ValueError(
                f"scores of {level!r} have shape {np.shape(one)}; they must be (height / stride, width / stride, "
                f"{len(names)}) for an image of {height} × {width}."
            )
    known = np.argwhere(labels >= 0)
    row, column = known[np.square(known - (height / 2, width / 2)).sum(1).argmin()]
    return Live(
        functools.partial(probes_answer, image, scores, labels, names),
        _pixel(int(row), int(column), height, width),
        "An image with a chosen pixel, and for each level of the network a bar for each class that its probe gives.",
        click=click(height, width),
    )


def prompted(
    image: np.ndarray, predict: Callable[[float, float], np.ndarray], row: int = 0, column: int = 0
) -> Live:
    """A pixel to choose, by a click or by its row and column; the mask of the object there follows.

    Args:
        image: `(height, width, 1 or 3)` in 0..1.
        predict: from x and y in pixels to the probability of each pixel, `(height, width)`.
        row, column: the pixel at first.

    Raises:
        ValueError: if the image has another shape, or the pixel lies outside.
    """
    from course_lib.teaching.widgets.probes_canvas import click
    from course_lib.teaching.widgets.prompt_canvas import prompt_answer

    image = np.asarray(image, float)
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"image has shape {image.shape}; give one image (height, width, 1 or 3).")
    height, width = image.shape[:2]
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(
            f"row is {row}, column is {column}; they must lie within the image of {height} × {width}."
        )
    return Live(
        functools.partial(prompt_answer, image, predict),
        _pixel(row, column, height, width),
        "An image with a clicked point and the mask found for it, and beside it the probability of each pixel.",
        click=click(height, width),
    )


def unet_shapes(
    side: int = 572, depth: int = 4, padding: str = "valid", base_filters: int = 64, skip: str = "concat"
) -> Live:
    """U-Net's shapes by the image's side, depth and padding; sizes that do not fit are refused, with those that do.

    Args:
        side, depth, padding, base_filters, skip: where the controls stand at first; as for `models.unet.unet`.
    """
    from course_lib.models.unet import SKIPS
    from course_lib.teaching.widgets.unet_canvas import unet_answer

    controls = {
        "side": _control("IntSlider", "image, pixels", value=side, min=16, max=1024, step=4),
        "depth": _control("IntSlider", "depth", value=depth, min=1, max=5),
        "padding": _control("Dropdown", "padding", value=padding, options=["same", "valid"]),
        "base_filters": _control(
            "SelectionSlider", "channels on top", value=base_filters, options=[4, 8, 16, 32, 64]
        ),
        "skip": _control("Dropdown", "skip", value=skip, options=list(SKIPS)),
    }
    return Live(
        unet_answer, controls, "Every map of a U-Net with its side and channels, and arrows between them."
    )


def _control(kind: str, label: str, **settings: Any) -> Any:
    """A control of ipywidgets: labels of one width, controls two in a row."""
    look = {"style": {"description_width": "140px"}, "layout": {"width": "440px"}}
    return getattr(_ipywidgets(), kind)(description=label, **settings, **look)


def _pixel(row: int, column: int, height: int, width: int) -> dict[str, Any]:
    """The controls for one pixel of an image of this height and width."""
    return {
        "row": _control("BoundedIntText", "row", value=row, min=0, max=height - 1),
        "column": _control("BoundedIntText", "column", value=column, min=0, max=width - 1),
    }


def _ipywidgets():
    """The package, or one sentence that says what to do."""
    try:
        import ipywidgets
    except ImportError:
        raise ImportError(
            "ipywidgets is not installed, and a widget needs it; `make lab` sets it up. "
            "The still image in the notebook shows the same without it."
        ) from None
    return ipywidgets
