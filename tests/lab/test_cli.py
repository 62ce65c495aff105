"""The command line: what it does, and its one-line errors on stderr."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from s2s_jax.lab import cli
from s2s_jax.lab.base.metric_catalog import CATALOG
from s2s_jax.lab.base.processes import prepare_jax
from s2s_jax.lab.experiment import load_run
from s2s_jax.lab.runs.checkpoints import Checkpoints

# Its fixtures train once, not once per worker.
pytestmark = pytest.mark.xdist_group("cli")

COMMANDS = ("train", "sweep", "evaluate", "decode", "compare")


@pytest.fixture
def refused(s2s, snapshot, tmp_path):
    """Runs a command that must fail with one line and leave the test's folder unchanged."""

    def run(*arguments, stdin=b""):
        before = snapshot(tmp_path)
        code, out, err = s2s(*arguments, stdin=stdin)
        assert code == 2, (code, out, err)
        assert err.endswith("\n")
        assert len(err.splitlines()) == 1, err
        assert err.startswith("s2s"), err
        assert not out, out
        assert snapshot(tmp_path) == before
        return err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "--workdir=x"], "required: --config"),
        (["train", "--config=x.py"], "required: --workdir"),
        (
            ["train", "--config=x.py", "--workdir=x", "--nope"],
            "s2s train: unrecognized arguments: --nope (s2s train --help lists the rest)",
        ),
        (["verify", "--nope"], "(s2s verify --help lists the rest)"),
        (["compare", "x", "--config.seed=1"], "(s2s compare --help lists the rest)"),
        (["sweep", "--config=x.py", "--workdir=x", "--jobs=two"], "invalid int value: 'two'"),
        (["sweep", "--config=x.py", "--workdir=x", "--launcher=slrum"], "invalid choice: 'slrum'"),
        (["decode", "x", "--checkpoint=newest"], "invalid choice: 'newest'"),
        (["compare", "x", "--config.seed=1"], "compare takes no config; --config.seed=1"),
        (["evaluate", "x", "--config.seed=1"], "evaluate takes no config"),
        (["evaluate", "nowhere"], "nowhere holds no run"),
        (["decode", "nowhere"], "nowhere holds no run"),
        (["compare", "nowhere"], "nowhere"),
        (["train", "--config=nowhere.py", "--workdir=x"], "nowhere.py does not exist"),
    ],
)
def test_a_wrong_command_is_rejected(refused, arguments, message):
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("schedule", "flags", "message"),
    [
        (":linaer", [], "did you mean 'linear'?"),
        ("", ["--config.schedule.name=zebra"], "schedule.name is 'zebra'; it must be one of"),
        (":linear", ["--config.train.num_step=3"], "did you mean 'train.num_steps'?"),
        (":linear", ["--config.train=3"], "config key train is a section"),
        (":linear", ["--config.seed"], "has no value"),
        (":linear", ["--config.seed=one"], "seed"),
        (":exponential", ["--config.schedule.k=2"], "k must be in (0, 1), not 2.0"),
        (":linear", ["--config.schedule.k=nan"], "k must be in (0, 1], not nan"),
        (":constant", ["--config.schedule.teacher_prob=1.5"], "in [0, 1], not 1.5"),
        ("", ["--config.schedule.k=2"], "schedule.k has no effect on teacher_forcing"),
        ("", ["--config.model.cell=rnn"], "cell is 'rnn'"),
        ("", ["--config.data.source_vocabulary=words"], "words"),
        ("", ["--config.data.target_vocabulary=sentencepiece"], "data.vocabulary_size"),
        ("", ["--config.rollout.top_k=100"], "top_k is 100"),
        ("", ["--config.data.folder=nowhere"], "nowhere is not a folder"),
        ("", ["--config.data.max_tokens=1"], "none of"),
    ],
)
def test_a_wrong_config_is_rejected(refused, experiment_file, tmp_path, schedule, flags, message):
    arguments = [f"--config={experiment_file}{schedule}", f"--workdir={tmp_path}/run"]
    assert message in refused("train", *arguments, *flags)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config=x.py", "--workdir="],
        ["sweep", "--config=x.py", "--workdir="],
        ["train", "--config=", "--workdir=x"],
        ["evaluate", ""],
        ["decode", "x", "--input="],
        ["decode", "x", "--output="],
        ["exposure", "x", ""],
        ["exposure", "x", "--output="],
        ["compare", ""],
        ["verify", "--output="],
        ["verify", "--dependence=1", "--picture="],
    ],
)
def test_an_empty_path_is_rejected(refused, arguments):
    assert "is empty; perhaps a variable is not set" in refused(*arguments)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~no-such-user/run", "~no-such-user has no home folder"),
        ("x" * 300, "File name too long"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9, which is not UTF-8; rename it"),
    ],
)
@pytest.mark.parametrize("command", ["train", "evaluate", "compare"])
def test_an_unusable_path_is_rejected(refused, experiment_file, command, path, message):
    arguments = [f"--config={experiment_file}", f"--workdir={path}"]
    line = refused(command, *(arguments if command == "train" else [path]))
    name = {"train": "--workdir", "evaluate": "WORKDIR", "compare": "SWEEP_DIR"}[command]
    assert line.startswith(f"s2s: {name} is ")
    assert message in line
    assert "LC_ALL" not in line  # the locale uses UTF-8


