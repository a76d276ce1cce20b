"""Which split an image of the real sets belongs to: fixed by its name, the same for everyone."""

import re
import zlib

SPLITS = ("train", "val", "test")


def checksum(name: str) -> str:
    """The split of a name, or of a group of names, by its checksum: 2 in 10 are test, 1 in 10 is val.

    The same name always falls into the same split: images that come later move none of the earlier ones.
    """
    return {0: "test", 1: "test", 2: "val"}.get(
        zlib.crc32(name.encode("utf-8", "surrogatepass")) % 10, "train"
    )


def membranes_split(slice_number: int) -> str:
    """The split of a membrane slice: neighbouring slices are similar, so the splits are runs of slices."""
    return "train" if slice_number < 20 else "val" if slice_number < 24 else "test"


def split_of(name: str, path: str) -> str | None:
    """The split that a file of an archive belongs to, or `None` where it belongs to none.

    Args:
        name: `"nuclei"`, `"membranes"` or `"camvid"`.
        path: the file's path inside the archive, its top folder left out.
    """
    if name == "nuclei" and (found := re.match(r"stage1_train/(\w+)", path)):
        return checksum(found[1])
    if name == "membranes" and (
        found := re.fullmatch(r"data/membrane/train/(?:image|label)/([0-9]{1,3})\.png", path)
    ):
        return membranes_split(int(found[1]))
    if name == "camvid" and (found := re.match(r"CamVid/(train|val|test)(annot)?/", path)):
        return found[1]
    return None
