# Checks what asyncio.rs says of the interpreter that runs this, 3.6 to 3.13. argv[1]: a dict.
import _asyncio
import ast
import asyncio
import ctypes
import functools
import sys

L = ast.literal_eval(sys.argv[1])
V = sys.version_info[:2]


def u64(at):
    return ctypes.c_uint64.from_address(at).value


def i32(at):
    return ctypes.c_int32.from_address(at).value


def u8(at):
    return ctypes.c_uint8.from_address(at).value


def member(thing, key):
    return u64(id(thing) + L[key])


def same(what, got, want):
    if got != want:
        sys.exit("%s: read %r, is %r" % (what, got, want))


def is_c_type(kind):
    # The formula of `is_c_type`.
    return kind.__flags__ >> 8 & 3 != 2


class Plain(object):
    pass


class Waits(object):
    def __await__(self):
        yield


async def inner():
    await Waits()


async def outer():
    await inner()


# Tasks, and what a loop is given to call for them.
loop = asyncio.new_event_loop()
called, call_soon = [], loop.call_soon
loop.call_soon = lambda f, *args, **more: (called.append(f), call_soon(f, *args, **more))[1]
coroutine = outer()
future = loop.create_future()
task = asyncio.Task(coroutine, loop=loop)
same("tp_basicsize", u64(id(asyncio.Task) + L["basicsize"]), asyncio.Task.__basicsize__)
same("the task's size", _asyncio.Task.__basicsize__, L["task.size"])
same("the future's size", _asyncio.Future.__basicsize__, L["task.future_size"])
same("task_coro", member(task, "task.coro"), id(coroutine))
step = called[-1]
same("the step's type", type(step).__name__, "TaskStepMethWrapper")
same("sw_task", member(step, "wrapped_task"), id(task))
first, second = lambda task: None, lambda task: None
for it in (task, future):
    if L["task.callback0"] is not None:
        same("fut_callback0", member(it, "task.callback0"), 0)
    it.add_done_callback(first)
    it.add_done_callback(second)
    rest = [first, second]
    if L["task.callback0"] is not None:
        same("fut_callback0", member(it, "task.callback0"), id(rest.pop(0)))
    callbacks = member(it, "task.callbacks")
    same("ob_size", u64(callbacks + L["list.len"]), len(rest))
    items = u64(callbacks + L["list.items"])
    for i, callback in enumerate(rest):
        item = u64(items + 8 * i)
        if V >= (3, 7):
            item = u64(item + L["tuple.items"])
        same("fut_callbacks", item, id(callback))

# A task's wake-up.
awaited = loop.create_future()


async def awaits():
    await awaited


waiting = asyncio.Task(awaits(), loop=loop)
call_soon(lambda: None)
loop.call_soon(loop.stop)
loop.run_forever()
callback = awaited._callbacks[0]
callback = callback[0] if V >= (3, 7) else callback
if V >= (3, 10):
    method = member(callback, "builtin.method")
    same("ml_name", ctypes.string_at(u64(method)), b"task_wakeup")
    same("m_self", member(callback, "builtin.self"), id(waiting))
else:
    same("the wake-up's type", type(callback).__name__, "TaskWakeupMethWrapper")
    same("ww_task", member(callback, "wrapped_task"), id(waiting))
awaited.cancel()
loop.run_until_complete(asyncio.wait([waiting, task], **({"loop": loop} if V < (3, 8) else {})))
loop.close()

# Callables.
plain = Plain()
bound = (lambda self: None).__get__(plain)
same("im_self", member(bound, "method.self"), id(plain))
same("im_func", member(bound, "method.function"), id(bound.__func__))
arguments = (plain,)
partial = functools.partial(first, *arguments)
same("fn", member(partial, "partial.function"), id(first))
same("args", u64(member(partial, "partial.arguments") + L["tuple.items"]), id(plain))


def closure():
    variable = Plain()
    return (lambda: variable), variable


function, variable = closure()
cells = member(function, "function.closure")
same("func_closure", cells, id(function.__closure__))
same("ob_ref", u64(u64(cells + L["tuple.items"]) + L["cell.content"]), id(variable))