def test_the_locale_is_named_as_a_possible_reason_for_a_path_that_is_not_utf8(refused, monkeypatch):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert "; rename it, or set LC_ALL=C.UTF-8" in refused("evaluate", os.fsdecode(b"caf\xe9"))


def test_a_home_folder_is_expanded_in_every_path(s2s, experiment_file, copied, monkeypatch):
    monkeypatch.setenv("HOME", str(copied.parent))
    code, out, err = s2s("train", f"--config={experiment_file}:linear", "--workdir=~/run")
    assert (code, out) == (2, "")
    assert f"workdir {copied} holds another config" in err
    assert "~/run/x holds no run" not in s2s("evaluate", "~/run/x")[2]
    assert s2s("decode", "~/run", "--output=~/no/out")[2] == (
        f"s2s: cannot write {copied.parent}/no/out: No such file or directory\n"
    )


@pytest.mark.parametrize("key", ["data.folder", "data.data_dir"])
def test_a_config_is_utf8(refused, experiment_file, tmp_path, key):
    value = os.fsdecode(b"/tmp/caf\xe9")
    flags = [f"--config={experiment_file}", f"--workdir={tmp_path}/run"]
    assert "is not UTF-8" in refused("train", *flags, f"--config.{key}={value}")


@pytest.mark.parametrize("value", [os.fsdecode(b"caf\xe9"), "~no-such-user/x"])
def test_the_folder_of_datasets_is_checked(refused, text_flags, monkeypatch, value):
    _, flags = text_flags
    monkeypatch.setenv("TFDS_DATA_DIR", value)
    assert "TFDS_DATA_DIR is" in refused(
        "train", *(one for one in flags if "data_dir" not in one), "--config.data.data_dir="
    )


def test_a_file_may_have_colons_in_its_path(s2s, refused, experiment_file, copied, tmp_path):
    folder = tmp_path / "a:b"
    folder.mkdir()
    path = folder / "tiny.py"
    assert f"{path} does not exist" in refused(
        "train", f"--config={path}:linear", f"--workdir={copied}"
    )
    shutil.copy(experiment_file, path)
    source = path.read_text()
    path.write_text(
        source.replace("Path(__file__).parent", f"Path({str(experiment_file.parent)!r})")
    )
    for argument in ("linear", "lin:ear"):
        code, _, err = s2s("train", f"--config={path}:{argument}", f"--workdir={copied}")
        assert code == 2
        assert ("holds another config" if argument == "linear" else "'lin:ear'") in err
    assert f"write --config={path}\n" in refused(
        "sweep", f"--config={path}:linear", f"--workdir={copied}"
    )


