#!/usr/bin/env python3
"""The smallest plugin: `echo` says back what it is told, `upper` says it louder, `log` prints it."""

from pipeplug import Guest, Request

plugin = Guest("echo", description="says back what it is told")


@plugin.command
def echo(request: Request) -> bytes:
    for part in request.parts:
        request.send(part)
    return request.data


@plugin.command
def upper(request: Request) -> str:
    return request.text.upper()


@plugin.command
def log(request: Request) -> None:
    print(request.text)


@plugin.command
def sleep(request: Request) -> None:
    """Sleeps for some milliseconds, or until the caller gives up."""
    milliseconds = int(request.text)
    for done in range(0, milliseconds, 10):
        request.progress(done, milliseconds, "sleeping")
        if request.wait_cancelled(min(10, milliseconds - done) / 1000):
            break


if __name__ == "__main__":
    plugin.run()
