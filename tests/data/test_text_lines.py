"""Lines of text files, for training and for decoding."""

import gzip

import pytest

from s2s_jax.data.pairs import DataError
from s2s_jax.data.text_lines import on_one_line, split_lines

WORDS = ["ein Mädchen", "", "zwei\u2028Hunde"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_kind_of_line_end_gives_the_same_lines(end, last, mark):
    text = mark + end.join(f"{line} " for line in WORDS) + (end if last else "")
    for content in (text.encode(), gzip.compress(text.encode())):
        assert split_lines(content, "x") == WORDS


def test_a_lone_cr_does_not_end_a_line_if_lf_does():
    assert split_lines(b"a\rb\nc\r\n", "x") == ["a\rb", "c"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [("", []), ("\n", [""]), ("\r\n\r\n", ["", ""]), ("\ufeff", []), ("a\n\n", ["a", ""])],
)
def test_empty_lines_count(content, lines):
    assert split_lines(content.encode(), "x") == lines


def test_white_space_of_any_kind_is_stripped_unless_it_should_be_kept():
    content = "\t a\u3000\n\ufeff\tb\u00a0\r\n".encode()  # the second line as of a joined file
    assert split_lines(content, "x") == ["a", "b"]
    assert split_lines(content, "x", strip=False) == ["\t a\u3000", "\tb\u00a0"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("text", ["ein Mädchen\nzwei Hunde\n", "a"])
def test_utf16_is_refused_with_and_without_a_mark(encoding, text):
    with pytest.raises(DataError, match=r"train\.en is UTF-16 or UTF-32; convert it"):
        split_lines(text.encode(encoding), "train.en")
    assert split_lines(b"a\0b and more of this\n", "x") == ["a\0b and more of this"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bad_byte_is_on_the_line_that_is_named(mark, end, zipped):
    content = mark + end.join([b"a", b"\xff is bad", b"a", b""])
    with pytest.raises(DataError, match="x, line 2: not UTF-8"):
        split_lines(gzip.compress(content) if zipped else content, "x")


def test_a_mark_within_a_line_is_refused_with_the_line():
    with pytest.raises(
        DataError, match=r"x, line 2: a byte order mark \(U\+FEFF\) within the line"
    ):
        split_lines("a\nb\ufeffc\n".encode(), "x")


def test_a_text_on_one_line_is_read_as_one_line():
    texts = ["a\nb", "a\r\nb", "a\rb", "\n", "a\u2028b", ""]
    content = "".join(f"{on_one_line(text)}\n" for text in texts).encode()
    assert split_lines(content, "x") == ["a b", "a b", "a b", "", "a\u2028b", ""]
