import dataclasses
import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax import output_layer
from s2s_jax.batch import BOS, Batch, gold_inputs
from s2s_jax.feeding import toss_coins
from s2s_jax.losses import cross_entropy
from s2s_jax.metrics import compute
from s2s_jax.models.interface import Params, Seq2SeqModel
from s2s_jax.models.rnn.functions import make_rnn_model
from s2s_jax.models.transformer import make_transformer_model
from s2s_jax.objectives import RolloutOptions, make_cross_entropy, make_model_teacher
from s2s_jax.objectives.distillation import Teacher
from s2s_jax.prng import per_step_keys, stream_key
from s2s_jax.sampling import draw_noise, make_token_chooser

KEY = jax.random.key(5)

CASES: dict[str, dict[str, Any]] = {
    "none": {"cell": "lstm", "attention": "none", "bidirectional": False},
    "dot": {"cell": "gru", "attention": "dot", "input_feeding": True, "bidirectional": False},
    "general": {"cell": "lstm", "attention": "general", "input_feeding": True},
    "additive": {"cell": "gru", "attention": "additive", "bidirectional": False},
}
FEEDS = {"none": "argmax", "dot": "sample", "general": "sample", "additive": "sample"}


class Case(NamedTuple):
    model: Seq2SeqModel
    params: Params
    gradient: Callable[..., Any]  # (params, batch, key, teacher_prob) -> (loss, metrics), gradient


@pytest.fixture(scope="module")
def make_case(make_rnn) -> Callable[[str], Case]:
    """A model with dropout and its objective's gradient, compiled once."""

    @cache
    def make(name: str) -> Case:
        model, params = make_rnn(dropout=0.3, **CASES[name])
        objective = make_cross_entropy(model, rollout=RolloutOptions(feed=FEEDS[name]))
        return Case(model, params, jax.jit(jax.value_and_grad(objective, has_aux=True)))

    return make


@pytest.fixture(scope="module")
def make_one_pass(make_case) -> Callable[[str], Any]:
    """The reference: one differentiated scan that samples as it goes; tells what it fed."""

    @cache
    def make(name: str) -> Any:
        model = make_case(name).model
        choose = make_token_chooser(FEEDS[name])

        def loss(params, batch, key, teacher_prob):
            memory = model.encode(
                params, batch.source, batch.source_mask, stream_key(key, "dropout")
            )
            num_rows, time = batch.target.shape
            coins = toss_coins(stream_key(key, "coins"), teacher_prob, time - 1, num_rows)
            coins = jnp.pad(coins, ((0, 1), (0, 0)))  # the last token is never fed
            keys = per_step_keys(stream_key(key, "samples"), time)

            def step(state, inputs):
                carry, token = state
                gold, coin, sample_key = inputs
                carry, logits = model.decode_step(params, memory, carry, token)
                own = choose(jax.lax.stop_gradient(logits), draw_noise(sample_key, (num_rows,)))
                return (carry, jnp.where(coin, gold, own)), (logits, token)

            start = jnp.full(num_rows, BOS, jnp.int32)
            _, (logits, tokens) = jax.lax.scan(
                step,
                (model.initial_carry(params, memory, batch.target.shape[1]), start),
                (batch.target.T, coins, keys),
            )
            loss = cross_entropy(logits.swapaxes(0, 1), batch.target, batch.target_mask)
            return loss.total / loss.weight, tokens.T

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    return make


@pytest.fixture(scope="module")
def given_tokens(make_case) -> Any:
    """(params, batch, key, tokens) -> loss, gradient of "general": the tokens are constants."""
    model = make_case("general").model

    def loss(params, batch, key, tokens):
        memory = model.encode(params, batch.source, batch.source_mask, stream_key(key, "dropout"))
        logits = model.decode_sequence(params, memory, tokens)
        loss = cross_entropy(logits, batch.target, batch.target_mask)
        return loss.total / loss.weight

    return jax.jit(jax.value_and_grad(loss))


