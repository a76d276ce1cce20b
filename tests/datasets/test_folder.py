"""One's own pictures: ten of them with two broken ones, each way in which a file can be wrong, and hostile JSON."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from course_lib import datasets, recipes
from course_lib.datasets import FolderProblems, cells, check_coco, check_folder, coco, folder, reading, scenes
from course_lib.datasets.checked import ALL, assign
from course_lib.datasets.coco_json import decode_runs
from course_lib.datasets.loading import Batches
from course_lib.datasets.splits import checksum
from course_lib.segmenter import Segmenter
from course_lib.tasks import Borders, Objects

CELL = ("background", "cell")
DRAWN = cells("train", length=10, size=(48, 64), seed=9)
LISTS = {"train": [f"cell-{k}" for k in range(7)], "val": [f"cell-{k}" for k in range(7, 10)]}


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def grey(image):
    return np.rint(image[..., 0] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    place = tmp_path_factory.mktemp("drawn") / "mine"
    for k, sample in enumerate(DRAWN):
        save(place / "images" / f"cell-{k}.png", grey(sample.image))
        save(place / "labels" / f"cell-{k}.png", sample.semantic.astype(np.uint8))
        save(place / "objects" / f"cell-{k}.png", sample.instances.astype(np.uint16))
    return place


@pytest.fixture
def mine(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "mine")


def said(report):
    """file → what is wrong with it."""
    return {problem.file: problem.what for problem in report.problems}


# Ten pictures -------------------------------------------------------------------------------------------------


def test_sound_files_come_out_as_they_went_in(mine):
    everything = folder("all", mine, CELL, channels=1, splits=LISTS)
    assert everything.report.problems == () and everything.report.sound == len(everything) == 10
    assert everything.names == tuple(sample.name for sample in everything)
    for sample, drawn in zip(everything, DRAWN, strict=True):
        np.testing.assert_array_equal(sample.image, drawn.image)
        np.testing.assert_array_equal(sample.semantic, drawn.semantic)
        assert sample.semantic.dtype == np.int32 and sample.image.dtype == np.float32
        assert sample.instances is None and sample.boxes.shape == (0, 4) and sample.classes.shape == (0,)
    expected = sum(np.bincount(drawn.semantic.ravel(), minlength=2) for drawn in DRAWN)
    np.testing.assert_array_equal(everything.report.pixels, expected)
    assert everything.num_classes == 2 and everything.channels == 1 and everything.name == "mine"


def test_objects_come_out_as_they_went_in(mine):
    found = folder("all", mine, CELL, kind="instances", labels="objects", channels=1, splits=LISTS)
    for sample, drawn in zip(found, DRAWN, strict=True):
        np.testing.assert_array_equal(sample.instances, drawn.instances)
        np.testing.assert_array_equal(sample.semantic, drawn.semantic)
        np.testing.assert_array_equal(sample.boxes, drawn.boxes)
        np.testing.assert_array_equal(sample.classes, drawn.classes)


def test_of_ten_pictures_the_two_broken_ones_are_named_with_what_is_wrong(mine):
    label = np.asarray(Image.open(mine / "labels" / "cell-3.png"))
    save(mine / "labels" / "cell-3.png", label[:-8])
    label = np.array(Image.open(mine / "labels" / "cell-6.png"))
    label[:2, :6] = 7
    save(mine / "labels" / "cell-6.png", label)

    with pytest.raises(FolderProblems) as caught:
        folder("train", mine, CELL, channels=1, splits=LISTS)
    message = str(caught.value)
    assert "mine: 10 images, 2 problems" in message
    assert "labels/cell-3.png: is 40 × 64 pixels (height × width), its image 48 × 64. Export" in message
    assert "labels/cell-6.png: holds the label 7 (12 pixels), but with 2 class names" in message
    assert "skip=True" in message and str(mine) not in message
    assert len(caught.value.report.problems) == 2

    left = folder("all", mine, CELL, channels=1, splits=LISTS, skip=True)
    assert len(left) == 8 and not {"cell-3", "cell-6"} & set(left.names)
    assert (
        left.report.problems
        == caught.value.report.problems
        == check_folder(mine, CELL, splits=LISTS).problems
    )


def test_every_kind_of_fault_is_found_in_one_go(mine):
    images, labels = mine / "images", mine / "labels"
    (labels / "cell-0.png").unlink()
    (images / "cell-1.png").unlink()
    colour = np.zeros((48, 64, 3), np.uint8)
    save(labels / "cell-2.png", colour)
    save(labels / "cell-3.jpg", np.zeros((48, 64), np.uint8))
    (labels / "cell-3.png").unlink()
    whole = (images / "cell-4.png").read_bytes()
    (images / "cell-4.png").write_bytes(whole[: len(whole) // 2])
    (labels / "cell-5.png").write_bytes(b"no picture")
    save(images / "cell-6.tif", np.zeros((48, 64), np.uint8))
    (images / "cell-7.png").write_bytes(b"")
    save(labels / "cell-8.png", np.zeros((64, 48), np.uint8))
    shutil.copy(images / "cell-9.png", images / "again.png")
    shutil.copy(labels / "cell-9.png", labels / "again.png")
    (images / "notes.txt").write_text("x")
    (images / ".DS_Store").write_text("x")
    lists = {"train": ["cell-9", *(f"cell-{k}" for k in (2, 3, 4, 5, 6, 7, 8))], "val": ["again"]}

    report = check_folder(mine, CELL, channels=1, splits=lists)
    wrong = said(report)
    assert "has no label" in wrong["images/cell-0.png"]
    assert "belongs to no image" in wrong["labels/cell-1.png"]
    assert "holds colours (RGB)" in wrong["labels/cell-2.png"]
    assert "is a JPEG, which" in wrong["labels/cell-3.jpg"]
    assert "cannot be decoded" in wrong["images/cell-4.png"]
    assert "cannot be read as an image" in wrong["labels/cell-5.png"]
    assert "has the same name as cell-6.png" in wrong["images/cell-6.tif"]
    assert "is empty (0 bytes)" in wrong["images/cell-7.png"]
    assert "is 64 × 48" in wrong["labels/cell-8.png"]
    assert any("EXIF" in problem.fix for problem in report.problems)
    assert "is pixel by pixel the same image, in train, as again is, in val" in wrong["cell-9"]
    assert len(wrong) == len(report.problems) == 10
    assert report.notes[0] == "images/: not read, no image: notes.txt"
    assert report.splits == {"train": (), "val": ("again",), "test": ()}, "what is scored stays"


# Labels -------------------------------------------------------------------------------------------------------


def one(tmp_path, label, ending=".png", **arguments):
    """A folder of one grey picture with this label file's picture, read."""
    place = tmp_path / "one"
    size = label.size[::-1] if isinstance(label, Image.Image) else label.shape
    save(place / "images" / "a.png", np.full(size, 90, np.uint8))
    (place / "labels").mkdir(parents=True)
    (label if isinstance(label, Image.Image) else Image.fromarray(label)).save(
        place / "labels" / f"a{ending}"
    )
    return folder("train", place, ("sky", "road", "car"), splits={"train": ["a"]}, **arguments)


IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def test_a_palette_is_read_as_indices_not_colours(tmp_path):
    label = Image.fromarray(IDS).convert("P")
    label.putdata(IDS.ravel().tolist())
    label.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    np.testing.assert_array_equal(one(tmp_path, label)[0].semantic, IDS)


@pytest.mark.parametrize("ending", [".png", ".tif", ".PNG"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_formats(tmp_path, ending, dtype):
    np.testing.assert_array_equal(one(tmp_path, IDS.astype(dtype), ending)[0].semantic, IDS)


def test_black_and_white_in_one_bit(tmp_path):
    np.testing.assert_array_equal(one(tmp_path, IDS > 0)[0].semantic, IDS > 0)


def test_a_value_to_ignore(tmp_path):
    label = np.where(IDS == 2, 255, IDS).astype(np.uint8)
    data = one(tmp_path, label, ignore=255)
    np.testing.assert_array_equal(data[0].semantic, np.where(IDS == 2, -1, IDS.astype(int)))
    assert data.report.ignored == 2 and data.report.pixels.tolist() == [2, 2, 0]
    assert "no pixel of the class car (2) anywhere" in data.report.notes


def test_other_values_than_ids(tmp_path):
    data = one(tmp_path, (IDS * 100).astype(np.uint8), values={0: 2, 100: 1, 200: 0})
    np.testing.assert_array_equal(data[0].semantic, 2 - IDS)


@pytest.mark.parametrize(
    ("label", "arguments", "what", "fix"),
    [
        ((IDS > 0).astype(np.uint8) * 255, {}, "the label 255 (4 pixels)", "values={0: 0, 255: 1}"),
        (np.where(IDS == 2, 255, IDS).astype(np.uint8), {}, "the label 255 (2 pixels)", "ignore=255"),
        (IDS + np.uint8(2), {}, "the labels 3 (2 pixels), 4 (2 pixels)", "Name the missing class"),
        (IDS, {"values": {0: 0, 1: 1}}, "the label 2 (2 pixels), which values does not mention", "Add it"),
        (IDS, {"values": {0: 0, 1: 1, 2: 3}}, "the label 3 (2 pixels)", "Name the missing class"),
        (IDS.astype(np.float32), {}, "contains float32, not whole numbers", "whole numbers"),
    ],
)
def test_ids_that_are_none(tmp_path, label, arguments, what, fix):
    with pytest.raises(FolderProblems) as caught:
        one(tmp_path, label, ".tif" if label.dtype == np.float32 else ".png", **arguments)
    (problem,) = caught.value.report.problems
    assert what in problem.what and fix in problem.fix


def test_objects_whose_numbers_have_gaps(tmp_path):
    place = tmp_path / "one"
    ids = np.array([[0, 500, 500], [7, 0, 65535]], np.uint16)
    save(place / "images" / "a.png", np.zeros((2, 3), np.uint8))
    save(place / "labels" / "a_mask.png", ids)
    (sample,) = folder(
        "all", place, CELL, kind="instances", suffix="_mask", ignore=65535, splits={"val": ["a"]}
    )
    np.testing.assert_array_equal(sample.instances, [[0, 2, 2], [1, 0, 0]])
    np.testing.assert_array_equal(sample.semantic, [[0, 1, 1], [1, 0, -1]])
    np.testing.assert_array_equal(sample.boxes, [[0, 1, 1, 2], [1, 0, 3, 1]])


# Splits -------------------------------------------------------------------------------------------------------


def test_the_checksum_decides_as_for_nuclei_and_alone():
    names = [f"picture-{k}" for k in range(2000)]
    chosen, problems = assign(names, None, None)
    counts = [sum(split == wanted for split in chosen.values()) for wanted in ("train", "val", "test")]
    assert problems == [] and np.allclose(np.array(counts) / 2000, [0.7, 0.1, 0.2], atol=0.03)
    assert chosen == {name: checksum(name) for name in names}
    assert assign(names[:5], None, None)[0] == {name: chosen[name] for name in names[:5]}


@pytest.mark.parametrize("group", [r"patient\d+", lambda name: name.split("_")[0]])
def test_a_group_stays_together(group):
    names = [f"patient{k}_slice{n}" for k in range(40) for n in range(5)]
    chosen, _ = assign(names, None, group)
    for k in range(40):
        assert {chosen[f"patient{k}_slice{n}"] for n in range(5)} == {checksum(f"patient{k}")}
    assert set(chosen.values()) == {"train", "val", "test"}


def test_lists_that_tear_a_group_or_hold_a_name_twice(mine):
    lists = {"train": ["cell-0", "cell-1", "cell-2"], "val": ["cell-2", "cell-3", "cell-77"]}
    report = check_folder(mine, CELL, splits=lists, group=lambda name: "ab"[name in ("cell-1", "cell-3")])
    wrong = said(report)
    assert wrong["cell-77"] == "is listed in val, but there is no such image"
    assert "belongs to the group b, in train, as cell-3 is, in val" in wrong["cell-1"]
    assert any(problem.what == "is listed in train and in val" for problem in report.problems)
    assert "6 images in none of the lists of splits" in report.notes


def test_the_same_picture_twice_in_a_split_is_a_note(mine):
    shutil.copy(mine / "images" / "cell-0.png", mine / "images" / "cell-1.png")
    report = check_folder(mine, CELL, splits=LISTS)
    assert report.problems == () and "cell-0, cell-1 are the same image" in report.notes


def test_without_a_check_nothing_is_opened(mine, monkeypatch):
    label = mine / "labels" / "cell-0.png"
    label.write_bytes(b"broken")
    monkeypatch.setattr(reading, "read_image", lambda *_: pytest.fail("opened"))
    data = folder("train", mine, CELL, channels=1, splits=LISTS, check=False)
    monkeypatch.undo()
    with pytest.raises(datasets.DataError, match=r"mine: labels/cell-0.png: cannot be read as an image"):
        data[0]
    assert data[1].name == "cell-1"
    with pytest.raises(IndexError, match="a sample of .*, 0 to 6"):
        data[7]


# Arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "validation"}, "split is 'validation'; it must be one of"),
        ({"class_names": "cell"}, "class_names is 'cell'; it must be at least two"),
        ({"class_names": ("a", "a")}, "at least two different names"),
        ({"kind": "boxes"}, "kind is 'boxes'; it must be one of 'semantic', 'instances'"),
        ({"kind": "instances", "class_names": ("a", "b", "c")}, "COCO's JSON"),
        ({"channels": 2}, "channels is 2; it must be 1"),
        (
            {"images": "pictures"},
            r"images is 'pictures'; mine has no such folder \(it has: images/, labels/, objects/\)",
        ),
        ({"labels": "masks"}, "labels is 'masks'; mine has no such folder"),
        ({"path": "nowhere"}, "path is 'nowhere'; it must be a folder, but it does not exist"),
        ({"splits": {"dev": []}}, "splits has the key 'dev'"),
        ({"splits": {"train": "cell-0"}}, r"splits\['train'\] is a string"),
        ({"splits": {"train": ["cell-0"]}, "split": "val"}, "split is 'val'; it contains no image of mine"),
        ({"group": "patient"}, "does not match 'cell-0'"),
        ({"group": "("}, "regular expression"),
    ],
)
def test_bad_arguments_are_one_sentence(mine, arguments, message):
    given = {"split": "train", "path": mine, "class_names": CELL, "splits": LISTS} | arguments
    with pytest.raises(ValueError, match=message):
        folder(**given)


