"""Use cases of auth: each public method is one atomic unit and returns after its commit."""

from collections.abc import Sequence

from trading_api.modules.auth.ports import IdentityProvider, Mailer, PasskeyChecker
from trading_api.modules.auth.service.administration import AdministrationService
from trading_api.modules.auth.service.api_keys import ApiKeyService
from trading_api.modules.auth.service.credentials import Credentials
from trading_api.modules.auth.service.desk import AuthPolicy, Challenge, Desk, SignIn
from trading_api.modules.auth.service.external import ExternalService
from trading_api.modules.auth.service.mail import MailService
from trading_api.modules.auth.service.passkeys import PasskeyService
from trading_api.modules.auth.service.passwords import PasswordService
from trading_api.modules.auth.service.registration import RegistrationService
from trading_api.modules.auth.service.second_factor import SecondFactorService
from trading_api.modules.auth.service.sessions import REVOCATIONS_MAX, SessionService
from trading_api.modules.auth.service.sign_in import SignInService
from trading_api.modules.auth.service.tokens import TokenService
from trading_api.modules.auth.service.users import UserService


class AuthServices:
    """Every use case of auth, by what it is about.

    Args:
        desk: the parts they share.
        mailer: who takes the mails.
        passkeys: who speaks WebAuthn.
        providers: outside ones to sign in by.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        mailer: Mailer,
        passkeys: PasskeyChecker,
        providers: Sequence[IdentityProvider] = (),
    ) -> None:
        credentials = Credentials(desk)
        self.policy = desk.policy
        self.registration = RegistrationService(desk, credentials)
        self.sign_in = SignInService(desk, credentials)
        self.second_factor = SecondFactorService(desk, credentials, issuer=desk.policy.name)
        self.passwords = PasswordService(desk, credentials)
        self.passkeys = PasskeyService(desk, credentials, passkeys)
        self.sessions = SessionService(desk)
        self.administration = AdministrationService(desk)
        self.users = UserService(desk)
        self.api_keys = ApiKeyService(desk, credentials)
        self.external = ExternalService(desk, providers)
        self.tokens = TokenService(desk)
        self.mail = MailService(desk, mailer)


__all__ = ["REVOCATIONS_MAX", "AuthPolicy", "AuthServices", "Challenge", "Desk", "SignIn"]
