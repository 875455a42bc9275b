"""
Mountebank, which simulates other servers, with the standard library.

It is controlled through its JSON API.

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
    """Send a GET request, or a POST request if *data* is set."""
    request = urllib.request.Request(url, data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        body: bytes = response.read()
        return body


def main() -> None:
    """Define a simulated server and send it a request."""
    with dockertest.Pool() as pool:
        # The ports of the simulated servers have to be published in advance.
        mountebank = pool.run("bbyars/mountebank:2.9.1", exposed_ports=["2525", "4545"])
        url = f"http://{mountebank.get_host_port(2525)}/imposters"
        mountebank.retry(lambda: json.loads(call(url)), on=OSError)
        call(url, json.dumps(IMPOSTER).encode())
        price = call(f"http://{mountebank.get_host_port(4545)}/price")
        assert price == b"3"
        print(f"bbyars/mountebank:2.9.1 gave back {price!r}")


if __name__ == "__main__":
    main()
