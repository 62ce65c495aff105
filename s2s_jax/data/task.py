"""A task that is ready for training: splits, vocabularies, token ids and batch shapes."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2s_jax.batch import Batch
from s2s_jax.data.batching import (
    TokenPairs,
    TrainingBatches,
    choose_buckets,
    evaluation_batches,
)
from s2s_jax.data.pairs import DataError, Pairs
from s2s_jax.data.splits import PreparedSplits
from s2s_jax.data.token_cache import NO_CACHE, NotGivenBack, TokenCache
from s2s_jax.data.vocabularies import Vocabulary, load_vocabulary, train_vocabulary

_NUM_EVALUATION_SHAPES = 2  # each shape is compiled separately, and evaluation is short


@dataclass(frozen=True)
class Vocabularies:
    """The two vocabularies of a run."""

    source: Vocabulary
    target: Vocabulary

    def save(self, folder: Path) -> None:
        """Writes `source_vocabulary.json` and `target_vocabulary.json`."""
        self.source.save(folder / "source_vocabulary.json")
        self.target.save(folder / "target_vocabulary.json")

    @classmethod
    def load(cls, folder: Path) -> "Vocabularies":
        """Reads what `save` wrote."""
        return cls(
            load_vocabulary(folder / "source_vocabulary.json"),
            load_vocabulary(folder / "target_vocabulary.json"),
        )

    @property
    def are_one(self) -> bool:
        """Whether source and target have the same ids, which a shared embedding needs."""
        return self.source == self.target

    @classmethod
    def train(cls, pairs: Pairs, source_kind: str, target_kind: str, size: int) -> "Vocabularies":
        """Trains one for each side on the training split."""
        return cls(
            train_vocabulary(source_kind, pairs.sources, size),
            train_vocabulary(target_kind, pairs.targets, size),
        )


def check_one_kind(source_kind: str, target_kind: str) -> None:
    """Refuses a vocabulary that source and target are to share but split in different ways.

    Args:
      source_kind: what `data.source_vocabulary` names.
      target_kind: what `data.target_vocabulary` names.

    Raises:
      DataError: they differ.

    Example:
      >>> check_one_kind("sentencepiece", "sentencepiece")
    """
    if source_kind != target_kind:
        raise DataError(
            "data.shared_vocabulary needs one kind for both sides; data.source_vocabulary is"
            f" {source_kind} and data.target_vocabulary is {target_kind}"
        )


class Task:
    """The splits of a dataset as text and as batches.

    Attributes:
      splits: text pairs by split name; "train" and "dev" are always there. If everything needed is
        in the cache, the text of a split is not read at all.
      vocabularies: trained on the training split only, or those of the run.
      max_tokens: pairs with more tokens on either side, including EOS, are left out of training,
        but not of evaluation; 0 leaves none out.
      vocabulary_size: the maximum number of ids that was requested; 0 for no limit.
    """

    def __init__(
        self,
        splits: Mapping[str, Pairs],
        vocabularies: Vocabularies,
        cache: TokenCache = NO_CACHE,
        *,
        max_tokens: int = 0,
        vocabulary_size: int = 0,
    ):
        self.splits = splits
        self.vocabularies = vocabularies
        self.max_tokens = max_tokens
        self.vocabulary_size = vocabulary_size
        self._cache = cache
        self._tokens: dict[tuple[str, int | None], TokenPairs] = {}
        _check_splits(splits)

    def tokens(self, split: str) -> TokenPairs:
        """A whole split as token ids, encoded on the first call and then kept."""
        return self._encoded(split, None)

    @property
    def training_tokens(self) -> TokenPairs:
        """The pairs that are trained on; its `num_dropped` counts those that were too long."""
        return self._encoded("train", self.max_tokens or None)

    def _encoded(self, split: str, max_tokens: int | None) -> TokenPairs:
        if split not in self.splits:
            raise DataError(f"the data has no split {split!r}; it has {', '.join(self.splits)}")
        if (split, max_tokens) not in self._tokens:
            source, target = self.vocabularies.source, self.vocabularies.target
            self._tokens[split, max_tokens] = self._cache.tokens(
                split, source, target, max_tokens, lambda: self.splits[split]
            )
        return self._tokens[split, max_tokens]

    def not_given_back(self, split: str) -> NotGivenBack:
        """The targets of a split whose ids decode to another text, so no model can output them."""
        return self._cache.not_given_back(
            split,
            self.vocabularies.target,
            lambda: self.tokens(split).target,
            lambda: self.splits[split].targets,
        )

    def training_batches(
        self, num_buckets: int, batch_size: int, seed: int, tokens_per_batch: int = 0
    ) -> TrainingBatches:
        """The training pairs as an endless sequence of batches; see `TrainingBatches`.

        Raises:
          DataError: a pair is longer than tokens_per_batch, if that is not 0.
        """
        tokens = self.training_tokens
        source, target = tokens.source.lengths, tokens.target.lengths
        longest = max(source.max(), target.max())
        if 0 < tokens_per_batch < longest:
            raise DataError(
                f"train.tokens_per_batch is {tokens_per_batch}, and the longest training pair has"
                f" {longest} tokens; set it to {longest} or more, or data.max_tokens to"
                f" {tokens_per_batch} or less"
            )
        buckets = choose_buckets(source, target, num_buckets, batch_size, tokens_per_batch)
        return TrainingBatches(tokens, buckets, batch_size, seed, tokens_per_batch)

    def evaluation(self, split: str, batch_size: int, max_examples: int = 0) -> "EvaluationData":
        """A split for evaluation: all of it, or `max_examples` examples at equal distances.

        The first examples would not do: a split may be sorted, so they can differ from the rest.
        """
        tokens = self.tokens(split)
        count = min(max_examples or len(tokens), len(tokens))
        indices = np.arange(count) * len(tokens) // count
        some = tokens.take(indices)
        batch_size = min(batch_size, count)
        shapes = choose_buckets(
            some.source.lengths, some.target.lengths, _NUM_EVALUATION_SHAPES, batch_size
        )
        return EvaluationData(some, indices, shapes, batch_size, split, self.splits)

    def max_decode_length(self, split: str, limit: int | None = None) -> int:
        """The maximum number of tokens in a hypothesis: 1.5 times the longest target, plus 1.

        No sensible hypothesis reaches it. It depends only on the lengths of the targets in the
        training pairs and in the split; a pair that max_tokens leaves out of training does not
        count. It is never above `limit`, the model's own.
        """
        longest = max(
            int(one.target.lengths.max()) for one in (self.training_tokens, self.tokens(split))
        )
        return min(longest + longest // 2 + 1, limit or sys.maxsize)

    def check_lengths(self, split: str, limit: int | None) -> None:
        """Checks that a model can read the sources and say the targets of a split.

        Args:
          split: for "train", the pairs that are trained on.
          limit: the model's `max_length`; None for no limit.

        Raises:
          DataError: a source or a target has more tokens.
        """
        if limit is None:
            return
        tokens = self.training_tokens if split == "train" else self.tokens(split)
        for side, some in (("source", tokens.source), ("target", tokens.target)):
            place = int(np.argmax(some.lengths))
            if (length := int(some.lengths[place])) > limit:
                raise DataError(
                    f"model.max_length is {limit}, and the longest {side} of split {split!r}, pair"
                    f" {place} of {len(tokens)}, has {length} tokens with its end symbol; set it to"
                    f" {length} or more{', or data.max_tokens lower' if split == 'train' else ''}"
                )


@dataclass(frozen=True)
class EvaluationData:
    """A split as batches of fixed shapes; it can be iterated any number of times.

    Attributes:
      tokens: the examples.
      indices: their positions in the split.
      shapes: of the batches.
      batch_size: rows in every batch.
      split: its name.
      splits: the text of all splits, by name, which is read when it is first needed.
    """

    tokens: TokenPairs
    indices: np.ndarray
    shapes: list[tuple[int, int]]
    batch_size: int
    split: str
    splits: Mapping[str, Pairs]

    def __iter__(self) -> Iterator[tuple[np.ndarray, Batch]]:
        return evaluation_batches(self.tokens, self.shapes, self.batch_size)

    @property
    def sources(self) -> list[str]:
        """The source of each example."""
        sources = self.splits[self.split].sources
        return [sources[index] for index in self.indices]

    @property
    def references(self) -> list[tuple[str, ...]]:
        """Every accepted target of each example."""
        references = self.splits[self.split].references
        return [references[index] for index in self.indices]


def make_task(
    splits: Mapping[str, Pairs],
    *,
    source_vocabulary: str = "characters",
    target_vocabulary: str = "characters",
    shared_vocabulary: bool = False,
    vocabulary_size: int = 0,
    max_tokens: int = 0,
    vocabularies: Vocabularies | None = None,
) -> Task:
    """Makes a task of splits, with their vocabularies.

    Args:
      splits: of `s2s_jax.data.catalog.load_splits`, or anybody's.
      source_vocabulary: "characters", "whitespace" or "sentencepiece".
      target_vocabulary: likewise.
      shared_vocabulary: whether both sides have one vocabulary, trained on the sources and then the
        targets; it needs one kind.
      vocabulary_size: the maximum number of ids of each; required for sentencepiece.
      max_tokens: see `Task`.
      vocabularies: those of an existing run; None trains them.

    Raises:
      DataError: the data cannot be used; the message says in one line why.
    """
    _check_splits(splits)
    if shared_vocabulary:
        check_one_kind(source_vocabulary, target_vocabulary)
        if vocabularies is not None and not vocabularies.are_one:
            raise DataError(
                "data.shared_vocabulary is True, and source and target of the vocabularies given"
                " differ"
            )
    cache = TokenCache(splits.derived) if isinstance(splits, PreparedSplits) else NO_CACHE
    if vocabularies is None and shared_vocabulary:
        both = cache.vocabulary(
            "shared",
            source_vocabulary,
            vocabulary_size,
            lambda: splits["train"].sources + splits["train"].targets,
        )
        vocabularies = Vocabularies(both, both)
    elif vocabularies is None:
        vocabularies = Vocabularies(
            cache.vocabulary(
                "source", source_vocabulary, vocabulary_size, lambda: splits["train"].sources
            ),
            cache.vocabulary(
                "target", target_vocabulary, vocabulary_size, lambda: splits["train"].targets
            ),
        )
    return Task(splits, vocabularies, cache, max_tokens=max_tokens, vocabulary_size=vocabulary_size)


def _check_splits(splits: Mapping[str, Pairs]) -> None:
    """Refuses data without a split for training, or for evaluation during training."""
    for split in ("train", "dev"):
        if split not in splits:
            raise DataError(f"the data has no {split} split; it has {', '.join(splits) or 'none'}")
