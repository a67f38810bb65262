"""Second factor, passwords and mails over HTTP, in process behind the real edge."""

import base64
import email
import email.policy
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from xml.etree import ElementTree

import httpx
import pyotp
import pytest
import sqlalchemy as sa

from trading_api.modules.auth.tables import audit_entries
from trading_api.modules.auth.tests.builders import PASSWORD
from trading_api.modules.auth.tests.hosts import BROWSER, Host, client_of, run_host
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

BASE = "/api/v1/auth"
ANN = {"email": "ann@example.com", "password": PASSWORD}
NEW = "another battery staple"


@pytest.fixture
async def host(
    settings: PlatformSettings, environ: dict[str, str], clock: FixedClock
) -> AsyncIterator[Host]:
    async with run_host(settings, environ, clock) as made:
        yield made


@pytest.fixture
async def confirming(
    settings: PlatformSettings, environ: dict[str, str], clock: FixedClock
) -> AsyncIterator[Host]:
    async with run_host(settings, {**environ, "AUTH_CONFIRM_EMAIL": "true"}, clock) as made:
        yield made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def sign_in(client: httpx.AsyncClient) -> dict[str, Any]:
    await client.post(f"{BASE}/register", json=ANN)
    answer = await client.post(f"{BASE}/login", json=ANN)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def newest_mail(host: Host, settings: PlatformSettings, clock: FixedClock) -> str:
    await host.service.mail.deliver_due(now=clock.now())
    paths = sorted((settings.trading_local_dir / "mail").iterdir(), key=lambda path: path.name)
    mail = email.message_from_bytes(paths[-1].read_bytes(), policy=email.policy.default)
    return str(mail.get_content())


def token_of(mail: str) -> str:
    found = re.search(r"tk_[A-Za-z0-9_-]{43}", mail)
    assert found is not None, mail
    return found[0]


async def test_second_factor_when_enabled_then_login_hands_out_nothing_before_the_code(
    host: Host, clock: FixedClock
) -> None:
    async with client_of(host, **BROWSER) as client:
        await sign_in(client)
        set_up = (await client.get(f"{BASE}/2fa/setup")).json()
        picture = ElementTree.fromstring(set_up["qr_svg"])
        assert picture.tag.endswith("svg")
        authenticator = pyotp.parse_uri(set_up["otpauth_uri"])
        assert isinstance(authenticator, pyotp.TOTP)
        body = {"code": authenticator.at(clock.now()), "password": PASSWORD}
        enabled = await client.post(f"{BASE}/2fa/enable", json=body)
        assert enabled.status_code == 200, enabled.text
        assert len(enabled.json()["recovery_codes"]) == 10
        status = (await client.get(f"{BASE}/2fa")).json()
        assert (status["enabled"], status["recovery_codes_left"]) == (True, 10)

    clock.advance(30)
    async with client_of(host, **BROWSER) as client:
        asked = await client.post(f"{BASE}/login", json=ANN)
        assert asked.status_code == 200
        assert asked.json()["mfa_required"] is True
        assert "access_token" not in asked.json()
        assert not {"access_token", "refresh_token"} & {
            cookie.name for cookie in client.cookies.jar
        }
        answer = {"challenge": asked.json()["challenge"], "code": authenticator.at(clock.now())}
        done = await client.post(f"{BASE}/2fa/verify", json=answer)
        assert done.status_code == 200, done.text
        assert (await client.get(f"{BASE}/me")).json()["email"] == "ann@example.com"

    async with client_of(host) as client:
        for code, status_code in ((authenticator.at(clock.now()), 401), ("12", 401)):
            answered = await client.post(f"{BASE}/login", json={**ANN, "totp": code})
            assert (answered.status_code, answered.json()["code"]) == (
                status_code,
                "auth.second_factor.invalid",
            )
        clock.advance(30)
        once = await client.post(
            f"{BASE}/login", json={**ANN, "totp": authenticator.at(clock.now())}
        )
        assert once.json()["access_token"]


async def test_register_when_confirmed_by_mail_then_answers_do_not_differ(
    confirming: Host, settings: PlatformSettings, clock: FixedClock
) -> None:
    async with client_of(confirming) as client:
        first = await client.post(f"{BASE}/register", json=ANN)
        assert first.status_code == 202
        waiting = await client.post(f"{BASE}/login", json=ANN)
        assert (waiting.status_code, waiting.json()["code"]) == (403, "auth.email.unverified")
        token = token_of(await newest_mail(confirming, settings, clock))
        body = {"token": token, "password": NEW}
        wrong = await client.post(f"{BASE}/email/verify", json=body)
        assert (wrong.status_code, wrong.json()["code"]) == (401, "auth.credentials.invalid")
        body["password"] = PASSWORD
        assert (await client.post(f"{BASE}/email/verify", json=body)).status_code == 200
        again = await client.post(f"{BASE}/register", json=ANN)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert (await client.post(f"{BASE}/login", json=ANN)).status_code == 200
        client.cookies.clear()
        used = await client.post(f"{BASE}/email/verify", json=body)
        assert (used.status_code, used.json()["code"]) == (422, "auth.mail_token.invalid")


