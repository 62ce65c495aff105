"""The divergence of a model from a known truth, and the divergence that theory predicts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import NUM_RESERVED, UNK, Batch, gold_inputs, to_jax
from s2s_jax.data.batching import tokenize
from s2s_jax.data.chain import ChainTruth
from s2s_jax.data.markov import symbol_numbers, symbol_texts
from s2s_jax.data.pairs import Pairs, one_reference
from s2s_jax.data.task import Vocabularies
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.objectives import Optimum
from s2s_jax.theory.chains import MAX_SEQUENCES
from s2s_jax.theory.information import kl_divergence

MAX_ENUMERATED = 2**14
"""The largest number of pairs of a source and a target that are enumerated."""


def symbol_probs(
    model: Seq2SeqModel, symbol_ids: tuple[int, ...], params: Params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """A model's distribution of the next symbol after every gold prefix of a batch.

        q(b | y_<t, x) = p(id_b | y_<t, x) / sum_c p(id_c | y_<t, x)

    Args:
      model: the functions of `Seq2SeqModel`.
      symbol_ids: the target ids of symbols 0 ... num_symbols - 1; static.
      params: the model's parameters.
      batch: its targets consist of symbols.

    Returns:
      [batch, time, num_symbols] q, and the [batch, time] total probability of all other ids.
    """
    source, mask, target, _ = to_jax(batch)
    memory = model.encode(params, source, mask, None)
    log_probs = jax.nn.log_softmax(model.decode_sequence(params, memory, gold_inputs(target)))
    others = np.setdiff1d(np.arange(model.vocab_size), symbol_ids)
    of_symbols = log_probs[..., np.asarray(symbol_ids)]
    return jax.nn.softmax(of_symbols), jnp.exp(log_probs[..., others]).sum(-1)


class Divergence:
    """KL(P || Q | X) of a model Q from the chain P from which a task's targets are sampled.

        KL(P || Q | X) = E_{x, y ~ P} sum_t KL(P(. | y_<t, x) || Q(. | y_<t, x))

    Q is restricted to the symbols and normalised. If there are few sources and targets, the mean is
    exact: it is taken over all targets of each source. Otherwise it is taken over the given pairs.

    Attributes:
      is_exact: whether the mean is over all targets of each source.

    Args:
      model: the functions of `Seq2SeqModel`.
      vocabularies: the task's; the target one must contain every symbol, see `knows_symbols`.
      truth: the chain.
      pairs: their sources are used, and, if the mean is not exact, their targets.
      batch_size: number of rows to run at a time.
      predicted: from `predicted_divergence`; None if theory predicts no value.
    """

    def __init__(
        self,
        model: Seq2SeqModel,
        vocabularies: Vocabularies,
        truth: ChainTruth,
        pairs: Pairs,
        batch_size: int,
        predicted: float | None,
    ):
        sources, shares = distinct_sources(pairs)
        num_sequences = truth.num_symbols**truth.length
        self.is_exact = len(sources) * num_sequences <= MAX_ENUMERATED
        if self.is_exact:
            every = np.indices((truth.num_symbols,) * truth.length).reshape(truth.length, -1).T
            targets = np.tile(every, (len(sources), 1))
            sources = np.repeat(sources, num_sequences)
            told = told_symbols(sources, truth.length)
            self._truth = truth.sequence_token_probs(targets, told)
            chosen = np.take_along_axis(self._truth, targets[..., None], axis=-1)[..., 0]
            self._weights = np.repeat(shares, num_sequences) * chosen.prod(-1)
        else:
            sources, targets = np.asarray(pairs.sources), symbol_numbers(pairs.targets)
            self._truth = truth.sequence_token_probs(targets, told_symbols(sources, truth.length))
            self._weights = np.full(len(pairs), 1 / len(pairs))
        rows = one_reference(list(sources), symbol_texts(targets))
        self._tokens = tokenize(rows, vocabularies.source, vocabularies.target)
        self._batch_size = min(batch_size, len(targets))
        self._probs = jax.jit(partial(symbol_probs, model, symbol_ids(vocabularies, truth)))
        self._predicted = predicted

    def __call__(self, params: Params) -> dict[str, float]:
        """Measures the divergence.

        Returns:
          "kl_to_truth" in nats; "mass_outside", the mean probability of all ids other than symbols
          at positions where a symbol must come; and "kl_predicted" in nats, if theory predicts it.
        """
        shape = int(self._tokens.source.lengths.max()), int(self._tokens.target.lengths.max())
        length = self._truth.shape[1]
        total = outside = 0.0
        for first in range(0, len(self._weights), self._batch_size):
            indices = np.arange(first, first + self._batch_size)
            there = indices < len(self._weights)
            batch = self._tokens.batch(np.where(there, indices, -1), shape)
            probs, others = jax.device_get(self._probs(params, batch))
            rows, weights = indices[there], self._weights[indices[there]]
            counts = np.broadcast_to(weights[:, None] > 0, (len(rows), length))
            found = kl_divergence(self._truth[rows], probs[there, :length], where=counts)
            total += float(weights @ found.sum(-1))
            outside += float(weights @ others[there, :length].mean(-1))
        predicted = {} if self._predicted is None else {"kl_predicted": self._predicted}
        return {"kl_to_truth": total, "mass_outside": outside} | predicted


def predicted_divergence(
    truth: ChainTruth, pairs: Pairs, teacher_prob: float, optimum: Optimum
) -> float | None:
    """The mean of an objective's `optimum` over the sources of the given pairs.

    Args:
      truth: the chain.
      pairs: their sources are used.
      teacher_prob: at the end of training.
      optimum: from `s2s_jax.objectives.optimum_of`.

    Returns:
      The divergence in nats; None if it is not identified for a source, or if there are too many
      sequences.
    """
    if truth.num_symbols**truth.length > MAX_SEQUENCES:
        return None
    sources, shares = distinct_sources(pairs)
    if len(sources) * truth.num_symbols**truth.length > 16 * MAX_SEQUENCES:
        return None
    chains = truth.given(told_symbols(sources, truth.length))
    kl, identified = optimum(chains, teacher_prob)
    return float(shares @ kl) if identified.all() else None


def knows_symbols(vocabularies: Vocabularies, truth: ChainTruth) -> bool:
    """Whether every symbol has its own id; a symbol that never occurs in training has none."""
    return all(one >= NUM_RESERVED for one in symbol_ids(vocabularies, truth))


def symbol_ids(vocabularies: Vocabularies, truth: ChainTruth) -> tuple[int, ...]:
    """The target ids of symbols 0 ... num_symbols - 1; UNK for those that training lacks."""
    encoded = (vocabularies.target.encode(str(one)) for one in range(truth.num_symbols))
    return tuple(ids[0] if len(ids) == 1 else UNK for ids in encoded)


def distinct_sources(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """The distinct sources, and the share of each."""
    sources, counts = np.unique(np.asarray(pairs.sources), return_counts=True)
    return sources, counts / counts.sum()


def told_symbols(sources: np.ndarray, length: int) -> np.ndarray:
    """The target symbols that sources reveal: [num_sources, length], -1 where hidden.

    A source that is a single "_" reveals nothing, whatever the length of the target.

    Example:
      >>> told_symbols(np.array(["_"]), 3).tolist()
      [[-1, -1, -1]]
    """
    numbers = symbol_numbers(list(sources))
    if numbers.shape[1] != length:
        numbers = np.full((len(numbers), length), -1)
    return numbers
