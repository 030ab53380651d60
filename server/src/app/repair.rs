//! The command `repair`: documents in quarantine, why, and how they come out.
//!
//! What is wrong with a document is found out in a process of its own, one record after the other: the
//! worst of them end the process that takes them.

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use toml::Value;

use super::{Config, cli::File};
use crate::{
    exchange::{Probe, back_up, file_name, read_back_up, rebuild},
    ids::{DocumentId, Sequence},
    log::{self, Kind, Loaded, Quarantine, Quarantined, Record, UpdateLog},
    metrics::Metrics,
    time::wall_ms,
};

/// A record that is not taken within this time is as bad as one that faults.
const RECORD_TIMEOUT: Duration = Duration::from_secs(10);

/// More bad records than this are not looked for in one document.
const BAD_MAX: usize = 1000;

/// Look at documents in quarantine, and let them out.
///
/// For the data of a server that is not running. A document gets into quarantine when it cannot be
/// loaded; it is refused to everybody then, and its log stays as it is.
#[derive(Debug, Args)]
pub(super) struct Repair {
    #[command(subcommand)]
    action: Action,
    /// The data directory [default: that of the configuration].
    #[arg(long, value_name = "DIRECTORY", global = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    file: File,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the documents in quarantine.
    List,
    /// Say which records of a document cannot be taken, and who wrote them. Changes nothing.
    Inspect {
        /// The document.
        document: String,
    },
    /// Let a document out of quarantine.
    Release {
        /// The document.
        document: String,
        /// Make it anew without the records that cannot be taken. They are lost for everybody, and so
        /// is what depends on them; the document gets another epoch. All that the log has of it is
        /// written into a file first.
        #[arg(long)]
        without_bad: bool,
    },
    /// Make a document anew from the file that `release --without-bad` wrote, if that was interrupted.
    Restore {
        /// The file.
        path: PathBuf,
    },
    /// Take records from standard input. For `repair` itself.
    #[command(hide = true)]
    Probe {
        /// Encode the document after each record.
        #[arg(long)]
        encodes: bool,
    },
}

type Done = Result<(), Box<dyn Error>>;

/// What is wrong with a record.
#[derive(Debug)]
struct Bad {
    sequence: Sequence,
    what: String,
}

impl Repair {
    pub(super) async fn run(self) -> Done {
        if let Action::Probe { encodes } = self.action {
            return probe(encodes);
        }
        let mut flags = Vec::new();
        if let Some(directory) = &self.data {
            flags.push(("log.kind", Value::String("embedded".to_owned())));
            let directory = directory.to_string_lossy().into_owned();
            flags.push(("log.directory", Value::String(directory)));
        }
        let config = self.file.load(flags)?;
        if config.log.kind == Kind::Memory {
            return Err("log.kind is memory, which ends with the process: give --data".into());
        }
        if !config.log.directory.is_dir() {
            return Err(format!("there is no {}", config.log.directory.display()).into());
        }
        let (log, quarantine) = log::open(&config.log, Metrics::new().log)?;
        let done = self.act(&config, &*log, &quarantine).await;
        log.close().await;
        done
    }

