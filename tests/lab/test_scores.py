"""Scores against values computed by hand, and against sacrebleu's own."""

import pytest
import sacrebleu

from s2s_jax.lab.errors import LabError
from s2s_jax.lab.scores import (
    HIGHER_IS_BETTER,
    SCORERS,
    character_scores,
    error_rates,
    find_scorer,
    phoneme_scores,
    signature,
    symbol_scores,
    translation_scores,
)


def test_phoneme_and_word_error_rate_by_hand():
    # Errors against the nearest reference: 0 of 3, 1 of 2, 2 of 2.
    hypotheses = ["R EH D", "K AE", "B"]
    references = [("R IY D", "R EH D"), ("K AH T S", "K AA"), ("AA AA",)]
    scores = phoneme_scores(hypotheses, references)
    assert scores["per"] == pytest.approx(100 * 3 / 7)
    assert scores["wer"] == pytest.approx(100 * 2 / 3)


def test_an_edit_at_the_border_counts():
    # SIGMORPHON's 2020 script counted "" against "ab" as 1.
    assert error_rates([""], [("ab",)], list) == (100.0, 100.0)
    assert error_rates(["abcd"], [("ab",)], list) == (100.0, 100.0)
    assert error_rates(["b"], [("ab",)], list) == (50.0, 100.0)
    assert error_rates(["xab"], [("ab",)], list) == (50.0, 100.0)


def test_among_equally_near_references_the_longest_counts():
    assert error_rates(["a b"], [("a", "a b c")], str.split)[0] == pytest.approx(100 / 3)
    assert error_rates(["a b"], [("a b c", "a")], str.split)[0] == pytest.approx(100 / 3)


def test_nothing_to_score_and_empty_references():
    assert error_rates([], [], list) == (0.0, 0.0)
    assert error_rates([""], [("",)], list) == (0.0, 0.0)
    assert error_rates(["ab"], [("",)], list) == (200.0, 100.0)
    with pytest.raises(ValueError, match="shorter"):
        error_rates(["a", "b"], [("a",)], list)


def test_characters_and_symbols_by_hand():
    assert character_scores(["kitten"], [("sitting",)]) == {"cer": pytest.approx(300 / 7)}
    assert symbol_scores(["aa b"], [("aa c",)]) == {"ser": 50.0}


HYPOTHESES = ["the cat sat on the mat today", "a dog barked at me .", "no word in common"]
REFERENCES = [
    ("the cat sat on a mat today", "a cat was sitting on the mat"),
    ("a dog barked at me .",),
    ("völlig anders", "etwas", "something else entirely"),
]


def test_bleu_and_chrf_are_sacrebleus():
    columns = [
        [accepted[i] if i < len(accepted) else None for accepted in REFERENCES] for i in range(3)
    ]
    scores = translation_scores(HYPOTHESES, REFERENCES)
    assert scores["bleu"] == sacrebleu.corpus_bleu(HYPOTHESES, columns).score  # type: ignore  # None fills up; the stub says str
    assert scores["chrf"] == sacrebleu.corpus_chrf(HYPOTHESES, columns).score  # type: ignore  # None fills up; the stub says str
    assert 10 < scores["bleu"] < 90
    assert translation_scores(["a b c d e"], [("a b c d e",)])["bleu"] == pytest.approx(100)
    # The second reference counts: without it the score is lower.
    first = [accepted[:1] for accepted in REFERENCES]
    assert translation_scores(HYPOTHESES, first)["bleu"] < scores["bleu"]


def test_an_empty_line_among_the_references_is_scored():
    scores = translation_scores(["a b c d e", ""], [("a b c d e",), ("",)])
    assert scores["bleu"] == pytest.approx(100)


def test_the_signature_says_how():
    text = signature("translation")
    for part in ("tok:13a", "smooth:exp", "nc:6", "case:mixed", f"version:{sacrebleu.__version__}"):
        assert part in text
    assert "phonemes" in signature("phonemes")


def test_every_scorer_is_found_and_an_unknown_one_is_refused():
    for kind, scorer in SCORERS.items():
        assert find_scorer(kind) is scorer
    with pytest.raises(LabError, match=r"eval\.scores is 'phonems'; did you mean 'phonemes'\?"):
        find_scorer("phonems")


def test_whether_higher_is_better():
    for scorer in SCORERS.values():
        right, wrong = scorer(["a b c d"], [("a b c d",)]), scorer(["x"], [("a b c d",)])
        for name in right:
            assert (right[name] > wrong[name]) == (name in HIGHER_IS_BETTER)
