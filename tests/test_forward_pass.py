import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax import output_layer
from s2s_jax.batch import BOS, gold_inputs
from s2s_jax.feeding import RolloutOptions
from s2s_jax.forward_pass import make_forward_pass
from s2s_jax.losses import TargetRule, make_gold_rule
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.prng import per_step_keys, stream_key

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


@pytest.mark.parametrize(
    "name", ["LSTM", *(pytest.param(one, marks=pytest.mark.slow) for one in list(MODELS)[1:])]
)
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

        _, steps = jax.lax.scan(step, model.initial_carry(params, memory, len(tokens)), tokens)
        features, trace = at_once = replay.sequence(params, memory, tokens)
        replayed = replay.replay(params, memory, tokens, features, trace)
        kernel, bias = model.features.output(params)
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


# Expected embeddings.

SOFT = {
    "soft": {"feed": "soft", "sharpness": 2.0},
    "gumbel": {"feed": "gumbel", "sharpness": 1.5},
    "straight-through": {"feed": "soft", "sharpness": 2.0, "straight_through": True},
}


def soft_loss(
    elman: Any, params: Any, batch: Any, own: Any, gumbel: Any, sharpness: float, held: Any
) -> tuple[float, list[Any]]:
    """The loss in float64, and what has to be held in place for a straight-through gradient.

    `held` is what is added to each step's expectation; None feeds the most likely vector.
    """
    rows = np.arange(len(batch.target))
    state, vector = params["start"][batch.source[:, 0]], params["embedding"][BOS]
    loss, holds = 0.0, []
    for step, gold in enumerate(batch.target.T):
        state, log_probs = elman.step(params, state, vector)
        loss -= log_probs[rows, gold][batch.target_mask[:, step]].sum()
        weights = np.exp(sharpness * (log_probs + gumbel[step]))
        expected = weights / weights.sum(1, keepdims=True) @ params["embedding"]
        holds.append(params["embedding"][weights.argmax(1)] - expected)
        fed = expected + (holds[-1] if held is None else held[step])
        vector = np.where(own[step][:, None], fed, params["embedding"][gold])
    return loss, holds


def test_the_gradient_through_expected_embeddings_is_that_of_finite_differences(make_elman, batch):
    elman = make_elman(10)
    time, num_rows = batch.target.shape[1], len(batch.target)

    @jax.jit
    def run(params: Any) -> Any:
        return {
            name: jax.value_and_grad(
                lambda params, options=options: soft_total(elman, batch, params, **options),
                has_aux=True,
            )(params)
            for name, options in SOFT.items()
        }

    results = jax.device_get(run(elman.float32))
    keys = per_step_keys(stream_key(KEY, "samples"), time)
    noise = [np.asarray(jax.random.gumbel(key, (num_rows, 10)), np.float64) for key in keys]
    silence = [np.zeros((num_rows, 10))] * time
    for name, ((loss, fed), gradient) in results.items():
        own = [*~fed.is_gold.T[1:], np.zeros(num_rows, bool)]
        assert 0 < np.mean(own) < 0.7
        gumbel, sharpness = (noise if name == "gumbel" else silence), SOFT[name]["sharpness"]
        given = batch, own, gumbel, sharpness
        nothing = [0.0] * time
        if name == "straight-through":
            exact, held = soft_loss(elman, elman.params, *given, None)
        else:
            held, exact = nothing, soft_loss(elman, elman.params, *given, nothing)[0]
        assert float(loss) == pytest.approx(exact, rel=1e-5)
        slopes = elman.slopes(lambda params: soft_loss(elman, params, *given, held)[0])  # noqa: B023
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), gradient, slopes
        )
    gradients = {name: gradient for name, (_, gradient) in results.items()}
    # They are not each other's, nor that of vectors that are constants.
    for one, other in (("soft", "gumbel"), ("soft", "straight-through")):
        assert np.abs(gradients[one]["output"] - gradients[other]["output"]).max() > 0.1


