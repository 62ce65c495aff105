import pytest

from s2s_jax.data.pairs import DataError, Pairs, merge_references


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1, 1\)"):
        Pairs(["a", "b"], ["x"], [("x",)])


def test_an_error_is_one_line():
    assert str(DataError("two\n  lines")) == "two lines"


def test_merged_references_are_distinct_and_in_order():
    pairs = merge_references(["a", "b", "a", "a"], ["x", "y", "w", "x"])
    assert pairs.sources == ["a", "b"]
    assert pairs.targets == ["x", "y"]
    assert pairs.references == [("x", "w"), ("y",)]
