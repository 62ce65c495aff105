from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, EOS, UNK, Batch, gold_inputs
from s2s_jax.exposure import make_observe_step, make_read_states, observe
from s2s_jax.exposure.edit_oracle import optimal_next
from s2s_jax.exposure.observations import fit

# Its fixtures train once, not once per worker.
pytestmark = pytest.mark.xdist_group("observations")

MAX_LENGTH = 7
TARGETS = [[4, 5, 6, 7, EOS], [8, EOS], [9, 9, 5, EOS], [6, 4, EOS], [EOS], [5, 7, 8, EOS]]
SOURCES = [[4 + index, 5, EOS] for index in range(6)]


@pytest.fixture(scope="module")
def rnn(make_rnn) -> tuple[Any, Any, Any, Any]:
    model, params = make_rnn(attention="general", cell="gru", bidirectional=False, scale=0.9)
    params["output_bias"] = params["output_bias"].at[EOS].add(1.0).at[UNK].set(-100)
    return (
        model,
        params,
        jax.jit(make_observe_step(model, MAX_LENGTH)),
        jax.jit(make_read_states(model)),
    )


@pytest.fixture(scope="module")
def step_by_step(rnn) -> Any:
    """tokens [6, 7] -> the logits and states [6, 7, size] of the model's single steps."""
    model, params, *_ = rnn

    @jax.jit
    def run(tokens):
        source = jnp.array(SOURCES)
        memory = model.encode(params, source, source > 0, None)
        inputs = jnp.concatenate([jnp.full((6, 1), BOS), tokens[:, :-1]], axis=1)

        def step(carry, token):
            carry, logits = model.decode_step(params, memory, carry, token)
            return carry, (logits, jnp.concatenate(jax.tree.leaves(carry), axis=1))

        _, found = jax.lax.scan(
            step, model.initial_carry(params, memory, inputs.shape[1]), inputs.T
        )
        return [some.swapaxes(0, 1) for some in found]

    return lambda tokens: [np.asarray(some) for some in run(fit(np.asarray(tokens), MAX_LENGTH))]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def make_batches(make_batch, order: list[int], time: int = 6) -> list[tuple[np.ndarray, Batch]]:
    """Batches of three rows; the last one is filled up."""
    found = []
    for start in range(0, len(order), 3):
        some = order[start : start + 3]
        indices = np.array(some + [-1] * (3 - len(some)))
        rows = [SOURCES[index] for index in some] + [[EOS]] * (3 - len(some))
        targets = [TARGETS[index] for index in some]
        batch = make_batch(rows, targets, time=time, num_rows=3)
        found.append((indices, batch))
    return found


@pytest.fixture(scope="module")
def seen(rnn, make_batch) -> Any:
    _, params, observe_step, read_states = rnn
    batches = make_batches(make_batch, [3, 0, 5, 1, 4, 2])
    return observe(observe_step, params, batches, jax.random.key(0), read_states, num_states=4)


def test_rows_are_in_the_order_of_the_examples(seen):
    for row, mask, target in zip(seen.target, seen.mask, TARGETS, strict=True):
        assert row[mask].tolist() == target


