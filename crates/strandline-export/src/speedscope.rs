//! speedscope: for each process and figure a profile of type "sampled", a sample for each call
//! path.

use std::io::{self, Write};

use strandline_profile::{Process, Profile, Weight};

use crate::error::ExportError;
use crate::json;
use crate::names;
use crate::tree::Place;
use crate::view::View;

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";

/// Writes all processes; the profile of `first` is shown first.
pub fn write(
    profile: &Profile,
    processes: &[&Process],
    first: Weight,
    to: &mut dyn Write,
) -> Result<(), ExportError> {
    write!(
        to,
        "{{\"$schema\":\"{SCHEMA}\",\"exporter\":{},\"name\":{},\"profiles\":[",
        json::text(&format!("strandline {}", profile.meta.strandline)),
        json::text(&profile.meta.command.join(" ")),
    )?;
    // The frames come last, so that only their text has to be kept.
    let mut frames: Vec<String> = Vec::new();
    let (mut written, mut active) = (0usize, None);
    for process in processes {
        let view = View::of(process);
        for weight in Weight::ALL {
            // A figure that nothing has is left out, unless it was asked for.
            let any = view.by_node(weight).next().is_some();
            if !any && (weight != first || active.is_some()) {
                continue;
            }
            if written > 0 {
                to.write_all(b",")?;
            }
            if weight == first && active.is_none() {
                active = Some(written);
            }
            written += 1;
            let name = match processes {
                [_] => weight.title().to_owned(),
                _ => format!("{}: {}", names::process(process), weight.title()),
            };
            one(&view, weight, &name, frames.len(), to)?;
        }
        frames.extend(view.tree.places.iter().map(frame));
    }
    write!(to, "],\"activeProfileIndex\":{},\"shared\":{{", active.unwrap_or(0))?;
    json::array(to, "frames", frames)?;
    to.write_all(b"}}\n")?;
    to.flush()?;
    Ok(())
}

/// One profile; `base`: the number of its process's first frame.
fn one(
    view: &View<'_>,
    weight: Weight,
    name: &str,
    base: usize,
    to: &mut dyn Write,
) -> io::Result<()> {
    let sum = view.by_node(weight).fold(0u64, |sum, (_, bytes)| sum.saturating_add(bytes));
    write!(
        to,
        "{{\"type\":\"sampled\",\"name\":{},\"unit\":\"bytes\",\"startValue\":0,\"endValue\":{sum},",
        json::text(name)
    )?;
    let mut places = Vec::new();
    let samples = view.by_node(weight).map(|(node, _)| {
        view.tree.stack(node, &mut places);
        sample(&places, base)
    });
    json::array(to, "samples", samples)?;
    to.write_all(b",")?;
    json::array(to, "weights", view.by_node(weight).map(|(_, bytes)| bytes))?;
    to.write_all(b"}")
}

fn sample(places: &[u32], base: usize) -> String {
    let mut text = String::from("[");
    for (i, &place) in places.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(&(base + place as usize).to_string());
    }
    text.push(']');
    text
}

/// A frame. The line stands in the name as well: without it, the lines of a function could not be
/// told apart where only names are shown.
fn frame(place: &Place<'_>) -> String {
    let mut text = format!("{{\"name\":{}", json::text(&names::place_short(place)));
    if !place.file.is_empty() {
        text += &format!(",\"file\":{}", json::text(place.file));
    }
    if place.line > 0 {
        text += &format!(",\"line\":{}", place.line);
    }
    text + "}"
}
