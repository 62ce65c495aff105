"""A task: splits, vocabularies and batches together."""

from itertools import islice
from typing import Any

import numpy as np
import pytest

from s2s_jax.batch import EOS, UNK
from s2s_jax.data.catalog import LOADERS, load_splits
from s2s_jax.data.pairs import DataError, merge_references, one_reference
from s2s_jax.data.task import Task, Vocabularies, make_task

TRAIN = one_reference(["ab", "b", "abab", "a"], ["x y", "y", "x y x y", "x"])
DEV = merge_references(["ab", "ab", "c"], ["x y", "y", "x x x"])


@pytest.fixture
def task():
    vocabularies = Vocabularies.train(TRAIN, "characters", "whitespace", 0)
    return Task({"train": TRAIN, "dev": DEV}, vocabularies)


@pytest.mark.parametrize("missing", ["train", "dev"])
def test_a_task_without_training_or_dev_is_refused(missing):
    vocabularies = Vocabularies.train(TRAIN, "characters", "whitespace", 0)
    splits = {split: TRAIN for split in ("train", "dev", "test") if split != missing}
    with pytest.raises(DataError, match=f"the data has no {missing} split; it has"):
        Task(splits, vocabularies)


@pytest.mark.parametrize("missing", ["train", "dev"])
def test_loading_refuses_them_too(monkeypatch, missing):
    splits = {split: TRAIN for split in ("train", "dev", "test") if split != missing}
    monkeypatch.setitem(LOADERS, "mine", lambda data_dir: splits)
    with pytest.raises(DataError, match=f"the data has no {missing} split"):
        make_task(load_splits("mine"))


