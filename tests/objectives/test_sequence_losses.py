from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import EOS, PAD, Batch
from s2s_jax.models.tabular import make_tabular_model
from s2s_jax.objectives.candidates import draw_candidates
from s2s_jax.objectives.sequence_losses import (
    forced_length,
    make_minimum_risk,
    make_mixer,
    make_reinforce,
    make_self_critical,
)
from s2s_jax.prng import stream_key
from tests.levenshtein import levenshtein

KEY = jax.random.key(8)
VOCAB_SIZE, LENGTH, MARGIN, ALPHA = 4, 3, 1, 0.7
MODEL = make_tabular_model(VOCAB_SIZE, VOCAB_SIZE, length=LENGTH)
PARAMS = np.random.default_rng(1).normal(0, 1, (21, VOCAB_SIZE))


class Kind(NamedTuple):
    make: Any
    num_samples: int
    cost: str = "edit_rate"


KINDS = {
    "minimum risk": Kind(partial(make_minimum_risk, alpha=ALPHA), 4),
    "with gold": Kind(partial(make_minimum_risk, alpha=ALPHA, with_gold=True), 3, "exact_match"),
    "reinforce": Kind(make_reinforce, 3),
    "self-critical": Kind(make_self_critical, 2),
    "mixer": Kind(make_mixer, 3),
}


def gradients(
    params: jax.Array, batch: Batch, key: jax.Array, teacher_prob: jax.Array, names: Any
) -> Any:
    """Each kind's loss, metric sums and gradient."""
    found = {}
    for name in names:
        kind = KINDS[name]
        objective = kind.make(MODEL, num_samples=kind.num_samples, cost=kind.cost, margin=MARGIN)
        found[name] = jax.value_and_grad(objective, has_aux=True)(params, batch, key, teacher_prob)
    return found


run = jax.jit(gradients, static_argnames="names")


def results(batch: Batch, teacher_prob: float = 0.5, key: Any = KEY, names: Any = (*KINDS,)) -> Any:
    given = jnp.float32(PARAMS), batch, key, jnp.float32(teacher_prob)
    return jax.device_get(run(*given, names=names))


def make_batch(targets: list[tuple[int, ...]], time: int = 2, filler: int = 0) -> Batch:
    rows = [*targets, *[()] * filler]
    ids = np.array([[*row, *[PAD] * time][:time] for row in rows], np.int32)
    mask = np.array([[step < len(row) for step in range(time)] for row in rows])
    return Batch(ids[:, :1], np.ones_like(mask[:, :1]), ids, mask)


TARGETS = [(3, EOS), (1, EOS), (EOS,), (0, EOS)] * 2
BATCH = make_batch(TARGETS, filler=2)


def log_prob(log_probs: np.ndarray, tokens: tuple[int, ...], first: int = 0) -> float:
    """log p of the tokens from `first` on; see `make_tabular_model` for the rows."""
    row, total = 0, 0.0
    for step, token in enumerate(tokens):
        total += log_probs[row, token] if step >= first else 0.0
        row = row * VOCAB_SIZE + 1 + token
    return total


def log_softmax(params: np.ndarray) -> np.ndarray:
    return params - np.log(np.exp(params).sum(1, keepdims=True))


def cost(name: str, said: tuple[int, ...], goal: tuple[int, ...]) -> float:
    if name == "exact_match":
        return float(said != goal)
    plain = [tuple(token for token in some if token != EOS) for some in (said, goal)]
    return levenshtein(*plain) / max(1, len(plain[1]))


def slopes(loss: Any) -> np.ndarray:
    """The gradient of a function of the float64 parameters, by central differences."""
    gradient, params = np.zeros_like(PARAMS), PARAMS.copy()
    for place in np.ndindex(PARAMS.shape):
        sides = []
        for shift in (1e-5, -1e-5):
            params[place] = PARAMS[place] + shift
            sides.append(loss(log_softmax(params)))
        params[place] = PARAMS[place]
        gradient[place] = (sides[0] - sides[1]) / 2e-5
    return gradient


def prefix_length(name: str, goal: tuple[int, ...], teacher_prob: float) -> int:
    return int(np.ceil(teacher_prob * len(goal))) if name == "mixer" else 0


