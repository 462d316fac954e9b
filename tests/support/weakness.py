"""Primes of weak RSA keys, as those made them who did it wrong. The same in every run."""

from __future__ import annotations

import math
import random

from acme_ca.core import keys

Primes = tuple[int, int]


def is_prime(number: int) -> bool:
    """Fermat's test: good enough for numbers that nobody chose to deceive."""
    return math.gcd(number, keys._PRIMORIAL) == 1 and pow(2, number - 1, number) == 1


def next_prime(start: int) -> int:
    number = start | 1
    while not is_prime(number):
        number += 2
    return number


def near_primes(bits: int = 1024) -> Primes:
    """The second is the next after the first."""
    first = next_prime(random.Random(1).getrandbits(bits) | 3 << bits - 2)
    return first, next_prime(first + 2)


def small_prime_and_another(small: int = 751, bits: int = 2048) -> Primes:
    return small, next_prime((3 << bits - 2) // small)


def roca_primes(bits: int = 1024) -> Primes:
    """k·M + 65537^a mod M, with M the product of the first primes (CVE-2017-15361): for keys of 2048 bits."""
    rng = random.Random(15361)
    product = math.prod(keys._primes_below(702))
    return _roca_prime(product, bits, rng), _roca_prime(product, bits, rng)


def _roca_prime(product: int, bits: int, rng: random.Random) -> int:
    while True:
        multiple = rng.randrange(3 << bits - 2, 1 << bits) // product * product
        number = multiple + pow(65537, rng.getrandbits(60), product)
        if pow(2, number - 1, number) == 1:
            return number
