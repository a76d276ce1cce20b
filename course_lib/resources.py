"""The locations of the files that the library reads: weights, results, manifests, notebooks."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""The folder of this package."""

PROJECT = PACKAGE.parent
"""The folder that holds the notebooks, in a checkout; in an installed package, `site-packages`."""

# A checkout has `data/` beside the package; a wheel carries it inside.
DATA = PROJECT / "data" if (PROJECT / "data" / "archives.json").is_file() else PACKAGE / "data"
"""Checkpoints, results of the claims, manifests of the archives, outlines of the photographs."""

CHECKOUT = DATA.parent == PROJECT
"""Whether this is a checkout, into whose `data/` the course's own results are written."""

RUNS = (PROJECT if CHECKOUT else Path.cwd()) / "runs"
"""Where trainings are kept: in the checkout, else in the folder where Python was started; never inside the package."""

NOTEBOOKS = PROJECT / "notebooks"
"""The notebooks, in a checkout."""
