import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.exposure.intervals import Bootstrap
from s2s_jax.exposure.positions import (
    error_course,
    exposure_gap,
    first_errors,
    mean_by_position,
    sequence_mean,
    token_mean,
)

# Four sequences of 4, 3, 2 and 4 tokens; values outside the mask are set to wrong ones.
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]], bool)
OWN = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 0], [1, 0, 0, 1]], bool)
GOLD = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 1]], bool)


@pytest.fixture(scope="module")
def bootstrap() -> Bootstrap:
    return Bootstrap(4, num_resamples=50)


def test_means_over_tokens_and_over_sequences(bootstrap):
    micro = token_mean(OWN, MASK, bootstrap, "share")
    assert micro.value == pytest.approx((4 + 2 + 0 + 2) / 13)
    assert (micro.n, micro.at, micro.axis, micro.unit) == (4, None, "", "share")
    macro = sequence_mean(OWN, MASK, bootstrap, "share")
    assert macro.value == pytest.approx((1 + 2 / 3 + 0 + 1 / 2) / 4)


def test_rows_without_tokens_are_ignored(bootstrap):
    mask = MASK.copy()
    mask[1] = False
    assert sequence_mean(OWN, mask, bootstrap, "share").value == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert sequence_mean(OWN, mask, bootstrap, "share").n == 3


def test_a_curve_by_position(bootstrap):
    found = mean_by_position(OWN, MASK, bootstrap, "share", min_count=1)
    assert found.value == pytest.approx([3 / 4, 1 / 4, 2 / 3, 1])
    assert found.n.tolist() == [4, 4, 3, 2]
    assert found.axis == "position"
    assert found.left_out == ()
    found = mean_by_position(OWN, MASK, bootstrap, "share", min_count=3)
    assert found.at is not None
    assert found.at.tolist() == [1, 2, 3]
    assert found.left_out == (4,)


def test_the_gap(bootstrap):
    found = exposure_gap(GOLD, OWN, MASK, bootstrap, min_count=1)
    assert found["gap"].value == pytest.approx((10 - 8) / 13)
    assert found["gap_macro"].value == pytest.approx((0 + 0 + 1 / 2 + 1 / 4) / 4)
    assert found["gap_by_position"].value == pytest.approx([0, 1 / 4, 1 / 3, 0])


def test_hazard_post_error_rate_and_amplification(bootstrap):
    found = first_errors(OWN, MASK, bootstrap, min_count=1)
    hazard = found["hazard_by_position"]
    assert hazard.value == pytest.approx([1 / 4, 2 / 3, 0, 0])
    assert hazard.n.tolist() == [4, 3, 1, 1]
    assert found["hazard"].value == pytest.approx(3 / 9)
    after = found["post_error_rate_by_distance"]
    assert after.value == pytest.approx([2 / 3, 0])  # first errors at 2 of 3, 1 of 2 and 2 of 4
    assert after.n.tolist() == [3, 1]
    assert after.axis == "distance"
    assert found["post_error_rate"].value == pytest.approx(2 / 4)
    assert found["post_error_rate"].n == 3
    assert found["amplification"].value == pytest.approx((2 / 4) / (3 / 9))
    few = first_errors(OWN, MASK, bootstrap, min_count=2)["post_error_rate_by_distance"]
    assert few.at is not None
    assert few.at.tolist() == [1]
    assert few.left_out == (2,)


def test_no_error_has_no_rate_after_it(bootstrap):
    found = first_errors(np.ones_like(OWN), MASK, bootstrap, min_count=1)
    assert found["hazard"].value == 0
    for name in ("post_error_rate", "amplification"):
        assert np.isnan([found[name].value, found[name].low, found[name].high]).all()
        assert found[name].n == 0
    assert found["post_error_rate_by_distance"].value.shape == (0,)


def test_the_course_of_errors_is_the_same_in_numpy_and_jax():
    for ours, theirs in zip(
        error_course(OWN, MASK), error_course(jnp.asarray(OWN), jnp.asarray(MASK)), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_sequences_of_one_token(bootstrap):
    found = first_errors(OWN[:, :1], MASK[:, :1], bootstrap, min_count=1)
    assert found["hazard"].value == pytest.approx(1 / 4)
    assert found["post_error_rate_by_distance"].value.shape == (0,)
