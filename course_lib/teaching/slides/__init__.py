"""A notebook as slides: one HTML file that holds all it needs and asks the network for nothing.

    from course_lib.teaching import slides
    deck = slides.read(Path("notebooks/03_unet_encoder.ipynb"))
    slides.write(deck, Path("slides/03_unet_encoder.html"))

The slide types of the cells say what is a slide, as in JupyterLab: `slide` begins a section, `subslide` the next slide in
it, `fragment` appears with the next key on the same slide, `-` with the cell before, `notes` is for the speaker and `skip`
is left out. A code cell tagged `hide-input` shows its output only; the key `c` shows its code. A paragraph that begins with
"Figure:" is the alternative text of the image before it and is read out instead of shown; so is `alt` in the metadata of
the cell that makes the image.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from course_lib.files import disk_name, in_words, replacing, write_atomically
from course_lib.teaching.course_map import FOLDER

HERE = Path(__file__).resolve().parent
SLIDE_TYPES = ("slide", "subslide", "fragment", "-", "notes", "skip")
HIDE_CODE = "hide-input"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
MATHML = "http://www.w3.org/1998/Math/MathML"
# Outputs that are nothing without a kernel or a script of their own, when there is no other form of them.
LIVE_ONLY = re.compile(r"^<[\w.]+(?: object)?[^>]*>$|^\w+\(.*\)$", re.S)
# The HTML that markdown may hold; what else looks like a tag is shown as it is written.
PLAIN_TAG = re.compile(r"</?(?:b|br|details|em|i|kbd|strong|sub|summary|sup)\s*/?>|<!--.*?-->", re.I | re.S)
# What a table may hold that a cell shows.
TABLE_TAGS = set("a b br code em i img small span strong sub sup table tbody td th thead tr".split())
TABLE_ATTRIBUTES = {"alt", "colspan", "height", "href", "rowspan", "src", "width"}
# How much of a table is put on one slide: lines, and the letters of a line over its whole width.
LINES_OF_TABLE, LETTERS_OF_TABLE = 19, 120


class SlidesError(ValueError):
    """A notebook that cannot become slides; the message names the cell and what to do."""


class _Unreadable(ValueError):
    """An image that no page could show, and why."""


@dataclass
class Block:
    """A piece of a slide that is placed as one.

    Attributes:
        kind: text, code, output, table or image.
        html: what is shown.
        cell: which cell it comes from, counted from 1.
        step: how many keys have to be pressed on this slide until it appears.
    """

    kind: str
    html: str
    cell: int
    step: int = 0


@dataclass
class Slide:
    """One slide.

    Attributes:
        title: its heading as HTML; empty where no cell before it has one.
        begins: whether it begins a section (slide type `slide`).
        continued: whether its title is that of the slide before.
        section: the heading of its section, without markup.
        blocks: what is on it, in reading order.
        sources: the code that is not shown, as HTML.
        notes: what only the speaker sees, as HTML.
        cells: the cells it is made of, counted from 1.
        layout: how it looks, as names of CSS classes; `talk` for the slides of a composed lecture.
    """

    title: str
    begins: bool
    continued: bool
    section: str
    blocks: list[Block] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    layout: str = ""


@dataclass
class Deck:
    """The slides of a notebook, and what could not be shown as it should be (one sentence each)."""

    title: str
    slides: list[Slide]
    warnings: list[str]


def chapters(names: Iterable[str] = (), folder: Path = FOLDER) -> list[Path]:
    """The notebooks of these names: paths, or the numbers or file names of chapters; all chapters for no name.

    `06` is the whole chapter; `06b` is its second notebook alone.

    Raises:
        SlidesError: if there is no such notebook, or two of the same file name, whose slides would overwrite each other.
    """
    known = sorted(folder.glob("[0-9A-Z]*_*.ipynb"))
    if not names:
        return known
    paths = []
    for name in map(str, names):
        found = [
            path
            for path in known
            if name in (path.name[:2], path.stem.partition("_")[0], path.stem, path.name)
        ]
        if not found and Path(name).is_file():
            found = [Path(name)]
        if not found:
            raise SlidesError(
                f"there is no notebook {name!r}; give a path or a chapter: "
                f"{', '.join(p.stem.partition('_')[0] for p in known)}."
            )
        paths += [path for path in found if path not in paths]
    stems = [disk_name(path.stem) for path in paths]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise SlidesError(f"two notebooks are called {twice[0]!r}; their slides would overwrite each other.")
    return paths


def read(path: Path) -> Deck:
    """The slides of a notebook with the outputs it holds; nothing is run.

    Raises:
        SlidesError: if the file is no notebook, a slide type is unknown, or no cell has one.
    """
    return reader(path).deck()


def reader(path: Path) -> _Reader:
    """What goes through a notebook's cells.

    Raises:
        SlidesError: if the file is no notebook.
    """
    nbformat = _needed("nbformat")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nbformat's own notes, such as on cells without an id
            notebook = nbformat.read(path, as_version=4)
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        nbformat.ValidationError,
    ) as error:
        raise SlidesError(f"{path}: not a notebook that can be read ({type(error).__name__}).") from error
    return _Reader(path, notebook)


def of_chapter(path: Path, reading: bool = False) -> Deck:
    """The lecture that a chapter composes in its `slides.md`; the notebook cut into slides where it has none.

    Args:
        path: the notebook.
        reading: the notebook cut into slides in any case.
    """
    from course_lib.teaching.slides import composed

    source = None if reading else composed.sources().get(path.stem.partition("_")[0])
    return composed.read(source) if source and path.resolve().parent == FOLDER.resolve() else read(path)


def write(deck: Deck, path: Path) -> None:
    """Write the slides as one HTML file, whole or not at all; an existing file is replaced."""
    write_atomically(path, page(deck).encode("utf-8", "replace"))  # half a surrogate pair is no text


def print_pdf(path: Path) -> Path:
    """Print a file of slides, a page for each, with Chromium; returns the PDF, which lies beside it.

    Raises:
        SlidesError: if no browser is here, or if it fails.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SlidesError(f"--pdf needs a browser, and there is none of {', '.join(BROWSERS)} here.")
    target = path.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile, replacing(target) as unfinished:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += [
            "--no-pdf-header-footer",
            f"--print-to-pdf={unfinished.resolve()}",
            path.resolve().as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300)
        except subprocess.TimeoutExpired:
            raise SlidesError(f"{path}: {browser} did not print it within 5 minutes.") from None
        if done.returncode or not unfinished.is_file():
            raise SlidesError(f"{path}: {browser} could not print it: {done.stderr.strip()[-200:]}")
    return target


