"""The benchmarks time what they claim: same models, same tokens, interleaved, complete tables."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import growth, methods, opennmt, report, shapes, timing, train_step
from benchmarks.__main__ import rows_of, run_part
from benchmarks.commands import CommandError, seconds_to_end, seconds_to_line
from benchmarks.input_pipeline import make_tokens
from benchmarks.peers.process import Peer, PeerError, find_python
from benchmarks.population import Population
from benchmarks.report import Findings, Options, Row
from benchmarks.torch_loop import commonest, tokens_per_step
from s2s_jax.batch import EOS, NUM_RESERVED, PAD, Batch
from s2s_jax.objectives import RolloutOptions, make_cross_entropy

# Its fixtures compile once, not once per worker.
pytestmark = [pytest.mark.xdist_group("benchmarks"), pytest.mark.slow]

ROOT = Path(__file__).parent.parent
BUCKETS = [(shape, bucket) for shape in shapes.SHAPES for bucket in shape.buckets]


@pytest.fixture(scope="module")
def shape() -> shapes.Shape:
    return shapes.TINY_G2P


@pytest.fixture(scope="module")
def trainings() -> dict[str, timing.Training]:
    return train_step.make_trainings(shapes.TINY_MT, "float32")


def dot_flops(jaxpr: Any) -> int:
    """The operations of all matrix products, those inside a scan as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            size = math.prod(equation.outvars[0].aval.shape)
            total += 2 * size * math.prod(left[axis] for axis in contracted)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(inner, "eqns"):
                total += times * dot_flops(inner)
    return total


@pytest.mark.parametrize(("shape", "bucket"), BUCKETS, ids=lambda one: getattr(one, "name", None))
def test_a_batch_has_its_buckets_shape_and_tokens(shape, bucket):
    batch = shapes.make_batch(shape, bucket)
    assert batch.source.shape == (shape.batch_size, bucket.source_time)
    assert batch.target.shape == (shape.batch_size, bucket.time)
    for ids, mask, mean, size in (
        (batch.source, batch.source_mask, bucket.source_tokens, shape.source_vocab_size),
        (batch.target, batch.target_mask, bucket.tokens, shape.target_vocab_size),
    ):
        ids, mask = np.asarray(ids), np.asarray(mask)
        lengths = mask.sum(1)
        assert lengths.mean() == pytest.approx(mean, abs=0.5 / shape.batch_size)
        assert (ids[~mask] == PAD).all()
        assert (ids[np.arange(len(ids)), lengths - 1] == EOS).all()
        words = ids[mask & (np.arange(mask.shape[1]) < lengths[:, None] - 1)]
        assert words.min() >= NUM_RESERVED
        assert words.max() < size


def test_the_buckets_are_those_of_an_epoch_of_cmudict():
    assert sum(bucket.frequency for bucket in shapes.G2P.buckets) == 891
    pairs = 891 * 128
    tokens = tokens_per_step(shapes.G2P) * 891
    assert 6.8 < tokens / pairs < 7.4  # phonemes of a word and EOS
    assert commonest(shapes.G2P, 1).buckets == (shapes.G2P.commonest,)


@pytest.mark.parametrize("shape", [shapes.TINY_G2P, shapes.TINY_MT, shapes.G2P, shapes.MT])
def test_the_counted_operations_are_those_of_the_model(shape):
    model, bucket = shapes.make_model(shape), shape.commonest
    batch = jax.tree.map(jnp.asarray, shapes.make_batch(shape, bucket))

    def forward(params):
        memory = model.encode(params, batch.source, batch.source_mask, None)
        return model.decode_sequence(params, memory, jnp.asarray(batch.target))

    params = jax.eval_shape(model.init, jax.random.key(0))
    assert shapes.forward_flops(shape, bucket) == dot_flops(jax.make_jaxpr(forward)(params))


def test_the_schedule_goes_from_1_to_0_and_its_mean_is_the_trainings():
    probs = timing.schedule_probs()
    assert probs == sorted(probs, reverse=True)
    assert probs[0] > 0.99
    assert probs[-1] < 0.05
    assert np.mean(probs) == pytest.approx(np.mean(timing.schedule_probs(1000)), abs=0.01)


