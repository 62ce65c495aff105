import numpy as np
import pytest

from s2s_jax.exposure import jensen_shannon, total_variation


def test_distances():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert total_variation(p, q) == pytest.approx(0.5)
    middle = (p + q) / 2
    expected = (p[:2] * np.log(p[:2] / middle[:2])).sum() + (q * np.log(q / middle)).sum()
    assert jensen_shannon(p, q) == pytest.approx(expected / 2)
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))
    assert jensen_shannon(p, p) == 0
