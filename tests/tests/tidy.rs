//! Promise: the code is laid out as its documents say, and the documents say what the code does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cowrite_server::{
    app::{Config, LIVE},
    metrics::Metrics,
};

/// The longest file, in lines that are neither tests nor comments.
const LINES_MAX: usize = 700;

/// What each module of the server may import besides itself: the table in `server/src/lib.rs`.
const LAYERS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("metrics", &[]),
    ("shutdown", &[]),
    ("time", &[]),
    ("auth", BASE),
    ("crdt", BASE),
    ("log", BASE),
    ("room", &["ids", "metrics", "shutdown", "time", "auth", "crdt", "log"]),
    ("exchange", &["ids", "metrics", "shutdown", "time", "crdt", "log"]),
    ("session", &["ids", "metrics", "shutdown", "time", "auth", "room"]),
    ("transport", &["ids", "metrics", "shutdown", "time", "session"]),
    (
        "app",
        &[
            "ids",
            "metrics",
            "shutdown",
            "time",
            "auth",
            "crdt",
            "log",
            "room",
            "exchange",
            "session",
            "transport",
        ],
    ),
];
const BASE: &[&str] = &["ids", "metrics", "shutdown", "time"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The files of the repository with this ending, which git would take.
fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with('.') || ["target", "node_modules", "data"].contains(&name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(ending) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} in {folder:?}");
    found
}

/// A file without its `mod tests { .. }` at the end, and without comments.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that a file names behind `crate::`, also in groups.
fn imports(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find("crate::") {
        let outside = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        rest = &rest[at + "crate::".len()..];
        if outside {
            continue;
        }
        let Some(group) = rest.strip_prefix('{') else {
            modules.extend(first_word(rest));
            continue;
        };
        let mut depth = 1_usize;
        let mut names = true;
        let mut chars = group.char_indices();
        while let (Some((i, c)), 1..) = (chars.next(), depth) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => names = depth == 1,
                c if names && c.is_alphabetic() => {
                    modules.extend(first_word(&group[i..]));
                    names = false;
                }
                _ => {}
            }
        }
    }
    modules
}

fn first_word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

#[test]
fn layers_import_only_what_is_below_them() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in files("server/src", ".rs") {
        let inside = path.strip_prefix("server/src").unwrap();
        let own = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "main"].contains(&own) {
            continue;
        }
        let may = layers.get(own).unwrap_or_else(|| panic!("{own} is in no layer"));
        for module in imports(&code(&text)) {
            if module != own && !may.contains(&&module[..]) {
                wrong.push(format!("{} imports {module}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_of_layers_is_the_one_in_the_documentation() {
    let text = fs::read_to_string(root().join("server/src/lib.rs")).unwrap();
    for (module, _) in LAYERS {
        assert!(text.contains(&format!("`{module}`")), "{module} is not in the table of lib.rs");
        assert!(text.contains(&format!("pub mod {module};")), "{module} is not a module");
    }
    let modules = text.lines().filter(|line| line.starts_with("pub mod ")).count();
    assert_eq!(modules, LAYERS.len());
}

#[test]
fn only_the_folders_that_own_them_import_yrs_tonic_and_sqlite() {
    let owners: &[(&str, &[&str])] = &[
        // The command line is a client like others, and has a client's copy.
        // The tests of the exchange make what other servers have stored.
        ("yrs", &["server/src/crdt", "server/src/app/remote.rs", "server/src/exchange/tests.rs"]),
        ("tonic", &["server/src/transport", "server/src/app"]),
        ("axum", &["server/src/transport", "server/src/app"]),
        // An issuer publishes its keys over HTTP.
        ("hyper_util", &["server/src/transport", "server/src/auth/fetch.rs"]),
        // A database of others is another outside thing than our catalogue.
        (
            "rusqlite",
            &[
                "server/src/log",
                "server/src/exchange/hocuspocus.rs",
                "server/src/exchange/tests.rs",
                "server/src/exchange/error.rs",
            ],
        ),
        ("jsonwebtoken", &["server/src/auth"]),
    ];
    for (path, text) in files("server/src", ".rs") {
        for (library, folders) in owners {
            let used = code(&text)
                .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .any(|word| word == *library || word.starts_with(&format!("{library}::")));
            let owned = folders.iter().any(|folder| path.starts_with(folder));
            assert!(owned || !used, "{} uses {library}", path.display());
        }
    }
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    for (path, text) in files("", ".rs") {
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
    }
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for (path, text) in files("", ".rs") {
        let lines = code(&text).lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn nothing_is_left_to_be_done() {
    // In two parts, so that this file is no find.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    for ending in [".rs", ".proto", ".toml", ".md", ".html"] {
        for (path, text) in files("", ending) {
            for mark in marks {
                assert!(!text.contains(mark), "{} has a {mark}", path.display());
            }
        }
    }
}

#[test]
fn no_path_of_somebodys_machine_is_in_the_files() {
    for ending in [".rs", ".proto", ".toml", ".md", ".html"] {
        for (path, text) in files("", ending) {
            for home in [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")] {
                assert!(!text.contains(home), "{} names {home}", path.display());
            }
        }
    }
}

/// The first column of the tables of a document, without its back-quotes.
fn first_column(document: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(document)).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().unwrap().to_owned()).collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let text = Metrics::new().encode().unwrap();
    let mut registered: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    // Families without a member yet are not in the text; their names are in the source.
    let source = fs::read_to_string(root().join("server/src/metrics.rs")).unwrap();
    for literal in code(&source).split('"').skip(1).step_by(2) {
        let is_name = literal.contains('_') || registered.contains(&format!("cowrite_{literal}"));
        if is_name && literal.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
            let with_unit = format!("cowrite_{literal}_seconds");
            if !registered.contains(&with_unit) {
                registered.insert(format!("cowrite_{literal}"));
            }
        }
    }
    assert_eq!(first_column("docs/metrics.md"), registered);
}

#[test]
fn the_keys_that_change_without_a_restart_are_listed() {
    let text = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let section = text.split("\n## What changes without a restart").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let listed: Vec<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix("- `"))
        .map(|line| line.trim_end_matches('`'))
        .collect();
    assert_eq!(listed, LIVE);
}

