"""The slides of a lecture, composed: a short file names what is to be shown, and nothing is typed twice.

A chapter's `slides.md` holds slides with a line `---` between them. A slide is a heading, which says its message, some
Markdown, and lines that fetch something from the chapter's notebooks by the id of a cell:

    # Pooling keeps that a line is there and loses where
    @figure cell-12             the image of that cell (`@figure cell-12 2`: its second one), with the notebook's text
                                "Figure: …" for those who do not see it, or with one of its own: `@figure cell-12 | a cat`
    @code cell-11 3-8           lines 3 to 8 of its code
    @output cell-11             what it printed (lines as for code), or its table
    @verdict 7.3                the verdict on a claim, and its numbers, from `data/results`; of several claims a line each
    @widget threshold threshold the widget of that name, with one of its controls or two, as frames that need no kernel
    A sentence or two.
    @notes
    What the lecturer says.

`@title` makes a title slide, `@divider` one that begins a part, `@references` one whose text may be longer and smaller.
"""

import base64
import html
import io
import re
import textwrap
from functools import cache
from pathlib import Path

from course_lib.teaching import discovery, ledger, slides
from course_lib.teaching.course_map import FOLDER
from course_lib.teaching.guess import RESULT
from course_lib.teaching.slides import Block, Deck, Slide, SlidesError

MOST_WORDS, MOST_LINES, MOST_COLUMNS = 40, 8, 72
"""On a slide: words of text under the title, lines of code, and letters in a line of code or output."""
FRAMES = {1: 24, 2: 8}
"""Of a widget with one control or two: how many values of each at most."""
COMMANDS = ("title", "divider", "references", "figure", "code", "output", "verdict", "widget", "notes")


def sources() -> dict[str, Path]:
    """Chapter → its `slides.md`, for the chapters that have one."""
    return discovery.with_file("slides.md")


def read(path: Path, notebooks: list[Path] | None = None) -> Deck:
    """The slides that a file composes.

    Args:
        path: the `slides.md` of a chapter.
        notebooks: where its cells are; by default all of the chapter's number: 09, 09b and 09c.

    Raises:
        SlidesError: if the file names a cell, an output or a command that is not there; the message names the slide.
    """
    if notebooks is None:
        # The lecture of 09b may show cells of 09 too.
        number = re.match(r"ch(\d+|[A-Z])", path.parent.name)[1]
        notebooks = sorted(FOLDER.glob(f"{number}*.ipynb"))
    composer = _Composer(path, notebooks)
    parts = re.split(r"^---[ \t]*$", path.read_text(encoding="utf-8"), flags=re.M)
    found = [composer.slide(number, part) for number, part in enumerate(parts, start=1)]
    return Deck(slides._words(found[0].title), found, composer.warnings)


def problems(deck: Deck) -> list[str]:
    """What a composed deck has against the rules for a lecture, one sentence each."""
    found, before = list(deck.warnings), ""
    for number, slide in enumerate(deck.slides, start=1):
        where, title = f"slide {number}", slides._words(slide.title)
        if not title:
            found.append(f"{where} has no title; say its message")
        if title and title == before:
            found.append(f"{where} has the title of the one before: {title!r}")
        before = title
        if not slide.notes:
            found.append(f"{where} has no notes for the lecturer")
        text = " ".join(slides._words(block.html) for block in slide.blocks if block.kind == "text")
        words = len(text.split())
        if words > MOST_WORDS and "references-slide" not in slide.layout:
            found.append(f"{where} has {words} words; at most {MOST_WORDS}: {title!r}")
        lines = sum(block.html.count("\n") + 1 for block in slide.blocks if block.kind == "code")
        widest = max((len(line) for block in slide.blocks if block.kind in ("code", "output")
                      for line in slides._words(block.html).split("\n")), default=0)  # fmt: skip
        if widest > MOST_COLUMNS:
            found.append(f"{where} has a line of {widest} letters; at most {MOST_COLUMNS}: {title!r}")
        if lines > MOST_LINES:
            found.append(f"{where} has {lines} lines of code; at most {MOST_LINES}: {title!r}")
    return found


