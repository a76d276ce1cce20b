"""The real sets as numbers: how they are measured, that they agree with the cards, and that no picture is committed."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from course_lib import checkpoints, datasets, recipes
from course_lib.chapters.ch09_real_data import real_data
from course_lib.datasets import archive
from course_lib.datasets.sample import Sample
from course_lib.metrics import instance, semantic
from course_lib.segmenter import Segmenter

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "09_real_data.ipynb"


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
    # Frequencies 0.5, 0.25 and 0.05 (the third class stands in pictures of 40 pixels alone); their median is 0.25.
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
        "train": {"pictures": 2, "first": 10, "last": 100},
        "val": {"pictures": 2, "first": 20, "last": 24},
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


@pytest.mark.parametrize("name", list(real_data.MEASURES))
def test_stand_ins_are_marked_as_drawn_and_have_the_sets_form(name, nothing_here):
    samples, word = real_data.pictures(name, ["a", "b"])
    assert word == "drawn: " and len(samples) == 2 and real_data.here() == ()
    for sample in samples:
        assert (
            sample.image.shape[-1] == datasets.channels(name)
            and sample.semantic.shape == sample.image.shape[:2]
        )
        assert 0 <= sample.image.min() and sample.image.max() <= 1
        assert sample.semantic.max() < len(datasets.class_names(name))
    assert not np.array_equal(samples[0].image, samples[1].image)
    (again,), _ = real_data.pictures(name, ["c"])
    np.testing.assert_array_equal(again.image, samples[0].image)


def test_drawn_tissue_is_cells_apart():
    tissue = real_data.drawn_tissue(0, size=192, cells=30)
    np.testing.assert_array_equal(tissue.instances > 0, tissue.semantic == 1)
    assert 0.6 < tissue.semantic.mean() < 0.9 and tissue.instances.max() > 15
    grey = tissue.image[..., 0]
    assert grey[tissue.semantic == 1].mean() > grey[tissue.semantic == 0].mean() + 0.15


def test_what_is_not_here_is_said(nothing_here, tmp_path, capsys):
    assert real_data.main([]) == 1
    assert "None of the real sets is here" in capsys.readouterr().err
    with pytest.raises(ValueError, match="name is 'cells'; it must be one of membranes, nuclei, camvid"):
        real_data.measure("cells")
    with pytest.raises(ValueError, match="name is 'cells'"):
        real_data.read("cells")
    with pytest.raises(ValueError, match="name is 'cells'"):
        real_data.pictures("cells", [])
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
        assert np.mean([row[name] for row in found["pictures"]]) == pytest.approx(
            one["mean_over_pictures"], abs=1e-5
        )
    nuclei = sum(row["nuclei"] for row in found["pictures"])
    assert sum(found["sizes"]["count"]) == nuclei == sum(found["diameters"]["val"])
    wrong = sum(abs(row["found"] - row["nuclei"]) for row in found["pictures"])
    assert wrong / nuclei == pytest.approx(card["val"]["count_error"], abs=1e-5)
    assert all(0.3 < row["bright"] < 1.6 for row in found["pictures"])
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
    assert set(found["nets"]) <= set(real_data.STREETS)
    for name, net in found["nets"].items():
        card = checkpoints.card(recipes.get(name))
        assert net["digest"] == card["digest"], (
            f"{name}: measure it again: python -m course_lib.chapters.ch09_real_data.real_data camvid"
        )
        assert net["mean_iou"] == pytest.approx(card["val"]["mean_iou"], abs=2e-4)
        matrix = np.array(net["confusion"])
        assert semantic.mean_iou(matrix) == pytest.approx(net["mean_iou"], abs=1e-5)
        assert len(net["pictures"]) == found["pictures"]["val"]


def test_what_the_answers_would_be_if_the_habit_were_known():
    """Three pictures, of which the second is wide; by hand."""
    thresholds = len(real_data.HABITS)
    counts = np.zeros((3, 1 + thresholds, 2, 3), int)
    counts[..., 0], counts[..., 2] = 1, 3  # one of four found, whatever the threshold …
    counts[1, 1 + 2, 1] = 4, 0, 0  # … but all of the wide ones at the third one, at IoU 0.75
    counts[[0, 2], 1 + 5, 1] = 3, 0, 1
    known = np.zeros((thresholds, 2, 3), int)
    known[..., 2] = 4
    known[4, 1] = 1, 0, 3  # in train, what is picked does best at the fifth threshold …
    counts[:, 1 + 4, 1] = 2, 0, 2  # … where of each picture two of four are found
    found = real_data._habits(counts, np.array([False, True, False]), np.array([True, True, False]), known)
    assert found["wide"]["pictures"] == 1 and found["others"]["pictures"] == 2
    assert found["wide"]["best"] == real_data.HABITS[2] and found["others"]["best"] == real_data.HABITS[5]
    assert found["wide"]["chosen"] == {"ap_50": 0.25, "ap_75": 0.25}
    assert found["others"]["ap_75"][5] == 0.75 and found["others"]["ap_75"][4] == 0.5
    assert found["guessed"] == {"ap_50": 3 / 12, "ap_75": (2 + 2 + 1) / 12, "threshold": real_data.HABITS[4]}
    assert found["told"] == {"ap_50": 3 / 12, "ap_75": 10 / 12}


def test_pooled_scores_by_hand():
    """Two pictures, eleven objects: together and picture by picture are two numbers."""
    counts = np.array([[[1, 0, 0], [1, 0, 0]], [[5, 2, 3], [0, 7, 8]]])
    found = real_data.pooled(counts)
    assert found["ap_50"]["pooled"] == 6 / 11 and found["ap_50"]["mean_over_pictures"] == 0.75
    assert found["ap_75"]["pooled"] == 1 / 16 and found["ap_75"]["mean_over_pictures"] == 0.5
    assert found["ap_50"]["low"] == 0.5 and found["ap_50"]["high"] == 1


def test_the_look_of_a_picture_knows_nothing_of_its_exposure_but_the_grey_does():
    rng = np.random.default_rng(0)
    image = 0.2 + 0.4 * gaussian_filter(rng.random((64, 80)), 2)
    seen, brighter = real_data.look(image), real_data.look(1.5 * image)
    assert seen.shape == (28,) and np.isfinite(seen).all()
    np.testing.assert_allclose(brighter[:13], 1.5 * seen[:13])
    np.testing.assert_allclose(brighter[13:], seen[13:], rtol=1e-6)
    # Sharper: more of the power in the fine rings, steeper edges.
    sharper = real_data.look(0.2 + 0.4 * gaussian_filter(rng.random((64, 80)), 0.5))
    assert sharper[-1] > seen[-1] + 1 and (sharper[13:18] > seen[13:18]).all()
    assert np.isfinite(real_data.look(np.full((32, 32), 0.1))).all()


def test_a_habit_that_shows_is_recognised_and_one_that_does_not_is_not():
    rng = np.random.default_rng(1)
    wide = np.arange(40) % 2 == 0
    images = [gaussian_filter(rng.random((48, 48)), 1.5 if one else 0.8) for one in wide]
    shows, picked, _ = real_data.habit_by_look(images, wide, trees=30, draws=200)
    assert shows["pictures"] == 40 and shows["wide"] == shows["picked"] == shows["picked_right"] == 20
    assert shows["auc"] == 1 and (picked == wide).all() and "new" not in shows
    new = [gaussian_filter(rng.random((48, 48)), sigma) for sigma in (0.8, 1.5, 0.8)]
    again, _, picked = real_data.habit_by_look(images, wide, new, [False, True, False], trees=30, draws=20)
    assert again["new"] == {"pictures": 3, "wide": 1, "picked": 1, "picked_right": 1, "auc": 1}
    assert picked.tolist() == [False, True, False]
    hidden, *_ = real_data.habit_by_look(images, rng.permutation(wide), trees=30, draws=200)
    assert hidden["low"] < 0.5 < hidden["high"] and hidden["low"] <= hidden["auc"] <= hidden["high"]
    with pytest.raises(ValueError, match="wide has 40 answers for 40 pictures, 3 of them True"):
        real_data.habit_by_look(images, np.arange(40) < 3)
    with pytest.raises(ValueError, match="wide has 39 answers for 40 pictures"):
        real_data.habit_by_look(images, wide[1:])


# Beside another method ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beside_stardist():
    """tools/stardist_nuclei.py, which is no part of a package."""
    path = NOTEBOOK.parents[1] / "tools" / "stardist_nuclei.py"
    spec = importlib.util.spec_from_file_location("stardist_nuclei", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        spec.loader.exec_module(module)
    return module


def test_another_method_is_reported_as_the_course_s_net_is(beside_stardist):
    truth = np.zeros((20, 30), int)
    truth[2:8, 2:8], truth[12:18, 2:8], truth[2:8, 20:26] = 1, 2, 3
    answer = np.zeros_like(truth)
    answer[2:8, 2:8], answer[12:18, 2:6] = 1, 2  # one exact, one at IoU 2/3, one missed
    report = beside_stardist.report(["a", "b"], [truth, truth], [answer, truth])
    assert report["pictures"] == [
        {"name": "a", "nuclei": 3, "found": 2, "right_50": 2, "right_75": 1},
        {"name": "b", "nuclei": 3, "found": 3, "right_50": 3, "right_75": 3},
    ]
    assert report["scores"]["ap_50"]["pooled"] == 5 / 6 and report["scores"]["ap_75"]["pooled"] == 4 / 7


def test_the_other_method_s_rate_falls_and_its_labels_move_with_the_picture(beside_stardist):
    rates = [beside_stardist.rate(epoch, 40) for epoch in range(40)]
    assert rates == sorted(rates, reverse=True)
    assert 0.99 < rates[0] / beside_stardist.RATE <= 1 and 0.01 < rates[-1] / beside_stardist.RATE < 0.02
    labels = np.arange(48).reshape(6, 8)
    for seed in range(8):
        image, moved = beside_stardist.augmented(labels.astype(float), labels, np.random.default_rng(seed))
        assert image.shape == moved.shape and sorted(moved.ravel()) == list(range(48))
        assert np.corrcoef(image.ravel(), moved.ravel())[0, 1] > 0.999


def test_without_the_other_method_one_is_told_how_to_get_it(beside_stardist, monkeypatch, capsys, tmp_path):
    with pytest.raises(FileNotFoundError, match="with the data here: python tools/stardist_nuclei.py"):
        real_data.read("nuclei-stardist", tmp_path)
    monkeypatch.setitem(sys.modules, "stardist", None)
    assert beside_stardist.main([]) == 1
    said = capsys.readouterr().err
    assert "stardist is not installed" in said and "pip install" in said and "Traceback" not in said


def test_the_other_method_was_measured_on_the_same_pictures():
    ours, theirs = real_data.read("nuclei"), real_data.read("nuclei-stardist")
    assert [(row["name"], row["nuclei"]) for row in ours["pictures"]] == [
        (row["name"], row["nuclei"]) for row in theirs["pictures"]
    ]
    for found in (ours, theirs):
        for key in ("50", "75"):
            right = sum(row[f"right_{key}"] for row in found["pictures"])
            either = sum(row["nuclei"] + row["found"] for row in found["pictures"]) - right
            assert right / either == pytest.approx(found["scores"][f"ap_{key}"]["pooled"], abs=1e-5)
    seen, right = ours["in_train"]["pictures"], sum(ours["in_train"]["pictures"]["right_75"])
    in_train = right / (sum(seen["nuclei"]) + sum(seen["found"]) - right)
    assert in_train == pytest.approx(ours["in_train"]["scores"]["ap_75"]["pooled"], abs=1e-5)
    groups = ours["habits"]
    assert groups["wide"]["pictures"] + groups["others"]["pictures"] == len(ours["pictures"])
    assert groups["told"]["ap_75"] >= ours["scores"]["ap_75"]["pooled"]


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
    (first, second), word = real_data.pictures("membranes", ["20", "21"])
    assert word == ""
    assert [row["membrane"] for row in found["slices"] if row["name"] in ("20", "21")] == pytest.approx(
        [(sample.semantic == 0).mean() for sample in (first, second)], abs=1e-5
    )
    with pytest.raises(ValueError, match="membranes val has no picture '3'"):
        real_data.pictures("membranes", ["3"])


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
    assert {split: len(names) for split, names in both.items()} == found["pictures"]


def test_a_picture_of_nuclei_measured_again(archives, tmp_path):
    """A small one with a score between 0 and 1 at both thresholds, taken out of the archive alone."""
    found = real_data.read("nuclei")
    row = next(r for r in found["pictures"] if r["kind"] == "256 × 256" and 0.2 < r["ap_75"] < r["ap_50"] < 1)
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


# The notebook -------------------------------------------------------------------------------------------------


def test_the_committed_notebook_was_run_without_the_data():
    """So that no picture of a downloaded set is in it."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    said = "".join("".join(output.get("text", "")) for output in first["outputs"])
    for name in real_data.MEASURES:
        assert f"{name:<10} not here" in said, (
            f"{name} was here when 09 was run; run it with COURSE_DATA= and COURSE_CACHE=an empty folder"
        )
