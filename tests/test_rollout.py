import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, gold_inputs
from s2s_jax.decoding import greedy
from s2s_jax.feeding import Fed, RolloutOptions, toss_coins
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.rollout import make_rollout

KEY = jax.random.key(7)
SUCCESSOR = np.array(
    [9, 7, 4, 5, 8, 9, 7, 6, 3, 4], np.int32
)  # for each token, the most likely next one
TARGET = np.random.default_rng(0).integers(4, 10, (6, 5)).astype(np.int32)

RunRollout = Callable[..., Fed]


@pytest.fixture(scope="module")
def table_model(make_table_model: Callable[[int], Seq2SeqModel]) -> Seq2SeqModel:
    return make_table_model(10)


@pytest.fixture(scope="module")
def run(table_model: Seq2SeqModel) -> RunRollout:
    """A rollout of the table model, compiled once for each of its options."""
    compiled: dict[tuple[tuple[str, Any], ...], Any] = {}

    def run(
        target: np.ndarray, teacher_prob: float, key: jax.Array = KEY, table: Any = None, **options
    ) -> Fed:
        name = tuple(sorted(options.items()))
        if name not in compiled:
            compiled[name] = jax.jit(make_rollout(table_model, RolloutOptions(**options)))
        table = np.zeros((10, 10), np.float32) if table is None else table
        memory = np.zeros(len(target), np.int32)
        return jax.device_get(
            compiled[name](
                table, memory, target, np.ones(target.shape, bool), key, jnp.float32(teacher_prob)
            )
        )

    return run


DETERMINISTIC = 50.0 * np.eye(10, dtype=np.float32)[SUCCESSOR]


@pytest.mark.parametrize("teacher_prob", [0.1, 0.5, 0.9])
def test_the_coins_mean_is_teacher_prob_over_time_and_over_the_batch(teacher_prob):
    coins = np.asarray(toss_coins(KEY, jnp.float32(teacher_prob), 200, 200))
    deviation = np.sqrt(teacher_prob * (1 - teacher_prob))
    assert abs(coins.mean() - teacher_prob) < 4 * deviation / 200
    for axis in (0, 1):  # the mean of 200 coins, 200 times: spread as of independent coins
        means = coins.mean(axis)
        assert np.all(np.abs(means - teacher_prob) < 5 * deviation / np.sqrt(200))
        assert means.std() == pytest.approx(deviation / np.sqrt(200), rel=0.3)


def test_a_coin_is_independent_of_its_neighbours():
    coins = np.asarray(toss_coins(KEY, jnp.float32(0.5), 200, 200))
    assert abs((coins[:, 1:] == coins[:, :-1]).mean() - 0.5) < 0.01
    assert abs((coins[1:] == coins[:-1]).mean() - 0.5) < 0.01


def test_a_sequence_coin_is_shared_over_time_alone_and_a_batch_coin_by_all():
    sequence = np.asarray(toss_coins(KEY, jnp.float32(0.3), 4, 1000, "sequence"))
    assert np.all(sequence == sequence[:1])
    assert abs(sequence[0].mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 1000)
    keys = jax.random.split(KEY, 1000)
    batch = np.asarray(jax.vmap(lambda key: toss_coins(key, jnp.float32(0.3), 3, 4, "batch"))(keys))
    assert batch.shape == (1000, 3, 4)
    assert np.all(batch == batch[:, :1, :1])
    assert abs(batch[:, 0, 0].mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 1000)


@pytest.mark.parametrize("coin", ["token", "sequence", "batch"])
def test_at_1_every_coin_is_gold_and_at_0_none(coin):
    for seed in range(5):
        key = jax.random.key(seed)
        assert np.all(toss_coins(key, jnp.float32(1.0), 30, 30, coin))
        assert not np.any(toss_coins(key, jnp.float32(0.0), 30, 30, coin))


@pytest.mark.parametrize("coin", ["token", "sequence"])
def test_more_rows_and_steps_toss_the_same_coins_and_then_more(coin):
    few = toss_coins(KEY, jnp.float32(0.5), 5, 4, coin)
    many = toss_coins(KEY, jnp.float32(0.5), 8, 9, coin)
    np.testing.assert_array_equal(many[:5, :4], few)