    async fn act(&self, config: &Config, log: &dyn UpdateLog, quarantine: &Quarantine) -> Done {
        match &self.action {
            Action::List => list(quarantine),
            Action::Inspect { document } => {
                let document = DocumentId::parse(document)?;
                let loaded = load(log, &document).await?;
                report(&loaded, &examine(&loaded)?)
            }
            Action::Release { document, without_bad } => {
                let document = DocumentId::parse(document)?;
                let loaded = load(log, &document).await?;
                let bad = examine(&loaded)?;
                report(&loaded, &bad)?;
                if !bad.is_empty() && !without_bad {
                    return Err(
                        "nothing was changed: --without-bad leaves these records out".into()
                    );
                }
                if !bad.is_empty() {
                    let directory = config.log.directory.join("repair");
                    fs::create_dir_all(&directory)?;
                    let name = format!("{}-{}.jsonl", file_name(&document), wall_ms());
                    let path = directory.join(name);
                    back_up(&path, &document, &loaded)?;
                    say(&format!("all that the log has of it is in {}", path.display()))?;
                    remake(log, &document, &loaded, &bad, &path).await?;
                }
                release(quarantine, &document)
            }
            Action::Restore { path } => {
                let (document, loaded) = read_back_up(path)?;
                let bad = examine(&loaded)?;
                report(&loaded, &bad)?;
                remake(log, &document, &loaded, &bad, path).await?;
                release(quarantine, &document)
            }
            Action::Probe { .. } => Ok(()),
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

async fn load(log: &dyn UpdateLog, document: &DocumentId) -> Result<Loaded, Box<dyn Error>> {
    let loaded = log.load(document).await?;
    Ok(loaded.ok_or_else(|| format!("there is no document {document}"))?)
}

fn list(quarantine: &Quarantine) -> Done {
    let listed = quarantine.list();
    for Quarantined { document, since_ms, reason } in &listed {
        let since = std::time::UNIX_EPOCH + Duration::from_millis(*since_ms);
        let since = humantime_serde::re::humantime::format_rfc3339_seconds(since);
        say(&format!("{document}\tsince {since}\t{reason}"))?;
    }
    if listed.is_empty() {
        say("no document is in quarantine")?;
    }
    Ok(())
}

fn release(quarantine: &Quarantine, document: &DocumentId) -> Done {
    let was_in = quarantine.release(document)?;
    let what = if was_in { "is out of quarantine" } else { "was not in quarantine" };
    Ok(say(&format!("{document} {what}"))?)
}

async fn remake(
    log: &dyn UpdateLog,
    document: &DocumentId,
    loaded: &Loaded,
    bad: &[Bad],
    path: &Path,
) -> Done {
    let without: BTreeSet<_> = bad.iter().map(|bad| bad.sequence).collect();
    rebuild(log, document, loaded, &without).await.map_err(|error| {
        format!("{document} was not made anew: {error}; cowrite repair restore {}", path.display())
    })?;
    let kept = loaded.tail.len() - without.len();
    Ok(say(&format!("{document} was made anew with {kept} records, and has another epoch"))?)
}

fn report(loaded: &Loaded, bad: &[Bad]) -> Done {
    for Bad { sequence, what } in bad {
        let record = loaded.tail.iter().find(|record| record.sequence == *sequence);
        let Some(Record { time_ms, principal, session, update, .. }) = record else { continue };
        let time = std::time::UNIX_EPOCH + Duration::from_millis(*time_ms);
        let time = humantime_serde::re::humantime::format_rfc3339_millis(time);
        let (principal, bytes) = (principal.as_str(), update.len());
        say(&format!("{sequence}\t{time}\t{principal:?}\t{session}\t{bytes} bytes\t{what}"))?;
    }
    let (all, bad) = (loaded.tail.len(), bad.len());
    let checkpoint = match &loaded.checkpoint {
        Some(checkpoint) => format!(", after a checkpoint at {}", checkpoint.sequence),
        None => String::new(),
    };
    Ok(say(&format!("{bad} of {all} records cannot be taken{checkpoint}"))?)
}

/// Finds the records that cannot be taken.
fn examine(loaded: &Loaded) -> Result<Vec<Bad>, Box<dyn Error>> {
    let mut bad = Vec::new();
    // The first time without encoding in between, which takes time.
    let mut encodes = false;
    loop {
        let skip: BTreeSet<_> = bad.iter().map(|bad: &Bad| bad.sequence).collect();
        let taken: Vec<_> =
            loaded.tail.iter().filter(|record| !skip.contains(&record.sequence)).collect();
        let checkpoint = loaded.checkpoint.as_ref().map(|checkpoint| checkpoint.state.clone());
        let told = ask(checkpoint.unwrap_or_default(), &taken, encodes)?;
        let before = bad.len();
        let mut ended = None;
        for (place, answer) in told.iter().enumerate() {
            // The checkpoint, then the records, then the document as a whole.
            let record = place.checked_sub(1).map(|index| taken.get(index));
            match (record, answer) {
                (_, Answer::Fine) => {}
                (None, Answer::Wrong(what) | Answer::Fatal(what)) => {
                    return Err(format!("the checkpoint cannot be loaded: {what}").into());
                }
                (Some(Some(record)), Answer::Wrong(what)) => {
                    bad.push(Bad { sequence: record.sequence, what: what.clone() });
                }
                (Some(Some(record)), Answer::Fatal(what)) => {
                    bad.push(Bad { sequence: record.sequence, what: what.clone() });
                    ended = Some(what.clone());
                }
                (Some(None), Answer::Wrong(what) | Answer::Fatal(what)) => {
                    ended = Some(what.clone());
                }
            }
        }
        bad.sort_by_key(|bad| bad.sequence);
        match ended {
            None => return Ok(bad),
            Some(what) if bad.len() == before && encodes => {
                return Err(format!("no single record is to blame: {what}").into());
            }
            Some(_) if bad.len() == before => encodes = true,
            Some(_) if bad.len() > BAD_MAX => {
                return Err(format!("more than {BAD_MAX} records cannot be taken").into());
            }
            Some(_) => {}
        }
    }
}

/// What the other process says of what it was given.
#[derive(Debug)]
enum Answer {
    Fine,
    /// It was left out.
    Wrong(String),
    /// It was the last that could be given.
    Fatal(String),
}

/// Gives a checkpoint, records and an end to a process of its own, and returns what it says of each,
/// up to the first after which it says nothing more.
fn ask(
    checkpoint: Bytes,
    records: &[&Record],
    encodes: bool,
) -> Result<Vec<Answer>, Box<dyn Error>> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["repair", "probe"]).args(encodes.then_some("--encodes"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else { return Err("no pipes".into()) };
    let updates: Vec<_> = records.iter().map(|record| record.update.clone()).collect();
    let given = updates.len() + 2;
    let writer = thread::spawn(move || give(stdin, &checkpoint, &updates));
    let (sender, lines) = mpsc::sync_channel(64);
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if line.is_err() || sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut answers = Vec::with_capacity(given);
    while answers.len() < given {
        let answer = match lines.recv_timeout(RECORD_TIMEOUT) {
            Ok(Ok(line)) => match line.split_at_checked(1) {
                Some(("+", _)) => Answer::Fine,
                Some(("-", what)) => Answer::Wrong(what.to_owned()),
                _ => Answer::Fatal(line.trim_start_matches('!').to_owned()),
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Answer::Fatal(format!("it takes more than {RECORD_TIMEOUT:?}"))
            }
            Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                Answer::Fatal("it ends the process".to_owned())
            }
        };
        let is_last = matches!(answer, Answer::Fatal(_));
        answers.push(answer);
        if is_last {
            break;
        }
    }
    // It may be busy for ever. What it does not read is not written.
    child.kill().ok();
    child.wait()?;
    drop(lines);
    writer.join().ok();
    reader.join().ok();
    Ok(answers)
}

/// Each behind its length, and at the end nothing.
fn give(mut stdin: ChildStdin, checkpoint: &[u8], updates: &[Bytes]) -> io::Result<()> {
    for bytes in [checkpoint].into_iter().chain(updates.iter().map(|update| &update[..])) {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        stdin.write_all(&length.to_be_bytes())?;
        stdin.write_all(bytes)?;
    }
    Ok(())
}

/// The other process.
fn probe(encodes: bool) -> Done {
    let mut stdin = io::stdin().lock();
    let mut next = || -> io::Result<Option<Bytes>> {
        let mut length = [0; 4];
        match stdin.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = u32::from_be_bytes(length);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        stdin.read_exact(&mut bytes)?;
        Ok(Some(bytes.into()))
    };
    let checkpoint = next()?.unwrap_or_default();
    let checkpoint = (!checkpoint.is_empty()).then_some(&checkpoint[..]);
    let mut probe = match Probe::new(checkpoint, encodes) {
        Ok(probe) => probe,
        Err(fault) => return Ok(say(&format!("!{fault}"))?),
    };
    say("+")?;
    while let Some(update) = next()? {
        match probe.take(&update) {
            Ok(Ok(())) => say("+")?,
            Ok(Err(what)) => say(&format!("-{what}"))?,
            Err(fault) => return Ok(say(&format!("!{fault}"))?),
        }
    }
    match probe.finish() {
        Ok(()) => say("+")?,
        Err(fault) => say(&format!("!{fault}"))?,
    }
    Ok(())
}
