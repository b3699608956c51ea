"""The parts of the package ``kubernetes`` that are used here: its configuration and its transport.

Importing any part of it loads everything: the models and API classes of every kind, twice, which takes 57 MB of memory
and 0.3 s. Therefore its packages are entered into sys.modules here without running them. A package runs when any other
attribute of it is requested.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_PACKAGES = ("kubernetes", "kubernetes.aio", "kubernetes.aio.client", "kubernetes.aio.utils", "kubernetes.aio.config")


class _Package(ModuleType):
    """A package that has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _enter(name: str) -> None:
    spec = find_spec(name)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = module_from_spec(spec)
    module.__class__ = _Package
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)


def _later(*args: Any, **kwargs: Any) -> Any:
    """Replaces the class ApiClient, which kube_config names and we do not use."""
    return import_module("kubernetes.aio.client.api_client").ApiClient(*args, **kwargs)


for _name in _PACKAGES if "kubernetes" not in sys.modules else ():
    _enter(_name)

_client: Any = sys.modules.get("kubernetes.aio.client")
_entered = type(_client) is _Package
if _entered:
    from kubernetes.aio.client.configuration import Configuration

    _client.Configuration, _client.ApiClient = Configuration, _later
    from kubernetes.aio.config.config_exception import ConfigException
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader
    from kubernetes.aio.config.kube_config import load_kube_config

    del _client.ApiClient
else:
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader
    from kubernetes.aio.config.kube_config import load_kube_config

from kubernetes.aio.client.rest import RESTClientObject  # noqa: E402  # after the packages have been entered

__all__ = ["ConfigException", "Configuration", "InClusterConfigLoader", "RESTClientObject", "load_kube_config"]
