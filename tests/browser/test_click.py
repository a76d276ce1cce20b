"""A click on the image of the probes' widget: the pixel below it arrives in the boxes for row and column."""

import numpy as np
import pytest

from course_lib.teaching import widgets
from course_lib.teaching.widgets.probes_canvas import LEFT, SIDE, TOP


@pytest.mark.parametrize("width", [900, 450])
def test_a_click_sets_row_and_column_and_says_so(browser, tmp_path, width):
    live = widgets.probes(
        np.zeros((48, 48, 3)), {"level": np.zeros((6, 6, 2))}, np.zeros((48, 48), int), ["a", "b"]
    )
    inputs = '<input type="number" value="0" onchange="changes.push(this.value)">' * 2
    page = tmp_path / "page.html"
    page.write_text(
        f'<script>changes = []</script><div class="widget-vbox" style="width: {width}px"><div>{inputs}</div>'
        f"<div>{live._picture.value}</div></div>",
        encoding="utf8",
    )
    browser.get(page.as_uri())

    def click(x: float, y: float) -> list[str]:
        """What has changed after a click at this place of the canvas, in its own pixels."""
        return browser.execute_script(
            """
            changes = [];
            const image = document.querySelector("img"), r = image.getBoundingClientRect();
            const [w, h] = [image.getAttribute("width"), image.getAttribute("height")];
            const s = Math.min(r.width / w, r.height / h);
            const clientX = r.left + (r.width - w * s) / 2 + arguments[0] * s;
            const clientY = r.top + (r.height - h * s) / 2 + arguments[1] * s;
            image.dispatchEvent(new MouseEvent("click", {clientX, clientY}));
            return changes;
            """,
            x,
            y,
        )

    unit = SIDE / 48
    assert click(LEFT + 30.5 * unit, TOP + 17.5 * unit) == ["17", "30"]
    assert click(LEFT + 0.5 * unit, TOP + 47.5 * unit) == ["47", "0"]
    assert click(LEFT + SIDE + 20, TOP + 20) == []  # beside the image
