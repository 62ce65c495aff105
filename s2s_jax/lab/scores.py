"""Scores of decoded text against any of several references."""

from collections.abc import Callable, Sequence
from typing import Any

from s2s_jax.lab.errors import LabError
from s2s_jax.names import nearest

References = Sequence[tuple[str, ...]]


def error_rates(
    hypotheses: Sequence[str], references: References, split: Callable[[str], Sequence[str]]
) -> tuple[float, float]:
    """Edit errors a hundred reference symbols, and the share of hypotheses that are not exact.

        rate = 100 * sum_i min_r Lev(h_i, r) / sum_i |r_i|,   r_i the nearest reference of i
        inexact = 100 * mean_i [h_i is none of its references]

    Args:
      hypotheses: one text an example.
      references: every accepted text of each example; among equally near ones the longest counts.
      split: text -> symbols.

    Returns:
      (rate, inexact), both in percent.

    Example:
      >>> error_rates(["a b", "c"], [("a b",), ("c d", "e")], str.split)
      (25.0, 50.0)
    """
    from rapidfuzz.distance import Levenshtein

    errors = symbols = inexact = 0
    for hypothesis, accepted in zip(hypotheses, references, strict=True):
        said = split(hypothesis)
        distances = ((Levenshtein.distance(said, split(text)), text) for text in accepted)
        distance, length = min((d, -len(split(text))) for d, text in distances)
        errors += distance
        symbols -= length
        inexact += distance > 0
    return 100 * errors / max(symbols, 1), 100 * inexact / max(len(hypotheses), 1)


def phoneme_scores(hypotheses: Sequence[str], references: References) -> dict[str, float]:
    """Phoneme error rate "per" and word error rate "wer", in percent, against any reference."""
    per, wer = error_rates(hypotheses, references, str.split)
    return {"wer": wer, "per": per}


def character_scores(hypotheses: Sequence[str], references: References) -> dict[str, float]:
    """Character error rate "cer", in percent."""
    return {"cer": error_rates(hypotheses, references, list)[0]}


def symbol_scores(hypotheses: Sequence[str], references: References) -> dict[str, float]:
    """Symbol error rate "ser", in percent, over symbols separated by spaces."""
    return {"ser": error_rates(hypotheses, references, str.split)[0]}


def translation_scores(hypotheses: Sequence[str], references: References) -> dict[str, float]:
    """BLEU and chrF by sacrebleu with its defaults; see `signature` for what those are.

    Post (2018), "A call for clarity in reporting BLEU scores".
    """
    bleu, chrf = _sacrebleu()
    width = max(len(accepted) for accepted in references)
    # One column a reference; sacrebleu takes None where an example has fewer.
    columns: list[Any] = [
        [accepted[i] if i < len(accepted) else None for accepted in references]
        for i in range(width)
    ]
    return {
        "bleu": bleu.corpus_score(list(hypotheses), columns).score,
        "chrf": chrf.corpus_score(list(hypotheses), columns).score,
    }


def signature(kind: str) -> str:
    """How the scores of a kind are computed, to be kept beside them."""
    if kind == "translation":
        return "; ".join(str(metric.get_signature()) for metric in _sacrebleu())
    return f"{kind}: greedy, any reference, Levenshtein distance"


SCORERS: dict[str, Callable[[Sequence[str], References], dict[str, float]]] = {
    "phonemes": phoneme_scores,
    "characters": character_scores,
    "symbols": symbol_scores,
    "translation": translation_scores,
}
"""Scorers by name; the first score of each selects the best checkpoint."""

HIGHER_IS_BETTER = {"bleu", "chrf"}


def find_scorer(kind: str) -> Callable[[Sequence[str], References], dict[str, float]]:
    """The scorer of a kind.

    Raises:
      LabError: there is none; the message names the nearest.
    """
    if kind not in SCORERS:
        raise LabError(f"eval.scores is {kind!r}; {nearest(kind, SCORERS)}")
    return SCORERS[kind]


def _sacrebleu():
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = BLEU(), CHRF()
    # A signature is known only once something was scored.
    for metric in (bleu, chrf):
        metric.corpus_score(["a"], [["a"]])
    return bleu, chrf
