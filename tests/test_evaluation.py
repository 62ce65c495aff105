from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.batch import EOS, UNK, Batch, gold_inputs
from s2s_jax.decoding import greedy
from s2s_jax.evaluation import evaluate, make_evaluate_step
from s2s_jax.metrics import compute
from s2s_jax.models.interface import Seq2SeqModel

# A user's own model: it counts up from the source's first token and ends after 9.
#   BOS -> 5, 5 -> 6, ..., 9 -> EOS, whatever the source
SUCCESSOR = np.array([5, 5, 5, 5, 5, 6, 7, 8, 9, EOS])
TABLE = 20 * np.eye(10, dtype=np.float32)[SUCCESSOR]


@pytest.fixture(scope="module")
def evaluate_step(make_table_model: Callable[[int], Seq2SeqModel]) -> Any:
    return jax.jit(make_evaluate_step(make_table_model(10), max_length=8))


def test_exact_match_of_teacher_forced_argmax_is_that_of_greedy_free_running(make_rnn, batch):
    model, _ = make_rnn(attention="general", cell="gru", bidirectional=False)
    time = 7

    @jax.jit
    def own_output(params):
        memory = model.encode(params, batch.source, batch.source_mask, None)
        return greedy(model, params, memory, time)

    evaluate_step = jax.jit(make_evaluate_step(model, time))

    @jax.jit
    def gold_argmax(params, target):
        memory = model.encode(params, batch.source, batch.source_mask, None)
        return model.decode_sequence(params, memory, gold_inputs(target)).argmax(-1)

    num_right, num_all = 0, 0
    for seed in range(12):
        params = make_rnn(seed, 1.5, attention="general", cell="gru", bidirectional=False)[1]
        params["output_bias"] = params["output_bias"].at[EOS].add(2.0).at[UNK].set(-100)
        said = jax.device_get(own_output(params))
        target, mask = said.tokens.copy(), np.array(said.mask)
        target[0, 0] = (target[0, 0] + 1) % 10  # wrong at the start
        last = mask[1].sum() - 1
        target[1, last] = (target[1, last] + 1) % 10  # and at the end; the others are right
        mask[3] &= said.finished[3]
        sums, _ = evaluate_step(params, Batch(batch.source, batch.source_mask, target, mask))
        right = np.all((gold_argmax(params, target) == target) | ~mask, axis=1)[mask[:, 0]]
        assert float(sums["own/exact_match"].total) == right.sum()
        assert float(sums["own/exact_match"].weight) == right.size
        num_right += right.sum()
        num_all += right.size
    assert 0 < num_right < num_all


def test_scores_counted_by_hand_and_positions_past_the_end_are_errors(evaluate_step, make_batch):
    # The hypothesis is 5 6 7 8 9 EOS, six tokens, for each row.
    batch = make_batch(
        [[4]] * 4,
        [
            [5, 6, 7, 8, 9, EOS],  # exact: 6 of 6 with own prefixes, 6 of 6 with gold ones
            [5, 6, EOS],  # own 2 of 3, gold 2 of 3
            [7, 8, 9, EOS],  # own 0 of 4; gold prefixes put it right: 3 of 4
            [5, 6, 7, 8, 9, 6, 7, EOS],  # own 5 of 8: errors after its end; gold: 6 of 8
        ],
    )
    means = compute(evaluate_step(TABLE, batch)[0])
    assert means["own/token_accuracy"] == pytest.approx((6 + 2 + 0 + 5) / 21)
    assert means["gold/token_accuracy"] == pytest.approx((6 + 2 + 3 + 6) / 21)
    assert means["own/exact_match"] == 0.25
    assert means["gold/nll"] == pytest.approx(20 * 4 / 21, abs=1e-4)
    # First errors: none, at 3 of 3, at 1 of 4, at 6 of 8; after them 0, 3 and 2 places, all wrong.
    assert means["own/hazard"] == pytest.approx(3 / (6 + 3 + 1 + 6))
    assert means["own/post_error_rate"] == 1


def test_tokens_after_an_error_can_be_right_and_without_an_error_the_rate_is_nan(
    evaluate_step, make_batch
):
    batch = make_batch([[4]] * 2, [[5, 6, 9, 8, 4, EOS], [5, 6, 7, 8, 9, EOS]])
    means = compute(evaluate_step(TABLE, batch)[0])
    assert means["own/hazard"] == pytest.approx(1 / (3 + 6))
    assert means["own/post_error_rate"] == pytest.approx(1 / 3)
    means = compute(evaluate_step(TABLE, make_batch([[4]], [[5, 6, 7, 8, 9, EOS]]))[0])
    assert means["own/hazard"] == 0
    assert np.isnan(means["own/post_error_rate"])