def page(deck: Deck) -> str:
    """The HTML of a deck. Its own policy forbids it the network, and every script but the one that shows the slides."""
    style = (HERE / "deck.css").read_text(encoding="utf-8")
    script = (HERE / "deck.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    title = html.escape(deck.title)
    sections = "\n".join(map(_section, deck.slides))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{sections}
<div class="foot"><span>{title}</span><span id="section"></span><span id="place"></span></div><div class="done"></div>
</main>
<script>{script}</script>
</body>
</html>
"""


def _section(slide: Slide) -> str:
    """One slide's HTML."""
    classes = ["slide"] + ["begins"] * slide.begins + slide.layout.split()
    level = "h1" if slide.cells[:1] == [1] else "h2"
    if level == "h1":
        classes.append("opening")
    continued = " continued" if slide.continued else ""
    parts = [
        f'<section class="{" ".join(classes)}" aria-roledescription="slide" data-title="{_plain(slide.title)}" '
        f'data-section="{html.escape(slide.section)}" data-cells="{" ".join(map(str, slide.cells))}">'
    ]
    if slide.title:
        parts.append(f'<{level} class="title{continued}">{slide.title}</{level}>')
    blocks = []
    for block in slide.blocks:
        step = f' data-step="{block.step}"' if block.step else ""
        blocks.append(
            f'<div class="block {block.kind}" data-kind="{block.kind}" data-cell="{block.cell}"{step}>{block.html}</div>'
        )
    parts.append(f'<div class="body">{"".join(blocks)}</div>')
    if slide.sources:
        parts.append(f'<div class="sources">{"".join(slide.sources)}</div>')
    parts.append(f'<aside class="notes">{"".join(slide.notes)}</aside></section>')
    return "\n".join(parts)


class _Reader:
    """Goes through a notebook's cells from top to bottom and collects slides."""

    def __init__(self, path: Path, notebook):
        self.path, self.cells = path, notebook["cells"]
        self.slides: list[Slide] = []
        self.warnings: list[str] = []
        self.section = self.title = ""

    def deck(self) -> Deck:
        """All slides; `warnings` says what is not as it should be."""
        types = [_slide_type(cell) for cell in self.cells]
        if not any(types):
            raise SlidesError(
                f"{self.path.name}: no cell has a slide type; choose them in JupyterLab, in the property inspector."
            )
        for number, kind in enumerate(types, start=1):
            if kind not in (*SLIDE_TYPES, None, ""):
                raise SlidesError(
                    f"{self.path.name}, cell {number}: there is no slide type {kind!r}; "
                    f"choose from {', '.join(SLIDE_TYPES)}."
                )
        number = 0
        try:
            alternatives = self._alternatives()
            for number, (cell, kind) in enumerate(zip(self.cells, types, strict=True), start=1):
                if kind == "skip" or not "".join(cell["source"]).strip():
                    continue
                if kind == "notes":
                    # Folded in JupyterLab, out of the student's way; the speaker reads them open.
                    open_ = re.sub(r"<summary>(.*?)</summary>\s*", r"*\1* ", "".join(cell["source"]))
                    cell = {**cell, "source": re.sub(r"</?details>\n?", "", open_)}
                    self._slide().notes += [str(piece) for piece in self._markdown(cell, number)]
                    continue
                self._add(cell, number, kind or "-", alternatives.get(number, ""))
        except SlidesError:
            raise
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            OSError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            where = f"cell {number}" if number else "a cell"
            if isinstance(error, OSError) and error.filename:
                raise SlidesError(f"{self.path.name}, {where}: {in_words(error)}") from error
            raise SlidesError(
                f"{self.path.name}, {where}: its outputs or metadata are not what a notebook holds "
                f"({type(error).__name__}); clear the cell's outputs and run it again."
            ) from error
        slides = [slide for slide in self.slides if slide.blocks or (slide.title and not slide.continued)]
        title = next((_words(slide.title) for slide in slides if slide.title), self.path.stem)
        return Deck(title, slides, self.warnings)

    def _slide(self) -> Slide:
        """The slide that is being filled; the first one begins by itself."""
        if not self.slides:
            self.slides.append(Slide("", True, False, ""))
        return self.slides[-1]

    def _add(self, cell, number: int, kind: str, alternative: str) -> None:
        """Put a cell on the slide, or on a new one."""
        from_markdown = cell["cell_type"] == "markdown"
        pieces = self._markdown(cell, number) if from_markdown else []
        if from_markdown:
            pieces = [piece for piece in pieces if not _figure_text(piece.get_text())]
        first = not any(slide.cells for slide in self.slides)
        early = self._slide().notes if first else []  # notes may stand before the first slide
        new = first or kind in ("slide", "subslide")
        if new:
            own = pieces[0].decode_contents() if pieces and pieces[0].name in ("h1", "h2", "h3") else ""
            if own:
                pieces = pieces[1:]
            if kind != "subslide":
                self.section = _words(own)
            self.slides = [slide for slide in self.slides if slide.cells]
            self.slides.append(
                Slide(own or self.title, kind != "subslide", not own, self.section, notes=early)
            )
            self.title = own or self.title
        slide = self._slide()
        slide.cells.append(number)
        last = slide.blocks[-1].step if slide.blocks else 0
        step = 0 if new else last + (kind == "fragment")
        blocks = [Block("text", str(piece), number) for piece in pieces]
        if not from_markdown:
            blocks = self._code(cell, number, alternative, slide)
        for block in blocks:
            block.step = step
            if block.kind != "table":
                slide.blocks.append(block)
                continue
            part, *others = _parts_of_table(block.html)
            slide.blocks.append(Block("table", part, number, step))
            for part in others:  # a long table goes on over the next slides
                slide = Slide(
                    self.title, False, True, self.section, [Block("table", part, number)], cells=[number]
                )
                self.slides.append(slide)

    def _code(self, cell, number: int, alternative: str, slide: Slide) -> list[Block]:
        """The blocks of a code cell: its code, unless it is tagged, and its outputs."""
        source = "".join(cell["source"]).rstrip()
        blocks = []
        if cell["cell_type"] == "raw":
            return [Block("output", f"<pre>{html.escape(source)}</pre>", number)]
        if HIDE_CODE in (cell["metadata"].get("tags") or []):
            slide.sources.append(_highlighted(source))
        else:
            blocks.append(Block("code", _highlighted(source), number))
        for output in cell.get("outputs", []):
            try:
                shown = _output(output, alternative or f"image made by code cell {number}")
            except _Unreadable as error:
                where = f"{self.path.name}, cell {number}"
                raise SlidesError(
                    f"{where}: the image in its output cannot be read ({error}); run the cell again."
                ) from error
            if not shown:
                continue
            kind, content = shown
            if kind == "image" and not alternative:
                self.warnings.append(
                    f"{self.path.name}, cell {number}: an image without a text 'Figure: …' after it."
                )
            blocks.append(Block(kind, content, number))
        return blocks

    def _markdown(self, cell, number: int) -> list:
        """The top-level elements of a markdown cell, its formulas as MathML and its images inside."""
        soup = _render(cell, self.path, number, self.warnings)
        _lead_links(soup)
        for image in soup.find_all("img"):
            if not image.get("src", "").startswith("data:"):
                raise SlidesError(
                    f"{self.path.name}, cell {number}: the image {image.get('src')!r} is not in the file; "
                    "attach it to the cell or draw it in a code cell."
                )
        return [child for child in soup.children if getattr(child, "name", None)]

    def _alternatives(self) -> dict[int, str]:
        """For the number of each code cell the text that stands for its image: `alt` in the cell's metadata, or else the
        next paragraph "Figure: …"."""
        found, waiting = {}, []
        for number, cell in enumerate(self.cells, start=1):
            if cell["cell_type"] == "code":
                if isinstance(text := cell["metadata"].get("alt"), str):
                    found[number] = text
                elif any("image/" in " ".join(output.get("data", {})) for output in cell.get("outputs", [])):
                    waiting = [number]
            elif cell["cell_type"] == "markdown" and waiting:
                for paragraph in re.split(r"\n\s*\n", "".join(cell["source"])):
                    if text := _figure_text(paragraph):
                        found.update(dict.fromkeys(waiting, text))
                        waiting = []
        return found


def _slide_type(cell):
    """The slide type of a cell; nothing where its metadata hold none, whatever they hold instead."""
    settings = cell["metadata"].get("slideshow")
    return settings.get("slide_type") if isinstance(settings, dict) else None


def _figure_text(paragraph: str) -> str:
    """What a paragraph "Figure: …" or "*Figure (…): …*" says; empty for any other."""
    match = re.fullmatch(r"\s*\*?Figure(?: \([^)]*\))?: (.*?)\*?\s*", paragraph, re.S)
    return re.sub(r"\s+", " ", match.group(1)) if match else ""


def _needed(name: str):
    """A module of the course's `lab` extra."""
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise SlidesError(
            f"slides need {missing}, which is not installed; `make lab` installs it."
        ) from error


def _render(cell, path: Path, number: int, warnings: list[str]):
    """A markdown cell as parsed HTML."""
    beautiful = _needed("bs4")
    mistune = _needed("nbconvert.filters.markdown_mistune")

    class Renderer(mistune.IPythonRenderer):
        """As JupyterLab shows markdown, but for formulas and for HTML, of which only plain tags are let through."""

        def inline_math(self, body):
            return self._formula(body, "inline")

        def block_math(self, body):
            return self._formula(body, "block")

        def latex_environment(self, name, body):
            return self._formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

        def block_html(self, source):
            return f"<div>{_harmless(source)}</div>\n"

        def inline_html(self, source):
            return _harmless(source)

        def _formula(self, body, display):
            try:
                return formula(html.unescape(body), display)
            except ValueError as error:
                warnings.append(f"{path.name}, cell {number}: {error}")
                return f"<code>{html.escape(html.unescape(body))}</code>"

    renderer = Renderer(
        escape=False,
        embed_images=True,
        exclude_anchor_links=True,
        path=str(path.parent),
        attachments=cell.get("attachments", {}),
    )
    try:
        text = mistune.MarkdownWithMath(renderer=renderer).render("".join(cell["source"]))
    except mistune.InvalidNotebook as error:
        raise SlidesError(f"{path.name}, cell {number}: {error}.") from error
    return beautiful.BeautifulSoup(text, "html.parser")


def formula(tex: str, display: str = "inline") -> str:
    """A formula in TeX as MathML, which browsers set by themselves.

    Args:
        tex: the formula without its dollar signs.
        display: `inline` or `block`.

    Raises:
        ValueError: if the formula holds a command that is not known, or is not well formed.
    """
    convert = _needed("latex2mathml.converter").convert
    sentence = f"the formula {tex.strip()!r} cannot be set"
    braces = re.findall(r"(?<!\\)[{}]", tex)
    if braces.count("{") != braces.count("}"):
        raise ValueError(f"{sentence}: its braces do not match.")
    try:
        root = ElementTree.fromstring(convert(tex.strip(), display=display))
    except Exception as error:  # the converter has a class for each of its complaints, and so has the parser
        raise ValueError(f"{sentence} ({type(error).__name__}).") from error
    for element in root.iter():
        text = element.text or ""
        if text.startswith("\\"):
            raise ValueError(f"{sentence}: there is no command {text}.")
        if not element.tag.endswith("}mtext") and "$" in text:
            raise ValueError(f"{sentence}: it holds a dollar sign.")
        # The converter takes ± for a name, and names stand closer than operators.
        if element.tag.endswith("}mi") and text in "±∓×÷" and text:
            element.tag = element.tag.replace("}mi", "}mo")
    ElementTree.register_namespace("", MATHML)
    root.set("aria-label", tex.strip())
    return ElementTree.tostring(root, encoding="unicode")


def _harmless(source: str) -> str:
    """HTML in which plain tags without attributes are tags and everything else is text."""
    parts, end = [], 0
    for match in PLAIN_TAG.finditer(source):
        tag = "" if match.group().startswith("<!--") else match.group()
        parts += [html.escape(source[end : match.start()], quote=False), tag]
        end = match.end()
    return "".join([*parts, html.escape(source[end:], quote=False)])


def _highlighted(source: str) -> str:
    """Python code as HTML, coloured."""
    pygments = _needed("pygments")
    lexers, formatters = _needed("pygments.lexers"), _needed("pygments.formatters")
    coloured = pygments.highlight(source, lexers.PythonLexer(), formatters.HtmlFormatter(nowrap=True))
    return f"<pre>{coloured.rstrip()}</pre>"


def _output(output, alternative: str) -> tuple[str, str] | None:
    """An output's kind and HTML; nothing for what shows nothing."""
    forms = output.get("data", {}).items()
    data = {mime: "".join(content) for mime, content in forms if not isinstance(content, dict)}
    for mime in ("image/png", "image/jpeg", "image/svg+xml"):
        if mime in data:
            asked = output.get("metadata", {}).get(mime, {})
            return "image", _image(mime, data[mime], alternative, asked.get("width"))
    if output["output_type"] == "stream":
        text = "".join(output["text"])
    elif output["output_type"] == "error":
        text = "\n".join(output.get("traceback", [])) or f"{output['ename']}: {output['evalue']}"
    else:
        if re.match(r"\s*<table\b", data.get("text/html", "")):
            return "table", _table(data["text/html"])
        text = data.get("text/plain", "")
        if LIVE_ONLY.match(text.strip()):
            return None
    # What a progress bar has overwritten is gone; what colours it had are kept.
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip().split("\n"))
    if not text.strip():
        return None
    return "output", f"<pre>{_needed('nbconvert.filters.ansi').ansi2html(text)}</pre>"


