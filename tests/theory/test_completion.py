from functools import cache
from itertools import product
from typing import Any

import jax
import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from s2s_jax.exposure.edit_oracle import optimal_next
from s2s_jax.theory.chains import Chains, make_chain
from s2s_jax.theory.completion import completion_divergences, completion_optimum
from s2s_jax.theory.optimum import next_token_tables, scheduled_sampling_optimum
from tests.theory.pairs import CHAIN, CHAINS, check_against_pairs, joint_probs


@cache
def optimal_symbols(y: tuple[int, ...], z: tuple[int, ...], num_symbols: int) -> np.ndarray:
    """Uniform over the distinct optimal next symbols of y after z; the last may always come."""
    distances = [Levenshtein.distance(z, y[:end]) for end in range(len(y))]
    best = {y[end] for end, some in enumerate(distances) if some == min(distances)}
    return np.array([(symbol in best) / len(best) for symbol in range(num_symbols)])


def completions(ys: np.ndarray, z: tuple[int, ...], num_symbols: int) -> np.ndarray:
    return np.stack([optimal_symbols(tuple(y), z, num_symbols) for y in ys.tolist()])


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("noise", [None, (0.5, 0.2, 0.3)])
@pytest.mark.parametrize(
    ("coin", "teacher_prob"),
    [*product(("token", "sequence"), (1.0, 0.6, 0.0)), ("token", (0.2, 0.0, 0.9))],
)
def test_the_optimum_is_the_mean_over_all_pairs(
    chain: Any, noise: Any, coin: str, teacher_prob: Any
):
    initial, transition, emission = chain
    joint = joint_probs(initial, transition, 4, emission)
    noise = None if noise is None else np.array(noise)[: len(joint)] / sum(noise[: len(joint)])
    for feed in ("sample", "argmax") if noise is None else ("sample",):
        optimum = completion_optimum(
            initial, transition, 4, teacher_prob,
            coin=coin, feed=feed, noise=noise, emission=emission,
        )  # fmt: skip
        check_against_pairs(optimum, joint, teacher_prob, coin, feed, noise, completions)


def test_the_optimal_symbols_are_those_of_the_edit_oracle():
    """Which takes the last symbol for the end; a chain that is one sequence shows them."""
    mark = jax.jit(jax.vmap(optimal_next, in_axes=(None, None, 0)))
    prefixes = np.array(list(product(range(2), repeat=4)), np.int32)
    for y in product(range(2), repeat=4):
        moves = [np.eye(2)[[symbol, symbol]] for symbol in y[1:]]
        optimum = completion_optimum(np.eye(2)[y[0]], moves, 4, 0.0, noise=(0.5, 0.5))
        target = np.array([y], np.int32)
        marked = np.asarray(mark(target, np.ones((1, 4), bool), prefixes[:, None]))[:, 0]
        for prefix, of_prefix in zip(prefixes, marked, strict=True):
            for step, row in enumerate(of_prefix):
                best = np.unique(target[0][row])
                expected = np.isin(np.arange(2), best) / len(best)
                np.testing.assert_allclose(optimum.probs[step][tuple(prefix[:step])], expected)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("coin", ["token", "sequence", "batch"])
def test_with_gold_prefixes_the_optimum_is_the_truth(chain: Any, coin: str):
    initial, transition, emission = chain
    optimum = completion_optimum(initial, transition, 4, 1.0, coin=coin, emission=emission)
    truth = next_token_tables(initial, transition, 4, emission=emission)
    for q, expected, fed in zip(optimum.probs, truth, optimum.identified, strict=True):
        np.testing.assert_allclose(q[fed], expected[fed], atol=1e-12)
    assert optimum.kl == pytest.approx(0, abs=1e-12)
    assert optimum.kl_is_identified


def test_two_symbols_by_hand():
    """Behind 1, 00 asks for 0; 01 for either, so does 10 behind 0: nothing of z is in y yet."""
    optimum = completion_optimum(*CHAIN, 2, 0.0)
    np.testing.assert_allclose(optimum.probs[1][0], (0.63 + 0.06 / 2, 0.24 + 0.07 + 0.06 / 2))
    np.testing.assert_allclose(
        optimum.probs[1][1], (0.63 + 0.06 + 0.07 / 2, 0.24 + 0.07 / 2), atol=1e-12
    )


@pytest.mark.parametrize("coin", ["token", "sequence"])
def test_a_sequence_that_is_certain_is_learned_behind_its_own_prefixes(coin: str):
    chain = (1.0, 0.0, 0.0), ((0, 1, 0), (0, 0, 1), (1, 0, 0))
    for teacher_prob in (1.0, 0.5, 0.0):
        optimum = completion_optimum(*chain, 4, teacher_prob, coin=coin)
        assert optimum.kl == 0
        assert optimum.kl_is_identified
    wrong = completion_optimum(*chain, 4, 0.5, coin=coin, noise=(0, 0, 1))
    gold = scheduled_sampling_optimum(*chain, 4, 0.5, coin=coin, noise=(0, 0, 1))
    assert wrong.probs[1][2].tolist() == [0.5, 0.5, 0.0]  # to begin again, or to go on
    assert gold.probs[1][2].tolist() == [0.0, 1.0, 0.0]


def test_divergences_of_several_chains_at_once(monkeypatch):
    chains = [make_chain(*CHAIN, 4), make_chain((1.0, 0.0), ((0.3, 0.7), (0.6, 0.4)), 4)]
    together = Chains(*(np.concatenate(parts) for parts in zip(*chains, strict=True)))
    for limit, coin in product((2**20, 256), ("token", "sequence")):  # in one piece, and in two
        monkeypatch.setattr("s2s_jax.theory.recursion.MAX_SEQUENCES", limit)
        kl, identified = completion_divergences(together, 0.0, coin=coin, feed="argmax")
        for number, chain in enumerate(chains):
            one = completion_optimum(
                chain.initial[0], chain.transition[0, 0], 4, 0.0, coin=coin, feed="argmax"
            )
            assert kl[number] == pytest.approx(one.kl, abs=1e-12)
            assert identified[number] == one.kl_is_identified


def test_too_many_pairs_are_refused(monkeypatch):
    message = "^2 symbols have more than 1048576 pairs of sequences of length 11: too many to enum"
    with pytest.raises(ValueError, match=message):
        completion_optimum(*CHAIN, 11, 0.5)
    with pytest.raises(ValueError, match=message):
        completion_divergences(make_chain(*CHAIN, 11), 0.5)
    monkeypatch.setattr("s2s_jax.theory.recursion.MAX_SEQUENCES", 2**8)
    assert completion_optimum(*CHAIN, 4, 1.0).kl == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="more than 256 pairs of sequences of length 5"):
        completion_optimum(*CHAIN, 5, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_prob": 2}, "teacher_prob is 2; it must be in"),
        ({"coin": "toss"}, "coin is 'toss'; it must be one of"),
        ({"noise": (1, 0, 0)}, "noise has 3 probabilities for 2 symbols"),
        ({"emission": ((0.5, 0.5),)}, "emission has 1 rows of 2"),
    ],
)
def test_invalid_arguments_are_refused(changes, message):
    options = {"initial": CHAIN[0], "transition": CHAIN[1], "length": 3, "teacher_prob": 0.5}
    with pytest.raises(ValueError, match=message):
        completion_optimum(**(options | changes))
