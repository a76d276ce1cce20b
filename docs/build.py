"""Build the static site of the course (`make site`): from committed outputs, without running a cell and without a network.

Puts the sources of Sphinx together in a temporary folder (pages of `docs/`, the notebooks, and pages made from the
glossary, the ledger of claims and the package), builds them, and adds the slides.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from course_lib.datasets import cells  # noqa: E402
from course_lib.teaching import glossary, ledger, questions, slides, statistics  # noqa: E402
from course_lib.teaching.course_map import CHAPTERS  # noqa: E402

NOTEBOOKS = [(chapter, path) for chapter in CHAPTERS for path in chapter.notebooks()]
LIVE_VIEW = "application/vnd.jupyter.widget-view+json"
RUNTIME = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page "Segment your own image" needs of onnxruntime-web."""
RUNTIME_VERSION = "1.30.0"
KEPT = ROOT / "build" / "site"
"""What takes long to make or comes from elsewhere, kept between builds."""
RECIPE = "unet-nuclei"


def page_of_notebook(path: Path) -> dict:
    """A notebook as the site shows it.

    Code is folded where the notebook folds it, outputs that need a kernel are left out, and a paragraph "Figure: …"
    becomes the alternative text of the image before it, as on the slides.
    """
    notebook = json.loads(path.read_text(encoding="utf8"))
    shown = []
    for cell in notebook["cells"]:
        metadata = cell["metadata"]
        if metadata.get("jupyter", {}).get("source_hidden"):
            metadata["tags"] = sorted({*metadata.get("tags", []), "hide-input"})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(LIVE_VIEW, None)
            for mime in output.get("data", {}).keys() & {"text/html", "application/javascript"}:
                output["data"][mime] = with_figures("".join(output["data"][mime]))
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            for found in re.findall(r"(?:^|\n\n)(Figure: .*?)(?=\n\n|$)", source, re.S):
                if shown and shown[-1]["cell_type"] == "code":
                    alt = " ".join(found.removeprefix("Figure: ").split())
                    shown[-1]["metadata"].setdefault("mystnb", {})["image"] = {"alt": alt}
                    source = source.replace(found, "").strip()
            if not source:
                continue
            cell["source"] = on_the_site(source)
        shown.append(cell)
    notebook["cells"] = shown
    return notebook


def with_figures(quiz: str) -> str:
    """A committed quiz with the figures of its questions, for which it has only the alternative text."""
    asked = {question.id: question for listed in questions.load().quiz.values() for question in listed}
    return re.sub(
        r"<em data-figure='([\w-]+)'>\[(.*?)\]</em>",
        lambda found: (
            f"<img src='{questions.data_uri(asked[found[1]])}' alt='{found[2]}' style='max-width: 100%'>"
        ),
        quiz,
    )


def on_the_site(text: str) -> str:
    """Markdown with its links to files of the repository leading to pages of the site."""
    return re.sub(r"\]\((?:\.\./)+(?:docs|notebooks)/", "](", text)


def title_of_notebook(path: Path) -> str:
    """The first heading of a notebook."""
    for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
        if cell["cell_type"] == "markdown" and (found := re.match(r"# (.+)", "".join(cell["source"]))):
            return found.group(1).strip()
    raise ValueError(f"{path.name}: has no title; begin its first cell with '# '.")


