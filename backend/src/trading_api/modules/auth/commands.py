"""Verbs of the manager that auth brings: ``users`` and ``keys``.

They work on the database and the secrets of this host, whether or not auth is running; running
processes learn of ended sessions within seconds.
"""

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import TradingError
from trading_api.modules.auth.domain import Role, User, parse_email
from trading_api.modules.auth.domain.audit import HOST
from trading_api.modules.auth.schemas import AdministeredUserView, UserView
from trading_api.modules.auth.service import AuthServices
from trading_api.runtime.identity import access_token_seconds_max
from trading_api.runtime.module import Command
from trading_api.runtime.secrets import SIGNING_ALGORITHMS, list_signing_keys, rotate_signing_key
from trading_api.runtime.settings import PlatformSettings

KEY_OVERLAP_SECONDS_MIN = 900
"""Every token of the old key has expired by then, and every cache of the key set is renewed."""

Run = Callable[[argparse.Namespace], Awaitable[int]]


def commands(
    service: AuthServices, *, settings: PlatformSettings, clock: Clock
) -> tuple[Command, ...]:
    """Return the verbs."""
    users = _Users(service, settings, clock)
    keys = _Keys(settings, clock)
    return (
        Command(
            "users",
            "list, show, create, disable, enable users; roles, passwords, sign-ins, tokens",
            users.run,
        ),
        Command("keys", "list and rotate the keys that sign access tokens", keys.run),
    )


class _Users:
    def __init__(self, service: AuthServices, settings: PlatformSettings, clock: Clock) -> None:
        self._service = service
        self._settings = settings
        self._clock = clock

    async def run(self, arguments: Sequence[str]) -> int:
        parser = argparse.ArgumentParser(prog="trading-api users")
        verbs = parser.add_subparsers(dest="verb", required=True)
        _verb(verbs, "list", self._list, "list users").add_argument("--json", action="store_true")
        create = _verb(verbs, "create", self._create, "make a user; asks for the password")
        create.add_argument("email")
        create.add_argument("--name", default="", help="full name")
        create.add_argument("--role", action="append", choices=list(Role), default=[])
        create.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input"
        )
        token = _verb(verbs, "token", self._token, "issue an access token")
        token.add_argument("email")
        token.add_argument(
            "--minutes", type=int, default=None, help="life; 10 in production, else up to 720"
        )
        for name, text in (("disable", "switch a user off"), ("enable", "switch a user on")):
            _verb(verbs, name, self._switch, text).add_argument("email")
        _verb(verbs, "show", self._show, "show a user with sign-ins").add_argument("email")
        password = _verb(verbs, "password", self._password, "set a password; ends every sign-in")
        password.add_argument("email")
        password.add_argument(
            "--password-stdin", action="store_true", help="read the password from standard input"
        )
        sessions = _verb(verbs, "sessions", self._sessions, "list a user's sign-ins, or end them")
        sessions.add_argument("email")
        sessions.add_argument("--end", action="store_true", help="end all of them")
        role = _verb(verbs, "role", self._role, "give a user exactly these roles")
        role.add_argument("email")
        role.add_argument("roles", nargs="+", choices=list(Role))
        return await _run(parser, arguments)

    async def _list(self, options: argparse.Namespace) -> int:
        users = await self._service.users.list_users()
        if options.json:
            _say(json.dumps([UserView.of(each).model_dump(mode="json") for each in users]))
            return 0
        for each in users:
            _say(_line(each))
        return 0

    async def _create(self, options: argparse.Namespace) -> int:
        email = parse_email(options.email)
        password = await asyncio.to_thread(_ask_password, from_stdin=options.password_stdin)
        user = await self._service.registration.register(
            email=email,
            password=password,
            full_name=options.name,
            caller=HOST,
            now=self._clock.now(),
            roles=frozenset(Role(each) for each in options.role) or frozenset({Role.USER}),
        )
        _say(_line(user))
        return 0

    async def _token(self, options: argparse.Namespace) -> int:
        longest = access_token_seconds_max(self._settings)
        seconds = longest if options.minutes is None else min(options.minutes * 60, longest)
        if seconds < 1:
            _complain("a token lives a minute at least")
            return 2
        token = await self._service.users.issue_token(
            email=options.email, lifetime=timedelta(seconds=seconds), now=self._clock.now()
        )
        _say(token)
        return 0

    async def _switch(self, options: argparse.Namespace) -> int:
        user = await self._service.users.set_user_active(
            email=options.email, is_active=options.verb == "enable", now=self._clock.now()
        )
        _say(_line(user))
        return 0

    async def _show(self, options: argparse.Namespace) -> int:
        user = await self._service.users.get_by_email(email=options.email)
        factor = await self._service.second_factor.get_status(user_id=user.id)
        view = {
            **AdministeredUserView.of_user(user).model_dump(mode="json"),
            "second_factor": factor.enabled_at is not None,
            "recovery_codes_left": factor.recovery_codes_left,
            "passkeys": factor.passkeys,
        }
        _say(json.dumps(view, indent=1))
        return 0

    async def _password(self, options: argparse.Namespace) -> int:
        password = await asyncio.to_thread(_ask_password, from_stdin=options.password_stdin)
        user = await self._service.passwords.set_by_operator(
            email=options.email, new=password, now=self._clock.now()
        )
        _say(_line(user))
        return 0

    async def _sessions(self, options: argparse.Namespace) -> int:
        now = self._clock.now()
        user = await self._service.users.get_by_email(email=options.email)
        if options.end:
            count = await self._service.sessions.log_out_everywhere(
                user_id=user.id, caller=HOST, now=now
            )
            _say(f"{count} ended")
            return 0
        for each in await self._service.sessions.list_sessions(user_id=user.id, now=now):
            _say(
                f"{each.id}  {each.last_used_at:%Y-%m-%d %H:%M}  {each.address:15}  "
                f"{each.user_agent[:60]}"
            )
        return 0

    async def _role(self, options: argparse.Namespace) -> int:
        user = await self._service.users.set_roles(
            email=options.email,
            roles=frozenset(Role(each) for each in options.roles),
            now=self._clock.now(),
        )
        _say(_line(user))
        return 0


