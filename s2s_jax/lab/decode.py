"""Decodes source lines with a trained run."""

import contextlib
import gzip
import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.batch import Batch
from s2s_jax.data.batching import Sequences, TokenPairs, choose_buckets, evaluation_batches
from s2s_jax.data.text_lines import on_one_line, read_lines, split_lines
from s2s_jax.decoding import Decoded, beam_search, greedy
from s2s_jax.lab.base.errors import LabError
from s2s_jax.lab.base.files import check_writable, write_atomic
from s2s_jax.lab.config.user_code import printing_beside_results
from s2s_jax.lab.experiment import TrainedRun, load_run
from s2s_jax.models.interface import Params, Seq2SeqModel

_NUM_SHAPES = 3
_DEFAULT_LENGTH = 32


def translate(
    run: TrainedRun,
    lines: list[str],
    *,
    beam_size: int = 1,
    length_penalty: float = 1.0,
    max_length: int = 0,
    batch_size: int = 256,
) -> list[str]:
    """The hypothesis of each source line.

    Args:
      run: from `load_run`.
      lines: source texts; an empty one is decoded like any other.
      beam_size: 1 is greedy.
      length_penalty: a in log p / length**a; see `beam_search`.
      max_length: maximum number of tokens in a hypothesis; 0 for twice the longest source plus 32.
      batch_size: number of lines decoded at a time.

    Raises:
      LabError: a number is out of range.
    """
    for name, value, lowest in (
        ("beam size", beam_size, 1),
        ("max length", max_length, 0),
        ("batch size", batch_size, 1),
    ):
        if value < lowest:
            raise LabError(f"the {name} is {value}; it must be at least {lowest}")
    if not 0.0 <= length_penalty < float("inf"):
        raise LabError(f"the length penalty is {length_penalty}; it must be at least 0")
    if not lines:
        return []
    model, vocabularies = run.model, run.vocabularies
    source = Sequences.of(vocabularies.source.encode_batch(lines))
    tokens = TokenPairs(source, Sequences.of([[]] * len(lines)))
    longest = int(np.argmax(source.lengths))
    length = max_length or _DEFAULT_LENGTH + 2 * int(source.lengths[longest])
    if (limit := model.max_length) is not None:
        if source.lengths[longest] > limit:
            raise LabError(
                f"line {longest + 1} has {source.lengths[longest]} tokens with its end symbol;"
                f" this model reads at most {limit}"
            )
        if max_length > limit:
            raise LabError(
                f"the max length is {max_length}; this model says at most {limit} tokens"
            )
        length = min(length, limit)
    decode = jax.jit(partial(_decode, model, length, beam_size, length_penalty))
    batch_size = min(batch_size, len(lines))
    shapes = choose_buckets(tokens.source.lengths, tokens.target.lengths, _NUM_SHAPES, batch_size)
    pending = [
        (indices, decode(run.params, batch))
        for indices, batch in evaluation_batches(tokens, shapes, batch_size)
    ]
    texts = [""] * len(lines)
    for indices, decoded in pending:
        for index, row in zip(indices, np.asarray(decoded.tokens), strict=True):
            if index >= 0:
                texts[index] = vocabularies.target.decode(row.tolist())
    return texts


def translate_file(
    workdir: str | Path,
    source: str,
    output: str,
    *,
    checkpoint: Literal["best", "latest"] = "best",
    beam_size: int = 1,
    length_penalty: float = 1.0,
    max_length: int = 0,
    batch_size: int = 256,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[int, int]:
    """Decodes the lines of a file ("-": standard input) into another ("-": standard output).

    Lines are read like those of training files, see `split_lines`. Each gets one line of output: a
    line break within a hypothesis is written as a space. Files named *.gz are gzipped. `report`
    takes a line about the run.

    Returns:
      The number of unknown source symbols and the number of lines.

    Raises:
      LabError: the output cannot be written or is the input, or there is no trained run.
      DataError: the input cannot be read, or `split_lines` rejects it.
    """
    _check_output(source, output)
    lines = _read_lines(source)
    run = load_run(workdir, checkpoint)
    vocabulary = run.vocabularies.source
    unknown = sum(map(vocabulary.count_unknown, lines))
    with printing_beside_results():
        texts = translate(
            run,
            lines,
            beam_size=beam_size,
            length_penalty=length_penalty,
            max_length=max_length,
            batch_size=batch_size,
        )
    content = "".join(f"{on_one_line(text)}\n" for text in texts)
    if output == "-":
        sys.stdout.write(content)
        sys.stdout.flush()
    else:
        data = content.encode()
        write_atomic(output, gzip.compress(data, mtime=0) if output.endswith(".gz") else data)
    report(f"{checkpoint} checkpoint: {run.origin}")
    return unknown, len(lines)


def _check_output(source: str, output: str) -> None:
    """Rejects an output file that cannot be written or is the input, before decoding starts."""
    if output == "-":
        return
    check_writable(output)
    with contextlib.suppress(OSError):  # no descriptor or no such file: reported elsewhere
        there = Path(output).stat()
        read = os.fstat(sys.stdin.fileno()) if source == "-" else Path(source).stat()
        if stat.S_ISREG(there.st_mode) and os.path.samestat(there, read):
            raise LabError(f"--output={output} is the input; name another file")


def _read_lines(source: str) -> list[str]:
    if source != "-":
        return read_lines(Path(source))
    try:
        content = sys.stdin.buffer.read()
    except OSError as error:
        raise LabError(f"cannot read standard input: {error.strerror or error}") from error
    return split_lines(content, "standard input")


def _decode(
    model: Seq2SeqModel,
    max_length: int,
    beam_size: int,
    length_penalty: float,
    params: Params,
    batch: Batch,
) -> Decoded:
    """The best hypothesis of each row."""
    memory = model.encode(params, jnp.asarray(batch.source), jnp.asarray(batch.source_mask), None)
    if beam_size == 1:
        return greedy(model, params, memory, max_length)
    found = beam_search(model, params, memory, max_length, beam_size, length_penalty)
    return jax.tree.map(lambda leaf: leaf[:, 0], found)
