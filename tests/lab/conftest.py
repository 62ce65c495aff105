"""A tiny experiment, trained once and shared by the lab's tests."""

import contextlib
import io
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from s2s_jax.lab.cli import main
from s2s_jax.lab.config.experiment_file import load_experiment
from s2s_jax.lab.experiment import TrainedRun, load_run, train_and_evaluate

EXPERIMENT = '''"""A tiny experiment."""

from pathlib import Path

from s2s_jax.lab.config.keys import base_config


def get_config(schedule="teacher_forcing"):
    config = base_config("tsv", schedule)
    folder = Path(__file__).parent
    config.data.folder, config.data.data_dir = str(folder / "pairs"), str(folder / "tfds")
    config.data.target_vocabulary = "whitespace"
    config.data.num_buckets = 1
    config.model.cell, config.model.bidirectional = "gru", False
    config.model.hidden_size = 8
    config.model.embedding_size = 8
    config.model.dropout = 0.25
    config.train.num_steps = 12
    config.train.batch_size = 8
    config.train.warmup_steps = 2
    config.train.log_every = 5
    config.eval.every = 6
    config.eval.scores = "phonemes"
    config.eval.num_examples = 3
    return config


def sweep():
    for seed in range(2):
        for schedule in ("teacher_forcing", "linear"):
            yield {"schedule.name": schedule, "seed": seed}
'''


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all worker processes of one session share."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "lab"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def session_environment(session_folder: Path) -> Iterator[None]:
    """Keeps datasets and compiled programs for the session; nothing is in the home folder.

    The variables are for processes that a test starts; this one has imported JAX already.
    """
    cache = str(session_folder / "xla")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(session_folder / "tfds"))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", cache)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")
        options = {
            "jax_compilation_cache_dir": cache,
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            # Otherwise the cache's path is part of its keys.
            "jax_persistent_cache_enable_xla_caches": "none",
        }
        old = {name: getattr(jax.config, name) for name in options}
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
        for name, value in old.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def experiment_file(session_folder: Path) -> Path:
    """The tiny experiment as a config file: 12 steps, logged every 5, evaluated every 6.

    Words of two or three letters, spelled: "bad" -> "B A D"; every second word of dev and test,
    all of three letters, has a second spelling.
    """
    path = session_folder / "tiny.py"
    words = [
        "".join(word) for count in (2, 3) for word in itertools.product("abcdef", repeat=count)
    ]
    held_out = words[-180::4]  # some of the words of three letters
    lines = [f"{word}\t{' '.join(word.upper())}\n" for word in words if word not in held_out]
    files = {"pairs/train.tsv": lines}
    for split, some in (("dev", held_out[:16]), ("test", held_out[16:32])):
        files[f"pairs/{split}.tsv"] = [
            line
            for number, word in enumerate(some)
            for line in (
                f"{word}\t{' '.join(word.upper())}\n",
                *([f"{word}\t{' '.join(word[:2].upper())}\n"] if number % 2 else []),
            )
        ]
    files["tiny.py"] = [EXPERIMENT]
    (session_folder / "pairs").mkdir(exist_ok=True)
    for name, content in files.items():
        temporary = session_folder / f"{name}.{os.getpid()}"
        temporary.write_text("".join(content))
        temporary.replace(session_folder / name)
    return path


@pytest.fixture(scope="session")
def make_config(experiment_file: Path) -> Callable[..., Any]:
    """Makes the tiny experiment's config; overrides by dotted key."""
    get_config = load_experiment(str(experiment_file)).get_config

    def make(schedule: str = "inverse_sigmoid", **overrides: Any) -> Any:
        config = get_config(schedule)
        config.update_from_flattened_dict(overrides)
        return config

    return make


@pytest.fixture(scope="session")
def finished(make_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped, with inverse sigmoid and dropout; its folder is only read."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train_and_evaluate(make_config(), folder, report=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def trained(finished: Path) -> TrainedRun:
    """The finished run, opened."""
    return load_run(finished)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, which the test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, bytes | None]]:
    """All files of a folder with their bytes, and its folders."""

    def take(folder: Path) -> dict[str, bytes | None]:
        return {
            str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
            for path in sorted(folder.rglob("*"))
        }

    return take


@pytest.fixture
def s2s(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process; returns the exit code, stdout and stderr."""

    def run(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code: Any = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([str(one) for one in arguments])
            except SystemExit as ended:
                code = ended.code or 0
        return code, out.getvalue(), err.getvalue()

    return run
