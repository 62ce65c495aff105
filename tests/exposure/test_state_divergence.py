from typing import Any

import numpy as np
import pytest

from s2s_jax.exposure.intervals import Bootstrap
from s2s_jax.exposure.state_divergence import (
    median_distance,
    pair_kernel,
    state_divergence,
    swap_signs,
)

M = 40


def unbiased_mmd(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """Equation 4 of Gretton et al., literally."""

    def k(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * bandwidth**2))

    pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
    return float(
        np.mean([k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i, j in pairs])
    )


def states(seed: int, shift: float = 0.0, time: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that share a component, as if from a common source."""
    generator = np.random.default_rng(seed)
    source = generator.normal(size=(M, 1, 3))
    gold, own = (source + generator.normal(size=(M, time, 3)) for _ in range(2))
    return gold, own + shift


def test_signs_are_swaps_within_pairs():
    gold, own = (some[:12, 0] for some in states(0, 0.5))
    pairs = pair_kernel(gold, own, 1.5)
    assert pairs.sum() / (12 * 11) == pytest.approx(unbiased_mmd(gold, own, 1.5), abs=1e-12)
    for signs in swap_signs(5, 12, seed=3):
        swapped = signs[:, None] < 0
        x, y = np.where(swapped, own, gold), np.where(swapped, gold, own)
        found = signs @ pairs @ signs / (12 * 11)
        assert found == pytest.approx(unbiased_mmd(x, y, 1.5), abs=1e-12)
        assert found != pytest.approx(pairs.sum() / (12 * 11), abs=1e-4)


def test_states_of_one_distribution_have_no_divergence_and_uniform_p_values():
    values, p_values = [], []
    for seed in range(60):
        gold, own = states(seed)
        mask = np.ones((M, 1), bool)
        found = state_divergence(
            gold, own, mask, Bootstrap(M, 1), num_permutations=99, seed=seed, min_count=1
        )
        values.append(found["mmd_by_position"].value[0])
        p_values.append(found["p_value_by_position"].value[0])
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)
    assert np.min(values) < 0
    # Uniform: about 6 of 60 in each tenth; 15 below a quarter.
    assert 7 <= np.sum(np.array(p_values) <= 0.25) <= 24
    assert 7 <= np.sum(np.array(p_values) > 0.75) <= 24
    assert np.max(p_values) <= 1
    assert np.min(p_values) >= 1 / 100


def test_shifted_states_are_found_at_their_positions():
    gold, own = states(0, time=3)
    own[:, 0] = gold[:, 0]  # after only BOS
    own[:, 2] += 1.0
    mask = np.ones((M, 3), bool)
    mask[30:, 2] = False
    found = state_divergence(gold, own, mask, Bootstrap(M, 200), num_permutations=199)
    mmd, p_value = found["mmd_by_position"], found["p_value_by_position"]
    assert mmd.value[0] == pytest.approx(0, abs=1e-12)
    assert p_value.value[0] == 1
    assert p_value.value[1] > 0.05
    assert p_value.value[2] == 1 / 200
    assert mmd.low[2] > 0
    assert mmd.low[2] < mmd.value[2] < mmd.high[2]
    assert mmd.n.tolist() == p_value.n.tolist() == [40, 40, 30]
    bandwidth = median_distance(gold, mask)
    expected = unbiased_mmd(gold[:30, 2], own[:30, 2], bandwidth)
    assert mmd.value[2] == pytest.approx(expected, abs=1e-9)
    assert np.isnan(p_value.low).all()
    few = state_divergence(gold, own, mask, Bootstrap(M, 10), num_permutations=9, min_count=31)
    assert few["mmd_by_position"].left_out == (3,)


def test_a_sequence_drawn_twice_is_not_paired_with_itself():
    """For states of one distribution the values lie around 0; pairs of copies would raise them."""
    gold, own = states(5)
    bootstrap = Bootstrap(M, 300)
    found = state_divergence(gold, own, np.ones((M, 1), bool), bootstrap, num_permutations=9)
    mmd = found["mmd_by_position"]
    pairs = pair_kernel(gold[:, 0], own[:, 0], median_distance(gold, np.ones((M, 1), bool)))
    drawn = []
    for counts in bootstrap.counts:
        chosen = np.repeat(np.arange(M), counts)
        block = pairs[np.ix_(chosen, chosen)]
        drawn.append(block.sum() / (chosen[:, None] != chosen).sum())
    assert mmd.low[0] == pytest.approx(np.sort(drawn)[7])
    assert mmd.high[0] == pytest.approx(np.sort(drawn)[292])


def test_one_bandwidth_from_gold_states_only():
    gold, own = states(1, time=2)
    mask = np.ones((M, 2), bool)
    distances = [
        np.linalg.norm(gold[i, t] - gold[j, t])
        for t in range(2)
        for i in range(M)
        for j in range(i)
    ]
    assert median_distance(gold, mask) == pytest.approx(np.median(distances))
    assert median_distance(np.ones((5, 2, 3)), mask[:5]) == 1
    options: dict[str, Any] = {"num_permutations": 9}
    given = median_distance(gold, mask)
    default, same = (
        state_divergence(gold, own, mask, Bootstrap(M, 5), bandwidth=width, **options)
        for width in (None, given)
    )
    values = same["mmd_by_position"].value
    assert np.array_equal(default["mmd_by_position"].value, values)
    wide = state_divergence(gold, own, mask, Bootstrap(M, 5), bandwidth=9 * given, **options)
    assert not np.allclose(wide["mmd_by_position"].value, values)


def test_invalid_arguments_are_refused():
    gold, own = states(0)
    mask = np.ones((M, 1), bool)
    wrong: tuple[tuple[Any, dict[str, Any], str], ...] = (
        ((gold, own[:-1], mask), {}, r"have shapes \(\(40, 1, 3\), \(39, 1, 3\), \(40, 1\)\)"),
        ((gold, own, mask), {"num_permutations": 0}, "num_permutations is 0; it must be at least"),
        ((gold, own, mask), {"bandwidth": 0.0}, "bandwidth is 0.0; it must be above 0 and finite"),
    )
    for arguments, options, message in wrong:
        with pytest.raises(ValueError, match=message):
            state_divergence(*arguments, bootstrap=Bootstrap(M, 2), **options)
