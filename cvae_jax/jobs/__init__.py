"""Work on collections, cut into parts that do not depend on one another."""
