"""Proving control of identifiers: the only code that dials strangers."""
