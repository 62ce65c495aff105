"""Plain text tables for the terminal."""

from collections.abc import Container, Sequence


def align(rows: Sequence[Sequence[str]], left: Container[int]) -> list[str]:
    """Lines with aligned columns, separated by two spaces.

    Args:
      rows: rows with the same number of cells.
      left: indices of the columns to align left; the others are aligned right.

    Example:
      >>> align([["schedule", "n"], ["linear", "10"]], left={0})
      ['schedule   n', 'linear    10']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
