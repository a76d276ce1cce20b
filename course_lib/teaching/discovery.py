"""What the chapters bring, found by looking into `course_lib/chapters` and listed nowhere.

A chapter is a package `chNN_name`, such as `ch03_unet_encoder`; a part of one is `ch09b_…`, an appendix `chA_…`. Its
`exercises.py` holds `EXERCISES`, its `questions.json` the quiz and the cards; a function `claim_7_4` in any of its modules
measures claim 7.4.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from course_lib import resources

_FOLDER = resources.PACKAGE / "chapters"


def packages() -> Iterator[tuple[str, Path]]:
    """The number of each chapter, such as `"03"`, `"09b"` or `"A"`, and its folder, in order."""
    for folder in sorted(_FOLDER.glob("ch[0-9A-Z]*_*")):
        yield folder.name.partition("_")[0].removeprefix("ch"), folder


@cache
def with_module(name: str) -> dict[str, str]:
    """Chapter number → full name of its module `name`, for the chapters that have one."""
    return {
        number: f"course_lib.chapters.{folder.name}.{name}"
        for number, folder in packages()
        if (folder / f"{name}.py").is_file()
    }


@cache
def with_file(name: str) -> dict[str, Path]:
    """Chapter number → its file `name`, for the chapters that have one."""
    return {number: folder / name for number, folder in packages() if (folder / name).is_file()}


@cache
def claims() -> dict[str, str]:
    """Id of a claim, such as `"7.4"` → full name of the module that measures it, in the order of the ids."""
    found = {}
    for _, folder in packages():
        for path in sorted(folder.glob("*.py")):
            for chapter, number in re.findall(
                r"^def claim_(\d+)_(\d+)\(", path.read_text(encoding="utf8"), re.M
            ):
                found[f"{chapter}.{number}"] = f"course_lib.chapters.{folder.name}.{path.stem}"
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def module_of(claim: str) -> ModuleType:
    """The module that measures a claim.

    Raises:
        ValueError: if none does.
    """
    if claim not in claims():
        raise ValueError(f"claim is {claim!r}; there are experiments for {', '.join(claims())}.")
    return import_module(claims()[claim])
