"""Target tokens a second over OpenNMT-tf, at the g2p shape on a CPU.

    python -m benchmarks.opennmt [--json FILE] [--quick] [--peers DIR]

The peer is benchmarks/peers/opennmt_worker.py, whose docstring says what is equal to the model
here and what is not; it lives in `<peers>/opennmt`, made by `make bench-peers`. Both train on the
same generated pairs, as long as CMUdict's, through an inverse-sigmoid schedule from 1 to 0.01.
OpenNMT-tf trains and reports its steps/s; then ours trains for as long, data served as in a run;
and so in turns. The steps/s that count are those after the first report, in which OpenNMT-tf still
traces.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks.input_pipeline import make_tokens
from benchmarks.peers.process import PeerError, find_python
from benchmarks.report import Findings, Options, Row, run_part, say
from benchmarks.shapes import Shape, make_model, make_optimizer, shapes
from benchmarks.timing import make_step_at
from s2s_jax.batch import EOS, NUM_RESERVED
from s2s_jax.data.batching import TokenPairs, TrainingBatches, choose_buckets
from s2s_jax.lab.base.allocator import keep_freed_memory
from s2s_jax.objectives import make_cross_entropy
from s2s_jax.schedules import inverse_sigmoid
from s2s_jax.training import init_train_state

_ROUNDS = 2
_NUM_STEPS = 300
_REPORT_STEPS = 50
_NUM_PAIRS = 40_000
_GOAL = 5
_WORKER = Path(__file__).parent / "peers" / "opennmt_worker.py"
_SPECIAL = ("<blank>", "<s>", "</s>")  # OpenNMT-tf's; it adds one id for unknown words


def write_texts(tokens: TokenPairs, shape: Shape, folder: Path) -> None:
    """The pairs as OpenNMT-tf reads them: a word for each id, without EOS, which it adds itself."""
    for name, side, vocab_size in (
        ("source", tokens.source, shape.source_vocab_size),
        ("target", tokens.target, shape.target_vocab_size),
    ):
        rows = np.split(side.ids, side.offsets[1:-1])
        text = "\n".join(" ".join(str(i) for i in row.tolist() if i != EOS) for row in rows)
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
        words = (*_SPECIAL, *map(str, range(NUM_RESERVED, vocab_size)))
        (folder / f"{name}_vocabulary.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def run_peer(python: Path, folder: Path, sizes: dict[str, Any]) -> dict[str, Any]:
    """One training of the peer.

    Raises:
      PeerError: it ended with an error.
    """
    done = subprocess.run(
        [str(python), str(_WORKER), str(folder), json.dumps(sizes)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PeerError(done.stderr.strip().rpartition("\n")[2] or "OpenNMT-tf failed")
    return json.loads(done.stdout.splitlines()[-1])


def steps_per_second(reports: list[list[float]]) -> float:
    """The mean rate over the reports after the first; each is over as many steps.

    Example:
      >>> steps_per_second([[50, 1.0], [100, 10.0], [150, 5.0]])
      6.666666666666667
    """
    rates = [rate for _, rate in reports[1:]] or [rate for _, rate in reports]
    return len(rates) / sum(1 / rate for rate in rates)


class Ours:
    """The same training here.

    Args:
      shape: the model's.
      tokens: the pairs.
      num_steps: over which the schedule falls.
      jit: compiles; tests have a quicker one.
    """

    def __init__(
        self,
        shape: Shape,
        tokens: TokenPairs,
        num_steps: int,
        jit: Callable[..., Any] = jax.jit,
    ):
        model, optimizer = make_model(shape), make_optimizer()
        buckets = choose_buckets(
            tokens.source.lengths, tokens.target.lengths, len(shape.buckets), shape.batch_size
        )
        self._batches = TrainingBatches(tokens, buckets, shape.batch_size, seed=0)
        self._step_at = jit(make_step_at(make_cross_entropy(model), optimizer), donate_argnums=0)
        self._state = jit(lambda key: init_train_state(model, optimizer, key))(jax.random.key(0))
        schedule = inverse_sigmoid(reach_teacher_prob=0.01, reach_step=num_steps)
        self._teacher_probs = np.asarray(jax.vmap(schedule)(np.arange(num_steps)))
        self._step = 0
        self.k = float(schedule.keywords["k"])
        seen: set[tuple[int, int]] = set()
        while len(seen) < len(self._batches.shapes):  # compiles
            batch = self._batches[self._step]
            seen.add((batch.source.shape[1], batch.target.shape[1]))
            self._advance()

    def _advance(self) -> int:
        batch = self._batches[self._step]
        teacher_prob = self._teacher_probs[self._step % len(self._teacher_probs)]
        self._state, _ = self._step_at(self._state, batch, teacher_prob)
        self._step += 1
        return int(batch.target_mask.sum())

    def tokens_per_second(self, seconds: float) -> float:
        """Trains through whole schedules for at least so long; target tokens a second."""
        self._step = 0
        jax.block_until_ready(self._state)
        start, tokens = time.perf_counter(), 0
        while not tokens or time.perf_counter() - start < seconds:
            tokens += sum(self._advance() for _ in self._teacher_probs)
            jax.block_until_ready(self._state)
        return tokens / (time.perf_counter() - start)


def measure(options: Options) -> Findings:
    """Both, in turns."""
    python = find_python(options.peers, "opennmt")
    if python is None:
        return Findings(
            "opennmt",
            skipped=f"OpenNMT-tf is not in {options.peers / 'opennmt'}; make bench-peers installs"
            " it",
        )
    if jax.default_backend() != "cpu":
        return Findings("opennmt", skipped="it is held against OpenNMT-tf on a CPU alone")
    keep_freed_memory()
    shape = shapes(options.quick)[0]
    num_steps = 6 if options.quick else _NUM_STEPS
    tokens = make_tokens(
        200 if options.quick else _NUM_PAIRS,
        seed=0,
        source_vocab_size=shape.source_vocab_size,
        target_vocab_size=shape.target_vocab_size,
    )
    per_batch = len(tokens.target.ids) / len(tokens) * shape.batch_size
    ours = Ours(shape, tokens, num_steps)
    sizes = {
        "hidden_size": shape.hidden_size,
        "embedding_size": shape.embedding_size,
        "batch_size": shape.batch_size,
        "k": ours.k,
        "num_steps": num_steps,
        "report_steps": 2 if options.quick else _REPORT_STEPS,
        "num_threads": os.cpu_count(),
    }
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    answers = []
    for number in range(options.num_rounds(_ROUNDS)):
        say(f"opennmt: round {number + 1} ...")
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_texts(tokens, shape, folder)
            answers.append(run_peer(python, folder, sizes))
        rate = steps_per_second(answers[-1]["steps_per_second"])
        rates["peer"].append(rate * per_batch)
        rates["ours"].append(ours.tokens_per_second(0.0 if options.quick else num_steps / rate))
    ratio = median(a / b for a, b in zip(rates["ours"], rates["peer"], strict=True))
    rows = [
        Row("g2p: here / OpenNMT-tf, target tokens/s", ratio, goal=_GOAL, at_most=False),
        Row("g2p: OpenNMT-tf", median(rates["peer"]), "target tokens/s"),
        Row("g2p: here, data served as in a run", median(rates["ours"]), "target tokens/s"),
    ]
    detail = {"target_tokens_per_second": rates, "peer": answers, "sizes": sizes}
    return Findings("opennmt", rows, detail)


if __name__ == "__main__":
    run_part("opennmt", __doc__, measure)
