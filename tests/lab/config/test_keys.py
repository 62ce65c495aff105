"""Configs: every key is present and locked; errors are one line."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from s2s_jax import schedules
from s2s_jax.data.catalog import LOADERS, dataset_options
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.experiment_file import load_experiment, sweep_of
from s2s_jax.lab.config.grids import sweep_schedules
from s2s_jax.lab.config.keys import base_config, check_key, flat_keys
from s2s_jax.lab.config.overrides import apply_overrides, parse_config
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.schedules import Schedule

RELIED_ON = {
    "seed": 3,
    "train.num_steps": 7,
    "train.batch_size": 5,
    "train.learning_rate": 0.5,
    "model.hidden_size": 6,
    "model.cell": "gru",
    "model.attention": "dot",
    "schedule.name": "constant",
    "schedule.teacher_prob": 0.5,
    "rollout.coin": "batch",
    "rollout.feed": "argmax",
    "data.folder": "somewhere",
}


@pytest.mark.parametrize("dataset", LOADERS)
def test_every_key_is_present_and_locked(dataset):
    config = base_config(dataset)
    for name, default in dataset_options(dataset).items():
        assert config.data[name] == default
    with pytest.raises(AttributeError):
        config.model.hidden_sise = 8
    with pytest.raises(KeyError):
        config["sed"] = 1
    assert config.is_locked
    assert config.schedule.is_locked


@pytest.mark.parametrize("dataset", LOADERS)
def test_no_dataset_option_replaces_a_general_config_key(dataset):
    common = {"name", "data_dir", "source_vocabulary", "target_vocabulary", "vocabulary_size"}
    common |= {"num_buckets", "max_tokens"}
    assert not common & dataset_options(dataset).keys()


def test_the_keys_that_scripts_rely_on():
    config = apply_overrides(base_config("parallel_text"), RELIED_ON)
    assert RELIED_ON.items() <= flat_keys(config).items()
    make_experiment(config)


def test_overrides_change_a_copy():
    config = base_config("addition")
    changed = apply_overrides(config, {"seed": 5, "schedule.name": "linear", "schedule.k": 0.5})
    assert (changed.seed, changed.schedule.k) == (5, 0.5)
    assert (config.seed, config.schedule.to_dict()) == (0, {"name": "teacher_forcing"})
    assert changed.is_locked
    with pytest.raises(LabError, match=r"seed='x': "):
        apply_overrides(config, {"seed": "x"})
    with pytest.raises(LabError, match=r"does not exist; did you mean 'model.hidden_size'\?"):
        apply_overrides(config, {"model.hiden_size": 1})


def test_a_key_is_checked():
    config = base_config("addition")
    check_key(config, "train.num_steps")
    with pytest.raises(LabError, match=r"train is a section; its keys are train\.average_decay, "):
        check_key(config, "train")
    with pytest.raises(
        LabError, match=r"key zzz does not exist; it must be one of data\.[^.]*, .*, \.\.\.$"
    ):
        check_key(config, "zzz")


def test_in_a_comparison_the_schedule_varies_fastest():
    runs = list(sweep_schedules(["linear", "exponential"], num_seeds=2))
    assert [(one["seed"], one["schedule.name"]) for one in runs] == [
        (0, "linear"),
        (0, "exponential"),
        (1, "linear"),
        (1, "exponential"),
    ]
    assert len(list(sweep_schedules())) == 12


@pytest.mark.parametrize(
    ("name", "values", "schedule"),
    [
        ("teacher_forcing", {}, schedules.teacher_forcing()),
        ("free_running", {}, schedules.free_running()),
        ("constant", {"teacher_prob": 0.25}, schedules.constant(0.25)),
        ("constant", {"teacher_prob": 0.0}, schedules.constant(0.0)),
        ("linear", {"c": 1e-3}, schedules.linear(c=1e-3)),
        (
            "linear",
            {"k": 0.9, "c": 1e-3, "floor": 0.1, "first_step": 5},
            schedules.linear(0.9, c=1e-3, floor=0.1, first_step=5),
        ),
        ("linear", {}, schedules.linear(c=1e-3)),
        ("linear", {"k": 0.5}, schedules.linear(0.5, c=5e-4)),
        ("linear", {"floor": 0.5}, schedules.linear(c=5e-4, floor=0.5)),
        ("linear", {"rising": True}, schedules.linear(c=1e-3, rising=True)),
        ("exponential", {"k": 0.99}, schedules.exponential(0.99)),
        ("exponential", {}, schedules.exponential(num_steps=1000)),
        (
            "exponential",
            {"reach_teacher_prob": 0.5, "reach_step": 300},
            schedules.exponential(reach_teacher_prob=0.5, reach_step=300),
        ),
        ("inverse_sigmoid", {"k": 50.0}, schedules.inverse_sigmoid(50.0)),
        ("inverse_sigmoid", {"k": 50.0, "start": 1.0}, schedules.inverse_sigmoid(50.0, start=1.0)),
        (
            "inverse_sigmoid",
            {"reach_teacher_prob": 0.2, "reach_fraction": 0.5, "first_step": 10},
            schedules.inverse_sigmoid(reach_teacher_prob=0.2, reach_step=500, first_step=10),
        ),
    ],
)
def test_a_schedule_takes_the_papers_parameters_or_a_target(name, values, schedule):
    config = base_config("addition", name)
    assert config.train.num_steps == 1000
    config.schedule.update(values)
    found = cast("partial[Any]", make_experiment(config).schedule)
    assert (found.func, found.keywords) == (schedule.func, schedule.keywords)


def test_a_schedule_reaches_its_target():
    config = base_config("addition", "inverse_sigmoid")
    config.schedule.update(reach_teacher_prob=0.2, reach_fraction=0.25)
    schedule = cast("Schedule", make_experiment(config).schedule)
    assert float(schedule(250)) == pytest.approx(0.2, abs=1e-5)
    config = base_config("addition", "linear")
    config.schedule.floor = 0.25
    schedule = cast("Schedule", make_experiment(config).schedule)
    assert float(schedule(500)) == pytest.approx(0.625)
    assert float(schedule(1000)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("lineer", {}, "schedule.name is 'lineer'; did you mean 'linear'"),
        ("teacher_forcing", {"teacher_prob": 0.5}, "teacher_prob has no effect on teacher_forcing"),
        ("teacher_forcing", {"floor": 0.5}, "schedule.floor has no effect on teacher_forcing"),
        ("free_running", {"first_step": 5}, "schedule.first_step has no effect on free_running"),
        ("constant", {"teacher_prob": 0.5, "k": 1.0}, "schedule.k has no effect on constant"),
        ("constant", {"reach_step": 3}, "schedule.reach_step has no effect on constant"),
        ("exponential", {"c": 0.1}, "schedule.c has no effect on exponential; "),
        ("exponential", {"floo": 0.1}, r"schedule.floo does .*; did you mean 'schedule.floor'\?"),
        ("exponential", {"k": 0.9, "reach_step": 3}, "schedule.k and reach_step both shape"),
        ("linear", {"c": 0.1, "reach_step": 3}, "schedule.c and reach_step both shape"),
        ("linear", {"reach_step": 3, "reach_fraction": 0.5}, "schedule.reach_step and .* both say"),
        ("linear", {"reach_fraction": 0.0}, "reach_fraction must be above 0, not 0.0"),
        ("linear", {"reach_fraction": math.nan}, "reach_fraction must be above 0, not nan"),
        ("linear", {"reach_fraction": math.inf}, "reach_fraction must be above 0, not inf"),
        ("constant", {}, "constant needs schedule.teacher_prob, which is not set"),
        ("constant", {"teacher_prob": 1.5}, r"teacher_prob must be in \[0, 1\], not 1.5"),
        ("constant", {"teacher_prob": math.nan}, r"teacher_prob must be in \[0, 1\], not nan"),
        ("exponential", {"k": 1.0}, r"k must be in \(0, 1\), not 1.0"),
        ("inverse_sigmoid", {"k": 0.5}, r"k must be in \[1, 1e30\]"),
        ("linear", {"c": -1.0}, "c must be"),
        ("linear", {"floor": 1.5}, "floor must be"),
        ("linear", {"first_step": 1000}, "schedule: linear: reach_step must be .*reach_fraction"),
        ("inverse_sigmoid", {"reach_step": 1}, "step must be at least"),
    ],
)
def test_a_schedule_rejects_unusable_parameters(name, values, message):
    overrides = {"schedule.name": name} | {f"schedule.{key}": one for key, one in values.items()}
    with pytest.raises(LabError, match=message):
        make_experiment(apply_overrides(base_config("addition"), overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"seed": -1}, r"seed is -1; it must be in \[0, 4294967295\]"),
        ({"train.num_steps": 0}, "train.num_steps is 0; it must be in"),
        ({"train.batch_size": 0}, r"train.batch_size is 0; it must be in \[1, 1048576\]"),
        ({"train.learning_rate": 0.0}, "train.learning_rate is 0.0"),
        ({"train.learning_rate": math.nan}, "train.learning_rate is nan"),
        ({"train.clip_norm": -1.0}, "train.clip_norm is -1.0"),
        ({"train.clip_norm": math.inf}, "train.clip_norm is inf"),
        ({"train.learning_rate_schedule": "cosin"}, "learning_rate_schedule is 'cosin'"),
        ({"train.log_every": 0}, "train.log_every is 0"),
        ({"eval.every": 0}, "eval.every is 0"),
        ({"eval.max_examples": -1}, "eval.max_examples is -1"),
        ({"eval.scores": "bleau"}, "eval.scores is 'bleau'"),
        ({"eval.scores": "translation", "eval.bleu_tokenize": "zn"}, "eval.bleu_tokenize is 'zn'"),
        ({"eval.bleu_tokenize": "zh"}, "eval.bleu_tokenize=zh has no effect on eval.scores=char"),
        ({"data.num_buckets": 0}, "data.num_buckets is 0"),
        (
            {"model.cell": "gruu"},
            r"model.cell is 'gruu'; did you mean 'gru'\? \(one of lstm, gru\)",
        ),
        ({"model.attention": "luong"}, "model.attention is 'luong'"),
        ({"model.hidden_size": 7}, "model.hidden_size is 7"),
        ({"model.dropout": 1.0}, "model.dropout is 1.0"),
        ({"model.attention": "none", "model.input_feeding": True}, "model.input_feeding"),
        ({"rollout.coin": "tokens"}, "rollout.coin is 'tokens'"),
        ({"rollout.feed": "beam"}, "rollout.feed"),
        ({"rollout.temperature": 0.0}, "rollout.temperature"),
        (
            {"rollout.feed": "argmax", "rollout.top_k": 3},
            "rollout.top_k is 3; feed 'argmax' has none",
        ),
    ],
)
def test_a_value_out_of_range_is_named(overrides, message):
    config = apply_overrides(base_config("addition"), overrides)
    with pytest.raises(LabError, match=message):
        make_experiment(config)


@pytest.fixture
def write(tmp_path):
    def make(content, name="mine.py"):
        path = tmp_path / name
        path.write_text(content)
        return str(path)

    return make


GOOD = """from s2s_jax.lab.config.keys import base_config
def get_config(schedule="teacher_forcing"):
    return base_config("addition", schedule)
