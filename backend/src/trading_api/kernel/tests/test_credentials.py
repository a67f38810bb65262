"""The text of API keys."""

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_api.kernel.credentials import CredentialKind, new_credential, parse_credential


@pytest.mark.parametrize(("kind", "prefix"), [("live", "key_"), ("share", "shr_")])
def test_new_then_its_text_reads_back_and_only_a_hash_is_kept(
    kind: CredentialKind, prefix: str
) -> None:
    text, credential = new_credential(kind, os.urandom)
    assert text.startswith(f"tp_{kind}_") and len(text) == len(f"tp_{kind}_") + 8 + 1 + 43 + 6
    assert parse_credential(text) == credential
    secret = text.split("_")[3][:43]
    assert credential.id == prefix + text.split("_")[2]
    assert credential.secret_hash == hashlib.sha256(secret.encode()).hexdigest()


def test_new_then_no_two_are_alike() -> None:
    made = {new_credential("live", os.urandom)[0] for _ in range(1000)}
    assert len(made) == 1000


@given(seed=st.binary(min_size=48, max_size=48), data=st.data())
def test_parse_when_one_character_is_another_then_refused(seed: bytes, data: st.DataObject) -> None:
    text, _ = new_credential("live", lambda count: seed[:count])
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda each: each != text[place]))
    assert parse_credential(text[:place] + other + text[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "tp_live_", "tp_live_x_y", "tp_dead_" + "0" * 58, "é" * 66])
def test_parse_when_it_is_no_key_then_none(text: str) -> None:
    assert parse_credential(text) is None
