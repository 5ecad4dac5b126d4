"""What is measured of large collections and of several processes."""
