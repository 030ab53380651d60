//! Documents as files: a Yjs v1 update each, under a name that tells the document.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    vec,
};

use bytes::Bytes;

use super::{Found, Refusal, STORED_FACTOR, Source, error::SourceError};
use crate::ids::DocumentId;

/// What the files of an export end in.
const ENDING: &str = ".yjs";

/// The name of the file of a document: its id with `,` for `/`, which is in no id, and an ending. At
/// most 132 bytes.
#[must_use]
pub fn file_name(document: &DocumentId) -> String {
    format!("{}{ENDING}", document.as_str().replace('/', ","))
}

fn document_name(file_name: &str) -> Option<String> {
    file_name.strip_suffix(ENDING).map(|name| name.replace(',', "/"))
}

/// Writes `bytes` to `path`, where nothing may be yet. What is at `path` is whole at any time; that
/// it is there is durable after [`sync`].
///
/// # Errors
///
/// There is something at `path`, or it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&partial)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    // Unlike a rename, this takes nobody's place.
    let written = written.and_then(|()| fs::hard_link(&partial, path));
    let removed = fs::remove_file(&partial);
    written.and(removed)
}

/// Makes durable which files are in `directory`.
///
/// # Errors
///
/// It cannot be done.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// One file with one document, whose name is given.
#[derive(Debug)]
pub struct UpdateFile {
    file: Option<(String, PathBuf)>,
    bytes_max: usize,
}

impl UpdateFile {
    /// The file at `path` as the document `name`; documents have at most `document_bytes_max` bytes.
    #[must_use]
    pub fn new(name: String, path: PathBuf, document_bytes_max: usize) -> Self {
        let bytes_max = document_bytes_max.saturating_mul(STORED_FACTOR);
        Self { file: Some((name, path)), bytes_max }
    }
}

impl Source for UpdateFile {
    fn next(&mut self) -> Result<Option<Found>, SourceError> {
        let Some((name, path)) = self.file.take() else { return Ok(None) };
        let content = read(&path, self.bytes_max)?;
        Ok(Some(Found { name, content }))
    }
}

/// A directory of files with the names of [`file_name`]. Others are left alone.
#[derive(Debug)]
pub struct ExportedFiles {
    files: vec::IntoIter<(String, PathBuf)>,
    bytes_max: usize,
}

impl ExportedFiles {
    /// The files in `directory`, in the order of their names; documents have at most
    /// `document_bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// The directory cannot be read, or there is no such file in it.
    pub fn open(directory: &Path, document_bytes_max: usize) -> Result<Self, SourceError> {
        let io = |source| SourceError::io(directory, source);
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            if let Some(name) = entry.file_name().to_str().and_then(document_name) {
                files.push((name, entry.path()));
            }
        }
        if files.is_empty() {
            return Err(SourceError::damaged(directory, "no file in it ends in .yjs"));
        }
        files.sort();
        let bytes_max = document_bytes_max.saturating_mul(STORED_FACTOR);
        Ok(Self { files: files.into_iter(), bytes_max })
    }
}

impl Source for ExportedFiles {
    fn next(&mut self) -> Result<Option<Found>, SourceError> {
        let Some((name, path)) = self.files.next() else { return Ok(None) };
        let content = read(&path, self.bytes_max)?;
        Ok(Some(Found { name, content }))
    }
}

fn read(path: &Path, bytes_max: usize) -> Result<Result<Vec<Bytes>, Refusal>, SourceError> {
    let io = |source| SourceError::io(path, source);
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(io)?.take(limit).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > bytes_max {
        let size = path.metadata().map_err(io)?.len();
        return Ok(Err(Refusal::stored(usize::try_from(size).unwrap_or(usize::MAX), bytes_max)));
    }
    Ok(Ok(vec![bytes.into()]))
}
