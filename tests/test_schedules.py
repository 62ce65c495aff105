import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s_jax import schedules
from s2s_jax.metrics import Mean
from s2s_jax.schedules import (
    SCHEDULES,
    accuracy,
    constant,
    exponential,
    free_running,
    inverse_sigmoid,
    linear,
    make_schedule,
    teacher_forcing,
)

STEPS = np.array([0, 1, 99, 100, 101, 150, 1000, 5000, 10**5, 10**7, 2**31 - 1])


def at(schedule, step):
    return float(schedule(step))


def logistic(x):
    return 1 / (1 + math.exp(x)) if x < 700 else 0.0


FORMULAS = {  # schedule, its formula of i in double precision, first_step
    "teacher_forcing": (teacher_forcing(), lambda i: 1.0, 0),
    "free_running": (free_running(), lambda i: 0.0, 0),
    "constant": (constant(0.3), lambda i: 0.3, 0),
    "linear": (linear(0.9, c=1e-4), lambda i: max(0, 0.9 - 1e-4 * i), 0),
    "linear_slow": (linear(c=1e-7, first_step=100), lambda i: max(0, 1 - 1e-7 * i), 100),
    "linear_floor": (linear(c=1e-3, floor=0.4), lambda i: max(0.4, 1 - 1e-3 * i), 0),
    "exponential": (
        exponential(0.999, floor=0.1, first_step=100),
        lambda i: max(0.1, 0.999**i),
        100,
    ),
    "exponential_slow": (exponential(1 - 1e-8), lambda i: math.exp(i * math.log1p(-1e-8)), 0),
    "inverse_sigmoid": (
        inverse_sigmoid(20, floor=0.05, first_step=100),
        lambda i: max(0.05, logistic(i / 20 - math.log(20))),
        100,
    ),
    "inverse_sigmoid_slow": (
        inverse_sigmoid(1e6),
        lambda i: logistic(i / 1e6 - math.log(1e6)),
        0,
    ),
    "inverse_sigmoid_start": (
        inverse_sigmoid(500, start=0.8),
        lambda i: 0.8 * 500 / (500 + math.expm1(i / 500)) if i < 3e5 else 0.0,
        0,
    ),
}


RISING = [  # name, parameters of the decay
    ("linear", {"k": 0.9, "c": 1e-4}),
    ("linear", {"reach_teacher_prob": 0.25, "reach_step": 3000, "floor": 0.25}),
    ("linear", {"num_steps": 1000, "first_step": 100}),
    ("exponential", {"k": 0.999, "floor": 0.1, "first_step": 100}),
    ("exponential", {"reach_teacher_prob": 0.5, "reach_step": 1000}),
    ("inverse_sigmoid", {"k": 20, "floor": 0.05, "first_step": 100}),
    ("inverse_sigmoid", {"k": 500, "start": 0.8}),
    ("inverse_sigmoid", {"num_steps": 5000, "reach_fraction": 0.5}),
]


@pytest.mark.parametrize(("name", "parameters"), RISING)
def test_a_rising_schedule_is_1_minus_the_decay_of_the_same_parameters(name, parameters):
    decay = make_schedule(name, **parameters)
    rising = make_schedule(name, **parameters, rising=True)
    assert rising.keywords == decay.keywords | {"rising": True}
    values = jax.jit(jax.vmap(rising))(STEPS.astype(np.int32))
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, 1 - jax.vmap(decay)(STEPS.astype(np.int32)), atol=1e-7)
    assert np.all(np.diff(values) >= 0)
    assert values[0] < values[-1]
    assert np.all((values >= 0) & (values <= 1))