def _table(source: str) -> str:
    """A table that a cell shows, without anything that is not text or an image inside the page."""
    soup = _needed("bs4").BeautifulSoup(source, "html.parser")
    for element in soup.find_all(True):
        if element.name not in TABLE_TAGS or (
            element.name == "img" and not element.get("src", "").startswith("data:")
        ):
            element.decompose()
        else:
            element.attrs = {key: value for key, value in element.attrs.items() if key in TABLE_ATTRIBUTES}
    _lead_links(soup)
    return str(soup.table)


def _parts_of_table(source: str) -> list[str]:
    """A table in as many parts as it takes for each to fit on a slide, the head repeated in each."""
    soup = _needed("bs4").BeautifulSoup(source, "html.parser")
    rows = [row for row in soup.find_all("tr") if row.parent.name != "thead"]
    lengths = [
        [len(cell.get_text(" ")) for cell in row.find_all(["td", "th"], recursive=False)] for row in rows
    ]
    # A column is about as wide as its longest cell asks for; a letter is about half as wide as it is high.
    wanted = [min(max(column), 80) + 4 for column in zip(*lengths, strict=False)]
    letters = [LETTERS_OF_TABLE * width / sum(wanted) for width in wanted]
    parts, used = [[]], 0.0
    for row, cells in zip(rows, lengths, strict=True):
        lines = max(
            (math.ceil(length / room) for length, room in zip(cells, letters, strict=False)), default=1
        )
        lines += 0.4 + 0.6 * bool(row.find("img")) + 0.6 * len(row.find_all("br")) / max(len(cells), 1)
        if parts[-1] and used + lines > LINES_OF_TABLE:
            parts.append([])
            used = 0.0
        parts[-1].append(str(row))
        used += lines
    head = str(soup.thead or "")
    return [f"<table>{head}<tbody>{''.join(part)}</tbody></table>" for part in parts]


