import itertools

import jax
import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from s2s_jax.batch import EOS
from s2s_jax.exposure.edit_oracle import edit_oracle_regret, optimal_next, oracle_cost
from s2s_jax.exposure.intervals import Bootstrap

TOKENS = (4, 5, 6)
TARGETS = [(), (4,), (4, 5), (5, 5), (4, 5, 4), (4, 4, 5), (6, 5, 4)]
COMPLETIONS = [some for size in range(4) for some in itertools.product(TOKENS, repeat=size)]


def best_next(prefix: tuple[int, ...], target: tuple[int, ...]) -> set[int]:
    """The next tokens that lead to the least final distance, by trying all completions."""
    costs = {EOS: Levenshtein.distance(prefix, target)}
    for token in TOKENS:
        costs[token] = min(
            Levenshtein.distance((*prefix, token, *more), target) for more in COMPLETIONS
        )
    return {token for token, cost in costs.items() if cost == min(costs.values())}


def test_optimal_tokens_equal_those_found_by_trying_all_completions():
    prefixes = np.array([(*some, 4) for some in itertools.product(TOKENS, repeat=3)])
    ids = np.zeros((len(TARGETS), 5), np.int32)  # a column more than the longest needs
    for row, target in zip(ids, TARGETS, strict=True):
        row[: len(target) + 1] = *target, EOS
    mask = ids > 0
    pairs = jax.vmap(jax.vmap(optimal_next, (None, None, 0)), (0, 0, None))
    found = np.asarray(jax.jit(pairs)(ids[:, None], mask[:, None], prefixes[:, None]))
    sizes = set()
    for (i, target), (j, prefix) in itertools.product(enumerate(TARGETS), enumerate(prefixes)):
        for step in range(4):
            chosen = set(ids[i][found[i, j, 0, step]].tolist())
            assert chosen == best_next(tuple(prefix[:step].tolist()), target)
            sizes.add(len(chosen))
    assert sizes == {1, 2, 3, 4}


def test_padding_is_never_an_optimal_token_even_if_the_model_outputs_it():
    target = np.array([[4, EOS, 0, 0]])
    found = np.asarray(jax.jit(optimal_next)(target, target > 0, np.array([[4, 5, 0, 0]])))
    assert target[0][found[0, 3]].tolist() == [EOS]
    assert best_next((4, 5, 0), (4,)) == {EOS}


def test_after_gold_prefixes_the_cost_is_the_negative_log_likelihood(batch):
    generator = np.random.default_rng(0)
    shape = (*batch.target.shape, 10)
    log_probs = -generator.exponential(size=shape).astype(np.float32)
    cost = jax.jit(oracle_cost)(log_probs, batch.target, batch.target_mask, batch.target)
    nll = -np.take_along_axis(log_probs, batch.target[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(cost[batch.target_mask], nll[batch.target_mask], rtol=1e-6)


def test_the_probabilities_of_several_optimal_tokens_add_up_and_each_counts_once():
    target = np.array([[4, 4, 5, EOS]])
    probs = np.array([0.05, 0.05, 0.1, 0.05, 0.4, 0.3, 0.05])
    prefix = np.array([[6, 5, 0, 0]])
    log_probs = np.log(np.broadcast_to(probs, (1, 4, 7)))
    cost = jax.jit(oracle_cost)(log_probs, target, target > 0, prefix)[0]
    # After 6 both 4s of the target are optimal, and they are the same token.
    assert best_next((6,), (4, 4, 5)) == {4}
    assert best_next((6, 5), (4, 4, 5)) == {4, 5, EOS}
    expected = [-np.log(0.4), -np.log(0.4), -np.log(0.4 + 0.3 + 0.1)]
    assert cost[:3].tolist() == pytest.approx(expected, rel=1e-5)


def test_regret_and_its_accumulation_counted_by_hand():
    gold = np.array([[1, 2, 9], [2, 1, 3]], np.float32)
    mask = np.array([[1, 1, 0], [1, 1, 1]], bool)
    own = np.array([[1, 4, 4, 2], [2, 5, 9, 9]], np.float32)
    own_mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    found = edit_oracle_regret(gold, mask, own, own_mask, Bootstrap(2, 50), min_count=1)
    assert found["gold_cost"].value == pytest.approx(9 / 5)
    assert found["own_cost"].value == pytest.approx(18 / 6)
    assert found["regret"].value == pytest.approx(18 / 6 - 9 / 5)
    accumulated, excess = found["accumulated_by_length"], found["excess_percent_by_length"]
    # R_l is 3/2, 12/2, 16/2 and l eps_l 3/2, 6/2, 9/2: the first one's EOS is its second token.
    assert accumulated.value == pytest.approx([1, 2 * 2, 3 * 16 / 9])
    assert excess.value == pytest.approx([0, 100, 100 * 7 / 9])
    assert excess.n.tolist() == [2, 2, 1]
    assert (excess.axis, excess.unit) == ("length", "percent")
    few = edit_oracle_regret(gold, mask, own[:, :2], own_mask[:, :2], Bootstrap(2, 50), min_count=2)
    assert few["accumulated_by_length"].value == pytest.approx([1, 4])
    assert few["accumulated_by_length"].left_out == (3,)
