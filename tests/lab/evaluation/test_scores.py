"""Scores against values computed by hand, and against sacrebleu's own."""

import importlib
from collections.abc import Iterator

import numpy as np
import pytest
import sacrebleu
import sentencepiece
from sacrebleu.tokenizers import tokenizer_spm

from s2s_jax.data.json_shapes import check
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.metric_catalog import CATALOG, Metric
from s2s_jax.lab.evaluation.scores import (
    EXACT_MATCH,
    SCORER_NAMES,
    Score,
    Scorer,
    bleu_remarks,
    error_statistics,
    inexact_statistics,
    make_bleu,
    make_scorer,
    percentage,
    ratio,
)
from s2s_jax.lab.runs.result_shapes import SCORE_METRIC


def error_rates(hypotheses, references, split) -> tuple[float, float]:
    """Edit errors per hundred symbols, and inexact texts per hundred."""
    rates = (
        percentage(statistics(split, hypotheses, references).sum(0)).item()
        for statistics in (error_statistics, inexact_statistics)
    )
    return tuple(rates)  # type: ignore[return-value]  # of two


def test_phoneme_and_word_error_rate_by_hand():
    # Errors against the nearest reference: 0 of 3, 1 of 2, 2 of 2.
    hypotheses = ["R EH D", "K AE", "B"]
    references = [("R IY D", "R EH D"), ("K AH T S", "K AA"), ("AA AA",)]
    scores = make_scorer("phonemes")(hypotheses, references)
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
    assert make_scorer("characters")(["kitten"], [("sitting",)]) == {"cer": pytest.approx(300 / 7)}
    assert make_scorer("symbols")(["aa b"], [("aa c",)]) == {"ser": 50.0}


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
    scores = make_scorer("translation")(HYPOTHESES, REFERENCES)
    assert scores["bleu"] == sacrebleu.corpus_bleu(HYPOTHESES, columns).score  # type: ignore  # None fills up; the stub says str
    assert scores["chrf"] == sacrebleu.corpus_chrf(HYPOTHESES, columns).score  # type: ignore  # None fills up; the stub says str
    assert 10 < scores["bleu"] < 90
    assert make_scorer("translation")(["a b c d e"], [("a b c d e",)])["bleu"] == pytest.approx(100)
    # The second reference counts: without it the score is lower.
    first = [accepted[:1] for accepted in REFERENCES]
    assert make_scorer("translation")(HYPOTHESES, first)["bleu"] < scores["bleu"]


def test_an_empty_line_among_the_references_is_scored():
    scores = make_scorer("translation")(["a b c d e", ""], [("a b c d e",), ("",)])
    assert scores["bleu"] == pytest.approx(100)


def test_the_signature_says_how_scores_are_computed():
    text = make_scorer("translation").signature
    for part in ("tok:13a", "smooth:exp", "nc:6", "case:mixed", f"version:{sacrebleu.__version__}"):
        assert part in text
    assert "tok:zh" in make_scorer("translation", "zh").signature
    assert "phonemes" in make_scorer("phonemes").signature


def test_every_scorer_is_found_and_an_unknown_one_is_rejected():
    for name in SCORER_NAMES:
        scorer = make_scorer(name)
        assert scorer.name == name
        assert scorer.headline == next(iter(scorer(["a b"], [("a b",)])))
    with pytest.raises(LabError, match=r"eval\.scores is 'phonems'; did you mean 'phonemes'\?"):
        make_scorer("phonems")


def test_whether_higher_is_better():
    for scorer in map(make_scorer, SCORER_NAMES):
        for one in scorer.scores:
            right, wrong = (one([text], [("a b c d",)]) for text in ("a b c d", "x"))
            assert one.metric.better == ("higher" if right > wrong else "lower")


