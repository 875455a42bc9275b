"""
Keycloak in its development mode, with the standard library.

    python examples/run_keycloak.py
"""

import json
import urllib.parse
import urllib.request

import dockertest


def main() -> None:
    """Log in to a new server and get a token."""
    with dockertest.Pool(max_wait=120) as pool:
        server = pool.run(
            "keycloak/keycloak:26.1",
            env={"KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": "secret"},
            cmd=["start-dev"],
            wait_for="ready",
        )
        to = server.connection()
        form = {
            "grant_type": "password",
            "client_id": "admin-cli",
            "username": to.user,
            "password": to.password,
        }
        with urllib.request.urlopen(
            f"http://{to.host}:{to.port}/realms/master/protocol/openid-connect/token",
            data=urllib.parse.urlencode(form).encode(),
            timeout=30,
        ) as reply:
            token = json.load(reply)
        assert token["access_token"]
        print(f"keycloak/keycloak:26.1 gave back a {token['token_type']} token")


if __name__ == "__main__":
    main()
