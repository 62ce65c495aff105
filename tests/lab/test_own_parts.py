"""The custom parts of examples/own_parts, from training to the comparison."""

import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from s2s_jax.data.files import fingerprint
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.processes import EXIT_BAD_INPUT
from s2s_jax.lab.cli import main
from s2s_jax.lab.comparison.differences import find_differences
from s2s_jax.lab.config.overrides import parse_config
from s2s_jax.lab.experiment import evaluate_run, load_run, train_and_evaluate
from s2s_jax.lab.runs.collect import collect
from s2s_jax.lab.runs.provenance import Provenance, told_apart
from s2s_jax.lab.training.workbench import RunSpec, Workbench

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_parts"
FEW = ["--config.train.num_steps=6", "--config.eval.every=3", "--config.data.num_buckets=1"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example in a separate folder, with its data."""
    folder = tmp_path_factory.mktemp("own") / "own_parts"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    generator = random.Random(0)
    (folder / "data").mkdir()
    for split, size in (("train", 40), ("dev", 12), ("test", 12)):
        words = ["".join(generator.choices("abcd", k=3)) for _ in range(size)]
        lines = [json.dumps({"source": word, "target": word[::-1]}) for word in words]
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines))
    return folder


def flags(parts: Path, data: Path | None = None) -> list[str]:
    folder = data or parts / "data"
    return [f"--config={parts / 'own_parts.py'}", f"--config.data.folder={folder}", *FEW]


@pytest.fixture(scope="module")
def sweep(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's schedules as lanes of one program, with one seed each."""
    folder = tmp_path_factory.mktemp("sweep")
    names = ("teacher_forcing", "sawtooth_schedule:make")
    specs = []
    for name in names:
        config, overrides, _ = parse_config([*flags(parts), f"--config.schedule.name={name}"])
        specs.append(RunSpec(config, folder / name / "seed_0", overrides, lambda line: None))
    results = Workbench().train(specs)
    assert [one["status"] for one in results if not isinstance(one, LabError)] == ["finished"] * 2
    return folder


@pytest.fixture
def own_run(sweep: Path, tmp_path: Path) -> Path:
    """A copy of the run with the custom schedule."""
    return Path(shutil.copytree(sweep / "sawtooth_schedule:make" / "seed_0", tmp_path / "run"))


def test_a_run_keeps_copies_of_the_modules_that_it_names(own_run):
    names = {path.name for path in (own_run / "code").iterdir()}
    assert names >= {f"{path.stem}.py" for path in EXAMPLE.glob("*_*.py")} - {"own_parts.py"}
    code = json.loads((own_run / "provenance.json").read_text())["code"]
    assert set(code) == names


def test_a_lane_equals_the_run_trained_alone(parts, own_run, tmp_path):
    config, overrides, _ = parse_config(flags(parts))
    alone = train_and_evaluate(config, tmp_path / "alone", overrides, report=lambda line: None)
    lane = json.loads((own_run / "result.json").read_text())
    assert alone["metrics"] == pytest.approx(lane["metrics"], abs=1e-6)


def test_it_opens_anywhere_without_the_modules(own_run, monkeypatch, capsys):
    before = json.loads((own_run / "result.json").read_text())["metrics"]
    mine = {path.stem for path in EXAMPLE.glob("*.py")}
    monkeypatch.setattr(sys, "path", [one for one in sys.path if "own_parts" not in one])
    for name in mine & sys.modules.keys():
        monkeypatch.delitem(sys.modules, name)
    found = evaluate_run(load_run(own_run), "test")
    assert found == pytest.approx({name: before[name] for name in found}, abs=1e-6)
    (own_run / "lines.txt").write_text("abc\ndcb\n")
    main(["decode", str(own_run), f"--input={own_run / 'lines.txt'}"])
    assert capsys.readouterr().out.count("\n") == 2
    main(["exposure", str(own_run), "--num-resamples=5", "--min-count=2", "--split=test"])
    assert "gold" in capsys.readouterr().out


def test_a_sweep_of_custom_parts_is_compared(sweep, capsys):
    assert [run.schedule for run in collect(sweep).compared] == [
        "teacher_forcing",
        "sawtooth_schedule:make",
    ]
    main(["compare", str(sweep)])
    said = capsys.readouterr().out
    assert "sawtooth_schedule:make" in said
    assert "Against teacher_forcing by final (lower is better), test split" in said


def test_versions_of_a_module_are_told_apart():
    def provenance(**code: str) -> Provenance:
        recorded = {name: {"file": "", "fingerprint": about} for name, about in code.items()}
        return Provenance({}, {}, {}, {}, recorded)

    assert told_apart([provenance(), provenance(bag="1")]) == [{}, {}]
    one, two, same = told_apart([provenance(bag=about, kit="3") for about in "121"])
    assert one == same
    assert one.keys() == two.keys() == {"code"}
    assert one != two


def test_what_a_model_prints_is_not_decoded_text(own_run, monkeypatch, capsys):
    run = load_run(own_run)

    def encode(*args):
        print("a shape")
        return run.model.encode(*args)

    loud = replace(run, model=replace(run.model, encode=encode))
    monkeypatch.setattr("s2s_jax.lab.decode.load_run", lambda *args: loud)
    (own_run / "lines.txt").write_text("abc\n")
    main(["decode", str(own_run), f"--input={own_run / 'lines.txt'}"])
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "a shape" in err


def test_a_run_of_other_code_is_not_compared(sweep, tmp_path):
    other = Path(shutil.copytree(sweep, tmp_path / "other"))
    path = other / "teacher_forcing" / "seed_0" / "result.json"
    result = json.loads(path.read_text())
    result["provenance"]["code"]["bag_model.py"]["fingerprint"] = "0" * 16
    path.write_text(json.dumps(result))
    with pytest.raises(LabError, match=r"most runs had other code \(bag_model.py\)"):
        collect(other)


def test_changed_code_is_reported_and_not_trained_on(parts, own_run, tmp_path, capsys):
    changed = Path(shutil.copytree(parts, tmp_path / "own_parts"))
    record = json.loads((own_run / "provenance.json").read_text())
    model = changed / "bag_model.py"
    record["code"]["bag_model.py"]["file"] = str(model)
    (own_run / "provenance.json").write_text(json.dumps(record))
    model.write_text(model.read_text().replace("jnp.tanh(carry)", "carry"))
    said: list[str] = []
    load_run(own_run, report=said.append)
    assert said == [f"{model} has changed since {own_run} was started; its copy is used"]
    with pytest.raises(SystemExit) as ended:
        main(["train", *flags(changed, parts / "data"), f"--workdir={own_run}"])
    assert ended.value.code == EXIT_BAD_INPUT
    err = capsys.readouterr().err
    assert "holds a run of other code: bag_model.py has changed since it was started" in err
    assert err.count("\n") == 1


def test_an_altered_copy_is_rejected(own_run):
    copy = own_run / "code" / "bag_model.py"
    copy.write_text(copy.read_text() + "\n")
    with pytest.raises(LabError, match=r"bag_model.py is not what the run was started with"):
        load_run(own_run)
    path = own_run / "provenance.json"
    record = json.loads(path.read_text())
    record["code"]["bag_model.py"]["fingerprint"] = fingerprint(copy.read_bytes())
    path.write_text(json.dumps(record))
    with pytest.raises(LabError, match="was saved with other code than the run's folder has now"):
        load_run(own_run)


def test_what_cannot_be_a_lane_says_so(parts, tmp_path):
    changed = Path(shutil.copytree(parts, tmp_path / "own_parts"))
    path = changed / "forgiving_objective.py"
    seen = "        io_callback(lambda ids: None, None, target, ordered=True)\n        others = "
    source = path.read_text().replace("        others = ", seen)
    imported = "from jax.experimental import io_callback\n\nfrom s2s_jax.batch"
    path.write_text(source.replace("from s2s_jax.batch", imported))
    specs = []
    for seed in range(2):
        config, _, _ = parse_config([*flags(changed), f"--config.seed={seed}"])
        specs.append(RunSpec(config, tmp_path / str(seed), {}, lambda line: None))
    with pytest.raises(LabError, match=r"these runs cannot be lanes of one program: .*vmap"):
        Workbench().train(specs)
    [result] = Workbench().train(specs[:1])
    assert not isinstance(result, LabError)


def test_an_altered_copy_of_a_score_compares_no_items(sweep, tmp_path):
    altered = Path(shutil.copytree(sweep, tmp_path / "altered"))
    for copy in altered.rglob("final_score.py"):
        copy.write_text(copy.read_text().replace("!=", "=="))
    found = find_differences(collect(altered), ["test/own/final"])
    assert [row.difference.num_items for row in found] == [0]
    assert all("is not what the run was started with" in row.remark for row in found)


def test_a_model_that_is_too_short_for_a_test_split_fails_in_a_line(parts, tmp_path):
    short = Path(shutil.copytree(parts, tmp_path / "own_parts"))
    lines = [json.dumps({"source": "abcd" * 3, "target": "dcba" * 3})] * 4
    (short / "data" / "test.jsonl").write_text("\n".join(lines))
    source = (short / "bag_model.py").read_text()
    weights = "        weights = source_mask"
    assert weights in source
    limit = "        assert source.shape[1] < 9, 'a source is too long'\n"
    (short / "bag_model.py").write_text(source.replace(weights, limit + weights))
    config, _, _ = parse_config([*flags(short, short / "data"), "--config.train.num_steps=1"])
    message = r"training fails: bag_model.py, line \d+: AssertionError: a source is too long"
    with pytest.raises(LabError, match=message):
        train_and_evaluate(config, tmp_path / "run", report=lambda line: None)


@pytest.mark.slow
def test_the_command_line_sweeps_a_population_of_them(parts, tmp_path, capsys):
    folder = tmp_path / "population"
    main(["sweep", *flags(parts), f"--workdir={folder}", "--population"])
    assert "4 of 4 done" in capsys.readouterr().out
    assert len(collect(folder).compared) == 4


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "forgiving_objective.py",
            "mask & right",
            "mask & rigth",
            r"make: the objective fails: forgiving_objective.py, line \d+: NameError: name 'rigth'",
        ),
        (
            "forgiving_objective.py",
            '{"loss": loss, ',
            "{",
            r"objective.name=forgiving_objective:make returns no sum called 'loss'; it returns 'co",
        ),
        (
            "bag_model.py",
            "@ params[2]",
            '@ params["outptu"]',
            r"bag_model:make: decode_step fails: bag_model.py, line \d+: TypeError: list indices",
        ),
        (
            "final_score.py",
            "texts[0][-1:]",
            "texts[9][-1:]",
            r"an evaluation fails: final_score.py, line \d+: IndexError: tuple index out of range",
        ),
        (
            "final_score.py",
            "metric, final",
            "final",
            r"score cannot be imported: .*TypeError",
        ),
        (
            "final_score.py",
            "(Score(metric, final_errors, percentage),)",
            "(Score(metric, final_errors, lambda sums: sums),)",
            r"score 'final': from_sums gives shape \(2,\) for the sums of one corpus; it must",
        ),
        (
            "final_score.py",
            "percentage),))",
            "percentage),), remarks=lambda references: references[-1][9])",
            r"a remark on the data fails: final_score.py, line \d+: IndexError",
        ),
        (
            "jsonl_data.py",
            'row["target"]',
            'row["tagret"]',
            r"data.name=jsonl_data:load fails: jsonl_data.py, line \d+: KeyError: tagret",
        ),
        (
            "sawtooth_schedule.py",
            "(1.0 - (1.0",
            "(2.0 - (1.0",
            "the schedule gives teacher_prob 2 at step 0; it must be in",
        ),
        (
            "bag_model.py",
            "(size, target_vocab_size)",
            "(size, target_vocab_size + 1)",
            r"model.name=bag_model:make: the logits of decode_step are float32.*; their shape must",
        ),
        (
            "signed_optimizer.py",
            "jax.tree.map(jnp.sign, state), state",
            "jax.tree.map(jnp.sign, state), (state, state)",
            r"signed_optimizer:make: the state after update: .*; it must be \(",
        ),
    ],
)
def test_a_mistake_in_a_part_is_a_line_before_training(parts, tmp_path, file, old, new, message):
    broken = Path(shutil.copytree(parts, tmp_path / "own_parts"))
    source = (broken / file).read_text()
    assert old in source
    (broken / file).write_text(source.replace(old, new))
    config, _, _ = parse_config(flags(broken))
    with pytest.raises(LabError, match=message):
        train_and_evaluate(config, tmp_path / "run", report=lambda line: None)
    assert not (tmp_path / "run").exists()
