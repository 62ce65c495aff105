from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, EOS, PAD
from s2s_jax.feeding import RolloutOptions
from s2s_jax.forward_pass import make_forward_pass
from s2s_jax.losses import StepInputs
from s2s_jax.objectives.completion import make_completion_rule
from tests.levenshtein import levenshtein

KEY = jax.random.key(2)
LETTERS = (4, 5, 6)


def optimal(prefix: tuple[int, ...], target: tuple[int, ...], vocab_size: int) -> np.ndarray:
    """Uniform over the next tokens after the beginnings of the target that are nearest."""
    costs = [levenshtein(prefix, target[:end]) for end in range(len(target) + 1)]
    best = {(*target, EOS)[end] for end, cost in enumerate(costs) if cost == min(costs)}
    return np.isin(np.arange(vocab_size), list(best)) / len(best)


def pad(rows: list[tuple[int, ...]], time: int) -> np.ndarray:
    return np.array([[*row, EOS, *[PAD] * time][:time] for row in rows], np.int32)


def follow(target: np.ndarray, mask: np.ndarray, tokens: np.ndarray, margin: int) -> Any:
    """The rule's distributions and weights after each fed token, [batch, time, ...]."""
    rule = make_completion_rule(8, margin)

    @jax.jit
    def run(target: jax.Array, mask: jax.Array, tokens: jax.Array) -> Any:
        gold = jnp.zeros_like(tokens)  # the rule knows the target from its state
        inputs = StepInputs(tokens.T, gold.T, gold.T > 0)
        return jax.lax.scan(rule.step, rule.begin(target, mask, target, mask), inputs)[1]

    wanted, weight = run(target, mask, tokens)
    return np.asarray(wanted).swapaxes(0, 1), np.asarray(weight).T


def test_after_any_prefix_the_best_next_tokens_are_wanted_alike():
    targets = [(), (4,), (5, 5), (4, 5, 4), (6, 5, 4)]
    pairs = list(product(targets, product(LETTERS, repeat=4)))
    target = pad([one for one, _ in pairs], 6)
    tokens = np.array([(BOS, *said) for _, said in pairs], np.int32)
    wanted, weight = follow(target, target != PAD, tokens, margin=1)
    sizes = set()
    for row, (goal, said) in enumerate(pairs):
        for step in range(5):
            expected = optimal(said[:step], goal, 8)
            np.testing.assert_allclose(wanted[row, step], expected, atol=1e-7)
            sizes.add((expected > 0).sum())
        # The gold tokens and one more count: said never ends.
        assert weight[row].tolist() == [step < len(goal) + 2 for step in range(5)]
    assert sizes >= {1, 2, 3}


def test_a_hypothesis_ends_with_its_own_end_symbol():
    target, tokens = pad([(4, 5, 6)] * 2, 7), np.array([[BOS, 4, EOS, 4, 4], [BOS, 5, 5, 5, EOS]])
    _, weight = follow(target, target != PAD, tokens, margin=3)
    assert weight.tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]


def test_a_filler_row_wants_nothing_and_an_unknown_id_makes_its_row_nan():
    target = pad([(4, 5), (4, 99), (4, -1), (4, 5)], 4)
    mask = target != PAD
    mask[3] = False
    target[0, 3] = -100  # padding may be anything
    wanted, weight = follow(target, mask, np.array([[BOS, 4, 5]] * 4), margin=0)
    assert np.all(np.isfinite(wanted[0]))
    assert np.isnan(wanted[1:3]).any(-1).all()
    assert not weight[3].any()


def completion_loss(elman: Any, params: Any, batch: Any, tokens: np.ndarray, margin: int) -> float:
    """In float64, at fixed fed tokens: what is wanted and for how long, in plain Python."""
    log_probs, loss, weight = elman.log_probs(params, batch.source, tokens), 0.0, 0
    for row, (goal, mask) in enumerate(zip(batch.target, batch.target_mask, strict=True)):
        goal = tuple(goal[mask].tolist())[:-1]
        for step in range(len(goal) + 1 + margin):
            said = tuple(tokens[row, 1 : step + 1].tolist())
            if EOS in said:
                break
            loss -= (optimal(said, goal, elman.model.vocab_size) * log_probs[row, step]).sum()
            weight += 1
    return loss / weight


def test_loss_and_gradient_are_those_of_the_formula_at_fixed_fed_tokens(make_elman, batch):
    """No gradient flows through what was fed into what is wanted."""
    elman, margin = make_elman(10), 2
    model = elman.model
    target, mask = (np.pad(array, ((0, 0), (0, margin))) for array in batch[2:])
    rule = make_completion_rule(10, margin)
    forward = make_forward_pass(model, RolloutOptions(), rule=rule)

    def loss(params: Any, teacher_prob: Any) -> Any:
        memory = model.encode(params, batch.source, batch.source_mask, None)
        gold = jnp.asarray(target), jnp.asarray(mask)
        state = rule.begin(*gold, *gold)
        fed, losses = forward(params, memory, target, mask, KEY, teacher_prob, state)
        return losses.loss.total / losses.loss.weight, (fed, losses)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    for teacher_prob in (0.0, 0.5):
        (found, (fed, losses)), gradient = run(elman.float32, jnp.float32(teacher_prob))
        tokens = np.asarray(fed.tokens)
        assert float(losses.loss.weight) != batch.target_mask.sum()
        expected = completion_loss(elman, elman.params, batch, tokens, margin)
        assert float(found) == pytest.approx(expected, rel=1e-5)
        assert float(losses.nll.total) == pytest.approx(float(losses.loss.total), rel=1e-6)
        slopes = elman.slopes(
            lambda params, tokens=tokens: completion_loss(elman, params, batch, tokens, margin)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), gradient, slopes)
