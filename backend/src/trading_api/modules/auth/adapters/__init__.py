"""What auth uses of the outside: Argon2, the signing key's file, the bus."""
