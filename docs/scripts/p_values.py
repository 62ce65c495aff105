"""Simulates sweeps and prints the table of docs/comparing.md: how often p is 0.05 or less.

    python docs/scripts/p_values.py [--sweeps=2000]

Each case is a kind of noise; a sweep of it is [seeds, items] paired differences of two schedules.
Where the schedules do not differ, 5 % is what a p-value promises, and more is a fault. Beside the
p-value of `s2s compare` stand the ways of swapping labels that it does not use. The table takes
about three minutes on one core.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from s2s_jax.lab.comparison.significance import paired_difference

Draw = Callable[[np.random.Generator], np.ndarray]
"""A generator -> the [seeds, items] differences of one sweep."""

LEVEL = 0.05
_NUM_SWAPS = 199


@dataclass(frozen=True)
class Case:
    """A kind of noise.

    Attributes:
      about: what it is.
      num_seeds: pairs of runs.
      draw: makes a sweep.
      holds: whether the p-value keeps its promise; where it does not, the t-test over seeds does
        not either.
    """

    about: str
    num_seeds: int
    draw: Draw
    holds: bool = True


def normal(num_seeds: int, seeds: float, items: float, rest: float, num_items: int = 120) -> Draw:
    """Normal noise with these standard deviations by source."""
    return lambda generator: (
        seeds * generator.normal(size=(num_seeds, 1))
        + items * generator.normal(size=(1, num_items))
        + rest * generator.normal(size=(num_seeds, num_items))
    )


def skewed(num_seeds: int, rest: float, num_items: int = 120) -> Draw:
    """Seeds whose differences are exponential around their mean of 0."""
    return lambda generator: (
        generator.exponential(size=(num_seeds, 1))
        - 1
        + rest * generator.normal(size=(num_seeds, num_items))
    )


def two_outcomes(
    num_seeds: int, low: float, high: float, share: float, num_items: int = 120
) -> Draw:
    """Runs of both schedules that end low with probability share, all items of a run alike."""

    def draw(generator: np.random.Generator) -> np.ndarray:
        ours, theirs = np.where(generator.random((2, num_seeds, 1)) < share, low, high)
        return np.repeat(ours - theirs, num_items, axis=1)

    return draw


def right_and_wrong(
    num_seeds: int, seeds: float, items: float, better: float = 0.0, num_items: int = 120
) -> Draw:
    """Words that are right or wrong.

    A word is as hard for both schedules; each seed of each is a little better or worse at all words
    (seeds), a word is harder for one schedule than for the other (items), and one schedule may be
    better, all on the scale of log odds.
    """

    def draw(generator: np.random.Generator) -> np.ndarray:
        hard = generator.normal(0.5, 1.5, num_items)
        extra = better + items * generator.normal(size=num_items)
        ours, theirs = (
            generator.random((num_seeds, num_items))
            < 1 / (1 + np.exp(-hard - more - seeds * generator.normal(size=(num_seeds, 1))))
            for more in (extra, 0.0)
        )
        return ours.astype(float) - theirs

    return draw


def rare(num_seeds: int, share: float, num_items: int = 1000) -> Draw:
    """Words that nearly every run has right."""
    return lambda generator: np.subtract(
        *(generator.random((2, num_seeds, num_items)) < share).astype(float)
    )


NULL_CASES = (
    Case("normal seeds, items vary a tenth as much", 4, normal(4, 1, 0, 0.1)),
    Case("exact match 1, or 0 with probability .2", 5, two_outcomes(5, 0, 1, 0.2)),
    Case("exact match 1, or 0 with probability .2", 3, two_outcomes(3, 0, 1, 0.2)),
    Case("exact match 1, or 0 with probability .5", 2, two_outcomes(2, 0, 1, 0.5)),
    Case("accuracy .92 or .1 with probability .5", 5, two_outcomes(5, 0.1, 0.92, 0.5)),
    Case("nearly all right, 4 words of 1,000 wrong", 2, rare(2, 0.004)),
    Case("nearly all right, 4 words of 1,000 wrong", 5, rare(5, 0.004)),
    Case("words, noise of seeds", 3, right_and_wrong(3, 0.5, 0)),
    Case("words, most noise of items", 3, right_and_wrong(3, 0.1, 0.5)),
    Case("words, equal runs", 4, right_and_wrong(4, 0, 0)),
    Case("words, noise of seeds and items", 5, right_and_wrong(5, 0.5, 0.3)),
    Case("skewed seeds (exponential)", 5, skewed(5, 0.3), holds=False),
)
"""Schedules that do not differ."""

POWER_CASES = (
    Case("words, no noise of seeds", 3, right_and_wrong(3, 0, 0, 0.35)),
    Case("words, some noise of items", 4, right_and_wrong(4, 0, 0.3, 0.35)),
    Case("words, little noise of seeds", 5, right_and_wrong(5, 0.05, 0.3, 0.35)),
)
"""Schedules that do: 0.35 in log odds."""


def p_value(paired: np.ndarray) -> float:
    """That of `s2s compare`."""
    return paired_difference(paired, np.zeros_like(paired)).p_value


def p_of_seeds(paired: np.ndarray) -> float:
    """The paired t-test over the seeds' totals."""
    return p_value(paired.mean(1, keepdims=True))


