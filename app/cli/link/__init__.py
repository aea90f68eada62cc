"""How the command line and a running server work together, by a Unix socket beside the store."""
