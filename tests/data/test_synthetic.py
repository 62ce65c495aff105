from itertools import combinations

import pytest

from s2s_jax.data.pairs import DataError
from s2s_jax.data.synthetic import load_addition, load_copy, load_reverse

SIZES = {"num_train": 60, "num_dev": 20, "num_test": 20}


@pytest.mark.parametrize(
    ("load", "solve"), [(load_copy, lambda text: text), (load_reverse, lambda text: text[::-1])]
)
def test_strings(tmp_path, load, solve):
    options = SIZES | {"min_length": 2, "max_length": 4, "long_length": 7, "num_symbols": 4}
    splits = load(str(tmp_path), **options, seed=5)
    assert {name: len(pairs) for name, pairs in splits.items()} == {
        "train": 60,
        "dev": 20,
        "test": 20,
        "test_long": 20,
    }
    for name, pairs in splits.items():
        assert pairs.targets == [solve(source) for source in pairs.sources]
        assert pairs.references == [(target,) for target in pairs.targets]
        assert set("".join(pairs.sources)) == set("abcd")
        lengths = {len(source) for source in pairs.sources}
        assert lengths == ({5, 6, 7} if name == "test_long" else {2, 3, 4})
        assert len(set(pairs.sources)) == len(pairs)
    for one, other in combinations(splits.values(), 2):
        assert not set(one.sources) & set(other.sources)


def test_sums(tmp_path):
    splits = load_addition(str(tmp_path), **SIZES, num_digits=2, long_digits=4)
    numbers = {
        name: [tuple(map(int, source.split("+"))) for source in pairs.sources]
        for name, pairs in splits.items()
    }
    for name, pairs in splits.items():
        assert [int(target) for target in pairs.targets] == [sum(two) for two in numbers[name]]
        digits = {len(part) for source in pairs.sources for part in source.split("+")}
        assert digits == ({3, 4} if name == "test_long" else {1, 2})
    # a+b and b+a count as the same sum, which may occur once.
    sums = [frozenset(two) for some in numbers.values() for two in some]
    assert len(set(sums)) == len(sums)


def test_all_possible_sums_can_be_requested(tmp_path):
    sizes = {"num_train": 53, "num_dev": 1, "num_test": 1}
    splits = load_addition(str(tmp_path), **sizes, num_digits=1, long_digits=2)
    sources = [one for name in ("train", "dev", "test") for one in splits[name].sources]
    assert len({tuple(sorted(one.split("+"))) for one in sources}) == len(sources) == 55
    with pytest.raises(DataError, match="56 pairs requested, but there are only 55 different"):
        load_addition(str(tmp_path), **(sizes | {"num_train": 54}), num_digits=1, long_digits=2)


def test_the_seed_decides(tmp_path):
    first, again, other = (
        load_reverse(str(tmp_path / name), **SIZES, seed=seed)["train"].sources
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("load", "options", "message"),
    [
        (load_copy, {"num_symbols": 27}, "num_symbols is 27, not 1 to 26"),
        (load_copy, {"min_length": 0}, "min_length is 0 and max_length 10"),
        (load_reverse, {"min_length": 11}, "min_length is 11 and max_length 10"),
        (load_reverse, {"long_length": 10}, "long_length is 10, not above max_length 10"),
        (load_copy, {"num_dev": 0}, "num_dev is 0"),
        (load_copy, {"num_symbols": 1}, "only 8 different sources of length 3 to 10"),
        (load_addition, {"num_digits": 0}, "num_digits is 0, not 1 to 9"),
        (load_addition, {"long_digits": 3}, "long_digits is 3, not above num_digits"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, load, options, message):
    with pytest.raises(DataError, match=message):
        load(str(tmp_path / "tfds"), **options)
    assert not (tmp_path / "tfds").exists()
