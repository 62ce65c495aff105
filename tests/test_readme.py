"""README.md and docs/ are correct: their code runs, their commands parse, their tables agree."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from s2s_jax.data.catalog import LOADERS, dataset_options
from s2s_jax.lab.arguments import make_parser
from s2s_jax.lab.base.metric_catalog import CATALOG
from s2s_jax.lab.cli import main
from s2s_jax.lab.config.components import KINDS, built_in_options, find_component
from s2s_jax.lab.config.grids import COMPARED_SCHEDULES
from s2s_jax.lab.config.keys import base_config
from s2s_jax.lab.config.overrides import parse_config
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.schedules import (
    Schedule,
    exponential,
    inverse_sigmoid,
    linear,
)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md")))
}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.py)\n")  # of a Python block that is a file


def blocks(language: str) -> Iterator[tuple[str, int, str]]:
    """(document, its line, code) of every fenced block in a language."""
    for name, text in DOCUMENTS.items():
        for match in FENCE.finditer(text):
            if match[1] == language:
                yield name, text.count("\n", 0, match.start(2)), match[2]


def commands() -> list[list[str]]:
    """The arguments of every `s2s ...` in a fenced bash block."""
    found = []
    for _, _, code in blocks("bash"):
        for line in code.splitlines():
            match = re.search(r"(?:^|\| *)s2s (.*)", line)
            if match:
                words = shlex.split(match[1], comments=True)
                ends = [place for place, word in enumerate(words) if word in ("|", ">", "<")]
                found.append(words[: ends[0]] if ends else words)
    return found


def rows(document: str, heading: str) -> list[list[str]]:
    """The cells of the first table with that first heading, without its two header lines."""
    lines = DOCUMENTS[document].splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table


def code_spans(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the commands work as in a clone: experiments/, and the files of the docs."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "experiments").symlink_to(ROOT / "experiments")
    (folder / "sums.txt").write_text("12+345\n7+8\n")
    for _, _, code in blocks("python"):
        match = FILE_NAME.match(code)
        if match:
            (folder / match[1]).write_text(code)
    return folder


def run_python(program: str, argument: object, place: Path) -> str:
    """Runs a program in a separate process that compiles fast and writes nothing elsewhere."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(place / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TFDS_DATA_DIR": str(place / "tfds"),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(argument)],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_python_blocks_run_in_order(place):
    program = """
import json, sys
namespaces = {}
for name, line, code in json.loads(sys.argv[1]):
    # The newlines put the document's own line into a traceback.
    exec(compile("\\n" * line + code, name, "exec"), namespaces.setdefault(name, {}))
    print("ran", name, line)
"""
    found = list(blocks("python"))
    assert {"README.md", "docs/extending.md", "docs/lab.md"} <= {name for name, _, _ in found}
    out = run_python(program, found, place)
    assert out.count("ran ") == len(found)


def test_documented_commands_parse(place, monkeypatch):
    monkeypatch.chdir(place)
    found = commands()
    known = {"train", "sweep", "evaluate", "decode", "compare", "exposure", "verify"}
    assert {one[0] for one in found} == known
    for arguments in found:
        overrides = [one for one in arguments if one.startswith("--config.")]
        rest = [one for one in arguments if not one.startswith("--config.")]
        options = make_parser().parse_args(rest)
        assert not overrides or options.command in ("train", "sweep")
        if options.command in ("train", "sweep"):
            config, chosen, _ = parse_config([f"--config={options.config}", *overrides])
            assert len(chosen) == len(overrides)
            make_experiment(config)


TINY = [
    f"--config.{setting}"
    for setting in (
        "data.num_train=64",
        "data.num_dev=8",
        "data.num_test=8",
        "data.num_buckets=1",
        "model.hidden_size=8",
        "model.embedding_size=4",
        "train.num_steps=8",
        "train.batch_size=16",
        "eval.batch_size=8",
    )
]


def documented(*beginning: str) -> list[str]:
    """The first documented command with that beginning."""
    length = len(beginning)
    return next(one for one in commands() if tuple(one[:length]) == beginning)


