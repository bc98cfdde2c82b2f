"""Simulated hosts, each with its own address, disk and processes, on a switch from which they can be disconnected.

A host is a sleeping process in its own network, PID, mount and UTS namespaces; commands on the host enter these. The
kernel kills it when its parent ends, together with its processes and its network interface, so that killed tests leave
nothing behind. The network of the machine is not changed.

The host's disk is an initially empty ``/tmp``; all other files of the machine are read-only. Tests access the disk
through ``Host.disk``. Hosts share data only over the network.
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
    """Return the reason why hosts cannot be simulated on this machine, or None."""
    if os.geteuid() != 0:
        return "simulated hosts need root"
    programs = [program for program in ("ip", "unshare", "nsenter", "setpriv", "mount") if not shutil.which(program)]
    if programs:
        return f"not installed: {', '.join(programs)} (iproute2, util-linux)"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    return f"namespaces cannot be created: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True)
class Host:
    """A machine of the network."""

    name: str
    address: str
    pid: int  # of the first process on the host
    environ: Mapping[str, str]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def disk(self) -> Path:
        """Path of the host's ``/tmp`` on the machine."""
        return Path("/proc", str(self.pid), "root", "tmp")

    def start(self, *command: object, log: str, **environ: str) -> subprocess.Popen[str]:
        """Start a command, with its output in the file `log` on the host's disk."""
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
        """Run a command; return its exit code and its output, stderr included, as ``stdout``."""
        code = self.start(*command, log="run.log", **environ).wait(timeout)
        return subprocess.CompletedProcess(command, code, self.log("run.log"))

    def log(self, name: str) -> str:
        """Return the current content of a log."""
        return (self.disk / name).read_text(errors="replace")


@dataclass(frozen=True)
class Network:
    """Hosts by name, and the switch between them."""

    hosts: Mapping[str, Host]
    switch: Host

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def cut(self, name: str) -> None:
        """Disconnect a host: all packets from and to it are silently dropped."""
        _ip(self.switch, "link", "set", name, "down")


@contextmanager
def network(*names: str, environ: Mapping[str, str]) -> Iterator[Network]:
    """Yield hosts that can reach each other and nothing else.

    Parameters
    ----------
    names : str
        Names of the hosts.
    environ : mapping of str to str
        Environment of the commands on the hosts.
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
    condition: Callable[[], object], name: str, *, seconds: float, running: Sequence[subprocess.Popen[str]] = ()
) -> None:
    """Wait for a condition; fail after a timeout, or when one of the `running` processes ends."""
    end = time.monotonic() + seconds
    while not condition():
        ended = [process.args for process in running if process.poll() is not None]
        assert not ended, f"before {name}, ended: {ended}"
        assert time.monotonic() < end, f"{name}: not within {seconds:g} seconds"
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
        outer.kill()  # --kill-child kills the first process of the PID namespace, and the kernel then kills the others
        outer.communicate()
        for process in started:
            process.wait()


def _ip(host: Host, *arguments: str) -> None:
    subprocess.run(["nsenter", "--target", str(host.pid), "--net", "ip", *arguments], check=True)
