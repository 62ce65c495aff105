from dataclasses import replace
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, EOS, PAD
from s2s_jax.objectives.candidates import (
    Candidates,
    add_nll_gradient,
    draw_candidates,
    is_distinct,
    make_cost,
    repeat_rows,
    weighted_nll,
)
from tests.levenshtein import levenshtein

KEY = jax.random.key(8)
VOCAB_SIZE, TIME, NUM_ROWS = 5, 4, 6000
TABLE = np.random.default_rng(0).normal(0, 0.7, (VOCAB_SIZE, VOCAB_SIZE)).astype(np.float32)
LOG_PROBS = TABLE - np.log(np.exp(TABLE).sum(1, keepdims=True))


def log_prob(tokens: tuple[int, ...]) -> float:
    return sum(LOG_PROBS[one, other] for one, other in zip((BOS, *tokens), tokens, strict=False))


def hypotheses(cap: int) -> list[tuple[int, ...]]:
    """All that end with the first EOS, or are cut off at the cap."""
    others = [token for token in range(VOCAB_SIZE) if token != EOS]
    ended = [(*some, EOS) for length in range(cap) for some in product(others, repeat=length)]
    return ended + list(product(others, repeat=cap))


@pytest.fixture(scope="module")
def draw(make_table_model) -> Any:
    """(cap, forced, is_forced, is_greedy), all [rows, ...] -> candidates and their tokens."""
    model = make_table_model(VOCAB_SIZE)

    @jax.jit
    def run(cap: Any, forced: Any, is_forced: Any, is_greedy: Any) -> Candidates:
        given = forced.T, is_forced.T, is_greedy
        return draw_candidates(model, TABLE, jnp.zeros(NUM_ROWS, jnp.int32), KEY, cap, *given)

    def draw(cap: Any, forced: Any = PAD, is_forced: Any = False, is_greedy: Any = False) -> Any:
        candidates = run(
            np.broadcast_to(np.int32(cap), NUM_ROWS),
            np.broadcast_to(np.int32(forced), (NUM_ROWS, TIME)),
            np.broadcast_to(is_forced, (NUM_ROWS, TIME)),
            np.broadcast_to(is_greedy, NUM_ROWS),
        )
        return candidates, tokens_of(candidates)

    return draw


def tokens_of(candidates: Candidates) -> list[tuple[int, ...]]:
    """Each row's tokens; checks that the arrays agree with each other."""
    fed, tokens, mask = (np.asarray(array).T for array in candidates[:3])
    lengths = mask.sum(1)
    np.testing.assert_array_equal(mask, np.arange(TIME) < lengths[:, None])
    assert np.all(tokens[~mask] == PAD)
    assert np.all(fed[:, 0] == BOS)
    np.testing.assert_array_equal(fed[:, 1:], tokens[:, :-1])
    return [tuple(row[:length].tolist()) for row, length in zip(tokens, lengths, strict=True)]


def test_candidates_are_samples_of_the_model_and_know_their_probability(draw):
    candidates, said = draw(3)
    number = dict.fromkeys(hypotheses(3), 0)
    for row, some in enumerate(said):
        number[some] += 1  # nothing else is said
        if row < 300:
            assert float(candidates.log_probs[row]) == pytest.approx(log_prob(some), abs=1e-5)
    probs = np.exp([log_prob(some) for some in number])
    assert probs.sum() == pytest.approx(1, abs=1e-6)
    deviation = np.sqrt(probs * (1 - probs) / NUM_ROWS)
    assert np.all(np.abs(np.array(list(number.values())) / NUM_ROWS - probs) < 4.5 * deviation)
    cut_off = [some for some in said if some[-1] != EOS]
    assert cut_off
    assert all(len(some) == 3 for some in cut_off)


def test_forced_tokens_are_said_and_count_in_the_probability(draw):
    forced = np.array([3, 4, EOS, 3])
    lengths = np.arange(NUM_ROWS) % 5
    candidates, said = draw(TIME, forced, np.arange(TIME) < lengths[:, None])
    for row in range(60):
        prefix = tuple(forced[: lengths[row]].tolist())
        whole = prefix[: prefix.index(EOS) + 1] if EOS in prefix else prefix
        assert said[row][: len(whole)] == whole
        assert (said[row] == whole) == (EOS in whole)  # the rest is drawn, up to the end symbol
        assert float(candidates.log_probs[row]) == pytest.approx(log_prob(said[row]), abs=1e-5)
    assert len({said[row][1] for row in range(NUM_ROWS) if lengths[row] == 1}) == VOCAB_SIZE


