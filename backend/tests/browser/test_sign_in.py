"""Signing in from a real browser: cookies, two tabs, a stolen token, its own passkeys."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.virtual_authenticator import VirtualAuthenticatorOptions

from trading_api.app import create_app
from trading_api.runtime.database.migrations import upgrade
from trading_api.runtime.registry import discover, select
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.bus import BusServer, eventually
from trading_api.testkit.fleet import free_port

pytestmark = pytest.mark.browser

SECONDS = 20
ANN = {"email": "ann@example.com", "password": "correct horse battery"}

ASK = """
const [method, path, body, done] = arguments;
fetch('/api/v1/auth' + path, {
  method, credentials: 'same-origin',
  headers: body ? {'Content-Type': 'application/json'} : {},
  body: body ? JSON.stringify(body) : undefined,
}).then(async answer => {
  const text = await answer.text();
  done({status: answer.status, body: text ? JSON.parse(text) : null});
}, error => done({status: 0, body: String(error)}));
"""

CREATE = """
const [options, done] = arguments;
navigator.credentials.create({
  publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(options),
}).then(made => done({made: made.toJSON()}), error => done({error: String(error)}));
"""

GET = """
const [options, done] = arguments;
navigator.credentials.get({
  publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(options),
}).then(made => done({made: made.toJSON()}), error => done({error: String(error)}));
"""

REFRESH_AT_ONCE = """
const [count, done] = arguments;
Promise.all(Array.from({length: count}, () =>
  fetch('/api/v1/auth/refresh-token', {method: 'POST', credentials: 'same-origin'})
    .then(answer => answer.status))).then(done);
"""


@pytest.fixture
def browser() -> Iterator[WebDriver]:
    """A headless Chromium with nothing in its cookie jar."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("no browser: install chromium and chromium-driver")
        pytest.skip("no browser: install chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    made = webdriver.Chrome(options=options, service=Service(driver))
    made.set_script_timeout(SECONDS)
    yield made
    made.quit()


@pytest.fixture
async def url(environ: dict[str, str], shared_bus_server: BusServer) -> AsyncIterator[str]:
    """Address of gateway and auth in one process; passkeys need a name, not a number."""
    environ["REDIS_URL"] = shared_bus_server.url
    settings = load_settings(PlatformSettings, environ)
    settings.data_directory.mkdir(parents=True)
    app = create_app(select(discover(), "gateway,auth"), settings=settings, environ=environ)
    for hosted in app.hosted.values():
        if hosted.migrations is not None:
            await upgrade(hosted.context.require_database(), hosted.migrations)
    port = free_port()
    config = uvicorn.Config(app, host="localhost", port=port, lifespan="on", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started, within_seconds=SECONDS)
    yield f"http://localhost:{port}"
    server.should_exit = True
    await serving


async def run(browser: WebDriver, script: str, *arguments: Any) -> Any:
    return await asyncio.to_thread(browser.execute_async_script, script, *arguments)


async def ask(browser: WebDriver, method: str, path: str, body: Any = None) -> Any:
    """Call auth from the page, as its own scripts would."""
    return await run(browser, ASK, method, path, body)


async def ask_well(browser: WebDriver, method: str, path: str, body: Any = None) -> Any:
    answer = await ask(browser, method, path, body)
    assert 200 <= answer["status"] < 300, f"{method} {path}: {answer}"
    return answer["body"]


async def open_page(browser: WebDriver, url: str) -> None:
    await asyncio.to_thread(browser.get, f"{url}/")


async def sign_in(browser: WebDriver, url: str) -> None:
    await open_page(browser, url)
    await ask_well(browser, "POST", "/register", ANN)
    await ask_well(browser, "POST", "/login", ANN)


async def test_passkey_when_made_by_the_browser_then_signs_in_without_a_password(
    browser: WebDriver, url: str
) -> None:
    options = VirtualAuthenticatorOptions()
    options.protocol = VirtualAuthenticatorOptions.Protocol.CTAP2
    options.transport = VirtualAuthenticatorOptions.Transport.INTERNAL
    options.has_resident_key = True
    options.has_user_verification = True
    options.is_user_verified = True
    browser.add_virtual_authenticator(options)
    await sign_in(browser, url)

    offered = await ask_well(browser, "POST", "/passkeys/options", {"password": ANN["password"]})
    created = await run(browser, CREATE, offered["publicKey"])
    assert "made" in created, created
    body = {"name": "this browser", "credential": created["made"]}
    registered = await ask_well(browser, "POST", "/passkeys", body)
    again = await ask_well(browser, "POST", "/passkeys/options", {"password": ANN["password"]})
    refused = await run(browser, CREATE, again["publicKey"])
    assert "InvalidStateError" in refused["error"], "a device makes one passkey per user"

    await ask_well(browser, "POST", "/logout")
    assert (await ask(browser, "GET", "/me"))["status"] == 401
    asked = await ask_well(browser, "POST", "/passkeys/sign-in/options")
    answered = await run(browser, GET, asked["publicKey"])
    assert "made" in answered, answered
    found = await ask_well(browser, "POST", "/passkeys/sign-in", {"credential": answered["made"]})
    assert found["user"]["email"] == ANN["email"]
    [listed] = await ask_well(browser, "GET", "/passkeys")
    assert listed["id"] == registered["id"]
    assert listed["last_used_at"] is not None


async def test_tabs_when_refreshing_at_once_then_both_stay_signed_in(
    browser: WebDriver, url: str
) -> None:
    await sign_in(browser, url)
    cookie = await asyncio.to_thread(refresh_cookie, browser, url)
    await open_page(browser, url)
    assert await run(browser, REFRESH_AT_ONCE, 2) == [200, 200]
    browser.switch_to.new_window("tab")
    await open_page(browser, url)
    assert await run(browser, REFRESH_AT_ONCE, 2) == [200, 200]
    assert (await ask(browser, "GET", "/me"))["status"] == 200
    browser.switch_to.window(browser.window_handles[0])
    assert (await ask(browser, "GET", "/me"))["status"] == 200

    # A thief comes with the first token, two generations old: everybody is out.
    async with httpx.AsyncClient(base_url=url) as thief:
        stolen = await thief.post("/api/v1/auth/refresh-token", json={"refresh_token": cookie})
    assert (stolen.status_code, stolen.json()["code"]) == (401, "auth.refresh_token.reused")
    for handle in browser.window_handles:
        browser.switch_to.window(handle)
        assert (await ask(browser, "GET", "/me"))["status"] == 401
        assert (await ask(browser, "POST", "/refresh-token"))["status"] == 401


async def test_cookies_then_no_script_reads_them(browser: WebDriver, url: str) -> None:
    await sign_in(browser, url)
    assert browser.execute_script("return document.cookie") == ""
    stored = browser.execute_script("return JSON.stringify([localStorage, sessionStorage])")
    assert stored == "[{},{}]"


def refresh_cookie(browser: WebDriver, url: str) -> str:
    """Return the refresh token; its cookie is sent below auth's path alone."""
    browser.get(f"{url}/api/v1/auth/version")
    found = browser.get_cookie("refresh_token")
    assert found is not None
    assert found["httpOnly"] is True
    assert found["sameSite"] == "Strict"
    return str(found["value"])
