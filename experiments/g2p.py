"""Grapheme-to-phoneme conversion on CMUdict: how is a word pronounced?

    s2s train --config=experiments/g2p.py:inverse_sigmoid --workdir=runs/g2p
"""

from ml_collections import ConfigDict

from s2s_jax.lab.config import base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> ConfigDict:
    """The full-length experiment; the argument names the schedule."""
    config = base_config("cmudict", schedule)
    config.data.target_vocabulary = "whitespace"
    config.data.num_buckets = 5
    config.model.dropout = 0.2
    config.train.num_steps = 12_000
    config.train.label_smoothing = 0.1
    config.eval.every = 1000
    config.eval.scores = "phonemes"
    return config


def sweep():
    """Four schedules with three seeds each."""
    return sweep_schedules(num_seeds=3)
