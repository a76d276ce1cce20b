"""What people bring: layouts of tools, marks that must hold, names in two Unicode forms, photographs turned by EXIF."""

import json
import re
import shutil
import tracemalloc
import unicodedata

import numpy as np
import pytest
import tifffile
from PIL import Image

from course_lib import own_recipes, tasks
from course_lib.datasets import FolderProblems, check_coco, check_folder, coco, folder
from course_lib.datasets.augmentation import Augmentation
from course_lib.datasets.loading import Batches

CELL = ("background", "cell")
SQUARE = np.zeros((24, 32), np.uint8)
SQUARE[4:12, 6:18] = 1
LIGHT = np.where(SQUARE, 200, 40).astype(np.uint8)
OUTLINE = [6, 4, 18, 4, 18, 12, 6, 12]


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def pairs(place, *names, image="images/{}.png", label="labels/{}.png", values=SQUARE):
    for number, name in enumerate(names):
        save(place / image.format(name), LIGHT + np.uint8(number))
        save(place / label.format(name), values)


def content(**changes):
    whole = {
        "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [OUTLINE], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cell"}],
    }
    return whole | changes


def described(place, text=None, name="own.json", **changes):
    text = json.dumps(content(**changes)) if text is None else text
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return place / name


def image(**changes):
    return content()["images"][0] | changes


def annotation(**changes):
    return content()["annotations"][0] | changes


def sound(data, *names):
    assert data.report.problems == () and data.names == names
    for sample in data:
        np.testing.assert_array_equal(sample.semantic == 1, SQUARE == 1)
    return data


# Folders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "arguments"),
    [
        ({"label": "labels/{}_mask.gif"}, {"suffix": "_mask"}),
        ({"label": "labels/{}_mask.png"}, {"label_names": "{}_mask"}),
        ({"label": "labels/mask_{}.png"}, {"label_names": "mask_{}"}),
        ({"image": "images/image_{}.png", "label": "labels/label_{}.png"},
         {"image_names": "image_{}", "label_names": "label_{}"}),
        ({"image": "images/{}_leftImg8bit.png", "label": "labels/{}_gtFine_labelIds.png"},
         {"image_names": "{}_leftImg8bit", "label_names": "{}_gtFine_labelIds"}),
        ({"image": "./{}.png", "label": "./{}_mask.png"}, {"images": ".", "labels": ".", "label_names": "{}_mask"}),
        ({"image": "./{}.png", "label": "masks/{}.png"}, {"images": ".", "labels": "masks"}),
        ({"image": "JPEGImages/{}.bmp", "label": "SegmentationClass/{}.png"},
         {"images": "JPEGImages", "labels": "SegmentationClass"}),
    ],
)  # fmt: skip
def test_names_of_tools_and_data_sets(tmp_path, layout, arguments):
    pairs(tmp_path, "a", "b", **layout)
    sound(folder("all", tmp_path, CELL, channels=1, **arguments), "a", "b")


def test_folders_below_folders_are_found_and_may_be_the_splits(tmp_path):
    pairs(tmp_path, "train/x/1", "valid/x/1", "test/2", image="images/{}.png")
    report = sound(folder("all", tmp_path, CELL), "test/2", "train/x/1", "valid/x/1").report
    assert report.splits == {"train": ("train/x/1",), "val": ("valid/x/1",), "test": ("test/2",)}
    pairs(tmp_path, "other/3", values=SQUARE)
    splits = check_folder(tmp_path, CELL).splits
    assert sum(map(len, splits.values())) == 4 and splits["train"] != ("train/x/1",), (
        "then the checksum decides"
    )
    shutil.copy(tmp_path / "images/train/x/1.png", tmp_path / "images/test/2.png")
    (problem,) = check_folder(tmp_path, CELL, splits={"train": ["train/x/1"], "test": ["test/2"]}).problems
    assert "is pixel by pixel the same image" in problem.what


@pytest.mark.parametrize(
    ("layout", "hint"),
    [
        ({"label": "labels/{}_mask.png"}, "Pass label_names='{}_mask'"),
        ({"label": "labels/mask_{}.gif"}, "Pass label_names='mask_{}'"),
        ({"image": "images/{}_leftImg8bit.png", "label": "labels/{}_gtFine_labelIds.png"},
         "Pass image_names='{}leftImg8bit', label_names='{}gtFine_labelIds'"),
        ({"image": "images/image{}.png", "label": "labels/label{}.png"},
         "Pass image_names='image{}', label_names='label{}'"),
    ],
)  # fmt: skip
def test_where_labels_are_not_found_the_report_says_what_to_pass(tmp_path, layout, hint):
    pairs(tmp_path, "_001_", "_002_", "_003_", **layout)
    report = check_folder(tmp_path, CELL)
    assert report.sound == 0 and all(problem.fix == hint for problem in report.problems)
    arguments = dict(part.split("=") for part in hint.removeprefix("Pass ").split(", "))
    assert (
        check_folder(tmp_path, CELL, **{name: value.strip("'") for name, value in arguments.items()}).sound
        == 3
    )


