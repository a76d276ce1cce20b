"""Balanced sampling: the numbers, the places, the chances, and when nothing is random."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.ops import by_hand
from course_lib.ops.sampling import sample_balanced, take_rows

pytestmark = pytest.mark.backend

ROWS = 24


def numpy(tensors):
    return [keras.ops.convert_to_numpy(tensor) for tensor in tensors]


kinds = st.lists(st.sampled_from("pn-"), min_size=ROWS, max_size=ROWS).map(np.array)


class TestNumbers:
    @settings(deadline=None, max_examples=40)
    @given(kinds, st.sampled_from([(8, 0.25), (8, 0.5), (8, 0.0), (8, 1.0), (100, 0.1)]), st.integers(0, 99))
    def test_as_many_of_each_as_by_hand_each_once(self, kinds, setting, seed):
        rng = np.random.default_rng(seed)
        positive, negative = kinds == "p", kinds == "n"
        indices, is_positive, is_negative = numpy(
            sample_balanced(positive, negative, *setting, rng.random(ROWS).astype(np.float32))
        )
        assert indices.shape == is_positive.shape == is_negative.shape == (min(setting[0], ROWS),)
        expected = by_hand.sample(np.flatnonzero(positive), np.flatnonzero(negative), *setting, rng)
        assert [is_positive.sum(), is_negative.sum()] == [len(rows) for rows in expected]
        assert positive[indices[is_positive]].all() and negative[indices[is_negative]].all()
        filled = is_positive | is_negative
        assert len(set(indices[filled])) == filled.sum()
        assert not (is_positive & is_negative).any() and not indices[~filled].any()
        # Positives first, then negatives, then empty places.
        assert (np.diff(2 * is_positive.astype(int) + is_negative) <= 0).all()

    def test_negatives_take_the_places_that_positives_leave(self):
        positive, negative = np.arange(ROWS) == 5, np.arange(ROWS) > 5
        _, is_positive, is_negative = numpy(sample_balanced(positive, negative, 8, 0.5))
        assert is_positive.sum() == 1 and is_negative.sum() == 7

    def test_nothing_to_choose(self):
        none = np.zeros((2, ROWS), bool)
        indices, is_positive, is_negative = numpy(sample_balanced(none, none, 8, 0.5))
        assert indices.shape == (2, 8) and not indices.any() and not (is_positive | is_negative).any()
        for found in numpy(sample_balanced(none[:, :0], none[:, :0], 8, 0.5)):
            assert found.shape == (2, 0)

    def test_a_row_that_is_both_is_a_positive(self):
        both = np.ones(4, bool)
        _, is_positive, is_negative = numpy(sample_balanced(both, both, 4, 0.5))
        assert is_positive.tolist() == [True, True, False, False] and not is_negative.any()

    def test_each_list_of_a_batch_has_its_own_numbers(self):
        positive = np.arange(ROWS) < np.array([0, 2, ROWS])[:, None]
        _, is_positive, is_negative = numpy(sample_balanced(positive, ~positive, 8, 0.5))
        assert is_positive.sum(axis=1).tolist() == [0, 2, 4]
        assert is_negative.sum(axis=1).tolist() == [8, 6, 0]


class TestChance:
    POSITIVE = np.arange(ROWS) < 10

    def test_the_largest_of_given_numbers_win(self):
        random = np.random.default_rng(0).permutation(ROWS) / ROWS
        indices, is_positive, is_negative = numpy(
            sample_balanced(self.POSITIVE, ~self.POSITIVE, 6, 0.5, random)
        )
        assert indices[is_positive].tolist() == np.argsort(-random[:10])[:3].tolist()
        assert indices[is_negative].tolist() == (10 + np.argsort(-random[10:])[:3]).tolist()

    def test_without_random_numbers_the_first_win(self):
        indices, _, _ = numpy(sample_balanced(self.POSITIVE, ~self.POSITIVE, 6, 0.5))
        assert indices.tolist() == [0, 1, 2, 10, 11, 12]

    def test_every_row_has_the_same_chance(self):
        draws = 4000
        positive = np.broadcast_to(self.POSITIVE, (draws, ROWS))
        seed = keras.random.SeedGenerator(3)
        indices, _, _ = numpy(sample_balanced(positive, ~positive, 8, 0.5, seed))
        often = np.bincount(indices.ravel(), minlength=ROWS)
        chance = np.where(self.POSITIVE, 4 / 10, 4 / 14)
        spread = np.sqrt(draws * chance * (1 - chance))
        assert (np.abs(often - draws * chance) < 5 * spread).all()

    def test_a_seed_gives_the_same_again_and_then_others(self):
        positive = np.broadcast_to(self.POSITIVE, (4, ROWS))
        seeds = [keras.random.SeedGenerator(7) for _ in range(2)]
        first, again = (numpy(sample_balanced(positive, ~positive, 8, 0.5, seed))[0] for seed in seeds)
        np.testing.assert_array_equal(first, again)
        assert (numpy(sample_balanced(positive, ~positive, 8, 0.5, seeds[0]))[0] != first).any()

    def test_nothing_is_random_where_all_are_chosen(self):
        seed = keras.random.SeedGenerator(7)
        before = keras.ops.convert_to_numpy(seed.state.value + 0)
        indices, is_positive, is_negative = numpy(
            sample_balanced(self.POSITIVE, ~self.POSITIVE, 10**6, 1.0, seed)
        )
        assert indices.tolist() == list(range(ROWS)) and (is_positive | is_negative).all()
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(seed.state.value + 0), before)


@pytest.mark.parametrize("rest", [(), (4,), (2, 3)])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_take_rows(lead, rest):
    rng = np.random.default_rng(0)
    values = rng.random((*lead, 6, *rest)).astype(np.float32)
    indices = rng.integers(0, 6, (*lead, 4))
    expected = np.take_along_axis(values, indices.reshape(*indices.shape, *[1] * len(rest)), axis=len(lead))
    (ours,) = numpy([take_rows(values, indices)])
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4, bool), np.zeros(5, bool), 2, 0.5), r"positive has shape \(4,\) and negative \(5,\)"),
        ((np.zeros(4, bool), np.zeros(4, bool), 0, 0.5), "count is 0"),
        ((np.zeros(4, bool), np.zeros(4, bool), 2, 1.5), "positive_fraction 1.5"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_balanced(*arguments)
