"""What several pages draw alike. Imports no page."""
