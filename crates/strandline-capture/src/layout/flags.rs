//! Bits and numbers that fields of a capture take: what was asked for, what a process can, how it ended.

/// [`Header::options`]: children that are Pythons are followed.
pub const OPTION_FOLLOW: u32 = 1;
/// [`Header::options`]: every function of the user's own files is shown.
pub const OPTION_ALL: u32 = 2;
/// [`Header::options`]: `--function` patterns are given in [`Header::patterns`].
pub const OPTION_FUNCTIONS: u32 = 4;
/// [`Header::options`]: the main process asks for a census before it exits.
pub const OPTION_CENSUS_EXIT: u32 = 8;
/// [`Header::options`]: the main process asks for a census where its RSS is highest.
pub const OPTION_CENSUS_PEAK: u32 = 16;
/// [`Header::options`]: nothing is counted; resident memory is noted at a few points
/// ([`RegionHead::bare`]) and the program runs as without strandline otherwise.
pub const OPTION_BARE: u32 = 32;
/// [`Header::options`], bare: `gc.collect()` at the point.
pub const OPTION_COLLECT: u32 = 64;
/// [`Header::options`], bare: `malloc_trim(0)` at the point, after the above.
pub const OPTION_TRIM: u32 = 128;
/// [`Header::options`], bare: functions under `@profile` run in a forked child.
pub const OPTION_APART: u32 = 256;
/// [`Header::options`], bare: the point is each `strandline.mark()`.
pub const OPTION_AT_MARK: u32 = 512;
/// [`Header::options`], bare: the point is each return of an outermost function under `@profile`.
/// With neither of both it is the end of the program.
pub const OPTION_AT_RETURN: u32 = 1024;
/// [`Header::options`], bare: the pool trim at the point, after what is above.
pub const OPTION_POOL_TRIM: u32 = 2048;

/// [`Bare::flags`]: the end was noted while the interpreter still had its objects.
pub const BARE_ALIVE: u32 = 1;
/// [`Bare::flags`]: `malloc` isn't that of the C library.
pub const BARE_OTHER_MALLOC: u32 = 2;
/// [`Bare::flags`]: a reading was the kernel's quick one, which is off by some pages a thread.
pub const BARE_QUICK: u32 = 4;

/// [`Header::options`]: the main process asks for a census at the end of lines that moved much
/// memory.
pub const OPTION_EXPLAIN: u32 = 1 << 16;

/// [`Header::options`]: every allocation is counted under its whole call path ([`Stacks`]).
pub const OPTION_STACKS: u32 = 1 << 17;
/// [`Header::options`], with [`OPTION_STACKS`]: call paths have the frames of machine code, too.
pub const OPTION_NATIVE: u32 = 1 << 18;
/// [`Header::options`], with [`OPTION_STACKS`]: call paths go on through the asyncio tasks that
/// await the one that runs.
pub const OPTION_ASYNC: u32 = 1 << 21;
/// [`Header::options`], with stacks: every allocation and free is told one by one ([`Events`]).
pub const OPTION_EVENTS: u32 = 1 << 20;

/// [`Request::kind`]: the program called `strandline.census()`.
pub const CENSUS_CALL: u32 = 1;
/// [`Request::kind`]: the program is about to exit.
pub const CENSUS_EXIT: u32 = 2;
/// [`Request::kind`]: RSS is higher than ever, and may fall from here.
pub const CENSUS_PEAK: u32 = 3;

/// [`Request::kind`]: the line in [`Request::slot`] has ended.
pub const CENSUS_LINE: u32 = 4;

/// [`Request::status`]: the answer is a census.
pub const CENSUS_TAKEN: u32 = 1;
/// [`Request::status`]: the answer is a sentence that says why there is none.
pub const CENSUS_FAILED: u32 = 2;

/// [`Control::kind`]: `gc.collect()`.
pub const REMEDY_COLLECT: u32 = 1;
/// [`Control::kind`]: `malloc_trim(0)`.
pub const REMEDY_MALLOC_TRIM: u32 = 2;
/// [`Control::kind`]: the pages of free pools.
pub const REMEDY_POOL_TRIM: u32 = 3;

/// [`Control::entry`]: the thread waits in a system call, without the GIL.
pub const ENTRY_BLOCKED: u32 = 1;
/// [`Control::entry`]: the thread runs in the interpreter's loop, with the GIL.
pub const ENTRY_RUNNING: u32 = 2;

/// [`Control::state`]: nothing was asked for yet.
pub const CONTROL_IDLE: u32 = 0;
/// [`Control::state`]: a thread was sent to do it.
pub const CONTROL_SENT: u32 = 1;
/// [`Control::state`]: it is done.
pub const CONTROL_DONE: u32 = 2;
/// [`Control::state`]: the thread could not do it there; another place may do.
pub const CONTROL_REFUSED: u32 = 3;

/// [`Tag::flags`]: allocated by a thread that did not hold the GIL.
pub const TAG_NATIVE: u32 = 1;
/// [`Tag::flags`]: the agent wants to know when such a block is freed.
pub const TAG_WATCH: u32 = 2;

/// [`RegionHead::state`]: not used.
pub const STATE_FREE: u32 = 0;
/// [`RegionHead::state`]: the process runs, or died without a chance to say so.
pub const STATE_RUNNING: u32 = 1;
/// [`RegionHead::state`]: the process ended through `exit`; the exit ledger is final.
pub const STATE_EXITED: u32 = 2;
/// [`RegionHead::state`]: the process replaced itself through `exec`.
pub const STATE_REPLACED: u32 = 3;

/// [`RegionHead::abilities`]: small-object blocks are seen (OBJ and MEM domains).
pub const CAN_BLOCKS: u32 = 1;
/// [`RegionHead::abilities`]: malloc and its family are seen.
pub const CAN_MALLOC: u32 = 2;
/// [`RegionHead::abilities`]: line events work.
pub const CAN_LINES: u32 = 4;
/// [`RegionHead::abilities`]: the interpreter's frames are understood, so bytes have lines.
pub const CAN_SITES: u32 = 8;
/// [`RegionHead::abilities`]: the front ran: `profile` was a builtin.
pub const CAN_FRONT: u32 = 16;
/// [`RegionHead::abilities`]: what awaits running asyncio tasks is in call paths.
pub const CAN_AWAIT: u32 = 64;
/// [`RegionHead::abilities`]: no ability: the process ran already when the agent came, so that what
/// was allocated before isn't known, nor what is stranded.
pub const CAME_LATE: u32 = 32;

/// [`RegionHead::refusal`]: no reason to refuse.
pub const REFUSED_NOT: u32 = 0;
/// [`RegionHead::refusal`]: a free-threaded build.
pub const REFUSED_FREE_THREADED: u32 = 1;
/// [`RegionHead::refusal`]: a CPython that this build has no layout for.
pub const REFUSED_UNKNOWN_VERSION: u32 = 2;
/// [`RegionHead::refusal`]: a Python that isn't CPython.
pub const REFUSED_NOT_CPYTHON: u32 = 3;
