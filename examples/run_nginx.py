"""
nginx with the standard library's HTTP client.

Pages are copied into the container before it starts and while it runs.

    python examples/run_nginx.py
"""

import urllib.request

import dockertest

PAGES = "/usr/share/nginx/html"


def main() -> None:
    """Copy pages to a new server and request them."""
    with dockertest.Pool() as pool:
        nginx = pool.run("nginx:1.22", files={f"{PAGES}/index.html": "welcome\n"})
        url = f"http://{nginx.get_host_port(80)}"

        def get(path: str) -> bytes:
            with urllib.request.urlopen(f"{url}{path}", timeout=5) as response:
                page: bytes = response.read()
                return page

        assert nginx.retry(lambda: get("/"), on=OSError) == b"welcome\n"
        nginx.write_file(f"{PAGES}/hello.txt", "hello\n")
        page = get("/hello.txt")
        assert page == b"hello\n"
        nginx.wait_for_log("GET /hello.txt", max_wait=10)
        print(f"nginx:1.22 gave back {page!r}")


if __name__ == "__main__":
    main()