def test_a_section_without_a_value_is_listed(refused, experiment_file, tmp_path):
    flags = [f"--config={experiment_file}", f"--workdir={tmp_path}/run"]
    message = refused("train", *flags, "--config.model")
    assert "config key model is a section; its keys are model." in message
    assert "does not exist" in refused("train", *flags, "--config.modle")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "JAX_PLATFORMS",
            "cuda",
            "JAX_PLATFORMS is cuda, which JAX cannot open here; available: cpu;"
            " install jax[cuda13] on a machine with such a device, or unset it\n",
        ),
        (
            "JAX_PLATFORMS",
            "foo",
            "JAX_PLATFORMS is foo, which JAX cannot open here; available: cpu;"
            " unset it, or set it to cpu, cuda or tpu\n",
        ),
        (
            "JAX_ENABLE_X64",
            "maybe",
            "JAX cannot use its environment variables: invalid truth value",
        ),
    ],
)
def test_a_setting_that_jax_cannot_use_is_named(name, value, said, tmp_path):
    environment = os.environ | {name: value}
    script = "from s2s_jax.lab.cli import main; main(['evaluate', 'nowhere'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"s2s: {said}")
    assert done.stderr.count("\n") == 1


def test_a_folder_is_not_a_config(refused, tmp_path):
    message = refused("train", f"--config={tmp_path}", f"--workdir={tmp_path / 'run'}")
    assert f"config file {tmp_path} is a folder; name a file in it" in message


def test_the_error_for_an_unknown_key_lists_the_keys_of_its_section(
    refused, experiment_file, tmp_path
):
    flags = f"--config={experiment_file}", f"--workdir={tmp_path / 'run'}"
    message = refused("train", *flags, "--config.train.zzz=1")
    assert "train.zzz does not exist; it must be one of train.average_decay, " in message


def test_a_config_that_raises_is_rejected(refused, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def get_config(schedule=''):\n    return 1 / 0\n")
    message = refused("train", f"--config={path}", f"--workdir={tmp_path}/run")
    assert "line 2: ZeroDivisionError" in message


@pytest.fixture
def text_flags(tmp_path):
    """Flags for training on parallel text; the test may damage the files in its folder."""
    folder = tmp_path / "text"
    folder.mkdir()
    for split in ("train", "dev"):
        for language in ("en", "de"):
            (folder / f"{split}.{language}").write_text("one two\nthree four\n")
    config = tmp_path / "text.py"
    config.write_text(
        "from s2s_jax.lab.config.keys import base_config\n"
        "def get_config(schedule='teacher_forcing'):\n"
        "    return base_config('parallel_text', schedule)\n"
    )
    flags = [
        f"--config={config}",
        f"--workdir={tmp_path}/run",
        f"--config.data.folder={folder}",
        f"--config.data.data_dir={tmp_path}/tfds",
        "--config.data.source_language=en",
        "--config.data.target_language=de",
    ]
    return folder, flags


def test_unequal_line_counts_are_both_named(refused, text_flags):
    folder, flags = text_flags
    (folder / "train.de").write_text("eins\nzwei\ndrei\n")
    message = refused("train", *flags)
    assert f"{folder}/train.en has 2 lines" in message
    assert f"{folder}/train.de 3" in message


@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_not_utf8_is_named_with_its_line(refused, text_flags, zipped):
    folder, flags = text_flags
    content = b"gr\xc3\xbcn\nstra\xdfe\n"
    (folder / "dev.de").unlink()
    name = "dev.de.gz" if zipped else "dev.de"
    (folder / name).write_bytes(gzip.compress(content) if zipped else content)
    assert f"{folder}/{name}, line 2: not UTF-8" in refused("train", *flags)


def test_an_empty_or_missing_split_is_named(refused, text_flags):
    folder, flags = text_flags
    for language in ("en", "de"):
        (folder / f"dev.{language}").write_text("")
    assert f"{folder}/dev.en is empty" in refused("train", *flags)
    (folder / "dev.de").unlink()
    assert "has no dev.de" in refused("train", *flags)
    (folder / "dev.en").unlink()
    assert "has no dev.en or val.en or valid.en" in refused("train", *flags)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wmt14_translate/de-en", "is not prepared in"),
        ("wmt14_translte/de-en", "did you mean 'wmt14_translate'?"),
        ("wmt14_translate/de-em", "did you mean 'de-en'?"),
    ],
)
def test_a_missing_tfds_dataset_is_rejected(refused, tmp_path, name, message):
    config = tmp_path / "wmt.py"
    config.write_text(
        "from s2s_jax.lab.config.keys import base_config\n"
        "def get_config(schedule='teacher_forcing'):\n"
        "    return base_config('tfds_translation', schedule)\n"
    )
    flags = [f"--config.data.tfds_name={name}", f"--config.data.data_dir={tmp_path}/tfds"]
    line = refused("train", f"--config={config}", f"--workdir={tmp_path}/run", *flags)
    assert message in line


