"""Cursors: what comes back is what was put in, and nothing else is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_api.runtime.http.cursors import CursorInvalidError, Cursors

CURSORS = Cursors(b"secret", purpose="test.items")
names = st.text(st.characters(codec="ascii"), max_size=5)
numbers = st.integers(-(2**63), 2**63)
positions = st.dictionaries(names, numbers | st.text(max_size=10), max_size=4)


@given(positions, positions)
def test_cursor_when_decoded_under_its_filters_then_the_position(position, filters):
    cursor = CURSORS.encode(position, filters=filters)
    assert CURSORS.decode(cursor, filters=filters) == position
    with pytest.raises(CursorInvalidError):
        CURSORS.decode(cursor, filters={**filters, "more": 1})


@given(st.text(max_size=600))
def test_cursor_when_made_up_then_refused(text):
    with pytest.raises(CursorInvalidError):
        CURSORS.decode(text, filters={})


def test_cursor_when_any_character_is_changed_then_refused():
    cursor = CURSORS.encode({"at": 12}, filters={})
    for index, character in enumerate(cursor[:-1]):
        edited = cursor[:index] + ("A" if character != "A" else "B") + cursor[index + 1 :]
        with pytest.raises(CursorInvalidError):
            CURSORS.decode(edited, filters={})


@pytest.mark.parametrize(
    "other", [Cursors(b"other", purpose="test.items"), Cursors(b"secret", purpose="test.others")]
)
def test_cursor_when_of_another_list_or_host_then_refused(other):
    with pytest.raises(CursorInvalidError):
        other.decode(CURSORS.encode({"at": 12}, filters={}), filters={})
