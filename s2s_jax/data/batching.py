"""Token ids and fixed-shape batches: a batch is a pure function of the seed and the step."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from s2s_jax.batch import EOS, PAD, Batch
from s2s_jax.data.pairs import DataError, Pairs
from s2s_jax.data.vocabularies import Vocabulary

_MAX_CANDIDATES = 400  # bucket boundaries that are tried; the search is quadratic in their number


class BatchShape(NamedTuple):
    """The shape of a batch.

    Attributes:
      num_rows: pairs, with the rows that fill the batch up.
      source_time: tokens of each source, with EOS and padding.
      time: tokens of each target, likewise.

    Example:
      >>> shape = BatchShape(num_rows=2, source_time=9, time=4)
      >>> shape.holds(BatchShape(2, 3, 4)), shape.holds(BatchShape(4, 3, 4))
      (True, False)
    """

    num_rows: int
    source_time: int
    time: int

    def holds(self, other: "BatchShape") -> bool:
        """Whether a batch of the other shape can be padded to this one."""
        return all(here >= there for here, there in zip(self, other, strict=True))


@dataclass(frozen=True)
class Sequences:
    """Sequences of token ids of any lengths, concatenated.

    Attributes:
      ids: [total] int32, each sequence with its EOS.
      offsets: [n + 1] int64; sequence i is ids[offsets[i]:offsets[i + 1]].
    """

    ids: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> "Sequences":
        """Concatenates sequences that do not have an EOS yet, and adds it.

        Example:
          >>> Sequences.of([[7, 8], []]).ids.tolist()
          [7, 8, 2, 2]
        """
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences)) + 1
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        ids = np.full(offsets[-1], EOS, np.int32)
        given = np.ones(len(ids), bool)
        given[offsets[1:] - 1] = False
        ids[given] = np.fromiter(chain.from_iterable(sequences), np.int32, given.sum())
        return cls(ids, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """[n] int64, including EOS."""
        return np.diff(self.offsets)

    def take(self, indices: np.ndarray) -> "Sequences":
        """Some sequences, in the order given.

        Example:
          >>> Sequences.of([[7, 8], [], [9]]).take(np.array([2, 0])).ids.tolist()
          [9, 2, 7, 8, 2]
        """
        lengths = self.lengths[indices]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        moved = np.repeat(self.offsets[indices] - offsets[:-1], lengths)
        return Sequences(self.ids[moved + np.arange(offsets[-1])], offsets)

    def padded(self, indices: np.ndarray, time: int) -> tuple[np.ndarray, np.ndarray]:
        """Some sequences padded to one length; index -1 gives a row of padding only.

        Returns:
          [len(indices), time] int32 ids, and the bool mask of their tokens.

        Raises:
          ValueError: one of them is longer than `time`.
        """
        start = self.offsets[indices]
        length = self.offsets[indices + 1] - start  # below 0 for index -1, so there is no token
        if (longest := length.max(initial=0)) > time:
            raise ValueError(f"a sequence of {longest} tokens does not fit into {time}")
        position = np.arange(time)
        mask = position < length[:, None]
        # Where the mask is False, any index in range will do.
        ids = self.ids[np.where(mask, start[:, None] + position, 0)]
        return np.where(mask, ids, np.int32(PAD)), mask


@dataclass(frozen=True)
class TokenPairs:
    """Pairs as token ids.

    Attributes:
      source: the sources, each ending in EOS.
      target: the targets, each ending in EOS.
      num_dropped: number of pairs that were left out because they exceeded the limit.
    """

    source: Sequences
    target: Sequences
    num_dropped: int = 0

    def __len__(self) -> int:
        return len(self.source)

    def take(self, indices: np.ndarray) -> "TokenPairs":
        """Some pairs, in the order given."""
        return TokenPairs(self.source.take(indices), self.target.take(indices))

    def batch(self, indices: np.ndarray, bucket: tuple[int, int]) -> Batch:
        """The pairs of some indices in one shape; -1 makes a filler row.

        A filler row has an all-False target mask. Its source is a single EOS, so that attention
        always has something to attend to.
        """
        source, source_mask = self.source.padded(indices, bucket[0])
        target, target_mask = self.target.padded(indices, bucket[1])
        filling = indices < 0
        source[filling, 0], source_mask[filling, 0] = EOS, True
        return Batch(source, source_mask, target, target_mask)


def tokenize(
    pairs: Pairs,
    source_vocabulary: Vocabulary,
    target_vocabulary: Vocabulary,
    max_length: int | None = None,
) -> TokenPairs:
    """Encodes a split; source and target end in EOS.

    Args:
      pairs: the texts.
      source_vocabulary: of the sources.
      target_vocabulary: of the targets.
      max_length: for training, leave out the pairs with more tokens than this, including EOS, on
        either side. For evaluation, None keeps every pair at its index.

    Raises:
      DataError: no pair is left.
    """
    sources = source_vocabulary.encode_batch(pairs.sources)
    targets = target_vocabulary.encode_batch(pairs.targets)
    kept = [
        (source, target)
        for source, target in zip(sources, targets, strict=True)
        if max_length is None or max(len(source), len(target)) < max_length
    ]
    if not kept:
        raise DataError(
            f"none of {len(pairs)} pairs is within max_length {max_length}: raise data.max_tokens"
            if len(pairs)
            else "no pairs to tokenize: the split is empty"
        )
    return TokenPairs(
        Sequences.of([source for source, _ in kept]),
        Sequences.of([target for _, target in kept]),
        len(pairs) - len(kept),
    )


def choose_buckets(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    num_buckets: int,
    batch_size: int = 1,
    tokens_per_batch: int = 0,
) -> list[tuple[int, int]]:
    """Shapes (source_time, time) that hold every pair with little padding.

    Pairs are sorted by size, max(source length * r, target length), where r is the ratio of the
    target lengths' total to that of the source lengths. A bucket ends at some size, and its shape
    holds all pairs up to that size. Of all ways to place at most num_buckets ends, dynamic
    programming finds the one with the fewest cells

        sum over buckets of  rows * ceil(n / rows) * (source_time + time)

    with the rows of `rows_of`, so the gain of a bucket for a few long pairs is weighed against the
    filler rows that it needs. The train step is compiled once for each shape.

    Args:
      source_lengths: [n] with EOS.
      target_lengths: [n] with EOS.
      num_buckets: the maximum number of shapes, at least 1.
      batch_size: rows in a batch.
      tokens_per_batch: see `rows_of`; unless it is 0, batch_size has no effect.

    Returns:
      One to num_buckets shapes, smallest first; the last holds every pair.

    Raises:
      ValueError: num_buckets is below 1, or there are no lengths.

    Example:
      >>> choose_buckets(np.array([3, 4, 9]), np.array([3, 3, 9]), 2)
      [(4, 3), (9, 9)]
    """
    if num_buckets < 1 or len(source_lengths) == 0:
        raise ValueError(f"num_buckets is {num_buckets}, for {len(source_lengths)} pairs")
    ratio = target_lengths.sum() / source_lengths.sum()
    size = np.maximum(source_lengths * ratio, target_lengths)
    order = np.argsort(size, kind="stable")
    # Candidate i ends a bucket after the pair ends[i] of the sorted order.
    ends = np.append(np.flatnonzero(np.diff(size[order])), len(order) - 1)
    if len(ends) > _MAX_CANDIDATES:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, _MAX_CANDIDATES).astype(int))]
    source_time = np.maximum.accumulate(source_lengths[order])[ends]
    time = np.maximum.accumulate(target_lengths[order])[ends]
    below = np.concatenate([[0], ends + 1])  # pairs before the bucket that starts here
    rows = rows_of(source_time, time, batch_size, tokens_per_batch)
    batches = -((below[:-1, None] - below[None, 1:]) // rows)  # ceil(n / rows)
    cells = np.where(batches > 0, batches * rows * (source_time + time), np.inf)
    # cost[k][i]: the fewest cells for all pairs up to candidate i with k + 1 buckets.
    cost, starts = [cells[0]], []
    for _ in range(num_buckets - 1):
        total = np.concatenate([[np.inf], cost[-1][:-1]])[:, None] + cells
        starts.append(np.argmin(total, axis=0))
        cost.append(np.min(total, axis=0))
    count = int(np.argmin([one[-1] for one in cost]))
    end, chosen = len(ends) - 1, []
    for k in reversed(range(count + 1)):
        chosen.append((int(source_time[end]), int(time[end])))
        if k:
            end = int(starts[k - 1][end]) - 1
    return sorted(set(chosen))


def rows_of(source_time: Any, time: Any, batch_size: int, tokens_per_batch: int = 0) -> np.ndarray:
    """How many rows the batches of a bucket have.

        rows = batch_size                                                 tokens_per_batch = 0
        rows = max(1, floor(tokens_per_batch / max(source_time, time)))   otherwise

    so that a batch has at most tokens_per_batch tokens on either side, padding included.

    Args:
      source_time: tokens of a source; an int, or an array of those of several buckets.
      time: tokens of a target, likewise.
      batch_size: the rows of every batch, if tokens_per_batch is 0.
      tokens_per_batch: the tokens of a batch; 0 for batches of equal numbers of rows.

    Returns:
      int64, of the same shape.

    Example:
      >>> rows_of(np.array([5, 30]), np.array([8, 20]), batch_size=64).tolist()
      [64, 64]
      >>> rows_of(np.array([5, 30]), np.array([8, 20]), batch_size=64, tokens_per_batch=100).tolist()
      [12, 3]
    """  # noqa: E501
    longer = np.maximum(source_time, time)
    if not tokens_per_batch:
        return np.full_like(longer, batch_size)
    return np.maximum(1, tokens_per_batch // longer)


class TrainingBatches:
    """Endless shuffled batches: `batches[step]` depends only on the seed and the step.

    A resumed run asks for its next step and needs no other state. Each epoch has every pair once:
    pairs are shuffled within their bucket and cut into batches of equal size, the last batch of a
    bucket is filled up, and then the batches of all buckets are shuffled.

    With tokens_per_batch, that last order depends on the epoch alone: runs of different seeds have
    other pairs, but at every step batches of one shape. So they can be lanes of one program without
    padding batches of few long pairs to many, or of many short pairs to long.

    Args:
      tokens: the training pairs.
      buckets: shapes (source_time, time), smallest first; a pair goes into the first that holds it.
      batch_size: rows in every batch.
      seed: of the shuffling.
      tokens_per_batch: see `rows_of`; unless it is 0, batch_size has no effect.

    Attributes:
      num_batches: batches in an epoch.
      shapes: those of the buckets' batches, in the same order.

    Raises:
      ValueError: a pair is longer than every bucket, or batch_size is below 1.
    """

    def __init__(
        self,
        tokens: TokenPairs,
        buckets: Sequence[tuple[int, int]],
        batch_size: int,
        seed: int,
        tokens_per_batch: int = 0,
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}")
        members = _members(tokens, buckets)
        if len(members) > len(buckets):
            raise ValueError(f"{len(members[-1])} pairs are longer than every bucket of {buckets}")
        self.shapes = [
            BatchShape(int(rows_of(*bucket, batch_size, tokens_per_batch)), *bucket)
            for bucket in buckets
        ]
        self._tokens, self._buckets, self._members = tokens, list(buckets), members
        self._seed, self._one_order = seed, bool(tokens_per_batch)
        self.num_batches = sum(
            -(-len(some) // shape.num_rows)
            for some, shape in zip(members, self.shapes, strict=True)
        )
        self._epoch: tuple[int, list[tuple[int, np.ndarray]]] = (-1, [])

    def __getitem__(self, step: int) -> Batch:
        if step < 0:
            raise IndexError(f"step {step} is negative")
        bucket, indices = self._order(step // self.num_batches)[step % self.num_batches]
        return self._tokens.batch(indices, self._buckets[bucket])

    def __iter__(self) -> Iterator[Batch]:
        step = 0
        while True:
            yield self[step]
            step += 1

    def shapes_from(self, step: int) -> list[BatchShape]:
        """The shapes in the order in which they are needed from this step on."""
        epoch, place = divmod(step, self.num_batches)
        order = self._order(epoch)
        # A shape that does not occur in the rest of this epoch will occur in the next.
        buckets = [bucket for bucket, _ in order[place:] + order[:place]]
        return [self.shapes[bucket] for bucket in dict.fromkeys(buckets)]

    def _order(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """The bucket and the indices of every batch of an epoch; the latest epoch is cached."""
        known, order = self._epoch
        if known != epoch:
            generator = np.random.default_rng([self._seed, epoch])
            cut = [
                (bucket, indices)
                for bucket, some in enumerate(self._members)
                for indices in _cut(generator.permutation(some), self.shapes[bucket].num_rows)
            ]
            mixing = np.random.default_rng(epoch) if self._one_order else generator
            order = [cut[place] for place in mixing.permutation(len(cut))]
            self._epoch = epoch, order
        return order


def evaluation_batches(
    tokens: TokenPairs, buckets: Sequence[tuple[int, int]], batch_size: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every pair once, bucket by bucket, in order.

    Pairs that are longer than every bucket get their own bucket, since evaluation drops nothing.

    Args:
      tokens: the pairs.
      buckets: shapes (source_time, time), smallest first.
      batch_size: rows in every batch.

    Yields:
      [batch] int64 indices of the rows' pairs, -1 for filler rows; and the Batch.
    """
    members = _members(tokens, buckets)
    shapes = list(buckets)
    if len(members) > len(buckets):
        longest = members[-1]
        shapes.append(
            (int(tokens.source.lengths[longest].max()), int(tokens.target.lengths[longest].max()))
        )
    for shape, some in zip(shapes, members, strict=True):
        for indices in _cut(some, batch_size):
            yield indices, tokens.batch(indices, shape)


def _members(tokens: TokenPairs, buckets: Iterable[tuple[int, int]]) -> list[np.ndarray]:
    """The indices of each bucket's pairs; those that fit into no bucket, if any, come last."""
    waiting = np.arange(len(tokens))
    members = []
    source, target = tokens.source.lengths, tokens.target.lengths
    for source_time, time in buckets:
        fits = (source[waiting] <= source_time) & (target[waiting] <= time)
        members.append(waiting[fits])
        waiting = waiting[~fits]
    return [*members, waiting] if len(waiting) else members


def _cut(indices: np.ndarray, batch_size: int) -> np.ndarray:
    """[batches, batch_size] indices, the last row filled up with -1."""
    missing = -len(indices) % batch_size
    return np.append(indices, np.full(missing, -1, np.int64)).reshape(-1, batch_size)
