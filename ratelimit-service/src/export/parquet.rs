//! Apache Parquet: a column for each field, all of them optional, `started_at_ms` and `at_ms` as timestamps.

use std::io::Write;
use std::sync::Arc;

use ::parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::Type;

use super::{What, Writer, with_values};
use crate::entry::{Entry, EventRecord, TrackedRecord, Value};

/// Rows that are held in memory, and written together.
const GROUP_ROWS: usize = 16_384;

/// The columns that are moments.
const TIMES: [&str; 2] = ["started_at_ms", "at_ms"];

pub(super) struct ParquetWriter<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    rows: usize,
}

/// Values that wait to be written; a definition level tells of each row whether it has one.
enum Column {
    Text(Vec<ByteArray>, Vec<i16>),
    Count(Vec<i64>, Vec<i16>),
    Flag(Vec<bool>, Vec<i16>),
}

impl<W: Write + Send> ParquetWriter<W> {
    pub(super) fn new(out: W, names: &[&str], what: What) -> anyhow::Result<ParquetWriter<W>> {
        let columns: Vec<Column> = match what {
            What::Usage => EventRecord::default().values().iter().map(Column::of).collect(),
            What::Tracked => TrackedRecord::default().values().iter().map(Column::of).collect(),
        };
        let fields = names.iter().zip(&columns).map(|(name, column)| column.field(name).map(Arc::new));
        let fields = fields.collect::<Result<_, _>>()?;
        let schema = Type::group_type_builder("tollgate").with_fields(fields).build()?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        Ok(ParquetWriter { writer, columns, rows: 0 })
    }

    fn write_group(&mut self) -> anyhow::Result<()> {
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else { anyhow::bail!("a column too many") };
            match column {
                Column::Text(values, levels) => {
                    writer.typed::<ByteArrayType>().write_batch(values, Some(levels), None)?;
                }
                Column::Count(values, levels) => {
                    writer.typed::<Int64Type>().write_batch(values, Some(levels), None)?;
                }
                Column::Flag(values, levels) => {
                    writer.typed::<BoolType>().write_batch(values, Some(levels), None)?;
                }
            }
            writer.close()?;
            column.clear();
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

impl<W: Write + Send> Writer for ParquetWriter<W> {
    fn write(&mut self, entry: &Entry) -> anyhow::Result<()> {
        with_values(entry, |values| self.columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value)));
        self.rows += 1;
        if self.rows == GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.writer.close()?;
        Ok(())
    }
}

impl Column {
    fn of(value: &Value<'_>) -> Column {
        match value {
            Value::Text(_) | Value::Texts(_) => Column::Text(Vec::new(), Vec::new()),
            Value::Count(_) => Column::Count(Vec::new(), Vec::new()),
            Value::Flag(_) => Column::Flag(Vec::new(), Vec::new()),
        }
    }

    fn field(&self, name: &str) -> ::parquet::errors::Result<Type> {
        let (physical, logical) = match self {
            Column::Text(..) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Column::Count(..) if TIMES.contains(&name) => {
                (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS)))
            }
            Column::Count(..) => (Physical::INT64, None),
            Column::Flag(..) => (Physical::BOOLEAN, None),
        };
        let field = Type::primitive_type_builder(name, physical);
        field.with_logical_type(logical).with_repetition(Repetition::OPTIONAL).build()
    }

    fn push(&mut self, value: &Value<'_>) {
        match (self, value) {
            (Column::Text(values, levels), Value::Text(text)) => {
                levels.push(text.is_some().into());
                values.extend(text.map(ByteArray::from));
            }
            (Column::Text(values, levels), Value::Texts(texts)) => {
                levels.push(1);
                values.push(ByteArray::from(serde_json::Value::from(*texts).to_string().as_str()));
            }
            (Column::Count(values, levels), Value::Count(count)) => {
                levels.push(count.is_some().into());
                // The ledger has none that is larger.
                values.extend(count.map(|count| i64::try_from(count).unwrap_or(i64::MAX)));
            }
            (Column::Flag(values, levels), Value::Flag(flag)) => {
                levels.push(1);
                values.push(*flag);
            }
            // A field is always of one kind.
            (Column::Text(_, levels) | Column::Count(_, levels) | Column::Flag(_, levels), _) => levels.push(0),
        }
    }

    fn clear(&mut self) {
        match self {
            Column::Text(values, levels) => (values.clear(), levels.clear()),
            Column::Count(values, levels) => (values.clear(), levels.clear()),
            Column::Flag(values, levels) => (values.clear(), levels.clear()),
        };
    }
}
