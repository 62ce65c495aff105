"""The scores of single test items, from the hypotheses that a run has left.

A corpus score is a function f of sums over items: errors and symbols, n-grams found and made. What
item i adds to it is

    x_i = f(S) + (m - 1) * (mean_j f(S - s_j) - f(S - s_i)),   S = sum_i s_i

the score linearised by leaving one item out; the mean of the m values is f(S) itself. For a mean,
such as the share of exact hypotheses, x_i is the item's own value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import read_jsonl
from s2s_jax.lab.evaluation.scores import make_bleu, reference_columns

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
    predictions: Predictions, metric: str, value: float, bleu_tokenize: str = "13a"
) -> np.ndarray | None:
    """What each item adds to a score.

    Args:
      predictions: of the split that the score is of.
      metric: its name, such as "test/own/wer"; the last part says what it is.
      value: the run's own figure, which the items must give back.
      bleu_tokenize: the run's.

    Returns:
      [items], with the value as their mean; None where the score is not one of hypotheses (it is
      of gold prefixes, say) or where the items give another value.

    Raises:
      LabError: the tokenizer cannot be had here.
    """
    scope, _, name = metric.rpartition("/")
    if not scope.endswith("own"):
        return None
    makers = _STATISTICS.get(name, ())
    if name == "bleu":
        makers = (partial(_bleu_statistics, make_bleu(bleu_tokenize)),)
    for make in makers:
        statistics, score = make(predictions.hypotheses, predictions.references)
        if abs(float(score(statistics.sum(0))) - value) <= _TOLERANCE * max(abs(value), 1e-3):
            return linearised(statistics, score)
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


Score = Callable[[np.ndarray], np.ndarray]
"""[..., statistics] sums -> [...] scores."""


def linearised(statistics: np.ndarray, score: Score) -> np.ndarray:
    """[items] values whose mean is the score of the summed [items, statistics]; see above.

    One item alone has the score itself: nothing is left to score without it.
    """
    total = statistics.sum(0)
    if len(statistics) == 1:
        return np.reshape(score(total), 1)
    without = score(total - statistics)
    return score(total) + (len(statistics) - 1) * (without.mean() - without)


def _error_statistics(split: Callable[[str], Sequence[str]], hypotheses, references):
    """[items, (errors, symbols of the nearest reference)], as in `scores.error_rates`."""
    from rapidfuzz.distance import Levenshtein

    rows = []
    for hypothesis, accepted in zip(hypotheses, references, strict=True):
        said = split(hypothesis)
        distance, length = min(
            (Levenshtein.distance(said, split(text)), -len(split(text))) for text in accepted
        )
        rows.append((distance, -length))
    return np.array(rows, float), lambda sums: 100 * sums[..., 0] / np.maximum(sums[..., 1], 1)


def _inexact_statistics(hypotheses, references):
    """[items, (is none of its references, 1)] of the word error rate."""
    pairs = zip(hypotheses, references, strict=True)
    wrong = [
        (hypothesis.split() not in [text.split() for text in texts], 1.0)
        for hypothesis, texts in pairs
    ]
    return np.array(wrong, float), lambda sums: 100 * sums[..., 0] / sums[..., 1]


def _exact_statistics(hypotheses, references):
    """[items, (is the first reference, 1)]."""
    pairs = zip(hypotheses, references, strict=True)
    right = [(hypothesis == texts[0], 1.0) for hypothesis, texts in pairs]
    return np.array(right, float), lambda sums: sums[..., 0] / sums[..., 1]


def _accuracy_statistics(split: Callable[[str], Sequence[str]], hypotheses, references):
    """[items, (tokens right at their position, tokens of the first reference)], ends counted."""
    rows = []
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        said, gold = split(hypothesis), split(texts[0])
        right = sum(a == b for a, b in zip(said, gold, strict=False)) + (len(said) == len(gold))
        rows.append((right, len(gold) + 1))
    return np.array(rows, float), lambda sums: sums[..., 0] / sums[..., 1]


def _bleu_statistics(bleu, hypotheses, references):
    """[items, (length, reference length, 4 n-grams found, 4 made)], as sacrebleu counts them."""
    columns = reference_columns(references)
    counts: Any = bleu._extract_corpus_statistics(list(hypotheses), columns)
    return np.array(counts, float), _bleu


def _bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU with sacrebleu's default smoothing: the n-th order without a match counts 2^-n.

    Post (2018), "A call for clarity in reporting BLEU scores".
    """
    length, reference, found, made = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    halves = np.cumsum((found == 0) & (made > 0), axis=-1)
    smoothed = np.where(found > 0, found, 0.5**halves)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(smoothed / made).mean(-1)
        brevity = np.minimum(0, 1 - reference / length)
        return np.where((found.sum(-1) > 0) & (made > 0).all(-1), 100 * np.exp(logs + brevity), 0.0)


def _chrf_statistics(hypotheses, references):
    """[items, 6 * (n-grams made, of the reference, found)], as sacrebleu counts them."""
    from sacrebleu.metrics.chrf import CHRF

    counts: Any = CHRF()._extract_corpus_statistics(list(hypotheses), reference_columns(references))
    return np.array(counts, float), _chrf


def _chrf(sums: np.ndarray) -> np.ndarray:
    """chrF2 over the orders that both sides have: 100 * 5 P R / (4 P + R).

    Popović (2015), "chrF: character n-gram F-score for automatic MT evaluation".
    """
    made, gold, found = (sums[..., part::3] for part in range(3))
    both = (made > 0) & (gold > 0)
    orders = np.maximum(both.sum(-1), 1)
    precision = (np.where(both, found, 0) / np.maximum(made, 1)).sum(-1) / orders
    recall = (np.where(both, found, 0) / np.maximum(gold, 1)).sum(-1) / orders
    return 100 * 5 * precision * recall / np.maximum(4 * precision + recall, 1e-30)


def _of(function: Callable[..., Any], split: Callable[[str], Sequence[str]]) -> Callable[..., Any]:
    return lambda hypotheses, references: function(split, hypotheses, references)


_STATISTICS: Mapping[str, Iterable[Callable[..., tuple[np.ndarray, Score]]]] = {
    "wer": (_inexact_statistics,),
    "per": (_of(_error_statistics, str.split),),
    "ser": (_of(_error_statistics, str.split),),
    "cer": (_of(_error_statistics, list),),
    "chrf": (_chrf_statistics,),
    "exact_match": (_exact_statistics,),
    # The files hold texts and not tokens; whichever reading gives the run's own figure is right.
    "token_accuracy": (_of(_accuracy_statistics, str.split), _of(_accuracy_statistics, list)),
}
