"""Requests framed in ways that two servers could read differently: nginx settles them all."""

import asyncio

import pytest

from trading_api.testkit.fleet import Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]

PATH = "/api/v1/auth/login"
HOST = "Host: 127.0.0.1\r\n"
JSON = "Content-Type: application/json\r\n"
BODY = '{"email":"a@example.com","password":"x"}'
CHUNKED = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"
LENGTH = f"Content-Length: {len(BODY)}\r\n"
CHUNKS = "Transfer-Encoding: chunked\r\n"
REACHED = 401
"""The body was read by auth, which knows no such user."""
EITHER = -1
"""400 or ``REACHED``: older servers read it, newer ones refuse it; both frame it once."""


def post(headers: str, body: str = BODY, *, host: str = HOST, version: str = "1.1") -> str:
    return f"POST {PATH} HTTP/{version}\r\n{host}{JSON}{headers}Connection: close\r\n\r\n{body}"


CASES = {
    "plain": (post(LENGTH), REACHED),
    "chunked": (post(CHUNKS, CHUNKED), REACHED),
    "length and chunked": (post(LENGTH + CHUNKS, CHUNKED), 400),
    "chunked and length": (post(CHUNKS + LENGTH, CHUNKED), 400),
    "two equal lengths": (post(LENGTH + LENGTH), 400),
    "two lengths": (post(LENGTH + "Content-Length: 3\r\n"), 400),
    "length with a plus": (post(f"Content-Length: +{len(BODY)}\r\n"), 400),
    "length as a list": (post(f"Content-Length: {len(BODY)}, {len(BODY)}\r\n"), 400),
    "length negative": (post("Content-Length: -1\r\n"), 400),
    "length in hexadecimal": (post("Content-Length: 0x10\r\n"), 400),
    "space before the colon": (post(f"Content-Length : {len(BODY)}\r\n"), 400),
    "two codings": (post(CHUNKS + CHUNKS, CHUNKED), 400),
    "folded header": (post(f"{LENGTH}X-Folded: a\r\n b\r\n"), 400),
    "no host": (post(LENGTH, host=""), 400),
    "two hosts": (post(LENGTH, host=HOST + "Host: evil.example\r\n"), 400),
    "NUL in a header": (post(LENGTH + "X-Nul: a\x00b\r\n"), 400),
    "HTTP/1.0 and chunked": (post(CHUNKS, CHUNKED, version="1.0"), 400),
    "chunk's size overflows": (post(CHUNKS, "FFFFFFFFFFFFFFFFF\r\n" + BODY), 400),
    "chunk's size is no number": (post(CHUNKS, "zz\r\n" + BODY), 400),
    "unknown coding": (post("Transfer-Encoding: xchunked\r\n", CHUNKED), 501),
    "chunked, identity": (post("Transfer-Encoding: chunked, identity\r\n", CHUNKED), 501),
    "too long a body": (post("Content-Length: 99999999\r\n", ""), 413),
    "TRACE": (f"TRACE / HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n", 405),
    "bare line feeds": (post(LENGTH).replace("\r\n", "\n"), EITHER),
    "bare line feed behind a chunk": (
        post(CHUNKS, f"{len(BODY):x};a=b\n{BODY}\r\n0\r\n\r\n"),
        EITHER,
    ),
    "headers too large": (post(LENGTH + f"X-Large: {'a' * 40_000}\r\n"), 400),
    "underscored header": (post(LENGTH + "Content_Length: 3\r\n"), REACHED),
}


@pytest.mark.parametrize("name", CASES)
async def test_request_when_oddly_framed_then_one_answer_and_never_a_second_request(
    fleet: Fleet, name: str
) -> None:
    sent, status = CASES[name]
    # What a smuggler hides behind the body; it must never be answered as a request of its own.
    hidden = f"GET /api/v1/auth/hidden HTTP/1.1\r\n{HOST}\r\n"
    answer = await exchange(fleet, sent.encode("latin-1") + hidden.encode())
    allowed = (400, REACHED) if status == EITHER else (status,)
    assert int(answer.split(b" ", 2)[1]) in allowed, answer[:300]
    assert answer.count(b"HTTP/1.") == 1, answer
    assert b"hidden" not in answer


async def exchange(fleet: Fleet, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", fleet.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            await writer.drain()
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/metrics/",
        "/internal/v1/auth/revocations",
        "/INTERNAL/../internal/v1/auth/revocations",
        "/api/v1/auth/..%2f..%2f..%2finternal/v1/auth/revocations",
        "/api/v1/auth/%2e%2e/%2e%2e/%2e%2e/internal/v1/auth/revocations",
        "/api/v1/auth/..;/internal/v1/auth/revocations",
        "//internal/v1/auth/revocations",
        "/./internal/v1/auth/revocations",
        "/api/v1/auth/me%00",
        "/api/v1/../../etc/passwd",
        "/docs/assets/..%2f..%2f..%2fetc/passwd",
        "/livez",
        "/readyz",
    ],
)
async def test_path_when_it_leads_inside_then_nothing_is_there(fleet: Fleet, path: str) -> None:
    answer = await exchange(
        fleet, f"GET {path} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n".encode()
    )
    assert int(answer.split(b" ", 2)[1]) in (400, 404), answer[:300]
    assert b"root:" not in answer
    assert b"as_of_us" not in answer
