//! Generates messages, clients and servers from the `.proto` files, without `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 3] =
    ["cowrite/v1/collaboration.proto", "cowrite/v1/document.proto", "cowrite/v1/error.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=cowrite");
    let descriptors = protox::compile(PROTOS, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    // `compile_fds` does not write the descriptor set that reflection needs.
    fs::write(out.join("cowrite.v1.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
