"""What the widget of U-Net's shapes computes and draws: the whole U from the arguments alone, no network is built."""

import functools
import io
import re
import textwrap

from course_lib.teaching import drawings
from course_lib.teaching.widgets.canvas import DARK, ORANGE, SCALE, Answer, Canvas

WIDTH, HEIGHT = 900, 527


class Figure:
    """A Matplotlib figure as a widget shows it: drawn as SVG while a slider moves, as PNG only where one is asked for."""

    def __init__(self, figure):
        self._figure = figure
        self.width = WIDTH
        self.height = round(WIDTH * figure.get_figheight() / figure.get_figwidth())

    def markup(self, shows: str) -> str:
        """The figure as part of a page, with `shows` for those who do not see it."""
        svg = drawings.to_svg(self._figure, shows)
        size = f'width="{self.width}" height="{self.height}" role="img" style="max-width: 100%; height: auto"'
        return re.sub(r'width="[^"]*" height="[^"]*"', size, svg[svg.index("<svg") :], count=1)

    @functools.cached_property
    def png(self) -> bytes:
        """The figure as a PNG file, `SCALE` times as large as it is shown."""
        file = io.BytesIO()
        dots = SCALE * self.width / self._figure.get_figwidth()
        # Saved once, as in `markup`, a figure without a layout engine has the default one, which would move everything.
        self._figure.set_layout_engine("none")
        self._figure.savefig(file, format="png", dpi=dots, metadata={"Software": None})
        return file.getvalue()


def unet_answer(side: int, depth: int, padding: str, base_filters: int, skip: str) -> Answer:
    """The shapes of a U-Net for an image of one channel and two classes.

    Args:
        side: of the image, in pixels.
        depth, padding, base_filters, skip: as for `models.unet.unet`.

    Returns:
        The answer; its numbers are `fits`, and where that is true `output` and `bottleneck`, their sides, `channels` of
        the bottleneck, and `parameters`.
    """
    try:
        plan = drawings.unet_plan((side, side, 1), 2, base_filters, depth, padding, skip)
    except ValueError as problem:
        return Answer({"fits": False}, str(problem), _refused(side, str(problem)))
    bottom, output = plan.bottleneck, plan.maps["logits"].rows
    numbers = {
        "fits": True,
        "output": output,
        "bottleneck": bottom.rows,
        "channels": bottom.channels,
        "parameters": plan.parameters,
    }
    frame = (
        f"unpadded convolutions cost a frame of {(side - output) // 2} pixels on each side"
        if output < side
        else "padded convolutions keep the size"
    )
    words = (
        f"{side} × {side} pixels become {bottom.rows} × {bottom.rows} locations with {bottom.channels:,} channels at the "
        f"bottom, and {output} × {output} logits: {frame}. {plan.parameters:,} parameters."
    )
    return Answer(numbers, words, Figure(_closed(drawings.draw_unet(plan))))


def _closed(figure):
    """The figure, no longer kept open by pyplot, so that the notebook does not show it a second time."""
    import matplotlib.pyplot as plt

    plt.close(figure)
    return figure


def _refused(side: int, problem: str) -> Canvas:
    """The reason in place of a drawing, of the same size, so that the page does not jump."""
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.text(450, 190, f"{side} × {side} does not fit", 26, ORANGE, at="mm", bold=True)
    for row, line in enumerate(textwrap.wrap(problem, 80)):
        canvas.text(450, 240 + 28 * row, line, 16, DARK, at="mm")
    return canvas
