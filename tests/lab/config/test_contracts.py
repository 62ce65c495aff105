"""Contracts of the user's own components: what breaks one is named in a line."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from s2s_jax.batch import Batch
from s2s_jax.data.pairs import one_reference
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.config.contracts import (
    check_model,
    check_objective,
    check_optimizer,
    check_schedule,
    check_splits,
)
from s2s_jax.metrics import Mean
from s2s_jax.models.rnn import make_rnn_model
from s2s_jax.schedules import linear

MODEL = make_rnn_model(8, 8, hidden_size=4, embedding_size=4)
PARAMS = jax.eval_shape(lambda: MODEL.init(jax.random.key(0)))
ARRAYS: Any = [
    jax.ShapeDtypeStruct((3, length), dtype) for length in (5, 6) for dtype in (jnp.int32, bool)
]
BATCH = Batch(*ARRAYS)
NUMBERS: Any = [1]
LOSS = Mean(jnp.ones(()), jnp.ones(()))


def fails(*args: Any) -> Any:
    raise KeyError("it")


def exits(*args: Any) -> Any:
    raise SystemExit(3)


def test_what_the_lab_has_keeps_its_contracts():
    check_model("model.name=a:b", [], MODEL, BATCH, 8)
    check_objective(
        "objective.name=a:b", [], lambda *args: (jnp.ones(()), {"loss": LOSS}), {}, BATCH
    )
    check_optimizer("train.optimizer.name=a:b", [], optax.adam(0.1), PARAMS)
    check_schedule("schedule.name=a:b", [], linear(c=0.01))
    check_splits("data.name=a:b", [], {"train": one_reference(["a"], ["b"])})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vocab_size": 9}, "vocab_size is 9; there are 8 targets"),
        (
            {"init": lambda key: {"a": jnp.arange(3)}},
            r"a parameter int32\[3\]; they must be floats",
        ),
        ({"init": lambda key: "a"}, "init fails: TypeError"),
        ({"encode": exits}, r"encode fails: .*it calls sys.exit\(3\)"),
        ({"initial_carry": fails}, "initial_carry fails: .*KeyError: it"),
        (
            {"initial_carry": lambda params, memory, max_length: jnp.ones((4, 3))},
            r"the carry has a leaf float32\[4, 3\]; its first axis must be the batch, here 3",
        ),
        (
            {"decode_step": lambda *args: jnp.ones(3)},
            r"returns float32\[3\]; it must return carry,",
        ),
        (
            {"decode_step": lambda params, memory, carry, token: (token, jnp.ones((3, 8)))},
            r"the carry after decode_step: int32\[3\]; it must be RNNCarry\(",
        ),
        (
            {"decode_sequence": lambda params, memory, tokens: jnp.ones((6, 3, 8))},
            r"of decode_sequence are float32\[6, 3, 8\]; their shape must be \[3, 6, 8\]",
        ),
    ],
)
def test_a_model(changed: dict[str, Any], message: str):
    with pytest.raises(LabError, match=f"^model.name=a:b: .*{message}"):
        check_model("model.name=a:b", [], replace(MODEL, **changed), BATCH, 8)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (jnp.ones(()), r"returns float32\[\]; it must return loss, metric sums"),
        ((jnp.ones(3), {"loss": LOSS}), r"the loss is float32\[3\]; it must be one number"),
        ((jnp.ones(()), [LOSS]), "they must be a dict of Means"),
        ((jnp.ones(()), {"loss": jnp.ones(())}), "they must be a dict of Means"),
        ((jnp.ones(()), {"loss": Mean(jnp.ones(2), jnp.ones(2))}), "it must be of two numbers"),
        ((jnp.ones(()), {"teacher_prob": LOSS}), "'teacher_prob'; the train step adds one"),
        ((jnp.ones(()), {"lss": LOSS}), "no sum called 'loss'; it returns 'lss'"),
    ],
)
def test_an_objective(found: Any, message: str):
    with pytest.raises(LabError, match=f"^objective.name=a:b.*{message}"):
        check_objective("objective.name=a:b", [], lambda *args: found, PARAMS, BATCH)


def test_an_objective_of_other_arguments():
    def of_params(params: Any):
        return params

    objective: Any = of_params
    with pytest.raises(LabError, match=r"the objective fails: TypeError: .* takes 1 positional"):
        check_objective("objective.name=a:b", [], objective, PARAMS, BATCH)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (fails, "update fails: .*KeyError: it"),
        (
            lambda grads, state, params: (grads, (jnp.ones(2),)),
            r"\(float32\[2\],\); it must be \(\)",
        ),
        (lambda grads, state, params: (None, state), "updates: None; it must be {"),
        (lambda grads, state, params: grads, "it must return updates, state"),
    ],
)
def test_an_optimizer(update: Callable[..., Any], message: str):
    optimizer = optax.GradientTransformation(lambda params: (), update)
    with pytest.raises(LabError, match=f"^train.optimizer.name=a:b: .*{message}"):
        check_optimizer("train.optimizer.name=a:b", [], optimizer, PARAMS)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (fails, "fails: .*KeyError: it"),
        (lambda one, two: 1.0, "fails: TypeError: .*missing 1 required"),
        (lambda step: 1.0 if step < 3 else 0.0, "fails: .*TracerBoolConversionError"),
        (lambda step: jnp.ones(3), r"returns float32\[3\]; it must return one number"),
        (lambda step: None, "returns None; it must return one number"),
        (lambda step: "a", "fails: TypeError"),
    ],
)
def test_a_schedule(schedule: Callable[..., Any], message: str):
    with pytest.raises(LabError, match=f"^schedule.name=a:b: the schedule {message}"):
        check_schedule("schedule.name=a:b", [], schedule)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["a"]}, r"returns list as split 'train'; make Pairs, with one_reference"),
        ({"a/b": one_reference(["a"], ["b"])}, "returns a split called 'a/b'; a name is a text"),
        ({3: one_reference(["a"], ["b"])}, "returns a split called 3; a name is a text"),
        ({"dev": one_reference(NUMBERS, ["b"])}, "source of split .dev. is 1 of type int; it must"),
        ({"dev": one_reference(["a"], ["\ud800"])}, r"is '\\ud800', which cannot be written as U"),
    ],
)
def test_splits(splits: Any, message: str):
    with pytest.raises(LabError, match=f"^data.name=a:b.*{message}"):
        check_splits("data.name=a:b", [], splits)
