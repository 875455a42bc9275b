"""
Build an image from a Dockerfile with build arguments, and run it.

The image is removed together with its container.

    python examples/run_dockerfile.py
"""

import secrets
import urllib.request
from pathlib import Path

import dockertest

CONTEXT = Path(__file__).with_name("dockerfile")


def main() -> None:
    """Build an image that contains a message, and request it from its server."""
    name = f"greeting-{secrets.token_hex(6)}"
    with dockertest.Pool() as pool:
        server = pool.build_and_run_with_build_options(
            dockertest.BuildOptions(
                context_dir=CONTEXT,
                build_args={"PREFIX": pool.image_prefix or "", "GREETING": name},
                remove_image=True,
            ),
            # The image has the same name.
            dockertest.RunOptions(name=name),
        )

        def get() -> bytes:
            with urllib.request.urlopen(f"http://{server.get_host_port(8080)}", timeout=5) as response:
                page: bytes = response.read()
                return page

        page = server.retry(get, on=OSError)
        assert page == f"{name}\n".encode()
        print(f"an image from busybox:1.35 gave back {page!r}")


if __name__ == "__main__":
    main()
