"""`s2s verify`: its table shows what was trained, and it detects a wrong train step."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax import feeding
from s2s_jax.data.chain import make_hmm_truth
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.verification import command as verification_command
from s2s_jax.lab.verification.chain import make_markov_chain
from s2s_jax.lab.verification.command import conclusion, format_rows
from s2s_jax.lab.verification.dependence import (
    DependenceCase,
    DependenceRecipe,
    dependence_figure,
    enumerate_pairs,
    predict,
    verify_dependence,
)
from s2s_jax.lab.verification.methods import GROUPS, METHODS, make_raml, make_sampling
from s2s_jax.lab.verification.population import draw_rows
from s2s_jax.lab.verification.recipes import RECIPES
from s2s_jax.lab.verification.verification import VerifiedCase, verify
from s2s_jax.theory.optimum import scheduled_sampling_optimum

CHAIN = make_markov_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), 2)
SHORT = {
    "tabular": dataclasses.replace(RECIPES["tabular"], num_rows=1000, num_steps=400, q_tolerance=0)
}
HMM = (0.5, 0.5), ((0.9, 0.1), (0.1, 0.9)), ((0.8, 0.15, 0.05), (0.05, 0.15, 0.8))


@pytest.fixture(scope="module")
def rows() -> list[VerifiedCase]:
    method = dataclasses.replace(make_sampling("token", "argmax"), teacher_probs=(0.5, 0.0))
    return verify(CHAIN, ["tabular"], methods=[method], recipes=SHORT)


def test_a_row_holds_the_prediction_and_the_trained_value(rows):
    mixed, _ = rows
    assert [row.teacher_prob for row in rows] == [0.5, 0.0]
    assert (mixed.method, mixed.measure) == ("sampling, token, argmax", "KL")
    assert mixed.predicted == pytest.approx(0.036705, abs=1e-6)
    assert abs(mixed.trained - 0.036705) < 0.01
    assert 0 < mixed.largest_difference < 0.03
    assert mixed.first_difference < 0.03
    assert (mixed.num_prefixes, mixed.num_never_fed) == (3, 0)


def test_prefixes_that_are_never_fed_are_reported_and_not_compared(rows):
    own = rows[1]
    assert own.predicted is None
    assert own.num_never_fed == 1
    # The row that is never fed is 0.3 from its limit; the others are near.
    assert own.largest_difference < 0.03
    assert own.verdict.endswith("1 of 3 prefixes never fed")
    assert "not identified" in format_rows(rows).splitlines()[2]


def one_coin_a_sequence(key, teacher_prob, num_steps, batch_size, coin="token"):
    draws = jax.random.uniform(key, (batch_size,))
    return jnp.broadcast_to(draws < teacher_prob, (num_steps, batch_size))


@pytest.mark.slow
def test_a_missing_coin_is_detected():
    """Trained with a coin per sequence but predicted for a coin per token, rows must miss."""
    chain = make_markov_chain(CHAIN.initial, CHAIN.transition, 3)
    token = scheduled_sampling_optimum(chain.initial, chain.transition, 3, 0.5)
    recipe = {"tabular": dataclasses.replace(RECIPES["tabular"], num_rows=1000, num_steps=500)}
    method = dataclasses.replace(make_sampling("token", "sample"), teacher_probs=(0.5,))
    train = partial(verify, chain, ["tabular"], methods=[method], recipes=recipe)
    (right,) = train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeding, "toss_coins", one_coin_a_sequence)
        (wrong,) = train()
    assert right.predicted == wrong.predicted == token.kl
    assert right.lands
    assert not wrong.lands
    assert wrong.trained - token.kl > 0.012  # .1330 against .1130
    assert "MISSES" in format_rows([wrong])
    assert conclusion([True, False], "...").startswith("1 of 2 rows miss")


def test_batches_hold_every_sequence_as_often_as_its_probability_says():
    probs = np.array([0.5, 0.0, 0.3, 0.1999, 0.0001, 0.0])
    counts = np.array(
        [
            np.bincount(draw_rows(jnp.cumsum(probs), jax.random.key(seed), 1000), minlength=6)
            for seed in range(40)
        ]
    )
    assert counts[:, [1, 5]].sum() == 0
    assert np.all(np.abs(counts - 1000 * probs) <= 1)
    assert 0 < counts[:, 4].mean() < 0.4


@pytest.fixture
def untrained(monkeypatch):
    """Runs `s2s verify` without the training; returns what would have been trained."""
    seen = []

    def fake(chain, models, **options):
        seen.append((chain, models, options))
        options["report"]("training")
        row = VerifiedCase("tabular", "ocd", 0.5, "KL", 0.1, 0.1, 0.001, 0.0001, 7, 0, True)
        return [row, dataclasses.replace(row, lands=len(seen) < 2)]

    monkeypatch.setattr(verification_command, "verify", fake)
    return seen


def test_the_command_prints_a_table_and_says_whether_all_rows_land(s2s, untrained, tmp_path):
    code, out, err = s2s("verify", f"--output={tmp_path}/rows.json")
    assert (code, err) == (0, "training\n")
    assert out.splitlines()[0].split()[:4] == ["model", "method", "teacher_prob", "measure"]
    assert out.splitlines()[-1].startswith("All 2 rows land")
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written["all_land"] is True
    assert [row["trained"] for row in written["rows"]] == [0.1, 0.1]
    assert written["settings"]["methods"][-1] == "reinforce, exact_match"
    chain, models, options = untrained[0]
    assert (chain.length, models) == (3, ("tabular", "lstm", "transformer"))
    assert options["methods"] == METHODS
    flags = "--length=2", "--model=lstm", "--methods=raml,noise", "--transition=.5,.5;.4,.6"
    code, out, _ = s2s("verify", *flags)
    assert code == 1
    assert "1 of 2 rows miss" in out
    chain, models, options = untrained[1]
    assert (chain.length, models) == (2, ("lstm",))
    assert {method.group for method in options["methods"]} == {"raml", "noise"}
    assert chain.transition.tolist() == [[0.5, 0.5], [0.4, 0.6]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length=0"], "--length is 0; it must be in"),
        (["--length=7"], "length is 7; with 2 symbols it must be 1 to 6"),
        (["--initial=.7,.2"], "initial sums to 0.9, not to 1"),
        (["--initial=a"], "initial is 'a'; it must be numbers separated by commas"),
        (["--transition=.9,.1"], "transition has 1 rows of 2"),
        (["--model=gru"], "invalid choice: 'gru'"),
        (["--methods=ocd,nois"], "methods has 'nois'; did you mean 'noise'?"),
        (["--seed=-1"], "seed is -1"),
        (["--output=nowhere/rows.json"], "cannot write nowhere/rows.json"),
        (["--picture=x.png"], "--picture has no effect without --dependence"),
        (["--dependence=0,2"], "dependence is 2.0; it must be in [0, 1]"),
        (["--dependence=0,1", "--model=lstm"], "--model has no effect with --dependence"),
        (["--dependence=1", "--methods=ocd"], "--methods has no effect with --dependence"),
        (["--dependence=1", "--length=9"], "there are more than 8192 pairs"),
        (["--dependence=1", "--length=0"], "length is 0"),
    ],
)
def test_what_the_command_rejects(s2s, untrained, flags, message):
    code, out, err = s2s("verify", *flags)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not untrained


def test_the_help_names_every_group_of_methods(s2s):
    code, out, _ = s2s("verify", "--help")
    assert code == 0
    described = " ".join(out.split("--methods", 2)[-1].split("--length")[0].split())
    assert all(name in described for name in GROUPS)


def test_rows_with_a_cost_have_no_teacher_prob_and_no_q():
    row = VerifiedCase(
        "lstm", "reinforce, edit_rate", None, "cost", 0.309, 0.31, None, None, 0, 0, True
    )
    head, cells = format_rows([row]).splitlines()
    assert head.split()[3:6] == ["measure", "predicted", "trained"]
    assert cells.split() == [
        "lstm", "reinforce,", "edit_rate", "-", "cost", "0.309000", "0.310000", "-", "-", "lands",
    ]  # fmt: skip


def test_a_method_that_the_chain_does_not_allow_is_refused_before_any_training():
    alone = make_markov_chain([1.0], [[1.0]], 2)
    with pytest.raises(LabError, match="raml, tau 1 does not work on this chain"):
        verify(alone, ["tabular"], methods=[make_sampling("token", "sample"), make_raml(1.0)])


def test_damage_grows_with_what_the_source_hides():
    truth = make_hmm_truth(*HMM, length=3)
    pairs = enumerate_pairs(truth)
    for dependence in (0.0, 0.3, 1.0):
        assert pairs.probs(dependence).sum() == pytest.approx(1)
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    assert predict(truth, pairs, shares, 1.0) == pytest.approx([0] * 5, abs=1e-12)
    half, own = (predict(truth, pairs, shares, teacher_prob) for teacher_prob in (0.5, 0.0))
    assert (half[0], own[0]) == pytest.approx((0, 0), abs=1e-12)
    assert np.all(np.diff(own) > 0.005)
    assert np.all(np.diff(own) > np.diff(half))
    # Everything is hidden: the chain without a source.
    alone = scheduled_sampling_optimum(HMM[0], HMM[1], 3, 0.5, emission=HMM[2])
    assert half[-1] == pytest.approx(alone.kl, abs=1e-12)


@pytest.mark.slow
def test_an_lstm_on_revealed_symbols_is_near_the_truth_and_drawn():
    truth = make_hmm_truth(*HMM, length=2)
    recipe = DependenceRecipe(hidden_size=8, num_rows=64, num_steps=200, learning_rate=0.03)
    rows = verify_dependence(truth, [0.0, 1.0], [1.0, 0.0], recipe=recipe)
    assert [(row.teacher_prob, row.dependence) for row in rows] == [
        (1.0, 0.0),
        (1.0, 1.0),
        (0.0, 0.0),
        (0.0, 1.0),
    ]
    trained = [row.kl_trained for row in rows]
    assert trained[1] < 0.05
    assert trained[3] > trained[1] + 0.05  # the prediction is 0.15 more
    figure = dependence_figure(truth, [*rows, DependenceCase(0.5, 0.25, 0.1, 0.1, True)])
    lines = figure.axes[0].get_lines()
    assert len(lines) == 6
    assert np.asarray(lines[-1].get_ydata()).tolist() == trained[:2]
