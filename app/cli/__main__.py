"""`python -m app.cli` is the command line."""

from app.cli.main import main

raise SystemExit(main())
