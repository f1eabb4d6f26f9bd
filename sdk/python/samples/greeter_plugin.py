#!/usr/bin/env python3
"""The plugin: greets in a few languages."""

from typing import List

from greeter import Greeter, GreetErrorUnknownLanguage

from pipeplug import Guest

GREETINGS = {"de": "guten Tag", "en": "hello", "fr": "bonjour"}


class Greetings(Greeter):
    def greet(self, name: str, language: str = "en") -> str:
        if language not in GREETINGS:
            message = f'no greeting in the language "{language}" is known'
            raise GreetErrorUnknownLanguage(language).with_message(message)
        return f"{GREETINGS[language]}, {name}"

    def languages(self) -> List[str]:
        return list(GREETINGS)


if __name__ == "__main__":
    plugin = Guest("greeter-plugin")
    plugin.service(Greetings())
    plugin.run()
