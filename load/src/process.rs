//! What the server's process costs, from `/proc`.

use std::{fs, io};

use crate::error::Error;

/// A process on this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pid: u32,
}

/// Its memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) rss_bytes: u64,
    /// The most there ever was.
    pub(crate) rss_bytes_max: u64,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// Processor time used so far by all threads, in microseconds. Ticks of usually 10 ms.
    pub(crate) fn cpu_us(self) -> Result<u64, Error> {
        self.read("stat", |stat| {
            // The name comes first and may have anything in it, but nothing after it has a ')'.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks: u64 =
                fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
            Some(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
        })
    }

    /// Its memory now.
    pub(crate) fn memory(self) -> Result<Memory, Error> {
        self.read("status", |status| {
            let bytes = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key))?;
                Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
            };
            Some(Memory { rss_bytes: bytes("VmRSS:")?, rss_bytes_max: bytes("VmHWM:")? })
        })
    }

    fn read<T>(self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
            .and_then(|text| parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into()))
            .map_err(|source| Error::Process { pid: self.pid, source })
    }
}

/// Allows this process as many open sockets as the system lets it have: each session is one.
pub(crate) fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("warning: the limit of open files stays as it is: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_memory_and_its_peak_is_not_below_it() {
        let process = Process::new(std::process::id());
        let memory = process.memory().expect("memory");
        assert!(memory.rss_bytes > 0 && memory.rss_bytes_max >= memory.rss_bytes);
        process.cpu_us().expect("processor time");
    }
}
