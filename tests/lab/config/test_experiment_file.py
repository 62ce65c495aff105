"""The file and the argument in --config."""

from pathlib import Path

import pytest

from s2s_jax.lab.config.experiment_file import split_config


@pytest.mark.parametrize(
    ("name", "file", "argument"),
    [
        ("a:b/pt.py", "a:b/pt.py", ""),
        ("a:b/pt.py:linear", "a:b/pt.py", "linear"),
        ("a:b/pt.py:lin:ear", "a:b/pt.py", "lin:ear"),
        ("g2p.py:old", "g2p.py:old", ""),  # the whole text is a file
        ("g2p.py:old:er", "g2p.py", "old:er"),  # the shortest file
        ("a:b/missing.py", "a:b/missing.py", ""),
        ("a:b/missing", "a:b/missing", ""),
        ("a:missing.py", "a:missing.py", ""),
        ("a:b/missing.py:linear", "a:b/missing.py", "linear"),
        (":linear", ":linear", ""),
    ],
)
def test_a_path_may_have_colons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str, argument: str
) -> None:
    (tmp_path / "a:b").mkdir()
    for there in ("a:b/pt.py", "g2p.py", "g2p.py:old"):
        (tmp_path / there).touch()
    monkeypatch.chdir(tmp_path)
    assert split_config(name) == (file, argument)