def samples(name: str, batch: Batch, teacher_prob: float) -> list[list[tuple[int, ...]]]:
    """What the objective draws, by source."""
    number = KINDS[name].num_samples
    drawn = number + (name == "self-critical")
    target, mask = (np.pad(np.asarray(one), ((0, 0), (0, MARGIN))) for one in batch[2:])
    lengths = mask.sum(1)
    prefix = np.array(
        [
            length
            if name == "with gold" and sample == 0
            else prefix_length(name, (0,) * length, teacher_prob)
            for length in lengths
            for sample in range(drawn)
        ]
    )
    rows = drawn * len(target)
    candidates = jax.jit(partial(draw_candidates, MODEL))(
        jnp.float32(PARAMS),
        jnp.full(rows, -1),
        stream_key(KEY, "samples"),
        np.repeat(np.where(lengths > 0, lengths + MARGIN, 0), drawn),
        np.repeat(target, drawn, axis=0).T,
        np.arange(target.shape[1])[:, None] < prefix,
        np.tile(np.arange(drawn) == number, len(target)),
    )
    tokens, said = (np.asarray(array).T for array in (candidates.tokens, candidates.mask))
    by_row = [tuple(row[inside].tolist()) for row, inside in zip(tokens, said, strict=True)]
    return [by_row[start : start + drawn] for start in range(0, rows, drawn)]


def greedy(goal: tuple[int, ...]) -> tuple[int, ...]:
    row, said = 0, []
    while len(said) < len(goal) + MARGIN and EOS not in said:
        said.append(int(PARAMS[row].argmax()))
        row = row * VOCAB_SIZE + 1 + said[-1]
    return tuple(said)


def formula(
    name: str, said: list[tuple[int, ...]], goal: tuple[int, ...], teacher_prob: float
) -> tuple[Any, Any]:
    """The loss of a source, and what its gradient is of, as functions of log-probabilities."""
    kind = KINDS[name]
    if kind.make not in (make_reinforce, make_self_critical, make_mixer):
        distinct = list(dict.fromkeys(said))
        costs = np.array([cost(kind.cost, one, goal) for one in distinct])

        def risk(log_probs: np.ndarray) -> float:
            weights = np.exp(ALPHA * np.array([log_prob(log_probs, one) for one in distinct]))
            return weights @ costs / weights.sum()

        return risk, risk
    drawn = said[: kind.num_samples]
    costs = np.array([cost(kind.cost, one, goal) for one in drawn])
    baseline: Any = (costs.sum() - costs) / (len(costs) - 1)
    if name == "self-critical":
        assert said[-1] == greedy(goal)
        baseline = cost(kind.cost, greedy(goal), goal)
    first = prefix_length(name, goal, teacher_prob)

    def nll(log_probs: np.ndarray) -> float:
        return -log_prob(log_probs, goal[:first])

    def surrogate(log_probs: np.ndarray) -> float:
        terms = [log_prob(log_probs, one, first) for one in drawn]
        return (costs - baseline) @ terms / len(drawn) + nll(log_probs)

    return lambda log_probs: costs.mean() + nll(log_probs), surrogate


@pytest.mark.parametrize("name", KINDS)
def test_loss_and_gradient_are_those_of_the_formula_on_the_drawn_samples(name):
    """The mean is over the sources that are no filler."""
    for teacher_prob in (0.5, 0.4) if name == "mixer" else (0.5,):
        (loss, metrics), gradient = results(BATCH, teacher_prob)[name]
        said = samples(name, BATCH, teacher_prob)
        rows = [formula(name, *row, teacher_prob) for row in zip(said, TARGETS, strict=False)]
        expected, surrogate = (
            lambda log_probs, place=place: np.mean([row[place](log_probs) for row in rows])  # noqa: B023
            for place in (0, 1)
        )
        assert float(loss) == pytest.approx(expected(log_softmax(PARAMS)), rel=1e-5)
        np.testing.assert_allclose(gradient, slopes(surrogate), atol=2e-6)
        assert np.abs(gradient).max() > 0.01
        number = KINDS[name].num_samples
        costs = [
            cost(KINDS[name].cost, one, goal)
            for row, goal in zip(said, TARGETS, strict=False)
            for one in row[:number]
        ]
        assert float(metrics["cost"].total) == pytest.approx(sum(costs), rel=1e-5)
        assert float(metrics["cost"].weight) == len(costs)
        distinct = [len(set(row[:number])) for row in said[: len(TARGETS)]]
        assert float(metrics["distinct"].total) == sum(distinct) < len(costs)
        assert metrics["loss"].weight == len(TARGETS)
        assert metrics["loss"].total == pytest.approx(float(loss) * len(TARGETS), rel=1e-6)


