"""What `s2s exposure` is asked for, what it finds of a run, and where it keeps that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from s2s_jax.exposure import Measure
    from s2s_jax.lab.runs.provenance import Provenance

EXPOSURE_FILE = "exposure.json"
"""What `measure_runs` leaves in a run's folder; TensorBoard's files are in `exposure/` beside."""

_CURVE = {"at": [int], "value": [(float, None)]}
EXPOSURE = {
    "settings": {"split": str, "checkpoint": str, "max_examples": int, "min_count": int},
    "measures": {"gold/accuracy_by_position?": _CURVE, "own/accuracy_by_position?": _CURVE},
}
"""The shape of that file as far as it is read again; see `s2s_jax.data.json_shapes`."""


@dataclass(frozen=True)
class Settings:
    """How a run is measured.

    Attributes:
      split: of the run's data.
      checkpoint: "best" on the dev split, or "latest".
      groups: names of `GROUPS`; empty for all that the task allows.
      max_examples: sequences of the split to look at; 0 for all.
      min_count: sequences below which a bin is left out.
      num_resamples: of the bootstrap over sequences.
      confidence: of its intervals.
      seed: of everything that is drawn: hypotheses, corruptions, resamples.
    """

    split: str = "dev"
    checkpoint: Literal["best", "latest"] = "best"
    groups: tuple[str, ...] = ()
    max_examples: int = 0
    min_count: int = 30
    num_resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class RunExposure:
    """The measures of one run.

    Attributes:
      folder: the run's.
      label: the schedule, with what else tells it from the runs beside it; see `config_labels`.
      seed: the run's.
      step: of the checkpoint.
      num_sequences: that were looked at.
      measures: by name; see `s2s_jax.exposure.measure_exposure`.
      provenance: of what was measured: the data and JAX's switches of now.
    """

    folder: Path
    label: str
    seed: int
    step: int
    num_sequences: int
    measures: dict[str, Measure]
    provenance: Provenance | None = None
