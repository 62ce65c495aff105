import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.models.transformer.dropout import draw_masks, drop, kept_share, sequence_keys

KEYS = sequence_keys(jax.random.key(0), 6)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 0.9, 0.9999])
def test_features_are_kept_with_the_share_that_the_rate_is_rounded_to(rate):
    masks = np.asarray(draw_masks(KEYS, jnp.arange(50), 401, rate))
    assert masks.shape == (6, 50, 401)
    share = kept_share(rate)
    assert 0 < share <= 1
    assert abs(share - (1 - rate)) <= 1 / 256
    noise = (share * (1 - share) / masks.size) ** 0.5
    assert abs(masks.mean() - share) <= 5 * noise
    kept = drop(jnp.ones(masks.shape), jnp.asarray(masks), rate)
    np.testing.assert_allclose(kept.mean(), 1.0, atol=5 * noise / share + 1e-6)


def test_masks_depend_on_the_sequence_and_the_position_alone():
    masks = np.asarray(draw_masks(KEYS, jnp.arange(7), 33, 0.5))
    np.testing.assert_array_equal(draw_masks(KEYS[2:4], jnp.array([5]), 33, 0.5), masks[2:4, 5:6])
    np.testing.assert_array_equal(draw_masks(KEYS, jnp.arange(3), 33, 0.5), masks[:, :3])
    assert bool(jnp.all(sequence_keys(jax.random.key(0), 4) == KEYS[:4]))
    assert len({mask.tobytes() for row in masks for mask in row}) == 6 * 7


def test_features_are_dropped_independently():
    masks = np.asarray(draw_masks(KEYS, jnp.arange(400), 24, 0.5)).reshape(-1, 24)
    correlation = np.corrcoef(masks.T.astype(float)) - np.eye(24)
    assert np.abs(correlation).max() < 5 / len(masks) ** 0.5


def test_nothing_is_dropped_without_a_mask():
    assert drop(jnp.ones(3), None, 0.5).tolist() == [1, 1, 1]
