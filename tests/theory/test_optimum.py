from itertools import product
from typing import Any

import numpy as np
import pytest

from s2s_jax.theory.chains import MAX_SEQUENCES, Chains, make_chain, observe
from s2s_jax.theory.information import kl_divergence, mutual_information, total_correlation
from s2s_jax.theory.optimum import (
    markov_sequence_probs,
    next_token_tables,
    optimum_divergences,
    scheduled_sampling_optimum,
    sequence_probs,
)
from s2s_jax.theory.recursion import TrainingOptimum
from tests.theory.pairs import (
    CHAIN,
    CHAINS,
    EMISSION,
    THREE_STATES,
    WITH_ZEROS,
    joint_probs,
    mean_over_pairs,
    next_gold,
)

INITIAL, TRANSITION = CHAIN
WAYS = tuple(product(("token", "sequence"), ("sample", "argmax")))
TEACHER_PROBS = (1.0, 0.75, 0.5, 0.25, 0.0)


@pytest.mark.parametrize(
    ("teacher_prob", "feed", "rows", "kl"),
    [
        (0.75, "sample", (0.8475, 0.3225), 0.019547),
        (0.50, "sample", (0.7950, 0.4450), 0.067673),
        (0.25, "sample", (0.7425, 0.5675), 0.140016),
        (0.00, "sample", (0.6900, 0.6900), 0.241422),
        (0.75, "argmax", (0.8323, 0.2), 0.013091),
        (0.50, "argmax", (0.7765, 0.2), 0.036705),
        (0.25, "argmax", (0.7297, 0.2), 0.062526),
        (0.00, "argmax", (0.6900, 0.2), 0.088195),
    ],
)
@pytest.mark.parametrize("coin", ["token", "sequence", "batch"])
def test_two_tokens(teacher_prob, feed, rows, kl, coin):
    optimum = scheduled_sampling_optimum(*CHAIN, 2, teacher_prob, coin=coin, feed=feed)
    np.testing.assert_allclose(optimum.probs[0], INITIAL, atol=1e-12)
    np.testing.assert_allclose(optimum.probs[1][:, 0], rows, atol=5.1e-5)
    # The formulas for two tokens, to 1e-12.
    eps, first, table = teacher_prob, np.array(INITIAL), np.array(TRANSITION)
    second = first @ table
    expected = eps * table + (1 - eps) * second
    if feed == "argmax":
        mixed = (eps * 0.7 * table[0] + (1 - eps) * second) / (eps * 0.7 + 1 - eps)
        expected = np.stack([mixed, table[1]])
    np.testing.assert_allclose(optimum.probs[1], expected, atol=1e-12)
    assert optimum.kl == pytest.approx(first @ kl_divergence(table, expected), abs=1e-12)
    assert optimum.kl == pytest.approx(kl, abs=1e-6)
    fed_all = teacher_prob > 0 or feed == "sample"
    assert optimum.identified[1].tolist() == [True, fed_all]
    assert optimum.kl_is_identified == fed_all
    bound = (1 - eps) * mutual_information(markov_sequence_probs(*CHAIN, 2))
    assert optimum.kl <= bound + 1e-12
    if eps == 0 and feed == "sample":
        assert optimum.kl == pytest.approx(bound, abs=1e-12)


@pytest.mark.parametrize(
    ("coin", "kl", "q"), [("token", 0.113018, 0.7058), ("sequence", 0.133008, 0.7503)]
)
def test_three_tokens(coin, kl, q):
    optimum = scheduled_sampling_optimum(*CHAIN, 3, 0.5, coin=coin)
    assert optimum.kl == pytest.approx(kl, abs=1e-6)
    assert optimum.probs[2][1, 0, 0] == pytest.approx(q, abs=5.1e-5)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(("coin", "feed"), WAYS)