def test_where_a_rising_schedule_starts_and_what_it_reaches():
    assert at(linear(c=0.1, rising=True), 0) == at(exponential(0.5, rising=True), 0) == 0
    assert at(inverse_sigmoid(9, rising=True), 0) == pytest.approx(0.1)
    assert at(inverse_sigmoid(9, start=1.0, rising=True), 0) == 0
    assert at(linear(num_steps=1000, rising=True), 1000) == pytest.approx(1, abs=1e-6)
    for factory in (exponential, inverse_sigmoid):
        assert at(factory(num_steps=1000, rising=True), 1000) == pytest.approx(0.95)
        assert at(factory(num_steps=1000, floor=0.2, rising=True), 10**6) == pytest.approx(0.8)


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_with_a_traced_step_up_to_the_last_int32(name):
    schedule, formula, first_step = FORMULAS[name]
    traced = jax.jit(jax.vmap(schedule))(STEPS.astype(np.int32))
    assert traced.dtype == jnp.float32
    expected = [formula(max(int(step) - first_step, 0)) for step in STEPS]
    np.testing.assert_allclose(traced, expected, atol=2e-6)
    assert np.all((traced >= 0) & (traced <= 1))
    scalar = schedule(150)
    assert scalar.shape == ()
    assert scalar.dtype == jnp.float32


def test_one_program_serves_every_step():
    num_traces = 0

    def traced(step):
        nonlocal num_traces
        num_traces += 1
        return inverse_sigmoid(100)(step)

    jitted = jax.jit(traced)
    values = [float(jitted(jnp.int32(step))) for step in (0, 460, 10**7)]
    assert num_traces == 1
    assert values[0] > 0.99
    assert values[2] == 0


@pytest.mark.parametrize(
    "schedule",
    [
        linear(0.9, c=1e-2, first_step=1000),
        exponential(0.9, first_step=1000),
        inverse_sigmoid(5, first_step=1000),
        inverse_sigmoid(5, first_step=1000, start=0.9),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint32])
def test_stays_at_its_start_through_first_step(schedule, dtype):
    values = [at(schedule, jnp.asarray(step, dtype)) for step in (0, 999, 1000, 1001)]
    assert values[0] == values[1] == values[2] > values[3]


def test_the_paper_inverse_sigmoid_at_known_points():
    schedule = inverse_sigmoid(500)
    assert at(schedule, 0) == pytest.approx(500 / 501, abs=1e-6)
    assert at(schedule, 3107) == pytest.approx(0.5, abs=1e-3)
    assert at(schedule, 4206) == pytest.approx(0.1, abs=1e-3)
    slope = (at(schedule, 3117) - at(schedule, 3097)) / 20
    assert slope == pytest.approx(-1 / (4 * 500), rel=1e-2)


def test_the_start_is_exact_where_the_formula_says_so():
    assert at(teacher_forcing(), 5) == at(exponential(0.5), 0) == at(linear(c=0.1), 0) == 1
    assert at(inverse_sigmoid(7, start=1.0), 0) == 1
    assert at(free_running(), 5) == 0


@settings(max_examples=40, deadline=None)
@given(
    teacher_prob=st.floats(0.001, 0.999),
    num_steps=st.integers(10, 10**7),
    first_step=st.integers(0, 10**5),
    start=st.none() | st.floats(0.9991, 1.0),
)
def test_reaching_reaches(teacher_prob, num_steps, first_step, start):
    step = first_step + num_steps
    for schedule in (
        linear(reach_teacher_prob=teacher_prob, reach_step=step, first_step=first_step),
        exponential(reach_teacher_prob=teacher_prob, reach_step=step, first_step=first_step),
        inverse_sigmoid(
            reach_teacher_prob=teacher_prob, reach_step=step, first_step=first_step, start=start
        ),
    ):
        assert at(schedule, step) == pytest.approx(teacher_prob, abs=1e-5)
        assert at(schedule, first_step) >= teacher_prob


