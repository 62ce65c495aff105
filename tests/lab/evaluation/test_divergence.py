"""KL to a known truth: exact if everything can be enumerated, otherwise by the chain rule."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import EOS, NUM_RESERVED
from s2s_jax.data.catalog import load_splits
from s2s_jax.data.chain import make_hmm_truth, make_markov_truth
from s2s_jax.data.pairs import one_reference
from s2s_jax.data.task import Vocabularies
from s2s_jax.lab.config.experiment_file import load_experiment
from s2s_jax.lab.config.keys import base_config
from s2s_jax.lab.config.overrides import apply_overrides
from s2s_jax.lab.evaluation import divergence as module
from s2s_jax.lab.evaluation.divergence import (
    Divergence,
    distinct_sources,
    knows_symbols,
    predicted_divergence,
    told_symbols,
)
from s2s_jax.lab.experiment import train_and_evaluate
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.theory.information import kl_divergence
from s2s_jax.theory.optimum import optimum_divergences, scheduled_sampling_optimum

CHAIN = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
HMM = (0.6, 0.4), ((0.8, 0.2), (0.3, 0.7)), ((0.7, 0.2, 0.1), (0.1, 0.3, 0.6))


def by_last_token(logits: np.ndarray) -> Seq2SeqModel:
    """A model that depends only on the last fed token; its parameters are its logits."""
    return Seq2SeqModel(
        init=lambda key: jnp.asarray(logits),
        encode=lambda params, source, source_mask, dropout_key: source[:, 0],
        initial_carry=lambda params, memory, max_length: memory,
        decode_step=lambda params, memory, carry, token: (carry, params[token]),
        decode_sequence=lambda params, memory, tokens: params[tokens],
        vocab_size=len(logits),
    )


def ids_of(vocabularies: Vocabularies, num_symbols: int) -> list[int]:
    return [vocabularies.target.encode(str(one))[0] for one in range(num_symbols)]


def test_a_constant_source_is_enumerated():
    """The truth itself has divergence 0; another table has that of two Markov chains."""
    truth = make_markov_truth(*CHAIN, length=3)
    pairs = one_reference(["_"] * 4, ["0 0 1", "1 1 0", "0 0 0", "1 0 1"])
    vocabularies = Vocabularies.train(pairs, "whitespace", "whitespace", 0)
    ids = ids_of(vocabularies, 2)
    logits = np.full((6, 6), -40.0, np.float32)
    logits[1, ids] = np.log(CHAIN[0])
    logits[np.ix_(ids, ids)] = np.log(CHAIN[1])
    measure = Divergence(by_last_token(logits), vocabularies, truth, pairs, 3, predicted=0.5)
    assert measure.is_exact
    found = measure(jnp.asarray(logits))
    assert found["kl_to_truth"] == pytest.approx(0, abs=1e-6)
    assert found["mass_outside"] < 1e-6
    assert found["kl_predicted"] == 0.5

    other = np.array([[0.6, 0.4], [0.5, 0.5]])
    logits[np.ix_(ids, ids)] = np.log(other)
    logits[:, EOS] = np.log(1 / 3)  # a quarter of the probability, which the restriction removes
    found = measure(jnp.asarray(logits))
    rows = kl_divergence(CHAIN[1], other)
    second = np.array(CHAIN[0]) @ np.array(CHAIN[1])
    expected = np.array(CHAIN[0]) @ rows + second @ rows
    assert found["kl_to_truth"] == pytest.approx(expected, abs=1e-6)
    assert found["mass_outside"] == pytest.approx(0.25, abs=1e-6)


def test_exact_and_sampled_means_agree_if_the_pairs_follow_the_distribution(monkeypatch):
    """With many pairs sampled from an hmm, the chain rule is close to the exact mean."""
    truth = make_hmm_truth(*HMM, length=2)
    generator = np.random.default_rng(0)
    target = truth.sample(30_000, generator)
    told = np.where(generator.random(target.shape) < 0.5, -1, target)
    texts = module.symbol_texts
    pairs = one_reference(texts(told), texts(target))
    vocabularies = Vocabularies.train(pairs, "whitespace", "whitespace", 0)
    logits = np.array(jax.random.normal(jax.random.key(0), (7, 7)), np.float32)
    model = by_last_token(logits)
    exact = Divergence(model, vocabularies, truth, pairs, 10_000, None)
    assert exact.is_exact
    monkeypatch.setattr(module, "MAX_ENUMERATED", 1)
    drawn = Divergence(model, vocabularies, truth, pairs, 10_000, None)
    assert not drawn.is_exact
    found, estimated = exact(jnp.asarray(logits)), drawn(jnp.asarray(logits))
    assert "kl_predicted" not in found
    assert found["kl_to_truth"] > 0.5
    assert estimated["kl_to_truth"] == pytest.approx(found["kl_to_truth"], rel=0.01)
    assert estimated["mass_outside"] == pytest.approx(found["mass_outside"], rel=0.01)


def test_the_prediction_is_the_mean_over_sources():
    truth = make_hmm_truth(*HMM, length=2)
    pairs = one_reference(["_ _", "0 1", "_ _", "_ 1"], ["0 1"] * 4)
    sources, shares = distinct_sources(pairs)
    assert dict(zip(sources.tolist(), shares.tolist(), strict=True)) == {
        "0 1": 0.25, "_ 1": 0.25, "_ _": 0.5,
    }  # fmt: skip
    found = predicted_divergence(truth, pairs, 0.5, optimum_divergences)
    open_kl = scheduled_sampling_optimum(HMM[0], HMM[1], 2, 0.5, emission=HMM[2]).kl
    # One of two symbols is revealed: the other is then predicted from full knowledge.
    assert found == pytest.approx(open_kl / 2, abs=1e-12)
    assert (
        predicted_divergence(truth, pairs, 0.0, partial(optimum_divergences, feed="argmax")) is None
    )  # not identified
    long = make_hmm_truth(*HMM, length=40)
    assert predicted_divergence(long, pairs, 0.5, optimum_divergences) is None


def test_a_source_of_a_single_mark_reveals_nothing():
    assert told_symbols(np.array(["_", "_"]), 3).tolist() == [[-1] * 3] * 2
    assert told_symbols(np.array(["0 _ 2"]), 3).tolist() == [[0, -1, 2]]


@pytest.mark.parametrize(
    ("overrides", "is_covered"),
    [
        ({}, True),
        ({"rollout.coin": "sequence", "rollout.feed": "argmax"}, True),
        ({"rollout.temperature": 0.5}, False),
        ({"rollout.top_k": 2}, False),
        ({"train.label_smoothing": 0.1}, False),
        ({"model.dropout": 0.1}, False),
    ],
)
def test_what_theory_covers(overrides, is_covered, tmp_path):
    sizes = {"data.num_train": 20, "data.num_dev": 2, "data.num_test": 2}
    config = base_config("markov", "constant")
    config.schedule.teacher_prob, config.data.data_dir = 0.5, str(tmp_path)
    config.data.source_vocabulary = config.data.target_vocabulary = "whitespace"
    config.model.hidden_size = config.model.embedding_size = 4
    experiment = make_experiment(apply_overrides(config, sizes | overrides))
    task = experiment.load_task()
    model = experiment.make_model(task.vocabularies)
    divergence = experiment.make_divergence(model, task)
    assert divergence is not None
    found = divergence(model.init(jax.random.key(0)))
    assert ("kl_predicted" in found) == is_covered


def test_a_symbol_that_is_not_in_the_training_data_has_no_id(tmp_path):
    options: Any = {"num_train": 20, "num_dev": 2, "num_test": 2, "transition": ((1.0, 0.0),) * 2}
    pairs = load_splits("markov", options | {"initial": (1.0, 0.0)}, str(tmp_path))["train"]
    vocabularies = Vocabularies.train(pairs, "whitespace", "whitespace", 0)
    assert len(vocabularies.target) == NUM_RESERVED + 1
    assert not knows_symbols(vocabularies, make_markov_truth((1.0, 0.0), np.eye(2), 3))
    assert knows_symbols(vocabularies, make_markov_truth((1.0,), np.eye(1), 3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny markov run from its own experiment file: the result, and the logged records."""
    folder = tmp_path_factory.mktemp("markov")
    path = Path(__file__).parents[3] / "experiments" / "markov.py"
    config = load_experiment(str(path)).get_config("linear")
    config.data.data_dir = str(folder / "tfds")
    config.data.num_train, config.data.num_dev, config.data.num_test = 200, 20, 20
    config.schedule.reach_teacher_prob = 0.5
    config.schedule.reach_fraction = 0.9
    config.schedule.floor = 0.5
    config.model.cell, config.model.bidirectional, config.model.attention = "gru", False, "none"
    config.model.hidden_size, config.model.embedding_size = 8, 4
    config.train.num_steps, config.train.batch_size, config.eval.every = 20, 32, 10
    result = train_and_evaluate(config, folder / "run", report=lambda line: None)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return result["metrics"], [json.loads(line) for line in lines]


def test_a_run_logs_its_divergence_and_the_predicted_one(run):
    metrics, logged = run
    # The schedule ends at teacher_prob 0.5.
    assert metrics["eval/kl_predicted"] == pytest.approx(0.113018, abs=1e-6)
    evaluated = [record for record in logged if "eval/kl_to_truth" in record]
    assert [record["step"] for record in evaluated] == [10, 20]
    assert all(0 < record["eval/mass_outside"] < 1 for record in evaluated)
    # Logged for the last step, not the best one.
    assert metrics["eval/kl_to_truth"] == pytest.approx(evaluated[-1]["eval/kl_to_truth"])
    assert evaluated[0]["eval/kl_to_truth"] != evaluated[1]["eval/kl_to_truth"]
    assert not any(name.startswith("test/kl") for name in metrics)