def test_the_optimum_is_the_mean_over_gold_prefixes_paired_with_a_fed_one(
    chain: Any, coin: str, feed: str
):
    initial, transition, emission = chain
    for teacher_prob in TEACHER_PROBS:
        optimum = scheduled_sampling_optimum(
            initial, transition, 4, teacher_prob, coin=coin, feed=feed, emission=emission
        )
        joint = joint_probs(initial, transition, 4, emission)
        probs, masses = mean_over_pairs(joint, teacher_prob, coin, feed, None, next_gold)
        for found, fed, expected, mass in zip(*optimum[:2], probs, masses, strict=True):
            np.testing.assert_allclose(fed, mass, atol=1e-12)
            fed = fed > 0
            assert np.array_equal(fed, mass > 0)
            np.testing.assert_allclose(found[fed], expected[fed], atol=1e-12)
            np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-12)


@pytest.mark.parametrize("chain", [CHAIN, THREE_STATES, WITH_ZEROS])
@pytest.mark.parametrize("coin", ["token", "sequence"])
def test_at_0_samples_give_the_marginals_and_the_total_correlation(
    chain: tuple[Any, Any], coin: str
):
    optimum = scheduled_sampling_optimum(*chain, 5, 0.0, coin=coin)
    joint = markov_sequence_probs(*chain, 5)
    assert optimum.kl == pytest.approx(total_correlation(joint), abs=1e-12)
    for step, (table, fed) in enumerate(zip(optimum.probs, optimum.identified, strict=True)):
        marginal = joint.sum(tuple(axis for axis in range(5) if axis != step))
        np.testing.assert_allclose(
            table[fed], np.broadcast_to(marginal, table.shape)[fed], atol=1e-12
        )


@pytest.mark.parametrize("chain", [CHAIN, THREE_STATES, WITH_ZEROS])
@pytest.mark.parametrize(("coin", "feed"), WAYS)
def test_at_1_the_optimum_is_the_truth(chain: tuple[Any, Any], coin: str, feed: str):
    optimum = scheduled_sampling_optimum(*chain, 4, 1.0, coin=coin, feed=feed)
    assert optimum.kl == 0
    assert optimum.kl_is_identified
    joint = markov_sequence_probs(*chain, 4)
    np.testing.assert_allclose(sequence_probs(optimum.probs), joint, atol=1e-15)
    for step, fed in enumerate(optimum.identified):
        assert np.array_equal(fed, joint.sum(tuple(range(step, 4))) > 0)


@pytest.mark.parametrize("chain", [CHAIN, THREE_STATES, WITH_ZEROS])
@pytest.mark.parametrize(("coin", "feed"), WAYS)
def test_the_kl_is_that_of_whole_sequences_and_the_limit_at_0(
    chain: tuple[Any, Any], coin: str, feed: str
):
    joint = markov_sequence_probs(*chain, 4)
    for teacher_prob in TEACHER_PROBS:
        optimum = scheduled_sampling_optimum(*chain, 4, teacher_prob, coin=coin, feed=feed)
        whole = kl_divergence(joint.reshape(-1), sequence_probs(optimum.probs).reshape(-1))
        assert optimum.kl == pytest.approx(float(whole), abs=1e-12)
    nearly = scheduled_sampling_optimum(*chain, 4, 1e-9, coin=coin, feed=feed)
    assert nearly.kl_is_identified
    at_0 = scheduled_sampling_optimum(*chain, 4, 0.0, coin=coin, feed=feed)
    assert at_0.kl == pytest.approx(nearly.kl, abs=1e-6)
    assert at_0.kl_is_identified == (feed == "sample")


def test_a_deterministic_chain_has_no_damage():
    chain = (1.0, 0.0, 0.0), ((0, 1, 0), (0, 0, 1), (1, 0, 0))
    for (coin, feed), teacher_prob in product(WAYS, TEACHER_PROBS):
        optimum = scheduled_sampling_optimum(*chain, 5, teacher_prob, coin=coin, feed=feed)
        assert optimum.kl == 0
        assert optimum.kl_is_identified


def test_the_same_chain_through_an_identity_emission():
    plain: TrainingOptimum = scheduled_sampling_optimum(*THREE_STATES, 4, 0.3)
    shown = scheduled_sampling_optimum(*THREE_STATES, 4, 0.3, emission=np.eye(3))
    assert plain.kl == shown.kl


