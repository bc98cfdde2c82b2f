"""The JSON log: its format, and that it contains no secrets."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest

from fruits.cli.main import main
from fruits.progress.json_log import JsonLog
from fruits.text import without_secrets

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"


UNCHANGED = (  # addresses without credentials, which must still identify a folder
    "hdfs://namenode:8020/a@b",
    "abfs://photos@account.dfs.core.windows.net/x",
    "zip://train@2024::s3://bucket/x.zip",
    "s3://arn:aws:s3:eu-west-1:123:accesspoint/x/a@b",
    "http://[::1]:8080/a@b",
    "s3://bucket/12:30@home",
    "memory://a:b",
)


def lines_of(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_each_event_is_one_line_with_the_time_in_utc():
    stream = io.StringIO()
    now = datetime(2026, 2, 3, 4, 5, 6, 7000, timezone(timedelta(hours=2))).astimezone(UTC)
    log = JsonLog(stream, now=lambda: now)
    log.note("two\nlines, \udcff and 梨")
    log.event("heartbeat", "waiting", stage="featurize", workers=None)
    assert lines_of(stream) == [
        {"time": "2026-02-03T02:05:06.007Z", "level": "info", "event": "note", "message": "two\nlines, \udcff and 梨"},
        {
            "time": "2026-02-03T02:05:06.007Z",
            "level": "warning",
            "event": "heartbeat",
            "message": "waiting",
            "stage": "featurize",
            "workers": None,
        },
    ]


def test_stage_start_and_end_are_logged_even_if_it_fails():
    stream, now = io.StringIO(), iter([10.0, 14.5, 20.0, 21.0])
    log = JsonLog(stream, clock=lambda: next(now))
    with log.stage("featurize", total=40) as stage:
        stage.advance(40)
    with pytest.raises(KeyboardInterrupt), log.stage("moments", total=None, unit="groups"):
        raise KeyboardInterrupt
    keys = ("event", "stage", "total", "status", "done", "unit", "seconds")
    assert [{key: line[key] for key in keys if key in line} for line in lines_of(stream)] == [
        {"event": "stage_start", "stage": "featurize", "total": 40, "unit": "images"},
        {"event": "stage_end", "stage": "featurize", "status": "done", "done": 40, "unit": "images", "seconds": 4.5},
        {"event": "stage_start", "stage": "moments", "total": None, "unit": "groups"},
        {"event": "stage_end", "stage": "moments", "status": "stopped", "done": 0, "unit": "groups", "seconds": 1.0},
    ]


def test_lines_of_concurrent_threads_do_not_mix():
    stream = io.StringIO()
    log = JsonLog(stream)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.event("partition", index=number), range(400)))
    assert sorted(line["index"] for line in lines_of(stream)) == list(range(400))


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (f"s3://AKIDEXAMPLE:{SECRET}@bucket/photos", "s3://***@bucket/photos"),
        (f"--out sftp://me:{SECRET}@host:22/out: no", "--out sftp://***@host:22/out: no"),
        (f"https://host/w.h5?a=1&X-Amz-Signature={SECRET}&b=2", "https://host/w.h5?a=1&X-Amz-Signature=***&b=2"),
        (f"https://host/w.h5?X-Amz-Security-Token={SECRET}", "https://host/w.h5?X-Amz-Security-Token=***"),
        ("http://user:pa55@host/a@b/c", "http://***@host/a@b/c"),
        ("ftp://user:pa55@host:21/a@b/c", "ftp://***@host:21/a@b/c"),
        (f"http://user:{SECRET}@host/c", "http://***@host/c"),
        ("https://ghp_token@github.com/x", "https://***@github.com/x"),
        ("ftp://user:pa::ss@host/x", "ftp://***@host/x"),
        ("ftp://user:pa/ss@host/x", "ftp://***@host/x"),
        ("http://user:p\"a's@s@host/x", "http://***@host/x"),
        ("zip://a@1::http://user:pw@host/x.zip", "zip://a@1::http://***@host/x.zip"),
        ("https://h/x?sv=1&se=2025&sig=abc%3D&sp=r", "https://h/x?sv=1&se=***&sig=***&sp=r"),
        (
            "https://h/x?Expires=1&AWSAccessKeyId=AKID&Signature=abc",
            "https://h/x?Expires=***&AWSAccessKeyId=***&Signature=***",
        ),
        ("https://h/x?access_token=abc#y", "https://h/x?access_token=***#y"),
        *((same, same) for same in UNCHANGED),
        ("s3://bucket/a@b and http://127.0.0.1:8787/status", "s3://bucket/a@b and http://127.0.0.1:8787/status"),
    ],
)
def test_secrets_in_urls_are_masked(given, written):
    stream = io.StringIO()
    JsonLog(stream).event("job_start", given, settings={"images": given, "list": [given]})
    (line,) = lines_of(stream)
    assert without_secrets(given) == line["message"] == line["settings"]["images"] == line["settings"]["list"][0]
    assert line["message"] == written


def logged(capfd, *argv):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    out, err = capfd.readouterr()
    return ended.value.code, out, [json.loads(line) for line in err.splitlines()]


def test_error_is_the_last_event(capfd, tmp_path):
    code, out, lines = logged(capfd, "run", str(tmp_path / "no\nsuch"), "--out", str(tmp_path / "out"), "--log-json")
    assert (code, out) == (2, "")
    assert lines[-1]["event"] == lines[-1]["level"] == "error"
    assert lines[-1]["type"] == "DatasetError"
    assert lines[-1]["exit_code"] == 2
    assert "no such folder" in lines[-1]["message"]
    code, out, lines = logged(capfd, "run", "--log-json", "--nonsuch")
    assert (code, out, [line["event"] for line in lines]) == (2, "", ["error"])


@pytest.mark.parametrize("option", ["--log-json", "--json", "--debug"])
@pytest.mark.parametrize("place", ["images", "out"])
def test_secret_in_a_url_is_never_printed(option, place, tmp_path, monkeypatch, capfd):
    address = f"s3://AKIDEXAMPLE:{SECRET}@bucket/photos"
    (tmp_path / "photos").mkdir()
    images, out = (address, "out") if place == "images" else ("photos", address)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SystemExit) as ended:
        main(["run", images, "--out", out, "--backend", "local", option])
    assert ended.value.code == 2
    printed = "".join(capfd.readouterr())
    assert "the address contains credentials" in printed
    for part in (SECRET, *SECRET.split("/")):
        assert part not in printed
