"""What each command does: read, call the codec or a run, write, and say what came of it."""
