"""Grapheme-to-phoneme conversion on CMUdict with a Transformer; data and scores as in g2p.py.

s2s train --config=experiments/g2p_transformer.py:teacher_forcing --workdir=runs/g2p_transformer
"""

from s2s_jax.lab.config import Config, base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The full-length experiment; the argument names the schedule."""
    config = base_config("cmudict", schedule, model="transformer")
    config.data.target_vocabulary = "whitespace"
    config.data.num_buckets = 10
    config.model.hidden_size = 192
    config.model.num_heads = 4
    config.model.mlp_size = 768
    config.model.positions = "rotary"
    config.model.dropout = 0.15
    config.train.batch_size = 128
    config.train.learning_rate = 1.5e-3
    config.train.num_steps = 16_000  # nineteen epochs
    config.train.warmup_steps = 1000
    config.train.label_smoothing = 0.1
    config.eval.every = 1600
    config.eval.scores = "phonemes"
    return config


def sweep():
    """Four schedules with five seeds each."""
    return sweep_schedules(num_seeds=5)
