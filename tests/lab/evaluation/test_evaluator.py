"""The evaluation of a task's splits."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from s2s_jax.data.pairs import DataError, one_reference
from s2s_jax.data.task import Task
from s2s_jax.evaluation import Evaluation
from s2s_jax.lab.decode import translate
from s2s_jax.lab.evaluation.evaluator import Evaluator
from s2s_jax.lab.evaluation.scores import Metric, Score, Scorer, make_scorer, ratio
from s2s_jax.lab.experiment import TrainedRun, evaluate_run
from s2s_jax.lab.training.build import make_experiment


@pytest.fixture(scope="module")
def evaluator(trained):
    return Evaluator(
        trained.model,
        trained.experiment.load_task(trained.vocabularies),
        scorer=make_scorer("phonemes"),
        batch_size=512,
        num_shown=3,
    )


def test_the_splits_are_called_by_their_names(evaluator, trained, finished):
    result = json.loads((finished / "result.json").read_text())["metrics"]
    dev, test = evaluator.dev(trained.params), evaluator.split(trained.params, "test")
    assert dev == {name: value for name, value in result.items() if name.startswith("eval/")}
    assert test == {name: value for name, value in result.items() if name.startswith("test/")}
    assert evaluator.split(trained.params, "dev") == dev
    assert evaluate_run(trained, "test") == test


def test_the_predictions_are_what_decoding_gives_and_what_was_scored(finished, trained):
    lines = (finished / "predictions_test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 16
    assert rows[1]["references"] == [
        " ".join(rows[1]["source"].upper()),
        " ".join(rows[1]["source"][:2].upper()),
    ]
    sources = [row["source"] for row in rows]
    assert [row["hypothesis"] for row in rows] == translate(trained, sources, max_length=7)
    scores = make_scorer("phonemes")(
        [row["hypothesis"] for row in rows], [tuple(row["references"]) for row in rows]
    )
    result = json.loads((finished / "result.json").read_text())["metrics"]
    for name, value in scores.items():
        assert result[f"test/own/{name}"] == pytest.approx(value)


def test_the_headline_and_the_cost(trained, make_config):
    task = make_experiment(make_config()).load_task(trained.vocabularies)
    for scores, name, cost in (("phonemes", "wer", 30.0), ("translation", "bleu", -30.0)):
        one = Evaluator(trained.model, task, scorer=make_scorer(scores), batch_size=4)
        assert one.headline == name
        assert one.cost({f"eval/own/{name}": 30.0}) == cost


def test_a_summary_is_of_one_split(evaluator):
    metrics = {"test/own/wer": 25.0, "test/own/token_accuracy": 0.9, "test/gold/token_accuracy": 1}
    assert evaluator.summary(metrics) == (
        "test/own/wer 25.00 %  test/own/token_accuracy 90.00 %  test/gold/token_accuracy 100.00 %"
    )


def test_dev_may_use_a_part_and_split_uses_everything(trained, make_config):
    task = make_experiment(make_config()).load_task(trained.vocabularies)
    part = Evaluator(
        trained.model, task, scorer=make_scorer("phonemes"), batch_size=512, max_examples=4
    )
    few, all_of_them = part.dev(trained.params), part.split(trained.params, "dev")
    assert few.keys() == all_of_them.keys()
    assert few["eval/gold/nll"] != all_of_them["eval/gold/nll"]
    assert all(math.isfinite(value) for value in few.values())


def test_exact_match_is_of_the_text_as_error_rates_are(trained, monkeypatch):
    pairs = one_reference(["bad", "fed"], ["B  A D", "F E D"])
    task = Task({"train": pairs, "dev": pairs}, trained.vocabularies)
    said = [trained.vocabularies.target.encode(text) for text in pairs.targets]
    by_ids = {"gold/token_accuracy": 1.0, "own/token_accuracy": 1.0, "own/exact_match": 1.0}
    monkeypatch.setattr(
        "s2s_jax.lab.evaluation.evaluator.evaluate", lambda *_: Evaluation(dict(by_ids), said)
    )
    found = Evaluator(trained.model, task, scorer=make_scorer("characters"), batch_size=2).dev(
        trained.params
    )
    assert found["eval/own/exact_match"] == 0.5
    assert found["eval/own/cer"] == pytest.approx(100 / 11)


def test_each_split_is_decoded_as_far_as_its_own_targets_need(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, far = one_reference(["bad"], ["B A D"]), one_reference(["fed"], ["F E D " * 3])
    task = Task({"train": pairs, "dev": pairs, "test": far}, trained.vocabularies)
    lengths: list[int] = []

    def make_step(_: object, length: int) -> Callable[..., None]:
        lengths.append(length)
        return lambda *_: None

    monkeypatch.setattr("s2s_jax.lab.evaluation.evaluator.make_evaluate_step", make_step)
    monkeypatch.setattr(
        "s2s_jax.lab.evaluation.evaluator.evaluate", lambda *_: Evaluation({}, [[]])
    )
    one = Evaluator(trained.model, task, scorer=make_scorer("phonemes"), batch_size=1)
    one.dev(trained.params)
    one.split(trained.params, "test")
    assert lengths == [4 + 2 + 1, 10 + 5 + 1]


def test_an_unknown_split_is_rejected(evaluator, trained):
    with pytest.raises(DataError, match="no split 'test_long'; it has train, dev, test"):
        evaluator.split(trained.params, "test_long")


def test_a_custom_scorer_selects_the_checkpoint_and_is_shown(trained, make_config):
    task = make_experiment(make_config()).load_task()

    def longer(hypotheses, references):
        pairs = zip(hypotheses, references, strict=True)
        return np.array([(len(said) > len(texts[0]), 1) for said, texts in pairs], float)

    metric = Metric("shorter", "not longer", "%", 100, better="higher")
    scorer = Scorer("mine", (Score(metric, longer, lambda sums: 1 - ratio(sums)),))
    one = Evaluator(trained.model, task, scorer=scorer, batch_size=4)
    found = one.dev(trained.params)
    assert 0 <= found["eval/own/shorter"] <= 1
    assert one.cost(found) == -found["eval/own/shorter"]
    assert one.summary(found).startswith(
        f"eval/own/shorter {100 * found['eval/own/shorter']:.2f} %  eval/own/token_accuracy "
    )
