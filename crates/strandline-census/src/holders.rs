//! Which objects hold most of what is live: found from samples of the types that take most, by the
//! ways that lead to them; and how much would go with each.

use strandline_interpreter::{values, Block, Mark, TypeId, NATIVE};

use crate::count::{name_of, Counts};
use crate::marking::Marking;
use crate::model::HolderReport;
use crate::paths::{Path, Paths, Thing};
use crate::users::users_of;

/// Types that are looked at, those with most bytes.
const TYPES: usize = 5;
/// Types with less aren't worth it, bytes.
const LEAST: u64 = 1 << 20;
/// Objects of each that are followed up.
const SAMPLES: u64 = 12;
/// Holders that are reported.
const MOST: usize = 3;
/// A holder has at least this part of the bytes of all samples: one tenth.
const SHARE: u64 = 10;
/// Types named for each.
const NAMED: usize = 5;
/// Neighbours that are compared to see in which order things were allocated.
const COMPARED: usize = 1 << 16;
/// Items that a list has at most, as far as is believed.
const MOST_ITEMS: u64 = 1 << 28;
/// `ob_size` and `ob_item` of a list (Include/listobject.h, 2.7 to 3.15).
const LIST: (u64, u64) = (16, 24);

/// Objects that stand for the rest of their type.
pub struct Samples {
    /// Address of each, and the bytes that it stands for.
    things: Vec<(Thing, u64)>,
}

impl Samples {
    /// Of the types in `live` that take most, imported code left out.
    pub fn take(marking: &Marking<'_>, paths: &Paths<'_>, live: &Counts) -> Self {
        let mut types: Vec<(TypeId, u64, u64)> = live
            .iter()
            .filter(|&(id, c)| id != NATIVE && c.count > 0 && c.bytes + c.buffers >= LEAST)
            .filter(|&(id, _)| !paths.names().is_of_code(id))
            .map(|(id, c)| (id, c.count, c.bytes + c.buffers))
            .collect();
        types.sort_unstable_by_key(|&(id, _, bytes)| (std::cmp::Reverse(bytes), id));
        types.truncate(TYPES);
        let mut things = Vec::new();
        let mut seen = vec![0u64; types.len()];
        for thing in marking.all().filter(|thing| Mark::Reached.is_set(thing.cell)) {
            let Block::Object(id) = thing.block() else { continue };
            let Some(i) = types.iter().position(|t| t.0 == id) else { continue };
            let (_, count, bytes) = types[i];
            // In the middle of each of so many equal parts.
            let step = count.div_ceil(SAMPLES).max(1);
            if seen[i] % step == step / 2 {
                things.push((thing.start, bytes * step / count));
            }
            seen[i] += 1;
        }
        Samples { things }
    }

    /// Their addresses.
    pub fn addresses(&self) -> impl Iterator<Item = Thing> + '_ {
        self.things.iter().map(|&(thing, _)| thing)
    }

    /// The objects that hold most of them, by the path to each sample, in their order.
    pub fn holders(
        &self,
        marking: &Marking<'_>,
        paths: &Paths<'_>,
        found: &[Option<Path>],
    ) -> Vec<HolderReport> {
        let mut left: Vec<(&Path, u64)> = self
            .things
            .iter()
            .zip(found)
            .filter_map(|(&(_, bytes), path)| Some((path.as_ref()?, bytes)))
            .collect();
        let all: u64 = self.things.iter().map(|&(_, bytes)| bytes).sum();
        let mut holders = Vec::new();
        while holders.len() < MOST {
            let Some((path, step, thing, id)) = heaviest(paths, &left, all / SHARE) else { break };
            holders.push(report(marking, paths, path, step, thing, id));
            left.retain(|(path, _)| paths.objects(path).all(|(_, other, _)| other != thing));
        }
        holders
    }
}

