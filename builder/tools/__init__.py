"""External programs, one a file: command line, and parser of the output."""
