"""Scores of decoded text against any of several references.

A score of one's own needs a `Metric` and the statistics of an item, a `Scorer` one score or more:

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
from s2s_jax.lab.config.user_code import ENVIRONMENT, Modules, user_files, where_in
from s2s_jax.names import did_you_mean

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

References = Sequence[tuple[str, ...]]

Split = Callable[[str], Sequence[str]]
"""Text -> its symbols."""


@dataclass(frozen=True)
class Score:
    """A score of hypotheses: sums over items of a few statistics each, and a function of the sums.

        score = from_sums(sum_i statistics_i)

    The items' statistics tell `s2s compare` how much of a difference is the noise of test items.

    Attributes:
      metric: how it is called and shown.
      statistics: (hypotheses, references) -> [items, k].
      from_sums: [..., k] -> [...], the score as it is stored: `metric.scale` times that is shown.
      published: (hypotheses, references) -> the score by those who published it, where ours is to
        be theirs to the last bit; None for the formula above.

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
        """The score of a corpus, as it is stored."""
        if self.published is not None:
            return self.published(hypotheses, references)
        return float(self.from_sums(self.items(hypotheses, references).sum(0)))

    def items(self, hypotheses: Sequence[str], references: References) -> np.ndarray:
        """[items, k] statistics.

        Raises:
          LabError: they are of another shape.
        """
        found = np.asarray(self.statistics(hypotheses, references), float)
        if found.ndim != 2 or len(found) != len(hypotheses):
            raise LabError(
                f"score {self.metric.name!r}: the statistics of {len(hypotheses)} items are of"
                f" shape {found.shape}; they must be [items, k]"
            )
        return found


@dataclass(frozen=True)
class Scorer:
    """What scores the hypotheses of a run; `make_scorer` makes the built-in ones.

    Attributes:
      name: what it is called.
      scores: the first is the headline: it selects the best checkpoint, and runs are judged by it.
      signature: how the scores are computed, to be kept beside them; "" for nothing but the name.
      remarks: references of the dev split -> what is to be said of them before a run starts, a line
        each; None where nothing ever is.

    Raises:
      ValueError: there is no score, two have one name, one has the name of what is measured anyway,
        or it is not known which way the headline is better.

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
                raise ValueError(f"the name of score {name!r} must have no slash")
            if count > 1:
                raise ValueError(f"scorer {self.name!r} has {count} scores of the name {name!r}")
            if any(name == one.name for one in CATALOG.measures):
                raise ValueError(f"a score cannot be called {name!r}: that is measured anyway")
        if not self.scores[0].metric.better:
            raise ValueError(
                f"score {names[0]!r} is the first of its scorer and selects the best checkpoint;"
                ' its metric must say better="higher" or "lower"'
            )

    def __call__(self, hypotheses: Sequence[str], references: References) -> dict[str, float]:
        """Scores by name, as they are stored."""
        return {one.metric.name: one(hypotheses, references) for one in self.scores}

    @property
    def headline(self) -> str:
        """The name of the first score."""
        return self.scores[0].metric.name

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """How its scores are shown, in their order."""
        return tuple(one.metric for one in self.scores)

    @property
    def catalog(self) -> Catalog:
        """How everything is shown that a run with these scores logs."""
        return CATALOG.with_scores(self.metrics)


def ratio(sums: np.ndarray) -> np.ndarray:
    """[..., (part, whole)] -> [...] part / whole, 0 / 0 being 0."""
    part, whole = sums[..., 0], sums[..., 1]
    return part / np.where(whole == 0, 1, whole)


def percentage(sums: np.ndarray) -> np.ndarray:
    """[..., (part, whole)] -> [...] 100 * part / whole, 0 / 0 being 0."""
    part, whole = sums[..., 0], sums[..., 1]
    return 100 * part / np.where(whole == 0, 1, whole)


def error_statistics(split: Split, hypotheses: Sequence[str], references: References) -> np.ndarray:
    """[items, (edit errors, symbols of the nearest reference)]; of equally near ones the longest.

        errors_i = min_r Lev(h_i, r)

    Args:
      split: text -> symbols.
      hypotheses: one text an item.
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
    """[items, (has the symbols of none of its references, 1)]."""
    return _pairs(
        [
            (split(hypothesis) not in [split(text) for text in accepted], 1)
            for hypothesis, accepted in zip(hypotheses, references, strict=True)
        ]
    )


def exact_statistics(hypotheses: Sequence[str], references: References) -> np.ndarray:
    """[items, (is the first reference to the letter, 1)]."""
    pairs = zip(hypotheses, references, strict=True)
    return _pairs([(hypothesis == accepted[0], 1) for hypothesis, accepted in pairs])


def _pairs(rows: list[tuple[float, float]]) -> np.ndarray:
    return np.array(rows, float).reshape(-1, 2)


def _error_rate(name: str, split: Split) -> Score:
    """Edit errors a hundred symbols of the nearest references."""
    statistics = functools.partial(error_statistics, split)
    return Score(CATALOG.describe(name), statistics, percentage)


