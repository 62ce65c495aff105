import re
from itertools import product
from typing import Any

import numpy as np
import pytest

from s2s_jax.data.catalog import dataset_options, load_splits
from s2s_jax.data.chain import ChainTruth, make_hmm_truth, make_markov_truth
from s2s_jax.data.markov import (
    known_truth,
    load_hmm,
    load_markov,
    symbol_numbers,
    symbol_texts,
)
from s2s_jax.data.pairs import DataError
from s2s_jax.theory.optimum import next_token_tables, sequence_probs

SIZES: dict[str, Any] = {"num_train": 4000, "num_dev": 30, "num_test": 20}
CHAIN = (0.7, 0.3), ((0.9, 0.1), (0.2, 0.8))
HMM = (0.6, 0.4), ((0.8, 0.2), (0.3, 0.7)), ((0.7, 0.2, 0.1), (0.0, 0.4, 0.6))


def shares(texts: list[str], num_symbols: int, length: int) -> np.ndarray:
    counts = np.zeros((num_symbols,) * length)
    np.add.at(counts, tuple(symbol_numbers(texts).T), 1 / len(texts))
    return counts


def test_chains_are_drawn_from_the_truth_with_a_constant_source(tmp_path):
    initial, transition = CHAIN
    splits = load_markov(str(tmp_path), initial=initial, transition=transition, length=3, **SIZES)
    assert {name: len(pairs) for name, pairs in splits.items()} == {
        "train": 4000,
        "dev": 30,
        "test": 20,
    }
    for pairs in splits.values():
        assert set(pairs.sources) == {"_"}
        assert pairs.references == [(target,) for target in pairs.targets]
    expected = sequence_probs(next_token_tables(*CHAIN, 3))
    found = shares(splits["train"].targets, 2, 3)
    assert np.all(np.abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000))
    assert splits["dev"].targets != splits["test"].targets[:30]


def test_hidden_chains_are_drawn_from_the_truth(tmp_path):
    initial, transition, emission = HMM
    options: dict[str, Any] = {
        "initial": initial,
        "transition": transition,
        "emission": emission,
        "length": 3,
    }
    splits = load_hmm(str(tmp_path), **options, **SIZES)
    expected = sequence_probs(next_token_tables(initial, transition, 3, emission=emission))
    found = shares(splits["train"].targets, 3, 3)
    assert np.all(np.abs(found - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / 4000))
    assert set(splits["train"].sources) == {"_ _ _"}


@pytest.mark.parametrize("dependence", [0.0, 0.25, 1.0])
def test_a_source_hides_the_requested_share(tmp_path, dependence):
    pairs = load_hmm(str(tmp_path), dependence=dependence, length=5, **SIZES)["train"]
    sources, targets = symbol_numbers(pairs.sources), symbol_numbers(pairs.targets)
    hidden = sources < 0
    assert np.array_equal(sources[~hidden], targets[~hidden])
    assert np.all(np.abs(hidden.mean(0) - dependence) <= 0.035)
    if 0 < dependence < 1:  # each symbol for itself
        both = (hidden[:, 0] & hidden[:, 1]).mean()
        assert both == pytest.approx(dependence**2, abs=0.02)


def by_bayes(truth: ChainTruth, prefix: tuple[int, ...], source: tuple[int, ...]) -> np.ndarray:
    """P(next | prefix, what the source reveals of the rest), summed over whole sequences."""
    emission = truth.emission
    tables = next_token_tables(truth.initial, truth.transition, truth.length, emission=emission)
    joint = sequence_probs(tables)[prefix]
    for axis, told in enumerate(source[len(prefix) :]):
        if told >= 0:
            others = np.arange(joint.shape[axis]) != told
            joint = np.moveaxis(joint.copy(), axis, 0)
            joint[others] = 0
            joint = np.moveaxis(joint, 0, axis)
    probs = joint.reshape(truth.num_symbols, -1).sum(-1)
    return probs / probs.sum() if probs.sum() else np.full(truth.num_symbols, np.nan)