class _Keys:
    def __init__(self, settings: PlatformSettings, clock: Clock) -> None:
        self._directory = settings.secrets_directory
        self._is_mounted = settings.jwt_private_key_path is not None
        # Issued tokens for work on a module may live longer than those of sign-ins.
        self._overlap_seconds = max(KEY_OVERLAP_SECONDS_MIN, access_token_seconds_max(settings))
        self._clock = clock

    async def run(self, arguments: Sequence[str]) -> int:
        parser = argparse.ArgumentParser(prog="trading-api keys")
        verbs = parser.add_subparsers(dest="verb", required=True)
        _verb(verbs, "list", self._list, "list the keys that verify tokens")
        rotate = _verb(verbs, "rotate", self._rotate, "sign with a new key from now on")
        rotate.add_argument(
            "--overlap-seconds",
            type=int,
            default=self._overlap_seconds,
            help="how long tokens of the old key stay good; 0 when it leaked",
        )
        rotate.add_argument(
            "--algorithm",
            choices=SIGNING_ALGORITHMS,
            default=None,
            help="of the new key; that of the old one where absent",
        )
        return await _run(parser, arguments)

    async def _list(self, _options: argparse.Namespace) -> int:
        for kid, retires_at in list_signing_keys(self._directory):
            end = "signs" if retires_at is None else f"verifies until {_instant(retires_at)}"
            _say(f"{kid}  {end}")
        return 0

    async def _rotate(self, options: argparse.Namespace) -> int:
        if self._is_mounted:
            _complain("the signing key is mounted; rotate it where it comes from")
            return 2
        now_seconds = int(self._clock.now().timestamp())
        kid = rotate_signing_key(
            self._directory,
            now_seconds=now_seconds,
            overlap_seconds=options.overlap_seconds,
            algorithm=options.algorithm,
        )
        _say(f"{kid}  signs")
        return 0


async def _run(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    try:
        options = parser.parse_args(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    run: Run = options.run
    try:
        return await run(options)
    except TradingError as error:
        _complain(error.message)
        return 1


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Run, text: str
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text)
    parser.set_defaults(run=run)
    return parser


def _ask_password(*, from_stdin: bool) -> str:
    if from_stdin or not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return getpass.getpass("Password: ")


def _line(user: User) -> str:
    state = "active" if user.is_active else "disabled"
    return f"{user.id}  {state:8}  {','.join(sorted(user.roles)):20}  {user.email.address}"


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _complain(line: str) -> None:
    sys.stderr.write(f"{line}\n")
