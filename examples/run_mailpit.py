"""
Mailpit with the standard library.

It receives mail for tests and shows it over HTTP.

    python examples/run_mailpit.py
"""

import json
import smtplib
import urllib.request
from email.message import EmailMessage

import dockertest


def main() -> None:
    """Send a message to a new server and read it back."""
    with dockertest.Pool() as pool:
        server = pool.run("axllent/mailpit:v1.21", wait_for="ready")

        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "shop@test.example", "me@test.example", "hello"
        message.set_content("Your tea is on its way.")
        with smtplib.SMTP(*server.get_address(1025), timeout=10) as client:
            client.send_message(message)

        url = f"http://{server.get_host_port(8025)}/api/v1/messages"
        with urllib.request.urlopen(url, timeout=10) as reply:
            (received,) = json.load(reply)["messages"]
        assert received["Subject"] == "hello"
        print(f"axllent/mailpit:v1.21 gave back {received['Subject']!r}")


if __name__ == "__main__":
    main()