def test_an_invalid_workdir_is_rejected(refused, experiment_file, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    assert "is a file; name a folder" in refused(
        "train", f"--config={experiment_file}", f"--workdir={file}"
    )
    assert f"cannot write to workdir {file}/run: Not a directory" in refused(
        "train", f"--config={experiment_file}", f"--workdir={file}/run"
    )


def test_a_workdir_of_another_config_is_rejected(refused, experiment_file, copied):
    flags = [f"--config={experiment_file}:inverse_sigmoid", f"--workdir={copied}"]
    message = refused("train", *flags, "--config.model.hidden_size=16")
    assert "model.hidden_size is 8 there and 16 here" in message
    message = refused("train", f"--config={experiment_file}:linear", f"--workdir={copied}")
    assert "schedule.name is 'inverse_sigmoid' there and 'linear' here" in message


def test_a_workdir_where_another_process_trains_is_rejected(refused, copied, experiment_file):
    (copied / "result.json").unlink()
    with Checkpoints(copied / "checkpoints"):
        message = refused(
            "train", f"--config={experiment_file}:inverse_sigmoid", "--workdir", copied
        )
    assert f"{copied} is in use by process {os.getpid()}" in message


def test_a_workdir_that_another_process_has_just_created_is_left_to_it(
    s2s, tmp_path, experiment_file
):
    with Checkpoints(tmp_path / "run" / "checkpoints"):
        code, _, err = s2s("train", f"--config={experiment_file}", "--workdir", tmp_path / "run")
    assert code == 2
    assert "is in use by process" in err
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(("command", "expected"), [("train", 75), ("compare", 130)])
def test_an_interruption_is_one_line(s2s, monkeypatch, tmp_path, command, expected):
    def interrupted(options, overrides):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._COMMANDS, command, interrupted)
    arguments = {"train": ["--config=x.py", "--workdir=x"], "compare": [tmp_path]}[command]
    assert s2s(command, *arguments) == (expected, "", "s2s: interrupted\n")