def test_a_hypothesis_that_continues_after_the_reference_is_no_match(evaluate_step, make_batch):
    batch = make_batch([[4]], [[5, 6, 7]])  # a reference without EOS: all its tokens are right
    means = compute(evaluate_step(TABLE, batch)[0])
    assert means["own/token_accuracy"] == 1
    assert means["own/exact_match"] == 0


def test_a_hypothesis_cut_before_the_references_end_is_wrong_from_there(
    make_table_model, make_batch
):
    batch = make_batch([[4]], [[5, 6, 7, 8, 9, EOS]])
    step = make_evaluate_step(make_table_model(10), max_length=4)
    sums, decoded = step(jnp.asarray(TABLE), batch)
    assert compute(sums)["own/token_accuracy"] == pytest.approx(4 / 6)
    assert compute(sums)["own/exact_match"] == 0
    assert not np.any(decoded.finished)


def test_a_split_is_the_sum_of_its_batches_and_filler_rows_are_ignored(evaluate_step, make_batch):
    exact, wrong = [5, 6, 7, 8, 9, EOS], [7, EOS]
    first = make_batch([[4]] * 3, [exact, wrong, wrong])
    last = make_batch([[4]], [exact], source_time=1, time=8, num_rows=3)
    found = evaluate(
        evaluate_step, TABLE, [(np.array([2, 0, 3]), first), (np.array([1, -1, -1]), last)]
    )
    assert found.metrics["own/exact_match"] == 0.5
    assert found.metrics["own/token_accuracy"] == pytest.approx(12 / 16)
    assert found.hypotheses == [[5, 6, 7, 8, 9]] * 4
    assert found.metrics["gap"] == pytest.approx(
        found.metrics["gold/token_accuracy"] - found.metrics["own/token_accuracy"]
    )


def test_the_gap_is_positive_if_gold_prefixes_help(evaluate_step, make_batch):
    batch = make_batch([[4]], [[7, 8, 9, EOS]])
    found = evaluate(evaluate_step, TABLE, [(np.array([0]), batch)])
    assert found.metrics["gap"] == pytest.approx(0.75)


def test_hypotheses_are_in_the_order_of_the_examples_without_eos(make_batch):
    # It starts with the source's token, counts up, and is cut off after 4 tokens.
    model = Seq2SeqModel(
        init=lambda key: (),
        encode=lambda params, source, source_mask, dropout_key: source[:, 0],
        initial_carry=lambda params, memory, max_length: memory,
        decode_step=lambda params, memory, carry, token: (carry + 1, jnp.asarray(TABLE)[carry - 1]),
        decode_sequence=lambda params, memory, tokens: jnp.zeros((*tokens.shape, 10)),
        vocab_size=10,
    )
    batch = make_batch([[9], [6], [8]], [[EOS]] * 3)
    step = jax.jit(make_evaluate_step(model, max_length=4))
    found = evaluate(step, (), [(np.array([5, 1, 3]), batch)])
    assert found.hypotheses == [[6, 7, 8, 9], [8, 9], [9]]


def test_evaluation_drops_nothing(make_table_model, make_batch):
    keys = []

    def encode(params, source, source_mask, dropout_key):
        keys.append(dropout_key)
        return source[:, 0]

    model = Seq2SeqModel(**{**vars(make_table_model(10)), "encode": encode})
    jax.eval_shape(make_evaluate_step(model, 4), TABLE, make_batch([[4]], [[5, EOS]]))
    assert keys == [None]


def test_nothing_to_evaluate_is_refused(evaluate_step):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(evaluate_step, TABLE, [])


def test_masks_of_0_and_1_work_too(evaluate_step, make_batch):
    batch = make_batch([[4], [4]], [[5, 6, 9, 8, 9, EOS], [5, 6, 7, 8, 9, EOS]])
    ints = batch._replace(
        source_mask=batch.source_mask.astype(int), target_mask=batch.target_mask.astype(int)
    )
    found, expected = (compute(evaluate_step(TABLE, one)[0]) for one in (ints, batch))
    assert found == expected
    assert found["own/exact_match"] == 0.5


def test_an_unknown_gold_token_is_never_right(make_table_model, make_batch):
    table = 20 * np.eye(10, dtype=np.float32)[np.where(SUCCESSOR == 6, UNK, SUCCESSOR)]
    table[UNK] = table[6]  # it outputs 5 UNK 7 8 9
    step = make_evaluate_step(make_table_model(10), max_length=8)
    sums, own = step(jnp.asarray(table), make_batch([[4]], [[5, UNK, 7, 8, 9, EOS]]))
    means = compute(sums)
    assert own.tokens[0, :6].tolist() == [5, UNK, 7, 8, 9, EOS]
    assert means["own/token_accuracy"] == means["gold/token_accuracy"] == pytest.approx(5 / 6)
    assert means["own/exact_match"] == 0
    assert means["own/hazard"] == pytest.approx(1 / 2)