def test_reaching_finds_the_parameter():
    assert linear(reach_teacher_prob=0.2, reach_step=8000).keywords["c"] == pytest.approx(1e-4)
    assert exponential(reach_teacher_prob=0.25, reach_step=2).keywords["k"] == pytest.approx(0.5)
    solved = inverse_sigmoid(reach_teacher_prob=0.5, reach_step=1100, first_step=100).keywords["k"]
    assert solved * math.log(solved) == pytest.approx(1000)


def test_a_training_is_reached_at_its_end_or_at_a_fraction():
    assert at(linear(num_steps=1000), 1000) == pytest.approx(0.0, abs=1e-6)
    assert at(linear(num_steps=1000), 500) == pytest.approx(0.5)
    assert at(exponential(num_steps=1000, reach_fraction=0.5), 500) == pytest.approx(0.05)
    assert at(inverse_sigmoid(num_steps=1000, floor=0.2), 1000) == pytest.approx(0.2)


def test_a_floor_equal_to_the_target_stops_there():
    for factory in (linear, exponential, inverse_sigmoid):
        schedule = factory(reach_teacher_prob=0.25, reach_step=1000, floor=0.25)
        assert at(schedule, 990) > 0.25
        assert at(schedule, 10**6) == 0.25


def test_the_first_step_that_the_inverse_sigmoid_can_reach_is_named_and_works():
    with pytest.raises(
        ValueError, match=r"step must be at least 105 for reach_teacher_prob=0.01 .*not 1"
    ):
        inverse_sigmoid(reach_teacher_prob=0.01, reach_step=104, first_step=100)
    schedule = inverse_sigmoid(reach_teacher_prob=0.01, reach_step=105, first_step=100)
    assert schedule.keywords["k"] >= 1
    assert at(schedule, 105) == pytest.approx(0.01, abs=1e-6)


