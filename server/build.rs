//! Generates the server side of the collaboration service with a codec of its own: its responses are
//! frames that were encoded once and are shared by all sessions, which no message type can express.
//! And puts the built pages into the binary, if they were built.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use tonic_build::manual::{Builder, Method, Service};

fn main() -> io::Result<()> {
    collaboration_service();
    pages()
}

fn collaboration_service() {
    let codec = "crate::transport::codec::FrameCodec";
    let frames = "crate::transport::codec::Frames";
    let service = Service::builder()
        .name("CollaborationService")
        .package("cowrite.v1")
        .method(
            Method::builder()
                .name("edit")
                .route_name("Edit")
                .input_type("cowrite_proto::v1::EditRequest")
                .output_type(frames)
                .codec_path(codec)
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .method(
            Method::builder()
                .name("subscribe")
                .route_name("Subscribe")
                .input_type("cowrite_proto::v1::SubscribeRequest")
                .output_type(frames)
                .codec_path(codec)
                .server_streaming()
                .build(),
        )
        .method(
            Method::builder()
                .name("publish")
                .route_name("Publish")
                .input_type("cowrite_proto::v1::PublishRequest")
                .output_type("cowrite_proto::v1::PublishResponse")
                .codec_path("tonic_prost::ProstCodec")
                .build(),
        )
        .build();
    Builder::new().build_client(false).compile(&[service]);
}

/// Writes `pages.rs`: a table of the files of the web client's demo. Empty where it was not built,
/// because the server builds without Node.
fn pages() -> io::Result<()> {
    let demo = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../web-client/demo");
    let built = demo.join("dist");
    println!("cargo:rerun-if-changed=build.rs");
    let mut files = Vec::new();
    if built.join("index.html").is_file() {
        println!("cargo:rerun-if-changed={}", built.display());
        collect(&built, &mut files)?;
    } else if demo.is_dir() {
        // Changes when it is built.
        println!("cargo:rerun-if-changed={}", demo.display());
    }
    files.sort();
    let mut table = String::from("&[\n");
    for file in files.iter().filter(|file| extension(file) != "gz") {
        let path = file.strip_prefix(&built).map_err(io::Error::other)?;
        let mut zipped = file.clone().into_os_string();
        zipped.push(".gz");
        let zipped = PathBuf::from(zipped);
        let zipped = zipped
            .is_file()
            .then(|| format!("Some(include_bytes!({:?}))", zipped.display().to_string()));
        writeln!(
            table,
            "    Page {{ path: {:?}, kind: {:?}, bytes: include_bytes!({:?}), gzip: {} }},",
            path.display().to_string(),
            kind(file)?,
            file.display().to_string(),
            zipped.as_deref().unwrap_or("None"),
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("]\n");
    fs::write(Path::new(&variable("OUT_DIR")?).join("pages.rs"), table)
}

fn variable(name: &str) -> io::Result<String> {
    // Build scripts get everything by the environment.
    #[allow(clippy::disallowed_methods)]
    env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

fn kind(path: &Path) -> io::Result<&'static str> {
    Ok(match extension(path) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        other => return Err(io::Error::other(format!("no content type for .{other}: {path:?}"))),
    })
}
