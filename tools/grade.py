"""Grade exercise notebooks that were handed in: python tools/grade.py FOLDER OUT (--help lists the options)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course_lib.teaching import grading

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=grading.run.__doc__)
    grading.add_options(parser)
    sys.exit(grading.run(parser.parse_args()))
