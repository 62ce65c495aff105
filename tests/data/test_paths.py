"""Paths as users write them."""

from pathlib import Path

import pytest

from s2s_jax.data.pairs import DataError
from s2s_jax.data.paths import user_path


@pytest.mark.parametrize(
    ("name", "reason"), [(300 * "x", "File name too long"), ("a\0b", "embedded null byte")]
)
def test_a_name_that_no_file_can_have_is_rejected_with_its_option(
    tmp_path: Path, name: str, reason: str
) -> None:
    for path in (tmp_path / name, tmp_path / name / "run"):
        with pytest.raises(DataError) as refused:
            user_path(str(path), "--workdir")
        assert str(refused.value) == f"--workdir is {path}: {reason}"


def test_a_path_need_not_exist(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "new" / "run", tmp_path / "file" / "run"):
        assert user_path(str(path), "--workdir") == path
