"""Vocabularies: text to token ids and back; trained on the training split, saved with the run."""

import base64
import io
import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from s2s_jax.batch import BOS, EOS, NUM_RESERVED, PAD, UNK
from s2s_jax.data.files import write_whole
from s2s_jax.data.json_shapes import parse
from s2s_jax.data.pairs import DataError
from s2s_jax.names import did_you_mean

_FILE = {"kind": str, "tokens?": [str], "model?": str}
KINDS = ("characters", "whitespace", "sentencepiece")
UNKNOWN_TEXT = "<unk>"

# Some characters do not survive SentencePiece: its own signs for a space and for an unknown piece,
# NUL, and the names of its control symbols. Each is replaced by a stand-in from a plane that texts
# do not use; a stand-in that does occur in a text is escaped by the first of them.
_ESCAPE, *_STAND_INS = "\U0010ff00\U0010ff01\U0010ff02\U0010ff03\U0010ff04"
_ESCAPED = dict(zip("\u2581\u2585\0<", _STAND_INS, strict=True))
_ESCAPED |= {sign: _ESCAPE + sign for sign in (_ESCAPE, *_STAND_INS)}
_GIVEN_BACK = {code: sign for sign, code in _ESCAPED.items()}
_SPECIAL = re.compile("[\u2581\u2585\0\U0010ff00-\U0010ff04]|<(?=pad>|/?s>|unk>)")
_CODE = re.compile("\U0010ff00[\U0010ff00-\U0010ff04]|[\U0010ff01-\U0010ff04]")


class Vocabulary(ABC):
    """Text to ids and back. Ids 0 to 3 are PAD, BOS, EOS and UNK in every vocabulary."""

    kind: str

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text, without BOS or EOS; tokens not in the vocabulary become UNK."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the first EOS; PAD and BOS are skipped, UNK becomes <unk>."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of ids, including the four reserved ones."""

    @abstractmethod
    def _to_json(self) -> dict[str, Any]:
        """What `load_vocabulary` needs in addition to the kind."""

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """The ids of several texts."""
        return [self.encode(text) for text in texts]

    def count_unknown(self, text: str) -> int:
        """How many tokens of a text are not in the vocabulary."""
        return self.encode(text).count(UNK)

    def labels(self, ids: Sequence[int]) -> list[str]:
        """A text for each id, for pictures; EOS is </s>."""
        return ["</s>" if number == EOS else self.decode([number]) for number in ids]

    def to_bytes(self) -> bytes:
        """The whole vocabulary as JSON."""
        content = json.dumps({"kind": self.kind, **self._to_json()}, ensure_ascii=False)
        return f"{content}\n".encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the vocabulary to one file, completely or not at all."""
        write_whole(Path(path), self.to_bytes())


