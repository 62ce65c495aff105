"""Noise in place of the model's own symbols, and a teacher_prob for each step."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from s2s_jax.theory.chains import make_chain
from s2s_jax.theory.information import total_correlation
from s2s_jax.theory.optimum import (
    markov_sequence_probs,
    optimum_divergences,
    scheduled_sampling_optimum,
)
from tests.theory.pairs import (
    CHAIN,
    EMISSION,
    THREE_STATES,
    WITH_ZEROS,
    check_against_pairs,
    joint_probs,
    next_gold,
)

NOISES = (None, (0.5, 0.3, 0.2), (0.0, 0.6, 0.4))


@pytest.mark.parametrize("chain", [(*THREE_STATES, None), (*WITH_ZEROS, None), (*CHAIN, EMISSION)])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    ("coin", "teacher_prob"),
    [
        *product(("token", "sequence"), (1.0, 0.6, 0.0)),
        *(("token", some) for some in ((1.0, 0.4, 0.0), (0.0, 0.7, 0.2), (0.3, 1.0, 0.9))),
    ],
)
def test_noise_and_positions_give_the_mean_over_all_pairs(
    chain: Any, noise: Any, coin: str, teacher_prob: Any
):
    initial, transition, emission = chain
    joint = joint_probs(initial, transition, 4, emission)
    for feed in ("sample", "argmax") if noise is None else ("sample",):
        optimum = scheduled_sampling_optimum(
            initial, transition, 4, teacher_prob,
            coin=coin, feed=feed, noise=noise, emission=emission,
        )  # fmt: skip
        check_against_pairs(optimum, joint, teacher_prob, coin, feed, noise, next_gold)


def test_noise_of_two_tokens():
    """The posterior of the clean symbol behind the noisy one, by hand."""
    optimum = scheduled_sampling_optimum(*CHAIN, 2, 0.5, noise=(0.2, 0.8))
    clean_behind_0 = np.array([0.7 * 0.6, 0.3 * 0.1])
    clean_behind_1 = np.array([0.7 * 0.4, 0.3 * 0.9])
    for row, clean in zip(optimum.probs[1], (clean_behind_0, clean_behind_1), strict=True):
        np.testing.assert_allclose(row, clean / clean.sum() @ np.array(CHAIN[1]), atol=1e-12)
    np.testing.assert_allclose(optimum.fed_probs[1], (0.45, 0.55), atol=1e-12)


@pytest.mark.parametrize("coin", ["token", "sequence", "batch"])
def test_at_0_noise_gives_the_marginals_and_the_total_correlation(coin: str):
    optimum = scheduled_sampling_optimum(*THREE_STATES, 4, 0.0, coin=coin, noise=np.ones(3) / 3)
    joint = markov_sequence_probs(*THREE_STATES, 4)
    assert optimum.kl == pytest.approx(total_correlation(joint), abs=1e-12)
    assert optimum.kl_is_identified
    never_0 = scheduled_sampling_optimum(*THREE_STATES, 4, 0.0, coin=coin, noise=(0, 0.5, 0.5))
    assert not never_0.kl_is_identified


def test_each_entry_of_teacher_prob_decides_about_the_symbol_after_its_step():
    first, table = map(np.array, THREE_STATES)
    second_hidden = scheduled_sampling_optimum(*THREE_STATES, 3, (1.0, 0.0))
    np.testing.assert_allclose(second_hidden.probs[1], table, atol=1e-12)
    expected = np.broadcast_to((table @ table)[:, None], (3, 3, 3))
    np.testing.assert_allclose(second_hidden.probs[2], expected, atol=1e-12)
    first_hidden = scheduled_sampling_optimum(*THREE_STATES, 3, np.array([0.0, 1.0]))
    np.testing.assert_allclose(first_hidden.probs[1], [first @ table] * 3, atol=1e-12)
    np.testing.assert_allclose(first_hidden.probs[2], [table] * 3, atol=1e-12)


@pytest.mark.parametrize("feed", ["sample", "argmax"])
def test_equal_entries_of_teacher_prob_are_the_same_as_one_number(feed: str):
    row = scheduled_sampling_optimum(*THREE_STATES, 4, [0.3] * 3, feed=feed)
    number = scheduled_sampling_optimum(*THREE_STATES, 4, 0.3, feed=feed)
    for found, expected in zip(row.probs, number.probs, strict=True):
        assert np.array_equal(found, expected)
    assert row.kl == number.kl
    assert scheduled_sampling_optimum(*CHAIN, 1, []).kl == 0


def test_divergences_of_noise_and_positions():
    chain = make_chain(*CHAIN, 4)
    for teacher_prob, noise in (((0.2, 0.9, 0.5), None), (0.5, (0.4, 0.6)), ([0.5] * 3, (1, 0))):
        kl, identified = optimum_divergences(chain, teacher_prob, noise=noise)
        one = scheduled_sampling_optimum(*CHAIN, 4, teacher_prob, noise=noise)
        assert (kl.tolist(), identified.tolist()) == ([one.kl], [one.kl_is_identified])
