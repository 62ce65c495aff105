"""The settings of `s2s exposure`, its result for a run, and the file that keeps the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from s2s_jax.exposure import Measure
    from s2s_jax.lab.runs.provenance import Provenance

EXPOSURE_FILE = "exposure.json"
"""The file that `measure_runs` writes to a run's folder; TensorBoard's are in `exposure/`."""

_CURVE = {"at": [int], "value": [(float, None)]}
EXPOSURE = {
    "settings": {"split": str, "checkpoint": str, "max_examples": int, "min_count": int},
    "measures": {"gold/accuracy_by_position?": _CURVE, "own/accuracy_by_position?": _CURVE},
}
"""The shape of the parts of that file that are read again; see `s2s_jax.data.json_shapes`."""


@dataclass(frozen=True)
class Settings:
    """How a run is measured.

    Attributes:
      split: the split of the run's data.
      checkpoint: "best" on the dev split, or "latest".
      groups: names from `GROUPS`; empty for all that the task allows.
      max_examples: number of sequences of the split to use; 0 for all.
      min_count: bins with fewer sequences are left out.
      num_resamples: number of bootstrap resamples of the sequences.
      confidence: confidence level of the bootstrap intervals.
      seed: seed of everything that is sampled: hypotheses, corruptions, resamples.
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
      folder: the run's folder.
      label: the schedule, and whatever else distinguishes the run from the others; see
        `config_labels`.
      seed: the run's seed.
      step: the step of the checkpoint.
      num_sequences: number of sequences that were used.
      measures: by name; see `s2s_jax.exposure.measure_exposure`.
      provenance: the data and JAX's switches with which the run was measured.
    """

    folder: Path
    label: str
    seed: int
    step: int
    num_sequences: int
    measures: dict[str, Measure]
    provenance: Provenance | None = None
