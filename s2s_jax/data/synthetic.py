"""Generated tasks with known solutions: copy, reverse and addition.

Train, dev and test share no source. All sources of `test_long` are longer than any in training, so
the model has to generalise to them.
"""

from collections.abc import Callable

import numpy as np

from s2s_jax.data.pairs import DataError, Pairs, one_reference
from s2s_jax.data.splits import PreparedSplits, load_or_prepare

VERSION = "1.0.0"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def load_copy(
    data_dir: str = "",
    *,
    num_train: int = 20_000,
    num_dev: int = 1_000,
    num_test: int = 1_000,
    min_length: int = 3,
    max_length: int = 10,
    long_length: int = 20,
    num_symbols: int = 10,
    seed: int = 0,
) -> PreparedSplits:
    """Strings of letters paired with themselves: "bca" -> "bca"; for the characters vocabulary.

    Args:
      data_dir: TFDS's folder; "" means its default.
      num_train: training pairs.
      num_dev: dev pairs.
      num_test: pairs of test, and of test_long.
      min_length: letters of the shortest source.
      max_length: letters of the longest source of train, dev and test.
      long_length: letters of the longest source of test_long; its shortest has max_length + 1.
      num_symbols: number of different letters, 1 to 26.
      seed: of the generation.

    Raises:
      DataError: an option is out of range, or there are fewer different sources than pairs.
    """
    sizes, lengths = (num_train, num_dev, num_test), (min_length, max_length, long_length)
    return _load_strings("copy", sizes, lengths, num_symbols, seed, data_dir)


def load_reverse(
    data_dir: str = "",
    *,
    num_train: int = 20_000,
    num_dev: int = 1_000,
    num_test: int = 1_000,
    min_length: int = 3,
    max_length: int = 10,
    long_length: int = 20,
    num_symbols: int = 10,
    seed: int = 0,
) -> PreparedSplits:
    """Strings of letters paired with their reverse: "bca" -> "acb". Options as for `load_copy`."""
    sizes, lengths = (num_train, num_dev, num_test), (min_length, max_length, long_length)
    return _load_strings("reverse", sizes, lengths, num_symbols, seed, data_dir)


def load_addition(
    data_dir: str = "",
    *,
    num_train: int = 50_000,
    num_dev: int = 1_000,
    num_test: int = 1_000,
    num_digits: int = 3,
    long_digits: int = 4,
    seed: int = 0,
) -> PreparedSplits:
    """Sums: "12+345" -> "357"; for the characters vocabulary.

    Numbers have 1 to num_digits digits, each number of digits being equally likely. a+b and b+a
    count as the same sum: no two pairs, in the same split or in different ones, have the same two
    numbers.

    Args:
      data_dir: TFDS's folder; "" means its default.
      num_train: training pairs.
      num_dev: dev pairs.
      num_test: pairs of test, and of test_long.
      num_digits: maximum number of digits in train, dev and test.
      long_digits: maximum number of digits in test_long; all its numbers have more than num_digits.
      seed: of the generation.

    Raises:
      DataError: an option is out of range, or there are fewer different sums than pairs.
    """
    _check_sizes(num_train, num_dev, num_test)
    _check(1 <= num_digits <= 9, f"num_digits is {num_digits}, not 1 to 9")
    _check(num_digits < long_digits <= 18, f"long_digits is {long_digits}, not above num_digits")
    options = (num_train, num_dev, num_test, num_digits, long_digits, seed)

    def sums(generator: np.random.Generator, count: int, low: int, high: int) -> list[str]:
        digits = generator.integers(low, high + 1, size=(count, 2))
        numbers = generator.integers(np.where(digits == 1, 0, 10 ** (digits - 1)), 10**digits)
        return [f"{a}+{b}" for a, b in numbers.tolist()]

    def space(low: int, high: int) -> int:
        numbers = 10**high - (10 ** (low - 1) if low > 1 else 0)
        return numbers * (numbers + 1) // 2

    def make_splits() -> dict[str, Pairs]:
        return _make_splits(
            (num_train, num_dev, num_test),
            (1, num_digits, long_digits),
            seed,
            draw=sums,
            space=space,
            identity=lambda source: "+".join(sorted(source.split("+"))),
            solve=lambda source: str(sum(map(int, source.split("+")))),
        )

    return _load("addition", options, make_splits, data_dir)


