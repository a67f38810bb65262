"""Who may call a route: declared once beside it, enforced before its handler, shown in OpenAPI."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends
from starlette.requests import Request

from trading_api.kernel.errors import PermissionDeniedError, UnauthenticatedError
from trading_api.runtime.identity import Identity, Principal

IDENTITY_KEY = "trading.identity"
PRINCIPAL_KEY = "trading.principal"


@dataclass(frozen=True, slots=True)
class Access:
    """What a principal needs for a route.

    Attributes:
        kind: ``public`` needs nobody; ``user`` any signed-in principal; ``internal`` another
            module of this platform.
        scope: ``<module>:read|trade|withdraw|manage`` the principal must have; None for no
            particular one.
        one_of_roles: roles of which one is needed; empty for no particular one.
        with_keys: API keys may come although no scope is asked for. Otherwise a key passes only
            where a scope says what it may.
        shared: bearers of a share token may come; the route then shows them nothing but the
            account in ``Principal.account_id``.
    """

    kind: Literal["public", "user", "internal"]
    needed_scope: str | None = None
    one_of_roles: frozenset[str] = frozenset()
    with_keys: bool = False
    shared: bool = False

    @classmethod
    def public(cls) -> "Access":
        """Open to all; the principal is known where there is one."""
        return cls("public")

    @classmethod
    def user(cls, *, with_keys: bool = False) -> "Access":
        """Any signed-in principal."""
        return cls("user", with_keys=with_keys)

    @classmethod
    def scope(cls, scope: str, *, shared: bool = False) -> "Access":
        """A principal with that scope."""
        return cls("user", needed_scope=scope, with_keys=True, shared=shared)

    @classmethod
    def roles(cls, *roles: str, scope: str | None = None) -> "Access":
        """A principal with one of those roles, and the scope where one is named."""
        return cls(
            "user",
            needed_scope=scope,
            one_of_roles=frozenset(roles),
            with_keys=scope is not None,
        )

    @classmethod
    def internal(cls) -> "Access":
        """Another module of this platform; nginx routes no such path."""
        return cls("internal")

    def ensure_allows(self, principal: Principal | None) -> None:
        """Check a principal against this declaration.

        Raises:
            UnauthenticatedError: nobody is asking, and somebody must.
            PermissionDeniedError: the scope, role or service identity is missing.
        """
        if self.kind == "public":
            return
        if principal is None:
            raise UnauthenticatedError("this needs a sign-in: log in, or send a bearer token")
        if self.kind == "internal":
            if principal.carrier != "service":
                raise PermissionDeniedError("only modules of this platform may call this")
            return
        if principal.carrier == "api_key" and not self.with_keys:
            raise PermissionDeniedError("this needs a sign-in by a person, not an API key")
        if principal.account_id is not None and not self.shared:
            raise PermissionDeniedError("a share token shows one trading account and nothing else")
        if self.needed_scope is not None and self.needed_scope not in principal.scopes:
            raise PermissionDeniedError(
                f"this needs the scope {self.needed_scope}", scope=self.needed_scope
            )
        if self.one_of_roles and not self.one_of_roles & principal.roles:
            raise PermissionDeniedError(
                f"this needs the role {' or '.join(sorted(self.one_of_roles))}"
            )


async def authorize(request: Request, access: Access) -> Principal | None:
    """Find out who is asking, check the route's declaration, and keep the principal for it."""
    identity: Identity = request.scope[IDENTITY_KEY]
    try:
        principal = await identity.authenticate(request.scope)
    except UnauthenticatedError:
        # Who comes to sign in again mustn't be stopped by the cookie of an ended session.
        if access.kind != "public":
            raise
        principal = None
    access.ensure_allows(principal)
    request.scope[PRINCIPAL_KEY] = principal
    return principal


async def _current(request: Request) -> Principal:
    principal: Principal | None = request.scope.get(PRINCIPAL_KEY)
    if principal is None:
        raise UnauthenticatedError("this needs a sign-in: log in, or send a bearer token")
    return principal


async def _optional(request: Request) -> Principal | None:
    principal: Principal | None = request.scope.get(PRINCIPAL_KEY)
    return principal


CurrentPrincipal = Annotated[Principal, Depends(_current)]
OptionalPrincipal = Annotated[Principal | None, Depends(_optional)]
