"""The splits of a dataset on disk: prepared once, then opened and read."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from s2s_jax.data.files import fingerprint
from s2s_jax.data.json_shapes import parse
from s2s_jax.data.pairs import DataError, Pairs, damaged
from s2s_jax.data.paths import data_folder

_prepares = ContextVar("_prepares", default=True)


class PreparedSplits(Mapping[str, Pairs]):
    """Splits by name: prepared on the first access, and each read when it is first needed.

    Args:
      derived: the folder for files derived from these splits; it belongs to them alone.
      find_names: returns the names of the splits, and prepares them if necessary.
      read: a split's name -> its pairs; raises DataError if the files are damaged.
      find_fingerprints: see `fingerprints`; prepares nothing.
    """

    def __init__(
        self,
        derived: Path,
        find_names: Callable[[], Iterable[str]],
        read: Callable[[str], Pairs],
        find_fingerprints: Callable[[], Mapping[str, str]],
    ):
        self.derived = derived
        self._find_names, self._read = find_names, read
        self._find_fingerprints = find_fingerprints
        self._pairs: dict[str, Pairs] = {}
        self._found_names: tuple[str, ...] | None = None
        self._found_fingerprints: dict[str, str] | None = None

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of the content: a split's name, or "all", -> sixteen hex digits."""
        if self._found_fingerprints is None:
            self._found_fingerprints = dict(self._find_fingerprints())
        return self._found_fingerprints

    @property
    def _names(self) -> tuple[str, ...]:
        if self._found_names is None:
            self._found_names = tuple(self._find_names())
        return self._found_names

    def __getitem__(self, name: str) -> Pairs:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._pairs:
            self._pairs[name] = self._read(name)
        return self._pairs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # Mapping's own method would read the split


def fingerprints_of(splits: Mapping[str, Pairs]) -> dict[str, str]:
    """The fingerprints of splits' content: a split's name, or "all", -> sixteen hex digits.

    For prepared splits they are taken from their input files; other splits are read.
    """
    if isinstance(splits, PreparedSplits):
        return splits.fingerprints
    return {
        name: fingerprint(pairs.sources, pairs.targets, pairs.references)
        for name, pairs in splits.items()
    }


def load_or_prepare(
    name: str,
    config: str,
    version: str,
    make_splits: Callable[[], Mapping[str, Pairs]],
    data_dir: str = "",
    fingerprints: Mapping[str, str] | None = None,
) -> PreparedSplits:
    """Opens a prepared dataset, after preparing it with `make_splits` if necessary.

    `make_splits` runs to its end, with all its validation, before anything is written. TFDS writes
    into a temporary folder and renames it when it is complete, so an interrupted preparation is
    never read, and if two run at the same time, the first to finish is kept.

    Args:
      name: folder of the dataset below data_dir.
      config: distinguishes this preparation from others; it includes a fingerprint of the inputs.
      version: of the code that makes the splits, such as "1.0.0".
      make_splits: makes the splits; called at most once.
      data_dir: TFDS's folder; "" means TFDS_DATA_DIR or ~/tensorflow_datasets.
      fingerprints: split -> fingerprint of its content; None if config determines all of them.

    Returns:
      The splits by name, each read when it is first needed.

    Raises:
      DataError: data_dir cannot be written, the prepared files are damaged, or make_splits raises
        it.
    """
    config = re.sub(r"[^\w.-]+", "_", config)
    root = data_folder(data_dir)
    folder = root / name / config / version

    def find_names() -> list[str]:
        nonlocal folder
        names = _split_names(folder)
        if not names:  # TFDS is imported only here, because its import delays the start of a run
            from s2s_jax.data.builders import prepare

            folder = prepare(name, config, version, make_splits, str(root))
            splits.derived = folder / "tokens"
            names = _split_names(folder)
        if not names:
            raise DataError(damaged(folder, "it names no splits"))
        return names

    def read(split: str) -> Pairs:
        from s2s_jax.data import builders

        return builders.read_split(builders.open_folder(folder), split)

    known = {"all": fingerprint(name, config, version)} if fingerprints is None else fingerprints
    splits = PreparedSplits(folder / "tokens", find_names, read, lambda: known)
    if _prepares.get():
        len(splits)
    return splits


@contextlib.contextmanager
def unprepared() -> Iterator[None]:
    """Delays preparation until the splits are accessed; for when only fingerprints are needed."""
    token = _prepares.set(False)
    try:
        yield
    finally:
        _prepares.reset(token)


def _split_names(folder: Path) -> list[str]:
    """The splits in TFDS's description of a prepared dataset; none if there is no description."""
    path = folder / "dataset_info.json"
    if not path.is_file():
        return []
    try:
        splits = parse(path.read_bytes(), {"splits": [{"name": str}]})["splits"]
        return [split["name"] for split in splits]
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {path}: {error}; delete its folder to prepare it again"
        ) from error
