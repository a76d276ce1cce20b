"""The real sets as numbers: how they are measured, and that they agree with the cards."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from course_lib import checkpoints, datasets, recipes
from course_lib.chapters.ch09_one_real_case import real_data
from course_lib.datasets import archive
from course_lib.datasets.sample import Sample
from course_lib.metrics import instance, semantic
from course_lib.segmenter import Segmenter

# Tools --------------------------------------------------------------------------------------------------------


def test_bins_hold_equally_many_and_take_what_lies_beyond():
    values = np.random.default_rng(0).gamma(2, size=600)
    edges = real_data.equal_bins(values, 6)
    assert len(edges) == 7 and edges[0] == values.min() and edges[-1] == values.max()
    assert np.bincount(real_data.in_bins(values, edges)).tolist() == [100] * 6
    assert real_data.in_bins([-1, 0, 5, 10, 99], np.array([0, 5, 10])).tolist() == [0, 0, 1, 1, 1]


def test_a_table_by_size():
    table = real_data.size_table(
        np.array([1.0, 2.0, 3.0, 9.0]), np.array([0, 2.5, 5, 8]), found=np.array([1.0, 0.0, 1.0, 1.0])
    )
    assert table["count"] == [2, 1, 1] and table["found"] == [0.5, 1, 1]
    empty = real_data.size_table(np.array([1.0]), np.array([0, 2, 4]), found=np.array([1.0]))
    assert empty["count"] == [1, 0] and np.isnan(empty["found"][1])


def test_a_disc_has_its_own_diameter():
    rows, columns = np.mgrid[:101, :101] - 50
    assert real_data.diameter((rows**2 + columns**2 < 40**2).sum()) == pytest.approx(80, rel=0.01)


def test_what_is_kept_is_plain_json():
    kept = real_data.rounded({1: np.float32(1 / 3), "a": (np.int64(2), np.nan, "x", True), "b": np.arange(2)})
    assert kept == {"1": 0.33333, "a": [2, None, "x", True], "b": [0, 1]}
    assert json.loads(json.dumps(kept)) == kept


def test_median_frequency_weights_by_hand():
    # Frequencies 0.5, 0.25 and 0.05 (the third class stands in images of 40 pixels alone); their median is 0.25.
    weights = real_data.median_frequency_weights([50, 25, 2, 0], [100, 100, 40, 0])
    np.testing.assert_allclose(weights, [0.5, 1, 5, 0])


def test_frames_and_drives():
    assert real_data.frame_of("0006R0_f00930") == ("0006R0", 930)
    assert real_data.frame_of("0016E5_07959") == ("0016E5", 7959)
    both = {
        "train": [SimpleNamespace(name=name) for name in ("A_0010", "A_0100", "B_0050")],
        "val": [SimpleNamespace(name=name) for name in ("A_0020", "A_0024")],
    }
    found = real_data._drives(both)
    assert found["drives"]["A"] == {
        "train": {"images": 2, "first": 10, "last": 100},
        "val": {"images": 2, "first": 20, "last": 24},
    }
    assert found["gap"] == {"least": 10, "median": 12, "most": 14}


def street(name, semantic, seed=0):
    image = np.random.default_rng(seed).random((8, 8, 3)).astype(np.float32)
    return Sample(image, semantic, None, np.zeros((0, 4)), np.zeros(0, int), name)


def test_copied_labels_are_those_of_the_nearest_frame_of_the_drive():
    road, sky = np.full((8, 8), 3), np.zeros((8, 8), int)
    known = [street("A_0010", road), street("A_0100", sky), street("B_0019", sky)]
    assert real_data._copy_score([street("A_0020", road)], known) == 1
    assert real_data._copy_score([street("A_0090", road)], known) == 0
    unlabelled = np.full((8, 8), -1)
    assert real_data._copy_score([street("A_0020", road)], [street("A_0010", unlabelled)]) == 0
    # Of a drive that nothing is known of, what looks most like it.
    alike = [street("A_0010", road, seed=1), street("A_0020", sky, seed=2)]
    assert real_data._copy_score([street("C_0001", sky, seed=2)], alike) == 1


def test_the_distance_to_the_other_class():
    labels = np.zeros((5, 9), int)
    labels[:, 4:] = 1
    np.testing.assert_array_equal(real_data._to_the_boundary(labels)[2], [4, 3, 2, 1, 1, 2, 3, 4, 5])


def test_twins_are_found_whatever_their_brightness():
    image = datasets.cells("val", length=2, size=96, seed=1)
    one, other = (real_data._thumbnail(sample.image) for sample in image)
    darker = real_data._thumbnail(0.5 * image[0].image - 0.005)
    assert one @ one == pytest.approx(1) and one @ darker > real_data.MOST_SIMILAR > one @ other


def test_bright_share_tells_labels_that_are_drawn_wide():
    rows, columns = np.mgrid[:120, :240]
    disc = lambda radius, x: np.hypot(rows - 60, columns - x) < radius  # noqa: E731
    image = 0.1 + 0.5 * gaussian_filter((disc(20, 60) | disc(20, 180)).astype(float), 2)
    exact, wide = disc(20, 60) * 1 + disc(20, 180) * 2, disc(24, 60) * 1 + disc(24, 180) * 2
    assert real_data.bright_share(image, exact) == pytest.approx(1, abs=0.05)
    assert real_data.bright_share(image, wide) == pytest.approx((20 / 24) ** 2, abs=0.05)
    assert real_data.bright_share(0.2 * image + 0.3, wide) == real_data.bright_share(image, wide)
    # A neighbour that is as bright counts for itself alone, also where the two touch.
    halves = np.where(columns < 60, 1, 2) * disc(20, 60)
    assert real_data.bright_share(image * (columns < 120), halves) == pytest.approx(1, abs=0.07)
    # Numbers that no pixel has and specks are passed over.
    gaps = np.where(exact == 2, 5, exact)
    gaps[0, :3] = 3
    assert real_data.bright_share(image, gaps) == real_data.bright_share(image, exact)
    assert np.isnan(real_data.bright_share(image, (rows + columns == 0).astype(int)))
    assert np.isnan(real_data.bright_share(image, np.ones_like(exact)))


# Without the data ---------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_DATA", "")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("COURSE_MIRROR", "http://127.0.0.1:9")  # whoever downloads here makes a mistake


def test_what_is_not_here_is_said(nothing_here, tmp_path, capsys):
    assert real_data.main([]) == 1
    assert "None of the real sets is here" in capsys.readouterr().err
    with pytest.raises(
        ValueError, match="name is 'cells'; it must be one of 'membranes', 'nuclei', 'camvid', 'by-source'"
    ):
        real_data.measure("cells")
    with pytest.raises(ValueError, match="name is 'cells'"):
        real_data.read("cells")
    with pytest.raises(FileNotFoundError, match="real_data nuclei"):
        real_data.read("nuclei", tmp_path)
    assert real_data.main(["cells"]) == 1 and "name is 'cells'" in capsys.readouterr().err


# The files ----------------------------------------------------------------------------------------------------


def leaves(value):
    if isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield value


@pytest.mark.parametrize("name", list(real_data.MEASURES))
def test_the_files_hold_numbers_and_names_only(name):
    path = real_data.FOLDER / f"{name}.json"
    assert path.stat().st_size < 60_000
    assert all(
        value is None or isinstance(value, (int, float, str)) for value in leaves(real_data.read(name))
    )
    assert all(len(value) <= 64 for value in leaves(real_data.read(name)) if isinstance(value, str))


def test_membranes_agree_with_the_card():
    found, card = real_data.read("membranes"), checkpoints.card(recipes.MEMBRANES)
    assert found["thresholds"]["digest"] == recipes.MEMBRANES.digest, (
        "measure it again: the recipe has changed"
    )
    assert found["thresholds"]["chosen"] == card["thresholds"]["segment_threshold"]
    for name in ("pixel_error", "rand", "information"):
        assert np.mean([one[name] for one in found["worst"]]) == pytest.approx(card["val"][name], abs=2e-5)
    curve = found["thresholds"]
    at = curve["threshold"].index(curve["chosen"])
    for name in ("split", "merge"):
        assert len(curve[name]) == len(curve["threshold"])
        assert np.mean([one[name] for one in found["worst"]]) == pytest.approx(curve[name][at], abs=2e-5)
    # A stricter threshold cuts more and joins less.
    assert curve["merge"][0] < curve["merge"][at] and curve["split"][at] < curve["split"][0]
    for name in ("pixels", "of_all_errors"):
        assert sum(found["edges"][name]) == pytest.approx(1, abs=1e-4)
    errors = found["membrane"]["missed"] + found["membrane"]["invented"]
    assert errors / (4 * 512 * 512) == pytest.approx(card["val"]["pixel_error"], abs=1e-5)


def test_nuclei_agree_with_the_card():
    found, card = real_data.read("nuclei"), checkpoints.card(recipes.NUCLEI)
    assert found["digest"] == recipes.NUCLEI.digest, "measure it again: the recipe has changed"
    for name in ("ap_50", "ap_75"):
        one = found["scores"][name]
        assert (
            one["pooled"] == pytest.approx(card["val"][name], abs=1e-5)
            and one["low"] < one["pooled"] < one["high"]
        )
        assert np.mean([row[name] for row in found["per_image"]]) == pytest.approx(
            one["mean_over_images"], abs=1e-5
        )
    nuclei = sum(row["nuclei"] for row in found["per_image"])
    assert sum(found["sizes"]["count"]) == nuclei == sum(found["diameters"]["val"])
    wrong = sum(abs(row["found"] - row["nuclei"]) for row in found["per_image"])
    assert wrong / nuclei == pytest.approx(card["val"]["count_error"], abs=1e-5)
    assert all(0.3 < row["bright"] < 1.6 for row in found["per_image"])
    hit = np.dot(found["sizes"]["found_50"], found["sizes"]["count"])
    both = sum(one["found_50"] * one["count"] for one in found["touching"].values())
    assert hit == pytest.approx(both, abs=0.1) and hit == pytest.approx(round(hit), abs=0.1)


def test_streets_agree_with_the_cards():
    found = real_data.read("camvid")
    assert list(found["classes"]) == list(datasets.CAMVID_CLASSES)
    weights = real_data.median_frequency_weights(
        *([one[key] for one in found["classes"].values()] for key in ("pixels", "pixels_where_present"))
    )
    np.testing.assert_allclose([one["weight"] for one in found["classes"].values()], weights, atol=1e-5)
    assert set(found["networks"]) <= set(real_data.STREETS)
    for name, one in found["networks"].items():
        card = checkpoints.card(recipes.get(name))
        assert one["digest"] == card["digest"], (
            f"{name}: measure it again: python -m course_lib.chapters.ch09_one_real_case.real_data camvid"
        )
        assert one["mean_iou"] == pytest.approx(card["val"]["mean_iou"], abs=2e-4)
        matrix = np.array(one["confusion"])
        assert semantic.mean_iou(matrix) == pytest.approx(one["mean_iou"], abs=1e-5)
        assert len(one["per_image"]) == found["images"]["val"]


def test_the_score_if_the_convention_were_known():
    """Three images, of which the second is wide; by hand."""
    thresholds = len(real_data.HABITS)
    counts = np.zeros((3, 1 + thresholds, 2, 3), int)
    counts[..., 0], counts[..., 2] = 1, 3  # one of four found, whatever the threshold …
    counts[1, 1 + 2, 1] = 4, 0, 0  # … but all of the wide ones at the third one, at IoU 0.75
    counts[[0, 2], 1 + 5, 1] = 3, 0, 1
    found = real_data._habits(counts, np.array([False, True, False]))
    assert found["wide"]["images"] == 1 and found["others"]["images"] == 2
    assert found["wide"]["best"] == real_data.HABITS[2] and found["others"]["best"] == real_data.HABITS[5]
    assert found["wide"]["chosen"] == {"ap_50": 0.25, "ap_75": 0.25}
    assert found["others"]["ap_75"][5] == 0.75 and found["others"]["ap_75"][4] == 0.25
    assert found["told"] == {"ap_50": 3 / 12, "ap_75": 10 / 12}


def test_pooled_scores_by_hand():
    """Two images, eleven objects: together and image by image are two numbers."""
    counts = np.array([[[1, 0, 0], [1, 0, 0]], [[5, 2, 3], [0, 7, 8]]])
    found = real_data.pooled(counts)
    assert found["ap_50"]["pooled"] == 6 / 11 and found["ap_50"]["mean_over_images"] == 0.75
    assert found["ap_75"]["pooled"] == 1 / 16 and found["ap_75"]["mean_over_images"] == 0.5
    assert found["ap_50"]["low"] == 0.5 and found["ap_50"]["high"] == 1


def test_the_nuclei_add_up():
    found = real_data.read("nuclei")
    seen, right = found["in_train"]["per_image"], sum(found["in_train"]["per_image"]["right_75"])
    in_train = right / (sum(seen["nuclei"]) + sum(seen["found"]) - right)
    assert in_train == pytest.approx(found["in_train"]["scores"]["ap_75"]["pooled"], abs=1e-5)
    groups = found["habits"]
    assert groups["wide"]["images"] + groups["others"]["images"] == len(found["per_image"])
    assert groups["told"]["ap_75"] >= found["scores"]["ap_75"]["pooled"]


def test_the_source_that_was_held_out_is_in_no_other_split():
    found, card = real_data.read("by-source"), checkpoints.card(recipes.NUCLEI_BY_SOURCE)
    assert found["digest"] == card["digest"] == recipes.NUCLEI_BY_SOURCE.digest
    held = "520 × 696"
    kinds = {split: {row["kind"] for row in found[split]["per_image"]} for split in ("val", "test")}
    assert kinds["test"] == {held} and held not in kinds["val"]
    counts = real_data.read("nuclei")["kinds"]
    others = [one for kind, one in counts.items() if kind != held]
    assert found["train"]["images"] == sum(one["train"]["images"] for one in others)
    assert found["test"] == found["test"] | {
        "images": counts[held]["train"]["images"],
        "nuclei": counts[held]["train"]["nuclei"],
    }
    for name in ("ap_50", "ap_75", "count_error"):
        score = found["val"][name] if name == "count_error" else found["val"]["scores"][name]["pooled"]
        assert score == pytest.approx(card["val"][name], abs=1e-4)


# With the data ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archives(request, tmp_path_factory):
    """The folder of real archives, and a cache of its own for what is unpacked."""
    folder = request.getfixturevalue("real_data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_DATA", str(folder))
        patch.setenv("COURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


def test_slices_of_membranes_measured_again(archives):
    found = real_data.read("membranes")
    first, second = [sample for sample in datasets.membranes("val") if sample.name in ("20", "21")]
    assert [row["membrane"] for row in found["slices"] if row["name"] in ("20", "21")] == pytest.approx(
        [(sample.semantic == 0).mean() for sample in (first, second)], abs=1e-5
    )


def test_drives_of_the_streets_measured_again(archives):
    """From the lists inside the archive."""
    both = {}
    with zipfile.ZipFile(archives / archive.archives()["camvid"].file) as packed:
        for split in ("train", "val"):
            (path,) = (name for name in packed.namelist() if name.endswith(f"CamVid/{split}.txt"))
            stems = [Path(entry).stem for entry in packed.read(path).decode().split()[::2]]
            both[split] = [SimpleNamespace(name=stem) for stem in stems]
    found = real_data.read("camvid")
    assert real_data.rounded(real_data._drives(both)) == {key: found[key] for key in ("drives", "gap")}
    assert {split: len(names) for split, names in both.items()} == found["images"]


def test_a_picture_of_nuclei_measured_again(archives, tmp_path):
    """A small one with a score between 0 and 1 at both thresholds, taken out of the archive alone."""
    found = real_data.read("nuclei")
    row = next(
        r for r in found["per_image"] if r["kind"] == "256 × 256" and 0.2 < r["ap_75"] < r["ap_50"] < 1
    )
    with zipfile.ZipFile(archives / archive.archives()["nuclei"].file) as packed:
        packed.extractall(tmp_path, [name for name in packed.namelist() if f"/{row['name']}/" in name])
    (folder,) = tmp_path.glob(f"*/stage1_train/{row['name']}")
    grey, instances = datasets.real._read_nuclei(folder)
    sample = datasets.real._sample(grey, instances > 0, instances, row["name"])
    recipe, model = recipes.NUCLEI, recipes.NUCLEI.model()
    card = checkpoints.load(recipe, model, quiet=True)
    answer = recipe.task.decode(Segmenter.of(recipe, model).output(sample.image), **card["thresholds"])
    at = {t: instance.match(sample.instances, answer, t) for t in (0.5, 0.75)}
    again = real_data._nuclei_row(sample, answer, at)
    assert again["nuclei"] == row["nuclei"] and abs(again["found"] - row["found"]) <= 1
    assert again["ap_50"] == pytest.approx(row["ap_50"], abs=0.04)
    assert again["ap_75"] == pytest.approx(row["ap_75"], abs=0.06)
    assert again["area"] == pytest.approx(row["area"], abs=0.02)
    assert again["contrast"] == pytest.approx(row["contrast"], abs=1e-4)