def test_outlines_beside_the_images_are_named(tmp_path):
    pairs(tmp_path, "a")
    save(tmp_path / "images" / "b.png", LIGHT)
    (tmp_path / "images" / "b.json").write_text('{"shapes": []}')
    (problem,) = check_folder(tmp_path, CELL).problems
    assert problem.file == "images/b.png" and problem.fix.startswith(
        "Export the outlines of b.json as PNG masks, or as COCO"
    )


def test_images_and_labels_may_lie_in_the_folders_of_the_splits(tmp_path):
    """As Roboflow and Ultralytics write them: train/images, train/labels, valid/images, …"""
    for split in ("train", "valid", "test"):
        pairs(tmp_path / split, f"{split}1", "deep/2")
    for number, file in enumerate(sorted(tmp_path.glob("*/images/**/*.png"))):
        save(file, LIGHT + np.uint8(number))
    report = sound(folder("all", tmp_path, CELL), "test/deep/2", "test/test1", "train/deep/2", "train/train1",
                   "valid/deep/2", "valid/valid1").report  # fmt: skip
    assert report.splits["val"] == ("valid/deep/2", "valid/valid1")
    (tmp_path / "valid/labels/valid1.png").unlink()
    (problem,) = check_folder(tmp_path, CELL).problems
    assert (problem.file, problem.what) == (
        "valid/images/valid1.png",
        "has no label: there is no valid/labels/valid1.png",
    )
    # Labels in one place fit too.
    pairs(tmp_path / "other" / "train", "a")
    (tmp_path / "other/labels").mkdir()
    (tmp_path / "other/train/labels").rename(tmp_path / "other/labels/train")
    sound(folder("all", tmp_path / "other", CELL), "train/a")


def test_each_image_may_have_a_folder_of_its_own(tmp_path):
    """As labelme_json_to_dataset writes them."""
    pairs(tmp_path, "a_json", "deep/b_json", image="{}/img.png", label="{}/label.png")
    names = {"images": ".", "labels": ".", "image_names": "{}/img", "label_names": "{}/label"}
    sound(folder("all", tmp_path, CELL, **names), "a_json", "deep/b_json")
    save(tmp_path / "c_json" / "img.png", LIGHT + np.uint8(9))
    (problem,) = check_folder(tmp_path, CELL, **names).problems
    assert problem.what == "has no label: there is no ./c_json/label.png"


def test_a_folder_that_is_nowhere_is_told_with_those_that_are_there(tmp_path):
    pairs(tmp_path, "a", image="Pictures/x/{}.png")
    with pytest.raises(
        ValueError,
        match=r"images is 'images'; .* no such folder \(it has: Pictures/, labels/; in Pictures/: x/\)",
    ) as error:
        folder("all", tmp_path, CELL)
    assert "in one folder: images='.', labels='.'" in str(error.value)
    with pytest.raises(
        ValueError, match="path is the folder of labels itself, labels; it must be the folder above"
    ):
        folder("all", tmp_path / "labels", CELL, images=".")
    pairs(tmp_path / "far", "a", image="pictures/{}.png")
    sound(
        folder("all", tmp_path, CELL, images=tmp_path / "far/pictures", labels=str(tmp_path / "far/labels")),
        "a",
    )
    # One file for each object: the Data Science Bowl of 2018.
    for name in "ab":
        save(tmp_path / "dsb" / name / "images" / f"{name}.png", LIGHT)
        for number in (1, 2):
            save(tmp_path / "dsb" / name / "masks" / f"{number}.png", SQUARE)
    with pytest.raises(ValueError, match=r"it has: a/, b/; in a/: images/, masks/"):
        folder("all", tmp_path / "dsb", CELL)
    fix = check_folder(tmp_path / "dsb", CELL, labels="masks").problems[0].fix
    assert (
        fix == "If each object has a file of its own, number them in one label map; kind='instances' reads it"
    )


@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_folder_that_is_a_link_is_read(tmp_path, part):
    """Once it was passed over without a word, and its images with it."""
    pairs(tmp_path / "mine", "train/a", "val/b")
    for split in ("train", "val"):
        (tmp_path / "store" / split).parent.mkdir(exist_ok=True)
        (tmp_path / "mine" / part / split).rename(tmp_path / "store" / split)
        (tmp_path / "mine" / part / split).symlink_to(tmp_path / "store" / split)
    (tmp_path / "mine" / part / "train" / "round").symlink_to(tmp_path / "mine" / part)  # leads back
    report = sound(folder("all", tmp_path / "mine", CELL), "train/a", "val/b").report
    assert report.splits["train"] == ("train/a",)


def test_a_link_to_nothing_is_told(tmp_path):
    pairs(tmp_path, "a", "b")
    for part in ("images", "labels"):
        (tmp_path / part / "gone.png").symlink_to(tmp_path / "nowhere.png")
    report = check_folder(tmp_path, CELL)
    assert [problem.what for problem in report.problems] == ["is a link to a file that is not there"] * 2
    assert report.sound == 2


def test_what_systems_leave_behind_is_no_image(tmp_path):
    pairs(tmp_path, "a")
    for name in (".DS_Store", "._a.png", "Thumbs.db", "thumbs.db", "desktop.ini", ".ipynb_checkpoints/a.png", "~$a.png",
                 "@eaDir/a.png/THUMB.png", "#recycle/b.png", "$RECYCLE.BIN/b.png", "__MACOSX/b.png"):  # fmt: skip
        for part in ("images", "labels"):
            path = tmp_path / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no image")
    assert sound(folder("all", tmp_path, CELL), "a").report.notes == ()
    assert own_recipes.find(str(tmp_path)).train_data["class_names"] == ("background", "class 1")


