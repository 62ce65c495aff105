"""Paths in star graphs, where teacher forcing fails: which of two arms ends at the goal?

    s2s train --config=experiments/path_star.py:teacher_forcing --workdir=runs/path_star
    s2s exposure runs/path_star --split=test --measures=positions --checkpoint=latest

The commands train for 3000 steps, 1.9 epochs, and print the accuracy at each position of the path.
In one run the first node after the centre, which is the only choice, was right in 51.6 % of 1000
test graphs; chance is 50 %, give or take 3.1 points in 95 of 100 such tests. With gold prefixes
every other position was right in 100 %. The best checkpoint on dev, step 1000, has 49.7 % of the
test paths right. Its 503 wrong outputs all follow the other arm, and end in the goal nevertheless.
The run took 17 minutes on 2 cores at a load of about 11; idle cores were not timed.

A model need not learn to look up edges either: with general attention and a learning rate of 2e-3
it had not done so after 3800 steps, at a token accuracy of 61 % with gold prefixes.
"""

from s2s_jax.lab.config import Config, base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config("path_star", schedule)
    config.data.source_vocabulary = "whitespace"
    config.data.target_vocabulary = "whitespace"
    config.data.num_buckets = 1
    config.model.attention = "additive"
    config.model.hidden_size = 128
    config.model.embedding_size = 64
    config.train.num_steps = 3000
    config.train.learning_rate = 4e-3
    config.eval.every = 1000
    config.eval.scores = "symbols"
    return config


def sweep():
    """Four schedules with five seeds each."""
    return sweep_schedules(num_seeds=5)
