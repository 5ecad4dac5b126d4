"""Rate against distortion, beside the codecs a person would pick instead."""