def test_an_image_is_never_its_own_label(tmp_path):
    save(tmp_path / "a.png", SQUARE)
    for arguments in ({"images": ".", "labels": "."}, {"images": ".", "labels": ".", "label_names": "{}"}):
        with pytest.raises(
            ValueError, match=r"images and labels are both '\.'; then every image would be its own"
        ):
            folder("all", tmp_path, CELL, **arguments)


def test_nothing_is_said_of_images_and_labels_in_one_folder(tmp_path):
    pairs(tmp_path, "a", "b", image="./{}.png", label="./{}_mask.png")
    (tmp_path / "_classes.csv").write_text("0, background")
    report = check_folder(tmp_path, CELL, images=".", labels=".", label_names="{}_mask")
    assert report.problems == () and report.notes == ("./: not read, no image: _classes.csv",)


@pytest.mark.parametrize(
    ("image", "label", "said"),
    [
        (
            "x/a",
            "a",
            "labels/a.png has nearly this name: both need the same folders below images/ and labels/",
        ),
        ("a", "x/a", "labels/x/a.png has nearly this name"),
        (
            "IMG_1",
            "img_1",
            "labels/img_1.png has nearly this name: .* and the same small and capital letters",
        ),
        ("ﬁsh", "fish", "labels/fish.png has nearly this name"),
        ("a ", "a", "labels/a.png has nearly this name"),
    ],
)
def test_a_name_that_is_nearly_the_same_is_told(tmp_path, image, label, said):
    save(tmp_path / "images" / f"{image}.png", LIGHT)
    save(tmp_path / "labels" / f"{label}.png", SQUARE)
    assert re.match(said, check_folder(tmp_path, CELL).problems[0].fix)


def test_the_hint_names_every_pattern_that_fits_and_never_the_same_name(tmp_path):
    kinds = ("color", "instanceIds", "labelIds", "labelTrainIds")
    for name in ("aachen_0", "ulm_1", "jena_2"):
        save(tmp_path / "leftImg8bit" / "train" / f"{name}_leftImg8bit.png", LIGHT)
        for kind in kinds:
            save(tmp_path / "gtFine" / "train" / f"{name}_gtFine_{kind}.png", SQUARE)
    fix = check_folder(tmp_path, CELL, images="leftImg8bit", labels="gtFine").problems[0].fix
    assert fix == (
        "Pass image_names='{}leftImg8bit', label_names='{}gtFine_color' (or '{}gtFine_instanceIds', "
        "'{}gtFine_labelIds', '{}gtFine_labelTrainIds')"
    )
    pairs(tmp_path, "1", "2", image="images/x/{}.png")
    assert "Pass" not in check_folder(tmp_path, CELL).problems[0].fix


@pytest.mark.parametrize(
    ("file", "fix"),
    [
        ("labels/a.npy", "Save a.npy as a PNG or TIFF of ids"),
        ("labels/a.png.json", "Export the outlines of a.png.json as PNG masks"),  # Supervisely
        ("labels/a.txt", "Export the outlines of a.txt"),  # YOLO
        ("images/a.json", "Export the outlines of a.json"),  # labelme
        ("labels/a.xml", "Export the outlines of a.xml"),
    ],
)
def test_labels_that_are_no_images_are_named(tmp_path, file, fix):
    save(tmp_path / "images" / "a.png", LIGHT)
    (tmp_path / "labels").mkdir()
    (tmp_path / file).write_text("{}")
    assert check_folder(tmp_path, CELL).problems[0].fix.startswith(fix)


@pytest.mark.parametrize("ending", ["heic", "czi", "npy", "dcm"])
def test_images_that_are_not_read_are_named(tmp_path, ending):
    pairs(tmp_path, "a")
    (tmp_path / "images" / f"b.{ending}").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    save(tmp_path / "labels" / "b.png", SQUARE)
    (problem,) = check_folder(tmp_path, CELL).problems
    assert problem.file == "labels/b.png" and problem.fix == f"Save b.{ending} as PNG, JPEG or TIFF"


def test_an_image_without_an_ending_is_one(tmp_path):
    for part, pixels in (("images", LIGHT), ("labels", SQUARE)):
        save(tmp_path / part / "a.b", pixels, format="PNG")
        (tmp_path / part / "a.b").rename(tmp_path / part / "a")
    (tmp_path / "images" / "README").write_text("no image")
    assert sound(folder("all", tmp_path, CELL), "a").report.notes == ("images/: not read, no image: README",)


