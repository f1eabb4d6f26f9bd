from __future__ import annotations
from typing import Any, Dict, Type, TypeVar
class ServiceSet:
    def __init__(self) -> None: ...
    def add(self, implementation: object, handlers: Any) -> None: ...
    def register(self, handlers: Any) -> None: ...
    def metadata(self) -> Dict[str, str]: return {}
T = TypeVar("T")
def make_client(service: Type[T], connection: Any) -> T: raise NotImplementedError
def make_async_client(service: Type[T], connection: Any) -> T: raise NotImplementedError
