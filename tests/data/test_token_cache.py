"""Vocabularies and token ids are cached with the data, and never wrong or broken ones."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2s_jax.data import builders, token_cache
from s2s_jax.data.catalog import LOADERS, load_splits
from s2s_jax.data.pairs import merge_references, one_reference
from s2s_jax.data.splits import load_or_prepare
from s2s_jax.data.task import make_task

SPLITS = {
    "train": one_reference(["ab", "b", "abab", "a"], ["x y", "y", "x y x y", "x"]),
    "dev": merge_references(["ab", "ab", "c"], ["x y", "y", "x x x"]),
}


@pytest.fixture
def made(monkeypatch):
    """Records what is trained, encoded and read."""
    done: list[str] = []

    def noting(name, function):
        return lambda *args, **options: done.append(name) or function(*args, **options)

    for name in ("train_vocabulary", "tokenize"):
        monkeypatch.setattr(token_cache, name, noting(name, getattr(token_cache, name)))
    monkeypatch.setattr(builders, "read_split", noting("read", builders.read_split))
    return done


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads the task as a new process would, with given splits."""

    def load(splits=SPLITS, config="c", **options: Any):
        monkeypatch.setitem(
            LOADERS,
            "mine",
            lambda data_dir: load_or_prepare("mine", config, "1.0.0", lambda: splits, data_dir),
        )
        options = {"target_vocabulary": "whitespace"} | options
        task = make_task(load_splits("mine", {}, str(tmp_path)), **options)
        return task, {"train": task.training_tokens, "dev": task.tokens("dev")}

    return load


@pytest.fixture
def files(tmp_path):
    """Paths of the cache's files."""
    return lambda: sorted((tmp_path / "mine").rglob("tokens/*"))


def assert_same(one, other):
    for split in one:
        for side in ("source", "target"):
            left, right = getattr(one[split], side), getattr(other[split], side)
            np.testing.assert_array_equal(left.ids, right.ids)
            np.testing.assert_array_equal(left.offsets, right.offsets)
            assert left.ids.dtype == right.ids.dtype == np.int32
        assert one[split].num_dropped == other[split].num_dropped


def test_the_second_load_trains_encodes_and_reads_nothing(load, made):
    first, tokens = load()
    assert sorted(made) == ["read"] * 2 + ["tokenize"] * 2 + ["train_vocabulary"] * 2
    made.clear()
    second, again = load()
    assert made == []
    assert_same(tokens, again)
    for side in ("source", "target"):
        one, other = getattr(first.vocabularies, side), getattr(second.vocabularies, side)
        assert one.to_bytes() == other.to_bytes()
    # The text can still be read.
    assert second.evaluation("dev", 4).references == [("x y", "y"), ("x x x",)]
    assert made == ["read"]


def test_a_shared_vocabulary_is_trained_once_and_cached(load, made):
    shared = {"target_vocabulary": "characters", "shared_vocabulary": True}
    first, tokens = load(**shared)
    assert made.count("train_vocabulary") == 1
    made.clear()
    second, again = load(**shared)
    assert made == []
    assert_same(tokens, again)
    assert first.vocabularies == second.vocabularies
    apart, _ = load(target_vocabulary="characters")
    assert made.count("train_vocabulary") == 2
    assert not apart.vocabularies.are_one


@pytest.mark.parametrize(
    "other",
    [
        {"target_vocabulary": "characters"},
        {"target_vocabulary": "characters", "shared_vocabulary": True},
        {"vocabulary_size": 5},
        {"max_tokens": 3},
        {"config": "d", "splits": SPLITS | {"train": one_reference(["ba"], ["y x"])}},
    ],
)
def test_other_options_do_not_use_the_cached_files(load, other):
    load()
    (_, tokens), (_, fresh) = load(**other), load(**other | {"config": "fresh"})
    assert_same(tokens, fresh)


def test_a_different_vocabulary_of_a_run_gives_different_ids(load):
    one = load()[0].vocabularies
    reverse = {"train": one_reference(["bb", "a"], ["y x", "y"]), "dev": SPLITS["dev"]}
    other, _ = load(reverse, "d")
    _, tokens = load(vocabularies=other.vocabularies)
    assert tokens["train"].source.ids.tolist() != load()[1]["train"].source.ids.tolist()
    assert load()[0].vocabularies.source.to_bytes() == one.source.to_bytes()


@pytest.mark.parametrize("content", [b"", b"PK", b"{}", b'{"kind": "whitespace", "tokens": 1}'])
def test_a_broken_file_is_replaced(load, files, made, content):
    _, tokens = load()
    assert len(files()) == 4
    for path in files():
        path.write_bytes(content)
    assert_same(tokens, load()[1])
    made.clear()
    load()
    assert made == []


def test_a_truncated_file_is_replaced(load, files):
    _, tokens = load()
    for path in files():
        path.write_bytes(path.read_bytes()[:-30])
    assert_same(tokens, load()[1])


def test_other_code_does_not_use_files_made_by_this_code(load, made, monkeypatch, tmp_path):
    load()
    made.clear()
    changed = tmp_path / "changed.py"
    changed.write_text("# encodes in another way")
    monkeypatch.setattr(token_cache.batching, "__file__", str(changed))
    load()
    assert sorted(made) == ["read"] * 2 + ["tokenize"] * 2 + ["train_vocabulary"] * 2


def test_a_folder_that_cannot_be_written_is_not_an_error(load, made, tmp_path):
    _, tokens = load()
    folder = next((tmp_path / "mine").rglob("tokens"))
    shutil.rmtree(folder)
    folder.write_text("a file")
    made.clear()
    assert_same(tokens, load()[1])
    assert made.count("tokenize") == 2
    assert folder.read_text() == "a file"


def test_what_a_killed_writer_left_is_cleared_when_no_machine_can_be_writing_it(
    load: Callable[..., Any], tmp_path: Path
) -> None:
    load()
    folder = next((tmp_path / "mine").rglob("tokens"))
    young, old = (folder / f".{name}.npz.{2**31 - 1}.tmp" for name in ("young", "old"))
    for path, age in ((young, 60), (old, 24 * 3600)):
        path.write_text("half")
        os.utime(path, (time.time() - age, time.time() - age))
    load(max_tokens=2)
    assert (young.exists(), old.exists()) == (True, False)


def test_splits_in_memory_are_not_cached(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LOADERS, "mine", lambda data_dir: SPLITS)
    make_task(load_splits("mine")).tokens("train")
    assert not list(tmp_path.iterdir())


def test_targets_that_do_not_round_trip_are_searched_for_once(load, made):
    splits = SPLITS | {"dev": merge_references(["ab", "c"], ["x y", "y  x"])}
    task, _ = load(splits)
    found = task.not_given_back("dev")
    assert (found.count, found.total, found.number) == (1, 2, 2)
    assert (found.text, found.decoded) == ("y  x", "y x")
    made.clear()
    again, _ = load(splits)
    assert again.not_given_back("dev") == found
    assert made == []
