"""What a newcomer tries first: commands that work by copy and paste, for the modules that run."""

from __future__ import annotations

from trading_api.manager.state import FleetState

_PASSWORD = "correct horse battery"  # noqa: S105 - an example for a development fleet
_PICK_ACCESS = """python3 -c 'import json,sys; print(json.load(sys.stdin)["access_token"])'"""
_HISTORY_OF_2012 = "symbol=HIST:AAPL&resolution=1D&from=1325376000&to=1356998400&countback=5"


def first_steps(state: FleetState) -> str:
    """Return shell commands from registering to a first order, fit for the running modules."""
    base = state.base_url
    modules = set(state.modules)
    lines = [f"URL={base}"]
    if "auth" in modules:
        person = f'{{"email":"me@example.com","password":"{_PASSWORD}"'
        lines += [
            "J='content-type: application/json'",
            f'curl -s $URL/api/v1/auth/register -H "$J" -d \'{person},"full_name":"Me"}}\'',
            f"TOKEN=$(curl -s $URL/api/v1/auth/login -H \"$J\" -d '{person}}}' | {_PICK_ACCESS})",
            'AUTH="authorization: Bearer $TOKEN"',
        ]
    if "datafeed" in modules:
        lines += [
            'curl -s -H "$AUTH" "$URL/api/v1/datafeed/search?user_input=AAPL"',
            f'curl -s "$URL/api/v1/datafeed/udf/history?{_HISTORY_OF_2012}"',
        ]
    if "gateway" in modules:
        lines.append("curl -s $URL/health")
    return "Try:\n\n" + "\n".join(lines) + "\n"