def test_samples_are_taken_in_turns():
    taken = []

    def sample(name: str) -> float:
        taken.append(name)
        return float(len(taken))

    seconds = timing.interleave({name: lambda n=name: sample(n) for name in "abc"}, 3)
    assert "".join(taken) == "abcacbcab"
    assert seconds == {"a": [1, 4, 8], "b": [2, 6, 9], "c": [3, 5, 7]}
    assert timing.median_ratio([2.0, 9.0, 8.0], [1.0, 3.0, 1.0]) == 3


def test_a_training_continues_from_sample_to_sample(trainings):
    training, bucket = trainings[train_step.SCHEDULED], shapes.TINY_MT.commonest
    before = int(training.state.step)
    assert training.seconds(bucket, [1.0, 0.5], passes=2) > 0
    assert int(training.state.step) == before + 4


def test_teacher_forcing_is_a_program_without_a_rollout(trainings):
    bucket = shapes.TINY_MT.commonest

    def branches(name: str) -> int:
        text = trainings[name].programs[bucket].as_text()
        return len(re.findall(r" conditional\(", text))

    assert branches(train_step.TEACHER_FORCING) == 0
    assert branches(train_step.SCHEDULED) > 0
    assert trainings[train_step.AT_ONE] is trainings[train_step.SCHEDULED]


def test_one_scan_has_the_loss_and_the_gradient_of_the_two_passes(shape):
    model = shapes.make_model(shape)
    params = jax.tree.map(lambda leaf: 3 * leaf, model.init(jax.random.key(1)))
    batch = shapes.make_batch(shape, shape.buckets[-1])
    two_passes, one_scan = (
        jax.jit(jax.value_and_grad(objective, has_aux=True))
        for objective in (
            make_cross_entropy(model, rollout=RolloutOptions(feed="argmax")),
            train_step.make_one_scan_objective(model, feed="argmax"),
        )
    )
    losses = []
    for teacher_prob in (1.0, 0.0):  # no coin decides, so that both see the same tokens
        rest = (batch, jax.random.key(2), jnp.float32(teacher_prob))
        (loss, _), gradients = two_passes(params, *rest)
        (other_loss, _), other_gradients = one_scan(params, *rest)
        losses.append(float(loss))
        assert float(other_loss) == pytest.approx(losses[-1], rel=1e-5)
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5),
            gradients,
            other_gradients,
        )
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_a_kept_array_of_logits_shows_in_the_memory_per_token():
    shape = shapes.Shape("mt", 8, 8, 8, 20, 4000, (shapes.Bucket(4, 12, 1, 4.0, 12.0),))
    row_of_logits = 4 * shape.target_vocab_size
    kept = growth.bytes_per_token(shape, train_step.make_one_scan_objective)
    assert kept > 0.9 * row_of_logits


def test_memory_that_does_not_grow_with_the_tokens_is_not_in_the_memory_per_token(shape):
    class Compiled:
        def lower(self, state: Any, batch: Batch, teacher_prob: Any) -> "Compiled":
            self.temp_size_in_bytes = 5000 + 7 * batch.target.size
            return self

        def compile(self) -> "Compiled":
            return self

        def memory_analysis(self) -> "Compiled":
            return self

    assert growth.bytes_per_token(shape, jit=lambda *_, **__: Compiled()) == 7


def test_a_population_trains_as_its_runs_do_alone():
    population = Population(shapes.TINY_G2P, 2, 1, num_steps=2)
    together, alone = population.together(), population.one_after_another()
    assert len(alone) == population.num_runs == 2
    for run, state in enumerate(alone):
        assert int(state.step) == 2
        for one, other in zip(
            jax.tree.leaves(together.params), jax.tree.leaves(state.params), strict=True
        ):
            np.testing.assert_allclose(one[run], other, rtol=1e-3, atol=1e-4)


