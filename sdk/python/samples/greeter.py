"""The service, which plugin and host share."""

from dataclasses import dataclass
from typing import Annotated, List

from pipeplug import MethodError, method, service


class GreetError(MethodError):
    """Reason that a person is not greeted."""


@dataclass(eq=False)
class UnknownLanguage(GreetError):
    """The plugin does not speak the language."""

    language: Annotated[str, "Code of the language."]

    def __str__(self) -> str:
        return f'no greeting in the language "{self.language}" is known'


@service(version=1)
class Greeter:
    """Greets people."""

    @method(error=GreetError)
    def greet(
        self,
        name: Annotated[str, "Name of the person."],
        language: Annotated[str, "Code of the language, such as `en`."] = "en",
    ) -> str:
        """Greets a person, in one of the plugin's languages."""
        raise NotImplementedError

    def languages(self) -> List[str]:
        """Codes of the languages."""
        raise NotImplementedError
