"""How firmly a choice stands when weights and limits are other ones."""
