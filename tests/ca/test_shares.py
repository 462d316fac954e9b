import itertools
from dataclasses import replace

import pytest
import shamir_mnemonic
from hypothesis import given
from hypothesis import strategies as st

from acme_ca.ca import shares
from acme_ca.ca.shares import ShareError

SECRET = bytes(range(32))
THREE_OF_FIVE = shares.split(SECRET, threshold=3, count=5)
SAME_SHAPE = shares.split(SECRET, threshold=3, count=5)
TWO_OF_FIVE = shares.split(SECRET, threshold=2, count=5)


def text(share) -> str:
    return " ".join(share.words)


@st.composite
def dealt(draw):
    """A secret, a threshold, and at least as many of its shares in any order."""
    count = draw(st.integers(2, shares.MAX_SHARES))
    threshold = draw(st.integers(2, count))
    secret = draw(st.binary(min_size=32, max_size=32))
    made = shares.split(secret, threshold=threshold, count=count)
    some = draw(st.permutations(made))[: draw(st.integers(threshold, count))]
    return secret, threshold, some


@given(dealt())
def test_any_k_of_n_in_any_order_give_the_secret(case):
    secret, threshold, some = case
    assert shares.combine(some) == secret
    with pytest.raises(ShareError, match=f"{threshold} shares are needed, {threshold - 1} were given"):
        shares.combine(some[: threshold - 1])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_order_of_the_same_three(order):
    assert shares.combine([THREE_OF_FIVE[index] for index in order]) == SECRET


def test_shares_know_their_place():
    assert [share.index for share in THREE_OF_FIVE] == [0, 1, 2, 3, 4]
    assert {(share.threshold, share.set_id) for share in THREE_OF_FIVE} == {(3, THREE_OF_FIVE[0].set_id)}
    assert all(len(share.words) == 33 for share in THREE_OF_FIVE)
    assert "academic" not in repr(THREE_OF_FIVE[0])


def test_other_programs_combine_them_too():
    assert shamir_mnemonic.combine_mnemonics([text(share) for share in THREE_OF_FIVE[2:]]) == SECRET


@pytest.mark.parametrize(
    "typed",
    [
        text(THREE_OF_FIVE[1]).upper(),
        "  " + text(THREE_OF_FIVE[1]).replace(" ", "\n\t ") + "\n",
        " ".join(word[:4] for word in THREE_OF_FIVE[1].words),
        " ".join(word[:5] for word in THREE_OF_FIVE[1].words),
    ],
    ids=["in capitals", "on many lines", "four letters", "five letters"],
)
def test_a_share_is_read_however_it_is_typed(typed):
    assert shares.read(typed) == THREE_OF_FIVE[1]


def changed(position: int, word: str) -> str:
    words = list(THREE_OF_FIVE[0].words)
    words[position] = word
    return " ".join(words)


SWAPPED = list(THREE_OF_FIVE[0].words)
SWAPPED[10], SWAPPED[20] = SWAPPED[20], SWAPPED[10]
GROUPED = shamir_mnemonic.generate_mnemonics(2, [(2, 3), (2, 3)], SECRET)[0][0]
SHORTER = shamir_mnemonic.generate_mnemonics(1, [(2, 3)], SECRET[:16])[0][0]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "33 words, this one has 0"),
        (text(THREE_OF_FIVE[0]) + " acid", "33 words, this one has 34"),
        (changed(6, "elephantine"), "Word 7 is none"),
        (changed(6, "aci"), "Word 7 is none"),
        (changed(6, "acids"), "Word 7 is none"),
        (changed(32, "bücher"), "Word 33 is none"),
        (
            changed(6, "acid" if THREE_OF_FIVE[0].words[6] != "acid" else "acne"),
            "A word of this share is wrong",
        ),
        (" ".join(SWAPPED), "changed places"),
        (GROUPED, "another kind"),
        (SHORTER, "33 words, this one has 20"),
    ],
    ids=[
        "nothing",
        "a word too many",
        "no such word",
        "three letters",
        "a letter too many",
        "not ASCII",
        "another word",
        "swapped words",
        "of groups",
        "of a shorter secret",
    ],
)
def test_what_is_no_share(typed, says):
    with pytest.raises(ShareError, match=says):
        shares.read(typed)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "2 shares are needed, 0 were given"),
        (THREE_OF_FIVE[:2], "3 shares are needed, 2 were given"),
        ([*THREE_OF_FIVE[:2], THREE_OF_FIVE[0]], "given already"),
        ([*THREE_OF_FIVE[:2], SAME_SHAPE[2]], "of another ceremony"),
        ([*THREE_OF_FIVE[:2], SAME_SHAPE[0]], "of another ceremony"),
        ([*THREE_OF_FIVE[:2], TWO_OF_FIVE[3]], "of another ceremony"),
        ([*THREE_OF_FIVE, *THREE_OF_FIVE], "given already"),
    ],
)
def test_what_is_not_combined(given, says):
    with pytest.raises(ShareError, match=says):
        shares.combine(given)


def test_shares_of_two_ceremonies_with_the_same_number():
    """The number has 15 bits, so this happens; the digest inside tells."""
    other = shamir_mnemonic.Share.from_mnemonic(text(SAME_SHAPE[3]))
    renumbered = replace(other, identifier=THREE_OF_FIVE[0].set_id).mnemonic()
    with pytest.raises(ShareError, match="do not belong together"):
        shares.combine([*THREE_OF_FIVE[:2], shares.read(renumbered)])


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (1, 3), (4, 3), (2, 17), (0, 2), (2, 1)])
def test_what_is_not_split(threshold, count):
    with pytest.raises(ShareError, match="not possible"):
        shares.split(SECRET, threshold=threshold, count=count)
