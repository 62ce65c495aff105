"""How far a model is from a known truth, beside how far theory says that it must be."""

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
"""The most pairs of a source and a target that every evaluation looks at."""


def symbol_probs(
    model: Seq2SeqModel, symbol_ids: tuple[int, ...], params: Params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """A model's distribution of the next symbol behind every gold prefix of a batch.

        q(b | y_<t, x) = p(id_b | y_<t, x) / sum_c p(id_c | y_<t, x)

    Args:
      model: the functions of `Seq2SeqModel`.
      symbol_ids: the target ids of symbols 0 ... num_symbols - 1; static.
      params: the model's.
      batch: of targets that are symbols.

    Returns:
      [batch, time, num_symbols] q, and [batch, time] the probability of all other ids.
    """
    source, mask, target, _ = to_jax(batch)
    memory = model.encode(params, source, mask, None)
    log_probs = jax.nn.log_softmax(model.decode_sequence(params, memory, gold_inputs(target)))
    others = np.setdiff1d(np.arange(model.vocab_size), symbol_ids)
    of_symbols = log_probs[..., np.asarray(symbol_ids)]
    return jax.nn.softmax(of_symbols), jnp.exp(log_probs[..., others]).sum(-1)


class Divergence:
    """KL(P || Q | X) of a model Q from the chain P that a task's targets are drawn from.

        KL(P || Q | X) = E_{x, y ~ P} sum_t KL(P(. | y_<t, x) || Q(. | y_<t, x))

    Q is restricted to the symbols and normalised. With few sources and targets the mean is exact:
    over every target of each source there is. Otherwise it is over the pairs given.

    Attributes:
      is_exact: whether it is over every target of each source.

    Args:
      model: the functions of `Seq2SeqModel`.
      vocabularies: the task's; its target vocabulary must know every symbol, see `knows_symbols`.
      truth: the chain.
      pairs: whose sources are looked at, and, where the mean is not exact, whose targets.
      batch_size: rows that run at a time.
      predicted: of `predicted_divergence`; None where theory has no number.
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
        """Measures.

        Returns:
          "kl_to_truth" in nats; "mass_outside", the mean probability of what is no symbol where a
          symbol must come; and "kl_predicted" in nats, where theory has a number.
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
    """The mean of an objective's `optimum` over the sources of some pairs.

    Args:
      truth: the chain.
      pairs: whose sources are looked at.
      teacher_prob: at the end of training.
      optimum: of `s2s_jax.objectives.optimum_of`.

    Returns:
      Nats; None where a source's is not identified, or the sequences are too many.
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
    """Whether every symbol has an id of its own; one that training never showed has none."""
    return all(one >= NUM_RESERVED for one in symbol_ids(vocabularies, truth))


def symbol_ids(vocabularies: Vocabularies, truth: ChainTruth) -> tuple[int, ...]:
    """The target ids of symbols 0 ... num_symbols - 1; UNK for one that training never showed."""
    encoded = (vocabularies.target.encode(str(one)) for one in range(truth.num_symbols))
    return tuple(ids[0] if len(ids) == 1 else UNK for ids in encoded)


def distinct_sources(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """The sources that there are, and the share of each."""
    sources, counts = np.unique(np.asarray(pairs.sources), return_counts=True)
    return sources, counts / counts.sum()


def told_symbols(sources: np.ndarray, length: int) -> np.ndarray:
    """What sources tell of the target, [num_sources, length] numbers of symbols, -1 where hidden.

    A source of one "_" tells nothing, however long the target is.

    Example:
      >>> told_symbols(np.array(["_"]), 3).tolist()
      [[-1, -1, -1]]
    """
    numbers = symbol_numbers(list(sources))
    if numbers.shape[1] != length:
        numbers = np.full((len(numbers), length), -1)
    return numbers
