"""Mails handed to an SMTP server."""

import ssl
from typing import Literal

import aiosmtplib

from trading_api.modules.auth.adapters.file_mailer import encode
from trading_api.modules.auth.domain.mail import Message
from trading_api.modules.auth.ports import MailError

Security = Literal["starttls", "tls", "none"]


class SmtpMailer:
    """Sends each mail over a connection of its own.

    Args:
        security: ``starttls`` and ``tls`` verify the server's certificate; ``none`` is for a server
            on the same host.
        username: None where the server asks for none.
        tls: certificates to trust; the system's where None.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        security: Security,
        username: str | None,
        password: str | None,
        sender: str,
        timeout_seconds: float = 20.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._security = security
        self._username = username
        self._password = password
        self._sender = sender
        self._timeout = timeout_seconds
        self._tls = tls

    async def send(self, message: Message) -> None:
        """Hand a mail over.

        Raises:
            MailError: the server refused it or can't be reached.
        """
        try:
            await aiosmtplib.send(
                encode(message, sender=self._sender),
                hostname=self._host,
                port=self._port,
                username=self._username,
                password=self._password,
                use_tls=self._security == "tls",
                start_tls=self._security == "starttls",
                tls_context=self._tls,
                timeout=self._timeout,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            is_final = all(500 <= each.code < 600 for each in error.recipients)
            raise MailError("the recipient was refused", is_final=is_final) from error
        except aiosmtplib.SMTPResponseException as error:
            # 535 and such are about us, not about the mail: an operator may set it right.
            is_final = 550 <= error.code < 560
            raise MailError(f"the server answered {error.code}", is_final=is_final) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise MailError(f"{type(error).__name__}: no mail server", is_final=False) from error
