//! The report of a run: from a capture's plain values to text and JSON.
//!
//! [`Run::assemble`] joins a capture with the source lines and with what only the caller knows
//! (the command, how it ended). The text ([`text::render`]) and the JSON ([`Run::to_json`]) are
//! both made from that one value, so they never disagree.
//!
//! [`census`] turns a census into text, [`explain`] an explanation; their JSON is the values as they
//! are. [`remedies`] judges the runs of one program under several remedies.
//!
//! This crate starts no process, prints nothing and looks into none; the only thing that it may
//! read is source files, through the [`Sources`] that the caller hands in.

mod assemble;
mod block;
pub mod census;
pub mod explain;
mod model;
pub mod remedies;
mod source;
pub mod text;

pub use assemble::Setting;
pub use model::{
    Abilities, Alive, Exit, FunctionTable, LedgerRow, Line, LineLook, Moment, ProcessRow,
    ProcessState, Program, Run, SiteRow, SCHEMA,
};
pub use source::{Files, Source, Sources};
