#!/usr/bin/env python3
"""The plugin {{name}}."""

from pipeplug import Guest, Request

plugin = Guest(
    description="greets whom it is told",
    metadata={"Cmd": "hello", "pipeplug.name": "{{name}}", "pipeplug.version": "0.1.0"},
)


@plugin.command
def hello(request: Request) -> bytes:
    """Answers with bytes or text, on one of several threads. An exception is an error for the caller."""
    return b"hello, " + request.data


if __name__ == "__main__":
    plugin.run()
