"""The rules; each file holds one."""
