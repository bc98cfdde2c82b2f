"""The Java process of a Spark session: its start, its messages and its user."""

from __future__ import annotations

import os
import pwd
import re
import resource
import socket
import tempfile
import threading
from collections import deque
from pathlib import Path

from py4j.java_gateway import JavaGateway
from pyspark import SparkConf
from pyspark.java_gateway import launch_gateway

from fruits.errors import SettingsError

OPEN_FILES = 1024  # Java alone opens 400
MASTER_SECONDS = 5
ERROR = re.compile(
    r"^(?:Caused by: |Exception in thread \"[^\"]*\" )?((?:[\w.]+\.)?\w*(?:Exception|Error)\b.*|Error: .*)"
)


class JavaOutput:
    """The standard error of a Java process: kept while it starts, then copied to that of this process."""

    def __init__(self) -> None:
        self._lines: deque[bytes] = deque(maxlen=1000)
        self._started = False
        self._lock = threading.Lock()
        source, self.sink = os.pipe()
        self._copying = threading.Thread(target=self._copy, args=(source,), name="fruits-java", daemon=True)
        self._copying.start()

    def _copy(self, source: int) -> None:
        with os.fdopen(source, "rb") as lines:
            for line in lines:
                with self._lock:
                    self._lines.append(line)
                    if self._started:
                        self._flush()

    def _flush(self) -> None:
        while self._lines:
            os.write(2, self._lines.popleft())

    def release(self) -> None:
        """Copy the lines of the start, and all further ones."""
        with self._lock:
            self._started = True
            self._flush()

    def cause(self) -> str:
        """Return the error of a process that has exited, or an empty string."""
        self._copying.join(timeout=5)
        lines = [line.decode("utf-8", "replace").strip() for line in self._lines]
        errors = [match[1] for line in lines if (match := ERROR.match(line))]
        causes = [match[1] for line in lines if line.startswith("Caused by:") and (match := ERROR.match(line))]
        return (causes[-1:] or errors[:1] or lines[-1:] or [""])[0]


def launch(conf: SparkConf, output: JavaOutput) -> JavaGateway:
    """Return the gateway to a new Java process, in which the user has a name."""
    try:
        gateway = launch_gateway(conf, popen_kwargs={"stderr": output.sink})
    finally:
        os.close(output.sink)
    if not _has_name():  # Hadoop's own login fails
        users = gateway.jvm.org.apache.hadoop.security.UserGroupInformation
        users.setLoginUser(users.createRemoteUser(str(os.getuid())))
    return gateway


def user_options() -> list[str]:
    """Return the Java options of a user without an entry in the user database, as in many containers."""
    if _has_name():
        return []
    return [f"-Duser.name={os.getuid()}", f'"-Duser.home={os.environ.get("HOME") or tempfile.gettempdir()}"']


def _has_name() -> bool:
    try:
        return bool(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return False


def check_machine() -> None:
    """Raise if Java cannot start here, for a reason that its own messages do not name."""
    home = os.environ.get("SPARK_HOME")
    if home and not Path(home, "bin", "spark-submit").exists():
        raise SettingsError(
            f"SPARK_HOME is {home}, which contains no bin/spark-submit. Unset it to use the installed PySpark, or set "
            "it to a distribution of Spark."
        )
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < OPEN_FILES:
        raise SettingsError(
            f"A process may open {limit} files here, and Java needs {OPEN_FILES:,}. Raise the limit: "
            f"ulimit -n {4 * OPEN_FILES}, or nofile in limits.conf."
        )


def check_master(master: str) -> None:
    """Raise if no master of a standalone cluster answers: Spark itself tries for a minute."""
    if not master.startswith("spark://"):
        return
    errors = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            errors.append(f"{address} has no port, such as {address}:7077")
            continue
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=MASTER_SECONDS).close()
        except (OSError, OverflowError) as error:
            errors.append(f"{address}: {error}")
        else:
            return
    raise SettingsError(
        f"No Spark master answers at {master} ({'; '.join(errors)}). Check the address and that the master is running, "
        "or omit the address to run on this machine."
    )
