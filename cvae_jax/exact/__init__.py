"""The decoder of files: from symbols to grey levels in integers, the same on every machine.

``integers`` is the decoder as a value, with the proof that its sums are exact; ``from_params``
makes one of a trained model; ``by_numpy`` and ``by_jax`` compute it, to the same levels, and
``quickest`` chooses between them.  ``model`` is a decoder with its coding tables.
"""