/// The object that most of the samples' bytes are below of, and of those with about the same the
/// one next to the samples. At least `least` bytes.
fn heaviest<'p>(
    paths: &Paths<'_>,
    left: &[(&'p Path, u64)],
    least: u64,
) -> Option<(&'p Path, usize, Thing, TypeId)> {
    let mut weights: Vec<(Thing, u64)> = Vec::new();
    for &(path, bytes) in left {
        for (_, thing, _) in above(paths, path) {
            match weights.iter_mut().find(|w| w.0 == thing) {
                Some(weight) => weight.1 += bytes,
                None => weights.push((thing, bytes)),
            }
        }
    }
    let most = weights.iter().map(|w| w.1).max().filter(|&most| most >= least.max(1))?;
    let weighs = |thing: Thing| weights.iter().any(|w| w.0 == thing && w.1 * 10 >= most * 9);
    let nearest = left.iter().filter_map(|&(path, _)| {
        let (step, thing, id) = above(paths, path).filter(|&(_, t, _)| weighs(t)).last()?;
        Some((path, step, thing, id))
    });
    nearest.max_by_key(|&(_, step, thing, _)| (step, std::cmp::Reverse(thing)))
}

/// The objects above the sample: modules and their dicts hold everything and say nothing.
fn above<'p>(
    paths: &'p Paths<'_>,
    path: &'p Path,
) -> impl Iterator<Item = (usize, Thing, TypeId)> + 'p {
    let objects: Vec<_> = paths.objects(path).collect();
    let inner = objects.len().saturating_sub(1);
    let starts_with_module =
        objects.first().is_some_and(|&(_, _, id)| paths.names().of(id) == "module");
    let skip = if starts_with_module { 2 } else { 0 };
    objects.into_iter().take(inner).skip(skip)
}

fn report(
    marking: &Marking<'_>,
    paths: &Paths<'_>,
    path: &Path,
    step: usize,
    thing: Thing,
    id: TypeId,
) -> HolderReport {
    let kept = marking.kept_by(thing);
    let mut types = kept.report(paths.pythons());
    let bytes = types.iter().map(|t| t.bytes).sum();
    let count = types.iter().map(|t| t.count).sum();
    types.truncate(NAMED);
    let type_name = name_of(paths.pythons(), id).unwrap_or_default();
    let text = paths.text_to(path, step);
    let end = format!(" → {type_name}");
    let text = text.strip_suffix(end.as_str()).unwrap_or(&text).to_owned();
    let name = last_name(&text);
    let users = users_of(paths, name);
    let values = values_of(paths, thing, id);
    HolderReport {
        path: text,
        address: thing,
        type_name,
        bytes,
        count,
        items: values.as_ref().map(|v| v.len() as u64),
        types,
        is_lasting: path.is_lasting(),
        is_running: path.is_running(),
        in_order: values.and_then(|values| in_order(&values)),
        functions: users.functions,
        takes_out: users.takes_out,
    }
}

/// The last name in a path: of a global or an attribute.
fn last_name(text: &str) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = text;
    // Keys and indices at the end say nothing.
    while let Some(stripped) = rest.strip_suffix(']').and_then(|r| Some(&r[..r.rfind('[')?])) {
        rest = stripped;
    }
    let start = rest
        .rfind(|c| !is_part(c))
        .map_or(0, |at| at + rest[at..].chars().next().map_or(1, char::len_utf8));
    &rest[start..]
}

/// Where the values of a dict or list stand, in the order in which they were put in; `None` for
/// others.
fn values_of(paths: &Paths<'_>, thing: Thing, id: TypeId) -> Option<Vec<u64>> {
    let names = paths.names();
    let python = names.python_of(id)?;
    let (image, l) = (names.image, &python.interpreter.layout);
    let object = thing + names.front(id);
    match names.of(id).as_str() {
        "dict" => {
            let mut entries = values::entries(image, l, object);
            if l.version < (3, 6) {
                // These dicts don't keep the order; a key is mostly made right before its value,
                // and stays when that is replaced.
                entries.sort_unstable();
            }
            Some(entries.into_iter().map(|(_, value)| value).collect())
        }
        "list" => {
            let len = image.word(object + LIST.0)?.min(MOST_ITEMS);
            let items = image.word(object + LIST.1)?;
            Some((0..len).map_while(|i| image.word(items.checked_add(8 * i)?)).collect())
        }
        _ => None,
    }
}

/// Which part of these values stand in memory in the order in which they were put in: nearly all
/// where a container was filled once, about half where values were replaced. `None` for few.
fn in_order(values: &[u64]) -> Option<f64> {
    const FEW: usize = 64;
    let pairs = values.len().min(COMPARED).checked_sub(1).filter(|&pairs| pairs >= FEW)?;
    let rising = values.windows(2).take(pairs).filter(|pair| pair[0] < pair[1]).count();
    Some(rising as f64 / pairs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_container_is_the_last_one() {
        assert_eq!(last_name("__main__.CACHE"), "CACHE");
        assert_eq!(last_name("app.views.STORE[\"a.b\"][17]"), "STORE");
        assert_eq!(last_name("__main__.app → app.Registry.items"), "items");
        assert_eq!(last_name("f() at a.py:3, local rows"), "rows");
        assert_eq!(last_name(""), "");
    }
}
