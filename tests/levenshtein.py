"""The edit distance as textbooks have it, to hold the vectorised ones against."""

from collections.abc import Sequence


def levenshtein(left: Sequence[int], right: Sequence[int]) -> int:
    row = list(range(len(right) + 1))
    for i, one in enumerate(left, 1):
        above, row = row, [i]
        for j, other in enumerate(right, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (one != other)))
    return row[-1]