def test_a_row_says_whether_its_goal_is_met():
    assert Row("a", 1.1, goal=1.1).holds is True
    assert Row("a", 1.106, goal=1.1).holds is False
    assert Row("a", 1.004, goal=1.0).holds is True  # the table has 1
    assert Row("a", 5.0, goal=5, at_most=False).holds is True
    assert Row("a", 4.0, goal=5, at_most=False).holds is False
    assert Row("a", None, goal=5).holds is None
    assert Row("a", 4.0).holds is None


def test_findings_round_trip_through_json():
    findings = Findings("growth", [Row("a", 1.2, "ms", 1.1, note="why")], {"x": [1.0]})
    content = json.loads(json.dumps(report.to_json(findings, {"cores": 2})))
    assert content["machine"] == {"cores": 2}
    assert content["rows"][0]["holds"] is False
    assert report.from_json(content) == findings


def test_a_part_that_failed_or_was_skipped_is_a_line_of_the_table():
    skipped = report.to_json(Findings("opennmt", skipped="not there"), {})
    assert rows_of("opennmt", skipped) == [Row("opennmt", None, note="skipped: not there")]
    failed = {"failed": "ValueError: no"}
    assert rows_of("growth", failed) == [Row("growth", None, note="failed: ValueError: no")]


def test_the_last_output_of_a_failed_part_is_kept(tmp_path, capfd):
    assert run_part("growth", ["--no-such-option"], tmp_path) == {
        "failed": "python -m benchmarks.growth: error: unrecognized arguments: --no-such-option"
    }
    assert "usage:" in capfd.readouterr().err  # passed on


WORKER = """
import json, sys
for line in sys.stdin:
    question = json.loads(line)
    if question["do"] == "end":
        sys.exit(3)
    failed = question["do"] == "fail"
    answer = {"error": "no such thing"} if failed else {"twice": 2 * question["x"]}
    print(json.dumps(answer), flush=True)
"""


def test_a_peer_answers_one_question_at_a_time(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with Peer(Path(sys.executable), script) as peer:
        assert peer.ask(do="double", x=4) == {"twice": 8}
        with pytest.raises(PeerError, match="no such thing"):
            peer.ask(do="fail")
        assert peer.ask(do="double", x=5) == {"twice": 10}
        with pytest.raises(PeerError, match="exit code 3"):
            peer.ask(do="end")


def test_a_peer_is_available_if_its_environment_is_complete(tmp_path):
    (tmp_path / "torch" / "bin").mkdir(parents=True)
    python = tmp_path / "torch" / "bin" / "python"
    python.touch()
    assert find_python(tmp_path, "torch") is None
    (tmp_path / "torch" / "installed").touch()
    assert find_python(tmp_path, "torch") == python


def test_a_command_is_timed_to_its_line_or_its_end():
    code = (
        "import time; print('compiling'); time.sleep(.05); print('step 1/1  loss'); time.sleep(9)"
    )
    assert 0.05 <= seconds_to_line([sys.executable, "-uc", code], "step 1/1 ", {}) < 9
    with pytest.raises(CommandError, match="something else"):
        seconds_to_line([sys.executable, "-c", "print('something else')"], "step 1/1 ", {})
    with pytest.raises(CommandError, match="broken"):
        seconds_to_end([sys.executable, "-c", "raise SystemExit('broken')"], {})


def test_opennmt_reads_the_same_pairs(tmp_path):
    tokens = make_tokens(20, 0, source_vocab_size=9, target_vocab_size=10)
    opennmt.write_texts(tokens, shapes.TINY_G2P, tmp_path)
    for name, side, vocab_size in (("source", tokens.source, 9), ("target", tokens.target, 10)):
        lines = (tmp_path / f"{name}.txt").read_text().splitlines()
        words = (tmp_path / f"{name}_vocabulary.txt").read_text().split()
        assert [len(line.split()) + 1 for line in lines] == side.lengths.tolist()
        assert {word for line in lines for word in line.split()} <= set(words[3:])
        assert len(words) + 1 == vocab_size  # OpenNMT-tf adds the unknown word


def test_opennmts_own_rate_is_compared_with_ours(tmp_path, monkeypatch):
    python = tmp_path / "opennmt" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "opennmt" / "installed").touch()
    answer = {"steps_per_second": [[2, 1.0], [4, 10.0], [6, 10.0]], "opennmt": "2.32.0"}
    python.write_text(f"#!/bin/sh\necho noise\necho '{json.dumps(answer)}'\n")
    python.chmod(0o755)
    asked: list[float] = []

    class Ours:
        k = 5.0

        def __init__(self, *_: Any):
            pass

        def tokens_per_second(self, seconds: float) -> float:
            asked.append(seconds)
            return 300.0

    monkeypatch.setattr(opennmt, "Ours", Ours)
    findings = opennmt.measure(Options(quick=True, rounds=2, peers=tmp_path))
    ratio, theirs, ours = (row.value for row in findings.rows)
    # 10 steps/s of 4 rows; a row has about 7 tokens.
    tokens = make_tokens(200, 0, source_vocab_size=9, target_vocab_size=10)
    assert theirs == pytest.approx(10 * 4 * len(tokens.target.ids) / 200)
    assert ours == 300
    assert theirs is not None
    assert ratio == pytest.approx(300 / theirs)
    assert len(asked) == 2


