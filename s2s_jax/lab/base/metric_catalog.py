"""The catalogue of metrics: their labels, their units, and which direction is better.

A metric is stored under a name such as "test/own/wer": the split, the prefixes that the decoder was
fed, and the metric's own name, which is looked up here. All code that shows a metric uses this.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

NO_INTERVAL = "\N{EN DASH}"
"""Shown instead of an interval if there are too few seeds for one; never a 0."""

ACCURACIES = ("gold/token_accuracy", "own/token_accuracy")
"""The same measure with gold and with own prefixes, which the lab compares."""

GAP = "gap"
"""The gold minus the own accuracy of `ACCURACIES`."""

_CURVE = re.compile(r"_by_(position|distance|length)$")


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
      name: the last part of the name that it is stored under.
      label: the label of a table's column, without its unit and prefixes.
      unit: "%", "nats/token" or "".
      scale: value shown / value stored.
      digits: number of digits after the decimal point.
      better: "higher" or "lower"; "" if neither is better.
      long_label: the label of an axis; "" to use `label`.
      columns: for a metric that is not a score of text, the prefixes with which it appears in a
        comparison's table: "gold", "own", or "" for both together. A score always has one column,
        with own prefixes.
      headline_rank: for a metric that is not a score of text, its rank among the headlines, which
        come after all scores, lowest first; None if it is not a headline.
      prefixes: "gold" or "own", the prefixes that the decoder was fed; "" for both or neither.

    Raises:
      ValueError: an attribute is invalid.

    Example:
      >>> Metric("ver", "VER", "%", better="lower").text(12.345)
      '12.35 %'
    """

    name: str
    label: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 2
    better: str = ""
    long_label: str = ""
    columns: tuple[str, ...] = ()
    headline_rank: int | None = None
    prefixes: str = ""

    def __post_init__(self):
        if not self.name or not self.label:
            raise ValueError("a metric needs a name and a label")
        if self.better not in ("higher", "lower", ""):
            raise ValueError(f'{self.name}: better is {self.better!r}, not "higher" or "lower"')
        if not 0 <= self.digits <= 12:
            raise ValueError(f"{self.name}: digits is {self.digits}, not in [0, 12]")
        if not math.isfinite(self.scale) or self.scale <= 0:
            raise ValueError(f"{self.name}: scale is {self.scale}, not a positive number")

    def show(self, value: float, signed: bool = False) -> str:
        """A stored value as shown, without its unit; a dash for NaN."""
        if math.isnan(value):
            return NO_INTERVAL
        return f"{value * self.scale:{'+' if signed else ''},.{self.digits}f}"

    def text(self, value: float) -> str:
        """A stored value as shown, with its unit: "84.70 %"."""
        return f"{self.show(value)} {self.unit}" if self.unit else self.show(value)

    @property
    def title(self) -> str:
        """The label, with the prefixes if tables show both kinds: "own accuracy"."""
        return f"{self.prefixes} {self.label}".strip() if len(self.columns) > 1 else self.label

    @property
    def difference_unit(self) -> str:
        """The unit of a difference; for percentages this is points."""
        return "points" if self.unit == "%" else self.unit

    @property
    def label_with_unit(self) -> str:
        """Such as "WER %"."""
        return f"{self.label} {self.unit}" if self.unit == "%" else self.label

    @property
    def axis_label(self) -> str:
        """Such as "word error rate (%)"."""
        return (self.long_label or self.label) + (f" ({self.unit})" if self.unit else "")

    def to_dict(self) -> dict[str, Any]:
        """The attributes that `result.json` keeps."""
        return {key: getattr(self, key) for key in _KEPT}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Metric:
        """The inverse of `to_dict`.

        Raises:
          ValueError: a value is invalid.
        """
        return cls(**{key: kept[key] for key in _KEPT})


_KEPT = ("name", "label", "unit", "scale", "digits", "better", "long_label")


