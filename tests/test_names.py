import pytest

from s2s_jax.names import did_you_mean

OPTIONS = ["teacher_forcing", "inverse_sigmoid", "linear"]
ALL = "one of teacher_forcing, inverse_sigmoid, linear"


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("inverse-sigmoid", f"did you mean 'inverse_sigmoid'? ({ALL})"),
        ("LINEAR", f"did you mean 'linear'? ({ALL})"),
        ("cosine", f"it must be {ALL}"),
        ("", f"it must be {ALL}"),
    ],
)
def test_only_similar_options_are_suggested(word, end):
    assert did_you_mean(word, OPTIONS) == end


def test_an_option_is_suggested_in_its_own_spelling():
    assert did_you_mean("LStm", ["LSTM", "gru"]).startswith("did you mean 'LSTM'?")


def test_a_long_list_is_cut_and_left_out_if_an_option_is_similar():
    options = [f"name{number:02}" for number in range(40)]
    assert did_you_mean("?", iter(options)) == f"it must be one of {', '.join(options[:20])}, ..."
    assert did_you_mean("nam07", options) == "did you mean 'name07'?"


def test_without_options_there_is_none():
    assert did_you_mean("k", []) == "there is none"


KEYS = ["train.batch_size", "train.num_steps", "eval.batch_size", "data.num_digits", "train.seed"]


@pytest.mark.parametrize(
    ("word", "option"),
    [
        ("train.num_step", "train.num_steps"),
        ("num_steps", "train.num_steps"),
        ("eval.batchsize", "eval.batch_size"),
        ("eval.num_steps", "train.num_steps"),
        ("tran.seed", "train.seed"),
        ("train.optimizer", None),
        ("train.momentum", None),
        ("model.num_units", None),
        ("train", None),
    ],
)
def test_the_last_parts_of_names_with_sections_are_compared(word, option):
    end = did_you_mean(word, KEYS)
    assert end.startswith("it must be one of" if option is None else f"did you mean {option!r}?")


def test_a_number_has_no_sections():
    assert did_you_mean("k=0.6", ["k=0.5", "c=0.6"]).startswith("did you mean 'k=0.5'?")


def test_metrics_are_compared_by_their_last_part():
    options = ["test/own/wer", "test/own/exact_match", "dev/own/wer"]
    assert did_you_mean("test/own/were", options).startswith("did you mean 'test/own/wer'?")
    assert did_you_mean("test/own/bleu", options).startswith("it must be one of")
