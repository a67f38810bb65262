"""What lies outside: the bundled files."""
