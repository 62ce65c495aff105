"""A hidden Markov chain behind a source that tells some of its symbols.

    s2s train --config=experiments/hmm.py:free_running --workdir=runs/hmm \
        --config.data.dependence=0.5

data.dependence is the share of the target's symbols that the source hides. At 0 the source is the
target and no way of training does damage; at 1 it tells nothing, and scheduled sampling is as
inconsistent as the chain allows.
"""

from collections.abc import Iterator

from s2s_jax.lab.config import Config, Overrides, base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config("hmm", schedule)
    config.data.source_vocabulary = "whitespace"
    config.data.target_vocabulary = "whitespace"
    config.data.num_buckets = 1
    config.data.num_train = 50_000
    config.model.hidden_size = 64
    config.model.embedding_size = 16
    config.train.num_steps = 3000
    config.train.batch_size = 512
    config.train.learning_rate = 5e-3
    config.eval.every = 1000
    config.eval.scores = "symbols"
    return config


def sweep() -> Iterator[Overrides]:
    """Four schedules with three seeds each; set data.dependence for all of them."""
    return sweep_schedules(num_seeds=3)
