"""What a command is given, and where its output goes."""
