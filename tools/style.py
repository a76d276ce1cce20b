"""The checks of style: lint and format, the import contracts, spelling, and the words of texts that people read."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

COMMANDS = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "--quiet", "."],
    "import contracts": [
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
        "--no-cache",
    ],
    "codespell": ["-m", "codespell_lib", "course_lib", "docs", "tests", "tools", "benchmarks", "README.md"],
}

# A word that the field does not use in that sense → what it says instead. The number is how often the word may stand in
# all texts together, in a sense that is meant (to share, a net of edges); it only ever falls.
WORDS = {
    r"pictures?": ("image", 5),
    r"nets?": ("network, model", 5),
    r"shares?": ("fraction, percentage (as a noun)", 15),
    r"truth": ("ground truth", 3),
    r"answers?": ("prediction, output (of a network)", 35),
    r"dials?|screws?|timid|summits?": ("parameter, under-confident, peak", 2),
    r"the notes|the notes'": ("the claim itself, or 'textbook claim'", 2),
}
NOT_COUNTED = re.compile(r"ground[ -]truth|u-net|`[^`]*`|https?://\S+", re.I)


def texts() -> dict[str, str]:
    """What people read, by file: the Markdown of the notebooks, the pages of the documentation."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("**/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf8"))["cells"]
        found[str(path.relative_to(ROOT))] = "\n".join(
            "".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"
        )
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        found[str(path.relative_to(ROOT))] = path.read_text(encoding="utf8")
    return found


def discouraged(found: dict[str, str]) -> dict[str, dict[str, int]]:
    """Each discouraged word with the number of times it stands in each text."""
    counts = {}
    for pattern in WORDS:
        of_word = {}
        for name, text in found.items():
            if number := len(re.findall(rf"\b(?:{pattern})\b", NOT_COUNTED.sub(" ", text), re.I)):
                of_word[name] = number
        counts[pattern] = of_word
    return counts


def complaints(counts: dict[str, dict[str, int]]) -> list[str]:
    """A sentence for each word that stands more often than it may."""
    found = []
    for pattern, of_word in counts.items():
        instead, allowed = WORDS[pattern]
        if sum(of_word.values()) > allowed:
            most = sorted(of_word, key=of_word.get, reverse=True)[:4]
            places = ", ".join(f"{name} ({of_word[name]})" for name in most)
            found.append(
                f"/{pattern}/ stands {sum(of_word.values())} times, {allowed} allowed; say: {instead}. Most in {places}"
            )
    return found


def main() -> int:
    failed = []
    for name, command in COMMANDS.items():
        if subprocess.run([sys.executable, *command], cwd=ROOT).returncode:
            failed.append(name)
    if found := complaints(discouraged(texts())):
        print("\n".join(found))
        failed.append("words")
    print(f"Style: {'failed: ' + ', '.join(failed) if failed else 'all good'}.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
