"""The subcommands of `podium`, one module each: plain functions that cli.py calls."""