def test_filler_rows_and_the_order_of_batches_change_only_what_is_drawn(rnn, make_batch, seen):
    _, params, observe_step, read_states = rnn
    batches = make_batches(make_batch, [0, 1, 2, 3]) + make_batches(make_batch, [5, 4])
    key = jax.random.key(0)
    other = observe(observe_step, params, batches, key, read_states, num_states=4)
    assert len(other.target) == 6
    for name in ("gold_nll", "gold_right", "own_tokens", "own_lengths", "own_finished"):
        where = seen.mask if name.startswith("gold") else ...
        ours, theirs = (np.asarray(getattr(one, name))[where] for one in (seen, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not np.array_equal(seen.sampled_tokens, other.sampled_tokens)


def test_draws_depend_on_the_key_and_on_the_batch(rnn, make_batch, seen):
    _, params, observe_step, _ = rnn
    batches = make_batches(make_batch, [3, 0, 5, 1, 4, 2])
    again, other = (observe(observe_step, params, batches, jax.random.key(seed)) for seed in (0, 1))
    assert np.array_equal(seen.sampled_tokens, again.sampled_tokens)
    assert np.array_equal(seen.corrupted_nll["uniform"], again.corrupted_nll["uniform"])
    assert not np.array_equal(seen.sampled_tokens, other.sampled_tokens)
    (_, batch), _ = batches
    twice = [(np.array([0, 1, 2]), batch), (np.array([3, 4, 5]), batch)]
    same = observe(observe_step, params, twice, jax.random.key(0))
    assert not np.array_equal(same.sampled_tokens[:3], same.sampled_tokens[3:])
    assert again.state_rows.size == 0


def test_gold_columns_equal_those_of_single_steps(step_by_step, seen):
    logits = step_by_step(seen.target)[0][:, :6]
    nll = -np.take_along_axis(log_softmax(logits), seen.target[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(seen.gold_nll[seen.mask], nll[seen.mask], atol=1e-4)
    right = logits.argmax(-1) == seen.target
    assert np.array_equal(seen.gold_right[seen.mask], right[seen.mask])


def test_exact_match_with_gold_and_with_own_prefixes_is_the_same(rnn, make_batch, seen):
    _, params, observe_step, _ = rnn
    # Mostly the model's own outputs as targets.
    target = seen.own_tokens.copy()
    mask = np.arange(MAX_LENGTH) < seen.own_lengths[:, None]
    target[0, 0] = 4 + (target[0, 0] + 1) % 6
    batch = make_batch(SOURCES, TARGETS, time=6)
    batches = [
        (
            np.arange(some.start, some.stop),
            Batch(batch.source[some], batch.source_mask[some], target[some], mask[some]),
        )
        for some in (slice(0, 3), slice(3, 6))
    ]
    found = observe(observe_step, params, batches, jax.random.key(0))
    by_gold = np.all(found.gold_right | ~found.mask, axis=1)
    assert np.array_equal(by_gold, found.own_exact)
    assert not found.own_exact[0]
    assert found.own_exact.sum() >= 3


def test_costs_after_drawn_prefixes(step_by_step, seen):
    # After the empty prefix, sampled or gold, only the first gold token is optimal.
    np.testing.assert_allclose(seen.oracle_cost[:, 0], seen.gold_nll[:, 0], atol=1e-5)
    probs = np.exp(log_softmax(step_by_step(seen.sampled_tokens)[0]))
    optimal = np.asarray(jax.jit(optimal_next)(seen.target, seen.mask, seen.sampled_tokens))
    for row in range(6):
        assert seen.sampled_lengths[row] >= 1
        for step in range(seen.sampled_lengths[row]):
            tokens = sorted(set(seen.target[row][optimal[row, step]].tolist()))
            expected = -np.log(probs[row, step, tokens].sum())
            assert seen.oracle_cost[row, step] == pytest.approx(expected, abs=1e-4)
    assert seen.sampled_mask.sum(1).tolist() == seen.sampled_lengths.tolist()


def test_a_corrupted_token_changes_only_what_comes_after_it(seen):
    assert seen.corrupted_at[4] == 0  # a target of EOS alone
    for kind in ("uniform", "plausible"):
        changed = np.abs(seen.corrupted_nll[kind] - seen.gold_nll) > 1e-5
        for row, position in enumerate(seen.corrupted_at):
            assert not changed[row, : position if position else None].any()
            assert position == 0 or changed[row, position]
    assert np.all(seen.corrupted_at < np.maximum(seen.mask.sum(1), 1))


def test_states_after_gold_and_drawn_inputs(step_by_step, seen):
    rows = seen.state_rows
    assert rows.tolist() == [0, 1, 3, 4]
    assert seen.gold_states.shape == seen.own_states.shape == (4, 6, 8)
    assert np.array_equal(seen.gold_states[:, 0], seen.own_states[:, 0])
    assert seen.state_mask.sum(1).tolist() == [
        min(len(TARGETS[row]), seen.sampled_lengths[row]) for row in rows
    ]
    for states, tokens in ((seen.gold_states, seen.target), (seen.own_states, seen.sampled_tokens)):
        expected = step_by_step(tokens)[1][rows, :6]
        np.testing.assert_allclose(states, expected, atol=1e-5)


def test_batches_of_several_shapes_are_padded_to_the_longest(make_table_model, make_batch):
    # It outputs 4 5 6 EOS.
    table = 20 * np.eye(8, dtype=np.float32)[np.array([4, 4, 4, 4, 5, 6, EOS, 4])]
    step = jax.jit(make_observe_step(make_table_model(8), 5))
    batches = [
        (np.array([1]), make_batch([[4, EOS]], [[4, EOS]])),
        (np.array([0]), make_batch([[4, 5, EOS]], [[4, 5, 6, 7, EOS]])),
    ]
    found = observe(step, table, batches, jax.random.key(0))
    assert found.target.tolist() == [[4, 5, 6, 7, EOS], [4, EOS, 0, 0, 0]]
    assert found.own_right[found.mask].tolist() == [True] * 3 + [False] * 2 + [True, False]
    assert found.own_tokens.tolist() == [[4, 5, 6, EOS, 0]] * 2
    assert np.array_equal(found.own_tokens, found.sampled_tokens)
    assert found.own_exact.tolist() == [False, False]
    assert found.mask.sum(1).tolist() == [5, 2]


def test_an_unknown_gold_token_is_never_right(make_table_model, make_batch):
    # It outputs 4 UNK 6 EOS.
    table = 20 * np.eye(8, dtype=np.float32)[np.array([4, 4, 4, 6, UNK, 5, EOS, 4])]
    step = jax.jit(make_observe_step(make_table_model(8), 5, draws=False, corrupts=False))
    batches = [(np.array([0]), make_batch([[4, EOS]], [[4, UNK, 6, EOS]]))]
    found = observe(step, table, batches, jax.random.key(0))
    assert found.own_tokens[0, :4].tolist() == found.target[0].tolist()
    assert found.own_right.tolist() == found.gold_right.tolist() == [[True, False, True, True]]
    assert found.own_exact.tolist() == [False]


def test_invalid_arguments_are_refused(rnn, make_batch):
    _, params, observe_step, _ = rnn
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="nothing to observe: the split is empty"):
        observe(observe_step, params, [], key)
    ((_, batch),) = make_batches(make_batch, [0, 1, 2])
    with pytest.raises(ValueError, match="nothing to observe: the split is empty"):
        observe(observe_step, params, [(np.full(3, -1), batch)], key)
    with pytest.raises(ValueError, match="an example's index occurs twice in the batches"):
        observe(observe_step, params, [(np.array([0, 1, 1]), batch)], key)
    with pytest.raises(ValueError, match="max_length is 0; it must be at least 1"):
        make_observe_step(rnn[0], 0)


def test_states_of_a_model_whose_carry_is_a_cache_are_its_features(make_transformer, batch):
    """Unless something else of the carry is asked for."""
    made: Any = make_transformer()
    model, params = made
    inputs = gold_inputs(batch.target)
    source = batch.source, batch.source_mask
    found = jax.jit(make_read_states(model))(params, *source, inputs)
    memory = model.encode(params, *source, None)
    wanted = model.features.sequence(params, memory, inputs.T).swapaxes(0, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    positions = make_read_states(model, lambda carry: carry.position)(params, *source, inputs)
    assert positions[0].tolist() == [1, 2, 3, 4, 5]