class TokenVocabulary(Vocabulary):
    """A list of tokens: the characters of a text, or its words separated by whitespace.

    Args:
      kind: "characters" or "whitespace".
      tokens: the tokens of ids 4, 5, ...

    Example:
      >>> vocabulary = TokenVocabulary("whitespace", ["AH", "K"])
      >>> vocabulary.encode("K AH ZH")
      [5, 4, 3]
      >>> vocabulary.decode([5, 4, 2, 5])
      'K AH'
    """

    def __init__(self, kind: str, tokens: Sequence[str]):
        if kind not in ("characters", "whitespace"):
            raise ValueError(f"kind is {kind!r}, not characters or whitespace")
        self.kind = kind
        self.tokens = tuple(tokens)
        self._ids = {token: number for number, token in enumerate(self.tokens, NUM_RESERVED)}
        if len(self._ids) != len(self.tokens):
            raise ValueError("a token occurs twice")

    def __len__(self) -> int:
        return NUM_RESERVED + len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """See `Vocabulary.encode_batch`; one loop, because the start of a run waits for this."""
        number_of, kind = self._ids.get, self.kind
        return [[number_of(token, UNK) for token in _split(kind, text)] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Vocabulary.decode`; tokens are joined as they were split."""
        tokens = (
            UNKNOWN_TEXT if number == UNK else self.tokens[number - NUM_RESERVED]
            for number in _content(ids)
        )
        return ("" if self.kind == "characters" else " ").join(tokens)

    def _to_json(self) -> dict[str, Any]:
        return {"tokens": self.tokens}


class SentencePieceVocabulary(Vocabulary):
    """Subwords: a SentencePiece model with our reserved ids.

    Text of known characters round-trips, except for spaces: those at its ends are removed, and
    several in a row become one.

    Args:
      model: the bytes of a serialised model.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes):
        import sentencepiece

        self._model = model
        # Any: the wrapper creates its methods at run time, so a type checker does not see them.
        self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        processor = self._processor
        reserved = processor.pad_id(), processor.bos_id(), processor.eos_id(), processor.unk_id()
        if reserved != (PAD, BOS, EOS, UNK):
            raise ValueError(f"the model's pad, bos, eos, unk are {reserved}, not (0, 1, 2, 3)")

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return self._processor.encode(_escape(text))

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """See `Vocabulary.encode_batch`."""
        return self._processor.encode(list(map(_escape, texts)), num_threads=1)

    def count_unknown(self, text: str) -> int:
        """How many characters of a text are not in the vocabulary."""
        # Unknown characters in a row make one UNK, whose piece is their text.
        pieces = self._processor.encode(_escape(text), out_type=str)
        return sum(
            len(_unescape(piece))
            for piece, number in zip(pieces, self.encode(text), strict=True)
            if number == UNK
        )

    def decode(self, ids: Sequence[int]) -> str:
        """See `Vocabulary.decode`."""
        return _unescape(self._processor.decode(_content(ids)))

    def _to_json(self) -> dict[str, Any]:
        return {"model": base64.b64encode(self._model).decode("ascii")}


def train_vocabulary(kind: str, texts: Iterable[str], size: int = 0) -> Vocabulary:
    """Trains a vocabulary on texts, which should be those of the training split only.

    Args:
      kind: "characters", "whitespace" or "sentencepiece" (byte-pair encoding).
      texts: to train on.
      size: the maximum number of ids, including the four reserved ones. 0 means no limit;
        SentencePiece needs one. If there are more characters or words, the most frequent are kept;
        if there are fewer tokens, the vocabulary is smaller.

    Raises:
      DataError: the kind is unknown, there is no text, or the size is too small.

    Example:
      >>> train_vocabulary("characters", ["abca"]).decode([4, 5])
      'ab'
    """
    if kind not in KINDS:
        raise DataError(f"there is no vocabulary of {kind!r}; {did_you_mean(kind, KINDS)}")
    if size != 0 and size <= NUM_RESERVED:
        raise DataError(f"vocabulary size {size} leaves no id besides the {NUM_RESERVED} reserved")
    if kind == "sentencepiece":
        return _train_sentencepiece(texts, size)
    counts = Counter(token for text in texts for token in _split(kind, text))
    if not counts:
        raise DataError(f"no text to train a {kind} vocabulary on")
    # Ties are broken by text, so that the ids do not depend on the order of the examples.
    tokens = sorted(counts, key=lambda token: (-counts[token], token))
    return TokenVocabulary(kind, tokens[: size - NUM_RESERVED] if size else tokens)


def load_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
    """Reads what `Vocabulary.save` wrote.

    Raises:
      DataError: the file is missing, or is not a vocabulary.
    """
    try:
        content = parse(Path(path).read_bytes(), _FILE)
        kind = content["kind"]
        if kind == "sentencepiece":
            return SentencePieceVocabulary(base64.b64decode(content["model"], validate=True))
        return TokenVocabulary(kind, content["tokens"])
    except OSError as error:
        raise DataError(f"cannot read vocabulary {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} is not a vocabulary: {error}") from error


def _split(kind: str, text: str) -> Sequence[str]:
    return text if kind == "characters" else text.split()


def _content(ids: Sequence[int]) -> list[int]:
    """Ids up to EOS, without PAD and BOS, as Python integers."""
    content: list[int] = []
    for number in map(int, ids):
        if number == EOS:
            break
        if number not in (PAD, BOS):
            content.append(number)
    return content


def _escape(text: str) -> str:
    """Escapes a text so that it survives SentencePiece; an ordinary text is unchanged."""
    return _SPECIAL.sub(lambda found: _ESCAPED[found[0]], text)


def _unescape(text: str) -> str:
    """The inverse of `_escape`."""
    return _CODE.sub(lambda found: _GIVEN_BACK[found[0]], text)


def _train_sentencepiece(texts: Iterable[str], size: int) -> SentencePieceVocabulary:
    if size == 0:
        raise DataError("sentencepiece needs a size: set data.vocabulary_size, such as 8000")
    escaped = list(map(_escape, texts))
    try:
        model = _sentencepiece_model(escaped, size)
    except (RuntimeError, ValueError) as error:  # ValueError: the number is not an int32
        if "too high" not in str(error):
            raise _why_not(error, size) from error
        # Train again, without the hard limit. This is quick, because the text is small.
        model = _sentencepiece_model(escaped, size, hard_vocab_limit=False)
    return SentencePieceVocabulary(model)


def _why_not(error: Exception, size: int) -> DataError:
    """SentencePiece's reason, reworded if it mentions its own options."""
    reason = str(error).rpartition("]")[2].strip() or "no text to train on"
    needed = re.search(rf"required_chars.*?{size} vs (\d+)", str(error), re.DOTALL)
    if needed is not None:
        reason = f"the characters of the text need at least {needed[1]}"
    return DataError(f"cannot train sentencepiece with data.vocabulary_size={size}: {reason}")


def _sentencepiece_model(texts: list[str], size: int, **options: Any) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    trainer: Any = sentencepiece.SentencePieceTrainer
    trainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        pad_id=PAD,
        bos_id=BOS,
        eos_id=EOS,
        unk_id=UNK,
        unk_surface=UNKNOWN_TEXT,
        # Decoded text is scored against the raw references, so nothing is normalised, except that
        # several spaces become one.
        normalization_rule_name="identity",
        character_coverage=1.0,
        max_sentence_length=1 << 20,  # longer lines would be left out silently
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()
