"""Lines in, hypotheses out: one a line, in order."""

import numpy as np
import pytest

from s2s_jax.lab.errors import LabError
from s2s_jax.lab.translate import translate, translate_file

LINES = ["abcdef", "a", "", "fed", "abc", "cab", "x", "ab"]


@pytest.fixture(scope="module")
def alone(trained):
    """The hypothesis of each line, decoded by itself."""
    return {line: translate(trained, [line], max_length=9)[0] for line in LINES}


def test_order_and_batches_change_nothing(trained, alone):
    wanted = [alone[line] for line in LINES]
    assert len(set(wanted)) > 1
    assert translate(trained, LINES, max_length=9) == wanted
    assert translate(trained, LINES, max_length=9, batch_size=3) == wanted
    assert translate(trained, LINES[::-1], max_length=9) == wanted[::-1]


def test_as_many_hypotheses_as_lines(trained):
    assert translate(trained, []) == []
    assert len(translate(trained, ["ab"] * 5, max_length=4, batch_size=2)) == 5


def test_max_length_is_kept(trained):
    assert all(len(text.split()) <= 2 for text in translate(trained, LINES, max_length=2))


def test_a_larger_beam_is_another_search(trained, alone):
    found = translate(trained, LINES, max_length=9, beam_size=3)
    assert len(found) == len(LINES)
    assert found != [alone[line] for line in LINES]


def test_the_length_penalty_lengthens(trained):
    def mean_length(length_penalty):
        texts = translate(trained, LINES, max_length=6, beam_size=3, length_penalty=length_penalty)
        return np.mean([len(text.split()) for text in texts])

    assert mean_length(0.0) < mean_length(2.0)


@pytest.mark.parametrize("name", ["beam_size", "batch_size"])
def test_a_number_out_of_range_is_named(trained, name):
    with pytest.raises(LabError, match=f"the {name.replace('_', ' ')} is 0; it must be at least 1"):
        translate(trained, ["a"], **{name: 0})


@pytest.mark.parametrize(
    ("content", "num_lines"),
    [(b"", 0), (b"\n", 1), (b"ab", 1), (b"ab\n", 1), (b"ab\n\n", 2), (b"\nab\n\nfe", 4)],
)
def test_every_line_has_a_hypothesis(finished, tmp_path, monkeypatch, content, num_lines):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(content)
    monkeypatch.setattr(
        "s2s_jax.lab.translate.translate", lambda run, lines, **options: list(lines)
    )
    assert translate_file(finished, str(source), str(target)) == (0, num_lines)
    text = target.read_text()
    assert text.count("\n") == num_lines
    assert text.removesuffix("\n") == content.decode().removesuffix("\n")


def test_windows_line_ends_are_no_unknown_symbols(finished, tmp_path, monkeypatch):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"\xef\xbb\xbfab\r\nfe\r\n")
    monkeypatch.setattr(
        "s2s_jax.lab.translate.translate", lambda run, lines, **options: list(lines)
    )
    assert translate_file(finished, str(source), str(target)) == (0, 2)
