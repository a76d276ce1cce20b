"""Print the installed versions as constraints, one `name==version` a line (`make constraints`)."""

import re
from importlib.metadata import distributions

OWN = {"segmentation-course", "pip", "setuptools", "wheel"}
# PyTorch and what CUDA brings depend on the machine, not on the course.
OPTIONAL = re.compile(r"^(torch|triton|nvidia-.*|cuda-.*|jax-cuda.*)$")
# The same release under two names: a machine has one, the next machine may need the other.
TWINS = "tensorflow", "tensorflow-cpu"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Canonical name -> version of every distribution here that others can install in that version."""
    found = {}
    for distribution in distributions():
        name, version = canonical(distribution.metadata["Name"]), distribution.version
        if name not in OWN and not OPTIONAL.match(name) and "+" not in version:
            found[name] = version
    for name in TWINS:
        other = TWINS[1 - TWINS.index(name)]
        if other in found:
            found.setdefault(name, found[other])
    return found


if __name__ == "__main__":
    print("# Made by `make constraints`: the versions that the course is tested with.")
    for name, version in sorted(pins().items()):
        print(f"{name}=={version}")