NAN = math.nan
REFUSED = [  # name, parameters, what the message says
    ("constant", {"teacher_prob": 1.5}, r"constant: teacher_prob must be in \[0, 1\], not 1.5"),
    ("constant", {"teacher_prob": -1e-9}, "teacher_prob must be"),
    ("constant", {"teacher_prob": NAN}, "teacher_prob must be .*not nan"),
    ("constant", {"teacher_prob": "0.5"}, "teacher_prob must be .*not '0.5'"),
    ("constant", {"teacher_prob": None}, "teacher_prob must be .*not None"),
    ("linear", {"c": 0.0}, r"c must be in \(0, 1e30\], not 0.0"),
    ("linear", {"c": -0.1}, "c must be"),
    ("linear", {"c": NAN}, "c must be"),
    ("linear", {"c": math.inf}, "c must be"),
    ("linear", {"c": 1e39}, "c must be"),  # infinite in float32: NaN at step 0
    ("linear", {"c": 0.1, "k": 1.1}, r"k must be in \(0, 1\], not 1.1"),
    ("linear", {"c": 0.1, "k": 0.0}, "k must be"),
    ("linear", {"c": 0.1, "k": NAN}, "k must be"),
    ("linear", {"c": 0.1, "k": 0.5, "floor": 0.6}, r"floor must be in \[0, 0.5\] .*, not 0.6"),
    ("linear", {"c": 0.1, "floor": 1.0}, r"floor must be in \[0, 1\), not 1.0"),
    ("exponential", {"k": 1.0}, r"k must be in \(0, 1\), not 1.0"),
    ("exponential", {"k": 0.0}, "k must be"),
    ("exponential", {"k": NAN}, "k must be"),
    ("exponential", {"k": 0.9, "floor": -0.1}, r"floor must be in \[0, 1\), not -0.1"),
    ("exponential", {"k": 0.9, "floor": NAN}, "floor must be"),
    (
        "exponential",
        {"k": 0.9, "first_step": -1},
        r"first_step must be an integer in \[0, .*not -1",
    ),
    ("exponential", {"k": 0.9, "first_step": 1.5}, "first_step must be .*not 1.5"),
    ("exponential", {"k": 0.9, "first_step": NAN}, "first_step must be .*not nan"),
    ("exponential", {"k": 0.9, "first_step": 2**31}, "first_step must be"),
    ("inverse_sigmoid", {"k": 0.99}, r"k must be in \[1, 1e30\], not 0.99"),
    ("inverse_sigmoid", {"k": NAN}, "k must be"),
    ("inverse_sigmoid", {"k": math.inf}, "k must be"),
    ("inverse_sigmoid", {"k": 1e39}, "k must be"),
    ("inverse_sigmoid", {"k": 10**400}, "k must be"),
    ("inverse_sigmoid", {"k": 1, "floor": 0.6}, r"floor must be in \[0, 0.5\]"),
    ("inverse_sigmoid", {"k": 9, "start": 0.0}, r"start must be in \(0, 1\], not 0.0"),
    ("inverse_sigmoid", {"k": 9, "start": 1.1}, "start must be"),
    ("linear", {"reach_teacher_prob": 1.0, "reach_step": 9}, r"teacher_prob must be in \[0, 1\)"),
    (
        "linear",
        {"reach_teacher_prob": 0.1, "reach_step": 9, "floor": 0.2},
        "teacher_prob must be in",
    ),
    ("linear", {"reach_teacher_prob": 0.1, "reach_step": 0}, r"step must be an integer in \[1, "),
    ("linear", {"reach_teacher_prob": 0.1, "reach_step": 5, "first_step": 5}, r"step must .*\[6, "),
    (
        "exponential",
        {"reach_teacher_prob": 0.0, "reach_step": 9},
        r"teacher_prob must be in \(0, 1\)",
    ),
    ("exponential", {"reach_teacher_prob": NAN, "reach_step": 9}, "teacher_prob must be"),
    ("inverse_sigmoid", {"reach_teacher_prob": 0.0, "reach_step": 9}, "teacher_prob must be"),
    ("inverse_sigmoid", {"reach_teacher_prob": 0.5, "reach_step": 9.5}, "step must be an integer"),
    (
        "inverse_sigmoid",
        {"reach_teacher_prob": 0.5, "reach_step": 9, "start": 0.5},
        r"teacher_prob must be in \(0, 0.5\), not 0.5",
    ),
    ("linear", {"c": 0.1, "rising": 1}, "linear: rising must be True or False, not 1"),
    ("exponential", {"k": 0.9, "rising": "yes"}, "rising must be True or False, not 'yes'"),
    ("inverse_sigmoid", {"k": 9, "rising": None}, "rising must be True or False, not None"),
    ("constant", {"teacher_prob": 0.5, "rising": True}, "constant has no parameter 'rising'"),
    ("inverse_sigmoid", {}, "inverse_sigmoid needs k, or reach_step, or num_steps"),
    ("linear", {}, "linear needs c, or reach_step, or num_steps"),
    ("linear", {"reach_fraction": 0.5}, "linear needs c, or reach_step, or num_steps"),
    ("linear", {"num_steps": 9, "reach_fraction": 0.0}, "reach_fraction must be above 0, not 0.0"),
    ("linear", {"c": 0.1, "reach_step": 9}, "c and reach_step both shape linear; set one of them"),
    ("exponential", {"k": 0.9, "reach_teacher_prob": 0.1}, "k and reach_teacher_prob both shape"),
    ("exponential", {"num_steps": 9, "reach_step": 9, "reach_fraction": 1.0}, "both say when"),
    ("inverse_sigmoid", {"num_steps": 2}, r"reach_step must be at least 3 .*reach_fraction of num"),
    ("constant", {}, r"constant needs the parameter 'teacher_prob' \(parameters: teacher_prob"),
    ("linear", {"slope": 0.1}, r"linear has no parameter 'slope'; it must be one of k, c, reach"),
    ("teacher_forcing", {"k": 1}, r"teacher_forcing has no parameter 'k'; there is none"),
    ("inverse_sigmiod", {}, "schedule is 'inverse_sigmiod'; did you mean 'inverse_sigmoid'"),
    ("Linear", {}, "did you mean 'linear'"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), REFUSED)
