import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.sampling import choose_argmax, draw_noise, highest_ids, make_token_chooser

NUM_DRAWS = 20_000
KEY = jax.random.key(11)


def frequencies(logits, num_draws=NUM_DRAWS, **options):
    choose = jax.jit(make_token_chooser("sample", **options))
    tokens = choose(
        jnp.broadcast_to(logits, (num_draws, *logits.shape)), draw_noise(KEY, (num_draws,))
    )
    assert tokens.dtype == jnp.int32
    return np.bincount(tokens, minlength=logits.size) / num_draws


def assert_drawn_from(observed, probs, num_draws=NUM_DRAWS):
    probs = np.asarray(probs, np.float64)
    assert observed[probs == 0].sum() == 0
    observed, probs = observed[probs > 0], probs[probs > 0]
    chi_square = num_draws * np.sum((observed - probs) ** 2 / probs)
    degrees = probs.size - 1
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees) + 1e-3


@pytest.mark.parametrize(
    ("vocab_size", "temperature"), [(1, 1.0), (2, 1.0), (7, 0.5), (42, 2.0), (200, 1.0)]
)
def test_draws_follow_the_softmax_at_the_temperature(vocab_size, temperature):
    logits = jax.random.normal(jax.random.key(vocab_size), (vocab_size,))
    observed = frequencies(logits, temperature=temperature)
    assert_drawn_from(observed, jax.nn.softmax(logits / temperature))


@pytest.mark.parametrize(("vocab_size", "padded"), [(8000, False), (200, False), (211, True)])
def test_logits_are_padded_only_where_no_block_size_near_the_root_divides_them(vocab_size, padded):
    choose = jax.jit(make_token_chooser("sample"))
    program = choose.lower(jnp.zeros((2, vocab_size)), draw_noise(KEY, (2,))).compile().as_text()
    assert program
    widths = [int(width) for width in re.findall(r"f32\[2,(\d+)\]\S* pad\(", program)]
    assert any(width > vocab_size for width in widths) == padded


@pytest.mark.parametrize("top_k", [1, 3, 8])
def test_top_k_draws_exactly_the_k_highest(top_k):
    logits = jnp.array([0.5, 2.0, 1.0, 1.0, 1.0, -1.0, 0.0, 0.7])
    kept = np.argsort(-np.asarray(logits), kind="stable")[:top_k]  # the lower id among equals
    probs = np.zeros(8)
    probs[kept] = jax.nn.softmax(logits[kept] / 0.8)
    assert_drawn_from(frequencies(logits, top_k=top_k, temperature=0.8), probs)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_logits_are_drawn_in_float32(dtype):
    logits = jnp.broadcast_to(jnp.linspace(-1, 1, 100).astype(dtype), (2000, 100))
    choose = jax.jit(make_token_chooser("sample"))
    noise = draw_noise(KEY, (2000,))
    np.testing.assert_array_equal(choose(logits, noise), choose(logits.astype(jnp.float32), noise))


def test_a_token_of_probability_zero_is_never_drawn():
    logits = jnp.where(jnp.arange(50) % 7 == 3, 0.0, -jnp.inf)
    observed = frequencies(logits)
    assert_drawn_from(observed, jax.nn.softmax(logits))


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-23, 1.0])
@pytest.mark.parametrize("vocab_size", [5, 1000])
def test_extreme_uniform_numbers_draw_possible_tokens(uniform, vocab_size):
    logits = jnp.full(vocab_size, -jnp.inf).at[jnp.array([1, vocab_size - 2])].set(0.0)
    token = int(jax.jit(make_token_chooser("sample"))(logits, jnp.full(2, uniform)))
    assert token == (1 if uniform == 0 else vocab_size - 2)


def test_rows_are_drawn_independently_and_depend_on_the_key():
    choose = jax.jit(make_token_chooser("sample"))
    logits = jnp.zeros((3, 400, 16))
    tokens = choose(logits, draw_noise(KEY, (3, 400)))
    assert tokens.shape == (3, 400)
    assert abs(float((tokens[0] == tokens[1]).mean()) - 1 / 16) < 0.05
    assert jnp.all(tokens == choose(logits, draw_noise(KEY, (3, 400))))
    assert not jnp.all(tokens == choose(logits, draw_noise(jax.random.key(12), (3, 400))))


def test_huge_logits_and_extreme_temperatures_stay_finite():
    logits = jnp.array([[1e30, -1e30, 0.0]])
    choose = jax.jit(make_token_chooser("sample", temperature=1e-6))
    assert choose(logits, draw_noise(KEY, (1,))).tolist() == [0]
    observed = frequencies(jnp.array([3.0, -3.0, 0.0]), temperature=1e6)
    assert_drawn_from(observed, np.full(3, 1 / 3))


@pytest.mark.parametrize("vocab_size", [5, 97, 400, 1009])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_highest_ids_are_those_of_a_sort_with_the_lower_id_first_among_equals(vocab_size, count):
    generator = np.random.default_rng(vocab_size)
    few = generator.integers(0, 4, (2, 50, vocab_size)).astype(np.float32)  # many are equal
    values = np.where(generator.random(few.shape) < 0.9, -np.inf, few)
    expected = np.argsort(-values, axis=-1, kind="stable")[..., :count]
    np.testing.assert_array_equal(highest_ids(jnp.asarray(values), count), expected)


def test_argmax_takes_the_first_of_the_highest():
    logits = jnp.array([[1.0, 4.0, 4.0], [2.0, 1.0, 0.0]], jnp.bfloat16)
    chosen = make_token_chooser("argmax")(logits, draw_noise(KEY, (2,)))
    assert chosen.tolist() == choose_argmax(logits).tolist() == [1, 0]
    assert chosen.dtype == jnp.int32


@pytest.mark.parametrize(
    ("feed", "options", "message"),
    [
        ("greedy", {}, "feed is 'greedy'; it must be one of sample, argmax"),
        ("sample", {"temperature": 0.0}, r"temperature is 0.0; it must be in \[1e-6, 1e6\]"),
        ("sample", {"temperature": -1.0}, "temperature is"),
        ("sample", {"temperature": float("nan")}, "temperature is"),
        ("sample", {"temperature": float("inf")}, "temperature is"),
        ("sample", {"top_k": -1}, "top_k is .*; it must be an integer >= 0"),
        ("sample", {"top_k": 2.5}, "top_k is .*; it must be an integer >= 0"),
        ("argmax", {"temperature": 0.5}, "temperature is .*; feed 'argmax' has none"),
        ("argmax", {"top_k": 5}, "top_k is .*; feed 'argmax' has none"),
    ],
)
def test_invalid_options_are_refused(feed, options, message):
    with pytest.raises(ValueError, match=message):
        make_token_chooser(feed, **options)


def test_a_top_k_above_the_vocabulary_is_refused_at_trace_time():
    choose = make_token_chooser("sample", top_k=6)
    with pytest.raises(ValueError, match="top_k is 6, and the vocabulary has 5 tokens"):
        jax.eval_shape(choose, jnp.zeros((2, 5)), jnp.zeros((2, 2)))


def test_a_rows_noise_does_not_depend_on_how_many_rows_there_are():
    np.testing.assert_array_equal(draw_noise(KEY, (3,)), draw_noise(KEY, (8,))[:3])