@pytest.mark.parametrize("kind", ["semantic", "instances"])
def test_values_may_say_that_several_do_not_count(tmp_path, kind):
    """Cityscapes has eight numbers for what is void."""
    label = SQUARE.copy()
    label[0], label[1], label[2] = 7, 255, 200
    pairs(tmp_path, "a", values=label)
    values = {0: 0, 1: 1, 7: -1, 200: -1}
    (sample,) = data = folder("all", tmp_path, CELL, kind=kind, values=values, ignore=255)
    assert data.report.ignored == 3 * 32 and sample.ignored[:3].all() and not sample.ignored[3:].any()
    np.testing.assert_array_equal(sample.semantic[3:], SQUARE[3:])
    assert len(sample.classes) == (kind == "instances")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ignore": [0, 255]}, r"ignore is \[0, 255\]; it must be one number. Map further values to -1"),
        ({"ignore": "255"}, "ignore is '255'; it must be a whole number"),
        ({"values": {"0": 0, "255": 1}}, "values: a value in the file is '0'; it must be a whole number"),
        ({"values": {0: "background"}}, r"values\[0\] is 'background'; it must be a whole number"),
        ({"values": [0, 255]}, r"values is \[0, 255\]; it must map values in the file to ids"),
    ],
)
def test_marks_that_would_mark_nothing_are_refused(tmp_path, arguments, message):
    pairs(tmp_path, "a")
    with pytest.raises(TypeError, match=message):
        folder("all", tmp_path, CELL, **arguments)
    given = {"ignore": np.uint8(255), "values": {np.uint8(0): np.int64(0), np.uint8(1): np.int64(1)}}
    sound(folder("all", tmp_path, CELL, **given), "a")


def test_a_mask_whose_objects_are_not_numbered_is_told(tmp_path, capsys):
    """Read as an instance map it is one object, in as many pieces as there are objects."""
    mask = SQUARE.copy()
    mask[16:20, 20:26] = 1
    pairs(tmp_path, "a", "b", values=mask * np.uint8(255))
    report = check_folder(tmp_path, CELL, kind="instances")
    assert report.objects == 2 and report.notes[-1].startswith(
        "labels/a.png and 1 more: one number in several pieces; if each"
    )
    own_recipes.find(str(tmp_path), objects=True)
    assert "one number in several pieces" in capsys.readouterr().err
    for sound_map in (SQUARE, np.where(mask & ~SQUARE, 2, mask)):
        pairs(tmp_path, "a", "b", values=sound_map.astype(np.uint8))
        assert check_folder(tmp_path, CELL, kind="instances").notes == ()


def test_the_command_line_asks_what_255_means(tmp_path):
    label = SQUARE.copy()
    label[:2] = 255
    pairs(tmp_path, "a", "b", "c", values=label)
    assert own_recipes.find(str(tmp_path)).train_data["ignore"] == 255
    label[SQUARE == 1] = 128
    pairs(tmp_path, "a", "b", "c", values=label)
    with pytest.raises(
        ValueError, match=r"hold \[0, 128, 255\], and 255 may be a class or mark what shall not count"
    ):
        own_recipes.find(str(tmp_path))
    data = own_recipes.find(str(tmp_path), ("sky", "tree", "sea")).train_data
    assert data["values"] == {0: 0, 128: 1, 255: 2} and "ignore" not in data
    # Folders of the splits, and a link, are found here too.
    for part in ("images", "labels"):
        (tmp_path / "mine" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / "train" / part).symlink_to(tmp_path / part)
    assert own_recipes.find(str(tmp_path / "mine"), ("sky", "tree", "sea")).train_data["channels"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suffix": "_mask", "label_names": "{}_mask"}, "suffix is '_mask'; it must be left out"),
        ({"label_names": "mask"}, "label_names is 'mask'; it must contain {} once"),
        ({"image_names": "{}/{}"}, "image_names is '{}/{}'; it must contain"),
        ({"label_names": "x/y"}, "label_names is 'x/y'; it must contain"),
    ],
)
def test_bad_patterns(tmp_path, arguments, message):
    pairs(tmp_path, "a")
    with pytest.raises(ValueError, match=message):
        folder("all", tmp_path, CELL, **arguments)
    with pytest.raises(TypeError, match="sufix"):
        folder("all", tmp_path, CELL, sufix="_mask")


def test_help_shows_the_arguments(tmp_path):
    import inspect

    assert list(inspect.signature(folder).parameters)[:4] == ["split", "path", "class_names", "kind"]
    assert {"ignore", "group", "skip", "check"} < set(inspect.signature(folder).parameters)
    assert "skip" not in inspect.signature(check_folder).parameters


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
@pytest.mark.parametrize("name", ["zellä", "日本-が", "é/ü"])
def test_two_unicode_forms_are_one_name(tmp_path, forms, name):
    of_image, of_label = (unicodedata.normalize(form, name) for form in forms)
    save(tmp_path / "images" / f"{of_image}.png", LIGHT)
    save(tmp_path / "labels" / f"{of_label}.png", SQUARE)
    lists = {"train": [of_label]}
    composed = unicodedata.normalize("NFC", name)
    sound(folder("train", tmp_path, CELL, splits=lists), composed)
    path = described(tmp_path, images=[image(file_name=f"{of_label}.png")])
    sound(coco("train", path, splits={"train": [of_image]}), composed)
    if forms[0] != forms[1]:
        save(tmp_path / "images" / f"{of_label}.png", LIGHT)
        (problem,) = check_folder(tmp_path, CELL).problems
        assert "has the same name as" in problem.what and problem.drops == (composed,)


