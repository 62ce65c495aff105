"""Pairs from text files: for each split two line-aligned files, or one of tab-separated pairs.

    parallel text                            tab-separated
    train.en      train.de                   train.tsv         source TAB target
    dev.en        dev.de   (or val, valid)   dev.tsv           (or val.tsv, valid.tsv)
    test.en       test.de  (or test_*)       test.tsv          (or test_*.tsv)

Each file is UTF-8, with one sentence or pair per line, and may be gzipped (train.en.gz). Training
and dev files are required; without test files there is no split "test".
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from s2s_jax.data.files import fingerprint
from s2s_jax.data.pairs import DataError, Pairs, merge_references, one_reference
from s2s_jax.data.paths import user_path
from s2s_jax.data.splits import PreparedSplits, load_or_prepare
from s2s_jax.data.text_lines import read_lines

VERSION = "1.1.0"
_STEMS = {"train": ("train",), "dev": ("dev", "val", "valid"), "test": ("test", "test_*")}
_NEEDED = ("train", "dev")
_HEADER = re.compile("source|src|target|tgt|trg|input|output")


def load_parallel_text(
    data_dir: str = "", *, folder: str = "", source_language: str = "", target_language: str = ""
) -> PreparedSplits:
    """Line-aligned text: line n of train.de is the translation of line n of train.en.

    Args:
      data_dir: TFDS's folder; "" means its default.
      folder: of the files; it is not written to.
      source_language: the suffix of the source files, such as "en".
      target_language: the suffix of the target files, such as "de".

    Raises:
      DataError: an option is not set, a folder or file is missing or not UTF-8, two files differ
        in length, or a split has no lines.
    """
    for option, value in (
        ("source_language", source_language),
        ("target_language", target_language),
    ):
        if not value:
            raise DataError(f"data.{option} is not set: the suffix of its files, en for train.en")
    if source_language == target_language:
        raise DataError(f"data.source_language and data.target_language are both {source_language}")
    files = find_files(folder, (f".{source_language}", f".{target_language}"))

    def read_split(split: str) -> Pairs:
        paths = files[split]
        sources, targets = (_read(path) for path in paths)
        if len(sources) != len(targets):
            raise DataError(
                f"{paths[0]} has {len(sources)} lines and {paths[1]} {len(targets)}: "
                "line n of one must translate line n of the other"
            )
        return one_reference(sources, targets)

    def read() -> dict[str, Pairs]:
        return {split: read_split(split) for split in files}

    return _load("parallel_text", f"{source_language}-{target_language}", files, read, data_dir)


def load_tsv(data_dir: str = "", *, folder: str = "") -> PreparedSplits:
    """Tab-separated pairs; in dev and test all targets of equal sources are accepted.

    Args:
      data_dir: TFDS's folder; "" means its default.
      folder: of train.tsv, dev.tsv and optionally test.tsv.

    Raises:
      DataError: a folder or file is missing or not UTF-8, a line does not have exactly one tab, a
        file has a header, or a split has no lines.
    """
    files = find_files(folder, (".tsv",))

    def read() -> dict[str, Pairs]:
        rows = {split: _read_rows(path) for split, (path,) in files.items()}
        _refuse_header({str(files[split][0]): some for split, some in rows.items()})
        return {
            split: (one_reference if split == "train" else merge_references)(
                [source for source, _ in some], [target for _, target in some]
            )
            for split, some in rows.items()
        }

    return _load("tsv", "pairs", files, read, data_dir)


def find_files(folder: str, suffixes: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    """The files of each split, one per suffix; a plain file is preferred to its gzipped form.

    Raises:
      DataError: the folder, or training or dev files, are missing, or it is not clear which of
        several dev sets or test_* is meant.
    """
    if not folder:
        raise DataError("data.folder is not set: the folder that holds the text files")
    root = user_path(folder, "data.folder")
    if not root.is_dir():
        raise DataError(f"data.folder {folder} is not a folder")
    found: dict[str, tuple[Path, ...]] = {}
    for split, stems in _STEMS.items():
        there = [one for one in stems if any(_one_form(root, one, suffix) for suffix in suffixes)]
        if split == "dev" and len(there) > 1:
            raise DataError(
                f"{folder} has several dev sets ({', '.join(there)}): keep only the one to use"
            )
        for stem in stems:
            groups = [_one_form(root, stem, suffix) for suffix in suffixes]
            if not any(groups):
                continue
            names = sorted(set().union(*groups))
            if len(names) > 1:
                raise DataError(
                    f"{folder} has several test sets ({', '.join(names)}): "
                    f"rename the one to use to test{suffixes[0]}"
                )
            for suffix, group in zip(suffixes, groups, strict=True):
                if not group:
                    raise DataError(
                        f"{folder} has no {names[0]}{suffix}, nor {names[0]}{suffix}.gz"
                    )
            found[split] = tuple(group[names[0]] for group in groups)
            break
        if split in _NEEDED and split not in found:
            wanted = " or ".join(f"{stem}{suffixes[0]}" for stem in stems)
            raise DataError(f"{folder} has no {wanted} (nor gzipped, .gz)")
    return found


def _read(path: Path, *, strip: bool = True) -> list[str]:
    lines = read_lines(path, strip=strip)
    if lines in ([], [""]):
        raise DataError(f"{path} is empty: every split needs at least one line")
    return lines


def _read_rows(path: Path) -> list[tuple[str, str]]:
    """The (source, target) of each line of a tab-separated file."""
    rows = [line.split("\t") for line in _read(path, strip=False)]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise DataError(
                f"{path}, line {number}: {len(row) - 1} tabs; a line is source TAB target"
            )
    return [(row[0].strip(), row[1].strip()) for row in rows]


def _refuse_header(files: dict[str, list[tuple[str, str]]]) -> None:
    """Refuses files that begin with the names of their columns.

    A first line is taken for a header if it consists of two such names. It is also taken for one if
    it is the same in each file and occurs nowhere else, while the second lines differ (they would
    be the same if one file were part of another).
    """
    first = {rows[0] for rows in files.values()}
    second = {tuple(rows[1:2]) for rows in files.values()}
    alone = all(rows.count(rows[0]) == 1 for rows in files.values())
    same = len(first) == 1 and len(second) > 1 and alone
    for path, rows in files.items():
        source, target = rows[0]
        named = source != target and all(_HEADER.fullmatch(one.lower()) for one in rows[0])
        if named or same:
            raise DataError(
                f"{path}, line 1: {source} TAB {target} looks like a header; delete it from each"
                " file, or put it elsewhere if it is an example"
            )


def _one_form(root: Path, stem: str, suffix: str) -> dict[str, Path]:
    """The files that match a stem (perhaps with a *) and a suffix, by the stems of their names."""
    files: dict[str, Path] = {}
    for ending in (f"{suffix}.gz", suffix):  # the plain form last, so that it replaces the gzipped
        for path in root.glob(stem + ending):
            files[path.name.removesuffix(ending)] = path
    return files


def _load(
    name: str,
    label: str,
    files: dict[str, tuple[Path, ...]],
    read: Callable[[], dict[str, Pairs]],
    data_dir: str,
) -> PreparedSplits:
    # The name of the preparation depends on the contents, so changed files are prepared again.
    contents = []
    for split, paths in files.items():
        for path in paths:
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "blake2b").hexdigest()
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror or error}") from error
            contents.append((split, path.name, digest))
    config = f"{label}-{fingerprint(*contents)}"
    # A split's fingerprint depends on its text, not on its files' names, such as val.de or dev.de.
    fingerprints = {
        split: fingerprint(VERSION, [digest for other, _, digest in contents if other == split])
        for split in files
    }
    return load_or_prepare(name, config, VERSION, read, data_dir, fingerprints)
