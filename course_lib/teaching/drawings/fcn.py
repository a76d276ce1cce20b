"""FCN drawn from the live model: five stages down, the classifier as convolutions, and the scores on their way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from course_lib.teaching.drawings.canvas import (
    ANSWER,
    CLIMB,
    CONVOLUTION,
    DEEP,
    DOWN,
    POINTWISE,
    POOL,
    UP,
    Canvas,
    Level,
    lines,
    read_maps,
    scaled,
    titled,
    two_lines,
)

if TYPE_CHECKING:
    import keras

PAGE = (12.0, 6.45)
"""Width and height of the drawing in its own inches."""


@dataclass(frozen=True)
class Upsampling:
    """A transposed convolution: how many times as dense its scores are, and whether it learns."""

    name: str
    factor: int
    learned: bool


@dataclass(frozen=True)
class FCNPlan:
    """All that a drawing of an FCN shows.

    Attributes:
        name: of the model.
        maps: of every layer, by its name, for an image of one size; `image` is the image.
        convolutions: number of 3 × 3 convolutions in each of the five stages.
        head_size: side of fc6's kernel.
        zeros: pixels of zeros put around the image; 0 for none.
        ups: the upsamplings in the order in which they come.
        normalized: whether a normalization stands before each ReLU.
        parameters, fixed: number of all weights, and of those that do not learn.
    """

    name: str
    maps: dict[str, Level]
    convolutions: tuple[int, ...]
    head_size: int
    zeros: int
    ups: tuple[Upsampling, ...]
    normalized: bool
    parameters: int
    fixed: int


def read_fcn(model: keras.Model, image_size: tuple[int, int] | None = None) -> FCNPlan:
    """The plan of an FCN, read off the live model.

    Args:
        model: as `models.fcn` builds it.
        image_size: rows and columns of the image, where the model takes any; 512 of each by default.

    Raises:
        ValueError: if the model has no layers named as `models.fcn` names them.
    """
    names = {layer.name for layer in model.layers}
    if not {"conv1_1", "fc6", "fc7", "score_fr", "logits"} <= names:
        raise ValueError(
            f"model: {model.name!r} has no layers called 'fc6' and 'score_fr'; give one that `fcn` built."
        )
    maps = read_maps(model, image_size)
    stages = range(1, 6)
    ups = [model.get_layer(name) for name in maps if name.startswith("upscore") and name in names]
    ups = [layer for layer in ups if type(layer).__name__ == "Conv2DTranspose"]
    return FCNPlan(
        name=model.name,
        maps=maps,
        convolutions=tuple(
            sum(name.startswith(f"conv{k}_") and name.endswith("_relu") for name in names) for k in stages
        ),
        head_size=model.get_layer("fc6").kernel_size[0],
        zeros=model.get_layer("padding").padding[0][0] if "padding" in names else 0,
        ups=tuple(Upsampling(layer.name, layer.strides[0], layer.trainable) for layer in ups),
        normalized="fc6_norm" in names,
        parameters=model.count_params(),
        fixed=sum(layer.count_params() for layer in ups if not layer.trainable),
    )


def draw_fcn(model: keras.Model | FCNPlan, image_size: tuple[int, int] | None = None, width: float = 12.0):
    """An FCN: its stages from left to right, and below them, from right to left, the scores on their way to the image.

    A stage is a block of as many bars as it has convolutions. Heights stand for the rows of a map, on a logarithmic
    scale.

    Args:
        model: as `models.fcn` builds it, or its plan (`read_fcn`).
        image_size: as for `read_fcn`.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if `model` is no FCN of `models.fcn`.
    """
    plan = model if isinstance(model, FCNPlan) else read_fcn(model, image_size)
    return titled(plan, plan.parameters, PAGE, paint_fcn, width)


def paint_fcn(canvas: Canvas, plan: FCNPlan, top: float = 0.0) -> None:
    """An FCN on a page of size `PAGE`, from `top` inches below its top."""
    maps = plan.maps
    height = scaled(maps, 0.4, 1.6)
    upper, between, lower = top + 1.2, top + 3.13, top + 4.42
    bar = 0.13

    def down(x: float, layer: str, **more) -> tuple[float, float]:
        return canvas.map(x, upper, maps[layer], height(maps[layer]), bar, DOWN, **more)

    def across(y: float, start: float, end: float, style: dict) -> None:
        canvas.arrow((start, y), (end, y), **style)

    # Down: stages and pooling, from left to right.
    _, right = canvas.map(0.55, upper, maps["image"], height(maps["image"]), 0.1, ANSWER, name="image")
    pools = {}
    for stage, count in enumerate(plan.convolutions, start=1):
        x = 1.42 + 1.66 * (stage - 1)
        left, end = down(x, f"conv{stage}_1", bars=count, name=f"conv{stage}")
        across(upper, right + 0.03, left - 0.03, CONVOLUTION)
        pools[stage] = x + 0.83
        left, right = down(pools[stage], f"pool{stage}", name=f"pool{stage}")
        across(upper, end + 0.03, left - 0.03, POOL)
    for x, name in ((pools[5] + 1.03, "fc6"), (pools[5] + 2.05, "fc7")):
        left, end = canvas.map(x, upper, maps[name], height(maps[name]), 0.3, DEEP, name=name)
        across(upper, right + 0.03, left - 0.03, CONVOLUTION)
        right = end
    if plan.zeros:
        below = upper + height(maps["image"]) / 2 + 0.12 + 0.17 * lines(maps["image"])
        canvas.text(0.55, below, f"{plan.zeros} zeros\naround it", 10, va="top", linespacing=1.05)

    # Scores: 1 × 1 convolutions, from above to below.
    def score(x: float, source: str, name: str, y: float) -> float:
        below = upper + height(maps[source]) / 2 + 0.12 + 0.17 * lines(maps[source])
        tall = height(maps[name])
        canvas.arrow((x, below), (x, y - tall / 2 - 0.3), **POINTWISE)
        canvas.map(x, y, maps[name], tall, bar, ANSWER, name=f"score of {source}")
        return y + tall / 2

    x = pools[5] + 2.05
    score(x, "fc7", "score_fr", lower)
    left = x - bar / 2
    for up in plan.ups[:-1]:
        stage = 4 if up is plan.ups[0] else 3
        plus = pools[stage]
        tall = height(maps[up.name])
        _climb(canvas, left, plus + 0.83, lower, up)
        start, _ = canvas.map(plus + 0.77, lower, maps[up.name], tall, bar, UP)
        across(lower, start - 0.03, plus + 0.15, CONVOLUTION)
        fused = maps[f"fuse_pool{stage}"]
        canvas.plus(plus, lower)
        canvas.text(plus, lower + 0.24, f"sum\n{two_lines(fused)}", 10, va="top", linespacing=1.05)
        under = score(plus, f"pool{stage}", f"score_pool{stage}", between) + 0.1
        canvas.arrow(
            (plus, under + 0.17 * lines(maps[f"score_pool{stage}"])), (plus, lower - 0.15), **CONVOLUTION
        )
        left = plus - 0.12
    last = plan.ups[-1]
    x = min(2.6, left - 1.5)
    tall = height(maps[last.name])
    _climb(canvas, left, x + bar / 2, lower, last)
    start, _ = canvas.map(x, lower, maps[last.name], tall, bar, UP)
    tall = height(maps["logits"])
    _, right = canvas.map(0.75, lower, maps["logits"], tall, bar, ANSWER, name="logits")
    across(lower, start - 0.03, right + 0.03, CONVOLUTION)
    canvas.text((start + right) / 2, lower - 0.1, "cropped", 10, va="bottom")
    _explain(canvas, plan, top + PAGE[1] - 0.7)


def _climb(canvas: Canvas, start: float, end: float, y: float, up: Upsampling) -> None:
    canvas.arrow((start - 0.04, y), (end + 0.04, y), **CLIMB)
    words = "learned" if up.learned else "fixed"
    canvas.text((start + end) / 2, y - 0.1, f"× {up.factor}", 11, va="bottom")
    canvas.text((start + end) / 2, y + 0.1, words, 10, va="top")


def _explain(canvas: Canvas, plan: FCNPlan, top: float) -> None:
    normalized = "normalization, " if plan.normalized else ""
    canvas.legend(
        [
            (DOWN, {}, f"a bar: one 3 × 3 convolution, {normalized}ReLU"),
            ("right", POOL, "2 × 2 max pooling: halves the side"),
            ("right", POINTWISE, "1 × 1 convolution: one score per class"),
            (DEEP, {}, f"fc6: {plan.head_size} × {plan.head_size} convolution; fc7: 1 × 1"),
            ("right", CLIMB, "transposed convolution, at first bilinear"),
            ("", {}, "below a feature map: side² × channels"),
        ],
        top,
    )
