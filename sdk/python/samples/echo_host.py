#!/usr/bin/env python3
"""A host: starts the plugin at a path, and has it say something back.

echo_host.py PLUGIN [TEXT]
"""

import sys

from pipeplug import CallError, Plugin

if len(sys.argv) < 2:
    sys.exit("usage: echo_host.py PLUGIN [TEXT]")
with Plugin.start(sys.argv[1]) as plugin:
    try:
        print(plugin.call("echo", " ".join(sys.argv[2:]) or "hello", timeout=10).decode())
    except CallError as error:
        print(f"echo_host.py: {error}", file=sys.stderr)
