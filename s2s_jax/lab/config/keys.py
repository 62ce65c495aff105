"""Configs: every key with its default, the command line's overrides, and what is refused."""

import copy
import inspect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import FieldReference, placeholder

from s2s_jax.data.catalog import dataset_options
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.experiment_file import (
    function_of,
    load_experiment,
    one_line,
    split_config,
    where,
)
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.names import did_you_mean

COMPARED_SCHEDULES = ("teacher_forcing", "linear", "exponential", "inverse_sigmoid")
"""The schedules that a sweep compares unless it is told otherwise."""

_SCHEDULE_KEYS = {
    "teacher_forcing": (),
    "constant": ("teacher_prob",),
    "linear": ("k", "c"),
    "exponential": ("k",),
    "inverse_sigmoid": ("k",),
    "free_running": (),
}
"""The schedules that a config can name, each with the paper's parameters that it takes."""

Config = Any
"""A locked `ConfigDict`; its keys are attributes that no type checker can know."""

Overrides = dict[str, Any]
"""Values by dotted key, such as {"schedule.name": "linear", "seed": 1}."""


def base_config(dataset: str, schedule: str = "teacher_forcing") -> Config:
    """Every key of an experiment with its default, locked.

    An experiment's `get_config` starts from it, sets what differs and returns it.

    Args:
      dataset: a name of `s2s_jax.data.catalog.LOADERS`; its options become keys of `data`.
      schedule: the schedule's name.
    """
    model = {
        name: parameter.default
        for name, parameter in inspect.signature(make_rnn_model).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    config = ConfigDict(
        {
            "seed": 0,
            "data": {
                "name": dataset,
                # Where datasets are prepared; "" is TFDS_DATA_DIR or ~/tensorflow_datasets.
                "data_dir": "",
                # "characters", "whitespace" or "sentencepiece", trained on the training split.
                "source_vocabulary": "characters",
                "target_vocabulary": "characters",
                # Most ids of a vocabulary, 0 for no limit; sentencepiece needs a limit.
                "vocabulary_size": 0,
                # Fixed shapes (source_time, time); each one is a compilation.
                "num_buckets": 4,
                # Training pairs with more tokens on a side are left out; 0 keeps all.
                "max_tokens": 0,
                **dataset_options(dataset),
            },
            "model": model,
            "schedule": {
                "name": schedule,
                # Of "constant".
                "teacher_prob": placeholder(float),
                # Of "linear", "exponential" and "inverse_sigmoid": the paper's parameters ...
                "k": placeholder(float),
                "c": placeholder(float),
                # ... or what to reach, and when: at a step, or at a fraction of the training.
                "reach_teacher_prob": placeholder(float),
                "reach_step": placeholder(int),
                "reach_fraction": placeholder(float),
                "floor": 0.0,
                "first_step": 0,
            },
            "rollout": {"coin": "token", "feed": "sample", "temperature": 1.0, "top_k": 0},
            "train": {
                "num_steps": 1000,
                "batch_size": 128,
                "learning_rate": 2e-3,
                # "cosine" to 0 or "constant", after a linear warm-up of warmup_steps updates.
                "learning_rate_schedule": "cosine",
                "warmup_steps": 100,
                "weight_decay": 0.0,
                # Global L2 norm of the gradient; 0 clips nothing.
                "clip_norm": 1.0,
                "label_smoothing": 0.0,
                "log_every": 100,
            },
            "eval": {
                # Steps between evaluations, each followed by a checkpoint.
                "every": 500,
                "batch_size": 512,
                # "phonemes", "characters", "symbols" or "translation".
                "scores": "characters",
                # What cuts text into the tokens of BLEU, of "translation": "13a" for languages with
                # spaces, "zh", "ja-mecab", "ko-mecab", "flores200", "char", "intl" or "none".
                "bleu_tokenize": "13a",
                # Examples shown as text.
                "num_examples": 5,
                # Sequences of the dev split that evaluations during training look at; 0 for all.
                "max_examples": 0,
            },
        }
    )
    return config.lock()


def sweep_schedules(
    schedules: Sequence[str] = COMPARED_SCHEDULES, num_seeds: int = 3
) -> Iterator[Overrides]:
    """The runs of a comparison: each schedule with each seed, the seeds outermost.

    Example:
      >>> list(sweep_schedules(["linear"], num_seeds=2))
      [{'schedule.name': 'linear', 'seed': 0}, {'schedule.name': 'linear', 'seed': 1}]
    """
    for seed in range(num_seeds):
        for schedule in schedules:
            yield {"schedule.name": schedule, "seed": seed}


def sweep_product(*sweeps: Iterable[Mapping[str, Any]]) -> Iterator[Overrides]:
    """Every run of a sweep with every run of the others; the last one varies fastest.

    Raises:
      LabError: two of them set the same key.

    Example:
      >>> coins = ({"rollout.coin": coin} for coin in ("token", "sequence"))
      >>> for run in sweep_product(coins, sweep_schedules(["linear"], num_seeds=1)):
      ...     print(run)
      {'rollout.coin': 'token', 'schedule.name': 'linear', 'seed': 0}
      {'rollout.coin': 'sequence', 'schedule.name': 'linear', 'seed': 0}
    """
    for parts in itertools.product(*map(list, sweeps)):
        keys = [key for part in parts for key in part]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice:
            raise LabError(f"{twice} is set by two of the sweeps of a product")
        yield {key: value for part in parts for key, value in part.items()}


def parse_config(arguments: Sequence[str]) -> tuple[Config, Overrides, str]:
    """Reads `--config=FILE[:ARG]` and `--config.KEY=VALUE`.

    Args:
      arguments: these flags alone, in any order.

    Returns:
      The config, the overrides by dotted key, and FILE[:ARG].

    Raises:
      LabError: what is wrong with them, in one line.
    """
    for one in arguments:
        try:
            one.encode()
        except UnicodeEncodeError:
            raise LabError(f"{ascii(one)[1:-1]} is not UTF-8, which a config is kept in") from None
    files = [one.split("=", 1)[1] for one in arguments if one.startswith("--config=")]
    if len(files) != 1:
        raise LabError("name one config: --config=FILE or --config=FILE:SCHEDULE")
    path, argument = split_config(files[0])
    module = load_experiment(path)
    get_config = function_of(module, "get_config", path)
    try:
        config = get_config(argument) if argument else get_config()
    except ValueError as error:
        raise LabError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        message = where(error, Path(path))
        raise LabError(f"config file {path} cannot be used: {message}") from error
    if not isinstance(config, ConfigDict):
        raise LabError(f"get_config of {path} must return a ConfigDict; make it with base_config")
    config.lock()

    given: list[tuple[str, str]] = []
    overrides: Overrides = {}
    for one in arguments:
        if one.startswith("--config="):
            continue
        key, equals, text = one.removeprefix("--config.").partition("=")
        check_key(config, key)
        if not equals:
            raise LabError(f"{one} has no value; write --config.{key}=VALUE")
        if text == "None" and _may_be_none(config, key):  # which absl's flags have no word for
            given = [(other, value) for other, value in given if other != key]
            overrides[key] = None
        else:
            given.append((key, one))
            overrides.pop(key, None)
    for key in overrides:
        _set(config, key, None)
    values = flags.FlagValues()
    argv = ["s2s", *(one for _, one in given)]
    holder = config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except (flags.Error, TypeError, ValueError, AttributeError, KeyError) as error:
        raise LabError(one_line(error)) from error
    overrides.update(config_flags.get_override_values(values["config"]))
    return holder.value, overrides, files[0]


def apply_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A copy of the config with some keys set, as the command line would set them.

    Args:
      config: stays as it is.
      overrides: values that `plain_value` takes, by dotted key.

    Raises:
      LabError: a key does not exist, or a value is of another type.
    """
    config = copy.deepcopy(config).lock()  # whose references know of a type where None stands
    for key, value in overrides.items():
        check_key(config, key)
        _set(config, key, plain_value(key, value))
    return config.copy_and_resolve_references().lock()


def plain_value(key: str, value: Any) -> Any:
    """A value that a sweep sets, of Python's own types: what JSON gives back as it was.

    Args:
      key: what it is for, to be named where it cannot be used.
      value: None, a bool, a number, a string or a scalar of numpy or JAX; or a tuple or list of
        those, which becomes a tuple.

    Raises:
      LabError: it is something else.

    Example:
      >>> import numpy as np
      >>> plain_value("train.learning_rate", np.float64(0.5))
      0.5
    """
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None:
        return None
    if isinstance(value, tuple | list):
        return tuple(plain_value(key, one) for one in value)
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)  # of an enum the value, not the name
    raise LabError(
        f"{key} is set to {value!r} of type {type(value).__name__}; it must be None, a bool,"
        " a number, a string or a tuple of those"
    )


def _set(config: Config, key: str, value: Any) -> None:
    """Sets a key that exists; refuses a value of another type than the key's."""
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    kind = config.get_type(name)
    if value is None and not _may_be_none(config, name):
        raise LabError(f"{key} cannot be None; it is {config[name]!r} unless it is set")
    wrong = LabError(f"{key}={value!r}: it must be of type {kind.__name__}")
    if isinstance(value, bool) and kind in (int, float):  # which Python takes for 0 and 1
        raise wrong
    try:
        config[name] = value
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error


def _may_be_none(config: Config, key: str) -> bool:
    """Whether a key that exists was made with `placeholder`, or is None."""
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    field = dict(config.items(preserve_field_references=True))[name]
    return field is None or isinstance(field, FieldReference)


def check_key(config: Config, key: str) -> None:
    """Raises a LabError that names the nearest key unless `key` is a value of the config."""
    known = flat_keys(config)
    if key in known:
        return
    inside = [one for one in known if one.startswith(key + ".")]
    if inside:
        raise LabError(f"config key {key} is a section; its keys are {', '.join(inside)}")
    hint = did_you_mean(key, known)
    siblings = [one for one in known if one.startswith(f"{key.rpartition('.')[0]}.")]
    if siblings and not hint.startswith("did you mean"):
        hint = did_you_mean(key, siblings)
    raise LabError(f"config key {key} does not exist; {hint}")


def check_complete(config: Config) -> None:
    """Refuses a config that is not one of `base_config` with other values.

    Raises:
      LabError: it names a key that is missing, one that its section does not have, or one whose
        value is of another type.
    """
    try:
        base = base_config(config.data.name)
    except (AttributeError, KeyError):
        raise LabError("the config has no data.name; make it with base_config") from None
    known, found = flat_keys(base), flat_keys(config)
    for key, default in known.items():
        if key not in found:
            raise LabError(f"the config has no {key}; make it with base_config")
        section, _, name = key.rpartition(".")
        kind = (base[section] if section else base).get_type(name)
        value = found[key]
        if not ((value is None and default is None) or _is_of(value, kind, default)):
            raise LabError(f"{key} is {value!r}, not of type {kind.__name__}")
    for key in found:
        if key not in known and key.split(".")[0] in base:
            check_key(base, key)


def _is_of(value: Any, kind: type, default: Any) -> bool:
    """Whether a key can have a value: of its type, and in a tuple of what its default holds."""
    if kind is type(None):
        return True
    if isinstance(value, bool):
        return kind is bool
    if kind is tuple:
        inner = default[0] if default else None
        return isinstance(value, tuple) and all(_is_of(one, type(inner), inner) for one in value)
    return isinstance(value, int | float if kind is float else kind)


def flat_keys(config: Config) -> dict[str, Any]:
    """Values by dotted key, in order."""
    found: dict[str, Any] = {}
    for name, value in config.items(preserve_field_references=False):
        if isinstance(value, ConfigDict):
            found |= {f"{name}.{key}": inner for key, inner in flat_keys(value).items()}
        else:
            found[name] = value
    return found


def schedule_parameters(section: Mapping[str, Any], num_steps: int) -> tuple[str, dict[str, Any]]:
    """The factory of `s2s_jax.schedules` that a config's schedule section asks for.

    A decaying schedule takes the paper's parameters where they are set, and otherwise reaches
    `reach_teacher_prob` (0 for linear, 0.05 for the others) at `reach_step`, or at
    `reach_fraction` (the end) of the training.

    Args:
      section: the keys of `config.schedule`.
      num_steps: the training's length in updates.

    Returns:
      The factory's name and its parameters.

    Raises:
      LabError: a key is set that this schedule cannot honour, or two that exclude each other.
    """
    section = dict(section)
    name = section.pop("name")
    if name not in _SCHEDULE_KEYS:
        raise LabError(f"schedule.name is {name!r}; {did_you_mean(name, _SCHEDULE_KEYS)}")
    own = _SCHEDULE_KEYS[name]
    decays = name in ("linear", "exponential", "inverse_sigmoid")
    reaching = ("reach_teacher_prob", "reach_step", "reach_fraction")
    shape = ("floor", "first_step")
    honoured = (*own, *reaching, *shape) if decays else own
    given = {
        key: value
        for key, value in section.items()
        if value is not None and not (key in shape and not value)
    }
    for key in given:
        if key not in honoured:
            listed = ", ".join(f"schedule.{one}" for one in honoured) or "no parameter"
            raise LabError(f"schedule.{key} has no effect on {name}, which takes {listed}")
    wanted = {key: value for key, value in given.items() if key in own}
    reach = {key: value for key, value in given.items() if key in reaching}
    bounds = {key: value for key, value in given.items() if key in shape}
    if not decays:
        return name, wanted
    if reach and set(wanted) - ({"k"} if name == "linear" else set()):
        raise LabError(
            f"schedule.{next(iter(wanted))} and schedule.{next(iter(reach))} both shape {name};"
            " set one of them"
        )
    if "c" in wanted or (wanted and name != "linear"):
        return name, wanted | bounds
    if "reach_step" in reach and "reach_fraction" in reach:
        raise LabError("schedule.reach_step and schedule.reach_fraction both say when; set one")
    fraction = reach.get("reach_fraction", 1.0)
    if not (math.isfinite(fraction) and fraction > 0):
        raise LabError(f"schedule.reach_fraction is {fraction}; it must be above 0")
    default = max(0.0 if name == "linear" else 0.05, section["floor"])
    return f"{name}_reaching", {
        "teacher_prob": reach.get("reach_teacher_prob", default),
        "step": reach.get("reach_step", max(1, round(fraction * num_steps))),
        **wanted,
        **bounds,
    }
