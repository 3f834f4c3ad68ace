"""Which names of TensorRT the source of a module uses, and which names each version of TensorRT has.

The names of a version come from its real Python bindings, with the type that each call or property returns. With those
types the uses are followed through local variables, attributes of self, arguments and returns.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Surface = dict[str, dict[str, str]]  # class -> member -> type of a property, or what a method returns with "()"
_LIBRARY = "module tensorrt"
_ROUNDS = 6  # as deep as types pass from function to function
_READ = """
import inspect, json, re
import tensorrt

def returns(member):
    getter = getattr(member, "fget", None)
    found = re.search(r"-> ([\\w.]*::I|[\\w.]+\\.)?(\\w+)", getattr(getter or member, "__doc__", None) or "")
    return (found.group(2) if found else "") + ("" if getter or not callable(member) else "()")

print(json.dumps({
    name: {one: returns(inspect.getattr_static(value, one)) for one in dir(value)} if inspect.isclass(value) else {}
    for name, value in vars(tensorrt).items()
}))
"""


def surface_of(installed: Path) -> Surface:
    """Import the bindings of a folder in a child process; return their names."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", _READ], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Use:
    """One name that the source uses."""

    name: str  # Builder.create_network, DataType.FLOAT, ILogger
    where: str  # module:line
    guards: frozenset[str] = field(default=frozenset(), compare=False)  # names that the function asks `has` for


def missing(uses: Iterable[Use], surface: Surface) -> list[str]:
    """Return the uses of a name that a version lacks, but for those behind a guard that names it."""
    return sorted(
        f"{one.where}: {one.name}" for one in uses if not _has(surface, one.name) and one.name not in one.guards
    )


def _has(surface: Surface, name: str) -> bool:
    owner, _, member = name.partition(".")
    return owner in surface and (not member or member in surface[owner])


class Follower:
    """Follows TensorRT's objects through modules."""

    def __init__(self, sources: dict[str, str], surface: Surface) -> None:
        self.surface = surface
        self._known: dict[str, object] = {}  # type of each argument, return, attribute and field, by its path
        self.uses: set[Use] = set()
        self.unknown: set[str] = set()  # uses of a name that only TensorRT has, on an object of unknown type
        self._modules = {name: ast.parse(text) for name, text in sources.items()}
        every = [node for tree in self._modules.values() for node in ast.walk(tree)]
        self.functions = {node.name: node for tree in self._modules.values() for node in tree.body if is_function(node)}
        self.classes = {node.name: node for node in every if isinstance(node, ast.ClassDef)}
        own = {node.name for node in every if is_function(node) or isinstance(node, ast.ClassDef)}
        own |= {node.attr for node in every if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
        members = {member for of_class in surface.values() for member in of_class}
        self.distinct = {name for name in members if "_" in name and not name.startswith("_")} - own
        for _ in range(_ROUNDS):
            self.uses.clear()
            self.unknown.clear()
            for name, tree in self._modules.items():
                _Scope(self, name, "", tree.body).run()

    def use(self, name: str, scope: _Scope, node: ast.AST) -> None:
        self.uses.add(Use(name, f"{scope.module}:{getattr(node, 'lineno', 0)}", frozenset(scope.guards)))

    def learn(self, path: str, kind: object) -> None:
        if kind:
            self._known[path] = kind

    def recall(self, path: str) -> object:
        return self._known.get(path)


def is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef)


_ALIKE = {ast.GeneratorExp: ast.ListComp, ast.SetComp: ast.ListComp, ast.DictComp: ast.ListComp, ast.BoolOp: ast.IfExp}


