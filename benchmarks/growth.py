"""Growth: time a target token as sequences get longer, memory a token as the vocabulary grows.

    python -m benchmarks.growth [--json FILE] [--quick]

Time: the mt shape with source and target of 16 to 256 tokens, teacher forcing and scheduled
sampling, in turns. Memory: what the compiled step needs besides its arguments and results, as the
compiler lays it out, at two numbers of rows; the difference divided by the difference in target
tokens is what a token costs. Parameters, their gradients and other things that one token more does
not make larger are thus not in it. A step that keeps an array [batch, time, vocabulary] pays at
least the bytes of one row of logits a token.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.shapes import MT, TINY_MT, Bucket, Shape, make_batch, make_model, make_optimizer
from benchmarks.timing import Training, interleave, make_step_at, passes_for, schedule_probs
from s2s_jax.lab.base.allocator import keep_freed_memory
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.objectives import Objective, make_cross_entropy
from s2s_jax.training import init_train_state

_ROUNDS = 3
_SAMPLE_SECONDS = 0.5
_LENGTHS = (16, 32, 64, 128, 256)
_VOCABULARIES = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000)
_FLAT = 1.15
_BYTES_OF_A_LOGIT = 4


def square(shape: Shape, length: int) -> Bucket:
    """A batch without padding, whose source and target are of one length."""
    return Bucket(length, length, 1, float(length), float(length))


def seconds_per_token(
    shape: Shape, lengths: Sequence[int], num_rounds: int, sample_seconds: float
) -> dict[str, dict[int, float]]:
    """Method -> length -> seconds a target token, the median over the rounds."""
    model, optimizer = make_model(shape), make_optimizer()
    state = jax.jit(lambda key: init_train_state(model, optimizer, key))(jax.random.key(0))
    step_at = make_step_at(make_cross_entropy(model), optimizer)
    batches = {length: make_batch(shape, square(shape, length)) for length in lengths}
    training = Training(step_at, state, batches)
    probs = {"teacher forcing": [1.0] * 3, "scheduled sampling": schedule_probs(3)}
    cases = [(method, length) for method in probs for length in lengths]
    passes = {
        (method, length): passes_for(
            training.seconds(length, probs[method]) * len(probs[method]), sample_seconds
        )
        for method, length in cases
    }

    def sample(case: tuple[str, int]) -> float:
        method, length = case
        return training.seconds(length, probs[method], passes[case])

    seconds = interleave({case: lambda case=case: sample(case) for case in cases}, num_rounds)
    return {
        method: {
            length: median(seconds[method, length]) / (shape.batch_size * length)
            for length in lengths
        }
        for method in probs
    }


def bytes_per_token(
    shape: Shape,
    make_objective: Callable[[Seq2SeqModel], Objective] = make_cross_entropy,
    jit: Callable[..., Any] = jax.jit,
) -> float:
    """What one target token more adds to the memory of a training step, in bytes.

        (temporary bytes at 2 B rows - at B rows) / (B * time)

    Args:
      shape: its commonest batch.
      make_objective: of the step.
      jit: compiles; tests have a quicker one.
    """
    model, optimizer = make_model(shape), make_optimizer()
    state = jax.eval_shape(lambda: init_train_state(model, optimizer, jax.random.key(0)))
    step_at = jit(make_step_at(make_objective(model), optimizer), donate_argnums=0)

    def temporary_bytes(batch_size: int) -> int:
        batch = make_batch(replace(shape, batch_size=batch_size), shape.commonest)
        compiled = step_at.lower(state, batch, jnp.float32(0.5)).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    fewer, more = temporary_bytes(shape.batch_size), temporary_bytes(2 * shape.batch_size)
    return (more - fewer) / (shape.batch_size * shape.commonest.time)


def measure(options: Options) -> Findings:
    """Both growths."""
    keep_freed_memory()
    shape = TINY_MT if options.quick else MT
    lengths = (4, 8) if options.quick else _LENGTHS
    vocabularies = (16, 64) if options.quick else _VOCABULARIES
    findings = Findings("growth")
    say("growth: time per token ...")
    times = seconds_per_token(
        shape, lengths, options.num_rounds(_ROUNDS), 0.0 if options.quick else _SAMPLE_SECONDS
    )
    for method, by_length in times.items():
        ratio = by_length[lengths[-1]] / by_length[lengths[0]]
        findings.rows.append(
            Row(
                f"mt, {method}: time a target token, length {lengths[-1]} / {lengths[0]}",
                ratio,
                goal=_FLAT,
            )
        )
    say("growth: memory per token ...")
    memory = {
        size: bytes_per_token(replace(shape, source_vocab_size=size, target_vocab_size=size))
        for size in vocabularies
    }
    smallest, largest = vocabularies[0], vocabularies[-1]
    findings.rows += [
        Row(
            f"mt: memory a target token, vocabulary {largest:,} / {smallest:,}",
            memory[largest] / memory[smallest],
            goal=_FLAT,
        ),
        Row(f"mt: memory a target token, vocabulary {largest:,}", memory[largest] / 1024, "KB"),
        Row(
            f"mt: what it is more than with {smallest:,}, in rows of float32 logits",
            (memory[largest] - memory[smallest]) / (largest * _BYTES_OF_A_LOGIT),
            goal=0.4,
            note="a [batch, time, vocabulary] array would make it 0.5 in bfloat16, 1 in float32",
        ),
    ]
    findings.detail = {"seconds_per_token": times, "bytes_per_token": memory}
    return findings


if __name__ == "__main__":
    run_part("growth", __doc__, measure)