@pytest.mark.parametrize(
    "truth", [make_markov_truth(*CHAIN, length=4), make_hmm_truth(*HMM, length=4)]
)
def test_next_token_probs_are_bayes_rule_over_whole_sequences(truth):
    symbols = range(truth.num_symbols)
    sources = list(product((-1, *symbols), repeat=4))
    num_checked = 0
    for step in range(4):
        prefixes = list(product(symbols, repeat=step))
        rows = list(product(prefixes, sources))[:: (1, 3, 7, 31)[step]]
        prefix = np.array([row[0] for row in rows]).reshape(len(rows), step)
        probs = truth.next_token_probs(prefix, [row[1] for row in rows])
        np.testing.assert_allclose(probs.sum(-1), 1)
        expected = np.array([by_bayes(truth, *row) for row in rows])
        known = ~np.isnan(expected[:, 0])
        np.testing.assert_allclose(probs[known], expected[known], atol=1e-12)
        num_checked += known.sum()
    assert num_checked > 50


@pytest.mark.parametrize(
    "truth", [make_markov_truth(*CHAIN, length=4), make_hmm_truth(*HMM, length=4)]
)
def test_the_chains_given_sources_are_the_truth_given_them(truth):
    """Tables of the conditional chain against Bayes' rule over whole sequences."""
    target = truth.sample(40, np.random.default_rng(0))
    told = np.where(np.random.default_rng(1).random(target.shape) < 0.6, -1, target)
    chains = truth.given(told)
    for row, source in enumerate(told.tolist()):
        tables = next_token_tables(
            chains.initial[row], chains.transition[row], 4, emission=chains.emission[row]
        )
        joint = sequence_probs(tables)
        assert joint.sum() == pytest.approx(1)
        for step, table in enumerate(tables):
            mass = joint.sum(tuple(range(step, 4)))
            for prefix in np.argwhere(mass > 0):
                expected = by_bayes(truth, tuple(prefix), tuple(source))
                np.testing.assert_allclose(table[tuple(prefix)], expected, atol=1e-12)


def test_a_source_without_a_target_has_no_chain():
    truth = make_markov_truth((1.0, 0.0), ((0.0, 1.0), (0.5, 0.5)), length=3)
    with pytest.raises(ValueError, match="source 1 tells symbols that no target has together"):
        truth.given([[0, -1, -1], [-1, 0, -1]])
    with pytest.raises(ValueError, match=r"source has shape \(1, 2\); it must be \[n, 3\]"):
        truth.given([[0, 1]])


def test_the_truth_of_a_dataset():
    truth = known_truth("hmm", dataset_options("hmm") | {"length": 3})
    assert truth is not None
    assert (truth.length, truth.num_symbols) == (3, 3)
    markov = known_truth("markov", dataset_options("markov"))
    assert markov is not None
    assert markov.transition.tolist() == [[0.9, 0.1], [0.2, 0.8]]
    assert known_truth("addition", dataset_options("addition")) is None
    with pytest.raises(DataError, match="length is 0"):
        known_truth("markov", dataset_options("markov") | {"length": 0})


def test_without_a_source_any_prefix_has_a_distribution():
    truth = make_markov_truth((1.0, 0.0), ((0.0, 1.0), (0.5, 0.5)), length=4)
    impossible = [[0, 0], [1, 0], [1, 1]]
    expected = [[0.0, 1.0], [0.0, 1.0], [0.5, 0.5]]
    assert truth.next_token_probs(impossible).tolist() == expected
    assert truth.next_token_probs(np.zeros((2, 0), int)).tolist() == [[1.0, 0.0]] * 2
    # The source reveals an impossible next symbol 0; it still counts.
    assert truth.next_token_probs([[0]], [[-1, 0, -1, -1]]).tolist() == [[1.0, 0.0]]
    # If a prefix contradicts the source, the prefix counts.
    assert truth.next_token_probs([[1]], [[0, -1, -1, -1]]).tolist() == [[0.5, 0.5]]
    # A source that reveals an impossible end says nothing about the middle.
    assert truth.next_token_probs([[0]], [[-1, -1, 0, 0]]).tolist() == [[0.0, 1.0]]


def test_all_prefixes_of_sequences_at_once():
    truth = make_hmm_truth(*HMM, length=5)
    target = truth.sample(50, np.random.default_rng(0))
    source = np.where(np.random.default_rng(1).random(target.shape) < 0.6, -1, target)
    for told in (None, source):
        at_once = truth.sequence_token_probs(target, told)
        assert at_once.shape == (50, 5, 3)
        for step in range(5):
            alone = truth.next_token_probs(target[:, :step], told)
            np.testing.assert_allclose(at_once[:, step], alone, atol=1e-12)


def test_long_sequences_do_not_underflow():
    truth = make_markov_truth((0.5, 0.5), ((0.99, 0.01), (0.01, 0.99)), length=3000)
    target = truth.sample(2, np.random.default_rng(0))
    source = np.full(target.shape, -1)
    source[:, -1] = target[:, -1]
    probs = truth.sequence_token_probs(target, source)
    np.testing.assert_allclose(probs.sum(-1), 1)
    assert np.array_equal(probs[:, -1].argmax(-1), target[:, -1])


