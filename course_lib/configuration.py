"""The configuration of a recipe's objects as plain JSON: the same objects give the same text on every machine."""

import contextlib
import contextvars
import dataclasses
import functools
import hashlib
import inspect
import json
import types
from collections.abc import Mapping, Set
from pathlib import PurePath
from typing import Any

import numpy as np

_WITHIN: contextvars.ContextVar[tuple] = contextvars.ContextVar("_WITHIN", default=())
"""The code of the functions that are being looked into."""


def digest(content: Any, digits: int = 12) -> str:
    """Hexadecimal digits that change whenever the plain `content` does."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:digits]


def plain(value: Any, name: str) -> Any:
    """`value` in a form that JSON can store.

    An argument that stands at its default is left out, of dataclasses and of Keras's objects, so that a new option changes
    no digest of old; whoever changes a default has to see to that.

    Args:
        value: a number, a text, a path, an array; lists, sets and mappings of these; a function or a class; a dataclass;
            an object with Keras's `get_config`.
        name: what it is, for the error.

    Raises:
        TypeError: for anything else.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return plain(value.item(), name)
    if isinstance(value, np.ndarray):
        # A list with the same numbers means the same.
        return plain(value.tolist(), name)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        items = [
            (plain(key, f"a key of {name}"), plain(one, f"{name}[{key!r}]")) for key, one in value.items()
        ]
        if all(isinstance(key, str) for key, _ in items):
            return dict(items)
        return {"items": sorted(items, key=json.dumps)}
    if isinstance(value, Set):
        return {"set": sorted((plain(one, name) for one in value), key=json.dumps)}
    if isinstance(value, (list, tuple)):
        return [plain(one, f"{name}[{k}]") for k, one in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if not _is_default(getattr(value, field.name), _default_of(field))
        }
        return {"class": _title(type(value)), **plain(given, name)}
    if isinstance(value, functools.partial):
        parts = {"partial": value.func, "arguments": value.args, "keywords": value.keywords}
        return plain(parts, name)
    if isinstance(value, type):
        own = (
            {}
            if _is_ours(value)
            else {k: _code(f, name) for k, f in vars(value).items() if inspect.isfunction(f)}
        )
        return {"class": _title(value), **own}
    if isinstance(value, types.MethodType):
        return {"method": plain(value.__func__, name), "of": plain(value.__self__, name)}
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, np.ufunc)):
        title = getattr(value, "__qualname__", value.__name__)
        return {"function": title} | ({} if _is_ours(value) else {"code": _code(value, name)})
    if callable(getattr(value, "get_config", None)):
        return {"class": _title(type(value)), "config": _config(value, name)}
    raise TypeError(
        f"{name} is {value!r}; a recipe can hold numbers, strings, paths, arrays, lists, mappings, functions, dataclasses "
        "and objects with Keras's get_config, because it must be able to tell whether they have changed."
    )


def _config(value: Any, name: str) -> dict[str, Any]:
    """What `get_config` says, without the object's name and what is at its default."""
    parameters = inspect.signature(type(value).__init__).parameters
    config = {}
    for key, one in value.get_config().items():
        if key == "name" or (key in parameters and _is_default(one, parameters[key].default)):
            continue
        # A loss of losses holds them under the argument's own name; they say more of themselves than their config does.
        parts = getattr(value, key, None)
        holds = isinstance(parts, (list, tuple)) and any(hasattr(part, "get_config") for part in parts)
        config[key] = plain(parts if holds else one, f"{name}.{key}")
    return config


def _code(function: Any, name: str) -> Any:
    """What a function does, as far as Python tells: its bytecode, its constants, what it closes over, and what it uses of
    its module: a number set there, or a function, which is a part of it as much."""
    code = getattr(function, "__code__", None)
    within = _WITHIN.get()
    if code is None or code in within:  # a function that calls itself
        return None
    token = _WITHIN.set((*within, code))
    try:
        closed = [cell.cell_contents for cell in function.__closure__ or ()]
        parts = [list(function.__defaults__ or ()), dict(function.__kwdefaults__ or {}), closed]
        content = [_bytecode(code), plain(parts, f"what {name} holds")]
        used = {}
        for word in sorted(_names(code) & function.__globals__.keys()):
            with contextlib.suppress(TypeError):  # a module, or what cannot be told
                if not _is_ours(function.__globals__[word]):
                    used[word] = plain(function.__globals__[word], word)
        return digest([*content, used] if used else content)
    finally:
        _WITHIN.reset(token)


def _names(code: types.CodeType) -> set[str]:
    """The names that the code uses, those of functions in it too."""
    return set(code.co_names).union(
        *(_names(one) for one in code.co_consts if isinstance(one, types.CodeType))
    )


def _bytecode(code: types.CodeType) -> list:
    constants = [_bytecode(one) if isinstance(one, types.CodeType) else one for one in code.co_consts]
    # A set of constants has another order in each process.
    constants = [sorted(map(repr, one)) if isinstance(one, frozenset) else repr(one) for one in constants]
    return [code.co_code.hex(), constants, list(code.co_names)]


def _is_ours(value: Any) -> bool:
    """Whether it comes with the library, whose code is not part of a configuration: its version is."""
    return (getattr(value, "__module__", None) or "").partition(".")[0] in ("course_lib", "keras", "numpy")


def _title(kind: type) -> str:
    return kind.__qualname__ if _is_ours(kind) else f"{kind.__module__}.{kind.__qualname__}"


def _default_of(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_default(value: Any, default: Any) -> bool:
    return type(value) is type(default) and not isinstance(value, np.ndarray) and repr(value) == repr(default)
