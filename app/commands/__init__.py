"""The commands of `codweb`, one file each; `app/cli.py` puts them together."""