def hypotheses(goal: tuple[int, ...]) -> list[tuple[int, ...]]:
    """All up to the cap, ended or cut off there."""
    others, cap = [0, 1, 3], len(goal) + MARGIN
    ended = [(*some, EOS) for length in range(cap) for some in product(others, repeat=length)]
    return ended + list(product(others, repeat=cap))


def expected_cost(log_probs: np.ndarray, goal: tuple[int, ...], first: int) -> float:
    """Given that the first tokens are the gold ones; by enumeration."""
    possible = [one for one in hypotheses(goal) if one[:first] == goal[:first]]
    probs = np.exp([log_prob(log_probs, one, first) for one in possible])
    assert probs.sum() == pytest.approx(1)
    return float(probs @ [cost("edit_rate", one, goal) for one in possible])


def test_gradients_of_the_expected_cost_are_not_biased():
    """REINFORCE and self-critical training; MIXER, whose first tokens are forced."""
    goals, repeats = [(3, EOS), (1, EOS)], 8000

    def exact(log_probs: np.ndarray, first: int) -> float:
        return float(np.mean([expected_cost(log_probs, goal, first) for goal in goals]))

    def mixed(log_probs: np.ndarray) -> float:
        nll = -np.mean([log_prob(log_probs, goal[:1]) for goal in goals])
        return float(nll) + exact(log_probs, 1)

    wanted = {
        "reinforce": lambda log_probs: exact(log_probs, 0),
        "self-critical": lambda log_probs: exact(log_probs, 0),
        "mixer": mixed,
    }
    found = results(make_batch(goals * repeats), names=(*wanted,))
    for name, loss in wanted.items():
        (value, _), gradient = found[name]
        assert float(value) == pytest.approx(loss(log_softmax(PARAMS)), abs=0.02)
        of_loss = slopes(loss)
        np.testing.assert_allclose(gradient, of_loss, atol=0.01)
        assert np.abs(of_loss).max() > 0.1


def test_mixer_at_1_is_the_cross_entropy_of_the_sequence_and_at_0_reinforce():
    found = results(BATCH, 1.0)
    (loss, _), gradient = found["mixer"]

    def nll(log_probs: np.ndarray) -> float:
        return -float(np.mean([log_prob(log_probs, goal) for goal in TARGETS]))

    assert float(loss) == pytest.approx(nll(log_softmax(PARAMS)), rel=1e-6)
    np.testing.assert_allclose(gradient, slopes(nll), atol=2e-6)
    assert float(found["mixer"][0][1]["cost"].total) == 0
    free = results(BATCH, 0.0)
    jax.tree.map(np.testing.assert_array_equal, free["mixer"], free["reinforce"])
    # Only MIXER knows of teacher_prob.
    jax.tree.map(np.testing.assert_array_equal, free["reinforce"], found["reinforce"])