def test_greedy_rows_say_the_most_likely_tokens_and_the_others_still_draw(draw):
    is_greedy = np.arange(NUM_ROWS) % 2 == 0
    _, said = draw(TIME, is_greedy=is_greedy)
    expected, token = [], BOS
    while len(expected) < TIME and token != EOS:
        token = int(TABLE[token].argmax())
        expected.append(token)
    assert {some for some, greedy in zip(said, is_greedy, strict=True) if greedy} == {
        tuple(expected)
    }
    assert len(set(said)) > 50


def test_a_hypothesis_has_at_most_as_many_tokens_as_its_cap(draw):
    caps = np.arange(NUM_ROWS) % 4
    candidates, said = draw(caps)
    for cap in range(4):
        lengths = {len(said[row]) for row in range(NUM_ROWS) if caps[row] == cap}
        assert lengths == set(range(1, cap + 1)) or (cap == 0 and lengths == {0})
    assert np.all(np.asarray(candidates.log_probs)[caps == 0] == 0)
    # A higher cap lets the same hypothesis go on.
    longer = draw(3)[1]
    assert all(some == other[: len(some)] for some, other in zip(said, longer, strict=True))


def make_candidates(rows: list[tuple[int, ...]]) -> Candidates:
    tokens = np.array([[*row, *[PAD] * TIME][:TIME] for row in rows], np.int32).T
    mask = np.array([[step < len(row) for row in rows] for step in range(TIME)])
    return Candidates(
        jnp.asarray(tokens), jnp.asarray(tokens), jnp.asarray(mask), jnp.zeros(len(rows)), None
    )


def test_costs_are_edit_rate_and_exact_match():
    """An end symbol is no edit, but a hypothesis without one is not exact."""
    pairs = [
        ((7, 8, EOS), (7, 8, EOS)),
        ((7, 8), (7, 8, EOS)),  # cut off
        ((7, PAD, EOS), (7, 8, EOS)),  # an id can be said wherever it stands in the vocabulary
        ((7, PAD), (7, EOS)),
        ((EOS,), (7, 8, 9, EOS)),
        ((9, 9, 9, EOS), (EOS,)),  # |y| is at least 1
        ((8, 7, 8, 9), (7, 9, EOS)),
        ((), ()),  # a filler row
    ]
    candidates = make_candidates([said for said, _ in pairs])
    target = np.array([[*goal, 5, 5, 5, 5][:TIME] for _, goal in pairs], np.int32)
    mask = np.array([[step < len(goal) for step in range(TIME)] for _, goal in pairs])
    rates = jax.jit(make_cost("edit_rate"))(candidates, target, mask)
    for rate, (said, goal) in zip(np.asarray(rates), pairs, strict=True):
        plain = [tuple(token for token in some if token != EOS) for some in (said, goal)]
        assert rate == pytest.approx(levenshtein(*plain) / max(1, len(plain[1])))
    exact = jax.jit(make_cost("exact_match"))(candidates, target, mask)
    np.testing.assert_array_equal(exact, [float(said != goal) for said, goal in pairs])


def test_a_repetition_within_a_source_is_not_distinct():
    rows = [(7, EOS), (7, EOS), (7, 8, EOS)], [(7, EOS), (8, EOS), (8, EOS)]
    found = is_distinct(make_candidates([*rows[0], *rows[1]]), 3)
    assert found.tolist() == [[True, False, True], [True, True, False]]


def test_rows_are_repeated_next_to_each_other():
    tree = {"a": jnp.arange(3), "b": jnp.arange(6).reshape(3, 2)}
    found = repeat_rows(tree, 2)
    assert found["a"].tolist() == [0, 0, 1, 1, 2, 2]
    assert found["b"][:, 0].tolist() == [0, 0, 2, 2, 4, 4]


def test_weighted_nll_and_its_gradient_count_each_token_by_its_weight(make_elman, batch):
    """At fixed candidates, with weights below 0, and none outside the mask."""
    elman = make_elman(10)
    rows = [(4, 5, EOS), (6, EOS), (7, 8, 9, 9), ()]
    candidates = make_candidates(rows)
    fed = jnp.concatenate([jnp.full((1, 4), BOS), candidates.tokens[:-1]])
    weights = np.random.default_rng(0).normal(size=(TIME, 4)).astype(np.float32)

    def found(params: Any) -> jax.Array:
        memory = elman.model.encode(params, batch.source, batch.source_mask, None)
        given = elman.model, params, memory, candidates._replace(fed=fed)
        return weighted_nll(*given, jnp.asarray(weights))

    def expected(params: Any) -> float:
        log_probs = elman.log_probs(params, batch.source, np.asarray(fed).T)
        return -sum(
            weights[step, row] * log_probs[row, step, token]
            for row, said in enumerate(rows)
            for step, token in enumerate(said)
        )

    loss, gradient = jax.jit(jax.value_and_grad(found))(elman.float32)
    assert float(loss) == pytest.approx(expected(elman.params), rel=1e-5)
    slopes = elman.slopes(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), gradient, slopes)