class _Composer:
    """Knows the cells that slides may name."""

    def __init__(self, path: Path, notebooks: list[Path]):
        self.path, self.warnings = path, []
        self.cells: dict[str, tuple] = {}
        for notebook in notebooks:
            reader = slides.reader(notebook)
            alternatives = reader._alternatives()
            for number, cell in enumerate(reader.cells, start=1):
                if cell["id"] in self.cells and cell["id"] != "colab":
                    raise SlidesError(
                        f"{notebook.name}: the cell id {cell['id']!r} occurs in another notebook too."
                    )
                self.cells[cell["id"]] = cell, alternatives.get(number, "")

    def slide(self, number: int, part: str) -> Slide:
        """One slide from its text."""
        where = f"{self.path.parent.name}/{self.path.name}, slide {number}"
        head, _, notes = (
            re.split(r"(^@notes[ \t]*$)", part, maxsplit=1, flags=re.M)
            if "@notes" in part
            else (part, "", "")
        )
        lines = head.strip().splitlines()
        if not lines or not lines[0].startswith("# "):
            raise SlidesError(f"{where}: it does not begin with '# ' and a title.")
        title = self._inline(lines[0][2:], where)
        layout, blocks, text = "talk", [], []

        def flush() -> None:
            if "".join(text).strip():
                blocks.extend(
                    Block("text", str(piece), number) for piece in self._markdown("\n".join(text), where)
                )
            text.clear()

        for line in lines[1:]:
            if not line.startswith("@"):
                text.append(line)
                continue
            command, *words = line[1:].partition("|")[0].split()
            if command not in COMMANDS:
                raise SlidesError(
                    f"{where}: there is no command @{command}; there are @{', @'.join(COMMANDS)}."
                )
            if command in ("title", "divider", "references"):
                layout += f" {command}-slide"
                continue
            flush()
            blocks.append(self._block(command, words, line.partition("|")[2].strip(), number, where))
        flush()
        begins = number == 1 or "divider" in layout
        shown = [str(piece) for piece in self._markdown(notes, where)] if notes.strip() else []
        return Slide(title, begins, False, "", blocks, notes=shown, cells=[number], layout=layout)

    def _block(self, command: str, words: list[str], alternative: str, number: int, where: str) -> Block:
        if command == "widget":
            return Block("frames", _frames(*words), number)
        if command == "verdict":
            return Block("output", f"<pre>{html.escape(_verdicts(words, where))}</pre>", number)
        if not words or words[0] not in self.cells:
            raise SlidesError(
                f"{where}: @{command} {' '.join(words)} names no cell of the chapter's notebooks."
            )
        (cell, own), rest = self.cells[words[0]], words[1:]
        alternative = alternative or own
        if command == "code":
            kept = _lines("".join(cell["source"]).rstrip().splitlines(), rest, where)
            return Block("code", slides._highlighted("\n".join(kept)), number)
        shown = [slides._output(output, alternative) for output in cell.get("outputs", [])]
        wanted = ("image",) if command == "figure" else ("output", "table")
        found = [each for each in shown if each and each[0] in wanted]
        place = int(rest[0]) if command == "figure" and rest else 1
        if not 1 <= place <= len(found):
            raise SlidesError(
                f"{where}: cell {words[0]} has {len(found)} of what @{command} asks for; run the notebook again."
            )
        kind, content = found[place - 1]
        if kind == "image" and not alternative:
            self.warnings.append(f"{where}: the image of {words[0]} has no text 'Figure: …' after it.")
        if kind == "output":
            inner = re.fullmatch(r"<pre>(.*)</pre>", content, re.S).group(1)
            lines = _lines(inner.split("\n"), rest, where) if rest else inner.split("\n")
            content = "<pre>" + "\n".join(map(_wrapped, lines)) + "</pre>"
        return Block(kind, content, number)

    def _markdown(self, text: str, where: str) -> list:
        cell = {"source": text, "attachments": {}}
        soup = slides._render(cell, self.path, 0, self.warnings)
        slides._lead_links(soup)
        if soup.find("img"):
            raise SlidesError(f"{where}: fetch an image with @figure from a cell.")
        return [child for child in soup.children if getattr(child, "name", None)]

    def _inline(self, text: str, where: str) -> str:
        (paragraph,) = self._markdown(text, where)
        return paragraph.decode_contents()


def _lines(lines: list[str], rest: list[str], where: str) -> list[str]:
    """Lines `3-8`, or line `3`, or all; what they all are indented by is taken away."""
    if rest:
        if not (found := re.fullmatch(r"(\d+)(?:-(\d+))?", rest[0])):
            raise SlidesError(f"{where}: {rest[0]!r} names no lines; write 3-8, or 3.")
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last <= len(lines):
            raise SlidesError(f"{where}: there are no lines {rest[0]}; there are {len(lines)}.")
        lines = lines[first - 1 : last]
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    return [line[min(indents, default=0) :] for line in lines]


def _verdicts(claims: list[str], where: str) -> str:
    if not claims:
        raise SlidesError(f"{where}: @verdict names no claim, such as 7.3.")
    try:
        found = [ledger.short_lines(ledger.read(claim)) for claim in claims]
    except FileNotFoundError as error:
        raise SlidesError(f"{where}: @verdict {' '.join(claims)}: {error}") from error
    return "\n".join(found[0] if len(found) == 1 else [lines[0] for lines in found])


def _wrapped(line: str) -> str:
    """What `guess` prints repeats a question, however long that is."""
    return textwrap.fill(line, MOST_COLUMNS, subsequent_indent="  ") if line.startswith(RESULT) else line


@cache
def _frames(name: str = "", *controls: str) -> str:
    """A widget as frames: an image for each value of its controls, and a slider for each control."""
    from course_lib.teaching import widgets

    where = f"@widget {' '.join((name, *controls))}"
    if len(controls) not in FRAMES:
        raise SlidesError(f"{where} names {len(controls)} controls; name one, or two.")
    try:
        live = getattr(widgets, name)()
        answers = live.frames(*controls, most=FRAMES[len(controls)])
    except (AttributeError, KeyError, TypeError) as error:  # some widgets need arguments
        raise SlidesError(f"{where}: there is no such widget or control ({error}).") from error
    images = "".join(
        f'<img src="data:image/webp;base64,{_webp(answer.drawing.png)}" '
        f'width="{answer.drawing.width}" height="{answer.drawing.height}" data-at="{" ".join(map(str, places))}" '
        f'alt="{html.escape(answer.words)}"{" hidden" if any(places) else ""}>'
        for places, answer in answers.items()
    )
    sliders = "".join(
        f'<label>{html.escape(live.controls[control].description)} <input type="range" min="0" max="{last}" '
        f'value="0" step="1"></label>'
        for control, last in zip(controls, max(answers), strict=True)
    )
    return f'<div class="frames">{images}{sliders}</div>'


def _webp(png: bytes) -> str:
    """The same image as WebP, without loss and at less than half of the bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(png)).save(file, "webp", lossless=True)
    return base64.b64encode(file.getvalue()).decode()