def test_the_number_of_forced_tokens_does_not_suffer_from_rounding():
    lengths = np.arange(1, 200)
    for percent in (0, 1, 30, 50, 60, 70, 90, 99, 100):
        found = forced_length(jnp.float32(percent / 100), jnp.asarray(lengths))
        np.testing.assert_array_equal(found, -(-percent * lengths // 100))


def test_a_rows_part_does_not_depend_on_the_other_rows():
    """L(a, b) + L(c, d) = L(a, d) + L(c, b): a row has only its own draws, by its place."""
    a, b, c, d = (3, EOS), (1, EOS), (EOS,), (0, EOS)
    rest = TARGETS[2:]
    found = [
        results(make_batch([*pair, *rest], filler=2)) for pair in ((a, b), (c, d), (a, d), (c, b))
    ]
    for name in KINDS:
        losses = [float(one[name][0][0]) for one in found]
        assert losses[0] + losses[1] == pytest.approx(losses[2] + losses[3], rel=1e-5)
        assert len(set(losses)) > 1
        gradients = [one[name][1] for one in found]
        np.testing.assert_allclose(
            gradients[0] + gradients[1], gradients[2] + gradients[3], atol=1e-6
        )


def test_a_batch_of_filler_rows_has_no_loss_and_no_weight():
    empty = make_batch([], filler=len(BATCH.target))
    for (loss, metrics), gradient in results(empty).values():
        assert loss == 0
        assert not np.any(gradient)
        assert all(mean.weight == 0 for mean in metrics.values())


@pytest.mark.parametrize("teacher_prob", [-0.1, 1.1, np.nan, np.inf])
def test_an_invalid_teacher_prob_gives_nan(teacher_prob):
    for (loss, metrics), gradient in results(BATCH, teacher_prob).values():
        assert np.isnan(loss)
        assert np.isnan(metrics["loss"].total)
        assert np.isnan(gradient).any()


@pytest.mark.parametrize("wrong", [-1, -100, VOCAB_SIZE, 2**31 - 1])
def test_an_id_outside_the_vocabulary_gives_nan(wrong):
    target = BATCH.target.copy()
    target[1, 0] = wrong
    for teacher_prob in (0.0, 0.5):
        for (loss, _), gradient in results(BATCH._replace(target=target), teacher_prob).values():
            assert np.isnan(loss)
            assert np.isnan(gradient).any()
    outside = np.where(BATCH.target_mask, BATCH.target, wrong)
    found, plain = results(BATCH._replace(target=outside)), results(BATCH)
    jax.tree.map(np.testing.assert_array_equal, found, plain)


def test_lanes_give_what_each_gives_alone():
    keys, probs = jax.random.split(KEY, 2), jnp.array([0.0, 1.0])
    objective = make_mixer(MODEL, num_samples=3, margin=MARGIN)
    lane = jax.value_and_grad(objective, has_aux=True)
    lanes = jax.jit(jax.vmap(lane, in_axes=(None, None, 0, 0)))
    found = lanes(jnp.float32(PARAMS), BATCH, keys, probs)
    for lane in range(2):
        alone = results(BATCH, float(probs[lane]), key=keys[lane])["mixer"]
        jax.tree.map(
            lambda a, b, lane=lane: np.testing.assert_allclose(a[lane], b, atol=1e-6), found, alone
        )


def test_a_replay_changes_nothing_and_neither_does_a_longer_bucket(make_elman, batch, padded_batch):
    """The batch without a replay, and the padded one with it."""
    elman = make_elman(10)
    found, expected = (
        jax.jit(jax.value_and_grad(make_reinforce(model, num_samples=2), has_aux=True))(
            elman.float32, some, KEY, jnp.float32(0.4)
        )
        for model, some in ((elman.replayed, padded_batch), (elman.model, batch))
    )
    assert float(expected[0][1]["cost"].total) > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


GOLD_WEIGHT = 0.3


def test_a_share_of_cross_entropy_is_mixed_in():
    make = partial(make_minimum_risk, MODEL, num_samples=3, alpha=ALPHA, margin=MARGIN)

    @jax.jit
    def both(params: jax.Array) -> Any:
        return [
            jax.value_and_grad(make(gold_weight=weight), has_aux=True)(
                params, BATCH, KEY, jnp.float32(0.5)
            )
            for weight in (0.0, GOLD_WEIGHT)
        ]

    (plain, of_plain), (mixed, of_mixed) = jax.device_get(both(jnp.float32(PARAMS)))
    number = sum(map(len, TARGETS))

    def nll(log_probs: np.ndarray) -> float:
        return -sum(log_prob(log_probs, goal) for goal in TARGETS) / number

    expected = (1 - GOLD_WEIGHT) * plain[0] + GOLD_WEIGHT * nll(log_softmax(PARAMS))
    assert float(mixed[0]) == pytest.approx(expected, rel=1e-5)
    gradient = (1 - GOLD_WEIGHT) * of_plain + GOLD_WEIGHT * slopes(nll)
    np.testing.assert_allclose(of_mixed, gradient, atol=2e-6)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (make_minimum_risk, {"num_samples": 1}, "num_samples is 1; it must be at least 2"),
        (make_reinforce, {"num_samples": 1}, "num_samples is 1; it must be at least 2"),
        (make_mixer, {"num_samples": 1}, "num_samples is 1; it must be at least 2"),
        (make_self_critical, {"num_samples": 0}, "num_samples is 0; it must be at least 1"),
        (make_minimum_risk, {"alpha": 0.0}, r"alpha is 0.0; it must be in \(0, 1e6\]"),
        (make_minimum_risk, {"alpha": float("nan")}, "alpha is nan"),
        (make_reinforce, {"cost": "bleu"}, "cost is 'bleu'"),
        (make_reinforce, {"gold_weight": 1.0}, r"gold_weight is 1.0; it must be in \[0, 1\)"),
        (make_self_critical, {"margin": -1}, "margin is -1; it must be at least 0"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(make, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make(MODEL, **options)
    assert "\n" not in str(error.value)
