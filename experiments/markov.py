"""A Markov chain of two symbols; the truth and the optimum of scheduled sampling are known.

    s2s train --config=experiments/markov.py:constant --workdir=runs/markov \
        --config.schedule.teacher_prob=0.5

By default a target is three symbols long, and the chain has the initial probabilities (.7, .3) and
the rows (.9, .1) and (.2, .8). Its optimum at teacher_prob 0.5 is 0.1130 nats from the truth; with
--config.rollout.coin=sequence it is 0.1330. One run of the command above ended 0.1148 nats from the
truth, after 61 seconds of CPU time including compilation. For any chain, result.json has both, as
`eval/kl_predicted` and `eval/kl_to_truth`; see docs/theory.md. Exact match means nothing in such a
task, because every target is one of several possible ones.
"""

from collections.abc import Iterator

from s2s_jax.lab.config import Config, Overrides, base_config


def get_config(schedule: str = "teacher_forcing") -> Config:
    """The experiment; the argument names the schedule."""
    config = base_config("markov", schedule)
    chain_settings(config)
    if schedule == "constant":
        config.schedule.teacher_prob = 0.5
    return config


def chain_settings(config: Config) -> None:
    """Sets what the experiments on chains of few symbols have in common."""
    config.data.source_vocabulary = "whitespace"
    config.data.target_vocabulary = "whitespace"
    config.data.num_buckets = 1
    config.data.num_train = 50_000
    config.model.hidden_size = 32
    config.model.embedding_size = 16
    config.train.num_steps = 2000
    config.train.batch_size = 256
    config.train.learning_rate = 5e-3
    config.eval.every = 1000
    config.eval.scores = "symbols"


def sweep() -> Iterator[Overrides]:
    """Five mixtures of gold and own tokens, five seeds each."""
    for seed in range(5):
        for teacher_prob in (1.0, 0.75, 0.5, 0.25, 0.0):
            yield {
                "schedule.name": "constant",
                "schedule.teacher_prob": teacher_prob,
                "seed": seed,
            }