@pytest.mark.parametrize("coin", ["token", "sequence", "batch"])
def test_the_scan_feeds_gold_or_own_tokens_as_the_coin_says(run: RunRollout, coin):
    fed = run(TARGET, 0.5, table=DETERMINISTIC, feed="argmax", coin=coin)
    assert np.all(fed.tokens[:, 0] == BOS)
    own = SUCCESSOR[fed.tokens[:, :-1]]  # said after the token fed before, never after the gold one
    expected = np.where(fed.is_gold[:, 1:], TARGET[:, :-1], own)
    np.testing.assert_array_equal(fed.tokens[:, 1:], expected)


def test_the_coin_of_the_scan_varies_over_time_and_over_the_batch(run: RunRollout):
    target = np.full((40, 41), 5, np.int32)
    always_9 = np.broadcast_to(50.0 * np.eye(10, dtype=np.float32)[9], (10, 10))
    fed = run(target, 0.5, table=always_9, feed="argmax", coin="token")
    np.testing.assert_array_equal(fed.tokens[:, 1:] == 5, fed.is_gold[:, 1:])
    gold = fed.is_gold[:, 1:]
    assert abs(gold.mean() - 0.5) < 4 * 0.5 / 40
    assert np.all((gold.mean(0) > 0.1) & (gold.mean(0) < 0.9))
    assert np.all((gold.mean(1) > 0.1) & (gold.mean(1) < 0.9))


def test_samples_vary_over_time_and_batch_with_the_models_probabilities(run: RunRollout):
    fed = run(np.full((50, 51), 5, np.int32), 0.0)  # uniform logits
    tokens = fed.tokens[:, 1:]
    assert abs((tokens[:, 1:] == tokens[:, :-1]).mean() - 0.1) < 0.03
    assert abs((tokens[1:] == tokens[:-1]).mean() - 0.1) < 0.03
    assert np.all(np.abs(np.bincount(tokens.ravel(), minlength=10) / 2500 - 0.1) < 0.03)


def test_the_samples_do_not_follow_the_coins(run: RunRollout):
    # In a batch of one row, a shared stream would give both the same number.
    mixed = run(np.full((1, 1501), 5, np.int32), 0.5)
    own = mixed.tokens[:, 1:][~mixed.is_gold[:, 1:]]
    assert np.all(np.abs(np.bincount(own, minlength=10) / own.size - 0.1) < 0.05)


def test_coins_are_the_same_whatever_is_fed(run: RunRollout):
    sampled = run(TARGET, 0.5)
    likeliest = run(TARGET, 0.5, table=DETERMINISTIC, feed="argmax", coin="token")
    np.testing.assert_array_equal(sampled.is_gold, likeliest.is_gold)


@pytest.mark.parametrize("teacher_prob", [0.0, 0.5, 1.0])
def test_the_start_symbol_is_never_replaced(run: RunRollout, teacher_prob):
    for seed in range(5):
        fed = run(TARGET, teacher_prob, jax.random.key(seed))
        assert np.all(fed.tokens[:, 0] == BOS)
        assert np.all(fed.is_gold[:, 0])


def test_at_1_the_fed_tokens_are_the_gold_inputs(run: RunRollout):
    fed = run(TARGET, 1.0)
    np.testing.assert_array_equal(fed.tokens, gold_inputs(TARGET))
    assert np.all(fed.is_gold)


def test_at_0_no_gold_token_is_fed(run: RunRollout):
    one, other = (run(target, 0.0) for target in (TARGET, (TARGET - 3) % 10))
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert not np.any(one.is_gold[:, 1:])


@pytest.mark.parametrize("time", range(TARGET.shape[1]))
def test_fed_tokens_do_not_depend_on_current_or_later_targets(run: RunRollout, time):
    changed = TARGET.copy()
    changed[:, time:] = 13 - changed[:, time:]
    one, other = (run(target, 0.7).tokens for target in (TARGET, changed))
    np.testing.assert_array_equal(one[:, : time + 1], other[:, : time + 1])


@pytest.mark.parametrize(("num_rows", "time"), [(4, 9), (11, 5)], ids=["time", "rows"])
def test_padding_changes_no_fed_token(run: RunRollout, num_rows, time):
    padded = np.zeros((num_rows, time), np.int32)
    padded[:4, :5] = TARGET[:4]
    one, other = run(TARGET[:4], 0.5), run(padded, 0.5)
    np.testing.assert_array_equal(other.is_gold[:4, :5], one.is_gold)
    np.testing.assert_array_equal(other.tokens[:4, :5], one.tokens)


