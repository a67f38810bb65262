"""Credentials through the front door: second factor, forgotten password, a user switched off."""

import email
import email.policy
import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pyotp
import pytest
from tests.journeys.conftest import PASSWORD, Person, sign_up

from trading_api.testkit.bus import eventually
from trading_api.testkit.fleet import Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]

AUTH = "/api/v1/auth"
NEW = "another battery staple"
IN_FORCE_SECONDS = 5.0


async def log_in(fleet: Fleet, email_: str, password: str = PASSWORD) -> tuple[int, Any]:
    async with fleet.client() as client:
        answer = await client.post(f"{AUTH}/login", json={"email": email_, "password": password})
    return answer.status_code, answer.json()


async def post(fleet: Fleet, path: str, **body: Any) -> httpx.Response:
    async with fleet.client() as client:
        return await client.post(AUTH + path, json=body)


def token_to(recipient: str, folder: Path) -> str | None:
    """Return the token of the newest mail to somebody that carries one."""
    for path in sorted(folder.glob("*.eml"), reverse=True):
        mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        found = re.search(r"tk_[A-Za-z0-9_-]{43}", str(mail.get_content()))
        if mail["To"] == recipient and found is not None:
            return found[0]
    return None


async def refused_everywhere(person: Person, since: float) -> None:
    """See a token refused by modules that never heard of the change but over the bus."""

    async def is_refused() -> bool:
        paths = ("/api/v1/broker/accounts", "/api/v1/wallet/transactions")
        answers = [await person.client.get(path) for path in paths]
        return all(each.status_code == 401 for each in answers)

    await eventually(is_refused, within_seconds=IN_FORCE_SECONDS - (time.monotonic() - since))


async def test_second_factor_then_no_token_before_the_code(person: Person, fleet: Fleet) -> None:
    set_up = await person.get(f"{AUTH}/2fa/setup")
    enabled = await person.client.post(
        f"{AUTH}/2fa/enable",
        json={"code": pyotp.TOTP(set_up["secret"]).now(), "password": PASSWORD},
    )
    assert enabled.status_code == 200, enabled.text
    status, asked = await log_in(fleet, person.email)
    assert (status, asked["mfa_required"]) == (200, True)
    assert "access_token" not in asked
    code = enabled.json()["recovery_codes"][0]
    done = await post(fleet, "/2fa/verify", challenge=asked["challenge"], code=code)
    bearer = {"Authorization": f"Bearer {done.json()['access_token']}"}
    async with fleet.client() as client:
        assert (await client.get("/api/v1/broker/accounts", headers=bearer)).status_code == 200
    again = await post(fleet, "/2fa/verify", challenge=asked["challenge"], code=code)
    assert again.status_code == 401


async def test_password_when_forgotten_then_mail_resets_it_and_old_tokens_die_everywhere(
    person: Person, fleet: Fleet
) -> None:
    assert (await post(fleet, "/password/forgot", email=person.email)).status_code == 202
    folder = fleet.local / "mail"
    await eventually(lambda: token_to(person.email, folder) is not None, within_seconds=15)
    reset = await post(fleet, "/password/reset", token=token_to(person.email, folder), password=NEW)
    assert reset.status_code == 200, reset.text
    await refused_everywhere(person, time.monotonic())
    assert (await log_in(fleet, person.email))[0] == 401
    assert (await log_in(fleet, person.email, NEW))[0] == 200


async def test_admin_when_switches_a_user_off_then_out_of_every_module_and_all_of_it_is_proven(
    person: Person, fleet: Fleet
) -> None:
    async with sign_up(fleet) as admin:
        made = fleet.manage("users", "role", admin.email, "user", "admin")
        assert made.returncode == 0, made.stderr
        _, signed_in = await log_in(fleet, admin.email)
        admin.client.headers["Authorization"] = f"Bearer {signed_in['access_token']}"
        off = await admin.client.patch(f"{AUTH}/users/{person.user_id}", json={"is_active": False})
        assert off.status_code == 200, off.text
        await refused_everywhere(person, time.monotonic())
        assert (await log_in(fleet, person.email))[0] == 403
        [entry] = await admin.get(f"{AUTH}/audit", object=f"user:{person.user_id}", limit=1)
        assert (entry["action"], entry["detail"]) == ("user_change", "disabled")
    proven = fleet.manage("verify", "auth")
    assert proven.returncode == 0, proven.stdout


async def test_login_when_unknown_then_like_a_wrong_password(fleet: Fleet, person: Person) -> None:
    unknown = await log_in(fleet, f"{uuid4().hex}@example.com", "wrong wrong wrong")
    wrong = await log_in(fleet, person.email, "wrong wrong wrong")
    assert unknown[0] == wrong[0] == 401
    assert {**unknown[1], "request_id": ""} == {**wrong[1], "request_id": ""}
