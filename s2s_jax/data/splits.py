"""The splits of a dataset that is prepared on disk."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from s2s_jax.data.pairs import Pairs


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