def test_a_terminal_without_unicode_is_not_an_error(monkeypatch, tmp_path):
    monkeypatch.setitem(cli._COMMANDS, "compare", lambda options, overrides: print("─ ä"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    cli.main(["compare", str(tmp_path)])
    sys.stdout.flush()
    assert written.getvalue() == "? ä\n".encode("latin-1")


def test_the_same_command_on_a_finished_run_does_nothing(s2s, experiment_file, copied, snapshot):
    before = snapshot(copied)
    code, out, err = s2s(
        "train", "--config", f"{experiment_file}:inverse_sigmoid", "--workdir", copied
    )
    assert (code, err) == (0, "")
    assert "finished already; nothing to do" in out
    assert f"tensorboard --logdir {copied}" in out
    assert "done" not in out
    assert snapshot(copied) == before


@pytest.mark.parametrize("command", ["evaluate", "decode"])
def test_a_checkpoint_of_another_config_is_rejected(refused, copied, command):
    path = copied / "config.json"
    config = json.loads(path.read_text())
    config["model"]["hidden_size"] = 16
    path.write_text(json.dumps(config))
    message = refused(command, copied)
    assert "was saved with another config than the run's folder has now" in message


def cut_short(checkpoint: Path) -> None:
    for path in (checkpoint / "state").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_truncated_checkpoint_is_rejected(refused, copied, experiment_file, command):
    best = json.loads((copied / "result.json").read_text())["best_step"]
    (copied / "result.json").unlink()
    cut_short(copied / "checkpoints" / "12")
    cut_short(copied / "checkpoints" / str(best))
    train = [f"--config={experiment_file}:inverse_sigmoid", f"--workdir={copied}"]
    message = refused(command, *(train if command == "train" else [copied]))
    assert f"{copied}/checkpoints/{12 if command == 'train' else best} is damaged" in message


def test_a_run_without_a_checkpoint_is_rejected(refused, copied):
    shutil.rmtree(copied / "checkpoints")
    assert "there is no checkpoint in" in refused("evaluate", copied)


def test_the_error_for_an_unknown_split_lists_the_available_ones(refused, copied):
    message = refused("evaluate", copied, "--split=tset")
    assert "no split 'tset'" in message
    assert "train, dev, test" in message


def test_evaluate_prints_and_saves_the_metrics(s2s, copied, finished):
    code, out, err = s2s("evaluate", copied, "--split=test")
    assert code == 0
    assert err == f"best checkpoint: {load_run(copied).origin}\n"
    result = json.loads((finished / "result.json").read_text())
    wanted = {name: value for name, value in result["metrics"].items() if name[:5] == "test/"}
    kept = json.loads((copied / "evaluation_test.json").read_text())
    assert kept["metrics"] == wanted
    assert kept["step"] == result["best_step"]
    assert kept["checkpoint"] == "best"
    printed = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert printed == {name: CATALOG.describe(name).text(value) for name, value in wanted.items()}
    accuracy = wanted["test/own/token_accuracy"]
    assert printed["test/own/token_accuracy"] == f"{100 * accuracy:.2f} %"
    assert printed["test/own/wer"] == f"{wanted['test/own/wer']:.2f} %"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam-size=0"], "--beam-size is 0; it must be in [1, 1024]"),
        (["--max-length=-1"], "--max-length is -1; it must be in [0, 100000]"),
        (["--batch-size=0"], "--batch-size is 0; it must be in [1, 1048576]"),
        (["--beam-size=2", "--length-penalty=nan"], "length"),
        (["--beam-size=2", "--length-penalty=-1"], "length"),
        (["--beam-size=1", "--length-penalty=nan"], "length"),
        (["--input=nowhere.txt"], "cannot read nowhere.txt: No such file"),
        (["--output=nowhere/out.txt"], "nowhere/"),
    ],
)
def test_decode_rejects_what_it_cannot_do(refused, finished, flags, message):
    assert message in refused("decode", finished, *flags, stdin=b"abc\n")


def test_decode_checks_first_that_it_can_write(refused, finished, tmp_path, monkeypatch):
    from s2s_jax.lab import decode as translate

    monkeypatch.setattr(translate, "load_run", lambda *_: pytest.fail("it decodes"))
    source = tmp_path / "in.txt"
    source.write_text("abc\n")
    (tmp_path / "link").symlink_to(source)
    for output, message in (
        (tmp_path / "no" / "out", "No such file or directory"),
        (source / "out", "Not a directory"),
        (tmp_path, "Is a directory"),
        (source, "is the input; name another file"),
        (tmp_path / "link", "is the input; name another file"),
    ):
        assert message in refused("decode", finished, f"--input={source}", f"--output={output}")


