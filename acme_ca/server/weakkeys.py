"""The lists of weak keys that the settings name, read once before the workers are forked: they share the memory."""

from __future__ import annotations

from pathlib import Path

from acme_ca.config import ConfigurationError, Settings
from acme_ca.core import weakkeys
from acme_ca.core.weakkeys import ListError, WeakKeys


def load(settings: Settings) -> WeakKeys:
    """Raises ConfigurationError for a file that cannot be read or is no list of keys."""
    return WeakKeys.of(digest for path in settings.weak_keys_files for digest in _listed(path))


def _listed(path: Path) -> set[bytes]:
    try:
        with path.open(encoding="ascii") as lines:
            found = weakkeys.read(lines)
    except OSError as error:
        raise _refusal(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise _refusal(f"{path} is no text in ASCII (a packed list must be unpacked first)") from None
    except ListError as error:
        raise _refusal(
            f"{path}, line {error.line}: this is no key of a list (20 or 64 hexadecimal digits)"
        ) from None
    if not found:
        raise _refusal(f"{path} lists no key")
    return found


def _refusal(reason: str) -> ConfigurationError:
    return ConfigurationError(f"ACME_CA_WEAK_KEYS_FILES: {reason}.")
