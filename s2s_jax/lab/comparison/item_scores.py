"""The scores of single test items, from the hypotheses that a run has left.

A corpus score is a function f of sums over items: errors and symbols, n-grams found and made. What
item i adds to it is

    x_i = f(S) + (m - 1) * (mean_j f(S - s_j) - f(S - s_i)),   S = sum_i s_i

the score linearised by leaving one item out; the mean of the m values is f(S) itself. For a mean,
such as the share of exact hypotheses, x_i is the item's own value.
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
"""Relative; accuracies come from sums in float32."""


@dataclass(frozen=True)
class Predictions:
    """A run's hypotheses of one split.

    Attributes:
      sources: a text an item.
      references: the accepted texts of each; the first is the target that accuracies hold it to.
      hypotheses: a text an item.
    """

    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    hypotheses: tuple[str, ...]

    def same_items(self, other: Predictions) -> bool:
        """Whether both are of the same test items in the same order."""
        return self.sources == other.sources and self.references == other.references


def read_predictions(path: Path) -> Predictions:
    """Reads `predictions_<split>.jsonl`.

    Raises:
      LabError: it is missing, cut short, or another kind of file.
    """
    lines, num_bad = read_jsonl(path, _PREDICTION)
    found = [(one["source"], tuple(one["references"]), one["hypothesis"]) for one in lines]
    if num_bad and not found:
        raise LabError(f"{path} is no file of predictions")
    if num_bad or not found or not all(texts for _, texts, _ in found):
        raise LabError(f"{path} is not whole")
    sources, references, hypotheses = zip(*found, strict=True)
    return Predictions(sources, references, hypotheses)


def item_scores(
    predictions: Predictions, metric: str, value: float, scores: Sequence[Score] = ()
) -> np.ndarray | None:
    """What each item adds to a score.

    Args:
      predictions: of the split that the score is of.
      metric: its name, such as "test/own/wer"; the last part says what it is.
      value: the run's own figure, which the items must give back.
      scores: of the run's scorer.

    Returns:
      [items], with the value as their mean; None where the score is not one of hypotheses (it is
      of gold prefixes, say) or where the items give another value.

    Raises:
      LabError: the statistics of a score are of no shape that can be used.
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
    """How many of the model's own tokens are right at each position of the target, its end counted.

    Args:
      predictions: of a split.
      token_accuracy: the run's own figure with own prefixes, which tells what the tokens are.

    Returns:
      [positions] right tokens and [positions] targets that long; None where neither words nor
      characters give that figure.
    """
    # Where all is right both give that figure; then spaces tell.
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

    One item alone has the score itself: nothing is left to score without it.

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
    """[items, (tokens right at their position, tokens of the first reference)], ends counted."""
    rows = []
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        said, gold = split(hypothesis), split(texts[0])
        right = sum(a == b for a, b in zip(said, gold, strict=False)) + (len(said) == len(gold))
        rows.append((right, len(gold) + 1))
    return np.array(rows, float)


_OF_ANY_RUN = (
    EXACT_MATCH,
    # The files hold texts and not tokens; whichever reading gives the run's own figure is right.
    *(
        Score(CATALOG.describe("token_accuracy"), partial(_accuracy_statistics, split), ratio)
        for split in (str.split, list)
    ),
)
"""Scores that a run has beside those of its scorer."""