def test_vocabularies_use_only_the_training_split_and_can_be_reloaded(monkeypatch, tmp_path):
    monkeypatch.setitem(LOADERS, "mine", lambda data_dir: {"train": TRAIN, "dev": DEV})
    task = make_task(load_splits("mine"), target_vocabulary="whitespace")
    assert task.vocabularies.source.encode("abc")[-1] == UNK
    task.vocabularies.save(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["source_vocabulary.json", "target_vocabulary.json"]
    again = Vocabularies.load(tmp_path)
    assert again.source.kind == "characters"
    assert again.target.kind == "whitespace"
    for text in ("ab", "ba c"):
        assert again.source.encode(text) == task.vocabularies.source.encode(text)
        assert again.target.encode(text) == task.vocabularies.target.encode(text)
    # The vocabularies of the run are used, whatever the data would give.
    assert make_task(load_splits("mine"), vocabularies=again).vocabularies is again


def test_an_unknown_kind_of_vocabulary_is_refused(monkeypatch):
    monkeypatch.setitem(LOADERS, "mine", lambda data_dir: {"train": TRAIN, "dev": DEV})
    with pytest.raises(DataError, match="did you mean 'characters'"):
        make_task(load_splits("mine"), source_vocabulary="charcters")


def test_a_shared_vocabulary_is_trained_on_both_sides_of_training(tmp_path):
    splits = {"train": TRAIN, "dev": DEV}
    one = make_task(splits, shared_vocabulary=True).vocabularies
    assert one.are_one
    for text, known in (("ab", True), ("x y", True), ("c", False)):
        assert (UNK not in one.source.encode(text)) == known
    one.save(tmp_path)
    files = [(tmp_path / f"{side}_vocabulary.json").read_bytes() for side in ("source", "target")]
    assert files[0] == files[1]
    assert make_task(splits, shared_vocabulary=True, vocabularies=one).vocabularies is one
    two = make_task(splits).vocabularies
    assert not two.are_one
    with pytest.raises(DataError, match="source and target of the vocabularies given differ"):
        make_task(splits, shared_vocabulary=True, vocabularies=two)


def test_a_shared_vocabulary_has_one_kind_and_a_known_one():
    splits: dict[str, Any] = {"train": TRAIN, "dev": DEV}
    options: dict[str, Any] = {"shared_vocabulary": True}
    with pytest.raises(DataError, match=r"source_vocabulary is characters and .* is whitespace"):
        make_task(splits, target_vocabulary="whitespace", **options)
    with pytest.raises(DataError, match=r"^data.source_vocabulary: .*did you mean 'characters'"):
        make_task(splits, source_vocabulary="charcters", target_vocabulary="charcters", **options)


def test_training_batches_have_every_pair_once_an_epoch(task):
    batches = task.training_batches(num_buckets=2, batch_size=2, seed=3)
    epoch = list(islice(batches, batches.num_batches))
    assert {batch.target.shape[0] for batch in epoch} == {2}
    assert {(*batch.source.shape, batch.target.shape[1]) for batch in epoch} <= set(batches.shapes)
    seen = sorted(
        task.vocabularies.source.decode(row.tolist())
        for batch in epoch
        for row, mask in zip(batch.source, batch.target_mask, strict=True)
        if mask.any()
    )
    assert seen == sorted(TRAIN.sources)
    again = task.training_batches(num_buckets=2, batch_size=2, seed=3)
    other = [task.training_batches(2, 2, seed) for seed in range(4, 9)]
    assert all((batches[5].source == again[5].source).all() for _ in range(2))
    assert any(
        one[step].source.shape != batches[step].source.shape
        or (one[step].source != batches[step].source).any()
        for one in other
        for step in range(2)
    )


def test_a_pair_must_fit_into_a_batch_of_tokens(task):
    with pytest.raises(DataError) as error:
        task.training_batches(2, 2, 0, tokens_per_batch=4)
    assert str(error.value) == (
        "train.tokens_per_batch is 4, and the longest training pair has 5 tokens;"
        " set it to 5 or more, or data.max_tokens to 4 or less"
    )
    assert task.training_batches(1, 2, 0, tokens_per_batch=5).shapes == [(1, 5, 5)]
    short = Task(task.splits, task.vocabularies, max_tokens=4)
    assert short.training_batches(1, 2, 0, tokens_per_batch=4).shapes == [(1, 3, 3)]


def test_pairs_that_are_too_long_are_left_out_of_training_only(task):
    short = Task(task.splits, task.vocabularies, max_tokens=3)
    batches = short.training_batches(1, 4, 0)
    assert int(sum(batch.target_mask.any(-1).sum() for batch in [batches[0]])) == 3
    assert (len(short.training_tokens), short.training_tokens.num_dropped) == (3, 1)
    assert len(short.tokens("train")) == 4
    assert len(short.evaluation("train", 4).tokens) == 4


def test_evaluation_has_every_pair_once_with_its_references(task):
    data = task.evaluation("dev", 512)
    assert data.batch_size == 2
    assert data.references == [("x y", "y"), ("x x x",)]
    for _ in range(2):  # as often as one likes
        indices = np.concatenate([some for some, _ in data])
        assert sorted(index for index in indices if index >= 0) == [0, 1]
    first = task.evaluation("dev", 512, max_examples=1)
    assert len(first.tokens) == len(first.references) == 1
    assert len(task.evaluation("dev", 512, max_examples=99).references) == 2
    with pytest.raises(DataError, match="no split 'tset'; it has train, dev"):
        task.evaluation("tset", 4)


def test_a_part_of_a_split_is_spread_evenly_over_it(task):
    whole, some = task.evaluation("train", 4), task.evaluation("train", 4, max_examples=2)
    assert whole.indices.tolist() == [0, 1, 2, 3]
    assert some.indices.tolist() == [0, 2]
    assert some.references == whole.references[::2]
    assert some.sources == whole.sources[::2]
    for name in ("source", "target"):
        every = getattr(whole.tokens, name)
        parts = [every.ids[every.offsets[n] : every.offsets[n + 1]] for n in (0, 2)]
        np.testing.assert_array_equal(getattr(some.tokens, name).ids, np.concatenate(parts))


def test_targets_end_in_eos_and_decoding_may_be_one_and_a_half_times_as_long(task):
    _, batch = next(iter(task.evaluation("dev", 512)))
    lengths = batch.target_mask.sum(-1)
    assert (batch.target[np.arange(len(lengths)), lengths - 1] == EOS).all()
    assert task.max_decode_length("dev") == 5 + 2 + 1  # "x y x y" and EOS in training


def test_a_pair_that_is_left_out_of_training_does_not_lengthen_decoding():
    pairs = one_reference([*TRAIN.sources, "a"], [*TRAIN.targets, "x " * 400])
    vocabularies = Vocabularies.train(pairs, "characters", "whitespace", 0)
    task = Task({"train": pairs, "dev": DEV}, vocabularies, max_tokens=5)
    assert task.max_decode_length("dev") == 5 + 2 + 1
    # Targets of the split itself must fit.
    assert task.max_decode_length("train") == 401 + 200 + 1


def test_the_longest_sequence_is_named_if_a_model_cannot_take_it():
    pairs = one_reference(["a", "aaaa", "aa"], ["b", "b", "bbb"])
    task = make_task({"train": pairs, "dev": pairs}, max_tokens=4)
    task.check_lengths("train", 4)
    task.check_lengths("dev", None)
    task.check_lengths("dev", 5)
    message = r"longest source of split 'dev', pair 1 of 3, has 5 tokens .*; set it to 5 or more$"
    with pytest.raises(DataError, match=f"model.max_length is 4, and the {message}"):
        task.check_lengths("dev", 4)
    with pytest.raises(DataError, match=r"longest target of split 'train', pair 1 of 2, .* lower$"):
        task.check_lengths("train", 3)
    assert task.max_decode_length("dev") == 7
    assert task.max_decode_length("dev", limit=5) == 5
