"""Teacher forcing and the remedies against exposure bias, at equal numbers of updates.

    s2s sweep --config=experiments/remedies.py --workdir=runs/remedies
    s2s sweep --config=experiments/remedies.py:addition --workdir=runs/remedies_addition
    s2s compare runs/remedies

The argument names the task: g2p (the default, at the size of experiments/demo.py), addition, markov
or path_star. docs/methods.md says what each method changes. Every method keeps its defaults here;
its one knob should be tuned on the dev split before methods are ranked, with --config flags or in a
copy of this file. The losses of whole hypotheses (minimum risk and its relatives) are not among the
rows, since they need a trained model to start from: see `minimum_risk` below.
"""

from collections.abc import Iterator

from experiments import addition, demo, markov, path_star
from s2s_jax.lab.config import Config, Overrides

TASKS = {"g2p": demo, "addition": addition, "markov": markov, "path_star": path_star}

INVERSE_SIGMOID: Overrides = {"schedule.name": "inverse_sigmoid"}
OWN: Overrides = {"schedule.name": "free_running"}
HALF: Overrides = {"schedule.name": "constant", "schedule.teacher_prob": 0.5}

METHODS: dict[str, Overrides] = {
    "teacher_forcing": {"schedule.name": "teacher_forcing"},
    "label_smoothing": {"schedule.name": "teacher_forcing", "train.label_smoothing": 0.1},
    "linear": {"schedule.name": "linear"},
    "exponential": {"schedule.name": "exponential"},
    "inverse_sigmoid": INVERSE_SIGMOID,
    "rising": {"schedule.name": "linear", "schedule.rising": True},
    "positions": OWN | {"rollout.position": "exponential", "rollout.position_k": 0.95},
    "confidence": OWN | {"rollout.coin": "confidence"},
    "one_pass": INVERSE_SIGMOID | {"rollout.passes": 1},
    "uniform_noise": INVERSE_SIGMOID | {"rollout.source": "uniform"},
    "unigram_noise": INVERSE_SIGMOID | {"rollout.source": "unigram"},
    "word_dropout": INVERSE_SIGMOID | {"rollout.source": "blank"},
    "soft": INVERSE_SIGMOID | {"rollout.feed": "soft"},
    "raml": {"schedule.name": "teacher_forcing", "objective.target": "raml"},
    "ocd": OWN | {"objective.target": "ocd"},
    "ocd_half": HALF | {"objective.target": "ocd"},
}
"""What each method sets beside the task's config."""


def minimum_risk(trained: str) -> Overrides:
    """Minimum risk training that goes on from a trained run, at a tenth of its learning rate.

    Use it in a sweep of your own; `s2s compare` counts the updates of the first training too.

    Args:
      trained: the folder of the run to start from.
    """
    return {
        "method": "minimum_risk",
        "objective.name": "minimum_risk",
        "train.init_from": trained,
        "train.learning_rate": 2e-4,
    }


def get_config(task: str = "g2p") -> Config:
    """The experiment; the argument names the task."""
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; it must be one of {', '.join(TASKS)}")
    return TASKS[task].get_config()


def sweep(task: str = "g2p") -> Iterator[Overrides]:
    """Every method with three seeds; the method varies fastest."""
    for seed in range(3):
        for name, overrides in METHODS.items():
            yield {"method": name, "seed": seed} | overrides
