"""Passkeys by the rules of WebAuthn, level 3, with py_webauthn."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from trading_api.modules.auth.errors import PasskeyInvalidError
from trading_api.modules.auth.ports import NewPasskey, PasskeyUse

_REFUSED = "this passkey is not accepted"
_ID_LENGTH_MAX = 1400
"""Of a credential id in base64url; WebAuthn allows 1023 bytes."""


class WebauthnPasskeys:
    """Asks authenticators and checks what they answer.

    The user is always verified, by fingerprint, face or PIN, so a passkey is two factors at once.

    Args:
        site: the platform's address for people; passkeys belong to its host.
        name: the platform's name, as the browser's dialogue shows it.
        origins: further origins whose pages may use them, below the same host.
        any_port: pages of that host may come from any port; for development.
    """

    def __init__(self, *, site: str, name: str, origins: Sequence[str], any_port: bool) -> None:
        self._host = urlsplit(site).hostname or ""
        self._name = name
        self._any_port = any_port
        own = site.rstrip("/")
        self._origins = [own, *(each for each in origins if self._is_below(each))]

    def registration_options(
        self, *, user_id: str, email: str, full_name: str, challenge: str, known: Sequence[str]
    ) -> Mapping[str, Any]:
        """Return what the browser's ``navigator.credentials.create`` takes."""
        options = generate_registration_options(
            rp_id=self._host,
            rp_name=self._name,
            user_id=user_id.encode(),
            user_name=email,
            user_display_name=full_name or email,
            challenge=challenge.encode(),
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=base64url_to_bytes(each)) for each in known
            ],
        )
        made: Mapping[str, Any] = json.loads(options_to_json(options))
        return made

    def sign_in_options(self, *, challenge: str) -> Mapping[str, Any]:
        """Return what the browser's ``navigator.credentials.get`` takes; any passkey will do."""
        options = generate_authentication_options(
            rp_id=self._host,
            challenge=challenge.encode(),
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        made: Mapping[str, Any] = json.loads(options_to_json(options))
        return made

    def challenge_of(self, credential: Mapping[str, Any]) -> str:
        """Return the challenge that an answer says it answers; "" where it says none."""
        try:
            return base64url_to_bytes(_client_data(credential)["challenge"]).decode()
        except (KeyError, TypeError, ValueError, AttributeError):
            return ""

    def credential_id_of(self, credential: Mapping[str, Any]) -> str:
        """Return the id of the passkey that answered; "" where there is none."""
        found = credential.get("id")
        return found if isinstance(found, str) and len(found) <= _ID_LENGTH_MAX else ""

    def check_registration(self, credential: Mapping[str, Any], *, challenge: str) -> NewPasskey:
        """Check a new passkey; raises ``PasskeyInvalidError``."""
        try:
            found = verify_registration_response(
                credential=dict(credential),
                expected_challenge=challenge.encode(),
                expected_rp_id=self._host,
                expected_origin=self._origins_for(credential),
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, TypeError, KeyError) as error:
            raise PasskeyInvalidError(_REFUSED) from error
        return NewPasskey(
            credential_id=bytes_to_base64url(found.credential_id),
            public_key=bytes_to_base64url(found.credential_public_key),
            sign_count=found.sign_count,
            is_backed_up=found.credential_backed_up,
        )

    def check_sign_in(
        self, credential: Mapping[str, Any], *, challenge: str, public_key: str
    ) -> PasskeyUse:
        """Check a passkey's signature; raises ``PasskeyInvalidError``."""
        try:
            found = verify_authentication_response(
                credential=dict(credential),
                expected_challenge=challenge.encode(),
                expected_rp_id=self._host,
                expected_origin=self._origins_for(credential),
                credential_public_key=base64url_to_bytes(public_key),
                credential_current_sign_count=0,  # judged by the domain, which audits a copy
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, TypeError, KeyError) as error:
            raise PasskeyInvalidError(_REFUSED) from error
        return PasskeyUse(found.new_sign_count)

    def _origins_for(self, credential: Mapping[str, Any]) -> list[str]:
        if not self._any_port:
            return self._origins
        claimed = _client_data(credential).get("origin")
        if isinstance(claimed, str) and urlsplit(claimed).hostname == self._host:
            return [*self._origins, claimed]
        return self._origins

    def _is_below(self, origin: str) -> bool:
        host = urlsplit(origin).hostname or ""
        return host == self._host or host.endswith(f".{self._host}")


def _client_data(credential: Mapping[str, Any]) -> dict[str, Any]:
    response = credential["response"]
    found: dict[str, Any] = json.loads(base64url_to_bytes(response["clientDataJSON"]))
    return found
