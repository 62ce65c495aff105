"""What an evaluation shows: examples as a table, attention as an image."""

import re
from collections.abc import Sequence

import numpy as np

_MOST_TOKENS = 60  # per side of an attention image: about 2,000 pixels
_MOST_LETTERS = 20  # in a label
_LETTER = 0.12  # width of a label's letter in inches


def examples_table(
    sources: Sequence[str], references: Sequence[tuple[str, ...]], hypotheses: Sequence[str]
) -> str:
    """A Markdown table of sources, references and the model's own output; exact ones have a tick.

    Example:
      >>> print(examples_table(["ab"], [("x y",)], ["x y"]))
      | | source | reference | own |
      |---|---|---|---|
      | ✓ | `ab` | `x y` | `x y` |
    """
    lines = ["| | source | reference | own |", "|---|---|---|---|"]
    for source, accepted, hypothesis in zip(sources, references, hypotheses, strict=True):
        tick = "✓" if hypothesis in accepted else "✗"
        cells = (_cell(text) for text in (source, accepted[0], hypothesis))
        lines.append(f"| {tick} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text as code in a table cell, escaped so that it cannot end the code or the cell."""
    if not text:
        return ""
    text = _printable(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    gap = " " if "`" in (text[0], text[-1]) else ""
    return f"{fence}{gap}{text}{gap}{fence}"


def _printable(text: str) -> str:
    """A text on one line, with unprintable characters escaped as in Python."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def attention_picture(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> bytes:
    """A heat map of attention weights for the first 60 tokens of each side.

    If a side is longer, the title says so.

    Args:
      weights: [time, source_time], rows sum to 1.
      source: one label per column.
      target: one label per row.

    Returns:
      A PNG file.
    """
    from s2s_jax.lab.base.figures import new_figure, to_png

    sides = zip(weights.shape, ("output", "source"), strict=True)
    title = "\n".join(
        f"the first {_MOST_TOKENS} of {count:,} {side} tokens"
        for count, side in sides
        if count > _MOST_TOKENS
    )
    shown = weights[:_MOST_TOKENS, :_MOST_TOKENS]
    rows, columns = shown.shape
    below, beside = (
        [_label(token) for token in tokens] for tokens in (source[:columns], target[:rows])
    )
    widest_below, widest_beside = (max(map(len, labels)) for labels in (below, beside))
    upright = widest_below > 3
    margins = 1.5 + _LETTER * widest_beside, 1.2 + _LETTER * (widest_below if upright else 1)
    size = margins[0] + 0.32 * columns, margins[1] + 0.32 * rows
    figure, (axes,) = new_figure(1, 1, size)
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    image = axes.imshow(shown, cmap="cividis", vmin=0.0, vmax=1.0, aspect="equal")
    axes.set_xticks(range(columns), below, rotation=90 if upright else 0)
    axes.set_yticks(range(rows), beside)
    axes.tick_params(length=0)
    axes.set_xlabel("source")
    axes.set_ylabel("own output")
    axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, label="attention weight", fraction=0.05, pad=0.03)
    return to_png(figure, dots_per_inch=100)


def _label(token: str) -> str:
    """A token as an axis label: on one line and not too long."""
    label = _printable(token)
    return label if len(label) <= _MOST_LETTERS else label[: _MOST_LETTERS - 1] + "…"
