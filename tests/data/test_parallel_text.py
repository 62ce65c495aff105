import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest

from s2s_jax.data.catalog import load_splits
from s2s_jax.data.pairs import DataError, Pairs
from s2s_jax.data.parallel_text import load_parallel_text, load_tsv
from s2s_jax.data.splits import fingerprints_of, unprepared

FILES = {
    "train.en": "a dog\na cat \r\n",
    "train.de": "ein Hund\neine Katze\n",
    "dev.en": "two dogs\ntwo\u2028dogs\n",
    "dev.de": "zwei Hunde\nzwei Hunde",
    "test.en": "\ufeffweiß\n",
    "test.de": "white\n",
}
TSV = {
    "train.tsv": "cat\tK AE T\nread\tR IY D\nread\tR EH D\n",
    "dev.tsv": "lead\tL IY D\nbow\tB OW\nlead\tL EH D\n",
}


def write(folder: Path, files: Mapping[str, str | bytes]) -> str:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(folder)


def load(tmp_path: Path, files: Mapping[str, str | bytes], **options) -> Mapping[str, Pairs]:
    folder = write(tmp_path / "text", files)
    languages = {"source_language": "en", "target_language": "de"} | options
    return load_parallel_text(str(tmp_path / "tfds"), folder=folder, **languages)


def refused(tmp_path: Path, files: Mapping[str, str | bytes], **options) -> str:
    """The error message, after checking that nothing was written."""
    with pytest.raises(DataError) as caught:
        load(tmp_path, files, **options)
    assert not (tmp_path / "tfds").exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_lines_are_pairs(tmp_path):
    splits = load(tmp_path, FILES)
    assert splits["train"].sources == ["a dog", "a cat"]
    assert splits["train"].targets == ["ein Hund", "eine Katze"]
    # A line separator within a sentence is not a line end.
    assert splits["dev"].sources == ["two dogs", "two\u2028dogs"]
    assert splits["dev"].references == [("zwei Hunde",)] * 2
    assert splits["test"].sources == ["weiß"]


def test_the_direction_is_an_option(tmp_path):
    splits = load(tmp_path, FILES, source_language="de", target_language="en")
    assert splits["train"].sources == ["ein Hund", "eine Katze"]


def test_home_folders_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "text", TSV)
    assert load_tsv("~/tfds", folder="~/text")["dev"].sources == ["lead", "bow"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text", "tfds"]
    with pytest.raises(DataError, match=r"data\.folder is ~no-such-user/x: ~no-such-user has no"):
        load_tsv("~/tfds", folder="~no-such-user/x")


@pytest.mark.parametrize("dev", ["val", "valid"])
def test_gzipped_files_other_names_and_no_test_split(tmp_path, dev):
    files: dict[str, str | bytes] = {
        "train.en.gz": "a\n",
        "train.de.gz": "b\n",
        f"{dev}.en": "c\n",
        f"{dev}.de.gz": "d\n",
    }
    splits = load(tmp_path, files)
    assert {name: (pairs.sources, pairs.targets) for name, pairs in splits.items()} == {
        "train": (["a"], ["b"]),
        "dev": (["c"], ["d"]),
    }


def test_one_test_set_of_another_name_is_found_and_several_are_refused(tmp_path):
    files = {name.replace("test", "test_2016_x"): text for name, text in FILES.items()}
    (tmp_path / "one").mkdir()
    assert load(tmp_path / "one", files)["test"].sources == ["weiß"]
    files |= {"test_2017.en": "x\n", "test_2017.de": "x\n"}
    assert "several test sets (test_2016_x, test_2017)" in refused(tmp_path, files)


def test_an_empty_line_is_a_pair(tmp_path):
    splits = load(tmp_path, FILES | {"train.en": "a\n\nb\n", "train.de": "x\ny\n\n"})
    assert splits["train"].sources == ["a", "", "b"]
    assert splits["train"].targets == ["x", "y", ""]


def test_fingerprints_depend_on_the_text_and_prepare_nothing(tmp_path):
    def known(files):
        folder = write(tmp_path / "text", files)
        options = {"folder": folder, "source_language": "en", "target_language": "de"}
        with unprepared():
            return fingerprints_of(load_splits("parallel_text", options, str(tmp_path / "tfds")))

    before = known(FILES)
    (tmp_path / "elsewhere").mkdir()
    assert before == fingerprints_of(load(tmp_path / "elsewhere", FILES))
    changed = known({"test.de": "weiss\n"})
    assert {name for name in before if before[name] != changed[name]} == {"test"}
    for language in ("en", "de"):
        (tmp_path / "text" / f"dev.{language}").rename(tmp_path / "text" / f"val.{language}")
    assert known({"test.de": FILES["test.de"]}) == before
    known({"train.de": "of another length\n"})  # no preparation would accept it
    assert not (tmp_path / "tfds").exists()


def test_changed_files_are_prepared_again(tmp_path):
    assert load(tmp_path, FILES)["train"].targets[0] == "ein Hund"
    # The length is unchanged, so only the content differs.
    changed = load(tmp_path, FILES | {"train.de": "ein Hase\neine Katze\n"})
    assert changed["train"].targets[0] == "ein Hase"
    (tmp_path / "text" / "test.en").unlink()
    (tmp_path / "text" / "test.de").unlink()
    assert "test" not in load(tmp_path, {})
    assert load(tmp_path, FILES)["train"].targets[0] == "ein Hund"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"train.en": None}, ["has no train.en"]),
        ({"train.en": None, "train.de": None}, ["has no train.en", ".gz"]),
        ({"dev.en": None, "dev.de": None}, ["has no dev.en or val.en or valid.en"]),
        ({"val.en": "x", "val.de": "y"}, ["has several dev sets (dev, val): keep only the one"]),
        ({"valid.de": "y"}, ["has several dev sets (dev, valid)"]),
        ({"test.en": "a\nb\ufeffc\n"}, ["test.en, line 2: a byte order mark"]),
        ({"train.en": "a\nb\n".encode("utf-16-le")}, ["train.en is UTF-16"]),
        ({"dev.de": None}, ["has no dev.de"]),
        ({"train.de": "ein Hund\n"}, ["train.en has 2 lines", "train.de 1"]),
        ({"dev.en": "", "dev.de": ""}, ["dev.en is empty"]),
        ({"train.de": b"ein Hund\nein M\xe4dchen\n"}, ["train.de, line 2: not UTF-8"]),
        ({"train.de": b"\xef\xbb\xbfein Hund\n\n\xff\n"}, ["train.de, line 3: not UTF-8"]),
        ({"train.en": None, "train.en.gz": None}, ["has no train.en"]),
    ],
)
def test_bad_files(tmp_path, files, words):
    kept = {name: text for name, text in (FILES | files).items() if text is not None}
    message = refused(tmp_path, kept)
    for word in words:
        assert word in message


