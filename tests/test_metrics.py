import math

import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.metrics import Mean, compute, masked_mean, merge


def test_sums_of_unequal_batches_merge_to_the_mean_of_all_the_data():
    values = np.random.default_rng(0).normal(size=60).astype(np.float32)
    parts = np.split(values, [1, 4, 25])
    sums = [{"loss": masked_mean(jnp.asarray(part), jnp.ones(part.shape, bool))} for part in parts]
    assert compute(merge(*sums))["loss"] == pytest.approx(values.mean(), abs=1e-6)
    assert values.mean() != pytest.approx(np.mean([part.mean() for part in parts]), abs=1e-2)


def test_merging_is_associative_and_commutative():
    a, b, c = ({"x": Mean(float(i), float(i + 1)), "y": Mean(i * 2.0, 1.0)} for i in range(3))
    assert merge(merge(a, b), c) == merge(a, merge(b, c)) == merge(c, a, b)
    assert merge(a) == a


def test_merging_different_names_is_refused():
    with pytest.raises(ValueError, match="loss"):
        merge({"loss": Mean(1.0, 1.0)}, {"nll": Mean(1.0, 1.0)})


def test_a_mean_of_nothing_is_nan():
    nothing = masked_mean(jnp.ones(3), jnp.zeros(3, bool))
    assert float(nothing.total) == 0
    assert math.isnan(compute({"loss": nothing})["loss"])
    assert compute(merge({"loss": nothing}, {"loss": Mean(6.0, 2.0)})) == {"loss": 3.0}


@pytest.mark.parametrize("outside", [1e30, np.inf, np.nan])
def test_values_outside_the_mask_are_ignored(outside):
    mean = masked_mean(jnp.array([[1.0, outside], [outside, 2.0]]), jnp.eye(2, dtype=bool))
    assert (float(mean.total), float(mean.weight)) == (3.0, 2.0)


def test_half_precision_and_bool_values_are_summed_in_float32():
    ones = jnp.ones(1000, jnp.bfloat16)  # bfloat16 can only count to 256
    for values in (ones, ones.astype(bool)):
        mean = masked_mean(values, jnp.ones(1000, bool))
        assert (float(mean.total), float(mean.weight)) == (1000.0, 1000.0)
        assert jnp.result_type(mean.total) == jnp.result_type(mean.weight) == jnp.float32
