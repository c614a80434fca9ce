//! Which task a loop goes on with, who awaits it, and where a suspended coroutine stands.
//!
//! Who awaits a task or future is told by what it calls when it is done: a task's own wake-up, or
//! one of asyncio's helpers, which knows the future that is awaited in its place. Names of functions
//! are those of Lib/asyncio in 3.6 to 3.13.

use strandline_cpython::asyncio::{
    ObjectTop, Suspended, PARTIAL_ARGUMENTS, PARTIAL_FUNCTION, WRAPPED_AWAITABLE, WRAPPED_TASK,
};
use strandline_cpython::{Bytecode, TPFLAGS_BYTES};

use super::objects::*;
use crate::python;

/// Files of asyncio, as code objects name them.
const TASKS: &[u8] = b"/asyncio/tasks.py";
const GROUPS: &[u8] = b"/asyncio/taskgroups.py";
const EVENTS: &[u8] = b"/asyncio/events.py";

/// Types of C code's.
static TASK: CType = CType::named(&[b"_asyncio.Task"]);
static FUTURE: CType = CType::named(&[b"_asyncio.Future"]);
static STEP: CType = CType::named(&[b"TaskStepMethWrapper", b"_asyncio.TaskStepMethWrapper"]);
static WAKE_UP: CType = CType::named(&[b"TaskWakeupMethWrapper"]);
static PARTIAL: CType = CType::named(&[b"functools.partial"]);
/// What stands for an asynchronous generator or a coroutine that is awaited.
static WRAPPERS: CType = CType::named(&[
    b"coroutine_wrapper",
    b"async_generator_asend",
    b"async_generator_athrow",
    b"anext_awaitable",
]);

const RELEASE: &[&[u8]] = &[b"_release_waiter"];

/// Callbacks of a task or future that are looked at.
const MOST_CALLBACKS: usize = 64;

/// A chain that can't be read any further.
pub struct Cut;

/// What kind of object is, or may be, awaited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A task of `_asyncio`.
    Task,
    /// A future of `_asyncio`.
    Future,
    /// A task of asyncio's Python code.
    PythonTask,
    /// A future of it.
    PythonFuture,
}

/// Where `asyncio.Handle` has the callback that it runs.
#[derive(Clone, Copy)]
pub struct HandleClass {
    pub class: Object,
    /// Offset in its objects, bytes.
    pub callback: usize,
}

impl Reader {
    /// Whether this is the code of `Handle._run`, and if so the class of `handle`, its `self`.
    pub fn handle_class(&self, code: Object, handle: impl Fn() -> Object) -> Option<HandleClass> {
        // Asked of every frame until it is found. What has no code has something else there.
        const RUN: &[u8] = b"_run";
        if !self.is_code(code)
            || !self.has_name_of(code, RUN.len())
            || !self.is_code_of(code, EVENTS, &[RUN])
        {
            return None;
        }
        let handle = handle();
        if handle == 0 {
            return None;
        }
        let mut bases = self.bases(self.type_of(handle));
        let class = bases.find(|&base| self.is_named(base, &[b"Handle"]))?;
        Some(HandleClass { class, callback: self.slot(class, b"_callback")? })
    }

    /// The task that `handle` lets go on. `None`: it runs something else.
    pub fn task_of(&self, handle: Object, known: &HandleClass) -> Option<Object> {
        if handle == 0 || !self.bases(self.type_of(handle)).any(|base| base == known.class) {
            return None;
        }
        // SAFETY: an object of that class or one derived from it has the slot.
        let callback = unsafe { self.word(handle + known.callback) };
        if callback == 0 {
            return None;
        }
        if self.is_c_type(self.type_of(callback), &STEP) {
            return Some(self.member(callback, WRAPPED_TASK)).filter(|&task| task != 0);
        }
        if let Some((code, task)) = self.method(callback) {
            let step = self.is_code_of(code, TASKS, &[b"__step", b"_step"]);
            return step.then_some(task).or_else(|| self.woken(callback));
        }
        self.woken(callback)
    }

    /// The task that a callback wakes up.
    fn woken(&self, callback: Object) -> Option<Object> {
        if let Some(task) = self.builtin_self(callback, b"task_wakeup") {
            return Some(task);
        }
        if self.is_c_type(self.type_of(callback), &WAKE_UP) {
            return Some(self.member(callback, WRAPPED_TASK)).filter(|&task| task != 0);
        }
        let (code, task) = self.method(callback)?;
        self.is_code_of(code, TASKS, &[b"__wakeup", b"_wakeup"]).then_some(task)
    }

