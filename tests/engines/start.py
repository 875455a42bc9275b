"""
Start or stop the additional engines for the tests.

`make engines` starts them, and `make engines-stop` stops them. An engine that answers is left as it is. One that is
started loses what earlier tests left in its storage. `others.py` describes the engines.
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

import docker.errors
import trustme

import dockertest
from tests.engines import ensure
from tests.engines.others import MMDEBSTRAP, OTHERS, Other, answers, choose, pool
from tests.images import make, standins

HERE = Path(__file__).parent
SECONDS = 60.0
TOOLS = {"mmdebstrap": "mmdebstrap", "ip": "iproute2", "nsenter": "util-linux", "iptables": "iptables"}


class StartError(Exception):
    """An engine cannot be started; the message contains the reason."""


def main() -> int:
    """Start or stop the engines that the arguments name, or all of them."""
    parser = argparse.ArgumentParser(description="Start or stop engines for the tests.")
    parser.add_argument("what", choices=["start", "stop"])
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"of: {', '.join(other.name for other in OTHERS)}"
    )
    arguments = parser.parse_args()
    chosen = choose(arguments.names)
    failed = 0
    with ensure.exclusive():
        for other in chosen:
            try:
                start(other) if arguments.what == "start" else stop(other)
            except (StartError, standins.MakeError, dockertest.DockertestError, OSError) as error:
                print(f"{other.name}: {error}", file=sys.stderr, flush=True)
                failed += 1
    return 1 if failed else 0


def start(other: Other) -> None:
    """Start the engine if it does not answer, and load the images."""
    is_new = not answers(other)
    if is_new:
        require_tools()
        make_tree(other)
        stop(other)  # remove the remains of an engine that no longer answers
        connect(other)
        launch(other)
    load_images(other)
    if is_new:
        remove_remains(other)
    with pool(other) as remote:
        version = ensure.name_of(remote)
    variables = " ".join(f"{key}={value}" for key, value in other.environ.items())
    print(f"{other.name}: {version}; reach it by: {' '.join([*other.prefix, 'env', variables])}", flush=True)


def require_tools() -> None:
    """Install missing tools, as root on Debian."""
    if os.geteuid() != 0:
        raise StartError("only root can create namespaces; run this command as root")
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        done = subprocess.run([sys.executable, HERE / "debian.py", *missing], check=False)
        if done.returncode:
            raise StartError(
                f"missing packages: {', '.join(missing)}; this command installs them only on Debian or Ubuntu"
            )


def make_tree(other: Other) -> None:
    """Unpack the root filesystem unless it exists."""
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
    """Create the engine's network namespace, and for Docker a veth pair into it."""
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
    """Start the engine in a session of its own, and wait until it answers."""
    data = other.folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(other.shared, ignore_errors=True)
    other.shared.mkdir()
    if other.scheme == "tls":
        write_certificates(other)
    store = "var/lib/containers" if other.is_podman else "var/lib/docker"
    log = other.folder / "log"
    # `ip netns exec` would mount a `/sys` without the cgroups.
    enter = f"nsenter --net=/run/netns/{other.namespace} unshare --mount --pid --fork --kill-child sh".split()
    folders = [str(other.tree), str(other.shared), str(data), store]
    command = [*enter, str(HERE / "inside.sh"), *folders, *other.daemon]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd="/", stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )

    def answering() -> bool:
        if process.poll() is not None:
            raise StartError(f"it exited with code {process.returncode}")
        return answers(other)

    try:
        dockertest.retry(answering, max_wait=SECONDS, giveup=lambda error: isinstance(error, StartError))
    except (StartError, dockertest.RetryTimeoutError) as error:
        last = log.read_text(errors="replace").splitlines()[-15:]
        raise StartError("\n".join([str(error), f"the end of {log}:", *last])) from error


def write_certificates(other: Other) -> None:
    """
    Write certificates for the engine and its clients.

    The CA is new with every start.
    """
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
    """Copy the images that are missing or differ from the default engine."""
    with dockertest.Pool(timeout=600) as local, pool(other) as remote:
        prefix = make.provide(local, make.NEEDED, os.environ.get("DOCKERTEST_IMAGE_PREFIX", ""))
        ours, theirs = standins.present(local), standins.present(remote)
        wanted = [(prefix or make.REGISTRY.get(image, "")) + image for image in make.NEEDED]
        names = [name for name in wanted if ours[name]["Labels"] != theirs.get(name, {"Labels": 0})["Labels"]]
        if names:
            print(f"{other.name}: loading {', '.join(names)}", flush=True)
            # The SDK's method saves a single image with all its layers, but images share layers.
            api: Any = local.client.api
            saved = api._get(api._url("/images/get"), params={"names": names}, stream=True)
            api._raise_for_status(saved)
            for answer in remote.client.api.load_image(saved.iter_content(1 << 20)):  # type: ignore[no-untyped-call]
                if "error" in answer:
                    raise StartError(f"cannot load the images: {answer['error']}")


def remove_remains(other: Other) -> None:
    """
    Remove containers, volumes, networks, and images that the default engine lacks.

    Tests left them in the storage. Listing hundreds of images takes Podman 4 more than 10 s.
    """
    with dockertest.Pool() as local, pool(other) as remote:
        remove_containers(remote)
        api = remote.client.api
        api.prune_volumes(filters={} if other.is_podman else {"all": ["true"]})
        api.prune_networks()  # type: ignore[no-untyped-call]
        kept = standins.present(local).keys()
        needed = {image["Id"] for name, image in standins.present(remote).items() if name in kept}
        remains = {image["Id"] for image in api.images()} - needed
        for image in remains:
            with suppress(docker.errors.ImageNotFound):  # it was removed together with another one
                api.remove_image(image, force=True)
        print(
            f"{other.name}: removed the remains of earlier tests, {len(remains)} images among them",
            flush=True,
        )


def stop(other: Other) -> None:
    """Stop the engine and remove everything except its storage."""
    if not Path("/run/netns", other.namespace).exists():
        return
    if answers(other):
        with pool(other) as remote:
            remove_containers(remote)
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
    print(f"{other.name}: stopped; its storage is in {other.folder} and {other.tree}", flush=True)


def remove_containers(remote: dockertest.Pool) -> None:
    """Remove all containers of an engine, and thereby their control groups."""
    for container in remote.client.api.containers(all=True):
        remote._runtime.engine.remove(container["Id"])


def first_processes(other: Other) -> list[int]:
    """
    Return the first process of each PID namespace in the engine's network.

    These processes belong to the engine.
    """
    within = execute(["ip", "netns", "pids", other.namespace]).split()
    firsts = []
    for pid in within:
        with suppress(OSError):
            status = Path("/proc", pid, "status").read_text()
            # The ids of a process, from the outermost namespace to its own.
            if re.search(r"^NSpid:\s.*\s1$", status, re.MULTILINE):
                firsts.append(int(pid))
    return firsts


def remove_groups(other: Other) -> None:
    """Remove the cgroups that are empty."""
    name = "libpod_parent" if other.is_podman else other.namespace
    for top in [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")]:
        for group in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with suppress(OSError):
                group.rmdir()
        with suppress(OSError):
            top.rmdir()


def execute(command: list[str]) -> str:
    """
    Run a command and return its output.

    A failure raises an error with the last lines of the output.
    """
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        output = "\n".join((done.stderr or done.stdout).splitlines()[-15:])
        raise StartError(f"{' '.join(command)} failed: {output}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
