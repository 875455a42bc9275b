"""
Start the engines that the tests are to meet besides the default one: `make engines`; `make engines-stop` ends them.

One that answers is left as it is. What they are is told in `others.py`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import trustme

import dockertest
from tests.engines import ensure
from tests.engines.others import MMDEBSTRAP, OTHERS, Other, answers, choose, pool
from tests.images import make, standins

HERE = Path(__file__).parent
SECONDS = 60.0
TOOLS = {"mmdebstrap": "mmdebstrap", "ip": "iproute2", "nsenter": "util-linux", "iptables": "iptables"}


class StartError(Exception):
    """An engine cannot be had; the text tells the person why."""


def main() -> int:
    """Start or stop what the arguments name; everything by default."""
    arguments = argparse.ArgumentParser(description="Start, or stop, engines for the tests.")
    arguments.add_argument("what", choices=["start", "stop"])
    arguments.add_argument(
        "names", nargs="*", metavar="name", help=f"of: {', '.join(each.name for each in OTHERS)}"
    )
    asked = arguments.parse_args()
    chosen = choose(asked.names)
    failed = 0
    with ensure.alone():
        for other in chosen:
            try:
                start(other) if asked.what == "start" else stop(other)
            except (StartError, standins.MakeError, dockertest.DockertestError, OSError) as error:
                print(f"{other.name}: {error}", file=sys.stderr, flush=True)
                failed += 1
    return 1 if failed else 0


def start(other: Other) -> None:
    """See to it that the engine answers and has the images."""
    if not answers(other):
        need_tools()
        make_tree(other)
        stop(other)  # what may be left of one that does not answer any more
        connect(other)
        launch(other)
    load_images(other)
    with pool(other) as there:
        version = ensure.name_of(there)
    variables = " ".join(f"{key}={value}" for key, value in other.environ.items())
    print(f"{other.name}: {version}; reach it by: {' '.join([*other.prefix, 'env', variables])}", flush=True)


def need_tools() -> None:
    """Install what is missing, where that is for us to do."""
    if os.geteuid() != 0:
        raise StartError("namespaces are made by root only; run this as root")
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        done = subprocess.run([sys.executable, HERE / "debian.py", *missing], check=False)
        if done.returncode:
            raise StartError(
                f"missing: {', '.join(missing)}, which this command installs only on Debian or Ubuntu"
            )


def make_tree(other: Other) -> None:
    """Unpack the root filesystem, once."""
    if not other.tree.exists():
        print(f"{other.name}: unpacking Debian's {', '.join(other.packages)} of {other.suite}", flush=True)
        half = other.tree.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        included = f"--include={','.join(other.packages)}"
        execute([*MMDEBSTRAP, included, "--format=directory", other.suite, str(half), *other.sources])
        half.rename(other.tree)
    if other.is_podman:
        for file in (HERE / "podman").iterdir():
            shutil.copy(file, other.tree / "etc/containers" / file.name)


def connect(other: Other) -> None:
    """Make the engine's network, and for Docker a cable to it."""
    execute(["ip", "netns", "add", other.namespace])
    within = ["ip", "-n", other.namespace]
    execute([*within, "link", "set", "lo", "up"])
    if other.scheme != "unix":
        near = f"dockertest{other.number}"
        peer = ["peer", "name", "eth0", "netns", other.namespace]
        execute(["ip", "link", "add", near, "type", "veth", *peer])
        execute(["ip", "address", "add", f"10.77.{other.number}.1/24", "dev", near])
        execute([*within, "address", "add", f"{other.address}/24", "dev", "eth0"])
        execute(["ip", "link", "set", near, "up"])
        execute([*within, "link", "set", "eth0", "up"])


def launch(other: Other) -> None:
    """Start the engine so that it outlives this command, and wait until it answers."""
    data = other.folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(other.shared, ignore_errors=True)
    other.shared.mkdir()
    if other.scheme == "tls":
        write_certificates(other)
    store = "var/lib/containers" if other.is_podman else "var/lib/docker"
    log = other.folder / "log"
    # `ip netns exec` would mount a `/sys` without the control groups.
    enter = f"nsenter --net=/run/netns/{other.namespace} unshare --mount --pid --fork --kill-child sh".split()
    folders = [str(other.tree), str(other.shared), str(data), store]
    command = [*enter, str(HERE / "inside.sh"), *folders, *other.daemon]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )

    def answering() -> bool:
        if process.poll() is not None:
            raise StartError(f"it ended with exit code {process.returncode}")
        return answers(other)

    try:
        dockertest.retry(answering, max_wait=SECONDS, giveup=lambda error: isinstance(error, StartError))
    except (StartError, dockertest.RetryTimeoutError) as error:
        last = log.read_text(errors="replace").splitlines()[-15:]
        raise StartError("\n".join([str(error), f"the end of {log}:", *last])) from error