def test_a_second_label_drops_its_image_whole(tmp_path):
    pairs(tmp_path, "a", "b", label="labels/{}_mask.png")
    save(tmp_path / "labels" / "a_mask.tif", SQUARE)
    data = folder("all", tmp_path, CELL, suffix="_mask", skip=True)
    assert data.names == ("b",)


# Photographs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_labels_drawn_on_what_everybody_sees_fit(tmp_path, orientation, ending):
    stored = Image.fromarray(LIGHT)
    # What makes it upright, undone: the transposes of 6 and 8 are each other's.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    stored = stored if undo is None else stored.transpose(undo)
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "images").mkdir()
    stored.save(
        tmp_path / "images" / f"a.{ending}",
        exif=exif,
        **({"quality": 98} if ending in ("jpg", "webp") else {}),
    )
    save(tmp_path / "labels" / "a.png", SQUARE)
    (sample,) = sound(folder("all", tmp_path, CELL, channels=1), "a")
    assert sample.image[SQUARE == 1].min() > 0.7 and sample.image[SQUARE == 0].max() < 0.3
    sound(coco("all", described(tmp_path, images=[image(file_name=f"a.{ending}")])), "a")


def test_sizes_from_before_the_turn_are_told(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    save(tmp_path / "images" / "a.png", LIGHT, exif=exif)
    save(tmp_path / "labels" / "a.png", SQUARE)
    assert "turned by 90 degrees" in check_folder(tmp_path, CELL).problems[0].fix
    (problem,) = check_coco(described(tmp_path)).problems
    assert (
        "the file says 24 × 32" in problem.what
        and "before it was turned as its EXIF data says" in problem.fix
    )


# COCO from tools ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file_name", "place"),
    [
        ("own.json", "a.png", "images/a.png"),
        ("own.json", "images/a.png", "images/a.png"),  # Label Studio
        ("own.json", "images\\a.png", "images/a.png"),
        ("own.json", "../../label-studio/data/upload/1/a.png", "images/a.png"),
        ("own.json", "C:\\Users\\me\\a.png", "images/a.png"),  # labelme2coco
        ("own.json", "/data/local-files/?d=set/a.png", "images/a.png"),
        ("annotations/instances_default.json", "a.png", "images/a.png"),  # CVAT
        ("annotations/instances_default.json", "a.png", "images/default/a.png"),
        ("train/_annotations.coco.json", "a.png", "train/a.png"),  # Roboflow
        ("own.json", "deep/a.png", "images/deep/a.png"),
        ("own.json", "my%20a.png", "images/my a.png"),
    ],
)
def test_images_are_found_where_tools_put_them(tmp_path, name, file_name, place):
    save(tmp_path / place, LIGHT)
    data = coco("all", described(tmp_path, name=name, images=[image(file_name=file_name)]))
    sound(data, *data.names)
    assert place.removesuffix(".png").endswith(data.names[0])


def test_an_image_that_two_files_may_be_is_not_guessed(tmp_path):
    save(tmp_path / "images" / "x" / "a.png", LIGHT)
    save(tmp_path / "images" / "y" / "a.png", LIGHT)
    with pytest.raises(
        FolderProblems,
        match=r"a.png: there is no such file. Put the file there \(looked in images/\), or pass images=",
    ):
        coco("all", described(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_byte_order_mark_is_no_fault(tmp_path, encoding):
    save(tmp_path / "images" / "a.png", LIGHT)
    sound(coco("all", described(tmp_path, json.dumps(content(), ensure_ascii=False).encode(encoding))), "a")


@pytest.mark.parametrize("listed", [1, "1", 1.0, "img-1", " 1 "])
@pytest.mark.parametrize("used", [1, "1", 1.0, "img-1"])
def test_ids_of_other_types_are_matched(tmp_path, listed, used):
    save(tmp_path / "images" / "a.png", LIGHT)
    path = described(
        tmp_path,
        images=[image(id=listed)],
        categories=[{"id": listed, "name": "cell"}],
        annotations=[annotation(image_id=used, category_id=used, id=str(used))],
    )
    if (listed == "img-1") == (used == "img-1"):
        sound(coco("all", path), "a")
    else:
        with pytest.raises(FolderProblems, match="no image has that id"):
            coco("all", path)
        with pytest.raises(ValueError, match="it contains no image of own.json"):
            coco("all", path, skip=True)


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        (
            [
                {"id": 0, "name": "cell", "supercategory": "none"},
                {"id": 1, "name": "cell", "supercategory": "cell"},
            ],
            "cell",
        ),
        (
            [
                {"id": 0, "name": "cells", "supercategory": "none"},
                {"id": 1, "name": "cell", "supercategory": "cells"},
            ],
            "cell",
        ),
        ([{"id": 0, "name": "background"}, {"id": 1, "name": "cell"}], "cell"),
        ([{"id": 3, "name": "cell"}, {"id": 1, "name": "cell"}], "cell"),
    ],
)
def test_categories_that_stand_for_one_or_for_none(tmp_path, listed, name):
    save(tmp_path / "images" / "a.png", LIGHT)
    data = sound(coco("all", described(tmp_path, categories=listed)), "a")
    assert data.class_names == ("background", name)


