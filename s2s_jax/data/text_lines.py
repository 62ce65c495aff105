"""The lines of a text file: one reader for training data and for the input of decoding."""

import gzip
import re
import zlib
from pathlib import Path

from s2s_jax.data.pairs import DataError

_MARK = "\ufeff"  # the byte order mark; within a text it is an invisible character
_LOOKED_AT = 1 << 16  # bytes that are examined to find out whether a file is UTF-16
_LINE_END = re.compile(r"\r\n|\r|\n")


def read_lines(path: Path, *, strip: bool = True) -> list[str]:
    """The lines of a file, gzipped or not; see `split_lines`.

    Raises:
      DataError: it cannot be read, or `split_lines` refuses it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return split_lines(content, str(path), strip=strip)


def split_lines(content: bytes, name: str, *, strip: bool = True) -> list[str]:
    r"""The lines in a file's bytes, which are UTF-8, perhaps gzipped.

    A line ends in LF or CR LF; in a file without any LF, in CR. Nothing else ends a line: U+2028,
    for example, occurs within sentences. A byte order mark in front of a line is dropped.

    Args:
      content: of the whole file.
      name: of the file, for messages; if it ends in .gz, the content has to be gzipped.
      strip: whether to remove the white space around each line.

    Raises:
      DataError: the content is a broken gzip file, UTF-16 or not UTF-8 (the message names the
        line), or it has a byte order mark within a line.

    Example:
      >>> split_lines(b"a dog \r\n\r\ntwo\tdogs", "train.en")
      ['a dog', '', 'two\tdogs']
    """
    if name.endswith(".gz") or content.startswith(b"\x1f\x8b"):  # this is never valid UTF-8
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{name} is not a whole gzip file: {error}") from error
    if _is_utf16(content[:_LOOKED_AT]):
        raise DataError(f"{name} is UTF-16 or UTF-32; convert it to UTF-8 with iconv")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = 1 + content.count(_line_end(content).encode(), 0, error.start)
        raise DataError(f"{name}, line {number}: not UTF-8; convert it with iconv") from error
    text = text.removeprefix(_MARK)
    if not text:
        return []
    end = _line_end(content)
    lines = text.removesuffix(end).split(end)
    if end == "\n":
        lines = [line.removesuffix("\r") for line in lines]
    if _MARK in text:
        lines = [line.removeprefix(_MARK) for line in lines]
        for number, line in enumerate(lines, 1):
            if _MARK in line:
                raise DataError(
                    f"{name}, line {number}: a byte order mark (U+FEFF) within the line, as where"
                    " files without a last line end were joined; delete it, or end the line there"
                )
    return [line.strip() for line in lines] if strip else lines


def on_one_line(text: str) -> str:
    r"""A text with each line end replaced by a space, so that it is a single line.

    Example:
      >>> on_one_line("two\r\nlines\n")
      'two lines '
    """
    return _LINE_END.sub(" ", text)


def _line_end(content: bytes) -> str:
    """LF, or CR if there is no LF."""
    return "\r" if b"\r" in content and b"\n" not in content else "\n"


def _is_utf16(content: bytes) -> bool:
    """Whether it has a byte order mark of UTF-16 or UTF-32, or many NUL bytes, as ASCII letters do.

    Without a mark, text in other scripts has few NUL bytes, but it is hardly ever valid UTF-8.
    """
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"))
    return marked or content.count(0) > len(content) / 8
