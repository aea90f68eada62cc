"""A study without the dashboard: its plan as a file, and running it on the box where one is."""
