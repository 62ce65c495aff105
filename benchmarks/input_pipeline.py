"""Examples a second that the training batches are served at, on generated pairs like CMUdict's.

    python benchmarks/input_pipeline.py [--json FILE]

Host time alone: gathering, padding and masks, as numpy arrays. The transfer to a device is not in
it. One pass over an epoch a repetition; the figure is the median.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np

from s2s_jax.data.batching import Sequences, TokenPairs, TrainingBatches, choose_buckets

NUM_PAIRS = 113_578  # CMUdict's training split; so are the lengths below, about


def make_tokens(num_pairs: int, seed: int) -> TokenPairs:
    """Random ids, 4 to 30 and 4 to 42, in sequences as long as words and their phonemes."""
    generator = np.random.default_rng(seed)
    source_lengths = np.clip(generator.normal(7.6, 2.2, num_pairs).round(), 1, 20).astype(int)
    target_lengths = np.clip(
        source_lengths - generator.integers(0, 3, num_pairs), 1, None
    )  # fewer phonemes than letters
    return TokenPairs(
        Sequences.of([generator.integers(4, 31, n).tolist() for n in source_lengths]),
        Sequences.of([generator.integers(4, 43, n).tolist() for n in target_lengths]),
    )


def measure(
    tokens: TokenPairs, batch_size: int, num_buckets: int, repeats: int
) -> dict[str, float]:
    """Serves whole epochs; examples a second, and the share of cells that are padding."""
    buckets = choose_buckets(tokens.source.lengths, tokens.target.lengths, num_buckets, batch_size)
    batches = TrainingBatches(tokens, buckets, batch_size, seed=0)
    seconds, cells = [], 0
    for epoch in range(repeats):
        start = time.perf_counter()
        for step in range(epoch * batches.num_batches, (epoch + 1) * batches.num_batches):
            batch = batches[step]
            cells += batch.source.size + batch.target.size
        seconds.append(time.perf_counter() - start)
    used = repeats * (len(tokens.source.ids) + len(tokens.target.ids))
    return {
        "num_buckets": len(buckets),
        "batch_size": batch_size,
        "examples_per_second": len(tokens) / float(np.median(seconds)),
        "padding": 1 - used / cells,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--num_pairs", type=int, default=NUM_PAIRS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    tokens = make_tokens(options.num_pairs, seed=0)
    rows = [measure(tokens, options.batch_size, n, options.repeats) for n in (1, 2, 4, 6)]
    print(f"{'buckets':>7}  {'batch':>5}  {'examples/s':>10}  {'padding':>7}")
    for row in rows:
        print(
            f"{row['num_buckets']:>7}  {row['batch_size']:>5}  "
            f"{row['examples_per_second']:>10,.0f}  {row['padding']:>7.1%}"
        )
    if options.json:
        content = {"machine": platform.machine(), "num_pairs": len(tokens), "rows": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
