"""Pure rules: passwords, devices, seals, judgement, throttling, claims."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_api.modules.auth.domain import (
    Device,
    EmailAddress,
    LoginThrottle,
    PasswordRules,
    Rate,
    Refused,
    Role,
    Session,
    User,
    access_claims,
    fold_email,
    hash_token,
    judge_refresh,
    new_refresh_token,
    normalize_password,
    parse_email,
    scopes_of,
    seal_child,
    unseal_child,
)
from trading_api.modules.auth.domain.sessions import is_refresh_token
from trading_api.modules.auth.errors import EmailInvalidError, PasswordRefusedError
from trading_api.modules.auth.tests.builders import COMMON

NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
RULES = PasswordRules(length_min=8, common=COMMON)
ABOUT = ("ann.example@mail.test", "ann.example", "Ann Example")
secrets = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "x7#Kd92!",
        "        7 spaces",
        "пароль-от-биржи",
        "很长的密码也可以的",
        "ann.example likes trains",
        "qwertyuiop likes trains",
        "z" * 5 + "y" * 5,
        "a1" * 3 + "long one" * 15,
    ],
)
def test_password_when_unguessable_then_accepted_as_it_is(password: str) -> None:
    assert RULES.accept(password, about=ABOUT) == normalize_password(password)


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("1234567", "too_short"),
        ("e\u0301" * 7, "too_short"),  # seven characters once composed
        ("k7" * 65, "too_long"),
        ("password", "too_common"),
        ("PassWord", "too_common"),
        ("Password2024!", "too_common"),
        ("ｐａｓｓｗｏｒｄ", "too_common"),  # noqa: RUF001 - full-width twins
        ("passwordpassword", "too_common"),
        ("1qaz2wsx3edc", "too_common"),
        ("poiuytrewq", "too_common"),
        ("zyxwvutsrqponmlk", "too_common"),
        ("0123456789012345", "too_common"),
        ("98765432109876543", "too_common"),
        ("1234567890123456", "too_common"),
        ("aaaaaaaaaaaaaaaa", "too_common"),
        ("abcabcabcabcabca", "too_common"),
        ("ann.example", "too_personal"),
        ("Ann Example", "too_personal"),
        ("example2026!", "too_personal"),
        ("ann.example@mail.test", "too_personal"),
    ],
)
def test_password_when_guessable_then_refused_by_name_of_the_rule(password: str, rule: str) -> None:
    with pytest.raises(PasswordRefusedError) as refused:
        RULES.accept(password, about=ABOUT)
    assert refused.value.errors[0].rule == rule
    assert refused.value.context == {}


def test_password_when_fifteen_are_wanted_then_counted_in_characters() -> None:
    rules = replace(RULES, length_min=15)
    assert rules.accept("é" * 7 + "ü" * 8)
    with pytest.raises(PasswordRefusedError):
        rules.accept("é" * 7 + "ü" * 7)


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=6, max_size=140))
def test_password_whatever_is_typed_then_accepted_whole_or_refused(password: str) -> None:
    try:
        accepted = RULES.accept(password, about=ABOUT)
    except PasswordRefusedError:
        return
    assert accepted == normalize_password(password)
    assert 8 <= len(accepted) <= 128


def test_common_passwords_are_as_many_as_the_rules_want() -> None:
    assert len(COMMON) >= 3000
    assert all(each == each.casefold() and len(each) >= 8 for each in COMMON)


@pytest.mark.parametrize(
    ("written", "address", "folded"),
    [
        ("Ann@Example.COM", "Ann@example.com", "ann@example.com"),
        (" ann@example.com ", "ann@example.com", "ann@example.com"),
        ("ann@exämple.com", "ann@exämple.com", "ann@exämple.com"),
        ("ann+tag@example.com", "ann+tag@example.com", "ann+tag@example.com"),
        ("STRASSE@example.com", "STRASSE@example.com", "strasse@example.com"),
    ],
)
def test_email_then_normalised_and_folded(written: str, address: str, folded: str) -> None:
    assert parse_email(written) == EmailAddress(address, folded)


@pytest.mark.parametrize(
    "written",
    ["", "ann", "ann@", "@example.com", "a@b", "a b@example.com", "a@ex\x00.com", "a@[::1]"],
)
def test_email_when_impossible_then_refused(written: str) -> None:
    with pytest.raises(EmailInvalidError):
        parse_email(written)


def test_email_when_twins_by_case_or_compatibility_then_one_folded_form() -> None:
    twins = {"straße@example.com", "STRASSE@example.com", "strasse@EXAMPLE.com"}
    assert len({fold_email(each) for each in twins}) == 1
    assert fold_email("\uff41nn@example.com") == "ann@example.com"


def a_device(agent: str, cookie: str = "c", **changes: str) -> Device:
    return Device.of(
        address=changes.get("address", "192.0.2.1"),
        user_agent=agent,
        hints=(changes.get("platform", "Linux"),),
        cookie=cookie,
    )


def test_device_when_browser_updates_or_moves_then_the_same() -> None:
    old = a_device("Mozilla/5.0 (X11) Firefox/140.0")
    new = a_device("Mozilla/5.0 (X11) Firefox/141.2.1", address="198.51.100.9")
    assert old.fingerprint == new.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        a_device("Mozilla/5.0 (X11) Chrome/140.0"),
        a_device("Mozilla/5.0 (X11) Firefox/140.0", cookie="d"),
        a_device("Mozilla/5.0 (X11) Firefox/140.0", cookie=""),
        a_device("Mozilla/5.0 (X11) Firefox/140.0", platform="macOS"),
    ],
)
def test_device_when_another_then_another_fingerprint(other: Device) -> None:
    assert other.fingerprint != a_device("Mozilla/5.0 (X11) Firefox/140.0").fingerprint


def test_device_when_agent_holds_anything_then_kept_printable_and_short() -> None:
    device = a_device("evil\x00\x1b[31m\n" + "x" * 5000)
    assert device.user_agent.isprintable()
    assert len(device.user_agent) == 400


@given(secrets, secrets)
def test_seal_then_only_the_parent_opens_it(parent_bytes: bytes, child_bytes: bytes) -> None:
    parent, child = new_refresh_token(parent_bytes), new_refresh_token(child_bytes)
    sealed = seal_child(parent=parent, child=child)
    assert unseal_child(parent=parent, sealed=sealed) == child
    assert is_refresh_token(child)
    assert child_bytes.hex() not in sealed


@given(secrets, secrets, secrets)
def test_seal_when_opened_by_another_then_another_token(
    parent_bytes: bytes, stranger_bytes: bytes, child_bytes: bytes
) -> None:
    parent, stranger = new_refresh_token(parent_bytes), new_refresh_token(stranger_bytes)
    child = new_refresh_token(child_bytes)
    opened = unseal_child(parent=stranger, sealed=seal_child(parent=parent, child=child))
    assert (opened == child) == (parent == stranger)


def a_session(**changes: object) -> Session:
    session = Session(
        id="ses_1",
        user_id="usr_1",
        device_fingerprint="mine",
        user_agent="",
        address="",
        created_at=NOW,
        last_used_at=NOW,
        expires_at=NOW + timedelta(days=30),
        idle_expires_at=NOW + timedelta(days=7),
        leaf_hash="leaf",
        parent_hash="parent",
        parent_rotated_at=NOW,
        sealed_leaf="00",
        revoked_at=None,
        revoked_reason=None,
    )
    return replace(session, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("session", "presented", "device", "seconds", "expected"),
    [
        (None, "leaf", "mine", 0, Refused.UNKNOWN),
        (a_session(), "parent", "mine", 0, None),
        (a_session(), "parent", "mine", 10, None),
        (a_session(), "parent", "mine", 11, Refused.REUSED),
        (a_session(), "parent", "other", 0, Refused.REUSED),
        (a_session(), "grandparent", "mine", 0, Refused.REUSED),
        (a_session(sealed_leaf=None), "parent", "mine", 0, Refused.REUSED),
        (a_session(), "leaf", "other", 0, Refused.OTHER_DEVICE),
        (a_session(revoked_at=NOW), "leaf", "mine", 0, Refused.ENDED),
        (a_session(revoked_at=NOW), "parent", "mine", 0, Refused.ENDED),
        (a_session(), "leaf", "mine", 7 * 86400, Refused.EXPIRED),
        (a_session(), "parent", "mine", 7 * 86400, Refused.EXPIRED),
    ],
)
def test_judge_refresh_then_as_the_table_says(
    session: Session | None, presented: str, device: str, seconds: int, expected: Refused | None
) -> None:
    judged = judge_refresh(
        session,
        presented_hash=presented,
        device_fingerprint=device,
        now=NOW + timedelta(seconds=seconds),
        grace=timedelta(seconds=10),
    )
    assert judged is expected


def test_tolls_then_sorted_and_without_the_address_in_clear() -> None:
    rate = Rate(1, timedelta(seconds=1))
    throttle = LoginThrottle(
        account=rate,
        address=rate,
        code=Rate(5, timedelta(minutes=5)),
        mail=Rate(3, timedelta(minutes=20)),
    )
    tolls = throttle.tolls(folded_email="ann@example.com", address="192.0.2.1", known_device=None)
    known = throttle.tolls(folded_email="ann@example.com", address="192.0.2.1", known_device="d")
    keys = [each.key for each in tolls]
    assert keys == sorted(keys)
    assert "ann" not in "".join(keys)
    assert known[0].key.startswith(keys[0])
    assert known[0].key != keys[0]


def test_scopes_then_each_role_has_what_it_needs_and_no_more() -> None:
    user, read_only = scopes_of(frozenset({Role.USER})), scopes_of(frozenset({Role.READ_ONLY}))
    operator, admin = scopes_of(frozenset({Role.OPERATOR})), scopes_of(frozenset({Role.ADMIN}))
    assert {"broker:trade", "wallet:trade", "wallet:withdraw", "auth:manage"} <= user
    assert not {"gateway:manage", "datafeed:manage", "wallet:manage"} & user
    assert all(each.endswith(":read") for each in read_only)
    assert not {"broker:trade", "wallet:withdraw"} & operator
    assert admin == user | operator
    assert scopes_of(frozenset()) == frozenset()
    assert scopes_of(frozenset({Role.USER, Role.OPERATOR})) == admin


def test_access_claims_then_exactly_what_the_contract_lists() -> None:
    user = User(
        id="usr_1",
        email=EmailAddress("a@example.com", "a@example.com"),
        full_name="",
        picture=None,
        password_hash=None,
        roles=frozenset({Role.READ_ONLY}),
        is_active=True,
        created_at=NOW,
        last_login_at=None,
    )
    claims = access_claims(
        user,
        session_id="ses_1",
        token_id="jti_1",
        issuer="trading-api",
        now=NOW + timedelta(microseconds=999_999),
        lifetime_seconds=300,
    )
    second = int(NOW.timestamp())
    scopes = claims.pop("scopes")
    assert scopes == sorted(scopes_of(user.roles))
    assert claims == {
        "iss": "trading-api",
        "aud": "trading-api",
        "sub": "usr_1",
        "sid": "ses_1",
        "jti": "jti_1",
        "iat": second,
        "nbf": second,
        "exp": second + 300,
        "roles": ["read_only"],
    }


def test_hash_then_of_fixed_form() -> None:
    assert hash_token("rt_x") == hash_token("rt_x") != hash_token("rt_y")
    assert len(hash_token("rt_x")) == 64
