"""Several processes: what is wrong is said before any of them starts."""

from pathlib import Path

import pytest

from framegate.contract import ConfigError
from framegate.serve.workers import UNIX_NAME_BYTES, check_sockets


def test_a_folder_whose_sockets_would_have_too_long_a_name_is_refused(tmp_path: Path) -> None:
    longest = "x" * (UNIX_NAME_BYTES - len(str(tmp_path)) - len("//http-999.sock"))
    check_sockets(tmp_path / longest)
    with pytest.raises(ConfigError, match="set a shorter TMPDIR"):
        check_sockets(tmp_path / f"{longest}x")
