"""U-Net drawn: the plan, read off the model or computed from its arguments, then the U."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from course_lib._checks import one_of
from course_lib.teaching.drawings.canvas import (
    ANSWER,
    CLIMB,
    CONVOLUTION,
    DEEP,
    DOWN,
    POINTWISE,
    POOL,
    SKIP,
    UP,
    Canvas,
    Level,
    Look,
    new_canvas,
    read_map,
    titled,
)

if TYPE_CHECKING:
    import keras

FADED = Look("0.93")
"""Maps that are not meant, where only some are."""


@dataclass(frozen=True)
class UNetPlan:
    """All that a drawing of a U-Net shows.

    Attributes:
        name: of the model.
        maps: by the layer's name, in the order in which they are computed: `image`; per level of the encoder
            `encoder_<k>_a` (after the first convolution), `encoder_<k>`, `encoder_<k>_pool`; `bottleneck_a`, `bottleneck`;
            per level of the decoder, from the bottom, `decoder_<k>_up`, `decoder_<k>_crop` where the skip is cropped,
            `decoder_<k>_skip` where there is one, `decoder_<k>_a`, `decoder_<k>`; `logits`.
        skip, up, normalization: as for `unet`.
        parameters: number of all weights.
    """

    name: str
    maps: dict[str, Level]
    skip: str
    up: str
    normalization: str | None
    parameters: int

    @property
    def depth(self) -> int:
        """How many times the image is halved."""
        return sum(name.startswith("encoder_") and name.endswith("_pool") for name in self.maps)

    @property
    def bottleneck(self) -> Level:
        return self.maps["bottleneck"]


KINDS = {
    "Concatenate": "concat",
    "Add": "add",
    "Conv2DTranspose": "transpose",
    "Conv2D": "interpolate",
    "BatchNormalization": "batch",
    "GroupNormalization": "group",
}
"""The argument of `unet` by the class of the layer that it makes."""
SKIP_WORDS = {"concat": "concatenate", "add": "add"}


def read_unet(model: keras.Model) -> UNetPlan:
    """The plan of a U-Net, read off the live model.

    Raises:
        ValueError: if the model has no layers named as `models.unet` names them.
    """
    names = [layer.name for layer in model.layers]
    if "bottleneck" not in names or "logits" not in names:
        raise ValueError(
            f"model: {model.name!r} has no layer called 'bottleneck'; give a model that `unet` built."
        )
    depth = sum(name.startswith("encoder_") and name.endswith("_pool") for name in names)
    maps = {}
    for name in _unet_names(depth):
        if name in names:
            maps[name] = read_map(model, name)

    def kind(name: str, otherwise: str | None) -> str | None:
        return KINDS[type(model.get_layer(name)).__name__] if name in names else otherwise

    return UNetPlan(
        model.name, maps, kind("decoder_1_skip", "none"), kind("decoder_1_up", None), kind("encoder_1_norm", None),
        model.count_params(),
    )  # fmt: skip


def _unet_names(depth: int) -> list[str]:
    """The layers of a plan in the order in which they are computed; not every model has each."""
    names = ["image"]
    for k in range(1, depth + 1):
        names += [f"encoder_{k}_a", f"encoder_{k}", f"encoder_{k}_pool"]
    names += ["bottleneck_a", "bottleneck"]
    for k in range(depth, 0, -1):
        names += [f"decoder_{k}{part}" for part in ("_up", "_crop", "_skip", "_a", "")]
    return [*names, "logits"]


def unet_plan(
    input_shape: tuple[int | None, int | None, int] = (572, 572, 1),
    num_classes: int = 2,
    base_filters: int = 64,
    depth: int = 4,
    padding: str = "same",
    skip: str = "concat",
    up: str = "transpose",
    normalization: str | None = None,
    name: str = "unet",
) -> UNetPlan:
    """The plan of the U-Net that `models.unet.unet` would build, computed without building it.

        >>> unet_plan((572, 572, 1), 2, padding="valid") == read_unet(unet((572, 572, 1), 2, padding="valid"))
        True

    It takes a fraction of a millisecond, a network of five levels some tenths of a second: a drawing that follows a
    slider is made from this.

    Args:
        input_shape, num_classes, base_filters, depth, padding, skip, up, normalization, name: as for `unet`; its dropout
            changes neither shapes nor parameters.

    Raises:
        ValueError: as `unet`, for a size that `depth` does not divide, naming the nearest sizes that work, or an
            argument that is none of these.
    """
    from course_lib.models.arguments import check_counts
    from course_lib.models.unet import NORMALIZATIONS, SKIPS, UPS, check_size

    for label, value, allowed in (
        ("padding", padding, ("same", "valid")),
        ("skip", skip, SKIPS),
        ("up", up, UPS),
        ("normalization", normalization, NORMALIZATIONS),
    ):
        one_of(label, value, allowed)
    check_counts(num_classes=num_classes, base_filters=base_filters, depth=depth)
    for side in input_shape[:2]:
        if side is not None:
            check_size(side, depth, padding)

    rows, columns, channels = input_shape
    maps = {"image": Level("image", rows, columns, channels)}
    lost = 0 if padding == "same" else 1  # pixels that a 3 × 3 convolution loses on each side
    parameters = 0

    def put(name: str, channels: int, change=lambda side: side) -> None:
        nonlocal rows, columns
        rows, columns = (None if side is None else change(side) for side in (rows, columns))
        maps[name] = Level(name, rows, columns, channels)

    def double_convolution(name: str, incoming: int, filters: int) -> None:
        nonlocal parameters
        # Per channel: a bias, or in its place a normalization's scale and shift, and with "batch" a mean and a variance.
        vectors = {None: 1, "group": 2, "batch": 4}[normalization]
        for part, channels in ((f"{name}_a", incoming), (name, filters)):
            parameters += 9 * channels * filters + vectors * filters
            put(part, filters, lambda side: side - 2 * lost)

    for k in range(1, depth + 1):
        filters = base_filters * 2 ** (k - 1)
        double_convolution(f"encoder_{k}", channels, filters)
        put(f"encoder_{k}_pool", filters, lambda side: side // 2)
        channels = filters
    double_convolution("bottleneck", channels, 2 * channels)
    for k in range(depth, 0, -1):
        filters = base_filters * 2 ** (k - 1)
        parameters += 4 * 2 * filters * filters + filters
        put(f"decoder_{k}_up", filters, lambda side: side * 2)
        if skip != "none" and lost:
            put(f"decoder_{k}_crop", filters)
        joined = 2 * filters if skip == "concat" else filters
        if skip != "none":
            put(f"decoder_{k}_skip", joined)
        double_convolution(f"decoder_{k}", joined, filters)
    parameters += base_filters * num_classes + num_classes
    put("logits", num_classes)
    return UNetPlan(name, maps, skip, up, normalization, parameters)


def draw_unet(model: keras.Model | UNetPlan, width: float = 12.0):
    """The U of a U-Net with every map, as the paper's figure 1 shows it, and the arrows explained below.

    Heights stand for the depth in the U, widths for the channels on a logarithmic scale.

    Args:
        model: as `models.unet` builds it, or its plan (`unet_plan`, `read_unet`), which is drawn at once.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if `model` is no U-Net of `models.unet`.
    """
    plan = model if isinstance(model, UNetPlan) else read_unet(model)
    return titled(plan, plan.parameters, unet_page(plan), paint_unet, width)


def draw_unet_here(*here: str, width: float = 6.0):
    """You are here: the published U-Net small and without numbers, in colour only the maps that are meant.

    Args:
        *here: names of maps, as in `UNetPlan.maps`, or patterns of names such as `"encoder_?_pool"`.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: if a pattern fits no map.
    """
    plan = unet_plan((572, 572, 1), 2, padding="valid")
    for pattern in here:
        if not fnmatch.filter(plan.maps, pattern):
            raise ValueError(f"here holds {pattern!r}; it must fit one of {', '.join(plan.maps)}.")
    across, height = unet_page(plan)
    canvas = new_canvas(width, height - LEGEND - 0.5, across)
    canvas.text(0.4, height - LEGEND - 0.9, "you are here: in colour", 11 / canvas.scale, ha="left")
    paint_unet(canvas, plan, -0.15, here)
    return canvas.figure


# Every map, as in the paper's figure 1

ROW = 1.18
"""From one row of maps to the next, in inches of the drawing."""
LEGEND = 0.68
SHORT = {"head": 8}
"""Of the arrows between two levels: a head of the usual size would leave no shaft to see."""


def unet_page(plan: UNetPlan) -> tuple[float, float]:
    """Width and height, in its own inches, of the drawing of every map."""
    columns = 4 * plan.depth + 4
    return max(12.0, 0.5 * columns + 0.6), _row(plan) * plan.depth + 1.18 + LEGEND


def _row(plan: UNetPlan) -> float:
    """From one row of maps to the next; sizes that are no squares are written in two lines."""
    return ROW + (0.2 if " × " in plan.maps["image"].size else 0)


def paint_unet(canvas: Canvas, plan: UNetPlan, top: float = 0.0, here: Sequence[str] = ()) -> None:
    """Every map of a U-Net, on a page of the size that `unet_page` says, from `top` inches below its top.

    With `here`, patterns of names, only these maps are in colour, and there are no words.
    """
    depth, maps = plan.depth, plan.maps
    columns = 4 * depth + 4
    pitch = min(1.25, (canvas.width - 1.1) / (columns - 1))
    left = (canvas.width - pitch * (columns - 1)) / 2
    first_row, step_down = top + 0.55, _row(plan)
    most = np.log2(max(level.channels for level in maps.values()) + 1)

    def place(column: int, row: int) -> tuple[float, float]:
        return left + pitch * column, first_row + step_down * row

    def tall(row: int) -> float:
        return 0.46 - 0.2 * row / max(depth, 4)

    def wide(channels: int) -> float:
        return min(pitch, 0.6) * (0.14 + 0.5 * np.log2(channels + 1) / most)

    def lit(name: str) -> bool:
        return not here or any(fnmatch.fnmatch(name, pattern) for pattern in here)

    def arrow(name: str, *points: tuple[float, float], **style) -> None:
        """One that leads to a map."""
        canvas.arrow(*points, **style | ({} if lit(name) else {"color": "0.8"}))

    def bar(name: str, column: int, row: int, *parts: tuple[Look, int]) -> tuple[float, float]:
        """A map, of one part or of several side by side; returns where its left and its right edge are."""
        x, y = place(column, row)
        widths = [wide(channels) * (1 if len(parts) == 1 else 0.72) for _, channels in parts]
        start = edge = x - sum(widths) / 2
        for (look, _), width in zip(parts, widths, strict=True):
            painted = (look, {}) if lit(name) else (FADED, {"edgecolor": "0.7"})
            canvas.block(edge, y - tall(row) / 2, width, tall(row), painted[0], **painted[1])
            edge += width
        if here:
            return start, edge
        canvas.text(x, y - tall(row) / 2 - 0.05, str(maps[name].channels), 10, va="bottom")
        size = maps[name].size.replace(" × ", " ×\n")
        canvas.text(x, y + tall(row) / 2 + 0.05, size, 10, va="top", linespacing=1.0)
        return start, edge

    def convolve(name: str, right: float, left: float, row: int, **style) -> None:
        y = place(0, row)[1]
        arrow(name, (right + 0.03, y), (left - 0.03, y), **(CONVOLUTION | style))

    def lines(*names: str) -> float:
        """Height of the words under maps of these names."""
        return 0.36 if any(" × " in maps[name].size for name in names) else 0.2

    ends = {}
    _, right = bar("image", 0, 0, (ANSWER, maps["image"].channels))
    for row in range(depth + 1):
        name = f"encoder_{row + 1}" if row < depth else "bottleneck"
        look = DOWN if row < depth else DEEP
        if row:
            pooled = f"encoder_{row}_pool"
            _, right = bar(pooled, 2 * row, row, (DOWN, maps[pooled].channels))
            x, y = place(2 * row, row)
            above = y - step_down + tall(row - 1) / 2 + 0.08 + lines(pooled)
            arrow(pooled, (x, above), (x, y - tall(row) / 2 - 0.24), **POOL | SHORT)
        for step, part in enumerate(("_a", ""), start=1):
            start, end = bar(name + part, 2 * row + step, row, (look, maps[name].channels))
            convolve(name + part, right, start, row)
            right = end
        ends[row] = right
    for row in reversed(range(depth)):
        name = f"decoder_{row + 1}"
        column = 4 * depth - 2 * row
        up, skip = maps[f"{name}_up"], maps[f"encoder_{row + 1}"]
        parts = [(UP, up.channels)]
        if plan.skip == "concat":
            parts.insert(0, (DOWN, skip.channels))
        joined = f"{name}_up" if plan.skip == "none" else f"{name}_skip"
        start, right = bar(joined, column, row, *parts)
        x, y = place(column, row)
        below = y + step_down - tall(row + 1) / 2 - 0.24
        arrow(joined, (x, below), (x, y + tall(row) / 2 + 0.08 + lines(joined)), **CLIMB | SHORT)
        if plan.skip != "none":
            stop = start
            if plan.skip == "add":
                stop -= 0.2
                canvas.plus(stop + 0.07, y, 0.085)
            arrow(joined, (ends[row] + 0.04, y), (stop - 0.03, y), **SKIP)
            if f"{name}_crop" in maps and not here:
                crop = maps[f"{name}_crop"].size
                words = f"cropped to {crop}" if stop - ends[row] > 1.6 else f"to {crop}"
                if len(words) < 11 * (stop - ends[row]):
                    canvas.text((ends[row] + stop) / 2, y - 0.07, words, 10, va="bottom")
        for step, part in enumerate(("_a", ""), start=1):
            start, end = bar(name + part, column + step, row, (UP, maps[name].channels))
            convolve(name + part, right, start, row)
            right = end
    start, _ = bar("logits", columns - 1, 0, (ANSWER, maps["logits"].channels))
    convolve("logits", right, start, 0, **POINTWISE)
    if not here:
        _explain_unet(canvas, plan, top + step_down * depth + 1.18)


def _explain_unet(canvas: Canvas, plan: UNetPlan, top: float) -> None:
    """What the arrows and the numbers mean, in two rows."""
    normalized = {None: "", "batch": "batch norm, ", "group": "group norm, "}[plan.normalization]
    ups = {
        "transpose": "2 × 2 up-convolution: doubles the side",
        "interpolate": "bilinear × 2, 2 × 2 convolution",
    }
    entries = [
        ("right", CONVOLUTION, f"3 × 3 convolution, {normalized}ReLU"),
        ("down", POOL, "2 × 2 max pooling: halves the side"),
        ("up", CLIMB, ups[plan.up]),
        ("right", POINTWISE, "1 × 1 convolution: logits"),
        ("", {}, "above a feature map: channels; below: side"),
    ]
    if plan.skip != "none":
        crop = ", cropped" if "decoder_1_crop" in plan.maps else ""
        entries.insert(3, ("right", SKIP, f"skip{crop}: {SKIP_WORDS[plan.skip]}"))
    canvas.legend(entries, top)
