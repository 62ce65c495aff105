"""The names of a sweep's runs: the schedule, what else the sweep varies, and the seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # comparing runs needs these names but not JAX
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
"""Keys that TensorBoard's HPARAMS table shows for every run, and their names there.

Other keys that a sweep varies are shown under their dotted key.
"""

_LONGEST_VALUE, _LONGEST_ROW = 40, 200
"""Maximum characters of a value and of a folder's name; file systems allow 255 bytes."""


def run_name(schedule: str, seed: int, varied: Mapping[str, Any]) -> str:
    """The folder of a run within its sweep, which is also its name in TensorBoard.

    Example:
      >>> run_name("linear", 1, {"seed": 1, "rollout.coin": "sequence"})
      'linear,coin=sequence/seed_1'
    """
    return f"{row_name(schedule, varied)}/seed_{seed}"


def row_name(schedule: str, varied: Mapping[str, Any]) -> str:
    """The common name of runs that differ only in the seed.

    Args:
      schedule: the schedule's name.
      varied: values by dotted key; "schedule.name" and "seed" may be among them. If "method" is,
        that is the name.

    Example:
      >>> row_name("linear", {"seed": 1, "rollout.coin": "sequence", "schedule.k": 0.9})
      'linear,coin=sequence,k=0.9'
      >>> row_name("free_running", {"seed": 1, "method": "ocd", "objective.target": "ocd"})
      'ocd'
    """
    if varied.get("method"):
        return _folder_text(varied["method"], _LONGEST_VALUE)
    others = sorted(varied_beside_schedule(varied).items())
    row = schedule
    for longest in (_LONGEST_VALUE, 16, 8):
        parts = (f",{short_key(key)}={_folder_text(value, longest)}" for key, value in others)
        row = schedule + "".join(parts)
        if len(row) <= _LONGEST_ROW:
            break
    return row


def _folder_text(value: Any, longest: int) -> str:
    """A value as part of a folder's name, different for different values.

    Characters that are safe in a name are kept. If something had to be replaced or cut, a
    fingerprint of the value is appended; likewise for strings with capitals, since some file
    systems do not distinguish case.

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
    """The row of TensorBoard's HPARAMS table that a run belongs to, and what distinguishes it.

    The row of a run `<sweep>/<row>/seed_<n>` is named after its folder, without the values that all
    runs of the sweep were given, or after its method. A run outside a sweep is identified by all of
    its overrides.

    Args:
      folder: the run's folder.
      schedule: the schedule's name.
      overrides: the run's overrides, by dotted key.

    Returns:
      The row's name, which is the same for all seeds, and the overrides in it.

    Example:
      >>> overrides = {"schedule.name": "linear", "seed": 0, "schedule.k": 1, "data.data_dir": "d"}
      >>> trial_of("runs/linear,k=1/seed_0", "linear", overrides)
      ('linear,k=1', {'schedule.k': 1})
    """
    if overrides.get("method"):
        return row_name(schedule, overrides), {"method": overrides["method"]}
    others = varied_beside_schedule(overrides)
    folder = Path(folder).absolute()
    name, *parts = folder.parent.name.split(",")
    if not re.fullmatch(r"seed_\d+", folder.name) or name != schedule:
        return row_name(schedule, others), others
    # Only compare keys: a value can be written differently after parsing, such as 1.0 for 1.
    named = {part.partition("=")[0] for part in parts}
    return folder.parent.name, {
        key: value for key, value in others.items() if short_key(key) in named
    }


def log_file(workdir: Path) -> Path:
    """The file that takes the output of a run in a sweep.

    Example:
      >>> print(log_file(Path("sums/linear/seed_0")))
      sums/linear/seed_0.log
    """
    return workdir.with_name(f"{workdir.name}.log")
