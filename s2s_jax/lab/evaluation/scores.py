"""Scores of decoded text against one or more references.

A custom score needs a `Metric` and the statistics of each item; a `Scorer` has one or more scores:

    def final_errors(hypotheses, references):
        pairs = zip(hypotheses, references, strict=True)
        return np.array([(said[-1:] != texts[0][-1:], 1) for said, texts in pairs], float)

    metric = Metric("final", "final symbol", "%", better="lower")
    scorer = Scorer("final", (Score(metric, final_errors, percentage),))
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import CATALOG, Catalog
from s2s_jax.lab.base.metric_catalog import Metric as Metric
from s2s_jax.lab.config.user_code import ENVIRONMENT, Modules, any_error_in_a_line
from s2s_jax.names import did_you_mean

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

References = Sequence[tuple[str, ...]]

Split = Callable[[str], Sequence[str]]
"""Splits a text into its symbols."""


@dataclass(frozen=True)
class Score:
    """A score of hypotheses: statistics that are summed over items, and a function of the sums.

        score = from_sums(sum_i statistics_i)

    From the items' statistics, `s2s compare` estimates how much of a difference is noise due to the
    choice of test items.

    Attributes:
      metric: its name and how it is shown.
      statistics: (hypotheses, references) -> [items, k].
      from_sums: [..., k] -> [...], the stored score; what is shown is `metric.scale` times that.
      published: (hypotheses, references) -> the score from a published implementation, if ours has
        to be bit-identical to it; None for the formula above.

    Example:
      >>> import numpy as np
      >>> def lengths(hypotheses, references):
      ...     return np.array([(len(text), 1.0) for text in hypotheses])
      >>> Score(Metric("length", "length"), lengths, ratio)(["ab", "abcd"], [("a",), ("b",)])
      3.0
    """

    metric: Metric
    statistics: Callable[[Sequence[str], References], np.ndarray]
    from_sums: Callable[[np.ndarray], np.ndarray]
    published: Callable[[Sequence[str], References], float] | None = None

    def __call__(self, hypotheses: Sequence[str], references: References) -> float:
        """The stored score of a corpus."""
        if self.published is not None:
            return self.published(hypotheses, references)
        found = np.asarray(self.from_sums(self.items(hypotheses, references).sum(0)))
        if found.shape != ():
            raise LabError(
                f"score {self.metric.name!r}: from_sums gives shape {found.shape} for the sums of"
                " one corpus; it must give one number"
            )
        return float(found)

    def items(self, hypotheses: Sequence[str], references: References) -> np.ndarray:
        """[items, k] statistics.

        Raises:
          LabError: they have another shape.
        """
        found = np.asarray(self.statistics(hypotheses, references), float)
        if found.ndim != 2 or len(found) != len(hypotheses):
            raise LabError(
                f"score {self.metric.name!r}: the statistics of {len(hypotheses)} items have"
                f" shape {found.shape}; they must be [items, k]"
            )
        return found


@dataclass(frozen=True)
class Scorer:
    """Scores the hypotheses of a run; `make_scorer` makes the built-in scorers.

    Attributes:
      name: its name.
      scores: the first is the headline: it selects the best checkpoint, and runs are judged by it.
      signature: how the scores are computed, which is stored with them; "" if the name says enough.
      remarks: references of the dev split -> lines to show before a run starts; None if there are
        never any.

    Raises:
      ValueError: there is no score, two scores have the same name, one has the name of a metric
        that is always measured, or the headline does not say whether higher or lower is better.

    Example:
      >>> make_scorer("characters")(["kitten"], [("kittens",)])
      {'cer': 14.285714285714286}
    """

    name: str
    scores: tuple[Score, ...]
    signature: str = ""
    remarks: Callable[[References], list[str]] | None = None

    def __post_init__(self):
        if not self.scores:
            raise ValueError(f"scorer {self.name!r} has no scores")
        names = [one.metric.name for one in self.scores]
        for name, count in Counter(names).items():
            if "/" in name:
                raise ValueError(f"the name of score {name!r} must not contain a slash")
            if count > 1:
                raise ValueError(f"scorer {self.name!r} has {count} scores named {name!r}")
            if any(name == one.name for one in CATALOG.measures):
                raise ValueError(f"a score cannot be called {name!r}: that is always measured")
        if not self.scores[0].metric.better:
            raise ValueError(
                f"score {names[0]!r} is the first of its scorer and selects the best checkpoint;"
                ' its metric must say better="higher" or "lower"'
            )

    def __call__(self, hypotheses: Sequence[str], references: References) -> dict[str, float]:
        """The stored scores by name."""
        return {one.metric.name: one(hypotheses, references) for one in self.scores}

    @property
    def headline(self) -> str:
        """The name of the first score."""
        return self.scores[0].metric.name

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """How its scores are shown, in order."""
        return tuple(one.metric for one in self.scores)

    @property
    def catalog(self) -> Catalog:
        """How all metrics of a run with these scores are shown."""
        return CATALOG.with_scores(self.metrics)


def ratio(sums: np.ndarray) -> np.ndarray:
    """[..., (part, whole)] -> [...] part / whole, with 0 / 0 = 0."""
    part, whole = sums[..., 0], sums[..., 1]
    return part / np.where(whole == 0, 1, whole)


def percentage(sums: np.ndarray) -> np.ndarray:
    """[..., (part, whole)] -> [...] 100 * part / whole, with 0 / 0 = 0."""
    part, whole = sums[..., 0], sums[..., 1]
    return 100 * part / np.where(whole == 0, 1, whole)


def error_statistics(split: Split, hypotheses: Sequence[str], references: References) -> np.ndarray:
    """[items, (edit errors, symbols of the nearest reference)]; the longest of equally near ones.

        errors_i = min_r Lev(h_i, r)

    Args:
      split: text -> symbols.
      hypotheses: one text per item.
      references: every accepted text of each item.
    """
    from rapidfuzz.distance import Levenshtein

    rows = []
    for hypothesis, accepted in zip(hypotheses, references, strict=True):
        said, wanted = split(hypothesis), [split(text) for text in accepted]
        distance, length = min((Levenshtein.distance(said, one), -len(one)) for one in wanted)
        rows.append((distance, -length))
    return _pairs(rows)


def inexact_statistics(
    split: Split, hypotheses: Sequence[str], references: References
) -> np.ndarray:
    """[items, (1 if the symbols differ from those of every reference, 1)]."""
    return _pairs(
        [
            (split(hypothesis) not in [split(text) for text in accepted], 1)
            for hypothesis, accepted in zip(hypotheses, references, strict=True)
        ]
    )


def exact_statistics(hypotheses: Sequence[str], references: References) -> np.ndarray:
    """[items, (1 if the text equals the first reference exactly, 1)]."""
    pairs = zip(hypotheses, references, strict=True)
    return _pairs([(hypothesis == accepted[0], 1) for hypothesis, accepted in pairs])


def _pairs(rows: list[tuple[float, float]]) -> np.ndarray:
    return np.array(rows, float).reshape(-1, 2)


def _error_rate(name: str, split: Split) -> Score:
    """Edit errors per hundred symbols of the nearest references."""
    statistics = functools.partial(error_statistics, split)
    return Score(CATALOG.describe(name), statistics, percentage)


EXACT_MATCH = Score(CATALOG.describe("exact_match"), exact_statistics, ratio)
"""The score that every run has besides those of its scorer."""

_WORD_ERROR_RATE = Score(
    CATALOG.describe("wer"), functools.partial(inexact_statistics, str.split), percentage
)


def bleu_statistics(tokenize: str, hypotheses: Sequence[str], references: References) -> np.ndarray:
    """[items, (length, reference length, 4 matched n-gram counts, 4 totals)], as in sacrebleu."""
    columns = reference_columns(references)
    counts: Any = make_bleu(tokenize)._extract_corpus_statistics(list(hypotheses), columns)
    return np.array(counts, float)


def bleu_from_sums(sums: np.ndarray) -> np.ndarray:
    """BLEU with sacrebleu's default smoothing: the n-th order without a match counts as 2^-n.

    Post (2018), "A call for clarity in reporting BLEU scores".
    """
    length, reference, found, made = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    halves = np.cumsum((found == 0) & (made > 0), axis=-1)
    smoothed = np.where(found > 0, found, 0.5**halves)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(smoothed / made).mean(-1)
        brevity = np.minimum(0, 1 - reference / length)
        return np.where((found.sum(-1) > 0) & (made > 0).all(-1), 100 * np.exp(logs + brevity), 0.0)


def chrf_statistics(hypotheses: Sequence[str], references: References) -> np.ndarray:
    """[items, 6 * (n-grams of the hypothesis, of the reference, matches)], as in sacrebleu."""
    from sacrebleu.metrics.chrf import CHRF

    counts: Any = CHRF()._extract_corpus_statistics(list(hypotheses), reference_columns(references))
    return np.array(counts, float)


def chrf_from_sums(sums: np.ndarray) -> np.ndarray:
    """chrF2 over the orders that both sides have: 100 * 5 P R / (4 P + R).

    Popović (2015), "chrF: character n-gram F-score for automatic MT evaluation".
    """
    made, gold, found = (sums[..., part::3] for part in range(3))
    both = (made > 0) & (gold > 0)
    orders = np.maximum(both.sum(-1), 1)
    precision = (np.where(both, found, 0) / np.maximum(made, 1)).sum(-1) / orders
    recall = (np.where(both, found, 0) / np.maximum(gold, 1)).sum(-1) / orders
    return 100 * 5 * precision * recall / np.maximum(4 * precision + recall, 1e-30)


def _by_sacrebleu(metric: Any, hypotheses: Sequence[str], references: References) -> float:
    return metric.corpus_score(list(hypotheses), reference_columns(references)).score


def reference_columns(references: References) -> list[Any]:
    """One list per reference number, as sacrebleu expects; None where an example has fewer."""
    width = max(map(len, references))
    return [[texts[i] if i < len(texts) else None for texts in references] for i in range(width)]


def _levenshtein_scorer(name: str, *scores: Score) -> Scorer:
    return Scorer(name, scores, f"{name}: greedy, any reference, Levenshtein distance")


def _translation_scorer(bleu_tokenize: str) -> Scorer:
    """BLEU and chrF by sacrebleu.

    Raises:
      LabError: see `make_bleu`.
    """
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = make_bleu(bleu_tokenize), CHRF()
    for metric in (bleu, chrf):  # the signature is only available after scoring something
        metric.corpus_score(["a"], [["a"]])
    return Scorer(
        "translation",
        (
            Score(
                CATALOG.describe("bleu"),
                functools.partial(bleu_statistics, bleu_tokenize),
                bleu_from_sums,
                functools.partial(_by_sacrebleu, bleu),
            ),
            Score(
                CATALOG.describe("chrf"),
                chrf_statistics,
                chrf_from_sums,
                functools.partial(_by_sacrebleu, chrf),
            ),
        ),
        signature="; ".join(str(metric.get_signature()) for metric in (bleu, chrf)),
        remarks=functools.partial(bleu_remarks, bleu_tokenize),
    )


SCORERS = {
    "phonemes": _levenshtein_scorer("phonemes", _WORD_ERROR_RATE, _error_rate("per", str.split)),
    "characters": _levenshtein_scorer("characters", _error_rate("cer", list)),
    "symbols": _levenshtein_scorer("symbols", _error_rate("ser", str.split)),
}
"""The built-in scorers by name, except for "translation", which has an option."""

SCORER_NAMES = (*SCORERS, "translation")
"""The names that `make_scorer` accepts."""


def make_scorer(name: str, bleu_tokenize: str = "13a", modules: Modules = ENVIRONMENT) -> Scorer:
    """The scorer of a config's `eval.scores` and `eval.bleu_tokenize`.

    Args:
      name: one of `SCORER_NAMES`, or the user's own as `module:name`: a `Scorer`, or a function
        without arguments that returns one.
      bleu_tokenize: sacrebleu's name of the BLEU tokenizer; chrF works on characters.
      modules: finds the user's own scorer.

    Raises:
      LabError: there is no such scorer or tokenizer (the message suggests the nearest), the
        tokenizer would have no effect, or something that it needs is not installed.
    """
    if name == "translation":
        return _translation_scorer(bleu_tokenize)
    if ":" not in name and name not in SCORERS:
        hint = did_you_mean(name, SCORER_NAMES)
        raise LabError(f"eval.scores is {name!r}; {hint}; name your own as module:name")
    if bleu_tokenize != "13a":
        raise LabError(
            f"eval.bleu_tokenize={bleu_tokenize} has no effect on eval.scores={name}, which has no"
            " BLEU; set eval.scores=translation, or leave it out"
        )
    return _own_scorer(name, modules) if ":" in name else SCORERS[name]


def _own_scorer(name: str, modules: Modules) -> Scorer:
    """The user's own scorer."""
    found = modules.find("eval.scores", name)
    if callable(found) and not isinstance(found, Scorer):
        with any_error_in_a_line(f"eval.scores={name}", modules.files(name).values()):
            found = found()
    if not isinstance(found, Scorer):
        raise LabError(f"eval.scores={name} is of type {type(found).__name__}, not a Scorer")
    return found