VARYING = (
    ((0.6, 0.3, 0.1), (0.1, 0.2, 0.7), (0.25, 0.4, 0.35)),
    ((0.0, 0.9, 0.1), (0.5, 0.0, 0.5), (0.2, 0.2, 0.6)),
)
SHOWING = (
    ((0.9, 0.1), (0.5, 0.5), (0.2, 0.8)),
    ((0.0, 1.0), (0.3, 0.7), (0.6, 0.4)),
    ((1.0, 0.0), (0.5, 0.5), (0.1, 0.9)),
)


@pytest.mark.parametrize(("coin", "feed"), WAYS)
def test_chains_that_vary_by_step(coin: str, feed: str):
    first = np.array([0.5, 0.3, 0.2])
    joint = np.einsum(
        "s,sa,st,tb,tu,uc->abc", first, SHOWING[0], VARYING[0], SHOWING[1], VARYING[1], SHOWING[2]
    )
    for teacher_prob in TEACHER_PROBS:
        optimum = scheduled_sampling_optimum(
            first, VARYING, 3, teacher_prob, coin=coin, feed=feed, emission=SHOWING
        )
        probs, masses = mean_over_pairs(joint, teacher_prob, coin, feed, None, next_gold)
        for found, fed, expected, mass in zip(*optimum[:2], probs, masses, strict=True):
            np.testing.assert_allclose(fed, mass, atol=1e-12)
            np.testing.assert_allclose(found[mass > 0], expected[mass > 0], atol=1e-12)


def test_equal_tables_for_all_steps_are_the_same_as_one_table():
    alike = scheduled_sampling_optimum(INITIAL, [TRANSITION] * 3, 4, 0.5)
    mixed = scheduled_sampling_optimum(INITIAL, TRANSITION, 4, 0.5, emission=[np.eye(2)] * 4)
    once = scheduled_sampling_optimum(*CHAIN, 4, 0.5)
    assert alike.kl == once.kl
    assert mixed.kl == once.kl


@pytest.mark.parametrize(("coin", "feed"), WAYS)
def test_divergences_of_several_chains_at_once(coin: str, feed: str, monkeypatch):
    chains = [make_chain(*CHAIN, 4), make_chain((0.5, 0.5), np.full((2, 2), 0.5), 4)]
    chains.append(make_chain((1.0, 0.0), ((0.3, 0.7), (0.6, 0.4)), 4))
    together = Chains(*(np.concatenate(parts) for parts in zip(*chains, strict=True)))
    for limit in (MAX_SEQUENCES, 32):  # in one piece, and in two
        monkeypatch.setattr("s2s_jax.theory.recursion.MAX_SEQUENCES", limit)
        kl, identified = optimum_divergences(together, 0.0, coin=coin, feed=feed)
        for number, chain in enumerate(chains):
            one = scheduled_sampling_optimum(
                chain.initial[0], chain.transition[0, 0], 4, 0.0, coin=coin, feed=feed
            )
            assert kl[number] == pytest.approx(one.kl, abs=1e-12)
            assert identified[number] == one.kl_is_identified
    assert kl[1] == pytest.approx(0, abs=1e-12)
    monkeypatch.setattr("s2s_jax.theory.recursion.MAX_SEQUENCES", 8)
    with pytest.raises(ValueError, match="more than 8 sequences of length 4"):
        optimum_divergences(together, 0.5)


