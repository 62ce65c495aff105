"""Step time: scheduled sampling over teacher forcing, and over one differentiated scan.

    python -m benchmarks.train_step [--json FILE] [--quick]

Four programs at both shapes, in turns: teacher forcing compiled alone, with no rollout in the
program; the program that serves every schedule, at teacher_prob 1; the same through an
inverse-sigmoid schedule from 1 to 0; and the step as flax's seq2seq example has it. A round goes
through all batch shapes, weighted by how often an epoch has them; the figures are medians over the
rounds. On the CPU also the share of the machine's fastest matrix product that the mt step reaches.
"""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.shapes import Shape, forward_flops, make_batch, make_model, make_optimizer, shapes
from benchmarks.timing import (
    StepAt,
    Training,
    interleave,
    make_step_at,
    matmul_peak,
    median_ratio,
    passes_for,
    schedule_probs,
)
from s2s_jax.batch import BOS, Batch, to_jax
from s2s_jax.lab.base.allocator import keep_freed_memory
from s2s_jax.losses import cross_entropy
from s2s_jax.metrics import MetricSums, masked_mean
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.objectives import Objective, make_cross_entropy
from s2s_jax.schedules import teacher_forcing as teacher_forcing_schedule
from s2s_jax.training import init_train_state, make_train_step

_ROUNDS = 7
_SAMPLE_SECONDS = 0.1

TEACHER_FORCING, AT_ONE, SCHEDULED, ONE_SCAN = (
    "teacher forcing",
    "teacher_prob 1",
    "scheduled sampling",
    "one scan",
)


def make_one_scan_objective(model: Seq2SeqModel, feed: str = "sample") -> Objective:
    """Scheduled sampling as flax's seq2seq example trains: one scan, differentiated through.

    Cell, attention, projection and `jax.random.categorical` are inside the scan, and the gradient
    passes back through all of it; only the choice of the token has none. The same loss as that of
    `make_cross_entropy`; with feed "argmax" it draws nothing but coins.
    """
    sample = feed == "sample"

    def objective(
        params: Params, batch: Batch, key: jax.Array, teacher_prob: jax.Array
    ) -> tuple[jax.Array, MetricSums]:
        source, source_mask, target, mask = to_jax(batch)
        batch_size, time = target.shape
        memory = model.encode(params, source, source_mask, None)
        coins_key, samples_key = jax.random.split(key)
        is_gold = jax.random.uniform(coins_key, (time, batch_size)) < teacher_prob
        keys = jax.random.split(samples_key, time)

        def step(carry, inputs):
            decoder_carry, token = carry
            gold, gold_next, sample_key = inputs
            decoder_carry, logits = model.decode_step(params, memory, decoder_carry, token)
            own = jax.random.categorical(sample_key, logits) if sample else logits.argmax(-1)
            return (decoder_carry, jnp.where(gold_next, gold, own)), logits

        carry = model.initial_carry(params, memory, time)
        start = carry, jnp.full((batch_size,), BOS, jnp.int32)
        _, logits = jax.lax.scan(step, start, (target.T, is_gold, keys))
        logits = logits.swapaxes(0, 1)
        loss = cross_entropy(logits, target, mask)
        accuracy = masked_mean(logits.argmax(-1) == target, mask)
        return jnp.asarray(loss.total / loss.weight), {"loss": loss, "token_accuracy": accuracy}

    return objective


def make_teacher_forcing_step(
    objective: Objective, optimizer: optax.GradientTransformation
) -> StepAt:
    """Teacher forcing as a program of its own.

    teacher_prob is the constant 1 of its schedule, so that the compiler takes the rollout out: the
    least that a step can cost here.
    """
    train_step = make_train_step(objective, optimizer, teacher_forcing_schedule())
    return lambda state, batch, teacher_prob: train_step(state, batch)


def make_trainings(
    shape: Shape, dtype: str, jit: Callable[..., Any] = jax.jit
) -> dict[str, Training]:
    """The programs by name, compiled for all of the shape's buckets."""
    model, optimizer = make_model(shape, dtype), make_optimizer()
    objective = make_cross_entropy(model)
    state = jit(lambda key: init_train_state(model, optimizer, key))(jax.random.key(0))
    batches = {bucket: make_batch(shape, bucket) for bucket in shape.buckets}
    steps: Mapping[str, StepAt] = {
        TEACHER_FORCING: make_teacher_forcing_step(objective, optimizer),
        SCHEDULED: make_step_at(objective, optimizer),
        ONE_SCAN: make_step_at(make_one_scan_objective(model), optimizer),
    }
    trainings = {name: Training(step, state, batches, jit) for name, step in steps.items()}
    return trainings | {AT_ONE: trainings[SCHEDULED]}


