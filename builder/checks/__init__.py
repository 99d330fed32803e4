"""What every image has to show: rules over its files and configuration, and probes that run in it."""
