"""Guess first: a question takes the learner's number or choice, a later cell shows the result and how far off it was.

    from course_lib.teaching import guess
    q = guess("How many of the 40 cells will be found?", low=0, high=40)    # a field to type in
    q.reveal(found)         # in a later cell
    guess.summary()         # at the end of the chapter

Where no front end shows the field, the guess can be typed in code: `guess(..., answer=31)`. Nobody has to guess: `reveal`
then shows the result alone.
"""

import html
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from course_lib._checks import one_of
from course_lib.teaching import progress

RESULT = "Result: "
"""How the line begins that says a result."""
LOG_FROM = 100
"""If `high` is this many times `low`, or more, a guess is judged by the factor that it is off, not by the difference."""


@dataclass
class Guess:
    """A question, the guess once it is made, and the result once it is shown.

    Attributes:
        question: what is asked.
        choices: the answers to choose from; empty where a number is asked.
        low, high: the numbers that make sense; NaN where a choice is asked.
        unit: of the number, such as `"%"` or `"pixels"`.
        answer: the guess, or None.
        result: what `reveal` was given, or None.
    """

    question: str
    choices: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    answer: float | str | None = None
    result: float | str | None = None

    def take(self, answer: Any) -> None:
        """Take a guess, or another one instead; after `reveal` it stays as it is.

        Args:
            answer: one of the choices, or a number (also as text, `"1,200"`) from `low` to `high`.

        Raises:
            ValueError: if it is neither.
        """
        if self.result is None:
            self.answer = self._valid(answer)

    def reveal(self, value: Any) -> None:
        """Show the result, and beside the guess, if there is one, how far off it was.

        Args:
            value: the number, or the right one of the choices.

        Raises:
            ValueError: if it is none of the choices, or not a finite number.
        """
        if self.choices:
            self._valid(value)
        elif not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"value is {value!r}; it must be a finite number, the result of the question.")
        self.result = value if self.choices else float(value)
        print(f"{RESULT}{self._said(self.result)} ({self.label})")
        if self.answer is not None:
            print(f"Your guess: {self._said(self.answer)}, {self._compared()}")
            progress.guess(self.question, self.score)

    @property
    def label(self) -> str:
        """What the result is the result of: the question, without the sentences that lead to it."""
        sentences = re.split(r"(?<=[.?!]) (?=[A-Z(])", self.question)
        return next((one for one in reversed(sentences) if one.endswith("?")), sentences[-1])

    @property
    def score(self) -> float:
        """1 for a right guess, down to 0: for a number, 1 minus its distance as a fraction of the range."""
        if self.choices:
            return float(self.answer == self.result)
        guessed, true = self._scaled(self.answer), self._scaled(self.result)
        return max(0.0, 1 - abs(guessed - true) / (self._scaled(self.high) - self._scaled(self.low)))

    @property
    def _by_factor(self) -> bool:
        return self.low > 0 and self.high >= LOG_FROM * self.low

    def _scaled(self, number: float) -> float:
        return math.log(max(number, self.low)) if self._by_factor else number

    def _valid(self, answer: Any) -> float | str:
        if self.choices:
            return one_of("answer", answer, self.choices)
        try:
            number = float(answer.replace(",", "").strip(" %") if isinstance(answer, str) else answer)
        except (TypeError, ValueError):
            number = math.nan
        if not self.low <= number <= self.high:
            raise ValueError(f"answer is {answer!r}; it must be a number {self._range()}.")
        return number

    def _range(self) -> str:
        return f"from {self._said(self.low)} to {self._said(self.high)}"

    def _said(self, value: float | str) -> str:
        """A choice as it is; a number with as many digits as a person wants."""
        if self.choices:
            return value
        whole = float(value).is_integer() or abs(value) >= 1000
        number = f"{value:,.0f}" if whole else f"{value:.3g}"
        return f"{number}{'' if self.unit == '%' or not self.unit else ' '}{self.unit}"

    def _compared(self) -> str:
        if self.choices:
            return "which is right." if self.answer == self.result else "which is not right."
        if self._said(self.answer) == self._said(self.result):
            return "which is right."
        side = "high" if self.answer > self.result else "low"
        if self._by_factor and self.result > 0:
            factor = max(self.answer / self.result, self.result / self.answer)
            return f"too {side} by a factor of {factor:.2g}."
        return f"{self._said(abs(self.answer - self.result))} too {side}."

    @property
    def _asked(self) -> str:
        """The question as plain text, with what may be answered."""
        return f"Your guess: {self.question} ({' / '.join(self.choices) or self._range()})"

    def _show(self) -> None:
        """A field in a notebook whose front end has widgets; the question as text elsewhere."""
        ipython = sys.modules.get("IPython")
        shell = ipython.get_ipython() if ipython else None
        if shell is None or not hasattr(shell, "kernel"):
            print(self._asked)
            return
        from IPython.display import display

        plain = {"text/plain": self._asked}
        try:
            import ipywidgets
        except ImportError:
            display(plain, raw=True)
            return
        from course_lib.teaching.widgets import view_of

        display(view_of(self._field(ipywidgets)) | plain, raw=True)

    def _field(self, widgets: Any) -> Any:
        """The question, a field or buttons for the guess, and a line that says what was taken."""
        words = widgets.HTML(f"<b>{html.escape(self.question)}</b>")
        said = widgets.HTML()
        if self.choices:
            control = widgets.RadioButtons(options=self.choices, index=None, layout={"width": "max-content"})
            control.value = self.answer
        else:
            control = widgets.Text(
                value="" if self.answer is None else self._said(self.answer).removesuffix(self.unit).strip(),
                placeholder=self._range(),
                continuous_update=False,
            )

        def follow(change: Any) -> None:
            try:
                self.take(change["new"])
            except ValueError as problem:
                said.value = html.escape(str(problem))
            else:
                closed = self.result is not None
                said.value = "The result is known; your guess stays." if closed else "Taken."

        control.observe(follow, names="value")
        return widgets.VBox([words, control, said])