def test_an_empty_folder(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    with pytest.raises(FolderProblems, match="images/: holds no image. Put files there: .png"):
        folder("train", tmp_path, CELL)


def test_a_file_where_a_folder_should_be(mine):
    with pytest.raises(ValueError, match="it must be a folder, but it is a file"):
        folder("train", mine / "images" / "cell-0.png", CELL)


# In the pipeline ----------------------------------------------------------------------------------------------


def test_it_makes_batches_and_recipes(mine, monkeypatch):
    own = {"path": str(mine), "class_names": CELL, "channels": 1, "splits": LISTS}
    recipe = recipes.Recipe(
        "own", "own cells", "folder", own, own, network_arguments={"base_filters": 4, "depth": 2},
        crop=(32, 32), batch_size=2, steps=2, epochs=1,
    )  # fmt: skip
    assert recipe.class_names() == CELL and len(recipe.digest) == 12
    images, labels = recipe.batches("train")[0]
    assert images.shape == (2, 32, 32, 1) and labels.shape == (2, 32, 32)
    model = recipe.model()
    assert model.output_shape == (None, None, None, 2)
    val = recipe.data("val")
    segmenter = Segmenter.of(recipe, model)
    probabilities = segmenter.outputs(val)
    assert probabilities[0].shape == (48, 64, 2)
    scores = segmenter.score(val, probabilities)
    assert set(scores) == {"mean_iou", "pixel_accuracy", "iou_background", "iou_cell"}


def test_objects_make_batches_for_every_target(mine):
    data = folder("train", mine, CELL, kind="instances", labels="objects", channels=1, splits=LISTS)
    _, labels = Batches(data, 2, (32, 32), task=Borders())[0]
    assert labels.shape == (2, 32, 32) and labels.max() <= 2
    _, truth = Batches(data, 2, (32, 32), task=Objects(8))[0]
    assert truth["boxes"].shape == (2, 8, 4) and truth["classes"].max() == 1


def test_a_recipe_without_class_names_says_what_is_missing():
    with pytest.raises(ValueError, match="train_data lacks 'class_names', which folder needs"):
        recipes.Recipe("own", "", "folder", {"path": "x"})


# COCO ---------------------------------------------------------------------------------------------------------

SCENES = scenes("train", length=4, size=64, seed=4)
SHAPES = SCENES.class_names
NUMBERS = {number: 10 * number for number in range(1, len(SHAPES))}
"""Class id → category id: those of a file need not begin with 1 nor be dense."""


def runs_of(mask, letters=False):
    encoded = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    if letters:
        return {"size": list(mask.shape), "counts": encoded["counts"].decode()}
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def described(letters=False):
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": NUMBERS[k], "name": SHAPES[k]} for k in reversed(NUMBERS)]
    for k, sample in enumerate(SCENES):
        height, width = sample.semantic.shape
        content["images"].append(
            {"id": 100 + k, "file_name": f"part/scene-{k}.png", "height": height, "width": width}
        )
        for number, (box, kind) in enumerate(zip(sample.boxes, sample.classes), start=1):
            x1, y1, x2, y2 = map(float, box)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": 100 + k,
                    "category_id": NUMBERS[int(kind)],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                    "segmentation": runs_of(sample.instances == number, letters),
                }
            )
    return content