def test_a_split_depends_on_the_seed_and_on_no_other_split(tmp_path):
    def load(folder: str, **options: Any):
        options = SIZES | {"dependence": 0.5} | options
        return load_hmm(str(tmp_path / folder), **options)

    first, again, fewer, other = (
        load("first"),
        load("again"),
        load("fewer", num_train=7),
        load("other", seed=1),
    )
    assert first == again
    assert fewer["dev"] == first["dev"]
    assert other["dev"] != first["dev"]


def test_preparations_of_different_chains_do_not_collide(tmp_path):
    sizes: dict[str, Any] = {"num_train": 3, "num_dev": 1, "num_test": 1}
    zeros: dict[str, Any] = {"initial": (1.0, 0.0), "transition": ((1.0, 0.0), (0.0, 1.0))}
    ones = zeros | {"initial": (0.0, 1.0)}
    assert load_markov(str(tmp_path), **zeros, **sizes)["train"].targets == ["0 0 0"] * 3
    assert load_markov(str(tmp_path), **ones, **sizes)["train"].targets == ["1 1 1"] * 3
    assert load_markov(str(tmp_path), **ones, length=2, **sizes)["dev"].targets == ["1 1"]
    told = load_hmm(str(tmp_path), dependence=0.0, **sizes)["dev"].sources
    assert load_hmm(str(tmp_path), dependence=1.0, **sizes)["dev"].sources != told


def test_they_are_in_the_catalogue(tmp_path):
    sizes: dict[str, Any] = {"num_train": 3, "num_dev": 1, "num_test": 1}
    for name in ("markov", "hmm"):
        assert {"initial", "transition", "length", "seed", *sizes} <= set(dataset_options(name))
        assert len(load_splits(name, sizes, str(tmp_path))["train"]) == 3
    assert dataset_options("hmm")["dependence"] == 1.0


def test_symbols_as_text():
    numbers = np.array([[0, -1, 11], [3, 2, 1]])
    assert symbol_texts(numbers) == ["0 _ 11", "3 2 1"]
    assert np.array_equal(symbol_numbers(symbol_texts(numbers)), numbers)


@pytest.mark.parametrize(
    ("load", "options", "message"),
    [
        (load_markov, {"initial": (0.7, 0.2)}, "initial sums to 0.9, not to 1"),
        (load_markov, {"transition": ((0.9, 0.1),)}, "transition has 1 rows of 2"),
        (load_markov, {"length": 0}, "length is 0; it must be at least 1"),
        (load_markov, {"num_dev": 0}, "num_dev is 0: every split needs"),
        (load_markov, {"seed": -1}, "seed is -1, not 0 or more"),
        (load_hmm, {"emission": ((0.5, 0.5),)}, "emission has 1 rows of 2"),
        (load_hmm, {"emission": ((0.5, 0.5), (2.0, -1.0))}, "emission row 1 holds 2;"),
        (load_hmm, {"dependence": 1.5}, "dependence is 1.5, not in [0, 1]"),
        (load_hmm, {"dependence": float("nan")}, "dependence is nan, not in [0, 1]"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, load, options, message):
    with pytest.raises(DataError, match=re.escape(message)):
        load(str(tmp_path / "tfds"), **options)
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize(
    ("prefix", "source", "message"),
    [
        ([[0, 1, 0, 1]], None, r"prefix has shape \(1, 4\)"),
        ([0, 1], None, r"prefix has shape \(2,\)"),
        ([[2]], None, "prefix holds numbers that are none of 2"),
        ([[-1]], None, "prefix holds numbers that are none of 2"),
        ([[0]], [[0, 1]], r"source has shape \(1, 2\); it must be \(1, 4\)"),
        ([[0]], [[0, 2, 0, 0]], "source holds numbers that are none of 2"),
    ],
)
def test_invalid_prefixes_are_refused(prefix, source, message):
    with pytest.raises(ValueError, match=message):
        make_markov_truth(*CHAIN, length=4).next_token_probs(prefix, source)


def test_invalid_targets_are_refused():
    truth = make_markov_truth(*CHAIN, length=4)
    with pytest.raises(ValueError, match=r"target has shape \(1, 3\); it must be \[n, 4\]"):
        truth.sequence_token_probs([[0, 1, 0]])
