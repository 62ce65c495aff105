"""Target tokens a second over PyTorch: a scheduled-sampling loop as people write it, and nn.LSTM.

    python -m benchmarks.torch_loop [--json FILE] [--quick] [--peers DIR]

The peer is benchmarks/peers/torch_worker.py, whose docstring says what is equal to the model here
and what is not; it lives in `<peers>/torch`, made by `make bench-peers`. Each sample of ours is
followed by one of the peer's at the same batch and the same teacher_probs, with as many threads.
The eager and the compiled loop are held against scheduled sampling here, nn.LSTM against teacher
forcing. torch.compile compiles the whole loop for each batch shape, which takes minutes; on a CPU
it is given g2p's three commonest shapes.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax

from benchmarks.peers.process import Peer, PeerError, find_python
from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.shapes import Bucket, Shape, make_batch, make_model, make_optimizer, shapes
from benchmarks.timing import Training, interleave, make_step_at, passes_for, schedule_probs
from benchmarks.train_step import make_teacher_forcing_step
from s2s_jax.lab.base.allocator import keep_freed_memory
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.training import init_train_state

_ROUNDS = 5
_SAMPLE_SECONDS = 0.3
_NUM_COMPILED = 3
_WORKER = Path(__file__).parent / "peers" / "torch_worker.py"

# By variant: what it is, and how many times its speed is asked for on a CPU and on a GPU.
_VARIANTS: dict[str, tuple[str, float | None, float | None]] = {
    "eager": ("PyTorch loop, eager", None, 8),
    "compiled": ("PyTorch loop, torch.compile", 2, 3),
    "lstm": ("PyTorch nn.LSTM, teacher forcing", None, None),
}


def commonest(shape: Shape, count: int) -> Shape:
    """The shape with its commonest buckets alone."""
    buckets = sorted(shape.buckets, key=lambda bucket: -bucket.frequency)[:count]
    return replace(shape, buckets=tuple(buckets))


def make_trainings(shape: Shape, dtype: str) -> dict[str, Training]:
    """Ours: "scheduled sampling" and "teacher forcing"."""
    model, optimizer = make_model(shape, dtype), make_optimizer()
    objective = make_cross_entropy(model)
    state = jax.jit(lambda key: init_train_state(model, optimizer, key))(jax.random.key(0))
    batches = {bucket: make_batch(shape, bucket) for bucket in shape.buckets}
    return {
        "scheduled sampling": Training(make_step_at(objective, optimizer), state, batches),
        "teacher forcing": Training(
            make_teacher_forcing_step(objective, optimizer), state, batches
        ),
    }


def time_variant(
    peer: Peer,
    shape: Shape,
    ours: Callable[[Bucket, Sequence[float], int], float],
    num_rounds: int,
    sample_seconds: float,
) -> tuple[dict[str, list[float]], float]:
    """Ours and the peer's, in turns, bucket by bucket.

    Args:
      peer: built already.
      shape: its buckets are gone through.
      ours: (bucket, teacher_probs, passes) -> seconds of a step.
      num_rounds: samples of each.
      sample_seconds: about how long a sample is to be.

    Returns:
      The mean seconds of a step, "ours" and "peer", a value a round; and the seconds that the
      peer's first steps took.
    """
    probs = schedule_probs()
    epoch = sum(bucket.frequency for bucket in shape.buckets)
    total = {"ours": [0.0] * num_rounds, "peer": [0.0] * num_rounds}
    compile_seconds = 0.0
    for bucket in shape.buckets:
        batch = make_batch(shape, bucket)
        lists = {name: array.tolist() for name, array in batch._asdict().items()}
        warm = peer.ask(do="warm", batch=lists, teacher_probs=probs)
        compile_seconds += warm["compile_seconds"]
        our_passes = passes_for(ours(bucket, probs, 1) * len(probs), sample_seconds)
        passes = passes_for(warm["seconds"] * len(probs), sample_seconds)
        samples: dict[str, Callable[[], float]] = {
            "ours": partial(ours, bucket, probs, our_passes),
            "peer": lambda passes=passes: float(
                peer.ask(do="run", teacher_probs=probs, passes=passes)["seconds"]
            ),
        }
        for name, values in interleave(samples, num_rounds).items():
            for number, value in enumerate(values):
                total[name][number] += value * bucket.frequency / epoch
    return total, compile_seconds


def tokens_per_step(shape: Shape) -> float:
    """Target tokens of a batch, padding not counted, on average over an epoch."""
    epoch = sum(bucket.frequency for bucket in shape.buckets)
    tokens = sum(
        int(make_batch(shape, bucket).target_mask.sum()) * bucket.frequency
        for bucket in shape.buckets
    )
    return tokens / epoch


def measure(options: Options) -> Findings:
    """All variants at both shapes."""
    python = find_python(options.peers, "torch")
    if python is None:
        return Findings(
            "torch_loop",
            skipped=f"PyTorch is not in {options.peers / 'torch'}; make bench-peers installs it",
        )
    keep_freed_memory()
    on_cpu = jax.default_backend() == "cpu"
    findings = Findings("torch_loop")
    for dtype in ("float32",) if on_cpu else ("float32", "bfloat16"):
        for shape in shapes(options.quick):
            trainings = make_trainings(shape, dtype)
            for variant in ("eager", "lstm") if options.quick else _VARIANTS:
                label = f"{shape.name}, {dtype}: {_VARIANTS[variant][0]}"
                say(f"torch_loop: {label} ...")
                few = variant == "compiled" and on_cpu
                of_variant = commonest(shape, _NUM_COMPILED) if few else shape
                try:
                    findings.rows += _measure_variant(
                        python, variant, of_variant, dtype, trainings, options, findings.detail
                    )
                except PeerError as error:
                    findings.rows.append(Row(label, None, note=str(error).partition("\n")[0][:80]))
    return findings


def _measure_variant(
    python: Path,
    variant: str,
    shape: Shape,
    dtype: str,
    trainings: dict[str, Training],
    options: Options,
    detail: dict[str, Any],
) -> list[Row]:
    about, cpu_goal, gpu_goal = _VARIANTS[variant]
    on_cpu = jax.default_backend() == "cpu"
    ours = "teacher forcing" if variant == "lstm" else "scheduled sampling"
    num_threads = os.cpu_count() if on_cpu else 0
    with Peer(python, _WORKER) as peer:
        sizes = {name: value for name, value in asdict(shape).items() if name != "buckets"}
        built = peer.ask(
            do="build", variant=variant, shape=sizes, num_threads=num_threads, dtype=dtype
        )
        if (built["device"] == "cpu") != on_cpu:
            raise PeerError(f"the peer runs on {built['device']}, and ours does not")
        seconds, compile_seconds = time_variant(
            peer,
            shape,
            trainings[ours].seconds,
            options.num_rounds(_ROUNDS),
            0.0 if options.quick else _SAMPLE_SECONDS,
        )
    tokens = tokens_per_step(shape)
    label = f"{shape.name}, {dtype}"
    detail[f"{label}: {about}"] = {
        "ours": ours,
        "step_seconds": seconds,
        "target_tokens_per_step": tokens,
        "peer_compile_seconds": compile_seconds,
        "peer": dict(built),
    }
    ratio = median(a / b for a, b in zip(seconds["peer"], seconds["ours"], strict=True))
    return [
        Row(
            f"{label}: {ours} here / {about}, target tokens/s",
            ratio,
            goal=cpu_goal if on_cpu else gpu_goal,
            at_most=False,
        ),
        Row(f"{label}: {about}", tokens / median(seconds["peer"]), "target tokens/s"),
        Row(f"{label}: {ours} here", tokens / median(seconds["ours"]), "target tokens/s"),
    ]


if __name__ == "__main__":
    run_part("torch_loop", __doc__, measure)