SCENE_LISTS = {"train": [f"part/scene-{k}" for k in range(4)]}


@pytest.fixture
def own(tmp_path):
    """A function that writes such a folder, its JSON changed, and returns the JSON's path."""

    def write(change=lambda content: None, letters=False):
        for k, sample in enumerate(SCENES):
            save(
                tmp_path / "images" / "part" / f"scene-{k}.png", np.rint(sample.image * 255).astype(np.uint8)
            )
        content = described(letters)
        content = change(content) or content
        (tmp_path / "own.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "own.json"

    return write


@pytest.mark.parametrize("letters", [False, True])
def test_coco_comes_out_as_it_went_in(own, letters):
    data = coco("train", own(letters=letters), splits=SCENE_LISTS)
    assert data.class_names == SHAPES and data.report.problems == () and len(data) == 4
    for sample, drawn in zip(data, SCENES):
        np.testing.assert_array_equal(sample.instances, drawn.instances)
        np.testing.assert_array_equal(sample.semantic, drawn.semantic)
        np.testing.assert_array_equal(sample.classes, drawn.classes)
        np.testing.assert_array_equal(sample.boxes, drawn.boxes)
        np.testing.assert_array_equal(sample.image, drawn.image)
    _, truth = Batches(data, 2, (64, 64), task=Objects(8))[0]
    assert truth["masks"].shape == (2, 8, 64, 64)


def test_classes_in_the_order_asked_for(own):
    data = coco("all", own(), ("background", "star", "disc"), splits=SCENE_LISTS)
    names = {SHAPES[kind] for sample in SCENES for kind in sample.classes}
    found = {data.class_names[kind] for sample in data for kind in sample.classes}
    assert found == names & {"star", "disc"}
    assert any("which class_names does not name" in note for note in data.report.notes)
    with pytest.raises(
        ValueError, match="class_names has 'horse'; it must be a category of own.json, which has rod, ring"
    ):
        coco("all", own(), ("background", "horse"))


def test_runs_are_read_as_pycocotools_reads_them():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        for size in ((1, 1), (7, 300), (300, 7), (64, 64)):
            mask = rng.random(size) < share
            np.testing.assert_array_equal(decode_runs(runs_of(mask, letters=True), size), mask)
            np.testing.assert_array_equal(decode_runs(runs_of(mask), size), mask)


def test_polygons_cover_nearly_what_pycocotools_covers(own):
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    outline = np.stack([32 + 20 * np.cos(t), 30 + 14 * np.sin(t)], -1).ravel().tolist()
    square = [50.0, 50.0, 60.0, 50.0, 60.0, 62.0, 50.0, 62.0]

    def change(content):
        common = {"image_id": 100, "category_id": 10}
        content["annotations"] = [
            {"id": 1, "segmentation": [outline], **common},
            {"id": 2, "segmentation": [square], "category_id": 20, "image_id": 100},
        ]

    sample = coco("train", own(change), splits=SCENE_LISTS)[0]
    theirs = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects([outline], 64, 64))).astype(bool)
    mine = sample.instances == 1
    assert (mine & theirs).sum() / (mine | theirs).sum() > 0.95
    assert (sample.instances == 2).sum() == 10 * 12, "along the edges of pixels"
    np.testing.assert_array_equal(sample.boxes[1], [50, 50, 60, 62])
    assert sample.classes.tolist() == [1, 2] and set(np.unique(sample.semantic)) == {0, 1, 2}


