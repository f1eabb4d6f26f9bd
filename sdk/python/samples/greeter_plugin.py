#!/usr/bin/env python3
"""The plugin: greets in a few languages."""

from typing import List

from greeter import Greeter, UnknownLanguage

from pipeplug import Guest

GREETINGS = {"de": "guten Tag", "en": "hello", "fr": "bonjour"}


class Greetings(Greeter):
    def greet(self, name: str, language: str = "en") -> str:
        if language not in GREETINGS:
            raise UnknownLanguage(language)
        return f"{GREETINGS[language]}, {name}"

    def languages(self) -> List[str]:
        return list(GREETINGS)


if __name__ == "__main__":
    plugin = Guest("greeter-plugin")
    plugin.service(Greetings())
    plugin.run()