def assert_close(left: Any, right: Any, atol: float) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol), left, right)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "general" else pytest.mark.slow) for name in CASES],
)
def test_two_passes_give_the_gradient_of_one_scan_that_samples(
    make_case, make_one_pass, batch, name
):
    case = make_case(name)
    for seed in range(3):
        key = jax.random.key(seed)
        (loss, metrics), gradient = case.gradient(case.params, batch, key, 0.5)
        (expected, tokens), reference = make_one_pass(name)(case.params, batch, key, 0.5)
        wrong = (tokens != gold_inputs(batch.target)) & batch.target_mask
        assert float(metrics["fed_error_rate"].total) == int(wrong.sum()) > 0
        assert float(loss) == pytest.approx(float(expected), abs=1e-6)
        assert_close(gradient, reference, atol=1e-5)


def test_at_1_loss_and_gradient_are_those_of_teacher_forcing(make_case, given_tokens, batch):
    case = make_case("general")
    (loss, metrics), gradient = case.gradient(case.params, batch, KEY, 1.0)
    expected, forced = given_tokens(case.params, batch, KEY, gold_inputs(batch.target))
    assert float(loss) == pytest.approx(float(expected), abs=1e-7)
    assert_close(gradient, forced, atol=1e-7)
    assert float(metrics["fed_error_rate"].total) == 0


def test_no_gradient_flows_through_the_fed_tokens(make_case, make_one_pass, given_tokens, batch):
    case = make_case("general")
    (_, _), gradient = case.gradient(case.params, batch, KEY, 0.3)
    (_, tokens), _ = make_one_pass("general")(case.params, batch, KEY, 0.3)
    assert np.any(tokens != gold_inputs(batch.target))
    _, constant = given_tokens(case.params, batch, KEY, tokens)
    assert_close(gradient, constant, atol=1e-5)


def test_padding_changes_neither_loss_nor_gradient(make_case, batch, padded_batch):
    case = make_case("general")
    (loss, metrics), gradient = case.gradient(case.params, batch, KEY, 0.5)
    (padded_loss, padded_metrics), padded_gradient = case.gradient(
        case.params, padded_batch, KEY, 0.5
    )
    assert float(padded_loss) == pytest.approx(float(loss), abs=1e-6)
    assert_close(padded_metrics, metrics, atol=1e-5)
    assert_close(padded_gradient, gradient, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("side", ["source", "target"])
def test_ids_outside_the_mask_are_ignored(make_case, batch, name, side):
    case = make_case(name)
    ids, mask = getattr(batch, side), getattr(batch, f"{side}_mask")
    for teacher_prob in (0.5, 1.0):
        expected = case.gradient(case.params, batch, KEY, teacher_prob)
        for padding in (-1, -100, 10, 2**31 - 1):
            other = batch._replace(**{side: np.where(mask, ids, padding).astype(np.int32)})
            found = case.gradient(case.params, other, KEY, teacher_prob)
            jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("side", ["source", "target"])
def test_an_id_outside_the_vocabulary_makes_the_loss_nan(make_case, batch, name, side):
    case = make_case(name)
    ids = getattr(batch, side)
    for teacher_prob in (0.0, 0.5, 1.0):
        for wrong in (-1, -10, -100, 10, 2**31 - 1):
            for place in ((0, 0), (2, 3)):  # the last is EOS, which is never fed
                other = ids.copy()
                other[place] = wrong
                (loss, metrics), _ = case.gradient(
                    case.params, batch._replace(**{side: other}), KEY, teacher_prob
                )
                assert np.isnan(loss), (teacher_prob, wrong, place)
                assert np.isnan(metrics["nll"].total)


@pytest.mark.parametrize("name", CASES)
def test_an_all_padding_row_gives_no_nan(make_case, batch, name):
    case = make_case(name)
    empty = jax.tree.map(np.zeros_like, batch)
    rows = np.array([True, False, True, False])[:, None]
    mixed = Batch(*(np.where(rows, *arrays) for arrays in zip(batch, empty, strict=True)))
    for teacher_prob in (0.5, 1.0):
        (loss, _), gradient = case.gradient(case.params, mixed, KEY, teacher_prob)
        assert np.isfinite(loss)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    (loss, _), gradient = case.gradient(case.params, empty, KEY, 0.5)
    assert float(loss) == 0
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(gradient))


