"""The code of a class, to be looked at without running it."""

from __future__ import annotations

import ast
import dis
import inspect
import textwrap
from collections.abc import Callable, Set
from types import CodeType, FunctionType
from typing import Any

#: Code by the name of the method.
Methods = dict[str, list[CodeType]]

#: What changes a list or a dictionary in place.
_CHANGING = {"append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}
#: What finds out whether something is in a dictionary.
_ASKING = {"get", "keys", "setdefault"}


def methods_of(kind: type) -> Methods:
    """The code of a class and of those that it derives from, by the name of the method; without PyTorch's.

    Properties, what decorators wrapped, and functions that are written inside of others are among it.
    """
    found: Methods = {}
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != "torch":
            for name, member in vars(base).items():
                if code := [part for function in _functions(member) for part in _parts(function.__code__)]:
                    found.setdefault(name, []).extend(code)
    return found


def _functions(member: Any) -> list[FunctionType]:
    """The Python functions behind a member of a class, and those that decorators wrapped."""
    if isinstance(member, property):
        return [f for part in (member.fget, member.fset, member.fdel) for f in _functions(part)]
    found = []
    while member is not None:
        if isinstance(member, FunctionType):
            found.append(member)
        member = getattr(member, "__func__", None) or getattr(member, "__wrapped__", None)
    return found


def _parts(code: CodeType) -> list[CodeType]:
    """A piece of code and the functions that are written inside of it."""
    return [code, *(part for inner in code.co_consts if isinstance(inner, CodeType) for part in _parts(inner))]


def named(methods: Methods, some: Set[str]) -> set[str]:
    """Every name that some methods use."""
    return {name for method in some for code in methods[method] for name in code.co_names}


def set_by(methods: Methods, some: Set[str]) -> set[str]:
    """Names of the attributes that some methods set, on whatever object."""
    steps = (step for method in some for code in methods[method] for step in dis.get_instructions(code))
    return {step.argval for step in steps if step.opname in ("STORE_ATTR", "DELETE_ATTR")}


def filled(methods: Methods, some: Set[str]) -> set[str]:
    """Names of the attributes in which some methods set items, on whatever object."""
    return {name for code in _whole(methods, some) for name in _attributes(code, _changed)}


def asked(methods: Methods, some: Set[str]) -> set[str]:
    """Names of the attributes of which some methods ask what they hold, on whatever object."""
    return {name for code in _whole(methods, some) for name in _attributes(code, _asked)}


def _whole(methods: Methods, some: Set[str]) -> set[CodeType]:
    """The code of some methods, with what is written inside of it as a part of it."""
    codes = {code for method in some for code in methods[method]}
    return codes - {part for code in codes for part in code.co_consts if isinstance(part, CodeType)}


def _attributes(code: CodeType, chosen: Callable[[list[ast.AST]], list[ast.expr]]) -> set[str]:
    """Names of the attributes to which chosen expressions in a function belong, or names that it has for them."""
    try:
        nodes = [*ast.walk(ast.parse(textwrap.dedent(inspect.getsource(code))))]
    except (OSError, SyntaxError):
        return set(code.co_names)
    assigned = [(node.value, target) for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    assigned += [(node.iter, node.target) for node in nodes if isinstance(node, ast.For)]
    known = {target.id: value for value, target in assigned if isinstance(target, ast.Name)}
    owners = [_owner(node, known) for node in chosen(nodes)]
    return {owner.attr for owner in owners if isinstance(owner, ast.Attribute)}


def _changed(nodes: list[ast.AST]) -> list[ast.expr]:
    """What items are set in."""
    items = [node.value for node in nodes if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)]
    return items + _called(nodes, _CHANGING)


def _asked(nodes: list[ast.AST]) -> list[ast.expr]:
    """What is asked whether it holds something, or anything."""
    found = _called(nodes, _ASKING)
    for node in nodes:
        match node:
            case ast.Compare(ops=[ast.In() | ast.NotIn()]):
                found += node.comparators
            case ast.If() | ast.IfExp() | ast.While():
                found.append(node.test)
            case ast.UnaryOp(op=ast.Not()):
                found.append(node.operand)
            case ast.BoolOp():
                found += node.values
            case ast.Call(func=ast.Name(id="len")):
                found += node.args
            case ast.Try():
                found += [
                    part.value for line in node.body for part in ast.walk(line) if isinstance(part, ast.Subscript)
                ]
    return found


def _called(nodes: list[ast.AST], methods: set[str]) -> list[ast.expr]:
    """The objects of which one of some methods is called."""
    called = [node.func for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [function.value for function in called if function.attr in methods]


def _owner(node: ast.expr, known: dict[str, ast.expr]) -> ast.expr:
    """What an item belongs to, however deep it lies: ``x.a`` for ``x.a[0]["b"]``."""
    if isinstance(node, ast.Subscript):
        return _owner(node.value, known)
    if isinstance(node, ast.Name) and node.id in known:
        return _owner(known[node.id], {name: value for name, value in known.items() if name != node.id})
    return node
