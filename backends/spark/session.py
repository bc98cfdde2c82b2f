"""Spark sessions: the active one of this process, or a new one with its own Java process."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyspark
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession
from pyspark.sql.utils import CapturedException  # type: ignore[attr-defined]  # pyspark.errors is new in 3.4

from backends.spark.gateway import JavaOutput, check_machine, check_master, launch, user_options
from backends.spark.java import find_java
from fruits.errors import JobError, SettingsError
from fruits.machine.subprocesses import import_folders
from fruits.text import without_secrets

LOG_CONFIG = Path(__file__).with_name("log4j2.properties")
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# The default of spark.redaction.regex, and the keys of Azure.
SECRET = re.compile("(?i)secret|password|token|credential|(access|account)[.]?key")
THIS_MACHINE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.authenticate": "true",  # with a random secret: loopback is open to every user of this machine
    "spark.ui.killEnabled": "false",  # the page of the UI requires no secret
    "spark.python.daemon.module": "backends.spark.daemon",
}


def active_session(*, configured: bool) -> SparkSession | None:
    """Return the active session of this process, if any.

    Parameters
    ----------
    configured : bool
        The caller requires its own settings.

    Raises
    ------
    SettingsError
        A session is active, and the caller requires its own settings.
    """
    context = SparkContext._active_spark_context
    if context is None:
        return None
    if configured:
        raise SettingsError(
            f"spark: this process already has an active session, on {context.master}, and Spark allows only one. "
            "Omit workers, master and conf to use it, or stop it first."
        )
    return SparkSession(context)


def start_session(
    workers: int, master: str | None, conf: Mapping[str, str], dashboard_address: str | None = None
) -> SparkSession:
    """Return a new session in a new Java process. Without a master, all its servers listen on loopback.

    Raises
    ------
    SettingsError
        No Java suits this PySpark, this Python lacks a package, or Spark rejects the master or the settings.
    JobError
        Java exited before it was ready.
    """
    if int(pyspark.__version__.partition(".")[0]) < 4 and importlib.util.find_spec("distutils") is None:
        raise SettingsError(
            f"PySpark {pyspark.__version__} needs distutils, which Python {sys.version_info[0]}.{sys.version_info[1]} "
            "does not include. Install it with: pip install setuptools."
        )
    check_machine()
    if master is not None:
        check_master(master)
    host, _, port = (dashboard_address or "127.0.0.1:").rpartition(":")
    settings = _settings(workers, master, port, conf)
    output = JavaOutput()
    with _environment(_variables(master, host, conf)), _own_interrupt():
        try:
            # The settings of the launch are on Java's command line, which every user of this machine can read.
            public = [
                (name, value)
                for name, value in settings.items()
                if not SECRET.search(name) and without_secrets(value) == value
            ]
            gateway = launch(SparkConf().setAll(public), output)
            context = SparkContext(gateway=gateway, conf=SparkConf().setAll(list(settings.items())))
        except (Py4JJavaError, CapturedException) as error:  # the latter if PySpark has had a session in this process
            raised = error.java_exception.toString() if isinstance(error, Py4JJavaError) else error  # asks Java
            text = without_secrets(str(raised))
            _end_java()
            raise SettingsError(
                f"Spark did not start on {settings['spark.master']}: {text.rstrip('.')}. "
                "Check that the master is running there, and the settings: conf in cluster.yaml, and "
                "spark-defaults.conf."
            ) from error
        except (Py4JError, RuntimeError, OSError) as error:
            _end_java()
            if cause := output.cause():
                raise SettingsError(
                    f"Spark did not start on {settings['spark.master']}: {without_secrets(cause)}. Check the settings: "
                    "conf in cluster.yaml, spark-defaults.conf, and the environment variables of Spark and Java."
                ) from error
            raise JobError(
                f"The Java process of Spark exited before it was ready: {error}. If it was killed, run the same "
                "command again; otherwise check its settings, such as spark.driver.memory: conf in cluster.yaml."
            ) from error
    output.release()
    _silence(context)
    return SparkSession(context)


def _settings(workers: int, master: str | None, port: str, conf: Mapping[str, str]) -> dict[str, str]:
    settings = {
        "spark.app.name": "fruits",
        "spark.master": master or f"local[{workers}]",
        "spark.redaction.regex": f"{SECRET.pattern}|://[^/]*:[^/]*@",  # of names and values
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.python.worker.reuse": "true",
        # PYTHONSAFEPATH: workers do not import from the current folder, such as that of the images.
        **{f"spark.executorEnv.{name}": "1" for name in (*ONE_THREAD, "PYTHONSAFEPATH")},
    }
    java_options = [*user_options(), f'"-Dlog4j2.configurationFile={LOG_CONFIG.as_uri()}"']
    if master is None:
        settings |= THIS_MACHINE
        settings["spark.executorEnv.PYTHONPATH"] = os.pathsep.join(import_folders())
        if port:
            settings |= {"spark.ui.enabled": "true", "spark.ui.port": port}
        java_options.append("-XX:TieredStopAtLevel=1")  # halves start-up: here Java only forwards calls to Python
    settings |= conf
    java_options.append(conf.get("spark.driver.extraJavaOptions", ""))
    return settings | {"spark.driver.extraJavaOptions": " ".join(java_options)}


def _variables(master: str | None, host: str, conf: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that start Java."""
    variables = {}
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # spark-submit sets it, having started Java
        variables["JAVA_HOME"] = str(find_java(pyspark.__version__))
    if os.environ.get("LC_ALL") in ("C", "POSIX"):
        variables["LC_ALL"] = "C.UTF-8"  # Python uses UTF-8 there; Java would fail in a current folder such as `Äpfel`
    if master is None:
        variables |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": host}  # the host also serves Spark's UI
    elif "spark.pyspark.python" in conf:
        variables["PYSPARK_PYTHON"] = conf["spark.pyspark.python"]  # only spark-submit reads that setting
    return variables


def stop_session(session: SparkSession) -> None:
    """Stop a session and the Java process started for it, so that the next session starts with its own settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            session.stop()
        except (Py4JError, OSError):  # Java was killed: stop what remains in this process
            session.sparkContext.stop()
    _end_java()


def is_lost(session: SparkSession) -> bool:
    """Return True if the session cannot run jobs any more, for example because its Java process was killed."""
    try:
        return bool(session.sparkContext._jsc.sc().isStopped())
    except (Py4JError, OSError, AttributeError):  # AttributeError: the context has been stopped
        return True


def _end_java() -> None:
    gateway = SparkContext._gateway
    if gateway is not None and gateway.proc is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()  # Java exits when its standard input closes
        gateway.proc.wait()
        SparkContext._gateway = SparkContext._jvm = None


def _silence(context: SparkContext) -> None:
    """Keep the tracebacks that follow the death of Java off the terminal: a JobError reports it."""
    context._accumulatorServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    logging.getLogger().addFilter(_is_not_py4j)


def _is_not_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables temporarily."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Restore the SIGINT handler: PySpark's calls Java from the interrupted frame, possibly inside another call."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
