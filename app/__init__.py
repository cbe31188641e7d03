"""HTTP and PS3.18: routes, negotiation, settings, command line. Knows no bucket."""

from importlib.metadata import version

__version__ = version("codweb")
