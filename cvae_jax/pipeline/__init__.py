"""From images to the chunks of a file, several at once, in memory that does not depend on how many
images there are; and what reads files by a model.
"""
