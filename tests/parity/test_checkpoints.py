"""The shipped weights: not stale, and as good as their cards say, on the backend that is set."""

import pytest

from course_lib import checkpoints, datasets, recipes
from course_lib.segmenter import load

pytestmark = pytest.mark.backend

SHIPPED = [
    recipe for recipe in recipes.RECIPES.values() if (checkpoints.folder(recipe) / "card.json").is_file()
]
QUICK = ("unet-cells", "unet-scenes")


def test_every_recipe_is_shipped_and_no_checkpoint_is_left_over():
    folders = {path.name for path in checkpoints.FOLDER.iterdir() if path.is_dir()}
    assert folders == set(recipes.RECIPES)


@pytest.mark.parametrize("recipe", SHIPPED, ids=lambda recipe: recipe.name)
def test_the_digest_is_the_recipes(recipe):
    assert checkpoints.card(recipe)["digest"] == recipe.digest


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(recipe, id=recipe.name, marks=() if recipe.name in QUICK else pytest.mark.slow)
        for recipe in SHIPPED
    ],
)
def test_the_weights_give_the_metrics_of_the_card(recipe, request, monkeypatch):
    if recipe.dataset not in (datasets.cells, datasets.scenes):
        monkeypatch.setenv("COURSE_DATA", str(request.getfixturevalue("real_data")))
    segmenter = load(recipe)
    assert segmenter.evaluate("val") == pytest.approx(segmenter.card["val"], abs=1e-3)
    assert recipe.data("train").fingerprint() == segmenter.card["data"]


def test_the_network_for_scenes_has_learned_every_class():
    scores = checkpoints.card(recipes.SCENES)["val"]
    assert min(value for name, value in scores.items() if name.startswith("iou_")) >= 0.5
