//! One run of the program.

use std::fs::File;
use std::time::{Duration, Instant};

use strandline_capture::layout;
use strandline_capture::read::{self, Bare};
use strandline_report::remedies::{Point, Sample};
use strandline_report::Exit;

use super::libraries::Libraries;
use super::list::Remedy;
use super::streams::{Input, Streams};
use crate::error::Error;
use crate::launch::{self, Changes, Ended};
use crate::shared;
use crate::target::Target;

/// What all runs have in common.
pub struct Runner<'a> {
    pub target: &'a Target,
    pub agent: File,
    pub input: Input,
    pub libraries: Libraries,
}

/// A run and what came of it.
pub struct Once {
    /// What the program noted; `None`: no Python was seen.
    pub bare: Option<Bare>,
    pub pid: u32,
    pub ended: Ended,
    pub sample: Sample,
}

impl Runner<'_> {
    /// Runs the program as it is. `first`: its output goes on to ours.
    pub fn as_is(&mut self, first: bool) -> Result<Once, Error> {
        self.run(None, Point::End, first, Duration::MAX)
    }

    /// Runs it under a remedy that acts at `point`.
    pub fn under(&mut self, remedy: &Remedy, point: Point, limit: Duration) -> Result<Once, Error> {
        self.run(Some(remedy), point, false, limit)
    }

    fn run(
        &mut self,
        remedy: Option<&Remedy>,
        point: Point,
        first: bool,
        limit: Duration,
    ) -> Result<Once, Error> {
        let at = match point {
            Point::Mark => layout::OPTION_AT_MARK,
            Point::Return => layout::OPTION_AT_RETURN,
            Point::End => 0,
        };
        let options = remedy.map_or(0, |r| r.options);
        let capture = shared::capture(layout::OPTION_BARE | at | options, "", 0)?;
        let mut streams = Streams::new(&mut self.input, first).map_err(Error::Streams)?;
        let changes = Changes {
            variables: remedy.map_or(vec![], Remedy::values),
            library: remedy.and_then(|r| r.preload(&self.libraries)),
            streams: streams.descriptors(),
        };
        let names = [&self.agent, &capture].map(shared::name_for_others);
        let start = Instant::now();
        let running = launch::start_changed(self.target, &names[0], &names[1], &changes)?;
        let pid = running.pid as u32;
        streams.started();
        let (ended, late) = match limit {
            Duration::MAX => (running.wait()?, false),
            limit => running.wait_at_most(limit)?,
        };
        let run_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let output = streams.finish(&mut self.input);
        let bare = read::bare(&capture)?;
        let b = bare.clone().unwrap_or_default();
        let apart = options & layout::OPTION_APART != 0;
        let peak = if apart { b.peak.max(b.children_peak) } else { b.peak };
        let actions = layout::OPTION_COLLECT | layout::OPTION_TRIM | layout::OPTION_POOL_TRIM;
        let acted = options & actions != 0;
        let sample = Sample {
            peak_rss: b.end.map(|_| peak),
            end_rss: b.end,
            marked_rss: match point {
                Point::Mark => b.marked,
                Point::Return => b.returned,
                Point::End => b.before,
            },
            after_action_rss: b.after,
            run_ns,
            exit: match ended {
                Ended::Code(code) => Exit { code: Some(code), signal: None },
                Ended::Signal(signal) => Exit { code: None, signal: Some(signal) },
            },
            output: output.hash,
            error: if late {
                Some(format!("it took longer than {} s and was killed", limit.as_secs()))
            } else if b.end.is_some() && acted && b.after.is_none() {
                Some("the program never came to the point at which the remedy acts".to_owned())
            } else if remedy.is_some_and(|r| r.library.is_some())
                && b.flags & layout::BARE_OTHER_MALLOC == 0
            {
                Some("the preloaded library was not used".to_owned())
            } else {
                None
            },
            last_words: output.last_words,
        };
        Ok(Once { bare, pid, ended, sample })
    }
}
