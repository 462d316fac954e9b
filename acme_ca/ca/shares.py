"""Shares of a secret (SLIP-39): lists of words, any k of which give the secret, fewer nothing at all.

A share is a passphrase of 33 words. It is not protected by another: what a holder has in his head only is lost within
the ten years of a root, and then his share with it, while a thief of fewer than k shares has learnt nothing. (The
passphrase that SLIP-39 itself has is one for all shares, and a wrong one is not noticed.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import shamir_mnemonic
from shamir_mnemonic.wordlist import WORDLIST

SECRET_BYTES = 32
WORDS = 33
"""Of a share of such a secret."""
MAX_SHARES = 16
SHORTEST = 4
"""Letters of a word that tell it from all others."""


class ShareError(Exception):
    """Shares cannot be made, read or combined: one sentence, which holds no word of a share."""


@dataclass(frozen=True, slots=True)
class Share:
    words: tuple[str, ...] = field(repr=False)
    set_id: int
    """The same for all shares that belong together. No secret."""
    index: int
    """From 0."""
    threshold: int
    """How many are needed."""


def split(secret: bytes, *, threshold: int, count: int) -> tuple[Share, ...]:
    """`count` shares of a secret of SECRET_BYTES, of which `threshold` give it back. Raises ShareError."""
    if not 2 <= threshold <= count <= MAX_SHARES:  # noqa: PLR2004  a single share would be the secret itself
        raise ShareError(
            f"{threshold} of {count} shares is not possible: there are 2 to {MAX_SHARES}, of which 2 to all are needed."
        )
    assert len(secret) == SECRET_BYTES  # noqa: S101
    # No passphrase, so nothing that many iterations could protect.
    (texts,) = shamir_mnemonic.generate_mnemonics(1, [(threshold, count)], secret, iteration_exponent=0)
    return tuple(read(text) for text in texts)


def read(text: str) -> Share:
    """A share as its holder typed it: words may be cut to four letters. Raises ShareError."""
    words = tuple(_word(number, typed) for number, typed in enumerate(text.lower().split(), 1))
    if len(words) != WORDS:
        raise ShareError(f"A share has {WORDS} words, this one has {len(words)}.")
    try:
        share = shamir_mnemonic.Share.from_mnemonic(" ".join(words))
    except shamir_mnemonic.MnemonicError:
        raise ShareError("A word of this share is wrong, or two have changed places.") from None
    if (share.group_count, len(share.value)) != (1, SECRET_BYTES):
        raise ShareError("This share is of another kind than those of a ceremony.")
    return Share(words=words, set_id=share.identifier, index=share.index, threshold=share.member_threshold)


def check_goes_with(share: Share, others: Sequence[Share]) -> None:
    """Raises ShareError for a share that cannot be combined with the others."""
    for other in others:
        if (share.set_id, share.threshold) != (other.set_id, other.threshold):
            raise ShareError("This share is of another ceremony than the first.")
        if share.index == other.index:
            same = share.words == other.words
            raise ShareError(
                "This share was given already."
                if same
                else "This share is of another ceremony than the first."
            )


def combine(given: Sequence[Share]) -> bytes:
    """The secret. Raises ShareError for shares that are too few, or do not belong together."""
    for number, share in enumerate(given):
        check_goes_with(share, given[:number])
    needed = given[0].threshold if given else 2
    if len(given) < needed:
        raise ShareError(f"{needed} shares are needed, {len(given)} were given.")
    try:
        secret: bytes = shamir_mnemonic.combine_mnemonics([" ".join(share.words) for share in given[:needed]])
    except shamir_mnemonic.MnemonicError:
        raise ShareError("These shares do not belong together: one is of another ceremony.") from None
    return secret


def _word(number: int, typed: str) -> str:
    if typed in _FULL:
        return typed
    found = _BY_BEGINNING.get(typed[:SHORTEST]) if len(typed) >= SHORTEST else None
    if found is None or not found.startswith(typed):
        raise ShareError(f"Word {number} is none of those that shares are made of.")
    return found


_FULL = frozenset(WORDLIST)
_BY_BEGINNING: dict[str, str] = {word[:SHORTEST]: word for word in WORDLIST}
