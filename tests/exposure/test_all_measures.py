from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import EOS
from s2s_jax.exposure import (
    GROUPS,
    Measure,
    accumulated_error,
    all_measures,
    make_observe_step,
    make_read_states,
    measure_exposure,
    measure_known_truth,
    measure_observations,
    observations,
    observe,
    tabulate,
)
from s2s_jax.models.interface import Seq2SeqModel

NAMES = set(
    """
gold/token_accuracy gold/token_accuracy_macro gold/accuracy_by_position gold/nll
gold/nll_by_position gold/exact_match gold/repetition
own/token_accuracy own/token_accuracy_macro own/accuracy_by_position own/exact_match own/repetition
own/hazard own/hazard_by_position own/post_error_rate own/post_error_rate_by_distance
own/amplification own/length_ratio own/no_eos_rate
gap gap_macro gap_by_position
recovery/uniform/nll_increase_by_distance recovery/uniform/half_life
recovery/plausible/nll_increase_by_distance recovery/plausible/half_life
edit_oracle/gold_cost edit_oracle/own_cost edit_oracle/regret
edit_oracle/accumulated_by_length edit_oracle/excess_percent_by_length
states/mmd_by_position states/p_value_by_position
""".split()  # noqa: SIM905
)

NEXT = np.array([4, 4, 4, 4, 5, 6, 7, EOS])
"""The model's output: 4 5 6 7 EOS."""

RIGHT, EARLY, SKIPPED = [4, 5, 6, 7, EOS], [4, 5, EOS], [4, 6, 7, EOS]


@pytest.fixture(scope="module")
def model() -> Seq2SeqModel:
    """Logits looked up by the last token, which is also its carry."""
    return Seq2SeqModel(
        init=lambda key: jnp.zeros((8, 8)),
        encode=lambda params, source, source_mask, dropout_key: source[:, 0],
        initial_carry=lambda params, memory, max_length: jnp.zeros((len(memory), 8)),
        decode_step=lambda params, memory, carry, token: (jax.nn.one_hot(token, 8), params[token]),
        decode_sequence=lambda params, memory, tokens: params[tokens],
        vocab_size=8,
    )


@pytest.fixture(scope="module")
def batches(make_batch) -> Any:
    """20 exact, 10 that end early, 10 that skip a token; the last batch is filled up."""
    targets = [RIGHT, EARLY, RIGHT, SKIPPED] * 10
    found = []
    for start in range(0, 40, 12):
        some = targets[start : start + 12]
        indices = np.append(np.arange(start, start + len(some)), [-1] * (12 - len(some)))
        batch = make_batch([[4]] * len(some), some, time=5, num_rows=12)
        found.append((indices.astype(int), batch))
    return found


@pytest.fixture(scope="module")
def found(model, batches) -> dict[str, Measure]:
    return measure_some(model, batches)


def measure_some(model: Any, batches: Any, **options: Any) -> dict[str, Measure]:
    table = 3.0 * jnp.eye(8)[NEXT]
    options = {
        "max_length": 8,
        "min_count": 10,
        "num_resamples": 100,
        "num_permutations": 99,
    } | options
    return measure_exposure(model, table, batches, jax.random.key(0), **options)


def test_every_measure_is_there(found):
    assert set(found) == NAMES
    for name, one in found.items():
        assert isinstance(one, Measure), name
        assert one.value.dtype == np.float64, name
        assert np.issubdtype(one.n.dtype, np.integer), name
        if name != "states/p_value_by_position":
            inside = (one.low <= one.value) & (one.value <= one.high)
            assert np.all(inside | np.isnan(one.low) | np.isnan(one.value)), name


