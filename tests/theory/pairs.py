"""What training converges to, from its definition: a sum over all pairs of gold and fed tokens."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from s2s_jax.theory.information import kl_divergence
from s2s_jax.theory.recursion import TrainingOptimum

CHAIN = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
THREE_STATES = (0.5, 0.3, 0.2), ((0.6, 0.3, 0.1), (0.1, 0.2, 0.7), (0.25, 0.4, 0.35))
# Without ties, where an argmax would be a matter of rounding.
WITH_ZEROS = (0.6, 0.4, 0.0), ((0.0, 0.8, 0.2), (0.3, 0.0, 0.7), (0.55, 0.45, 0.0))
EMISSION = ((0.7, 0.2, 0.1), (0.1, 0.2, 0.7))
CHAINS = ((*CHAIN, None), (*THREE_STATES, None), (*WITH_ZEROS, None), (*CHAIN, EMISSION))

Target = Callable[[np.ndarray, tuple[int, ...], int], np.ndarray]
"""(all gold sequences [num_sequences, length], fed prefix, num_symbols) -> what the step after the
prefix is trained towards, [num_sequences, num_symbols]."""


def joint_probs(initial, transition, length, emission=None) -> np.ndarray:
    """P(y) of every sequence by the forward algorithm, [num_symbols] * length."""
    shown = np.eye(len(initial)) if emission is None else np.asarray(emission)
    joint = np.zeros((shown.shape[1],) * length)
    for y in np.ndindex(joint.shape):
        forward = np.asarray(initial, float)
        for symbol in y:
            forward = (forward * shown[:, symbol]) @ np.asarray(transition)
        joint[y] = forward.sum()
    return joint


def next_gold(ys: np.ndarray, z: tuple[int, ...], num_symbols: int) -> np.ndarray:
    """The target of scheduled sampling, whatever was fed."""
    return np.eye(num_symbols)[ys[:, len(z)]]


def mean_over_pairs(
    joint: np.ndarray, teacher_prob: Any, coin: str, feed: str, noise: Any, target: Target
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """q and the mass of every fed prefix; q is NaN where the mass is 0."""
    num_symbols, length = joint.shape[0], joint.ndim
    ys = np.array(list(np.ndindex(joint.shape)))
    replaced: dict[tuple[int, ...], np.ndarray] = {}  # by prefix: what may follow it, if not gold

    def weights(z: tuple[int, ...]) -> np.ndarray:
        """P(y is gold, z is fed) for every y."""
        owns = np.array([replaced[z[:place]][symbol] for place, symbol in enumerate(z)])
        same = ys[:, : len(z)] == np.array(z, int)
        if coin == "token":
            p = np.broadcast_to(teacher_prob, length - 1)[: len(z)]
            fed = (p * same + (1 - p) * owns).prod(-1)
        else:
            fed = teacher_prob * same.all(-1) + (1 - teacher_prob) * owns.prod()
        return joint.reshape(-1) * fed

    probs, masses = [], []
    for step in range(length):
        q = np.full((num_symbols,) * (step + 1), np.nan)
        mass = np.zeros((num_symbols,) * step)
        for z in product(range(num_symbols), repeat=step):
            of_pairs = weights(z)
            mass[z] = of_pairs.sum()
            replaced[z] = np.zeros(num_symbols)  # nothing follows what is never fed
            if mass[z]:
                q[z] = of_pairs @ target(ys, z, num_symbols) / mass[z]
                replaced[z] = q[z] if feed == "sample" else np.eye(num_symbols)[q[z].argmax()]
                replaced[z] = replaced[z] if noise is None else np.asarray(noise)
        probs.append(q)
        masses.append(mass)
    return probs, masses


def check_against_pairs(
    optimum: TrainingOptimum,
    joint: np.ndarray,
    teacher_prob: Any,
    coin: str,
    feed: str,
    noise: Any,
    target: Target,
) -> None:
    """Asserts that the optimum is `mean_over_pairs`, with the divergence of whole sequences."""
    probs, masses = mean_over_pairs(joint, teacher_prob, coin, feed, noise, target)
    whole, identified = np.ones(()), True
    for found, fed, expected, mass in zip(*optimum[:2], probs, masses, strict=True):
        np.testing.assert_allclose(fed, mass, atol=1e-12)
        assert np.array_equal(fed > 0, mass > 0)
        np.testing.assert_allclose(found[mass > 0], expected[mass > 0], atol=1e-12)
        np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-12)
        occurs = joint.sum(tuple(range(mass.ndim, joint.ndim))) > 0
        identified = identified and bool(np.all(mass[occurs] > 0))
        whole = whole[..., None] * found
    assert optimum.kl_is_identified == identified
    kl = float(kl_divergence(joint.reshape(-1), whole.reshape(-1)))
    assert optimum.kl == pytest.approx(kl, abs=1e-12)
