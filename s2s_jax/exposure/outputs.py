"""The model's own outputs: how long they are, whether they end, and how much they repeat."""

import numpy as np

from s2s_jax.exposure.intervals import Bootstrap, divide
from s2s_jax.exposure.measure import MIN_COUNT, Measure, curve, single

NGRAM_SIZES = (1, 2, 3, 4)
"""The sizes of n-grams whose repetition is measured."""


def length_ratio(
    own_lengths: np.ndarray, gold_lengths: np.ndarray, bootstrap: Bootstrap
) -> Measure:
    """The total length of the outputs relative to that of the targets.

        sum_i |h_i| / sum_i |y_i|

    Args:
      own_lengths: [num_sequences] number of tokens in the outputs, without EOS.
      gold_lengths: [num_sequences] number of tokens in the targets, without EOS.
      bootstrap: over the sequences.
    """
    return single(bootstrap.of(divide, own_lengths, gold_lengths), len(gold_lengths), "ratio")


def share(values: np.ndarray, bootstrap: Bootstrap) -> Measure:
    """The share of sequences for which something holds.

    Args:
      values: [num_sequences] bool.
      bootstrap: over the sequences.
    """
    return single(bootstrap.of(lambda mean: mean, values), len(values), "share")


def exact_match(right: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Which sequences are right at every position, including EOS.

    These are the same sequences for the most likely token after gold prefixes and for greedy
    decoding, because the two prefixes are identical up to the first error. So exact match cannot
    show exposure bias.

    Args:
      right: [num_sequences, time] bool.
      mask: [num_sequences, time] bool, up to and including EOS.

    Returns:
      [num_sequences] bool.
    """
    return np.all(right | ~mask, axis=1)


def repetition(
    tokens: np.ndarray, lengths: np.ndarray, bootstrap: Bootstrap, min_count: int = MIN_COUNT
) -> Measure:
    """The share of repeated n-grams within a sequence, by size of n-gram.

        rep-n = mean_i (1 - unique n-grams of i / all n-grams of i)

    Welleck et al. (2020), "Neural Text Generation with Unlikelihood Training", arXiv:1908.04319.

    Args:
      tokens: [num_sequences, time] ids.
      lengths: [num_sequences] how many of them count, without EOS. Sequences of fewer than n tokens
        have no rep-n and are left out; `n` of the measure counts the others.
      bootstrap: over the sequences.
      min_count: the minimum number of sequences for a size.

    Returns:
      A measure over `NGRAM_SIZES`.
    """
    repeated = [_repeated_share(tokens, lengths, size) for size in NGRAM_SIZES]
    long_enough = lengths[:, None] >= np.array(NGRAM_SIZES)
    return curve(
        bootstrap,
        divide,
        np.stack(repeated, axis=1),
        long_enough,
        n=long_enough.sum(0),
        axis="n-gram",
        unit="share",
        min_count=min_count,
    )


def _repeated_share(tokens: np.ndarray, lengths: np.ndarray, size: int) -> np.ndarray:
    """1 - unique / all n-grams of one size, [num_sequences]; 0 with fewer than `size` tokens."""
    num_windows = tokens.shape[1] - size + 1
    if num_windows < 1:
        return np.zeros(len(tokens))
    # Number the n-grams that occur, by the number of their first n - 1 tokens and the last token.
    number = tokens[:, :num_windows].astype(np.int64)
    vocab_size = int(tokens.max()) + 1
    for offset in range(1, size):
        pairs = number * vocab_size + tokens[:, offset : offset + num_windows]
        number = np.unique(pairs, return_inverse=True)[1].reshape(pairs.shape)
    num_all = np.maximum(lengths - size + 1, 0)
    inside = np.arange(num_windows) < num_all[:, None]
    ordered = np.sort(np.where(inside, number, -1), axis=1)
    is_new = np.diff(ordered, axis=1, prepend=-1) > 0
    return 1 - divide(is_new.sum(1), np.maximum(num_all, 1)) - (num_all == 0)
