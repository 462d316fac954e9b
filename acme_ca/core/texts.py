"""What texts that operators give may hold."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""No control characters: it is shown on terminals, and PostgreSQL keeps no NUL."""
ShortText = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]
MAX_URL = 500


def web_address(text: str) -> str:
    """The text, if it is an http or https URL that can stand in a header. Raises ValueError with a sentence."""
    if not text.isascii() or not text.isprintable() or any(mark in text for mark in ' <>"'):
        raise ValueError("a URL has printable ASCII characters only, and no spaces, quotes or angle brackets")
    parts = urlsplit(text)  # raises ValueError, and so does a port that is none
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("give an http or https URL with a host")
    if "@" in parts.netloc:
        raise ValueError("a URL with a user name or password is not kept here; leave them out")
    return text


WebAddress = Annotated[str, Field(max_length=MAX_URL), AfterValidator(web_address)]
