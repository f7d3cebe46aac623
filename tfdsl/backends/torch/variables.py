"""The variables of one function: which value each holds, and when its name may be used again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tfdsl.backends.torch.code import Code
from tfdsl.backends.torch.names import sanitised
from tfdsl.ir.graph import Value


class Variables:
    """Values as code: a variable each, or the expression that waits for its one use.

    A name is given to another value once nothing needs what it holds, neither by itself nor in a waiting expression.
    `may_use` says whether a name is free of meaning outside the function.
    """

    def __init__(self, may_use: Callable[[str], bool], taken: Iterable[str] = ()):
        self._may_use = may_use
        self._holds: dict[str, Value | None] = dict.fromkeys(taken)  # None: kept as long as the function runs
        self._ever = set(self._holds)
        self._outer: Variables | None = None
        self._code: dict[Value, Code] = {}
        self._reads: dict[Value, frozenset[str]] = {}  # the variables in the code of a value
        self._readers: dict[str, set[Value]] = {}  # the values whose code has a variable in it
        self._uses: dict[Value, int] = {}

    def inside(self) -> Variables:
        """Those of a part of the function that runs again and again: what is needed now is not touched."""
        inner = Variables(self._may_use, (name for name in self._holds if not self.is_free(name)))
        inner._ever, inner._outer = self._ever, self
        return inner

    # --- uses ------------------------------------------------------------------------------------------------------

    def expect(self, value: Value) -> None:
        """Count one more use of a value that is to come."""
        self._uses[value] = self._uses.get(value, 0) + 1

    def spend(self, value: Value) -> None:
        """Count one use of a value as done."""
        if value in self._uses:
            self._uses[value] -= 1

    def uses(self, value: Value) -> int:
        """How many uses of a value are to come."""
        return self._uses.get(value, 0)

    # --- code ------------------------------------------------------------------------------------------------------

    def __contains__(self, value: object) -> bool:
        return value in self._code

    def code(self, value: Value) -> Code:
        """The variable of a value, or its waiting expression."""
        return self._code[value]

    def is_named(self, value: Value) -> bool:
        """Whether a value has a variable."""
        return value in self._code and self._code[value].text in self._holds

    def read_by(self, values: Iterable[Value | None]) -> frozenset[str]:
        """The variables in the code of some values."""
        return frozenset(name for value in values if value is not None for name in self._reads.get(value, ()))

    def wait(self, value: Value, code: Code, reads: frozenset[str]) -> None:
        """Let a value be an expression until its one use."""
        self._code[value], self._reads[value] = code, reads
        for name in reads:
            self._readers.setdefault(name, set()).add(value)

    # --- names -----------------------------------------------------------------------------------------------------

    def is_free(self, name: str, value: Value | None = None) -> bool:
        """Whether a name could be given to a value now: what is assigned may be computed from what the name holds."""
        if name not in self._holds:
            return True
        held = self._holds[name]
        if held is None or self.uses(held) > 0:
            return False
        readers = {each for each in self._readers.get(name, ()) if self.uses(each) > 0 and name in self._reads[each]}
        self._readers[name] = readers
        return not readers - {value}

    def name(self, value: Value, *wanted: str) -> str:
        """A variable for a value: the first of the names wanted that is free, or the first with a number behind it."""
        return self.hold(self._choose(wanted, lambda each: self.is_free(each, value)), value)

    def keep(self, *wanted: str) -> str:
        """A variable that holds one thing from the function's beginning to its end."""
        if self._outer is not None:
            name = self._outer.keep(*wanted)
            self._holds[name] = None
            return name
        name = self._choose(wanted, lambda each: each not in self._ever)
        self.occupy(name)
        return name

    def occupy(self, name: str) -> None:
        """Leave a name alone until it is released."""
        self._holds[name] = None
        self._ever.add(name)

    def release(self, name: str) -> None:
        """Let a name be used again."""
        del self._holds[name]

    def fresh(self, *wanted: str) -> str:
        """A variable that is in use until it is released."""
        name = self._choose(wanted, self.is_free)
        self.occupy(name)
        return name

    def hold(self, name: str, value: Value) -> str:
        """Let a variable hold a value from now on."""
        self._holds[name] = value
        self._ever.add(name)
        self.wait(value, Code(name), frozenset({name}))
        return name

    def _choose(self, wanted: Iterable[str], is_free: Callable[[str], bool]) -> str:
        bases = [sanitised(each) for each in wanted if each] or ["x"]
        for base in bases:
            if is_free(base) and self._may_use(base):
                return base
        number = 1
        while not (is_free(f"{bases[0]}_{number}") and self._may_use(f"{bases[0]}_{number}")):
            number += 1
        return f"{bases[0]}_{number}"