CHINESE = ["今天天气很好,我们去公园散步吧。", "他昨天买了一本新书。"]
JAPANESE = ["今日は天気がいいので、公園を散歩しましょう。", "彼は昨日、新しい本を買いました。"]
THAI = ["วันนี้อากาศดีมากเราไปเดินเล่นที่สวนกันเถอะ", "เขาซื้อหนังสือเล่มใหม่เมื่อวานนี้"]


@pytest.mark.parametrize(
    ("texts", "tokenize"),
    [(CHINESE, "zh"), (CHINESE, "char"), (JAPANESE, "char"), (JAPANESE, "zh"), (THAI, "char")],
)
def test_right_text_without_spaces_has_bleu_100_with_a_tokenizer_for_its_script(texts, tokenize):
    references = [(text,) for text in texts]
    found = make_scorer("translation", tokenize)(texts, references)
    assert found["bleu"] == pytest.approx(100)
    assert bleu_remarks(tokenize, references) == []
    swapped = make_scorer("translation", tokenize)(texts[::-1], references)
    assert swapped["bleu"] < 20


@pytest.mark.parametrize("texts", [CHINESE, JAPANESE, THAI])
def test_a_tokenizer_that_does_not_split_lines_is_pointed_out(texts):
    scorer = make_scorer("translation")
    assert scorer(texts, [(text,) for text in texts])["bleu"] == 0
    (line,) = bleu_remarks("13a", [(text,) for text in texts])
    assert line.startswith("BLEU will be 0 for any translation: no dev reference has 4 tokens")
    assert "set eval.bleu_tokenize to zh for Chinese, ja-mecab for Japanese" in line
    # If a few lines contain digits and Latin words, there are 4-grams, but not enough.
    some = [(text,) for text in texts * 20] + [("A B C D 2020",)]
    (line,) = bleu_remarks("13a", some)
    assert line.startswith("BLEU will be near 0: eval.bleu_tokenize=13a hardly splits lines of a")


def test_targets_of_three_words_are_pointed_out():
    three = [("one two three",), ("two three four", "two four")]
    assert make_scorer("translation")([one[0] for one in three], three)["bleu"] == 0
    (line,) = bleu_remarks("13a", three)
    assert "no dev reference has 4 tokens with eval.bleu_tokenize=13a; eval.scores=symbols" in line
    assert bleu_remarks("13a", [*three, ("one two three.",)]) == []


def test_a_tokenizer_that_is_unknown_or_has_no_effect_is_rejected():
    with pytest.raises(LabError, match=r"eval\.bleu_tokenize=zh has no effect on eval\.scores=sym"):
        make_scorer("symbols", "zh")
    with pytest.raises(LabError, match=r"eval\.bleu_tokenize is '13b'; did you mean '13a'"):
        make_scorer("translation", "13b")


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize(
    ("tokenize", "failure", "said"),
    [
        (
            "flores200",
            OSError("no route to host"),
            r"no route to host; download its model to .*/models/",
        ),
        ("flores101", SystemExit(1), r"download its model to .*sacrebleu_tokenizer_spm\.model, or"),
        ("ja-mecab", None, r'cannot be used here; run pip install "sacrebleu\[ja\]"$'),
        ("ko-mecab", None, r'cannot be used here; run pip install "sacrebleu\[ko\]"$'),
    ],
)
def test_a_tokenizer_with_missing_dependencies_is_rejected_in_one_line(
    tokenize, failure, said, monkeypatch, tmp_path
):
    def fail(*_):
        raise failure

    for module in ("ja_mecab", "ko_mecab"):
        tokenizers = importlib.import_module(f"sacrebleu.tokenizers.tokenizer_{module}")
        monkeypatch.setattr(tokenizers, "MeCab", None)
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "download_file", fail)
    with pytest.raises(LabError, match=said) as caught:
        make_scorer("translation", tokenize)
    assert "\n" not in str(caught.value)


@pytest.fixture
def nothing_loaded() -> Iterator[None]:
    make_bleu.cache_clear()
    yield
    make_bleu.cache_clear()