def test_formats_that_are_not_coco_are_named(tmp_path):
    for text, message in (
        ('{"shapes": [], "imagePath": "a.png"}', "is labelme's own format. Convert it with labelme2coco"),
        ('{"_via_settings": {}, "_via_img_metadata": {}}', "is VIA's own format. In VIA, export"),
        ('{"a.png123": {"filename": "a.png", "regions": []}}', "is VIA's own format"),
        (
            "<annotations><image/></annotations>",
            r"is XML \(Pascal VOC, or CVAT for images\), not JSON. Export it as COCO",
        ),
        ("[]", "holds a list"),
        ('[{"image": "/data/a.png", "id": 1, "label": []}]', "is Label Studio's own format"),
        ('[{"id": 1, "annotations": [], "data": {"image": "a.png"}}]', "is Label Studio's own format"),
        ('{"project": {}, "config": {}, "metadata": {}, "view": {}}', "is VIA's own format"),
        (
            '{"size": {"height": 1}, "tags": [], "objects": []}',
            "is Supervisely's own format. In Supervisely, export",
        ),
        ('{"imgHeight": 1, "objects": []}', "is Cityscapes's own format. Take its label images"),
        ('{"type": "FeatureCollection", "features": []}', "is QuPath's own format. Export label images"),
        ("filename, regions", "is not JSON"),
    ):
        with pytest.raises(FolderProblems, match=message):
            coco("all", described(tmp_path, text))


@pytest.mark.parametrize(
    ("file_name", "there"),
    [
        ("a.png", "A.PNG"),
        ("a.png", "a.jpg"),
        ("images/3f2a1b7c-a.png", "a.png"),  # Label Studio, of an upload
        ("a_b.png", "a b.png"),
        (" a.png", "a.png"),
        ("a_png.rf.0f1e.jpg", "a.png.rf.0f1e.jpg"),
    ],
)
def test_an_image_of_nearly_that_name_is_told(tmp_path, file_name, there):
    save(tmp_path / "images" / "z.png", LIGHT)
    Image.fromarray(LIGHT).save(tmp_path / "images" / there)
    path = described(tmp_path, images=[image(file_name="z.png"), image(id=2, file_name=file_name)])
    (problem,) = check_coco(path).problems
    assert problem.what == "there is no such file"
    assert problem.fix == f"{there} has nearly this name: if it is the image, name one as the other"


def test_a_folder_is_answered_with_the_file_in_it(tmp_path):
    save(tmp_path / "train" / "a.png", LIGHT)
    described(tmp_path, name="train/_annotations.coco.json")
    with pytest.raises(ValueError, match=r"a folder; give the JSON file in it \(_annotations.coco.json\)"):
        coco("all", tmp_path / "train")
    (tmp_path / "train" / "_annotations.coco.json").unlink()
    with pytest.raises(ValueError, match="it holds none"):
        check_coco(tmp_path / "train")


def test_a_table_and_another_encoding_are_named(tmp_path):
    for name, data, message in (
        ("via.csv", b"filename,regions\n", "is a table, not JSON. Export it as COCO"),
        ("own.zip", b"PK\3\4" + bytes(40), "is an archive, not JSON. Unpack it"),
        ("own.json.gz", b"\x1f\x8b" + bytes(40), "is an archive, not JSON. Unpack it"),
        (
            "own.json",
            json.dumps(content(), ensure_ascii=False).encode() + "ä".encode("latin-1"),
            "Save it in the encoding UTF-8",
        ),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FolderProblems, match=message):
            coco("all", tmp_path / name)


def test_fractions_are_no_pixels(tmp_path):
    """YOLO's and Label Studio's numbers: as pixels, all objects would lie in the first one, and be left out."""
    save(tmp_path / "images" / "a.png", LIGHT)
    fractions = [[0.1, 0.1, 0.9, 0.1, 0.9, 1.0]]
    (problem,) = check_coco(described(tmp_path, annotations=[annotation(segmentation=fractions)])).problems
    assert "all numbers from 0 to 1, as fractions of the image" in problem.what and problem.drops == ("a",)


def test_the_first_class_is_the_background_even_if_it_is_forgotten(tmp_path):
    """Objects of the first name would have become background, with a note at most."""
    save(tmp_path / "images" / "a.png", LIGHT)
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "dirt"}]
    path = described(tmp_path, categories=categories)
    with pytest.raises(
        ValueError, match="class_names begins with 'cell', a category .* whose objects would become"
    ):
        coco("all", path, ("cell", "dirt"))
    assert (
        coco("all", path, ("background", "dirt")).report.notes[0]
        == "1 object of cell, which class_names does not name"
    )
    categories[0]["name"] = "Background"  # a category that is one
    coco("all", described(tmp_path, categories=categories), ("background", "dirt"))


def test_a_polygon_without_a_list_around_it_is_one(tmp_path):
    save(tmp_path / "images" / "a.png", LIGHT)
    sound(coco("all", described(tmp_path, annotations=[annotation(segmentation=OUTLINE)])), "a")


@pytest.mark.parametrize(
    "file_name", [".", "..", "/", "\ud800.png", "a\ud800.png", "x" * 5000, "./", "a.png/b", "~"]
)
def test_odd_file_names_are_one_problem_and_can_be_printed(tmp_path, file_name):
    save(tmp_path / "images" / "a.png", LIGHT)
    path = described(tmp_path, images=[image(), image(id=2, file_name=file_name)])
    report = check_coco(path)
    assert len(report.problems) == 1 and report.sound == 1
    str(report).encode()
    assert coco("all", path, skip=True).names == ("a",)