def time_shape(
    shape: Shape, trainings: Mapping[str, Training], num_rounds: int, sample_seconds: float
) -> dict[str, list[float]]:
    """The mean seconds of a step over an epoch of the shape's batches: name -> a value a round."""
    probs = schedule_probs()
    epoch = sum(bucket.frequency for bucket in shape.buckets)
    total = {name: [0.0] * num_rounds for name in trainings}
    for bucket in shape.buckets:
        first = [trainings[name].seconds(bucket, probs) for name in trainings]  # warm up
        # Two at least: the first may run on what another program left of the caches.
        passes = max(2, passes_for(min(first), sample_seconds))
        # Turns are short, a stretch of the schedule each: a machine's pace changes within seconds.
        for prob in probs:

            def sample(name: str, bucket=bucket, passes=passes, prob=prob) -> float:
                teacher_prob = 1.0 if name == AT_ONE else prob
                return trainings[name].seconds(bucket, [teacher_prob], passes)

            seconds = interleave({name: lambda n=name: sample(n) for name in trainings}, num_rounds)
            for name, values in seconds.items():
                for number, value in enumerate(values):
                    total[name][number] += value * bucket.frequency / epoch / len(probs)
    return total


def measure(options: Options) -> Findings:
    """Times both shapes, in float32 and on a GPU in bfloat16 too."""
    keep_freed_memory()
    on_cpu = jax.default_backend() == "cpu"
    num_rounds = options.num_rounds(_ROUNDS)
    findings = Findings("train_step")
    for dtype in ("float32",) if on_cpu else ("float32", "bfloat16"):
        for shape in shapes(options.quick):
            label = f"{shape.name}, {dtype}"
            say(f"train_step: {label}: compiling and timing ...")
            trainings = make_trainings(shape, dtype)
            seconds = time_shape(
                shape, trainings, num_rounds, 0.0 if options.quick else _SAMPLE_SECONDS
            )
            findings.detail[label] = {"step_seconds": seconds, "teacher_probs": schedule_probs()}
            findings.rows += step_rows(label, seconds)
            if shape.name == "mt" and on_cpu:
                findings.rows += peak_rows(label, shape, trainings, options, findings)
    return findings


def step_rows(label: str, seconds: Mapping[str, list[float]]) -> list[Row]:
    """The ratios for one shape, and the milliseconds that they are computed from."""
    forced = seconds[TEACHER_FORCING]
    return [
        Row(
            f"{label}: scheduled sampling, schedule's mean / teacher forcing",
            median_ratio(seconds[SCHEDULED], forced),
            goal=1.10,
        ),
        Row(
            f"{label}: the same program at teacher_prob 1 / teacher forcing",
            median_ratio(seconds[AT_ONE], forced),
            goal=1.00,
        ),
        Row(
            f"{label}: one differentiated scan / scheduled sampling here",
            median_ratio(seconds[ONE_SCAN], seconds[SCHEDULED]),
        ),
        *(
            Row(f"{label}: {name}, a step", 1000 * median(values), "ms")
            for name, values in seconds.items()
        ),
    ]


def peak_rows(
    label: str,
    shape: Shape,
    trainings: Mapping[str, Training],
    options: Options,
    findings: Findings,
) -> list[Row]:
    """The share of the fastest matrix product, which is measured in turns with the steps.

    The operations are those of the forward and the backward pass alone, whichever program runs:
    what scheduled sampling computes besides them counts as time and not as work.
    """
    bucket = shape.commonest
    flops = 3 * forward_flops(shape, bucket)
    peak = matmul_peak("float32", options.quick)
    probs = schedule_probs(3)
    samples = {
        "peak": peak,
        **{
            name: lambda name=name: trainings[name].seconds(bucket, probs)
            for name in (TEACHER_FORCING, SCHEDULED)
        },
    }
    found = interleave(samples, options.num_rounds(_ROUNDS))
    best = max(found["peak"])
    findings.detail[label] |= {
        "matmul_flops_per_second": found["peak"],
        "step_flops": flops,
    }
    return [
        Row(f"{label}: fastest matrix product", best / 1e9, "GFLOP/s"),
        *(
            Row(
                f"{label}: {name}, share of that",
                100 * flops / median(found[name]) / best,
                "%",
                goal=50 if name == TEACHER_FORCING else None,
                at_most=False,
            )
            for name in (TEACHER_FORCING, SCHEDULED)
        ),
    ]


if __name__ == "__main__":
    run_part("train_step", __doc__, measure)
