//! Looks at the page headers of a row group before its pages are decoded: the decoder believes the counts that it
//! finds there, and asks for memory that no machine has when they are damaged.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use polars::polars_utils::mmap::MemReader;
use polars_parquet::parquet::metadata::{ColumnChunkMetadata, RowGroupMetadata};
use polars_parquet::parquet::page::CompressedPage;
use polars_parquet::parquet::read::PageReader;

/// Checks the pages of the columns in `names`.
///
/// # Errors
/// What is wrong, for people.
pub(super) fn check(mut file: &File, group: &RowGroupMetadata, names: &[String]) -> Result<(), String> {
    let file_bytes = file.metadata().map_err(|error| error.to_string())?.len();
    for column in group.parquet_columns() {
        let path = &column.descriptor().path_in_schema;
        let Some(name) = path.first().filter(|name| names.iter().any(|wanted| wanted == name.as_str()))
        else {
            continue;
        };
        if path.len() > 1 {
            return Err(format!("column `{name}` has parts that the file's schema does not show"));
        }
        let range = column.byte_range();
        if range.start >= range.end || range.end > file_bytes {
            return Err(format!("column `{name}` is said to lie outside the file"));
        }
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.seek(SeekFrom::Start(range.start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|error| error.to_string())?;
        check_column(bytes, column, group.num_rows())
            .map_err(|detail| format!("column `{name}`: {detail}"))?;
    }
    Ok(())
}

fn check_column(bytes: Vec<u8>, column: &ColumnChunkMetadata, rows: usize) -> Result<(), String> {
    let unpacked_max = usize::try_from(column.uncompressed_size()).map_err(|_| "negative size".to_owned())?;
    let header_max = bytes.len().max(1 << 20);
    let mut values = 0_usize;
    for page in PageReader::new(MemReader::from_vec(bytes), column, Vec::new(), header_max) {
        // A dictionary page does not show its counts.
        let CompressedPage::Data(page) = page.map_err(|error| error.to_string())? else { continue };
        let (count, unpacked) = (page.num_values(), page.uncompressed_size());
        values = values.saturating_add(count);
        if count > rows {
            return Err(format!("a page of {count} values in a group of {rows} rows"));
        }
        if unpacked > unpacked_max {
            return Err(format!("a page of {unpacked} bytes in a column of {unpacked_max}"));
        }
    }
    if values == rows { Ok(()) } else { Err(format!("{values} values for {rows} rows")) }
}
