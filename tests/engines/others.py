"""
The engines that the tests are to meet besides the default one: what they are made of, and how they are reached.

Each runs in namespaces of its own (network, mounts, process ids), on a root filesystem of Debian's packages: nothing of
it is seen by the engine at the default socket, and nothing is left when its first process ends but what it stored below
`/var/lib/dockertest-engines`. Docker is a remote host at an address of its own; Podman listens on a unix socket, and its
published ports are on the loopback of its network, which tests enter with `nsenter`.
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
    '--aptopt=Acquire::Check-Valid-Until "false"',  # unstable's lists live for a week, and mirrors and clocks differ
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """
    One engine.

    Attributes:
        name: What people call it.
        number: Of its network, `10.77.NUMBER.0/24`: this machine is 1 in it, the engine 2.
        suite: Of Debian.
        packages: That make its root filesystem; "runc/bookworm" is that suite's.
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
        """What both sides see, under the same path."""
        return self.folder / "shared"

    @property
    def sources(self) -> list[str]:
        """Where the packages are from, in apt's words; nothing if all are of one suite."""
        more = [each.partition("/")[2] for each in self.packages if "/" in each]
        return [f"deb http://deb.debian.org/debian {each} main" for each in (self.suite, *more) if more]

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
            return f"catatonit -- podman system service --time=0 unix://{self.shared}/engine.sock".split()
        listen = ["--tls=false", f"--host=tcp://{self.address}:2375"]
        if self.scheme == "tls":
            files = ("tlscacert=ca.pem", "tlscert=server.pem", "tlskey=server-key.pem")
            keys = [f"--{file.replace('=', f'={self.shared}/')}" for file in files]
            listen = ["--tlsverify", *keys, f"--host=tcp://{self.address}:2376"]
        registries = f"--insecure-registry=10.77.{self.number}.0/24"  # those of tests, on this machine
        own = [f"--host=unix://{self.shared}/engine.sock", f"--cgroup-parent=/{self.namespace}"]
        return ["docker-init", "--", "dockerd", *own, registries, *listen]


DOCKER = ("docker.io", "iptables", "ca-certificates")
# Trixie's runc is a 1.1 built with a Go that its makers rule out for it (opencontainers/runc#4233). Twice in the tests, and
# never in 10,000 starts and commands beside them, its `runc init` died, and a start or a command with it.
DOCKER_26 = (*DOCKER, "runc/bookworm")
PODMAN = tuple("podman runc netavark aardvark-dns iptables nftables catatonit ca-certificates".split())
OTHERS = (
    Other(name="docker-26", number=26, suite="trixie", packages=DOCKER_26, scheme="tls"),
    Other(name="docker-26-tcp", number=126, suite="trixie", packages=DOCKER_26, scheme="tcp"),
    Other(name="docker-new", number=99, suite="unstable", packages=DOCKER, scheme="tls"),
    Other(name="podman-4", number=4, suite="bookworm", packages=PODMAN, scheme="unix"),
    Other(name="podman-new", number=98, suite="unstable", packages=PODMAN, scheme="unix"),
)


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


def answers(other: Other) -> bool:
    """Whether the engine runs."""
    try:
        pool(other).close()
    except dockertest.DockerUnavailableError:
        return False
    except dockertest.InvalidOptionError:  # there are no certificates yet
        return False
    return True