class Guesses:
    """All questions of a session, by their words: `guess` is the one object of it."""

    def __init__(self) -> None:
        self._asked: dict[str, Guess] = {}

    def __call__(
        self,
        question: str,
        *,
        low: float | None = None,
        high: float | None = None,
        choices: Sequence[str] = (),
        unit: str = "",
        answer: Any = None,
    ) -> Guess:
        """Ask for a guess. It never shows the result.

        Args:
            question: one sentence.
            low, high: the smallest and the largest number that make sense.
            choices: instead of numbers, at least two answers to choose from.
            unit: of the number, such as `"%"`.
            answer: the guess, typed in code.

        Returns:
            The question; call its `reveal` in a later cell.

        Raises:
            ValueError: if neither a range nor choices are given, or both, or if `answer` is none of them.
        """
        choices = tuple(choices)
        ranged = low is not None and high is not None and low < high
        if ranged == (len(choices) > 1) or len(set(choices)) < len(choices):
            raise ValueError(
                f"low is {low}, high is {high}, choices are {choices}; a guess must have either low < high "
                "or at least two different choices."
            )
        asked = Guess(question, choices, unit=unit)
        if ranged:
            asked.low, asked.high = float(low), float(high)
        if answer is not None:
            asked.take(answer)
        self._asked[question] = asked  # a cell that runs again asks again
        asked._show()
        return asked

    def summary(self) -> None:
        """Print how good the guesses of this session were: choices, numbers, the side on which they lie, a score."""
        known = [asked for asked in self._asked.values() if asked.result is not None]
        made = [asked for asked in known if asked.answer is not None]
        if not made:
            print(
                f"{len(known)} results, no guess of yours. Guess first, and this line says how good your guesses are."
            )
            return
        print(f"You guessed {len(made)} of {len(known)}.")
        chosen = [asked for asked in made if asked.choices]
        if chosen:
            by_chance = sum(1 / len(asked.choices) for asked in chosen)
            right = sum(asked.answer == asked.result for asked in chosen)
            print(f"Choices: {right} of {len(chosen)} right; blind guessing gives {by_chance:.1f}.")
        numbers = [asked for asked in made if not asked.choices]
        if numbers:
            off = sum(1 - asked.score for asked in numbers) / len(numbers)
            high = sum(asked.answer > asked.result for asked in numbers)
            low = sum(asked.answer < asked.result for asked in numbers)
            print(
                f"Numbers: off by {off:.0%} of the range on average; too high {high} times, too low {low} times."
            )
        print(f"Calibration score: {100 * sum(asked.score for asked in made) / len(made):.0f} of 100.")


guess = Guesses()
