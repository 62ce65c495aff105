import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.models.rnn.functions import make_rnn_model

KEY = jax.random.key(3)
TOKENS = np.array([[1, 4, 5, 6, 7], [1, 8, 2, 0, 0], [1, 9, 9, 5, 2], [1, 6, 4, 2, 0]], np.int32)

# cell, attention, input feeding, (encoder, decoder) layers, bidirectional, tied, dropout, dtype
CASES: dict[str, dict[str, Any]] = {
    "lstm-none": {"attention": "none", "num_decoder_layers": 2, "dropout": 0.3},
    "gru-none-tied": {
        "cell": "gru",
        "attention": "none",
        "bidirectional": False,
        "tie_embeddings": True,
        "embedding_size": 8,
    },
    "lstm-dot-feeding": {
        "attention": "dot",
        "input_feeding": True,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "dropout": 0.3,
    },
    "gru-dot": {"cell": "gru", "attention": "dot", "bidirectional": False, "dropout": 0.3},
    "lstm-general": {"attention": "general", "num_decoder_layers": 2},
    "gru-general-feeding": {
        "cell": "gru",
        "attention": "general",
        "input_feeding": True,
        "tie_embeddings": True,
        "embedding_size": 8,
        "dropout": 0.3,
    },
    "lstm-additive-feeding": {
        "attention": "additive",
        "input_feeding": True,
        "bidirectional": False,
    },
    "gru-additive": {
        "cell": "gru",
        "attention": "additive",
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "dropout": 0.3,
    },
    "lstm-bfloat16": {
        "attention": "general",
        "input_feeding": True,
        "dropout": 0.3,
        "dtype": "bfloat16",
    },
}


@pytest.mark.parametrize("name", CASES)
def test_decode_sequence_a_scan_and_a_python_loop_of_decode_step_agree(make_rnn, batch, name):
    """And so does feeding the tokens' vectors."""
    options = CASES[name]
    model, params = make_rnn(**options)
    vectors: Any = model.vectors

    @jax.jit
    def encode(params):
        memory = model.encode(params, batch.source, batch.source_mask, KEY)
        return memory, model.initial_carry(params, memory, 5)

    @jax.jit
    def step(params, memory, carry, token):
        of_vector = vectors.step(params, memory, carry, vectors.table(params)[token])
        return model.decode_step(params, memory, carry, token), of_vector

    @jax.jit
    def sequence_and_scan(params, memory, carry):
        def step(carry, token):
            return model.decode_step(params, memory, carry, token)

        _, logits = jax.lax.scan(step, carry, TOKENS.T)
        return model.decode_sequence(params, memory, TOKENS), logits.swapaxes(0, 1)

    memory, carry = encode(params)
    for leaf in jax.tree.leaves((memory, carry)):  # so that a search can repeat and reorder rows
        assert leaf.shape[0] == 4
    sequence, scanned = sequence_and_scan(params, memory, carry)
    looped = []
    for token in TOKENS.T:
        of_token, of_vector = step(params, memory, carry, token)
        for one, other in zip(*map(jax.tree.leaves, (of_token, of_vector)), strict=True):
            np.testing.assert_allclose(
                *(leaf.astype(np.float32) for leaf in (one, other)), atol=2e-6
            )
        carry, logits = of_token
        looped.append(logits)
    assert sequence.shape == (4, 5, 10)
    assert sequence.dtype == jnp.float32
    assert float(jnp.std(sequence)) > 0.1
    tolerance = 0.1 if options.get("dtype") == "bfloat16" else 2e-6
    np.testing.assert_allclose(scanned, sequence, atol=tolerance)
    np.testing.assert_allclose(np.stack(looped, 1), sequence, atol=tolerance)
    if options.get("dtype") == "bfloat16":
        assert memory.encoded.dtype == carry.attended.dtype == jnp.bfloat16
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_a_tied_output_layer_is_the_target_embedding(make_rnn):
    _, params = make_rnn(tie_embeddings=True, embedding_size=8)
    _, untied = make_rnn()
    assert "output_kernel" in untied
    assert "output_kernel" not in params


DROPPED = {"attention": "general", "input_feeding": True, "dropout": 0.4}


@pytest.fixture(scope="module")
def decoder(make_rnn) -> Any:
    """(params, source, source_mask, tokens, dropout_key or None) -> logits, weights, memory."""
    # Masks of one size, so that two drawn from one key would be the same.
    model, params = make_rnn(embedding_size=8, **DROPPED)

    @jax.jit
    def decode(params, source, source_mask, tokens, dropout_key):
        memory = model.encode(params, source, source_mask, dropout_key)
        weights = model.attention_weights(params, memory, tokens)
        return model.decode_sequence(params, memory, tokens), weights, memory

    return decode, params


@pytest.mark.parametrize("time", range(1, 5))
def test_no_later_token_reaches_a_prediction(decoder, batch, time):
    decode, params = decoder
    changed = TOKENS.copy()
    changed[:, time:] = (changed[:, time:] + 3) % 10
    one, other = (
        decode(params, batch.source, batch.source_mask, tokens, None)[0]
        for tokens in (TOKENS, changed)
    )
    np.testing.assert_array_equal(one[:, :time], other[:, :time])
    assert np.all(np.abs(one[:, time] - other[:, time]).max(-1) > 1e-4)


