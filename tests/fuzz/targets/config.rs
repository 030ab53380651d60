//! Configurations: any text, as a file and as the environment, is one that can be used, or is refused
//! with a sentence.
#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock};

use cowrite_fuzz::in_time;
use cowrite_server::app::{Config, config::Sources};
use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    // For as long as the process runs.
    directory.keep().join("cowrite.toml")
});

fuzz_target!(|input: &str| {
    fs::write(&*FILE, input).expect("the file can be written");
    let pairs = input.lines().filter_map(|line| line.split_once('='));
    let environment = pairs.map(|(key, value)| (format!("COWRITE_{key}"), value.to_owned()));
    let environment = environment.collect();
    in_time(|| {
        let file = Sources { file: Some(&FILE), ..Sources::default() };
        for sources in [file, Sources { environment, ..Sources::default() }] {
            match Config::load(sources) {
                Ok(config) => config.validate().expect("what was loaded is valid"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    });
});
