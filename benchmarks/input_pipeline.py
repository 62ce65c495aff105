"""Examples a second that training batches are served at, and the share of a step spent waiting.

    python -m benchmarks.input_pipeline [--json FILE] [--quick]

On generated pairs like CMUdict's. Serving is host time alone: gathering, padding and masks, as
numpy arrays; one pass over an epoch a repetition, and the figure is the median. Waiting is the time
that a training loop at the g2p shape spends in asking for its next batch, over all of its time: no
less than what the device waits, which is at work on the step before meanwhile.
"""

import time
from dataclasses import dataclass
from itertools import count
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.shapes import Shape, make_model, make_optimizer, shapes
from benchmarks.timing import make_step_at
from s2s_jax.batch import NUM_RESERVED
from s2s_jax.data.batching import Sequences, TokenPairs, TrainingBatches, choose_buckets
from s2s_jax.lab.base.allocator import keep_freed_memory
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.training import init_train_state

NUM_PAIRS = 113_578  # CMUdict's training split; so are the lengths below, about
_ROUNDS = 5
_NUM_STEPS = 200


def make_tokens(
    num_pairs: int, seed: int, source_vocab_size: int = 31, target_vocab_size: int = 43
) -> TokenPairs:
    """Random ids in sequences as long as words and their phonemes."""
    generator = np.random.default_rng(seed)
    source_lengths = np.clip(generator.normal(7.6, 2.2, num_pairs).round(), 1, 20).astype(int)
    target_lengths = np.clip(
        source_lengths - generator.integers(0, 3, num_pairs), 1, None
    )  # fewer phonemes than letters

    def draw(lengths: np.ndarray, vocab_size: int) -> Sequences:
        return Sequences.of(
            [generator.integers(NUM_RESERVED, vocab_size, n).tolist() for n in lengths]
        )

    return TokenPairs(
        draw(source_lengths, source_vocab_size), draw(target_lengths, target_vocab_size)
    )


@dataclass(frozen=True)
class Serving:
    """How one number of buckets does.

    Attributes:
      num_buckets: shapes of batches.
      examples_per_second: pairs.
      padding: share of cells that are padding.
    """

    num_buckets: int
    examples_per_second: float
    padding: float


def make_batches(tokens: TokenPairs, batch_size: int, num_buckets: int) -> TrainingBatches:
    """Batches as a training has them."""
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, num_buckets, batch_size)
    return TrainingBatches(tokens, buckets, batch_size, seed=0)


def serve(tokens: TokenPairs, batch_size: int, num_buckets: int, repeats: int) -> Serving:
    """Serves whole epochs."""
    batches = make_batches(tokens, batch_size, num_buckets)
    seconds, cells = [], 0
    for epoch in range(repeats):
        start = time.perf_counter()
        for step in range(epoch * batches.num_batches, (epoch + 1) * batches.num_batches):
            batch = batches[step]
            cells += batch.source.size + batch.target.size
        seconds.append(time.perf_counter() - start)
    used = repeats * (len(tokens.source.ids) + len(tokens.target.ids))
    return Serving(len(batches.shapes), len(tokens) / median(seconds), 1 - used / cells)


def waiting_shares(shape: Shape, tokens: TokenPairs, num_steps: int, repeats: int) -> list[float]:
    """The share of a training loop's time that is spent in `batches[step]`, a value a repetition.

    Teacher forcing, whose steps are the shortest.
    """
    batches = make_batches(tokens, shape.batch_size, len(shape.buckets))
    model = make_model(shape)
    optimizer = make_optimizer()
    step_at = jax.jit(make_step_at(make_cross_entropy(model), optimizer), donate_argnums=0)
    state = jax.jit(lambda key: init_train_state(model, optimizer, key))(jax.random.key(0))
    teacher_prob = jnp.float32(1)
    steps, seen = count(), set()
    while len(seen) < len(batches.shapes):  # compiles
        batch = batches[next(steps)]
        seen.add((batch.source.shape[1], batch.target.shape[1]))
        state, _ = step_at(state, batch, teacher_prob)
    shares = []
    for _ in range(repeats):
        jax.block_until_ready(state)
        waited, start = 0.0, time.perf_counter()
        for _ in range(num_steps):
            asked = time.perf_counter()
            batch = batches[next(steps)]
            waited += time.perf_counter() - asked
            state, _ = step_at(state, batch, teacher_prob)
        jax.block_until_ready(state)
        shares.append(waited / (time.perf_counter() - start))
    return shares


def measure(options: Options) -> Findings:
    """Serving with several numbers of buckets, and waiting."""
    keep_freed_memory()
    shape = shapes(options.quick)[0]
    repeats = options.num_rounds(_ROUNDS)
    tokens = make_tokens(
        300 if options.quick else NUM_PAIRS,
        0,
        shape.source_vocab_size,
        shape.target_vocab_size,
    )
    say("input_pipeline: serving ...")
    servings = [
        serve(tokens, shape.batch_size, num_buckets, repeats) for num_buckets in (1, 2, 4, 10)
    ]
    say("input_pipeline: waiting ...")
    shares = waiting_shares(shape, tokens, 3 if options.quick else _NUM_STEPS, repeats)
    rows = [
        Row("g2p: waiting for data, share of a step", 100 * median(shares), "%", goal=2),
        *(
            Row(
                f"g2p: batches served, {one.num_buckets} buckets",
                one.examples_per_second,
                "examples/s",
                note=f"{one.padding:.1%} of the cells are padding",
            )
            for one in servings
        ),
    ]
    detail = {
        "num_pairs": len(tokens),
        "waiting_shares": shares,
        "serving": [vars(one) for one in servings],
    }
    return Findings("input_pipeline", rows, detail)


if __name__ == "__main__":
    run_part("input_pipeline", __doc__, measure)
