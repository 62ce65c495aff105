import json

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.comparison.item_scores import (
    Predictions,
    item_scores,
    read_predictions,
    right_by_position,
)
from s2s_jax.lab.evaluation import scores

TRANSLATION = scores.make_scorer("translation").scores


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    generator = np.random.default_rng(0)

    def text(low=1, high=9):
        return " ".join(generator.choice(list("abcd"), generator.integers(low, high)))

    references = tuple(tuple(text(4) for _ in range(generator.integers(1, 3))) for _ in range(80))
    hypotheses = tuple(
        texts[0] if generator.random() < 0.3 else text(0 if place else 1)
        for place, texts in enumerate(references)
    )
    return Predictions(tuple(str(i) for i in range(80)), references, hypotheses)


@pytest.mark.parametrize("kind", scores.SCORER_NAMES)
def test_the_mean_over_items_is_the_corpus_score(predictions, kind):
    scorer = scores.make_scorer(kind)
    whole = scorer(predictions.hypotheses, predictions.references)
    for name, value in whole.items():
        items = item_scores(predictions, f"test/own/{name}", value, scorer.scores)
        assert items is not None, name
        assert items.shape == (80,)
        assert items.mean() == pytest.approx(value)
        assert items.std() > 0


@pytest.mark.parametrize("kind", scores.SCORER_NAMES)
def test_a_single_item_has_the_score_itself(kind):
    one = Predictions(("s",), (("a b c d e",),), ("a b c d x",))
    scorer = scores.make_scorer(kind)
    for name, value in scorer(one.hypotheses, one.references).items():
        items = item_scores(one, f"test/own/{name}", value, scorer.scores)
        assert items is not None, name
        assert items.tolist() == pytest.approx([value])


def test_the_item_values_of_a_mean_are_the_items_own(predictions):
    right = [h == r[0] for h, r in zip(predictions.hypotheses, predictions.references, strict=True)]
    items = item_scores(predictions, "test/own/exact_match", np.mean(right).item())
    assert items == pytest.approx(np.array(right, float))


@pytest.mark.parametrize(("name", "metric"), [("bleu", BLEU()), ("chrf", CHRF())])
def test_an_items_value_is_what_the_score_loses_without_it(predictions, name, metric):
    def score(keep):
        columns = [
            [
                predictions.references[i][k] if k < len(predictions.references[i]) else None
                for i in keep
            ]
            for k in range(2)
        ]
        return metric.corpus_score([predictions.hypotheses[i] for i in keep], columns).score

    whole = score(range(80))
    without = np.array([score([i for i in range(80) if i != left]) for left in range(80)])
    items = item_scores(predictions, f"test/own/{name}", whole, TRANSLATION)
    assert items == pytest.approx(whole + 79 * (without.mean() - without), abs=1e-6)


@pytest.mark.parametrize("tokenize", ["13a", "zh", "char", "intl", "none"])
def test_the_mean_over_items_is_bleu_for_each_tokenizer(predictions, tokenize):
    whole = scores.make_scorer("translation", tokenize)
    value = whole(predictions.hypotheses, predictions.references)["bleu"]
    items = item_scores(predictions, "test/own/bleu", value, whole.scores)
    assert items is not None
    assert items.mean() == pytest.approx(value)
    # Text without spaces, where another tokenizer gives another value.
    joined = Predictions(
        predictions.sources,
        tuple(tuple(text.replace(" ", "") for text in texts) for texts in predictions.references),
        tuple(text.replace(" ", "") for text in predictions.hypotheses),
    )
    value = whole(joined.hypotheses, joined.references)["bleu"]
    items = item_scores(joined, "test/own/bleu", value, whole.scores)
    assert items is not None
    assert items.mean() == pytest.approx(value)
    assert (value > 1) == (tokenize == "char")
    other = "char" if tokenize != "char" else "13a"
    others = scores.make_scorer("translation", other).scores
    assert item_scores(joined, "test/own/bleu", value, others) is None


def test_bleu_without_a_long_match_is_smoothed_as_sacrebleu_does():
    few = Predictions(("1", "2"), (("a b c d e",), ("d c b a",)), ("a b e d c", "c b d a"))
    value = BLEU().corpus_score(list(few.hypotheses), [["a b c d e", "d c b a"]]).score
    assert value > 0
    assert item_scores(few, "test/own/bleu", value, TRANSLATION) is not None


def test_scores_that_items_do_not_reproduce_are_not_used(predictions):
    phonemes = scores.make_scorer("phonemes")
    wer = phonemes(predictions.hypotheses, predictions.references)["wer"]
    assert item_scores(predictions, "test/own/wer", wer, phonemes.scores) is not None
    for name, value in [
        ("own/wer", wer + 0.1),
        ("own/wer", float("nan")),
        ("gold/wer", wer),
        ("gold/nll", 0.3),
        ("own/hazard", 0.3),
    ]:
        assert item_scores(predictions, f"test/{name}", value, phonemes.scores) is None
    assert item_scores(predictions, "test/own/wer", wer) is None  # a score of another scorer


def test_tokens_by_position():
    found = Predictions(("1", "2", "3"), (("A B",), ("A B C",), ("C",)), ("A B", "A C", "C C"))
    # Right: A, B and the end; only A (C is not B, and it ended early); C without the end.
    known = right_by_position(found, 5 / 9)
    assert known is not None
    right, count = known
    assert right.tolist() == [3, 1, 1, 0]
    assert count.tolist() == [3, 3, 2, 1]
    items = item_scores(found, "test/own/token_accuracy", 5 / 9)
    assert items is not None
    assert items.mean() == pytest.approx(5 / 9)
    assert right_by_position(found, 0.2) is None


@pytest.mark.parametrize(("text", "positions"), [("abc", 4), ("a b c", 4)])
def test_if_all_tokens_are_right_spaces_decide_what_the_tokens_are(text, positions):
    known = right_by_position(Predictions(("s",), ((text,),), (text,)), 1.0)
    assert known is not None
    assert known[0].tolist() == known[1].tolist() == [1] * positions


def test_incomplete_files_are_rejected(tmp_path):
    path = tmp_path / "predictions_test.jsonl"
    line = json.dumps({"source": "a", "references": ["b"], "hypothesis": "c"})
    path.write_text(f"{line}\n{line}\n")
    assert read_predictions(path) == Predictions(("a", "a"), (("b",), ("b",)), ("c", "c"))
    for content, message in [
        (f"{line}\n{line[:9]}", "is incomplete or damaged"),
        ("", "is incomplete or damaged"),
        ('{"source": "a", "references": [], "hypothesis": ""}\n', "is incomplete or damaged"),
        ('{"source": "a"}\n', "is not a predictions file"),
    ]:
        path.write_text(content)
        with pytest.raises(LabError, match=message):
            read_predictions(path)
    with pytest.raises(LabError, match="cannot read"):
        read_predictions(tmp_path / "none")
