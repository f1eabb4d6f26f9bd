#!/usr/bin/env python3
"""The host: has a plugin greet in each of its languages.

greeter_host.py [--stdio] [--classic] [PLUGIN] NAME
"""

import argparse
from pathlib import Path

from greeter import Greeter, GreetErrorUnknownLanguage

from pipeplug import Plugin

arguments = argparse.ArgumentParser()
arguments.add_argument("--stdio", action="store_true", help="talk over standard input and output")
arguments.add_argument("--classic", action="store_true", help="talk in the classic format")
arguments.add_argument("plugin", nargs="?", default=Path(__file__).with_name("greeter_plugin.py"))
arguments.add_argument("name")
options = arguments.parse_args()
with Plugin.start(options.plugin, stdio=options.stdio, format="classic" if options.classic else "standard") as plugin:
    greeter = plugin.client(Greeter)
    for language in greeter.languages():
        print(greeter.greet(options.name, language))
    # The plugin's own errors have their type here.
    try:
        print(greeter.greet(options.name, "tlh"))
    except GreetErrorUnknownLanguage as error:
        print(f"not in {error.language}")