# Marks that hold ----------------------------------------------------------------------------------------------

RUNS = {"size": [24, 32], "counts": [0, 24 * 4, 24 * 28]}
"""The first four columns."""


@pytest.mark.parametrize("mark", [1, True, "1", "true", "yes", 1.0])
def test_crowds_are_counted_and_belong_to_no_object(tmp_path, mark):
    save(tmp_path / "images" / "a.png", LIGHT)
    crowd = annotation(id=2, segmentation=RUNS, iscrowd=mark)
    report = check_coco(described(tmp_path, annotations=[annotation(), crowd]))
    assert (report.ignored, report.crowds, report.objects) == (96, 1, 1)
    assert "will not count: 96 pixels (12 %), with 1 crowd in them" in str(report)
    (sample,) = coco("all", described(tmp_path, annotations=[annotation(), crowd]))
    np.testing.assert_array_equal(sample.ignored, np.arange(32)[None] < 4 + np.zeros((24, 1), int))
    assert sample.instances.max() == 1 and len(sample.boxes) == 1


@pytest.mark.parametrize("mark", [0, False, "0", "no", "false", "No", None, 0.0, ""])
def test_what_is_no_crowd_is_an_object(tmp_path, mark):
    save(tmp_path / "images" / "a.png", LIGHT)
    sound(coco("all", described(tmp_path, annotations=[annotation(iscrowd=mark)])), "a")


@pytest.mark.parametrize("mark", [1, True, "yes"])
def test_an_object_to_be_ignored_is_a_crowd(tmp_path, mark):
    save(tmp_path / "images" / "a.png", LIGHT)
    ignored = annotation(id=2, segmentation=RUNS, ignore=mark, iscrowd=0)
    path = described(tmp_path, annotations=[annotation(ignore=0), ignored])
    report = check_coco(path)
    assert (report.ignored, report.crowds, report.objects) == (96, 1, 1)


def test_a_category_may_be_what_does_not_count(tmp_path):
    """Else its objects are a class, or background."""
    save(tmp_path / "images" / "a.png", LIGHT)
    categories = [{"id": 0, "name": "_background_"}, {"id": 1, "name": "cell"}, {"id": 2, "name": "unsure"}]
    things = [annotation(), annotation(id=2, category_id=2, segmentation=RUNS)]
    path = described(tmp_path, categories=categories, annotations=things)
    assert coco("all", path).class_names == ("background", "cell", "unsure")
    for ignore in (["unsure"], "unsure"):
        (sample,) = sound(coco("all", path, ignore=ignore), "a")
        assert (sample.ignored == (np.arange(32)[None] < 4)).all() and sample.classes.tolist() == [1]
    assert check_coco(path, ("background", "cell"), ignore=["unsure"]).crowds == 1
    with pytest.raises(
        ValueError, match="ignore has 'void'; it must hold categories of own.json, which has background, cell"
    ):
        coco("all", path, ignore=["void"])
    with pytest.raises(ValueError, match="class_names and ignore both have 'unsure'"):
        coco("all", path, ("background", "unsure"), ignore=["unsure"])
    categories[2]["name"] = "__ignore__"  # labelme's
    data = coco("all", described(tmp_path, categories=categories, annotations=things))
    assert data.class_names == CELL and data.report.ignored == 96


def test_a_mark_that_says_neither_is_named(tmp_path):
    save(tmp_path / "images" / "a.png", LIGHT)
    (problem,) = check_coco(described(tmp_path, annotations=[annotation(iscrowd="maybe")])).problems
    assert "has iscrowd 'maybe'" in problem.what and problem.drops == ("a",)


def test_only_crowds_and_a_value_to_ignore_are_reported_too(tmp_path):
    save(tmp_path / "images" / "a.png", LIGHT)
    report = check_coco(described(tmp_path, annotations=[annotation(segmentation=RUNS, iscrowd=1)] * 1))
    assert "with 1 crowd" in str(report) and report.objects == 0
    pairs(tmp_path, "a", values=np.where(SQUARE, 1, 255).astype(np.uint8))
    report = check_folder(tmp_path, CELL, ignore=255)
    assert report.ignored == (SQUARE == 0).sum() and "will not count: 672 pixels (88 %)\n" in str(report)


