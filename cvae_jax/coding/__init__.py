"""Latents to bytes: tables, quantiser, coder, search, calibration."""
