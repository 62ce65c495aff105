"""The page that results.py makes: Markdown and pictures, and how they are written."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.figures import to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BETWEEN = 24  # pixels, between figures in one file


@dataclass
class Page:
    """The page as it grows: its Markdown, and its pictures by file name."""

    parts: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def add(self, *parts: str) -> None:
        """Adds paragraphs, tables and lists."""
        self.parts += [part.strip("\n") for part in parts]

    def add_picture(self, name: str, caption: str, drawn: Iterable[Figure | None]) -> None:
        """Adds figures, one below the other in one file; nothing where there are none."""
        there = [figure for figure in drawn if figure is not None]
        if there:
            self.pictures[f"results_{name}.png"] = stack(there)
            self.add(f"![{caption}](images/results_{name}.png)")


def stack(drawn: Sequence[Figure]) -> bytes:
    """Figures one below the other as a small PNG file."""
    some = [Image.open(io.BytesIO(to_png(one, dots_per_inch=110))).convert("RGB") for one in drawn]
    height = sum(one.height for one in some) + _BETWEEN * (len(some) - 1)
    whole = Image.new("RGB", (max(one.width for one in some), height), "white")
    top = 0
    for one in some:
        whole.paste(one, ((whole.width - one.width) // 2, top))
        top += one.height + _BETWEEN
    file = io.BytesIO()
    # Few colours, and letters grey at their rims: a palette is a third of the size.
    whole.quantize(128, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


def write(page: Page, folder: Path) -> None:
    """Writes `results.md` and `images/results_*.png`, everything or nothing.

    Pictures that an earlier page had and this one has not are removed.

    Raises:
      LabError: the folder cannot be written.
    """
    files = {f"images/{name}": data for name, data in page.pictures.items()}
    text = "\n\n".join(page.parts) + "\n"
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        # All is on the disk before the first old file goes.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".results.") as made:
            for number, data in enumerate([*files.values(), text.encode()]):
                (Path(made) / str(number)).write_bytes(data)
            for number, name in enumerate([*files, "results.md"]):
                (Path(made) / str(number)).replace(folder / name)
        for path in (folder / "images").glob("results_*.png"):
            if path.name not in page.pictures:
                path.unlink()
    except OSError as error:
        raise LabError(f"cannot write to {folder}: {error.strerror or error}") from error
