"""Valid JSON of the wrong shape gives a one-line error."""

import pytest

from s2s_jax.data.json_shapes import check, parse

SHAPE = {"step": int, "name?": frozenset({"a", "b"}), "inner?": {"x": [(float, None)]}, ...: float}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "it is [], not an object"),
        ("null", "it is null, not an object"),
        ("{}", "step is missing"),
        ('{"step": true}', "step is true, not a whole number"),
        ('{"step": 1.5}', "step is 1.5, not a whole number"),
        ('{"step": 1, "name": "c"}', 'name is "c", not one of a, b'),
        ('{"step": 1, "name": ["a"]}', 'name is ["a"], not one of a, b'),
        ('{"step": 1, "inner": {"x": {}}}', "inner.x is {}, not a list"),
        (
            '{"step": 1, "inner": {"x": [null, "1"]}}',
            'inner.x[1] is "1", not a finite number or null',
        ),
        ('{"step": 1, "loss": null}', "loss is null, not a finite number"),
        ('{"step": 1, "loss": 1' + 400 * "0" + "}", "000..., not a finite number"),
        ('{"step": 1, "loss": 1e400}', "1e400 is not a finite number"),
        ('{"step": 1, "loss": NaN}', "NaN is not JSON"),
        ('{"step": -1' + 5000 * "1" + "}", "a whole number of 5001 digits is too long"),
        ('{"step": 1, "x": "\\ud800"}', "\\ud800 is half of a character"),
        ('{"step": 1, "\\udfff": 0}', "\\udfff is half of a character"),
        (100_000 * "[", "nested too deeply"),
        (70 * "[" + 70 * "]", "nested too deeply"),
        ('{"step": 1', "Expecting"),
    ],
)
def test_a_wrong_shape_is_named(text, said):
    for content in (text, text.encode()):
        with pytest.raises(ValueError) as error:  # noqa: PT011  # its words are looked at below
            parse(content, SHAPE)
        assert said in str(error.value)
        assert "\n" not in str(error.value)


def test_a_value_of_the_right_shape_is_returned():
    text = '{"step": 1, "name": "b", "inner": {"x": [1, null], "y": []}, "loss": 2}'
    assert parse(text, SHAPE) == {
        "step": 1,
        "name": "b",
        "inner": {"x": [1, None], "y": []},
        "loss": 2,
    }
    check({"anything": object()}, dict)


def test_bytes_that_are_not_text_are_refused():
    # The latter is half of a character, as no UTF-8 has it.
    for content in (b'{"a": "\xff"}', b'{"a": "\xed\xa0\x80"}'):
        with pytest.raises(ValueError, match=r"^byte 7 is not UTF-8$"):
            parse(content)
