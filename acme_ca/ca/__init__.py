"""Issuing: the only code that touches private keys."""