def thumbnail(path: Path, target: Path, side: int = 600) -> bool:
    """The richest figure of a notebook's first half as a small PNG; `False` where it has none."""
    figures = []
    for cell in json.loads(path.read_text(encoding="utf8"))["cells"]:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                figures.append("".join(png))
    if not figures:
        return False
    richest = max(figures[: len(figures) // 2 + 1], key=len)
    image = Image.open(io.BytesIO(base64.b64decode(richest))).convert("RGB")
    image.thumbnail((side, side))
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, optimize=True)
    return True


def chapters_page(source: Path) -> str:
    """The chapters as cards, each with an image of its own."""
    cards = []
    for chapter, path in NOTEBOOKS:
        image = f"thumbnails/{path.stem}.png"
        top = (
            f":img-top: {image}\n:img-alt: A figure of this chapter\n"
            if thumbnail(path, source / image)
            else ""
        )
        cards.append(
            f":::{{grid-item-card}} {title_of_notebook(path)}\n:link: {path.stem}\n:link-type: doc\n{top}\n"
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
        measured = (
            "demonstration"
            if result.is_demonstration
            else result.interval or statistics.missing_runs(result.missing)
        )
        if len(result.comparisons) > 1:
            measured = f"{measured} ({result.setting})"
        cells = (result.claim, result.statement, result.effect, measured, result.verdict)
        rows.append("* - " + "\n  - ".join(str(cell).replace("\n", " ") for cell in cells))
    head = "* - Claim\n  - Statement\n  - What was measured\n  - Mean [95 % interval]\n  - Verdict"
    return (
        "# What was measured\n\nEach textbook claim of the course, with what was measured and what follows from it. "
        "The command `python -m course_lib claims` prints this table; `--run 7.4` makes the runs that are missing.\n\n"
        "```{list-table}\n:header-rows: 1\n:widths: 6 30 30 18 16\n\n" + "\n".join([head, *rows]) + "\n```\n"
    )


def api_page() -> tuple[str, list[str]]:
    """The reference's front page, and the public modules of the library, a page each."""
    modules = []
    for path in sorted((ROOT / "course_lib").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        inside = parts[1:-1] if parts[-1] == "__init__" else parts[1:]
        if (
            not inside
            or any(part.startswith("_") for part in inside)
            or inside[0] in ("chapters", "teaching")
        ):
            continue
        modules.append(".".join(("course_lib", *inside)))
    text = "# Reference\n\nEvery public module of the library, from its docstrings.\n\n```{toctree}\n:maxdepth: 1\n\n"
    return text + "\n".join(f"api/{name}" for name in modules) + "\n```\n", modules


def runtime() -> Path | None:
    """The folder of onnxruntime-web's files; npm gets them the first time. `None` where that cannot be done here."""
    folder = KEPT / f"onnxruntime-web-{RUNTIME_VERSION}"
    if all((folder / name).is_file() for name in RUNTIME):
        return folder
    if not (npm := shutil.which("npm")):
        return None
    with tempfile.TemporaryDirectory() as place:
        command = [npm, "pack", f"onnxruntime-web@{RUNTIME_VERSION}", "--silent"]
        if subprocess.run(command, cwd=place, stdout=subprocess.DEVNULL).returncode:
            return None
        with tarfile.open(next(Path(place).glob("*.tgz"))) as archive:
            archive.extractall(place, filter="data")
        folder.mkdir(parents=True, exist_ok=True)
        for name in RUNTIME:
            shutil.move(Path(place) / "package" / "dist" / name, folder / name)
    return folder


def add_the_network(folder: Path) -> bool:
    """Put the network and what runs it in a browser into a folder; `False`, with a line, where that is not here.

    The ONNX file is kept in `build/`: it is made again when the weights change.
    """
    if (runs := runtime()) is None:
        print(
            "The page 'Segment your own image' is left out: npm, or a network, is needed once for onnxruntime-web."
        )
        return False
    weights = ROOT / "data" / "checkpoints" / RECIPE / "weights.npz"
    kept = KEPT / f"{RECIPE}-{hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}.onnx"
    sidecar = kept.with_name(kept.name + ".json")
    if not sidecar.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "course_lib",
            "export",
            RECIPE,
            "--format",
            "onnx",
            "--out",
            str(kept),
        ]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"KERAS_BACKEND": "tensorflow"}, check=True)
    folder.mkdir(parents=True)
    for name in RUNTIME:
        shutil.copy(runs / name, folder)
    shutil.copy(kept, folder / "model.onnx")
    described = json.loads(sidecar.read_text(encoding="utf8"))
    card = json.loads((weights.parent / "card.json").read_text(encoding="utf8"))
    model = {
        "file": "model.onnx",
        "sides_are_multiples_of": described["input"]["sides_are_multiples_of"],
        "thresholds": card.get("thresholds") or card["chosen"],
    }
    (folder / "model.json").write_text(json.dumps(model), encoding="utf8")
    example = cells("val", length=1, size=256, seed=7)[0].image[..., 0]
    Image.fromarray((255 * example).round().astype("uint8")).save(folder / "example.png")
    return True


def put_together(source: Path) -> None:
    """Write the sources of the site into a folder."""
    leave_out = shutil.ignore_patterns("build.py", "__pycache__")
    shutil.copytree(DOCS, source, ignore=leave_out, dirs_exist_ok=True)
    if not add_the_network(source / "_static" / "segment"):
        (source / "segment.md").unlink()
    teaching = source / "teaching.md"
    teaching.write_text(on_the_site(teaching.read_text(encoding="utf8")), encoding="utf8")
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
        # What a package only hands on is described where it stands.
        package = (ROOT / name.replace(".", "/")).is_dir()
        members = "" if package else "   :members:\n"
        (source / "api" / f"{name}.md").write_text(
            f"# `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n{members}```\n", encoding="utf8"
        )
    terms = {name.lower(): term.means for term in glossary.load() for name in term.names}
    (source / "_static" / "terms.js").write_text(
        "window.courseTerms = " + json.dumps(terms, ensure_ascii=False) + ";\n", encoding="utf8"
    )
    decks = "\n".join(
        f"- <a href='slides/{path.stem}.html'>{title_of_notebook(path)}</a>" for _, path in NOTEBOOKS
    )
    (source / "slides.md").write_text(
        "# Slides\n\nEach chapter as slides: press `?` for the keys, `s` for the speaker's notes.\n\n"
        + decks
        + "\n",
        encoding="utf8",
    )


def lead_to_pages(out: Path) -> None:
    """Let the links of outputs, which name a notebook and a heading as JupyterLab does, lead to pages of the site."""
    from docutils.nodes import make_id

    def page(found: re.Match) -> str:
        return f'href="{found[1]}.html{"#" + make_id(unquote(found[2])) if found[2] else ""}"'

    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf8")
        changed = re.sub(
            r'href="(?:[./]*notebooks/)?([\w/]*(?:\d\d[a-z]?|[A-Z])_\w+)\.ipynb(?:#([^"]*))?"', page, text
        )
        if changed != text:
            path.write_text(changed, encoding="utf8")


def build(out: Path) -> int:
    """Build the site into a folder; returns Sphinx's exit code."""
    from sphinx.cmd.build import build_main

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        put_together(source)
        made = Path(folder) / "html"  # MyST-NB leaves a folder of images beside it
        code = build_main(["-b", "html", "-q", "-d", f"{folder}/doctrees", str(source), str(made)])
        if code == 0:
            shutil.copytree(made, out, dirs_exist_ok=True)
    if code == 0:
        lead_to_pages(out)
        for _, path in NOTEBOOKS:
            slides.write(slides.of_chapter(path), out / "slides" / f"{path.stem}.html")
        print(f"The site is in {out.relative_to(ROOT) if out.is_relative_to(ROOT) else out.name}/index.html.")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--fetch", action="store_true", help="only get what comes from elsewhere, for later builds"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "site", help="the folder to write to (default: site/)"
    )
    options = parser.parse_args()
    sys.exit(runtime() is None if options.fetch else build(options.out.resolve()))
