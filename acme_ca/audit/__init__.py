"""After the fact: whether all that was issued and revoked is as it had to be."""
