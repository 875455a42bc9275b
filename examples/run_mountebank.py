"""
Mountebank, which plays servers that a program depends on, by the JSON that it speaks, with the standard library alone.

    python examples/run_mountebank.py
"""

import json
import urllib.request

import dockertest

IMPOSTER = {
    "port": 4545,
    "protocol": "http",
    "stubs": [
        {
            "predicates": [{"equals": {"path": "/price"}}],
            "responses": [{"is": {"statusCode": 200, "body": "3"}}],
        }
    ],
}


def call(url: str, data: bytes | None = None) -> bytes:
    """Get, or post JSON."""
    request = urllib.request.Request(url, data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        body: bytes = response.read()
        return body


def main() -> None:
    """Have it play a server, and ask that server."""
    with dockertest.Pool() as pool:
        # The ports that it will play servers on have to be known beforehand.
        mountebank = pool.run("bbyars/mountebank:2.9.1", exposed_ports=["2525", "4545"])
        url = f"http://{mountebank.get_host_port(2525)}/imposters"
        mountebank.retry(lambda: json.loads(call(url)), on=OSError)
        call(url, json.dumps(IMPOSTER).encode())
        price = call(f"http://{mountebank.get_host_port(4545)}/price")
        assert price == b"3"
        print(f"bbyars/mountebank:2.9.1 gave back {price!r}")


if __name__ == "__main__":
    main()
