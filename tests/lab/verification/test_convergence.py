"""The real train step, run to convergence, ends where theory predicts."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import pytest

from s2s_jax.lab.verification.chain import make_markov_chain
from s2s_jax.lab.verification.methods import METHODS, TEACHER_PROBS, Method, make_sampling
from s2s_jax.lab.verification.verification import VerifiedCase, verify
from s2s_jax.theory.optimum import scheduled_sampling_optimum

INITIAL = (0.7, 0.3)
TRANSITION = ((0.9, 0.1), (0.2, 0.8))
# With two tokens the two coins have the same optimum.
WAYS = [("token", "sample"), ("token", "argmax"), ("sequence", "argmax")]
NAMED = {method.name: method for method in METHODS}
OTHERS = [method for method in METHODS if method.group != "sampling"]


# Neither takes long to compile or run.
JIT = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "1"})


def train(
    length: int,
    name: str,
    method: Method,
    teacher_probs: Sequence[float] | None = None,
    **recipe: Any,
) -> list[VerifiedCase]:
    chain = make_markov_chain(INITIAL, TRANSITION, length)
    recipes = {name: dataclasses.replace(method.recipes[name], **recipe)}
    if teacher_probs is not None:
        method = dataclasses.replace(method, teacher_probs=tuple(teacher_probs))
    return verify(chain, [name], methods=[method], recipes=recipes, jit=JIT)


def number(value: float | None) -> float:
    assert value is not None
    return value


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_two_tokens_converge_to_the_predicted_optimum(way):
    # 1000 rows hold each of the four sequences exactly as often as its probability says.
    rows = train(2, "tabular", make_sampling(*way), num_rows=1000, num_steps=1200)
    assert [row.teacher_prob for row in rows] == list(TEACHER_PROBS)
    for row in rows:
        # A gradient through the sample would move Q1 (to .7108 at 0.75).
        assert number(row.first_difference) < 1e-4
        assert number(row.largest_difference) < 2e-3
        if row.predicted is None:
            assert (way[1], row.teacher_prob, row.num_never_fed) == ("argmax", 0.0, 1)
        else:
            assert row.trained == pytest.approx(row.predicted, abs=2e-3)
        assert row.lands


def test_the_two_coins_differ_at_three_tokens():
    token, sequence = (
        scheduled_sampling_optimum(INITIAL, TRANSITION, 3, 0.5, coin=coin)
        for coin in ("token", "sequence")
    )
    assert sequence.kl - token.kl > 0.015
    assert abs(sequence.probs[2][1, 0, 0] - token.probs[2][1, 0, 0]) > 0.04


@pytest.mark.slow
@pytest.mark.parametrize(("coin", "kl"), [("token", 0.113018), ("sequence", 0.133008)])
def test_three_tokens_converge_to_the_optimum_of_their_coin(coin, kl):
    # The full check, to 2e-3 in every q, is `s2s verify`; this only distinguishes the coins.
    method = make_sampling(coin, "sample")
    (row,) = train(3, "tabular", method, [0.5], num_rows=2000, num_steps=1000)
    assert row.predicted == pytest.approx(kl, abs=1e-6)
    assert row.trained == pytest.approx(kl, abs=2e-3)
    assert number(row.largest_difference) < 4e-3
    assert number(row.first_difference) < 2e-3


@pytest.mark.slow
def test_an_lstm_is_within_a_hundredth_of_a_nat_of_the_predicted_divergence():
    rows = train(3, "lstm", make_sampling("token", "sample"), num_steps=500)
    for row in rows:
        assert row.trained == pytest.approx(row.predicted, abs=0.01)
        assert row.lands


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS, ids=lambda method: method.name)
def test_every_other_method_ends_at_its_own_optimum(method):
    num_rows = min(2000, method.recipes["tabular"].num_rows)
    rows = train(3, "tabular", method, num_rows=num_rows, num_steps=1000)
    assert len(rows) == max(1, len(method.teacher_probs))
    for row in rows:
        if row.measure == "cost":
            assert row.trained == pytest.approx(row.predicted, abs=0.01)
        else:
            assert row.trained == pytest.approx(row.predicted, abs=2e-3)
            assert number(row.largest_difference) < 5e-3
        assert row.lands


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained", "predicted", "teacher_prob"),
    [
        ("sampling, token, sample", "noise, uniform", 0.5),
        ("noise, unigram", "noise, uniform", 0.5),
        ("sampling, token, sample", "positions, linear", 0.5),
        ("positions, exponential", "positions, inverse_sigmoid", 0.0),
        ("raml, tau 1", "raml, tau 0.5", 1.0),
        ("sampling, token, sample", "ocd", 0.5),
        ("sampling, token, sample", "distillation, forward_kl", 0.0),
        ("sampling, token, sample", "minimum risk, edit_rate", 1.0),
    ],
)
def test_the_optimum_of_another_method_is_missed(trained, predicted, teacher_prob):
    """What is trained is not what is predicted, so the row must miss."""
    wrong = dataclasses.replace(
        NAMED[predicted], make_objective=NAMED[trained].make_objective, name="wrong"
    )
    (row,) = train(3, "tabular", wrong, [teacher_prob], num_rows=500, num_steps=500, averaged=0.5)
    assert not row.lands
