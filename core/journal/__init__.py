"""Events, what they say, and the hash-chained files that keep them."""
