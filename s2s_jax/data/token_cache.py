"""A cache of what is computed from a dataset's text: vocabularies and token ids."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from s2s_jax.data import batching, vocabularies
from s2s_jax.data.batching import Sequences, TokenPairs, tokenize
from s2s_jax.data.files import clear_abandoned, fingerprint, write_whole
from s2s_jax.data.pairs import DataError, Pairs
from s2s_jax.data.vocabularies import Vocabulary, load_vocabulary, train_vocabulary

_ARRAYS = ("source_ids", "source_offsets", "target_ids", "target_offsets", "num_dropped")


_ABANDONED_SECONDS = 3600.0  # no writer of this folder takes this long


@dataclass(frozen=True)
class NotGivenBack:
    """The targets of a split that do not round-trip: their token ids decode to another text.

    Attributes:
      count: how many of them there are.
      total: how many targets the split has.
      number: the number of the first of them, counted from 1; 0 if there are none.
      text: its text.
      decoded: the text that its ids decode to.
    """

    count: int
    total: int
    number: int
    text: str
    decoded: str


class TokenCache:
    """Cache files in the folder of a prepared dataset; a file that cannot be read is replaced.

    A file's name has a fingerprint of everything that its content depends on: the options, the
    vocabulary, and the code and library that train and encode. It is not an error if the folder
    cannot be written.

    Args:
      folder: of the files; None turns the cache off.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder

    def vocabulary(
        self, side: str, kind: str, size: int, texts: Callable[[], list[str]]
    ) -> Vocabulary:
        """The vocabulary of a side of the training split; trained if not cached.

        Args:
          side: "source", "target", or "shared" for one of both.
          kind: see `train_vocabulary`.
          size: likewise.
          texts: what to train on.

        Raises:
          DataError: it cannot be trained; the message names the config key.
        """
        library = metadata.version("sentencepiece") if kind == "sentencepiece" else ""
        path = self._path(f"{side}_vocabulary", "json", kind, size, library)
        if path is not None and path.is_file():
            try:
                return load_vocabulary(path)
            except DataError:
                pass
        lines = texts()
        try:
            vocabulary = train_vocabulary(kind, lines, size)
        except DataError as error:
            key = "data.source_vocabulary" if side == "shared" else f"data.{side}_vocabulary"
            raise DataError(f"{key}: {error}") from error
        self._write(path, vocabulary.to_bytes)
        return vocabulary

    def tokens(
        self,
        split: str,
        source: Vocabulary,
        target: Vocabulary,
        max_tokens: int | None,
        pairs: Callable[[], Pairs],
    ) -> TokenPairs:
        """The token ids of a split in two vocabularies; encoded if not cached."""
        path = self._path(split, "npz", source.to_bytes(), target.to_bytes(), max_tokens)
        if path is not None and path.is_file():
            try:
                return _from_bytes(path.read_bytes())
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                pass
        tokens = tokenize(pairs(), source, target, max_tokens)
        self._write(path, lambda: _to_bytes(tokens))
        return tokens

    def not_given_back(
        self,
        split: str,
        vocabulary: Vocabulary,
        tokens: Callable[[], Sequences],
        texts: Callable[[], Sequence[str]],
    ) -> NotGivenBack:
        """The targets of a split that do not round-trip; searched for if not cached."""
        path = self._path(f"{split}_not_given_back", "json", vocabulary.to_bytes())
        if path is not None and path.is_file():
            try:
                return NotGivenBack(**json.loads(path.read_bytes()))
            except (OSError, ValueError, TypeError):
                pass
        found = _not_given_back(vocabulary, tokens(), texts())
        self._write(path, lambda: json.dumps(asdict(found)).encode())
        return found

    def _path(self, name: str, suffix: str, *parts: object) -> Path | None:
        if self._folder is None:
            return None
        code = [Path(str(module.__file__)).read_bytes() for module in (vocabularies, batching)]
        return self._folder / f"{name}-{fingerprint(*parts, *code)}.{suffix}"

    def _write(self, path: Path | None, content: Callable[[], bytes]) -> None:
        if path is None:
            return
        try:
            path.parent.mkdir(exist_ok=True)
            clear_abandoned(path.parent, _ABANDONED_SECONDS)
            write_whole(path, content())
        except OSError:
            pass  # the next run computes it again


NO_CACHE = TokenCache(None)
"""Caches nothing."""


def _to_bytes(tokens: TokenPairs) -> bytes:
    file = io.BytesIO()
    values = (
        tokens.source.ids,
        tokens.source.offsets,
        tokens.target.ids,
        tokens.target.offsets,
        tokens.num_dropped,
    )
    np.savez(file, **dict(zip(_ARRAYS, values, strict=True)))
    return file.getvalue()


def _from_bytes(content: bytes) -> TokenPairs:
    with np.load(io.BytesIO(content)) as arrays:
        values = [arrays[name] for name in _ARRAYS]
    return TokenPairs(Sequences(*values[:2]), Sequences(*values[2:4]), int(values[4]))


def _not_given_back(
    vocabulary: Vocabulary, tokens: Sequences, texts: Sequence[str]
) -> NotGivenBack:
    ids, ends = tokens.ids.tolist(), tokens.offsets.tolist()
    count, first = 0, (0, "", "")
    for number, text in enumerate(texts, 1):
        decoded = vocabulary.decode(ids[ends[number - 1] : ends[number]])
        if decoded != text:
            count += 1
            first = first if first[0] else (number, text, decoded)
    return NotGivenBack(count, len(texts), *first)
