import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.decoding import beam_search, greedy
from s2s_jax.models.transformer import make_transformer_model

KEY = jax.random.key(3)
TOKENS = np.array([[1, 4, 5, 6, 7], [1, 8, 2, 0, 0], [1, 9, 9, 5, 2], [1, 6, 4, 2, 0]], np.int32)

LEARNED: dict[str, Any] = {"positions": "learned", "max_length": 9}
CASES: dict[str, dict[str, Any]] = {
    "sinusoidal-pre-relu": {"num_decoder_layers": 2, "dropout": 0.3},
    "sinusoidal-post-gelu-tied": {"norm": "post", "activation": "gelu", "tie_embeddings": True},
    "learned-pre-swiglu-shared": LEARNED
    | {"activation": "swiglu", "share_embeddings": True, "num_encoder_layers": 2},
    "learned-post-relu": LEARNED | {"norm": "post", "dropout": 0.3, "num_heads": 1},
    "rotary-pre-gelu-tied-shared": {
        "positions": "rotary",
        "activation": "gelu",
        "tie_embeddings": True,
        "share_embeddings": True,
        "dropout": 0.3,
    },
    "rotary-post-swiglu": {
        "positions": "rotary",
        "norm": "post",
        "activation": "swiglu",
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
    },
    "bfloat16": {"num_decoder_layers": 2, "dropout": 0.3, "dtype": "bfloat16"},
}
QUICK = ("sinusoidal-pre-relu", "learned-post-relu", "rotary-pre-gelu-tied-shared")


