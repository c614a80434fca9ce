//! Parquet: a row for each call path, dictionaries for texts, zstd, in the order of the
//! processes.

use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use parquet::basic::{Compression, Repetition, Type as Physical, ZstdLevel};
use parquet::basic::{ConvertedType, LogicalType};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use strandline_profile::{Process, Profile};

use crate::columns::{Column, Part, COLUMNS};
use crate::error::ExportError;
use crate::names;
use crate::view::{Row, View};

/// Rows of a row group, at most.
const GROUP: usize = 500_000;
/// Rows that are made into a column's values at a time.
const SLICE: usize = 4096;

/// A process's rows, and the texts of its places.
struct Texts<'a> {
    part: Part<'a>,
    places: Vec<ByteArray>,
}

/// Some rows of a process, to be written into the same row group as others'.
struct Piece<'a> {
    of: Rc<Texts<'a>>,
    from: usize,
    len: usize,
}

impl Piece<'_> {
    fn rows(&self) -> &[Row] {
        self.of.part.view.rows.get(self.from..self.from + self.len).unwrap_or_default()
    }
}

/// Writes the rows of all processes.
pub fn write(
    profile: &Profile,
    processes: &[&Process],
    to: &mut dyn Write,
) -> Result<(), ExportError> {
    let about = [
        ("strandline.schema", "strandline-paths/1".to_owned()),
        ("strandline.version", profile.meta.strandline.clone()),
        ("strandline.command", profile.meta.command.join(" ")),
    ];
    let about = about.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by(format!("strandline {}", profile.meta.strandline))
        .set_key_value_metadata(Some(about.collect()))
        .build();
    // The crate's writer wants one that can be sent to another thread, which `to` can't: it
    // writes into memory, from where each row group goes on.
    let mut file = SerializedFileWriter::new(Vec::new(), schema()?, Arc::new(properties))?;
    let (mut pieces, mut rows): (Vec<Piece<'_>>, usize) = (Vec::new(), 0);
    for process in processes {
        let part = Part::of(View::of(process));
        let text = |p| ByteArray::from(names::place(p).into_bytes());
        let places = part.view.tree.places.iter().map(text).collect();
        let of = Rc::new(Texts { part, places });
        let (mut from, all) = (0, of.part.view.rows.len());
        while from < all {
            let len = (all - from).min(GROUP - rows);
            pieces.push(Piece { of: Rc::clone(&of), from, len });
            from += len;
            rows += len;
            if rows == GROUP {
                group(&mut file, &pieces, to)?;
                pieces.clear();
                rows = 0;
            }
        }
    }
    if rows > 0 {
        group(&mut file, &pieces, to)?;
    }
    to.write_all(&file.into_inner()?)?;
    to.flush()?;
    Ok(())
}

fn schema() -> Result<TypePtr, ParquetError> {
    let field = |name: &str, physical, logical: Option<LogicalType>| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::REQUIRED)
            .with_logical_type(logical)
            .build()
            .map(Arc::new)
    };
    let text = |name: &str| field(name, Physical::BYTE_ARRAY, Some(LogicalType::String));
    let fields = COLUMNS.iter().map(|(name, column)| match column {
        Column::Number(_) => field(name, Physical::INT64, None),
        Column::Text(_) => text(name),
        Column::Stack => {
            let list = Type::group_type_builder("list")
                .with_repetition(Repetition::REPEATED)
                .with_fields(vec![text("element")?])
                .build()?;
            Type::group_type_builder(name)
                .with_repetition(Repetition::REQUIRED)
                .with_logical_type(Some(LogicalType::List))
                .with_converted_type(ConvertedType::LIST)
                .with_fields(vec![Arc::new(list)])
                .build()
                .map(Arc::new)
        }
    });
    let fields = fields.collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Type::group_type_builder("paths").with_fields(fields).build()?))
}

/// Writes a row group and hands on what is finished.
fn group(
    file: &mut SerializedFileWriter<Vec<u8>>,
    pieces: &[Piece<'_>],
    to: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut group = file.next_row_group()?;
    for (_, column) in &COLUMNS {
        let Some(mut writer) = group.next_column()? else { break };
        for piece in pieces {
            for rows in piece.rows().chunks(SLICE) {
                write_rows(writer.untyped(), column, &piece.of, rows)?;
            }
        }
        writer.close()?;
    }
    group.close()?;
    file.flush()?;
    to.write_all(&std::mem::take(file.inner_mut()))?;
    Ok(())
}

fn write_rows(
    writer: &mut ColumnWriter<'_>,
    column: &Column,
    of: &Texts<'_>,
    rows: &[Row],
) -> Result<(), ParquetError> {
    match (column, writer) {
        (Column::Number(number), ColumnWriter::Int64ColumnWriter(writer)) => {
            let value = |row| i64::try_from(number(&of.part, row)).unwrap_or(i64::MAX);
            let values: Vec<i64> = rows.iter().map(value).collect();
            writer.write_batch(&values, None, None)?;
        }
        (Column::Text(text), ColumnWriter::ByteArrayColumnWriter(writer)) => {
            let value = |row| ByteArray::from(text(&of.part, row).as_bytes().to_vec());
            let values: Vec<ByteArray> = rows.iter().map(value).collect();
            writer.write_batch(&values, None, None)?;
        }
        (Column::Stack, ColumnWriter::ByteArrayColumnWriter(writer)) => {
            let (mut values, mut repetition, mut stack) = (Vec::new(), Vec::new(), Vec::new());
            for row in rows {
                of.part.view.tree.stack(row.node, &mut stack);
                let text = |&place| of.places.get(place as usize).cloned().unwrap_or_default();
                values.extend(stack.iter().map(text));
                // 0: the first of a list; 1: a further one.
                repetition.extend((0..stack.len()).map(|i| i16::from(i > 0)));
            }
            let definition = vec![1; values.len()];
            writer.write_batch(&values, Some(&definition), Some(&repetition))?;
        }
        _ => return Err(ParquetError::General("a column has another type".into())),
    }
    Ok(())
}
