"""The dashboard, the command line and the supervisor of trials."""