def test_a_target_of_one_token_is_fed_the_start_symbol(run: RunRollout):
    fed = run(TARGET[:, :1], 0.5)
    assert fed.tokens.tolist() == [[BOS]] * len(TARGET)
    assert fed.is_gold.shape == (len(TARGET), 1)


@pytest.mark.parametrize("options", [{"temperature": 1e-3}, {"top_k": 1}])
def test_temperature_and_top_k_reach_the_sample(run: RunRollout, options):
    table = np.random.default_rng(1).normal(size=(10, 10)).astype(np.float32)
    sampled = run(TARGET, 0.5, table=table, **options)
    likeliest = run(TARGET, 0.5, table=table, feed="argmax", coin="token")
    np.testing.assert_array_equal(sampled.tokens, likeliest.tokens)


def test_no_decode_step_runs_while_teacher_prob_is_1(table_model):
    num_steps = []

    def counted(params, memory, carry, token):
        jax.debug.callback(lambda: num_steps.append(1))
        return table_model.decode_step(params, memory, carry, token)

    rollout = jax.jit(make_rollout(dataclasses.replace(table_model, decode_step=counted)))
    for teacher_prob, expected in ((1.0, 0), (0.999, 5)):
        num_steps.clear()
        rollout(
            jnp.zeros((10, 10)),
            jnp.zeros(6, jnp.int32),
            TARGET,
            TARGET > 0,
            KEY,
            jnp.float32(teacher_prob),
        )
        jax.effects_barrier()
        assert len(num_steps) == expected


def test_at_0_with_argmax_the_fed_tokens_are_those_of_greedy_decoding(make_rnn, batch):
    model, params = make_rnn(scale=1.0, attention="general")
    time = 12
    target = jnp.zeros((4, time + 1), jnp.int32)

    def both(params: Any) -> tuple[Fed, Any]:
        memory = model.encode(params, batch.source, batch.source_mask, None)
        rollout = make_rollout(model, RolloutOptions(feed="argmax"))
        return rollout(params, memory, target, target == 0, KEY, jnp.float32(0.0)), greedy(
            model, params, memory, time
        )

    fed, decoded = jax.device_get(jax.jit(both)(params))
    assert len({tuple(row) for row in fed.tokens.tolist()}) > 1
    for row, length in enumerate(decoded.lengths):
        assert fed.tokens[row, 1 : 1 + length].tolist() == decoded.tokens[row, :length].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coin": "word"}, "coin is 'word'; it must be one of token, sequence, batch, conf"),
        ({"feed": "greedy"}, "feed is 'greedy'; it must be one of sample, argmax, soft, gumbel"),
        ({"feed": "argmax", "temperature": 0.5}, "temperature is .*; feed 'argmax' has none"),
        ({"feed": "argmax", "top_k": 3}, "top_k is .*; feed 'argmax' has none"),
        ({"temperature": 0.0}, "temperature is"),
        ({"top_k": -1}, "top_k is -1; it must be an integer"),
    ],
)
def test_invalid_options_are_refused_in_one_line(table_model, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_rollout(table_model, RolloutOptions(**options))
    assert "\n" not in str(error.value)


def test_lanes_under_vmap_feed_the_same_as_each_lane_alone(make_rnn, batch):
    model, params = make_rnn(scale=1.0)

    def run(key: jax.Array, teacher_prob: jax.Array) -> jax.Array:
        memory = model.encode(params, batch.source, batch.source_mask, None)
        rollout = make_rollout(model)
        return rollout(params, memory, batch.target, batch.target_mask, key, teacher_prob).tokens

    keys, probs = jax.random.split(KEY, 3), jnp.array([1.0, 0.5, 0.0])
    alone = jax.jit(run)
    for lane, tokens in enumerate(jax.jit(jax.vmap(run))(keys, probs)):
        np.testing.assert_array_equal(tokens, alone(keys[lane], probs[lane]))
    shared = jax.jit(jax.vmap(run, in_axes=(0, None)))(keys, probs[1])
    np.testing.assert_array_equal(shared[1], alone(keys[1], probs[1]))


def test_a_symbol_with_id_0_is_not_padding(run: RunRollout):
    """Chains of known truth number their symbols from 0; own tokens are fed after these too."""
    table = 50.0 * np.eye(10, dtype=np.float32)[np.full(10, 7)]
    fed = run(np.zeros((4, 5), np.int32), 0.0, table=table)
    assert np.all(fed.tokens[:, 1:] == 7)