EXACT_MATCH = Score(CATALOG.describe("exact_match"), exact_statistics, ratio)
"""What every run has beside the scores of its scorer."""

_WORD_ERROR_RATE = Score(
    CATALOG.describe("wer"), functools.partial(inexact_statistics, str.split), percentage
)


def bleu_statistics(tokenize: str, hypotheses: Sequence[str], references: References) -> np.ndarray:
    """[items, (length, reference length, 4 n-grams found, 4 made)], as sacrebleu counts them."""
    columns = reference_columns(references)
    counts: Any = make_bleu(tokenize)._extract_corpus_statistics(list(hypotheses), columns)
    return np.array(counts, float)


def bleu_from_sums(sums: np.ndarray) -> np.ndarray:
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


def chrf_statistics(hypotheses: Sequence[str], references: References) -> np.ndarray:
    """[items, 6 * (n-grams made, of the reference, found)], as sacrebleu counts them."""
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
    """One list a reference, as sacrebleu has it; None where an example has fewer."""
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
    for metric in (bleu, chrf):  # a signature is known only once something was scored
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
"""The built-in scorers by name, but for "translation", which has an option."""

SCORER_NAMES = (*SCORERS, "translation")
"""What `make_scorer` knows."""


def make_scorer(name: str, bleu_tokenize: str = "13a", modules: Modules = ENVIRONMENT) -> Scorer:
    """The scorer of a config's `eval.scores` and `eval.bleu_tokenize`.

    Args:
      name: of `SCORER_NAMES`, or the user's own as `module:name`: a `Scorer`, or a function without
        arguments that returns one.
      modules: where the user's own is found.
      bleu_tokenize: what cuts text into BLEU's tokens, by sacrebleu's name; chrF is of characters.

    Raises:
      LabError: there is no such scorer or tokenizer, the message names the nearest; the tokenizer
        would have no effect, or it lacks something here.
    """
    if name == "translation":
        return _translation_scorer(bleu_tokenize)
    if ":" not in name and name not in SCORERS:
        hint = did_you_mean(name, SCORER_NAMES)
        raise LabError(f"eval.scores is {name!r}; {hint}; one of your own is module:name")
    if bleu_tokenize != "13a":
        raise LabError(
            f"eval.bleu_tokenize={bleu_tokenize} has no effect on eval.scores={name}, which has no"
            " BLEU; set eval.scores=translation, or leave it out"
        )
    return _own_scorer(name, modules) if ":" in name else SCORERS[name]


def _own_scorer(name: str, modules: Modules) -> Scorer:
    """A scorer of the user's."""
    found = modules.find("eval.scores", name)
    if callable(found) and not isinstance(found, Scorer):
        try:
            found = found()
        except Exception as error:
            told = where_in(error, user_files([found]).values())
            raise LabError(f"eval.scores={name} fails: {told}") from error
    if not isinstance(found, Scorer):
        raise LabError(f"eval.scores={name} is of type {type(found).__name__}, not a Scorer")
    return found


@functools.cache
def make_bleu(tokenize: str) -> BLEU:
    """BLEU of sacrebleu with its defaults but for the tokenizer, loaded once.

    Raises:
      LabError: there is no such tokenizer, or what it needs is not there: a package for ja-mecab
        and ko-mecab, a model file for flores101, flores200 and spBLEU-1K, which sacrebleu fetches.
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
        remedy, reason = "take another", f": {' '.join(str(error).split())}"
        if tokenize.endswith("-mecab"):
            remedy, reason = f'run pip install "sacrebleu[{tokenize[:2]}]"', ""
        elif tokenize in SPM_MODELS:
            file = SPM_MODELS[tokenize]["url"].rsplit("/", 1)[1]
            remedy = f"fetch its model to {SACREBLEU_DIR}/models/{file}, or take another"
        raise LabError(
            f"eval.bleu_tokenize={tokenize} cannot be used here{reason}; {remedy}"
        ) from error


def bleu_remarks(bleu_tokenize: str, references: References) -> list[str]:
    """What is to be said of BLEU before a run starts, a line each.

    BLEU counts up to 4-grams of tokens. Where no reference has four, it is 0 whatever is
    translated; so it is, nearly, where a tokenizer leaves lines whole, as 13a does in scripts
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
            "BLEU will be 0 whatever is translated: no dev reference has 4 tokens by"
            f" eval.bleu_tokenize={bleu_tokenize}; {remedy}"
        ]
    mean = len(symbols) / max(sum(lengths), 1)
    if unspaced and mean > _LONGEST_TOKEN:
        return [
            f"BLEU will be near 0: eval.bleu_tokenize={bleu_tokenize} leaves lines of a script"
            f" without spaces nearly whole, {mean:.0f} characters a token; {remedy}"
        ]
    return []


_LONGEST_TOKEN = 6
"""Mean characters of a token; words of Thai have about 4, of Chinese and Japanese about 2."""

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def _is_unspaced(symbol: str) -> bool:
    """Whether a character is of a script that puts no spaces between words."""
    return unicodedata.name(symbol, "").startswith(_UNSPACED)