@pytest.mark.parametrize(
    "wrong",
    [
        {"annotations": [annotation(image_id=7)]},
        {"annotations": [annotation(image_id=None)]},
        {"annotations": [annotation(image_id=True)]},
        {"annotations": [None]},
        {"annotations": ["1"]},
        {"annotations": [annotation(category_id=9)]},
        {"annotations": [annotation(segmentation=[])]},
        {"annotations": [annotation(), annotation(id=2, segmentation=[[1, 2]])]},
        {"categories": [{"id": 1, "name": "cell"}, {"id": 1, "name": "dirt"}]},
        {"images": [image(), image(file_name="b.png")]},
    ],
)
def test_what_cannot_be_read_is_dropped_whole(tmp_path, wrong):
    """No image stays whose objects were lost: it would be learned as background."""
    save(tmp_path / "images" / "a.png", LIGHT)
    save(tmp_path / "images" / "b.png", LIGHT + np.uint8(1))
    save(tmp_path / "images" / "c.png", LIGHT + np.uint8(2))
    changes = {"categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "dust"}]} | wrong
    changes["categories"] = [*changes["categories"], {"id": 5, "name": "sound"}]
    changes["images"] = [*changes.get("images", [image()]), image(id=3, file_name="c.png")]
    changes["annotations"] = [
        *changes.get("annotations", [annotation()]),
        annotation(id=9, image_id=3, category_id=5),
    ]
    data = coco("all", described(tmp_path, **changes), skip=True)
    assert data.names == ("c",) and data.report.problems
    assert all(len(sample.classes) for sample in data)


# What is too large --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_an_image_too_large_for_training_is_named_before_it_is_decoded(tmp_path, ending):
    pairs(tmp_path, "a")
    path = tmp_path / "images" / f"large.{ending}"
    if ending == "tif":
        tifffile.memmap(path, shape=(20000, 20000), dtype=np.uint8)
    else:
        save(path, np.zeros((6400, 6400), np.uint8))
    save(tmp_path / "labels" / "large.png", SQUARE)
    tracemalloc.start()
    report = check_folder(tmp_path, CELL)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (problem,) = report.problems
    assert "million" in problem.what and problem.fix.startswith("Split it into pieces") and used < 5_000_000
    assert report.sound == 1


# From the mark to the score -----------------------------------------------------------------------------------


@pytest.fixture
def crowded(tmp_path):
    """One image: an object on the left, a crowd that is the right half, another size than square."""
    save(tmp_path / "images" / "a.png", LIGHT)
    runs = {"size": [24, 32], "counts": [24 * 20, 24 * 12]}
    path = described(tmp_path, annotations=[annotation(), annotation(id=2, segmentation=runs, iscrowd=1)])
    return coco("all", path, channels=1)


@pytest.mark.backend
@pytest.mark.backend
@pytest.mark.parametrize(
    "task", [tasks.Semantic(), tasks.Semantic(border_weight=5.0), tasks.Borders(border_weight=5.0)]
)
def test_a_crowd_counts_in_no_target_of_a_segmentation(crowded, task):
    labels, *weights = task.encode(crowded[0])
    np.testing.assert_array_equal(labels == -1, crowded[0].ignored)
    for weight in weights:
        np.testing.assert_array_equal(weight == 0, crowded[0].ignored)
    batch = Batches(crowded, 1, (24, 32), task=task, augmentation=Augmentation(flip=True))[0]
    assert (batch[1] == -1).sum() == crowded[0].ignored.sum()


@pytest.mark.backend
def test_a_crowd_reaches_the_detector(crowded):
    _, targets = Batches(crowded, 1, (24, 32), task=tasks.Objects(max_objects=3))[0]
    np.testing.assert_array_equal(targets["ignore"][0], crowded[0].ignored)
    assert targets["classes"].tolist() == [[1, 0, 0]]


@pytest.mark.backend
def test_no_crop_is_learned_in_which_nothing_counts(crowded):
    batches = Batches(crowded, 1, (8, 8), steps=60, augmentation=Augmentation(flip=True), workers=1)
    assert all((batches[k][1] >= 0).any() for k in range(60))


@pytest.mark.backend
def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong(crowded):
    sample = crowded[0]
    found = np.zeros((24, 32), np.int32)
    found[4:12, 6:18] = 1
    perfect = tasks.instance_scores([(sample.instances, found, sample.ignored)])
    found[2:6, 22:26], found[10:16, 24:30] = 2, 3
    assert (
        tasks.instance_scores([(sample.instances, found, sample.ignored)]) == perfect
        and perfect["ap_50"] == 1
    )
    assert perfect["count_error"] == 0 and perfect["iou_foreground"] == 1
    found[14:22, 2:10] = 4  # this one is wrong
    worse = tasks.instance_scores([(sample.instances, found, sample.ignored)])
    assert worse["ap_50"] == 0.5 and worse["count_error"] == 1


@pytest.mark.backend
@pytest.mark.parametrize("with_masks", [False, True])
def test_detections_in_a_crowd_do_not_lower_the_precision(crowded, with_masks):
    boxes = np.array([[22, 2, 30, 10], [6, 4, 18, 12], [21, 12, 31, 22]], np.float32)
    found = {"boxes": boxes, "classes": np.ones(3, np.int32), "scores": np.array([0.9, 0.8, 0.7], np.float32)}
    found |= {"valid": np.ones(3, bool), "size": np.array([24, 32])}
    if with_masks:
        found["masks"] = np.ones((3, 14, 14), np.float32)
    scores = tasks.coco_scores([crowded[0]], [found], 1)
    assert scores["box_ap_50"] == 1 and ("mask_ap_50" in scores) == with_masks
    assert scores.get("mask_ap_50", 1) == 1
    found["boxes"] = boxes - np.array([[20, -10, 20, -10]], np.float32) * [[1], [0], [0]]
    assert tasks.coco_scores([crowded[0]], [found], 1)["box_ap_50"] == pytest.approx(0.5, abs=0.01)