# Which types C code made.
for kind in (asyncio.Task, asyncio.Future, type(step), functools.partial):
    same("is_c_type of %r" % kind, is_c_type(kind), True)
for kind in (Plain, asyncio.Handle, type("Task", (asyncio.Task,), {})):
    same("is_c_type of %r" % kind, is_c_type(kind), False)


# Suspended coroutines.
def reads(generator):
    # Whether it stands still, and the address of what it awaits.
    if L["suspended.frame"] is not None:
        frame = u64(id(generator) + L["suspended.frame"])
        code = generator.cr_code if hasattr(generator, "cr_code") else generator.gi_code
        last = i32(frame + L["lasti"])
        if last < 0:
            return False, None
        if bytearray(code.co_code)[last * L["lasti_unit"] + 2] != L["suspended.yield_from"]:
            return True, None
        if L["suspended.pointer"] is not None:
            return True, u64(u64(frame + L["suspended.pointer"]) - 8)
        depth = i32(frame + L["suspended.depth"])
        return True, u64(u64(frame + L["suspended.stack"]) + 8 * depth - 8)
    frame = id(generator) + L["in_generator"]
    state = u8(id(generator) + L["suspended.state"])
    state = state - 256 if state > 127 else state
    if L["suspended.awaits"] is not None:
        stands = L["created"] < state < 0
        awaits = state == L["suspended.awaits"]
    else:
        stands = state == L["suspended_311"]
        awaits = stands and u8(u64(frame + L["instr_ptr"]) + 3) & 3 >= 2
    if not awaits:
        return stands, None
    used = i32(frame + L["suspended.stacktop"])
    return stands, u64(frame + L["slots"] + 8 * used - 8)


def yields(other):
    for _ in other:
        yield


def delegates(other):
    yield from other


coroutine = outer()
same("a coroutine that has not started", reads(coroutine), (False, None))
coroutine.send(None)
same("a coroutine in an await", reads(coroutine), (True, id(coroutine.cr_await)))
within = coroutine.cr_await
same("the one that it awaits", reads(within), (True, id(within.cr_await)))
generator = yields([1])
next(generator)
same("a generator that yields", reads(generator), (True, None))
generator = yields([1, 2])
other = delegates(generator)
next(other)
same("a generator in a yield from", reads(other), (True, id(generator)))
coroutine.close()


async def asynchronous():
    yield


asend = asynchronous().asend(None)
wrapper = outer().__await__()
agen = asynchronous()
for wraps, what in ((agen.asend(None), agen), (agen.athrow(ValueError), agen)):
    same("what %r stands for" % wraps, member(wraps, "wrapped_awaitable"), id(what))
coroutine = outer()
wrapper = coroutine.__await__()
same("cw_coroutine", member(wrapper, "wrapped_awaitable"), id(coroutine))
for it, name in ((asend, "async_generator_asend"), (wrapper, "coroutine_wrapper")):
    same("name of a type", type(it).__name__, name)
    same("is_c_type", is_c_type(type(it)), True)
coroutine.close()
if V >= (3, 10):
    iterator = anext(agen, None)
    same("name of a type", type(iterator).__name__, "anext_awaitable")
    assert member(iterator, "wrapped_awaitable") != 0

# Attributes without a dict, and with one.
value = plain.attribute = Plain()
if L["attributes"] == "Dict":
    assert Plain.__dictoffset__ > 0
else:
    values = {"Two": -32, "Tagged": -24, "Inline": Plain.__basicsize__}[L["attributes"]] + id(plain)
    if L["attributes"] == "Inline":
        same("the values are valid", u8(values + 3), 1)
    else:
        values = u64(values) + (L["attributes"] == "Tagged")
    same("a value", u64(values + L["first_value"]), id(value))
    plain.__dict__["other"] = 1
    plain.__dict__ = plain.__dict__.copy()
    same("the dict", u64(id(plain) - 24), id(plain.__dict__))
print("asyncio checked")