#[test]
fn every_key_of_the_configuration_is_documented_with_its_default() {
    fn keys(table: &toml::Table, prefix: &str, found: &mut BTreeMap<String, String>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                toml::Value::Table(inner) => keys(inner, &key, found),
                value => drop(found.insert(key, value.to_string())),
            }
        }
    }
    let mut defaults = BTreeMap::new();
    keys(&toml::Table::try_from(Config::default()).unwrap(), "", &mut defaults);
    let document = "docs/configuration.md";
    let names: BTreeSet<_> = defaults.keys().cloned().collect();
    assert_eq!(first_column(document), names);
    let text = fs::read_to_string(root().join(document)).unwrap();
    for (key, default) in defaults {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{key}`"))).unwrap();
        let told = row.split('|').nth(2).unwrap().trim().trim_matches('`');
        assert_eq!(told, default, "the default of {key}");
    }
}

/// Whether `text` has a test of this name.
fn has_test(text: &str, name: &str) -> bool {
    let heads = [format!("fn {name}("), format!("async fn {name}(")];
    let mut above: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim) {
        if heads.iter().any(|head| line.starts_with(head)) {
            let mut attributes = above.iter().rev().take_while(|line| line.starts_with('#'));
            return attributes.any(|line| line.contains("test"));
        }
        above.push(line);
    }
    false
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let text = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let named: BTreeSet<_> =
        text.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::")).collect();
    let (tests, units) = (files("tests/tests", ".rs"), files("server/src", ".rs"));
    let mut checked = 0;
    for (place, name) in named.into_iter().filter(|named| *named != ("name", "test")) {
        let file = Path::new("tests/tests").join(place).with_extension("rs");
        let folder = Path::new("server/src").join(place);
        let inside = |path: &Path| path.starts_with(&folder) || path.with_extension("") == folder;
        let there = tests.iter().filter(|(path, _)| *path == file);
        let mut there = there.chain(units.iter().filter(|(path, _)| inside(path)));
        assert!(there.any(|(_, text)| has_test(text, name)), "there is no test {place}::{name}");
        checked += 1;
    }
    assert!(checked > 50, "{checked} tests are named");
}
