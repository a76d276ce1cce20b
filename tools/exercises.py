"""Make the exercise notebooks from the solutions, run both, and check what is left.

Usage: python tools/exercises.py ACTION [SOLUTION ...], where ACTION is
- make: run the solutions, make the exercises from them, run those too;
- check: say which exercises are not what their solutions make of them.
"""

import sys
from pathlib import Path

import notebooks

sys.path.insert(0, str(notebooks.ROOT))

from course_lib.teaching import exercises


def main(arguments: list[str]) -> int:
    action, names = (arguments or ["check"])[0], arguments[1:]
    if action not in ("make", "check"):
        print(__doc__)
        return 2
    solutions = [Path(name).resolve() for name in names] or exercises.solutions()
    if action == "make":
        made = [path for solution in solutions if run(solution) for path in [exercises.make(solution)]]
        failed = len(solutions) - len(made) + sum(not run(path) for path in made)
        return 1 if failed else 0
    stale = [path.name for path in solutions if exercises.stale(path)]
    for name in stale:
        print(f"{name}: the exercise is not what the solution makes; python tools/exercises.py make")
    return 1 if stale else 0


def run(path: Path) -> bool:
    return notebooks.main(["run", str(path)]) == 0


if __name__ == "__main__":
    sys.exit(notebooks.until_interrupted(main))