def test_the_dropout_masks_do_not_depend_on_what_is_fed(make_case, batch):
    case = make_case("general")
    first = np.zeros_like(batch.target_mask)
    first[:, 0] = True  # the first prediction depends on the dropout masks and on BOS only
    first_token = batch._replace(target_mask=first)
    losses = [
        float(case.gradient(case.params, first_token, key, teacher_prob)[0][0])
        for key in (KEY, jax.random.key(6))
        for teacher_prob in (1.0, 0.5, 0.0)
    ]
    assert losses[0] == losses[1] == losses[2]
    assert losses[3] == losses[4] == losses[5]
    assert losses[0] != losses[3]


def test_the_first_loss_is_about_the_log_of_the_vocabulary(make_rnn, batch):
    models = [
        make_rnn(attention="general")[0],
        make_rnn(attention="none", cell="gru", tie_embeddings=True, embedding_size=8)[0],
    ]

    @jax.jit
    def losses(key):
        params = [model.init(key) for model in models]
        return [
            make_cross_entropy(model)(params, batch, key, jnp.float32(1.0))[0]
            for model, params in zip(models, params, strict=True)
        ]

    for loss in losses(KEY):
        assert float(loss) == pytest.approx(np.log(10), rel=0.05)


# These tests need no recurrence: a table of logits by the fed token is enough.


@pytest.fixture(scope="module")
def run_table(make_table_model) -> Callable[..., Any]:
    """(table, batch, teacher_prob, **options) -> metric means and the table's gradient."""

    @cache
    def compiled(vocab_size: int, options: tuple[tuple[str, Any], ...]) -> Any:
        objective = make_cross_entropy(make_table_model(vocab_size), **dict(options))
        return jax.jit(jax.value_and_grad(objective, has_aux=True))

    def run(table: Any, batch: Batch, teacher_prob: float, **options: Any) -> Any:
        gradient = compiled(len(table), tuple(sorted(options.items())))
        (loss, metrics), gradients = gradient(table, batch, KEY, jnp.float32(teacher_prob))
        assert float(loss) == pytest.approx(compute(metrics)["loss"])
        return metrics, np.asarray(gradients)

    return run


def markov_batch() -> Batch:
    """Two tokens, a = 2 and b = 3, in the proportions P1 = (.7, .3), rows (.9, .1) and (.2, .8)."""
    pairs = np.repeat([[2, 2], [2, 3], [3, 2], [3, 3]], [63_000, 7_000, 6_000, 24_000], axis=0)
    pairs = np.random.default_rng(0).permutation(pairs).astype(np.int32)
    mask = np.ones(pairs.shape, bool)
    return Batch(pairs[:, :1], mask[:, :1], pairs, mask)


@pytest.mark.parametrize("feed", ["sample", "argmax"])
def test_scheduled_sampling_converges_to_the_exact_optimum(run_table, feed):
    """It converges to the inconsistent conditionals, and the first token stays right."""
    answers = {  # teacher_prob -> q(a|a), q(a|b)
        "sample": {0.75: (0.8475, 0.3225), 0.5: (0.795, 0.445), 0.25: (0.7425, 0.5675)},
        "argmax": {0.75: (0.8323, 0.2), 0.5: (0.7765, 0.2), 0.25: (0.7297, 0.2)},
    }[feed]
    batch = markov_batch()
    for teacher_prob, (after_a, after_b) in {1.0: (0.9, 0.2), **answers, 0.0: (0.69, 0.69)}.items():
        table = np.full((4, 4), -30.0, np.float32)
        for fed, first in ((BOS, 0.7), (2, after_a), (3, after_b)):
            table[fed, 2:] = np.log([first, 1 - first])
        _, gradient = run_table(table, batch, teacher_prob, rollout=RolloutOptions(feed=feed))
        np.testing.assert_allclose(2 * gradient[2:], 0, atol=6e-3)
        np.testing.assert_allclose(gradient[BOS], 0, atol=1e-6)


