"""Edit distances between all sequences and all prefixes, by enumeration."""

from collections.abc import Iterator

import numpy as np


def all_sequences(num_symbols: int, length: int) -> np.ndarray:
    """Every sequence, in order: [num_symbols**length, length] int64.

    Example:
      >>> all_sequences(2, 2).tolist()
      [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    return np.indices((num_symbols,) * length).reshape(length, -1).T


def edit_distances(num_symbols: int, length: int) -> Iterator[np.ndarray]:
    """The Levenshtein distance of every prefix of any length and every prefix of any sequence.

    Yields:
      For t = 0 ... length an int8 array [num_symbols**t, num_symbols**length, length + 1]: the
      distance of z_1 ... z_t and y_1 ... y_j at [z, y, j], with z and y in order.

    Example:
      >>> nothing, one, two = edit_distances(num_symbols=2, length=2)
      >>> two[0b01, 0b10].tolist()  # of 01 from nothing, 1 and 10
      [2, 1, 2]
    """
    differs = all_sequences(num_symbols, length) != np.arange(num_symbols)[:, None, None]
    places = np.arange(length + 1, dtype=np.int8)
    rows = np.broadcast_to(places, (1, num_symbols**length, length + 1))
    yield rows
    for _ in range(length):
        # Column j + 1 by deletion or substitution; the cumulative minimum is insertion.
        before = rows[:, None]
        columns = np.minimum(before[..., 1:] + np.int8(1), before[..., :-1] + differs)
        first = np.broadcast_to(before[..., :1] + np.int8(1), (*columns.shape[:-1], 1))
        without = np.concatenate([first, columns], axis=-1)
        rows = np.minimum.accumulate(without - places, axis=-1) + places
        rows = rows.reshape(-1, *rows.shape[2:])
        yield rows
