"""The real train step, run to its end on a tabular model, lands where theory says it must."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s2s_jax.batch import Batch
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import make_objective
from s2s_jax.theory import (
    kl_divergence,
    markov_sequence_probs,
    scheduled_sampling_optimum,
    sequence_probs,
)
from s2s_jax.training import TrainState, init_train_state, make_update

INITIAL = (0.7, 0.3)
TRANSITION = ((0.9, 0.1), (0.2, 0.8))
TEACHER_PROBS = (1.0, 0.75, 0.5, 0.25, 0.0)


def make_tabular_model(vocab_size: int, length: int) -> Seq2SeqModel:
    """One free distribution for every fed prefix, kept in rows: the empty prefix is row 0.

    The carry is the row of what was fed so far, and -1 before the start symbol.
    """
    num_rows = sum(vocab_size**step for step in range(length))

    def advance(row: jax.Array, token: jax.Array) -> jax.Array:
        return jnp.where(row < 0, 0, row * vocab_size + 1 + token)

    def decode_step(params, memory, carry, token):
        row = advance(carry, token)
        return row, params[row]

    def decode_sequence(params, memory, tokens):
        def step(row: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
            row = advance(row, token)
            return row, row

        _, rows = jax.lax.scan(step, memory, tokens.T)
        return params[rows.T]

    return Seq2SeqModel(
        init=lambda key: jnp.zeros((num_rows, vocab_size)),
        encode=lambda params, source, source_mask, dropout_key: jnp.full(len(source), -1),
        initial_carry=lambda params, memory: memory,
        decode_step=decode_step,
        decode_sequence=decode_sequence,
        vocab_size=vocab_size,
    )


def as_tables(probs: np.ndarray, length: int) -> tuple[np.ndarray, ...]:
    """Rows by step, one axis for each fed token."""
    vocab_size = probs.shape[-1]
    starts = np.cumsum([0, *(vocab_size**step for step in range(length))])
    return tuple(
        probs[starts[step] : starts[step + 1]].reshape((vocab_size,) * (step + 1))
        for step in range(length)
    )


def exact_batch(length: int, num_rows: int) -> Batch:
    """Every sequence as often as its probability says; the symbols are the ids."""
    joint = markov_sequence_probs(INITIAL, TRANSITION, length)
    counts = np.rint(joint * num_rows).astype(int)
    np.testing.assert_allclose(counts, joint * num_rows, atol=1e-6)
    target = np.repeat(np.argwhere(joint >= 0), counts.reshape(-1), axis=0).astype(np.int32)
    source = np.zeros((num_rows, 1), np.int32)
    return Batch(source, source == 0, target, np.ones(target.shape, bool))


@partial(jax.jit, static_argnames=("coin", "feed", "length", "num_rows", "num_steps"))
def train(teacher_probs, *, coin, feed, length, num_rows, num_steps):
    """The logits, averaged over the second half of the training: [num_probs, rows, vocab_size]."""
    model = make_tabular_model(2, length)
    batch = exact_batch(length, num_rows)
    optimizer = optax.adam(optax.exponential_decay(0.1, num_steps, 0.02))
    update = make_update(make_objective(model, coin=coin, feed=feed), optimizer)

    def run(teacher_prob):
        def step(carry: tuple[TrainState, jax.Array], _):
            state, total = carry
            state, _ = update(state, batch, teacher_prob)
            total += jnp.where(2 * state.step > num_steps, state.params, 0.0)
            return (state, total), None

        state = init_train_state(model, optimizer, jax.random.key(3))
        total = jnp.zeros_like(state.params)
        (_, total), _ = jax.lax.scan(step, (state, total), None, num_steps)
        return total / (num_steps // 2)

    return jax.vmap(run)(teacher_probs)


WAYS = list(product(("token", "sequence"), ("sample", "argmax")))


def check(length: int, coin: str, feed: str, num_rows: int, num_steps: int) -> None:
    """Compares every q that is identified, and the KL."""
    sizes = {"length": length, "num_rows": num_rows, "num_steps": num_steps}
    logits = train(jnp.array(TEACHER_PROBS), coin=coin, feed=feed, **sizes)
    joint = markov_sequence_probs(INITIAL, TRANSITION, length).reshape(-1)
    for teacher_prob, rows in zip(TEACHER_PROBS, jax.nn.softmax(logits), strict=True):
        trained = as_tables(np.asarray(rows, np.float64), length)
        optimum = scheduled_sampling_optimum(
            INITIAL, TRANSITION, length, teacher_prob, coin=coin, feed=feed
        )
        # A gradient through the sample would move Q1 (to .7108 at 0.75).
        np.testing.assert_allclose(trained[0], INITIAL, atol=1e-4)
        num_compared = 0
        for found, expected, fed in zip(trained, optimum.probs, optimum.fed_probs, strict=True):
            np.testing.assert_allclose(found[fed > 0], expected[fed > 0], atol=2e-3)
            num_compared += (fed > 0).sum()
            # What is never fed is never moved: no truth could be read off it.
            assert np.all(found[fed == 0] == 0.5)
        assert num_compared >= length
        if optimum.kl_is_identified:
            kl = kl_divergence(joint, sequence_probs(trained).reshape(-1))
            assert float(kl) == pytest.approx(optimum.kl, abs=2e-3)
        else:
            assert (feed, teacher_prob) == ("argmax", 0.0)


@pytest.mark.parametrize(("coin", "feed"), WAYS)
def test_two_tokens_converge_to_the_predicted_optimum(coin, feed):
    check(2, coin, feed, num_rows=1000, num_steps=2000)


def test_the_two_coins_part_at_three_tokens():
    token, sequence = (
        scheduled_sampling_optimum(INITIAL, TRANSITION, 3, 0.5, coin=coin)
        for coin in ("token", "sequence")
    )
    assert sequence.kl - token.kl > 0.015
    assert abs(sequence.probs[2][1, 0, 0] - token.probs[2][1, 0, 0]) > 0.04


def test_the_tabular_model_is_one_model_in_both_of_its_forms():
    model = make_tabular_model(2, 3)
    params = jnp.arange(14.0).reshape(7, 2)
    tokens = np.array([[1, *rest] for rest in product(range(2), repeat=2)], np.int32)
    memory = model.encode(params, jnp.zeros((4, 1)), jnp.ones((4, 1), bool), None)
    carry, by_step = model.initial_carry(params, memory), []
    for step in range(3):
        carry, logits = model.decode_step(params, memory, carry, jnp.asarray(tokens[:, step]))
        by_step.append(logits)
    at_once = model.decode_sequence(params, memory, jnp.asarray(tokens))
    assert np.array_equal(np.stack(by_step, axis=1), at_once)
    assert len({tuple(row) for row in np.asarray(at_once[:, 2]).tolist()}) == 4
