"""Hashing in a bounded pool, signing with the host's key."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from joserfc.jwk import ECKey

from trading_api.kernel.errors import TokenInvalidError
from trading_api.modules.auth.adapters.argon2_pool import Argon2Pool
from trading_api.modules.auth.adapters.file_signer import FileSigner
from trading_api.modules.auth.errors import PasswordPoolBusyError
from trading_api.runtime.identity import Identity
from trading_api.runtime.secrets import (
    SIGNING_ALGORITHMS,
    SigningAlgorithm,
    ensure_secrets,
    list_signing_keys,
    load_signing_key,
    rotate_signing_key,
)
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.clocks import FixedClock

PASSWORD = "correct horse battery"


@pytest.fixture
def pool():
    made = Argon2Pool(parallel=1, queue_max=2)
    yield made
    made.close()


async def test_hash_then_argon2id_with_its_own_salt(pool: Argon2Pool) -> None:
    first, second = await pool.hash(PASSWORD), await pool.hash(PASSWORD)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    verification = await pool.verify(PASSWORD, first)
    assert (verification.is_correct, verification.upgraded_hash) == (True, None)
    assert not (await pool.verify(PASSWORD + " ", first)).is_correct


async def test_verify_when_nobody_is_there_then_never_correct(pool: Argon2Pool) -> None:
    for password in (PASSWORD, "nobody signs in with this", ""):
        assert not (await pool.verify(password, None)).is_correct


async def test_verify_when_bcrypt_then_upgraded(pool: Argon2Pool) -> None:
    stored = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    found = await pool.verify(PASSWORD, stored)
    assert found.is_correct
    assert found.upgraded_hash is not None
    assert found.upgraded_hash.startswith("$argon2id$")
    assert not (await pool.verify("something else", stored)).is_correct


async def test_verify_when_bcrypt_would_cut_then_refused(pool: Argon2Pool) -> None:
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert (await pool.verify("x" * 72, stored)).is_correct
    assert not (await pool.verify("x" * 73, stored)).is_correct


@pytest.mark.parametrize("stored", ["garbage", "$argon2id$broken", "$2b$04$short"])
async def test_verify_when_stored_hash_is_broken_then_refused(
    pool: Argon2Pool, stored: str
) -> None:
    assert not (await pool.verify(PASSWORD, stored)).is_correct


async def test_hash_when_more_wait_than_may_then_refused_and_later_fine(pool: Argon2Pool) -> None:
    outcomes = await asyncio.gather(
        *(pool.hash(PASSWORD) for _ in range(10)), return_exceptions=True
    )
    busy = [each for each in outcomes if isinstance(each, PasswordPoolBusyError)]
    assert len(busy) == 7
    assert busy[0].retry_after_seconds == 2
    assert await pool.hash(PASSWORD)


async def test_hash_when_callers_give_up_then_the_queue_stays_bounded(pool: Argon2Pool) -> None:
    waiting = [asyncio.ensure_future(pool.hash(PASSWORD)) for _ in range(3)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    # A thread that works on is still taken; what only waited is free again.
    for _ in range(200):
        if pool._admitted == 0:
            break
        await asyncio.sleep(0.01)
    assert pool._admitted == 0


async def test_verify_when_user_is_unknown_then_it_takes_as_long() -> None:
    pool = Argon2Pool(parallel=1, queue_max=2)
    stored = await pool.hash(PASSWORD)
    seconds: dict[str | None, list[float]] = {stored: [], None: []}
    for _ in range(12):
        for each, measured in seconds.items():
            started = time.thread_time()
            pool._compare("not this one", each)
            measured.append(time.thread_time() - started)
    pool.close()
    known, unknown = (statistics.median(each) for each in seconds.values())
    assert abs(known - unknown) < 0.25 * known


async def test_signer_then_every_process_believes_it(
    settings: PlatformSettings, clock: FixedClock
) -> None:
    signer = FileSigner(settings.secrets_directory, clock=clock)
    now = int(clock.now().timestamp())
    token = signer.sign(
        {
            "iss": "trading-api",
            "aud": "trading-api",
            "sub": "usr_1",
            "sid": "ses_1",
            "jti": "jti_1",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
        }
    )
    assert (await Identity(settings=settings, clock=clock).verify(token)).user_id == "usr_1"


def test_signer_when_key_is_rotated_then_signs_with_the_new_one(
    tmp_path: Path, clock: FixedClock
) -> None:
    ensure_secrets(tmp_path)
    signer = FileSigner(tmp_path, clock=clock)
    [(old, _)] = list_signing_keys(tmp_path)
    now = int(clock.now().timestamp())
    signer.sign({})
    new = rotate_signing_key(tmp_path, now_seconds=now, overlap_seconds=60)
    assert list_signing_keys(tmp_path) == [(old, now + 60), (new, None)]
    assert [key["kid"] for key in signer.public_keys()["keys"]] == [old, new]
    signer.sign({})
    assert signer._key is not None
    assert signer._key.kid == new
    clock.advance(60)
    assert [key["kid"] for key in signer.public_keys()["keys"]] == [new]
    newest = rotate_signing_key(tmp_path, now_seconds=now + 60, overlap_seconds=60)
    assert list_signing_keys(tmp_path) == [(new, now + 120), (newest, None)]
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_signer_when_there_is_no_key_then_says_so_at_start(
    tmp_path: Path, clock: FixedClock
) -> None:
    with pytest.raises(FileNotFoundError):
        FileSigner(tmp_path, clock=clock).load()


@pytest.mark.parametrize("algorithm", SIGNING_ALGORITHMS)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_signer_when_algorithm_is_chosen_then_every_process_believes_it_over_a_rotation(
    environ: dict[str, str], tmp_path: Path, clock: FixedClock, algorithm: SigningAlgorithm
) -> None:
    own = load_settings(PlatformSettings, {**environ, "TRADING_LOCAL_DIR": str(tmp_path)})
    ensure_secrets(own.secrets_directory, algorithm=algorithm)
    signer = FileSigner(own.secrets_directory, clock=clock)
    identity = Identity(settings=own, clock=clock)
    now = int(clock.now().timestamp())
    before = signer.sign(claims_at(now))
    assert (await identity.verify(before)).user_id == "usr_1"
    kept = rotate_signing_key(own.secrets_directory, now_seconds=now, overlap_seconds=60)
    assert public_algorithms(signer)[kept] == algorithm
    other = SIGNING_ALGORITHMS[(SIGNING_ALGORITHMS.index(algorithm) + 1) % 3]
    rotate_signing_key(own.secrets_directory, now_seconds=now, overlap_seconds=60, algorithm=other)
    clock.advance(6)
    for token in (before, signer.sign(claims_at(now))):
        assert (await identity.verify(token)).user_id == "usr_1"
    clock.advance(55)
    with pytest.raises(TokenInvalidError):
        await identity.verify(before)


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_signer_when_its_keys_are_mounted_then_they_count_and_not_the_host_s(
    environ: dict[str, str], tmp_path: Path, clock: FixedClock, algorithm: SigningAlgorithm
) -> None:
    mounted = tmp_path / "mounted"
    ensure_secrets(mounted, algorithm=algorithm)
    key, _ = load_signing_key((mounted / "jwt_private.pem").read_bytes())
    (mounted / "public.pem").write_bytes(key.as_pem(private=False))
    paths = {
        "JWT_PRIVATE_KEY_PATH": str(mounted / "jwt_private.pem"),
        "JWT_PUBLIC_KEY_PATH": str(mounted / "public.pem"),
    }
    own = load_settings(PlatformSettings, {**environ, **paths})
    signer = FileSigner(
        own.secrets_directory,
        clock=clock,
        private_key=own.jwt_private_key_path,
        key_set=own.key_set_path,
    )
    identity = Identity(settings=own, clock=clock)
    now = int(clock.now().timestamp())
    assert (await identity.verify(signer.sign(claims_at(now)))).user_id == "usr_1"
    assert [each["kid"] for each in signer.public_keys()["keys"]] == [key.kid]
    own_host = FileSigner(own.secrets_directory, clock=clock)
    with pytest.raises(TokenInvalidError):
        await identity.verify(own_host.sign(claims_at(now)))


@pytest.mark.parametrize("curve", ["P-384", "secp256k1"])
def test_load_when_the_key_is_of_another_kind_then_refused(curve: str) -> None:
    with pytest.raises(ValueError, match="P-256"):
        load_signing_key(ECKey.generate_key(curve).as_pem(private=True))


def claims_at(now: int) -> dict[str, Any]:
    times = {"iat": now, "nbf": now, "exp": now + 300}
    names = {"iss": "trading-api", "aud": "trading-api", "sub": "usr_1", "sid": "s", "jti": "j"}
    return {**names, **times}


def public_algorithms(signer: FileSigner) -> dict[str, str]:
    return {str(each["kid"]): str(each["alg"]) for each in signer.public_keys()["keys"]}