def test_invalid_parameters_are_refused_by_name_in_one_line(name, parameters, message):
    with pytest.raises(ValueError, match=message) as error:
        make_schedule(name, **parameters)
    assert "\n" not in str(error.value)


def test_every_schedule_is_made_by_its_name_prints_and_pickles():
    needed = {"teacher_prob": 0.25, "k": 0.99, "c": 0.01}
    for name, factory in SCHEDULES.items():
        assert getattr(schedules, name) is factory
        parameters = {
            parameter: value
            for parameter, value in needed.items()
            if parameter in factory.__annotations__
        }
        if name == "inverse_sigmoid":
            parameters["k"] = 10
        schedule = make_schedule(name, **parameters)
        assert at(pickle.loads(pickle.dumps(schedule)), 40) == at(schedule, 40)
        assert all(parameter in str(schedule) for parameter in schedule.keywords)


def follow(schedule, rights, tokens=8.0):
    """The teacher_prob before each update, and after the last one."""
    state, found = schedule.init(), []
    for step, right in enumerate(rights):
        found.append(float(schedule.teacher_prob(step, state)))
        state = jax.jit(schedule.update)(state, {"token_accuracy": Mean(right, tokens)})
    return [*found, float(schedule.teacher_prob(len(rights), state))]


def test_accuracy_follows_the_weighted_accuracy_of_earlier_updates():
    rights, decay = [0.0, 2.0, 8.0, 5.0], 0.75
    expected = [1.0]
    for n in range(1, 5):
        weights = [decay ** (n - i) for i in range(1, n + 1)]
        moving = sum(w * right for w, right in zip(weights, rights, strict=False)) / sum(weights)
        expected.append(max(0.3, 1 - 1.5 * moving / 8))
    assert follow(accuracy(scale=1.5, decay=decay, floor=0.3), rights) == pytest.approx(expected)
    assert follow(accuracy(decay=0.0), [2.0, 8.0]) == [1.0, 0.75, 0.0]
    assert follow(accuracy(), [0.0, 0.0], tokens=0.0) == [1.0] * 3


def test_accuracy_weighs_updates_by_their_tokens():
    schedule = accuracy(decay=0.5)
    state = schedule.update(schedule.init(), {"token_accuracy": Mean(30.0, 60.0)})
    state = schedule.update(state, {"token_accuracy": Mean(10.0, 10.0)})
    assert float(schedule.teacher_prob(2, state)) == pytest.approx(1 - 25 / 40)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scale": 0.0}, r"accuracy: scale must be in \(0, 1e30\], not 0"),
        ({"scale": math.inf}, "scale must be in"),
        ({"decay": 1.0}, r"accuracy: decay must be in \[0, 1\), not 1.0"),
        ({"decay": math.nan}, "decay must be in"),
        ({"floor": 1.0}, r"accuracy: floor must be in \[0, 1\), not 1.0"),
        ({"floor": "high"}, "floor must be in"),
    ],
)
def test_accuracy_rejects_values_out_of_range(parameters, message):
    with pytest.raises(ValueError, match=message):
        accuracy(**parameters)


def test_accuracy_needs_an_objective_that_measures_it():
    schedule = accuracy()
    with pytest.raises(ValueError, match="'token_accuracy', which this objective does not have"):
        schedule.update(schedule.init(), {"cost": Mean(1.0, 2.0)})
    with pytest.raises(ValueError, match=r"none of the step alone; call accuracy\(\)"):
        make_schedule("accuracy")


def test_accuracy_can_be_pickled():
    rights = [1.0, 3.0]
    copy = pickle.loads(pickle.dumps(accuracy(scale=0.5)))
    assert follow(copy, rights) == follow(accuracy(scale=0.5), rights)