@dataclass(frozen=True)
class Catalog:
    """How every metric is shown.

    Attributes:
      scores: of hypotheses against references, with own prefixes; the first that is available is
        the headline.
      measures: all other metrics.

    Example:
      >>> CATALOG.describe("test/own/wer").axis_label
      'word error rate (%)'
    """

    scores: tuple[Metric, ...]
    measures: tuple[Metric, ...]

    def with_scores(self, scores: Iterable[Metric]) -> Catalog:
        """The catalogue with a scorer's own scores, in their order, before the others."""
        own = tuple({one.name: one for one in reversed(tuple(scores))}.values())[::-1]
        names = {one.name for one in own}
        return replace(self, scores=(*own, *(one for one in self.scores if one.name not in names)))

    def describe(self, name: str) -> Metric:
        """How a metric is shown; a curve is shown like its metric.

        Args:
          name: a name such as "test/own/wer" or "own/hazard_by_position".
        """
        *scope, last = name.split("/")
        known = {one.name: one for one in (*self.scores, *self.measures)}
        shown = known.get(last) or known.get(_CURVE.sub("", last))
        if shown is None:
            return Metric(name or "?", name or "?", digits=4)
        prefixes = next((one for one in scope if one in ("gold", "own")), "")
        return replace(shown, prefixes=prefixes)

    def is_score(self, name: str) -> bool:
        """Whether a full name belongs to one of the scores."""
        return name.rpartition("/")[2] in {one.name for one in self.scores}

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores' names without the split: "own/wer" and so on."""
        return tuple(f"own/{one.name}" for one in self.scores)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that a comparison can have: gold prefixes, own prefixes, the gap."""
        names = {
            prefixes: [one.name for one in self.measures if prefixes in one.columns]
            for prefixes in ("gold", "own", "")
        }
        gold, own = (tuple(f"{one}/{name}" for name in names[one]) for one in ("gold", "own"))
        return (*gold, *own, *self.score_names, *names[""])

    @property
    def headlines(self) -> tuple[str, ...]:
        """The metrics to judge runs by, in order of preference: "own/wer", ..., "gold/nll"."""
        ranked = [(one.headline_rank, one) for one in self.measures]
        found = sorted(
            ((rank, one) for rank, one in ranked if rank is not None), key=lambda pair: pair[0]
        )
        return (*self.score_names, *(f"{one.columns[0]}/{one.name}" for _, one in found))

    def headline(self, names: Iterable[str]) -> str | None:
        """The full name of the metric to judge runs by; None if none of `headlines` is available.

        Args:
          names: the available full names.

        Example:
          >>> CATALOG.headline(["eval/gold/nll", "eval/own/exact_match", "eval/own/ser"])
          'eval/own/ser'
        """
        return next(iter(ending_with(names, self.headlines)), None)


def ending_with(names: Iterable[str], ends: Iterable[str]) -> list[str]:
    """The full names that end with one of the given names, in the order of the latter.

    Example:
      >>> ending_with(["test/own/per", "test/gap", "test/own/wer"], ["own/wer", "own/per"])
      ['test/own/wer', 'test/own/per']
    """
    names = list(names)
    return [name for end in ends for name in names if f"/{name}".endswith(f"/{end}")]


def _percentage(name: str, label: str, **more: Any) -> Metric:
    """A metric that is stored as a fraction and shown in percent."""
    return Metric(name, label, "%", 100, **more)


CATALOG = Catalog(
    scores=(
        Metric("wer", "WER", "%", better="lower", long_label="word error rate"),
        Metric("per", "PER", "%", better="lower", long_label="phoneme error rate"),
        Metric("ser", "SER", "%", better="lower", long_label="symbol error rate"),
        Metric("cer", "CER", "%", better="lower", long_label="character error rate"),
        Metric("bleu", "BLEU", better="higher"),
        Metric("chrf", "chrF", better="higher"),
    ),
    measures=(
        Metric(
            "nll", "NLL", "nats/token", digits=3, better="lower",
            long_label="negative log-likelihood", columns=("gold",), headline_rank=2,
        ),
        _percentage(
            "token_accuracy", "accuracy", better="higher",
            long_label="token accuracy", columns=("gold", "own"),
        ),
        _percentage(
            "exact_match", "exact", better="higher",
            long_label="exact match", columns=("own",), headline_rank=1,
        ),
        # Lower is not better: the gap also narrows if the gold accuracy falls.
        _percentage(GAP, "gap", long_label="accuracy gap", columns=("",)),
        # For training.
        Metric("loss", "loss", digits=4, better="lower"),
        Metric("teacher_prob", "teacher_prob", digits=3),
        # A probability, like the teacher_prob that it is compared with.
        Metric("gold_share", "share of gold", digits=3, long_label="realised share of gold"),
        _percentage("fed_error_rate", "fed errors", long_label="wrong tokens among those fed"),
        Metric("gradient_norm", "gradient norm", digits=4),
        Metric("tokens_per_second", "tokens per second", "tokens/s", digits=0, better="higher"),
        Metric("target_tokens", "target tokens", "tokens", digits=0),
        Metric("seconds", "seconds", "s", digits=1),
        Metric("compile_seconds", "compile seconds", "s", digits=1),
        # If the true distribution is known.
        Metric(
            "kl_to_truth", "KL to truth", "nats", digits=4, better="lower",
            long_label="KL from the truth",
        ),
        Metric("kl_predicted", "KL predicted", "nats", digits=4),
        Metric("mass_outside", "mass outside", digits=4, long_label="probability of no symbol"),
        Metric("kl", "KL to the truth", "nats", digits=4, better="lower"),
        # For exposure bias.
        _percentage("accuracy", "accuracy", better="higher", long_label="token accuracy"),
        _percentage("token_accuracy_macro", "mean of sequences", better="higher"),
        _percentage("gap_macro", "gap of sequences"),
        _percentage("hazard", "hazard", better="lower", long_label="first-error hazard"),
        _percentage("post_error_rate", "post-error", better="lower", long_label="post-error rate"),
        Metric("amplification", "amplification", "x", digits=3),
        Metric("gold_cost", "gold edit-oracle cost", "nats", digits=3),
        Metric("own_cost", "own edit-oracle cost", "nats", digits=3),
        Metric("regret", "edit-oracle regret", "nats", digits=3),
        Metric("accumulated", "AccErr", digits=3, long_label="accumulated error"),
        Metric("excess_percent", "ExAccErr", "%", long_label="excess accumulated error"),
        Metric("half_life", "half-life", "tokens", digits=3),
        Metric("nll_increase", "NLL +", "nats", digits=3, long_label="NLL increase"),
        Metric("length_ratio", "length ratio", digits=3),
        _percentage("no_eos_rate", "no EOS"),
        _percentage("repetition", "repetition"),
        Metric("mmd", "MMD\N{SUPERSCRIPT TWO}", digits=6),
        Metric("p_value", "p", digits=3),
        Metric("eb_c_total_variation", "EB-C (TV)", digits=3),
        Metric("eb_c_jensen_shannon", "EB-C (JS)", digits=3),
    ),
)  # fmt: skip
"""Everything that the lab measures; a run's `Scorer` may add its own scores."""
