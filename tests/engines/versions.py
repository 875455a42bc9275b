"""A real engine behind a socket of its own that says it speaks other versions of the API, and keeps to that."""

import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

from .fault_proxy import FaultProxy, _carry, _one_request, _read_head, answer


@dataclass
class OtherVersions(FaultProxy):
    """
    Forwards each request to the engine in a version that it knows, and refuses what an engine of these would.

    Attributes:
        oldest: The oldest version that is spoken.
        newest: The newest one; both of as many characters as the engine's own.
        real: One that the engine itself speaks.
    """

    oldest: str = "1.12"
    newest: str = "1.41"
    real: str = "1.41"

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = _read_head(client)
            if not head:
                return
            self.requests.append(head.split(b"\r\n", 1)[0].decode())
            asked = re.match(rb"\w+ /v([0-9.]+)/", head)
            if asked and (refusal := self._refusal(asked[1].decode())):
                answer(400, refusal)(client, _nobody)
                return
            known = re.sub(rb"(?<= /v)[0-9.]+(?=/)", self.real.encode(), head, count=1)
            with socket.socket(socket.AF_UNIX) as upstream:
                upstream.connect(self.engine)
                upstream.sendall(_one_request(known))
                thread = threading.Thread(target=_carry, args=(client, upstream), daemon=True)
                thread.start()
                while data := upstream.recv(65536):
                    client.sendall(self._disguised(data))
                client.shutdown(socket.SHUT_RDWR)
                thread.join()

    def _refusal(self, asked: str) -> str:
        """Say what engines say to a version that they do not speak; nothing if they do."""
        if _numbers(asked) < _numbers(self.oldest):
            return f"client version {asked} is too old. Minimum supported API version is {self.oldest}"
        if _numbers(asked) > _numbers(self.newest):
            return f"client version {asked} is too new. Maximum supported API version is {self.newest}"
        return ""

    def _disguised(self, data: bytes) -> bytes:
        """Put the other versions in place of the engine's own, which are as long."""
        for said, version in (
            (rb'(Api-Version: |"ApiVersion":")[0-9.]+', self.newest),
            (rb'("MinAPIVersion":")[0-9]+[.][0-9]+(?=")', self.oldest),  # Podman has one of its own, too
        ):
            data = re.sub(said, rb"\g<1>" + version.encode(), data)
        return data


def _nobody() -> socket.socket:
    raise AssertionError("the engine is not asked")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
