from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, EOS
from s2s_jax.data.chain import ChainTruth, make_hmm_truth, make_markov_truth
from s2s_jax.objectives.chain_teacher import make_chain_teacher

LENGTH = 3
# Source ids 4, 5, 6 tell the symbols 0, 1, 2, and 7 hides one; the target's ids are mixed up.
REVEALED = [-1, -1, -1, -1, 0, 1, 2, -1]
TARGET_IDS, VOCAB_SIZE = [6, 4, 7], 8
TRUTHS = {
    "Markov": make_markov_truth(
        (0.5, 0.3, 0.2), ((0.7, 0.2, 0.1), (0.25, 0.25, 0.5), (0.1, 0.6, 0.3)), LENGTH
    ),
    "hidden": make_hmm_truth(
        (0.6, 0.4), ((0.8, 0.2), (0.3, 0.7)), ((0.5, 0.4, 0.1), (0.1, 0.2, 0.7)), LENGTH
    ),
    # Symbol 0 cannot come first, 2 cannot follow 1, and 1 ends in itself.
    "with zeros": make_markov_truth(
        (0.0, 0.4, 0.6), ((0.5, 0.5, 0.0), (0.0, 1.0, 0.0), (0.3, 0.3, 0.4)), LENGTH
    ),
    "a symbol that never comes": make_hmm_truth(
        (0.5, 0.5), ((0.9, 0.1), (0.2, 0.8)), ((0.6, 0.4, 0.0), (0.3, 0.7, 0.0)), LENGTH
    ),
}


def follow(truth: ChainTruth, source: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The teacher's probabilities after each fed token, [time, batch, vocab_size]."""
    teacher = make_chain_teacher(
        truth.initial,
        truth.transition,
        truth.emission,
        truth.length,
        source_symbols=REVEALED,
        target_ids=TARGET_IDS,
        vocab_size=VOCAB_SIZE,
    )

    @jax.jit
    def run(source: jax.Array, tokens: jax.Array) -> jax.Array:
        state = teacher.begin(source, source > 0, tokens.shape[1])
        return jax.nn.softmax(jax.lax.scan(teacher.step, state, tokens.T)[1])

    assert teacher.is_truth
    return np.asarray(run(source, tokens))


@pytest.mark.parametrize("name", TRUTHS)
def test_after_every_prefix_and_for_every_source_it_is_the_truth(name):
    """Also where the prefix is impossible, or contradicts what the source tells."""
    truth = TRUTHS[name]
    told = np.array(list(product((-1, 0, 1, 2), repeat=LENGTH)))
    symbols = np.array(list(product(range(3), repeat=LENGTH)))
    pairs: Any = [np.repeat(told, len(symbols), axis=0), np.tile(symbols, (len(told), 1))]
    source = np.where(pairs[0] < 0, 7, pairs[0] + 4)
    source = np.pad(source, ((0, 0), (0, 1)), constant_values=EOS)
    tokens = np.pad(np.array(TARGET_IDS)[pairs[1]], ((0, 0), (1, 0)), constant_values=BOS)
    found = follow(truth, source, tokens)
    expected = truth.sequence_token_probs(pairs[1], pairs[0]).swapaxes(0, 1)
    np.testing.assert_allclose(found[:LENGTH][..., TARGET_IDS], expected, atol=2e-6)
    others = [one for one in range(VOCAB_SIZE) if one not in TARGET_IDS]
    assert found[:LENGTH][..., others].max() < 1e-8
    np.testing.assert_allclose(found[LENGTH], np.eye(VOCAB_SIZE)[[EOS] * len(tokens)], atol=1e-7)


def test_a_source_that_is_short_or_masked_tells_nothing_more():
    truth = TRUTHS["Markov"]
    tokens = np.array([[BOS, 4, 6]])
    blind = truth.sequence_token_probs([[1, 0, 0]])[0]
    found = follow(truth, np.array([[7, EOS, 0, 0, 0, 0]]), tokens)[:, 0, TARGET_IDS]
    np.testing.assert_allclose(found, blind, atol=1e-6)
    first = truth.sequence_token_probs([[1, 0, 0]], [[2, -1, -1]])[0]
    found = follow(truth, np.array([[6, EOS]]), tokens)[:, 0, TARGET_IDS]
    np.testing.assert_allclose(found, first, atol=1e-6)


def test_an_id_that_is_no_symbol_moves_the_chain_and_tells_nothing():
    truth = TRUTHS["hidden"]
    tokens = np.array([[BOS, 6, token] for token in (EOS, 5, -1, 99)])
    found = follow(truth, np.array([[7, EOS]] * 4), tokens)[2, :, TARGET_IDS].T
    after_first = truth.sequence_token_probs([[0, 0, 0]])[0, 1]
    belief = truth.initial * truth.emission[:, 0]
    belief = belief / belief.sum() @ truth.transition
    np.testing.assert_allclose(belief @ truth.emission, after_first, atol=1e-12)
    expected = belief @ truth.transition @ truth.emission
    np.testing.assert_allclose(found, np.tile(expected, (4, 1)), atol=1e-6)


def test_a_long_chain_neither_underflows_nor_loses_what_the_end_tells():
    truth = make_markov_truth(
        (0.5, 0.5, 0.0), ((0.9, 0.1, 0.0), (0.1, 0.9, 0.0), (0.0, 0.0, 1.0)), 60
    )
    told = np.full((1, 60), -1)
    told[0, 59] = 1
    source = np.where(told < 0, 7, told + 4)
    symbols = np.array([[*([0] * 57), 0, 1, 1]])
    tokens = np.pad(np.array(TARGET_IDS)[symbols], ((0, 0), (1, 0)), constant_values=BOS)
    found = follow(truth, source, tokens)
    expected = truth.sequence_token_probs(symbols, told)[0]
    np.testing.assert_allclose(found[:60, 0, TARGET_IDS], expected, atol=1e-5)
    assert expected[58, 1] > 0.2  # the last one draws the one before to itself
    assert jnp.argmax(found[60, 0]) == EOS