@pytest.fixture(scope="module")
def results(place) -> Path:
    """The folder after running the documented commands, one after another, at a tiny size."""
    sequence = [
        documented("train", "--config=experiments/addition.py:inverse_sigmoid") + TINY,
        documented("evaluate", "runs/sums"),
        [*documented("decode", "runs/sums"), "--max-length=4"],
        [*documented("exposure", "runs/sums"), "--min-count=2", "--num-resamples=10"],
        ["sweep", "--config=my_experiment.py", "--workdir=runs/mine_sweep", *TINY],
        documented("compare", "runs/mine_sweep"),
    ]
    assert documented("sweep", *sequence[4][1:3])
    program = """
import json, sys
from s2s_jax.lab.cli import main
for arguments in json.loads(sys.argv[1]):
    print("$ s2s", *arguments, flush=True)
    main(arguments)
"""
    (place / "out.txt").write_text(run_python(program, sequence, place))
    return place


@pytest.mark.slow
@pytest.mark.xdist_group("readme")
def test_documented_commands_run(results):
    out = (results / "out.txt").read_text()
    assert "test/own/exact_match" in out
    assert len((results / "results.txt").read_text().splitlines()) == 2
    table = out.partition("$ s2s compare")[2]
    assert "teacher_forcing" in table
    assert "inverse_sigmoid" in table
    left = {path.name for path in (results / "runs/mine_sweep").iterdir()}
    comparison = DOCUMENTS["docs/lab.md"].partition("## Comparison")[2].partition("\n## ")[0]
    files = {one for one in code_spans(comparison) if re.fullmatch(r"\w+\.\w+", one)}
    assert len(files) >= 5
    assert files <= left
    assert (results / "runs/sums/exposure.json").is_file()
    assert "inverse_sigmoid,reach_fraction=0.5" in left
    assert "inverse_sigmoid,reach_fraction=0.5/seed_0" in code_spans(DOCUMENTS["docs/lab.md"])


@pytest.mark.xdist_group("readme")
def test_a_run_leaves_the_files_of_the_table_and_no_others(results):
    run = results / "runs/sums"
    named = {one for row in rows("README.md", "file") for one in code_spans(row[0])}
    for name in named:
        assert list(run.glob(name.rstrip("/"))), name
    lab = {one for row in rows("docs/lab.md", "file") for one in code_spans(row[0])}
    patterns = [re.sub("<.*>", "*", name).rstrip("/") for name in lab]
    for path in run.iterdir():
        assert any(path.match(pattern) for pattern in patterns), path.name


@pytest.mark.xdist_group("readme")
def test_what_is_logged_is_what_the_readme_names(results):
    lines = (results / "runs/sums/metrics.jsonl").read_text().splitlines()
    logged = {name for line in lines for name in json.loads(line)}
    named = code_spans(README.partition("### What is logged")[2].partition("\n### ")[0])
    assert {name for name in logged if name.startswith("train/")} == {
        name for name in named if name.startswith("train/")
    }
    for name in logged:
        if name.startswith("eval/"):
            assert name in named or name.rpartition("/")[2] in named, name
    assert {name for name in named if re.match("eval/.*(nll|accuracy|match|gap)", name)} <= logged


