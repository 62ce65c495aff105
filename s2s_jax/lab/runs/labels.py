"""Labels for runs that are shown together: the schedule, and what distinguishes it."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s2s_jax.lab.base.markup import visible
from s2s_jax.lab.runs.names import short_key

SCHEDULE_ORDER = (
    "teacher_forcing",
    "constant",
    "linear",
    "exponential",
    "inverse_sigmoid",
    "accuracy",
    "free_running",
)
"""The order of a table's rows; other names follow alphabetically."""

_BESIDE_THE_MODEL = ("seed", "method", "eval.", "train.log_every", "data.data_dir")
"""Keys, or their prefixes, that make no other experiment: the seed, the name of the method,
evaluation, logging, the data folder."""


def schedule_labels(schedules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels for schedules: the name, and what distinguishes schedules of the same name.

    A rising schedule is always called so: its name alone stands for a decay.

    Args:
      schedules: the "schedule" section of each config.

    Example:
      >>> schedule_labels([{"name": "linear", "k": 0.9}, {"name": "linear", "k": 0.8}])
      ['linear (k=0.9)', 'linear (k=0.8)']
      >>> schedule_labels([{"name": "linear", "rising": True}])
      ['linear (rising=true)']
    """
    variants: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for schedule in schedules:
        for key, value in json_leaves(schedule):
            variants[schedule["name"]][key].add(value)

    def label(schedule: Mapping[str, Any]) -> str:
        name, values = schedule["name"], dict(json_leaves(schedule))
        keys = [
            key
            for key, found in variants[name].items()
            if len(found) > 1 or (key, found) == ("rising", {"true"})
        ]
        told = ", ".join(
            f"{key}={values[key]}" for key in keys if values.get(key, "null") != "null"
        )
        return f"{name} ({told})" if told else name

    return [label(schedule) for schedule in schedules]


def config_labels(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels for runs: the schedule and every key in which the runs differ.

    The seed does not count, nor do keys that do not change the model: evaluation, logging, the data
    folder. Runs with the same label are therefore the same experiment and can be averaged.

    Args:
      configs: nested dicts.

    Example:
      >>> linear, own = {"name": "linear"}, {"name": "free_running"}
      >>> config_labels(
      ...     [
      ...         {"seed": 0, "schedule": linear, "rollout": {"coin": "token"}},
      ...         {"seed": 1, "schedule": linear, "rollout": {"coin": "token"}},
      ...         {"seed": 0, "schedule": own, "rollout": {"coin": "sequence"}},
      ...     ]
      ... )
      ['linear, coin=token', 'linear, coin=token', 'free_running, coin=sequence']
    """
    flat = [
        {
            key: value
            for key, value in json_leaves(config)
            if not key.startswith(("schedule.", *_BESIDE_THE_MODEL))
        }
        for config in configs
    ]
    keys = sorted({key for one in flat for key in one})
    varied = [key for key in keys if len({one.get(key) for one in flat}) > 1]
    own = [[(key, one[key]) for key in varied if key in one] for one in flat]
    return row_labels(configs, own)


def row_labels(
    configs: Sequence[Mapping[str, Any]], varied: Sequence[Sequence[tuple[str, str]]]
) -> list[str]:
    """Each schedule's label, followed by its other varied keys, given as (key, value as JSON).

    A run whose config names a method is labelled with it, followed by the keys in which runs of
    that method differ.
    """
    methods = [config.get("method") or "" for config in configs]
    labels = schedule_labels([config["schedule"] for config in configs])
    of_method: dict[str, dict[str, set[str | None]]] = {}
    for method in set(methods):
        own = [dict(one) for one, name in zip(varied, methods, strict=True) if name == method]
        keys = {key for one in own for key in one}
        of_method[method] = {key: {one.get(key) for one in own} for key in keys}
    rows = []
    for method, label, own in zip(methods, labels, varied, strict=True):
        told = [
            f"{short_key(key)}={value.strip(chr(34))}"
            for key, value in own
            if not method or len(of_method[method][key]) > 1
        ]
        rows.append(visible(", ".join([method or label, *told])))
    return rows


def schedule_order(label: str) -> tuple[int, str]:
    """The sort key of a table's row, from its label."""
    name = re.split(r" \(|, ", label)[0]
    known = name in SCHEDULE_ORDER
    return SCHEDULE_ORDER.index(name) if known else len(SCHEDULE_ORDER), label


def json_leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a nested config as (dotted key, JSON)."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from json_leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value, sort_keys=True)
