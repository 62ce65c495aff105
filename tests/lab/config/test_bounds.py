"""Every number in a config or on the command line has bounds, and none causes a traceback."""

import argparse
import math
from typing import Any

import numpy as np
import pytest
from jaxlib.xla_client import XlaRuntimeError

from s2s_jax.lab import cli
from s2s_jax.lab.arguments import make_parser
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.bounds import CONFIG_BOUNDS, FLAG_BOUNDS, check_flag_numbers
from s2s_jax.lab.config.components import KINDS, find_component
from s2s_jax.lab.config.keys import base_config, flat_keys
from s2s_jax.lab.config.overrides import apply_overrides
from s2s_jax.lab.training.build import make_experiment

INTEGERS = (-1, 0, 2**31, 2**32, 2**63, 10**20)
FLOATS = (-1.0, 0.0, 1e20, 1e300, math.nan, math.inf, -math.inf)
VALUES = {int: INTEGERS, float: FLOATS}
NEEDED = {"r_drop": {"model.dropout": 0.1}}
"""What must be set beside a component."""


def numeric_keys() -> dict[str, tuple[list[dict[str, Any]], tuple[Any, ...]]]:
    """Every key that takes a number, with the components that have it and values to try."""
    found: dict[str, tuple[list[dict[str, Any]], tuple[Any, ...]]] = {}
    for section, kind in KINDS.items():
        for name in kind.built_in:
            for option, about in find_component(section, name).options.items():
                if about.kind in VALUES:
                    names, _ = found.setdefault(f"{section}.{option}", ([], VALUES[about.kind]))
                    names.append({f"{section}.name": name} | NEEDED.get(name, {}))
    for key, default in flat_keys(base_config("copy")).items():
        if type(default) in VALUES:
            found.setdefault(key, ([{}], VALUES[type(default)]))
    return found


NUMERIC_KEYS = numeric_keys()


def test_every_number_of_a_config_has_bounds():
    without = [key for key in NUMERIC_KEYS if not key.startswith("schedule.")]
    assert sorted(CONFIG_BOUNDS) == sorted(without)


@pytest.mark.parametrize("key", NUMERIC_KEYS)
def test_an_extreme_number_is_accepted_or_rejected_in_one_line_that_names_it(key):
    names, values = NUMERIC_KEYS[key]
    refused = 0
    for value in values:
        for components in names:
            config = apply_overrides(base_config("copy"), components | {key: value})
            try:
                make_experiment(config)
            except LabError as error:
                refused += 1
                message = str(error)
                assert "\n" not in message
                section, _, name = key.rpartition(".")
                if section == "schedule":
                    assert message.startswith("schedule")
                else:
                    start = f"{key} is {value}; it "
                    assert message.startswith((f"{start}must be in [", f"{start}has no effect"))
                    assert name in message
            else:
                # No int32 or float32 may overflow, except values that a schedule accepts and clips.
                assert abs(value) <= (2**32 if isinstance(value, int) else 1e30)
    assert refused


def test_every_command_line_number_has_bounds_and_errors_name_its_flag():
    commands = next(
        action
        for action in make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    numbers = {
        action.dest: action
        for parser in commands.choices.values()
        for action in parser._actions
        if action.type in (int, float)
    }
    assert sorted(numbers) == sorted(FLAG_BOUNDS)
    for name, action in numbers.items():
        for value in (-1, 10**20, math.nan, math.inf, -math.inf):
            with pytest.raises(LabError) as refused:
                check_flag_numbers(argparse.Namespace(**{name: value}))
            assert str(refused.value).startswith(f"{action.option_strings[0]} is {value}; it must")
        check_flag_numbers(argparse.Namespace(**{name: action.default}))


def no_numpy_memory() -> Any:
    return np.zeros(2**56)


def no_device_memory() -> Any:
    raise XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.\nmore")


def no_memory() -> Any:
    raise MemoryError


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (no_numpy_memory, "Unable to allocate 512. PiB for an array with shape"),
        (no_device_memory, "RESOURCE_EXHAUSTED: Out of memory allocating 68719476736 bytes.; make"),
        (no_memory, "the host has no more"),
    ],
)
def test_running_out_of_memory_is_one_line_with_the_size(monkeypatch, capsys, cause, said):
    monkeypatch.setitem(cli._COMMANDS, "compare", lambda options, overrides: cause())
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "runs"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("s2s: out of memory: ")
    assert said in err
    assert err.count("\n") == 1


def test_other_program_errors_are_not_taken_for_lack_of_memory(monkeypatch):
    def fails(options: Any, overrides: Any) -> None:
        raise XlaRuntimeError("INTERNAL: a bug")

    monkeypatch.setitem(cli._COMMANDS, "compare", fails)
    with pytest.raises(XlaRuntimeError, match="a bug"):
        cli.main(["compare", "runs"])