def test_ours_trains_through_whole_schedules_next_to_opennmt():
    tokens = make_tokens(60, 0, source_vocab_size=9, target_vocab_size=10)
    ours = opennmt.Ours(shapes.TINY_MT, tokens, num_steps=6)  # one batch shape
    assert ours.tokens_per_second(0) > 0
    assert ours.k >= 1


def test_the_requirements_of_the_peers_are_pinned():
    for name in ("torch", "opennmt"):
        text = (ROOT / "benchmarks" / f"requirements-{name}.txt").read_text()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert lines
        assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)


def test_all_parts_run_unattended_and_missing_peers_are_skipped(tmp_path):
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--parts", "torch_loop,opennmt"]
    done = subprocess.run(
        [*command, "--peers", str(tmp_path), "--json", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()[-3:]
    assert table[0].split() == ["measure", "goal", "here"]
    assert "skipped: PyTorch is not in" in table[1]
    assert "skipped: OpenNMT-tf is not in" in table[2]
    parts = json.loads(output.read_text())["parts"]
    machine = parts["torch_loop"]["machine"]
    assert machine["versions"]["jax"] == jax.__version__
    assert machine["processor"]


class _Fixed:
    """A training whose step takes a fixed time."""

    def __init__(self, step_seconds: float):
        self.step_seconds = step_seconds
        self.steps: list[int] = []

    def seconds(self, name: Any, teacher_probs: Any, passes: int = 1) -> float:
        self.steps.append(passes)
        return self.step_seconds


def test_methods_are_selected_by_name_and_timed_over_teacher_forcing(monkeypatch, capsys):
    made = {}

    def make_trainings(shape: Any, names: Any) -> Any:
        fixed = {methods.TEACHER_FORCING: _Fixed(0.05)} | {name: _Fixed(0.4) for name in names}
        return made.setdefault(shape.name, fixed)

    monkeypatch.setattr(methods, "make_trainings", make_trainings)
    found = methods.measure(Options(rounds=3, only="g2p: OCD"))
    measures = [(row.measure, round(row.value or 0, 6), row.goal) for row in found.rows]
    assert measures == [
        ("g2p: OCD / teacher forcing", 8, 1.5),
        ("g2p: teacher forcing, a step", 50, None),
    ]
    assert list(made) == ["g2p"]
    # Two steps to warm up, then samples of about 0.2 s.
    assert made["g2p"]["teacher forcing"].steps == [1, 1, 4, 4, 4]
    assert made["g2p"]["OCD"].steps == [1, 1, 1, 1, 1]
    assert "methods: g2p: round 3 of 3" in capsys.readouterr().err


def test_a_selection_of_methods_that_is_empty_says_what_there_is():
    found = methods.measure(Options(only="xyz"))
    assert found.rows == []
    assert "nothing has 'xyz' in its name; the methods are scheduled sampling, " in found.skipped
