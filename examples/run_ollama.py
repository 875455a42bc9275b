"""
Ollama, without a model, with the standard library.

    python examples/run_ollama.py
"""

import json
import urllib.request

import dockertest


def main() -> None:
    """List the models of a new server, which has none."""
    with dockertest.Pool() as pool:
        server = pool.run("ollama/ollama:0.6.2", wait_for="ready")
        with urllib.request.urlopen(f"{server.url()}/api/tags", timeout=10) as reply:
            models = json.load(reply)["models"]
        assert models == []
        print(f"ollama/ollama:0.6.2 gave back {models!r}")


if __name__ == "__main__":
    main()
