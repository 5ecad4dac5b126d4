"""The commands that make models."""
