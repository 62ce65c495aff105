"""The shapes of the JSON files of a run's folder; see `s2s_jax.data.json_shapes`."""

from s2s_jax.lab.runs.provenance import PROVENANCE, STARTED_FROM

METRICS_FILE = "metrics.jsonl"
"""The metrics that the comparison reads; TensorBoard's files hold the same scalars."""

METRICS_LINE = {"step": int, ...: (float, None)}
"""The shape of its lines; see `s2s_jax.data.json_shapes`."""

CONFIG = {"seed": int, "data": {"name": str}, "schedule": {"name": str}}
"""The shape of the parts of config.json that are always needed; `check_complete` checks all."""

ENDING = {"status": frozenset({"finished", "stopped", "failed"}), "steps?": int, "error?": str}
"""The shape of the parts of result.json that say how and where the run ended."""

SCORE_METRIC = {
    "name": str,
    "label": str,
    "unit": str,
    "scale": float,
    "digits": int,
    "better": frozenset({"higher", "lower", ""}),
    "long_label": str,
}
"""The shape of `Metric.to_dict`."""

RESULT = ENDING | {
    "config": CONFIG,
    "overrides?": dict,
    "steps": int,
    "metrics": {...: (float, None)},
    "versions?": {...: str},
    "provenance?": (PROVENANCE, None),
    "started_from?": STARTED_FROM,
    "teacher?": STARTED_FROM,
    "wall_seconds": float,
    "best_step?": int,
    "scores?": str,
    "score_metrics?": [SCORE_METRIC],
}
"""The shape of result.json."""
