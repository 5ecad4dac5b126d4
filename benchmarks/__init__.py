"""Measurements, run as modules: throughput, time_to_quality; readme puts them into the README."""
