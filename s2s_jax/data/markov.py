"""Generated tasks with a known distribution: a Markov chain and a hidden Markov chain.

Symbols are written as numbers separated by spaces, so both sides use the whitespace vocabulary.
Every target has the same length, and EOS always follows it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.data.chain import ChainTruth, make_hmm_truth, make_markov_truth
from s2s_jax.data.files import fingerprint
from s2s_jax.data.pairs import DataError, Pairs, one_reference
from s2s_jax.data.splits import PreparedSplits, load_or_prepare

VERSION = "1.0.0"

HIDDEN = "_"
"""What a source has in place of a hidden symbol; `symbol_numbers` turns it into -1."""

Probabilities = tuple[float, ...]


def load_markov(
    data_dir: str = "",
    *,
    initial: Probabilities = (0.7, 0.3),
    transition: tuple[Probabilities, ...] = ((0.9, 0.1), (0.2, 0.8)),
    length: int = 3,
    num_train: int = 20_000,
    num_dev: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> PreparedSplits:
    """Markov chains with a source that is always the same: "_" -> "0 0 1".

    The source reveals nothing about the target, so this is where scheduled sampling does the most
    damage; `s2s_jax.theory.optimum.scheduled_sampling_optimum` computes how much.

    Args:
      data_dir: TFDS's folder; "" means its default.
      initial: probabilities of the first symbol.
      transition: row a has the probabilities of the symbol after a.
      length: symbols in a target.
      num_train: training pairs.
      num_dev: dev pairs.
      num_test: test pairs.
      seed: of the generation.

    Raises:
      DataError: an option is out of range.
    """
    truth = _truth_of_options(initial, transition, None, length)
    sizes = {"train": num_train, "dev": num_dev, "test": num_test}

    def make_splits() -> dict[str, Pairs]:
        return {
            split: one_reference([HIDDEN] * size, symbol_texts(truth.sample(size, generator)))
            for split, size, generator in _streams(sizes, seed)
        }

    return _load("markov", truth, 1.0, sizes, seed, make_splits, data_dir)


def load_hmm(
    data_dir: str = "",
    *,
    initial: Probabilities = (0.5, 0.5),
    transition: tuple[Probabilities, ...] = ((0.9, 0.1), (0.1, 0.9)),
    emission: tuple[Probabilities, ...] = ((0.8, 0.15, 0.05), (0.05, 0.15, 0.8)),
    dependence: float = 1.0,
    length: int = 6,
    num_train: int = 20_000,
    num_dev: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> PreparedSplits:
    """Hidden Markov chains; the source reveals some of their symbols: "0 _ 2" -> "0 1 2".

        source_t = y_t with probability 1 - dependence, else "_"   (independently for each t)

    At dependence 0 the target is the source, and scheduled sampling is harmless; at 1 the source
    reveals nothing, and the symbols depend on each other as much as the chain makes them.

    Args:
      data_dir: TFDS's folder; "" means its default.
      initial: probabilities of the first state.
      transition: row s has the probabilities of the state after s.
      emission: row s has the probabilities of the symbols that state s emits.
      dependence: share of the target's symbols that the source hides, in [0, 1].
      length: symbols in a target, and in a source.
      num_train: training pairs.
      num_dev: dev pairs.
      num_test: test pairs.
      seed: of the generation.

    Raises:
      DataError: an option is out of range.
    """
    truth = _truth_of_options(initial, transition, emission, length)
    if not 0 <= dependence <= 1:
        raise DataError(f"dependence is {dependence}, not in [0, 1]")
    sizes = {"train": num_train, "dev": num_dev, "test": num_test}

    def make_splits() -> dict[str, Pairs]:
        splits = {}
        for split, size, generator in _streams(sizes, seed):
            targets = truth.sample(size, generator)
            hidden = generator.random(targets.shape) < dependence
            sources = symbol_texts(np.where(hidden, -1, targets))
            splits[split] = one_reference(sources, symbol_texts(targets))
        return splits

    return _load("hmm", truth, dependence, sizes, seed, make_splits, data_dir)


def known_truth(name: str, options: Mapping[str, Any]) -> ChainTruth | None:
    """The distribution that a dataset's targets are drawn from.

    Args:
      name: one of `s2s_jax.data.catalog.LOADERS`.
      options: of the dataset; others are ignored.

    Returns:
      The distribution; None for a dataset whose true distribution is unknown.

    Raises:
      DataError: an option is out of range.
    """
    if name not in ("markov", "hmm"):
        return None
    emission = options["emission"] if name == "hmm" else None
    return _truth_of_options(options["initial"], options["transition"], emission, options["length"])


def symbol_texts(numbers: ArrayLike) -> list[str]:
    """Writes symbol numbers as texts; -1 is a hidden symbol.

    Args:
      numbers: [num_texts, length].

    Example:
      >>> symbol_texts([[0, -1, 12]])
      ['0 _ 12']
    """
    rows = np.asarray(numbers).tolist()
    return [" ".join(HIDDEN if one < 0 else str(one) for one in row) for row in rows]


def symbol_numbers(texts: Sequence[str]) -> np.ndarray:
    """Reads symbol numbers from texts of one length: the inverse of `symbol_texts`.

    Returns:
      [num_texts, length] int32.

    Raises:
      ValueError: a text contains something that is not a symbol, or texts differ in length.

    Example:
      >>> symbol_numbers(["0 _ 12"]).tolist()
      [[0, -1, 12]]
    """
    rows = [[-1 if one == HIDDEN else int(one) for one in text.split()] for text in texts]
    return np.array(rows, np.int32)


def _truth_of_options(
    initial: Probabilities,
    transition: tuple[Probabilities, ...],
    emission: tuple[Probabilities, ...] | None,
    length: int,
) -> ChainTruth:
    try:
        if emission is None:
            return make_markov_truth(initial, transition, length)
        return make_hmm_truth(initial, transition, emission, length)
    except ValueError as error:
        raise DataError(str(error)) from error


def _streams(sizes: dict[str, int], seed: int) -> list[tuple[str, int, np.random.Generator]]:
    """A generator for each split, so that the size of one split does not change the others."""
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    return [
        (split, size, np.random.default_rng(one))
        for (split, size), one in zip(sizes.items(), seeds, strict=True)
    ]


def _load(
    name: str,
    truth: ChainTruth,
    dependence: float,
    sizes: dict[str, int],
    seed: int,
    make_splits: Callable[[], dict[str, Pairs]],
    data_dir: str,
) -> PreparedSplits:
    for split, size in sizes.items():
        if size < 1:
            raise DataError(f"num_{split} is {size}: every split needs at least one pair")
    if seed < 0:
        raise DataError(f"seed is {seed}, not 0 or more")
    numbers = "-".join(map(str, (*sizes.values(), seed)))
    tables = (one.tolist() for one in (truth.initial, truth.transition, truth.emission))
    config = f"{fingerprint(*tables, float(dependence), truth.length)}-{numbers}"
    return load_or_prepare(name, config, VERSION, make_splits, data_dir)
