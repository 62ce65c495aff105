"""The sweeps that results.py shows: which runs, and what they were trained with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import read_json, to_json
from s2s_jax.lab.comparison import collect
from s2s_jax.lab.config import flat_keys
from s2s_jax.lab.config.experiment_file import load_experiment, sweep_of
from s2s_jax.lab.evaluation.scores import make_scorer
from s2s_jax.lab.runs.collect import CollectedRuns
from s2s_jax.lab.runs.names import trial_of

ROOT = Path(__file__).resolve().parents[2]

# Keys that make a training smaller if they are lower.
_SIZES = (
    "train.num_steps", "train.batch_size", "model.hidden_size", "model.embedding_size",
    "model.num_encoder_layers", "model.num_decoder_layers", "data.num_train",
)  # fmt: skip
_NO_SETTING = (
    "seed",
    "schedule.name",
    "data.data_dir",
)  # the location of the data is not part of a result


@dataclass(frozen=True)
class Sweep:
    """A finished sweep of an experiment.

    Attributes:
      name: of the experiment's file, without ".py".
      runs: those that are compared.
      changed: key -> (value of all runs, value in the experiment's file), where they differ.
      uneven: keys in which some runs differ from the file, and which no folder names.
      own_seeds: those of the experiment's `sweep()`.
    """

    name: str
    runs: CollectedRuns
    changed: dict[str, tuple[Any, Any]]
    uneven: tuple[str, ...]
    own_seeds: tuple[int, ...]

    @property
    def config(self) -> dict[str, Any]:
        """The config of the first run; they differ in schedule, seed and what was varied."""
        return self.runs.compared[0].config

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of any run."""
        return tuple(sorted({run.seed for run in self.runs.compared}))

    @property
    def fewest_seeds(self) -> int:
        """Of any row."""
        return min(map(len, self.runs.by_schedule.values()))

    @property
    def seeds_text(self) -> str:
        """Such as "3 seeds", or "2 to 3 seeds" where the rows differ."""
        most = max(map(len, self.runs.by_schedule.values()))
        low = self.fewest_seeds
        return f"{most} seeds" if low == most else f"{low} to {most} seeds"

    @property
    def reduced(self) -> dict[str, tuple[Any, Any]]:
        """Those of `changed` that make the training smaller than the experiment's."""
        return {key: self.changed[key] for key in _SIZES if _is_less(*self.changed.get(key, ()))}

    @property
    def command(self) -> str:
        """What trains such a sweep, as far as seeds are those of the experiment's `sweep()`."""
        flags = [f"--config.{key}={_flag_value(here)}" for key, (here, _) in self.changed.items()]
        end = self.seeds[-1] + 1
        below = tuple(seed for seed in self.own_seeds if seed < end)
        if self.seeds == below != self.own_seeds:
            flags = [f"--seeds={end}", *flags]
        config = f"--config=experiments/{self.name}.py"
        return shlex.join(["s2s", "sweep", config, f"--workdir=runs/{self.name}", *flags])

    @property
    def other_seeds(self) -> bool:
        """Whether the runs have seeds that the experiment's `sweep()` has not."""
        return not set(self.seeds) <= set(self.own_seeds)

    @property
    def num_ended_best(self) -> int:
        """How many runs were at their best on dev at their last step."""
        results = [read_json(run.folder / "result.json") for run in self.runs.compared]
        return sum(one.get("best_step") == one.get("steps") for one in results)


def read_sweep(name: str, folder: str | Path) -> Sweep:
    """Reads a sweep of an experiment.

    Args:
      name: of the experiment's file.
      folder: the sweep's.

    Raises:
      LabError: nothing in it can be compared, it is of another task, or a row has one seed, of
        which there is no interval.
    """
    runs = collect(folder)
    file = str(ROOT / "experiments" / f"{name}.py")
    get_config = load_experiment(file).get_config
    task, wanted = runs.compared[0].config["data"]["name"], get_config().data.name
    if task != wanted:
        raise LabError(f"{name}={folder} is a sweep on {task}; that of {name} is on {wanted}")
    for label, members in runs.by_schedule.items():
        if len(members) < 2:
            raise LabError(
                f"{name}={folder} has one finished seed of {label}; an interval needs two"
            )
    found: dict[str, list[tuple[Any, Any]]] = {}
    for run in runs.compared:
        schedule = run.config["schedule"]["name"]
        _, varied = trial_of(run.folder, schedule, run.overrides)
        there = flat_keys(get_config(schedule))
        for key, value in flat_keys(ConfigDict(run.config)).items():
            known = key in there and key not in varied and key not in _NO_SETTING
            if known and to_json(value) != to_json(there[key]):
                found.setdefault(key, []).append((value, there[key]))
    everywhere = {
        key: pairs[0]
        for key, pairs in found.items()
        if len(pairs) == len(runs.compared) and len({_shown(here) for here, _ in pairs}) == 1
    }
    seeds = sorted({one.get("seed", 0) for one in sweep_of(file)})
    return Sweep(name, runs, everywhere, tuple(sorted(found.keys() - everywhere)), tuple(seeds))


def to_markdown(sweep: Sweep) -> str:
    """What was trained: the command, the size, and how the scores come about."""
    config = sweep.config
    model, train, evaluation = config["model"], config["train"], config["eval"]
    first = make_scorer(evaluation["scores"], evaluation["bleu_tokenize"]).metrics[0].label
    some = f" on {evaluation['max_examples']:,} pairs" * bool(evaluation["max_examples"])
    tokens = train.get("tokens_per_batch")  # configs of earlier versions lack it
    batch = f"{_number(tokens)} tokens" if tokens else f"{_number(train['batch_size'])} pairs"
    lines = [
        f"{len(sweep.runs.by_schedule)} schedules, {sweep.seeds_text} each,"
        f" {_number(train['num_steps'])} updates of {batch}."
        f" One model: {model['cell'].upper()},"
        f" hidden size {model['hidden_size']}, embeddings of {model['embedding_size']}.",
        f"Checkpoint: the best on dev by {first}, evaluated every {evaluation['every']:,}"
        f" updates{some}. Decoding: greedy.",
    ]
    if sweep.reduced:
        parts = [
            f"`{key}` is {_number(here)} instead of {_number(there)}"
            for key, (here, there) in sweep.reduced.items()
        ]
        lines.append(f"**Reduced** against {_file(sweep)}: {', '.join(parts)}.")
    else:
        lines.append(f"The size and the length are those of {_file(sweep)}.")
    if sweep.other_seeds:
        seeds, own = (", ".join(map(str, some)) for some in (sweep.seeds, sweep.own_seeds))
        lines.append(f"The seeds are {seeds}; `sweep()` of that file has {own}.")
    if sweep.uneven:
        lines.append(f"Set for some runs by hand: {', '.join(sweep.uneven)}.")
    return "\n".join(lines) + f"\n\n```bash\n{sweep.command}\n```\n"


def listed(parts: Sequence[str]) -> str:
    """Words with commas and an "and".

    Example:
      >>> listed(["a", "b", "c"])
      'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def _file(sweep: Sweep) -> str:
    return f"[{sweep.name}.py](../experiments/{sweep.name}.py)"


def _is_less(*pair: Any) -> bool:
    return len(pair) == 2 and all(type(one) in (int, float) for one in pair) and pair[0] < pair[1]


def _shown(value: Any) -> str:
    return json.dumps(to_json(value), sort_keys=True)


def _flag_value(value: Any) -> Any:
    """A value as a flag has it: what JSON has as a list was a tuple."""
    return tuple(map(_flag_value, value)) if isinstance(value, list | tuple) else value


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
