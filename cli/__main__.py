"""`python -m sitelog.cli`: the `sitelog` command where only the interpreter's path is known."""

from sitelog.cli.main import run

run()
