"""The splits of a dataset that is prepared on disk: prepared once, then opened and read."""

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
    """Splits by name: prepared when they are first looked at, each read when it is asked for.

    Args:
      derived: the folder of what is made of these splits; no others have it.
      find_names: the splits' names; prepares them where they are not there yet.
      read: a split's name -> its pairs; raises DataError where the files are damaged.
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
        """What the content is known by: a split's name, or "all", -> sixteen hex digits."""
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
        return name in self._names  # what Mapping has would read the split


def fingerprints_of(splits: Mapping[str, Pairs]) -> dict[str, str]:
    """What the content of splits is known by: a split's name, or "all", -> sixteen hex digits.

    Prepared splits know it of the files that they are made of; others are read.
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
    """Opens a prepared dataset, after preparing it with `make_splits` if it is not there yet.

    `make_splits` runs to its end, with all its validation, before anything is written. TFDS writes
    into a temporary folder and renames it when whole, so a preparation that was interrupted is
    never read, and of two at once the first to finish is kept.

    Args:
      name: folder of the dataset below data_dir.
      config: what tells this preparation from others, a fingerprint of its inputs included.
      version: of the code that makes the splits, such as "1.0.0".
      make_splits: the splits, called at most once.
      data_dir: TFDS's folder; "" means TFDS_DATA_DIR or ~/tensorflow_datasets.
      fingerprints: split -> what its content is known by; None where config tells all of them.

    Returns:
      The splits by name, read when they are asked for.

    Raises:
      DataError: data_dir cannot be written, what was prepared is damaged, or what make_splits
        raises.
    """
    config = re.sub(r"[^\w.-]+", "_", config)
    root = data_folder(data_dir)
    folder = root / name / config / version

    def find_names() -> list[str]:
        nonlocal folder
        names = _split_names(folder)
        if not names:  # TFDS is imported only now: a start of a run waits for it
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
    """Puts `load_or_prepare` off until the splits are looked at, for their fingerprints alone."""
    token = _prepares.set(False)
    try:
        yield
    finally:
        _prepares.reset(token)


def _split_names(folder: Path) -> list[str]:
    """The splits that TFDS's description of a prepared dataset names; none where there is none."""
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
