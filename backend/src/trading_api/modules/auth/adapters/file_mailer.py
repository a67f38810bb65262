"""Mails as files, for development: whoever runs the host reads them."""

import asyncio
import os
from email.message import EmailMessage
from pathlib import Path

from trading_api.modules.auth.domain.mail import Message


class FileMailer:
    """Writes each mail to a file ``<id>.eml`` of mode 0600.

    Args:
        directory: made when the first mail comes.
        sender: the From address.
    """

    def __init__(self, directory: Path, *, sender: str) -> None:
        self._directory = directory
        self._sender = sender

    async def send(self, message: Message) -> None:
        """Write the file; a repeat replaces it."""
        await asyncio.to_thread(self._write, message)

    def _write(self, message: Message) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / f"{message.id}.eml"
        temporary = path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(message, sender=self._sender).as_bytes())
        temporary.replace(path)


def encode(message: Message, *, sender: str) -> EmailMessage:
    """Write a mail as RFC 5322 wants it; a repeat has the same Message-ID."""
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = message.recipient
    mail["Subject"] = message.subject
    mail["Message-ID"] = f"<{message.id}@{sender.rpartition('@')[2].rstrip('>')}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(message.text)
    return mail