def table_batch(num_rows: int, time: int, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    target = generator.integers(4, 10, (num_rows, time)).astype(np.int32)
    mask = np.arange(time) < generator.integers(1, time + 1, num_rows)[:, None]
    return Batch(target[:, :1], mask[:, :1], np.where(mask, target, 0).astype(np.int32), mask)


@pytest.mark.parametrize("teacher_prob", [0.0, 0.3, 1.0])
def test_gold_share_is_teacher_prob_over_the_decided_inputs_only(run_table, teacher_prob):
    batch = table_batch(300, 20)
    metrics, _ = run_table(np.zeros((10, 10), np.float32), batch, teacher_prob)
    gold = metrics["gold_share"]
    decided = batch.target_mask[:, 1:].sum()  # neither the start symbol nor padding
    assert float(gold.weight) == decided
    assert float(gold.total / gold.weight) == pytest.approx(
        teacher_prob, abs=4 * np.sqrt(teacher_prob * (1 - teacher_prob) / decided)
    )


def test_fed_error_rate_counted_by_hand(run_table, make_batch):
    # The model outputs 5, whatever it is fed; gold inputs after BOS: 5 5 6 | 7 | none.
    always_5 = np.broadcast_to(50 * np.eye(10, dtype=np.float32)[5], (10, 10))
    batch = make_batch([[4]] * 3, [[5, 5, 6, 2], [7, 2], [2]])
    metrics, _ = run_table(always_5, batch, 0.0, rollout=RolloutOptions(feed="argmax"))
    assert (float(metrics["fed_error_rate"].total), float(metrics["fed_error_rate"].weight)) == (
        2,
        4,
    )
    assert (float(metrics["token_accuracy"].total), float(metrics["token_accuracy"].weight)) == (
        2,
        7,
    )
    metrics, _ = run_table(always_5, batch, 1.0, rollout=RolloutOptions(feed="argmax"))
    assert float(metrics["fed_error_rate"].total) == 0


def test_label_smoothing_is_in_the_loss_and_not_in_the_nll(run_table):
    table = np.random.default_rng(0).normal(size=(10, 10)).astype(np.float32)
    batch = table_batch(8, 4)
    plain, _ = run_table(table, batch, 1.0)
    smoothed, _ = run_table(table, batch, 1.0, label_smoothing=0.2)
    plain, smoothed = compute(plain), compute(smoothed)
    assert smoothed["nll"] == plain["nll"] == plain["loss"]
    logits = jnp.asarray(table)[gold_inputs(batch.target)]
    target, mask = (jnp.asarray(array) for array in batch[2:])
    expected = compute({"loss": cross_entropy(logits, target, mask, 0.2)})
    assert smoothed["loss"] == pytest.approx(expected["loss"], abs=1e-6)


def test_training_gives_the_model_a_dropout_key(make_table_model):
    got = []

    def encode(params, source, source_mask, dropout_key):
        got.append(dropout_key is not None)
        return source[:, 0]

    model = make_table_model(10)
    spy = Seq2SeqModel(**{**vars(model), "encode": encode})
    objective = make_cross_entropy(spy)
    jax.eval_shape(objective, jnp.zeros((10, 10)), table_batch(2, 3), KEY, 0.5)
    assert got == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollout": RolloutOptions(top_k=11)}, "top_k is 11, and the vocabulary has 10 tokens"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it must be in \[0, 1\)"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
    ],
)
def test_invalid_options_are_refused_before_training(make_table_model, options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_cross_entropy(make_table_model(10), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["rnn", "no replay", "no features", "transformer", "passes"])
def test_logits_of_all_tokens_are_never_materialised_at_once(monkeypatch, batch, name):
    """With features, no array of the program is as large as batch x time x vocabulary."""
    monkeypatch.setattr(output_layer, "_BLOCK_ELEMENTS", 4 * 512)
    if name in ("transformer", "passes"):
        model = make_transformer_model(10, 512, hidden_size=8, mlp_size=8, dropout=0.0)
    else:
        model = make_rnn_model(10, 512, hidden_size=8, embedding_size=6)
    if name.startswith("no"):
        model = dataclasses.replace(model, replay=None)
    if name == "no features":
        model = dataclasses.replace(model, features=None)
    rollout = RolloutOptions(passes=int(name == "passes"))
    gradient = jax.jit(jax.grad(make_cross_entropy(model, rollout=rollout), has_aux=True))
    shapes = jax.eval_shape(model.init, KEY)
    program = gradient.lower(shapes, batch, KEY, np.float32(0.5)).as_text()
    sizes = [
        math.prod(map(int, shape.split("x")))
        for shape in re.findall(r"tensor<([0-9x]+)xf32>", program)
    ]
    assert (max(sizes) < batch.target.size * 512) == (name != "no features")


@pytest.mark.parametrize("name", ["table", *CASES])
def test_an_invalid_teacher_prob_does_not_train_silently(
    make_case, make_table_model, make_batch, batch, name
):
    """Loss, metric and gradient are all NaN, so that it is noticed in any of them."""
    if name == "table":
        model = make_table_model(10)
        run = jax.jit(jax.value_and_grad(make_cross_entropy(model), has_aux=True))
        case = Case(model, model.init(KEY), run)
    else:
        case = make_case(name)
    for wrong in (-0.01, 1.01, 1.5, np.nan, np.inf, -np.inf):
        (loss, metrics), gradient = case.gradient(case.params, batch, KEY, wrong)
        assert np.isnan(loss)
        assert np.isnan(metrics["loss"].total)
        for leaf in jax.tree.leaves(gradient):
            assert np.isnan(leaf).any()
    for right in (0.0, 1.0):
        (loss, _), gradient = case.gradient(case.params, batch, KEY, right)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, gradient)))


