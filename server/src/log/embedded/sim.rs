//! A simulated disk: it keeps every operation, so that a crash can be played at each of them, and it
//! can run full or fail.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rusqlite::{Connection, backup::Backup};

use super::disk::{Disk, DiskFile, Lock};

/// What a disk was asked to do, as far as it changes what is on it.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Bytes of a file.
    Write { file: usize, offset: usize, bytes: Arc<[u8]> },
    /// The size of a file.
    Size { file: usize, bytes: usize },
    /// Everything of a file is durable.
    Sync { file: usize },
    /// A name for a file, `None` to take it away.
    Name { path: PathBuf, file: Option<usize> },
    /// The names in a directory are durable.
    SyncDir { dir: PathBuf },
    /// A transaction of the catalogue is durable.
    Commit { catalogue: Snapshot },
}

/// A copy of a catalogue.
#[derive(Clone)]
pub(super) struct Snapshot(Arc<Mutex<Connection>>);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    pub(super) fn of(catalogue: &Connection) -> Self {
        let mut copy = Connection::open_in_memory().unwrap();
        Backup::new(catalogue, &mut copy).unwrap().step(-1).unwrap();
        Self(Arc::new(Mutex::new(copy)))
    }
}

/// What is on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) names: BTreeMap<PathBuf, usize>,
    pub(super) files: Vec<Arc<Vec<u8>>>,
    pub(super) catalogue: Option<Snapshot>,
}

impl Image {
    pub(super) fn resize(&mut self, file: usize, bytes: usize) {
        Arc::make_mut(&mut self.files[file]).resize(bytes, 0);
    }

    pub(super) fn write(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        let content = Arc::make_mut(&mut self.files[file]);
        let end = offset + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
    }
}

/// Which calls go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    /// None.
    #[default]
    None,
    /// The sync of a file or directory after so many.
    Sync(usize),
    /// There is no room from the write, allocation or creation after so many on.
    Full(usize),
    /// There is no room.
    FullNow,
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    ops: Vec<Op>,
    record: bool,
    fault: Fault,
    /// A file whose sync has failed was synced again.
    synced_again: bool,
    failed: Vec<usize>,
}

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// A disk with this on it, which keeps no operations.
    pub(super) fn of(image: Image) -> Self {
        Self(Arc::new(Mutex::new(State { image, ..State::default() })))
    }

    /// An empty disk that keeps its operations.
    pub(super) fn recording() -> Self {
        Self(Arc::new(Mutex::new(State { record: true, ..State::default() })))
    }

    /// How many operations there were.
    pub(super) fn now(&self) -> usize {
        self.0.lock().ops.len()
    }

    /// All operations.
    pub(super) fn ops(&self) -> Vec<Op> {
        self.0.lock().ops.clone()
    }

    /// What is on it, synced or not.
    pub(super) fn image(&self) -> Image {
        self.0.lock().image.clone()
    }

    /// What goes wrong from now on.
    pub(super) fn set_fault(&self, fault: Fault) {
        self.0.lock().fault = fault;
    }

    /// The fault has shown.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.0.lock();
        state.fault == Fault::FullNow || !state.failed.is_empty()
    }

    /// A file whose sync had failed was synced again.
    pub(super) fn synced_again(&self) -> bool {
        self.0.lock().synced_again
    }

    fn file(&self, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), file })
    }
}

impl State {
    fn keep(&mut self, op: impl FnOnce() -> Op) {
        if self.record {
            self.ops.push(op());
        }
    }

    /// Whether there is room for one more write.
    fn room(&mut self) -> io::Result<()> {
        match &mut self.fault {
            Fault::Full(0) => self.fault = Fault::FullNow,
            Fault::Full(left) => *left -= 1,
            Fault::None | Fault::Sync(_) | Fault::FullNow => {}
        }
        if self.fault == Fault::FullNow {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn sync(&mut self, file: usize) -> io::Result<()> {
        self.synced_again |= self.failed.contains(&file);
        if let Fault::Sync(left) = &mut self.fault {
            if *left == 0 {
                self.fault = Fault::None;
                self.failed.push(file);
                return Err(io::Error::other("simulated"));
            }
            *left -= 1;
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.room()?;
        let file = match state.image.names.get(path) {
            Some(&file) => {
                state.image.resize(file, 0);
                state.keep(|| Op::Size { file, bytes: 0 });
                file
            }
            None => {
                let file = state.image.files.len();
                state.image.files.push(Arc::default());
                state.image.names.insert(path.to_owned(), file);
                state.keep(|| Op::Name { path: path.to_owned(), file: Some(file) });
                file
            }
        };
        drop(state);
        Ok(self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.lock().image.names.get(path).copied();
        file.map(|file| self.file(file)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.image.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let file = state.image.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.image.names.insert(to.to_owned(), file);
        state.keep(|| Op::Name { path: to.to_owned(), file: Some(file) });
        state.keep(|| Op::Name { path: from.to_owned(), file: None });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.image.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.keep(|| Op::Name { path: path.to_owned(), file: None });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.sync(usize::MAX)?;
        state.keep(|| Op::SyncDir { dir: dir.to_owned() });
        Ok(())
    }

    fn lock(&self, _dir: &Path) -> io::Result<Option<Lock>> {
        Ok(Some(Box::new(())))
    }

    fn catalogue(&self, _path: &Path) -> rusqlite::Result<Connection> {
        let mut connection = Connection::open_in_memory()?;
        if let Some(Snapshot(stored)) = &self.0.lock().image.catalogue {
            Backup::new(&stored.lock(), &mut connection)?.step(-1)?;
        }
        Ok(connection)
    }

    fn catalogue_reader(&self, _path: &Path) -> rusqlite::Result<Option<Connection>> {
        Ok(None)
    }

    fn catalogue_committed(&self, catalogue: &Connection) {
        let mut state = self.0.lock();
        let catalogue = Snapshot::of(catalogue);
        state.image.catalogue = Some(catalogue.clone());
        state.keep(|| Op::Commit { catalogue });
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let room = state.room();
        // A full disk takes a part first: here all but the last byte, which is often a zero.
        let bytes = if room.is_ok() { bytes } else { &bytes[..bytes.len() - 1] };
        let (file, offset) = (self.file, offset as usize);
        state.image.write(file, offset, bytes);
        state.keep(|| Op::Write { file, offset, bytes: bytes.into() });
        room
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let content = state.image.files[self.file].get(offset as usize..).unwrap_or_default();
        let read = content.len().min(bytes.len());
        bytes[..read].copy_from_slice(&content[..read]);
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.sync(self.file)?;
        state.keep(|| Op::Sync { file: self.file });
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().image.files[self.file].len() as u64)
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.image.resize(self.file, bytes as usize);
        state.keep(|| Op::Size { file: self.file, bytes: bytes as usize });
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.0.lock().room()?;
        if bytes > self.size()? { self.set_size(bytes) } else { Ok(()) }
    }
}
