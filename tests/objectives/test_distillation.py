from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, EOS
from s2s_jax.feeding import RolloutOptions
from s2s_jax.forward_pass import make_forward_pass
from s2s_jax.losses import StepInputs
from s2s_jax.objectives.distillation import (
    DIVERGENCES,
    Teacher,
    make_distillation_rule,
    make_model_teacher,
)

KEY = jax.random.key(2)
MARGIN = 2


def divergence(name: str, log_w: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    def kl(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (np.exp(one) * (one - other)).sum(-1)

    if name == "forward_kl":
        return kl(log_w, log_p)
    if name == "reverse_kl":
        return kl(log_p, log_w)
    log_m = np.log((np.exp(log_w) + np.exp(log_p)) / 2)
    return (kl(log_w, log_m) + kl(log_p, log_m)) / 2


@pytest.fixture(scope="module")
def students(make_elman, batch):
    """For each divergence what was fed, the loss and its gradient; and teacher and student."""
    student, teacher = make_elman(10), make_elman(10, seed=1)
    model = student.model
    target, mask = (np.pad(array, ((0, 0), (0, MARGIN))) for array in batch[2:])
    tutor = make_model_teacher(teacher.model, teacher.float32)

    def loss(params: Any, name: str) -> Any:
        memory = model.encode(params, batch.source, batch.source_mask, None)
        rule = make_distillation_rule(tutor, MARGIN, name)
        state = rule.begin(batch.source, batch.source_mask, jnp.asarray(mask), jnp.asarray(mask))
        forward = make_forward_pass(model, RolloutOptions(), rule=rule)
        given = params, memory, target, mask
        fed, losses = forward(*given, KEY, jnp.float32(0.4), state)
        return losses.loss.total / losses.loss.weight, (fed, losses)

    @jax.jit
    def run(params: Any) -> Any:
        return {name: jax.value_and_grad(loss, has_aux=True)(params, name) for name in DIVERGENCES}

    return student, teacher, jax.device_get(run(student.float32))


@pytest.mark.parametrize("name", DIVERGENCES)
def test_loss_and_gradient_are_those_of_the_divergence_at_fixed_fed_tokens(students, batch, name):
    """No gradient flows through what was fed, nor through the teacher."""
    student, teacher, results = students
    (found, (fed, losses)), gradient = results[name]
    of_teacher = teacher.log_probs(teacher.params, batch.source, fed.tokens)
    weight = np.zeros(fed.tokens.shape)
    for row, (tokens, mask) in enumerate(zip(fed.tokens, batch.target_mask, strict=True)):
        ends = np.flatnonzero(tokens == EOS)
        length = min([mask.sum() + MARGIN, *ends[:1]])
        weight[row, :length] = 1
    assert not np.array_equal(weight[:, : batch.target.shape[1]], batch.target_mask)

    def mean(params: Any) -> float:
        log_probs = student.log_probs(params, batch.source, fed.tokens)
        return (weight * divergence(name, of_teacher, log_probs)).sum() / weight.sum()

    assert float(losses.loss.weight) == weight.sum()
    assert float(found) == pytest.approx(mean(student.params), rel=1e-5)
    slopes = student.slopes(mean)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradient, slopes)
    log_probs = student.log_probs(student.params, batch.source, fed.tokens)
    nll = -(weight * (np.exp(of_teacher) * log_probs).sum(-1)).sum()
    assert float(losses.nll.total) == pytest.approx(nll, rel=1e-5)
    right = (log_probs.argmax(-1) == of_teacher.argmax(-1)) & (weight > 0)
    assert float(losses.accuracy.total) == right.sum()


def test_the_divergences_differ_and_are_0_at_the_teacher():
    generator = np.random.default_rng(0)
    log_w, logits = (jnp.asarray(generator.normal(size=(3, 6)), jnp.float32) for _ in range(2))
    teacher = Teacher(lambda *_: (), lambda state, token: (state, log_w), 6)
    kept = jax.nn.log_softmax(log_w), jnp.ones(3)

    @jax.jit
    def both(logits: jax.Array) -> Any:
        found = {}
        for name in DIVERGENCES:
            rule = make_distillation_rule(teacher, MARGIN, name)
            total = jax.value_and_grad(lambda some, rule=rule: rule.loss(some, kept).loss.sum())
            found[name] = total(logits), total(log_w + 3.0)
        return found

    results = jax.device_get(both(logits))
    assert len({round(float(apart[0]), 3) for apart, _ in results.values()}) == 3
    for apart, equal in results.values():
        assert apart[0] > 0.1
        assert abs(equal[0]) < 1e-5
        assert np.abs(equal[1]).max() < 1e-6


@pytest.mark.parametrize("name", DIVERGENCES)
def test_tokens_that_one_of_both_excludes_give_no_nan(name):
    log_w = jnp.log(jnp.array([[0.5, 0.5, 1e-9, 1e-9]]))
    logits = jnp.array([[200.0, -200.0, 0.0, -1e4]])
    rule = make_distillation_rule(Teacher(lambda *_: (), lambda *_: ((), log_w), 4), 0, name)
    loss, gradient = jax.value_and_grad(
        lambda some: rule.loss(some, (jax.nn.log_softmax(log_w), jnp.ones(1))).loss.sum()
    )(logits)
    assert np.isfinite(loss)
    assert loss > 0
    assert np.all(np.isfinite(gradient))


def test_a_models_teacher_is_the_model_without_dropout(make_elman, batch):
    elman = make_elman(10)
    dropped = []

    def encode(params: Any, source: Any, source_mask: Any, key: Any) -> Any:
        dropped.append(key is not None)
        return elman.model.encode(params, source, source_mask, key)

    watched = type(elman.model)(**{**vars(elman.model), "encode": encode})
    teacher = make_model_teacher(watched, elman.float32)
    tokens = np.array([[BOS, 4, 7]] * 4)
    state = teacher.begin(jnp.asarray(batch.source), jnp.asarray(batch.source_mask), 9)
    logits = jax.lax.scan(teacher.step, state, jnp.asarray(tokens.T))[1]
    expected = elman.log_probs(elman.params, batch.source, tokens).swapaxes(0, 1)
    np.testing.assert_allclose(jax.nn.log_softmax(logits), expected, atol=1e-5)
    assert dropped == [False]
    assert (teacher.vocab_size, teacher.is_truth) == (10, False)


def test_an_unknown_gold_id_is_noticed_although_the_teacher_does_not_need_it():
    teacher = Teacher(lambda *_: (), lambda state, token: (state, jnp.zeros((4, 6))), 6)
    rule, mask = make_distillation_rule(teacher, 0), jnp.array([1, 1, 1, 0], bool)
    state = rule.begin(mask, mask, mask[:, None], mask[:, None])
    gold = jnp.array([5, 6, -1, -100])
    _, (_, weight) = rule.step(state, StepInputs(jnp.full(4, BOS), gold, mask))
    assert weight[0] == 1
    assert np.isnan(weight[1:3]).all()
    assert weight[3] == 0


def test_an_unknown_divergence_is_refused():
    teacher = Teacher(lambda *_: (), lambda *_: ((), jnp.zeros(4)), 4)
    with pytest.raises(ValueError, match="divergence is 'js'; did you mean 'jsd'"):
        make_distillation_rule(teacher, 0, "js")
