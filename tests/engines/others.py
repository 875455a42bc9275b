"""
Start the engines that the tests are to meet besides the default one: `make engines`; `make engines-stop` ends them.

Each runs in namespaces of its own (network, mounts, process ids), on a root filesystem of Debian's packages: nothing of
it is seen by the engine at the default socket, and nothing is left when its first process ends but what it stored below
`/var/lib/dockertest-engines`. Docker is a remote host at an address of its own; Podman listens on a unix socket, and its
published ports are on the loopback of its network, which tests enter with `nsenter`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trustme

import dockertest
from tests.engines import ensure
from tests.engines.fault_proxy import ENGINE_SOCKET
from tests.images import make as images

HERE = Path(__file__).parent
STORE = Path("/var/lib/dockertest-engines")
SECONDS = 60.0
MMDEBSTRAP = (
    "mmdebstrap",
    "--variant=minbase",
    "--aptopt=APT::Install-Recommends false",
    '--aptopt=Acquire::Check-Valid-Until "false"',  # unstable's lists live for a week, and mirrors and clocks differ
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)
TOOLS = {"mmdebstrap": "mmdebstrap", "ip": "iproute2", "nsenter": "util-linux", "iptables": "iptables"}


class StartError(Exception):
    """An engine cannot be had; the text tells the person why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """
    One engine.

    Attributes:
        name: What people call it.
        number: Of its network, `10.77.NUMBER.0/24`: this machine is 1 in it, the engine 2.
        suite: Of Debian.
        packages: That make its root filesystem.
        scheme: How it is reached: "tls", "tcp" or "unix".
    """

    name: str
    number: int
    suite: str
    packages: tuple[str, ...]
    scheme: str

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman; else it is Docker."""
        return self.name.startswith("podman")

    @property
    def folder(self) -> Path:
        """What it stores."""
        return STORE / self.name

    @property
    def shared(self) -> Path:
        """What both sides see, the engine as `/run/engine`."""
        return self.folder / "shared"

    @property
    def tree(self) -> Path:
        """Its root filesystem."""
        made_of = hashlib.sha256(repr((self.suite, self.packages, MMDEBSTRAP)).encode()).hexdigest()
        return STORE / "trees" / f"{self.suite}-{made_of[:12]}"

    @property
    def namespace(self) -> str:
        """The name of its network namespace, and of its control group."""
        return f"dockertest-{self.name}"

    @property
    def address(self) -> str:
        """Where it is, for this machine."""
        return f"10.77.{self.number}.2"

    @property
    def environ(self) -> dict[str, str]:
        """Say by which variables it is found, and by which tests find a socket to put a proxy before."""
        socket = f"{self.shared}/engine.sock"
        if self.scheme == "unix":
            return {"DOCKER_HOST": f"unix://{socket}"}
        if self.scheme == "tcp":
            return {"DOCKER_HOST": f"tcp://{self.address}:2375", ENGINE_SOCKET: socket}
        certificates = {"DOCKER_CERT_PATH": f"{self.folder}/certificates", "DOCKER_TLS_VERIFY": "1"}
        return {"DOCKER_HOST": f"tcp://{self.address}:2376", **certificates, ENGINE_SOCKET: socket}

    @property
    def prefix(self) -> list[str]:
        """What goes before a command that has to reach the ports that it publishes."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.scheme == "unix" else []

    @property
    def daemon(self) -> list[str]:
        """The command that it is, below a first process that buries its dead."""
        if self.is_podman:
            return [
                "catatonit",
                "--",
                "podman",
                "system",
                "service",
                "--time=0",
                "unix:///run/engine/engine.sock",
            ]
        listen = ["--tls=false", f"--host=tcp://{self.address}:2375"]
        if self.scheme == "tls":
            files = ("tlscacert=ca.pem", "tlscert=server.pem", "tlskey=server-key.pem")
            keys = [f"--{file.replace('=', '=/run/engine/')}" for file in files]
            listen = ["--tlsverify", *keys, f"--host=tcp://{self.address}:2376"]
        registries = f"--insecure-registry=10.77.{self.number}.0/24"  # those of tests, on this machine
        own = ["--host=unix:///run/engine/engine.sock", f"--cgroup-parent=/{self.namespace}"]
        return ["docker-init", "--", "dockerd", *own, registries, *listen]


DOCKER = ("docker.io", "iptables", "ca-certificates")
PODMAN = ("podman", "runc", "netavark", "aardvark-dns", "iptables", "catatonit", "ca-certificates")
OTHERS = (
    Other(name="docker-26", number=26, suite="trixie", packages=DOCKER, scheme="tls"),
    Other(name="docker-26-tcp", number=126, suite="trixie", packages=DOCKER, scheme="tcp"),
    Other(name="docker-new", number=99, suite="unstable", packages=DOCKER, scheme="tls"),
    Other(name="podman-4", number=4, suite="bookworm", packages=PODMAN, scheme="unix"),
    Other(name="podman-new", number=98, suite="unstable", packages=PODMAN, scheme="unix"),
)


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
            except (StartError, images.MakeError, dockertest.DockertestError, OSError) as error:
                print(f"{other.name}: {error}", file=sys.stderr, flush=True)
                failed += 1
    return 1 if failed else 0


def choose(names: list[str]) -> list[Other]:
    """Give the engines of those names; all if there are none."""
    unknown = set(names) - {each.name for each in OTHERS}
    if unknown:
        raise SystemExit(f"no such engine: {', '.join(sorted(unknown))}")
    return [each for each in OTHERS if not names or each.name in names]


def pool(other: Other) -> dockertest.Pool:
    """Connect to an engine."""
    return dockertest.Pool(
        other.environ["DOCKER_HOST"], cert_path=other.environ.get("DOCKER_CERT_PATH"), timeout=600
    )


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
        version = there.client.version()["Version"]
    variables = " ".join(f"{key}={value}" for key, value in other.environ.items())
    print(f"{other.name}: {version}; reach it by: {' '.join([*other.prefix, 'env', variables])}", flush=True)


def answers(other: Other) -> bool:
    """Whether the engine runs."""
    try:
        pool(other).close()
    except (
        dockertest.DockerUnavailableError,
        dockertest.InvalidOptionError,
    ):  # nobody there; no certificates yet
        return False
    return True


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
        execute(
            [
                *MMDEBSTRAP,
                f"--include={','.join(other.packages)}",
                "--format=directory",
                other.suite,
                str(half),
            ]
        )
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
    command = [
        *(
            "nsenter",
            f"--net=/run/netns/{other.namespace}",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
        ),
        *("sh", str(HERE / "inside.sh"), str(other.tree), str(other.shared), str(data), store, *other.daemon),
    ]
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
        prefix = images.provide(here, os.environ.get("DOCKERTEST_IMAGE_PREFIX", ""))
        ours, theirs = images.present(here), images.present(there)
        for name in (prefix + each for each in images.NEEDED):
            if ours[name]["Labels"] != theirs.get(name, {"Labels": 0})["Labels"]:
                print(f"{other.name}: loading {name}", flush=True)
                saved = here.client.api.get_image(name)
                for answer in there.client.api.load_image(saved):  # type: ignore[no-untyped-call]
                    if "error" in answer:
                        raise StartError(f"cannot load {name}: {answer['error']}")


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
            ids = next(
                line
                for line in Path("/proc", pid, "status").read_text().splitlines()
                if line.startswith("NSpid:")
            ).split()[1:]
            if len(ids) > 1 and ids[-1] == "1":
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
