"""The platform's pages in a real browser: they show what they should and ask nobody else."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import urlsplit

import pytest
import uvicorn
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from trading_api.app import create_app
from trading_api.runtime.database.migrations import upgrade
from trading_api.runtime.registry import discover, select
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.browser import open_browser
from trading_api.testkit.bus import BusServer, eventually
from trading_api.testkit.fleet import free_port

pytestmark = pytest.mark.browser

SECONDS = 20


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    """A headless Chromium that notes every request it makes."""
    with open_browser() as opened:
        yield opened


@pytest.fixture
async def url(
    environ: dict[str, str], shared_bus_server: BusServer, unused_port: int
) -> AsyncIterator[str]:
    """Address of the gateway and one more module in one process."""
    environ["REDIS_URL"] = shared_bus_server.url
    settings = load_settings(PlatformSettings, environ)
    settings.data_directory.mkdir(parents=True)
    app = create_app(select(discover(), "gateway,wallet"), settings=settings, environ=environ)
    for hosted in app.hosted.values():
        if hosted.migrations is not None:
            await upgrade(hosted.context.require_database(), hosted.migrations)
    config = uvicorn.Config(app, port=unused_port, lifespan="on", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, within_seconds=SECONDS)
    yield f"http://127.0.0.1:{unused_port}"
    server.should_exit = True
    await serving


@pytest.fixture
def unused_port() -> int:
    return free_port()


async def see(browser: WebDriver, url: str, ready: Callable[[WebDriver], object]) -> str:
    """Open a page, wait until it shows what it should, and return its text."""

    def open_() -> str:
        # What the page before this one noted is of no concern here.
        browser.get_log("performance")
        browser.get_log("browser")
        browser.get(url)
        WebDriverWait(browser, SECONDS).until(ready)
        return str(browser.find_element(By.TAG_NAME, "body").text)

    return await asyncio.to_thread(open_)


def requests_elsewhere(browser: WebDriver, own: str) -> list[str]:
    """Return addresses of other hosts that were asked; what the page's policy stopped is not."""
    asked: dict[str, str] = {}
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        params = message["params"]
        if message["method"] == "Network.requestWillBeSent":
            asked[params["requestId"]] = params["request"]["url"]
        elif message["method"] == "Network.loadingFailed" and params.get("blockedReason") == "csp":
            asked.pop(params["requestId"], None)
    return [
        each
        for each in asked.values()
        if urlsplit(each).scheme in ("http", "https", "ws", "wss") and not each.startswith(own)
    ]


def has(selector: str, count: int = 1) -> Callable[[WebDriver], bool]:
    return lambda browser: len(browser.find_elements(By.CSS_SELECTOR, selector)) >= count


async def test_start_page_shows_every_module_live(browser: WebDriver, url: str) -> None:
    text = await see(browser, url + "/", has('.state[data-status="healthy"]', 3))
    assert "wallet" in text
    assert "bus up · databases 1 of 1 up" in text
    assert requests_elsewhere(browser, url) == []
    severe = [each for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    assert severe == []


async def test_swagger_lists_operations_of_all_modules(browser: WebDriver, url: str) -> None:
    text = await see(browser, url + "/docs", has(".opblock", 5))
    assert "/api/v1/wallet" in text.replace("\u200b", "")
    assert "/api/v1/versions" in text.replace("\u200b", "")
    assert requests_elsewhere(browser, url) == []


async def test_redoc_lists_operations_of_all_modules(browser: WebDriver, url: str) -> None:
    text = await see(browser, url + "/redoc", has("[data-section-id]", 3))
    assert "wallet" in text
    assert requests_elsewhere(browser, url) == []


async def test_socket_reference_shows_messages(browser: WebDriver, url: str) -> None:
    text = await see(browser, url + "/api/v1/ws/asyncapi", has("details", 3))
    assert "balances.update" in text
    assert requests_elsewhere(browser, url) == []
