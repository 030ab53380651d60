//! Tokens that are taken back before they expire: a file that is read whenever it changes.
//!
//! ```toml
//! # Every token of alice that was made before this.
//! [[revoked]]
//! subject = "alice"
//! issued_before = 2026-11-26T18:00:00Z
//!
//! # One token, by its claim jti.
//! [[revoked]]
//! token = "5f0c6a"
//! ```

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::value::{Date, Datetime, Offset, Time};

use super::crypto::{self, Digest};
use crate::ids::Principal;

/// The largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The most entries.
const ENTRIES_MAX: usize = 10_000;

/// A file that cannot be used as a list of revocations.
#[derive(Debug, thiserror::Error)]
pub enum RevocationsError {
    /// The file cannot be read.
    #[error("read {path} (auth.revocations)")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What is in the file is no list of revocations.
    #[error("{path} (auth.revocations) {what}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// What a token is known by, besides whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Issued {
    /// Its `iat`, in milliseconds since 1970.
    pub(super) at_ms: Option<u64>,
    /// Its `jti`.
    pub(super) id: Option<Digest>,
}

/// The tokens that are taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revocations {
    /// By subject, the time in milliseconds since 1970 before which its tokens are not taken.
    subjects: HashMap<Box<str>, u64>,
    tokens: HashSet<Digest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    revoked: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    subject: Option<String>,
    issued_before: Option<Datetime>,
    token: Option<String>,
}

impl Revocations {
    /// Reads a file.
    pub(super) fn load(path: &Path) -> Result<Self, RevocationsError> {
        let unusable = |what| RevocationsError::Unusable { path: path.to_owned(), what };
        let text = read(path)
            .map_err(|source| RevocationsError::Read { path: path.to_owned(), source })?
            .ok_or_else(|| unusable(format!("is larger than {FILE_BYTES_MAX} bytes")))?;
        Self::parse(&text).map_err(unusable)
    }

    /// # Errors
    ///
    /// What is wrong, to be read after the name of the file.
    fn parse(text: &str) -> Result<Self, String> {
        // Of the error only the message: the lines that it would quote name people.
        let listed: Listed =
            toml::from_str(text).map_err(|error| match error.span().map(|span| span.start) {
                Some(at) => {
                    let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
                    format!("cannot be used, line {line}: {}", error.message())
                }
                None => format!("cannot be used: {}", error.message()),
            })?;
        if listed.revoked.len() > ENTRIES_MAX {
            return Err(format!("has more than {ENTRIES_MAX} entries"));
        }
        let mut revocations = Self::default();
        for (index, entry) in listed.revoked.iter().enumerate() {
            revocations.add(entry).map_err(|what| format!("has an entry {} {what}", index + 1))?;
        }
        Ok(revocations)
    }

    fn add(&mut self, entry: &Entry) -> Result<(), &'static str> {
        match entry {
            Entry { subject: Some(subject), issued_before: Some(before), token: None } => {
                if subject.is_empty() || Principal::new(subject).is_none() {
                    return Err("whose subject is empty or too long for one");
                }
                let before = unix_ms(before).ok_or(
                    "whose issued_before is no time with an offset, as in 2026-11-26T18:00:00Z",
                )?;
                let known = self.subjects.entry(subject.as_str().into()).or_default();
                *known = before.max(*known);
                Ok(())
            }
            Entry { subject: None, issued_before: None, token: Some(token) } => {
                self.tokens.insert(token_id(token));
                Ok(())
            }
            Entry { .. } => Err("that has neither subject and issued_before nor token alone"),
        }
    }

    /// How many entries there are that differ.
    pub(super) fn len(&self) -> usize {
        self.subjects.len() + self.tokens.len()
    }

    /// Whether a token of `subject` is taken back. One that does not say when it was made counts as
    /// made before everything.
    pub(super) fn has(&self, subject: &Principal, issued: &Issued) -> bool {
        let Issued { at_ms, id } = issued;
        id.is_some_and(|id| self.tokens.contains(&id))
            || self
                .subjects
                .get(subject.as_str())
                .is_some_and(|before| at_ms.is_none_or(|at| at < *before))
    }
}

/// What a `jti` is compared by.
pub(super) fn token_id(jti: &str) -> Digest {
    crypto::digest(&[b"jti", jti.as_bytes()])
}

/// The text of the file; `None` if it is too large.
fn read(path: &Path) -> io::Result<Option<String>> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok((text.len() as u64 <= FILE_BYTES_MAX).then_some(text))
}

/// By what a change of the file shows; `None` for one that cannot be looked at.
pub(super) type Stamp = Option<[i64; 4]>;

