"""The values in a config that the command line and sweeps set."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import FieldReference

from s2s_jax.lab.base.errors import LabError, one_line
from s2s_jax.lab.config.components import KINDS
from s2s_jax.lab.config.experiment_file import function_of, load_experiment, split_config
from s2s_jax.lab.config.keys import Config, Overrides, check_key, holder_of, rename_component
from s2s_jax.lab.config.user_code import printing_beside_results, where

_PARSERS = {
    bool: (flags.BooleanParser(), "True or False"),
    int: (flags.IntegerParser(), "a whole number"),
    float: (flags.FloatParser(), "a number"),
}
"""Parsers that read values as absl's flags do, with a description of what they accept."""


def parse_config(arguments: Sequence[str]) -> tuple[Config, Overrides, str]:
    """Reads `--config=FILE[:ARG]` and `--config.KEY=VALUE`.

    Args:
      arguments: only these flags, in any order.

    Returns:
      The config, the overrides by dotted key, and FILE[:ARG].

    Raises:
      LabError: something is wrong with them; the message is one line.
    """
    for one in arguments:
        try:
            one.encode()
        except UnicodeEncodeError:
            raise LabError(f"{ascii(one)[1:-1]} is not UTF-8, as configs have to be") from None
    files = [one.split("=", 1)[1] for one in arguments if one.startswith("--config=")]
    if len(files) != 1:
        raise LabError("name one config: --config=FILE or --config=FILE:SCHEDULE")
    path, argument = split_config(files[0])
    module = load_experiment(path)
    get_config = function_of(module, "get_config", path)
    try:
        with printing_beside_results():
            config = get_config(argument) if argument else get_config()
    except ValueError as error:
        raise LabError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        message = where(error, Path(path))
        raise LabError(f"config file {path} cannot be used: {message}") from error
    if not isinstance(config, ConfigDict):
        raise LabError(f"get_config of {path} must return a ConfigDict; make it with base_config")
    config.lock()
    chosen = _chosen_names(arguments)
    for section, name in chosen.items():
        rename_component(config, section, name)

    given: list[tuple[str, str]] = []
    overrides: Overrides = {}
    for one in arguments:
        if one.startswith("--config="):
            continue
        key, equals, text = one.removeprefix("--config.").partition("=")
        check_key(config, key)
        if not equals:
            raise LabError(f"{one} has no value; write --config.{key}=VALUE")
        if text == "None" and _may_be_none(config, key):  # absl's flags cannot express None
            given = [(other, value) for other, value in given if other != key]
            overrides[key] = None
        else:
            _check_text(config, key, text)
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
      config: is not changed.
      overrides: values that `plain_value` accepts, by dotted key.

    Raises:
      LabError: a key does not exist, or a value is of another type.
    """
    config = copy.deepcopy(config).lock()  # its references know the types of keys that are None
    for section in KINDS:
        name = overrides.get(f"{section}.name")
        if isinstance(name, str):
            rename_component(config, section, name)
    for key, value in overrides.items():
        check_key(config, key)
        _set(config, key, plain_value(key, value))
    return config.copy_and_resolve_references().lock()


def plain_value(key: str, value: Any) -> Any:
    """Converts a value that a sweep sets to plain Python types, which JSON can store.

    Args:
      key: the key that the value is for; used in error messages.
      value: None, a bool, a number, a string or a scalar of numpy or JAX; or a tuple or list of
        these, which becomes a tuple.

    Raises:
      LabError: the value is something else.

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
        return str.__str__(value)  # for an enum the value, not the name
    raise LabError(
        f"{key} is set to {value!r} of type {type(value).__name__}; it must be None, a bool,"
        " a number, a string or a tuple of these"
    )


def _set(config: Config, key: str, value: Any) -> None:
    """Sets an existing key; rejects a value of another type than the key's."""
    holder, name = holder_of(config, key)
    kind = holder.get_type(name)
    if value is None and not _may_be_none(config, key):
        raise LabError(f"{key} cannot be None; its default is {holder[name]!r}")
    wrong = LabError(f"{key}={value!r}: it must be of type {kind.__name__}")
    if isinstance(value, bool) and kind in (int, float):  # Python would take it for 0 or 1
        raise wrong
    try:
        holder[name] = value
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error


def _check_text(config: Config, key: str, text: str) -> None:
    """Rejects a text that is no number, or not True or False, if the key takes one."""
    holder, name = holder_of(config, key)
    parser, wanted = _PARSERS.get(holder.get_type(name), (None, ""))
    if parser is None:
        return
    try:
        parser.parse(text)
    except ValueError as error:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise LabError(f"{key} is {shown or 'empty'}; it must be {wanted}") from error


def _may_be_none(config: Config, key: str) -> bool:
    """Whether an existing key was created with `placeholder`, or is None."""
    holder, name = holder_of(config, key)
    field = dict(holder.items(preserve_field_references=True))[name]
    return field is None or isinstance(field, FieldReference)


def _chosen_names(arguments: Sequence[str]) -> dict[str, str]:
    """The components chosen by `--config.SECTION.name=NAME`, by section."""
    chosen: dict[str, str] = {}
    for one in arguments:
        key, equals, text = one.removeprefix("--config.").partition("=")
        section = key.removesuffix(".name")
        if equals and key.endswith(".name") and section in KINDS:
            chosen[section] = text
    return {section: chosen[section] for section in KINDS if section in chosen}
