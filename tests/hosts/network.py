"""Hosts of our own: each with its address, its disk and its processes, on a switch whose cables can be pulled.

A host is a process that sleeps in namespaces of its own (network, processes, files, name); what else runs there enters
them. It dies with the process that made it, and all that runs there, and its end of the cable, die with it: nothing is
left behind, even where the tests are killed. The machine's own network is not touched.

Its disk is ``/tmp``, empty at first; the rest of the machine's files it can only read. Tests reach that disk through
``Host.disk``, and nothing else does: what hosts share, they share over the network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ROOT", "Host", "Network", "missing", "network", "until"]

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = "switch"
SUBNET = "10.90.0"
INIT = f"""
set -eu
hostname "$1"
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/checkout
mount --bind '{ROOT}' /mnt/checkout
mount -t tmpfs tmpfs /tmp
mkdir -p '{ROOT}'
mount --move /mnt/checkout '{ROOT}'
umount /mnt
mount -o remount,bind,ro '{ROOT}'
mount -t tmpfs tmpfs /dev/shm
echo "$2" >/tmp/hosts
mount --bind /tmp/hosts /etc/hosts
mount -o remount,bind,ro /
ip link set lo up
echo ready
exec sleep infinity
"""
UNSHARE = ["unshare", "--net", "--pid", "--mount", "--uts", "--mount-proc", "--fork", "--kill-child"]


def missing() -> str | None:
    """Return why hosts cannot be made on this machine, if so."""
    if os.geteuid() != 0:
        return "hosts are made by root alone"
    programs = [program for program in ("ip", "unshare", "nsenter", "setpriv", "mount") if not shutil.which(program)]
    if programs:
        return f"not installed: {', '.join(programs)} (iproute2, util-linux)"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    return f"this machine makes no namespaces: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True)
class Host:
    """A machine of the network."""

    name: str
    address: str
    pid: int  # of the process that is the first there
    environ: Mapping[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def disk(self) -> Path:
        """Its ``/tmp``, as it can be reached from outside."""
        return Path("/proc", str(self.pid), "root", "tmp")

    def start(self, *command: object, log: str, **environ: str) -> subprocess.Popen[str]:
        """Start a command; what it writes goes to the file `log` on the host's disk."""
        with (self.disk / log).open("w") as file:
            process = subprocess.Popen(
                ["nsenter", "--target", str(self.pid), "--net", "--pid", "--mount", "--uts", *map(str, command)],
                env={**self.environ, **environ},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        return process

    def run(self, *command: object, timeout: float, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; return its exit code, and what it wrote, as ``stdout``."""
        code = self.start(*command, log="run.log", **environ).wait(timeout)
        return subprocess.CompletedProcess(command, code, self.log("run.log"))

    def log(self, name: str) -> str:
        """Return what was written to a log so far."""
        return (self.disk / name).read_text(errors="replace")


@dataclass(frozen=True)
class Network:
    """Hosts by name, and the switch between them."""

    hosts: Mapping[str, Host]
    switch: Host

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def cut(self, name: str) -> None:
        """Pull the cable of a host: its packets, and those to it, are lost from now on, without a word to anybody."""
        _ip(self.switch, "link", "set", name, "down")


@contextmanager
def network(*names: str, environ: Mapping[str, str]) -> Iterator[Network]:
    """Yield hosts that can reach each other and nothing else.

    Parameters
    ----------
    names : str
        Of the hosts.
    environ : mapping of str to str
        The environment of what runs there.
    """
    with ExitStack() as stack:
        addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, start=1)}
        known = "\n".join(f"{address} {name}" for name, address in [*addresses.items(), ("localhost", "127.0.0.1")])
        switch = stack.enter_context(_host(BRIDGE, "", known, {}))
        _ip(switch, "link", "add", BRIDGE, "type", "bridge", "forward_delay", "0")
        _ip(switch, "link", "set", BRIDGE, "up")
        hosts = {}
        for name, address in addresses.items():
            host = stack.enter_context(_host(name, address, known, environ))
            _ip(switch, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            _ip(switch, "link", "set", name, "master", BRIDGE, "up")
            _ip(host, "address", "add", f"{address}/24", "dev", "eth0")
            _ip(host, "link", "set", "eth0", "up")
            hosts[name] = host
        yield Network(hosts, switch)


def until(
    true: Callable[[], object], what: str, *, seconds: float, running: Sequence[subprocess.Popen[str]] = ()
) -> None:
    """Return as soon as something is true; fail after so many seconds, or when a process that has to run has ended."""
    end = time.monotonic() + seconds
    while not true():
        ended = [process.args for process in running if process.poll() is not None]
        assert not ended, f"before {what}, ended: {ended}"
        assert time.monotonic() < end, f"{what}: not within {seconds:g} seconds"
        time.sleep(0.05)


@contextmanager
def _host(name: str, address: str, known: str, environ: Mapping[str, str]) -> Iterator[Host]:
    command = ["setpriv", "--pdeathsig", "KILL", *UNSHARE, "sh", "-c", INIT, "init", name, known]
    outer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    started: list[subprocess.Popen[str]] = []
    try:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "ready\n", f"the host {name} did not start"
        pid = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
        yield Host(name, address, pid, {**environ, "HOME": "/tmp", "TMPDIR": "/tmp"}, started)
    finally:
        outer.kill()  # and with it, as it asked for, the first process there: the others do not outlive that
        outer.communicate()
        for process in started:
            process.wait()


def _ip(host: Host, *words: str) -> None:
    subprocess.run(["nsenter", "--target", str(host.pid), "--net", "ip", *words], check=True)
