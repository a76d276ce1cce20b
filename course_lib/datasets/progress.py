"""How far a long step is, on standard error: a bar on a terminal, elsewhere a line every tenth of the way."""

from __future__ import annotations

import sys
import time


def say(line: str) -> None:
    """One line on standard error, so that it never mixes with a command's output."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """How far a long step is; silent as long as the step might soon be done.

    Args:
        label: what is being done.
        total: how much there is to do, or `None` if nobody knows.
        unit: what is counted; `"bytes"` are shown as MB.
        show: `False` to say nothing at all.
    """

    DELAY = 1.0
    """Seconds that a step may take before anything is said about it."""

    def __init__(self, label: str, total: int | None, unit: str, show: bool = True):
        self.label, self.total, self.show = label, total, show
        self.scale, self.unit = (1e6, "MB") if unit == "bytes" else (1, unit)
        self.terminal = sys.stderr.isatty()
        self.start = self.drawn = time.monotonic()
        self.told = 0

    def update(self, done: int) -> None:
        """`done` of the total is done."""
        now = time.monotonic()
        if not self.show or now - self.start < self.DELAY:
            return
        if self.terminal:
            if now - self.drawn >= 0.1 or done == self.total:
                print(
                    f"\r{self.label} {self._bar(done)}{self._amount(done)}",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
                self.drawn, self.told = now, done
        elif (step := self._tenth(done)) > self.told:
            say(f"{self.label} {self._amount(done)}")
            self.told = step

    def close(self) -> None:
        """End the line that the bar stands on."""
        if self.terminal and self.told:
            say("")

    def _tenth(self, done: int) -> int:
        """How many tenths of the total are done; where nobody knows the total, how many times 10 MB."""
        return 10 * done // self.total if self.total else int(done / self.scale / 10)

    def _bar(self, done: int) -> str:
        if not self.total:
            return ""
        filled = 30 * done // self.total
        return f"[{'=' * filled}{' ' * (30 - filled)}] "

    def _amount(self, done: int) -> str:
        of = f" of {self.total / self.scale:.0f}" if self.total else ""
        return f"{done / self.scale:.0f}{of} {self.unit}"
