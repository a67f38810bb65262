"""What modules publish to one another: frozen messages, one file per publishing module.

Readers ignore fields they don't know, so a publisher may add; it never removes or renames
within a version.
"""
