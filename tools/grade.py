"""Grade exercise notebooks that were handed in: python tools/grade.py FOLDER OUT (--help lists the options)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course_lib.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["grade", *sys.argv[1:]]))