    /// The task or future that stands behind a callback of one that it awaits.
    fn waiter(&self, callback: Object) -> Option<Object> {
        if callback == 0 {
            return None;
        }
        if let Some(task) = self.woken(callback) {
            return Some(task);
        }
        if let Some((code, group)) = self.method(callback) {
            let is_group = self.is_code_of(code, GROUPS, &[b"_on_task_done"]);
            return is_group.then(|| self.attribute(group, b"_parent_task")).flatten();
        }
        if self.is_c_type(self.type_of(callback), &PARTIAL) {
            let function = self.member(callback, PARTIAL_FUNCTION);
            // `wait_for`, up to 3.11.
            if self.code_of(function).is_some_and(|code| self.is_code_of(code, TASKS, RELEASE)) {
                return self.tuple(self.member(callback, PARTIAL_ARGUMENTS)).next();
            }
            // `gather` of 3.6.
            return self.behind(function);
        }
        self.behind(callback)
    }

    /// The future that one of asyncio's inner functions works for.
    fn behind(&self, function: Object) -> Option<Object> {
        let code = self.code_of(function)?;
        if self.is_code_of(code, TASKS, &[b"_done_callback", b"_inner_done_callback"]) {
            self.outer_variable(function, b"outer")
        } else if self.is_code_of(code, TASKS, &[b"_on_completion"]) {
            self.outer_variable(function, b"waiter")
        } else {
            None
        }
    }

    /// `None`: it is no task and no future.
    fn kind(&self, object: Object) -> Result<Option<Kind>, Cut> {
        let (mut task, mut future) = (false, false);
        for base in self.bases(self.type_of(object)) {
            if self.is_c_type(base, &TASK) {
                let known = self.size_of(base) == self.a.task.size as usize;
                return if known { Ok(Some(Kind::Task)) } else { Err(Cut) };
            }
            if self.is_c_type(base, &FUTURE) {
                let known = self.size_of(base) == self.a.task.future_size as usize;
                return if known { Ok(Some(Kind::Future)) } else { Err(Cut) };
            }
            task |= self.is_named(base, &[b"Task"]);
            future |= self.is_named(base, &[b"Future"]);
        }
        Ok(match (task, future) {
            (true, true) => Some(Kind::PythonTask),
            (false, true) => Some(Kind::PythonFuture),
            _ => None,
        })
    }

    /// The first task or future that awaits this one; `Ok(None)`: nobody is known to.
    pub fn awaiter(&self, object: Object) -> Result<Option<Object>, Cut> {
        let Some(kind) = self.kind(object)? else { return Ok(None) };
        let list = match kind {
            Kind::Task | Kind::Future => {
                let first = self.a.task.callback0.map(|offset| self.member(object, offset));
                if let Some(waiter) = first.and_then(|callback| self.waiter(callback)) {
                    return Ok(Some(waiter));
                }
                self.member(object, self.a.task.callbacks)
            }
            Kind::PythonTask | Kind::PythonFuture => {
                self.attribute(object, b"_callbacks").unwrap_or(0)
            }
        };
        let items = self.list(list).ok_or(Cut)?;
        let too_many = items.len() > MOST_CALLBACKS;
        for item in items.take(MOST_CALLBACKS) {
            // From 3.7 on a callback has its context with it.
            let callback = self.tuple(item).next().unwrap_or(item);
            if let Some(waiter) = self.waiter(callback) {
                return Ok(Some(waiter));
            }
        }
        if too_many {
            Err(Cut)
        } else {
            Ok(None)
        }
    }

    /// The coroutine of a task; `None`: it is a future.
    pub fn coroutine(&self, object: Object) -> Result<Option<Object>, Cut> {
        Ok(match self.kind(object)? {
            Some(Kind::Task) => Some(self.member(object, self.a.task.coro)),
            Some(Kind::PythonTask) => self.attribute(object, b"_coro"),
            _ => None,
        })
    }

    /// Whether a task's coroutine runs in `frame`, or, for tasks of Python code, runs at all.
    pub fn runs(&self, task: Object, frames: [usize; 2]) -> bool {
        let Ok(Some(coroutine)) = self.coroutine(task) else { return false };
        let Some(frame) = self.frame_of(coroutine) else { return false };
        frames.contains(&frame)
            || matches!(self.kind(task), Ok(Some(Kind::PythonTask)))
                && self.suspended(coroutine).is_none()
    }

    fn is_generator(&self, object: Object) -> bool {
        [&CORO_TYPE, &GEN_TYPE, &ASYNC_GEN_TYPE].iter().any(|type_| self.is(object, type_))
    }

    /// The frame of a coroutine or generator that has not ended.
    fn frame_of(&self, generator: Object) -> Option<usize> {
        if !self.is_generator(generator) {
            return None;
        }
        let frame = match self.a.suspended {
            Suspended::Object { frame, .. } => self.member(generator, frame),
            Suspended::Inside { .. } => generator + self.l.frame.in_generator? as usize,
        };
        Some(frame).filter(|&frame| frame != 0)
    }

