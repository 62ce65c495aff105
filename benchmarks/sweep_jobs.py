"""A sweep of four runs: two at a time over one after another.

    python -m benchmarks.sweep_jobs [--json FILE] [--quick]

`s2s sweep` of the demo experiment, four schedules of 300 steps, with `--jobs=2` and `--jobs=1` in
turns. Data and compiled programs are there before the clock starts: a sweep with either number of
jobs has filled the cache.
"""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.commands import S2S, TINY_ADDITION, environment, seconds_to_end
from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.timing import interleave, median_ratio

_ROUNDS = 2
_STEPS = ("--config.train.num_steps=300", "--config.eval.every=300")
_QUICK_STEPS = (*TINY_ADDITION, "--config.train.num_steps=4", "--config.eval.every=4", "--seeds=1")


def sweep_command(folder: Path, name: str, num_jobs: int, quick: bool) -> list[str]:
    """A sweep into a folder of its own."""
    experiments = Path(__file__).parent.parent / "experiments"
    return [
        *S2S,
        "sweep",
        f"--config={experiments / ('addition.py' if quick else 'demo.py')}",
        f"--workdir={folder / name}",
        f"--jobs={num_jobs}",
        f"--config.data.data_dir={folder / 'data'}",
        *(_QUICK_STEPS if quick else _STEPS),
    ]


def measure(options: Options) -> Findings:
    """Both, in turns, behind one of each that is not counted."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        here = environment(folder / "cache")
        counts = {1: 0, 2: 0}

        def sample(num_jobs: int) -> float:
            counts[num_jobs] += 1
            name = f"jobs_{num_jobs}_{counts[num_jobs]}"
            return seconds_to_end(sweep_command(folder, name, num_jobs, options.quick), here)

        say("sweep_jobs: preparing data, compiling ...")
        for num_jobs in counts:
            sample(num_jobs)
        say("sweep_jobs: timing ...")
        seconds = interleave(
            {str(num_jobs): lambda num_jobs=num_jobs: sample(num_jobs) for num_jobs in counts},
            options.num_rounds(_ROUNDS),
        )
    rows = [
        Row(
            "demo: a sweep of 4 runs, 2 at a time / one after another",
            median_ratio(seconds["2"], seconds["1"]),
            goal=0.6,
        ),
        *(
            Row(f"demo: the sweep with --jobs={num_jobs}", median(values), "s")
            for num_jobs, values in seconds.items()
        ),
    ]
    return Findings("sweep_jobs", rows, {"seconds_by_jobs": seconds})


if __name__ == "__main__":
    run_part("sweep_jobs", __doc__, measure)
