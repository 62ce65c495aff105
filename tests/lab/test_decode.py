"""Decoding lines: one hypothesis per line, in order."""

import dataclasses
import gzip
import io
import sys

import jax
import numpy as np
import pytest

from s2s_jax.data.pairs import DataError
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.decode import translate, translate_file

LINES = ["abcdef", "a", "", "fed", "abc", "cab", "x", "ab"]


@pytest.fixture(scope="module")
def talkative(trained):
    """The finished run with weights so large that different lines get different hypotheses."""
    generator = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: generator.normal(0, 1.0, leaf.shape).astype(leaf.dtype), trained.params
    )
    return dataclasses.replace(trained, params=params)


def test_order_and_batches_change_nothing(talkative):
    found = translate(talkative, LINES, max_length=9)
    assert len(found) == len(set(LINES)) == len(LINES)
    assert len(set(found)) > len(LINES) // 2
    assert translate(talkative, LINES[::-1], max_length=9) == found[::-1]
    assert translate(talkative, LINES, max_length=9, batch_size=3) == found
    for index in (0, 3):
        assert translate(talkative, [LINES[index]], max_length=9) == [found[index]]


def test_one_hypothesis_per_line_and_none_too_long(talkative):
    assert translate(talkative, []) == []
    found = translate(talkative, ["ab"] * 5, max_length=2, batch_size=2)
    assert len(found) == 5
    assert all(len(text.split()) <= 2 for text in found)


def test_a_larger_beam_searches_differently_and_the_length_penalty_lengthens(talkative):
    lines = ["abc", "fed", "cab", "bad", "dda", "fab"]
    greedy = translate(talkative, lines, max_length=9)
    short, long = (
        translate(talkative, lines, max_length=9, beam_size=3, length_penalty=penalty)
        for penalty in (0.0, 3.0)
    )
    assert greedy != short
    assert sum(len(text.split()) for text in short) < sum(len(text.split()) for text in long)


@pytest.mark.parametrize("name", ["beam_size", "batch_size"])
def test_a_number_out_of_range_is_named(talkative, name):
    with pytest.raises(LabError, match=f"the {name.replace('_', ' ')} is 0; it must be at least 1"):
        translate(talkative, ["a"], **{name: 0})


@pytest.mark.parametrize(
    ("content", "num_lines"),
    [(b"", 0), (b"\n", 1), (b"ab", 1), (b"ab\n", 1), (b"ab\n\n", 2), (b"\nab\n\nfe", 4)],
)
def test_every_line_has_a_hypothesis(finished, tmp_path, monkeypatch, content, num_lines):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(content)
    monkeypatch.setattr("s2s_jax.lab.decode.translate", lambda run, lines, **options: list(lines))
    assert translate_file(finished, str(source), str(target)) == (0, num_lines)
    text = target.read_text()
    assert text.count("\n") == num_lines
    assert text.removesuffix("\n") == content.decode().removesuffix("\n")


def test_lines_are_read_as_in_training_and_none_is_broken(finished, tmp_path, monkeypatch):
    said = []

    def translate(run, lines, **options):
        said.extend(lines)
        return ["a\nb", "c\r\nd\re", ""]

    monkeypatch.setattr("s2s_jax.lab.decode.translate", translate)
    source, target = tmp_path / "in.gz", tmp_path / "out"
    source.write_bytes(gzip.compress(b"\xef\xbb\xbfab \r\n\r\n\tfe\r\n"))
    assert translate_file(finished, str(source), str(target)) == (0, 3)
    assert said == ["ab", "", "fe"]
    assert target.read_bytes() == b"a b\nc d e\n\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    assert translate_file(finished, "-", str(target)) == (0, 3)
    assert said[3:] == said[:3]


def test_bytes_that_are_not_utf8_are_named_with_their_line(finished, tmp_path):
    source = tmp_path / "in"
    source.write_bytes(b"\xef\xbb\xbfab\nfe\n\xff\n")
    with pytest.raises(DataError, match="in, line 3: not UTF-8"):
        translate_file(finished, str(source), "-")


def test_a_model_with_a_maximum_length_names_the_line_that_is_too_long(talkative):
    limited = dataclasses.replace(talkative.model, max_length=5)
    run = dataclasses.replace(talkative, model=limited)
    assert all(len(text.split()) <= 5 for text in translate(run, ["abcd", "a"]))
    with pytest.raises(LabError, match=r"line 2 has 6 tokens with its end symbol; .* at most 5"):
        translate(run, ["a", "abcde"])
    with pytest.raises(LabError, match="the max length is 6; this model says at most 5 tokens"):
        translate(run, ["a"], max_length=6)
