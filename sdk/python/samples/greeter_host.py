#!/usr/bin/env python3
"""The host: has a plugin greet in each of its languages.

greeter_host.py NAME [PLUGIN]
"""

import sys
from pathlib import Path

from greeter import Greeter, GreetErrorUnknownLanguage

from pipeplug import Plugin

if len(sys.argv) < 2:
    sys.exit("usage: greeter_host.py NAME [PLUGIN]")
name = sys.argv[1]
path = sys.argv[2] if len(sys.argv) > 2 else Path(__file__).with_name("greeter_plugin.py")
with Plugin.start(path) as plugin:
    greeter = plugin.client(Greeter)
    for language in greeter.languages():
        print(greeter.greet(name, language))
    # The plugin's own errors have their type here.
    try:
        print(greeter.greet(name, "tlh"))
    except GreetErrorUnknownLanguage as error:
        print(f"not in {error.language}")
