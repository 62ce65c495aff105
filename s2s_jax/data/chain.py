"""The true distributions of the generated chains: exact, after any prefix and for any source."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from s2s_jax.theory.chains import Chains, check_chain, draw, observe


@dataclass(frozen=True)
class ChainTruth:
    """The distribution that the targets of a task are drawn from.

        P(s_1) = initial,   P(s_{t+1} | s_t) = transition,   P(y_t | s_t) = emission

    A source may reveal some of y_1 ... y_length; the distribution is then conditional on it.

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
        """The number of different symbols."""
        return self.emission.shape[1]

    def next_token_probs(self, prefix: ArrayLike, source: ArrayLike | None = None) -> np.ndarray:
        """P(y_{t+1} | y_1 ... y_t, what the source reveals of y_{t+1} ... y_length), exactly.

        It is defined for any prefix. If the prefix contradicts the source, the prefix counts. A
        symbol that is impossible at its position makes the earlier symbols irrelevant, see
        `s2s_jax.theory.chains.observe`. If the rest of the source is impossible after the prefix,
        only its next symbol is used.

        Args:
          prefix: [num_prefixes, t] symbol numbers, 0 <= t < length.
          source: [num_prefixes, length] symbol numbers, -1 where hidden; None reveals nothing.

        Returns:
          [num_prefixes, num_symbols] float64.

        Raises:
          ValueError: a wrong shape, or a number that is not a symbol.

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
        """`next_token_probs` after every prefix of whole sequences.

        Args:
          target: [num_sequences, length] symbol numbers; the last one is ignored.
          source: see `next_token_probs`.

        Returns:
          [num_sequences, length, num_symbols] float64; [:, t] is after the first t symbols.

        Raises:
          ValueError: a wrong shape, or a number that is not a symbol.
        """
        tokens = np.asarray(target)
        if tokens.ndim != 2 or tokens.shape[1] != self.length:
            raise ValueError(f"target has shape {tokens.shape}; it must be [n, {self.length}]")
        return self._along(self._numbers("target", tokens, 0), source, range(self.length))

    def given(self, source: ArrayLike) -> Chains:
        """The chains conditioned on the symbols that each source reveals.

        A chain that is conditioned on later symbols is still a chain, with probabilities that
        differ by step. With f_t(s) = P(what the source reveals of y_t ... y_length | s_t = s),

            initial'(s) ~ initial(s) f_1(s)
            transition'_t(s' | s) ~ transition(s' | s) f_{t+1}(s')

        and a revealed symbol is emitted with certainty.

        Args:
          source: [num_sources, length] symbol numbers, -1 where hidden.

        Returns:
          A chain for each source: P(y | source).

        Raises:
          ValueError: a wrong shape, a number that is not a symbol, or a source that is impossible
            for every target.

        Example:
          >>> truth = make_markov_truth((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), length=2)
          >>> truth.given([[-1, 0]]).initial.round(3).tolist()  # .63 and .06, of .69
          [[0.913, 0.087]]
        """
        told = np.asarray(source)
        if told.ndim != 2 or told.shape[1] != self.length:
            raise ValueError(f"source has shape {told.shape}; it must be [n, {self.length}]")
        told = self._numbers("source", told, -1)
        likelihood = np.stack([self._likelihood(column) for column in told.T], axis=1)
        fits = likelihood * self._after(told).swapaxes(0, 1)  # [num_sources, length, num_states]
        start = self.initial * fits[:, 0]
        impossible = np.flatnonzero(start.sum(-1) == 0)
        if len(impossible):
            raise ValueError(f"source {impossible[0]} tells symbols that no target has together")
        moves = self.transition * fits[:, 1:, None, :]
        # An impossible state keeps its transitions; it has no mass, so they do not matter.
        moves = np.where(moves.sum(-1, keepdims=True) > 0, moves, self.transition)
        certain = np.eye(self.num_symbols)[told][:, :, None]
        return Chains(
            start / start.sum(-1, keepdims=True),
            moves / moves.sum(-1, keepdims=True),
            np.where(told[..., None, None] < 0, self.emission, certain),
        )

    def sample(self, num_sequences: int, generator: np.random.Generator) -> np.ndarray:
        """Draws targets: [num_sequences, length] int32 symbol numbers."""
        state = draw(np.broadcast_to(self.initial, (num_sequences, len(self.initial))), generator)
        tokens = []
        for _ in range(self.length):
            tokens.append(draw(self.emission[state], generator))
            state = draw(self.transition[state], generator)
        return np.stack(tokens, axis=1)

    def _along(self, tokens: np.ndarray, source: ArrayLike | None, steps: range) -> np.ndarray:
        """Distributions of the given consecutive steps, [n, len(steps), num_symbols]."""
        told = np.full(tokens.shape, -1) if source is None else np.asarray(source)
        if told.shape != tokens.shape:
            wanted = tokens.shape
            raise ValueError(f"source has shape {told.shape}; it must be {wanted}, as targets are")
        told = self._numbers("source", told, -1)
        after = self._after(told, steps.start)
        belief = np.broadcast_to(self.initial, (len(tokens), len(self.initial)))
        found = []
        for step in range(steps.stop):
            if step >= steps.start:
                found.append(self._next(belief, told[:, step], after[step]))
            belief = observe(belief, self.emission.T[tokens[:, step]]) @ self.transition
        return np.stack(found, axis=1)

    def _after(self, told: np.ndarray, first: int = 0) -> np.ndarray:
        """P(what the source reveals after step t | s_t), up to a factor for each row and step.

        Returns:
          [length, num_sources, num_states]; steps before `first` are left at 1.
        """
        after = np.ones((self.length, len(told), len(self.initial)))
        for step in range(self.length - 1, first, -1):
            fits = self._likelihood(told[:, step]) * after[step]
            ahead = fits @ self.transition.T
            after[step - 1] = ahead / np.maximum(ahead.max(-1, keepdims=True), 1e-300)
        return after

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
      transition: [num_symbols, num_symbols]; row a has the probabilities of the symbol after a.
      length: of the targets, at least 1.

    Raises:
      ValueError: an argument is invalid; the message says in one line why.
    """
    return _make_truth(initial, transition, None, length)


def make_hmm_truth(
    initial: ArrayLike, transition: ArrayLike, emission: ArrayLike, length: int
) -> ChainTruth:
    """The truth of `load_hmm`; what a source reveals is not part of it.

    Args:
      initial: [num_states] probabilities of the first state.
      transition: [num_states, num_states]; row s has the probabilities of the state after s.
      emission: [num_states, num_symbols]; row s has the probabilities of the symbols of s.
      length: of the targets, at least 1.

    Raises:
      ValueError: an argument is invalid; the message says in one line why.
    """
    return _make_truth(initial, transition, emission, length)


def _make_truth(
    initial: ArrayLike, transition: ArrayLike, emission: ArrayLike | None, length: int
) -> ChainTruth:
    if length < 1:
        raise ValueError(f"length is {length}; it must be at least 1")
    return ChainTruth(*check_chain(initial, transition, emission), length)