def test_a_broken_gzip_file(tmp_path):
    write(tmp_path / "text", FILES)
    (tmp_path / "text" / "train.en").unlink()
    for broken in (b"no gzip", gzip.compress(b"a dog\na cat\n" * 100)[:-12]):
        (tmp_path / "text" / "train.en.gz").write_bytes(broken)
        assert "train.en.gz is not a whole gzip file" in refused(tmp_path, {})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"folder": ""}, "data.folder is not set"),
        ({"folder": "/no/such/folder"}, "data.folder /no/such/folder is not a folder"),
        ({"source_language": ""}, "data.source_language is not set"),
        ({"target_language": "en"}, "are both en"),
    ],
)
def test_bad_options(tmp_path, options, word):
    given = {"folder": str(tmp_path), "source_language": "en", "target_language": "de"} | options
    with pytest.raises(DataError, match=word):
        load_parallel_text(str(tmp_path / "tfds"), **given)


def test_tab_separated_pairs_merge_references_in_scored_splits(tmp_path):
    splits = load_tsv(str(tmp_path / "tfds"), folder=write(tmp_path / "text", TSV))
    assert list(splits) == ["train", "dev"]
    assert splits["train"].sources == ["cat", "read", "read"]
    assert splits["train"].references == [("K AE T",), ("R IY D",), ("R EH D",)]
    assert splits["dev"].sources == ["lead", "bow"]
    assert splits["dev"].targets == ["L IY D", "B OW"]
    assert splits["dev"].references == [("L IY D", "L EH D"), ("B OW",)]


def test_a_side_of_a_tab_separated_pair_may_be_empty(tmp_path: Path) -> None:
    files = {"dev.tsv": " lead \t\r\n\tB OW\n"}
    splits = load_tsv(str(tmp_path / "tfds"), folder=write(tmp_path / "text", TSV | files))
    assert splits["dev"].sources == ["lead", ""]
    assert splits["dev"].targets == ["", "B OW"]


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"dev.tsv": "lead\tL\nbow B\n"}, r"dev\.tsv, line 2: 0 tabs"),
        ({"dev.tsv": "lead\tL\tX\n"}, r"dev\.tsv, line 1: 2 tabs"),
        ({"train.tsv": ""}, r"train\.tsv is empty"),
        ({"train.tsv": b"\xff\t1\n"}, r"train\.tsv, line 1: not UTF-8"),
        ({"val.tsv": "lead\tL\n"}, r"several dev sets \(dev, val\)"),
        ({"dev.tsv": "Source\ttarget\nlead\tL\n"}, r"dev\.tsv, line 1: Source TAB target looks"),
        (
            {name: f"word\tsounds\n{text}" for name, text in TSV.items()},
            r"train\.tsv, line 1: word TAB sounds looks like a header",
        ),
    ],
)
def test_bad_tab_separated_pairs(tmp_path, files, word):
    with pytest.raises(DataError, match=word):
        load_tsv(str(tmp_path / "tfds"), folder=write(tmp_path / "text", TSV | files))
    assert not (tmp_path / "tfds").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"dev.tsv": TSV["train.tsv"]},  # one is the other, to try something out
        {"dev.tsv": "cat\tK AE T\nlead\tL\ncat\tK AE T\n"},  # the first is there once more
        {"train.tsv": "target\ttarget\n"},
    ],
)
def test_a_first_line_that_is_not_a_header_is_an_example(tmp_path, files):
    splits = load_tsv(str(tmp_path / "tfds"), folder=write(tmp_path / "text", TSV | files))
    assert all(pairs.sources[0] in ("cat", "lead", "target") for pairs in splits.values())
