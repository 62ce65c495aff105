"""An experiment from Python: train it, open what it has trained, evaluate that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.keys import Config, Overrides
from s2s_jax.lab.training.trained_run import TrainedRun, evaluate_run, load_run, load_run_task
from s2s_jax.lab.training.workbench import RunSpec, Workbench

__all__ = ["TrainedRun", "evaluate_run", "load_run", "load_run_task", "train_and_evaluate"]


def train_and_evaluate(
    config: Config,
    workdir: str | Path,
    overrides: Overrides | None = None,
    *,
    report: Callable[[str], None] = print,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains a config in a folder, or continues where an earlier call stopped.

    `s2s_jax.lab.runs.run_folder.RunFolder` lists the files that the folder then holds. A run that
    was stopped and resumed ends up bit-identical to one that was never stopped; a finished run is
    not trained again.

    Args:
      config: every key of `base_config`; experiments/*.py make them.
      workdir: the run's folder.
      overrides: the config values that were set on the command line, for the record.
      report: takes a line of progress.
      should_stop: asked after each step; True saves a checkpoint and ends the call.

    Returns:
      The content of `result.json`: "status" is "finished", or "stopped" if should_stop returned
      True.

    Raises:
      LabError, DataError: the input is bad, and nothing has been written; or the loss is not
        finite, in which case the last finite checkpoint is kept and `result.json` has the reason.

    Example:
      from experiments import addition
      config = addition.get_config("inverse_sigmoid")
      result = train_and_evaluate(config, "runs/addition")
      print(result["metrics"]["test/own/exact_match"])
    """
    spec = RunSpec(config, Path(workdir), overrides or {}, report)
    [result] = Workbench().train([spec], should_stop=should_stop)
    if isinstance(result, LabError):
        raise result
    return result
