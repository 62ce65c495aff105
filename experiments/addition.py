"""Addition of numbers with up to three digits: "12+345" -> "357".

s2s train --config=experiments/addition.py:inverse_sigmoid --workdir=runs/addition
"""

from s2s_jax.lab.config import Config, base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config("addition", schedule)
    config.data.num_buckets = 1
    config.model.hidden_size = 128
    config.model.embedding_size = 32
    config.train.num_steps = 4000
    config.eval.every = 500
    config.eval.scores = "characters"
    return config


def sweep():
    """Four schedules with five seeds each."""
    return sweep_schedules(num_seeds=5)
