"""What an evaluation shows: examples as a table, attention as a picture."""

from collections.abc import Sequence

import numpy as np


def examples_table(
    sources: Sequence[str], references: Sequence[tuple[str, ...]], hypotheses: Sequence[str]
) -> str:
    """A Markdown table of sources, references and the model's own output; a tick where exact.

    Example:
      >>> print(examples_table(["ab"], [("x y",)], ["x y"]))
      | | source | reference | own |
      |---|---|---|---|
      | ✓ | `ab` | `x y` | `x y` |
    """
    lines = ["| | source | reference | own |", "|---|---|---|---|"]
    for source, accepted, hypothesis in zip(sources, references, hypotheses, strict=True):
        tick = "✓" if hypothesis in accepted else "✗"
        cells = (f"`{text}`" if text else "" for text in (source, accepted[0], hypothesis))
        lines.append(f"| {tick} | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def attention_picture(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> bytes:
    """A heat map of attention weights.

    Args:
      weights: [time, source_time], rows sum to 1.
      source: a label for each column.
      target: a label for each row.

    Returns:
      A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from s2s_jax.lab.figures import to_png

    rows, columns = weights.shape
    figure = Figure(figsize=(1.6 + 0.32 * columns, 1.2 + 0.32 * rows), dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(weights, cmap="cividis", vmin=0.0, vmax=1.0, aspect="equal")
    axes.set_xticks(range(columns), list(source))
    axes.set_yticks(range(rows), list(target))
    axes.tick_params(length=0)
    axes.set_xlabel("source")
    axes.set_ylabel("own output")
    figure.colorbar(image, ax=axes, label="attention weight", fraction=0.05, pad=0.03)
    return to_png(figure, dots_per_inch=100)