@pytest.mark.parametrize("name", ["table", *CASES])
def test_the_derivative_with_respect_to_teacher_prob_is_0(make_case, make_table_model, batch, name):
    """A coin is a discrete choice; a schedule made of parameters stays as it is."""
    model = make_table_model(10) if name == "table" else make_case(name).model
    objective = make_cross_entropy(model, rollout=RolloutOptions(feed=FEEDS.get(name, "sample")))
    params = model.init(KEY)

    def loss(logit: jax.Array) -> jax.Array:
        return objective(params, batch, KEY, jax.nn.sigmoid(logit))[0]

    logits = jnp.array([-1.0, 0.0, 100.0])  # at the last one teacher_prob is 1
    assert jax.jit(jax.vmap(jax.grad(loss)))(logits).tolist() == [0, 0, 0]
    assert jax.jit(jax.grad(loss))(logits[0]) == 0


# Feeds and targets, on a small model with and without a replay.

UNIGRAM = np.arange(10)
FEED_CASES: dict[str, dict[str, Any]] = {
    "confidence": {"coin": "confidence", "gold_below": 0.05, "own_below": 0.3},
    "passes": {"passes": 2},
    "uniform": {"source": "uniform"},
}
SLOW_FEED_CASES: dict[str, dict[str, Any]] = {
    "sequence": {"coin": "sequence"},
    "batch": {"coin": "batch"},
    "argmax": {"feed": "argmax"},
    "sharper": {"temperature": 0.3, "top_k": 3},
    "position": {"position": "exponential", "position_k": 0.6, "position_floor": 0.1},
    "unigram": {"source": "unigram"},
    "blank": {"source": "blank"},
    "neighbour": {"source": "neighbour", "num_neighbours": 2},
}
TARGET_CASES: dict[str, dict[str, Any]] = {
    "raml": {"target": "raml", "tau": 1.0},
    "ocd": {"target": "ocd", "margin": 2},
    "teacher": {"target": "teacher", "margin": 2, "divergence": "jsd"},
}


@pytest.fixture(scope="module")
def run_elman(make_elman) -> Callable[..., Any]:
    """(batch, teacher_prob, with_replay, feed options, other options) -> (loss, metrics), gradient.

    Compiled once for each of the options and shapes.
    """
    elman, tutor = make_elman(10), make_elman(10, seed=1)

    @cache
    def make(with_replay: bool, feed: Any, others: Any) -> Any:
        options = dict(others)
        if options.get("target") == "teacher":
            options["teacher"] = make_model_teacher(tutor.model, tutor.float32)
        if dict(feed).get("source") == "unigram":
            options["unigram_probs"] = UNIGRAM
        objective = make_cross_entropy(
            elman.replayed if with_replay else elman.model,
            rollout=RolloutOptions(**dict(feed)),
            **options,
        )
        return jax.value_and_grad(objective, has_aux=True), elman.float32

    compiled = cache(lambda *options: jax.jit(make(*options)[0]))

    def run(batch: Batch, teacher_prob: Any, with_replay: bool, feed: Any, lanes=None, **others):
        options = with_replay, tuple(feed.items()), tuple(others.items())
        gradient, params = make(*options)
        if lanes is not None:
            lane = jax.jit(jax.vmap(gradient, in_axes=(None, None, 0, 0)))
            return jax.device_get(lane(params, batch, lanes, teacher_prob))
        given = params, batch, KEY, jnp.float32(teacher_prob)
        return jax.device_get(compiled(*options)(*given))

    return run


