"""Step time of every method over teacher forcing.

    python -m benchmarks.methods [--json FILE] [--quick] [--only TEXT]

Each method's step at teacher_prob 0.5, in turns with that of teacher forcing compiled alone, on the
commonest batch of both shapes. The figures are medians over the rounds. A method that draws whole
hypotheses is timed with five of them; those of an untrained model seldom repeat each other, and a
step on the CPU is cheaper once they do.

With `--only "g2p: OCD"` only what has that in its name is timed, beside teacher forcing. Lines on
standard error say which method is being compiled, and how far the rounds are.
"""

from collections.abc import Callable, Iterable, Mapping
from statistics import median

import jax
import numpy as np

from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.shapes import Shape, make_batch, make_model, make_optimizer, shapes
from benchmarks.timing import Training, interleave, make_step_at, median_ratio, passes_for
from benchmarks.train_step import make_teacher_forcing_step
from s2s_jax.lab.base.allocator import keep_freed_memory
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import (
    Objective,
    RolloutOptions,
    make_cross_entropy,
    make_minimum_risk,
    make_mixer,
    make_r_drop,
    make_reinforce,
    make_self_critical,
)
from s2s_jax.training import init_train_state

_ROUNDS = 7
_SAMPLE_SECONDS = 0.2
_TEACHER_PROB = 0.5

TEACHER_FORCING = "teacher forcing"


def _feeding(**options: object) -> Callable[[Seq2SeqModel], Objective]:
    rollout = RolloutOptions(**options)  # pyright: ignore[reportArgumentType]

    def make(model: Seq2SeqModel) -> Objective:
        counts = np.ones(model.vocab_size) if rollout.source == "unigram" else None
        return make_cross_entropy(model, rollout=rollout, unigram_probs=counts)

    return make


METHODS: Mapping[str, tuple[Callable[[Seq2SeqModel], Objective], float | None]] = {
    "scheduled sampling": (_feeding(), 1.10),
    "uniform noise": (_feeding(source="uniform"), 1.10),
    "unigram noise": (_feeding(source="unigram"), 1.10),
    "neighbour noise": (_feeding(source="neighbour"), 1.10),
    "positions": (_feeding(position="exponential"), 1.10),
    "confidence": (_feeding(coin="confidence"), None),
    "one parallel pass": (_feeding(passes=1), 1.35),
    "soft feeding": (_feeding(feed="soft"), 1.6),
    "gumbel feeding": (_feeding(feed="gumbel"), None),
    "RAML, Hamming": (lambda model: make_cross_entropy(model, target="raml"), 1.10),
    "OCD": (lambda model: make_cross_entropy(model, target="ocd"), 1.5),
    "unlikelihood": (lambda model: make_cross_entropy(model, unlikelihood=1.0), None),
    "R-Drop": (make_r_drop, None),
    "minimum risk, 5 samples": (make_minimum_risk, 4.5),
    "REINFORCE, 5 samples": (make_reinforce, None),
    "self-critical, 1 sample": (make_self_critical, None),
    "MIXER, 5 samples": (make_mixer, None),
}
"""The methods with their goals; OCD's holds for g2p."""


def make_trainings(
    shape: Shape, names: Iterable[str], jit: Callable[..., object] = jax.jit
) -> dict[str, Training]:
    """The methods' programs by name, with that of teacher forcing, for the commonest batch."""
    model, optimizer = make_model(shape), make_optimizer()
    state = jax.jit(lambda key: init_train_state(model, optimizer, key))(jax.random.key(0))
    batches = {shape.commonest: make_batch(shape, shape.commonest)}
    forced = make_teacher_forcing_step(make_cross_entropy(model), optimizer)
    trainings = {TEACHER_FORCING: Training(forced, state, batches, jit)}
    for name in names:
        say(f"methods: {shape.name}: compiling {name} ...")
        step = make_step_at(METHODS[name][0](model), optimizer)
        trainings[name] = Training(step, state, batches, jit)
    return trainings


def measure(options: Options) -> Findings:
    """Times the methods at both shapes; a row for each, and one for teacher forcing."""
    keep_freed_memory()
    num_rounds = options.num_rounds(_ROUNDS)
    findings = Findings("methods")
    for shape in shapes(options.quick):
        names = [name for name in METHODS if options.only in f"{shape.name}: {name}"]
        if not names:
            continue
        trainings = make_trainings(shape, names)
        seconds = _time(shape, trainings, num_rounds, 0.0 if options.quick else _SAMPLE_SECONDS)
        findings.detail[shape.name] = {"step_seconds": seconds}
        for name in names:
            goal = METHODS[name][1]
            findings.rows.append(
                Row(
                    f"{shape.name}: {name} / teacher forcing",
                    median_ratio(seconds[name], seconds[TEACHER_FORCING]),
                    goal=goal if name != "OCD" or shape.name == "g2p" else None,
                )
            )
        milliseconds = 1e3 * median(seconds[TEACHER_FORCING])
        findings.rows.append(Row(f"{shape.name}: teacher forcing, a step", milliseconds, "ms"))
    if not findings.rows:
        known = ", ".join(METHODS)
        findings.skipped = f"nothing has {options.only!r} in its name; the methods are {known}"
    return findings


def _time(
    shape: Shape, trainings: Mapping[str, Training], num_rounds: int, sample_seconds: float
) -> dict[str, list[float]]:
    """The seconds of a step: name -> a value a round. A slow method takes fewer steps a sample."""
    bucket = shape.commonest
    passes: dict[str, int] = {}
    for name, training in trainings.items():
        say(f"methods: {shape.name}: warming up {name} ...")
        training.seconds(bucket, [_TEACHER_PROB])
        passes[name] = passes_for(training.seconds(bucket, [_TEACHER_PROB]), sample_seconds)
    taken = 0

    def sample(name: str) -> float:
        nonlocal taken
        taken += 1
        if taken % len(trainings) == 1:
            say(f"methods: {shape.name}: round {taken // len(trainings) + 1} of {num_rounds} ...")
        return trainings[name].seconds(bucket, [_TEACHER_PROB], passes[name])

    return interleave({name: lambda n=name: sample(n) for name in trainings}, num_rounds)


if __name__ == "__main__":
    run_part("methods", __doc__, measure)