def write_certificates(other: Other) -> None:
    """Write what the engine shows and what it wants to see; an authority of its own, new with every start."""
    authority = trustme.CA()
    server, client = authority.issue_cert(other.address), authority.issue_cert("client@dockertest.example")
    certificates = other.folder / "certificates"
    certificates.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(certificates / "ca.pem")
    client.cert_chain_pems[0].write_to_path(certificates / "cert.pem")
    client.private_key_pem.write_to_path(certificates / "key.pem")
    authority.cert_pem.write_to_path(other.shared / "ca.pem")
    server.cert_chain_pems[0].write_to_path(other.shared / "server.pem")
    server.private_key_pem.write_to_path(other.shared / "server-key.pem")


def load_images(other: Other) -> None:
    """Carry the images over from the default engine, those that are not there or differ."""
    with dockertest.Pool(timeout=600) as here, pool(other) as there:
        prefix = make.provide(here, make.NEEDED, os.environ.get("DOCKERTEST_IMAGE_PREFIX", ""))
        ours, theirs = standins.present(here), standins.present(there)
        names = [
            name
            for name in ((prefix or make.REGISTRY.get(each, "")) + each for each in make.NEEDED)
            if ours[name]["Labels"] != theirs.get(name, {"Labels": 0})["Labels"]
        ]
        if names:
            print(f"{other.name}: loading {', '.join(names)}", flush=True)
            # The SDK's own method saves one at a time, with what they share every time.
            api: Any = here.client.api
            saved = api._get(api._url("/images/get"), params={"names": names}, stream=True)
            api._raise_for_status(saved)
            for answer in there.client.api.load_image(saved.iter_content(1 << 20)):  # type: ignore[no-untyped-call]
                if "error" in answer:
                    raise StartError(f"cannot load the images: {answer['error']}")


def stop(other: Other) -> None:
    """End the engine, and leave nothing of it but what it stored."""
    if not Path("/run/netns", other.namespace).exists():
        return
    if answers(other):
        with pool(other) as there:
            for container in there.client.api.containers(all=True):
                there._engine.remove(container["Id"])  # and with it, its control group
    for first in first_processes(other):
        os.kill(first, signal.SIGTERM)
    try:
        dockertest.retry(lambda: not first_processes(other), max_wait=15)
    except dockertest.RetryTimeoutError:
        for first in first_processes(other):
            os.kill(first, signal.SIGKILL)
        dockertest.retry(lambda: not first_processes(other), max_wait=15)
    if other.scheme != "unix":
        execute(["ip", "link", "delete", f"dockertest{other.number}"])
    execute(["ip", "netns", "delete", other.namespace])
    remove_groups(other)
    print(f"{other.name}: stopped; what it stored is in {other.folder} and {other.tree}", flush=True)


def first_processes(other: Other) -> list[int]:
    """Give the processes in the engine's network that are the first of their namespace: the engine's own."""
    within = execute(["ip", "netns", "pids", other.namespace]).split()
    firsts = []
    for pid in within:
        with suppress(OSError):
            status = Path("/proc", pid, "status").read_text()
            # Its ids, from the outermost namespace to its own.
            if re.search(r"^NSpid:\s.*\s1$", status, re.MULTILINE):
                firsts.append(int(pid))
    return firsts


def remove_groups(other: Other) -> None:
    """Remove the control groups that nothing is in any more."""
    name = "libpod_parent" if other.is_podman else other.namespace
    for top in [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")]:
        for group in sorted((each for each in top.rglob("*") if each.is_dir()), reverse=True):
            with suppress(OSError):
                group.rmdir()
        with suppress(OSError):
            top.rmdir()


def execute(command: list[str]) -> str:
    """Run a command and give its output; one that fails is an error with its last words."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).splitlines()[-15:])
        raise StartError(f"{' '.join(command)} failed: {said}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
