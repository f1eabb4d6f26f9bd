#!/usr/bin/env python3
"""The plugin: asks the host for the Docker host when it starts, then answers and calls back."""

import sys

from pipeplug import Guest, Host, Request

plugin = Guest("sample1-plugin")
docker_host = ""


@plugin.start
def start(host: Host) -> None:
    # Runs before the first request comes in, so `DockerHost` finds the answer.
    global docker_host
    docker_host = host.call("GetDockerHost").decode()
    print(f"sample1-plugin: the docker host is {docker_host}", file=sys.stderr)


@plugin.command("Echo")
def echo(request: Request) -> bytes:
    return request.data


@plugin.command("DockerHost")
def answer_docker_host(request: Request) -> str:
    return docker_host


@plugin.command("Start")
def call_back(request: Request) -> None:
    """Calls the host as often as it asks for, all at once, and sends a one-way after the last reply."""
    count = int(request.text)
    texts = [f"repeat {number}." for number in range(count)]
    pending = [request.peer.begin("Repeat", text) for text in texts]
    for call, text in zip(pending, texts):
        reply = call.wait().decode()
        if reply != text * 2:
            raise ValueError(f"Repeat of {text!r} brought {reply!r}")
    request.peer.notify("Done", str(count))


if __name__ == "__main__":
    plugin.run()