@pytest.mark.usefixtures("nothing_loaded")
def test_flores_is_used_if_its_model_is_present(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(THAI * 20),
        model_prefix=str(tmp_path / "models" / "m"),
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "models" / "m.model").rename(tmp_path / "models" / "flores200sacrebleuspm")
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    scorer = make_scorer("translation", "flores200")
    assert scorer(THAI, [(text,) for text in THAI])["bleu"] == pytest.approx(100)
    assert "tok:flores200" in scorer.signature


@pytest.mark.parametrize("name", SCORER_NAMES)
def test_a_score_is_a_function_of_the_sums_of_its_statistics(name):
    """Also for the scores that sacrebleu computes itself."""
    for one in make_scorer(name).scores:
        statistics = one.items(HYPOTHESES, REFERENCES)
        assert len(statistics) == len(HYPOTHESES)
        value = one(HYPOTHESES, REFERENCES)
        assert float(one.from_sums(statistics.sum(0))) == pytest.approx(value, rel=1e-12)
        # Works on several corpora at once.
        both = np.stack([statistics.sum(0), statistics[0]])
        assert one.from_sums(both).tolist() == [
            pytest.approx(value),
            pytest.approx(one(HYPOTHESES[:1], REFERENCES[:1])),
        ]


def test_every_score_is_in_the_catalogue_in_the_scorers_order():
    for name in SCORER_NAMES:
        scorer = make_scorer(name)
        assert set(scorer.metrics) <= set(CATALOG.scores)
        assert CATALOG.headline(f"eval/own/{one.name}" for one in reversed(scorer.metrics)) == (
            f"eval/own/{scorer.headline}"
        )
        assert scorer.catalog.describe("eval/own/nll") == CATALOG.describe("eval/own/nll")


def test_exact_match_is_of_the_first_reference():
    assert EXACT_MATCH(["a", "b"], [("a", "b"), ("a", "b")]) == 0.5


def final_errors(hypotheses, references):
    pairs = zip(hypotheses, references, strict=True)
    return np.array([(said[-1:] != texts[0][-1:], 1) for said, texts in pairs], float)


FINAL = Metric("final", "final symbol", "%", 100, better="lower")


def test_a_custom_scorer():
    scorer = Scorer("final", (Score(FINAL, final_errors, ratio), *make_scorer("phonemes").scores))
    found = scorer(["a b", "a c"], [("a b",), ("a b",)])
    assert found == {"final": 0.5, "wer": 50.0, "per": 25.0}
    assert scorer.headline == "final"
    assert scorer.catalog.describe("test/own/final").text(found["final"]) == "50.00 %"
    names = [f"test/own/{name}" for name in ("per", "wer", "final")]
    assert scorer.catalog.headline(names) == "test/own/final"
    kept = [one.to_dict() for one in scorer.metrics]
    check(kept, [SCORE_METRIC])
    assert tuple(map(Metric.from_dict, kept)) == scorer.metrics


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ((), "scorer 'mine' has no scores"),
        ((FINAL, FINAL), "scorer 'mine' has 2 scores named 'final'"),
        ((Metric("own/final", "f", better="lower"),), "the name of score 'own/final' must not"),
        ((Metric("exact_match", "e", better="higher"),), "cannot be called 'exact_match': that is"),
        ((Metric("last", "f"), FINAL), "'last' .* its metric must say better=\"higher\" or"),
    ],
)
def test_scores_that_do_not_go_together_are_rejected(scores, said):
    with pytest.raises(ValueError, match=said):
        Scorer("mine", tuple(Score(one, final_errors, ratio) for one in scores))


def test_statistics_of_another_shape_are_rejected():
    score = Score(FINAL, lambda hypotheses, references: np.ones(len(hypotheses)), ratio)
    with pytest.raises(LabError, match=r"score 'final': .* 2 items have shape \(2,\); they must"):
        score(["a", "b"], [("a",), ("b",)])
