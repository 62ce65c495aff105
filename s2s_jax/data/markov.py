"""Generated tasks whose whole distribution is known: a Markov chain, and a hidden one.

Symbols are written as their numbers, separated by spaces, so both sides take the whitespace
vocabulary. Every target has the same length; EOS follows it with certainty.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.data.pairs import DataError, Pairs, one_reference
from s2s_jax.theory import check_chain, observe

VERSION = "1.0.0"

HIDDEN = "_"
"""What a source shows where it tells nothing; `symbol_numbers` makes it -1."""

Row = tuple[float, ...]


@dataclass(frozen=True)
class ChainTruth:
    """The distribution that the targets of a task are drawn from.

        P(s_1) = initial,   P(s_{t+1} | s_t) = transition,   P(y_t | s_t) = emission

    A source may tell some of y_1 ... y_length; the distribution is then conditional on it.

    Attributes:
      initial: [num_states] float64.
      transition: [num_states, num_states] float64.
      emission: [num_states, num_symbols] float64; the identity for a Markov chain.
      length: symbols of a target, without EOS.
    """

    initial: np.ndarray
    transition: np.ndarray
    emission: np.ndarray
    length: int

    @property
    def num_symbols(self) -> int:
        """How many symbols there are."""
        return self.emission.shape[1]

    def next_token_probs(self, prefix: ArrayLike, source: ArrayLike | None = None) -> np.ndarray:
        """P(y_{t+1} | y_1 ... y_t, what the source tells of y_{t+1} ... y_length), exactly.

        Defined for any prefix. One that contradicts the source's past is believed; a symbol that
        cannot be where it stands makes the symbols before it worthless, see
        `s2s_jax.theory.observe`; and a source that cannot go on from the prefix tells its next
        symbol and nothing else.

        Args:
          prefix: [num_prefixes, t] numbers of symbols, 0 <= t < length.
          source: [num_prefixes, length] numbers of symbols, -1 where hidden; None tells nothing.

        Returns:
          [num_prefixes, num_symbols] float64.

        Raises:
          ValueError: another shape, or a number that is no symbol's.

        Example:
          >>> truth = make_markov_truth((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=3)
          >>> truth.next_token_probs([[0, 1], [1, 0]]).tolist()
          [[0.2, 0.8], [0.9, 0.1]]
          >>> truth.next_token_probs([[]]).tolist()
          [[0.7, 0.3]]
        """
        tokens = np.asarray(prefix)
        if tokens.ndim != 2 or tokens.shape[1] >= self.length:
            raise ValueError(
                f"prefix has shape {tokens.shape}; it must be [num_prefixes, t] with t below the"
                f" length {self.length}"
            )
        tokens = self._numbers("prefix", tokens, 0)
        padded = np.pad(tokens, ((0, 0), (0, self.length - tokens.shape[1])))
        return self._along(padded, source, range(tokens.shape[1], tokens.shape[1] + 1))[:, 0]

    def sequence_token_probs(
        self, target: ArrayLike, source: ArrayLike | None = None
    ) -> np.ndarray:
        """`next_token_probs` behind every prefix of whole sequences.

        Args:
          target: [num_sequences, length] numbers of symbols; the last one is not looked at.
          source: see `next_token_probs`.

        Returns:
          [num_sequences, length, num_symbols] float64; [:, t] is behind the first t symbols.

        Raises:
          ValueError: another shape, or a number that is no symbol's.
        """
        tokens = np.asarray(target)
        if tokens.ndim != 2 or tokens.shape[1] != self.length:
            raise ValueError(f"target has shape {tokens.shape}; it must be [n, {self.length}]")
        return self._along(self._numbers("target", tokens, 0), source, range(self.length))

    def sample(self, num_sequences: int, generator: np.random.Generator) -> np.ndarray:
        """Draws targets: [num_sequences, length] int32 numbers of symbols."""
        state = _draw(np.broadcast_to(self.initial, (num_sequences, len(self.initial))), generator)
        tokens = []
        for _ in range(self.length):
            tokens.append(_draw(self.emission[state], generator))
            state = _draw(self.transition[state], generator)
        return np.stack(tokens, axis=1)

    def _along(self, tokens: np.ndarray, source: ArrayLike | None, steps: range) -> np.ndarray:
        """Distributions of the given consecutive steps, [n, len(steps), num_symbols]."""
        told = np.full(tokens.shape, -1) if source is None else np.asarray(source)
        if told.shape != tokens.shape:
            wanted = tokens.shape
            raise ValueError(f"source has shape {told.shape}; it must be {wanted}, as targets are")
        told = self._numbers("source", told, -1)
        num_rows, num_states = len(tokens), len(self.initial)
        # How well each state fits what the source tells from its step on, and after its step.
        after = np.ones((self.length, num_rows, num_states))
        for step in range(self.length - 1, steps.start, -1):
            fits = self._likelihood(told[:, step]) * after[step]
            ahead = fits @ self.transition.T
            after[step - 1] = ahead / np.maximum(ahead.max(-1, keepdims=True), 1e-300)

        belief = np.broadcast_to(self.initial, (num_rows, num_states))
        found = []
        for step in range(steps.stop):
            if step >= steps.start:
                found.append(self._next(belief, told[:, step], after[step]))
            belief = observe(belief, self.emission.T[tokens[:, step]]) @ self.transition
        return np.stack(found, axis=1)

    def _next(self, belief: np.ndarray, told: np.ndarray, after: np.ndarray) -> np.ndarray:
        only = np.where(told[:, None] < 0, 1.0, np.eye(self.num_symbols)[told])
        informed = ((belief * after) @ self.emission) * only
        blind = np.where(told[:, None] < 0, belief @ self.emission, only)
        probs = np.where(informed.sum(-1, keepdims=True) > 0, informed, blind)
        return probs / probs.sum(-1, keepdims=True)

    def _likelihood(self, told: np.ndarray) -> np.ndarray:
        return np.where(told[:, None] < 0, 1.0, self.emission.T[told])

    def _numbers(self, name: str, tokens: np.ndarray, lowest: int) -> np.ndarray:
        if tokens.size and not np.all((tokens >= lowest) & (tokens < self.num_symbols)):
            raise ValueError(f"{name} holds numbers that are none of {self.num_symbols} symbols'")
        return tokens.astype(np.int32)


def make_markov_truth(initial: ArrayLike, transition: ArrayLike, length: int) -> ChainTruth:
    """The truth of `load_markov`.

    Args:
      initial: [num_symbols] probabilities of the first symbol.
      transition: [num_symbols, num_symbols]; row a holds the probabilities of what follows a.
      length: of the targets, at least 1.

    Raises:
      ValueError: what is wrong, in one line.
    """
    return _make_truth(initial, transition, None, length)


def make_hmm_truth(
    initial: ArrayLike, transition: ArrayLike, emission: ArrayLike, length: int
) -> ChainTruth:
    """The truth of `load_hmm`; how much a source tells is no part of it, but of the source.

    Args:
      initial: [num_states] probabilities of the first state.
      transition: [num_states, num_states]; row s holds the probabilities of what follows s.
      emission: [num_states, num_symbols]; row s holds the probabilities of what s shows.
      length: of the targets, at least 1.

    Raises:
      ValueError: what is wrong, in one line.
    """
    return _make_truth(initial, transition, emission, length)


def load_markov(
    data_dir: str = "",
    *,
    initial: Row = (0.7, 0.3),
    transition: tuple[Row, ...] = ((0.9, 0.1), (0.2, 0.8)),
    length: int = 3,
    num_train: int = 20_000,
    num_dev: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> dict[str, Pairs]:
    """Markov chains behind a source that never changes: "_" -> "0 0 1".

    The only uncertainty is the target's own, so scheduled sampling damages this task the most;
    `s2s_jax.theory.scheduled_sampling_optimum` says how much.

    Args:
      data_dir: TFDS's folder; "" means its default.
      initial: probabilities of the first symbol.
      transition: row a holds the probabilities of what follows symbol a.
      length: symbols of a target.
      num_train: training pairs.
      num_dev: dev pairs.
      num_test: test pairs.
      seed: of the generation.

    Raises:
      DataError: an option out of range.
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
    initial: Row = (0.5, 0.5),
    transition: tuple[Row, ...] = ((0.9, 0.1), (0.1, 0.9)),
    emission: tuple[Row, ...] = ((0.8, 0.15, 0.05), (0.05, 0.15, 0.8)),
    dependence: float = 1.0,
    length: int = 6,
    num_train: int = 20_000,
    num_dev: int = 1_000,
    num_test: int = 1_000,
    seed: int = 0,
) -> dict[str, Pairs]:
    """Hidden Markov chains behind a source that tells some of their symbols: "0 _ 2" -> "0 1 2".

        source_t = y_t with probability 1 - dependence, else "_"   (independently by t)

    At dependence 0 the target is the source, and scheduled sampling is harmless; at 1 the source
    tells nothing, and the symbols depend on each other as much as the chain makes them.

    Args:
      data_dir: TFDS's folder; "" means its default.
      initial: probabilities of the first state.
      transition: row s holds the probabilities of what follows state s.
      emission: row s holds the probabilities of the symbols that state s shows.
      dependence: share of the target's symbols that the source hides, in [0, 1].
      length: symbols of a target, and of a source.
      num_train: training pairs.
      num_dev: dev pairs.
      num_test: test pairs.
      seed: of the generation.

    Raises:
      DataError: an option out of range.
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


def symbol_texts(numbers: ArrayLike) -> list[str]:
    """Texts of numbers of symbols, -1 as hidden.

    Args:
      numbers: [num_texts, length].

    Example:
      >>> symbol_texts([[0, -1, 12]])
      ['0 _ 12']
    """
    rows = np.asarray(numbers).tolist()
    return [" ".join(HIDDEN if one < 0 else str(one) for one in row) for row in rows]


def symbol_numbers(texts: Sequence[str]) -> np.ndarray:
    """The numbers behind texts of one length: the inverse of `symbol_texts`.

    Returns:
      [num_texts, length] int32.

    Raises:
      ValueError: a text holds what is no symbol, or texts differ in length.

    Example:
      >>> symbol_numbers(["0 _ 12"]).tolist()
      [[0, -1, 12]]
    """
    rows = [[-1 if one == HIDDEN else int(one) for one in text.split()] for text in texts]
    return np.array(rows, np.int32)


def _make_truth(
    initial: ArrayLike, transition: ArrayLike, emission: ArrayLike | None, length: int
) -> ChainTruth:
    if length < 1:
        raise ValueError(f"length is {length}; it must be at least 1")
    return ChainTruth(*check_chain(initial, transition, emission), length)


def _truth_of_options(
    initial: Row, transition: tuple[Row, ...], emission: tuple[Row, ...] | None, length: int
) -> ChainTruth:
    try:
        return _make_truth(initial, transition, emission, length)
    except ValueError as error:
        raise DataError(str(error)) from error


def _streams(sizes: dict[str, int], seed: int) -> list[tuple[str, int, np.random.Generator]]:
    """A generator for each split, so that the size of one changes no other."""
    seeds = np.random.SeedSequence(seed).spawn(len(sizes))
    return [
        (split, size, np.random.default_rng(one))
        for (split, size), one in zip(sizes.items(), seeds, strict=True)
    ]


def _draw(probs: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One index a row of [n, k] probabilities; one of probability 0 is never drawn."""
    cumulated = np.cumsum(probs, axis=-1)
    drawn = generator.random((len(probs), 1)) * cumulated[:, -1:]
    return (cumulated <= drawn).sum(-1, dtype=np.int32)


def _load(
    name: str,
    truth: ChainTruth,
    dependence: float,
    sizes: dict[str, int],
    seed: int,
    make_splits: Callable[[], dict[str, Pairs]],
    data_dir: str,
) -> dict[str, Pairs]:
    from s2s_jax.data.builders import fingerprint, load_or_prepare

    for split, size in sizes.items():
        if size < 1:
            raise DataError(f"num_{split} is {size}: every split needs at least one pair")
    if seed < 0:
        raise DataError(f"seed is {seed}, not 0 or more")
    numbers = "-".join(map(str, (*sizes.values(), seed)))
    tables = (one.tolist() for one in (truth.initial, truth.transition, truth.emission))
    config = f"{fingerprint(*tables, float(dependence), truth.length)}-{numbers}"
    return load_or_prepare(name, config, VERSION, make_splits, data_dir)
