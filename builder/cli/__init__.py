"""The command line: parse, call, print, exit code. The one place that wires builder and registry."""