@functools.cache
def make_bleu(tokenize: str) -> BLEU:
    """Sacrebleu's BLEU with its defaults except for the tokenizer, loaded only once.

    Raises:
      LabError: there is no such tokenizer, or something it needs is missing: a package for ja-mecab
        and ko-mecab, or a model file, which sacrebleu downloads, for flores101, flores200 and
        spBLEU-1K.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
    from sacrebleu.utils import SACREBLEU_DIR

    known = [name for name in BLEU.TOKENIZERS if name != "spm"]  # a deprecated name of flores101
    if tokenize not in known:
        raise LabError(f"eval.bleu_tokenize is {tokenize!r}; {did_you_mean(tokenize, known)}")
    try:
        return BLEU(tokenize=tokenize)
    except (Exception, SystemExit) as error:  # sacrebleu exits on some failed downloads
        remedy, reason = "choose another", f": {' '.join(str(error).split())}"
        if tokenize.endswith("-mecab"):
            remedy, reason = f'run pip install "sacrebleu[{tokenize[:2]}]"', ""
        elif tokenize in SPM_MODELS:
            file = SPM_MODELS[tokenize]["url"].rsplit("/", 1)[1]
            remedy = f"download its model to {SACREBLEU_DIR}/models/{file}, or choose another"
        raise LabError(
            f"eval.bleu_tokenize={tokenize} cannot be used here{reason}; {remedy}"
        ) from error


def bleu_remarks(bleu_tokenize: str, references: References) -> list[str]:
    """Warnings about BLEU to show before a run starts, one line each.

    BLEU counts up to 4-grams of tokens. If no reference has four tokens, it is 0 for any
    translation. It is near 0 if a tokenizer does not split lines, as 13a does not in scripts
    without spaces.

    Args:
      bleu_tokenize: `eval.bleu_tokenize`.
      references: of the dev split.

    Example:
      >>> bleu_remarks("13a", [("a b c d",)])
      []
    """
    tokenizer = make_bleu(bleu_tokenize).tokenizer
    texts = [text for accepted in references for text in accepted]
    lengths = [len(tokenizer(text).split()) for text in texts]
    symbols = [symbol for text in texts for symbol in text if not symbol.isspace()]
    unspaced = sum(map(_is_unspaced, symbols)) > len(symbols) / 2
    remedy = (
        "set eval.bleu_tokenize to zh for Chinese, ja-mecab for Japanese, flores200 for any"
        " language, or char"
        if unspaced
        else "eval.scores=symbols or characters gives an error rate instead"
    )
    if max(lengths, default=0) < 4:
        return [
            "BLEU will be 0 for any translation: no dev reference has 4 tokens with"
            f" eval.bleu_tokenize={bleu_tokenize}; {remedy}"
        ]
    mean = len(symbols) / max(sum(lengths), 1)
    if unspaced and mean > _LONGEST_TOKEN:
        return [
            f"BLEU will be near 0: eval.bleu_tokenize={bleu_tokenize} hardly splits lines of a"
            f" script without spaces, {mean:.0f} characters per token; {remedy}"
        ]
    return []


_LONGEST_TOKEN = 6
"""Mean characters per token; Thai words have about 4, Chinese and Japanese words about 2."""

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def _is_unspaced(symbol: str) -> bool:
    """Whether a character belongs to a script without spaces between words."""
    return unicodedata.name(symbol, "").startswith(_UNSPACED)
