"""Pairs of texts, and the error that is raised for bad data."""

from collections.abc import Sequence
from dataclasses import dataclass


class DataError(ValueError):
    """Data, or an option about data, that cannot be used.

    The message is one line that says what is wrong, where, and what to do about it. It starts in
    lower case (except for names), joins its parts with semicolons, and has no full stop.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def damaged(folder: object, reason: str) -> str:
    """The message for a prepared dataset that cannot be read."""
    return f"cannot read {folder}: {reason}; delete the folder to prepare it again"


@dataclass(frozen=True)
class Pairs:
    """The examples of one split, in a fixed order.

    Attributes:
      sources: one text per example.
      targets: the target that is trained on, or whose likelihood is measured.
      references: every accepted target of that source, including the target itself; an output that
        equals any of them is right.

    Raises:
      ValueError: the three differ in length.

    Example:
      >>> pairs = Pairs(["read"], ["R IY D"], [("R IY D", "R EH D")])
      >>> len(pairs)
      1
    """

    sources: list[str]
    targets: list[str]
    references: list[tuple[str, ...]]

    def __post_init__(self):
        lengths = len(self.sources), len(self.targets), len(self.references)
        if len(set(lengths)) != 1:
            raise ValueError(f"sources, targets and references have lengths {lengths}")

    def __len__(self) -> int:
        return len(self.sources)


def one_reference(sources: Sequence[str], targets: Sequence[str]) -> Pairs:
    """Pairs that accept only their own target.

    Example:
      >>> one_reference(["1+1"], ["2"]).references
      [('2',)]
    """
    return Pairs(list(sources), list(targets), [(target,) for target in targets])


def merge_references(sources: Sequence[str], targets: Sequence[str]) -> Pairs:
    """One example per distinct source: its first target, with all distinct targets as references.

    This is for splits that are scored; training keeps a pair for every target.

    Example:
      >>> merge_references(["a", "b", "a"], ["x", "y", "z"])
      Pairs(sources=['a', 'b'], targets=['x', 'y'], references=[('x', 'z'), ('y',)])
    """
    accepted: dict[str, dict[str, None]] = {}  # dicts as sets that keep their order
    for source, target in zip(sources, targets, strict=True):
        accepted.setdefault(source, {})[target] = None
    references = [tuple(targets_of_one) for targets_of_one in accepted.values()]
    return Pairs(list(accepted), [several[0] for several in references], references)
