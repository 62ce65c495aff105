import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, gold_inputs
from s2s_jax.decoding import greedy
from s2s_jax.feeding import Fed, RolloutOptions
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


@pytest.mark.parametrize("feed", ["soft", "gumbel"])
def test_a_rollout_feeds_tokens(table_model, feed):
    with pytest.raises(ValueError, match=f"feed is '{feed}'; a rollout feeds tokens"):
        make_rollout(table_model, RolloutOptions(feed=feed))


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


# Passes.


def test_as_many_passes_as_steps_feed_what_the_scan_feeds(table_model):
    generator = np.random.default_rng(4)
    table = generator.normal(0, 2, (10, 10)).astype(np.float32)
    target = generator.integers(4, 10, (40, 5)).astype(np.int32)
    kinds = {"token": {}, "confidence": {"gold_below": 0.02, "own_below": 0.3}}

    @jax.jit
    def run(teacher_prob: jax.Array) -> dict[str, list[Fed]]:
        return {
            coin: [
                make_rollout(table_model, RolloutOptions(coin=coin, passes=passes, **options))(
                    table, np.zeros(40, np.int32), target, np.asarray(target) > 0, KEY, teacher_prob
                )
                for passes in (1, target.shape[1], 0)
            ]
            for coin, options in kinds.items()
        }

    for one, as_many, scan in run(jnp.float32(0.2)).values():
        np.testing.assert_array_equal(as_many.tokens, scan.tokens)
        np.testing.assert_array_equal(as_many.is_gold, scan.is_gold)
        assert np.any(one.tokens != scan.tokens)


@pytest.mark.parametrize("passes", [1, 2])
def test_each_pass_chooses_after_what_the_one_before_fed(run: RunRollout, passes):
    fed = run(TARGET, 0.5, table=DETERMINISTIC, feed="argmax", passes=passes)
    inputs = np.array(gold_inputs(TARGET))
    for _ in range(passes):
        own = SUCCESSOR[inputs[:, :-1]]
        inputs[:, 1:] = np.where(fed.is_gold[:, 1:], TARGET[:, :-1], own)
    np.testing.assert_array_equal(fed.tokens, inputs)
    assert abs(fed.is_gold[:, 1:].mean() - 0.5) < 0.4


def test_one_pass_draws_from_the_distribution_after_the_gold_prefix(run: RunRollout):
    probs = np.random.default_rng(5).dirichlet(np.ones(10), 10)
    target = np.tile(np.array([4, 9, 6], np.int32), (4000, 1))
    fed = run(target, 0.0, table=np.log(probs).astype(np.float32), passes=1)
    for step, token in enumerate((BOS, 4)):
        shares = np.bincount(fed.tokens[:, step + 1], minlength=10) / 4000
        np.testing.assert_allclose(shares, probs[token], atol=4 * 0.5 / np.sqrt(4000))


# Confidence, and the end of the gold tokens.


def test_confidence_is_that_of_the_fed_prefix(run: RunRollout):
    """After 4 the model is unsure of gold 5, after 9 quite sure, after 6 certain."""
    probs = np.full((10, 10), 0.1)
    probs[9] = [*np.full(5, 0.0075), 0.925, *np.full(4, 0.01)]  # 5 with .925; own
    probs[6] = 0.001
    probs[6, 5] = 0.991  # a random token of the target
    target = np.tile(np.array([4, 5, 9, 5, 6, 5, 7, 2], np.int32), (3000, 1))
    fed = run(target, 0.0, table=np.log(probs).astype(np.float32), coin="confidence")
    after = {token: fed.tokens[:, 1:][fed.tokens[:, :-1] == token] for token in (4, 9, 6)}
    inputs = np.asarray(gold_inputs(target))[:, 1:]
    gold = {token: inputs[fed.tokens[:, :-1] == token] for token in (4, 9, 6)}
    np.testing.assert_array_equal(after[4], gold[4])
    own = after[9][gold[9] == 5]
    assert abs((own == 5).mean() - 0.925) < 4 * np.sqrt(0.925 * 0.075 / own.size)
    random = after[6][gold[6] == 5]
    shares = np.bincount(random, minlength=10) / random.size
    expected = np.array([0, 0, 0, 0, 1, 3, 1, 1, 0, 1]) / 7  # 2 is the end symbol
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(random.size))


def test_own_tokens_go_on_beyond_the_gold_ones_and_noise_does_not(table_model):
    target = np.array([[7, 7, 2, 0, 0, 0], [2, 0, 0, 0, 0, 0]], np.int32)
    table = 50.0 * np.eye(10, dtype=np.float32)[np.full(10, 9)]

    @jax.jit
    def run(teacher_prob: jax.Array) -> list[Fed]:
        return [
            make_rollout(table_model, options, beyond_gold=True)(
                table, np.zeros(2, np.int32), target, target > 0, KEY, teacher_prob
            )
            for options in (RolloutOptions(), RolloutOptions(source="blank"))
        ]

    own, noise = run(jnp.float32(0.0))
    assert own.tokens.tolist() == [[1, 9, 9, 9, 9, 9]] * 2
    assert noise.tokens.tolist() == [[1, 3, 3, 2, 0, 0], [1, 2, 0, 0, 0, 0]]
    own, noise = run(jnp.float32(0.9999))
    assert own.tokens.tolist() == [[1, 7, 7, 2, 9, 9], [1, 2, 9, 9, 9, 9]]
    assert own.is_gold.tolist() == [[True] * 4 + [False] * 2, [True] * 2 + [False] * 4]
    np.testing.assert_array_equal(noise.tokens, gold_inputs(target))
