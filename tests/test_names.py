import pytest

from s2s_jax.names import nearest

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
def test_what_is_like_the_word_is_offered_and_nothing_else(word, end):
    assert nearest(word, OPTIONS) == end


def test_an_option_is_offered_as_it_is_spelt():
    assert nearest("LStm", ["LSTM", "gru"]).startswith("did you mean 'LSTM'?")


def test_a_long_list_is_cut_and_left_out_where_an_option_is_near():
    options = [f"name{number:02}" for number in range(40)]
    assert nearest("?", iter(options)) == f"it must be one of {', '.join(options[:20])}, ..."
    assert nearest("nam07", options) == "did you mean 'name07'?"


def test_no_options_are_none():
    assert nearest("k", []) == "there is none"
