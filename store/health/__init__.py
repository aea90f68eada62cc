"""Whether a store holds what its journals say, and making a spoilt one again."""
