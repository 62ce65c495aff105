import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS, EOS, NUM_RESERVED, PAD, UNK, gold_inputs
from s2s_jax.feeding import (
    Fed,
    Feeding,
    RolloutOptions,
    position_probs,
    toss_coins,
)
from s2s_jax.models.interface import Seq2SeqModel, Vectors

KEY = jax.random.key(7)
VOCAB_SIZE, NUM_NEIGHBOURS = 12, 3
# Frequent reserved ids, and an id in the middle and at the end that never occur.
UNIGRAM = np.array([90, 50, 50, 30, 5, 1, 0, 4, 3, 2, 5, 0])
# Apart from the last one, vectors near the gold tokens' are those of reserved ids.
TABLE = np.random.default_rng(3).normal(5, 1, (VOCAB_SIZE, 4)).astype(np.float32)
TABLE[:NUM_RESERVED] = TABLE[4:8] + 0.01


def noise_batch() -> tuple[np.ndarray, np.ndarray]:
    """Targets of 1 to 12 tokens, [500, 12]: ids from 4 on, and UNK here and there."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 13, 500)
    ids = generator.integers(UNK, VOCAB_SIZE, (500, 12)).astype(np.int32)
    places = np.arange(12)
    ids = np.where(places < lengths[:, None] - 1, ids, PAD)
    ids[places == lengths[:, None] - 1] = EOS
    return ids, places < lengths[:, None]


TARGET, MASK = noise_batch()
DECIDED = MASK & (np.arange(12) > 0)
NOISES: dict[str, dict[str, Any]] = {
    "uniform": {},
    "unigram": {},
    "blank": {},
    "neighbour": {"num_neighbours": NUM_NEIGHBOURS},
}


@pytest.fixture(scope="module")
def model(make_table_model) -> Seq2SeqModel:
    """The logits after a token are its row of the table, which is fed as its vector, too."""
    table = make_table_model(VOCAB_SIZE)
    vectors = Vectors(
        table=lambda params: params,
        step=lambda params, memory, carry, vector: (carry, vector),
    )
    return dataclasses.replace(table, vectors=vectors)


@pytest.fixture(scope="module")
def noised(model):
    """(target, mask, teacher_prob) -> what each noise feeds instead of it."""

    @jax.jit
    def run(target: jax.Array, mask: jax.Array, teacher_prob: jax.Array) -> dict[str, Fed]:
        fed = {}
        for name in (*NOISES, "uniform beyond"):
            source = name.removesuffix(" beyond")
            feeding = Feeding(
                model,
                RolloutOptions(source=source, **NOISES[source]),
                UNIGRAM if source == "unigram" else None,
                beyond_gold=name != source,
            )
            draws = feeding.draw(TABLE, target.T, mask.T, KEY, teacher_prob)
            fed[name] = feeding.known(draws).turned()
        return fed

    return lambda *args: jax.device_get(run(*args))


@pytest.mark.parametrize("teacher_prob", [0.1, 0.5, 0.9])
def test_the_coins_mean_is_teacher_prob_over_time_and_over_the_batch(teacher_prob):
    coins = np.asarray(toss_coins(KEY, jnp.float32(teacher_prob), 200, 200))
    deviation = np.sqrt(teacher_prob * (1 - teacher_prob))
    assert abs(coins.mean() - teacher_prob) < 4 * deviation / 200
    for axis in (0, 1):  # the mean of 200 coins, 200 times: spread as of independent coins
        means = coins.mean(axis)
        assert np.all(np.abs(means - teacher_prob) < 5 * deviation / np.sqrt(200))
        assert means.std() == pytest.approx(deviation / np.sqrt(200), rel=0.3)


def test_a_coin_is_independent_of_its_neighbours():
    coins = np.asarray(toss_coins(KEY, jnp.float32(0.5), 200, 200))
    assert abs((coins[:, 1:] == coins[:, :-1]).mean() - 0.5) < 0.01
    assert abs((coins[1:] == coins[:-1]).mean() - 0.5) < 0.01


def test_a_sequence_coin_is_shared_over_time_alone_and_a_batch_coin_by_all():
    sequence = np.asarray(toss_coins(KEY, jnp.float32(0.3), 4, 1000, "sequence"))
    assert np.all(sequence == sequence[:1])
    assert abs(sequence[0].mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 1000)
    keys = jax.random.split(KEY, 1000)
    batch = np.asarray(jax.vmap(lambda key: toss_coins(key, jnp.float32(0.3), 3, 4, "batch"))(keys))
    assert batch.shape == (1000, 3, 4)
    assert np.all(batch == batch[:, :1, :1])
    assert abs(batch[:, 0, 0].mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 1000)


@pytest.mark.parametrize("coin", ["token", "sequence", "batch"])
def test_at_1_every_coin_is_gold_and_at_0_none(coin):
    for seed in range(5):
        key = jax.random.key(seed)
        assert np.all(toss_coins(key, jnp.float32(1.0), 30, 30, coin))
        assert not np.any(toss_coins(key, jnp.float32(0.0), 30, 30, coin))


@pytest.mark.parametrize("coin", ["token", "sequence"])
def test_more_rows_and_steps_toss_the_same_coins_and_then_more(coin):
    few = toss_coins(KEY, jnp.float32(0.5), 5, 4, coin)
    many = toss_coins(KEY, jnp.float32(0.5), 8, 9, coin)
    np.testing.assert_array_equal(many[:5, :4], few)


def test_each_step_can_have_a_probability_of_its_own():
    probs = jnp.array([1.0, 0.7, 0.2, 0.0])
    coins = np.asarray(toss_coins(KEY, probs, 4, 2000))
    assert np.all(coins[0])
    assert not np.any(coins[3])
    np.testing.assert_allclose(coins.mean(1), probs, atol=4 * 0.5 / np.sqrt(2000))
    shared = np.asarray(toss_coins(KEY, probs, 4, 2000, "sequence"))
    assert np.all(shared[1:] <= shared[:-1])  # one toss for the row: gold until it is not
    np.testing.assert_allclose(shared.mean(1), probs, atol=4 * 0.5 / np.sqrt(2000))


# Positions.

STEPS = np.arange(1, 31)
BY_POSITION = {
    "linear": lambda t, k: 1 - t / k,
    "exponential": lambda t, k: k**t,
    "inverse_sigmoid": lambda t, k: (k + 1) / (k + np.exp(t / k)),
}


@pytest.mark.parametrize("position", BY_POSITION)
@pytest.mark.parametrize("teacher_prob", [0.0, 0.4, 1.0])
def test_position_probs_are_the_formula_of_t_times_1_minus_g(position, teacher_prob):
    formula = BY_POSITION[position]
    default = 0.99 if position == "exponential" else 20.0
    for k in (None, 0.5 if position == "exponential" else 7.0):
        for floor in (0.0, 0.25):
            found = position_probs(jnp.float32(teacher_prob), 30, position, k, floor)
            expected = formula(STEPS * (1 - teacher_prob), default if k is None else k)
            np.testing.assert_allclose(found, np.maximum(expected, floor), rtol=1e-5, atol=1e-6)
    assert formula(0, 20.0) == 1
    if teacher_prob == 1:
        assert np.all(found == 1)


def test_without_a_position_the_probability_is_that_of_the_schedule():
    assert position_probs(jnp.float32(0.3), 5, "none") == jnp.float32(0.3)


def test_the_coins_of_a_feed_follow_the_positions(model):
    options = RolloutOptions(position="linear", position_k=6.0, position_floor=0.1)
    target, mask = np.full((9, 4000), 5, np.int32), np.ones((9, 4000), bool)
    draw = jax.jit(Feeding(model, options).draw)
    own = np.asarray(draw(TABLE, target, mask, KEY, jnp.float32(0.5)).own)
    expected = 1 - np.maximum(1 - np.arange(1, 9) * 0.5 / 6, 0.1)
    np.testing.assert_allclose(own[:-1].mean(1), expected, atol=4 * 0.5 / np.sqrt(4000))
    assert not np.any(own[-1])
    assert not np.any(draw(TABLE, target, mask, KEY, jnp.float32(1.0)).own)


# Noise.


@pytest.mark.parametrize("source", NOISES)
def test_the_share_of_noise_is_that_of_the_coin_and_the_rest_is_gold(noised, source):
    for teacher_prob in (0.0, 0.7):
        fed = noised(TARGET, MASK, teacher_prob)[source]
        share = fed.is_gold[DECIDED].mean()
        deviation = np.sqrt(teacher_prob * (1 - teacher_prob) / DECIDED.sum())
        assert abs(share - teacher_prob) <= 4 * deviation
        inputs = np.asarray(gold_inputs(TARGET))
        np.testing.assert_array_equal(fed.tokens[fed.is_gold], inputs[fed.is_gold])


@pytest.mark.parametrize("source", [*NOISES, "uniform beyond"])
def test_noise_replaces_neither_the_start_nor_the_end_nor_padding(noised, source):
    fed = noised(TARGET, MASK, 0.0)[source]
    inputs = np.asarray(gold_inputs(TARGET))
    assert np.all(fed.tokens[:, 0] == BOS)
    assert np.any(inputs == EOS)
    np.testing.assert_array_equal(fed.tokens[~DECIDED], inputs[~DECIDED])
    assert np.all(fed.is_gold[~DECIDED])
    assert not np.any(fed.is_gold[DECIDED])


def counts_of(tokens: np.ndarray) -> np.ndarray:
    return np.bincount(tokens, minlength=VOCAB_SIZE)


def assert_shares(tokens: np.ndarray, expected: np.ndarray) -> None:
    """Each id is as frequent as expected, within 4 standard deviations, and never where 0 is."""
    expected = expected / expected.sum()
    deviation = np.sqrt(expected * (1 - expected) / tokens.size)
    assert np.all(np.abs(counts_of(tokens) / tokens.size - expected) <= 4 * deviation)


def test_uniform_noise_is_any_id_that_is_not_reserved_the_gold_one_too(noised):
    tokens = noised(TARGET, MASK, 0.0)["uniform"].tokens[DECIDED]
    assert_shares(tokens, (np.arange(VOCAB_SIZE) >= NUM_RESERVED) * 1.0)
    gold = np.asarray(gold_inputs(TARGET))[DECIDED]
    known = gold >= NUM_RESERVED
    kept = (tokens == gold)[known]
    assert abs(kept.mean() - 1 / 8) < 4 * np.sqrt(7 / 64 / kept.size)


def test_unigram_noise_follows_the_frequencies_and_never_draws_what_never_occurs(noised):
    tokens = noised(TARGET, MASK, 0.0)["unigram"].tokens[DECIDED]
    assert_shares(tokens, np.where(np.arange(VOCAB_SIZE) >= NUM_RESERVED, UNIGRAM, 0))


def test_a_blank_is_the_unknown_symbol(noised):
    assert np.all(noised(TARGET, MASK, 0.0)["blank"].tokens[DECIDED] == UNK)


def test_neighbours_are_the_nearest_by_euclidean_distance(noised):
    tokens = noised(TARGET, MASK, 0.0)["neighbour"].tokens[DECIDED]
    gold = np.asarray(gold_inputs(TARGET))[DECIDED]
    for token in range(UNK, VOCAB_SIZE):
        distances = np.linalg.norm(TABLE.astype(np.float64) - TABLE[token], axis=1)
        distances[[*range(NUM_RESERVED), token]] = np.inf
        nearest = np.argsort(distances)[:NUM_NEIGHBOURS]
        assert_shares(tokens[gold == token], np.isin(np.arange(VOCAB_SIZE), nearest) * 1.0)


@pytest.mark.parametrize("source", NOISES)
def test_more_rows_and_a_longer_bucket_draw_the_same_noise(noised, source):
    padded = np.pad(TARGET[:300], ((0, 9), (0, 4)))
    mask = np.pad(MASK[:300], ((0, 9), (0, 4)))
    few, many = noised(TARGET, MASK, 0.4)[source], noised(padded, mask, 0.4)[source]
    np.testing.assert_array_equal(many.tokens[:300, :12], few.tokens[:300])
    np.testing.assert_array_equal(many.is_gold[:300, :12], few.is_gold[:300])


# Own tokens beyond the end of the gold ones.


def test_own_tokens_go_on_where_the_gold_ones_have_ended(model):
    for beyond_gold in (False, True):
        feeding = Feeding(model, RolloutOptions(), beyond_gold=beyond_gold)
        draws = jax.jit(feeding.draw)(TABLE, TARGET.T, MASK.T, KEY, jnp.float32(1.0))
        # The token that is fed after a step replaces the step's target.
        after_end = np.asarray(draws.own).T & ~MASK
        assert np.array_equal(after_end[:, :-1], beyond_gold & ~MASK[:, :-1])
        assert not np.any(np.asarray(draws.own).T & MASK)


# Confidence.

SURE = np.array([0.5, 0.89, 0.91, 0.94, 0.96, 0.999])
"""What the model gives to the gold token at the first six steps."""


@pytest.mark.parametrize("beyond_gold", [False, True])
def test_confidence_decides_between_gold_own_and_a_token_of_the_same_target(model, beyond_gold):
    """At most .9: gold. At most .95: the model's own. Above: any token of the target, not EOS."""
    rows = 2000
    target = np.tile(np.array([4, 5, 6, 7, 8, 9, EOS, PAD], np.int32), (rows, 1))
    target[rows // 2 :] = [10, 11, EOS, PAD, PAD, PAD, PAD, PAD]
    mask = target != PAD
    sure = np.concatenate([SURE, [0.93, 0.5]])
    # The own token is never the gold one: all that is left goes to id 3.
    probs = np.full((*target.shape, VOCAB_SIZE), 1e-30)
    probs[..., UNK] = 1 - sure
    np.put_along_axis(probs, target[..., None], np.broadcast_to(sure, target.shape)[..., None], -1)
    feeding = Feeding(
        model, RolloutOptions(coin="confidence", feed="argmax"), beyond_gold=beyond_gold
    )

    @jax.jit
    def run(logits: jax.Array) -> Any:
        # The most likely token but the gold one, as if it had been drawn.
        feeding.choose_token = lambda logits, noise: jnp.full(logits.shape[:-1], UNK, jnp.int32)
        draws = feeding.draw(TABLE, target.T, mask.T, KEY, jnp.float32(0.25))
        return *feeding.next(logits, draws), draws.own

    logits = np.log(probs).astype(np.float32).swapaxes(0, 1)
    tokens, replaced, own = (np.asarray(array).T for array in run(logits))
    long, tails = slice(rows // 2), slice(rows // 2, rows)
    says_own = own[long]
    assert abs(says_own[:, :6].mean() - 0.75) < 4 * 0.5 / np.sqrt(rows // 2 * 6)
    gold = target[long]
    np.testing.assert_array_equal(tokens[long][~says_own], gold[~says_own])
    assert np.all(tokens[long][:, :2] == gold[:, :2])  # too unsure: gold in any case
    for step in (2, 3):
        assert np.all(tokens[long][says_own[:, step], step] == UNK)
    for step in (4, 5):
        drawn = tokens[long][says_own[:, step], step]
        assert_shares(drawn, (np.arange(VOCAB_SIZE) >= 4) * (np.arange(VOCAB_SIZE) < 10) * 1.0)
    np.testing.assert_array_equal(replaced[long][:, :2], False)
    np.testing.assert_array_equal(replaced[long][:, 2:6], says_own[:, 2:6])
    # Behind the end symbol, own tokens go on, whatever p(PAD) is, or nothing is decided.
    assert np.all(tokens[tails][:, 3:7] == (UNK if beyond_gold else PAD))
    if beyond_gold:
        assert np.all(tokens[tails][own[tails][:, 2], 2] == UNK)  # sure of EOS at .91
    else:
        assert np.all(tokens[tails][:, 2] == EOS)


def test_an_end_symbol_that_the_model_is_sure_of_is_not_replaced(model):
    target = np.tile(np.array([4, 5, EOS, PAD], np.int32), (200, 1))
    feeding = Feeding(model, RolloutOptions(coin="confidence"), beyond_gold=True)
    logits = 50.0 * np.eye(VOCAB_SIZE, dtype=np.float32)[target.T]

    @jax.jit
    def run(logits: jax.Array) -> jax.Array:
        draws = feeding.draw(TABLE, target.T, target.T != PAD, KEY, jnp.float32(0.0))
        return feeding.next(logits, draws)[0]

    tokens = run(logits)
    assert np.all(tokens[2] == EOS)
    assert set(np.asarray(tokens[:2]).ravel().tolist()) == {4, 5}


# Expected embeddings.


def test_an_expected_embedding_is_the_mean_of_the_vectors_under_the_sharpened_softmax(model):
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(5, VOCAB_SIZE)), jnp.float32)

    def expect(logits: Any, table: Any, **options: Any) -> Any:
        return Feeding(model, RolloutOptions(**options)).expect(logits, table, KEY)

    @jax.jit
    def run(logits: jax.Array, table: jax.Array) -> Any:
        def summed(logits: jax.Array, table: Any, **options: Any) -> Any:
            return (expect(logits, table, **options)[0] * jnp.arange(20.0).reshape(5, 4)).sum()

        soft = [expect(logits, table, feed="soft", sharpness=alpha) for alpha in (1.0, 3.0, 1e6)]
        hard = expect(logits, table, feed="soft", sharpness=3.0, straight_through=True)
        gradients = [
            jax.grad(summed, argnums=(0, 1))(
                logits, table, feed="soft", sharpness=3.0, straight_through=straight_through
            )
            for straight_through in (False, True)
        ]
        gumbel = expect(
            jnp.broadcast_to(logits[:1], (20_000, VOCAB_SIZE)), table, feed="gumbel", sharpness=2.0
        )
        return soft, hard, gradients, gumbel

    soft, hard, gradients, (vectors, drawn) = jax.device_get(run(logits, TABLE))
    for alpha, (found, token) in zip((1.0, 3.0), soft[:2], strict=True):
        weights = np.exp(alpha * np.asarray(logits, np.float64))
        weights /= weights.sum(1, keepdims=True)
        np.testing.assert_allclose(found, weights @ TABLE, rtol=1e-5)
        np.testing.assert_array_equal(token, np.argmax(logits, axis=1))
    np.testing.assert_allclose(soft[2][0], TABLE[np.argmax(logits, axis=1)], rtol=1e-6)
    np.testing.assert_allclose(hard[0], TABLE[np.argmax(logits, axis=1)], rtol=1e-6)
    # Fed is the most likely vector, and the gradient is that of the expected one.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *gradients)
    assert np.all(np.abs(gradients[0][0]).max(1) > 1e-3)
    # The most likely token of noisy logits is a sample of the distribution, not sharpened.
    probs = np.exp(np.asarray(logits[0], np.float64))
    assert_shares(drawn, probs)
    assert not np.allclose(vectors[0], vectors[1])


# Refusals.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coin": "word"}, "coin is 'word'; it must be one of token, sequence, batch, conf"),
        ({"source": "unigrm"}, "source is 'unigrm'; did you mean 'unigram'"),
        ({"feed": "greedy"}, "feed is 'greedy'; it must be one of sample, argmax, soft, gumbel"),
        ({"position": "cosine"}, "position is 'cosine'; did you mean"),
        ({"feed": "argmax", "temperature": 0.5}, "temperature is 0.5; feed 'argmax' has none"),
        ({"feed": "argmax", "top_k": 3}, "top_k is 3; feed 'argmax' has none"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be in"),
        ({"top_k": -1}, "top_k is -1; it must be an integer"),
        *(
            ({"source": source, name: value}, f"{name} is {value!r}; it has no effect unless sou")
            for source in NOISES
            for name, value in (
                ("feed", "argmax"),
                ("feed", "soft"),
                ("temperature", 0.5),
                ("top_k", 2),
                ("passes", 1),
            )
        ),
        *(
            ({"source": source, "coin": "confidence"}, "coin is 'confidence', which .*'own'")
            for source in NOISES
        ),
        ({"num_neighbours": 3}, "num_neighbours is 3; it has no effect unless source is 'neigh"),
        ({"source": "neighbour", "num_neighbours": 0}, "num_neighbours is 0; it must be at least"),
        ({"sharpness": 2.0}, "sharpness is 2.0; it has no effect unless feed is 'soft' or 'gum"),
        ({"straight_through": True}, "straight_through is True; it has no effect unless feed is"),
        ({"through_passes": True}, "through_passes is True; it has no effect unless there are pas"),
        ({"feed": "soft", "through_passes": True}, "through_passes is True; it has no effect"),
        *(
            ({"feed": feed, name: value}, f"{name} is {value!r}; feed {feed!r} has none")
            for feed in ("soft", "gumbel")
            for name, value in (("temperature", 0.5), ("top_k", 2))
        ),
        *(
            ({"feed": feed, "coin": "confidence"}, f"coin is 'confidence', .*feed is {feed!r}")
            for feed in ("soft", "gumbel")
        ),
        *(
            ({"feed": "soft", "sharpness": value}, f"sharpness is {value}; it must be in")
            for value in (0.0, -1.0, 1e7, float("nan"))
        ),
        ({"position_k": 3.0}, "position_k is 3.0; it has no effect unless there is a position"),
        ({"position_floor": 0.1}, "position_floor is 0.1; it has no effect unless there is a"),
        ({"position": "exponential", "position_k": 1.0}, r"position_k is 1.0; it must be in \(0,"),
        *(
            ({"position": "linear", "position_k": value}, f"position_k is {value}; it must be in")
            for value in (0.0, -1.0, float("inf"), float("nan"))
        ),
        *(
            ({"position": "linear", "position_floor": value}, f"position_floor is {value}; it mu")
            for value in (-0.1, 1.0, float("nan"))
        ),
        ({"gold_below": 0.5}, "gold_below is 0.5; it has no effect unless coin is 'confidence'"),
        ({"own_below": 0.5}, "own_below is 0.5; it has no effect unless coin is 'confidence'"),
        *(
            (
                {"coin": "confidence", "gold_below": low, "own_below": high},
                f"gold_below is {low} and own_below {high}; they must be in",
            )
            for low, high in ((0.9, 0.8), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5))
        ),
        ({"passes": -1}, "passes is -1; it must be at least 0"),
    ],
)
def test_contradictions_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        RolloutOptions(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 13}, "top_k is 13, and the vocabulary has 12 tokens"),
        ({"source": "neighbour", "num_neighbours": 8}, "num_neighbours is 8; there are 8 ids"),
        ({"source": "unigram"}, "source is 'unigram'; it needs the frequencies of 12 target ids"),
    ],
)
def test_what_a_vocabulary_does_not_allow_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message) as error:
        Feeding(model, RolloutOptions(**options))
    assert "\n" not in str(error.value)
    Feeding(model, RolloutOptions(source="neighbour", num_neighbours=7))


@pytest.mark.parametrize(
    "frequencies", [np.arange(12) < 4, np.zeros(12), -np.ones(12), np.full(12, np.nan)]
)
def test_frequencies_that_no_id_can_be_drawn_with_are_refused(model, frequencies):
    with pytest.raises(ValueError, match="source is 'unigram'; every frequency must be"):
        Feeding(model, RolloutOptions(source="unigram"), frequencies)


@pytest.mark.parametrize("options", [{"source": "neighbour"}, {"feed": "soft"}, {"feed": "gumbel"}])
def test_a_model_that_cannot_be_fed_vectors_refuses_by_name(make_table_model, options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} is '{value}'; this model cannot be fed vectors"):
        Feeding(make_table_model(20), RolloutOptions(**options))


def test_noise_needs_an_id_that_is_not_reserved(make_table_model):
    with pytest.raises(ValueError, match="source is 'blank'; the vocabulary has only the res"):
        Feeding(make_table_model(4), RolloutOptions(source="blank"))
