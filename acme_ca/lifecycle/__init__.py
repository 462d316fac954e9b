"""The operator's long view: the registry of services, and certificates that operators have issued."""