def soft_total(
    elman: Any, batch: Any, params: Any, teacher_prob: float = 0.4, **options: Any
) -> Any:
    model = elman.model
    memory = model.encode(params, batch.source, batch.source_mask, None)
    forward = make_forward_pass(model, RolloutOptions(**options))
    given = params, memory, batch.target, batch.target_mask
    fed, losses = forward(*given, KEY, jnp.float32(teacher_prob), None)
    return losses.loss.total, fed


def test_soft_feeding_at_1_is_teacher_forcing(make_elman, batch):
    elman = make_elman(10)

    @jax.jit
    def run(params: Any) -> Any:
        return [
            jax.value_and_grad(
                lambda params, options=options: soft_total(elman, batch, params, 1.0, **options),
                has_aux=True,
            )(params)
            for options in ({"feed": "soft"}, {"feed": "gumbel", "straight_through": True}, {})
        ]

    *soft, forced = run(elman.float32)
    for one in soft:
        jax.tree.map(assert_close, one, forced)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_soft_feeding_of_recurrent_models_at_1_is_teacher_forcing(make_rnn, batch, name):
    model, params = make_rnn(**MODELS[name])
    soft, forced = (
        jax.jit(make_run(model, batch, **options))(params, KEY, jnp.float32(1.0))
        for options in ({"feed": "soft"}, {})
    )
    jax.tree.map(assert_close, soft, forced)


def test_a_sharp_expectation_is_the_most_likely_token(make_elman, batch):
    """The loss of soft feeding tends to that of feeding the argmax, and so do the fed ids."""
    elman = make_elman(10)
    runs: list[dict[str, Any]] = [{"feed": "soft", "sharpness": 1e5}, {"feed": "argmax"}]
    sharp, likeliest = jax.jit(
        lambda params: [soft_total(elman, batch, params, **options) for options in runs]
    )(elman.float32)
    assert float(sharp[0]) == pytest.approx(float(likeliest[0]), rel=1e-4)
    mask = batch.target_mask
    np.testing.assert_array_equal(sharp[1].tokens[mask], likeliest[1].tokens[mask])
    np.testing.assert_array_equal(sharp[1].is_gold, likeliest[1].is_gold)
    assert np.any(likeliest[1].tokens[mask] != np.asarray(gold_inputs(batch.target))[mask])


def test_soft_feeding_refuses_targets_that_depend_on_fed_tokens(make_elman):
    gold = make_gold_rule()
    rule = TargetRule(gold.begin, gold.step, gold.loss)
    with pytest.raises(ValueError, match="feed is 'soft'; it feeds no tokens, and these targets"):
        make_forward_pass(make_elman(10).model, RolloutOptions(feed="soft"), rule=rule)


@pytest.fixture(scope="module")
def transformer(make_transformer) -> tuple[Any, Any]:
    """With dropout, which must be the same in the steps and in every pass."""
    return make_transformer(scale=0.7, num_decoder_layers=2, dropout=0.2)


def test_features_give_what_all_logits_give(monkeypatch, transformer, batch):
    """The same tokens, losses and gradient, from logits of a few steps at a time."""
    monkeypatch.setattr(output_layer, "_BLOCK_ELEMENTS", 2 * batch.target.shape[0] * 12)
    model, params = transformer
    assert 1 < num_blocks(batch, model) < batch.target.shape[1]
    whole = dataclasses.replace(model, features=None)
    for options in ({}, {"passes": 2}):
        runs = [jax.jit(make_run(one, batch, **options)) for one in (model, whole)]
        for teacher_prob in (0.0, 0.5, 1.0):
            found, expected = (run(params, KEY, np.float32(teacher_prob)) for run in runs)
            np.testing.assert_array_equal(found[0][1][0].tokens, expected[0][1][0].tokens)
            jax.tree.map(assert_close, found, expected)


