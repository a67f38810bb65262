"""Guessing gets slower, ends at last, and never locks out a known device."""

import statistics
import time
from datetime import timedelta

import pytest

from trading_api.modules.auth.domain import Device, LoginThrottle, Rate
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.throttling import FAILURES_KEPT, FAILURES_MAX
from trading_api.modules.auth.errors import CredentialsInvalidError, LoginThrottledError
from trading_api.modules.auth.service import AuthServices, SignIn
from trading_api.modules.auth.tests.builders import PASSWORD, a_device, an_email
from trading_api.modules.auth.tests.conftest import MakeService
from trading_api.modules.auth.tests.hosts import run_host
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

HOME = a_device("laptop", cookie="random cookie")
THROTTLE = LoginThrottle(
    account=Rate(10, timedelta(seconds=90)),
    address=Rate(1000, timedelta(seconds=1)),
    code=Rate(5, timedelta(minutes=5)),
    mail=Rate(3, timedelta(minutes=20)),
)


@pytest.fixture
async def service(make_service: MakeService, clock: FixedClock) -> AuthServices:
    made = make_service(throttle=THROTTLE)
    await made.registration.register(
        email=an_email(), password=PASSWORD, full_name="", caller=Caller(""), now=clock.now()
    )
    await log_in(made, clock, HOME, PASSWORD)
    return made


async def log_in(service: AuthServices, clock: FixedClock, device: Device, password: str) -> SignIn:
    found = await service.sign_in.log_in(
        email="ann@example.com", password=password, device=device, now=clock.now()
    )
    assert isinstance(found, SignIn)
    return found


async def guess(service: AuthServices, clock: FixedClock, device: Device | None = None) -> int:
    """Guess wrong until one is looked at; return how many seconds that took."""
    waited = 0
    while True:
        try:
            await log_in(service, clock, device or a_device("thief"), "guess guess")
        except LoginThrottledError as error:
            assert error.retry_after_seconds is not None
            waited += error.retry_after_seconds
            clock.advance(error.retry_after_seconds)
        except CredentialsInvalidError:
            return waited


async def test_guesses_then_ever_slower_and_closed_at_a_hundred(
    service: AuthServices, clock: FixedClock
) -> None:
    waits = [await guess(service, clock) for _ in range(FAILURES_MAX)]
    assert waits[:10] == [0] * 10
    assert waits[10:20] == [90] * 10
    assert set(waits[22:40]) == {360}
    assert set(waits[42:]) == {1800}
    for _ in range(3):
        with pytest.raises(LoginThrottledError):
            await log_in(service, clock, a_device("thief"), PASSWORD)
        clock.advance(86_400)
    await log_in(service, clock, HOME, PASSWORD)


async def test_closed_account_when_password_is_set_anew_then_open_again(
    service: AuthServices, clock: FixedClock
) -> None:
    for _ in range(FAILURES_MAX):
        await guess(service, clock, HOME)
    for _ in range(10):
        await guess(service, clock)
    new = "another battery staple"
    for device in (HOME, a_device("new phone")):
        with pytest.raises(LoginThrottledError):
            await log_in(service, clock, device, PASSWORD)
    await service.passwords.set_by_operator(email="ann@example.com", new=new, now=clock.now())
    for device in (HOME, a_device("new phone")):
        await log_in(service, clock, device, new)


async def test_failures_when_paid_off_and_cleaned_then_still_counted(
    service: AuthServices, clock: FixedClock
) -> None:
    for _ in range(30):
        await guess(service, clock)
    clock.advance(86_400)
    await service.sessions.remove_dead(now=clock.now())
    waits = [await guess(service, clock) for _ in range(8)]
    assert waits[-1] == 360, "still four times slower"
    clock.advance(FAILURES_KEPT.total_seconds() + 86_400)
    await service.sessions.remove_dead(now=clock.now())
    assert [await guess(service, clock) for _ in range(10)] == [0] * 10


async def test_success_then_failures_in_a_row_begin_anew(
    service: AuthServices, clock: FixedClock
) -> None:
    for _ in range(25):
        await guess(service, clock)
    clock.advance(86_400)
    await log_in(service, clock, a_device("thief"), PASSWORD)
    waits = [await guess(service, clock) for _ in range(15)]
    assert set(waits) <= {0, 90}


async def test_clock_when_it_goes_back_then_nobody_waits_for_the_old_time(
    service: AuthServices, clock: FixedClock
) -> None:
    for _ in range(12):
        await guess(service, clock)
    clock.jump(-86_400)
    await log_in(service, clock, a_device("thief"), PASSWORD)
    assert await guess(service, clock) == 0


@pytest.mark.nightly
@pytest.mark.timeout(900)
async def test_login_when_unknown_then_takes_as_long_as_a_wrong_password(
    settings: PlatformSettings, environ: dict[str, str], clock: FixedClock
) -> None:
    """Mann-Whitney over 500 and 500: the medians differ by less than 5 %, and p > 0.01."""
    wide = {
        "AUTH_LOGIN_ACCOUNT_BURST": "100000",
        "AUTH_LOGIN_ADDRESS_BURST": "100000",
        "AUTH_PASSWORD_PARALLEL": "1",
    }
    async with run_host(settings, {**environ, **wide}, clock) as host:
        await host.service.registration.register(
            email=an_email(), password=PASSWORD, full_name="", caller=Caller(""), now=clock.now()
        )
        seconds: dict[str, list[float]] = {"ann@example.com": [], "nobody@example.com": []}
        for turn in range(505):
            for email, measured in seconds.items():
                # Closed at a hundred failures in a row: each turn comes from a fresh account's row.
                if turn % 15 == 0:
                    await forget_failures(host.service, email)
                started = time.perf_counter()
                with pytest.raises(CredentialsInvalidError):
                    await host.service.sign_in.log_in(
                        email=email, password="wrong wrong", device=a_device(), now=clock.now()
                    )
                if turn >= 5:
                    measured.append(time.perf_counter() - started)
    known, unknown = seconds.values()
    medians = statistics.median(known), statistics.median(unknown)
    assert abs(medians[0] - medians[1]) < 0.05 * medians[0], medians
    assert mann_whitney_p(known, unknown) > 0.01


async def forget_failures(service: AuthServices, email: str) -> None:
    desk = service.sign_in._desk
    async with desk.database.transaction() as transaction:
        await desk.repository.throttles.clear(transaction, desk.policy.throttle.account_key(email))


def mann_whitney_p(first: list[float], second: list[float]) -> float:
    """Return the two-sided p-value by the normal approximation; times have no ties."""
    ranked = sorted([(each, 0) for each in first] + [(each, 1) for each in second])
    ranks = sum(rank for rank, (_, group) in enumerate(ranked, start=1) if group == 0)
    n, m = len(first), len(second)
    u = ranks - n * (n + 1) / 2
    deviation = (n * m * (n + m + 1) / 12) ** 0.5
    return 2 * (1 - statistics.NormalDist().cdf(abs(u - n * m / 2) / deviation))
