"""A run as a process is told to train it: its experiment, and what is set in it, as values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_jax.lab.base.errors import LabError

if TYPE_CHECKING:  # a process of a sweep prepares JAX before it imports it
    from s2s_jax.lab.config.keys import Config, Overrides


@dataclass(frozen=True)
class Assignment:
    """What a process needs to know of a run that it is to train.

    Attributes:
      config_file: the experiment.
      workdir: the run's folder.
      override_flags: `--config.KEY=VALUE` for all runs of the sweep, as they were given.
      varied: (dotted key, value) of what the sweep sets in this run; values of `plain_value`.
    """

    config_file: str
    workdir: Path
    override_flags: tuple[str, ...] = ()
    varied: tuple[tuple[str, Any], ...] = ()

    def config(self) -> tuple[Config, Overrides]:
        """The run's config, and what of it was set beside the file, by dotted key.

        Raises:
          LabError: the file or a value cannot be used.
        """
        from s2s_jax.lab.config.overrides import parse_config

        flags = [f"--config={self.config_file}", *self.override_flags]
        base, fixed, _ = parse_config(flags)
        return with_varied(base, fixed, dict(self.varied))

    @property
    def arguments(self) -> list[str]:
        """Those of `s2s` that train it.

        Example:
          >>> run = Assignment("a.py", Path("runs/a"), (), (("schedule.k", None),))
          >>> run.arguments
          ['train', '--config=a.py', '--workdir=runs/a', '--config.schedule.k=None']
        """
        varied = (
            f"--config.{key}={value if isinstance(value, str) else repr(value)}"
            for key, value in self.varied
        )
        front = ["train", f"--config={self.config_file}", f"--workdir={self.workdir}"]
        return [*front, *self.override_flags, *varied]

    def command_line(self) -> str:
        """The shell command that trains it.

        Raises:
          LabError: a value has no form there that is read as the same value.
        """
        from s2s_jax.lab.config.keys import flat_keys
        from s2s_jax.lab.config.overrides import parse_config

        flags = [one for one in self.arguments if one.startswith("--config")]
        read, meant = flat_keys(parse_config(flags)[0]), flat_keys(self.config()[0])
        for key, value in meant.items():
            if repr(read[key]) != repr(value):  # of a NaN as well
                raise LabError(
                    f"{key}={value!r} cannot be written on a command line;"
                    " leave out --launcher=print, or choose another value"
                )
        return shlex.join(["s2s", *self.arguments])

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "config_file": self.config_file,
            "workdir": str(self.workdir),
            "override_flags": list(self.override_flags),
            "varied": dict(self.varied),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Assignment:
        """From what `to_json` gave."""
        return cls(
            value["config_file"],
            Path(value["workdir"]),
            tuple(value["override_flags"]),
            tuple(value["varied"].items()),
        )


def with_varied(
    base: Config, fixed: Overrides, varied: Mapping[str, Any]
) -> tuple[Config, Overrides]:
    """The config of a run, and its overrides by dotted key as the config has them.

    The plan of a sweep and the process that trains a run both make its config here, so that what
    was checked is what is run.

    Args:
      base: the config that the runs of the sweep have in common.
      fixed: what was set in it for all runs.
      varied: what the sweep sets in this run.

    Raises:
      LabError: a key does not exist, or a value is of another type.
    """
    from s2s_jax.lab.config.keys import flat_keys
    from s2s_jax.lab.config.overrides import apply_overrides

    config = apply_overrides(base, varied)
    values = flat_keys(config)
    return config, {**fixed, **{key: values[key] for key in varied}}
