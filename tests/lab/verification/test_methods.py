"""What `s2s verify` trains: every method is paired with the theory of its own options."""

import math

import numpy as np
import pytest

from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.verification.chain import make_markov_chain
from s2s_jax.lab.verification.methods import GROUPS, METHODS, select_methods
from s2s_jax.lab.verification.recipes import RECIPES
from s2s_jax.theory.optimum import scheduled_sampling_optimum
from s2s_jax.theory.recursion import TrainingOptimum
from s2s_jax.theory.risk import MinimumRisk

CHAIN = make_markov_chain((0.7, 0.3), ((0.9, 0.1), (0.2, 0.8)), 3)
NAMED = {method.name: method for method in METHODS}


def kl(name: str, teacher_prob: float) -> float:
    optimum = NAMED[name].theory(CHAIN, teacher_prob)
    assert isinstance(optimum, TrainingOptimum)
    return optimum.kl


@pytest.mark.parametrize(
    ("name", "teacher_prob", "expected"),
    [
        # The numbers of docs/theory.md.
        ("sampling, token, sample", 0.5, 0.113018),
        ("sampling, sequence, sample", 0.5, 0.133008),
        ("noise, uniform", 0.25, 0.275240),
        ("noise, unigram", 0.25, 0.250231),
        ("raml, tau 0.5", 1.0, 0.124477),
        ("ocd", 0.5, 0.130223),
        ("ocd", 0.0, 0.576674),
        ("distillation, forward_kl", 0.0, 0.0),
    ],
)
def test_the_theory_of_a_method(name, teacher_prob, expected):
    assert kl(name, teacher_prob) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "teacher_prob", "row"),
    [
        ("positions, linear", 0.0, (2 / 3, 1 / 3)),
        ("positions, linear", 0.5, (5 / 6, 2 / 3)),
        ("positions, exponential", 0.0, (0.7, 0.49)),
        ("positions, exponential", 0.5, (0.7**0.5, 0.7)),
        (
            "positions, inverse_sigmoid",
            0.0,
            (2.5 / (1.5 + math.exp(2 / 3)), 2.5 / (1.5 + math.exp(4 / 3))),
        ),
        (
            "positions, inverse_sigmoid",
            0.5,
            (2.5 / (1.5 + math.exp(1 / 3)), 2.5 / (1.5 + math.exp(2 / 3))),
        ),
    ],
)
def test_the_probabilities_by_position(name, teacher_prob, row):
    by_hand = scheduled_sampling_optimum(CHAIN.initial, CHAIN.transition, 3, row)
    assert kl(name, teacher_prob) == pytest.approx(by_hand.kl, abs=1e-6)


def test_the_theory_of_risk_is_a_cost():
    for cost, expected in (("edit_rate", 0.309), ("exact_match", 0.433)):
        for name in ("minimum risk", "reinforce"):
            method = NAMED[f"{name}, {cost}"]
            best = method.theory(CHAIN, 1.0)
            assert isinstance(best, MinimumRisk)
            assert (method.cost, method.teacher_probs) == (cost, ())
            assert best.cost == pytest.approx(expected)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_has_an_objective_and_a_theory_for_short_chains_of_three_symbols(
    method, length
):
    initial, transition = (0.5, 0.3, 0.2), ((0.2, 0.5, 0.3), (0.1, 0.1, 0.8), (0.4, 0.4, 0.2))
    chain = make_markov_chain(initial, transition, length)
    model = RECIPES["tabular"].make_model(3, length, 4 if method.needs_reserved else 0)
    assert callable(method.make_objective(model, chain))
    for teacher_prob in method.teacher_probs or (1.0,):
        optimum = method.theory(chain, teacher_prob)
        if isinstance(optimum, MinimumRisk):
            assert 0 < optimum.cost < 1
        else:
            assert optimum.kl_is_identified or (teacher_prob == 0 and "argmax" in method.name)


def test_shares_of_symbols_are_those_of_all_places():
    places = [np.array(CHAIN.initial)]
    for _ in range(2):
        places.append(places[-1] @ np.array(CHAIN.transition))
    assert CHAIN.symbol_shares() == pytest.approx(np.mean(places, axis=0))


def test_groups_of_methods_are_selected_in_the_order_of_the_table():
    assert [method.name for method in select_methods("ocd, noise")] == [
        "noise, uniform",
        "noise, unigram",
        "ocd",
    ]
    assert select_methods(",".join(GROUPS)) == METHODS
    with pytest.raises(LabError, match="did you mean 'raml'"):
        select_methods("ramll")
    with pytest.raises(LabError, match="methods has ''; it must be one of sampling, noise"):
        select_methods("")