def test_links_point_to_files_and_headings():
    def anchor(heading: str) -> str:
        return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")

    anchors = {
        (ROOT / name).resolve(): {
            anchor(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")
        }
        for name, text in DOCUMENTS.items()
    }
    checked = 0
    for name, text in DOCUMENTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
            if re.match(r"\w+:", target):
                continue
            path, _, fragment = target.partition("#")
            there = ((ROOT / name).parent / path if path else ROOT / name).resolve()
            assert there.exists(), f"{name}: {target}"
            assert not fragment or fragment in anchors[there], f"{name}: {target}"
            checked += 1
    assert checked > 30


def test_files_and_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set()
    for text in DOCUMENTS.values():
        code = "\n".join([*(match[2] for match in FENCE.finditer(text)), *code_spans(text)])
        named |= set(re.findall(r"^make (?:[A-Z]+=\S+ )*([a-z]+)", code, re.MULTILINE))
        for file in re.findall(r"^python (\S+\.py)|pip install .*?-[rc] (\S+)", code, re.MULTILINE):
            assert (ROOT / "".join(file)).is_file(), file
    assert {"demo", "test"} <= named
    assert named <= targets


def test_every_experiment_is_in_the_table():
    linked = {
        one for row in rows("README.md", "experiment") for one in re.findall(r"\((.*?)\)", row[0])
    }
    assert linked == {f"experiments/{path.name}" for path in ROOT.glob("experiments/*.py")}


def test_config_keys_are_those_of_the_table():
    config = base_config("cmudict")
    sections = {row[0].strip("`"): code_spans(row[1]) for row in rows("docs/lab.md", "section")}
    assert sections[""] | sections.keys() - {""} == set(config)
    for section in ("model", "objective", "rollout", "train", "eval"):
        assert sections[section] == set(config[section])
    assert sections["data"] == set(config.data) - dataset_options("cmudict").keys()
    keys = {
        one for row in rows("docs/schedules.md", "key of `schedule`") for one in code_spans(row[0])
    }
    names = KINDS["schedule"].built_in
    options = [find_component("schedule", one).options for one in names]
    assert keys == {"name"}.union(*options)


def test_components_are_those_of_the_table_and_of_the_help(capsys):
    table = {row[0].strip("`"): row[1] for row in rows("docs/lab.md", "key")}
    main(["train", "--help"])
    said = capsys.readouterr().out
    assert table.keys() == {f"{section}.name" for section in KINDS}
    for section, kind in KINDS.items():
        assert kind.built_in.keys() <= code_spans(table[f"{section}.name"])
        assert f"  {section}.name, with its options" in said
        for name, options in built_in_options(section).items():
            assert f"    {name}" in said
            assert all(one in said for one in options.split(", "))


def test_every_file_of_the_example_is_in_the_table_of_what_is_ones_own():
    linked = {row[2] for row in rows("docs/extending.md", "key")}
    names = {path.name for path in ROOT.glob("examples/own_parts/*.py")} - {"own_parts.py"}
    assert {re.findall(r"\[(.*?)\]", one)[0] for one in linked} == names
    for name in names:
        source = (ROOT / "examples" / "own_parts" / name).read_text(encoding="utf-8")
        code = [line for line in source.splitlines() if line.strip()]
        assert len(code) < 30, name


def test_datasets_and_options_are_those_of_the_table():
    table = {row[0].strip("`"): row[3] for row in rows("docs/data.md", "name")}
    assert table.keys() == LOADERS.keys()
    for name in LOADERS.keys() - {"reverse"}:  # "as copy"
        for option, default in dataset_options(name).items():
            assert option in code_spans(table[name])
            if type(default) is int and option not in ("num_dev", "seed"):
                assert f"`{option}` ({default:,})".replace("1,000)", "1000)") in table[name]
    assert dataset_options("reverse") == dataset_options("copy")


def test_values_of_schedules_are_those_of_the_tables():
    for k, start, half, tenth in rows("docs/schedules.md", "inverse sigmoid `k`"):
        schedule = inverse_sigmoid(float(k))
        assert f"{float(schedule(0)):.3f}" == start
        assert float(schedule(int(half))) == pytest.approx(0.5, abs=0.03 / float(k) ** 0.5)
        assert float(schedule(int(tenth))) == pytest.approx(0.1, abs=0.03 / float(k) ** 0.5)
    columns = (
        linear(reach_teacher_prob=0.0, reach_step=10_000),
        exponential(reach_teacher_prob=0.05, reach_step=10_000),
        check_schedule("inverse_sigmoid", 10_000),
    )
    for step, *shown in rows("docs/schedules.md", "step"):
        values = [float(schedule(int(step.replace(",", "")))) for schedule in columns]
        assert [f"{value:.3f}" for value in values] == shown


def check_schedule(name: str, num_steps: int) -> Schedule:
    """The schedule of a config that sets only its name."""
    config = base_config("addition", name)
    config.train.num_steps = num_steps
    return cast("Schedule", make_experiment(config).schedule)


def test_the_table_of_optima_is_what_its_code_computes():
    code = next(code for name, _, code in blocks("python") if name == "docs/training.md")
    found: dict = {}
    exec(code, found)
    shown = {
        float(row[0]): [float(cell.split()[0]) for cell in row[1:]]
        for row in rows("docs/training.md", "teacher_prob")
    }
    for teacher_prob, values in found["table"].items():
        assert shown[teacher_prob] == pytest.approx(values, abs=5.1e-5)
        assert shown[teacher_prob][2::2] == pytest.approx([values[2], values[4]], abs=5.1e-7)


def test_no_placeholder_is_left():
    for name, text in DOCUMENTS.items():
        assert not re.findall(r"RESULT:\w*|DEMO OUTPUT", text), name


def test_the_demo_output_is_that_of_the_demo():
    block = README.partition("<!-- demo output -->")[2].partition("<!-- /demo output -->")[0]
    shown = [CATALOG.describe(f"test/{name}").label_with_unit for name in CATALOG.columns]
    not_there = {"SER %", "CER %", "BLEU", "chrF"}  # of other tasks
    for word in (*COMPARED_SCHEDULES, *(set(shown) - not_there), "gold prefixes", "own prefixes"):
        assert word in block
    assert "tensorboard --logdir runs/demo" in block