def marked(names: Iterable[str]) -> list[Any]:
    """The cases, of which those not in QUICK are slow."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", marked(CASES))
def test_cached_steps_of_tokens_or_vectors_and_a_whole_pass_agree(make_transformer, batch, name):
    """Whatever the room in the cache; with the same dropout in every pass."""
    options = CASES[name]
    model, params = make_transformer(**options)
    vectors, features = model.vectors, model.features

    @jax.jit
    def run(params):
        memory = model.encode(params, batch.source, batch.source_mask, KEY)

        def step(carries, token):
            carry, of_vectors = carries
            carry, logits = model.decode_step(params, memory, carry, token)
            vector = vectors.table(params)[token]
            of_vectors, other = vectors.step(params, memory, of_vectors, vector)
            return (carry, of_vectors), (logits, other)

        start = tuple(model.initial_carry(params, memory, room) for room in (5, 9))
        for leaf in jax.tree.leaves((memory, start)):  # so that a search can reorder rows
            assert leaf.shape[0] == 4
        _, stepped = jax.lax.scan(step, start, TOKENS.T)
        kernel, bias = features.output(params)
        read = features.sequence(params, memory, TOKENS.T)
        read = jnp.matmul(read, kernel, preferred_element_type=jnp.float32) + bias
        return model.decode_sequence(params, memory, TOKENS), *stepped, read

    together, *others = run(params)
    assert together.shape == (4, 5, 10)
    assert together.dtype == jnp.float32
    assert float(jnp.std(together)) > 0.1
    for one in others:
        tolerance = 0.15 if options.get("dtype") == "bfloat16" else 1e-5
        np.testing.assert_allclose(one.swapaxes(0, 1), together, atol=tolerance)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_bfloat16_is_float32_rounded(make_transformer, batch):
    def logits(dtype: str) -> np.ndarray:
        model, params = make_transformer(scale=0.1, dtype=dtype)

        @jax.jit
        def decode(params):
            memory = model.encode(params, batch.source, batch.source_mask, None)
            assert memory.source[0].keys.dtype == dtype
            return model.decode_sequence(params, memory, TOKENS)

        return np.asarray(decode(params))

    wide, narrow = logits("float32"), logits("bfloat16")
    np.testing.assert_allclose(narrow, wide, atol=0.05)
    assert not np.array_equal(narrow, wide)
    assert (narrow != narrow.astype(jnp.bfloat16)).any()  # the logits are not rounded


# The model in NumPy and float64, written from the formulas, one sequence at a time.


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)


def _norm(x: np.ndarray, about: Any) -> np.ndarray:
    scale, bias = (_wide(about[name]) for name in ("scale", "bias"))
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias


def _times(x: np.ndarray, about: Any) -> np.ndarray:
    return x @ _wide(about["kernel"]) + _wide(about["bias"])


def _attention(queries, keys, values, num_heads: int, causal: bool) -> np.ndarray:
    contexts = []
    heads = (np.split(one, num_heads, 1) for one in (queries, keys, values))
    for q, k, v in zip(*heads, strict=True):
        scores = q @ k.T / math.sqrt(q.shape[1])
        if causal:
            scores[np.triu_indices(len(scores), 1)] = -np.inf
        weights = np.exp(scores - scores.max(1, keepdims=True))
        contexts.append(weights / weights.sum(1, keepdims=True) @ v)
    return np.concatenate(contexts, 1)


def _feed_forward(x: np.ndarray, about: Any, activation: str) -> np.ndarray:
    inner = _times(x, about["inner"])
    if activation == "relu":
        inner = np.maximum(inner, 0)
    elif activation == "gelu":
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
    else:
        gate, inner = np.split(inner, 2, 1)
        inner = gate / (1 + np.exp(-gate)) * inner
    return _times(inner, about["outer"])


def _positions(length: int, size: int) -> np.ndarray:
    return np.array(
        [
            [f(t / 10000 ** (2 * i / size)) for f in (math.sin, math.cos) for i in range(size // 2)]
            for t in range(length)
        ]
    )


def _rotated(x: np.ndarray, num_heads: int) -> np.ndarray:
    heads = []
    for head in np.split(x, num_heads, 1):
        first, second = np.split(head, 2, 1)
        # complex numbers, turned by t w_i
        frequencies = 10000.0 ** (-2 * np.arange(first.shape[1]) / head.shape[1])
        turned = (first + 1j * second) * np.exp(1j * np.outer(np.arange(len(x)), frequencies))
        heads += [turned.real, turned.imag]
    return np.concatenate(heads, 1)


def _logits(params: Any, source: np.ndarray, tokens: np.ndarray, options: Any) -> np.ndarray:
    size, num_heads, positions = 8, options.get("num_heads", 2), options.get("positions")
    is_pre, activation = options.get("norm") != "post", options.get("activation", "relu")

    def embed(ids: np.ndarray, side: str) -> np.ndarray:
        table = "target" if options.get("share_embeddings") else side
        x = _wide(params[f"{table}_embedding"])[ids] * math.sqrt(size)
        if positions == "learned":
            return x + _wide(params[f"{side}_positions"])[: len(ids)]
        return x if positions == "rotary" else x + _positions(len(ids), size)

    def add(x: np.ndarray, norm: Any, change: Any) -> np.ndarray:
        return x + change(_norm(x, norm)) if is_pre else _norm(x + change(x), norm)

    def of_itself(about: Any, causal: bool) -> Any:
        def change(x: np.ndarray) -> np.ndarray:
            queries, keys, values = np.split(_times(x, about["inputs"]), 3, 1)
            if positions == "rotary":
                queries, keys = _rotated(queries, num_heads), _rotated(keys, num_heads)
            context = _attention(queries, keys, values, num_heads, causal)
            return _times(context, about["output"])

        return change

    x = embed(source, "source")
    for about in params["encoder"].values():
        x = add(x, about["attention_norm"], of_itself(about["attention"], False))
        x = add(
            x,
            about["feed_forward_norm"],
            lambda x, about=about: _feed_forward(x, about["feed_forward"], activation),
        )
    encoded = _norm(x, params["encoder_norm"]) if is_pre else x
    x = embed(tokens, "target")
    for about in params["decoder"].values():

        def of_source(x: np.ndarray, about: Any = about["cross_attention"]) -> np.ndarray:
            keys, values = np.split(_times(encoded, about["source"]), 2, 1)
            context = _attention(_times(x, about["query"]), keys, values, num_heads, False)
            return _times(context, about["output"])

        x = add(x, about["attention_norm"], of_itself(about["attention"], True))
        x = add(x, about["cross_attention_norm"], of_source)
        x = add(
            x,
            about["feed_forward_norm"],
            lambda x, about=about: _feed_forward(x, about["feed_forward"], activation),
        )
    x = _norm(x, params["decoder_norm"]) if is_pre else x
    tied = options.get("tie_embeddings")
    kernel = params["target_embedding"].T / math.sqrt(8) if tied else params["output_kernel"]
    return x @ _wide(kernel) + _wide(params["output_bias"])


@pytest.mark.parametrize("name", marked(name for name in CASES if name != "bfloat16"))
def test_the_formulas_in_numpy_and_float64(make_transformer, batch, name):
    options = CASES[name] | {"dropout": 0.0}
    model, params = make_transformer(**options)

    @jax.jit
    def decode(params):
        memory = model.encode(params, batch.source, batch.source_mask, None)
        return model.decode_sequence(params, memory, TOKENS)

    found = np.asarray(decode(params))
    for row, tokens in enumerate(TOKENS):
        source = batch.source[row][batch.source_mask[row]]
        np.testing.assert_allclose(found[row], _logits(params, source, tokens, options), atol=1e-4)


def test_no_later_embedding_reaches_a_prediction_by_gradient(make_transformer, batch):
    model, params = make_transformer(num_decoder_layers=2)
    tokens = np.array([[1, 4, 5, 6, 7]] * 4, np.int32)  # all different: a row for each time

    def loss(embedding, time):
        moved = params | {"target_embedding": embedding}
        memory = model.encode(moved, batch.source, batch.source_mask, None)
        logits = model.decode_sequence(moved, memory, tokens)
        return jnp.sum(jnp.sin(jnp.arange(10)) * logits[:, time])

    gradients = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(
        params["target_embedding"], jnp.arange(5)
    )
    reached = np.abs(np.asarray(gradients)).max(-1)[:, tokens[0]]  # [time of logits, time of input]
    assert np.all(reached[np.triu_indices(5, 1)] == 0)
    assert np.all(reached[np.tril_indices(5)] > 0)


@pytest.mark.parametrize(
    "positions",
    ["rotary", *(pytest.param(one, marks=pytest.mark.slow) for one in ("sinusoidal", "learned"))],
)
def test_padding_on_either_side_changes_nothing(make_transformer, batch, positions):
    """Nor do the ids in it, with dropout as without."""
    learned = LEARNED if positions == "learned" else {"positions": positions}
    model, params = make_transformer(dropout=0.3, num_encoder_layers=2, **learned)

    @jax.jit
    def decode(source, mask, tokens):
        memory = model.encode(params, source, mask, KEY)
        return model.decode_sequence(params, memory, tokens)

    scribbled = np.where(batch.source_mask, batch.source, 9)
    wanted = decode(batch.source, batch.source_mask, TOKENS)
    found = decode(
        np.pad(scribbled, ((0, 0), (0, 3)), constant_values=7),
        np.pad(batch.source_mask, ((0, 0), (0, 3))),
        np.pad(TOKENS, ((0, 0), (0, 2)), constant_values=8),
    )
    np.testing.assert_allclose(found[:, :5], wanted, atol=1e-5)


def test_a_row_is_decoded_as_it_would_be_alone(make_transformer, batch):
    """Greedily and with a beam, whose search reorders the caches."""
    model, params = make_transformer(scale=0.6)

    @jax.jit
    def decode(source: Any, mask: Any) -> list[Any]:
        memory = model.encode(params, source, mask, None)
        return [greedy(model, params, memory, 7), beam_search(model, params, memory, 7, 3)]

    together = decode(batch.source, batch.source_mask)
    assert len({tuple(row) for row in np.asarray(together[0].tokens)}) > 1
    for row in range(4):
        jax.tree.map(
            lambda one, all_rows, row=row: np.testing.assert_allclose(
                one[0], all_rows[row], atol=1e-5
            ),
            decode(batch.source[row, None], batch.source_mask[row, None]),
            together,
        )


def test_a_beam_finds_what_an_exhaustive_search_finds(make_transformer, batch):
    """Over all hypotheses of two tokens, scored by whole passes without a cache."""
    model, params = make_transformer(scale=0.6)
    pairs = np.array([[1, first] for first in range(10) if first != 2])

    @jax.jit
    def search() -> tuple[Any, jax.Array]:
        memory = model.encode(params, batch.source[:1], batch.source_mask[:1], None)
        many = jax.tree.map(lambda leaf: jnp.repeat(leaf, len(pairs), axis=0), memory)
        logs = jax.nn.log_softmax(model.decode_sequence(params, many, pairs))
        return beam_search(model, params, memory, 2, 10, length_penalty=0.0), logs

    found, logs = search()
    scores = [logs[0, 0, 2]]
    scores += [logs[row, 0, first] + logs[row, 1, 2] for row, (_, first) in enumerate(pairs)]
    finished = np.asarray(found.scores[0])[np.asarray(found.finished[0])]
    np.testing.assert_allclose(finished, np.sort(scores)[::-1][: len(finished)], atol=1e-5)
    assert len(finished) > 1


def test_attention_sums_to_1_over_the_source_and_is_0_on_its_padding(make_transformer, batch):
    model, params = make_transformer(num_decoder_layers=2)

    @jax.jit
    def attend():
        memory = model.encode(params, batch.source, batch.source_mask, None)
        return model.attention_weights(params, memory, TOKENS)

    weights = attend()
    assert weights.shape == (4, 5, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    assert np.all(np.asarray(weights)[~np.broadcast_to(batch.source_mask[:, None], (4, 5, 6))] == 0)
    assert float(jnp.std(weights)) > 0.05


def test_a_row_without_a_source_gives_numbers(make_transformer, batch):
    model, params = make_transformer()

    @jax.jit
    def decode():
        memory = model.encode(params, batch.source, np.zeros_like(batch.source_mask), None)
        return model.decode_sequence(params, memory, TOKENS)

    assert np.isfinite(decode()).all()


def test_an_id_outside_the_vocabulary_gives_nan(make_transformer, batch):
    model, params = make_transformer()

    @jax.jit
    def is_nan(source: Any, tokens: Any) -> jax.Array:
        memory = model.encode(params, source, batch.source_mask, None)
        found = jnp.isnan(model.decode_sequence(params, memory, tokens))
        return jnp.stack([found.all((1, 2)), found.any((1, 2))])

    wrong = np.array([True, False, True, False])[:, None]
    for source, tokens in (
        (np.where(wrong, 10, batch.source), TOKENS),
        (batch.source, np.where(wrong & (TOKENS[:, 2:3] == TOKENS), -1, TOKENS)),
    ):
        np.testing.assert_array_equal(is_nan(source, tokens), [wrong[:, 0]] * 2)


@pytest.mark.parametrize("options", [{}, {"norm": "post"}, {"tie_embeddings": True}])
def test_an_untrained_model_gives_every_token_nearly_the_same_probability(batch, options):
    model = make_transformer_model(10, 500, hidden_size=64, mlp_size=64, dropout=0.0, **options)

    @jax.jit
    def decode(key: Any) -> Any:
        params = model.init(key)
        memory = model.encode(params, batch.source, batch.source_mask, None)
        return jax.nn.log_softmax(model.decode_sequence(params, memory, jnp.asarray(TOKENS)))

    logs = decode(KEY)
    np.testing.assert_allclose(-logs.mean(), math.log(500), atol=0.05)
    assert logs.std() > 1e-3


def test_dropout_drops(make_transformer, batch):
    model, params = make_transformer(dropout=0.4, scale=0.2)

    @jax.jit
    def decode(params, key):
        memory = model.encode(params, batch.source, batch.source_mask, key)
        return model.decode_sequence(params, memory, TOKENS)

    one, again, other = (decode(params, key) for key in (KEY, KEY, jax.random.key(4)))
    undropped = decode(params, None)
    np.testing.assert_array_equal(one, again)
    assert min(float(jnp.abs(one - some).max()) for some in (other, undropped)) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "sinusodial"}, "positions is 'sinusodial'; did you mean 'sinusoidal'?"),
        ({"norm": "both"}, "norm is 'both'; it must be one of pre, post"),
        ({"activation": "tanh"}, "activation is 'tanh'; it must be one of relu, gelu, swiglu"),
        ({"dtype": "float16"}, "dtype is 'float16'; did you mean 'bfloat16'"),
        ({"hidden_size": 0}, "hidden_size is 0; it must be at least 1"),
        ({"num_heads": 3}, "num_heads is 3; it must divide hidden_size, 8"),
        ({"num_decoder_layers": 0}, "num_decoder_layers is 0; it must be at least 1"),
        ({"hidden_size": 6, "positions": "rotary"}, "needs heads of even size.* is 3"),
        ({"hidden_size": 7, "num_heads": 1}, "needs an even hidden_size, not 7"),
        ({"positions": "learned"}, "set max_length, the longest sequence in tokens"),
        ({"max_length": 20}, "max_length is 20; it has no effect with positions 'sinusoidal'"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must be in \[0, 1\)"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"share_embeddings": True}, "one vocabulary .* have 10 and 11 ids"),
    ],
)
def test_invalid_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_transformer_model(10, 11, **{"hidden_size": 8, "num_heads": 2} | options)
    assert "\n" not in str(error.value)


def test_sequences_longer_than_the_learned_positions_are_refused(make_transformer, batch):
    model, params = make_transformer(positions="learned", max_length=6)
    memory = model.encode(params, batch.source, batch.source_mask, None)
    long = np.ones((4, 7), np.int32)
    for name, run in {
        "source": lambda: model.encode(params, long, long > 0, None),
        "target": lambda: model.decode_sequence(params, memory, long),
    }.items():
        with pytest.raises(ValueError, match=f"a {name} of 7 tokens is longer than max_length, 6"):
            run()
    with pytest.raises(ValueError, match="a target of 7 tokens"):
        model.initial_carry(params, memory, 7)