@pytest.mark.parametrize("feed", ["sample", pytest.param("argmax", marks=pytest.mark.slow)])
def test_as_many_passes_as_tokens_feed_what_cached_steps_feed(transformer, batch, feed):
    model, params = transformer
    time = batch.target.shape[1]
    scan, passes, few = (
        jax.jit(make_run(model, batch, feed=feed, passes=passes)) for passes in (0, time, 1)
    )
    differ = 0
    for seed, teacher_prob in enumerate((0.0, 0.3, 0.7)):
        key = jax.random.key(seed)
        exact, equal, other = (
            run(params, key, np.float32(teacher_prob)) for run in (scan, passes, few)
        )
        np.testing.assert_array_equal(exact[0][1][0].tokens, equal[0][1][0].tokens)
        jax.tree.map(assert_close, exact, equal)
        differ += int((exact[0][1][0].tokens != other[0][1][0].tokens).sum())
    assert differ > 0


@pytest.mark.parametrize(
    "name",
    [
        "transformer",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("rnn", "input feeding")),
    ],
)
def test_as_many_soft_passes_as_tokens_are_the_soft_scan(
    monkeypatch, make_rnn, transformer, batch, name
):
    """With its gradient, if that flows through the passes."""
    monkeypatch.setattr(output_layer, "_BLOCK_ELEMENTS", 2 * batch.target.shape[0] * 12)
    model, params = (
        transformer
        if name == "transformer"
        else make_rnn(scale=0.7, dropout=0.3, input_feeding=name == "input feeding")
    )
    soft: dict[str, Any] = {"feed": "gumbel", "sharpness": 2.0}
    scan, passes = (
        jax.jit(make_run(model, batch, **soft, **more))
        for more in ({}, {"passes": batch.target.shape[1], "through_passes": True})
    )
    for teacher_prob in (0.0, 0.4):
        found, expected = (run(params, KEY, np.float32(teacher_prob)) for run in (passes, scan))
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4),
            found,
            expected,
        )


def test_the_gradient_of_soft_passes_stops_at_the_embeddings_unless_it_may_flow(transformer, batch):
    """One pass by hand: the expected embeddings are constants, or they are not."""
    model, params = transformer
    steps = len(batch.target.T)

    def by_hand(params: Any, flows: bool) -> jax.Array:
        memory = model.encode(params, batch.source, batch.source_mask, KEY)
        table, (kernel, bias) = model.vectors.table(params), model.features.output(params)
        gold = model.vectors.table(params)[gold_inputs(batch.target).T]
        logits = model.vectors.sequence(params, memory, gold) @ kernel + bias
        expected = jax.nn.softmax(logits) @ table
        expected = expected if flows else jax.lax.stop_gradient(expected)
        decided = batch.target_mask.T[1:, :, None]
        fed = jnp.concatenate([gold[:1], jnp.where(decided, expected[:-1], gold[1:])])
        logs = jax.nn.log_softmax(model.vectors.sequence(params, memory, fed) @ kernel + bias)
        nll = -jnp.take_along_axis(logs, batch.target.T[..., None], -1)[..., 0]
        loss = 0.9 * nll - 0.1 * logs.mean(-1)
        return jnp.where(batch.target_mask.T, loss, 0).sum()

    assert steps > 2
    gradients = []
    for flows in (False, True):
        options: dict[str, Any] = {"feed": "soft", "passes": 1, "through_passes": flows}
        run = jax.jit(make_run(model, batch, **options))
        (loss, _), gradient = run(params, KEY, np.float32(0.0))
        wanted = jax.jit(jax.value_and_grad(by_hand), static_argnums=1)(params, flows)
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-4),
            (loss, gradient),
            wanted,
        )
        gradients.append(gradient)
    assert float(jnp.abs(gradients[0]["output_bias"] - gradients[1]["output_bias"]).max()) > 1e-2


def test_soft_passes_need_a_model_that_takes_all_vectors_at_once(transformer, batch):
    model, _ = transformer
    alone = dataclasses.replace(model, vectors=dataclasses.replace(model.vectors, sequence=None))
    message = "passes is 2 and feed 'soft'; this model cannot be fed all vectors at once"
    with pytest.raises(ValueError, match=message):
        make_forward_pass(alone, RolloutOptions(feed="soft", passes=2))
