"""A sweep of four runs, over the four trained one after another by `s2s train`.

    python -m benchmarks.sweep_jobs [--json FILE] [--quick]

The demo experiment, four schedules of 300 steps: `s2s sweep` with `--jobs=2`, `--jobs=1` and
`--population`, and the four commands that `--launcher=print` shows, in turns. Data and compiled
programs are there before the clock starts: each way has filled the cache.
"""

import itertools
import shlex
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.commands import S2S, TINY_ADDITION, environment, seconds_to_end
from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.timing import interleave, median_ratio

_ROUNDS = 2
_ALONE, _TOGETHER = "s2s train four times", "2 at a time"
_WAYS = {
    _ALONE: "--launcher=print",
    _TOGETHER: "--jobs=2",
    "one at a time": "--jobs=1",
    "as one program": "--population",
}
_STEPS = ("--config.train.num_steps=300", "--config.eval.every=300")
_QUICK_STEPS = (*TINY_ADDITION, "--config.train.num_steps=4", "--config.eval.every=4", "--seeds=1")


def sweep_command(folder: Path, name: str, way: str, quick: bool) -> list[str]:
    """A sweep into a folder of its own."""
    experiments = Path(__file__).parent.parent / "experiments"
    return [
        *S2S,
        "sweep",
        f"--config={experiments / ('addition.py' if quick else 'demo.py')}",
        f"--workdir={folder / name}",
        _WAYS[way],
        f"--config.data.data_dir={folder / 'data'}",
        *(_QUICK_STEPS if quick else _STEPS),
    ]


def train_commands(sweep: list[str], here: dict[str, str]) -> list[list[str]]:
    """The commands that train the runs of a sweep, from the one that prints them."""
    printed = subprocess.run(sweep, capture_output=True, text=True, env=here, check=True).stdout
    return [[*S2S, *shlex.split(line)[1:]] for line in printed.splitlines()]


def measure(options: Options) -> Findings:
    """All of them in turns, after one run of each that is not counted."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        here = environment(folder / "cache")
        count = itertools.count()

        def sample(way: str) -> float:
            sweep = sweep_command(folder, f"sweep_{next(count)}", way, options.quick)
            commands = train_commands(sweep, here) if way == _ALONE else [sweep]
            return sum(seconds_to_end(command, here) for command in commands)

        say("sweep_jobs: preparing data, compiling ...")
        for way in _WAYS:
            sample(way)
        say("sweep_jobs: timing ...")
        seconds = interleave(
            {way: lambda way=way: sample(way) for way in _WAYS}, options.num_rounds(_ROUNDS)
        )
    rows = [
        Row(
            f"demo: a sweep of 4 runs, {way} / {_ALONE}",
            median_ratio(values, seconds[_ALONE]),
            goal=0.6 if way == _TOGETHER else None,
        )
        for way, values in seconds.items()
        if way != _ALONE
    ]
    rows += [
        Row(f"demo: the 4 runs, {way}", median(values), "s") for way, values in seconds.items()
    ]
    return Findings("sweep_jobs", rows, {"seconds": seconds})


if __name__ == "__main__":
    run_part("sweep_jobs", __doc__, measure)
