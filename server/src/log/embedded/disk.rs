//! The files of the log as a trait, so that tests can own the disk, and the disk of the operating
//! system.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate};

/// What the log asks of a file system. Everything blocks.
pub(super) trait Disk: Debug + Send + Sync + 'static {
    /// Creates a directory and its parents, durably. Nothing happens if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Creates a file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of the files in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Renames a file inside its directory, over an existing one. Durable after [`Self::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after [`Self::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the directory for this process until the lock is dropped; `None` if another has it.
    fn lock(&self, dir: &Path) -> io::Result<Option<Lock>>;
    /// The database of the catalogue, for reading and writing. Created if it does not exist.
    fn catalogue(&self, path: &Path) -> rusqlite::Result<Connection>;
    /// A second connection to the database for reading beside a writer; `None` where there can be
    /// only one.
    fn catalogue_reader(&self, path: &Path) -> rusqlite::Result<Option<Connection>>;
    /// Is told of every transaction of the catalogue that has become durable.
    fn catalogue_committed(&self, _catalogue: &Connection) {}
}

/// An open file. All methods may be called from several threads.
pub(super) trait DiskFile: Debug + Send + Sync {
    /// Writes all of `bytes` at `offset`. After an error some of them may be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Fills `bytes` from `offset` as far as the file goes; returns how far.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;
    /// Makes the content durable, and as much of the size as is needed to read it.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and size durable.
    fn sync_all(&self) -> io::Result<()>;
    /// The size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it with zeros that take no space.
    fn set_size(&self, bytes: u64) -> io::Result<()>;
    /// Extends the file to at least `bytes` and reserves the space for all of it, as far as the
    /// file system can.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
}

/// The right to a directory; given back when dropped.
pub(super) type Lock = Box<dyn Debug + Send + Sync>;

/// An error that says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The disk of the operating system.
#[derive(Debug)]
pub(super) struct OsDisk;

/// Where space cannot be reserved, this many zeros are written instead, so that a full disk is
/// noticed before a commit rather than in it. 1 MiB: some seconds of work, and a few ms to write.
const UNRESERVED_ZEROS: usize = 1 << 20;

impl Disk for OsDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let new = dir.ancestors().take_while(|ancestor| !ancestor.is_dir()).count();
        fs::create_dir_all(dir)?;
        // The name of each new directory is in its parent.
        for parent in dir.ancestors().skip(1).take(new) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OsFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is not one of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn catalogue(&self, path: &Path) -> rusqlite::Result<Connection> {
        Connection::open(path)
    }

    fn catalogue_reader(&self, path: &Path) -> rusqlite::Result<Option<Connection>> {
        Connection::open(path).map(Some)
    }
}

#[derive(Debug)]
struct OsFile(File);

impl DiskFile for OsFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_size(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        use rustix::io::Errno;

        let size = self.size()?;
        loop {
            match fallocate(&self.0, FallocateFlags::empty(), 0, bytes.max(1)) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        if bytes > size {
            self.0.set_len(bytes)?;
            let zeros = usize::try_from(bytes - size).unwrap_or(usize::MAX).min(UNRESERVED_ZEROS);
            self.write_at(size, &vec![0; zeros])?;
        }
        Ok(())
    }
}
