"""The clocks of replicas, and what is made of times that a wrong one left behind."""

from __future__ import annotations

from datetime import timedelta

CLOCKS_APART = timedelta(minutes=5)
"""By how much the clocks of replicas may differ, and how long a change may be under way. What lies further ahead than this
allows was written by a wrong one.
"""
