"""Every metric once: what it is called, its unit, which way is better."""

import math
from dataclasses import dataclass, replace

NO_INTERVAL = "\N{EN DASH}"
"""Stands where one seed, or none, gives no interval: never a 0."""


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
      label: what a table's column is called, without its unit and prefixes.
      unit: "%", "nats/token" or "".
      scale: value shown / value stored.
      digits: after the point.
      long_label: what an axis is called; "" for the label.
      prefixes: "gold" or "own", what the decoder was fed; "" where it is of both or neither.
      better: "higher" or "lower"; "" where it is not known.
    """

    label: str
    unit: str = ""
    scale: float = 1.0
    digits: int = 2
    long_label: str = ""
    prefixes: str = ""
    better: str = ""

    def show(self, value: float, signed: bool = False) -> str:
        """A stored value as it is shown, a dash for NaN."""
        if math.isnan(value):
            return NO_INTERVAL
        return f"{value * self.scale:{'+' if signed else ''}.{self.digits}f}"

    @property
    def name(self) -> str:
        """The label, with the prefixes where it is of both kinds: "own accuracy"."""
        return f"{self.prefixes} {self.label}".strip() if self.label == "accuracy" else self.label

    @property
    def difference_unit(self) -> str:
        """The unit of a difference: that of percentages are points."""
        return "points" if self.unit == "%" else self.unit

    @property
    def label_with_unit(self) -> str:
        """Such as "WER %"."""
        return f"{self.label} {self.unit}" if self.unit == "%" else self.label

    @property
    def axis_label(self) -> str:
        """Such as "word error rate (%)"."""
        return (self.long_label or self.label) + (f" ({self.unit})" if self.unit else "")


_SHOWN = {
    "nll": Metric(
        "NLL", "nats/token", digits=3, long_label="negative log-likelihood", better="lower"
    ),
    "token_accuracy": Metric("accuracy", "%", 100, long_label="token accuracy", better="higher"),
    "exact_match": Metric("exact", "%", 100, long_label="exact match", better="higher"),
    # Not better when lower: it also narrows where gold prefixes lose.
    "gap": Metric("gap", "%", 100, long_label="accuracy gap"),
    "wer": Metric("WER", "%", long_label="word error rate", better="lower"),
    "per": Metric("PER", "%", long_label="phoneme error rate", better="lower"),
    "ser": Metric("SER", "%", long_label="symbol error rate", better="lower"),
    "cer": Metric("CER", "%", long_label="character error rate", better="lower"),
    "bleu": Metric("BLEU", better="higher"),
    "chrf": Metric("chrF", better="higher"),
    "kl_to_truth": Metric(
        "KL to truth", "nats", digits=4, long_label="KL from the truth", better="lower"
    ),
    "kl_predicted": Metric("KL predicted", "nats", digits=4),
}


def describe(name: str) -> Metric:
    """How a metric is shown.

    Args:
      name: such as "test/own/wer".

    Example:
      >>> describe("test/own/wer").axis_label
      'word error rate (%)'
    """
    *scope, last = name.split("/")
    prefixes = next((one for one in scope if one in ("gold", "own")), "")
    shown = _SHOWN.get(last)
    if shown is None:
        return Metric(name, digits=4)
    return replace(shown, prefixes=prefixes)
