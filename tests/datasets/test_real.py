"""The three real sets: splits and labels of the archives themselves, and reading small ones made here."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from course_lib.datasets import archive, real
from course_lib.datasets.archive import ArchiveDamaged, SplitUnavailable
from course_lib.datasets.sample import boxes_from_instances, merge_masks
from course_lib.datasets.splits import checksum, membranes_split, split_of
from course_lib.recipes import CAMVID_WEIGHTS


@pytest.fixture(scope="module")
def unpacked(real_data, tmp_path_factory):
    """The real archives, with a cache of their own that the tests of this module share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_DATA", str(real_data))
        patch.setenv("COURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COURSE_MIRROR", "http://127.0.0.1:9")  # whoever downloads here makes a mistake
        yield real_data


def png(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def check(sample, channels: int, num_classes: int) -> None:
    """What every sample promises."""
    height, width = sample.semantic.shape
    assert sample.image.shape == (height, width, channels) and sample.image.dtype == np.float32
    assert sample.image.min() >= 0 and 0.01 < sample.image.max() <= 1
    assert sample.semantic.dtype == np.int32
    assert set(np.unique(sample.semantic)) <= set(range(-1, num_classes))
    assert sample.boxes.dtype == np.float32 and sample.boxes.shape == (len(sample.classes), 4)
    assert sample.classes.dtype == np.int32
    if sample.instances is not None:
        assert sample.instances.dtype == np.int32 and sample.instances.shape == (height, width)
        ids = np.unique(sample.instances)
        assert ids.max() == len(sample.classes) and len(ids[ids > 0]) == len(sample.classes)
        np.testing.assert_array_equal(sample.instances > 0, sample.semantic == 1)
        np.testing.assert_array_equal(sample.boxes, boxes_from_instances(sample.instances))


# Splits ----------------------------------------------------


def test_splits_are_those_that_everyone_reports_on():
    for name in (
        "00071198d059ba7f5914a526d124d28e6d010c92466da21d4a04cd5413362552",
        "a",
        "b",
        "c",
        "d",
        "e",
        "f",
    ):
        last = zlib.crc32(name.encode()) % 10
        assert checksum(name) == ("test" if last < 2 else "val" if last == 2 else "train")
        assert split_of("nuclei", f"stage1_train/{name}/masks/1.png") == checksum(name)
    assert [membranes_split(number) for number in (0, 19, 20, 23, 24, 29)] == ["train"] * 2 + ["val"] * 2 + [
        "test"
    ] * 2
    assert split_of("membranes", "data/membrane/train/label/23.png") == "val"
    assert split_of("camvid", "CamVid/testannot/x.png") == "test"
    assert split_of("camvid", "CamVid/test.txt") is None, "a list without its pictures is no split"


class TestBySource:
    """On made-up archives: an index is all that the split needs."""

    @pytest.fixture(autouse=True)
    def index(self, monkeypatch):
        sizes = {"train": [(8, 8), (8, 8), (6, 9)], "val": [(8, 8), (6, 9)]}

        class Packed:
            def __init__(self, name, split, classes, folder):
                kind = folder.parts[0]
                self.split, self._index = split, [(f"{kind}-{k}", *s, 0) for k, s in enumerate(sizes[kind])]

        monkeypatch.setattr(real.archive, "ensure", lambda name, split: Path(split))
        monkeypatch.setattr(Path, "is_dir", lambda self: True)
        monkeypatch.setattr(real, "_Packed", Packed)

    @pytest.mark.parametrize(
        ("split", "names"),
        [("train", ["train-0", "train-1"]), ("val", ["val-0"]), ("test", ["train-2"])],
    )
    def test_one_size_is_the_test_set_and_in_no_other(self, split, names):
        found = real.nuclei(split, held_out=(6, 9))
        assert [entry[0] for entry in found._index] == names and found.split == split

    def test_a_size_that_no_image_has(self):
        with pytest.raises(
            ValueError,
            match=r"held_out is \(7, 7\); it must be one of the sizes of the training images, \(6, 9\), \(8, 8\)",
        ):
            real.nuclei("train", held_out=(7, 7))


@pytest.mark.parametrize("load", [real.nuclei, real.membranes, real.camvid])
@pytest.mark.parametrize("split", ["validation", "Train", "", None])
def test_unknown_split(load, split):
    with pytest.raises(ValueError, match="it must be one of 'train', 'val', 'test'"):
        load(split)


def test_status_of_the_real_archives(unpacked):
    rows = {row["name"]: row for row in archive.status()}
    assert list(rows) == ["nuclei", "membranes", "camvid"]
    for row in rows.values():
        assert row["found"] == "COURSE_DATA" and row["problem"] is None
        assert {"train", "val"} <= set(row["splits"])


@pytest.mark.parametrize("load", [real.nuclei, real.membranes, real.camvid])
def test_a_split_that_the_archive_does_not_hold(unpacked, load, monkeypatch):
    held = {row["name"]: row["splits"] for row in archive.status()}
    if "test" in held[load.__name__]:
        pytest.skip("this archive holds the test split")
    monkeypatch.setattr(archive, "_unpack", lambda *_: pytest.fail("unpacked, although that cannot help"))
    with pytest.raises(SplitUnavailable, match="holds train and val, not test"):
        load("test")


def test_the_digests_cover_train_and_val_of_every_set():
    for name, counts in {"nuclei": (386, 49), "membranes": (40, 8), "camvid": (367, 101)}.items():
        splits = [split_of(name, path) for path in archive._pins(archive.archives()[name])]
        assert (splits.count("train"), splits.count("val")) == counts
        assert len(splits) == sum(counts)


# The real sets ----------------------------------------------------


@pytest.mark.slow
def test_nuclei(unpacked):
    nuclei = real.nuclei("val")
    assert len(nuclei) == 49 and nuclei.class_names == ("background", "nucleus") and nuclei.channels == 1
    names = [nuclei[index].name for index in range(len(nuclei))]
    assert names == sorted(set(names)) and {checksum(name) for name in names} == {"val"}
    for sample in nuclei:
        check(sample, 1, 2)
        assert (sample.classes == 1).all() and len(sample.classes) > 0
        assert sample.image.mean() < real.DARK / 255
    assert nuclei[-1].name == names[-1]
    with pytest.raises(IndexError):
        nuclei[49]


def test_nuclei_agree_with_the_mask_files(unpacked):
    """Held against the zip itself: the masks together are the semantic map, and each mask is one instance."""
    file = archive.archives()["nuclei"].file
    nuclei = real.nuclei("val")
    with zipfile.ZipFile(unpacked / file) as packed:
        for sample in (nuclei[0], nuclei[17], nuclei[48]):
            masks = []
            for name in packed.namelist():
                if f"/{sample.name}/masks/" in name:
                    with packed.open(name) as mask:
                        masks.append(np.asarray(Image.open(mask)) > 0)
            np.testing.assert_array_equal(np.any(masks, axis=0), sample.semantic == 1)
            assert len(masks) == len(sample.classes)
            for mask in masks:
                ids, sizes = np.unique(sample.instances[mask], return_counts=True)
                assert sizes.max() / mask.sum() > 0.9, "but for overlaps, the pixels of a mask carry one id"
                assert np.count_nonzero(sample.instances == ids[sizes.argmax()]) == sizes.max()


def test_nuclei_second_call_decodes_nothing(unpacked, monkeypatch):
    first = real.nuclei("val")[3]
    monkeypatch.setattr(real, "_read_nuclei", lambda folder: pytest.fail("decoded again"))
    again = real.nuclei("val")[3]
    assert again.name == first.name
    np.testing.assert_array_equal(again.image, first.image)
    np.testing.assert_array_equal(again.instances, first.instances)


def test_membranes(unpacked):
    train, val = real.membranes("train"), real.membranes("val")
    assert [sample.name for sample in val] == ["20", "21", "22", "23"]
    assert (len(train), train[0].name, train[19].name) == (20, "0", "19")
    assert val.class_names == ("membrane", "cell") and val.channels == 1
    for sample in val:
        check(sample, 1, 2)
        assert sample.image.shape == (512, 512, 1)
        assert 0.7 < sample.semantic.mean() < 0.85, "most of the tissue is cell"
        assert sample.image[sample.semantic == 0].mean() < sample.image[sample.semantic == 1].mean() - 0.1


def test_camvid(unpacked):
    train, val = real.camvid("train"), real.camvid("val")
    assert (len(train), len(val)) == (367, 101)
    assert train[0].name == "0001TP_006690" and val[0].name == "0016E5_07959"
    assert val.num_classes == 11 and val.class_names[8] == "car" and val.channels == 3
    pixels = np.zeros(12, int)
    for index in range(0, 101, 5):
        sample = val[index]
        check(sample, 3, 11)
        assert sample.image.shape == (360, 480, 3)
        assert sample.instances is None and sample.boxes.shape == (0, 4) and sample.classes.shape == (0,)
        pixels += np.bincount(sample.semantic.ravel() + 1, minlength=12)
    assert (pixels > 0).all(), "every class and the unlabelled pixels occur"
    road, sky = (
        np.mean(np.nonzero(val[0].semantic == val.class_names.index(name))[0]) for name in ("road", "sky")
    )
    assert road > sky, "the sky is above the road"


def test_camvid_at_half_size(unpacked):
    whole, half = real.camvid("val")[3], real.camvid("val", shrink=2)[3]
    check(half, 3, 11)
    assert half.image.shape == (180, 240, 3) and half.name == whole.name
    np.testing.assert_allclose(half.image[7, 11], whole.image[14:16, 22:24].mean((0, 1)), atol=1e-6)
    np.testing.assert_array_equal(half.semantic, whole.semantic[1::2, 1::2])


def test_camvid_with_a_drive_held_out(unpacked):
    train, val = (real.camvid(split, shrink=4, held_out="0006R0") for split in ("train", "val"))
    drives = [{sample.name.partition("_")[0] for sample in split} for split in (train, val)]
    assert drives == [{"0001TP", "0016E5"}, {"0006R0"}] and (len(train), len(val)) == (367, 101)
    assert train.fingerprint() != real.camvid("train", shrink=4).fingerprint()
    with pytest.raises(
        ValueError, match="held_out is '0006'; the drives of the training set are 0001TP, 0006R0"
    ):
        real.camvid("train", held_out="0006")


@pytest.mark.slow
def test_the_class_weights_for_camvid_are_counted_on_the_drives_that_are_trained_on(unpacked):
    counts = np.array(
        [
            np.bincount(one.semantic[one.semantic >= 0], minlength=11)
            for one in real.camvid("train", held_out="0006R0")
        ]
    )
    where = ((counts > 0) * counts.sum(1, keepdims=True)).sum(0)
    frequency = counts.sum(0) / where
    np.testing.assert_allclose(CAMVID_WEIGHTS, np.sqrt(np.median(frequency) / frequency), atol=0.051)


@pytest.mark.parametrize("shrink", [0, 7, 1.5, True, "2"])
def test_camvid_shrinks_by_divisors_only(shrink):
    with pytest.raises(ValueError, match="shrink is .*; it must be a whole number that divides 360 and 480"):
        real.camvid("val", shrink=shrink)


def test_camvid_reads_on_access(unpacked, monkeypatch):
    opened = []
    reading = real._open
    monkeypatch.setattr(real, "_open", lambda path: opened.append(path.name) or reading(path))
    val = real.camvid("val")
    assert opened == []
    val[7]
    assert len(opened) == 2


def test_a_file_that_is_lost_or_broken_says_what_to_do(unpacked):
    folder = archive.ensure("camvid") / "CamVid"
    lost, broken = folder / "val" / "0016E5_07961.png", folder / "valannot" / "0016E5_07963.png"
    kept = lost.read_bytes(), broken.read_bytes()
    val = real.camvid("val")
    try:
        lost.unlink()
        broken.write_bytes(kept[1][:200])
        for index in (1, 2):
            with pytest.raises(ArchiveDamaged, match="missing or unreadable. Delete the folder"):
                val[index]
    finally:
        lost.write_bytes(kept[0])
        broken.write_bytes(kept[1])


# Reading, on small pictures made here ----------------------------------------------------


def test_merge_masks_lets_the_smaller_one_keep_what_two_claim():
    large, small, hidden, empty = (np.zeros((6, 6), bool) for _ in range(4))
    large[:4, :4] = True
    small[2:5, 2:5] = True
    hidden[3, 3] = True
    merged, kept = merge_masks([small, empty, large, hidden], (6, 6))
    assert merged.dtype == np.int32
    assert merged[2, 2] == 1 and merged[0, 0] == 2 and merged[3, 3] == 3, "ids follow the order of the masks"
    assert kept.tolist() == [0, 2, 3]
    assert np.count_nonzero(merged == 1) == 8 and np.count_nonzero(merged == 2) == 12


def test_merge_masks_drops_one_that_is_covered():
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    other = np.zeros((3, 3), bool)
    other[0, 0] = True
    np.testing.assert_array_equal(np.unique(merge_masks([mask, other, mask], (3, 3))[0]), [0, 1, 2])
    assert not merge_masks([], (2, 3))[0].any()


def test_nuclei_leaves_out_what_is_no_fluorescence_image(tmp_path):
    def make(name, colour, alpha=255):
        pixels = np.full((8, 9, 4), (*colour, alpha), np.uint8)
        mask = np.zeros((8, 9), np.uint8)
        mask[2:4, 3:7] = 255
        png(tmp_path / name / "images" / f"{name}.png", pixels)
        png(tmp_path / name / "masks" / "1.png", mask)
        return real._read_nuclei(tmp_path / name)

    grey, instances = make("dark", (20, 20, 20))
    assert grey.shape == (8, 9) and (grey == 20).all()
    np.testing.assert_array_equal(boxes_from_instances(instances), [[3, 2, 7, 4]])
    assert make("tissue", (90, 40, 90)) is None
    assert make("bright", (128, 128, 128)) is None
    assert make("just_dark_enough", (127, 127, 127)) is not None


def small_camvid(tmp_path, monkeypatch, listing: str):
    folder = tmp_path / "CamVid"
    for name, label in (("a", 0), ("b", 11)):
        png(folder / "val" / f"{name}.png", np.full((4, 5, 3), 51, np.uint8))
        png(folder / "valannot" / f"{name}.png", np.full((4, 5), label, np.uint8))
    (folder / "val.txt").write_text(listing)
    (tmp_path / archive.MARKER).write_text("{}")
    monkeypatch.setattr(archive, "ensure", lambda name, split: tmp_path)
    return real.camvid("val")


@pytest.mark.parametrize("between", ["\n", " "], ids=["a line each", "one line"])
def test_camvid_reads_its_list_in_either_form(tmp_path, monkeypatch, between):
    pairs = [f"/SegNet/CamVid/val/{name}.png /SegNet/CamVid/valannot/{name}.png" for name in "ba"]
    val = small_camvid(tmp_path, monkeypatch, between.join(pairs) + "\n")
    assert [sample.name for sample in val] == ["b", "a"], "in the order of the list"
    assert (val[0].semantic == -1).all() and (val[1].semantic == 0).all()
    np.testing.assert_allclose(val[0].image, 0.2, rtol=1e-6)


def test_camvid_refuses_a_list_that_does_not_pair(tmp_path, monkeypatch):
    with pytest.raises(ArchiveDamaged, match=r"val\.txt"):
        small_camvid(tmp_path, monkeypatch, "/SegNet/CamVid/val/a.png")


def test_membrane_pieces_do_not_connect_over_a_corner(tmp_path, monkeypatch):
    label = np.full((4, 4), 255, np.uint8)
    label[2:, :2] = label[:2, 2:] = 0
    folder = tmp_path / "data" / "membrane" / "train"
    png(folder / "image" / "20.png", np.full((4, 4), 102, np.uint8))
    png(folder / "label" / "20.png", label)
    monkeypatch.setattr(archive, "ensure", lambda name, split: tmp_path)
    (sample,) = real.membranes("val")
    assert len(sample.boxes) == 2
    assert ndimage.label(sample.semantic, np.ones((3, 3)))[1] == 1, "over corners it would be one piece"
