#!/usr/bin/env python3
"""The plugin {{name}}."""

import protocol

METADATA = {
    "Cmd": "hello",
    "Description": "greets whom it is told",
    "pipeplug.name": "{{name}}",
    "pipeplug.version": "0.1.0",
}


def answer(command, data):
    """Answers a request with bytes or text, on one of several threads. An exception is an error for the caller."""
    if command == "hello":
        return b"hello, " + data
    raise ValueError(f"unknown command {command!r}, there is only hello")


if __name__ == "__main__":
    protocol.serve(answer, METADATA)
