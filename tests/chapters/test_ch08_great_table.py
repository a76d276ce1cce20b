"""What chapters 8 and 10 show of the great table: with no run, with some, and with all of them."""

import inspect
import json
import shutil

import matplotlib
import numpy as np
import pytest

from course_lib import losses
from course_lib.chapters.ch08_losses_and_metrics import claim_7_2, claim_7_3, great_table, wall
from course_lib.teaching import course_map, experiments, ledger, statistics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

pytestmark = pytest.mark.backend
EXPERIMENT = great_table.EXPERIMENT
BETTER = {"dice": 0.08, "tversky": -0.08, "lovasz": 0.05}


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


def made_up(loss, own, prior, fraction, rate, seed):
    """A run whose scores are made up: some losses are better, some worse, the others all but alike."""
    name = f"{loss}{own}{prior}{rate}"
    noise = np.random.default_rng([seed, int(1000 * fraction), *name.encode()]).normal(0, 0.002)
    iou = 0.75 + BETTER.get(loss, 0) + noise - 0.1 * (fraction < 0.005)
    dice = 2 * iou / (1 + iou)
    at = {"iou": iou, "dice": dice, "accuracy": 1 - fraction * (1 - iou), "predicted": 1 + noise}
    at |= {"false_positives": 0.1 + noise, "false_negatives": 0.1}
    if (loss, rate) == ("focal", 1e-2):
        return {"diverged": "the loss is nan at step 3", "val_iou": 0.0}
    return {
        "curve": [[100 * k, iou - 0.01 * (5 - k)] for k in range(1, 6)],
        "val_iou": iou,
        "threshold": noise,
        "ap": iou,
        "best_iou": iou,
        "at_half": at,
        "chosen": at,
        "per_image": {"iou": iou - 0.05, "dice": dice - 0.05 + 5 * noise},
        "test_pixels": 100_000,
        "test_foreground": round(100_000 * fraction),
    }


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Makes runs in a folder of their own: `runs(most)`; the ledger beside them is written from these."""

    def make(most=10_000):
        monkeypatch.setattr(experiments, "FOLDER", tmp_path / "runs")
        monkeypatch.setattr(ledger, "FOLDER", tmp_path / "results")
        shutil.copytree(
            course_map.FOLDER.parent / "data" / "results", tmp_path / "results", ignore=lambda *_: ["runs"]
        )
        done = {}
        while left := [run for run in EXPERIMENT.plan(done) if experiments.key(run) not in done]:
            if len(done) >= most:
                break
            result = done[experiments.key(left[0])] = made_up(**left[0])
            path = EXPERIMENT.path(left[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {"arguments": left[0], "version": EXPERIMENT.version, "data": EXPERIMENT.data()}
            path.write_text(json.dumps(content | {"seconds": 1, "result": result}))
        for claim in range(2, 9):
            ledger.run(f"7.{claim}", minutes=0, write=True)

    return make


def words(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


class TestForest:
    def test_without_runs_everything_is_undecided(self, runs):
        runs(0)
        found = great_table.against_cross_entropy()
        assert list(found) == [0.1, 0.01, 0.003] and all(len(of) == 7 for of in found.values())
        for of in found.values():
            for one in of.values():
                assert one.verdict == f"undecided: {one.missing} runs are missing" and one.missing >= 18
                assert one.differences == [] and one.found == {}
        assert set(words(wall.draw_forest(found))) == {
            one.verdict for of in found.values() for one in of.values()
        }
        assert claim_7_2.leads(0).shape == (0, 2)

    def test_half_of_the_runs_decide_what_is_whole(self, runs):
        runs(90)
        found = great_table.against_cross_entropy()
        states = [one for of in found.values() for one in of.values()]
        assert any(one.missing for one in states) and any(not one.missing for one in states)
        assert all((one.verdict[:10] == "undecided:") == (one.missing > 0) for one in states)
        wall.draw_forest(found)

    @pytest.mark.slow
    def test_all_runs_show_what_was_put_into_them(self, runs):
        runs()
        assert great_table.missing() == 0
        found = great_table.against_cross_entropy()
        for of in found.values():
            verdicts = {loss: one.verdict for loss, one in of.items()}
            assert verdicts["dice"] == verdicts["lovasz"] == "better" and verdicts["tversky"] == "worse"
            assert verdicts["ce_dice"] == "equivalent"
            assert of["dice"].found["mean"] == pytest.approx(BETTER["dice"], abs=0.01)
        assert not any("missing" in text for text in words(wall.draw_forest(found)))
        assert len(claim_7_2.leads(0)) == 3 * 28
        assert ledger.read("7.7").missing == 0 and ledger.read("7.5").verdict == statistics.SUPPORTED

    def test_a_training_that_diverged_counts_as_zero(self):
        lost = made_up("focal", 2, 1, 0.1, 1e-2, 0)
        assert great_table.chosen_iou(lost) == great_table.half_iou(lost) == 0
        assert claim_7_3.accuracy(lost) == claim_7_3.kappa(lost) == 0


def test_kappa_is_scikit_learns():
    cohen = pytest.importorskip("sklearn.metrics").cohen_kappa_score
    rng = np.random.default_rng(0)
    truth = rng.random(5000) < 0.1
    found = truth ^ (rng.random(5000) < 0.05)
    run = {
        "test_pixels": truth.size,
        "test_foreground": truth.sum(),
        "chosen": {"accuracy": np.mean(truth == found), "predicted": found.sum() / truth.sum()},
    }
    assert claim_7_3.kappa(run) == pytest.approx(cohen(truth, found))


class TestTable:
    def test_it_has_every_loss_of_the_library_with_its_defaults(self):
        shown = {type(row.loss) for row in wall.TABLE.values()}
        abstract = {losses.SegmentationLoss, losses.AreaLoss}
        assert shown == {
            x
            for x in vars(losses).values()
            if inspect.isclass(x) and x not in abstract and issubclass(x, losses.SegmentationLoss)
        }
        assert wall.defaults(wall.TABLE["Tversky"].loss) == "alpha=0.3\nbeta=0.7\nsmooth=1"
        assert wall.defaults(wall.TABLE["focal"].loss) == "gamma=2\nalpha=None"
        assert wall.defaults(wall.TABLE["Lovász-softmax"].loss) == "–"

    def test_the_gradient_of_cross_entropy_is_the_one_of_its_formula(self):
        found = wall.pull(wall.TABLE["cross-entropy"].loss, "large object")
        inner = slice(1, -1)
        exact = 1 / (1 + np.exp(wall.LOGITS))
        np.testing.assert_allclose(found[inner], exact[inner], rtol=0.05)

    def test_the_cost_is_0_at_best_and_1_for_an_empty_prediction(self):
        areas, costs = wall.cost(wall.TABLE["Dice"].loss)
        assert costs.min() == 0 and areas[costs.argmin()] == pytest.approx(wall.DISC.sum(), rel=0.1)
        assert costs[0] == pytest.approx(1, abs=0.1)


@pytest.mark.nightly
@pytest.mark.parametrize("most", [0, 90, 10_000])
@pytest.mark.parametrize("name", ["08_losses_and_metrics", "10_revision"])
def test_the_notebooks_run_whatever_runs_there_are(name, most, runs, monkeypatch, capsys):
    runs(most)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    cells = json.loads((course_map.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    space = {}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not any(word in source for word in ("%pip", "widgets.", "quiz(")):
            exec(source, space)
    said = capsys.readouterr().out
    assert "Traceback" not in said and ("runs are missing" in said or most > 1000)
