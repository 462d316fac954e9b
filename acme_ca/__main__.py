"""`python -m acme_ca` is `acme-ca`."""

from acme_ca.cli import main

main()