    /// The frame of a coroutine or generator that has started and stands still.
    fn suspended(&self, generator: Object) -> Option<usize> {
        let frame = self.frame_of(generator)?;
        let o = &self.l.frame.object;
        // SAFETY: members of a live generator or of its frame.
        let stands = unsafe {
            match self.a.suspended {
                Suspended::Inside { state, awaits, .. } => {
                    awaits.is_suspended(self.byte(generator + state as usize) as i8)
                }
                Suspended::Object { top, .. } => {
                    let started = self.int(frame + o.f_lasti? as usize) >= 0;
                    let stands = match top {
                        ObjectTop::Pointer(top) => self.word(frame + top as usize) != 0,
                        // FRAME_SUSPENDED (Include/cpython/frameobject.h).
                        ObjectTop::Depth { .. } => {
                            self.byte(frame + o.f_state? as usize) as i8 == -1
                        }
                    };
                    started && stands
                }
            }
        };
        stands.then_some(frame)
    }

    /// What the suspended `generator`, whose frame it is, awaits; `None`: it yields, or nothing is
    /// known of it.
    fn awaited(&self, generator: Object, frame: usize) -> Option<Object> {
        use strandline_cpython::asyncio::{resumes_await, Awaits};
        let slot = match self.a.suspended {
            Suspended::Inside { state, stacktop, awaits } => {
                let f = self.l.frame.interpreter.as_ref()?;
                // SAFETY: members of a live generator and its frame; a suspended frame has another
                // instruction of two bytes to go on with.
                let (awaits, used) = unsafe {
                    let awaits = match awaits {
                        Awaits::Resume => {
                            let at = self.word(frame + f.instr_ptr as usize) + 3;
                            resumes_await(*(at as *const u8))
                        }
                        Awaits::State(it) => self.byte(generator + state as usize) as i8 == it,
                    };
                    (awaits, self.int(frame + stacktop as usize))
                };
                if !awaits {
                    return None;
                }
                frame + f.slots() as usize + 8 * usize::try_from(used).ok()?.checked_sub(1)?
            }
            Suspended::Object { top, yield_from, .. } => {
                let o = &self.l.frame.object;
                // SAFETY: members of a live frame.
                let (code, last) = unsafe {
                    let last = self.int(frame + o.f_lasti? as usize);
                    (self.word(frame + o.f_code? as usize), last)
                };
                let next = usize::try_from(last).ok()? * o.lasti_unit as usize + 2;
                let Bytecode::Object(bytecode) = self.l.code.code else { return None };
                let bytecode = self.fixed(code, bytecode);
                if !self.has_flag(bytecode, TPFLAGS_BYTES)
                    || next >= self.fixed(bytecode, self.l.bytes.len)
                {
                    return None;
                }
                // SAFETY: below the length of the bytecode.
                let opcode =
                    unsafe { *((bytecode + self.l.bytes.data as usize + next) as *const u8) };
                if opcode != yield_from {
                    return None;
                }
                // SAFETY: members of a live frame.
                let end = unsafe {
                    match top {
                        ObjectTop::Pointer(top) => self.word(frame + top as usize),
                        ObjectTop::Depth { stack, depth } => {
                            let used = self.int(frame + depth as usize);
                            let used = usize::try_from(used).ok().filter(|&used| used != 0)?;
                            self.word(frame + stack as usize) + 8 * used
                        }
                    }
                };
                end.checked_sub(8)?
            }
        };
        // SAFETY: the topmost slot in use of a suspended frame's value stack.
        Some(unsafe { self.word(slot) }).filter(|&object| object != 0)
    }

    /// `python::key_at` of a frame that stands still.
    pub fn key_at(&self, frame: usize) -> u64 {
        if self.memo.is_some() {
            for offset in python::key_offsets() {
                // SAFETY: members of a live frame; noted, not used.
                unsafe { self.word((frame + offset) & !7) };
            }
        }
        python::key_at(frame)
    }

    /// The frames of a coroutine that stands still and of what it awaits, outermost first.
    pub fn frames(self, coroutine: Object) -> impl Iterator<Item = usize> {
        let mut at = coroutine;
        let next = move || {
            let frame = loop {
                if at == 0 {
                    return None;
                }
                if self.is_generator(at) {
                    break self.suspended(at)?;
                }
                if !self.is_c_type(self.type_of(at), &WRAPPERS) {
                    return None;
                }
                at = self.member(at, WRAPPED_AWAITABLE);
            };
            at = self.awaited(at, frame).unwrap_or(0);
            Some(frame)
        };
        core::iter::from_fn(next)
    }
}