def test_tables_of_a_hidden_chain_are_its_conditionals():
    tables = next_token_tables(*CHAIN, 3, emission=EMISSION)
    probs, _ = mean_over_pairs(
        joint_probs(*CHAIN, 3, EMISSION), 1.0, "token", "sample", None, next_gold
    )
    for found, expected in zip(tables, probs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_sequence_probs_are_products_down_the_chain():
    joint = markov_sequence_probs(*THREE_STATES, 3)
    first, table = map(np.array, THREE_STATES)
    assert joint.sum() == pytest.approx(1)
    assert joint[0, 2, 1] == pytest.approx(first[0] * table[0, 2] * table[2, 1], abs=1e-15)
    assert joint.shape == (3, 3, 3)
    undefined = np.array([1.0, 0.0]), np.array([[0.5, 0.5], [np.nan, np.nan]])
    assert sequence_probs(undefined).tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_divergences_and_informations():
    assert mutual_information(markov_sequence_probs(*CHAIN, 2)) == pytest.approx(0.241422, abs=1e-6)
    assert mutual_information(np.eye(4) / 4) == pytest.approx(np.log(4))
    assert total_correlation(np.full((2, 3, 2), 1 / 12)) == pytest.approx(0, abs=1e-12)
    assert kl_divergence([0.0, 1.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert kl_divergence([0.5, 0.5], [0.0, 1.0]) == np.inf
    assert kl_divergence([[0.5, 0.5], [np.nan, 1]], [0.5, 0.5], where=[True, False]).tolist() == [
        0,
        0,
    ]


def test_observe_is_bayes_rule():
    belief, likelihood = np.array([0.25, 0.75]), np.array([[0.6, 0.2], [0.0, 0.0]])
    np.testing.assert_allclose(observe(belief, likelihood), [[0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_allclose(
        observe(np.array([1.0, 0, 0]), np.array([0, 0.3, 0.1])), [0, 0.75, 0.25]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial": (0.7, 0.2)}, "initial sums to 0.9, not to 1"),
        ({"initial": (1.2, -0.2)}, "initial holds 1.2; probabilities are in"),
        ({"initial": (0.5, float("nan"))}, "initial holds nan; probabilities are in"),
        ({"initial": ((0.5, 0.5),)}, "initial is not a row of probabilities"),
        ({"initial": ()}, "initial is empty"),
        ({"initial": "ab"}, "initial is not a row of probabilities"),
        ({"initial": (0.5, 0.3, 0.2)}, "transition has 2 rows of 2; with 3 initial"),
        ({"transition": ((0.9, 0.1), (0.2, 0.7))}, "transition row 1 sums to 0.9, not to 1"),
        ({"transition": ((-0.1, 1.1), (0.2, 0.8))}, "transition row 0 holds -0.1"),
        ({"transition": ((0.9, float("inf")), (0.2, 0.8))}, "transition row 0 holds inf"),
        ({"transition": ((0.9, 0.1),)}, "transition has 1 rows of 2"),
        ({"transition": ((0.9, 0.1), (1.0,))}, "transition is not a square table"),
        ({"emission": ((0.5, 0.5),)}, "emission has 1 rows of 2; it must have a row of"),
        ({"emission": ((0.5, 0.5), (0.5, 0.4))}, "emission row 1 sums to 0.9, not to 1"),
        ({"transition": (TRANSITION,)}, "transition has 1 tables; the length asks for 2"),
        ({"transition": (TRANSITION, ((1, 0), (1, 1)))}, "step 1: transition row 1 sums to 2"),
        ({"emission": (np.eye(2),) * 2}, "emission has 2 tables; the length asks for 3"),
        ({"length": 0}, "length is 0; it must be an integer of at least 1"),
        ({"length": 2.0}, "length is 2.0; it must be an integer of at least 1"),
        ({"length": True}, "length is True; it must be an integer of at least 1"),
        ({"length": 21}, "length is 21; 2 symbols can be enumerated up to length 20"),
        ({"initial": (1,), "transition": ((1,),), "length": 21}, "1 symbols can be .* length 20"),
        ({"teacher_prob": 1.1}, "teacher_prob is 1.1; it must be in"),
        ({"teacher_prob": float("nan")}, "teacher_prob is nan; it must be in"),
        ({"coin": "toss"}, "coin is 'toss'; it must be one of token, sequence, batch"),
        ({"feed": "beam"}, "feed is 'beam'; it must be one of sample, argmax"),
        ({"teacher_prob": (0.5, 1.5)}, "teacher_prob holds 1.5; it must be in"),
        ({"teacher_prob": (0.5, 0.5), "coin": "sequence"}, "must be one number if the coin is per"),
        ({"teacher_prob": (0.5, 0.5), "coin": "batch"}, "must be one number if the coin is per ba"),
        ({"teacher_prob": (0.5,) * 3}, r"has shape \(3,\); for length 3 it must be .* a row of 2"),
        ({"teacher_prob": ((0.5, 0.5),)}, r"has shape \(1, 2\); for length 3 it must be"),
        ({"noise": (0.5, 0.4)}, "noise sums to 0.9, not to 1"),
        ({"noise": (1.0,)}, "noise has 1 probabilities for 2 symbols"),
        ({"noise": 0.5}, "noise is not a row of probabilities"),
        ({"noise": (0.5, 0.5), "feed": "argmax"}, "feed 'argmax' has no effect if noise replaces"),
    ],
)
def test_invalid_arguments_are_refused(changes, message):
    options = {"initial": INITIAL, "transition": TRANSITION, "length": 3, "teacher_prob": 0.5}
    with pytest.raises(ValueError, match=message) as caught:
        scheduled_sampling_optimum(**(options | changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("coin", ["token", "sequence"])
def test_with_samples_the_damage_grows_as_teacher_prob_falls_and_with_length(coin: str):
    """For random chains, including hidden ones; with the length it grows for either feed."""
    numbers = np.random.default_rng(0)
    for trial in range(12):
        num_states, num_symbols = numbers.integers(2, 5, 2)
        evenness = (0.1, 0.3, 1.0)[trial % 3]
        initial = numbers.dirichlet(np.full(num_states, evenness) + 1e-3)
        rows = numbers.dirichlet(np.full(num_states, evenness) + 1e-3, size=num_states)
        emission = None
        if trial % 2:
            emission = numbers.dirichlet(np.full(num_symbols, evenness) + 1e-3, size=num_states)

        def divergence(
            length: int, prob: float, feed: str, initial=initial, rows=rows, emission=emission
        ) -> float:
            return scheduled_sampling_optimum(
                initial, rows, length, prob, coin=coin, feed=feed, emission=emission
            ).kl

        by_prob = [divergence(4, prob, "sample") for prob in np.linspace(1, 0, 11)]
        assert np.all(np.diff(by_prob) > -1e-12)
        for feed in ("sample", "argmax"):
            by_length = [divergence(length, 0.4, feed) for length in range(1, 5)]
            assert np.all(np.diff(by_length) > -1e-12)


@pytest.mark.parametrize(("coin", "above"), [("token", 0.2097), ("sequence", 0.2221)])
def test_with_argmax_a_lower_teacher_prob_can_do_less_damage(coin: str, above: float):
    """After the most likely first symbol another one becomes the most likely, and is fed."""
    chain = (
        (0.415, 0.502, 0.083),
        ((0.006, 0.002, 0.992), (0.595, 0.314, 0.091), (0.357, 0.12, 0.523)),
    )
    optima = [
        scheduled_sampling_optimum(*chain, 3, prob, coin=coin, feed="argmax")
        for prob in (0.42, 0.40)
    ]
    assert optima[0].kl == pytest.approx(above, abs=5e-5)
    assert optima[1].kl == pytest.approx({"token": 0.1220, "sequence": 0.1213}[coin], abs=5e-5)
    assert [optimum.probs[1][1].argmax() for optimum in optima] == [0, 2]
    by_samples = [scheduled_sampling_optimum(*chain, 3, prob, coin=coin).kl for prob in (0.42, 0.4)]
    assert by_samples[0] < by_samples[1]


def test_the_mutual_information_bounds_the_damage_of_samples_only():
    chain, prob = ((0.51, 0.49), ((1.0, 0.0), (0.95, 0.05))), 0.75
    bound = (1 - prob) * mutual_information(markov_sequence_probs(*chain, 2))
    by_samples, by_argmax = (
        scheduled_sampling_optimum(*chain, 2, prob, feed=feed).kl for feed in ("sample", "argmax")
    )
    assert by_samples < bound < by_argmax
    assert (round(bound, 4), round(by_argmax, 4)) == (0.0044, 0.0050)


def test_long_sequences_lose_more():
    divergences = [scheduled_sampling_optimum(*CHAIN, length, 0.5).kl for length in range(1, 13)]
    assert divergences[0] == 0
    assert np.all(np.diff(divergences) > 0.01)


@pytest.mark.parametrize(
    ("measure", "joint", "message"),
    [
        (total_correlation, 1.0, "joint is a number"),
        (total_correlation, [0.5, 0.6], "joint sums to 1.1, not to 1"),
        (mutual_information, [0.5, 0.5], "joint has 1 axes; mutual information needs 2"),
    ],
)
def test_invalid_joint_distributions_are_refused(measure, joint, message):
    with pytest.raises(ValueError, match=message):
        measure(joint)
