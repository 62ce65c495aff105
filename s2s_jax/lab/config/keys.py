"""The keys of a config: their defaults, and checks that reject invalid configs."""

import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from s2s_jax.feeding import RolloutOptions
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.components import (
    DATA_KEYS,
    KINDS,
    Component,
    Option,
    check_storable,
    find_component,
    type_of,
)
from s2s_jax.lab.config.user_code import ENVIRONMENT, Modules, user_files
from s2s_jax.names import did_you_mean

Config = Any
"""A locked `ConfigDict`; its keys are attributes that no type checker can know."""

Overrides = dict[str, Any]
"""Values by dotted key, such as {"schedule.name": "linear", "seed": 1}."""


def base_config(
    dataset: str,
    schedule: str = "teacher_forcing",
    *,
    model: str = "rnn",
    objective: str = "cross_entropy",
    optimizer: str = "adamw",
    modules: Modules = ENVIRONMENT,
) -> Config:
    """Every key of an experiment with its default, locked.

    An experiment's `get_config` starts from this config, changes values and returns it. Each
    component is the name of a built-in or your own function as `module:function`; its keyword
    arguments become the keys of its section.

    Args:
      dataset: a name in `s2s_jax.data.catalog.LOADERS`, or your own.
      schedule: a name in `s2s_jax.schedules.SCHEDULES`, or your own.
      model: "rnn", "tabular", or your own.
      objective: "cross_entropy", or your own.
      optimizer: a name in `s2s_jax.optimizers.OPTIMIZERS`, one of optax's as "optax:NAME", or your
        own.
      modules: finds `module:function`.

    Raises:
      LabError: a component does not exist.
    """
    named = {
        "data": dataset,
        "model": model,
        "objective": objective,
        "schedule": schedule,
        "train.optimizer": optimizer,
    }
    found = {key: find_component(key, name, modules) for key, name in named.items()}
    config = ConfigDict(
        {
            "seed": 0,
            # The name of this run's row in a sweep; "" names it after its schedule and what varies.
            "method": "",
            "data": {
                "name": dataset,
                **DATA_KEYS,
                **_option_keys(found["data"]),
            },
            "model": {"name": model, **_option_keys(found["model"])},
            "objective": {"name": objective, **_option_keys(found["objective"])},
            "schedule": {"name": schedule, **_option_keys(found["schedule"])},
            "rollout": _rollout_keys(),
            "train": {
                # A trained run's folder, from whose best parameters and vocabularies a new run
                # starts; {seed} stands for the seed, and "" is a start from scratch.
                "init_from": "",
                "num_steps": 1000,
                # Pairs in a batch. With tokens_per_batch, a batch instead has as many pairs of its
                # length as give at most that many tokens on either side.
                "batch_size": 128,
                "tokens_per_batch": 0,
                "optimizer": {"name": optimizer, **_option_keys(found["train.optimizer"])},
                "learning_rate": 2e-3,
                # "cosine" to 0, "constant" or "inverse_sqrt", after a linear warm-up of
                # warmup_steps updates.
                "learning_rate_schedule": "cosine",
                "warmup_steps": 100,
                # Maximum global L2 norm of the gradient; 0 turns clipping off.
                "clip_norm": 1.0,
                # An exponential average of the parameters, with this decay, is what is evaluated,
                # such as 0.999; 0 evaluates the parameters themselves.
                "average_decay": 0.0,
                "label_smoothing": 0.0,
                "log_every": 100,
            },
            "eval": {
                # Steps between evaluations, each followed by a checkpoint.
                "every": 500,
                "batch_size": 512,
                # "phonemes", "characters", "symbols", "translation", or your own.
                "scores": "characters",
                # The BLEU tokenizer of "translation": "13a" for languages with spaces, "zh",
                # "ja-mecab", "ko-mecab", "flores200", "char", "intl" or "none".
                "bleu_tokenize": "13a",
                # Number of examples shown as text.
                "num_examples": 5,
                # Number of dev sequences for the evaluations during training; 0 for all.
                "max_examples": 0,
            },
        }
    )
    return config.lock()


def _rollout_keys() -> dict[str, Any]:
    """The keys of `RolloutOptions` with their defaults."""
    types = typing.get_type_hints(RolloutOptions)
    return {
        one.name: Option(one.default, type_of(types[one.name])).key
        for one in dataclasses.fields(RolloutOptions)
    }


def _option_keys(component: Component) -> dict[str, Any]:
    return {name: option.key for name, option in component.options.items()}


def section_of(config: Config, section: str) -> Config:
    """A section by its dotted name."""
    for part in section.split("."):
        config = config[part]
    return config


def holder_of(config: Config, key: str) -> tuple[Config, str]:
    """The section that holds a dotted key, and the key's name in it."""
    section, _, name = key.rpartition(".")
    return (section_of(config, section) if section else config), name


def component_of(config: Config, section: str, modules: Modules = ENVIRONMENT) -> Component:
    """The component that a section of a config names.

    Raises:
      LabError: the component does not exist.
    """
    return find_component(section, section_of(config, section).name, modules)


def config_files(config: Config) -> dict[str, Path]:
    """The user's own files that a config's components need; see `user_files`.

    Raises:
      LabError: a component does not exist.
    """
    found: list[Any] = [component_of(config, one).function for one in KINDS]
    named = {f"{one}.name": section_of(config, one).name for one in KINDS}
    for key, name in {**named, "eval.scores": config.eval.scores}.items():
        if ":" in name:  # the named module, too: the function may have been imported into it
            ENVIRONMENT.find(key, name)
            found.append(sys.modules[name.partition(":")[0]])
    return user_files(found)


