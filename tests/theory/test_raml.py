from itertools import product
from typing import Any

import numpy as np
import pytest

from s2s_jax.theory.chains import Chains, make_chain
from s2s_jax.theory.information import kl_divergence
from s2s_jax.theory.optimum import next_token_tables, scheduled_sampling_optimum, sequence_probs
from s2s_jax.theory.raml import raml_divergences, raml_optimum, replacement_prob
from tests.theory.pairs import CHAIN, CHAINS, joint_probs


def corrupted_joint(joint: np.ndarray, tau: float) -> np.ndarray:
    """Q(y') as a sum over all pairs: each y passes its mass on by exp(-Hamming(y', y) / tau)."""
    corrupted = np.zeros(joint.shape)
    for y in np.ndindex(joint.shape):
        payoffs = np.zeros(joint.shape)
        for other in np.ndindex(joint.shape):
            differing = sum(a != b for a, b in zip(y, other, strict=True))
            payoffs[other] = np.exp(-differing / tau)
        corrupted += joint[y] * payoffs / payoffs.sum()
    return corrupted


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0, 3.0])
def test_the_optimum_is_the_corrupted_joint_distribution(chain: Any, tau: float):
    initial, transition, emission = chain
    joint = joint_probs(initial, transition, 4, emission)
    corrupted = corrupted_joint(joint, tau)
    optimum = raml_optimum(initial, transition, 4, tau, emission)
    np.testing.assert_allclose(sequence_probs(optimum.probs), corrupted, atol=1e-12)
    for step, (q, fed) in enumerate(zip(*optimum[:2], strict=True)):
        prefixes = corrupted.sum(tuple(range(step, 4)))
        np.testing.assert_allclose(fed, prefixes, atol=1e-12)
        following = corrupted.sum(tuple(range(step + 1, 4)))
        np.testing.assert_allclose(q, following / prefixes[..., None], atol=1e-11)
    expected = kl_divergence(joint.reshape(-1), corrupted.reshape(-1))
    assert optimum.kl == pytest.approx(float(expected), abs=1e-12)
    assert optimum.kl_is_identified


@pytest.mark.parametrize("chain", CHAINS)
def test_without_corruption_the_optimum_is_the_truth_and_with_the_most_it_is_uniform(chain: Any):
    initial, transition, emission = chain
    truth = next_token_tables(initial, transition, 4, emission=emission)
    for tau in (0.0, 1e-3):
        optimum = raml_optimum(initial, transition, 4, tau, emission)
        assert all(map(np.array_equal, optimum.probs, truth))
        assert optimum.kl == 0
        assert optimum.kl_is_identified
    assert raml_optimum(initial, transition, 4, 0.02, emission).kl < 1e-20
    blurred = raml_optimum(initial, transition, 4, float("inf"), emission)
    for q in blurred.probs:
        np.testing.assert_allclose(q, 1 / q.shape[-1], atol=1e-12)


@pytest.mark.parametrize("chain", CHAINS)
def test_it_is_noise_feeding_whose_targets_are_noisy_too(chain: Any):
    """Replacing by one of the others with p is a uniform draw with p V / (V - 1)."""
    initial, transition, emission = chain
    num_symbols = len(initial) if emission is None else len(emission[0])
    p, uniform = replacement_prob(num_symbols, 0.7), np.full(num_symbols, 1 / num_symbols)
    teacher_prob = 1 - p * num_symbols / (num_symbols - 1)
    noisy = scheduled_sampling_optimum(
        initial, transition, 4, teacher_prob, noise=uniform, emission=emission
    )
    raml = raml_optimum(initial, transition, 4, 0.7, emission)
    channel = teacher_prob * np.eye(num_symbols) + (1 - teacher_prob) * uniform
    for found, q, fed, expected in zip(*raml[:2], noisy.probs, noisy.fed_probs, strict=True):
        np.testing.assert_allclose(found, fed @ channel, atol=1e-12)
        np.testing.assert_allclose(q, expected, atol=1e-12)


def test_the_replacement_probability():
    for num_symbols, tau in product((2, 5), (0.3, 1.0)):
        ratio = np.exp(-1 / tau)
        p = replacement_prob(num_symbols, tau)
        assert p / (num_symbols - 1) / (1 - p) == pytest.approx(ratio, rel=1e-12)
    assert replacement_prob(3, 0.0) == 0
    assert replacement_prob(1, 2.0) == 0
    assert replacement_prob(4, float("inf")) == 0.75


def test_divergences_of_several_chains_at_once(monkeypatch):
    chains = [make_chain(*CHAIN, 4), make_chain((1.0, 0.0), ((0.3, 0.7), (0.6, 0.4)), 4)]
    together = Chains(*(np.concatenate(parts) for parts in zip(*chains, strict=True)))
    for limit in (2**20, 16):  # in one piece, and in two
        monkeypatch.setattr("s2s_jax.theory.recursion.MAX_SEQUENCES", limit)
        kl, identified = raml_divergences(together, 0.8)
        assert identified.tolist() == [True, True]
        for number, chain in enumerate(chains):
            one = raml_optimum(chain.initial[0], chain.transition[0, 0], 4, 0.8)
            assert kl[number] == pytest.approx(one.kl, abs=1e-12)
    monkeypatch.setattr("s2s_jax.theory.recursion.MAX_SEQUENCES", 8)
    with pytest.raises(ValueError, match="more than 8 sequences of length 4"):
        raml_divergences(together, 0.8)


def test_the_damage_grows_with_the_temperature_to_that_of_a_uniform_model():
    divergences = [raml_optimum(*CHAIN, 3, tau).kl for tau in (0, 0.2, 0.5, 1, 2, float("inf"))]
    assert np.all(np.diff(divergences) > 0)
    joint = joint_probs(*CHAIN, 3).reshape(-1)
    assert divergences[-1] == pytest.approx(float(kl_divergence(joint, np.full(8, 1 / 8))))
    assert divergences[2] == pytest.approx(0.124477, abs=1e-6)


@pytest.mark.parametrize("tau", [-0.1, float("nan")])
def test_invalid_temperatures_are_refused(tau: float):
    for refused in (
        lambda: raml_optimum(*CHAIN, 3, tau),
        lambda: raml_divergences(make_chain(*CHAIN, 3), tau),
        lambda: replacement_prob(2, tau),
    ):
        with pytest.raises(ValueError, match=f"^tau is {tau}; it must be at least 0$"):
            refused()
