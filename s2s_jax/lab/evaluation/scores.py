"""Scores of decoded text against any of several references."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s2s_jax.lab.base.errors import LabError
from s2s_jax.names import did_you_mean

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

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


def translation_scores(
    hypotheses: Sequence[str], references: References, bleu_tokenize: str = "13a"
) -> dict[str, float]:
    """BLEU and chrF by sacrebleu; see `Scorer.signature` for how.

    Post (2018), "A call for clarity in reporting BLEU scores".

    Args:
      hypotheses: one text an example.
      references: every accepted text of each example.
      bleu_tokenize: what cuts text into BLEU's tokens, by sacrebleu's name; chrF is of characters.
    """
    from sacrebleu.metrics.chrf import CHRF

    columns = reference_columns(references)
    return {
        "bleu": make_bleu(bleu_tokenize).corpus_score(list(hypotheses), columns).score,
        "chrf": CHRF().corpus_score(list(hypotheses), columns).score,
    }


def reference_columns(references: References) -> list[Any]:
    """One list a reference, as sacrebleu has it; None where an example has fewer."""
    width = max(map(len, references))
    return [[texts[i] if i < len(texts) else None for texts in references] for i in range(width)]


SCORERS: dict[str, Callable[..., dict[str, float]]] = {
    "phonemes": phoneme_scores,
    "characters": character_scores,
    "symbols": symbol_scores,
    "translation": translation_scores,
}
"""Functions of hypotheses and references by the name of the scores that they make."""

HIGHER_IS_BETTER = {"bleu", "chrf"}


@dataclass(frozen=True)
class Scorer:
    """What scores the hypotheses of a run; `make_scorer` makes it from a config.

    Attributes:
      kind: a name of `SCORERS`.
      bleu_tokenize: of "translation".

    Example:
      >>> Scorer("characters")(["kitten"], [("kittens",)])
      {'cer': 14.285714285714286}
    """

    kind: str
    bleu_tokenize: str = "13a"

    def __call__(self, hypotheses: Sequence[str], references: References) -> dict[str, float]:
        """Scores by name; the first selects the best checkpoint."""
        if self.kind == "translation":
            return translation_scores(hypotheses, references, self.bleu_tokenize)
        return SCORERS[self.kind](hypotheses, references)

    @property
    def headline(self) -> str:
        """The name of the first score, by which a run is judged."""
        return next(iter(self(["a"], [("a",)])))

    @property
    def signature(self) -> str:
        """How the scores are computed, to be kept beside them."""
        if self.kind != "translation":
            return f"{self.kind}: greedy, any reference, Levenshtein distance"
        from sacrebleu.metrics.chrf import CHRF

        metrics = make_bleu(self.bleu_tokenize), CHRF()
        for metric in metrics:  # a signature is known only once something was scored
            metric.corpus_score(["a"], [["a"]])
        return "; ".join(str(metric.get_signature()) for metric in metrics)


def make_scorer(kind: str, bleu_tokenize: str = "13a") -> Scorer:
    """The scorer of a config's `eval.scores` and `eval.bleu_tokenize`.

    Raises:
      LabError: there is no such kind or tokenizer, the message names the nearest; the tokenizer
        would have no effect, or it lacks something here.
    """
    if kind not in SCORERS:
        raise LabError(f"eval.scores is {kind!r}; {did_you_mean(kind, SCORERS)}")
    if kind == "translation":
        make_bleu(bleu_tokenize)
    elif bleu_tokenize != "13a":
        raise LabError(
            f"eval.bleu_tokenize={bleu_tokenize} has no effect on eval.scores={kind}, which has no"
            " BLEU; set eval.scores=translation, or leave it out"
        )
    return Scorer(kind, bleu_tokenize)


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