def test_values_counted_by_hand(found):
    right, early, skipped = 20, 10, 10
    tokens = 5 * right + 3 * early + 4 * skipped
    # Early: own 2 of 3, gold 2 of 3. Skipped: own 1 of 4 (4 | 6 7 EOS), gold 3 of 4.
    expected = {
        "gold/token_accuracy": (5 * right + 2 * early + 3 * skipped) / tokens,
        "own/token_accuracy": (5 * right + 2 * early + 1 * skipped) / tokens,
        "gap": 2 * skipped / tokens,
        "gap_macro": (2 / 4) * skipped / 40,
        "gold/exact_match": 0.5,
        "own/exact_match": 0.5,
        "own/no_eos_rate": 0,
        "own/length_ratio": 4 * 40 / (4 * right + 2 * early + 3 * skipped),
        "own/hazard": 20 / (5 * right + 3 * early + 2 * skipped),
        "own/post_error_rate": 1,
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value), name
        assert found[name].n == 40 if name != "own/post_error_rate" else 10, name
    gap = found["gap_by_position"]
    assert gap.value == pytest.approx([0, 0, 10 / 40, 10 / 30, 0])
    assert gap.n.tolist() == [40, 40, 40, 30, 20]
    assert found["own/hazard_by_position"].value == pytest.approx([0, 10 / 40, 10 / 30, 0, 0])
    wrong, sure = np.log(np.exp(3) + 7), np.log(np.exp(3) + 7) - 3
    # Errors with gold prefixes: 6 for EOS where it ends early, 5 for 6 where a token is skipped.
    nll = (wrong * 20 + sure * (tokens - 20)) / tokens
    assert found["gold/nll"].value == pytest.approx(nll, abs=1e-5)
    assert found["edit_oracle/gold_cost"].value == pytest.approx(nll, abs=1e-5)
    assert found["edit_oracle/excess_percent_by_length"].value[0] == pytest.approx(0, abs=1e-4)
    # The model only knows the last token: one step later, a corrupted one is forgotten.
    assert found["recovery/uniform/nll_increase_by_distance"].value[1:] == pytest.approx(0)
    assert found["recovery/uniform/half_life"].value == pytest.approx(1.5)
    assert found["states/p_value_by_position"].value[0] == 1
    assert found["own/repetition"].value.tolist() == [0, 0, 0, 0]
    assert found["gold/repetition"].n.tolist() == [40, 40, 30, 20]


def test_a_group_computed_alone_has_the_same_values(model, batches, found):
    names = []
    for group in GROUPS:
        alone = measure_some(model, batches, groups=[group])
        names += alone
        for name, one in alone.items():
            np.testing.assert_allclose(one.value, found[name].value, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(one.high, found[name].high, atol=1e-5, err_msg=name)
    assert sorted(names) == sorted(NAMES)
    some = measure_some(model, batches, groups=("outputs", "states"))
    assert {name.split("/")[0] for name in some} == {"gold", "own", "states"}


@pytest.mark.parametrize(
    ("group", "needless"),
    [
        ("positions", {"sample", "corrupt", "_read", "share"}),
        ("outputs", {"sample", "corrupt", "_read", "exposure_gap"}),
        ("recovery", {"sample", "_read", "exposure_gap", "share"}),
        ("edit_oracle", {"corrupt", "_read", "exposure_gap", "share"}),
        ("states", {"corrupt", "edit_oracle_regret", "exposure_gap", "share"}),
    ],
)
def test_what_no_requested_group_needs_is_not_computed(
    model, batches, monkeypatch, group, needless
):
    called = set()

    def spy(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: called.add(name) or function(*a, **k))

    for name in ("sample", "corrupt", "_read"):
        spy(observations, name)
    for name in ("exposure_gap", "self_recovery", "edit_oracle_regret", "state_divergence"):
        spy(all_measures, name)
    spy(all_measures.outputs, "share")
    measure_some(model, batches, groups=[group])
    assert not called & needless
    measure_some(model, batches)
    assert called >= needless


def test_states_can_be_left_out_and_a_model_that_never_errs_is_measured(model, make_batch):
    table = 60 * np.eye(8, dtype=np.float32)[NEXT]
    steps = jax.jit(make_observe_step(model, 8)), make_read_states(model)
    batches = [(np.arange(4), make_batch([[4]] * 4, [RIGHT] * 4))]
    seen = observe(steps[0], table, batches, jax.random.key(0), steps[1], num_states=0)
    found = measure_observations(seen, min_count=3, num_resamples=10)
    assert NAMES - set(found) == {"states/mmd_by_position", "states/p_value_by_position"}
    assert found["own/token_accuracy"].value == 1
    assert np.isnan(found["own/amplification"].value)
    assert found["own/post_error_rate_by_distance"].value.shape == (0,)
    assert found["edit_oracle/regret"].value == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="no position has min_count = 5 sequences, the most is 4:"):
        measure_observations(seen, min_count=5)