class _Scope(ast.NodeVisitor):
    """The body of a module, class or function."""

    def __init__(self, follower: Follower, module: str, owner: str, body: Sequence[ast.stmt], path: str = "") -> None:
        self._f, self.module, self._owner, self._body, self._path = follower, module, owner, body, path
        self._locals: dict[str, object] = {}
        self.guards = {
            node.args[0].value
            for statement in body
            for node in ast.walk(statement)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("has") and node.args
            if isinstance(node.args[0], ast.Constant)
        }  # fmt: skip

    def run(self) -> None:
        for statement in self._body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            kind = self._type(base)
            if isinstance(kind, str) and kind.startswith("class "):
                self._f.learn(f"base {node.name}", kind.removeprefix("class "))
        _Scope(self._f, self.module, node.name, node.body).run()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        path = f"{self._owner}.{node.name}" if self._owner else node.name
        base = self._f.recall(f"base {self._owner}")
        if base and not node.name.startswith("_"):
            self._f.use(f"{base}.{node.name}", self, node)  # it overrides a method
        scope = _Scope(self._f, self.module, self._owner, node.body, path)
        for argument in node.args.args:
            scope._locals[argument.arg] = self._own(argument.annotation) or self._f.recall(f"{path} {argument.arg}")
        self._f.learn(f"return {path}", self._own(node.returns))
        if self._owner:
            scope._locals["self"] = f"own {self._owner}"
        scope.run()

    def _own(self, annotation: ast.expr | None) -> object:
        """Return the type of an argument or a return that is annotated with a class of the same modules."""
        name = ast.unparse(annotation) if annotation else ""
        return f"own {name}" if name in self._f.classes else None

    def visit_Assign(self, node: ast.Assign) -> None:
        kind = self._type(node.value)
        for target in node.targets:
            self._bind(target, kind)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._bind(node.target, self._type(node.value) if node.value else None)

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, element(self._type(node.iter)))
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value:
            self._f.learn(f"return {self._path}", self._type(node.value))

    def visit_withitem(self, node: ast.withitem) -> None:
        kind = self._type(node.context_expr)
        if node.optional_vars:
            self._bind(node.optional_vars, kind)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self._type(node)
        else:
            super().generic_visit(node)

    def _bind(self, target: ast.expr, kind: object) -> None:
        if isinstance(target, ast.Name):
            self._locals[target.id] = kind
        elif isinstance(target, ast.Attribute):
            owner = self._type(target.value)
            if isinstance(owner, str) and owner.startswith("own "):
                self._f.learn(f"{owner.removeprefix('own ')}.{target.attr}", kind)
            else:
                self._type(target)
        elif isinstance(target, ast.Tuple):
            for i, one in enumerate(target.elts):
                starred = isinstance(one, ast.Starred)
                part = kind[i] if isinstance(kind, tuple) and i < len(kind) else element(kind)
                self._bind(one.value if starred else one, [part] if starred else part)

    def _type(self, node: ast.expr) -> object:
        """Return the type of an expression; note the uses in it."""
        kind = _ALIKE.get(type(node), type(node)).__name__
        return getattr(self, f"_type_of_{kind}", self._type_of_other)(node)

    def _type_of_Name(self, node: ast.Name) -> object:
        if node.id == "trt":
            return _LIBRARY
        if node.id in self._locals:
            return self._locals[node.id]
        return f"ours {node.id}" if node.id in {*self._f.functions, *self._f.classes} else None

    def _type_of_NamedExpr(self, node: ast.NamedExpr) -> object:
        kind = self._type(node.value)
        self._bind(node.target, kind)
        return kind

    def _type_of_Tuple(self, node: ast.Tuple) -> object:
        return tuple(self._type(one) for one in node.elts)

    def _type_of_List(self, node: ast.List) -> object:
        return [self._type(one) for one in node.elts][:1]

    def _type_of_ListComp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp) -> object:
        for part in node.generators:
            self._bind(part.target, element(self._type(part.iter)))
            for condition in part.ifs:
                self._type(condition)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return [[self._type(part) for part in parts][-1]]

    def _type_of_Subscript(self, node: ast.Subscript) -> object:
        self._type(node.slice)
        return element(self._type(node.value))

    def _type_of_Lambda(self, node: ast.Lambda) -> object:
        return self._type(node.body)

    def _type_of_IfExp(self, node: ast.IfExp | ast.BoolOp) -> object:
        """Of the first part whose type is known."""
        kinds = [self._type(one) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
        return next((kind for kind in kinds if kind), None)

    def _type_of_other(self, node: ast.expr) -> object:
        for one in ast.iter_child_nodes(node):
            if isinstance(one, ast.expr):
                self._type(one)
        return None

    def _type_of_Attribute(self, node: ast.Attribute) -> object:
        owner = self._type(node.value)
        if owner == _LIBRARY:
            self._f.use(node.attr, self, node)
            return f"class {node.attr}" if self._f.surface.get(node.attr) else None
        if isinstance(owner, str) and owner.startswith("own "):
            name = owner.removeprefix("own ")
            return self._f.recall(f"{name}.{node.attr}") or f"ours {name}.{node.attr}"
        if isinstance(owner, str) and not owner.startswith(("ours ", "call ")):
            name = owner.removeprefix("class ")
            self._f.use(f"{name}.{node.attr}", self, node)
            found = self._f.surface.get(name, {}).get(node.attr, "")
            if found.endswith("()"):
                return f"call {found.removesuffix('()')}"
            return name if owner.startswith("class ") else self._of_tensorrt(found)  # a member of an enum, a property
        if owner is None and node.attr in self._f.distinct:
            self._f.unknown.add(f"{self.module}:{node.lineno}: {ast.unparse(node)}")
        return None

    def _of_tensorrt(self, name: str) -> str | None:
        return name if self._f.surface.get(name) else None

    def _type_of_Call(self, node: ast.Call) -> object:
        function = self._type(node.func)
        arguments = [self._type(one) for one in node.args]
        named = {one.arg: self._type(one.value) for one in node.keywords}
        if not isinstance(function, str):
            is_sequence = isinstance(node.func, ast.Name) and node.func.id in {"list", "tuple", "sorted", "reversed"}
            return [element(arguments[0])] if is_sequence and arguments else None
        word, _, name = function.partition(" ")
        if word == "class":
            return name
        if word == "call":
            return self._of_tensorrt(name)
        return self._call_ours(name, arguments, named) if word == "ours" else None

    def _call_ours(self, name: str, arguments: list[object], named: dict[str | None, object]) -> object:
        owner, _, method = name.rpartition(".")
        if name in self._f.classes:
            body = self._f.classes[name].body
            owner, method = name, "__init__"
            fields = [
                one.target.id for one in body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
            ]
            for one, kind in [*zip(fields, arguments, strict=False), *named.items()]:
                self._f.learn(f"{name}.{one}", kind)
        holder = self._f.classes[owner].body if owner in self._f.classes else list(self._f.functions.values())
        found = next((one for one in holder if is_function(one) and one.name == method), None)
        if found is not None:
            names = [one.arg for one in found.args.args][1 if owner else 0 :]
            for one, kind in [*zip(names, arguments, strict=False), *named.items()]:
                self._f.learn(f"{f'{owner}.' if owner else ''}{method} {one}", kind)
        return f"own {name}" if name in self._f.classes else self._f.recall(f"return {name}")


def element(kind: object) -> object:
    """Return the type of the elements of a sequence."""
    return kind[0] if isinstance(kind, list | tuple) and kind else None


def follow(paths: Iterable[Path], surface: Surface) -> Follower:
    """Follow TensorRT's objects through files."""
    return Follower({path.stem: path.read_text(encoding="utf-8") for path in paths}, surface)
