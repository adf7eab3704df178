"""What predictors share: parts that are computed once, when first used, and the time that each predictor needs.

A predictor that uses a part pays for it whether or not another one computed it before: its duration is what it would
take alone.
"""

import time
from contextlib import contextmanager


class shared:
    """A method of a `Ledger` as a property that is computed once, and whose time is kept."""

    def __init__(self, compute):
        self.compute, self.name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, owner, kind=None):
        if owner is None:
            return self
        if self.name not in owner.parts:
            with owner.clocked(self.name):
                owner.parts[self.name] = self.compute(owner)
        owner.use(self.name)
        return owner.parts[self.name]


class Ledger:
    """Parts by name, the seconds that each took without the parts that it used, and which those were."""

    def __init__(self):
        self.parts, self.seconds, self.used = {}, {}, {}
        self._open = []  # names and seconds of parts within, of what is being computed

    def use(self, name):
        if self._open:
            self.used[self._open[-1][0]].add(name)

    @contextmanager
    def clocked(self, name):
        """Keep the time of the block under `name`."""
        self.used[name] = set()
        self._open.append([name, 0.0])
        start = time.perf_counter()
        try:
            yield
        finally:
            whole = time.perf_counter() - start
            self.seconds[name] = whole - self._open.pop()[1]
            if self._open:
                self._open[-1][1] += whole

    def duration(self, name):
        """Seconds of what was clocked under `name`, and of all parts that it used."""
        seen, left = set(), [name]
        while left:
            one = left.pop()
            if one not in seen:
                seen.add(one)
                left += self.used[one]
        return sum(self.seconds[one] for one in seen)
