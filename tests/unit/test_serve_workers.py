"""What is wrong with processes and sockets is said before anything starts; a connection that nobody reads ends."""

import socket
from pathlib import Path

import pytest

from framegate.contract import ConfigError
from framegate.serve import workers
from framegate.serve.workers import UNIX_NAME_BYTES, check_sockets, listen


def test_a_folder_whose_sockets_would_have_too_long_a_name_is_refused(tmp_path: Path) -> None:
    longest = "x" * (UNIX_NAME_BYTES - len(str(tmp_path)) - len("//http-999.sock"))
    check_sockets(tmp_path / longest)
    with pytest.raises(ConfigError, match="set a shorter TMPDIR"):
        check_sockets(tmp_path / f"{longest}x")


def test_a_client_that_reads_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does it, whatever the application waits for; without it `sendall` would wait for ever."""
    monkeypatch.setattr(workers, "UNREAD_S", 1)
    with listen("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted, pytest.raises(OSError, match="Connection timed out"):
                accepted.settimeout(60)
                accepted.sendall(bytes(100_000_000))