def cases(feeds: Any, targets: Any) -> list[Any]:
    return [
        *(pytest.param(feed, {}, id=name) for name, feed in feeds.items()),
        *(pytest.param({}, target, id=name) for name, target in targets.items()),
    ]


def assert_a_replay_changes_nothing(run_elman, batch, padded_batch, feed, target) -> None:
    """The batch without a replay, and with one the same batch in a longer bucket."""
    # A coin that few rows share can say gold for all of them.
    teacher_prob = 0.0 if feed.get("coin") in ("sequence", "batch") else 0.4
    expected = run_elman(batch, teacher_prob, False, feed, **target)
    found = run_elman(padded_batch, teacher_prob, True, feed, **target)
    metrics = expected[0][1]
    assert float(metrics["fed_error_rate"].total) > 0
    assert float(metrics["gold_share"].total) < float(metrics["gold_share"].weight)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    for one in ("fed_error_rate", "gold_share"):
        assert found[0][1][one] == metrics[one]


@pytest.mark.parametrize(("feed", "target"), cases(FEED_CASES, TARGET_CASES))
def test_a_replay_changes_nothing_and_neither_does_a_longer_bucket(
    run_elman, batch, padded_batch, feed, target
):
    assert_a_replay_changes_nothing(run_elman, batch, padded_batch, feed, target)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("feed", "target"),
    [
        *cases(SLOW_FEED_CASES, {}),
        *(
            pytest.param(feed, target, id=f"{name} {goal}")
            for name, feed in FEED_CASES.items()
            for goal, target in TARGET_CASES.items()
        ),
    ],
)
def test_a_replay_changes_nothing_whatever_the_options(
    run_elman, batch, padded_batch, feed, target
):
    assert_a_replay_changes_nothing(run_elman, batch, padded_batch, feed, target)


def test_raml_with_a_tiny_temperature_is_training_on_gold_bit_by_bit(run_elman, batch):
    for teacher_prob in (0.5, 1.0):
        gold = run_elman(batch, teacher_prob, True, {})
        raml = run_elman(batch, teacher_prob, True, {}, target="raml", tau=0.01)
        jax.tree.map(np.testing.assert_array_equal, raml, gold)


def test_completions_of_gold_prefixes_are_teacher_forcing_bit_by_bit(run_elman, batch):
    gold = run_elman(batch, 1.0, True, {})
    completion = run_elman(batch, 1.0, True, {}, target="ocd", margin=0)
    jax.tree.map(np.testing.assert_array_equal, completion, gold)


def test_a_completion_of_gold_prefixes_needs_no_margin(run_elman, batch):
    """At teacher_prob 1 all targets end where the gold ones do, with the same loss."""
    gold = run_elman(batch, 1.0, True, {})
    completion = run_elman(batch, 1.0, True, {}, **TARGET_CASES["ocd"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), completion, gold)


def test_as_many_passes_as_steps_train_like_the_scan(run_elman, batch):
    scan = run_elman(batch, 0.3, True, {})
    passes = run_elman(batch, 0.3, True, {"passes": batch.target.shape[1]})
    for one in ("fed_error_rate", "gold_share", "token_accuracy"):
        assert passes[0][1][one] == scan[0][1][one]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), passes, scan)


