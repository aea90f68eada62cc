"""When a study measures what: order and pace of its trials, and the weights that they share."""
