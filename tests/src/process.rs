//! The server as a process of its own, which can be killed.

use std::{
    ffi::OsStr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use std::net::SocketAddr;

use cowrite_server::shutdown::Tasks;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::{PATIENCE, soon};

/// A `cowrite serve` that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    address: SocketAddr,
    admin: SocketAddr,
    /// What it has logged since it serves, without colours.
    said: Arc<Mutex<String>>,
}

/// The command, which cargo has built next to the tests.
fn binary() -> &'static Path {
    static BINARY: OnceLock<std::path::PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("the path of the test");
        let debug = test.parent().and_then(Path::parent).expect("target/debug/deps");
        let binary = debug.join("cowrite-under-test");
        assert!(binary.exists(), "{} was not built", binary.display());
        binary
    })
}

/// The command `cowrite` with these words, without settings of whoever runs the tests.
#[must_use]
pub fn cowrite(words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COWRITE_") {
            command.env_remove(name);
        }
    }
    command
}

impl ServerProcess {
    /// A server on `data` with these further settings, as environment variables without their
    /// prefix: `("ROOM__CHECKPOINT_UPDATES", "10")`. Returns when it serves.
    pub async fn start(data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::wrapped(&[], data, settings).await
    }

    /// As [`Self::start`], with the command as the last arguments of `wrapper`.
    pub async fn wrapped(wrapper: &[&str], data: &Path, settings: &[(&str, &str)]) -> Self {
        Self::try_start(wrapper, data, settings).await.expect("the server starts")
    }

    /// As [`Self::wrapped`].
    ///
    /// # Errors
    ///
    /// The process ended before it served. What it said is on standard error.
    pub async fn try_start(
        wrapper: &[&str],
        data: &Path,
        settings: &[(&str, &str)],
    ) -> std::io::Result<Self> {
        let data = data.as_os_str();
        let words = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"];
        let words = words.map(OsStr::new).into_iter().chain([data]);
        Self::spawn(wrapper, words, settings).await
    }

    /// A server that has everything from a configuration file. Returns when it serves.
    pub async fn configured(file: &Path) -> Self {
        let words = ["serve", "--config"].map(OsStr::new).into_iter().chain([file.as_os_str()]);
        Self::spawn(&[], words, &[]).await.expect("the server starts")
    }

    async fn spawn<'a>(
        wrapper: &'a [&str],
        words: impl Iterator<Item = &'a OsStr>,
        settings: &[(&str, &str)],
    ) -> std::io::Result<Self> {
        let mut all = wrapper.iter().map(OsStr::new).chain([binary().as_os_str()]).chain(words);
        let mut command = Command::new(all.next().expect("the command at least"));
        command
            .args(all)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COWRITE_") {
                command.env_remove(name);
            }
        }
        for (name, value) in settings {
            command.env(format!("COWRITE_{name}"), value);
        }
        let mut child = command.spawn()?;
        let mut stderr = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
        let url = soon("the first line of the server", stdout.next_line()).await?;
        let mut admin = None;
        let mut said = String::new();
        while let Ok(Some(line)) = soon("the log of the server", stderr.next_line()).await {
            said.push_str(&line);
            said.push('\n');
            // The line that says "serving" names both addresses.
            admin = admin_in(&plain(&line));
            if admin.is_some() {
                break;
            }
        }
        let address = url.and_then(|url| url.split_once("://")?.1.parse().ok());
        let (Some(address), Some(admin)) = (address, admin) else {
            return Err(std::io::Error::other(format!("the server does not serve: {said}")));
        };
        // A pipe that nobody reads would stop the server; a test that fails shows what it said.
        let said = Arc::new(Mutex::new(String::new()));
        let log = Arc::clone(&said);
        Tasks::new().spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                eprintln!("server: {line}");
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&plain(&line));
                log.push('\n');
            }
        });
        Ok(Self { child, address, admin, said })
    }

    /// Where clients come in.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators look.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where clients come in, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id().expect("a process that was not waited for")
    }

    /// What it has logged since it serves, without colours.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills the process as a loss of power does: with SIGKILL.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("the process is killed");
    }

    /// Asks the process to end, with SIGTERM.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends a signal by its name.
    pub async fn signal(&self, name: &str) {
        signal(self.id(), name).await;
    }

    /// Waits for the end of the process; returns its exit code, `None` after a signal.
    pub async fn wait(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the server ends").expect("the server was started").code()
    }
}

async fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status().await;
    assert!(sent.expect("kill(1) is there").success(), "the process takes the signal");
}

/// The address of the admin listener, if a log line without colours names it: as text or as JSON.
fn admin_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("admin=").or_else(|| line.split_once("\"admin\":\""))?;
    rest.split(['"', ' ']).next()?.parse().ok()
}

/// A log line without colours.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}
