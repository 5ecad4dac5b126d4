"""Arrays of small integers, in few bytes and in exact sums; frequencies, and what codes by them."""
