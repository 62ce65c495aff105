import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, EOS, PAD
from s2s_jax.decoding import beam_search, greedy, sample
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.prng import per_step_keys
from s2s_jax.sampling import draw_noise

NUM_STATES = 64


def next_state(state, token):
    """Hashes every token fed so far, so that a hypothesis with another's carry is detected."""
    return (state * 5 + token + 1) % NUM_STATES


@functools.cache
def make_table_model(vocab_size):
    """Logits looked up by the source id and by the carry, a hash of the tokens fed."""

    def decode_step(params, memory, carry, token):
        carry = next_state(carry, token)
        return carry, params[memory["source"], carry]

    def unused(*args):
        raise NotImplementedError

    return Seq2SeqModel(
        init=unused,
        encode=unused,
        initial_carry=lambda params, memory, max_length: jnp.zeros_like(memory["source"]),
        decode_step=decode_step,
        decode_sequence=unused,
        vocab_size=vocab_size,
    )


def setup(vocab_size, num_sources, seed=0, eos_bias=0.0):
    generator = np.random.default_rng(seed)
    params = 2 * generator.standard_normal((num_sources, NUM_STATES, vocab_size), np.float32)
    params[..., EOS] += eos_bias
    return make_table_model(vocab_size), params, {"source": np.arange(num_sources)}


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


def log_probs_of(params, source, tokens):
    """log p [time, vocab_size] before each token of one hypothesis."""
    states, state = [], 0
    for token in (BOS, *tokens[:-1]):
        state = next_state(state, int(token))
        states.append(state)
    return log_softmax(params[source])[states]


def jitted(decode, *static):
    """The decoder under jit, its result in numpy."""
    compiled = jax.jit(decode, static_argnums=(0, *static))

    def run(model, params, memory, *args):
        return jax.device_get(compiled(model, params, memory, *args))

    return run


run_greedy = jitted(greedy, 3)
run_sample = jitted(sample, 3, 5, 6)
run_beam_search = jitted(beam_search, 3, 4)


def assert_consistent(params, sources, decoded):
    """Lengths, padding, masks and log-probabilities of [batch] hypotheses agree with the tokens."""
    for row, length in enumerate(decoded.lengths):
        said, rest = np.split(decoded.tokens[row], [length])
        assert np.all(rest == PAD)
        assert EOS not in said[:-1]
        assert decoded.finished[row] == (said[-1] == EOS)
        assert decoded.finished[row] or rest.size == 0
        score = log_probs_of(params, sources[row], said)[np.arange(length), said].sum()
        assert decoded.scores[row] == pytest.approx(score, abs=1e-4)
    np.testing.assert_array_equal(decoded.mask.sum(-1), decoded.lengths)


def test_greedy_feeds_the_argmax_until_eos():
    model, params, memory = setup(vocab_size=6, num_sources=40)
    decoded = run_greedy(model, params, memory, 9)
    assert 0 < decoded.finished.sum() < 40
    assert PAD in decoded.tokens[:, 0]  # an ordinary token that does not end the hypothesis
    assert_consistent(params, memory["source"], decoded)
    for row, length in enumerate(decoded.lengths):
        said = decoded.tokens[row, :length]
        np.testing.assert_array_equal(log_probs_of(params, row, said).argmax(-1), said)


@pytest.mark.parametrize("decode", [greedy, functools.partial(beam_search, beam_size=1)])
def test_the_loops_stop_once_every_row_has_ended(decode):
    model, params, memory = setup(vocab_size=5, num_sources=3, eos_bias=100.0)
    num_steps = []

    def counted(params, memory, carry, token):
        jax.debug.callback(lambda: num_steps.append(1))
        return model.decode_step(params, memory, carry, token)

    watched = dataclasses.replace(model, decode_step=counted)
    decoded = jax.jit(lambda: decode(watched, jnp.asarray(params), memory, max_length=1000))()
    assert np.all(np.asarray(decoded.lengths) == 1)
    jax.effects_barrier()
    assert len(num_steps) == 1