def _load_strings(
    name: str,
    sizes: tuple[int, int, int],
    lengths: tuple[int, int, int],
    num_symbols: int,
    seed: int,
    data_dir: str,
) -> PreparedSplits:
    low, high, long = lengths
    _check_sizes(*sizes)
    _check(1 <= num_symbols <= len(_ALPHABET), f"num_symbols is {num_symbols}, not 1 to 26")
    _check(1 <= low <= high, f"min_length is {low} and max_length {high}")
    _check(long > high, f"long_length is {long}, not above max_length {high}")

    def strings(generator: np.random.Generator, count: int, low: int, high: int) -> list[str]:
        letters = np.array(list(_ALPHABET[:num_symbols]))
        rows = letters[generator.integers(num_symbols, size=(count, high))]
        ends = generator.integers(low, high + 1, size=count)
        return ["".join(row[:end]) for row, end in zip(rows, ends, strict=True)]

    def make_splits() -> dict[str, Pairs]:
        return _make_splits(
            sizes,
            lengths,
            seed,
            draw=strings,
            space=lambda low, high: sum(num_symbols**n for n in range(low, high + 1)),
            identity=lambda source: source,
            solve=(lambda source: source) if name == "copy" else (lambda source: source[::-1]),
        )

    return _load(name, (*sizes, *lengths, num_symbols, seed), make_splits, data_dir)


def _make_splits(
    sizes: tuple[int, int, int],
    lengths: tuple[int, int, int],
    seed: int,
    *,
    draw: Callable[[np.random.Generator, int, int, int], list[str]],
    space: Callable[[int, int], int],
    identity: Callable[[str], str],
    solve: Callable[[str], str],
) -> dict[str, Pairs]:
    """Splits without common sources.

    Args:
      sizes: pairs of train, dev and test.
      lengths: shortest, longest, and longest of test_long.
      seed: of the generation.
      draw: (generator, count, shortest, longest) -> that many random sources.
      space: (shortest, longest) -> how many different sources there are.
      identity: source -> a text that is the same for all sources that count as one.
      solve: source -> target.
    """
    generator = np.random.default_rng(seed)

    def distinct(count: int, low: int, high: int) -> list[str]:
        available = space(low, high)
        _check(
            count <= available,
            f"{count} pairs requested, but there are only {available} different sources of "
            f"length {low} to {high}: lower num_train, num_dev or num_test, or allow longer ones",
        )
        found: dict[str, str] = {}
        while len(found) < count:
            for source in draw(generator, count, low, high):
                found.setdefault(identity(source), source)
        # All short sources are soon found, so they come first: shuffle, to make the splits alike.
        sources = list(found.values())[:count]
        return [sources[place] for place in generator.permutation(count)]

    low, high, long = lengths
    num_train, num_dev, num_test = sizes
    sources = distinct(sum(sizes), low, high)
    parts = {
        "train": sources[:num_train],
        "dev": sources[num_train : num_train + num_dev],
        "test": sources[num_train + num_dev :],
        "test_long": distinct(num_test, high + 1, long),
    }
    return {
        split: one_reference(some, [solve(source) for source in some])
        for split, some in parts.items()
    }


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise DataError(message)


def _check_sizes(num_train: int, num_dev: int, num_test: int) -> None:
    for name, size in (("num_train", num_train), ("num_dev", num_dev), ("num_test", num_test)):
        _check(size > 0, f"{name} is {size}: every split needs at least one pair")


def _load(
    name: str,
    options: tuple[int, ...],
    make_splits: Callable[[], dict[str, Pairs]],
    data_dir: str,
) -> PreparedSplits:
    config = "-".join(map(str, options))
    return load_or_prepare(name, config, VERSION, make_splits, data_dir)