async def test_password_when_forgotten_then_reset_by_mail_and_unknown_addresses_look_alike(
    host: Host, settings: PlatformSettings, clock: FixedClock
) -> None:
    async with client_of(host) as client:
        signed_in = await sign_in(client)
        client.cookies.clear()
        known = await client.post(f"{BASE}/password/forgot", json={"email": ANN["email"]})
        unknown = await client.post(f"{BASE}/password/forgot", json={"email": "bob@example.com"})
        assert (known.status_code, known.content) == (202, unknown.content)
        token = token_of(await newest_mail(host, settings, clock))
        body = {"token": token, "password": NEW}
        assert (await client.post(f"{BASE}/password/reset", json=body)).status_code == 200
        dead = await client.get(f"{BASE}/me", headers=bearer(signed_in["access_token"]))
        assert dead.status_code == 401
        assert (await client.post(f"{BASE}/login", json=ANN)).status_code == 401
        assert (await client.post(f"{BASE}/login", json={**ANN, "password": NEW})).json()


async def test_password_when_changed_then_new_tokens_and_the_old_ones_are_dead(host: Host) -> None:
    async with client_of(host) as client:
        signed_in = await sign_in(client)
        headers = bearer(signed_in["access_token"])
        body = {"current_password": "something else", "new_password": NEW}
        wrong = await client.post(f"{BASE}/password/change", json=body, headers=headers)
        assert (wrong.status_code, wrong.json()["code"]) == (403, "auth.password.wrong")
        body["current_password"] = PASSWORD
        changed = await client.post(f"{BASE}/password/change", json=body, headers=headers)
        assert changed.status_code == 200, changed.text
        assert (await client.get(f"{BASE}/me", headers=headers)).status_code == 401
        fresh = bearer(changed.json()["access_token"])
        assert (await client.get(f"{BASE}/me", headers=fresh)).status_code == 200


async def test_every_change_then_exactly_one_audit_row_with_the_request_id(
    host: Host, settings: PlatformSettings, clock: FixedClock
) -> None:
    """T13 over HTTP: whoever asks, one row per request that changed something."""

    async def rows_of(request_id: str) -> list[Any]:
        async with host.database.snapshot() as transaction:
            return list(
                await transaction.all(
                    sa.select(audit_entries).where(audit_entries.c.request_id == request_id)
                )
            )

    async with client_of(host) as client:

        async def ask(method: str, path: str, signed_in: str = "", **body: Any) -> Any:
            client.cookies.clear()
            answer = await client.request(
                method,
                BASE + path,
                json=body,
                headers=bearer(signed_in) if signed_in else {},
            )
            assert answer.status_code < 300, f"{path}: {answer.text}"
            found = await rows_of(answer.headers["X-Request-ID"])
            assert len(found) == 1, f"{method} {path}: {[row.action for row in found]}"
            assert found[0].address == "192.0.2.1"
            seen.append(found[0].action)
            return answer.json() if answer.content else None

        seen: list[str] = []
        await ask("POST", "/register", **ANN)
        first = await ask("POST", "/login", **ANN)
        first = await ask("POST", "/refresh-token", refresh_token=first["refresh_token"])
        token = first["access_token"]
        await ask("PATCH", "/me", token, full_name="Ann")
        set_up = (await client.get(f"{BASE}/2fa/setup", headers=bearer(token))).json()
        code = pyotp.TOTP(set_up["secret"])
        await ask("POST", "/2fa/enable", token, code=code.at(clock.now()), password=PASSWORD)
        codes = await ask("POST", "/2fa/recovery-codes", token, password=PASSWORD)
        clock.advance(30)
        asked = await ask("POST", "/login", **ANN)
        await ask(
            "POST", "/2fa/verify", challenge=asked["challenge"], code=codes["recovery_codes"][0]
        )
        await ask("POST", "/2fa/disable", token, code=code.at(clock.now()), password=PASSWORD)
        other = await ask("POST", "/login", **ANN)
        await ask("DELETE", f"/sessions/{_session_of(other)}", token)
        changed = await ask(
            "POST", "/password/change", token, current_password=PASSWORD, new_password=NEW
        )
        await ask("POST", "/logout", changed["access_token"])
        await client.post(f"{BASE}/password/forgot", json={"email": ANN["email"]})
        reset = token_of(await newest_mail(host, settings, clock))
        await ask("POST", "/password/reset", token=reset, password=PASSWORD)
        last = await ask("POST", "/login", **ANN)
        await ask("POST", "/logout-all", last["access_token"])
    assert len(set(seen)) == 12


def _session_of(signed_in: dict[str, Any]) -> str:
    payload = signed_in["access_token"].split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["sid"])
