"""Two third-party modules, found by entry point: what the manager's tests run as a fleet."""

import os

from starlette.requests import Request

from trading_api.runtime.http.access import Access
from trading_api.runtime.http.routing import ModuleRouter
from trading_api.runtime.http.wire import ResponseModel
from trading_api.runtime.module import Command, Manifest, Module, ModuleContext, ModuleParts


class EchoView(ResponseModel):
    """Who answered."""

    process: str
    pid: int
    greeting: str


class LengthView(ResponseModel):
    """What arrived."""

    length: int
    headers: dict[str, str]


class _StandIn(Module):
    def build(self, context: ModuleContext) -> ModuleParts:
        if context.environ.get("STAND_IN_FAILS") == context.name:
            raise RuntimeError(f"{context.name} was told to fail")
        router = ModuleRouter(tags=[context.name])

        @router.get("/who", access=Access.public(), response_model=EchoView)
        async def get_who() -> EchoView:
            """Tell which process answers."""
            greeting = context.environ.get("GREETING", "")
            return EchoView(process=context.process_name, pid=os.getpid(), greeting=greeting)

        @router.post("/length", access=Access.public(), response_model=LengthView)
        async def post_length(request: Request) -> LengthView:
            """Tell how long the body was, and who is said to have sent it."""
            names = [name for name in request.headers if name.startswith(("x-", "forwarded"))]
            return LengthView(
                length=len(await request.body()),
                headers={name: request.headers[name] for name in names},
            )

        async def greet(arguments: object) -> int:
            print("hello from", context.name, arguments)
            return 0

        return ModuleParts(routers={"v1": router}, commands=[Command("greet", "Say hello.", greet)])

    async def start(self) -> None:
        if os.environ.get("STAND_IN_FAILS_AT_START") == self.manifest.name:
            raise RuntimeError(f"{self.manifest.name} can't start today")


class EchoModule(_StandIn):
    """The first."""

    manifest = Manifest(name="echo", summary="answers", needs_database=False)


class TallyModule(_StandIn):
    """The second."""

    manifest = Manifest(name="tally", summary="counts", needs_database=False)
