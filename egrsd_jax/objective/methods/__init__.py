"""The methods, one file and one record each. Every module of this folder that binds `METHOD` is a method. No jax."""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from egrsd_jax.objective.method import Method, default_of
from egrsd_jax.objective.settings import MethodSettings


def collected(modules: Iterable[ModuleType]) -> dict[str, Method]:
    """The methods of these modules by name, in the order of lists and tables; a module without `METHOD` has none.

    Raises ValueError where two modules have a method of one name.
    """
    homes: dict[str, str] = {}
    records: list[Method] = []
    for module in modules:
        method: Method | None = getattr(module, "METHOD", None)
        if method is None:
            continue
        if method.name in homes:
            raise ValueError(f"{homes[method.name]} and {module.__name__} both have a method named {method.name!r}")
        homes[method.name] = module.__name__
        records.append(method)
    return {method.name: method for method in sorted(records, key=lambda method: (method.order, method.name))}


METHODS = collected(import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))


def method_settings(name: str, **given: Any) -> MethodSettings:
    """A method's settings: those given, and the published ones.

    Raises ValueError for a name that is no method's, a field that the method has no use for, and a value outside of its
    range or in contradiction to another.
    """
    if name not in METHODS:
        raise ValueError(f"method.name is {name!r}; it must be one of {', '.join(METHODS)}")
    method = METHODS[name]
    for field, value in given.items():
        is_fixed = field in method.settings.__dataclass_fields__ and field not in method.own_fields
        if is_fixed and value == default_of(method.settings, field):
            continue
        if is_fixed or field not in method.own_fields:
            others = ", ".join(other.name for other in METHODS.values() if field in other.own_fields) or "no method"
            why = (
                f"has it fixed at {default_of(method.settings, field)}; {others} can set it"
                if is_fixed
                else f"has no use for it; {others} would have"
            )
            raise ValueError(f"method.{field} is {value}, and {name} {why}; leave it at null")
    return method.settings(**{field: value for field, value in given.items() if field in method.own_fields})
