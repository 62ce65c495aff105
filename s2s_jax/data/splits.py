"""The splits of a dataset that is prepared on disk: prepared once, then opened and read."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from s2s_jax.data.pairs import DataError, Pairs, damaged
from s2s_jax.data.paths import data_folder


class PreparedSplits(Mapping[str, Pairs]):
    """Splits by name, each read when it is first asked for, and then kept.

    Args:
      derived: the folder of what is made of these splits; no others have it.
      names: of the splits.
      read: a split's name -> its pairs; raises DataError where the files are damaged.
    """

    def __init__(self, derived: Path, names: Iterable[str], read: Callable[[str], Pairs]):
        self.derived = derived
        self._names, self._read = tuple(names), read
        self._pairs: dict[str, Pairs] = {}

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


def load_or_prepare(
    name: str,
    config: str,
    version: str,
    make_splits: Callable[[], Mapping[str, Pairs]],
    data_dir: str = "",
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

    Returns:
      The splits by name, read when they are asked for.

    Raises:
      DataError: data_dir cannot be written, what was prepared is damaged, or what make_splits
        raises.
    """
    config = re.sub(r"[^\w.-]+", "_", config)
    root = data_folder(data_dir)
    folder = root / name / config / version
    names = _split_names(folder)
    if not names:  # TFDS is imported only now: a start of a run waits for it
        from s2s_jax.data.builders import prepare

        folder = prepare(name, config, version, make_splits, str(root))
        names = _split_names(folder)
    if not names:
        raise DataError(damaged(folder, "it names no splits"))

    def read(split: str) -> Pairs:
        from s2s_jax.data import builders

        return builders.read_split(builders.open_folder(folder), split)

    return PreparedSplits(folder / "tokens", names, read)


def _split_names(folder: Path) -> list[str]:
    """The splits that TFDS's description of a prepared dataset names; none where there is none."""
    path = folder / "dataset_info.json"
    if not path.is_file():
        return []
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
        return [split["name"] for split in splits]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"cannot read {path}: {error}; delete its folder to prepare it again"
        ) from error
