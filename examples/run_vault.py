"""
HashiCorp Vault in its development mode, with the standard library.

    python examples/run_vault.py
"""

import json
import urllib.request
from typing import Any

import dockertest

TOKEN = "root-of-a-test"  # noqa: S105 - for a server that lives as long as the test


def main() -> None:
    """Store a secret in a new server and read it back."""
    with dockertest.Pool() as pool:
        server = pool.run("hashicorp/vault:1.18", env={"VAULT_DEV_ROOT_TOKEN_ID": TOKEN}, wait_for="ready")

        def call(method: str, body: object = None) -> Any:
            request = urllib.request.Request(
                f"{server.url()}/v1/secret/data/shop",
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"X-Vault-Token": TOKEN, "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                return json.load(reply)

        call("POST", {"data": {"key": "value"}})
        secret = call("GET")["data"]["data"]
        assert secret == {"key": "value"}
        print(f"hashicorp/vault:1.18 gave back {secret!r}")


if __name__ == "__main__":
    main()
