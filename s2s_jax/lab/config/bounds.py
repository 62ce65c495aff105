"""The bounds of every number in a config and on the command line.

The upper bounds exclude values that would lose their meaning (an int32, a seed) or that no machine
can handle. Values that need too much memory are reported when the memory is allocated.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from s2s_jax.lab.base.errors import LabError

_INT32 = 2**31 - 1
_SEEDS = (0, 2**32 - 1)
_ROWS = (1, 2**20)
_WIDTH, _DEPTH = (1, 2**16), (1, 128)
_BELOW_1 = 0.999999
_PAIRS, _LENGTH = (1, 10**8), (1, 10**4)

CONFIG_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": _SEEDS,
    "data.vocabulary_size": (0, 2**24),
    "data.num_buckets": (1, 64),
    "data.max_tokens": (0, _INT32),
    "data.num_train": _PAIRS,
    "data.num_dev": _PAIRS,
    "data.num_test": _PAIRS,
    "data.seed": _SEEDS,
    "data.num_digits": (1, 9),
    "data.long_digits": (1, 18),
    "data.min_length": _LENGTH,
    "data.max_length": _LENGTH,
    "data.long_length": _LENGTH,
    "data.num_symbols": (1, 26),
    "data.length": _LENGTH,
    "data.dependence": (0, 1),
    "data.degree": _LENGTH,
    "data.path_length": (2, 10**4),
    "data.num_nodes": (2, 10**4),
    "model.hidden_size": _WIDTH,
    "model.embedding_size": _WIDTH,
    "model.num_encoder_layers": _DEPTH,
    "model.num_decoder_layers": _DEPTH,
    "model.dropout": (0, 0.999),
    "model.num_heads": (1, 1024),
    "model.mlp_size": _WIDTH,
    "model.max_length": (0, 2**20),
    "model.length": (1, 64),
    "rollout.temperature": (1e-6, 1e6),
    "rollout.top_k": (0, 2**24),
    "rollout.num_neighbours": (1, 2**16),
    "rollout.passes": (0, 10**4),
    "rollout.sharpness": (1e-6, 1e6),
    "rollout.position_floor": (0, _BELOW_1),
    "rollout.gold_below": (0, 1),
    "rollout.own_below": (0, 1),
    "objective.tau": (1e-6, 1e6),
    "objective.margin": (0, 10**4),
    "objective.unlikelihood": (0, 1e6),
    "objective.num_samples": (1, 10**4),
    "objective.alpha": (1e-9, 1e6),
    "objective.gold_weight": (0, _BELOW_1),
    "objective.weight": (0, 1e6),
    "train.num_steps": (1, 10**8),
    "train.batch_size": _ROWS,
    "train.tokens_per_batch": (0, 2**24),
    "train.learning_rate": (1e-12, 1e6),
    "train.warmup_steps": (0, _INT32),
    "train.average_decay": (0, _BELOW_1),
    "train.optimizer.b1": (0, _BELOW_1),
    "train.optimizer.b2": (0, _BELOW_1),
    "train.optimizer.eps": (0, 1),
    "train.optimizer.momentum": (0, _BELOW_1),
    "train.optimizer.weight_decay": (0, 1e6),
    "train.optimizer.weight_decay_rate": (0, 1e6),
    "train.clip_norm": (0, 1e30),
    "train.label_smoothing": (0, 0.999),
    "train.log_every": (1, _INT32),
    "eval.every": (1, _INT32),
    "eval.batch_size": _ROWS,
    "eval.num_examples": (0, 10**4),
    "eval.max_examples": (0, _INT32),
}
"""The lowest and highest value by dotted key.

The options of schedules are checked by `s2s_jax.schedules`. The user's own components check their
options themselves."""

_OF_EVERY_DATASET = ("data.vocabulary_size", "data.num_buckets", "data.max_tokens")
"""The keys above that are no options of a dataset."""

FLAG_BOUNDS: dict[str, tuple[float, float]] = {
    "jobs": (1, 4096),
    "max_lanes": (1, 4096),
    "seeds": (1, 2**32),
    "beam_size": (1, 1024),
    "length_penalty": (0, 1e6),
    "max_length": (0, 10**5),
    "batch_size": _ROWS,
    "max_examples": (0, _INT32),
    "min_count": (1, _INT32),
    "num_resamples": (2, 10**6),
    "seed": _SEEDS,
    "length": (1, 64),
}
"""The lowest and highest value of the command line's own flags."""


def check_config_numbers(values: Mapping[str, Any]) -> None:
    """Rejects numbers in a config that are out of bounds.

    The options of the user's own components, which may mean anything, are not checked.

    Args:
      values: by dotted key.

    Raises:
      LabError: a number is out of bounds; the message has the key, the value and the bounds.

    Example:
      >>> check_config_numbers({"train.batch_size": 10**20})
      Traceback (most recent call last):
      s2s_jax.lab.base.errors.LabError: train.batch_size is 100000000000000000000; it must be in [1, 1048576]
    """  # noqa: E501
    named = {key: value for key, value in values.items() if key.endswith(".name")}
    own = tuple(key.removesuffix("name") for key, value in named.items() if ":" in str(value))
    for key, bounds in CONFIG_BOUNDS.items():
        if key.startswith(own) and key not in _OF_EVERY_DATASET:
            continue
        if values.get(key) is not None:
            _check(key, values[key], bounds)


def check_flag_numbers(options: argparse.Namespace) -> None:
    """Rejects numbers on the command line that are out of bounds; see `check_config_numbers`."""
    for name, bounds in FLAG_BOUNDS.items():
        value = getattr(options, name, None)
        if value is not None:
            _check(f"--{name.replace('_', '-')}", value, bounds)


def _check(name: str, value: float, bounds: tuple[float, float]) -> None:
    lowest, highest = bounds
    if not lowest <= value <= highest:  # NaN is out of every range
        raise LabError(f"{name} is {value}; it must be in [{lowest}, {highest}]")