"""


def test_flags_are_read(write):
    path = write(GOOD)
    config, overrides, file = parse_config(
        [
            "--config.train.num_steps=7",
            f"--config={path}:linear",
            "--config.model.input_feeding=true",
            "--config.schedule.k=1",
            "--config.model.cell=gru",
        ]
    )
    assert file == f"{path}:linear"
    assert overrides == {
        "train.num_steps": 7,
        "model.input_feeding": True,
        "schedule.k": 1.0,
        "model.cell": "gru",
    }
    assert config.train.num_steps == 7
    assert config.model.input_feeding is True
    assert isinstance(config.schedule.k, float)
    assert config.schedule.name == "linear"
    assert config.is_locked


def test_none_can_be_set_for_keys_that_may_be_none(write):
    path = write(
        GOOD.replace("return base_config(", "config = base_config(").replace(
            "schedule)", '"exponential")'
        )
        + """
    config.schedule.k = 0.9
    config.schedule.reach_step = 3
    return config
"""
    )
    flags = ["--config.schedule.k=None", "--config.schedule.reach_step=5", "--config.seed=1"]
    config, overrides, _ = parse_config([f"--config={path}", *flags])
    assert (config.schedule.k, config.schedule.reach_step) == (None, 5)
    assert overrides == {"schedule.k": None, "schedule.reach_step": 5, "seed": 1}
    # The last of several values counts, and a string stays a string.
    flags = ["--config.schedule.k=None", "--config.schedule.k=2", "--config.data.data_dir=None"]
    config, overrides, _ = parse_config([f"--config={path}", *flags, "--config.schedule.floor=1"])
    assert overrides == {"schedule.k": 2.0, "data.data_dir": "None", "schedule.floor": 1.0}
    config, overrides, _ = parse_config([f"--config={path}", flags[1], flags[0]])
    assert (config.schedule.k, overrides) == (None, {"schedule.k": None})


def test_a_value_that_is_not_utf8_is_rejected(write: Callable[[str], str]) -> None:
    with pytest.raises(LabError, match=r"cell=caf\\udce9 is not UTF-8, as configs have to be"):
        parse_config([f"--config={write(GOOD)}", "--config.model.cell=caf\udce9"])


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.train.num_steps=None", r"^train\.num_steps is None; it must be a whole number$"),
        ("--config.model.input_feeding=None", r"model\.input_feeding"),
        ("--config.train.num_stepss=7", "did you mean 'train.num_steps'"),
        ("--config.eval.num_steps=7", "did you mean 'train.num_steps'"),  # of another section
        ("--config.train=7", "config key train is a section"),
        ("--config.train.num_steps", r"has no value; write --config\.train\.num_steps=VALUE"),
        ("--config.train.num_steps=", r"^train\.num_steps is empty; it must be a whole number$"),
        ("--config.train.num_steps=1.5", r"^train\.num_steps is 1\.5; it must be a whole number$"),
        (
            "--config.train.learning_rate=fast",
            r"^train\.learning_rate is fast; it must be a number$",
        ),
        ("--config.model.input_feeding=maybe", r"model\.input_feeding"),
        ("--config.model.dropout=x", r"^model\.dropout is x; it must be a number$"),
        ("--config.seed=1e400", "^seed is 1e400; it must be a whole number$"),
        ("--config.model.bidirectional=yes", "bidirectional is yes; it must be True or False$"),
        pytest.param(
            "--config.seed=" + 5001 * "1",
            r"^seed is 1{37}\.\.\.; it must be a whole number$",
            id="5001 digits",
        ),
    ],
)
def test_a_wrong_flag_is_named(write, flag, message):
    with pytest.raises(LabError, match=message):
        parse_config([f"--config={write(GOOD)}", flag])


@pytest.mark.parametrize("flags", [[], ["--config=a.py", "--config=b.py"]])
def test_exactly_one_config_must_be_named(flags):
    with pytest.raises(LabError, match="name one config"):
        parse_config(flags)


def test_the_error_for_a_missing_config_file_suggests_a_similar_one(write, tmp_path):
    path = write(GOOD)
    with pytest.raises(LabError, match=r"mime\.py does not exist; did you mean 'mine'\?"):
        parse_config([f"--config={tmp_path}/mime.py"])
    with pytest.raises(LabError, match=r"nowhere/x\.py does not exist"):
        parse_config(["--config=nowhere/x.py"])
    assert load_experiment(path).get_config().data.name == "addition"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import s2s_jax\n\nnope\n", r"line 3: NameError: name 'nope' is not defined"),
        ("def get_config(:\n", r"line 1: invalid syntax"),
        ("import zzz_nowhere\n", r"line 1: ModuleNotFoundError"),
        ("import sys\nsys.exit()\n", r"line 2: it calls sys\.exit\(None\)"),
        ("def get_config(schedule=''):\n    exit('bye')\n", r"line 2: it calls sys\.exit\('bye'\)"),
        ("x = 1\n", r"has no function get_config\(\)"),
        ("get_config = 3\n", r"has no function get_config\(\)"),
        ("def get_config(schedule=''):\n    return {}['a']\n", r"line 2: KeyError: a"),
        ("def get_config(schedule=''):\n    raise OSError('disk')\n", r"line 2: OSError: disk"),
        (
            "from s2s_jax.lab.config.keys import base_config\n"
            "def get_config(schedule=''):\n    return base_config('cmudit')\n",
            r"data\.name is 'cmudit'; did you mean 'cmudict'\?",
        ),
        (
            GOOD.replace("return base_config(", "config = base_config(")
            + "    config.train.steps = 3\n    return config\n",
            r"line 4: AttributeError: .*steps",
        ),
        ("def get_config(schedule=''):\n    return {'seed': 0}\n", "must return a ConfigDict"),
        ("def get_config(schedule=''):\n    pass\n", "must return a ConfigDict"),
    ],
)
def test_a_config_file_that_raises_is_named_with_its_line(write, content, message):
    path = write(content)
    with pytest.raises(LabError, match=message) as refused:
        parse_config([f"--config={path}"])
    assert path in str(refused.value)


def test_the_line_is_named_for_a_relative_path_too(write, tmp_path, monkeypatch):
    write("import s2s_jax\n\nnope\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError, match=r"config file mine\.py cannot be read: line 3: NameError"):
        parse_config(["--config=mine.py"])


def test_a_config_that_lacks_keys_is_rejected(write):
    path = write(
        "from ml_collections import ConfigDict\n"
        "def get_config(schedule=''):\n    return ConfigDict({'seed': 0})\n"
    )
    with pytest.raises(LabError):
        make_experiment(parse_config([f"--config={path}"])[0])


def test_the_sweep_of_a_file(write):
    path = write(GOOD + "\n\ndef sweep():\n    yield {'seed': 1}\n")
    assert sweep_of(f"{path}:linear") == [{"seed": 1}]
    with pytest.raises(LabError, match=r"has no function sweep\(\)"):
        sweep_of(write(GOOD, "other.py"))
