"""Tables of plain text, as the terminal shows them."""

from collections.abc import Container, Sequence


def align(rows: Sequence[Sequence[str]], left: Container[int]) -> list[str]:
    """Lines with columns of one width, two spaces between them.

    Args:
      rows: of cells, as many in each.
      left: numbers of the columns that are aligned at their left; the others at their right.

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
