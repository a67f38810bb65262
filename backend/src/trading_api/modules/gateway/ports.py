"""What the gateway needs from outside: the other modules' answers about themselves."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from trading_api.modules.gateway.domain import DocumentKind, Probe


class Modules(Protocol):
    """The modules of this platform, wherever they run."""

    def names(self) -> Sequence[str]:
        """Return the modules that are meant to run."""
        ...

    async def probe(self, module: str) -> Probe:
        """Ask a module how it is; answers within a second, whatever happens."""
        ...

    async def fetch_document(self, module: str, kind: DocumentKind) -> Mapping[str, Any] | None:
        """Fetch a module's document; None where it has none or doesn't answer."""
        ...