def test_a_crowd_is_neither_object_nor_background(own):
    def change(content):
        mine = [entry for entry in content["annotations"] if entry["image_id"] == 100]
        crowd = np.zeros((64, 64), bool)
        crowd[:, :32] = True
        mine.append(
            {"id": 999, "image_id": 100, "category_id": 10, "iscrowd": 1, "segmentation": runs_of(crowd)}
        )
        content["annotations"] = mine

    sample = coco("train", own(change), splits=SCENE_LISTS)[0]
    np.testing.assert_array_equal(sample.instances, SCENES[0].instances)
    left = np.arange(64)[None] < 32
    np.testing.assert_array_equal(sample.semantic == -1, left & (SCENES[0].instances == 0))


def set_in(*path):
    *above, last, value = path

    def change(content):
        for key in above:
            content = content[key]
        content[last] = value

    return change


FIRST = ("annotations", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: "{", "own.json: is not JSON"),
        (lambda c: "[" * 100_000, "own.json: is not JSON"),
        (lambda c: [1, 2], "own.json: holds a list, where an object with images, annotations, categories"),
        (lambda c: "null", "own.json: holds null"),
        (lambda c: c.pop("annotations") and None, "own.json, annotations: is missing"),
        (lambda c: c.pop("annotations") and c.pop("images") and None, "own.json, images: is missing"),
        (set_in("images", {}), "own.json, images: is an object, not a list"),
        (set_in("categories", []), "categories: holds no category that can be used"),
        (set_in("images", []), "images: holds no image that can be used"),
        (set_in("images", 0, 7), r"images\[0\]: has the id None"),
        (set_in("images", 0, "id", 101), r"images\[1\]: has the id 101, which is invalid or already taken"),
        (set_in("images", 0, "id", True), r"images\[0\]: has the id True"),
        (set_in("images", 0, "file_name", None), r"images\[0\]: has the file_name None"),
        (set_in("images", 0, "file_name", "a\0b.png"), r"images\[0\]: has the file_name"),
        (set_in("images", 0, "file_name", "../own.json"), "leads out of the folder of images"),
        (set_in("images", 0, "file_name", "/etc/passwd"), "leads out of the folder of images"),
        (set_in("images", 0, "file_name", "C:\\x.png"), "leads out of the folder of images"),
        (set_in("images", 0, "file_name", "..\\x.png"), "leads out of the folder of images"),
        (set_in("images", 0, "file_name", "x" * 5000), "leads out of the folder|no such file"),
        (set_in("images", 0, "file_name", "part/scene-1.png"), "whose name another image has"),
        (set_in("images", 0, "file_name", "gone.png"), "gone.png: there is no such file. Put the file there"),
        (
            set_in("images", 0, "height", 65),
            r"the file says 65 × 64 pixels \(height × width\), the image has 64 × 64",
        ),
        (set_in("images", 0, "height", "x"), "has height and width 'x', 64"),
        (set_in("categories", 0, "id", None), r"categories\[0\]: needs an id and a text"),
        (set_in("categories", 0, "id", 10), r"categories\[5\]: has the id 10, which rod has"),
        (set_in("categories", 0, 3), r"categories\[0\]: needs an id and a text"),
        (set_in(*FIRST, None), r"annotations\[0\]: is null, not an object"),
        (set_in(*FIRST, "image_id", 5), r"annotations\[0\]: has image_id 5, and no image has that id"),
        (set_in(*FIRST, "image_id", [1]), r"annotations\[0\]: has image_id \[1\]"),
        (
            set_in(*FIRST, "category_id", 7),
            r"category_id 7, and no category has that id. There are 10 disc, 20",
        ),
        (set_in(*FIRST, "category_id", True), "category_id True"),
        (set_in(*FIRST, "id", 2), r"annotations\[1\]: has the id 2, which is invalid or already taken"),
        (set_in(*FIRST, "id", {}), r"annotations\[0\]: has the id {}"),
        (set_in(*FIRST, "segmentation", []), r"annotations\[0\] has no segmentation"),
        (set_in(*FIRST, "segmentation", None), "has no segmentation"),
        (set_in(*FIRST, "segmentation", "x"), "has no segmentation"),
        (set_in(*FIRST, "segmentation", [[1, 2, 3, 4]]), "a polygon that is not a list"),
        (set_in(*FIRST, "segmentation", [[1, 2, 3, 4, 5, 6, 7]]), "a polygon that is not a list"),
        (set_in(*FIRST, "segmentation", [[1, 2, 3, 4, 5, "6"]]), "a polygon that is not a list"),
        (set_in(*FIRST, "segmentation", [[1, 2, 3, 4, 5, float("nan")]]), "a polygon that is not a list"),
        (set_in(*FIRST, "segmentation", [[1, 2, 3, 4, 5, 10**400]]), "a polygon that is not a list"),
        (
            set_in(*FIRST, "segmentation", [[1, 1, 1e9, 1, 1, 1e9]]),
            r"reaches to x 1e\+09, y 1, outside the image",
        ),
        (set_in(*FIRST, "segmentation", {}), "runs for an image of size None"),
        (
            set_in(*FIRST, "segmentation", {"size": [10**6, 10**6], "counts": [10**12]}),
            r"runs for an image of size",
        ),
        (
            set_in(*FIRST, "segmentation", {"size": [64, 64], "counts": [5]}),
            "runs over 5 pixels, but the image has 4096",
        ),
        (
            set_in(*FIRST, "segmentation", {"size": [64, 64], "counts": [-1, 4097]}),
            "neither a list of lengths",
        ),
        (
            set_in(*FIRST, "segmentation", {"size": [64, 64], "counts": "ooooooooooooooo"}),
            "neither a list of lengths",
        ),
        (set_in(*FIRST, "segmentation", {"size": [64, 64], "counts": "äö"}), "neither a list of lengths"),
        (set_in(*FIRST, "segmentation", {"size": [64, 64], "counts": "P"}), "neither a list of lengths"),
        (set_in(*FIRST, "bbox", [1, 2, 3]), "a bbox that is not x, y, width, height"),
        (set_in(*FIRST, "bbox", [1, 2, 0, 3]), r"a bbox of 0 × 3 pixels"),
        (
            set_in(*FIRST, "bbox", [50, 50, 60, 60]),
            "outside the image of 64 × 64 .* whether it holds x1, y1, x2, y2",
        ),
        (set_in(*FIRST, "bbox", "box"), "a bbox that is not x, y, width, height"),
    ],
)
def test_hostile_json_is_named_fault_by_fault(own, change, message):
    with pytest.raises(FolderProblems, match=message):
        coco("train", own(change), splits=SCENE_LISTS)


