"""Reversal of letter strings; the test_long split has longer strings than training.

s2s train --config=experiments/reverse.py:inverse_sigmoid --workdir=runs/reverse
"""

from s2s_jax.lab.config import Config, base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config("reverse", schedule)
    config.data.num_buckets = 2
    config.model.cell = "gru"
    config.model.hidden_size = 128
    config.model.embedding_size = 32
    config.train.num_steps = 3000
    config.eval.every = 500
    config.eval.scores = "characters"
    return config


def sweep():
    """Four schedules with five seeds each."""
    return sweep_schedules(num_seeds=5)
