"""The page in headless Chromium with a fake camera: results, errors, token, accessibility, and no request elsewhere."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from fruits.images.decode import decode
from fruits.recogniser.files import StoredRecogniser
from fruits.serving.limits import Limits
from tests.recognisers import small_recogniser, write
from tests.unit.serving.running import WAIT_SECONDS, Running, run_server

PHONE = {"width": 360, "height": 740}
TOKEN = "correct-horse-battery"
HOSTILE = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"
FRAMES = 30
REAL = ("Banana", "Cocos", "Kiwi", "Lemon", "Pineapple")  # labels of Fruits-360

pytestmark = pytest.mark.slow


def chromium() -> str:
    """Return the browser: FRUITS_CHROMIUM, or Chromium or Chrome on the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("FRUITS_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on the path. Install it (apt-get install chromium), or set FRUITS_CHROMIUM.")
    return found


@pytest.fixture(scope="module")
def browser(fruit: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser whose camera shows a banana."""
    frame = io.BytesIO()
    Image.fromarray(decode(fruit["Banana"][1].read_bytes(), 480)).save(frame, "JPEG", quality=95)
    video = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    video.write_bytes(frame.getvalue() * FRAMES)
    arguments = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    environ = os.environ | {"TMPDIR": "/tmp"}  # a socket's path has at most 107 bytes
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=chromium(), args=arguments, env=environ, timeout=1000 * WAIT_SECONDS
        ) as browser,
    ):
        yield browser


@contextmanager
def open_page(browser: Browser, running: Running, *, allowed: str = "never") -> Iterator[Page]:
    """Return the page at phone width; at the end, check its console and the addresses of its requests.

    A console error that contains `allowed` is expected: Chromium writes one for each answer that is an error.
    """
    origin = f"http://127.0.0.1:{running.port}/"
    messages: list[str] = []
    addresses: list[str] = []
    with browser.new_context(viewport=PHONE) as context:  # type: ignore[arg-type]
        context.set_default_timeout(1000 * WAIT_SECONDS)
        page = context.new_page()
        page.on(
            "console", lambda message: messages.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(origin)
        yield page
        width = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1], "the page scrolls sideways"
    assert [message for message in messages if allowed not in message] == []
    assert [url for url in addresses if not url.startswith((origin, f"blob:{origin}", "data:image/jpeg"))] == []


def answer(page: Page) -> str:
    page.wait_for_selector("#result:not([hidden])")
    return page.inner_text("#answer")


def labels(page: Page, selector: str = "#scores .label") -> list[str]:
    return page.locator(selector).all_inner_texts()


def test_the_camera_recognises(browser: Browser, running: Running) -> None:
    with open_page(browser, running) as page:
        page.click("text=Use the camera")
        page.wait_for_selector("#capture:not([disabled])")
        assert page.evaluate("() => document.activeElement.id") == "capture"
        page.click("#capture")
        assert answer(page).startswith("Banana, ")
        assert labels(page)[0] == "Banana"
        assert len(labels(page)) == 5
        page.wait_for_selector("#camera", state="hidden")
        assert page.evaluate("() => document.getElementById('video').srcObject") is None  # the camera is off


def test_a_file_is_recognised_and_a_large_one_is_made_smaller(
    browser: Browser, running: Running, fruit: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, sizes = running.service.workers, []
    recognise = workers._recognise
    monkeypatch.setattr(workers, "_recognise", lambda *args: sizes.append(len(args[1])) or recognise(*args))
    with Image.open(fruit["Pear"][0]) as image:
        image.resize((3000, 3000)).save(tmp_path / "large.png")
    with open_page(browser, running) as page:
        for path in (fruit["Pear"][0], tmp_path / "large.png"):
            page.set_input_files("#file", path)
            page.wait_for_selector("body:not(.busy)")
            assert answer(page).startswith("Pear, ")
    small, large = sizes
    assert small == fruit["Pear"][0].stat().st_size  # as it is
    assert large < 300_000


def test_real_images_are_recognised(browser: Browser, fruits360: Path, tmp_path: Path) -> None:
    images = {label: sorted((fruits360 / "Training" / label).glob("*.jpg"))[:10] for label in REAL}
    with run_server(write(small_recogniser(images), tmp_path)) as running, open_page(browser, running) as page:
        for label in REAL:
            page.set_input_files("#file", min((fruits360 / "Test" / label).glob("*.jpg")))
            page.wait_for_selector("body:not(.busy)")
            assert answer(page).startswith(f"{label}, ")


def test_an_unknown_photo_shows_the_nearest_training_photos(
    browser: Browser, stored: StoredRecogniser, fruit: dict[str, list[Path]], tmp_path: Path
) -> None:
    strict = dataclasses.replace(stored, thresholds={**stored.thresholds, "distance": (-1.0,)})
    with run_server(write(strict, tmp_path)) as running, open_page(browser, running) as page:
        page.set_input_files("#file", fruit["Banana"][0])
        assert answer(page) == "Not recognised"
        assert "unlike everything" in page.inner_text("#explanation")
        assert page.locator("#confidences").is_hidden()
        assert labels(page, "#neighbours span")[0] == "Banana"
        for picture in page.locator("#neighbours img").all():
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64


def test_hostile_labels_are_text(
    browser: Browser, stored: StoredRecogniser, fruit: dict[str, list[Path]], tmp_path: Path
) -> None:
    names = tuple(sorted([HOSTILE, "x" * 10_000, *stored.labels[2:]]))
    hostile = dataclasses.replace(
        stored, labels=names, neighbours=tuple((key, HOSTILE, path) for key, _, path in stored.neighbours)
    )
    with run_server(write(hostile, tmp_path)) as running, open_page(browser, running) as page:
        shown = set()
        for paths in fruit.values():
            page.set_input_files("#file", paths[0])
            page.wait_for_selector("body:not(.busy)")
            shown.add(answer(page).rpartition(", ")[0])
        assert HOSTILE in shown
        assert "x" * 120 + "…" in shown
        assert page.evaluate("() => window.hacked") is None


@pytest.mark.parametrize(
    ("content", "status", "explanation"),
    [(b"Dear fruit, ...", "415", "not an image"), (b"\xff\xd8\xff" + bytes(1000), "422", "damaged. Try another one")],
)
def test_what_is_not_an_image_is_explained(
    browser: Browser, running: Running, tmp_path: Path, content: bytes, status: str, explanation: str
) -> None:
    (tmp_path / "letter.jpg").write_bytes(content)
    with open_page(browser, running, allowed=status) as page:
        page.set_input_files("#file", tmp_path / "letter.jpg")
        page.wait_for_selector("#error:not(:empty)")
        assert explanation in page.inner_text("#error")
        assert page.locator("#result").is_hidden()


def test_a_busy_server_is_asked_again(browser: Browser, folder: Path, fruit: dict[str, list[Path]]) -> None:
    with (
        run_server(folder, limits=Limits(queue_per_worker=1)) as running,
        open_page(browser, running, allowed="503") as page,
    ):
        running.service.workers.pending = 1  # as if an image were in the queue
        page.on(
            "response",
            lambda response: setattr(running.service.workers, "pending", 0) if response.status == 503 else None,
        )
        page.set_input_files("#file", fruit["Banana"][0])
        assert answer(page).startswith("Banana")


def test_the_token_is_asked_for_once(browser: Browser, folder: Path, fruit: dict[str, list[Path]]) -> None:
    with run_server(folder, token=TOKEN) as running, open_page(browser, running, allowed="401") as page:
        page.set_input_files("#file", fruit["Banana"][0])
        page.wait_for_selector("#token-dialog[open]")
        page.fill("#token", "wrong token")
        with page.expect_response(lambda response: response.status == 401):
            page.keyboard.press("Enter")
        page.wait_for_selector("#token-dialog[open]")  # again
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        assert answer(page).startswith("Banana")
        page.reload()
        page.set_input_files("#file", fruit["Pear"][0])
        assert answer(page).startswith("Pear")
        assert page.locator("#token-dialog").is_hidden()


def test_a_cancelled_token_is_an_explained_error(browser: Browser, folder: Path, fruit: dict[str, list[Path]]) -> None:
    with run_server(folder, token=TOKEN) as running, open_page(browser, running, allowed="401") as page:
        page.set_input_files("#file", fruit["Banana"][0])
        page.wait_for_selector("#token-dialog[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("#error:not(:empty)")
        assert "Without the token" in page.inner_text("#error")


def test_a_server_that_is_gone_is_explained(browser: Browser, folder: Path, fruit: dict[str, list[Path]]) -> None:
    with run_server(folder) as running, open_page(browser, running, allowed="ERR_CONNECTION_REFUSED") as page:
        page.route("**/v1/recognise*", lambda route: route.abort("connectionrefused"))
        page.set_input_files("#file", fruit["Banana"][0])
        page.wait_for_selector("#error:not(:empty)")
        assert "cannot be reached" in page.inner_text("#error")


def test_without_a_camera_a_photo_can_be_taken(browser: Browser, running: Running) -> None:
    with open_page(browser, running) as page:
        page.add_init_script("navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('denied'))")
        page.reload()
        page.click("#open-camera")
        page.wait_for_selector("#shot-picker:not([hidden])")
        assert "cannot be used here" in page.inner_text("#error")
        assert page.get_attribute("#shot", "capture") == "environment"
        assert page.get_attribute("#shot", "accept") == "image/*"


def test_the_page_works_with_the_keyboard_and_has_names(
    browser: Browser, running: Running, fruit: dict[str, list[Path]]
) -> None:
    with open_page(browser, running) as page:
        page.on("filechooser", lambda chooser: chooser.set_files(fruit["Banana"][0]))
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.id") == "open-camera"
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.id") == "file"
        page.keyboard.press("Enter")
        assert answer(page).startswith("Banana")
        assert page.evaluate("() => document.activeElement.id") == "answer"
        tree = page.locator("main").aria_snapshot()
        for expected in (
            'heading "Which fruit is this?" [level=1]',
            'button "Use the camera"',
            'button "Choose a photo"',
            'img "Your photo"',
            'heading "Confidence" [level=3]',
            'list "Confidence"',
        ):
            assert expected in tree
