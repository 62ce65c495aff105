from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import BOS
from s2s_jax.exposure import make_next_token_probs, tabulate
from s2s_jax.models.interface import Seq2SeqModel
from s2s_jax.theory.optimum import next_token_tables

TRUTH = (0.7, 0.3), ((0.95, 0.05), (0.3, 0.7))
IDS = np.array([6, 4, 5])  # of symbols 0, 1, 2


def test_a_function_becomes_tables(function):
    for found, expected in zip(
        tabulate(function(TRUTH), 2, 5), next_token_tables(*TRUTH, 5), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-15)
    by_prefix = tabulate(lambda prefix: np.eye(3)[prefix.sum(-1) % 3], 3, 3)
    assert by_prefix[2][1, 1].tolist() == [0, 0, 1]
    assert by_prefix[2][1, 2].tolist() == [1, 0, 0]


@pytest.fixture(scope="module")
def counting_model() -> tuple[Seq2SeqModel, list[int]]:
    """Logits are looked up by source and last token; a list grows with every tracing."""
    traces: list[int] = []

    def decode_sequence(params, memory, tokens):
        traces.append(1)
        return params[memory[:, None], tokens]

    model = Seq2SeqModel(
        init=lambda key: jnp.zeros((3, 8, 8)),
        encode=lambda params, source, source_mask, dropout_key: source[:, 0],
        initial_carry=lambda params, memory, max_length: memory,
        decode_step=lambda params, memory, carry, token: (carry, params[memory, token]),
        decode_sequence=decode_sequence,
        vocab_size=8,
    )
    return model, traces


LOGITS = np.random.default_rng(0).normal(0, 1, (3, 8, 8)).astype(np.float32)


def expected(source: int, last: int) -> np.ndarray:
    weights = np.exp(LOGITS[source, last, IDS].astype(np.float64))
    return weights / weights.sum()


def test_a_model_becomes_a_function_of_prefixes_compiled_once(counting_model):
    model, traces = counting_model
    traces.clear()
    source: Any = [[2, 7]]
    probs = make_next_token_probs(model, LOGITS, source, [[True] * 2], IDS, 3, batch_size=4)
    first, second, third = tabulate(probs, 3, 3)  # 1, 3 and 9 prefixes
    np.testing.assert_allclose(first, expected(2, BOS), atol=1e-6)
    for a in range(3):
        np.testing.assert_allclose(second[a], expected(2, int(IDS[a])), atol=1e-6)
        for b in range(3):
            np.testing.assert_allclose(third[a, b], expected(2, int(IDS[b])), atol=1e-6)
    np.testing.assert_allclose(third.sum(-1), 1, atol=1e-14)
    assert len(traces) == 1


def test_rows_stay_with_their_sources(counting_model):
    model, _ = counting_model
    sources = np.array([0, 1, 2, 2, 1])[:, None]
    probs = make_next_token_probs(model, LOGITS, sources, sources >= 0, IDS, 2, batch_size=2)
    prefixes = np.array([[0], [1], [2], [0], [1]])
    found = np.asarray(probs(prefixes))
    for row, source, prefix in zip(found, sources[:, 0], prefixes[:, 0], strict=True):
        np.testing.assert_allclose(row, expected(source, int(IDS[prefix].item())), atol=1e-6)
    with pytest.raises(ValueError, match="3 prefixes for 5 sources, one per row"):
        probs(prefixes[:3])
    with pytest.raises(ValueError, match="prefixes have 2 symbols; they must be shorter than 2"):
        probs(np.zeros((5, 2), int))


def test_an_rnn_gives_the_same_as_its_steps(make_rnn, batch):
    model, params = make_rnn(seed=3, attention="none", cell="gru")
    probs = make_next_token_probs(
        model, params, batch.source[:1], batch.source_mask[:1], IDS, 3, batch_size=2
    )

    @jax.jit
    def stepwise(source, source_mask):
        memory = model.encode(params, source, source_mask, None)
        carry, logits = model.initial_carry(params, memory, 99), jnp.zeros(())
        for token in (BOS, IDS[2], IDS[0]):
            carry, logits = model.decode_step(params, memory, carry, jnp.array([token]))
        return jax.nn.softmax(logits[0, IDS])

    wanted = stepwise(batch.source[:1], batch.source_mask[:1])
    np.testing.assert_allclose(np.asarray(probs(np.array([[2, 0]])))[0], wanted, atol=1e-5)


def test_invalid_arguments_are_refused(counting_model, function):
    model, _ = counting_model
    with pytest.raises(ValueError, match="2 symbols have 2097152 sequences of length 21"):
        tabulate(function(TRUTH), 2, 21)
    with pytest.raises(ValueError, match="length is 0 and num_symbols 2; both are at least 1"):
        tabulate(function(TRUTH), 2, 0)
    with pytest.raises(ValueError, match=r"of 1 prefixes have shape \(1, 2\); they must"):
        tabulate(function(TRUTH), 3, 1)
    good: dict[str, Any] = {
        "source": [[2]],
        "source_mask": [[True]],
        "symbol_ids": IDS,
        "length": 2,
    }
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"source": [2]}, r"source has shape \(1,\) and its mask \(1, 1\)"),
        ({"symbol_ids": [8]}, "symbol_ids must be ids below the vocabulary's size 8"),
        ({"length": 0}, "length is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
    )
    for bad, message in wrong:
        with pytest.raises(ValueError, match=message):
            make_next_token_probs(model, LOGITS, **(good | bad))
