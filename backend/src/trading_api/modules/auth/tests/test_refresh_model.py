"""Any history of refreshes, on real SQL, against a model of ten lines.

The model knows a family as a list of tokens; the last is the leaf. Whatever the caller does, at
most one token is good, the immediate parent gets the same child within the grace, and any other
reuse ends the family once. Passwords change, users are switched off, clocks go back, processes die
and start again; the stored rows agree with the model and every proof holds after each step.
"""

import asyncio
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import UnauthenticatedError
from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.auth import tables
from trading_api.modules.auth.adapters.sealer import KeySealer
from trading_api.modules.auth.adapters.webauthn_passkeys import WebauthnPasskeys
from trading_api.modules.auth.domain.audit import AuditEntry, Caller
from trading_api.modules.auth.errors import (
    RefreshTokenExpiredError,
    RefreshTokenInvalidError,
    RefreshTokenReusedError,
    SessionEndedError,
)
from trading_api.modules.auth.repository import AuthRepository
from trading_api.modules.auth.repository.audit import AuditRepository
from trading_api.modules.auth.repository.checks import Violation, check_auth
from trading_api.modules.auth.service import AuthServices, Desk, SignIn
from trading_api.modules.auth.tests.builders import (
    PASSWORD,
    Announcements,
    Mails,
    PlainHasher,
    PlainSigner,
    a_device,
    a_policy,
    an_email,
)
from trading_api.runtime.database import Database, Outbox, Transaction
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.migrated import migrate

GRACE_SECONDS, IDLE_SECONDS, END_SECONDS = 10, 7 * 86400, 30 * 86400


@dataclass
class Family:
    session_id: str
    device: str
    opened_at: float
    tokens: list[str] = field(default_factory=list)
    used_at: float = 0
    is_ended: bool = False
    is_expired: bool = False

    @property
    def end(self) -> float:
        return min(self.used_at + IDLE_SECONDS, self.opened_at + END_SECONDS)

    @property
    def is_over(self) -> bool:
        """Tell whether the database has it as ended."""
        return self.is_ended or self.is_expired

    def expected(self, position: int, device: str, now: float) -> type[Exception] | str:
        """Return the error, or which child comes: "new" or "same"."""
        is_leaf = position == len(self.tokens) - 1
        if self.is_ended:
            return SessionEndedError
        if self.is_expired or now >= self.end:
            return RefreshTokenExpiredError
        if is_leaf:
            return "new" if device == self.device else RefreshTokenInvalidError
        is_parent = position == len(self.tokens) - 2
        if is_parent and device == self.device and now - self.used_at <= GRACE_SECONDS:
            return "same"
        return RefreshTokenReusedError


@cache
def migrated_file() -> Path:
    """Migrate a database once; every history begins with a copy of it."""
    path = Path(tempfile.mkdtemp()) / "auth.db"

    async def make() -> None:
        database = Database(f"sqlite+aiosqlite:///{path}", schema="auth")
        await migrate(database, "auth")
        await database.close()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(make())
    loop.close()
    return path


class CrashError(BaseException):
    """The process dies."""


class MortalAudit(AuditRepository):
    """Dies at the last statement before a commit, when told to."""

    dies = False

    async def append(self, transaction: Transaction, entry: AuditEntry) -> None:
        if self.dies:
            raise CrashError
        await super().append(transaction, entry)


class RefreshMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FixedClock()
        self.announcements = Announcements()
        self.families: list[Family] = []
        self.reuses = 0
        self.seed = 0
        self.audit = MortalAudit()
        self.is_active = True
        self.steps = 0
        self.password = PASSWORD
        shutil.copy(migrated_file(), Path(self.folder.name) / "auth.db")
        self.start()

    def start(self) -> None:
        """Start a process on what is stored; nothing else survives from the one before."""
        self.database = Database(
            f"sqlite+aiosqlite:///{Path(self.folder.name)}/auth.db", schema="auth"
        )
        ids = UuidV7Ids()
        self.service = AuthServices(
            Desk(
                database=self.database,
                repository=AuthRepository(audit=self.audit),
                outbox=Outbox(tables.outbox_table, producer="auth", ids=ids, clock=self.clock),
                ids=ids,
                hasher=PlainHasher(),
                signer=PlainSigner(),
                announcer=self.announcements,
                sealer=KeySealer(b"a platform secret for tests"),
                policy=a_policy(),
                random_bytes=self.random_bytes,
            ),
            mailer=Mails(),
            passkeys=WebauthnPasskeys(
                site="http://localhost:8000", name="Trading", origins=(), any_port=False
            ),
        )

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def random_bytes(self, count: int) -> bytes:
        self.seed += 1
        return self.seed.to_bytes(count, "big")

    def now(self) -> float:
        return self.clock.now().timestamp()

    @initialize()
    def begin(self) -> None:
        self.user = self.run(
            self.service.registration.register(
                email=an_email(),
                password=PASSWORD,
                full_name="",
                caller=Caller(""),
                now=self.clock.now(),
            )
        )
        self.log_in("laptop")

    @rule(device=st.sampled_from(["laptop", "phone"]))
    def log_in(self, device: str) -> None:
        if len(self.families) >= 3 or not self.is_active:
            return
        found = self.run(
            self.service.sign_in.log_in(
                email="ann@example.com",
                password=self.password,
                device=a_device(device),
                now=self.clock.now(),
            )
        )
        assert isinstance(found, SignIn)
        family = Family(found.session.id, device, self.now(), [found.refresh_token], self.now())
        self.families.append(family)

    @rule(
        family=st.integers(0, 2),
        back=st.sampled_from([0, 0, 0, 1, 1, 2, 5]),
        is_thief=st.sampled_from([False, False, False, True]),
        times=st.integers(1, 3),
    )
    def refresh(self, family: int, back: int, is_thief: bool, times: int) -> None:
        chosen = self.families[family % len(self.families)]
        position = max(0, len(chosen.tokens) - 1 - back)
        device = "thief" if is_thief else chosen.device
        expected = chosen.expected(position, device, self.now())
        outcomes = self.run(
            self.together(
                *(
                    self.service.sessions.refresh(
                        refresh_token=chosen.tokens[position],
                        device=a_device(device),
                        now=self.clock.now(),
                    )
                    for _ in range(times)
                )
            )
        )
        if isinstance(expected, str):
            children = {each.refresh_token for each in outcomes}
            assert len(children) == 1, "one parent, one child, however many ask at once"
            [child] = children
            if expected == "new":
                assert child not in chosen.tokens
                chosen.tokens.append(child)
                chosen.used_at = self.now()
            else:
                assert child == chosen.tokens[-1]
            return
        assert all(isinstance(each, UnauthenticatedError) for each in outcomes)
        chosen.is_expired |= expected is RefreshTokenExpiredError
        assert type(outcomes[0]) is expected
        if expected is RefreshTokenReusedError:
            assert {type(each) for each in outcomes[1:]} <= {SessionEndedError}
            chosen.is_ended = True
            self.reuses += 1

    @rule(seconds=st.sampled_from([1, 9, 10, 11, 3600, 6 * 86400, 7 * 86400]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(family=st.integers(0, 2), back=st.integers(0, 2))
    def log_out(self, family: int, back: int) -> None:
        chosen = self.families[family % len(self.families)]
        position = max(0, len(chosen.tokens) - 1 - back)
        self.run(
            self.service.sessions.log_out(
                refresh_token=chosen.tokens[position],
                caller=Caller(""),
                now=self.clock.now(),
            )
        )
        self.end(chosen)

    @rule(family=st.integers(0, 2))
    def end_one(self, family: int) -> None:
        chosen = self.families[family % len(self.families)]
        [outcome] = self.run(
            self.together(
                self.service.sessions.end_session(
                    user_id=self.user.id,
                    session_id=chosen.session_id,
                    caller=Caller(""),
                    now=self.clock.now(),
                )
            )
        )
        assert (outcome is None) == (not chosen.is_over)
        self.end(chosen)

    @rule()
    def log_out_everywhere(self) -> None:
        count = self.run(
            self.service.sessions.log_out_everywhere(
                user_id=self.user.id, caller=Caller(""), now=self.clock.now()
            )
        )
        assert count == sum(not each.is_over for each in self.families)
        self.end(*self.families)

    @rule(family=st.integers(0, 2), device=st.sampled_from(["laptop", "phone"]))
    def change_password(self, family: int, device: str) -> None:
        if len(self.families) >= 5 or not self.is_active:
            return
        new = f"{PASSWORD} {self.seed}"
        found = self.run(
            self.service.passwords.change(
                caller=Caller("", self.user.id, self.families[0].session_id),
                current=self.password,
                new=new,
                device=a_device(device),
                now=self.clock.now(),
            )
        )
        self.password = new
        self.end(*self.families)
        opened = Family(found.session.id, device, self.now(), [found.refresh_token], self.now())
        self.families.append(opened)

    @rule()
    def switch(self) -> None:
        self.is_active = not self.is_active
        self.run(
            self.service.users.set_user_active(
                email="ann@example.com", is_active=self.is_active, now=self.clock.now()
            )
        )
        if not self.is_active:
            self.end(*self.families)

    @rule(seconds=st.sampled_from([5, 3600, 86400]))
    def jump_back(self, seconds: int) -> None:
        self.clock.jump(-seconds)

    @rule()
    def restart(self) -> None:
        self.run(self.database.close())
        self.start()

    @rule(family=st.integers(0, 2))
    def crash_while_refreshing(self, family: int) -> None:
        chosen = self.families[family % len(self.families)]
        if chosen.expected(len(chosen.tokens) - 1, chosen.device, self.now()) != "new":
            return
        self.audit.dies = True
        [outcome] = self.run(
            self.together(
                self.service.sessions.refresh(
                    refresh_token=chosen.tokens[-1],
                    device=a_device(chosen.device),
                    now=self.clock.now(),
                )
            )
        )
        assert isinstance(outcome, CrashError)
        self.audit.dies = False
        self.restart()

    def end(self, *families: Family) -> None:
        for each in families:
            each.is_ended |= not each.is_over

    @invariant()
    def each_family_has_its_one_leaf_and_each_end_was_told_once(self) -> None:
        if not self.families:
            return
        stored = {row.id: row for row in self.run(self.rows(tables.sessions))}
        spent = self.run(self.rows(tables.spent_refresh_tokens))
        assert stored.keys() == {each.session_id for each in self.families}
        for each in self.families:
            row = stored[each.session_id]
            assert (row.revoked_at_us is not None) == each.is_over
            of_family = [one for one in spent if one.session_id == each.session_id]
            assert len(of_family) == len(each.tokens) - 1
            assert row.leaf_hash not in {one.token_hash for one in of_family}
        ended = [each.session_id for each in self.families if each.is_ended]
        assert sorted(self.announcements.ended) == sorted(ended)
        audited = [row.action for row in self.run(self.rows(tables.audit_entries))]
        assert audited.count("refresh_reuse") == self.reuses
        assert audited.count("refresh_expired") == sum(each.is_expired for each in self.families)

    @invariant()
    def every_proof_holds(self) -> None:
        self.steps += 1
        if self.families and self.steps % 8 == 0:
            found = self.run(self.proofs())
            assert {each.id for each in found} <= {"T9"}, "T9: the tests' plain hasher"

    def teardown(self) -> None:
        self.run(self.database.close())
        self.loop.close()
        self.folder.cleanup()

    async def together(self, *calls: Any) -> list[Any]:
        return await asyncio.gather(*calls, return_exceptions=True)

    async def proofs(self) -> list[Violation]:
        async with self.database.snapshot() as transaction:
            return await check_auth(transaction, now_us=to_us(self.clock.now()))

    async def rows(self, table: sa.Table) -> Any:
        async with self.database.snapshot() as transaction:
            return await transaction.all(sa.select(table))


TestRefresh = RefreshMachine.TestCase
TestRefresh.settings = hypothesis_settings(
    max_examples=6, stateful_step_count=20, deadline=None, print_blob=True
)


class LongRefreshMachine(RefreshMachine):
    """The same, for hours of nobody's time."""


TestRefreshLong = pytest.mark.timeout(3600)(pytest.mark.nightly(LongRefreshMachine.TestCase))
TestRefreshLong.settings = hypothesis_settings(
    max_examples=200, stateful_step_count=100, deadline=None, print_blob=True
)
