from typing import Any

import numpy as np
import pytest

from s2s_jax.exposure.intervals import Bootstrap
from s2s_jax.exposure.measure import Measure, curve


def test_a_curve_keeps_the_points_with_enough_sequences():
    values = np.array([[1, 2, 3, 4], [3, 4, 5, 6]])
    found = curve(
        Bootstrap(2, 20),
        lambda mean: mean,
        values,
        n=[2, 1, 2, 0],
        axis="distance",
        unit="nats",
        min_count=2,
    )
    assert found.at is not None
    assert found.at.tolist() == [1, 3]
    assert found.value.tolist() == [2, 4]
    assert found.n.tolist() == [2, 2]
    assert found.left_out == (2,)  # nothing was at 4 in the first place
    assert (found.axis, found.unit) == ("distance", "nats")
    assert np.all((found.low <= found.value) & (found.value <= found.high))


ONE, TWO = np.zeros(()), np.zeros(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": "time"}, "axis is 'time'; it must be one of position"),
        ({"at": None}, "a curve has an axis and places on it"),
        ({"axis": ""}, "a curve has an axis and places on it"),
        ({"n": np.zeros(3)}, "must have one shape"),
        ({"value": ONE}, "must have one shape"),
    ],
)
def test_fields_that_do_not_fit_are_refused(change, message):
    fields: dict[str, Any] = dict.fromkeys(("value", "low", "high", "n", "at"), TWO)
    fields |= {"axis": "length", "unit": "nats"}
    Measure(**fields)
    with pytest.raises(ValueError, match=message):
        Measure(**(fields | change))
    with pytest.raises(ValueError, match="must have one shape"):
        Measure(TWO, TWO, TWO, TWO, axis="", at=None, unit="nats")
