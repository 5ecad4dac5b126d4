"""From what a file's symbols decode to, to the image itself: losslessly, or with a bounded error.

``neighbours`` says what the distribution of a pixel depends on; ``network`` and ``training`` learn
it; ``integers`` is the learnt model in integers, which ``from_params`` makes and ``coder`` codes
images with.
"""
