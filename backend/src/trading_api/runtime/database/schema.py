"""Column types and metadata that mean the same on SQLite and PostgreSQL."""

from sqlalchemy import BigInteger, Integer, MetaData, Text

Id = Text().with_variant(Text(collation="C"), "postgresql")
"""An identifier; sorts by bytes on both databases."""

Instant = BigInteger()
"""Microseconds since 1970 UTC; such columns end in ``_at_us``."""

Minor = BigInteger()
"""Minor units of a currency, signed."""

RowNumber = BigInteger().with_variant(Integer(), "sqlite")
"""A database-numbered key; SQLite numbers only INTEGER columns."""

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def module_metadata(module: str) -> MetaData:
    """Return the metadata for a module's tables, in the schema of the module's name.

    On SQLite the module's file is attached under that name.
    """
    return MetaData(schema=module.replace("-", "_"), naming_convention=_NAMING)
