"""The instrumented module of the checks with libraries: models as attrs and pydantic make them, and code to cover."""

import functools
import typing

import attrs

try:
    import pydantic
except ImportError:  # there is none for the newest Python
    pydantic = None

SEEN = []


@attrs.define
class Slotted:
    number: int = attrs.field(converter=int)
    name: str = attrs.field()

    @number.validator
    def positive(self, attribute, value):
        if value < 0:
            raise ValueError(attribute.name)

    @name.default
    def named(self):
        return f"n{self.number}"

    def __attrs_post_init__(self):
        SEEN.append(self.number)

    def doubled(self):
        return attrs.evolve(self, number=self.number * 2), __class__ is Slotted

    @property
    def half(self):
        return self.number / 2

    @functools.cached_property
    def expensive(self):
        SEEN.append("expensive")
        return self.number**2


@attrs.frozen(order=True)
class Child(Slotted):
    extra: int = attrs.field(factory=lambda: 7, on_setattr=None)

    def doubled(self):
        return super().doubled()[1], self.extra


@attrs.define(slots=False)
class Open:
    a: int = 1

    def both(self):
        return attrs.astuple(self), vars(self)


if pydantic is not None:

    class Account(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(validate_assignment=True)
        number: int
        name: str = "a"
        tags: list[str] = pydantic.Field(default_factory=lambda: ["made"])
        _private: int = pydantic.PrivateAttr(default_factory=lambda: 5)

        @pydantic.field_validator("number", mode="before")
        @classmethod
        def strip(cls, value):
            return value.strip("#") if isinstance(value, str) else value

        @pydantic.model_validator(mode="after")
        def consistent(self):
            if self.name == "bad":
                raise ValueError("a bad name")
            return self

        @pydantic.computed_field
        @property
        def doubled(self) -> int:
            return self.number * 2

        @pydantic.field_serializer("name")
        def loud(self, value):
            return value.upper()

        @pydantic.model_serializer(mode="wrap")
        def serialized(self, handler):
            return {**handler(self), "wrapped": True}

        def model_post_init(self, context):
            SEEN.append(self.number)

        def method(self, n: int = 1) -> int:
            return self.number + n + self._private

    class Derived(Account):
        extra: typing.Optional["Account"] = None

        def method(self, n=1):
            return super().method(n) * 10

    @pydantic.validate_call
    def checked(a: int, *, b: typing.Annotated[int, pydantic.Field(gt=0)] = 1) -> int:
        return a + b


def branches(n):
    if n > 10:
        kind = "many"
    elif n:
        kind = "some"
    else:
        kind = "none"
    for i in range(n):
        if i == 3:
            break
        try:
            SEEN.append(1 / (i - 1))
        except ZeroDivisionError:
            continue
        finally:
            SEEN.append("finally")
    else:
        return kind, "all"
    return kind


def values(n):
    while n:
        got = yield n
        n = n - 1 if got is None else got
    return "end"


def delegates(n):
    result = yield from values(n)
    return result


async def waits(n):
    async with Manager() as manager:
        return [value async for value in manager.numbers(n) if value != 1]


class Manager:
    async def __aenter__(self):
        return self

    async def __aexit__(self, *details):
        return False

    async def numbers(self, n):
        for i in range(n):
            yield i


def local_class(n):
    class Local:
        def get(self):
            return [x for x in range(n)], (lambda: n)()

    return Local().get()


def add(a, b=2):
    """Add."""
    return a + b


def adder(n):
    def inner(a):
        return add(a) + n

    return inner