@pytest.mark.parametrize("name", TARGET_CASES)
def test_no_target_hides_an_invalid_id_or_teacher_prob(run_elman, batch, name):
    target = TARGET_CASES[name]
    for teacher_prob in (0.0, 0.4, 1.0):
        for place in ((0, 0), (2, 3)):  # the last is EOS, which is never fed
            for wrong in (-1, -100, 10, 2**31 - 1):
                ids = batch.target.copy()
                ids[place] = wrong
                other = batch._replace(target=ids)
                (loss, metrics), _ = run_elman(other, teacher_prob, False, {}, **target)
                assert np.isnan(loss), (teacher_prob, place, wrong)
                assert np.isnan(metrics["nll"].total)
    for wrong in (-0.01, 1.01, np.nan, np.inf):
        (loss, metrics), gradient = run_elman(batch, wrong, False, {}, **target)
        assert np.isnan(loss)
        assert np.isnan(metrics["loss"].total)
        assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_lanes_of_completions_give_what_each_gives_alone(run_elman, batch):
    probs, target = jnp.array([1.0, 0.4, 0.0]), TARGET_CASES["ocd"]
    keys = jnp.stack([KEY] * 3)
    lanes = run_elman(batch, probs, True, {}, keys, **target)
    for lane, teacher_prob in enumerate(probs):
        alone = run_elman(batch, teacher_prob, True, {}, **target)
        jax.tree.map(
            lambda a, b, lane=lane: np.testing.assert_allclose(a[lane], b, atol=1e-6), lanes, alone
        )


def test_raml_trains_on_what_it_feeds(run_table):
    """With a table that copies, the loss is small although the fed tokens are not the gold ones."""
    batch = table_batch(400, 12)
    metrics, _ = run_table(np.zeros((10, 10), np.float32), batch, 1.0, target="raml", tau=1.0)
    share = 5 * np.exp(-1) / (1 + 5 * np.exp(-1))  # of 6 ids that are not reserved
    wrong = metrics["fed_error_rate"]
    deviation = np.sqrt(share * (1 - share) / float(wrong.weight))
    assert abs(float(wrong.total / wrong.weight) - share) < 4 * deviation
    assert float(metrics["gold_share"].total) == float(metrics["gold_share"].weight)
    # Uniform logits choose 0, which is never right; the target is y', of which none is 0.
    assert float(metrics["token_accuracy"].total) == 0


def unasked_teacher(vocab_size: int) -> Teacher:
    return Teacher(lambda *_: None, lambda *_: (None, jnp.zeros(0)), vocab_size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "golden"}, "target is 'golden'; did you mean 'gold'"),
        ({"tau": 0.5}, "tau is 0.5; it has no effect unless target is 'raml'"),
        ({"target": "ocd", "tau": 0.5}, "tau is 0.5; it has no effect unless target is 'raml'"),
        ({"margin": 3}, "margin is 3; it has no effect unless target is 'ocd' or 'teacher'"),
        (
            {"target": "raml", "margin": 3},
            "margin is 3; it has no effect unless distance is 'edit'",
        ),
        ({"divergence": "jsd"}, "divergence is 'jsd'; it has no effect unless target is 'teach"),
        ({"target": "ocd", "margin": -1}, "margin is -1; it must be at least 0"),
        ({"target": "raml", "tau": 0.0}, r"tau is 0.0; it must be in \(0, 1e6\]"),
        ({"target": "teacher"}, "target is 'teacher'; it needs teacher"),
        (
            {
                "target": "teacher",
                "teacher": unasked_teacher(10),
                "divergence": "x",
            },
            "divergence is 'x'",
        ),
        (
            {"target": "teacher", "teacher": unasked_teacher(11)},
            "teacher has 11 target ids; the model has 10",
        ),
        (
            {
                "target": "teacher",
                "teacher": unasked_teacher(10),
                "label_smoothing": 0.1,
            },
            "label_smoothing is 0.1; target 'teacher' has none",
        ),
        (
            {"target": "ocd", "rollout": RolloutOptions(feed="soft")},
            "feed is 'soft'; it feeds no tokens, and these targets depend on them",
        ),
    ],
)
def test_targets_that_contradict_other_options_are_refused_in_one_line(
    make_elman, options, message
):
    with pytest.raises(ValueError, match=message) as error:
        make_cross_entropy(make_elman(10).model, **options)
    assert "\n" not in str(error.value)


def test_a_teacher_without_that_target_is_refused(make_elman):
    teacher = unasked_teacher(10)
    with pytest.raises(ValueError, match=r"teacher is .*; it has no effect unless target is 'tea"):
        make_cross_entropy(make_elman(10).model, teacher=teacher)