def component_options(config: Config, component: Component) -> dict[str, Any]:
    """A component's arguments from a config: its options, and those that the lab supplies."""
    section = section_of(config, component.kind.section)
    options = {name: section[name] for name in component.options}
    for name, key in component.supplied.items():
        holder, last = holder_of(config, key)
        options[name] = make_rollout_options(config) if key == "rollout" else holder[last]
    return options


def make_rollout_options(config: Config) -> RolloutOptions:
    """The section `rollout` of a config as the options that the core takes.

    Raises:
      LabError: a value is invalid.
    """
    try:
        return RolloutOptions(**{name: config.rollout[name] for name in _rollout_keys()})
    except ValueError as error:
        raise LabError(f"rollout.{error}") from error


def rename_component(config: Config, section: str, name: str) -> None:
    """Changes the component of a config's section, and its keys accordingly.

    A value that the config had set is kept if the new component has an option of the same name and
    type; all other options have the new component's defaults.

    Args:
      config: is changed in place.
      section: see `KINDS`.
      name: the name of the new component.

    Raises:
      LabError: the component does not exist.
    """
    old = section_of(config, section)
    if old.name == name:
        return
    before = find_component(section, old.name).options
    after = find_component(section, name)
    reserved = {key: old[key] for key in after.kind.reserved if key in old}
    new = ConfigDict(reserved | {"name": name} | _option_keys(after))
    for option, about in after.options.items():
        is_set = option in before and option in old and old[option] != before[option].default
        if is_set and _is_of(old[option], about.kind, about.default):
            new[option] = old[option]
    holder, last = holder_of(config, section)
    with holder.unlocked():
        holder[last] = new
    holder.lock()


def check_key(config: Config, key: str) -> None:
    """Raises a LabError that suggests the nearest key unless the config has a value for `key`."""
    known = flat_keys(config)
    if key in known:
        return
    _check_option(config, key)
    inside = [one for one in known if one.startswith(key + ".")]
    if inside:
        raise LabError(f"config key {key} is a section; its keys are {', '.join(inside)}")
    hint = did_you_mean(key, known)
    siblings = [one for one in known if one.startswith(f"{key.rpartition('.')[0]}.")]
    if siblings and not hint.startswith("did you mean"):
        hint = did_you_mean(key, siblings)
    raise LabError(f"config key {key} does not exist; {hint}")


def _check_option(config: Config, key: str) -> None:
    """Rejects an option of a built-in component if the config names another component."""
    section, _, name = key.rpartition(".")
    kind = KINDS.get(section)
    if kind is None or not any(
        name in find_component(section, one).options for one in kind.built_in
    ):
        return
    own = section_of(config, section)
    options = [one for one in own if one not in kind.reserved]
    hint = did_you_mean(name, options) if options else "it has no options"
    raise LabError(f"{key} has no effect on {own.name}; {hint}")


def check_complete(config: Config, modules: Modules = ENVIRONMENT) -> None:
    """Checks that a config has the keys of `base_config`, with values of the right types.

    Args:
      config: any config.
      modules: finds `module:function`.

    Raises:
      LabError: a key is missing, is unknown in its section, or has a value of another type; the
        message names it.
    """
    names = {}
    for section in KINDS:
        try:
            names[section] = section_of(config, section).name
        except (AttributeError, KeyError, TypeError):
            raise LabError(f"the config has no {section}.name; make it with base_config") from None
        if not isinstance(names[section], str):
            raise LabError(f"{section}.name is {names[section]!r}, not of type str")
    base = base_config(
        names["data"],
        names["schedule"],
        model=names["model"],
        objective=names["objective"],
        optimizer=names["train.optimizer"],
        modules=modules,
    )
    known, found = flat_keys(base), flat_keys(config)
    for key, default in known.items():
        if key not in found:
            section = key.rpartition(".")[0]
            of = f", an option of {names[section]}" if section in names else ""
            raise LabError(f"the config has no {key}{of}; make it with base_config")
        holder, name = holder_of(base, key)
        kind = holder.get_type(name)
        value = found[key]
        if not ((value is None and default is None) or _is_of(value, kind, default)):
            wanted = f"of items like those of {default}" if kind is tuple and default else ""
            raise LabError(f"{key} is {value!r}, not {wanted or f'of type {kind.__name__}'}")
        if ":" in names.get(key.rpartition(".")[0], "") and value is not None:
            check_storable(f"{key} is", value)
    for key in found:
        if key not in known and key.split(".")[0] in base:
            check_key(base, key)


def _is_of(value: Any, kind: type, default: Any) -> bool:
    """Whether a value has a key's type; the items of a tuple must match those of its default."""
    if kind is type(None):
        return True
    if isinstance(value, bool):
        return kind is bool
    if kind is tuple:
        return isinstance(value, tuple) and _are_of(value, default or ())
    return isinstance(value, int | float if kind is float else kind)


def _are_of(values: tuple[Any, ...], defaults: tuple[Any, ...]) -> bool:
    """Whether the items of a tuple match those of its default; anything matches a mixed default."""
    kinds = {type(one) for one in defaults}
    if kinds == {int, float}:
        kinds = {float}
    if len(kinds) != 1:
        return True
    [kind] = kinds
    inner = tuple(item for one in defaults for item in one) if kind is tuple else ()
    return all(_is_of(one, kind, inner) for one in values)


def flat_keys(config: Config) -> dict[str, Any]:
    """Values by dotted key, in order."""
    found: dict[str, Any] = {}
    for name, value in config.items(preserve_field_references=False):
        if isinstance(value, ConfigDict):
            found |= {f"{name}.{key}": inner for key, inner in flat_keys(value).items()}
        else:
            found[name] = value
    return found
