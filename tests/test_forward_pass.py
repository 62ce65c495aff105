import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax import output_layer
from s2s_jax.batch import gold_inputs
from s2s_jax.feeding import RolloutOptions
from s2s_jax.forward_pass import make_forward_pass
from s2s_jax.models.interface import Seq2SeqModel

pytestmark = pytest.mark.xdist_group("forward_pass")
KEY = jax.random.key(7)
MODELS: dict[str, dict[str, Any]] = {
    "LSTM": {"dropout": 0.3, "attention": "general"},
    "two GRUs": {"cell": "gru", "num_decoder_layers": 2, "attention": "none"},
    "additive": {"cell": "gru", "attention": "additive"},
}


def make_run(model: Seq2SeqModel, batch: Any, **options: Any):
    """(params, key, teacher_prob) -> what was fed and the losses; their gradient to all params."""

    def loss(params: Any, key: jax.Array, teacher_prob: jax.Array):
        memory = model.encode(params, batch.source, batch.source_mask, key)
        forward = make_forward_pass(model, RolloutOptions(**options), label_smoothing=0.1)
        fed, losses = forward(params, memory, batch.target, batch.target_mask, key, teacher_prob)
        return losses.loss.total, (fed, losses)

    return jax.value_and_grad(loss, has_aux=True)


@pytest.mark.parametrize("name", MODELS)
def test_one_pass_equals_two_passes(monkeypatch, make_rnn, batch, name):
    """The same tokens, losses and gradient as a rollout followed by decode_sequence."""
    monkeypatch.setattr(output_layer, "_BLOCK_ELEMENTS", 2 * batch.target.shape[0] * 12)
    model, params = make_rnn(scale=1.0, **MODELS[name])
    assert 1 < num_blocks(batch, model) < batch.target.shape[1]
    one, two = (
        jax.jit(make_run(one, batch)) for one in (model, dataclasses.replace(model, replay=None))
    )
    wrong = 0
    for seed, teacher_prob in enumerate((0.0, 0.3, 0.9, 1.0)):
        key = jax.random.key(seed)
        found, expected = (run(params, key, np.float32(teacher_prob)) for run in (one, two))
        fed = found[0][1][0]
        np.testing.assert_array_equal(fed.tokens, expected[0][1][0].tokens)
        np.testing.assert_array_equal(fed.is_gold, expected[0][1][0].is_gold)
        jax.tree.map(assert_close, found, expected)
        wrong += int((fed.tokens != gold_inputs(batch.target)).sum())
    assert wrong > 0


def assert_close(found: jax.Array, expected: jax.Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def num_blocks(batch: Any, model: Seq2SeqModel) -> int:
    batch_size, time = batch.target.shape
    return output_layer.num_blocks(time, batch_size, model.vocab_size)


@pytest.mark.parametrize("name", MODELS)
def test_a_pass_over_known_tokens_leaves_the_trace_of_single_steps(make_rnn, batch, name):
    model, params = make_rnn(**MODELS[name])
    replay: Any = model.replay

    def run(params: Any) -> Any:
        memory = model.encode(params, batch.source, batch.source_mask, KEY)
        tokens = gold_inputs(batch.target).T

        def step(carry, token):
            carry, features, trace = replay.step(params, memory, carry, token)
            return carry, (features, trace)

        _, steps = jax.lax.scan(step, model.initial_carry(params, memory), tokens)
        features, trace = at_once = replay.sequence(params, memory, tokens)
        replayed = replay.replay(params, memory, tokens, features, trace)
        kernel, bias = replay.output(params)
        logits = model.decode_sequence(params, memory, tokens.T)
        return (at_once, steps), (replayed @ kernel + bias, logits.swapaxes(0, 1))

    for found, expected in jax.jit(run)(params):
        jax.tree.map(assert_close, found, expected)


def test_a_smoothing_out_of_range_is_refused(make_rnn):
    with pytest.raises(ValueError, match="label_smoothing is 1"):
        make_forward_pass(make_rnn()[0], label_smoothing=1.0)


def test_lanes_under_vmap_give_the_same_as_each_lane_alone(make_rnn, batch):
    model, params = make_rnn(scale=1.0)
    run = make_run(model, batch)
    keys, probs = jax.random.split(KEY, 3), jnp.array([1.0, 0.5, 0.0])
    alone = jax.jit(run)
    lanes = jax.jit(jax.vmap(run, in_axes=(None, 0, 0)))(params, keys, probs)
    for lane in range(3):
        jax.tree.map(
            lambda lanes, alone, lane=lane: assert_close(lanes[lane], alone),
            lanes,
            alone(params, keys[lane], probs[lane]),
        )


def test_lanes_that_share_teacher_prob_1_draw_nothing(make_rnn, batch):
    """A condition that all lanes share stays a branch under vmap: its other side does not run."""
    model, params = make_rnn()
    replay: Any = model.replay
    steps = []

    def counted(*args: Any) -> Any:
        jax.debug.callback(lambda: steps.append(1))
        return replay.step(*args)

    watched = dataclasses.replace(model, replay=dataclasses.replace(replay, step=counted))
    compiled = jax.jit(jax.vmap(make_run(watched, batch), in_axes=(None, 0, None)))
    for teacher_prob in (1.0, 0.5):
        steps.clear()
        compiled(params, jax.random.split(KEY, 2), jnp.float32(teacher_prob))
        jax.effects_barrier()
        assert (len(steps) == 0) == (teacher_prob == 1.0)