def _lead_links(soup) -> None:
    """Let links to notebooks lead to their slides, which lie beside these; take away those into this machine's files."""
    for link in soup.find_all("a"):
        target = link.get("href", "")
        if chapter := re.fullmatch(r"((?:\d\d[a-z]?|[A-Z])_\w+)\.ipynb(?:#.*)?", target):
            link["href"] = chapter[1] + ".html"
        elif not re.match(r"https?://", target):
            link.unwrap()


def _image(mime: str, content: str, alternative: str, asked: float | None = None) -> str:
    """An image inside the page, with its size, so that a slide is arranged before it is drawn. The size is the image's
    own, unless the notebook asks for another width: with more pixels than it takes, an image is sharp on any screen."""
    from PIL import Image

    if mime == "image/svg+xml":
        box = re.search(r'viewBox="[\d.-]+[ ,]+[\d.-]+[ ,]+(\d+\.?\d*)[ ,]+(\d+\.?\d*)"', content)
        width, height = map(float, box.groups()) if box else (800, 450)
        content = base64.b64encode(content.encode()).decode()
    else:
        content = re.sub(r"\s", "", content)
        try:
            width, height = Image.open(io.BytesIO(base64.b64decode(content, validate=True))).size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise _Unreadable("it is damaged or larger than Pillow opens") from error
    if not (0 < width < 1e6 and 0 < height < 1e6):
        raise _Unreadable(f"its size is {width:g} x {height:g}")
    if isinstance(asked, (int, float)) and 0 < asked < 1e5:
        width, height = asked, height * asked / width
    return (
        f'<img src="data:{mime};base64,{content}" width="{width:.0f}" height="{height:.0f}" '
        f'alt="{html.escape(alternative)}">'
    )


def _words(markup: str) -> str:
    """HTML without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", markup)).strip()


def _plain(markup: str) -> str:
    """HTML without its tags, for an attribute."""
    return html.escape(_words(markup))
