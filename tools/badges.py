"""Write the links that open a chapter on Colab, Codespaces or Binder, once the course has a public address.

Usage: python tools/badges.py OWNER/NAME [BRANCH], or python tools/badges.py --remove

The links go under the title of each notebook and into README's table of chapters. They are text: an image from a
server would be a broken image where there is no network. The site gets its own from SITE_REPOSITORY (docs/conf.py).
"""

import re
import sys
from pathlib import Path

from notebooks import ROOT, is_chapter, read, write

REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*)/[A-Za-z0-9._-]+")
LINE = re.compile(r"\n\n(?:\[[^]]+\]\(https://[^)]+\)(?: · )?)+(?=\n|$)")
ROW = re.compile(r"^\|[^\n]*\(notebooks/[\w-]+\.ipynb\)[^\n]*$", re.M)
NAMED = re.compile(r"(\[[^]]+\]\(notebooks/([\w-]+)\.ipynb\))(?: \(\[Colab\]\([^)]*\)\))?")


def links(repository: str, branch: str, notebook: str) -> dict[str, str]:
    """The addresses that open `notebooks/<notebook>.ipynb`, by what a link to them says."""
    path = f"notebooks/{notebook}.ipynb"
    return {
        "Open in Colab": f"https://colab.research.google.com/github/{repository}/blob/{branch}/{path}",
        "in Codespaces": f"https://codespaces.new/{repository}?quickstart=1",
        "in Binder": f"https://mybinder.org/v2/gh/{repository}/{branch}?labpath={path.replace('/', '%2F')}",
    }


def in_notebook(first: str, targets: dict[str, str]) -> str:
    """A notebook's first cell with the links under its title, in place of those that were there."""
    title, _, rest = first.partition("\n")
    rest = LINE.sub("", f"\n{rest}", count=1).removeprefix("\n")
    line = " · ".join(f"[{text}]({address})" for text, address in targets.items())
    return f"{title}\n\n{line}\n{rest}" if line else f"{title}\n{rest}"


def in_readme(text: str, repository: str, branch: str) -> str:
    """README with a link to Colab beside each notebook of the table of chapters."""

    def linked(found: re.Match) -> str:
        link = links(repository, branch, found[2])["Open in Colab"] if repository else ""
        return f"{found[1]} ([Colab]({link}))" if link else found[1]

    return ROW.sub(lambda row: NAMED.sub(linked, row[0]), text)


def main(arguments: list[str]) -> int:
    if arguments == ["--remove"]:
        repository, branch = "", ""
    elif 1 <= len(arguments) <= 2 and REPOSITORY.fullmatch(arguments[0]):
        repository, branch = arguments[0], (arguments[1:] or ["main"])[0]
    else:
        print(__doc__)
        return 2
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if is_chapter(path):
            notebook = read(path)
            first = notebook["cells"][0]
            first["source"] = in_notebook(
                first["source"], links(repository, branch, path.stem) if repository else {}
            )
            write(notebook, path)
    readme = Path(ROOT / "README.md")
    readme.write_text(in_readme(readme.read_text(encoding="utf-8"), repository, branch), encoding="utf-8")
    print(f"README and every chapter now {'open on ' + repository if repository else 'have no such links'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
