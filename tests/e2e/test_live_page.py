"""The live page in a real Chromium: against a server, and against scripted streams for what a server rarely does."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.bundles import make_bundle
from tests.e2e.live import COLORS, LiveServer, color_clip, tone

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH"),
]
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
WATCH = (
    "window.violations = []; addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective))"
)
WAIT_MS = 30_000
KEY = "a-key-of-the-tests"
READY = {
    "event": "ready",
    "model": "framegate",
    "version": "2",
    "labels": ["left", "right"],
    "clip": {"height": 16, "width": 16, "fps": 10.0},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    color_clip(folder / "red.webm", [("red", 4)])
    color_clip(folder / "blue.mp4", [("blue", 4)])
    color_clip(folder / "red-green.webm", [("red", 3), ("green", 6)])
    color_clip(folder / "green.mjpeg", [("green", 2)])
    Image.new("RGB", (400, 300), COLORS["blue"]).save(folder / "blue.png")
    return folder


@pytest.fixture(scope="module")
def browser(clips: Path) -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        camera = f"--use-file-for-fake-video-capture={clips / 'green.mjpeg'}"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, camera])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle")).path


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[LiveServer]:
    server = LiveServer(tmp_path_factory.mktemp("server"), bundle)
    yield server
    server.stop()


@pytest.fixture
def page(browser: Any, live_server: LiveServer) -> Iterator[Any]:
    """The page, just opened; afterwards: nothing in the console, nothing against the security policy."""
    with opened(browser, live_server.url) as page:
        yield page


@contextmanager
def opened(browser: Any, url: str, expected: str = "") -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(WATCH)
    page = context.new_page()
    said: list[tuple[str, str]] = []
    page.on("console", lambda message: said.append((message.type, message.text)))
    page.on("pageerror", lambda error: said.append(("error", str(error))))
    page.goto(url)
    try:
        yield page
        assert page.evaluate("violations") == []
        wrong = [text for kind, text in said if kind in ("error", "warning")]
        assert [text for text in wrong if not (expected and re.search(expected, text))] == []
    finally:
        context.close()


def expect(locator: Any) -> Any:
    return api.expect(locator)


def shows(page: Any, selector: str, text: str | re.Pattern[str]) -> None:
    api.expect(page.locator(selector)).to_have_text(text, timeout=WAIT_MS)


def number(page: Any, counter: str) -> int:
    return int(page.inner_text(f"#{counter}").replace(",", ""))


def grows(page: Any, counter: str, beyond: int) -> None:
    for _ in range(WAIT_MS // 100):
        if number(page, counter) > beyond:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{counter} stays at {number(page, counter)}, expected more than {beyond}")


# --- against a server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip", "label", "lane"), [("red.webm", "red", 2), ("blue.mp4", "blue", 0)])
def test_a_playing_clip_shows_its_label_bars_figures_and_a_band(
    page: Any, clips: Path, clip: str, label: str, lane: int
) -> None:
    page.set_input_files("#file", clips / clip)
    shows(page, "#label", label)
    shows(page, "#state", "live")
    grows(page, "answers", 12)
    bars = page.locator("#bars li").evaluate_all(
        "rows => rows.map(row => [row.dataset.label, Number(row.dataset.probability)])"
    )
    assert [name for name, _ in bars] == ["blue", "green", "red"]
    assert sum(p for _, p in bars) == pytest.approx(1, abs=1e-3)
    assert max(bars, key=lambda bar: bar[1])[0] == label
    assert re.fullmatch(r"\d+(\.\d)?ms", page.inner_text("#last").replace("\n", ""))
    shows(page, "#p95", re.compile(r"\d ?ms"))
    assert number(page, "sent") > 10 and number(page, "errors") == 0
    shows(page, "#said", re.compile(label))
    shows(page, f"#lanes li:nth-child({lane + 1})", re.compile(rf"{label}\s*[1-9]\d* s"))
    painted = painted_lanes(page)
    assert painted[lane] > 20 and all(painted[lane] > 10 * other for k, other in enumerate(painted) if k != lane)


def painted_lanes(page: Any) -> list[int]:
    """Per lane of the timeline, how many of its pixels have the colour of its label in full."""
    return page.evaluate("""() => {
        const canvas = document.getElementById("canvas"), wide = 4 * canvas.width;
        const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return [...document.querySelectorAll("#lanes li")].map((lane, k) => {
            const probe = document.createElement("i");
            probe.style.color = lane.style.getPropertyValue("--k");
            document.body.append(probe);
            const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
            probe.remove();
            const data = all.slice(wide * (22 + 22 * k), wide * (44 + 22 * k));
            let found = 0;
            for (let i = 0; i < data.length; i += 4) found += data[i] === r && data[i + 1] === g && data[i + 2] === b;
            return found;
        });
    }""")


def test_a_jump_makes_the_model_forget(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "red-green.webm")
    shows(page, "#label", "red")
    grows(page, "answers", 5)
    page.keyboard.press(" ")
    shows(page, "#play", "Play")
    page.keyboard.press("Shift+ArrowRight")  # one green frame against many red ones: green only if the state went
    shows(page, "#label", "green")
    page.keyboard.press("Shift+ArrowLeft")
    shows(page, "#label", "red")


def test_a_loop_starts_again_and_goes_on_answering(page: Any, clips: Path, tmp_path: Path) -> None:
    page.set_input_files("#file", color_clip(tmp_path / "short.webm", [("red", 0.6), ("green", 0.7)]))
    grows(page, "answers", 40)
    assert number(page, "errors") == 0
    assert page.get_attribute("#state", "data-state") == "live"


def test_an_image_gets_one_answer(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "blue.png")
    shows(page, "#label", "blue")
    shows(page, "#state", "answered")
    assert (number(page, "sent"), number(page, "answers")) == (1, 1)
    page.set_input_files("#file", clips / "red.webm")  # and the next source works
    shows(page, "#label", "red")


def test_the_whole_file_fills_a_table_and_a_click_goes_there(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "red-green.webm")
    shows(page, "#label", "red")
    page.keyboard.press(" ")
    page.click("#analyse")
    shows(page, "#whole-said", re.compile(r"^2 spans, 9\.\d s, by model \w+"))
    assert page.locator("#spans tbody b").all_inner_texts() == ["red", "green"]
    start = float(page.locator("#spans tbody button").nth(1).inner_text().split()[0])
    page.locator("#spans tbody tr").nth(1).click()
    assert page.evaluate("video.currentTime") == pytest.approx(start, abs=0.2)
    expect(page.locator("#spans tbody tr").nth(1)).to_have_attribute("aria-current", "true")
    assert page.locator("#strip i").count() == 2


def test_a_file_that_is_no_video_is_said_by_browser_and_server(
    browser: Any, live_server: LiveServer, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    with opened(browser, live_server.url, expected="status of 4") as page:
        page.set_input_files("#file", tmp_path / "broken.mp4")
        shows(page, "#notice-text", re.compile("cannot show “broken.mp4”"))
        page.click("#notice-do")
        shows(page, "#whole-said", re.compile("That did not work: .*"))
        expect(page.locator("#state")).to_have_attribute("data-state", "off")


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("clip", ["still.webm", "still.mp4"])
def test_a_video_of_one_frame_gets_its_answer(page: Any, tmp_path: Path, clip: str, loop: bool) -> None:
    page.set_checked("#loop", loop)
    page.set_input_files("#file", color_clip(tmp_path / clip, [("red", 1 / 30)]))
    shows(page, "#label", "red")
    assert (number(page, "sent"), number(page, "answers"), number(page, "errors")) == (1, 1, 0)


def test_a_file_with_sound_only_is_said_to_have_no_picture(page: Any, clips: Path, tmp_path: Path) -> None:
    page.set_input_files("#file", tone(tmp_path / "tone.webm"))
    words = re.compile("This file has no picture.*“tone.webm”")
    shows(page, "#notice-text", words)
    shows(page, "#events .error", words)
    expect(page.locator("#state")).to_have_attribute("data-state", "off")
    page.wait_for_timeout(1000)  # and it stays that way
    expect(page.locator("#state")).to_have_attribute("data-state", "off")
    expect(page.locator("#play")).to_be_disabled()
    page.set_input_files("#file", clips / "red.webm")
    shows(page, "#label", "red")
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("next_file", ["broken.mp4", "red.webm"])
def test_another_source_starts_without_the_answers_of_the_one_before(
    page: Any, clips: Path, tmp_path: Path, next_file: str
) -> None:
    page.set_input_files("#file", clips / "blue.png")
    shows(page, "#label", "blue")
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    page.evaluate("WebSocket.prototype.send = () => {}")  # nothing is answered from here on
    page.set_input_files("#file", (clips if (clips / next_file).exists() else tmp_path) / next_file)
    shows(page, "#label", "")
    expect(page.locator("#verdict")).to_be_hidden()
    assert page.locator("#bars span").all_inner_texts() == ["–"] * 3
    assert page.locator("#bars .top, #bars [data-probability]").count() == 0


def test_the_webcam_is_shown_answered_and_let_go(page: Any) -> None:
    page.keyboard.press("w")
    shows(page, "#label", "green")
    expect(page.locator("#webcam")).to_have_attribute("aria-pressed", "true")
    grows(page, "answers", 10)
    page.keyboard.press("w")
    expect(page.locator("#state")).to_have_attribute("data-state", "off")
    assert page.evaluate("video.srcObject") is None


def test_keys_play_pause_seek_and_help(page: Any, clips: Path) -> None:
    page.on(
        "filechooser", lambda _: None
    )  # asked for before the key is pressed: what comes with `expect` is asked for beside it
    page.wait_for_timeout(200)
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("u")
    chooser.value.set_files(clips / "red-green.webm")
    shows(page, "#play", "Pause")
    page.keyboard.press(" ")
    shows(page, "#play", "Play")
    page.evaluate("video.currentTime = 2")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("video.currentTime") == pytest.approx(3, abs=0.1)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("video.currentTime") == pytest.approx(2, abs=0.1)
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    # what is hidden keeps the focus until the next frame, and a space before that is its own
    page.wait_for_function("!document.querySelector('#help').contains(document.activeElement)")
    page.keyboard.press(" ")
    shows(page, "#play", "Pause")


def test_keys_of_one_character_can_be_switched_off_for_good(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "red-green.webm")
    shows(page, "#label", "red")  # its length is known, or the arrow would lead nowhere
    page.keyboard.press("?")
    page.uncheck("#keys")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    # the hidden box keeps the focus until the next frame: a space before that checks it
    page.wait_for_function("document.activeElement === document.body")
    for key in (" ", "?", "w"):
        page.keyboard.press(key)
    expect(page.locator("#help")).to_be_hidden()
    shows(page, "#play", "Pause")
    page.keyboard.press("ArrowRight")  # not a character: goes on working
    assert page.evaluate("video.currentTime") >= 1
    page.reload()
    page.keyboard.press("?")
    page.click("#help-open")
    expect(page.locator("#keys")).not_to_be_checked()
    page.check("#keys")
    assert page.evaluate("({...localStorage})") == {}
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()


def test_a_key_with_nothing_to_do_is_left_to_the_browser(page: Any, clips: Path) -> None:
    page.evaluate("addEventListener('keydown', (event) => { window.kept = event.defaultPrevented; })")
    keys = (" ", "a", "ArrowLeft", "Shift+ArrowRight")
    for key in keys:
        page.keyboard.press(key)
        assert page.evaluate("kept") is False, key
    page.set_input_files("#file", clips / "red-green.webm")
    shows(page, "#label", "red")
    for key in keys:
        page.keyboard.press(key)
        assert page.evaluate("kept") is True, key
    shows(page, "#whole-said", re.compile("by model"))


def test_every_control_can_be_reached_and_its_focus_is_seen(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "red.webm")
    shows(page, "#label", "red")
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
        )
    assert reached == [[name, "solid"] for name in ("help-open", "play", "seek", "loop", "upload", "webcam", "analyse")]


def test_what_changes_all_the_time_is_not_read_out(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "red-green.webm")
    shows(page, "#label", "red")
    heard = "[...document.querySelectorAll('#time, #bars span')].map(n => n.closest('output, [role], [aria-live]'))"
    assert page.evaluate(heard) == [None] * 4
    page.keyboard.press(" ")
    page.evaluate("video.currentTime = 2.2")
    expect(page.locator("#seek")).to_have_attribute("aria-valuetext", "0:02")
    shows(page, "#time", "0:02 / 0:09")
    page.set_input_files("#file", clips / "blue.png")
    expect(page.locator("#seek")).to_have_attribute("aria-valuetext", "0:00")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_no_width_and_no_colour_scheme_breaks_the_page(page: Any, clips: Path, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.set_input_files("#file", clips / "red-green.webm")
    shows(page, "#label", "red")
    page.click("#analyse")
    shows(page, "#whole-said", re.compile("^2 spans, .* model"))
    assert page.evaluate("document.documentElement.scrollWidth") == width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 18, 23)"
    assert dark == (scheme == "dark")
    assert [word for word in contrasts(page) if word[1] < 4.5] == []


def contrasts(page: Any) -> list[tuple[str, float]]:
    """WCAG contrast of every piece of text with the background that stands behind it, video and disabled controls aside."""
    return page.evaluate("""() => {
        const parse = (color) => color.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (node) => { for (; node; node = node.parentElement) {
            const back = parse(getComputedStyle(node).backgroundColor);
            if (back[3] !== 0) return back; } return [255, 255, 255]; };
        return [...document.querySelectorAll("main *")]
            .filter((node) => node.checkVisibility() && !node.closest("#screen, :disabled, canvas, .visually-hidden")
                && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
            .map((node) => { const pair = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
                return [node.textContent, (pair[0] + 0.05) / (pair[1] + 0.05)]; });
    }""")


def test_who_asks_for_less_motion_gets_none(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "red.webm")
    shows(page, "#label", "red")
    moving = "[...document.querySelectorAll('#bars i')].filter(n => getComputedStyle(n, '::before').transitionDuration !== '0s').length"
    assert page.evaluate(moving) == 3
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0


@pytest.mark.parametrize(("source", "label"), [("file", "red"), ("webcam", "green")])
def test_a_restarted_server_is_found_again(
    browser: Any, bundle: Path, tmp_path: Path, clips: Path, source: str, label: str
) -> None:
    server = LiveServer(tmp_path, bundle)
    try:
        with opened(browser, server.url, expected="WebSocket connection .* failed") as page:
            if source == "file":
                page.set_input_files("#file", clips / "red.webm")
            else:
                page.keyboard.press("w")
            shows(page, "#label", label)
            server.stop()
            expect(page.locator("#state")).to_have_attribute("data-state", re.compile("waiting|connecting"))
            expect(page.locator("#notice")).to_be_visible()
            before = number(page, "answers")
            server.start()
            shows(page, "#state", "live")
            grows(page, "answers", before + 5)
            expect(page.locator("#notice")).to_be_hidden()
    finally:
        server.stop()


def test_the_key_is_asked_for_until_it_is_right_and_kept_in_the_tab_only(
    browser: Any, bundle: Path, tmp_path: Path, clips: Path
) -> None:
    server = LiveServer(tmp_path, bundle, key=KEY)
    try:
        with opened(browser, server.url, expected="status of 401") as page:
            page.set_input_files("#file", clips / "red.webm")
            expect(page.locator("#key")).to_be_visible()
            assert page.get_attribute("#key-field", "type") == "password"
            shows(page, "#key-said", re.compile("whoever runs"))
            for wrong in ("not-the-key", "no key, with spaces"):
                page.fill("#key-field", wrong)
                page.keyboard.press("Enter")
                shows(page, "#key-said", re.compile("did not accept that key|no key has"))
                expect(page.locator("#key-field")).to_have_value("")
            page.keyboard.press("Escape")
            shows(page, "#state", "needs a key")
            page.click("#notice-do")
            page.fill("#key-field", KEY)
            page.keyboard.press("Enter")
            shows(page, "#label", "red")
            page.click("#analyse")
            shows(page, "#whole-said", re.compile("by model"))
            assert page.evaluate("[{...localStorage}, document.cookie, {...sessionStorage}]") == [
                {},
                "",
                {"framegate.key": KEY},
            ]
    finally:
        server.stop()


def test_the_whole_file_asks_for_the_key_too(browser: Any, bundle: Path, tmp_path: Path, clips: Path) -> None:
    server = LiveServer(tmp_path, bundle, key=KEY)
    try:
        with opened(browser, server.url, expected="status of 401") as page:
            page.set_input_files("#file", clips / "red.webm")
            expect(page.locator("#key")).to_be_visible()
            page.keyboard.press("Escape")
            expect(page.locator("#key")).to_be_hidden()
            page.click("#analyse")
            page.fill("#key-field", KEY)
            page.keyboard.press("Enter")
            shows(page, "#whole-said", re.compile("^1 span, .* by model"))
    finally:
        server.stop()


def test_a_key_entered_later_does_not_send_the_file_unasked(
    browser: Any, bundle: Path, tmp_path: Path, clips: Path
) -> None:
    server = LiveServer(tmp_path, bundle, key=KEY)
    uploads: list[str] = []
    try:
        with opened(browser, server.url, expected="status of 401") as page:
            page.on("request", lambda request: uploads.append(request.url) if "/v1/predict" in request.url else None)
            page.set_input_files("#file", clips / "red.webm")
            expect(page.locator("#key")).to_be_visible()
            page.keyboard.press("Escape")
            page.click("#analyse")
            expect(page.locator("#key")).to_be_visible()
            page.keyboard.press("Escape")
            expect(page.locator("#key")).to_be_hidden()
            page.click("#notice-do")
            page.fill("#key-field", KEY)
            page.keyboard.press("Enter")
            shows(page, "#label", "red")
            shows(page, "#whole-said", "This server asks for an API key.")
            assert len(uploads) == 1
    finally:
        server.stop()


# --- against scripted streams ---------------------------------------------------------------------------------------


def scripted(page: Any, hear: Callable[[Any, int], None], ready: dict[str, Any] = READY) -> None:
    """Streams of this page open with `ready`; `hear(socket, n)` is called for frame n of each."""

    def connect(socket: Any) -> None:
        frames = iter(range(1_000_000))
        socket.on_message(lambda message: hear(socket, next(frames)) if isinstance(message, bytes) else None)
        socket.send(json.dumps(ready))

    page.route_web_socket(re.compile("/v1/streams/"), connect)
    page.reload()  # what is routed takes hold with the next document


def answer(seq: int, *labels: str, version: str = "2", dropped: int = 0) -> str:
    shares = [{"name": name, "probability": 1 / (k + 2)} for k, name in enumerate(labels)]
    return json.dumps(
        {"seq": seq, "t": seq / 10, "labels": shares, "dropped": dropped, "version": version, "latency_ms": 2.5}
    )


@pytest.mark.parametrize(
    ("code", "state", "words"),
    [
        (4404, "stopped", "no model “framegate”"),
        (1008, "stopped", "refused what this page sent: because"),
        (1009, "stopped", "too big"),
        (1013, "waiting", "as many streams as it can hold. Trying again in"),
        (1012, "waiting", "shutting down or starting again. Trying again in"),
        (1011, "waiting", "connection to the server broke. Trying again in"),
    ],
)
def test_a_close_code_is_said_in_words_and_can_be_tried_again(
    page: Any, clips: Path, code: int, state: str, words: str
) -> None:
    closed = []

    def hear(socket: Any, n: int) -> None:
        if closed:
            return socket.send(answer(n, "left", "right"))
        closed.append(code)
        return socket.close(code=code, reason="because")

    scripted(page, hear)
    page.set_input_files("#file", clips / "red.webm")
    if state == "stopped":
        expect(page.locator("#state")).to_have_attribute("data-state", state)
        shows(page, "#notice-text", re.compile(words))
        page.click("#notice-do")
    shows(page, "#label", "left")
    shows(page, "#events", re.compile(f"code {code}: because"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1013, "as many streams as it can hold. Trying again in"),
        (1012, "shutting down or starting again. Trying again in"),
        (1011, "connection to the server broke. Trying again in"),
    ],
)
def test_while_it_waits_the_page_says_why(page: Any, clips: Path, code: int, words: str) -> None:
    scripted(page, lambda socket, _: socket.close(code=code))
    page.set_input_files("#file", clips / "red.webm")
    shows(page, "#notice-text", re.compile(words))
    page.keyboard.press(" ")  # paused, nothing is wanted, and nothing is tried any more
    expect(page.locator("#state")).to_have_attribute("data-state", "off")
    expect(page.locator("#notice")).to_be_hidden()


def play_file(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "red.webm")


def start_webcam(page: Any, clips: Path) -> None:
    page.click("#webcam")


def show_image(page: Any, clips: Path) -> None:
    page.set_input_files("#file", clips / "blue.png")


@pytest.mark.parametrize(
    ("choose", "code"),
    [(play_file, 1000), (play_file, 1012), (start_webcam, 1006), (start_webcam, 1012), (show_image, 1012)],
)
def test_an_end_that_the_page_did_not_ask_for_is_a_lost_connection(
    page: Any, clips: Path, choose: Callable[[Any, Path], None], code: int
) -> None:
    """An image asks for the end, but of a server that stopped before its frame came it has no answer."""
    ended = []

    def hear(socket: Any, n: int) -> None:
        if ended:
            return socket.send(answer(n, "right", "left"))
        if choose is not show_image:
            socket.send(answer(n, "left", "right"))
        ended.append(code)
        socket.send(json.dumps({"event": "end", "frames": n, "dropped": 0}))
        return socket.close(code=code)

    scripted(page, hear)
    choose(page, clips)
    expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    shows(page, "#notice-text", re.compile("Trying again in"))
    expect(page.locator("#verdict")).to_be_hidden()
    page.click("#notice-do")
    shows(page, "#label", "right")


def test_a_loop_does_not_cut_the_wait_short(page: Any, tmp_path: Path) -> None:
    tries = []

    def hear(socket: Any, n: int) -> None:
        tries.append(n)
        socket.close(code=1013)  # at least 4 s

    scripted(page, hear)
    page.set_input_files("#file", color_clip(tmp_path / "short.webm", [("red", 0.6)]))
    expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    page.wait_for_timeout(2500)
    expect(page.locator("#state")).to_have_attribute("data-state", "waiting")
    assert len(tries) == 1


def test_an_image_that_was_answered_stays_so_when_the_server_stops(page: Any, clips: Path) -> None:
    def hear(socket: Any, n: int) -> None:
        socket.send(answer(n, "right", "left"))
        page.wait_for_timeout(200)
        socket.send(json.dumps({"event": "end", "frames": 1, "dropped": 0}))
        socket.close(code=1012)

    scripted(page, hear)
    page.set_input_files("#file", clips / "blue.png")
    shows(page, "#state", "answered")
    shows(page, "#label", "right")
    expect(page.locator("#notice")).to_be_hidden()


def test_a_new_version_that_takes_over_is_told_and_its_labels_shown(page: Any, clips: Path) -> None:
    reset = {"event": "reset", "reason": "version", "version": "3", "t": 0.3, "labels": ["up", "down", "left"]}

    def hear(socket: Any, n: int) -> None:
        if n == 3:
            socket.send(json.dumps(reset))
        labels = ("left", "right") if n < 3 else ("up", "left", "down")
        socket.send(answer(n, *labels, version="2" if n < 3 else "3", dropped=n // 2))

    scripted(page, hear)
    page.set_input_files("#file", clips / "red.webm")
    shows(page, "#events .version", "model 3 took over, starting afresh")
    shows(page, "#model", re.compile("^model 3 · 3 labels"))
    shows(page, "#label", "up")
    assert page.locator("#bars b").all_inner_texts() == reset["labels"]
    grows(page, "dropped", 1)


@pytest.mark.parametrize("fps", [2.0, 20.0])
def test_a_new_version_with_another_clip_gets_its_frames(page: Any, tmp_path: Path, fps: float) -> None:
    side = 300
    reset = {
        "event": "reset",
        "reason": "version",
        "version": "3",
        "t": 1.0,
        "labels": ["right", "left"],
        "clip": {"height": side, "width": 400, "fps": fps},
    }
    times: list[float] = []
    sizes: list[tuple[int, int]] = []

    def connect(socket: Any) -> None:
        def hear(message: str | bytes) -> None:
            if isinstance(message, str):
                times.append(json.loads(message).get("t", -1))
                return
            sizes.append(Image.open(BytesIO(message)).size)
            if len(sizes) == 10:
                socket.send(json.dumps(reset))
            socket.send(answer(len(sizes) - 1, "left", "right", version="2" if len(sizes) < 10 else "3"))

        socket.on_message(hear)
        socket.send(json.dumps(READY))

    page.route_web_socket(re.compile("/v1/streams/"), connect)
    page.reload()
    page.set_input_files("#file", color_clip(tmp_path / "big.webm", [("red", 8)], size=(800, 600)))
    shows(page, "#model", re.compile(rf"^model 3 · 2 labels · 400 × {side} at {fps:.0f} fps$"))
    assert page.locator("#bars b").all_inner_texts() == reset["labels"]
    grows(page, "answers", 14)
    page.keyboard.press(" ")
    assert sizes[0] == (320, 240) and sizes[-1] == (800, 600)
    assert -1 not in times and times == sorted(times)
    after = [round((late - early) * fps) for early, late in pairwise(times[11:])]
    assert after and min(after) >= 1


def test_a_refused_frame_is_counted_and_the_stream_goes_on(page: Any, clips: Path) -> None:
    def hear(socket: Any, n: int) -> None:
        refused = json.dumps({"event": "error", "seq": n, "error": "half a JPEG"})
        socket.send(refused if n % 2 else answer(n, "right", "left"))

    scripted(page, hear)
    page.set_input_files("#file", clips / "red.webm")
    grows(page, "errors", 2)
    grows(page, "answers", 2)
    shows(page, "#events", re.compile("refused: half a JPEG"))


def test_without_answers_hardly_anything_is_sent(page: Any, clips: Path) -> None:
    scripted(page, lambda socket, _: None)
    page.set_input_files("#file", clips / "red.webm")
    grows(page, "skipped", 3)
    assert number(page, "sent") <= 4  # two, and two more once those count as lost


def test_of_many_labels_the_five_likeliest_have_bars(page: Any, clips: Path) -> None:
    labels = [f"label {k}" for k in range(20)]
    scripted(page, lambda socket, n: socket.send(answer(n, *reversed(labels[:12]))), {**READY, "labels": labels})
    page.set_input_files("#file", clips / "red.webm")
    shows(page, "#label", "label 11")
    assert page.locator("#bars b").all_inner_texts() == [f"label {k}" for k in (11, 10, 9, 8, 7)]
    shows(page, "#lanes", re.compile(r"^label 11\s*\d s$"))


def test_a_label_is_text_whatever_it_says(page: Any, clips: Path) -> None:
    rude = "<img src=x onerror=alert(1)>" + "w" * 60
    scripted(page, lambda socket, n: socket.send(answer(n, rude, "right")), {**READY, "labels": [rude, "right"]})
    page.set_viewport_size({"width": 375, "height": 800})
    page.set_input_files("#file", clips / "red.webm")
    shows(page, "#label", rude)
    shows(page, "#lanes li:first-child b", rude)
    assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_another_file_ends_the_analysis_of_the_one_before(page: Any, clips: Path) -> None:
    scripted(page, lambda socket, n: socket.send(answer(n, "left", "right")))
    page.route("**/v1/predict*", lambda route: None)  # never answered
    page.set_input_files("#file", clips / "red.webm")
    shows(page, "#label", "left")
    page.click("#analyse")
    shows(page, "#whole-said", "Sending “red.webm” …")
    page.set_input_files("#file", clips / "blue.mp4")
    shows(page, "#analyse", "Analyse the whole file")
    page.wait_for_timeout(200)  # time for the first to say something
    shows(page, "#whole-said", re.compile("^“blue.mp4”, "))
    page.click("#analyse")
    shows(page, "#whole-said", "Sending “blue.mp4” …")
    page.click("#analyse")
    shows(page, "#whole-said", "Stopped; 0 spans until then.")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("() => Promise.reject(new DOMException('no', 'NotAllowedError'))", "not allowed to use the camera"),
        ("() => Promise.reject(new DOMException('no', 'NotFoundError'))", "no camera here"),
        ("() => Promise.reject(new DOMException('no', 'NotReadableError'))", "another program"),
        ("() => Promise.reject(new DOMException('no', 'AbortError'))", "did not open: no"),
        ("undefined", "https or on localhost"),
    ],
)
def test_without_a_camera_the_page_says_why(page: Any, broken: str, words: str) -> None:
    page.evaluate(f"Object.defineProperty(navigator.mediaDevices, 'getUserMedia', {{ value: {broken} }})")
    page.click("#webcam")
    shows(page, "#notice-text", re.compile(words))
    expect(page.locator("#webcam")).to_have_attribute("aria-pressed", "false")


def test_another_model_is_asked_for_by_name(browser: Any, live_server: LiveServer, clips: Path) -> None:
    with opened(browser, f"{live_server.url}?model=other%20one") as page:
        page.set_input_files("#file", clips / "red.webm")
        shows(page, "#notice-text", re.compile("no model “other one”"))
