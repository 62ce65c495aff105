"""The demo: grapheme-to-phoneme at a size that trains four schedules in a few minutes.

    make demo
    s2s sweep --config=experiments/demo.py --workdir=runs/demo --jobs=2

It takes two to five minutes on 2 cores; the README shows its output. One seed, a small model and
less than two passes over the data are enough to see how the schedules act and how the gap between
gold and own prefixes opens, but not enough to rank them. The full experiment is experiments/g2p.py.
"""

from experiments import g2p
from s2s_jax.lab.config import Config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = g2p.get_config(schedule)
    config.data.num_buckets = 2
    config.model.hidden_size = 128
    config.model.embedding_size = 64
    config.model.dropout = 0.1
    config.train.batch_size = 128
    config.train.learning_rate = 2e-3
    config.train.num_steps = 1500
    config.train.warmup_steps = 150
    config.train.log_every = 50
    config.eval.every = 500
    config.eval.max_examples = 2000
    return config


def sweep():
    """Four schedules, one seed."""
    return sweep_schedules(num_seeds=1)
