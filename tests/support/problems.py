"""Problems as values, where a test looks at either outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from acme_ca.core.problems import Problem


def tried(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What the function returns, or the `Problem` that it raises. Anything else that it raises is raised."""
    try:
        return function(*arguments, **named)
    except Problem as problem:
        return problem
