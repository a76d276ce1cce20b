"""Tables that a notebook shows as HTML, and that are plain text everywhere else."""

import html
from collections.abc import Iterable, Sequence

CELL = "text-align:left;vertical-align:top"


class Table:
    """What a notebook shows as `page` and a terminal as `text`; both say the same."""

    def __init__(self, text: str, page: str) -> None:
        self.text, self.page = text, page

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.page


def html_table(columns: dict[str, int], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells that are HTML already, aligned to read.

    Args:
        columns: the name of each and its percentage of the width.
        rows: with a cell for each column.
    """
    head = "".join(
        f'<th style="{CELL};width:{percent}%">{html.escape(name)}</th>' for name, percent in columns.items()
    )
    body = "".join(
        "<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in row) + "</tr>" for row in rows
    )
    return f'<table style="width:100%"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def fold(summary: str, page: str) -> str:
    """HTML behind a line that opens it, without a kernel, too."""
    return f"<details><summary>{html.escape(summary)}</summary>{page}</details>"