def test_sample_draws_from_the_model():
    model, params, _ = setup(vocab_size=5, num_sources=1)
    memory = {"source": np.zeros(4000, int)}
    decoded = run_sample(model, params, memory, 4, jax.random.key(1))
    assert_consistent(params, memory["source"][:200], jax.tree.map(lambda x: x[:200], decoded))
    for prefix in [(), (0,), (4,), (4, 1)]:
        rows = decoded.mask[:, len(prefix)]
        rows = rows & np.all(decoded.tokens[:, : len(prefix)] == prefix, axis=1)
        expected = np.exp(log_probs_of(params, 0, (*prefix, EOS))[-1])
        observed = np.bincount(decoded.tokens[rows, len(prefix)], minlength=5) / rows.sum()
        np.testing.assert_allclose(observed, expected, atol=2.5 / np.sqrt(rows.sum()))
    other = run_sample(model, params, memory, 4, jax.random.key(2))
    assert not np.all(other.tokens == decoded.tokens)


def test_sample_takes_the_keys_of_the_target_steps(monkeypatch):
    model, params, memory = setup(vocab_size=5, num_sources=3, eos_bias=-100.0)
    seen = []

    def remember(feed, temperature, top_k):
        def choose(logits, noise):
            jax.debug.callback(lambda drawn: seen.append(drawn.tolist()), noise)
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)

        return choose

    monkeypatch.setattr("s2s_jax.decoding.make_token_chooser", remember)
    sample(model, jnp.asarray(params), memory, 3, jax.random.key(4))
    jax.effects_barrier()
    expected = [draw_noise(key, (3,)).tolist() for key in per_step_keys(jax.random.key(4), 3)]
    assert sorted(seen) == sorted(expected)


def test_sampling_one_of_one_is_greedy_and_keeps_the_models_own_score():
    model, params, memory = setup(vocab_size=5, num_sources=10)
    drawn = run_sample(model, params, memory, 6, jax.random.key(0), 3.0, 1)
    expected = run_greedy(model, params, memory, 6)
    jax.tree.map(np.testing.assert_array_equal, drawn, expected)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
def test_beam_of_one_is_greedy(length_penalty):
    model, params, memory = setup(vocab_size=6, num_sources=60, eos_bias=1.0)
    expected = run_greedy(model, params, memory, 7)
    found = run_beam_search(model, params, memory, 7, 1, length_penalty)
    np.testing.assert_array_equal(found.tokens[:, 0], expected.tokens)
    np.testing.assert_array_equal(found.lengths[:, 0], expected.lengths)
    np.testing.assert_array_equal(found.finished[:, 0], expected.finished)
    norm = np.asarray(expected.lengths) ** length_penalty
    np.testing.assert_allclose(found.scores[:, 0], expected.scores / norm, rtol=1e-4)


def test_beam_of_one_is_greedy_if_log_probabilities_round_to_the_same():
    logits = np.array([0.0, 1.0, -50.0, 1.0 + 1e-6, 0.5], np.float32)
    model, params, memory = setup(vocab_size=5, num_sources=1)
    params = np.broadcast_to(logits, params.shape)
    found = run_beam_search(model, params, memory, 80, 1, 1.0)
    expected = run_greedy(model, params, memory, 80)
    np.testing.assert_array_equal(found.tokens[:, 0], expected.tokens)


def enumerate_hypotheses(vocab_size, max_length):
    others = [token for token in range(vocab_size) if token != EOS]
    for length in range(max_length):
        for prefix in itertools.product(others, repeat=length):
            yield (*prefix, EOS)
    yield from itertools.product(others, repeat=max_length)


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.5])
def test_a_wide_beam_is_an_exhaustive_search(length_penalty):
    vocab_size, max_length, num_sources = 4, 3, 6
    model, params, memory = setup(vocab_size, num_sources, seed=3)
    hypotheses = list(enumerate_hypotheses(vocab_size, max_length))
    padded = np.array([(*h, *[PAD] * (max_length - len(h))) for h in hypotheses])
    beam_size = len(hypotheses) + 4
    found = run_beam_search(model, params, memory, max_length, beam_size, length_penalty)
    for row in range(num_sources):
        scores = np.array(
            [
                log_probs_of(params, row, h)[np.arange(len(h)), h].sum() / len(h) ** length_penalty
                for h in hypotheses
            ]
        )
        unfinished = np.array([EOS not in h for h in hypotheses])
        order = np.lexsort((-scores, unfinished))
        here = jax.tree.map(lambda leaf, row=row: leaf[row], found)
        real = len(hypotheses)
        np.testing.assert_array_equal(here.tokens[:real], padded[order])
        np.testing.assert_allclose(here.scores[:real], scores[order], atol=1e-4)
        np.testing.assert_array_equal(here.finished[:real], ~unfinished[order])
        np.testing.assert_array_equal(here.lengths[:real], [len(hypotheses[i]) for i in order])
        assert np.all(here.tokens[real:] == PAD)
        assert np.all(here.lengths[real:] == 0)
        assert np.all(here.scores[real:] == -np.inf)