def test_invalid_arguments_are_refused(model, batches):
    with pytest.raises(ValueError, match="nothing to observe: the split is empty"):
        measure_exposure(model, (), [], jax.random.key(0), max_length=8)
    with pytest.raises(ValueError, match="num_states is 20, below min_count 30"):
        measure_exposure(model, (), batches, jax.random.key(0), max_length=8, num_states=20)
    with pytest.raises(ValueError, match="no measures 'sates'; did you mean 'states'"):
        measure_some(model, batches, groups=["sates"])
    # States are not requested, so their number does not matter.
    with pytest.raises(
        ValueError, match="no position has min_count = 600 sequences, the most is 40"
    ):
        measure_some(model, batches, groups=["positions"], min_count=600)


TRUTH = np.array([[0.7, 0.3], [0.95, 0.05], [0.3, 0.7]])
OTHER = np.array([[0.6, 0.4], [0.8, 0.2], [0.25, 0.75]])


def function(rows: np.ndarray):
    return lambda prefix: rows[prefix[:, -1] + 1 if prefix.shape[1] else np.zeros(len(prefix), int)]


def test_a_known_truth_exactly_and_over_drawn_prefixes():
    truth, other = function(TRUTH), function(OTHER)
    exact = measure_known_truth(truth, other, 2, 4)
    wanted = accumulated_error(tabulate(truth, 2, 4), tabulate(other, 2, 4))
    assert exact["truth/kl"].value == wanted.gold_divergence[-1]
    assert exact["truth/kl"].n == 1 + 2 + 4 + 8
    assert np.array_equal(exact["truth/accumulated_by_length"].value, wanted.accumulated)
    assert np.array_equal(exact["truth/excess_percent_by_length"].value, wanted.excess_percent)
    assert exact["truth/excess_percent_by_length"].n.tolist() == [1, 3, 7, 15]
    ratio = exact["truth/eb_c_total_variation_by_position"]
    assert ratio.axis == "position"
    assert ratio.n.tolist() == [1, 2, 4, 8]
    options: dict[str, Any] = {"num_resamples": 200}
    drawn = measure_known_truth(truth, other, 2, 4, num_samples=3000, max_sequences=8, **options)
    rows = measure_known_truth(truth, other, 2, 4, num_sources=3000, **options)
    assert sorted(exact) == sorted(drawn) == sorted(rows)
    for name, one in exact.items():
        assert np.array_equal(one.low, one.value)
        assert np.array_equal(one.high, one.value)
        for other_one in (drawn[name], rows[name]):
            assert np.all(other_one.n == 3000)
            assert np.all(other_one.low - 1e-9 <= one.value), name
            assert np.all(one.value <= other_one.high + 1e-9), name
            assert np.array_equal(other_one.value, drawn[name].value)
            assert other_one.unit == one.unit
    assert np.all(drawn["truth/kl"].low < drawn["truth/kl"].high)
    with pytest.raises(ValueError, match="num_sources is 0; it must be at least 1"):
        measure_known_truth(truth, other, 2, 4, num_sources=0)


def test_a_truth_that_rules_out_the_models_tokens_is_refused():
    sure = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    for sequences in (1, 2**20):
        with pytest.raises(ValueError, match="the truth gives 0 to token 1"):
            measure_known_truth(function(sure), function(OTHER), 2, 3, max_sequences=sequences)
