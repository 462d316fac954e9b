"""What texts that operators give may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""No control characters: it is shown on terminals, and PostgreSQL keeps no NUL."""
ShortText = Annotated[str, Field(min_length=1, max_length=200, pattern=PRINTABLE)]
