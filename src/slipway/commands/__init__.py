"""The commands: one module for each, imported when its command is called."""
