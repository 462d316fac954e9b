"""The composition root: settings become pools, rooms, web applications and background loops, and nothing is global."""

from acme_ca.app.application import Application
from acme_ca.app.start import Prepared, prepare, register, take_up

__all__ = ["Application", "Prepared", "prepare", "register", "take_up"]
