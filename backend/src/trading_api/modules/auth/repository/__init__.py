"""Queries of auth: rows to domain values and back. Never commits."""

from dataclasses import dataclass, field

from trading_api.modules.auth.repository.api_keys import ApiKeyRepository
from trading_api.modules.auth.repository.audit import AuditRepository
from trading_api.modules.auth.repository.external import ExternalRepository
from trading_api.modules.auth.repository.mails import MailRepository
from trading_api.modules.auth.repository.passkeys import PasskeyRepository
from trading_api.modules.auth.repository.second_factors import SecondFactorRepository
from trading_api.modules.auth.repository.sessions import SessionRepository
from trading_api.modules.auth.repository.throttles import ThrottleRepository
from trading_api.modules.auth.repository.tickets import TicketRepository
from trading_api.modules.auth.repository.users import UserRepository


@dataclass(frozen=True, slots=True)
class AuthRepository:
    """Auth's own tables, by what they are about; used inside the caller's transaction."""

    users: UserRepository = field(default_factory=UserRepository)
    sessions: SessionRepository = field(default_factory=SessionRepository)
    api_keys: ApiKeyRepository = field(default_factory=ApiKeyRepository)
    external: ExternalRepository = field(default_factory=ExternalRepository)
    throttles: ThrottleRepository = field(default_factory=ThrottleRepository)
    audit: AuditRepository = field(default_factory=AuditRepository)
    tickets: TicketRepository = field(default_factory=TicketRepository)
    second_factors: SecondFactorRepository = field(default_factory=SecondFactorRepository)
    passkeys: PasskeyRepository = field(default_factory=PasskeyRepository)
    mails: MailRepository = field(default_factory=MailRepository)


__all__ = ["AuthRepository"]