def p_of_items_together(paired: np.ndarray, generator: np.random.Generator) -> float:
    """The usual approximate randomisation: an item's labels are swapped for all seeds at once."""
    sums = paired.sum(0)
    return _p_of_swaps(np.abs(_swapped_sums(sums, generator)), abs(float(sums.sum())))


def p_of_items_within_seeds(paired: np.ndarray, generator: np.random.Generator) -> float:
    """Each item's labels swapped by themselves in each seed, the mean divided by the seeds' spread.

    What items add to the spread and to its degrees of freedom is brought to the scale of the swaps.
    """
    from scipy.special import stdtrit

    drawn = np.stack([_swapped_sums(row, generator) for row in paired], axis=1)
    means = np.abs(drawn.mean(1))
    errors = drawn.std(1, ddof=1) / math.sqrt(len(paired))
    ratios = np.where(means > 0, means / np.maximum(errors, 1e-12), 0.0)
    return _p_of_swaps(ratios, -float(stdtrit(len(paired) - 1, p_value(paired) / 2)))


def _swapped_sums(row: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """[swaps] sums of the items with random signs."""
    row = row[row != 0]
    kept = generator.integers(0, 2, (_NUM_SWAPS, len(row)), dtype=np.int8)
    return 2.0 * (kept @ row) - row.sum()


def _p_of_swaps(drawn: np.ndarray, observed: float) -> float:
    return (1 + int((drawn >= observed * (1 - 1e-9)).sum())) / (1 + len(drawn))


def size(case: Case, test: Callable[[np.ndarray], float], num_sweeps: int, seed: int = 0) -> float:
    """The share of simulated sweeps in which a test's p-value is `LEVEL` or less.

    Args:
      case: what to simulate.
      test: [seeds, items] differences -> p-value.
      num_sweeps: how many.
      seed: of the sweeps, which are the same for every test.
    """
    generator = np.random.default_rng(seed)
    return sum(test(case.draw(generator)) <= LEVEL for _ in range(num_sweeps)) / num_sweeps


def table(cases: tuple[Case, ...], num_sweeps: int) -> str:
    """The cases by the tests, in percent, as Markdown."""
    swaps = np.random.default_rng(1)
    tests = {
        "`s2s compare`": p_value,
        "t-test of totals": p_of_seeds,
        "swapping items within seeds": lambda paired: p_of_items_within_seeds(paired, swaps),
        "swapping items, seeds together": lambda paired: p_of_items_together(paired, swaps),
    }
    lines = [f"| noise | n | {' | '.join(tests)} |", f"| :-- | --: |{' --: |' * len(tests)}"]
    for case in cases:
        cells = [f"{100 * size(case, test, num_sweeps):.1f}" for test in tests.values()]
        lines.append(f"| {case.about} | {case.num_seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sweeps", type=int, default=2000, help="of each case (default 2000)")
    num_sweeps = parser.parse_args().sweeps
    error = 100 * math.sqrt(LEVEL * (1 - LEVEL) / num_sweeps)
    print(f"No difference; 5 is right, give or take {2 * error:.1f}:\n")
    print(table(NULL_CASES, num_sweeps))
    print("\nA difference; the more the better, where the size above holds:\n")
    print(table(POWER_CASES, num_sweeps))


if __name__ == "__main__":
    main()
