"""
nginx with the standard library's HTTP; its pages are copied in, before the start and while it runs.

    python examples/run_nginx.py
"""

import urllib.request

import dockertest

PAGES = "/usr/share/nginx/html"


def main() -> None:
    """Put pages into a server that was not there before, and get them back."""
    with dockertest.Pool() as pool:
        nginx = pool.run("nginx:1.22", files={f"{PAGES}/index.html": "welcome\n"})
        url = f"http://{nginx.get_host_port(80)}"

        def get(path: str) -> bytes:
            with urllib.request.urlopen(f"{url}{path}", timeout=5) as response:
                page: bytes = response.read()
                return page

        assert nginx.retry(lambda: get("/"), on=OSError) == b"welcome\n"
        nginx.write_file(f"{PAGES}/greeting.txt", "hello\n")
        page = get("/greeting.txt")
        assert page == b"hello\n"
        nginx.wait_for_log("GET /greeting.txt", max_wait=10)
        print(f"nginx:1.22 gave back {page!r}")


if __name__ == "__main__":
    main()
