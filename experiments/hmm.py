"""A hidden Markov chain, some of whose symbols the source reveals.

    s2s train --config=experiments/hmm.py:free_running --workdir=runs/hmm \
        --config.data.dependence=0.5

data.dependence is the share of the target's symbols that the source hides. At 0 the source is the
target, and no training method does damage; at 1 it reveals nothing, and scheduled sampling is as
inconsistent as the chain allows. For the command above, theory predicts 0.1224 nats from the truth
given the dev sources (`eval/kl_predicted` in result.json); one run ended at 0.1338
(`eval/kl_to_truth`), after 72 seconds of CPU time including compilation. docs/theory.md has a
figure over all values of dependence.
"""

from collections.abc import Iterator

from experiments.markov import chain_settings
from s2s_jax.lab.config import Config, Overrides, base_config, sweep_schedules


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config("hmm", schedule)
    chain_settings(config)
    return config


def sweep() -> Iterator[Overrides]:
    """Four schedules with three seeds each; set data.dependence for all of them."""
    return sweep_schedules(num_seeds=3)
