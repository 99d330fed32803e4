"""`python -m builder` is `goldsmith`."""

from builder.cli.main import main

main()
