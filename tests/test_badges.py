"""The links to Colab, Codespaces and Binder: written, written anew, and taken away again without a trace."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
spec = importlib.util.spec_from_file_location("badges", ROOT / "tools" / "badges.py")
badges = importlib.util.module_from_spec(spec)
spec.loader.exec_module(badges)

FIRST = (
    "# 3. The encoder\n\n*You will be able to* build one.\n\n[a paper](https://example.org/p) is cited here."
)


def test_links_are_written_replaced_and_removed():
    targets = badges.links("someone/course", "main", "03_unet_encoder")
    assert targets["Open in Colab"].endswith("/someone/course/blob/main/notebooks/03_unet_encoder.ipynb")
    once = badges.in_notebook(FIRST, targets)
    assert once.splitlines()[2].startswith("[Open in Colab](https://colab.")
    again = badges.in_notebook(once, badges.links("other/name", "v2", "03_unet_encoder"))
    assert again.count("colab.research") == 1 and "other/name/blob/v2" in again
    assert badges.in_notebook(again, {}) == FIRST


def test_each_row_of_the_table_of_chapters_gets_one_link():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    chapters = [path for path in (ROOT / "notebooks").glob("*.ipynb")]
    linked = badges.in_readme(text, "someone/course", "main")
    for path in chapters:
        assert linked.count(f"/someone/course/blob/main/notebooks/{path.name}") == 1, path.name
    assert badges.in_readme(linked, "other/course", "main").count("/other/course/") == len(chapters)
    assert badges.in_readme(linked, "", "") == text


def test_a_name_that_is_none_is_refused(capsys):
    assert badges.main(["https://example.org/someone/course"]) == 2
    assert "Usage" in capsys.readouterr().out