def reference_beam_search(log_probs_after, vocab_size, max_length, beam_size, length_penalty):
    """The rule of `beam_search`'s docstring in plain Python, one row."""
    opened, closed = [((), 0.0)], []
    for length in range(1, max_length + 1):
        ranked = sorted(
            (
                ((*tokens, token), score + log_probs_after(tokens)[token])
                for tokens, score in opened
                for token in range(vocab_size)
            ),
            key=lambda pair: -pair[1],
        )
        closed += [(h, s / length**length_penalty) for h, s in ranked[:beam_size] if h[-1] == EOS]
        if len(closed) >= beam_size:
            return sorted(closed[:beam_size], key=lambda pair: -pair[1])
        opened = [(h, s) for h, s in ranked if h[-1] != EOS][:beam_size]
    opened = [(h, s / max_length**length_penalty) for h, s in opened]
    return (sorted(closed, key=lambda pair: -pair[1]) + opened)[:beam_size]


@pytest.mark.parametrize("eos_bias", [-2.0, 1.5])
@pytest.mark.parametrize("beam_size", [2, 4])
def test_a_narrow_beam_follows_its_rule(beam_size, eos_bias):
    vocab_size, max_length, num_sources = 6, 6, 12
    model, params, memory = setup(vocab_size, num_sources, seed=7, eos_bias=eos_bias)
    found = run_beam_search(model, params, memory, max_length, beam_size, 1.0)
    num_full = found.finished.all(axis=1).sum()
    assert num_full > 9 if eos_bias > 0 else num_full < 3
    for row in range(num_sources):

        def log_probs_after(tokens, row=row):
            return log_probs_of(params, row, (*tokens, EOS))[-1]

        expected = reference_beam_search(log_probs_after, vocab_size, max_length, beam_size, 1.0)
        for place, (tokens, score) in enumerate(expected):
            assert found.lengths[row, place] == len(tokens)
            assert tuple(found.tokens[row, place, : len(tokens)].tolist()) == tokens
            assert found.scores[row, place] == pytest.approx(score, abs=1e-4)
            assert bool(found.finished[row, place]) == (tokens[-1] == EOS)
    assert np.all(found.tokens[~np.asarray(found.mask)] == PAD)


def test_a_forbidden_eos_and_uniform_logits_give_no_nan():
    model, params, memory = setup(vocab_size=6, num_sources=12)
    params[:] = 0
    params[1, :, EOS] = -np.inf
    for decoded in (
        run_beam_search(model, params, memory, 6, 2, 1.0),
        run_greedy(model, params, memory, 6),
    ):
        assert np.all(np.isfinite(decoded.scores))
        assert not np.any(decoded.finished[1])


def test_values_out_of_range_are_refused():
    model, params, memory = setup(vocab_size=5, num_sources=1)
    with pytest.raises(ValueError, match="max_length must be at least 1, not 0"):
        greedy(model, params, memory, 0)
    with pytest.raises(ValueError, match="max_length must be at least 1, not 0"):
        beam_search(model, params, memory, 0, 1)
    with pytest.raises(ValueError, match="beam_size must be at least 1, not 0"):
        beam_search(model, params, memory, 3, 0)
    for length_penalty in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="length_penalty must be finite and >= 0"):
            beam_search(model, params, memory, 3, 1, length_penalty)
    with pytest.raises(ValueError, match=r"temperature is .*; it must be in"):
        sample(model, params, memory, 3, jax.random.key(0), temperature=0.0)
