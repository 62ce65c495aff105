"""A dataset of one's own: lines of {"source": ..., "target": ...} in <folder>/<split>.jsonl."""

import json
from pathlib import Path

from s2s_jax.data.pairs import DataError, one_reference


def load(data_dir, *, folder=""):
    """The splits by name; "train" and "dev" must be there."""
    splits = {}
    for path in sorted(Path(folder).glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        splits[path.stem] = one_reference(
            [row["source"] for row in rows], [row["target"] for row in rows]
        )
    if not splits:
        raise DataError(f"there are no .jsonl files in data.folder={folder!r}")
    return splits
