"""What a process is told about a run: the experiment and the config values to set."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s_jax.lab.base.errors import LabError

if TYPE_CHECKING:  # a process of a sweep has to prepare JAX before importing it
    from s2s_jax.lab.config.keys import Config, Overrides


@dataclass(frozen=True)
class Assignment:
    """What a process needs to know about a run in order to train it.

    Attributes:
      config_file: the experiment.
      workdir: the run's folder.
      override_flags: `--config.KEY=VALUE` for all runs of the sweep, as they were given.
      varied: (dotted key, value) pairs that the sweep sets in this run; values from `plain_value`.
    """

    config_file: str
    workdir: Path
    override_flags: tuple[str, ...] = ()
    varied: tuple[tuple[str, Any], ...] = ()

    def config(self) -> tuple[Config, Overrides]:
        """The run's config, and the values that override its file, by dotted key.

        Raises:
          LabError: the file or a value cannot be used.
        """
        from s2s_jax.lab.config.overrides import parse_config

        flags = [f"--config={self.config_file}", *self.override_flags]
        base, fixed, _ = parse_config(flags)
        return with_varied(base, fixed, dict(self.varied))

    @property
    def arguments(self) -> list[str]:
        """The arguments with which `s2s` trains the run.

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
        """The shell command that trains the run.

        Raises:
          LabError: a value cannot be written such that the command line reads the same value.
        """
        from s2s_jax.lab.config.keys import flat_keys
        from s2s_jax.lab.config.overrides import parse_config

        flags = [one for one in self.arguments if one.startswith("--config")]
        read, meant = flat_keys(parse_config(flags)[0]), flat_keys(self.config()[0])
        for key, value in meant.items():
            if repr(read[key]) != repr(value):  # repr, so that a NaN equals itself
                raise LabError(
                    f"{key}={value!r} cannot be written on a command line;"
                    " leave out --launcher=print, or choose another value"
                )
        return shlex.join(["s2s", *self.arguments])

    def to_json(self) -> dict[str, Any]:
        """The assignment as a JSON object."""
        return {
            "config_file": self.config_file,
            "workdir": str(self.workdir),
            "override_flags": list(self.override_flags),
            "varied": dict(self.varied),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Assignment:
        """The inverse of `to_json`."""
        return cls(
            value["config_file"],
            Path(value["workdir"]),
            tuple(value["override_flags"]),
            tuple(value["varied"].items()),
        )


def with_varied(
    base: Config, fixed: Overrides, varied: Mapping[str, Any]
) -> tuple[Config, Overrides]:
    """The config of a run, and its overrides by dotted key, with the values of the config.

    Both the plan of a sweep and the process that trains a run make its config here, so that the
    process trains what was checked.

    Args:
      base: the config that the runs of the sweep have in common.
      fixed: the values set in it for all runs.
      varied: the values that the sweep sets in this run.

    Raises:
      LabError: a key does not exist, or a value is of another type.
    """
    from s2s_jax.lab.config.keys import flat_keys
    from s2s_jax.lab.config.overrides import apply_overrides

    config = apply_overrides(base, varied)
    values = flat_keys(config)
    return config, {**fixed, **{key: values[key] for key in varied}}
