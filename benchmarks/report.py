"""What a benchmark finds: rows with a goal, the machine and versions, as a table and as JSON."""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from s2s_jax.lab.base.files import write_json


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      measure: what it is.
      value: what was found; None where nothing could be.
      unit: "" for a ratio, "%", "s", "ms", "MB", ...
      goal: what it is held against, or None.
      at_most: whether the goal is a ceiling; a floor otherwise.
      note: what a reader must know, such as why there is no value.
    """

    measure: str
    value: float | None
    unit: str = ""
    goal: float | None = None
    at_most: bool = True
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met, to the digits of the table; None without a goal or a value."""
        if self.goal is None or self.value is None:
            return None
        value = float(f"{self.value:.3g}")
        return value <= self.goal if self.at_most else value >= self.goal


@dataclass(frozen=True)
class Options:
    """What every benchmark takes from its command line.

    Attributes:
      quick: tiny shapes and few rounds: shows that it runs, measures nothing.
      rounds: samples of each thing that is timed; None for the benchmark's own number.
      peers: the folder with the peers' environments.
      only: of `methods`: times only what has this in its name.
    """

    quick: bool = False
    rounds: int | None = None
    peers: Path = Path(".venv-peers")
    only: str = ""

    def num_rounds(self, usual: int) -> int:
        """How many rounds to run: what was asked for, else 2 when quick, else the usual number."""
        return self.rounds or (2 if self.quick else usual)


@dataclass
class Findings:
    """What one benchmark has found.

    Attributes:
      part: the benchmark's name.
      rows: of the table.
      detail: everything else that was measured, for the JSON.
      skipped: why it did not run, or "".
    """

    part: str
    rows: list[Row] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""


def machine() -> dict[str, Any]:
    """The machine, its load and the versions; asked before anything is timed."""
    import jax

    from s2s_jax.lab.base.versions import versions

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "versions": versions(),
    }


def to_table(rows: Sequence[Row]) -> str:
    """Measure, goal, what was found here, as text.

    Example:
      >>> print(to_table([Row("step time", 1.04, goal=1.1), Row("peer", None, note="not there")]))
      measure    goal       here
      step time  <= 1.1     1.04  yes
      peer                     -  not there
    """
    lines = [("measure", "goal", "here", "")]
    for row in rows:
        goal = ""
        if row.goal is not None:
            goal = f"{'<=' if row.at_most else '>='} {_number(row.goal)}{_unit(row.unit)}"
        here = "-" if row.value is None else f"{_number(row.value)}{_unit(row.unit)}"
        holds = {True: "yes", False: "no", None: ""}[row.holds]
        lines.append((row.measure, goal, here, "  ".join(one for one in (holds, row.note) if one)))
    width = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"{measure:{width[0]}}  {goal:{width[1]}}  {here:>{width[2]}}  {rest}".rstrip()
        for measure, goal, here, rest in lines
    )


def to_json(findings: Findings, machine: dict[str, Any]) -> dict[str, Any]:
    """Findings as the JSON has them; a row also says whether its goal is met."""
    rows = [asdict(row) | {"holds": row.holds} for row in findings.rows]
    return asdict(findings) | {"rows": rows, "machine": machine}


def from_json(content: dict[str, Any]) -> Findings:
    """The findings that `to_json` wrote."""
    rows = [
        Row(**{name: value for name, value in row.items() if name != "holds"})
        for row in content["rows"]
    ]
    return Findings(content["part"], rows, content["detail"], content["skipped"])


def run_part(part: str, about: str | None, measure: Callable[[Options], Findings]) -> None:
    """The command line of one benchmark: measures, prints the table, writes the JSON.

    Args:
      part: the benchmark's name.
      about: its module's docstring.
      measure: finds.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{part}", description=(about or "").partition("\n")[0]
    )
    add_options(parser)
    parser.add_argument("--json", type=Path, help="write the findings to this file as well")
    given = parser.parse_args()
    if given.quick:  # compiling is then most of the work
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()
    here = machine()
    findings = measure(options_of(given))
    if findings.skipped:
        print(f"{part}: skipped: {findings.skipped}")
    else:
        print(to_table(findings.rows))
    if given.json:
        write_json(given.json, to_json(findings, here))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that become `Options`."""
    parser.add_argument("--quick", action="store_true", help="tiny shapes: see that it runs")
    parser.add_argument("--rounds", type=int, help="samples of each thing that is timed")
    parser.add_argument(
        "--peers", type=Path, default=Options.peers, help="where `make bench-peers` put the peers"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="methods: only those with this in their name"
    )


def options_of(given: argparse.Namespace) -> Options:
    """The options of parsed arguments."""
    return Options(given.quick, given.rounds, given.peers, given.only)


def say(line: str) -> None:
    """Progress, on standard error, so that the table stands alone."""
    print(line, file=sys.stderr, flush=True)


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _number(value: float) -> str:
    """Three digits, or more where the number is that large."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 1 <= abs(value) < 10:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:.3g}"


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""
