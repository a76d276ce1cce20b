"""Networks drawn from the live model: what is on the page is what is in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from course_lib.show.figures import COLOURS

if TYPE_CHECKING:
    import keras

STEP = 1.25
"""Distance between two rows of blocks, in the drawing's own unit: a full block is 0.74 high."""


@dataclass(frozen=True)
class Level:
    """One level of a U-Net as it was built: the layer's name, its output's side in pixels (`None` = any), its channels."""

    name: str
    side: int | None
    channels: int


def u_levels(model: keras.Model) -> tuple[list[Level], Level, list[Level]]:
    """The levels of a U-Net, read off the model: encoder from the top down, bottleneck, decoder from the top down.

    Raises:
        ValueError: if the model has no layers named as `models.unet` names them.
    """
    names = {layer.name for layer in model.layers}
    if "bottleneck" not in names:
        raise ValueError(
            f"model: {model.name!r} has no layer called 'bottleneck'; give a model that `unet` built."
        )

    def level(name: str) -> Level:
        shape = model.get_layer(name).output.shape
        return Level(name, shape[1], shape[-1])

    depth = sum(name.startswith("encoder_") and name.endswith("_pool") for name in names)
    return (
        [level(f"encoder_{k}") for k in range(1, depth + 1)],
        level("bottleneck"),
        [level(f"decoder_{k}") for k in range(1, depth + 1)],
    )


def draw_unet(model: keras.Model, width: float = 12.0):
    """The U of a U-Net: a block for each level with its size and channels, arrows down, up, and across the skips.

    Heights stand for the side of the feature map, widths for its channels, both on a logarithmic scale.

    Args:
        model: as `models.unet` builds it.
        width: of the figure in inches.

    Returns:
        The Matplotlib figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    encoder, bottleneck, decoder = u_levels(model)
    depth = len(encoder)
    figure, axis = plt.subplots(figsize=(width, 0.62 * width))
    most = max(level.channels for level in (*encoder, bottleneck, *decoder))

    def block(level: Level, x: float, row: int, colour: str) -> tuple[float, float]:
        wide, tall = 0.18 + 0.55 * np.log2(level.channels + 1) / np.log2(most + 1), height(row)
        y = -STEP * row
        axis.add_patch(
            Rectangle((x - wide / 2, y - tall / 2), wide, tall, facecolor=colour, edgecolor="black", lw=1)
        )
        side = "any" if level.side is None else f"{level.side}²"
        axis.text(x, y - tall / 2 - 0.04, f"{side} × {level.channels}", ha="center", va="top", fontsize=13)
        return wide / 2, tall / 2

    def height(row: int) -> float:
        return 0.74 - 0.42 * row / (depth + 1)

    def arrow(start: tuple[float, float], end: tuple[float, float], **style) -> None:
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "lw": 2, "color": "black"} | style)

    column = np.linspace(-2.6, -0.6, depth) if depth > 1 else np.array([-1.6])
    for row, (down, up, x) in enumerate(zip(encoder, decoder, column, strict=True)):
        y = -STEP * row
        half_down, _ = block(down, x, row, COLOURS[4])
        half_up, _ = block(up, -x, row, COLOURS[1])
        if any(layer.name == f"decoder_{row + 1}_skip" for layer in model.layers):
            arrow((x + half_down + 0.05, y), (-x - half_up - 0.05, y), color=COLOURS[0], lw=2.5)
            kind = type(model.get_layer(f"decoder_{row + 1}_skip")).__name__.lower()
            if row == 0:
                axis.text(0, 0.07, f"skip: {kind}", ha="center", va="bottom", fontsize=13, color=COLOURS[0])
        # From under this block's label to the top of the block below.
        bottom, top = y - height(row) / 2 - 0.27, y - STEP + height(row + 1) / 2 + 0.03
        below = -0.15 if row + 1 == depth else column[row + 1]
        arrow((x + 0.05, bottom), (below, top))
        arrow((-below, top), (-x - 0.05, bottom))
    block(bottleneck, 0.0, depth, COLOURS[2])
    floor = -STEP * depth
    axis.text(-3.1, floor, "encoder: pooling halves the side", fontsize=13, ha="left")
    axis.text(3.1, floor, "decoder: up-convolution doubles it", fontsize=13, ha="right")
    classes = model.output_shape[-1]
    axis.text(3.1, 0.5, f"1 × 1 convolution: {classes} logits", ha="right", fontsize=13)
    axis.text(-3.1, 0.5, "image", ha="left", fontsize=13)
    axis.set(xlim=(-3.2, 3.2), ylim=(floor - 0.55, 0.75))
    axis.axis("off")
    axis.set_title(f"{model.name}: {model.count_params():,} parameters")
    return figure
