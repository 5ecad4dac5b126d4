"""The command ``cvae``."""
