"""What a newcomer tries first: commands that work by copy and paste, for the modules that run."""

from __future__ import annotations

from trading_api.manager.state import FleetState

# Raw text, as a shell reads it. The password is an example for a development fleet.
_BY_MODULE = {
    "auth": r"""
ME='{"email":"me@example.com","password":"correct horse battery","full_name":"Me"}'
LOGIN='{"email":"me@example.com","password":"correct horse battery"}'
PICK='import json,sys; print(json.load(sys.stdin)["access_token"])'
ask() { curl -sw '\n' -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' "$@"; }
ask $URL/api/v1/auth/register -d "$ME"
TOKEN=$(ask $URL/api/v1/auth/login -d "$LOGIN" | python3 -c "$PICK")
""",
    "datafeed": r"""
ask "$URL/api/v1/datafeed/search?user_input=AAPL"
YEAR_2012='resolution=1D&from=1325376000&to=1356998400&countback=5'
ask "$URL/api/v1/datafeed/udf/history?symbol=HIST:AAPL&$YEAR_2012"
""",
    "broker": r"""
ask $URL/api/v1/broker/orders -d '{"symbol":"DEMO:AAPL","type":2,"side":1,"qty":10}'
ask $URL/api/v1/broker/positions
""",
    "wallet": r"""
ask $URL/api/v1/wallet
""",
    "gateway": r"""
curl -sw '\n' $URL/health
""",
}


def first_steps(state: FleetState) -> str:
    """Return shell commands from registering to a first order, fit for the running modules.

    The others need the sign-in of `auth`; without it they are left out.
    """
    running = [name for name in _BY_MODULE if name in state.modules]
    if "auth" not in running:
        running = [name for name in running if name == "gateway"]
    if not running:
        return ""
    text = "\n".join(_BY_MODULE[name].strip() for name in running)
    return f"First steps:\n\nURL={state.base_url}\n{text}\n"
