"""Scores against values computed by hand, and against sacrebleu's own."""

import importlib
from collections.abc import Iterator

import pytest
import sacrebleu
import sentencepiece
from sacrebleu.tokenizers import tokenizer_spm

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.evaluation.scores import (
    HIGHER_IS_BETTER,
    SCORERS,
    bleu_remarks,
    character_scores,
    error_rates,
    make_bleu,
    make_scorer,
    phoneme_scores,
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
    text = make_scorer("translation").signature
    for part in ("tok:13a", "smooth:exp", "nc:6", "case:mixed", f"version:{sacrebleu.__version__}"):
        assert part in text
    assert "tok:zh" in make_scorer("translation", "zh").signature
    assert "phonemes" in make_scorer("phonemes").signature


def test_every_scorer_is_found_and_an_unknown_one_is_refused():
    for kind in SCORERS:
        scorer = make_scorer(kind)
        assert (scorer.kind, scorer.bleu_tokenize) == (kind, "13a")
        assert scorer(["a b"], [("a b",)]) == SCORERS[kind](["a b"], [("a b",)])
        assert scorer.headline == next(iter(scorer(["a b"], [("a b",)])))
    with pytest.raises(LabError, match=r"eval\.scores is 'phonems'; did you mean 'phonemes'\?"):
        make_scorer("phonems")


def test_whether_higher_is_better():
    for scorer in SCORERS.values():
        right, wrong = scorer(["a b c d"], [("a b c d",)]), scorer(["x"], [("a b c d",)])
        for name in right:
            assert (right[name] > wrong[name]) == (name in HIGHER_IS_BETTER)


CHINESE = ["今天天气很好,我们去公园散步吧。", "他昨天买了一本新书。"]
JAPANESE = ["今日は天気がいいので、公園を散歩しましょう。", "彼は昨日、新しい本を買いました。"]
THAI = ["วันนี้อากาศดีมากเราไปเดินเล่นที่สวนกันเถอะ", "เขาซื้อหนังสือเล่มใหม่เมื่อวานนี้"]


@pytest.mark.parametrize(
    ("texts", "tokenize"),
    [(CHINESE, "zh"), (CHINESE, "char"), (JAPANESE, "char"), (JAPANESE, "zh"), (THAI, "char")],
)
def test_what_is_right_without_spaces_has_bleu_100_by_a_tokenizer_of_its_script(texts, tokenize):
    references = [(text,) for text in texts]
    found = make_scorer("translation", tokenize)(texts, references)
    assert found["bleu"] == pytest.approx(100)
    assert bleu_remarks(tokenize, references) == []
    swapped = make_scorer("translation", tokenize)(texts[::-1], references)
    assert swapped["bleu"] < 20


@pytest.mark.parametrize("texts", [CHINESE, JAPANESE, THAI])
def test_a_tokenizer_that_leaves_lines_whole_is_pointed_out(texts):
    scorer = make_scorer("translation")
    assert scorer(texts, [(text,) for text in texts])["bleu"] == 0
    (line,) = bleu_remarks("13a", [(text,) for text in texts])
    assert line.startswith("BLEU will be 0 whatever is translated: no dev reference has 4 tokens")
    assert "set eval.bleu_tokenize to zh for Chinese, ja-mecab for Japanese" in line
    # Where a few lines have digits and Latin words among them there are 4-grams, and not enough.
    some = [(text,) for text in texts * 20] + [("A B C D 2020",)]
    (line,) = bleu_remarks("13a", some)
    assert line.startswith("BLEU will be near 0: eval.bleu_tokenize=13a leaves lines of a script")


def test_targets_of_three_words_are_pointed_out():
    three = [("one two three",), ("two three four", "two four")]
    assert make_scorer("translation")([one[0] for one in three], three)["bleu"] == 0
    (line,) = bleu_remarks("13a", three)
    assert "no dev reference has 4 tokens by eval.bleu_tokenize=13a; eval.scores=symbols" in line
    assert bleu_remarks("13a", [*three, ("one two three.",)]) == []


def test_a_tokenizer_without_effect_or_unknown_is_refused():
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
            r"no route to host; fetch its model to .*/models/",
        ),
        ("flores101", SystemExit(1), r"fetch its model to .*sacrebleu_tokenizer_spm\.model, or"),
        ("ja-mecab", None, r'cannot be used here; run pip install "sacrebleu\[ja\]"$'),
        ("ko-mecab", None, r'cannot be used here; run pip install "sacrebleu\[ko\]"$'),
    ],
)
def test_a_tokenizer_that_lacks_something_here_is_refused_in_one_line(
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
def test_flores_is_used_where_its_model_is(monkeypatch, tmp_path):
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