/// Looks at the file.
pub(super) fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    let (inode, bytes) = (metadata.ino().cast_signed(), metadata.len().cast_signed());
    Some([metadata.mtime(), metadata.mtime_nsec(), inode, bytes])
}

/// A time in milliseconds since 1970; `None` without a date, a time or an offset, and before 1970.
fn unix_ms(time: &Datetime) -> Option<u64> {
    let Datetime { date: Some(date), time: Some(time), offset: Some(offset) } = time else {
        return None;
    };
    let minutes_ahead = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(*minutes),
    };
    let Time { hour, minute, second, nanosecond } = *time;
    let minutes = i64::from(hour) * 60 + i64::from(minute) - minutes_ahead;
    let seconds = days(date) * 86_400 + minutes * 60 + i64::from(second.unwrap_or(0));
    let ms = seconds * 1000 + i64::from(nanosecond.unwrap_or(0) / 1_000_000);
    u64::try_from(ms).ok()
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days(date: &Date) -> i64 {
    let Date { year, month, day } = *date;
    // Years begin in March, so that the leap day is the last of one.
    let year = i64::from(year) - i64::from(month <= 2);
    let month = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Option<u64> {
        unix_ms(&text.parse().unwrap())
    }

    fn subject(name: &str) -> Principal {
        Principal::new(name).unwrap()
    }

    fn issued(at_ms: Option<u64>, jti: Option<&str>) -> Issued {
        Issued { at_ms, id: jti.map(token_id) }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-26T18:00:00Z", Some(1_795_716_000_000)),
            ("2026-11-26T19:30:00.25+01:30", Some(1_795_716_000_250)),
            ("2026-11-26T13:00:00-05:00", Some(1_795_716_000_000)),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400_000)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-11-26T18:00:00", None),
            ("2026-11-26", None),
            ("18:00:00", None),
        ] {
            assert_eq!(ms(text), expected, "{text}");
        }
    }

    #[test]
    fn a_token_is_taken_back_by_its_id_or_by_when_and_for_whom_it_was_made() {
        let revocations = Revocations::parse(
            "[[revoked]]\nsubject = 'alice'\nissued_before = 1970-01-01T00:00:10Z\n\
             [[revoked]]\nsubject = 'alice'\nissued_before = 1970-01-01T00:00:05Z\n\
             [[revoked]]\ntoken = 'x'\n",
        )
        .unwrap();
        assert_eq!(revocations.len(), 2);
        for (name, at_ms, jti, expected) in [
            ("alice", Some(9_999), None, true),
            ("alice", Some(10_000), None, false),
            ("alice", None, None, true),
            ("Alice", Some(1), None, false),
            ("bob", None, None, false),
            ("bob", Some(20_000), Some("x"), true),
            ("bob", Some(20_000), Some("X"), false),
        ] {
            let is_revoked = revocations.has(&subject(name), &issued(at_ms, jti));
            assert_eq!(is_revoked, expected, "{name} {at_ms:?} {jti:?}");
        }
        assert_eq!(Revocations::parse(""), Ok(Revocations::default()));
    }

    #[test]
    fn a_file_in_which_anything_is_not_understood_is_refused_whole() {
        for (text, part) in [
            ("[[revoked]]\nsubject = 'alice'\n", "entry 1 that has neither"),
            ("[[revoked]]\ntoken = 'x'\n[[revoked]]\n", "entry 2 that has neither"),
            (
                "[[revoked]]\ntoken = 'x'\nsubject = 'a'\nissued_before = 2026-11-26T18:00:00Z\n",
                "entry 1 that has neither",
            ),
            ("[[revoked]]\nsubject = 'a'\nissued_before = 2026-11-26\n", "no time with an offset"),
            ("[[revoked]]\nsubject = 'a'\nissued_before = '2026-11-26T18:00:00Z'\n", "line 3"),
            ("[[revoked]]\nsubject = ''\nissued_before = 2026-11-26T18:00:00Z\n", "is empty"),
            ("\n[[revoke]]\n", "line 2"),
            ("[[revoked]]\njti = 'x'\n", "unknown field"),
            ("[[revoked]", "line 1"),
        ] {
            let error = Revocations::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("alice"), "{error}");
        }
        let many = "[[revoked]]\ntoken = 'x'\n".repeat(ENTRIES_MAX + 1);
        assert!(Revocations::parse(&many).unwrap_err().contains("more than 10000"));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![b'\n'; (FILE_BYTES_MAX + 1).try_into().unwrap()]).unwrap();
        assert!(Revocations::load(file.path()).unwrap_err().to_string().contains("larger"));
    }
}
