"""A connection that carries JSON values, one a line."""

import json
import socket
import sys
from typing import Any

_MOST = 2**20


class Line:
    """A connected socket that sends and receives JSON values."""

    def __init__(self, connection: socket.socket):
        """Takes over a connection; a host that is gone without a word is noticed within half a minute."""
        self._socket, self._data = connection, b""
        connection.settimeout(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def send(self, value: Any) -> bool:
        """Sends a value; whether it could be sent."""
        try:
            self._socket.sendall(json.dumps(value).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> list[Any] | None:
        """The values that have arrived, waiting for at most ten seconds; None at the end, or when they are no JSON."""
        try:
            data = self._socket.recv(65536)
        except OSError:
            data = b""
        if not data or len(self._data) > _MOST:
            return None
        *whole, self._data = (self._data + data).split(b"\n")
        try:
            return [json.loads(line) for line in whole]
        except ValueError:
            return None

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()
