"""A proxy in front of a real engine that pretends to support other API versions."""

import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

from .fault_proxy import FaultProxy, _carry, _one_request, _read_head, answer


@dataclass
class OtherVersions(FaultProxy):
    """
    Pretends to support a range of versions, and rejects all others.

    Each request is forwarded in a version that the engine supports.

    Attributes:
        oldest: The oldest version of the range.
        newest: The newest version of the range; both have as many characters as the engine's own.
        real: A version that the engine itself supports.
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
            requested = re.match(rb"\w+ /v([0-9.]+)/", head)
            if requested and (refusal := self._refusal(requested[1].decode())):
                answer(400, refusal)(client, _no_upstream)
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

    def _refusal(self, version: str) -> str:
        """Return an engine's message about an unsupported version, or an empty string."""
        if _numbers(version) < _numbers(self.oldest):
            return f"client version {version} is too old. Minimum supported API version is {self.oldest}"
        if _numbers(version) > _numbers(self.newest):
            return f"client version {version} is too new. Maximum supported API version is {self.newest}"
        return ""

    def _disguised(self, data: bytes) -> bytes:
        """
        Replace the engine's versions by the pretended ones.

        Both have the same length.
        """
        for pattern, version in (
            (rb'(Api-Version: |"ApiVersion":")[0-9.]+', self.newest),
            (rb'("MinAPIVersion":")[0-9]+[.][0-9]+(?=")', self.oldest),  # Podman also has another one
        ):
            data = re.sub(pattern, rb"\g<1>" + version.encode(), data)
        return data


def _no_upstream() -> socket.socket:
    raise AssertionError("no request is forwarded to the engine")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
