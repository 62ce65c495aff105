"""The scores of single test items, computed from the hypotheses that a run has saved.

A corpus score is a function f of sums over items: errors and symbols, matching n-grams and n-grams
in the hypotheses. The contribution of item i is

    x_i = f(S) + (m - 1) * (mean_j f(S - s_j) - f(S - s_i)),   S = sum_i s_i

which linearises the score by leaving out one item at a time; the mean of the m values is f(S)
itself. If the score is a mean, such as the share of exact hypotheses, x_i is the item's own value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import read_jsonl
from s2s_jax.lab.base.metric_catalog import CATALOG
from s2s_jax.lab.evaluation.scores import EXACT_MATCH, References, Score, Split, ratio

_PREDICTION = {"source": str, "references": [str], "hypothesis": str}
"""The shape of a line of predictions; see `s2s_jax.data.json_shapes`."""

_TOLERANCE = 2e-5
"""Relative; accuracies are computed from sums in float32."""


@dataclass(frozen=True)
class Predictions:
    """A run's hypotheses of one split.

    Attributes:
      sources: one text per item.
      references: the accepted texts of each item; accuracies are computed against the first.
      hypotheses: one text per item.
    """

    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    hypotheses: tuple[str, ...]

    def same_items(self, other: Predictions) -> bool:
        """Whether both have the same test items in the same order."""
        return self.sources == other.sources and self.references == other.references


def read_predictions(path: Path) -> Predictions:
    """Reads `predictions_<split>.jsonl`.

    Raises:
      LabError: it is missing, truncated, or another kind of file.
    """
    lines, num_bad = read_jsonl(path, _PREDICTION)
    found = [(one["source"], tuple(one["references"]), one["hypothesis"]) for one in lines]
    if num_bad and not found:
        raise LabError(f"{path} is not a predictions file")
    if num_bad or not found or not all(texts for _, texts, _ in found):
        raise LabError(f"{path} is incomplete or damaged")
    sources, references, hypotheses = zip(*found, strict=True)
    return Predictions(sources, references, hypotheses)


def item_scores(
    predictions: Predictions, metric: str, value: float, scores: Sequence[Score] = ()
) -> np.ndarray | None:
    """The contribution of each item to a score.

    Args:
      predictions: of the split that the score was computed on.
      metric: its name, such as "test/own/wer"; the last part identifies the score.
      value: the run's recorded value, which the items must reproduce.
      scores: the scores of the run's scorer.

    Returns:
      [items], whose mean is the value; None if the score is not computed from hypotheses (it uses
      gold prefixes, for example) or if the items give another value.

    Raises:
      LabError: the statistics of a score do not have a usable shape.
    """
    scope, _, name = metric.rpartition("/")
    if not scope.endswith("own"):
        return None
    for one in (*scores, *_OF_ANY_RUN):
        if one.metric.name != name:
            continue
        statistics = one.items(predictions.hypotheses, predictions.references)
        found = float(one.from_sums(statistics.sum(0)))
        if abs(found - value) <= _TOLERANCE * max(abs(value), 1e-3):
            return linearised(statistics, one.from_sums)
    return None


def right_by_position(
    predictions: Predictions, token_accuracy: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """How many of the model's own tokens are right at each target position, including the end.

    Args:
      predictions: of a split.
      token_accuracy: the run's recorded value with own prefixes; it shows whether the tokens are
        words or characters.

    Returns:
      [positions] numbers of right tokens and [positions] numbers of targets that reach the
      position; None if neither words nor characters give that value.
    """
    # If every token is right, both readings give that value; then spaces decide.
    has_spaces = any(" " in texts[0] for texts in predictions.references)
    for split in (str.split, list) if has_spaces else (list, str.split):
        pairs = [
            (split(said), split(texts[0]))
            for said, texts in zip(predictions.hypotheses, predictions.references, strict=True)
        ]
        length = 1 + max(len(gold) for _, gold in pairs)
        right, count = np.zeros(length), np.zeros(length)
        for said, gold in pairs:
            count[: len(gold) + 1] += 1
            places = [i for i, (a, b) in enumerate(zip(said, gold, strict=False)) if a == b]
            right[places + ([len(gold)] if len(said) == len(gold) else [])] += 1
        if abs(right.sum() / count.sum() - token_accuracy) <= _TOLERANCE:
            return right, count
    return None


def linearised(statistics: np.ndarray, from_sums: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """[items] values whose mean is the score of the summed [items, k] statistics; see above.

    A single item gets the score itself, since no items are left without it.

    Args:
      statistics: [items, k].
      from_sums: [..., k] sums -> [...] scores.
    """
    total = statistics.sum(0)
    if len(statistics) == 1:
        return np.reshape(from_sums(total), 1)
    without = from_sums(total - statistics)
    return from_sums(total) + (len(statistics) - 1) * (without.mean() - without)


def _accuracy_statistics(
    split: Split, hypotheses: Sequence[str], references: References
) -> np.ndarray:
    """[items, (tokens right at their position, tokens in the first reference)], including ends."""
    rows = []
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        said, gold = split(hypothesis), split(texts[0])
        right = sum(a == b for a, b in zip(said, gold, strict=False)) + (len(said) == len(gold))
        rows.append((right, len(gold) + 1))
    return np.array(rows, float)


_OF_ANY_RUN = (
    EXACT_MATCH,
    # The files hold texts, not tokens; the reading that gives the run's recorded value is right.
    *(
        Score(CATALOG.describe("token_accuracy"), partial(_accuracy_statistics, split), ratio)
        for split in (str.split, list)
    ),
)
"""Scores that every run has besides those of its scorer."""