SAME = [(3, EOS), (3, EOS), (3, EOS)]
"""The candidates of one source, all equal; three sources have nine rows, and a chunk three."""


@pytest.mark.parametrize(
    ("rows", "weights", "num_chunks"),
    [
        ([*SAME, *SAME, *SAME], range(1, 10), 1),
        ([*SAME, (3, EOS), (4, EOS), (4, 3, EOS), *SAME], range(-4, 5), 2),
        ([(3, EOS), (4, EOS), (4, 3, EOS)] * 3, range(1, 10), 3),
        ([(3, EOS), (4, EOS), (4, 3, EOS)] * 3, [0, 0, 1] * 3, 1),
        ([(3, EOS), (4, EOS), (4, 3, EOS)] * 3, [0] * 9, 0),
    ],
)
def test_equal_candidates_and_those_without_weight_are_not_passed_through(
    make_table_model, rows, weights, num_chunks
):
    """The loss is unchanged, and its gradient that of all rows, from no more passes than needed."""
    model, calls = make_table_model(VOCAB_SIZE), []

    def count(tokens: Any) -> np.ndarray:
        calls.append(tokens)
        return np.zeros((), np.float32)

    def decode_sequence(params: Any, memory: Any, tokens: jax.Array) -> jax.Array:
        zero = jax.pure_callback(count, jax.ShapeDtypeStruct((), jnp.float32), tokens)
        return model.decode_sequence(params, memory, tokens) + zero

    candidates = make_candidates(rows)
    fed = jnp.concatenate([jnp.full((1, len(rows)), BOS), candidates.tokens[:-1]])
    candidates = candidates._replace(fed=fed)
    weights = jnp.broadcast_to(jnp.array(weights, jnp.float32), fed.shape)
    memory = jnp.zeros(3, jnp.int32)

    def found(params: jax.Array) -> jax.Array:
        counting = replace(model, decode_sequence=decode_sequence)
        given = counting, params, memory, candidates, weights, 3, 3
        return 5 * add_nll_gradient(params.sum(), *given)

    def expected(params: jax.Array) -> jax.Array:
        nll = weighted_nll(model, params, repeat_rows(memory, 3), candidates, weights)
        return 5 * (params.sum() + nll)

    loss, gradient = jax.jit(jax.value_and_grad(found))(jnp.asarray(TABLE))
    assert float(loss) == pytest.approx(5 * TABLE.sum(), rel=1e-6)
    np.testing.assert_allclose(gradient, jax.jit(jax.grad(expected))(TABLE), atol=1e-4)
    assert len(calls) == num_chunks


@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_the_gradient_of_candidates_is_the_same_on_all_platforms_and_lanes(
    make_table_model, monkeypatch, platform
):
    """The last of a source's candidates has no weight; the lanes differ in their weights."""
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *given, **branches: branches[platform](*given)
    )
    model, memory = make_table_model(VOCAB_SIZE), jnp.zeros(2, jnp.int32)
    candidates = make_candidates([*SAME, (4, EOS), (3, 4, EOS), (3, EOS)])
    fed = jnp.concatenate([jnp.full((1, 6), BOS), candidates.tokens[:-1]])
    candidates = candidates._replace(fed=fed)
    weights = jnp.array([[0, 0, 0, 3, -1, 0], [2, 1, 0, 3, -1, 0]], jnp.float32)

    def found(params: jax.Array, weights: jax.Array) -> jax.Array:
        given = model, params, memory, candidates, jnp.broadcast_to(weights, fed.shape), 3, 2
        return add_nll_gradient(jnp.float32(0), *given)

    def expected(params: jax.Array, weights: jax.Array) -> jax.Array:
        of_rows, weights = repeat_rows(memory, 3), jnp.broadcast_to(weights, fed.shape)
        return weighted_nll(model, params, of_rows, candidates, weights)

    lanes = [jax.jit(jax.vmap(jax.grad(one), (None, 0))) for one in (found, expected)]
    gradients = [one(jnp.asarray(TABLE), weights) for one in lanes]
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_an_unknown_cost_is_refused():
    with pytest.raises(ValueError, match="cost is 'bleu'; it must be one of edit_rate, exact_m"):
        make_cost("bleu")
