"""What the runs of a sweep are called: by the schedule, the seed and what else the sweep varies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a comparison, which needs these names, needs no JAX
    from s2s_jax.lab.config.keys import Overrides

HPARAM_NAMES = {
    "schedule.name": "schedule",
    "rollout.coin": "coin",
    "rollout.feed": "feed",
    "train.num_steps": "num_steps",
    "train.learning_rate": "learning_rate",
    "model.hidden_size": "hidden_size",
    "data.name": "data",
}
"""Keys that TensorBoard's HPARAMS table has of every run, and its names for them.

What else a sweep varies is called there by its dotted key.
"""

_LONGEST_VALUE, _LONGEST_ROW = 40, 200
"""Characters of a value, and of a folder's name, of which systems allow 255 bytes."""


def run_name(schedule: str, seed: int, varied: Mapping[str, Any]) -> str:
    """The folder of a run within its sweep; TensorBoard calls the run by it.

    Example:
      >>> run_name("linear", 1, {"seed": 1, "rollout.coin": "sequence"})
      'linear,coin=sequence/seed_1'
    """
    return f"{row_name(schedule, varied)}/seed_{seed}"


def row_name(schedule: str, varied: Mapping[str, Any]) -> str:
    """What runs have in common that differ in nothing but the seed.

    Args:
      schedule: its name.
      varied: values by dotted key; "schedule.name" and "seed" may be among them.

    Example:
      >>> row_name("linear", {"seed": 1, "rollout.coin": "sequence", "schedule.k": 0.9})
      'linear,coin=sequence,k=0.9'
    """
    others = sorted(varied_beside_schedule(varied).items())
    row = schedule
    for longest in (_LONGEST_VALUE, 16, 8):
        parts = (f",{short_key(key)}={_folder_text(value, longest)}" for key, value in others)
        row = schedule + "".join(parts)
        if len(row) <= _LONGEST_ROW:
            break
    return row


def _folder_text(value: Any, longest: int) -> str:
    """A value as the name of a folder has it; no two values read the same.

    What is safe in a name stays as it is. Where something had to be left out, a fingerprint of the
    value follows; also where it is a string with capitals, which some file systems do not tell from
    small letters.

    Example:
      >>> _folder_text(0.001, 40), _folder_text("/data/a b", 40), _folder_text("/data/a_b", 40)
      ('0.001', '_data_a_b-a99e1709', '_data_a_b-1ea90d1a')
    """
    text = str(value)
    safe = re.sub(r"[^A-Za-z0-9.+-]+", "_", text)
    has_capitals = isinstance(value, str) and text != text.lower()
    if safe == text and len(text) <= longest and not has_capitals:
        return text
    fingerprint = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{safe[:longest]}-{fingerprint}"


def short_key(key: str) -> str:
    """The last part of a dotted key.

    Example:
      >>> short_key("rollout.coin")
      'coin'
    """
    return key.rsplit(".", 1)[-1]


def varied_beside_schedule(overrides: Mapping[str, Any]) -> Overrides:
    """The overrides without "schedule.name" and "seed"."""
    return {key: value for key, value in overrides.items() if key not in ("schedule.name", "seed")}


def trial_of(
    folder: str | Path, schedule: str, overrides: Mapping[str, Any]
) -> tuple[str, Overrides]:
    """The row of TensorBoard's HPARAMS table that a run belongs to, and what tells it from others.

    The row of a run `<sweep>/<row>/seed_<n>` is its folder's: what all runs of a sweep were given
    is no part of it. A run in a folder of its own is told by everything that was set for it.

    Args:
      folder: the run's.
      schedule: the schedule's name.
      overrides: what the run was given, by dotted key.

    Returns:
      The row's name, the same for all seeds; and the overrides that it names.

    Example:
      >>> overrides = {"schedule.name": "linear", "seed": 0, "schedule.k": 1, "data.data_dir": "d"}
      >>> trial_of("runs/linear,k=1/seed_0", "linear", overrides)
      ('linear,k=1', {'schedule.k': 1})
    """
    others = varied_beside_schedule(overrides)
    folder = Path(folder).absolute()
    name, *parts = folder.parent.name.split(",")
    if not re.fullmatch(r"seed_\d+", folder.name) or name != schedule:
        return row_name(schedule, others), others
    # By the key alone: a value reads otherwise once it was parsed, 1.0 for 1.
    named = {part.partition("=")[0] for part in parts}
    return folder.parent.name, {
        key: value for key, value in others.items() if short_key(key) in named
    }


def log_file(workdir: Path) -> Path:
    """Where what a run of a sweep prints goes.

    Example:
      >>> print(log_file(Path("sums/linear/seed_0")))
      sums/linear/seed_0.log
    """
    return workdir.with_name(f"{workdir.name}.log")