def test_decode_rejects_input_that_is_not_utf8(refused, finished, tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes(b"abc\nab\xff\n")
    assert f"{path}, line 2: not UTF-8" in refused("decode", finished, f"--input={path}")
    assert "standard input, line 1: not UTF-8" in refused("decode", finished, stdin=b"\xff")


def test_unknown_characters_are_counted(s2s, finished):
    code, out, err = s2s("decode", finished, stdin="abc\nxay\nzü\n".encode())
    assert code == 0
    assert len(out.splitlines()) == 3
    origin, unknown = err.splitlines()
    assert re.fullmatch(r"best checkpoint: step \d+, trained on tsv, data [0-9a-f]{16}", origin)
    assert unknown == "s2s: 4 unknown symbols in 3 lines were read as <unk>"
    _, _, err = s2s("decode", finished, stdin=b"xab\n")
    assert err.splitlines()[1] == "s2s: 1 unknown symbol in 1 line was read as <unk>"


def test_greedy_is_a_beam_of_one_and_files_work_like_the_standard_streams(s2s, finished, tmp_path):
    lines = b"abc\nfe\n\nabcdef\n"
    code, greedy, err = s2s("decode", finished, stdin=lines)
    assert (code, err.count("\n")) == (0, 1)
    assert greedy.count("\n") == 4
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_bytes(lines)
    code, out, _ = s2s(
        "decode", finished, f"--input={source}", f"--output={target}", "--beam-size=1"
    )
    assert (code, out) == (0, "")
    assert target.read_text() == greedy
    assert s2s("decode", finished, f"--input={source}", f"--output={target}.gz")[0] == 0
    assert gzip.decompress((tmp_path / "out.txt.gz").read_bytes()).decode() == greedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt", "out.txt.gz"]


def test_empty_input_gives_empty_output(s2s, finished):
    assert s2s("decode", finished, stdin=b"")[:2] == (0, "")


def test_a_value_may_follow_after_a_space(s2s, monkeypatch, experiment_file, tmp_path):
    from s2s_jax.lab import experiment

    seen = []

    def train(config, workdir, overrides, **options):
        seen.append((config.to_dict(), workdir, overrides))
        return {"status": "finished"}

    monkeypatch.setattr(experiment, "train_and_evaluate", train)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    front = ["train", "--config", str(experiment_file), "--workdir", str(tmp_path)]
    spaced = [*front, "--config.train.num_steps", "3", "--config.schedule.name", "linear"]
    joined = [*front, "--config.train.num_steps=3", "--config.schedule.name=linear"]
    mixed = ["train", "--config.train.num_steps", "3", *front[1:], "--config.schedule.name=linear"]
    for arguments in (spaced, joined, mixed):
        assert s2s(*arguments)[0] == 0
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][2] == {"train.num_steps": 3, "schedule.name": "linear"}
    assert s2s(*front, "--config.model.dropout", "-1")[0] == 0  # checked by what is replaced here
    assert seen[3][0]["model"]["dropout"] == -1


@pytest.mark.parametrize(
    "command", [(), *((one,) for one in COMMANDS)], ids=lambda one: " ".join(one)
)
def test_there_is_help(s2s, command):
    code, out, err = s2s(*command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: {' '.join(('s2s', *command))}")
    if not command:
        assert all(one in out for one in COMMANDS)


def test_an_internal_error_keeps_its_traceback(s2s, monkeypatch, finished):
    from s2s_jax.lab import experiment

    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(experiment, "load_run", broken)
    with pytest.raises(ValueError, match="a bug"):
        s2s("evaluate", finished)


def process(*arguments, stdin=b"", cwd=None):
    done = subprocess.run(
        [sys.executable, "-m", "s2s_jax.lab.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        timeout=300,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_separate_process_prints_one_line_too(text_flags, tmp_path):
    folder, flags = text_flags
    (folder / "train.de").write_text("eins\n")
    code, out, err = process("train", *flags)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "2 lines" in err
    assert not (tmp_path / "run").exists()


def test_a_separate_process_rejects_a_truncated_checkpoint(copied):
    best = json.loads((copied / "result.json").read_text())["best_step"]
    cut_short(copied / "checkpoints" / str(best))
    code, out, err = process("decode", copied, stdin=b"abc\n")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1, err
    assert "is damaged" in err


def test_decode_without_streams_is_one_line(finished):
    script = f"{sys.executable} -m s2s_jax.lab.cli decode {finished} <&-"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == "s2s: cannot read standard input: Bad file descriptor\n"


def test_the_cache_of_compiled_programs_is_the_users_choice(monkeypatch, tmp_path):
    config: Any = jax.config  # type checkers do not know its options
    theirs = config.jax_compilation_cache_dir
    seconds = config.jax_persistent_cache_min_compile_time_secs
    caches = config.jax_persistent_cache_enable_xla_caches
    config.update("jax_persistent_cache_enable_xla_caches", "all")
    prepare_jax()
    assert config.jax_compilation_cache_dir == theirs
    assert config.jax_persistent_cache_enable_xla_caches == "all"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        prepare_jax()
        assert config.jax_compilation_cache_dir == str(tmp_path / "s2s_jax" / "xla")
        # With any of XLA's own caches, a program's key contains the cache's path.
        assert config.jax_persistent_cache_enable_xla_caches == "none"
    finally:
        config.update("jax_compilation_cache_dir", theirs)
        config.update("jax_persistent_cache_min_compile_time_secs", seconds)
        config.update("jax_persistent_cache_enable_xla_caches", caches)
