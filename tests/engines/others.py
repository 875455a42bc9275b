"""
The additional engines for the tests: packages, network and addresses.

Each runs in its own namespaces (network, mounts, process ids) on a root filesystem made of Debian packages. The engine at
the default socket cannot see it, and when its first process exits, nothing remains except its storage in
`/var/lib/dockertest-engines`. Docker is a remote host with its own address. Podman listens on a unix socket and publishes
ports on the loopback device of its network namespace, which the tests enter with `nsenter`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import dockertest
from tests.engines.fault_proxy import ENGINE_SOCKET

STORE = Path("/var/lib/dockertest-engines")
MMDEBSTRAP = (
    "mmdebstrap",
    "--variant=minbase",
    "--aptopt=APT::Install-Recommends false",
    '--aptopt=Acquire::Check-Valid-Until "false"',  # the lists of unstable expire after a week, and mirrors and clocks differ
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """
    One engine.

    Attributes:
        name: The name on the command line.
        number: The number of its network `10.77.NUMBER.0/24`, in which this machine is 1 and the engine 2.
        suite: The Debian suite.
        packages: The packages of its root filesystem; "runc/bookworm" is taken from that suite.
        scheme: How clients connect: "tls", "tcp" or "unix".
    """

    name: str
    number: int
    suite: str
    packages: tuple[str, ...]
    scheme: str

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman rather than Docker."""
        return self.name.startswith("podman")

    @property
    def folder(self) -> Path:
        """The folder of its storage."""
        return STORE / self.name

    @property
    def shared(self) -> Path:
        """The folder that both sides see, at the same path."""
        return self.folder / "shared"

    @property
    def sources(self) -> list[str]:
        """The apt sources; empty if all packages are from one suite."""
        more = [package.partition("/")[2] for package in self.packages if "/" in package]
        return [f"deb http://deb.debian.org/debian {suite} main" for suite in (self.suite, *more) if more]

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
        """The address at which this machine reaches it."""
        return f"10.77.{self.number}.2"

    @property
    def environ(self) -> dict[str, str]:
        """
        The variables that select the engine.

        Another variable names a socket for the fault proxy, if the engine does not listen on a unix socket.
        """
        socket = f"{self.shared}/engine.sock"
        if self.scheme == "unix":
            return {"DOCKER_HOST": f"unix://{socket}"}
        if self.scheme == "tcp":
            return {"DOCKER_HOST": f"tcp://{self.address}:2375", ENGINE_SOCKET: socket}
        certificates = {"DOCKER_CERT_PATH": f"{self.folder}/certificates", "DOCKER_TLS_VERIFY": "1"}
        return {"DOCKER_HOST": f"tcp://{self.address}:2376", **certificates, ENGINE_SOCKET: socket}

    @property
    def prefix(self) -> list[str]:
        """The prefix of commands that connect to ports that it publishes."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"] if self.scheme == "unix" else []

    @property
    def daemon(self) -> list[str]:
        """The command of the engine, below an init process that reaps zombies."""
        if self.is_podman:
            return f"catatonit -- podman system service --time=0 unix://{self.shared}/engine.sock".split()
        listen = ["--tls=false", f"--host=tcp://{self.address}:2375"]
        if self.scheme == "tls":
            files = ("tlscacert=ca.pem", "tlscert=server.pem", "tlskey=server-key.pem")
            keys = [f"--{file.replace('=', f'={self.shared}/')}" for file in files]
            listen = ["--tlsverify", *keys, f"--host=tcp://{self.address}:2376"]
        registries = f"--insecure-registry=10.77.{self.number}.0/24"  # registries of tests, on this machine
        own = [f"--host=unix://{self.shared}/engine.sock", f"--cgroup-parent=/{self.namespace}"]
        return ["docker-init", "--", "dockerd", *own, registries, *listen]


DOCKER = ("docker.io", "iptables", "ca-certificates")
# Trixie builds runc 1.1 with a version of Go that runc does not support (opencontainers/runc#4233). `runc init` crashed twice
# in the tests, though never in 10,000 separate starts and commands.
DOCKER_26 = (*DOCKER, "runc/bookworm")
PODMAN = tuple("podman runc netavark aardvark-dns iptables nftables catatonit ca-certificates".split())
PODMAN_6 = tuple(
    "podman/experimental golang-github-containers-common/experimental netavark/experimental".split()
) + tuple(package for package in PODMAN if package not in ("podman", "netavark"))
DEFAULT = "default"
OTHERS = (
    Other(name="docker-26", number=26, suite="trixie", packages=DOCKER_26, scheme="tls"),
    Other(name="docker-26-tcp", number=126, suite="trixie", packages=DOCKER_26, scheme="tcp"),
    Other(name="docker-new", number=99, suite="unstable", packages=DOCKER, scheme="tls"),
    Other(name="podman-4", number=4, suite="bookworm", packages=PODMAN, scheme="unix"),
    Other(name="podman-new", number=98, suite="unstable", packages=PODMAN, scheme="unix"),
    Other(name="podman-6", number=6, suite="unstable", packages=PODMAN_6, scheme="unix"),
)


def choose(names: list[str]) -> list[Other]:
    """
    Return the engines with these names, or all if there are no names.

    The default engine is not among them.
    """
    unknown = set(names) - {DEFAULT} - {other.name for other in OTHERS}
    if unknown:
        raise SystemExit(f"no such engine: {', '.join(sorted(unknown))}")
    return [other for other in OTHERS if not names or other.name in names]


def pool(other: Other) -> dockertest.Pool:
    """Connect to an engine."""
    return dockertest.Pool(
        other.environ["DOCKER_HOST"], cert_path=other.environ.get("DOCKER_CERT_PATH"), timeout=600
    )


def answers(other: Other) -> bool:
    """Return whether the engine answers."""
    try:
        pool(other).close()
    except dockertest.DockerUnavailableError:
        return False
    except dockertest.InvalidOptionError:  # the certificates do not exist yet
        return False
    return True
