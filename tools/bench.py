"""Run the timings of benchmarks/ one after the other, then print one table of them all (`make bench`).

Reads from the environment: BENCH (which, default all), BENCH_ARGS (more arguments for each of them).
"""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))


def scripts() -> dict[str, Path]:
    """The benchmarks, by name."""
    return {path.stem: path for path in sorted((ROOT / "benchmarks").glob("[a-z]*.py"))}


def main() -> int:
    known = scripts()
    wanted = os.environ.get("BENCH", "").split() or list(known)
    if unknown := set(wanted) - set(known):
        print(f"BENCH: there is no {', '.join(sorted(unknown))}; choose from {' '.join(known)}.")
        return 2
    failed, begun = [], time.time()
    for name in wanted:
        print(f"\n--- {name} ---", flush=True)
        command = [sys.executable, str(known[name]), *shlex.split(os.environ.get("BENCH_ARGS", ""))]
        if subprocess.run(command, cwd=ROOT).returncode:
            failed.append(name)

    from _shared import RESULTS, lines

    print("\n--- All, the ratio first: the course's time over the other's, below 1 is quicker ---")
    for name in wanted:
        path = RESULTS / f"bench-{name.replace('_', '-')}.json"
        if name in failed or not path.is_file():
            print(f"{name}: FAILED")
            continue
        content = json.loads(path.read_text(encoding="utf8"))
        if path.stat().st_mtime < begun:
            print(f"{name}: not measured now; these are older numbers")
        print(f"{name} ({content['machine']['processor']}, {content['machine']['cores']} cores)")
        print("\n".join(lines(content["rows"])))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
