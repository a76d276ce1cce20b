"""Build the static site of the course (`make site`): from committed outputs, without running a cell and without a network.

Puts the sources of Sphinx together in a temporary folder (pages of `docs/`, the notebooks, and pages made from the
glossary, the ledger of claims and the package), builds them, and adds the slides.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from course_lib.teaching import glossary, ledger, slides  # noqa: E402
from course_lib.teaching.course_map import CHAPTERS  # noqa: E402

# Not on the site: these pages are made here, or are for those who work on the course.
LIVE_VIEW = "application/vnd.jupyter.widget-view+json"


def page_of_notebook(path: Path) -> dict:
    """A notebook as the site shows it: code folded where the notebook folds it, no output that needs a kernel."""
    notebook = json.loads(path.read_text(encoding="utf8"))
    for cell in notebook["cells"]:
        metadata = cell["metadata"]
        if metadata.get("jupyter", {}).get("source_hidden") or "hide-input" in metadata.get("tags", []):
            metadata["tags"] = sorted({*metadata.get("tags", []), "hide-input"})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(LIVE_VIEW, None)
        # Links between the notebooks and to other files of the repository lead to pages of the site.
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            source = source.replace("](../docs/teaching.md", "](teaching.md").replace("](../notebooks/", "](")
            cell["source"] = source
    return notebook


def title_of_notebook(path: Path) -> str:
    """The first heading of a notebook."""
    for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
        if cell["cell_type"] == "markdown" and (found := re.match(r"# (.+)", "".join(cell["source"]))):
            return found.group(1).strip()
    raise ValueError(f"{path.name}: has no title; begin its first cell with '# '.")


def thumbnail(path: Path, target: Path) -> bool:
    """The last-but-largest picture of a notebook's first half as a small PNG; `False` where it has none."""
    import base64
    import io

    from PIL import Image

    found = []
    for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                found.append("".join(png))
    if not found:
        return False
    image = Image.open(io.BytesIO(base64.b64decode(max(found[: len(found) // 2 + 1], key=len)))).convert("RGB")
    image.thumbnail((480, 320))
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, optimize=True)
    return True


def chapters_page(source: Path) -> str:
    """The chapters as cards, each with an image of its own."""
    cards = []
    for chapter in CHAPTERS:
        path = ROOT / "notebooks" / f"{chapter.name}.ipynb"
        if not path.is_file():
            continue
        image = f"thumbnails/{chapter.name}.png"
        picture = (
            f":img-top: {image}\n:img-alt: A figure of the chapter\n" if thumbnail(path, source / image) else ""
        )
        cards.append(
            f":::{{grid-item-card}} {title_of_notebook(path)}\n:link: {chapter.name}\n:link-type: doc\n{picture}\n"
            f"{chapter.about[0].upper()}{chapter.about[1:]}.\n:::"
        )
    return "# Chapters\n\n::::{grid} 1 2 3 3\n:gutter: 3\n\n" + "\n\n".join(cards) + "\n::::\n"


def glossary_page() -> str:
    """The glossary as definitions with anchors."""
    lines = ["# Glossary", "", "```{glossary}"]
    for term in glossary.load():
        lines += [*(name for name in (term.term, *term.also)), f"  {term.means}", ""]
        if term.see:
            lines[-1:] = ["", f"  See also: {', '.join(term.see)}.", ""]
    return "\n".join([*lines, "```", ""])


def ledger_page() -> str:
    """The ledger of claims, from the files of results."""
    rows = []
    for path in sorted((ROOT / "data" / "results").glob("[0-9].[0-9].json")):
        result = ledger.read(path.stem)
        measured = "demonstration" if result.interval is None else str(result.interval)
        cells = (result.claim, result.statement, result.effect, measured, result.verdict)
        rows.append("* - " + "\n  - ".join(str(cell).replace("\n", " ") for cell in cells))
    head = "* - Claim\n  - Statement\n  - What was measured\n  - Mean [95 % interval]\n  - Verdict"
    return (
        "# What was measured\n\nEach textbook claim of the course, with what was measured and what follows from it. "
        "The command `python -m course_lib claims` prints this table; `--run 7.4` measures a claim again.\n\n"
        "```{list-table}\n:header-rows: 1\n:widths: 6 30 30 18 16\n\n" + "\n".join([head, *rows]) + "\n```\n"
    )


def api_page() -> str:
    """The reference: one section for each public module of the library."""
    modules = []
    for path in sorted((ROOT / "course_lib").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        inside = parts[1:-1] if parts[-1] == "__init__" else parts[1:]
        if not inside or any(part.startswith("_") for part in inside) or inside[0] in ("chapters", "teaching"):
            continue
        modules.append(".".join(("course_lib", *inside)))
    text = "# Reference\n\nEvery public module of the library, from its docstrings.\n\n```{toctree}\n:maxdepth: 1\n\n"
    return text + "\n".join(f"api/{name}" for name in modules) + "\n```\n", modules


def put_together(source: Path, titles: dict[str, str]) -> None:
    """Write the sources of the site into a folder."""
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns("build.py", "__pycache__"), dirs_exist_ok=True)
    for folder in ("", "exercises"):
        for path in sorted((ROOT / "notebooks" / folder).glob("*.ipynb")):
            name = f"exercises/{path.name}" if folder else path.name
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(json.dumps(page_of_notebook(path)), encoding="utf8")
    (source / "chapters.md").write_text(chapters_page(source), encoding="utf8")
    (source / "glossary.md").write_text(glossary_page(), encoding="utf8")
    (source / "claims.md").write_text(ledger_page(), encoding="utf8")
    page, modules = api_page()
    (source / "api.md").write_text(page, encoding="utf8")
    (source / "api").mkdir()
    for name in modules:
        (source / "api" / f"{name}.md").write_text(
            f"# `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n```\n", encoding="utf8"
        )
    terms = {name.lower(): term.means for term in glossary.load() for name in term.names}
    (source / "_static" / "terms.js").write_text(
        "window.courseTerms = " + json.dumps(terms, ensure_ascii=False) + ";\n", encoding="utf8"
    )
    decks = "\n".join(
        f"- <a href='slides/{chapter.name}.html'>{title_of_notebook(ROOT / 'notebooks' / f'{chapter.name}.ipynb')}</a>"
        for chapter in CHAPTERS
        if (ROOT / "notebooks" / f"{chapter.name}.ipynb").is_file()
    )
    (source / "slides.md").write_text(
        "# Slides\n\nEach chapter as slides: press `?` for the keys, `s` for the speaker's notes.\n\n" + decks + "\n",
        encoding="utf8",
    )


def build(out: Path) -> int:
    """Build the site into a folder; returns Sphinx's exit code."""
    from sphinx.cmd.build import build_main

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        put_together(source, {})
        code = build_main(["-b", "html", "-q", "-d", f"{folder}/doctrees", str(source), str(out)])
    if code == 0:
        for chapter in CHAPTERS:
            path = ROOT / "notebooks" / f"{chapter.name}.ipynb"
            if path.is_file():
                slides.write(slides.read(path), out / "slides" / f"{chapter.name}.html")
        print(f"The site is in {out.relative_to(ROOT) if out.is_relative_to(ROOT) else out.name}/index.html.")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="the folder to write to (default: site/)")
    sys.exit(build(parser.parse_args().out.resolve()))
