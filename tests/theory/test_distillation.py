from itertools import product
from typing import Any

import numpy as np
import pytest

from s2s_jax.theory.chains import Chains, make_chain
from s2s_jax.theory.distillation import distillation_divergences, distillation_optimum
from s2s_jax.theory.optimum import next_token_tables, scheduled_sampling_optimum
from tests.theory.pairs import (
    CHAIN,
    EMISSION,
    THREE_STATES,
    WITH_ZEROS,
    check_against_pairs,
    joint_probs,
)

UNIFORM = (1 / 3, 1 / 3, 1 / 3)


@pytest.mark.parametrize(
    ("chain", "noise"),
    [
        ((*CHAIN, EMISSION), None),
        ((*THREE_STATES, None), None),
        ((*WITH_ZEROS, None), None),
        ((*WITH_ZEROS, None), UNIFORM),
        ((*CHAIN, EMISSION), UNIFORM),
    ],
)
@pytest.mark.parametrize(
    ("coin", "teacher_prob"),
    [*product(("token", "sequence"), (1.0, 0.6, 0.0)), ("token", (0.2, 0.0, 0.9))],
)
def test_the_optimum_is_the_truth_however_prefixes_are_fed(
    chain: Any, noise: Any, coin: str, teacher_prob: Any
):
    initial, transition, emission = chain
    joint = joint_probs(initial, transition, 4, emission)

    def teacher(ys: np.ndarray, z: tuple[int, ...], num_symbols: int) -> np.ndarray:
        following = joint[z].reshape(num_symbols, -1).sum(-1)
        if not following.sum():
            assert emission is None  # only a Markov chain says what follows an impossible prefix
            following = np.array(transition[z[-1]])
        return np.broadcast_to(following / following.sum(), (len(ys), num_symbols))

    for feed in ("sample", "argmax") if noise is None else ("sample",):
        optimum = distillation_optimum(
            initial, transition, 4, teacher_prob,
            coin=coin, feed=feed, noise=noise, emission=emission,
        )  # fmt: skip
        check_against_pairs(optimum, joint, teacher_prob, coin, feed, noise, teacher)
        assert optimum.kl == 0
        truth = next_token_tables(initial, transition, 4, emission=emission)
        assert all(map(np.array_equal, optimum.probs, truth))


def test_where_scheduled_sampling_loses_all_dependence_distillation_loses_nothing():
    sampled, taught = (
        method(*CHAIN, 3, 0.0) for method in (scheduled_sampling_optimum, distillation_optimum)
    )
    assert sampled.kl == pytest.approx(0.486577, abs=1e-6)
    assert (taught.kl, taught.kl_is_identified) == (0, True)


def test_divergences_of_several_chains_at_once():
    chains = [make_chain(*CHAIN, 4), make_chain((1.0, 0.0), ((0.0, 1.0), (1.0, 0.0)), 4)]
    together = Chains(*(np.concatenate(parts) for parts in zip(*chains, strict=True)))
    expected = {("sample", 0.0): [True, True], ("argmax", 0.0): [False, True]}
    for (feed, teacher_prob), identified in expected.items():
        kl, found = distillation_divergences(together, teacher_prob, feed=feed)
        assert (kl.tolist(), found.tolist()) == ([0, 0], identified)
    found = distillation_divergences(together, 0.0, noise=(1, 0), coin="sequence")[1]
    assert found.tolist() == [False, False]
    assert distillation_divergences(together, 0.1, noise=(1, 0))[1].all()


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="teacher_prob is -1; it must be in"):
        distillation_optimum(*CHAIN, 3, -1)
    with pytest.raises(ValueError, match="feed is 'beam'; it must be one of"):
        distillation_divergences(make_chain(*CHAIN, 3), 0.5, feed="beam")
