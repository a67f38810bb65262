"""Generated requests over every module's specification, through nginx: never a server error."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.journeys.conftest import ON_ONE, Person

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"
MODULES = ("auth", "broker", "datafeed", "gateway", "wallet")

LEFT_OUT = "/(logout|logout-all|password|revoke|streaming)"
"""What ends the session that asks, and what never ends."""


async def fuzz(module: str, person: Person, folder: Path, *, phases: str, examples: int) -> None:
    specification = await person.client.get(f"/api/v1/{module}/openapi.json")
    assert specification.status_code == 200
    done = await asyncio.to_thread(
        subprocess.run,
        [
            str(Path(sys.executable).with_name("schemathesis")), "run",
            f"{person.fleet.url}/api/v1/{module}/openapi.json",
            "--checks", CHECKS,
            "--phases", phases,
            "--max-examples", str(examples),
            "--exclude-path-regex", LEFT_OUT,
            "--continue-on-failure",
            "--request-timeout", "10",
            "--header", f"Authorization: Bearer {person.token}",
        ],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    # The failures stand before the summary.
    said = done.stdout.partition("= WARNINGS =")[0]
    assert done.returncode == 0, said[-8000:] + done.stderr[-2000:]
    assert "operation" in done.stdout.casefold()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fleet", ON_ONE, indirect=True)
@pytest.mark.parametrize("module", MODULES)
async def test_specification_when_fuzzed_then_every_answer_is_documented(
    module: str, person: Person, tmp_path: Path
):
    await fuzz(module, person, tmp_path, phases="examples,coverage", examples=1)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("module", MODULES)
async def test_specification_when_fuzzed_at_length_then_every_answer_is_documented(
    module: str, person: Person, tmp_path: Path
):
    await fuzz(module, person, tmp_path, phases="examples,coverage,fuzzing", examples=100)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/api/v1/broker/executions", "application/problem+json"),
        ("/api/v1/datafeed/udf/quotes", "application/json"),
    ],
)
async def test_address_when_too_long_then_refused_as_documented(
    path: str, media_type: str, person: Person
):
    answer = await person.client.get(path, params={"symbols": "A" * 9_000})
    assert (answer.status_code, answer.headers["content-type"]) == (414, media_type)
    if media_type == "application/json":
        assert answer.json()["s"] == "error"
    module = path.split("/")[3]
    document = await person.get(f"/api/v1/{module}/openapi.json")
    assert media_type in document["paths"][path]["get"]["responses"]["414"]["content"]
