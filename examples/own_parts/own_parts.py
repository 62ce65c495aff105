"""An experiment in which everything is one's own; each part is a file beside this one.

s2s train --config=examples/own_parts/own_parts.py --workdir=runs/own --config.data.folder=DATA
"""

from s2s_jax.lab.config import Config, base_config


def get_config(schedule: str = "sawtooth_schedule:make") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config(
        "jsonl_data:load",
        schedule,
        model="bag_model:make",
        objective="forgiving_objective:make",
        optimizer="signed_optimizer:make",
    )
    config.model.size = 32
    config.train.num_steps = 200
    config.train.learning_rate = 3e-3
    config.eval.every = 100
    config.eval.scores = "final_score:scorer"
    return config


def sweep():
    """One's own schedule beside teacher forcing, two seeds each."""
    for seed in range(2):
        for schedule in ("teacher_forcing", "sawtooth_schedule:make"):
            yield {"schedule.name": schedule, "seed": seed}
