"""Components by name: options come from signatures, and invalid components are reported."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import jax.numpy as jnp
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.components import KINDS, Option, find_component
from s2s_jax.lab.config.keys import base_config, check_complete, config_files, flat_keys
from s2s_jax.lab.config.overrides import apply_overrides
from s2s_jax.lab.config.user_code import put_on_path
from s2s_jax.lab.training.build import make_experiment
from s2s_jax.schedules import Schedule

MINE = """
from typing import Literal, Optional

def make(*, size=16, rate: float | None = None, kind: Literal["a", "b"] = "a",
         width: Optional[int] = None, shape=(1, 2), is_on=False, num_steps, name_of=None):
    return lambda step: 1.0

def needs(*, low: float): return lambda step: low
def refuses(*, size=16): raise ValueError(f"size is {size}; it must be odd")
def fails(*, size=16):
    nothing = []
    return nothing[size]
def returns_nothing(): return None
def takes_a_list(*, sizes=[1]): return None
def takes_a_list_inside(*, sizes=(1, [2])): return None
def takes_infinity(*, size=float("inf")): return None
def exits(*, size=16): raise SystemExit(3)
def parses(*, size=16): return __import__("json").loads("{")
def converts(*, size=16): return int("x")
def takes_a_name(*, name="x"): return None
def takes_two(one, two): return None
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a module `mine` that an experiment next to it could name."""

    def write(content: str) -> Path:
        (tmp_path / "mine.py").write_text(content)
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        put_on_path(tmp_path)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("section", "name"), [(one, name) for one, kind in KINDS.items() for name in kind.built_in]
)
def test_a_config_holds_every_option_of_every_built_in(section, name):
    config = apply_overrides(base_config("copy"), {f"{section}.name": name})
    check_complete(config)
    keys = flat_keys(config)
    assert keys[f"{section}.name"] == name
    for option, about in find_component(section, name).options.items():
        assert keys[f"{section}.{option}"] == about.default


def test_options_are_the_arguments_that_the_lab_does_not_pass(mine):
    mine(MINE)
    component = find_component("schedule", "mine:make")
    assert component.options == {
        "size": Option(16, int),
        "rate": Option(None, float),
        "kind": Option("a", str),
        "width": Option(None, int),
        "shape": Option((1, 2), tuple),
        "is_on": Option(False, bool),
        "name_of": Option(None, str),
    }
    assert component.supplied == {"num_steps": "train.num_steps"}
    config = apply_overrides(
        base_config("copy", "mine:make"), {"schedule.rate": 0.5, "schedule.width": None}
    )
    assert (config.schedule.rate, config.schedule.width) == (0.5, None)
    make_experiment(config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:make", "there is no module nowhere in the environment or next to the experiment"),
        ("mne:make", r"there is no module mne .*; did you mean 'mine'\?"),
        ("mine:mke", r"mine has no 'mke'; did you mean 'make'\?"),
        ("mine:number", "is 'mine:number', which is not a function"),
        ("mine.py:make", "name the module, not its file: mine:make"),
        ("mine:", "write module:function"),
        ("linaer", r"did you mean 'linear'\? .*; name your own as module:function"),
        (
            "mine:takes_a_list",
            r"the default of sizes is \[1\] of type list; a config holds None",
        ),
        (
            "mine:takes_a_list_inside",
            r"sizes is \(1, \[2\]\) with \[2\] of type list",
        ),
        ("mine:takes_infinity", "the default of size is inf; a config holds None, bools, finite"),
        (
            "mine:exits",
            r"mine:exits fails: mine.py, line 17: it calls sys.exit\(3\)",
        ),
        (
            "mine:parses",
            "mine:parses fails: mine.py, line 18: JSONDecodeError: Expect",
        ),
        ("mine:converts", r"^schedule: invalid literal .* 'x' \(mine.py, line 19\)$"),
        ("mine:takes_a_name", "no option can be called name; rename the argument"),
        ("mine:needs", "mine:needs needs schedule.low, which is not set"),
        ("mine:refuses", "^schedule.size is 16; it must be odd$"),
        ("mine:fails", r"^schedule.name=mine:fails fails: mine.py, line 12: IndexError: list"),
        ("mine:returns_nothing", "returns NoneType; it must return a schedule, a function of"),
    ],
)
def test_an_invalid_component_is_reported_in_one_line(mine, name, message):
    mine(MINE)
    with pytest.raises(LabError, match=message):
        make_experiment(base_config("copy", name))


def test_a_function_with_too_few_arguments_or_a_wrong_result_is_rejected(mine):
    mine(MINE)
    with pytest.raises(LabError, match="takes 0 arguments by position; it must take 2"):
        base_config("copy", model="mine:make")
    with pytest.raises(LabError, match=r"model.name=mine:takes_two returns NoneType; it must"):
        make_experiment(base_config("copy", model="mine:takes_two"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def make(:\n", r"mine cannot be imported: mine.py, line 1: SyntaxError"),
        ("\n1 / 0\n", "mine cannot be imported: mine.py, line 2: ZeroDivisionError"),
        ("import not_there\n", "mine cannot be imported: .*No module named 'not_there'"),
        ("raise SystemExit(3)\n", r"mine.py, line 1: it calls sys.exit\(3\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(mine, content, message):
    mine(content)
    with pytest.raises(LabError, match=message):
        base_config("copy", "mine:make")


def test_options_of_an_own_component_have_no_bounds_of_built_in_ones(mine):
    mine(
        "from s2s_jax.models.tabular import make_tabular_model\n"
        "def make(source, target, *, length=100, dropout='none', hidden_size: int | None = None):\n"
        "    return make_tabular_model(source, target)\n"
    )
    config = base_config("copy", model="mine:make", optimizer="optax:sgd")  # its momentum is None
    make_experiment(config)
    with pytest.raises(LabError, match=r"data.num_buckets is 0; it must be in"):
        make_experiment(apply_overrides(config, {"data.num_buckets": 0}))


def test_a_number_may_be_annotated_as_an_array_too():
    config = base_config("copy", "optax:linear_schedule")
    values = {"init_value": 1.0, "end_value": 0.5, "transition_steps": 4}
    flags = {f"schedule.{name}": value for name, value in values.items()}
    schedule = cast("Schedule", make_experiment(apply_overrides(config, flags)).schedule)
    assert float(schedule(2)) == 0.75


def test_a_tuple_may_mix_types_and_its_items_are_checked(mine):
    mine("def make(*, mixed=(1, 'a'), rates=(1, 0.5)): return lambda step: 1.0\n")
    config = base_config("copy", "mine:make")
    make_experiment(apply_overrides(config, {"schedule.mixed": (None, 2.0, "b")}))
    make_experiment(apply_overrides(config, {"schedule.rates": (2, 0.25, 1)}))
    with pytest.raises(LabError, match=r"rates is \('a',\), not of items like those of \(1, 0.5\)"):
        make_experiment(apply_overrides(config, {"schedule.rates": ("a",)}))
    with pytest.raises(LabError, match=r"schedule.mixed is .*nan,.* with nan; a config holds"):
        make_experiment(apply_overrides(config, {"schedule.mixed": (float("nan"),)}))


def test_the_files_of_a_config_include_the_modules_that_it_names(mine):
    folder = mine(
        "from functools import partial\nfrom other import make\nother = partial(make, low=0.5)\n"
    )
    (folder / "other.py").write_text("def make(*, low=1.0): return lambda step: low\n")
    for name in ("mine:make", "mine:other"):
        assert list(config_files(base_config("copy", name))) == ["mine.py", "other.py"]


def test_another_component_brings_its_own_keys_and_keeps_shared_ones(mine):
    mine("def make(source_size, target_size, *, hidden_size=4, depth=1, dropout='none'): ...\n")
    config = base_config("copy")
    config.model.update(hidden_size=64, embedding_size=8, dropout=0.5)
    changed = apply_overrides(config, {"model.name": "mine:make", "model.depth": 3})
    assert changed.model.to_dict() == {
        "name": "mine:make",
        "hidden_size": 64,  # was set, and exists there, too
        "depth": 3,
        "dropout": "none",  # has another type
    }
    with pytest.raises(LabError, match="embedding_size has no effect on mine:make; did you"):
        apply_overrides(config, {"model.name": "mine:make", "model.embedding_size": 8})


def test_an_option_added_or_removed_later_is_named(mine):
    mine("def make(*, size=1): return lambda step: 1.0\n")
    config = base_config("copy", "mine:make")
    mine("def make(*, width=1): return lambda step: 1.0\n")
    with pytest.raises(LabError, match=r"the config has no schedule.width, an option of mine:"):
        make_experiment(config)


def test_rollout_settings_that_an_objective_does_not_take_are_rejected(mine):
    mine(
        "def make(model, *, rollout): return lambda *_: (rollout.coin, {})\n"
        "def plain(model): return lambda *_: (0.0, {})\n"
    )
    config = base_config("copy", objective="mine:make")
    assert find_component("objective", "mine:make").supplied == {"rollout": "rollout"}
    make_experiment(apply_overrides(config, {"rollout.coin": "sequence"}))
    plain = base_config("copy", objective="mine:plain")
    make_experiment(plain)
    for key, value in (("rollout.feed", "argmax"), ("train.label_smoothing", 0.1)):
        with pytest.raises(LabError, match=rf"{key} has no effect on mine:plain, which has no a"):
            make_experiment(apply_overrides(plain, {key: value}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("symbol", r"did you mean 'symbols'\? .*; name your own as module:name"),
        ("mine:number", "eval.scores=mine:number is of type int, not a Scorer"),
        ("mine:takes_two", r"eval.scores=mine:takes_two fails: TypeError: .*missing 2 required"),
        ("mine:fails", r"eval.scores=mine:fails fails: mine.py, line 12: IndexError"),
        ("mine:exits", r"eval.scores=mine:exits fails: mine.py, line 17: it calls sys.exit\(3\)"),
        ("mine:scores", r"mine has no 'scores'"),
    ],
)
def test_something_that_is_not_a_scorer_is_rejected(mine, name, message):
    mine(MINE)
    config = apply_overrides(base_config("copy"), {"eval.scores": name})
    with pytest.raises(LabError, match=message):
        make_experiment(config)


def test_optax_is_a_module_like_any_other():
    config = base_config("copy", optimizer="optax:novograd")
    config.train.optimizer.b1 = 0.5
    optimizer = make_experiment(config).make_optimizer()
    assert optimizer.init(jnp.ones(3))
