"""Start-up: from the command to the first train step, with a warm compilation cache.

    python -m benchmarks.start_up [--json FILE] [--quick]

`s2s train` of the g2p experiment, ten batch shapes, with a folder for data and one for compiled
programs that the benchmark makes: the first command finds both empty and is reported as cold, the
others find what it left. The clock runs from before the process is started until it says that the
first step is done. No evaluation and no checkpoint is in it.
"""

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.commands import S2S, TINY_ADDITION, environment, seconds_to_end, seconds_to_line
from benchmarks.report import Findings, Options, Row, run_part, say

_ROUNDS = 5


def train_command(folder: Path, number: int, quick: bool) -> list[str]:
    """Trains for one step, whose line is printed at once."""
    experiment = ["addition.py", *TINY_ADDITION] if quick else ["g2p.py"]
    config = Path(__file__).parent.parent / "experiments" / experiment[0]
    return [
        *S2S,
        "train",
        f"--config={config}",
        f"--workdir={folder / f'run_{number}'}",
        f"--config.data.data_dir={folder / 'data'}",
        "--config.train.num_steps=1",
        "--config.train.log_every=1",
        *experiment[1:],
    ]


def measure(options: Options) -> Findings:
    """One cold start, then warm ones."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        here = environment(folder / "cache")
        say("start_up: a cold start ...")
        # To its end, so that what is compiled and prepared is kept.
        whole = seconds_to_end(train_command(folder, 0, options.quick), here)
        say("start_up: warm starts ...")
        warm = [
            seconds_to_line(train_command(folder, 1 + number, options.quick), "step 1/1 ", here)
            for number in range(options.num_rounds(_ROUNDS))
        ]
    rows = [
        Row("g2p: from command to first step, warm compilation cache", median(warm), "s", goal=5),
        Row(
            "g2p: the first command ever, to its end",
            whole,
            "s",
            note="prepares the data, compiles all, one step, evaluations, a checkpoint",
        ),
    ]
    return Findings("start_up", rows, {"warm_seconds": warm, "first_seconds": whole})


if __name__ == "__main__":
    run_part("start_up", __doc__, measure)