def test_a_link_out_of_the_folder_is_not_followed(own, tmp_path):
    path = own(set_in("images", 0, "file_name", "link.png"))
    outside = tmp_path / "outside.png"
    shutil.copy(tmp_path / "images" / "part" / "scene-0.png", outside)
    (tmp_path / "images" / "link.png").symlink_to(outside)
    with pytest.raises(FolderProblems, match="leads out of the folder of images"):
        coco("train", path, splits=SCENE_LISTS)


def test_several_faults_at_once_and_going_on_without_them(own):
    def change(content):
        content["annotations"][0]["segmentation"] = []
        content["images"][1]["width"] = 63
        content["annotations"].append({"id": 9999, "image_id": 555, "category_id": 10})

    report = check_coco(own(change), splits=SCENE_LISTS)
    assert len(report.problems) == 3
    data = coco("all", own(change), splits=SCENE_LISTS, skip=True)
    assert data.names == ("part/scene-2", "part/scene-3") and len(data.report.problems) == 3


def test_an_object_beneath_another_is_left_out_and_noted(own):
    def change(content):
        one = content["annotations"][0]
        content["annotations"].insert(0, one | {"id": 8888})

    data = coco("all", own(change), splits=SCENE_LISTS)
    assert len(data[0].classes) == len(SCENES[0].classes)
    assert any("1 object without a pixel of their own" in note for note in data.report.notes)


def test_where_the_pictures_lie(own, tmp_path):
    path = own()
    with pytest.raises(ValueError, match="it must be a JSON file, but there is no such file"):
        coco("train", tmp_path / "other.json")
    with pytest.raises(ValueError, match="images is 'nowhere'; it must be a folder"):
        coco("train", path, images="nowhere")
    moved = tmp_path / "elsewhere"
    (tmp_path / "images").rename(moved)
    assert len(coco("all", path, images=moved, splits=SCENE_LISTS)) == 4
    assert ALL == "all"