def test_no_later_embedding_reaches_a_prediction_by_gradient(make_rnn, batch):
    model, params = make_rnn(attention="additive", cell="gru", num_decoder_layers=2)
    tokens = np.array([[1, 4, 5, 6, 7]] * 4, np.int32)  # all different: a row for each time

    def loss(embedding, time):
        moved = params | {"target_embedding": embedding}
        memory = model.encode(moved, batch.source, batch.source_mask, None)
        logits = model.decode_sequence(moved, memory, tokens)
        return jnp.sum(jnp.sin(jnp.arange(10)) * logits[:, time])

    times = jnp.arange(5)
    gradients = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(
        params["target_embedding"], times
    )
    reached = np.abs(np.asarray(gradients)).max(-1)[:, tokens[0]]  # [time of logits, time of input]
    assert np.all(reached[np.triu_indices(5, 1)] == 0)
    assert np.all(reached[np.tril_indices(5)] > 0)


def test_ids_in_the_padding_of_the_source_do_not_matter(decoder, batch):
    decode, params = decoder
    scribbled = np.where(batch.source_mask, batch.source, 9)
    assert np.any(scribbled != batch.source)
    one, other = (
        decode(params, source, batch.source_mask, TOKENS, None)[0]
        for source in (batch.source, scribbled)
    )
    np.testing.assert_array_equal(one, other)


def test_attention_sums_to_1_over_the_source_and_is_0_on_its_padding(decoder, batch):
    decode, params = decoder
    weights = decode(params, batch.source, batch.source_mask, TOKENS, None)[1]
    assert weights.shape == (4, 5, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    assert np.all(np.asarray(weights)[~np.broadcast_to(batch.source_mask[:, None], (4, 5, 6))] == 0)
    assert make_rnn_model(10, 10, hidden_size=8, attention="none").attention_weights is None


def test_dropout_masks_are_drawn_once_per_sequence_and_depend_only_on_the_key(decoder, batch):
    decode, params = decoder
    one, same, other = (
        decode(params, batch.source, batch.source_mask, TOKENS, key)[2]
        for key in (KEY, KEY, jax.random.key(4))
    )
    masks, again, others = (
        (memory.token_mask, *memory.layer_masks) for memory in (one, same, other)
    )
    for mask, repeated, different in zip(masks, again, others, strict=True):
        assert mask.ndim == 2  # [batch, features]: no time
        np.testing.assert_array_equal(mask, repeated)
        assert not np.array_equal(mask, different)
        assert set(np.unique(mask)) == {0, np.float32(1 / 0.6)}
    assert len({np.asarray(mask).tobytes() for mask in masks}) == len(masks)


def test_without_a_key_nothing_is_dropped(make_rnn, decoder, batch):
    decode, params = decoder
    model, _ = make_rnn(embedding_size=8, **DROPPED | {"dropout": 0.0})
    undropped, _, memory = decode(params, batch.source, batch.source_mask, TOKENS, None)
    assert memory.token_mask is None
    assert set(memory.layer_masks) == {None}

    @jax.jit
    def decode_with_no_dropout(params):
        memory = model.encode(params, batch.source, batch.source_mask, KEY)
        return model.decode_sequence(params, memory, TOKENS)

    np.testing.assert_allclose(decode_with_no_dropout(params), undropped, atol=1e-6)
    dropped = decode(params, batch.source, batch.source_mask, TOKENS, KEY)[0]
    assert float(jnp.abs(dropped - undropped).max()) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "rnn"}, "cell is 'rnn'; it must be one of lstm, gru"),
        (
            {"attention": "luong"},
            "attention is 'luong'; it must be one of none, dot, general, additive",
        ),
        (
            {"dtype": "float16"},
            r"dtype is 'float16'; did you mean 'bfloat16'\? \(one of float32, bfloat16\)",
        ),
        ({"hidden_size": 7}, "hidden_size is 7; a bidirectional encoder halves it"),
        ({"hidden_size": 0}, "hidden_size is 0; it must be at least 1"),
        ({"num_decoder_layers": 0}, "num_decoder_layers is 0; it must be at least 1"),
        ({"input_feeding": True, "attention": "none"}, "input_feeding .* needs an attention"),
        ({"tie_embeddings": True, "embedding_size": 6}, "they are 6 and 8"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must be in \[0, 1\)"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"dropout": float("nan")}, "dropout is nan"),
    ],
)
def test_invalid_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        make_rnn_model(10, 10, **{"hidden_size": 8} | options)
    assert "\n" not in str(error.value)


def test_an_odd_hidden_size_is_allowed_for_one_direction():
    model = make_rnn_model(10, 10, hidden_size=7, bidirectional=False)
    assert jax.eval_shape(model.init, KEY)["output_kernel"].shape == (7, 10)


@pytest.mark.parametrize("lanes", [False, True])
def test_matrices_are_made_orthogonal_one_at_a_time(lanes):
    """Two such batches in one program can deadlock on few CPU cores."""
    model = make_rnn_model(10, 10, hidden_size=12, embedding_size=6)
    init = jax.jit(jax.vmap(model.init) if lanes else model.init)
    keys = jax.random.split(jax.random.key(0), 3)
    program = init.trace(keys if lanes else keys[0]).lower(lowering_platforms=("cpu",)).as_text()
    calls = re.findall(r"@lapack_sgeqrf_ffi.*num_batch_dims = .(\d+)", program)
    assert calls
    assert set(calls) == {"0"}


@pytest.mark.parametrize("attention", ["none", "general"])
def test_bfloat16_logits_of_a_sequence_are_not_rounded(make_rnn, batch, attention):
    model, params = make_rnn(attention=attention, dtype="bfloat16")
    params = params | {"output_bias": jnp.zeros(10)}  # else the sum is of more digits again
    memory = model.encode(params, batch.source, batch.source_mask, None)
    logits = model.decode_sequence(params, memory, TOKENS)
    assert (logits != logits.astype(jnp.bfloat16)).any()
