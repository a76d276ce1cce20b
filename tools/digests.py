"""Carry the recipes' digests over a rename that changes no weights, such as another name for a network's argument.

    python tools/digests.py > before.json      # first
    python tools/digests.py before.json        # after it: rewrites the digests in data/, in files and names

Where the weights do depend on what was changed, train again instead.
"""

import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

from course_lib import chapters, recipes, resources
from course_lib.chapters.ch05_unet_vs_fcn import networks
from course_lib.chapters.ch06_mask_rcnn_components import roi


def digests() -> dict[str, str]:
    """A name for each recipe of the course and of its claims → the recipe's digest."""
    found = {name: recipe.digest for name, recipe in (recipes.RECIPES | recipes.FOR_A_GPU).items()}
    for module in pkgutil.walk_packages(chapters.__path__, "course_lib.chapters."):
        if module.name.rpartition(".")[2] != "exercises":
            for name, value in vars(import_module(module.name)).items():
                if isinstance(value, recipes.Recipe):
                    found[f"{module.name}.{name}"] = value.digest
    for name, recipe in networks.SETS.items():
        found |= {
            f"{name} {network}": networks.with_network(recipe, network).digest
            for network in networks.NETWORKS
        }
    return found | {"roi.variant": roi.variant().digest}


def main() -> None:
    now = digests()
    if len(sys.argv) < 2:
        print(json.dumps(now, indent=1))
        return
    before = json.loads(Path(sys.argv[1]).read_text(encoding="utf8"))
    pairs = {before[name]: now[name] for name in before if name in now and before[name] != now[name]}
    for path in sorted(resources.DATA.rglob("*")):
        if path.suffix == ".json":
            old = text = path.read_text(encoding="utf8")
            for one, other in pairs.items():
                text = text.replace(one, other)
            if text != old:
                path.write_text(text, encoding="utf8")
                print(path.relative_to(resources.DATA))
        for one, other in pairs.items():
            if one in path.name:
                path.rename(path.with_name(path.name.replace(one, other)))
                print(path.relative_to(resources.DATA), "renamed")


if __name__ == "__main__":
    main()
