"""Sessions of Spark: the one that is active, or one that is started, and ended, with a Java of its own."""

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
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from backends.spark.archive import archive_options, end_archive
from backends.spark.java import find_java
from fruits.errors import JobError, SettingsError

__all__ = ["active_session", "start_session", "stop_session"]

LOG_CONFIG = Path(__file__).with_name("log4j2.properties")
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# Settings whose values are not for others, as Spark's own pages know them: the default of spark.redaction.regex.
SECRET = re.compile("(?i)secret|password|token|access[.]?key")


def active_session(asked: bool) -> SparkSession | None:
    """Return the session that is active in this process, if any.

    Parameters
    ----------
    asked : bool
        Whether a session with settings of its own is asked for.

    Raises
    ------
    SettingsError
        One is active, and another is asked for.
    """
    context = SparkContext._active_spark_context
    if context is None:
        return None
    if asked:
        raise SettingsError(
            f"spark: a session is active in this process already, on {context.master}, and Spark allows only one. "
            "Leave workers, master and conf out to use it, or stop it first."
        )
    return SparkSession(context)


def start_session(
    workers: int, master: str | None, conf: Mapping[str, str], dashboard_address: str | None = None
) -> SparkSession:
    """Return a new session, in a Java of its own, that is quiet and, without a master, keeps to this machine.

    Raises
    ------
    SettingsError
        No Java suits this PySpark, this Python lacks what it needs, or Spark refuses the master or its settings.
    JobError
        Java ended before it was ready.
    """
    if int(pyspark.__version__.partition(".")[0]) < 4 and importlib.util.find_spec("distutils") is None:
        raise SettingsError(
            f"PySpark {pyspark.__version__} needs distutils, which this Python has lost. "
            "Install it with: pip install setuptools."
        )
    environ = {}
    java_options = [f'"-Dlog4j2.configurationFile={LOG_CONFIG.as_uri()}"']
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # else spark-submit has started a Java
        home = find_java(pyspark.__version__)
        environ["JAVA_HOME"] = str(home)
        java_options += archive_options(home)
    settings = {
        "spark.app.name": "fruits",
        "spark.master": master or f"local[{workers}]",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.python.worker.reuse": "true",
        **{f"spark.executorEnv.{name}": "1" for name in ONE_THREAD},
    }
    if master is None:
        host, _, port = (dashboard_address or "127.0.0.1:").rpartition(":")
        environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": host}  # where Spark shows its pages
        if port:
            settings |= {"spark.ui.enabled": "true", "spark.ui.port": port}
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.authenticate": "true",  # with a secret that Java draws, against others on this machine
            "spark.python.daemon.module": "backends.spark.daemon",
            # Workers import what this process can import.
            "spark.executorEnv.PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        }
    elif "spark.pyspark.python" in conf:
        environ["PYSPARK_PYTHON"] = conf["spark.pyspark.python"]  # that property is spark-submit's alone
    settings |= conf
    if master is None:
        java_options += ["-XX:TieredStopAtLevel=1"]  # half the time to start: Java only carries calls to Python here
    java_options += [conf.get("spark.driver.extraJavaOptions", "")]
    settings["spark.driver.extraJavaOptions"] = " ".join(java_options)
    with _environment(environ), _own_interrupt():
        try:
            # Java is told the settings on its command line, which everybody on this machine can read.
            public = [(name, value) for name, value in settings.items() if not SECRET.search(name)]
            gateway = launch_gateway(SparkConf().setAll(public))
            context = SparkContext(gateway=gateway, conf=SparkConf().setAll(list(settings.items())))
            _hush(context)
            return SparkSession(context)
        except Py4JJavaError as error:
            _end_java(worked=False)
            raise SettingsError(
                f"Spark did not start on {settings['spark.master']}: {error.java_exception.toString()} "
                "Check that the master runs there, and the settings: conf in cluster.yaml, and spark-defaults.conf."
            ) from error
        except (Py4JError, RuntimeError, OSError) as error:
            _end_java(worked=False)
            raise JobError(
                f"The Java of Spark ended before it was ready: {error}. Where it was killed, start the same command "
                "again; else check its settings, such as spark.driver.memory: conf in cluster.yaml."
            ) from error


def stop_session(session: SparkSession) -> None:
    """Stop a session and the Java that was started for it, so that the next one starts with its own settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        worked = _has_worked(session)
        try:
            session.stop()
        except (Py4JError, OSError):  # Java was killed: what is left is of this process
            session.sparkContext.stop()
    _end_java(worked=worked)


def _has_worked(session: SparkSession) -> bool:
    """Tell whether a session has run anything; False where its Java was killed."""
    try:
        return bool(session.sparkContext._jsc.sc().dagScheduler().numTotalJobs())
    except (Py4JError, OSError):
        return False


def _end_java(*, worked: bool) -> None:
    gateway = SparkContext._gateway
    if gateway is not None and gateway.proc is not None:
        gateway.shutdown()
        gateway.proc.stdin.close()  # the sign to end
        ended_well = gateway.proc.wait() == 0  # what a Java that was killed has written may end anywhere
        end_archive(keep=worked and ended_well)
        SparkContext._gateway = SparkContext._jvm = None


def _hush(context: SparkContext) -> None:
    """Keep off the terminal what is said, a traceback at a time, where Java was killed: its error says it in words."""
    context._accumulatorServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    logging.getLogger().addFilter(_is_not_py4j)


def _is_not_py4j(record: logging.LogRecord) -> bool:
    return "py4j" not in Path(record.pathname).parts


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
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
    """Keep the handler of Ctrl-C: that of PySpark talks to Java from within whatever it interrupts."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
